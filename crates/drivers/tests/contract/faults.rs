//! Processes and drivers that end in the middle of a move.

use decide::migrate::hypervisor::{HypervisorCommand as C, HypervisorReport as R, RunState, Seen};

use super::{A, B, Bed, Two, Waits};

pub(crate) async fn a_target_killed_in_mid_copy_leaves_the_source_running(bed: impl Bed) {
    let mut two = Two::start(bed).await;
    two.in_mid_copy(RunState::Running).await;
    two.bed.kill(B, two.vm);
    assert!(matches!(two.report(B).await, R::IncomingFailed(why) if !why.is_empty()));
    assert!(matches!(two.report(A).await, R::CopyFailed(why, Seen::Running) if !why.is_empty()));
    assert!(two.executes(A));
    two.expect(B, C::DestroyIncoming, R::IncomingGone).await;
    two.nothing_is_left(B);
    two.completed(RunState::Running).await;
}

pub(crate) async fn a_source_killed_in_mid_copy_fails_the_target(bed: impl Bed) {
    let mut two = Two::start(bed).await;
    two.in_mid_copy(RunState::Running).await;
    two.bed.kill(A, two.vm);
    assert!(matches!(two.report(A).await, R::CopyFailed(why, Seen::Gone) if !why.is_empty()));
    assert!(matches!(two.report(B).await, R::IncomingFailed(why) if !why.is_empty()));
    two.expect(B, C::DestroyIncoming, R::IncomingGone).await;
    two.nothing_is_left(B);
    assert_eq!(two.both_look().await, (Seen::Gone, Seen::Gone));
}

pub(crate) async fn a_target_killed_before_the_switch_over_leaves_the_vm_to_its_source<T: Bed>(
    bed: T,
) {
    let mut two = Two::start(bed).await;
    let endpoint = two.prepared(RunState::Running).await;
    two.copies(A, endpoint).await;
    two.bed.kill(B, two.vm);
    match T::WAITS {
        Waits::BeforeTheLastRound => {
            assert!(matches!(two.report(B).await, R::IncomingFailed(_)));
            let failed = |report: &R| matches!(report, R::CopyFailed(_, Seen::Running));
            let first = two.ask(A, C::SwitchOver).await;
            assert!(failed(&first), "{first:?}");
            let again = two.said_until_looked(A).await;
            assert!(again.iter().all(failed), "{again:?}");
        }
        Waits::AfterTheLastRound => {
            two.hears_that_it_is_gone(B).await;
            two.switches_over(A).await;
            two.expect(B, C::Resume(RunState::Running), R::IncomingGone).await;
            two.expect(A, C::TakeBack(RunState::Running), R::Resumed).await;
        }
    }
    assert!(two.executes(A) && two.processes(A) == 1);
    assert_eq!(two.both_look().await, (Seen::Running, Seen::Gone));
    two.nothing_is_left(B);
}

pub(crate) async fn a_complete_copy_killed_is_told_as_gone(bed: impl Bed) {
    let mut two = Two::start(bed).await;
    two.completed(RunState::Running).await;
    two.expect(A, C::Fence, R::Fenced).await;
    two.bed.kill(B, two.vm);
    two.hears_that_it_is_gone(B).await;
    two.expect(B, C::Resume(RunState::Running), R::IncomingGone).await;
    two.expect(B, C::DestroyIncoming, R::IncomingGone).await;
    two.nothing_is_left(B);
    assert!(!two.executes(A), "nobody has told it to run");
    two.expect(A, C::TakeBack(RunState::Running), R::Resumed).await;
    assert!(two.executes(A));
}

pub(crate) async fn a_copy_that_was_let_run_and_killed_is_not_told_as_never_run(bed: impl Bed) {
    let mut two = Two::start(bed).await;
    two.completed(RunState::Running).await;
    two.expect(A, C::Fence, R::Fenced).await;
    two.expect(B, C::Resume(RunState::Running), R::Resumed).await;
    two.bed.kill(B, two.vm);
    two.hears_that_it_is_gone(B).await;
    let report = two.ask(B, C::Resume(RunState::Running)).await;
    assert!(matches!(report, R::ResumeFailed(_, Seen::Gone)), "{report:?}");
    assert_eq!(two.both_look().await, (Seen::PostMigrate, Seen::Gone));
}

pub(crate) async fn a_source_killed_after_the_hand_over_changes_nothing(bed: impl Bed) {
    let mut two = Two::start(bed).await;
    two.completed(RunState::Running).await;
    two.expect(A, C::Fence, R::Fenced).await;
    two.bed.kill(A, two.vm);
    two.hears_that_it_is_gone(A).await;
    assert_eq!(two.both_look().await, (Seen::Gone, Seen::IncomingComplete));
    two.expect(B, C::Resume(RunState::Running), R::Resumed).await;
    two.expect(A, C::Discard, R::Discarded).await;
    two.nothing_is_left(A);
    assert!(two.executes(B));
}

pub(crate) async fn a_vm_that_is_killed_is_told_of(bed: impl Bed) {
    let mut two = Two::start(bed).await;
    two.bed.kill(A, two.vm);
    two.hears_that_it_is_gone(A).await;
    assert_eq!(two.looks(A).await, Seen::Gone);
    let report = two.ask(A, C::TakeBack(RunState::Running)).await;
    assert!(matches!(report, R::ResumeFailed(_, Seen::Gone)), "{report:?}");
}

pub(crate) async fn a_restarted_driver_sees_what_is_there_and_goes_on(bed: impl Bed) {
    let mut two = Two::start(bed).await;
    two.in_mid_copy(RunState::Running).await;
    two.restart();
    assert_eq!(two.both_look().await, (Seen::Copying, Seen::Incoming));
    two.goes_on().await;
    assert!(matches!(two.ask(A, C::CancelCopy).await, R::CopyFailed(_, Seen::Running)));
    assert!(two.executes(A));
    two.gives_up().await;

    two.completed(RunState::Running).await;
    two.restart();
    assert_eq!(two.both_look().await, (Seen::PostMigrate, Seen::IncomingComplete));
    two.expect(A, C::Fence, R::Fenced).await;
    two.restart();
    assert_eq!(two.both_look().await, (Seen::PostMigrate, Seen::IncomingComplete));
    two.expect(B, C::Resume(RunState::Running), R::Resumed).await;
    two.restart();
    assert_eq!(two.both_look().await, (Seen::PostMigrate, Seen::Running));
    two.expect(A, C::Discard, R::Discarded).await;
    two.nothing_is_left(A);
    assert!(two.executes(B));
    assert_eq!(two.both_look().await, (Seen::Gone, Seen::Running));
}
