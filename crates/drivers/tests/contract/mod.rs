//! What is expected of every driver of a hypervisor, by the words of `decide::migrate::hypervisor`: cases written once.
//!
//! A test binary brings a [`Bed`] and makes a test of each case by [`every_case`]: `drivers/tests/qemu` with real QEMUs,
//! `lab/tests/libvirt` with real daemons, `sim/tests/contract.rs` with the processes that simulated clusters live on. Nothing but
//! decide's words is used here, since the last knows no driver. [`Waits`] is the one thing in which they may differ.

pub(crate) mod faults;
pub(crate) mod moves;
pub(crate) mod orders;

use std::collections::VecDeque;
use std::time::Duration;

use decide::migrate::hypervisor::{
    CopyFigures, CopyParameters, Endpoint, HypervisorCommand as C, HypervisorReport as R, RunState,
    Seen, Sighting, VmDefinition,
};
use decide::units::{BitsPerSec, HostId, MoveId, VmId};

pub(crate) use At::{A, B};

/// Calls a macro with the name of every case, by its module.
macro_rules! every_case {
    ($make:ident) => {
        $make! {
            moves {
                a_vm_moves_there_and_back,
                a_vm_that_an_operator_paused_arrives_paused,
                a_copy_is_cancelled_in_its_middle,
                a_copy_is_cancelled_when_it_waits_to_switch_over,
                a_paused_vm_whose_copy_is_cancelled_stays_paused,
                a_vm_is_taken_back_after_the_target_gave_it_up,
                a_paused_vm_that_is_taken_back_stays_paused,
            }
            orders {
                an_order_given_twice_is_carried_out_once,
                what_cannot_be_is_answered_as_often_as_it_is_asked,
                a_resume_before_the_copy_is_complete_is_refused,
                what_runs_is_neither_destroyed_nor_discarded,
                what_a_move_left_or_brought_is_ended_by_its_own_order_alone,
                an_incoming_side_is_destroyed_when_asked,
                another_move_of_the_same_vm_is_refused,
            }
            faults {
                a_target_killed_in_mid_copy_leaves_the_source_running,
                a_source_killed_in_mid_copy_fails_the_target,
                a_target_killed_before_the_switch_over_leaves_the_vm_to_its_source,
                a_complete_copy_killed_is_told_as_gone,
                a_copy_that_was_let_run_and_killed_is_not_told_as_never_run,
                a_source_killed_after_the_hand_over_changes_nothing,
                a_vm_that_is_killed_is_told_of,
                a_restarted_driver_sees_what_is_there_and_goes_on,
            }
        }
    };
}
pub(crate) use every_case;

/// As fast as it goes.
pub(crate) const FAST: CopyParameters = CopyParameters {
    bandwidth: BitsPerSec(8_000_000_000),
    downtime_max: Duration::from_secs(1),
    multifd: false,
    encrypted: false,
    auto_converge: false,
    copy_disks: false,
};
/// So slow that it stays in mid-copy until something happens to it; libvirt makes 1 MiB/s of it, its least.
const SLOW: CopyParameters = CopyParameters {
    bandwidth: BitsPerSec(64_000),
    downtime_max: Duration::from_millis(1),
    ..FAST
};
/// Memory of the VM.
const MEMORY: u64 = 64 << 20;
/// A process that is there and does not answer does so after fewer looks.
const LOOKS_MAX: u32 = 10_000;

/// One of the two hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    /// Where VMs start.
    A,
    /// The other.
    B,
}

impl At {
    fn other(self) -> At {
        match self {
            A => B,
            B => A,
        }
    }
}

/// Where a copy waits for `SwitchOver`, having said `PreSwitchover`: all in which drivers differ here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waits {
    /// The guest is stopped, the target's copy not complete.
    BeforeTheLastRound,
    /// libvirt cannot stop before: the target's copy is complete, which it has said.
    AfterTheLastRound,
}

/// Heard from the driver at one host.
#[derive(Clone, Debug)]
pub(crate) enum Heard {
    /// About a VM in a move.
    Report(MoveId, VmId, R),
    /// About a VM outside of any move.
    Sighting(Sighting),
}

/// Two hosts, each with a driver.
pub(crate) trait Bed {
    /// What its drivers do.
    const WAITS: Waits;

    /// Starts a VM at `A` that runs, of 64 MiB, of which some do not compress.
    async fn start(&mut self, vm: VmId);

    /// Gives a driver an order.
    fn order(&mut self, at: At, id: MoveId, vm: VmId, command: C);

    /// The next that a driver says; fails if it says nothing for long.
    async fn hear(&mut self, at: At) -> Heard;

    /// Ends a driver and starts another, as an agent that is killed and comes back. What the first said is lost.
    fn restart(&mut self, at: At);

    /// Pauses a guest past the driver, or lets it run again, as an operator does.
    fn pause(&mut self, at: At, vm: VmId, paused: bool);

    /// Ends the VM's hypervisor process at once.
    fn kill(&mut self, at: At, vm: VmId);

    /// How many hypervisor processes the VM has there.
    fn processes(&self, at: At, vm: VmId) -> usize;

    /// Whether the guest executes there, by its hypervisor's own word.
    fn executes(&self, at: At, vm: VmId) -> bool;

    /// What is left of the VM there, in words: processes, files, definitions.
    fn left(&self, at: At, vm: VmId) -> Vec<String>;
}

/// A VM, two hosts, and what was heard of it there.
struct Two<B> {
    bed: B,
    vm: VmId,
    id: MoveId,
    reports: [VecDeque<(MoveId, R)>; 2],
    sightings: [VecDeque<Sighting>; 2],
}

impl<B: Bed> Two<B> {
    /// A VM that runs at `A`.
    async fn start(mut bed: B) -> Two<B> {
        let vm = VmId(0x70);
        bed.start(vm).await;
        let id = MoveId { host: HostId(1), incarnation: 1, counter: 1 };
        Two { bed, vm, id, reports: Default::default(), sightings: Default::default() }
    }

    /// What is ordered from here on belongs to another move.
    fn next_move(&mut self) {
        self.id.counter += 1;
    }

    fn order(&mut self, at: At, command: C) {
        self.bed.order(at, self.id, self.vm, command);
    }

    async fn hear(&mut self, at: At) {
        match self.bed.hear(at).await {
            Heard::Report(id, vm, report) => {
                assert_eq!(vm, self.vm);
                self.reports[at as usize].push_back((id, report));
            }
            Heard::Sighting(sighting) => self.sightings[at as usize].push_back(sighting),
        }
    }

    /// The next report, progress or not, and its move.
    async fn any_report(&mut self, at: At) -> (MoveId, R) {
        loop {
            if let Some(report) = self.reports[at as usize].pop_front() {
                return report;
            }
            self.hear(at).await;
        }
    }

    /// The next report that is not mere progress.
    async fn report(&mut self, at: At) -> R {
        loop {
            let (id, report) = self.any_report(at).await;
            if !matches!(report, R::Progress(_)) {
                assert_eq!(id, self.id, "{report:?} at {at:?} is of another move");
                return report;
            }
        }
    }

    /// Orders, and returns the next report.
    async fn ask(&mut self, at: At, command: C) -> R {
        self.order(at, command);
        self.report(at).await
    }

    /// Orders, and expects that report.
    async fn expect(&mut self, at: At, command: C, expected: R) {
        let said = format!("{command:?} at {at:?}");
        assert_eq!(self.ask(at, command).await, expected, "{said}");
    }

    /// Orders twice, expects that report, and no other.
    async fn expect_twice(&mut self, at: At, command: C, expected: R) {
        self.order(at, command.clone());
        self.expect(at, command.clone(), expected.clone()).await;
        let said = self.said_until_looked(at).await;
        assert_eq!(said, [expected], "{command:?} at {at:?}");
    }

    /// What is there now; all that was said before was heard.
    async fn looks(&mut self, at: At) -> Seen {
        for _ in 0..LOOKS_MAX {
            let R::Looked(seen) = self.ask(at, C::Look).await else { panic!("no look at {at:?}") };
            if seen != Seen::Unknown {
                return seen;
            }
        }
        panic!("the VM's process at {at:?} does not answer");
    }

    /// What is there now, at `A` and at `B`.
    async fn both_look(&mut self) -> (Seen, Seen) {
        (self.looks(A).await, self.looks(B).await)
    }

    /// All that the orders before this one bring at once, but progress.
    async fn said_until_looked(&mut self, at: At) -> Vec<R> {
        let mut said = Vec::new();
        self.order(at, C::Look);
        loop {
            match self.report(at).await {
                R::Looked(_) => return said,
                report => said.push(report),
            }
        }
    }

    /// Waits until it is told that the VM's process there has ended.
    async fn hears_that_it_is_gone(&mut self, at: At) {
        loop {
            match self.sightings[at as usize].pop_front() {
                Some(Sighting::Gone(vm, how)) => {
                    assert!(vm == self.vm && !how.is_empty(), "{vm} {how}");
                    return;
                }
                Some(_) => {}
                None => self.hear(at).await,
            }
        }
    }

    /// The VM's definition, as a driver finds it that has just started.
    async fn found_again(&mut self, at: At, run: RunState) -> VmDefinition {
        self.bed.restart(at);
        self.reports[at as usize].clear();
        self.sightings[at as usize].clear();
        loop {
            match self.sightings[at as usize].pop_front() {
                Some(Sighting::Found(definition, seen)) if definition.vm == self.vm => {
                    assert_eq!(seen, run);
                    return *definition;
                }
                Some(_) => {}
                None => self.hear(at).await,
            }
        }
    }

    /// Restarts both drivers.
    fn restart(&mut self) {
        for at in [A, B] {
            self.bed.restart(at);
            self.reports[at as usize].clear();
            self.sightings[at as usize].clear();
        }
    }

    fn executes(&self, at: At) -> bool {
        self.bed.executes(at, self.vm)
    }

    fn processes(&self, at: At) -> usize {
        self.bed.processes(at, self.vm)
    }

    fn nothing_is_left(&self, at: At) {
        assert_eq!(self.bed.left(at, self.vm), Vec::<String>::new(), "at {at:?}");
        assert_eq!(self.processes(at), 0, "at {at:?}");
    }

    async fn prepare(&mut self, at: At, definition: &VmDefinition) -> Endpoint {
        let prepare = C::Prepare(Box::new(definition.clone()), FAST, None);
        match self.ask(at, prepare).await {
            R::Prepared(endpoint) => endpoint,
            other => panic!("{other:?} at {at:?}"),
        }
    }

    /// A move from `A` that is prepared at `B`.
    async fn prepared(&mut self, run: RunState) -> Endpoint {
        let definition = self.found_again(A, run).await;
        self.next_move();
        self.prepare(B, &definition).await
    }

    /// A move from `A` in mid-copy.
    async fn in_mid_copy(&mut self, run: RunState) {
        let endpoint = self.prepared(run).await;
        self.order(A, C::StartCopy(endpoint, SLOW));
        self.goes_on().await;
    }

    /// The copy from `A` says how far it is.
    async fn goes_on(&mut self) {
        match self.any_report(A).await {
            (id, R::Progress(progress)) => {
                assert_eq!(id, self.id);
                assert!(progress.total.0 >= MEMORY && progress.remaining <= progress.total);
            }
            other => panic!("{other:?}"),
        }
    }

    /// The copy comes to where it waits to switch over.
    async fn copies(&mut self, from: At, endpoint: Endpoint) {
        self.expect(from, C::StartCopy(endpoint, FAST), R::PreSwitchover).await;
        if B::WAITS == Waits::AfterTheLastRound {
            assert_eq!(self.report(from.other()).await, R::IncomingCompleted);
        }
    }

    /// The copy becomes complete.
    async fn switches_over(&mut self, from: At) -> CopyFigures {
        let figures = match self.ask(from, C::SwitchOver).await {
            R::SourceCompleted(figures) => figures,
            other => panic!("{other:?}"),
        };
        if B::WAITS == Waits::BeforeTheLastRound {
            assert_eq!(self.report(from.other()).await, R::IncomingCompleted);
        }
        figures
    }

    /// A move from `A` whose copy is complete.
    async fn completed(&mut self, run: RunState) {
        let endpoint = self.prepared(run).await;
        self.copies(A, endpoint).await;
        self.switches_over(A).await;
    }

    /// Ends the incoming side at `B`, which may have ended by itself, or have said that it is complete where that comes early.
    async fn gives_up(&mut self) {
        self.order(B, C::DestroyIncoming);
        loop {
            match self.report(B).await {
                R::IncomingGone => return self.nothing_is_left(B),
                R::IncomingFailed(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

/// How a VM in that run state is seen.
fn seen(run: RunState) -> Seen {
    match run {
        RunState::Running => Seen::Running,
        RunState::Paused => Seen::Paused,
    }
}
