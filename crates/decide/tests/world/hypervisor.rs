//! Hypervisors of the world: what their processes do, whoever watches. A copy goes on when the agents are dead.

use std::collections::BTreeMap;
use std::time::Duration;

use decide::host::Event;
use decide::migrate::hypervisor::{
    CopyFigures, Endpoint, HypervisorCommand as Command, HypervisorReport as Report, RunState,
    Seen, Sighting,
};
use decide::units::{MoveId, VmId};

use super::{Coming, World};

/// One VM's process.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) seen: Seen,
    /// At `pre-switchover` or later: the guest is stopped, though `seen` is `Copying`.
    pub(crate) stopped: bool,
    pub(crate) tap: bool,
    /// The move that it is in, and the other side.
    pub(crate) moving: Option<(MoveId, u8)>,
    copies: u64,
}

#[derive(Default)]
pub(crate) struct Hypervisor {
    pub(crate) processes: BTreeMap<VmId, Process>,
    /// Refuses to start an incoming side.
    pub(crate) refuses: bool,
}

/// What comes next in a copy.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    PreSwitchover,
    Complete,
}

impl Hypervisor {
    pub(crate) fn start(&mut self, vm: VmId, seen: Seen, moving: Option<(MoveId, u8)>) {
        let process = Process { seen, stopped: false, tap: true, moving, copies: 0 };
        self.processes.insert(vm, process);
    }

    pub(crate) fn seen(&self, vm: VmId) -> Seen {
        self.processes.get(&vm).map_or(Seen::Gone, |process| process.seen)
    }

    pub(crate) fn executes(&self, vm: VmId) -> bool {
        self.processes
            .get(&vm)
            .is_some_and(|p| p.seen == Seen::Running || (p.seen == Seen::Copying && !p.stopped))
    }

    fn set(&mut self, vm: VmId, seen: Seen) {
        let process = self.processes.get_mut(&vm).expect("it was just seen");
        (process.seen, process.stopped) = (seen, false);
    }
}

pub(crate) fn command(world: &mut World, at: u8, id: MoveId, vm: VmId, command: Command) {
    let seen = world.sites[&at].hypervisor.seen(vm);
    let here = &mut world.sites.get_mut(&at).unwrap().hypervisor;
    let report = match command {
        Command::Prepare(..) if here.refuses => Report::PrepareFailed("no port free".to_owned()),
        Command::Prepare(..) => match seen {
            Seen::Gone | Seen::Incoming => {
                here.start(vm, Seen::Incoming, Some((id, 0)));
                let uri = format!("sim:{at}");
                let event =
                    Event::Report(id, vm, Report::Prepared(Endpoint { uri, multifd: false }));
                return world.tell(at, Duration::from_millis(200), event);
            }
            _ => Report::PrepareFailed(format!("{seen:?} is here")),
        },
        Command::StartCopy(endpoint, copy) => {
            let to: u8 = endpoint.uri.strip_prefix("sim:").unwrap().parse().unwrap();
            return start_copy(world, at, id, vm, to, copy.bandwidth.0);
        }
        Command::SwitchOver => {
            let number = here.processes.get(&vm).map_or(0, |process| process.copies);
            let step = Step::Complete;
            return world.later(Duration::from_millis(50), Coming::Copy { at, vm, number, step });
        }
        Command::CancelCopy => match seen {
            Seen::PostMigrate => Report::SourceCompleted(CopyFigures::default()),
            Seen::Copying => return fail(world, at, vm, "cancelled"),
            _ => Report::CopyFailed("no copy".to_owned(), seen),
        },
        Command::Fence => {
            here.processes.get_mut(&vm).into_iter().for_each(|process| process.tap = false);
            Report::Fenced
        }
        Command::Discard => {
            assert!(matches!(seen, Seen::PostMigrate | Seen::Gone), "{seen:?} is discarded");
            here.processes.remove(&vm);
            Report::Discarded
        }
        Command::TakeBack(run) | Command::Resume(run) => match seen {
            Seen::Gone | Seen::Incoming | Seen::Copying => {
                Report::ResumeFailed(format!("{seen:?}"), seen)
            }
            _ => {
                let before = world.checks.sum_of_costs(&world.guests, &world.sites);
                let here = &mut world.sites.get_mut(&at).unwrap().hypervisor;
                let runs = run == RunState::Running;
                here.set(vm, if runs { Seen::Running } else { Seen::Paused });
                here.processes.get_mut(&vm).unwrap().tap = true;
                if seen == Seen::IncomingComplete {
                    super::check::passed(world, at, id, vm, before);
                }
                Report::Resumed
            }
        },
        Command::DestroyIncomplete if seen == Seen::IncomingComplete => Report::Looked(seen),
        Command::DestroyIncoming | Command::DestroyIncomplete => match seen {
            Seen::Gone => Report::IncomingGone,
            Seen::Incoming | Seen::IncomingComplete => {
                here.processes.remove(&vm);
                if seen == Seen::Incoming {
                    fail(world, super::number(id.host), vm, "the other side has gone");
                }
                Report::IncomingGone
            }
            _ => panic!("{seen:?} of {vm} at host{at} is to be ended as an incoming side"),
        },
        Command::Look => Report::Looked(seen),
    };
    world.report(at, id, vm, report);
}

fn start_copy(world: &mut World, at: u8, id: MoveId, vm: VmId, to: u8, bandwidth: u64) {
    let seen = world.sites[&at].hypervisor.seen(vm);
    let other = &mut world.sites.get_mut(&to).unwrap().hypervisor;
    if seen != Seen::Running || other.seen(vm) != Seen::Incoming {
        let report = Report::CopyFailed("connection refused".to_owned(), seen);
        return world.report(at, id, vm, report);
    }
    other.processes.get_mut(&vm).unwrap().moving = Some((id, at));
    let process = world.sites.get_mut(&at).unwrap().hypervisor.processes.get_mut(&vm).unwrap();
    (process.seen, process.stopped, process.moving) = (Seen::Copying, false, Some((id, to)));
    process.copies += 1;
    let number = process.copies;
    let bits = world.guests[&vm].definition.memory.0 * (8 << 20);
    let takes = Duration::from_micros(bits * 1_000_000 / bandwidth.max(1));
    world.later(takes, Coming::Copy { at, vm, number, step: Step::PreSwitchover });
}

/// A copy has come to its next step, unless it has ended.
pub(crate) fn copy(world: &mut World, at: u8, vm: VmId, number: u64, step: Step) {
    let process = world.sites.get_mut(&at).unwrap().hypervisor.processes.get_mut(&vm);
    let current = process.filter(|p| p.copies == number && p.seen == Seen::Copying);
    let Some(process) = current else { return };
    let (id, to) = process.moving.expect("a copy is a move's");
    match step {
        Step::PreSwitchover => {
            process.stopped = true;
            world.report(at, id, vm, Report::PreSwitchover);
        }
        Step::Complete => {
            process.seen = Seen::PostMigrate;
            world.sites.get_mut(&to).unwrap().hypervisor.set(vm, Seen::IncomingComplete);
            world.report(at, id, vm, Report::SourceCompleted(CopyFigures::default()));
            world.report(to, id, vm, Report::IncomingCompleted);
        }
    }
}

/// A copy under way ends without being complete: the source runs on, the incoming side exits.
pub(crate) fn fail(world: &mut World, at: u8, vm: VmId, why: &str) {
    let Some(process) = world.sites.get_mut(&at).unwrap().hypervisor.processes.get_mut(&vm) else {
        return;
    };
    if process.seen != Seen::Copying {
        return;
    }
    (process.seen, process.stopped) = (Seen::Running, false);
    let (id, to) = process.moving.expect("a copy is a move's");
    world.report(at, id, vm, Report::CopyFailed(why.to_owned(), Seen::Running));
    let other = &mut world.sites.get_mut(&to).unwrap().hypervisor;
    if other.seen(vm) == Seen::Incoming {
        other.processes.remove(&vm);
        world.report(to, id, vm, Report::IncomingFailed(why.to_owned()));
    }
}

/// The process of a VM dies.
pub(crate) fn kill(world: &mut World, at: u8, vm: VmId) {
    let Some(process) = world.sites.get_mut(&at).unwrap().hypervisor.processes.remove(&vm) else {
        return;
    };
    world.checks.killed.insert(vm);
    let why = "killed by signal 9".to_owned();
    let Some((id, other)) = process.moving else {
        return world.tell(at, Duration::from_millis(1), Event::Sighting(Sighting::Gone(vm, why)));
    };
    match process.seen {
        Seen::Incoming => {
            world.report(at, id, vm, Report::IncomingFailed(why.clone()));
            if other != 0 {
                fail(world, other, vm, &why);
            }
        }
        Seen::IncomingComplete => world.report(at, id, vm, Report::IncomingFailed(why)),
        Seen::Copying => {
            world.report(at, id, vm, Report::CopyFailed(why.clone(), Seen::Gone));
            if world.sites[&other].hypervisor.seen(vm) == Seen::Incoming {
                world.sites.get_mut(&other).unwrap().hypervisor.processes.remove(&vm);
                world.report(other, id, vm, Report::IncomingFailed(why));
            }
        }
        _ => world.tell(at, Duration::from_millis(1), Event::Sighting(Sighting::Gone(vm, why))),
    }
}
