//! The contract of hypervisor drivers, held by the processes that simulated clusters live on.

#![expect(clippy::wildcard_enum_match_arm, reason = "a test that meets the unexpected panics")]

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use decide::migrate::hypervisor::{HypervisorCommand, RunState, Seen, Sighting, VmDefinition};
use decide::units::{BitsPerSec, Mib, MoveId, Time, VmId};
use sim::hypervisor::{Fleet, Memory, Said, Step};

use contract::{At, Bed, Heard, Waits};

#[path = "../../drivers/tests/contract/mod.rs"]
mod contract;

/// A name that no host has: a simulated process needs nothing else to start elsewhere.
const NAME: &str = "vm-70";
/// How long it takes until it is heard that a process ended, or was found.
const TOLD: Duration = Duration::from_millis(1);

/// Two hosts in simulated time: whoever waits for something to be said lets it pass.
struct Simulated {
    now: Time,
    fleet: Fleet,
    coming: BTreeMap<(Time, u64), Coming>,
    /// How many events were put into `coming`.
    count: u64,
    /// When the last report of a host comes.
    reported: [Time; 2],
    heard: [VecDeque<Heard>; 2],
}

enum Coming {
    Step(Step),
    Heard(At, Heard),
}

fn number(at: At) -> u16 {
    at as u16
}

fn place(number: u16) -> At {
    if number == At::A as u16 { At::A } else { At::B }
}

impl Simulated {
    fn new() -> Simulated {
        let mut fleet = Fleet::default();
        fleet.add(number(At::A), BitsPerSec(10_000_000_000));
        fleet.add(number(At::B), BitsPerSec(10_000_000_000));
        Simulated {
            now: Time(0),
            fleet,
            coming: BTreeMap::new(),
            count: 0,
            reported: [Time(0); 2],
            heard: Default::default(),
        }
    }

    fn later(&mut self, when: Time, what: Coming) {
        self.count += 1;
        self.coming.insert((when, self.count), what);
    }

    fn take(&mut self, said: Vec<Said>) {
        for said in said {
            match said {
                Said::Report { to, id, vm, report, after } => {
                    let at = place(to);
                    // What is reported of one VM comes in its order.
                    let when = self.now.plus(after).max(self.reported[at as usize]);
                    self.reported[at as usize] = when;
                    self.later(when, Coming::Heard(at, Heard::Report(id, vm, report)));
                }
                Said::Gone { at, vm, how } => {
                    let gone = Heard::Sighting(Sighting::Gone(vm, how));
                    self.later(self.now.plus(TOLD), Coming::Heard(place(at), gone));
                }
                Said::Later { after, step } => {
                    self.later(self.now.plus(after), Coming::Step(step));
                }
            }
        }
    }

    fn find(&mut self, at: At, vm: VmId) {
        let run = match self.fleet.seen(number(at), vm) {
            Seen::Gone | Seen::Incoming | Seen::IncomingComplete => return,
            Seen::Running | Seen::Copying => RunState::Running,
            Seen::Paused | Seen::PostMigrate | Seen::Unknown => RunState::Paused,
        };
        let found = Heard::Sighting(Sighting::Found(Box::new(definition(vm)), run));
        self.later(self.now.plus(TOLD), Coming::Heard(at, found));
    }
}

fn definition(vm: VmId) -> VmDefinition {
    VmDefinition {
        vm,
        name: NAME.to_owned(),
        memory: Mib(64),
        vcpus: 1,
        needs: decide::migrate::hypervisor::Needs::default(),
        start: String::new(),
        tags: Vec::new(),
        local_disks: Mib(0),
        witness: None,
    }
}

fn reaches(_from: u16, _to: u16) -> bool {
    true
}

impl Bed for Simulated {
    const WAITS: Waits = Waits::BeforeTheLastRound;

    async fn start(&mut self, vm: VmId) {
        let memory = Memory { size: Mib(64), working_set: Mib(8), dirty_rate: Mib(1) };
        self.fleet.know(vm, memory);
        self.fleet.start(self.now, number(At::A), vm, Seen::Running);
    }

    fn order(&mut self, at: At, id: MoveId, vm: VmId, command: HypervisorCommand) {
        let mut said = Vec::new();
        self.fleet.command(self.now, &reaches, number(at), id, vm, command, &mut said);
        self.take(said);
    }

    async fn hear(&mut self, at: At) -> Heard {
        loop {
            if let Some(heard) = self.heard[at as usize].pop_front() {
                return heard;
            }
            let Some(((when, _), coming)) = self.coming.pop_first() else {
                panic!("nothing is heard at {at:?}")
            };
            self.now = when;
            match coming {
                Coming::Heard(at, heard) => self.heard[at as usize].push_back(heard),
                Coming::Step(step) => {
                    let mut said = Vec::new();
                    self.fleet.step(when, &reaches, step, &mut said);
                    self.take(said);
                }
            }
        }
    }

    fn restart(&mut self, at: At) {
        self.heard[at as usize].clear();
        self.coming.retain(|_, coming| !matches!(coming, Coming::Heard(to, _) if *to == at));
        let vms: Vec<VmId> = self.fleet.processes(number(at)).map(|(vm, _)| vm).collect();
        for vm in vms {
            self.find(at, vm);
        }
    }

    fn pause(&mut self, at: At, vm: VmId, paused: bool) {
        // As it is already: as a real one does, it says nothing then.
        let _changed = self.fleet.pause(self.now, number(at), vm, paused);
    }

    fn kill(&mut self, at: At, vm: VmId) {
        let mut said = Vec::new();
        self.fleet.kill(self.now, &reaches, number(at), vm, &mut said);
        self.take(said);
    }

    fn processes(&self, at: At, vm: VmId) -> usize {
        self.fleet.processes(number(at)).filter(|(of, _)| *of == vm).count()
    }

    fn executes(&self, at: At, vm: VmId) -> bool {
        self.fleet.process(number(at), vm).is_some_and(sim::hypervisor::Process::executes)
    }

    fn left(&self, at: At, vm: VmId) -> Vec<String> {
        let process = self.fleet.process(number(at), vm);
        process.map(|process| format!("{process:?}")).into_iter().collect()
    }
}

/// Nothing is waited for here but simulated time: each step is done at once.
fn at_once(case: impl Future<Output = ()>) {
    let done = pin!(case).poll(&mut Context::from_waker(Waker::noop()));
    assert_eq!(done, Poll::Ready(()));
}

macro_rules! tests {
    ($($part:ident { $($case:ident,)* })*) => {
        $($(
            #[test]
            fn $case() {
                at_once(contract::$part::$case(Simulated::new()));
            }
        )*)*
    };
}
contract::every_case!(tests);
