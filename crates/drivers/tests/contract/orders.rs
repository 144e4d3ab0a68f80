//! Orders given twice, too early, or about what is not there; and two moves of one VM.

use decide::migrate::hypervisor::{HypervisorCommand as C, HypervisorReport as R, RunState, Seen};
use decide::units::MoveId;

use super::{A, At, B, Bed, FAST, Two, Waits};

impl<B: Bed> Two<B> {
    /// What is said to the order of another move, while one is under way.
    async fn ask_as(&mut self, id: MoveId, at: At, command: C) -> R {
        let own = std::mem::replace(&mut self.id, id);
        self.order(at, command);
        let (of, report) = loop {
            let (of, report) = self.any_report(at).await;
            if !matches!(report, R::Progress(_)) {
                break (of, report);
            }
        };
        assert_eq!(of, id, "{report:?}");
        self.id = own;
        report
    }

    /// Not while it is no complete copy.
    async fn cannot_be_resumed(&mut self) {
        let report = self.ask(B, C::Resume(RunState::Running)).await;
        assert!(matches!(report, R::ResumeFailed(_, Seen::Incoming)), "{report:?}");
    }

    /// Asks again for what was settled before.
    async fn is_completed(&mut self, command: C) {
        let said = format!("{command:?}");
        let report = self.ask(A, command).await;
        assert!(matches!(report, R::SourceCompleted(_)), "{said}: {report:?}");
    }
}

pub(crate) async fn an_order_given_twice_is_carried_out_once(bed: impl Bed) {
    let mut two = Two::start(bed).await;
    let definition = two.found_again(A, RunState::Running).await;
    let endpoint = two.prepare(B, &definition).await;
    assert_eq!(two.prepare(B, &definition).await, endpoint);
    assert_eq!(two.processes(B), 1);

    two.order(A, C::StartCopy(endpoint.clone(), FAST));
    two.order(A, C::StartCopy(endpoint.clone(), FAST));
    assert_eq!(two.report(A).await, R::PreSwitchover);
    let again = two.said_until_looked(A).await;
    assert!(again.iter().all(|report| *report == R::PreSwitchover), "{again:?}");

    two.order(A, C::SwitchOver);
    two.order(A, C::SwitchOver);
    assert!(matches!(two.report(A).await, R::SourceCompleted(_)));
    let again = two.said_until_looked(A).await;
    assert!(again.iter().all(|report| matches!(report, R::SourceCompleted(_))), "{again:?}");
    two.is_completed(C::SwitchOver).await;
    two.is_completed(C::StartCopy(endpoint, FAST)).await;
    // It has won.
    two.is_completed(C::CancelCopy).await;
    assert_eq!(two.report(B).await, R::IncomingCompleted);

    for (at, command, report) in [
        (A, C::Fence, R::Fenced),
        (B, C::Resume(RunState::Running), R::Resumed),
        (A, C::Discard, R::Discarded),
        // It never was there.
        (A, C::DestroyIncoming, R::IncomingGone),
    ] {
        two.order(at, command.clone());
        two.order(at, command.clone());
        assert_eq!(two.report(at).await, report, "{command:?}");
        assert_eq!(two.said_until_looked(at).await, [report], "{command:?}");
    }
    assert!(two.executes(B) && two.processes(B) == 1);
    two.nothing_is_left(A);
}

pub(crate) async fn what_cannot_be_is_answered_as_often_as_it_is_asked(bed: impl Bed) {
    let mut two = Two::start(bed).await;
    // Nothing is copied.
    for _ in 0..2 {
        let report = two.ask(A, C::CancelCopy).await;
        assert!(matches!(report, R::CopyFailed(_, Seen::Running)), "{report:?}");
    }
    // Of this nothing is said, whether it can be or not.
    two.order(A, C::AllowPause(FAST.downtime_max));
    assert_eq!(two.said_until_looked(A).await, []);
    // It is here already.
    let definition = two.found_again(A, RunState::Running).await;
    two.next_move();
    for _ in 0..2 {
        let report = two.ask(A, C::Prepare(Box::new(definition.clone()), FAST, None)).await;
        assert!(matches!(report, R::PrepareFailed(_)), "{report:?}");
    }
    // Nobody listens any more.
    let endpoint = two.prepared(RunState::Running).await;
    two.gives_up().await;
    for _ in 0..2 {
        let report = two.ask(A, C::StartCopy(endpoint.clone(), FAST)).await;
        assert!(matches!(report, R::CopyFailed(_, Seen::Running)), "{report:?}");
    }
    // Neither is anything here.
    for _ in 0..2 {
        let report = two.ask(B, C::Resume(RunState::Running)).await;
        assert!(matches!(report, R::ResumeFailed(_, Seen::Gone)), "{report:?}");
    }
    assert_eq!(two.both_look().await, (Seen::Running, Seen::Gone));
    assert!(two.executes(A) && two.processes(A) == 1);
    two.nothing_is_left(B);
}

pub(crate) async fn a_resume_before_the_copy_is_complete_is_refused<T: Bed>(bed: T) {
    let mut two = Two::start(bed).await;
    two.prepared(RunState::Running).await;
    two.cannot_be_resumed().await;
    // And it is still known never to have run there.
    two.gives_up().await;
    let endpoint = two.prepared(RunState::Running).await;
    two.cannot_be_resumed().await;
    two.copies(A, endpoint).await;
    if T::WAITS == Waits::BeforeTheLastRound {
        two.cannot_be_resumed().await;
    }
    two.switches_over(A).await;
    assert!(!two.executes(B), "it was not armed to start by itself");
    two.expect(B, C::Resume(RunState::Running), R::Resumed).await;
    assert!(two.executes(B));
}

pub(crate) async fn what_runs_is_neither_destroyed_nor_discarded(bed: impl Bed) {
    let mut two = Two::start(bed).await;
    let ends = [C::DestroyIncoming, C::DestroyIncomplete, C::Discard];
    for (paused, seen) in [(false, Seen::Running), (true, Seen::Paused)] {
        two.bed.pause(A, two.vm, paused);
        for end in ends.clone() {
            two.expect(A, end, R::Looked(seen)).await;
        }
    }
    two.bed.pause(A, two.vm, false);
    two.in_mid_copy(RunState::Running).await;
    for end in ends.clone() {
        two.expect(A, end, R::Looked(Seen::Copying)).await;
    }
    two.cannot_be_resumed().await;
    let report = two.ask(A, C::TakeBack(RunState::Running)).await;
    assert!(matches!(report, R::ResumeFailed(_, Seen::Copying)), "{report:?}");
    assert!(two.executes(A));
    assert!(matches!(two.ask(A, C::CancelCopy).await, R::CopyFailed(_, Seen::Running)));
    two.gives_up().await;
    two.completed(RunState::Running).await;
    two.expect(A, C::Fence, R::Fenced).await;
    two.expect(B, C::Resume(RunState::Running), R::Resumed).await;
    // It came, and once ran here.
    for (paused, seen) in [(false, Seen::Running), (true, Seen::Paused)] {
        two.bed.pause(B, two.vm, paused);
        for end in ends.clone() {
            two.expect(B, end, R::Looked(seen)).await;
        }
    }
    assert_eq!(two.processes(B), 1);
}

pub(crate) async fn what_a_move_left_or_brought_is_ended_by_its_own_order_alone(bed: impl Bed) {
    let mut two = Two::start(bed).await;
    two.completed(RunState::Running).await;
    for end in [C::DestroyIncomplete, C::Discard] {
        two.expect(B, end, R::Looked(Seen::IncomingComplete)).await;
    }
    two.expect(A, C::Fence, R::Fenced).await;
    for end in [C::DestroyIncoming, C::DestroyIncomplete] {
        two.expect(A, end, R::Looked(Seen::PostMigrate)).await;
    }
    // Each side's copy is let run by its own word too.
    let report = two.ask(A, C::Resume(RunState::Running)).await;
    assert!(matches!(report, R::ResumeFailed(_, Seen::PostMigrate)), "{report:?}");
    let report = two.ask(B, C::TakeBack(RunState::Running)).await;
    assert!(matches!(report, R::ResumeFailed(_, Seen::IncomingComplete)), "{report:?}");
    assert_eq!((two.processes(A), two.processes(B)), (1, 1));
    assert!(!two.executes(A) && !two.executes(B));
    two.expect(B, C::Resume(RunState::Running), R::Resumed).await;
    two.expect(A, C::Discard, R::Discarded).await;
    assert!(two.executes(B));
}

pub(crate) async fn an_incoming_side_is_destroyed_when_asked(bed: impl Bed) {
    let mut two = Two::start(bed).await;
    // In vain: nobody came.
    for end in [C::DestroyIncoming, C::DestroyIncomplete] {
        two.prepared(RunState::Running).await;
        two.expect_twice(B, end, R::IncomingGone).await;
        two.nothing_is_left(B);
    }
    // In mid-copy: the source runs on.
    two.in_mid_copy(RunState::Running).await;
    two.expect(B, C::DestroyIncoming, R::IncomingGone).await;
    assert!(matches!(two.report(A).await, R::CopyFailed(_, Seen::Running)));
    two.nothing_is_left(B);
    assert!(two.executes(A));
    // Complete: the source stays stopped until it is told.
    two.completed(RunState::Running).await;
    two.expect_twice(B, C::DestroyIncoming, R::IncomingGone).await;
    two.nothing_is_left(B);
    assert_eq!(two.both_look().await, (Seen::PostMigrate, Seen::Gone));
    assert!(!two.executes(A));
    two.expect(A, C::TakeBack(RunState::Running), R::Resumed).await;
    assert!(two.executes(A));
}

pub(crate) async fn another_move_of_the_same_vm_is_refused(bed: impl Bed) {
    let mut two = Two::start(bed).await;
    let definition = two.found_again(A, RunState::Running).await;
    two.next_move();
    let endpoint = two.prepare(B, &definition).await;
    let other = MoveId { counter: 99, ..two.id };
    let prepare = C::Prepare(Box::new(definition), FAST, None);
    let refused = two.ask_as(other, B, prepare.clone()).await;
    assert!(matches!(refused, R::PrepareFailed(_)), "{refused:?}");
    assert_eq!((two.processes(B), two.looks(B).await), (1, Seen::Incoming));

    two.order(A, C::StartCopy(endpoint.clone(), super::SLOW));
    two.goes_on().await;
    let refused = two.ask_as(other, A, C::StartCopy(endpoint.clone(), FAST)).await;
    assert!(matches!(refused, R::CopyFailed(_, Seen::Copying)), "{refused:?}");
    let refused = two.ask_as(other, B, prepare.clone()).await;
    assert!(matches!(refused, R::PrepareFailed(_)), "{refused:?}");
    assert_eq!(two.both_look().await, (Seen::Copying, Seen::Incoming));
    two.goes_on().await;
    assert!(matches!(two.ask(A, C::CancelCopy).await, R::CopyFailed(_, Seen::Running)));
    two.gives_up().await;

    two.completed(RunState::Running).await;
    let refused = two.ask_as(other, A, C::StartCopy(endpoint, FAST)).await;
    assert!(matches!(refused, R::CopyFailed(_, Seen::PostMigrate)), "{refused:?}");
    let refused = two.ask_as(other, B, prepare).await;
    assert!(matches!(refused, R::PrepareFailed(_)), "{refused:?}");
    assert_eq!(two.both_look().await, (Seen::PostMigrate, Seen::IncomingComplete));
    two.expect(B, C::Resume(RunState::Running), R::Resumed).await;
    two.expect(A, C::Discard, R::Discarded).await;
    assert!(two.executes(B));
}
