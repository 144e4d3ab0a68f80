//! Moves as they should go, cancels, and a VM that is taken back.

use decide::migrate::hypervisor::{HypervisorCommand as C, HypervisorReport as R, RunState, Seen};

use super::{A, At, B, Bed, MEMORY, Two, Waits, seen};

impl<B: Bed> Two<B> {
    /// Moves the VM, and looks at it in each phase.
    async fn moves(&mut self, from: At, run: RunState) {
        let (to, was) = (from.other(), seen(run));
        let definition = self.found_again(from, run).await;
        self.next_move();
        assert_eq!((self.looks(from).await, self.looks(to).await), (was, Seen::Gone));
        let endpoint = self.prepare(to, &definition).await;
        assert_eq!((self.looks(from).await, self.looks(to).await), (was, Seen::Incoming));
        assert_eq!((self.processes(from), self.processes(to)), (1, 1));

        self.copies(from, endpoint).await;
        assert!(!self.executes(from) && !self.executes(to), "it is stopped, and waits");
        let there = match B::WAITS {
            Waits::BeforeTheLastRound => Seen::Incoming,
            Waits::AfterTheLastRound => Seen::IncomingComplete,
        };
        assert_eq!((self.looks(from).await, self.looks(to).await), (Seen::Copying, there));

        let figures = self.switches_over(from).await;
        assert!(figures.progress.total.0 >= MEMORY, "{figures:?}");
        assert!(figures.progress.transferred.0 > 0 && !figures.total.is_zero(), "{figures:?}");
        let complete = (Seen::PostMigrate, Seen::IncomingComplete);
        assert_eq!((self.looks(from).await, self.looks(to).await), complete);
        self.expect(from, C::Fence, R::Fenced).await;
        assert_eq!((self.looks(from).await, self.looks(to).await), complete);
        assert!(!self.executes(from) && !self.executes(to), "nobody runs before the hand-over");

        self.expect(to, C::Resume(run), R::Resumed).await;
        assert_eq!((self.looks(from).await, self.looks(to).await), (Seen::PostMigrate, was));
        let runs = run == RunState::Running;
        assert_eq!((self.executes(from), self.executes(to)), (false, runs));
        self.expect(from, C::Discard, R::Discarded).await;
        self.nothing_is_left(from);
        assert_eq!((self.looks(from).await, self.looks(to).await), (Seen::Gone, was));
        assert_eq!((self.executes(to), self.processes(to)), (runs, 1));
    }

    /// Cancels what is under way from `A`; it goes on there as before, and nothing is left at `B`.
    async fn cancels(&mut self, run: RunState) {
        match self.ask(A, C::CancelCopy).await {
            R::CopyFailed(why, now) => {
                assert!(now == seen(run) && !why.is_empty(), "{why} {now:?}")
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(self.executes(A), run == RunState::Running);
        self.gives_up().await;
        assert_eq!(self.both_look().await, (seen(run), Seen::Gone));
    }

    /// Takes the VM back whose copy is complete, as often as it is told.
    async fn takes_back(&mut self, run: RunState) {
        self.expect(A, C::Fence, R::Fenced).await;
        self.gives_up().await;
        self.expect_twice(A, C::TakeBack(run), R::Resumed).await;
        assert_eq!(self.both_look().await, (seen(run), Seen::Gone));
        assert_eq!((self.executes(A), self.processes(A)), (run == RunState::Running, 1));
    }
}

pub(crate) async fn a_vm_moves_there_and_back(bed: impl Bed) {
    let mut two = Two::start(bed).await;
    for from in [A, B, A] {
        two.moves(from, RunState::Running).await;
    }
}

pub(crate) async fn a_vm_that_an_operator_paused_arrives_paused(bed: impl Bed) {
    let mut two = Two::start(bed).await;
    two.bed.pause(A, two.vm, true);
    two.moves(A, RunState::Paused).await;
    two.bed.pause(B, two.vm, false);
    assert!(two.executes(B) && two.looks(B).await == Seen::Running);
}

pub(crate) async fn a_copy_is_cancelled_in_its_middle(bed: impl Bed) {
    let mut two = Two::start(bed).await;
    two.in_mid_copy(RunState::Running).await;
    assert_eq!(two.both_look().await, (Seen::Copying, Seen::Incoming));
    assert!(two.executes(A), "it runs while it is copied");
    two.cancels(RunState::Running).await;
    // And nothing of it stands in the way of the next.
    two.moves(A, RunState::Running).await;
}

pub(crate) async fn a_copy_is_cancelled_when_it_waits_to_switch_over(bed: impl Bed) {
    let mut two = Two::start(bed).await;
    let endpoint = two.prepared(RunState::Running).await;
    two.copies(A, endpoint).await;
    two.cancels(RunState::Running).await;
    two.moves(A, RunState::Running).await;
}

pub(crate) async fn a_paused_vm_whose_copy_is_cancelled_stays_paused(bed: impl Bed) {
    let mut two = Two::start(bed).await;
    two.bed.pause(A, two.vm, true);
    two.in_mid_copy(RunState::Paused).await;
    two.cancels(RunState::Paused).await;
    let endpoint = two.prepared(RunState::Paused).await;
    two.copies(A, endpoint).await;
    two.cancels(RunState::Paused).await;
    two.bed.pause(A, two.vm, false);
    assert!(two.executes(A) && two.looks(A).await == Seen::Running);
}

pub(crate) async fn a_vm_is_taken_back_after_the_target_gave_it_up(bed: impl Bed) {
    let mut two = Two::start(bed).await;
    let endpoint = two.prepared(RunState::Running).await;
    two.copies(A, endpoint).await;
    two.switches_over(A).await;
    two.takes_back(RunState::Running).await;
    two.moves(A, RunState::Running).await;
}

pub(crate) async fn a_paused_vm_that_is_taken_back_stays_paused(bed: impl Bed) {
    let mut two = Two::start(bed).await;
    two.bed.pause(A, two.vm, true);
    two.completed(RunState::Paused).await;
    two.takes_back(RunState::Paused).await;
    two.bed.pause(A, two.vm, false);
    assert!(two.executes(A) && two.looks(A).await == Seen::Running);
}
