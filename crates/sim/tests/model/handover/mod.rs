//! The hand-over of one VM: source, target, and a bystander that knows what it was told, may be the next target, and may
//! hold old messages.
//!
//! The machines of `decide::migrate` decide; `agent.rs` joins them as `decide::host` does. Everything that can happen at a
//! moment is a step of its own: a message arrives, a report of the hypervisor arrives, a write ends, a timer ends, QEMU goes
//! on by itself, somebody dies. Time is not modelled: a timer that is armed may end at once, or never.
//!
//! What keeps the space finite, and why nothing is lost by it:
//! - Letters stay in the net (`letters.rs`): saying the same again changes nothing. So a timer that would only say it again
//!   is let end as often as it takes to change something else, in one step (`agent.rs`).
//! - Faults have budgets.
//! - Words for people are no part of a machine's hash: no machine decides by them.
//! - The hypervisor obeys an order at once, but its reports wait in line. An order that is late is the same as an order
//!   given late, for no machine gives an order and says something in one breath; an order lost by a crash is a crash before.

mod agent;
mod disk;
mod judge;
mod letters;
mod qemu;
mod steps;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use decide::migrate::hypervisor::HypervisorReport as Report;
use decide::migrate::record::{Ownership, VmRecord};
use decide::units::{HostId, MoveId, VmId};
use stateright::{Model, Property};

use self::agent::{Agent, Key};
use self::disk::Disk;
use self::judge::Ghost;
use self::letters::{Letter, name, short};
use self::qemu::{Qemu, State};

/// The VM.
pub(crate) const VM: VmId = VmId(7);

/// How often each fault may strike, and how many moves may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Budget {
    /// Moves that may begin.
    pub(crate) moves: u8,
    /// Agents killed; they come back.
    pub(crate) crashes: u8,
    /// Hosts that lose power, with all that runs there; they come back.
    pub(crate) power: u8,
    /// QEMU processes that die.
    pub(crate) deaths: u8,
    /// Writes that fail.
    pub(crate) writes: u8,
    /// Copies that fail without a cause here, and incoming sides that do not start.
    pub(crate) copies: u8,
    /// Cancels by hand, and negotiations given up.
    pub(crate) cancels: u8,
    /// Journals that are lost while their agent is down, or replaced by an older copy of themselves or on another host.
    pub(crate) journals: u8,
    /// No fault but a bound: an order is repeated only while fewer reports of the hypervisor than this are in line.
    pub(crate) line: u8,
}

/// What is checked: so many hosts, such faults.
#[derive(Clone, Debug)]
pub(crate) struct HandOver {
    /// Two or three hosts.
    pub(crate) sites: u8,
    /// The faults there may be.
    pub(crate) budget: Budget,
}

/// One host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Host {
    pub(crate) disk: Disk,
    /// A copy of the journal that somebody has made.
    pub(crate) backup: Option<Disk>,
    pub(crate) qemu: Option<Qemu>,
    /// An incoming side died here: what tells that it was never let run is left.
    pub(crate) unrun: bool,
    /// Absent while it is down.
    pub(crate) agent: Option<Agent>,
    /// The agent died after a write of its was on disk and before it did what depends on it.
    pub(crate) died_between: bool,
}

/// All there is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub(crate) hosts: Vec<Arc<Host>>,
    pub(crate) net: Arc<BTreeSet<Letter>>,
    pub(crate) budget: Budget,
    /// Journals may be lost or set back. Where they cannot, each goes on from what was named, and nothing of it is sent with
    /// a standing: that would tell states apart which behave alike.
    pub(crate) forgetful: bool,
    pub(crate) ghost: Ghost,
}

/// One thing that happens.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// A move begins: the target was asked, and has made an offer.
    Begin {
        from: u8,
        to: u8,
    },
    Deliver(Letter),
    /// The oldest report in line reaches the agent.
    Hear(u8),
    /// The oldest write is on disk, and the agent hears of it.
    Write(u8),
    WriteFails(u8),
    Timeout(u8, Key),
    /// A person cancels, or the target was silent for too long before it was ready.
    Cancel(u8, MoveId),
    /// The agent sees a VM outside of any move.
    Find(u8),
    /// The agent is killed; so many of the writes asked for are on disk.
    Crash(u8, usize),
    /// The host loses power.
    PowerLoss(u8, usize),
    /// The agent starts anew.
    Start(u8),
    /// The agent starts anew with another journal than it had.
    StartDoubtful(u8, Fate),
    /// Somebody copies the journal.
    Backup(u8),
    Qemu(u8, Turn),
}

/// What became of a journal while its agent was down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Fate {
    /// Lost: a new one is begun.
    Lost,
    /// Set back to the copy.
    SetBack,
}

/// What a QEMU does by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Turn {
    /// Source: comes to the last round.
    PreSwitchover,
    /// Target: has all.
    TargetCompletes,
    /// Source: has heard so.
    SourceCompletes,
    /// Source: the copy fails or was cancelled, the guest runs on.
    FailsRunning,
    /// Source: the copy fails, the guest stays paused.
    FailsPaused,
    /// Target: gives up, since its source has.
    IncomingExits,
    Dies,
}

impl Model for HandOver {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        let host = |site| {
            let mut disk = Disk::new(site, 1);
            disk.open();
            let qemu = (site == 0).then(Qemu::running);
            if site == 0 {
                disk.vm = Some(VmRecord { floor: 1, ran: 1, ownership: Ownership::Owner });
            }
            let agent = Some(Agent::new(&disk, site == 0));
            Arc::new(Host { disk, backup: None, qemu, unrun: false, agent, died_between: false })
        };
        let hosts = (0..self.sites).map(host).collect();
        let (net, ghost) = (Arc::default(), Ghost::new());
        let forgetful = self.budget.journals > 0;
        vec![World { hosts, net, budget: self.budget, forgetful, ghost }]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        // A violation is the end of its path.
        if world.ghost.bad() {
            return;
        }
        (0..self.sites).for_each(|site| world.steps_at(site, steps));
        let awake = |letter: &&Letter| world.host(letter.to).agent.is_some();
        steps.extend(world.net.iter().filter(awake).copied().map(Step::Deliver));
    }

    fn next_state(&self, before: &World, step: Step) -> Option<World> {
        let mut world = before.clone();
        world.take(step);
        world.look();
        (world != *before).then_some(world)
    }

    fn properties(&self) -> Vec<Property<HandOver>> {
        judge::properties(self)
    }

    fn format_action(&self, step: &Step) -> String {
        format!("{step:?}")
    }
}

impl World {
    pub(crate) fn host(&self, site: u8) -> &Host {
        &self.hosts[usize::from(site)]
    }

    pub(crate) fn at(&mut self, site: u8) -> &mut Host {
        Arc::make_mut(&mut self.hosts[usize::from(site)])
    }

    pub(crate) fn send(&mut self, letter: Letter) {
        if !self.net.contains(&letter) {
            Arc::make_mut(&mut self.net).insert(letter);
        }
    }

    /// The driver of that host says something about a move, if the agent lives.
    pub(crate) fn report(&mut self, site: u8, id: MoveId, report: Report) {
        if let Some(agent) = &mut self.at(site).agent {
            agent.reports.push_back((id, report));
        }
    }

    pub(crate) fn sites(&self) -> std::ops::Range<u8> {
        0..u8::try_from(self.hosts.len()).unwrap_or(0)
    }
}

/// The host with that number.
pub(crate) fn host_id(site: u8) -> HostId {
    HostId(u128::from(site) + 1)
}

/// The number of that host.
pub(crate) fn site_of(host: HostId) -> u8 {
    u8::try_from(host.0 - 1).expect("hosts are numbered from 1")
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Begin { from, to } => {
                write!(f, "{}: a move to {} begins", name(*from), name(*to))
            }
            Step::Deliver(letter) => write!(f, "{letter:?}"),
            Step::Hear(site) => write!(f, "{}: hears its hypervisor's next report", name(*site)),
            Step::Write(site) => write!(f, "{}: a write is on disk", name(*site)),
            Step::WriteFails(site) => write!(f, "{}: a write fails", name(*site)),
            Step::Timeout(site, key) => write!(f, "{}: timer {key:?}", name(*site)),
            Step::Cancel(site, id) => {
                write!(f, "{}: move {} is cancelled", name(*site), short(*id))
            }
            Step::Find(site) => write!(f, "{}: sees the VM", name(*site)),
            Step::Crash(site, kept) => {
                write!(f, "{}: agent killed, {kept} writes were on disk", name(*site))
            }
            Step::PowerLoss(site, kept) => {
                write!(f, "{}: power lost, {kept} writes were on disk", name(*site))
            }
            Step::Start(site) => write!(f, "{}: agent starts", name(*site)),
            Step::StartDoubtful(site, fate) => {
                write!(f, "{}: agent starts, journal {fate:?}", name(*site))
            }
            Step::Backup(site) => write!(f, "{}: the journal is copied", name(*site)),
            Step::Qemu(site, turn) => write!(f, "{}: QEMU {turn:?}", name(*site)),
        }
    }
}

/// Whether a process there is in that state.
fn in_state(qemu: Option<Qemu>, state: State) -> bool {
    qemu.is_some_and(|qemu| qemu.state == state)
}
