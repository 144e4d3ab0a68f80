//! What must hold in every instant of a world, and in the end, whatever its hosts believe.
//!
//! The checkers stand apart from the loop: they look at processes, journals and reservations as they are after something has
//! happened, and keep what they need to judge by themselves.

mod copies;
mod costs;
mod ends;
mod rooms;
mod rules;

use std::collections::{BTreeMap, BTreeSet};

use decide::host::inventory::TWO_COPIES;
use decide::host::story::Note;
use decide::migrate::hypervisor::Seen;
use decide::units::{HostId, MoveId, Time, VmId};
use decide::wire::message::{Body, Message};

use crate::hypervisor::{Fleet, Process};
use crate::world::{World, host_id};

pub use ends::{NotYet, agreed, cool, settled};
pub(crate) use rooms::taken;
pub use rules::Ruled;

macro_rules! properties {
    ($($(#[$doc:meta])* $property:ident = $name:literal,)*) => {
        /// What must hold.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Property { $($(#[$doc])* $property,)* }

        impl Property {
            /// Every property there is.
            pub const ALL: &[Property] = &[$(Property::$property,)*];

            /// Its name in reports.
            pub fn name(self) -> &'static str {
                match self { $(Property::$property => $name,)* }
            }
        }
    };
}

properties! {
    /// At most one copy of a VM runs.
    OneRunningCopy = "one-running-copy",
    /// A guest never goes on from a memory that it has left behind.
    MemoryNeverGoesBack = "memory-never-goes-back",
    /// A VM is lost only if its only complete copy died by a drawn fault.
    NothingLost = "nothing-lost",
    /// Guests and reservations never take more than the room there is.
    Room = "room",
    /// A reservation that nobody confirms ends by itself.
    ReservationsEnd = "reservations-end",
    /// An incoming side is there only while its host's journal has a move that it is of.
    NoOrphan = "no-orphan",
    /// The epoch that a journal has of a VM never falls.
    EpochNeverFalls = "epoch-never-falls",
    /// Every balancing move lowers the sum of costs by more than the margin.
    CostsFall = "costs-fall",
    /// No move brings a VM where a rule forbids it, but by force; none that is not by hand takes one from where a rule keeps it.
    RulesKept = "rules-kept",
    /// A host never begins a move, nor lets one in, beyond the moves that it may have under way.
    MovesLimited = "moves-limited",
    /// What is asked about as the other half of an exchange is what its host had named when it took the first.
    ReturnsAsAgreed = "returns-as-agreed",
    /// Once healed, every move ends, and every VM runs at its one owner.
    MovesEnd = "moves-end",
    /// Once healed, no host stays hot.
    HotSpotsDissolve = "hot-spots-dissolve",
    /// Once healed, all agents say the same of who has what.
    AgentsAgree = "agents-agree",
    /// Nobody is told that two copies run unless two do; nor, where no journal is lost, that a definition names what the journal does not.
    NoFalseAlarm = "no-false-alarm",
    /// No assertion of the production code fails.
    NoAssertionFails = "no-assertion-fails",
}

/// Something that must hold and did not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which property.
    pub property: Property,
    /// When, in the simulation's time.
    pub when: Time,
    /// The VM that it is about.
    pub vm: Option<VmId>,
    /// What was seen.
    pub what: String,
}

/// A VM that passed from one host to another.
#[derive(Clone, Debug)]
pub struct Passed {
    /// In which move.
    pub id: MoveId,
    /// Which VM.
    pub vm: VmId,
    /// Where to.
    pub to: u16,
    /// When.
    pub when: Time,
    /// When the move began, if the policy wanted it and no person.
    pub balancing: Option<Time>,
    /// Which part of an agreement of several moves it is.
    pub half: Half,
}

/// Which part of an exchange, or of a group's way, a move is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// Of none.
    Alone,
    /// So many others are to pass as agreed in it: a VM of the target's in return, or the rest of an affinity group.
    First(usize),
    /// It was agreed in that move.
    OtherOf(MoveId),
}

/// What passed, each agreement as one: others are judged with their first. A first of which some other has not passed promised
/// nothing: true is told of it. So is an other whose first is not among these.
pub fn transactions(passed: &[Passed]) -> impl Iterator<Item = (Vec<&Passed>, bool)> {
    let first = move |one: &&Passed| match one.half {
        Half::OtherOf(first) => passed.iter().all(|other| other.id != first),
        Half::Alone | Half::First(_) => true,
    };
    passed.iter().filter(first).map(|one| {
        let others = passed.iter().filter(|other| other.half == Half::OtherOf(one.id));
        let parts: Vec<&Passed> = std::iter::once(one).chain(others).collect();
        let agreed = if let Half::First(others) = one.half { 1 + others } else { 1 };
        let broken = parts.len() < agreed;
        (parts, broken)
    })
}

/// What the checkers remember.
#[derive(Debug, Default)]
pub struct Checks {
    /// Hosts that an operator may have overfilled, until they have room again.
    overfilled: BTreeMap<u16, Time>,
    /// Violations are kept, instead of ending the process.
    pub kept: bool,
    violations: Vec<Violation>,
    /// VMs of which two copies run because the test wants it.
    pub doubled: BTreeSet<VmId>,
    /// VMs whose only complete copy died by a fault.
    down: BTreeSet<VmId>,
    /// VMs that passed.
    pub passed: Vec<Passed>,
    /// Whose load counts where.
    at: BTreeMap<VmId, u16>,
    /// When each move was first asked about, and whether the policy wanted it.
    asked: BTreeMap<MoveId, (Time, bool)>,
    /// What targets would give in return, by move.
    exchanges: BTreeMap<(MoveId, HostId), VmId>,
    /// Which would follow, by move.
    followers: BTreeMap<MoveId, Vec<VmId>>,
    /// Moves that are the other half of one.
    halves: BTreeMap<MoveId, MoveId>,
    /// Since when loads are steady, if they are.
    steady: Option<costs::Steady>,
    /// In which order the copies of moves began: a counter.
    copies: BTreeMap<MoveId, usize>,
    /// Balancing moves that were judged by the sum of costs.
    pub judged: u64,
    /// What was laid down of where VMs are.
    pub ruled: Ruled,
    rules: rules::Seen,
    /// A person speaks to an agent.
    person_asks: bool,
    /// Moves of VMs that some rule is about.
    pub judged_by_rules: u64,
    /// The VM that was named last as one that would go in return, and where it is.
    pub named_in_return: Option<(HostId, VmId)>,
    offers: BTreeMap<u16, BTreeMap<MoveId, Time>>,
    /// Reservations that ended.
    pub offers_ended: u64,
}

impl Checks {
    /// What did not hold, in the order in which it was seen.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// VMs whose only complete copy died.
    pub fn down(&self) -> &BTreeSet<VmId> {
        &self.down
    }

    /// What has passed since so many had, in the order in which sources judged it for the last time: it is in this order that
    /// each lowers the sum of costs, since whoever judges counts what was judged before.
    pub fn as_judged(&self, since: usize) -> Vec<Passed> {
        let mut order = self.passed[since..].to_vec();
        order.sort_by_key(|passed| self.copies.get(&passed.id).copied());
        order
    }

    /// A person starts a VM: its load counts at this host from now on.
    pub fn place(&mut self, now: Time, vm: VmId, at: u16) {
        self.at.insert(vm, at);
        self.insists(vm, now);
    }

    /// Where each VM's load counts.
    pub fn places(&self) -> &BTreeMap<VmId, u16> {
        &self.at
    }

    /// A message goes out: a request or an acceptance is remembered.
    pub(crate) fn said(&mut self, now: Time, message: &Message) {
        let Message { from, move_id, body } = message;
        if let Body::Request(request) = body {
            let balancing = request.useful_max.is_some();
            if !self.asked.contains_key(move_id) {
                self.asked.insert(*move_id, (now, balancing));
                self.begins(*move_id, request.vm, request.forced);
            }
            if let Some(first) = request.half_of {
                self.halves.insert(*move_id, first);
                let followers = self.followers.get(&first).filter(|_| first.host == *from);
                let follows = followers.is_some_and(|all| all.contains(&request.vm));
                if !follows && self.exchanges.get(&(first, *from)) != Some(&request.vm) {
                    let what = format!("{move_id} is not what was agreed in {first}");
                    self.fails(Property::ReturnsAsAgreed, now, request.vm, what);
                }
            }
            if !request.followers.is_empty() {
                let followers = request.followers.iter().map(|it| it.vm);
                self.followers.insert(*move_id, followers.collect());
            }
        }
        if let Body::Acceptance { in_return: Some(back), .. } = body {
            self.exchanges.insert((*move_id, *from), back.vm);
            self.named_in_return = Some((*from, back.vm));
        }
    }

    /// Which part of an exchange a move to this host is.
    fn half(&self, id: MoveId, to: u16) -> Half {
        match (self.halves.get(&id), self.followers.get(&id)) {
            (Some(first), _) => Half::OtherOf(*first),
            (None, Some(others)) => Half::First(others.len()),
            (None, None) if self.exchanges.contains_key(&(id, host_id(to))) => Half::First(1),
            (None, None) => Half::Alone,
        }
    }

    /// A copy begins: its source has judged it for the last time.
    pub(crate) fn copies(&mut self, id: MoveId) {
        let next = self.copies.len();
        self.copies.entry(id).or_insert(next);
    }

    /// A process is about to be killed: was it the only one with all of the VM's memory as it is now?
    pub(crate) fn dies(&mut self, fleet: &Fleet, at: u16, vm: VmId) {
        // Where the guest runs or waits for an operator its owner has it: a copy elsewhere is void, also of one that was paused
        // and taken back, whose memory is the same.
        let lives = |process: &Process| matches!(process.seen, Seen::Running | Seen::Paused);
        let owned = fleet.of(vm).any(|(here, process)| here == at && lives(process));
        let good = |process: &Process| {
            process.is_complete()
                && !process.stale
                && !(owned && process.seen == Seen::IncomingComplete)
        };
        let mut good = fleet.of(vm).filter(|(_, process)| good(process)).map(|(at, _)| at);
        if good.next() == Some(at) && good.next().is_none() {
            self.down.insert(vm);
        }
    }

    /// An operator is about to start a VM again that was down: there, whoever else has been promised the room meanwhile.
    pub(crate) fn starts_again(&mut self, now: Time, at: u16, vm: VmId) {
        self.down.remove(&vm);
        self.overfills(now, at);
    }

    /// Whoever started VMs at this host may have asked more room of it than agents give: until it has room again.
    pub(crate) fn overfills(&mut self, now: Time, at: u16) {
        self.overfilled.insert(at, now);
    }

    /// An agent starts: it finds its VMs one by one, and until it has found all there seems to be more room than there is.
    pub(crate) fn agent_starts(&mut self, now: Time, at: u16) {
        self.overfilled.entry(at).and_modify(|since| *since = now);
    }

    /// Notes that something did not hold.
    pub(crate) fn fails(
        &mut self,
        property: Property,
        when: Time,
        vm: impl Into<Option<VmId>>,
        what: String,
    ) {
        self.violations.push(Violation { property, when, vm: vm.into(), what });
    }
}

/// Something has happened to processes.
pub(crate) fn fleet(world: &mut World) {
    looked(world, |checks, world| {
        for (vm, what) in std::mem::take(&mut world.fleet.forbidden) {
            checks.fails(Property::NothingLost, world.now, vm, what);
        }
        for vm in std::mem::take(&mut world.fleet.touched) {
            copies::check(checks, world, vm);
        }
        for passed in std::mem::take(&mut world.fleet.passed) {
            rules::passed(checks, world, &passed);
            costs::passed(checks, world, passed);
        }
    });
}

/// Loads have changed for the last time, for now, and are known to all from `since` on: balancing moves that begin later are
/// judged by them, once loads change again or [`judge`] is called.
pub fn steady(world: &mut World, since: Time) {
    looked(world, |checks, world| costs::steady(checks, world, since));
}

/// Judges the balancing moves made while loads were steady, which they are not any more.
pub fn judge(world: &mut World) {
    looked(world, |checks, world| costs::judge(checks, world));
}

/// An agent tells something.
pub(crate) fn noted(world: &mut World, at: u16, note: &Note) {
    let Some(vm) = note.vm.filter(|_| note.reason.starts_with(TWO_COPIES)) else { return };
    let running = world.runs_at(vm);
    if running.len() < 2 {
        let what = format!("host{at}: {}, but it runs at {running:?}", note.reason);
        looked(world, |checks, world| {
            checks.fails(Property::NoFalseAlarm, world.now, vm, what);
        });
    }
}

/// An agent has done something.
pub(crate) fn host(world: &mut World, at: u16) {
    looked(world, |checks, world| {
        rooms::check(checks, world, at);
        rules::begun(checks, world);
        let journal = &mut world.sites.get_mut(&at).expect("a host of this world").journal;
        for (vm, what) in std::mem::take(&mut journal.fell) {
            checks.fails(Property::EpochNeverFalls, world.now, vm, format!("host{at}: {what}"));
        }
    });
}

fn looked(world: &mut World, look: impl FnOnce(&mut Checks, &mut World)) {
    let mut checks = std::mem::take(&mut world.checks);
    look(&mut checks, world);
    let first = checks.violations.first().filter(|_| !checks.kept);
    assert!(first.is_none(), "{first:?}\n{}", world.story());
    world.checks = checks;
}
