//! One host: monitoring, policies, negotiation and migration joined. One `handle`, one `deadline`.
//!
//! **Invariant:** the same seed and the same events give the same actions, bit for bit.
//! **Invariant:** an action that depends on a record is given out only by the `handle` that hears that it is stored.
//! **Invariant:** every queue, reservation, retry and wait has a limit; early, late or repeated ticks do no harm.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::membership::doubles::Doubles;
use crate::membership::inventories::Inventories;
use crate::membership::journals::Journals;
use crate::membership::{Digest, Membership, Told};
use crate::migrate::hypervisor::HypervisorReport;
use crate::migrate::record::{Record, VmRecord};
use crate::migrate::{source as migrate_source, target as migrate_target};
use crate::negotiate::{self, source as negotiate_source, target as negotiate_target};
use crate::placement::admission::Offered;
use crate::policy::hot::{Crossed, HotWatch};
use crate::policy::rules::Excluded;
use crate::policy::rules::hours::LocalTimes;
use crate::policy::settings::Settings;
use crate::units::{HostId, MoveId, Time, VmId};
use crate::usage::Usage;
use crate::usage::history::Whose;
use crate::usage::load::Load;
use crate::wire::message::{Body, JournalMark, Message};

mod ahead;
mod answers;
mod balance;
pub mod best;
mod by_hand;
mod choose;
mod consolidate;
pub mod drain;
pub mod encryption;
mod events;
mod exchange;
pub mod exclusions;
pub mod foreign;
mod gossip;
mod groups;
mod incoming;
pub mod inventory;
mod judging;
mod loads;
mod migrating_in;
mod migrating_out;
mod modes;
pub mod obstacles;
mod others;
mod outgoing;
mod pay_back;
pub mod plan;
mod policies;
mod quorum;
mod recommended;
mod recovery;
mod resolve;
pub mod rests;
mod rules;
pub mod story;
mod vms;
mod waits;
mod watch;
pub mod witness;

use ahead::Ahead;
use drain::Drain;
use recommended::Recommended;
use rests::Lasting;

pub use events::{Action, Ask, Event, Start};
use exchange::Agreed;
use foreign::Comings;
use incoming::Incoming;
use loads::Demands;
use others::Others;
use outgoing::Outgoing;
use pay_back::PayBacks;
use rules::Members;
use story::{Note, Story, Tales};
pub use vms::Vm;
use waits::{Doing, InVain};

/// Whose timer, or whose record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum TimerKey {
    Asking(MoveId, negotiate_source::Timer),
    Offering(MoveId, negotiate_target::Timer),
    Out(MoveId, migrate_source::Timer),
    In(MoveId, migrate_target::Timer),
    /// Remind the source of an incoming side that waits.
    Remind(MoveId),
    /// Fetch inventories.
    Fetch,
}

/// Who waits for a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writer {
    Out(MoveId),
    In(MoveId),
    Adoption(VmId),
    /// The end of a move that was found open although its VM had gone on.
    Leftover(MoveId),
}

/// One host of the cluster.
#[derive(Debug)]
pub struct Host {
    id: HostId,
    name: String,
    address: SocketAddr,
    journal: JournalMark,
    incarnation: u32,
    first_incarnation: u32,
    offered: Offered,
    settings: Settings,
    limits: negotiate::Limits,
    rng: ChaCha8Rng,
    started: Time,
    membership: Membership,
    usage: Usage,
    demands: Demands,
    hot: HotWatch,
    /// All that the journal knows of VMs, those that are elsewhere too.
    records: BTreeMap<VmId, VmRecord>,
    vms: BTreeMap<VmId, Vm>,
    /// VMs that arrived of late: what each was expected to ask here, and since when.
    arrived: BTreeMap<VmId, (Load, Time)>,
    /// Names of VMs that others asked about, for people.
    heard_of: BTreeMap<VmId, String>,
    outgoing: BTreeMap<MoveId, Outgoing>,
    /// Room kept for VMs from elsewhere.
    target: negotiate_target::Target,
    incoming: BTreeMap<MoveId, Incoming>,
    /// What was agreed beside moves under way.
    agreed: Agreed,
    timers: BTreeMap<TimerKey, Time>,
    writers: BTreeMap<u64, Writer>,
    writes: u64,
    moves: u32,
    /// No balancing before: the host rests, or backs off after failures.
    rest_until: Time,
    rest_reason: String,
    /// Moves in vain that lengthened this host's waits, since one was made from here.
    failures: u32,
    /// When the copies of balancing moves began, of the last day.
    recent: Vec<Time>,
    /// What it does by itself, or why nothing, as of the last reading.
    doing: Doing,
    /// The digest that was said last, and until when it need not be said again.
    said: Option<(Time, Digest)>,
    /// The program at the taps counted something in the last reading.
    program: bool,
    noted_hot: Option<String>,
    /// What the other hosts are like, as last reckoned.
    others: Option<Others>,
    /// The last look for a VM that would even out hosts, if none was found.
    looked_in_vain: Option<InVain>,
    failures_of_policy: policies::Failures,
    /// Begins no balancing move: a person has said so, of this host alone.
    balancer_off: bool,
    /// What a person has this host leave where it is.
    excluded: BTreeMap<VmId, Excluded>,
    /// VMs that have come here without Evenkeel.
    foreign: BTreeMap<VmId, Comings>,
    /// All VMs are to leave this host.
    drain: Option<Drain>,
    /// This host sees less than half of the cluster, in words.
    sees_few: Option<String>,
    recommended: Recommended,
    /// VMs whose record is not on disk as it is here.
    unwritten: BTreeSet<VmId>,
    /// What needs a person; with the end of its move it is over.
    alarms: Vec<Note>,
    tales: Tales,
    /// This host's journal was set back before the agent started.
    doubted: bool,
    /// The other hosts' journals, as heard.
    journals: Journals,
    /// The other hosts' VMs, as fetched.
    inventories: Inventories,
    /// VMs that seem to run on two hosts.
    doubles: Doubles,
    /// Some list of VMs, this host's included, is not as it was when it was last looked at.
    lists_changed: bool,
    listed_hash: u64,
    /// Another host has this one's id: neither may act as if it were alone.
    frozen: Option<String>,
    /// What the calendar says, as it was last told.
    local_times: Option<LocalTimes>,
    /// Where else VMs are of the groups of VMs here.
    members: Members,
    refused_to_join: Option<groups::RefusedToJoin>,
    /// What moves have brought.
    pay_backs: PayBacks,
    /// What a plan takes for made.
    ahead: Ahead,
    lasting: Lasting,
}

/// Alarms kept for display.
const ALARMS_MAX: usize = 50;

impl Host {
    /// A host whose agent has just started; what its journal had open is taken up.
    pub fn new(start: Start, now: Time, actions: &mut Vec<Action>) -> Host {
        let limits = negotiate::Limits::default();
        let me = start.peer();
        let mut host = Host {
            id: start.id,
            name: start.name,
            address: start.address,
            journal: start.journal,
            incarnation: start.incarnation,
            first_incarnation: start.first_incarnation,
            offered: start.offered,
            settings: start.settings,
            limits,
            rng: ChaCha8Rng::seed_from_u64(start.seed),
            started: now,
            membership: Membership::new(me, start.seed, now),
            usage: Usage::default(),
            demands: Demands::default(),
            hot: HotWatch::default(),
            records: start.vms,
            vms: BTreeMap::new(),
            arrived: BTreeMap::new(),
            heard_of: BTreeMap::new(),
            outgoing: BTreeMap::new(),
            target: negotiate_target::Target::new(limits),
            incoming: BTreeMap::new(),
            agreed: Agreed::default(),
            timers: BTreeMap::new(),
            writers: BTreeMap::new(),
            writes: 0,
            moves: 0,
            rest_until: Time::default(),
            rest_reason: String::new(),
            failures: 0,
            recent: Vec::new(),
            doing: Doing::default(),
            said: None,
            program: false,
            noted_hot: None,
            others: None,
            looked_in_vain: None,
            failures_of_policy: policies::Failures::default(),
            balancer_off: false,
            excluded: BTreeMap::new(),
            foreign: BTreeMap::new(),
            drain: None,
            sees_few: None,
            recommended: Recommended::default(),
            unwritten: BTreeSet::new(),
            alarms: Vec::new(),
            tales: Tales::default(),
            doubted: start.doubt.is_some(),
            journals: Journals::default(),
            inventories: Inventories::new(start.seed),
            doubles: Doubles::default(),
            lists_changed: false,
            listed_hash: 0,
            frozen: None,
            local_times: None,
            members: Members::default(),
            refused_to_join: None,
            pay_backs: PayBacks::default(),
            ahead: Ahead::default(),
            lasting: Lasting::default(),
        };
        actions.push(Action::Recall(Whose::Host));
        host.recover(now, start.moves, start.doubt.as_deref(), actions);
        host
    }

    /// Takes one event at `now`; what is to be done is added to `actions`.
    pub fn handle(&mut self, now: Time, event: Event, actions: &mut Vec<Action>) {
        self.demands.forget();
        self.doing.may_change();
        if event.frees() {
            self.looked_in_vain = None;
        }
        self.expire(now, actions);
        match event {
            Event::Tick => {}
            Event::Join(address) => self.join(now, address, actions),
            Event::Reading(reading) => self.reading(now, reading, actions),
            Event::Message(message) => self.message(now, message, actions),
            Event::BadHistory { from, move_id, why } => {
                if from == move_id.host && from != self.id && self.frozen.is_none() {
                    self.history_came(now, move_id, Err(why), actions);
                }
            }
            Event::Undelivered { to, message, why } => {
                self.undelivered(now, to, &message, &why, actions)
            }
            Event::Gossip { from, bytes } => self.gossip(now, from, &bytes, actions),
            Event::Inventory { host, fetched } => self.inventory_came(now, host, fetched, actions),
            Event::BadInput(what) => actions.push(Action::Note(Note::bad_input(what))),
            Event::Sighting(sighting) => self.sighting(now, sighting, actions),
            Event::Report(move_id, vm, report) => self.report(now, move_id, vm, report, actions),
            Event::Stored { number, generation } => {
                self.stored(now, number, Ok(generation), actions)
            }
            Event::StoreFailed { number, why } => self.stored(now, number, Err(why), actions),
            Event::Asked { number, what } => self.asked(now, number, &what, actions),
            Event::Recalled { whose, quarters, past } => self.recalled(now, whose, quarters, &past),
            Event::Balancer { on } => self.switch_balancer(on, actions),
            Event::Excluded { vm, excluded } => self.exclude(vm, excluded, actions),
            Event::Drain(drain) => self.set_drain(drain, actions),
            Event::Rests(rests) => self.recall_rests(now, rests),
            Event::Settings(settings) => self.set(*settings, actions),
            Event::LocalTimes(times) => {
                self.local_times = Some(times);
                self.end_exclusions(actions);
            }
        }
        self.keep_rests(now, actions);
    }

    /// When to call `handle` with `Tick` at the latest.
    pub fn deadline(&self) -> Option<Time> {
        self.timers.values().copied().chain(self.membership.deadline()).min()
    }

    fn expire(&mut self, now: Time, actions: &mut Vec<Action>) {
        let due: Vec<TimerKey> =
            self.timers.iter().filter(|(_, at)| **at <= now).map(|(key, _)| *key).collect();
        for key in due {
            // An earlier one may have ended or renewed it.
            if self.timers.get(&key).is_none_or(|at| *at > now) {
                continue;
            }
            self.timers.remove(&key);
            match key {
                TimerKey::Asking(id, timer) => {
                    self.asking(now, id, negotiate_source::Event::Timeout(timer), actions)
                }
                TimerKey::Offering(id, timer) => {
                    self.offering(now, id, negotiate_target::Event::Timeout(timer), actions)
                }
                TimerKey::Out(id, timer) => {
                    self.out(now, id, migrate_source::Event::Timeout(timer), actions)
                }
                TimerKey::In(id, timer) => {
                    self.inward(now, id, migrate_target::Event::Timeout(timer), actions)
                }
                TimerKey::Remind(id) => self.remind_again(now, id, actions),
                TimerKey::Fetch => self.fetch(now, actions),
            }
        }
        self.tick_membership(now, actions);
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "whatever is not its sender's part is bad input"
    )]
    fn message(&mut self, now: Time, message: Message, actions: &mut Vec<Action>) {
        let Message { from, move_id, body } = message;
        // Two hosts with one id cannot be told apart by those who speak to them.
        if from == self.id || self.frozen.is_some() {
            return;
        }
        // Of a move only its two sides may speak, and each only its own part.
        let from_source = from == move_id.host;
        match body {
            Body::Request(request) if from_source => {
                self.requested(now, move_id, *request, actions)
            }
            Body::Release if from_source => self.released(now, move_id, actions),
            Body::Confirmation(confirmation) if from_source => {
                self.confirmed(now, move_id, *confirmation, actions)
            }
            Body::History(history) if from_source => {
                self.history_came(now, move_id, Ok(*history), actions)
            }
            Body::HandOver { vm, epoch, run, journal } if from_source => {
                self.handed_over(now, move_id, vm, epoch, Some(run), journal, actions);
            }
            Body::Inquiry { vm, epoch, journal } if from_source => {
                self.handed_over(now, move_id, vm, epoch, None, journal, actions);
            }
            Body::Acceptance { cost, in_return, encrypted, .. } if move_id.host == self.id => {
                let answer = (cost, in_return.map(|it| *it), encrypted);
                self.accepted(now, move_id, from, answer, actions)
            }
            Body::Refusal { why, known_epoch } if move_id.host == self.id => {
                self.refused(now, move_id, from, &why, known_epoch, actions)
            }
            Body::Readiness { cost, endpoint, journal } if move_id.host == self.id => {
                self.ready(now, move_id, from, cost, endpoint, journal, actions);
            }
            Body::Standing { vm, epoch, standing, journal } if move_id.host == self.id => {
                self.stands(now, move_id, from, (vm, epoch), standing, journal, actions);
            }
            Body::Measured { vm, load } if move_id.host == self.id => {
                self.measured(now, move_id, from, vm, load, actions)
            }
            Body::PayBack { vm, paid } if from_source => {
                self.paid_back(now, move_id, vm, paid, actions)
            }
            other => {
                let what = format!(
                    "{} about move {move_id} from {}, whose part it is not",
                    other.name(),
                    self.name_of(from)
                );
                actions.push(Action::Note(Note::bad_input(what)));
            }
        }
    }

    fn report(
        &mut self,
        now: Time,
        move_id: MoveId,
        vm: VmId,
        report: HypervisorReport,
        actions: &mut Vec<Action>,
    ) {
        if self.outgoing.get(&move_id).is_some_and(|out| out.vm == vm) {
            self.out_report(now, move_id, report, actions);
        } else if self.incoming.get(&move_id).is_some_and(|incoming| incoming.vm == vm) {
            self.in_report(now, move_id, report, actions);
        }
    }

    fn persist(&mut self, writer: Writer, records: Vec<Record>, actions: &mut Vec<Action>) {
        self.writes += 1;
        // Each write of a machine holds all that the one before it said: only its last is waited for. The answer to an
        // earlier one must not be taken for it.
        self.writers.retain(|_, earlier| *earlier != writer);
        self.writers.insert(self.writes, writer);
        actions.push(Action::Persist { number: self.writes, records });
    }

    fn stored(
        &mut self,
        now: Time,
        number: u64,
        result: Result<u64, String>,
        actions: &mut Vec<Action>,
    ) {
        let Some(writer) = self.writers.remove(&number) else { return };
        if let Ok(generation) = result {
            self.journal.generation = generation;
        }
        match (writer, result) {
            (Writer::Out(id), Ok(_)) => self.out(now, id, migrate_source::Event::Stored, actions),
            (Writer::Out(id), Err(why)) => {
                self.out(now, id, migrate_source::Event::StoreFailed(why), actions)
            }
            (Writer::In(id), Ok(_)) => self.inward(now, id, migrate_target::Event::Stored, actions),
            (Writer::In(id), Err(why)) => {
                self.inward(now, id, migrate_target::Event::StoreFailed(why), actions)
            }
            // If it cannot be written now, it is found again at the next start.
            (Writer::Leftover(_), _) => {}
            (Writer::Adoption(vm), Ok(_)) => self.adoption_stored(vm, actions),
            (Writer::Adoption(vm), Err(why)) => self.adoption_failed(vm, &why, actions),
        }
    }

    fn asked(&mut self, now: Time, number: u64, what: &Ask, actions: &mut Vec<Action>) {
        let answer = match *what {
            Ask::Move { vm, to } => self.move_by_hand(now, vm, to, false, actions),
            Ask::Force { vm, to } => self.move_by_hand(now, vm, to, true, actions),
            Ask::Apply { vm } => self.apply(now, vm, actions),
            Ask::Cancel(move_id) => self.cancel_by_hand(now, move_id, actions),
            Ask::Resolve { move_id, resolution, fenced } => {
                self.resolve_by_hand(now, move_id, resolution, fenced, actions)
            }
        };
        actions.push(Action::Reply { number, answer });
    }

    fn send(&self, to: HostId, move_id: MoveId, body: Body, actions: &mut Vec<Action>) {
        // A host that is not known any more cannot be reached; whoever depends on the answer has a timer.
        if let Some(address) = self.address_of(to) {
            actions.push(Action::Send {
                to,
                address,
                message: Message { from: self.id, move_id, body },
            });
        }
    }

    fn arm(&mut self, now: Time, key: TimerKey, after: Duration) {
        self.timers.insert(key, now.plus(after));
    }

    fn alarm(&mut self, note: Note, actions: &mut Vec<Action>) {
        if self.alarms.len() == ALARMS_MAX {
            self.alarms.remove(0);
        }
        self.alarms.push(note.clone());
        actions.push(Action::Note(note));
    }

    /// This host's id.
    pub fn id(&self) -> HostId {
        self.id
    }

    /// This host's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where this host's agent is reached.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The threshold that makes this host hot, if any.
    pub fn hot(&self, now: Time) -> Option<&Crossed> {
        self.hot.hot(now, &self.settings.hot)
    }

    /// The thresholds that the last reading crossed, hot or not yet.
    pub fn crossed(&self) -> impl Iterator<Item = &Crossed> {
        self.hot.crossed()
    }

    /// What the operator set.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The VMs here, those just released included.
    pub fn vms(&self) -> &BTreeMap<VmId, Vm> {
        &self.vms
    }

    /// What is being measured.
    pub fn usage(&self) -> &Usage {
        &self.usage
    }

    /// The other hosts.
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// From now on the other hosts are as told, not as heard: see [`Membership::tell`].
    pub fn tell_views(&mut self, views: Told) {
        self.membership.tell(views);
    }

    /// The moves from and to here, oldest first.
    pub fn stories(&self) -> impl DoubleEndedIterator<Item = &Story> {
        self.tales.all()
    }

    /// What needs a person, oldest first.
    pub fn alarms(&self) -> &[Note] {
        &self.alarms
    }

    /// Whether balancing moves may begin here, by a person's word about this host.
    pub fn balancer_on(&self) -> bool {
        !self.balancer_off
    }

    /// Why nothing is being done, or what is.
    pub fn doing(&self) -> &str {
        &self.doing.words
    }

    /// The reservations for VMs from elsewhere.
    pub fn reservations(&self) -> &negotiate_target::Target {
        &self.target
    }
}
