//! A small world: hosts joined by a network in memory, each with a simulated hypervisor, journal and monitor.
//!
//! Everything happens at an instant of the simulated clock, which jumps to the next one; what is drawn is drawn from the seed.
//! The checkers (`check`) look at the hypervisors and journals, not at what the hosts believe.
#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a world for tests only")]

pub(crate) mod check;
pub(crate) mod hypervisor;
pub(crate) mod journal;
pub(crate) mod scene;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use decide::host::story::{Note, Step};
use decide::host::{Action, Ask, Event, Host};
use decide::log::{Gave, Line};
use decide::migrate::hypervisor::HypervisorReport;
use decide::policy::settings::Settings;
use decide::units::{HostId, MoveId, Time, VmId};
use decide::wire::message::Message;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use check::Checks;
use hypervisor::{Hypervisor, Step as CopyStep};
use journal::Journal;
use scene::{Guest, Machine};

/// One host: its agent, which may be down, and what outlives it.
pub(crate) struct Site {
    pub(crate) host: Option<Host>,
    pub(crate) machine: Machine,
    pub(crate) hypervisor: Hypervisor,
    pub(crate) journal: Journal,
    /// Starts of the agent so far: what was on its way to an earlier life is lost.
    pub(crate) life: u32,
}

/// What the network does to messages, of a thousand each.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Net {
    pub(crate) lost: u32,
    pub(crate) twice: u32,
    /// Messages take up to this long.
    pub(crate) delay_max: Duration,
}

/// What is on its way.
pub(crate) enum Coming {
    Event { to: u8, life: u32, event: Box<Event> },
    Message { to: u8, message: Message },
    Gossip { to: u8, from: SocketAddr, bytes: Vec<u8> },
    Written { at: u8, life: u32, number: u64 },
    Copy { at: u8, vm: VmId, number: u64, step: CopyStep },
    Reading { at: u8 },
    Restart { at: u8 },
}

/// Sees a message before it is sent; `false` drops it.
pub(crate) type Filter = Box<dyn FnMut(u8, u8, &Message) -> bool>;

pub(crate) struct World {
    pub(crate) now: Time,
    pub(crate) sites: BTreeMap<u8, Site>,
    pub(crate) guests: BTreeMap<VmId, Guest>,
    pub(crate) settings: Settings,
    pub(crate) net: Net,
    pub(crate) filter: Option<Filter>,
    pub(crate) notes: Vec<(Time, u8, Note)>,
    pub(crate) replies: Vec<Result<MoveId, String>>,
    pub(crate) commands: Vec<(u8, MoveId, VmId, String)>,
    pub(crate) checks: Checks,
    /// The event logs of all hosts' last lives, as their agents would record them, if wanted.
    pub(crate) logs: Option<BTreeMap<u8, Vec<Line>>>,
    /// Every action of every host, if wanted.
    pub(crate) trace: Option<String>,
    pub(crate) rng: ChaCha8Rng,
    coming: BTreeMap<(Time, u64), Coming>,
    sent: u64,
}

pub(crate) fn host_id(n: u8) -> HostId {
    HostId(u128::from(n) << 96)
}

pub(crate) fn address(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, n], 7400))
}

pub(crate) fn number(host: HostId) -> u8 {
    u8::try_from(host.0 >> 96).unwrap()
}

fn site_at(address: SocketAddr) -> u8 {
    match address.ip() {
        std::net::IpAddr::V4(ip) => ip.octets()[3],
        std::net::IpAddr::V6(_) => unreachable!("all hosts of the world have IPv4"),
    }
}

impl World {
    pub(crate) fn new(seed: u64, settings: Settings) -> World {
        World {
            now: Time(1_000_000),
            sites: BTreeMap::new(),
            guests: BTreeMap::new(),
            settings,
            net: Net { delay_max: Duration::from_millis(1), ..Net::default() },
            filter: None,
            notes: Vec::new(),
            replies: Vec::new(),
            commands: Vec::new(),
            checks: Checks::default(),
            logs: None,
            trace: None,
            rng: ChaCha8Rng::seed_from_u64(seed),
            coming: BTreeMap::new(),
            sent: 0,
        }
    }

    /// One of `of`, drawn.
    pub(crate) fn draw(&mut self, of: u32) -> u32 {
        self.rng.next_u32() % of.max(1)
    }

    pub(crate) fn later(&mut self, after: Duration, coming: Coming) {
        self.sent += 1;
        self.coming.insert((self.now.plus(after), self.sent), coming);
    }

    /// Lets time pass.
    pub(crate) fn run(&mut self, span: Duration) {
        self.until(span, |_| false);
    }

    /// Lets time pass until `reached`; whether it was.
    pub(crate) fn until(&mut self, at_most: Duration, reached: impl Fn(&World) -> bool) -> bool {
        let end = self.now.plus(at_most);
        while !reached(self) {
            let first = self.coming.first_key_value().map(|((at, _), _)| *at);
            let due = |site: &Site| site.host.as_ref().and_then(Host::deadline);
            let tick = self.sites.values().filter_map(due).min();
            let next = first.into_iter().chain(tick).min().unwrap_or(end);
            if next > end {
                self.now = end;
                return false;
            }
            self.now = self.now.max(next);
            self.step();
        }
        true
    }

    fn step(&mut self) {
        let now = self.now;
        if let Some(first) = self.coming.first_entry().filter(|first| first.key().0 <= now) {
            let coming = first.remove();
            self.arrive(coming);
        } else {
            let due = |site: &Site| site.host.as_ref().and_then(Host::deadline);
            let at = self.sites.iter().find(|(_, site)| due(site).is_some_and(|at| at <= now));
            let at = *at.expect("somebody is due").0;
            self.handle(at, Event::Tick);
        }
        check::all(self);
    }

    fn arrive(&mut self, coming: Coming) {
        match coming {
            Coming::Event { to, life, event } if self.sites[&to].life == life => {
                self.handle(to, *event)
            }
            Coming::Event { .. } => {}
            Coming::Message { to, message } => self.handle(to, Event::Message(message)),
            Coming::Gossip { to, from, bytes } => self.handle(to, Event::Gossip { from, bytes }),
            Coming::Written { at, life, number } => {
                let site = self.sites.get_mut(&at).unwrap();
                if site.life == life && site.host.is_some() {
                    let event = site.journal.write(number);
                    self.handle(at, event);
                }
            }
            Coming::Copy { at, vm, number, step } => hypervisor::copy(self, at, vm, number, step),
            Coming::Reading { at } => {
                let reading = scene::read(self, at);
                self.handle(at, Event::Reading(reading));
                self.later(Duration::from_secs(1), Coming::Reading { at });
            }
            Coming::Restart { at } => self.restart(at),
        }
    }

    /// Gives an agent one event, and does what it wants.
    pub(crate) fn handle(&mut self, at: u8, event: Event) {
        let Some(host) = self.sites.get_mut(&at).unwrap().host.as_mut() else { return };
        let mut actions = Vec::new();
        let now = self.now;
        let mut log = self.logs.as_mut().and_then(|logs| logs.get_mut(&at));
        log.iter_mut().for_each(|log| log.push(Line::Event { now, event: event.clone() }));
        host.handle(now, event, &mut actions);
        let gave = || Line::Gave(Gave::of(&actions, host.deadline()));
        log.into_iter().for_each(|log| log.push(gave()));
        self.perform(at, actions);
    }

    pub(crate) fn perform(&mut self, at: u8, actions: Vec<Action>) {
        for action in actions {
            if let Some(trace) = &mut self.trace {
                writeln!(trace, "{} {at} {action:?}", self.now.0).unwrap();
            }
            match action {
                Action::Send { to, message, .. } => self.send(at, number(to), &message),
                Action::Cast { message, known } => {
                    known.into_iter().for_each(|to| self.send(at, site_at(to), &message));
                }
                Action::Gossip { to, bytes } => {
                    let coming = Coming::Gossip { to: site_at(to), from: address(at), bytes };
                    let delay = self.delay(Duration::from_millis(1));
                    self.later(delay, coming);
                }
                Action::Persist { number, records } => {
                    let site = self.sites.get_mut(&at).unwrap();
                    site.journal.ask(number, records);
                    let life = site.life;
                    self.later(Duration::from_millis(2), Coming::Written { at, life, number });
                }
                Action::Hypervisor(id, vm, command) => {
                    self.commands.push((at, id, vm, format!("{command:?}")));
                    hypervisor::command(self, at, id, vm, command);
                }
                Action::Note(note) => self.notes.push((self.now, at, note)),
                Action::Reply { answer, .. } => self.replies.push(answer),
            }
        }
    }

    fn delay(&mut self, at_most: Duration) -> Duration {
        let micros = u32::try_from(at_most.as_micros()).unwrap();
        Duration::from_micros(100 + u64::from(self.draw(micros)))
    }

    fn send(&mut self, from: u8, to: u8, message: &Message) {
        if self.filter.as_mut().is_some_and(|filter| !filter(from, to, message)) {
            return;
        }
        let copies = if self.draw(1000) < self.net.twice { 2 } else { 1 };
        for _ in 0..copies {
            if self.draw(1000) >= self.net.lost {
                let delay = self.delay(self.net.delay_max);
                self.later(delay, Coming::Message { to, message: message.clone() });
            } else if self.draw(2) == 0 {
                let why = "no answer".to_owned();
                let event = Event::Undelivered { to: host_id(to), message: message.clone(), why };
                self.tell(from, Duration::from_millis(500), event);
            }
        }
    }

    /// An event that an agent will have, if it is still the same one.
    pub(crate) fn tell(&mut self, to: u8, after: Duration, event: Event) {
        let life = self.sites[&to].life;
        self.later(after, Coming::Event { to, life, event: Box::new(event) });
    }

    pub(crate) fn report(&mut self, to: u8, id: MoveId, vm: VmId, report: HypervisorReport) {
        self.tell(to, Duration::from_millis(1), Event::Report(id, vm, report));
    }

    /// Asks an agent as a person does; its answer.
    pub(crate) fn ask(&mut self, at: u8, what: Ask) -> Result<MoveId, String> {
        self.handle(at, Event::Asked { number: 0, what });
        self.replies.pop().expect("an answer comes at once")
    }

    /// Whether a note of this step was made.
    pub(crate) fn noted(&self, step: Step) -> bool {
        self.notes.iter().any(|(_, _, note)| note.step == step)
    }

    /// The notes about moves, in words, one a line.
    pub(crate) fn story(&self) -> String {
        let left_out = [Step::Membership, Step::Adopted];
        let mut text = String::new();
        for (_, at, note) in self.notes.iter().filter(|(_, _, n)| !left_out.contains(&n.step)) {
            let peer = note.peer.map_or(String::new(), |p| format!(" [host{}]", number(p)));
            writeln!(text, "host{at} {:?}{peer}: {}", note.step, note.reason).unwrap();
        }
        text
    }

    /// Where the guest executes.
    pub(crate) fn runs_at(&self, vm: VmId) -> BTreeSet<u8> {
        let runs = |site: &&u8| self.sites[site].hypervisor.executes(vm);
        self.sites.keys().filter(runs).copied().collect()
    }
}
