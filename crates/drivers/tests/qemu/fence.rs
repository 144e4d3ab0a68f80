//! A copy that was released is stopped for good: nobody lets it run past the driver, and the driver still settles it.

use std::time::Duration;

use decide::migrate::hypervisor::{
    HypervisorCommand as C, HypervisorReport as R, RunState, Seen, Sighting,
};
use decide::units::VmId;
use rustix::process::Signal;

use crate::hosts::{FAST, Host, files, state, until};

/// A VM moved from `a` to `b` as far as the fence.
async fn fenced(a: &mut Host, b: &mut Host, vm: VmId) {
    let definition = a.run_and_find(vm, None).await;
    let endpoint = b.prepare(&definition, FAST).await;
    assert_eq!(a.ask(vm, C::StartCopy(endpoint, FAST)).await, R::PreSwitchover);
    assert!(matches!(a.ask(vm, C::SwitchOver).await, R::SourceCompleted(_)));
    assert_eq!(b.report().await, R::IncomingCompleted);
    assert_eq!(a.ask(vm, C::Fence).await, R::Fenced);
    assert_eq!(state(a.pids()[0]), 'T');
}

#[tokio::test]
async fn a_fenced_copy_obeys_nobody_and_is_discarded_without_hearing_what_was_said_to_it() {
    let (mut a, mut b, vm) = (Host::start("fd-a"), Host::start("fd-b"), VmId(0x40));
    fenced(&mut a, &mut b, vm).await;
    let pid = a.pids()[0];
    a.tell_by_hand(vm, "cont");
    assert_eq!(b.ask(vm, C::Resume(RunState::Running)).await, R::Resumed);
    assert_eq!(a.looks(vm).await, Seen::PostMigrate);
    assert_eq!((state(pid), a.pids()), ('T', vec![pid]));
    assert_eq!(a.ask(vm, C::Discard).await, R::Discarded);
    assert_eq!((files(&a.dir), a.pids()), (vec![], vec![]));
}

#[tokio::test]
async fn a_restarted_driver_settles_a_fenced_copy_either_way_and_at_once() {
    let (mut a, mut b, vm) = (Host::start("fr-a"), Host::start("fr-b"), VmId(0x42));
    fenced(&mut a, &mut b, vm).await;
    for _ in 0..2 {
        a.restart();
        let asked = Duration::from_secs(2);
        let seen = tokio::time::timeout(asked, a.looks(vm)).await.expect("no wait for QEMU");
        assert_eq!(seen, Seen::PostMigrate);
        assert_eq!(a.ask(vm, C::Fence).await, R::Fenced);
    }
    assert_eq!(b.ask(vm, C::DestroyIncoming).await, R::IncomingGone);
    a.restart();
    assert_eq!(a.ask(vm, C::TakeBack(RunState::Running)).await, R::Resumed);

    let (mut c, other) = (Host::start("fr-c"), VmId(0x43));
    fenced(&mut c, &mut b, other).await;
    c.restart();
    assert_eq!(c.ask(other, C::Discard).await, R::Discarded);
    assert_eq!((files(&c.dir), c.pids()), (vec![], vec![]));
}

#[tokio::test]
async fn a_process_that_somebody_else_stopped_is_not_taken_for_fenced() {
    let (mut a, vm) = (Host::start("fo-a"), VmId(0x44));
    a.run_and_find(vm, None).await;
    a.signal(Signal::STOP);
    let pid = a.pids()[0];
    until("it is stopped", || state(pid) == 'T').await;
    // Of another process.
    std::fs::write(a.file(vm, "fenced"), format!("{pid} 1\n")).unwrap();
    a.restart();
    let said = tokio::time::timeout(Duration::from_secs(4), a.sighting()).await.expect("at once");
    let Sighting::Unusable(Some(_), why) = said else { panic!("{said:?}") };
    assert!(why.contains(&format!("`kill -CONT {pid}` lets it go on")), "{why}");
    assert_eq!(a.looks(vm).await, Seen::Unknown);
    assert_eq!(a.ask(vm, C::Discard).await, R::Looked(Seen::Unknown), "it may be the only copy");
    a.signal(Signal::CONT);
    assert!(matches!(a.sighting().await, Sighting::Found(_, RunState::Running)));
}
