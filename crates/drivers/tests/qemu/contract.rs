//! The contract of hypervisor drivers, held by that of real QEMUs.

use std::sync::atomic::{AtomicU32, Ordering};

use decide::migrate::hypervisor::HypervisorCommand;
use decide::units::{MoveId, VmId};
use drivers::hypervisor::{FromHypervisor, Hypervisor};
use rustix::process::Signal;

use crate::cases::{self, At, Bed, Heard, Waits};
use crate::hosts::{Host, files, state};

/// Two folders, each with a driver.
struct Folders([Host; 2]);

impl Folders {
    fn new() -> Folders {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Folders(["a", "b"].map(|name| Host::start(&format!("c{count}-{name}"))))
    }
}

impl Bed for Folders {
    const WAITS: Waits = Waits::BeforeTheLastRound;

    async fn start(&mut self, vm: VmId) {
        self.0[0].run_full_and_find(vm).await;
    }

    fn order(&mut self, at: At, id: MoveId, vm: VmId, command: HypervisorCommand) {
        self.0[at as usize].driver().order(id, vm, command);
    }

    async fn hear(&mut self, at: At) -> Heard {
        match self.0[at as usize].next().await {
            FromHypervisor::Report(id, vm, report) => Heard::Report(id, vm, report),
            FromHypervisor::Sighting(sighting) => Heard::Sighting(sighting),
        }
    }

    fn restart(&mut self, at: At) {
        self.0[at as usize].restart();
    }

    fn pause(&mut self, at: At, vm: VmId, paused: bool) {
        self.0[at as usize].by_hand(vm, if paused { "stop" } else { "cont" });
    }

    fn kill(&mut self, at: At, _vm: VmId) {
        self.0[at as usize].signal(Signal::KILL);
    }

    fn processes(&self, at: At, _vm: VmId) -> usize {
        self.0[at as usize].pids().len()
    }

    fn executes(&self, at: At, vm: VmId) -> bool {
        let host = &self.0[at as usize];
        match host.pids()[..] {
            [] => false,
            // It would not answer.
            [pid] if state(pid) == 'T' => false,
            _ => host.guest_runs(vm),
        }
    }

    fn left(&self, at: At, _vm: VmId) -> Vec<String> {
        let mut left = files(&self.0[at as usize].dir);
        // What its memory was filled from.
        left.retain(|name| name != "memory");
        left
    }
}

macro_rules! tests {
    ($($part:ident { $($case:ident,)* })*) => {
        $($(
            #[tokio::test]
            async fn $case() {
                cases::$part::$case(Folders::new()).await;
            }
        )*)*
    };
}
cases::every_case!(tests);
