//! A world: hosts that run the production `Host`, joined by a network, each with a clock, disk, monitor and hypervisor of its own.
//!
//! Everything happens at an instant of the simulation's time, which jumps to the next one; what is drawn is drawn from the seed.
//! The checkers (`checks`) look at hypervisors, journals and what hosts say, not at how this module came to it.
//!
//! **Invariant:** the same seed and the same calls give the same actions of all hosts, in the same order.
//! **Boundary:** nothing here decides for a host; it carries out what `Host` wants, or fails to, as a machine would.

mod agents;
mod by_vm;
mod clock;
mod disk;
mod net;
mod queue;
mod readings;
pub mod scene;
mod talk;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::hash::{Hash as _, Hasher as _};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use decide::host::rests::Rests;
use decide::host::story::{Note, Step};
use decide::host::{Action, Ask, Event, Host};
use decide::log::{Gave, Line};
use decide::migrate::hypervisor::{HypervisorCommand, HypervisorReport, Sighting};
use decide::policy::settings::{Encryption, Here, Settings};
use decide::units::{HostId, MoveId, Time, VmId};
use decide::usage::history::Kept;
use decide::wire::message::Message;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::checks::Checks;
use crate::faults::Faults;
use crate::hash::Trace;
use crate::hypervisor::{Fleet, Said, Step as ProcessStep};
use queue::Queue;
use scene::{Guest, Machine};
use talk::Talks;

pub use by_vm::ByVm;
pub use clock::Clock;
pub use disk::Journal;
pub use net::{Net, Sent};

/// One host: its agent, which may be down, and what outlives it.
#[derive(Debug)]
pub struct Site {
    /// The agent, while it is up.
    pub host: Option<Host>,
    /// The hardware.
    pub machine: Machine,
    /// What its settings say of it alone.
    pub here: Here,
    /// Whether it has keys, and can encrypt copies.
    pub keyed: bool,
    /// What its agent is set to about that.
    pub encryption: Option<Encryption>,
    /// VMs that a person has its agent leave here.
    pub excluded: BTreeSet<VmId>,
    /// What its agents had kept of rests and counts.
    pub rests: Rests,
    /// What its disk has.
    pub journal: Journal,
    /// How long a write takes.
    pub write_takes: Duration,
    /// When the last write that was asked for ends: they end in their order.
    written: Time,
    /// Its clock.
    pub clock: Clock,
    /// Starts and ends of the agent so far: what was on its way to an earlier life is lost.
    pub life: u32,
    starts: u32,
    /// When its deadline is looked at next.
    tick: Option<Time>,
    /// When it was read last.
    read: Option<Time>,
}

/// What is on its way.
#[derive(Debug)]
pub(crate) enum Coming {
    Event { to: u16, life: u32, event: Box<Event> },
    Message { from: u16, to: u16, message: Box<Message>, connected: bool },
    Gossip { to: u16, from: SocketAddr, bytes: Vec<u8> },
    Fetch { from: u16, to: u16 },
    Written { at: u16, life: u32, number: u64 },
    Process(ProcessStep),
    Reading { at: u16 },
    Tick { at: u16 },
    Views,
    Restart { at: u16 },
    Fault(crate::faults::Due),
}

/// Sees a message before it is sent; `false` drops it.
pub type Filter = Box<dyn FnMut(u16, u16, &Message) -> bool + Send>;

/// A command that an agent gave its hypervisor.
#[derive(Clone, Debug)]
pub struct Ordered {
    /// When.
    pub when: Time,
    /// Which agent.
    pub at: u16,
    /// For which move.
    pub id: MoveId,
    /// Of which VM.
    pub vm: VmId,
    /// What.
    pub command: HypervisorCommand,
}

/// All there is.
pub struct World {
    /// The simulation's time.
    pub now: Time,
    /// The hosts.
    pub sites: BTreeMap<u16, Site>,
    /// The VMs.
    pub guests: ByVm<Guest>,
    /// What VMs send each other.
    pub talks: Talks,
    /// The hypervisors.
    pub fleet: Fleet,
    /// What all agents start with.
    pub settings: Settings,
    /// What the network does.
    pub net: Net,
    /// If set, hosts do not gossip, but are told so often what all are like.
    pub views_every: Option<Duration>,
    /// Whether usage histories travel. If not, those that come are empty.
    pub histories_travel: bool,
    /// Time between two readings of a monitor.
    pub read_every: Duration,
    /// Whether a host that waits is read only before something else comes to it: its guests do what they did.
    pub spares_readings: bool,
    /// Looks into messages.
    pub filter: Option<Filter>,
    /// What was noted, when and where.
    pub notes: Vec<(Time, u16, Note)>,
    /// What hosts gave to be kept of histories, if somebody wants it.
    pub kept: Option<Vec<(u16, Vec<Kept>)>>,
    /// Answers to what was asked.
    pub replies: Vec<Result<MoveId, String>>,
    /// Commands to hypervisors.
    pub commands: Vec<Ordered>,
    /// What must hold.
    pub checks: Checks,
    /// What goes wrong.
    pub faults: Faults,
    /// The event logs of all hosts' last lives, as their agents would record them, if wanted.
    pub logs: Option<BTreeMap<u16, Vec<Line>>>,
    /// Hash of every action of every host, in order, if it is wanted.
    pub trace: Trace,
    /// Whether it is.
    pub traced: bool,
    /// Events so far.
    pub events: u64,
    /// For all that is drawn, but faults.
    pub rng: ChaCha8Rng,
    coming: Queue<Coming>,
    reported: BTreeMap<(u16, VmId), Time>,
    spare: Vec<Action>,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("now", &self.now).finish_non_exhaustive()
    }
}

/// The id of a host.
pub fn host_id(n: u16) -> HostId {
    HostId(u128::from(n) << 96)
}

/// The address of a host's agent.
pub fn address(n: u16) -> SocketAddr {
    let [high, low] = n.to_be_bytes();
    SocketAddr::from(([10, 0, high, low], 7400))
}

/// The name of the nth host.
pub(crate) fn host_name(n: u16) -> String {
    format!("host{n}")
}

/// Which host has this id.
pub fn number(host: HostId) -> u16 {
    u16::try_from(host.0 >> 96).unwrap_or(u16::MAX)
}

fn site_at(address: SocketAddr) -> u16 {
    match address.ip() {
        IpAddr::V4(ip) => u16::from_be_bytes([ip.octets()[2], ip.octets()[3]]),
        IpAddr::V6(_) => unreachable!("all hosts of the world have IPv4"),
    }
}

impl World {
    /// An empty one.
    pub fn new(seed: u64, settings: Settings) -> World {
        World {
            now: Time(1_000_000),
            sites: BTreeMap::new(),
            guests: ByVm::default(),
            talks: Talks::default(),
            fleet: Fleet::default(),
            settings,
            views_every: None,
            histories_travel: true,
            read_every: Duration::from_secs(1),
            spares_readings: false,
            net: Net { delay_max: Duration::from_millis(1), ..Net::default() },
            filter: None,
            notes: Vec::new(),
            kept: None,
            replies: Vec::new(),
            commands: Vec::new(),
            checks: Checks::default(),
            faults: Faults::new(seed),
            logs: None,
            trace: Trace::default(),
            traced: true,
            events: 0,
            rng: ChaCha8Rng::seed_from_u64(seed),
            coming: Queue::default(),
            reported: BTreeMap::new(),
            spare: Vec::new(),
        }
    }

    /// One of `of`, drawn.
    pub fn draw(&mut self, of: u32) -> u32 {
        self.rng.next_u32() % of.max(1)
    }

    pub(crate) fn later(&mut self, after: Duration, coming: Coming) {
        self.coming.put(self.now.plus(after), coming);
    }

    /// Lets time pass. What must hold and does not is the caller's to look for: [`Checks::violations`].
    pub fn run(&mut self, span: Duration) {
        self.until(span, |_| false);
    }

    /// Lets time pass until `reached`, or until something that must hold does not; whether it was reached.
    pub fn until(&mut self, at_most: Duration, reached: impl Fn(&World) -> bool) -> bool {
        let end = self.now.plus(at_most);
        while !reached(self) {
            let next = self.coming.next().unwrap_or(end);
            if next > end || !self.checks.violations().is_empty() {
                self.now = self.now.max(end.min(next));
                return false;
            }
            self.now = self.now.max(next);
            let coming = self.coming.take().expect("it was just looked at");
            self.events += 1;
            self.arrive(coming);
        }
        true
    }

    fn arrive(&mut self, coming: Coming) {
        match coming {
            Coming::Event { to, life, event } => {
                if self.sites[&to].life == life {
                    self.handle(to, *event);
                }
            }
            Coming::Message { from, to, message, connected } => {
                self.come(from, to, *message, connected)
            }
            Coming::Gossip { to, from, bytes } => self.handle(to, Event::Gossip { from, bytes }),
            Coming::Fetch { from, to } => self.fetched(from, to),
            Coming::Written { at, life, number } => {
                let site = self.site(at);
                if site.life == life
                    && let Some(event) = site.journal.write(number)
                {
                    self.handle(at, event);
                }
            }
            Coming::Process(step) => self.fleet_does(|fleet, now, reaches, out| {
                fleet.step(now, reaches, step, out);
            }),
            Coming::Reading { at } => self.turn(at),
            Coming::Tick { at } => self.tick(at),
            Coming::Views => self.tell_views(Duration::MAX),
            Coming::Restart { at } => self.restart(at),
            Coming::Fault(due) => self.suffer(due),
        }
    }

    fn tick(&mut self, at: u16) {
        let now = self.now;
        let site = self.site(at);
        if site.tick != Some(now) {
            return;
        }
        site.tick = None;
        let due = site.host.as_ref().and_then(Host::deadline);
        if due.is_some_and(|due| due <= site.clock.shown(now)) {
            self.handle(at, Event::Tick);
        } else {
            self.arm(at);
        }
    }

    /// Sees to it that the host's deadline is not missed.
    fn arm(&mut self, at: u16) {
        let now = self.now;
        let site = self.site(at);
        let Some(deadline) = site.host.as_ref().and_then(Host::deadline) else { return };
        let when = site.clock.when(deadline).max(now);
        if site.tick.is_none_or(|tick| when < tick) {
            site.tick = Some(when);
            self.coming.put(when, Coming::Tick { at });
        }
    }

    /// A host's clock runs otherwise from now on: so its deadline comes at another instant.
    pub(crate) fn look_at_deadline(&mut self, at: u16) {
        self.site(at).tick = None;
        self.arm(at);
    }

    fn site(&mut self, at: u16) -> &mut Site {
        self.sites.get_mut(&at).expect("a host of this world")
    }

    /// Gives an agent one event, and does what it wants.
    pub fn handle(&mut self, at: u16, event: Event) {
        self.read_before(at);
        let now = self.now;
        let mut actions = std::mem::take(&mut self.spare);
        let site = self.sites.get_mut(&at).expect("a host of this world");
        let Some(host) = site.host.as_mut() else { return };
        let gossip = matches!(event, Event::Gossip { .. } | Event::Tick);
        let shown = site.clock.shown(now);
        let log = self.logs.as_mut().and_then(|logs| logs.get_mut(&at));
        let recorded = log.is_some().then(|| event.clone());
        host.handle(shown, event, &mut actions);
        if let Some((log, event)) = log.zip(recorded) {
            log.push(Line::Event { now: shown, event });
            log.push(Line::Gave(Gave::of(&actions, host.deadline())));
        }
        let idle = gossip && actions.iter().all(|a| matches!(a, Action::Gossip { .. }));
        self.perform(at, &mut actions);
        self.spare = actions;
        self.arm(at);
        if !idle {
            crate::checks::host(self, at);
        }
    }

    fn perform(&mut self, at: u16, actions: &mut Vec<Action>) {
        if self.traced {
            self.trace.write_u64(u64::from(at));
            self.trace.write_u64(self.now.0);
        }
        for action in actions.drain(..) {
            if self.traced {
                action.hash(&mut self.trace);
            }
            self.strike_at(at, &action);
            match action {
                Action::Send { to, message, .. } => {
                    self.checks.said(self.now, &message);
                    self.send(at, number(to), &message);
                }
                Action::Cast { message, known } => {
                    self.checks.said(self.now, &message);
                    known.into_iter().for_each(|to| self.cast(at, site_at(to), &message));
                }
                Action::Gossip { to, bytes } => self.send_gossip(at, site_at(to), bytes),
                Action::Fetch { from, .. } => self.fetch(at, number(from)),
                Action::Persist { number, records } => {
                    let now = self.now;
                    self.checks.writes(now, at, &records);
                    let site = self.site(at);
                    site.journal.ask(number, records);
                    site.written = site.written.max(now.plus(site.write_takes));
                    let (life, written) = (site.life, site.written);
                    self.coming.put(written, Coming::Written { at, life, number });
                }
                Action::Hypervisor(id, vm, command) => {
                    if matches!(command, HypervisorCommand::StartCopy(..)) {
                        self.checks.copies(id);
                    }
                    let when = self.now;
                    self.commands.push(Ordered { when, at, id, vm, command: command.clone() });
                    self.fleet_does(|fleet, now, reaches, out| {
                        fleet.command(now, reaches, at, id, vm, command, out);
                    });
                }
                Action::Keep(kept) => {
                    self.kept.iter_mut().for_each(|all| all.push((at, kept.clone())))
                }
                // Histories are not stored here: a host whose agent is started anew begins them anew.
                Action::Recall(_) | Action::DropHistory(_) => {}
                // What an agent keeps of a drain a test tells it again.
                Action::KeepLeft(..) => {}
                Action::KeepRests(rests) => self.site(at).rests = rests,
                // It goes wherever the VM goes, as where somebody else moves a domain of libvirt's.
                Action::Testify(vm, witness) => {
                    if let Some(guest) = self.guests.get_mut(&vm) {
                        guest.definition.witness = Some(witness);
                    }
                }
                Action::Note(note) => {
                    crate::checks::noted(self, at, &note);
                    self.notes.push((self.now, at, note));
                }
                Action::Reply { answer, .. } => self.replies.push(answer),
            }
        }
    }

    /// Something happens to hypervisors; what they say of it is passed on.
    pub(crate) fn fleet_does(
        &mut self,
        what: impl FnOnce(&mut Fleet, Time, crate::hypervisor::Reaches<'_>, &mut Vec<Said>),
    ) {
        let mut said = Vec::new();
        let net = &self.net;
        what(&mut self.fleet, self.now, &|from, to| net.reaches(from, to), &mut said);
        for said in said {
            match said {
                Said::Report { to, id, vm, report, after } => {
                    self.report(to, id, vm, report, after)
                }
                Said::Gone { at, vm, how } => {
                    let event = Event::Sighting(Sighting::Gone(vm, how));
                    self.tell(at, Duration::from_millis(1), event);
                }
                Said::Later { after, step } => self.later(after, Coming::Process(step)),
            }
        }
        crate::checks::fleet(self);
    }

    /// What is reported of one VM comes in its order.
    fn report(&mut self, to: u16, id: MoveId, vm: VmId, report: HypervisorReport, after: Duration) {
        let before = self.reported.get(&(to, vm)).copied().unwrap_or_default();
        let at = self.now.plus(after).max(before);
        self.reported.insert((to, vm), at);
        self.tell(to, at.since(self.now), Event::Report(id, vm, report));
    }

    /// An event that an agent will have, if it is still the same one.
    pub(crate) fn tell(&mut self, to: u16, after: Duration, event: Event) {
        let life = self.sites[&to].life;
        self.later(after, Coming::Event { to, life, event: Box::new(event) });
    }

    /// Asks an agent as a person does; its answer.
    ///
    /// # Errors
    /// The agent's reason not to, or that it is down.
    pub fn ask(&mut self, at: u16, what: Ask) -> Result<MoveId, String> {
        // What its agent does by that reading no person has asked for.
        self.read_before(at);
        self.checks.person_asks(matches!(what, Ask::Move { .. } | Ask::Force { .. }));
        self.handle(at, Event::Asked { number: 0, what });
        self.checks.person_asks(false);
        self.replies.pop().unwrap_or_else(|| Err("the agent is down".to_owned()))
    }

    /// Lends an agent that is up to whoever asks it something, and does what it wants then; a person may be behind it.
    pub fn lend(&mut self, at: u16, to: impl FnOnce(&mut Host) -> Vec<Action>) {
        self.read_before(at);
        let Some(host) = self.sites.get_mut(&at).and_then(|site| site.host.as_mut()) else {
            return;
        };
        let mut actions = to(host);
        if actions.is_empty() {
            return;
        }
        self.checks.person_asks(true);
        self.perform(at, &mut actions);
        self.arm(at);
        crate::checks::host(self, at);
        self.checks.person_asks(false);
    }

    /// Whether a note of this step was made.
    pub fn noted(&self, step: Step) -> bool {
        self.notes.iter().any(|(_, _, note)| note.step == step)
    }

    /// The notes about moves, in words, one a line.
    pub fn story(&self) -> String {
        let left_out = [Step::Membership, Step::Adopted];
        let mut text = String::new();
        for (_, at, note) in self.notes.iter().filter(|(_, _, n)| !left_out.contains(&n.step)) {
            // Writing to a string does not fail.
            let _ = writeln!(text, "host{at} {}", words(note));
        }
        text
    }

    /// What hosts noted of a VM (or of all), what they ordered, and what struck them, with the seconds since the beginning.
    pub fn tale(&self, of: Option<VmId>) -> String {
        let about = |vm: Option<VmId>| of.is_none() || vm == of;
        let notes = self.notes.iter().filter(|(_, _, note)| about(note.vm));
        let hosts: BTreeSet<u16> = notes.clone().map(|(_, at, _)| *at).collect();
        let notes = notes.map(|(when, at, note)| (*when, format!("host{at} {}", words(note))));
        let orders = self.commands.iter().filter(|ordered| about(Some(ordered.vm)));
        let orders = orders.map(|o| (o.when, format!("host{} orders {}", o.at, order(&o.command))));
        let faults = self.faults.told().iter().filter(|(_, at, _)| hosts.contains(at));
        let faults = faults.map(|(when, _, what)| (*when, format!("  -- {what}")));
        let mut all: Vec<(Time, String)> = notes.chain(orders).chain(faults).collect();
        all.sort_by_key(|(when, _)| *when);
        let seconds = |when: Time| when.since(Time(1_000_000)).as_secs_f64();
        all.iter().fold(String::new(), |mut text, (when, what)| {
            let _ = writeln!(text, "{:9.3} {what}", seconds(*when));
            text
        })
    }

    /// Where the guest executes.
    pub fn runs_at(&self, vm: VmId) -> BTreeSet<u16> {
        self.fleet.of(vm).filter(|(_, process)| process.executes()).map(|(at, _)| at).collect()
    }
}

fn words(note: &Note) -> String {
    let peer = note.peer.map_or(String::new(), |p| format!(" [host{}]", number(p)));
    format!("{:?}{peer}: {}", note.step, note.reason)
}

/// A command in a word.
fn order(command: &HypervisorCommand) -> String {
    let words = format!("{command:?}");
    words.split(['(', ' ']).next().unwrap_or_default().to_owned()
}
