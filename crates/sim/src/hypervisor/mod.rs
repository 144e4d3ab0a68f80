//! The hypervisors of all hosts: what their processes do, whoever watches. A copy goes on when the agents are dead.
//!
//! ```text
//!  source:  Running ─StartCopy▶ Copying: rounds ─converged▶ stopped ─SwitchOver▶ sending ─▶ (device) ─▶ PostMigrate
//!              ▲───────── fails, is cancelled: it runs on by itself (or, now and then, stays paused) ──┘
//!  target:  Incoming ───────────────────────────────────────────▶ IncomingComplete ─Resume▶ Running
//! ```
//!
//! Sans-IO: commands, steps and faults go in; reports, and what is to be done later, come out. The behaviour is QEMU's as it
//! was seen, failures included: a side whose peer died does not hear of it while the network between them is cut; with the
//! return path alone cut the source hangs in `device` while the target is complete.
//!
//! **Invariant:** once a guest has executed after another copy of it was made, that other copy is stale for ever.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use decide::migrate::hypervisor::{HypervisorReport as Report, Seen};
use decide::units::{BitsPerSec, MoveId, Time, VmId};

use precopy::{After, Precopy};

use crate::world::ByVm;

pub use precopy::Memory;

mod orders;
mod precopy;

/// A report is there after this long.
const REPORTED: Duration = Duration::from_millis(1);
/// Starting an incoming side takes this long.
const STARTS: Duration = Duration::from_millis(200);
/// The last round takes at least this long.
const LAST_ROUND: Duration = Duration::from_millis(50);
/// What waits for the network looks again after this long.
const AGAIN: Duration = Duration::from_millis(500);
/// One failed copy in so many leaves its guest paused.
const STAYS_PAUSED: u64 = 8;

/// How far a copy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The guest runs.
    Rounds,
    /// The guest is stopped, the last round waits to be let pass.
    PreSwitchover,
    /// The last round is being sent.
    Sending,
    /// All was sent, the target is complete; its answer is awaited.
    Device,
}

#[derive(Clone, Debug)]
struct Copy {
    stage: Stage,
    rounds: Precopy,
    /// The process that it is connected to.
    peer: u64,
}

/// One VM's process.
#[derive(Clone, Debug)]
pub struct Process {
    /// Counts processes: another number, another process.
    pub number: u64,
    /// What it does.
    pub seen: Seen,
    /// Whether its tap is on the bridge.
    pub tap: bool,
    /// The guest has executed elsewhere since: this copy of its memory is worth nothing, and must never run.
    pub stale: bool,
    /// An operator paused the guest.
    paused: bool,
    /// The move that it is in, and the other side.
    moving: Option<(MoveId, Option<u16>)>,
    /// Boxed, since processes that are not copied are counted all the time.
    copy: Option<Box<Copy>>,
    /// What the guest used since the process began.
    pub used: Used,
}

/// What a guest used, as counters.
#[derive(Clone, Copy, Debug, Default)]
pub struct Used {
    /// Until when it is counted.
    pub until: Time,
    /// Processor time in microseconds.
    pub cpu_us: u64,
    /// Millionths of packets.
    pub micropackets: u128,
}

impl Process {
    /// Whether the guest executes.
    pub fn executes(&self) -> bool {
        match self.seen {
            Seen::Running => true,
            Seen::Copying => !self.paused && self.copying(Stage::Rounds),
            Seen::Gone
            | Seen::Paused
            | Seen::Incoming
            | Seen::IncomingComplete
            | Seen::PostMigrate
            | Seen::Unknown => false,
        }
    }

    /// Whether all of the guest's memory is here.
    pub fn is_complete(&self) -> bool {
        !matches!(self.seen, Seen::Incoming | Seen::Gone)
    }

    /// The move that it was last in.
    pub fn move_id(&self) -> Option<MoveId> {
        self.moving.map(|(id, _)| id)
    }

    fn copying(&self, stage: Stage) -> bool {
        self.copy.as_ref().is_some_and(|copy| copy.stage == stage)
    }
}

/// One host's hypervisor.
#[derive(Debug, Default)]
struct Machine {
    processes: BTreeMap<VmId, Process>,
    /// Complete incoming sides that died: what tells that they were never let run is left.
    unrun: BTreeSet<VmId>,
    refuses: bool,
    slow: Duration,
    link: BitsPerSec,
}

/// What comes next in a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    RoundEnds,
    Sent,
    PeerAnswers,
    /// The other side's process died; it is noticed once the network lets it.
    PeerLost,
}

/// Something that a process comes to by itself: to be given back to [`Fleet::step`].
#[derive(Clone, Copy, Debug)]
pub struct Step {
    at: u16,
    vm: VmId,
    process: u64,
    /// The copy, or the other side's process, that it is about.
    about: u64,
    next: Next,
}

/// What a hypervisor says, or wants done.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the words of the variant say what its fields are")]
pub enum Said {
    /// To the agent of this host, after so long.
    Report { to: u16, id: MoveId, vm: VmId, report: Report, after: Duration },
    /// A process of no move ended.
    Gone { at: u16, vm: VmId, how: String },
    /// Take this step after so long.
    Later { after: Duration, step: Step },
}

/// A VM that was let run at another host than before.
#[derive(Clone, Copy, Debug)]
pub struct Passed {
    /// In which move.
    pub id: MoveId,
    /// Which VM.
    pub vm: VmId,
    /// Where to.
    pub to: u16,
}

/// The network between hypervisors: whether what the first host sends reaches the second.
pub type Reaches<'a> = &'a dyn Fn(u16, u16) -> bool;

/// The hypervisors of all hosts.
#[derive(Debug, Default)]
pub struct Fleet {
    hosts: BTreeMap<u16, Machine>,
    memories: ByVm<Memory>,
    /// The hosts at which each VM has a process.
    at: BTreeMap<VmId, BTreeSet<u16>>,
    born: u64,
    /// VMs of which something has changed since this was last taken.
    pub touched: BTreeSet<VmId>,
    /// VMs let run since this was last taken.
    pub passed: Vec<Passed>,
    /// Commands that no agent may give, since this was last taken.
    pub forbidden: Vec<(VmId, String)>,
}

impl Fleet {
    /// A host, whose uplink carries so much each way.
    pub fn add(&mut self, at: u16, link: BitsPerSec) {
        self.hosts.insert(at, Machine { link, ..Machine::default() });
    }

    /// What there is to know of a VM's memory.
    pub fn know(&mut self, vm: VmId, memory: Memory) {
        self.memories.insert(vm, memory);
    }

    /// A VM's memory.
    pub fn memory(&self, vm: VmId) -> Memory {
        self.memories.get(vm).copied().unwrap_or_default()
    }

    /// A process begins, of no move.
    pub fn start(&mut self, now: Time, at: u16, vm: VmId, seen: Seen) {
        self.begin(now, at, vm, seen, None);
    }

    fn begin(&mut self, now: Time, at: u16, vm: VmId, seen: Seen, id: Option<MoveId>) {
        self.born += 1;
        let process = Process {
            number: self.born,
            seen,
            tap: true,
            stale: false,
            paused: seen == Seen::Paused,
            moving: id.map(|id| (id, None)),
            copy: None,
            used: Used { until: now, ..Used::default() },
        };
        self.at.entry(vm).or_default().insert(at);
        let host = self.host(at);
        host.processes.insert(vm, process);
        host.unrun.remove(&vm);
        self.executed(at, vm);
    }

    /// Ends a process of which nobody shall hear.
    pub fn forget(&mut self, at: u16, vm: VmId) -> Option<Process> {
        self.touched.insert(vm);
        self.at.entry(vm).or_default().remove(&at);
        self.host(at).processes.remove(&vm)
    }

    /// Whether this host starts no incoming side from now on.
    pub fn refuse(&mut self, at: u16, refuses: bool) {
        self.host(at).refuses = refuses;
    }

    /// Whether this host starts no incoming side.
    pub fn refuses(&self, at: u16) -> bool {
        self.hosts[&at].refuses
    }

    /// Reports of this host take so much longer.
    pub fn slow_down(&mut self, at: u16, by: Duration) {
        self.host(at).slow = by;
    }

    /// What a VM's process at a host does.
    pub fn seen(&self, at: u16, vm: VmId) -> Seen {
        self.process(at, vm).map_or(Seen::Gone, |process| process.seen)
    }

    /// A VM's process at a host.
    pub fn process(&self, at: u16, vm: VmId) -> Option<&Process> {
        self.hosts[&at].processes.get(&vm)
    }

    /// The processes of a host.
    pub fn processes(&self, at: u16) -> impl Iterator<Item = (VmId, &Process)> {
        self.hosts[&at].processes.iter().map(|(vm, process)| (*vm, process))
    }

    /// The same, to count what they used.
    pub fn processes_mut(&mut self, at: u16) -> impl Iterator<Item = (VmId, &mut Process)> {
        self.host(at).processes.iter_mut().map(|(vm, process)| (*vm, process))
    }

    /// All processes of a VM, and where they are.
    pub fn of(&self, vm: VmId) -> impl Iterator<Item = (u16, &Process)> {
        let hosts = self.at.get(&vm).into_iter().flatten();
        hosts.filter_map(move |at| Some((*at, self.hosts[at].processes.get(&vm)?)))
    }

    fn host(&mut self, at: u16) -> &mut Machine {
        self.hosts.get_mut(&at).expect("a host of this fleet")
    }

    fn at(&mut self, at: u16, vm: VmId) -> Option<&mut Process> {
        self.touched.insert(vm);
        self.host(at).processes.get_mut(&vm)
    }

    fn say(&self, to: u16, id: MoveId, vm: VmId, report: Report, out: &mut Vec<Said>) {
        self.say_after(REPORTED, to, id, vm, report, out);
    }

    fn say_after(
        &self,
        after: Duration,
        to: u16,
        id: MoveId,
        vm: VmId,
        report: Report,
        out: &mut Vec<Said>,
    ) {
        let after = after + self.hosts[&to].slow;
        out.push(Said::Report { to, id, vm, report, after });
    }

    /// The guest may have executed here: every other copy of it is stale.
    fn executed(&mut self, here: u16, vm: VmId) {
        self.touched.insert(vm);
        if self.process(here, vm).is_some_and(Process::executes) {
            self.supersede(here, vm);
        }
    }

    /// The guest is here from now on: every other copy of it is stale.
    fn supersede(&mut self, here: u16, vm: VmId) {
        let Fleet { hosts, at, .. } = self;
        for elsewhere in at.get(&vm).into_iter().flatten().filter(|at| **at != here) {
            let host = hosts.get_mut(elsewhere);
            if let Some(process) = host.and_then(|host| host.processes.get_mut(&vm)) {
                process.stale |= process.is_complete();
            }
        }
    }

    fn later(
        &self,
        after: Duration,
        at: u16,
        vm: VmId,
        about: u64,
        next: Next,
        out: &mut Vec<Said>,
    ) {
        if let Some(process) = self.process(at, vm) {
            let step = Step { at, vm, process: process.number, about, next };
            out.push(Said::Later { after, step });
        }
    }

    /// A process has come to its next step, unless it has ended or gone another way.
    pub fn step(&mut self, now: Time, reaches: Reaches<'_>, step: Step, out: &mut Vec<Said>) {
        let Step { at, vm, process, about, next } = step;
        let Some(here) = self.process(at, vm).filter(|here| here.number == process) else { return };
        let Some((id, Some(other))) = here.moving else { return };
        if next == Next::PeerLost {
            return self.peer_lost(now, reaches, step, other, out);
        }
        let Some(copy) = here.copy.clone().filter(|copy| copy.peer == about) else { return };
        let expected = match next {
            Next::RoundEnds => Stage::Rounds,
            Next::Sent => Stage::Sending,
            Next::PeerAnswers | Next::PeerLost => Stage::Device,
        };
        if copy.stage != expected {
            return;
        }
        let (there, back) = (reaches(at, other), reaches(other, at));
        let waits = if next == Next::PeerAnswers { !back } else { !there };
        if waits {
            return out.push(Said::Later { after: AGAIN, step });
        }
        if self.process(other, vm).is_none_or(|peer| peer.number != about) {
            return self.fail(now, reaches, at, vm, "connection reset by peer", out);
        }
        match next {
            Next::RoundEnds => self.round_ends(now, at, id, vm, about, out),
            Next::Sent => {
                let peer = self.at(other, vm).expect("it was just seen");
                peer.seen = Seen::IncomingComplete;
                self.say(other, id, vm, Report::IncomingCompleted, out);
                if let Some(copy) = self.at(at, vm).and_then(|here| here.copy.as_mut()) {
                    copy.rounds.complete();
                    copy.stage = Stage::Device;
                }
                if back {
                    self.completed(now, at, id, vm, out);
                } else {
                    self.later(AGAIN, at, vm, about, Next::PeerAnswers, out);
                }
            }
            Next::PeerAnswers => self.completed(now, at, id, vm, out),
            Next::PeerLost => {}
        }
    }

    fn round_ends(
        &mut self,
        now: Time,
        at: u16,
        id: MoveId,
        vm: VmId,
        about: u64,
        out: &mut Vec<Said>,
    ) {
        let copy = self.at(at, vm).and_then(|here| here.copy.as_mut()).expect("it was just seen");
        match copy.rounds.round_ended(now) {
            After::Round(takes) => {
                let progress = copy.rounds.progress();
                self.say(at, id, vm, Report::Progress(progress), out);
                self.later(takes, at, vm, about, Next::RoundEnds, out);
            }
            After::Converged => {
                copy.stage = Stage::PreSwitchover;
                self.say(at, id, vm, Report::PreSwitchover, out);
            }
        }
    }

    fn completed(&mut self, now: Time, at: u16, id: MoveId, vm: VmId, out: &mut Vec<Said>) {
        let here = self.at(at, vm).expect("it was just seen");
        let copy = here.copy.take().expect("it was just seen");
        here.seen = Seen::PostMigrate;
        self.say(at, id, vm, Report::SourceCompleted(copy.rounds.figures(now)), out);
    }

    fn peer_lost(
        &mut self,
        now: Time,
        reaches: Reaches<'_>,
        step: Step,
        other: u16,
        out: &mut Vec<Said>,
    ) {
        let Step { at, vm, about, .. } = step;
        let here = self.process(at, vm).expect("its caller has just seen it");
        let concerned = match here.seen {
            Seen::Copying => here.copy.as_ref().is_some_and(|copy| copy.peer == about),
            Seen::Incoming => true,
            Seen::Gone
            | Seen::Running
            | Seen::Paused
            | Seen::IncomingComplete
            | Seen::PostMigrate
            | Seen::Unknown => false,
        };
        if !concerned {
            return;
        }
        if !reaches(at, other) || !reaches(other, at) {
            return out.push(Said::Later { after: AGAIN, step });
        }
        let (seen, moving) = (here.seen, here.moving);
        if seen == Seen::Copying {
            return self.fail(now, reaches, at, vm, "the other side has gone", out);
        }
        self.forget(at, vm);
        if let Some((id, _)) = moving {
            let report = Report::IncomingFailed("the other side has gone".to_owned());
            self.say(at, id, vm, report, out);
        }
    }

    /// A copy under way ends without being complete: the source runs on by itself, or stays paused; the incoming side exits.
    pub fn fail(
        &mut self,
        now: Time,
        reaches: Reaches<'_>,
        at: u16,
        vm: VmId,
        why: &str,
        out: &mut Vec<Said>,
    ) {
        let process = self.at(at, vm).filter(|process| process.seen == Seen::Copying);
        let Some(process) = process else { return };
        let before = process.clone();
        let stopped = !process.copying(Stage::Rounds);
        let stays = stopped && process.number.is_multiple_of(STAYS_PAUSED);
        process.seen = if process.paused || stays { Seen::Paused } else { Seen::Running };
        process.copy = None;
        process.used.until = now;
        let seen = process.seen;
        self.executed(at, vm);
        if let Some((id, _)) = before.moving {
            self.say(at, id, vm, Report::CopyFailed(why.to_owned(), seen), out);
        }
        self.tell_peer(now, reaches, vm, &before, out);
    }

    /// One side of a copy is no more: the other hears of it, at once or when the network lets it.
    fn tell_peer(
        &mut self,
        now: Time,
        reaches: Reaches<'_>,
        vm: VmId,
        gone: &Process,
        out: &mut Vec<Said>,
    ) {
        let Some((_, Some(other))) = gone.moving else { return };
        let Some(peer) = self.process(other, vm) else { return };
        let connected = match (&gone.copy, &peer.copy) {
            (Some(copy), _) => copy.peer == peer.number,
            (None, Some(copy)) => copy.peer == gone.number,
            (None, None) => false,
        };
        if connected {
            let step = Step {
                at: other,
                vm,
                process: peer.number,
                about: gone.number,
                next: Next::PeerLost,
            };
            self.step(now, reaches, step, out);
        }
    }

    /// The process of a VM dies, and its host's agent, if there is one, hears of it.
    pub fn kill(
        &mut self,
        now: Time,
        reaches: Reaches<'_>,
        at: u16,
        vm: VmId,
        out: &mut Vec<Said>,
    ) {
        let Some(process) = self.forget(at, vm) else { return };
        if process.seen == Seen::IncomingComplete {
            self.host(at).unrun.insert(vm);
        }
        let why = "killed by signal 9".to_owned();
        match (process.seen, process.moving) {
            (Seen::Incoming, Some((id, _))) => {
                self.say(at, id, vm, Report::IncomingFailed(why), out);
            }
            (Seen::Copying, Some((id, _))) => {
                self.say(at, id, vm, Report::CopyFailed(why, Seen::Gone), out);
            }
            (
                Seen::Gone
                | Seen::Running
                | Seen::Paused
                | Seen::PostMigrate
                | Seen::Unknown
                | Seen::Copying
                | Seen::Incoming
                | Seen::IncomingComplete,
                _,
            ) => out.push(Said::Gone { at, vm, how: why }),
        }
        self.tell_peer(now, reaches, vm, &process, out);
    }

    /// An operator pauses a guest that runs, or lets it run again; whether it did.
    pub fn pause(&mut self, now: Time, at: u16, vm: VmId, paused: bool) -> bool {
        let (from, to) =
            if paused { (Seen::Running, Seen::Paused) } else { (Seen::Paused, Seen::Running) };
        let Some(process) = self.at(at, vm).filter(|process| process.seen == from) else {
            return false;
        };
        (process.seen, process.paused, process.used.until) = (to, paused, now);
        self.executed(at, vm);
        true
    }
}
