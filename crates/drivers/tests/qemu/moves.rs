//! Moves as they should go, cancels, and what is refused.

use std::process::Command;

use decide::migrate::hypervisor::{
    CopyParameters, Endpoint, HypervisorCommand as C, HypervisorReport as R, RunState, Seen,
    Sighting,
};
use decide::units::VmId;
use drivers::hypervisor::Hypervisor;

use crate::hosts::{FAST, Host, SLOW, files, lives};

async fn move_over(
    a: &mut Host,
    b: &mut Host,
    vm: VmId,
    copy: CopyParameters,
    run_state: RunState,
) {
    let (Seen::Running | Seen::Paused) = a.looks(vm).await else { panic!("not here") };
    let definition = found_again(a, vm).await;
    let endpoint = b.prepare(&definition, copy).await;
    assert_eq!(endpoint.multifd, copy.multifd);
    assert_eq!(a.ask(vm, C::StartCopy(endpoint, copy)).await, R::PreSwitchover);
    let R::SourceCompleted(figures) = a.ask(vm, C::SwitchOver).await else {
        panic!("not completed")
    };
    assert!(
        figures.progress.total.0 >= 64 << 20 && figures.progress.transferred.0 > 0,
        "{figures:?}"
    );
    assert_eq!(b.report().await, R::IncomingCompleted);
    assert_eq!((a.looks(vm).await, b.looks(vm).await), (Seen::PostMigrate, Seen::IncomingComplete));
    assert_eq!(a.ask(vm, C::Fence).await, R::Fenced);
    assert_eq!(b.ask(vm, C::Resume(run_state)).await, R::Resumed);
    let pid = a.pids()[0];
    assert_eq!(a.ask(vm, C::Discard).await, R::Discarded);
    assert!(!lives(pid) && a.pids().is_empty());
    assert_eq!(files(&a.dir), Vec::<String>::new());
    assert_eq!((a.driver().watched().len(), b.driver().watched().len()), (0, 1));
}

/// The definition as a restarted driver finds it.
async fn found_again(host: &mut Host, vm: VmId) -> decide::migrate::hypervisor::VmDefinition {
    host.restart();
    match host.sighting().await {
        Sighting::Found(definition, _) if definition.vm == vm => *definition,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_vm_moves_there_and_back() {
    let (mut a, mut b, vm) = (Host::start("there-a"), Host::start("there-b"), VmId(0x10));
    let definition = a.run_and_find(vm, None).await;
    assert!(definition.needs.machine.starts_with("pc-i440fx-"), "{definition:?}");
    assert_eq!(
        (definition.needs.driver.as_str(), definition.needs.accelerator.as_str()),
        ("qemu", "tcg")
    );
    move_over(&mut a, &mut b, vm, FAST, RunState::Running).await;
    assert_eq!(b.looks(vm).await, Seen::Running);
    assert_eq!(b.driver().watched()[0].pid.cast_signed(), b.pids()[0]);
    move_over(&mut b, &mut a, vm, FAST, RunState::Running).await;
    assert_eq!(a.looks(vm).await, Seen::Running);
}

#[tokio::test]
async fn a_vm_moves_over_several_connections_where_both_sides_can() {
    let (mut a, mut b, vm) = (Host::start("multi-a"), Host::start("multi-b"), VmId(0x11));
    a.run_and_find(vm, None).await;
    move_over(&mut a, &mut b, vm, CopyParameters { multifd: true, ..FAST }, RunState::Running)
        .await;
    assert_eq!(b.looks(vm).await, Seen::Running);
}

#[tokio::test]
async fn a_vm_that_an_operator_paused_arrives_paused() {
    let (mut a, mut b, vm) = (Host::start("paused-a"), Host::start("paused-b"), VmId(0x12));
    a.run_and_find(vm, None).await;
    a.by_hand(vm, "stop");
    assert_eq!(a.sighting().await, Sighting::RunStateChanged(vm, RunState::Paused));
    move_over(&mut a, &mut b, vm, FAST, RunState::Paused).await;
    assert_eq!(b.looks(vm).await, Seen::Paused);
    b.by_hand(vm, "cont");
    assert_eq!(b.sighting().await, Sighting::RunStateChanged(vm, RunState::Running));
}

/// A target's word goes into QEMU's `migrate`, which would also run a program or write a file.
#[tokio::test]
async fn a_copy_goes_to_a_tcp_address_and_to_nothing_else_that_a_target_names() {
    let (mut a, vm) = (Host::start("named"), VmId(0x1c));
    a.run_and_find(vm, None).await;
    let written = a.dir.join("written");
    for uri in [
        format!("exec:cat > {}", written.display()),
        format!("file:{}", written.display()),
        format!("unix:{}", written.display()),
        "tcp:localhost:49152".to_owned(),
    ] {
        let endpoint = Endpoint { uri: uri.clone(), ..Endpoint::default() };
        match a.ask(vm, C::StartCopy(endpoint, FAST)).await {
            R::CopyFailed(why, Seen::Running) => {
                assert!(why.contains("is no tcp:ADDRESS:PORT: nothing is sent there"), "{why}");
            }
            other => panic!("{uri}: {other:?}"),
        }
    }
    assert!(!written.exists(), "a target has had something written here");
}

#[tokio::test]
async fn a_cancel_in_mid_copy_leaves_the_source_running_and_nothing_at_the_target() {
    let (mut a, mut b, vm) = (Host::start("cancel-a"), Host::start("cancel-b"), VmId(0x13));
    let definition = a.run_and_find(vm, None).await;
    let endpoint = b.prepare(&definition, SLOW).await;
    a.copy_until_progress(vm, endpoint).await;
    assert_eq!((a.looks(vm).await, b.looks(vm).await), (Seen::Copying, Seen::Incoming));
    assert_eq!(
        a.ask(vm, C::CancelCopy).await,
        R::CopyFailed("cancelled".to_owned(), Seen::Running)
    );
    assert!(a.by_hand(vm, "query-status").contains("\"running\""));
    // Its source gone, the incoming QEMU ends by itself: that may be heard first.
    let mut heard = b.ask(vm, C::DestroyIncoming).await;
    if matches!(heard, R::IncomingFailed(_)) {
        heard = b.report().await;
    }
    assert_eq!(heard, R::IncomingGone);
    assert!(b.pids().is_empty());
    assert_eq!(files(&b.dir), Vec::<String>::new());
    // The same VM can be moved after that.
    move_over_again(&mut a, &mut b, vm).await;
}

async fn move_over_again(a: &mut Host, b: &mut Host, vm: VmId) {
    b.restart();
    move_over(a, b, vm, FAST, RunState::Running).await;
    assert_eq!(b.looks(vm).await, Seen::Running);
}

#[tokio::test]
async fn a_cancel_at_pre_switchover_lets_the_source_run_on() {
    let (mut a, mut b, vm) = (Host::start("late-a"), Host::start("late-b"), VmId(0x14));
    let definition = a.run_and_find(vm, None).await;
    let endpoint = b.prepare(&definition, FAST).await;
    assert_eq!(a.ask(vm, C::StartCopy(endpoint, FAST)).await, R::PreSwitchover);
    assert!(a.by_hand(vm, "query-status").contains("finish-migrate"));
    assert_eq!(
        a.ask(vm, C::CancelCopy).await,
        R::CopyFailed("cancelled".to_owned(), Seen::Running)
    );
    assert!(a.by_hand(vm, "query-status").contains("\"running\""));
}

#[tokio::test]
async fn an_early_resume_is_refused_and_does_not_arm_the_guest_to_start_by_itself() {
    let (mut a, mut b, vm) = (Host::start("early-a"), Host::start("early-b"), VmId(0x15));
    let definition = a.run_and_find(vm, None).await;
    let endpoint = b.prepare(&definition, FAST).await;
    assert!(matches!(
        b.ask(vm, C::Resume(RunState::Running)).await,
        R::ResumeFailed(_, Seen::Incoming)
    ));
    assert_eq!(a.ask(vm, C::StartCopy(endpoint, FAST)).await, R::PreSwitchover);
    assert!(matches!(
        b.ask(vm, C::Resume(RunState::Running)).await,
        R::ResumeFailed(_, Seen::Incoming)
    ));
    assert!(matches!(a.ask(vm, C::SwitchOver).await, R::SourceCompleted(_)));
    assert_eq!(b.report().await, R::IncomingCompleted);
    assert!(b.by_hand(vm, "query-status").contains("\"paused\""));
    assert!(b.file(vm, "incoming").exists() && !b.file(vm, "toml").exists(), "it never ran here");
    assert_eq!(b.ask(vm, C::Resume(RunState::Running)).await, R::Resumed);
    assert!(
        !b.file(vm, "incoming").exists() && b.file(vm, "toml").exists(),
        "it may have run here"
    );
}

#[tokio::test]
async fn an_order_given_twice_is_carried_out_once() {
    let (mut a, mut b, vm) = (Host::start("twice-a"), Host::start("twice-b"), VmId(0x16));
    let definition = a.run_and_find(vm, None).await;
    let endpoint = b.prepare(&definition, FAST).await;
    let pids = b.pids();
    assert_eq!(b.prepare(&definition, FAST).await, endpoint);
    assert_eq!(b.pids(), pids);
    for _ in 0..2 {
        a.order(vm, C::StartCopy(endpoint.clone(), FAST));
    }
    assert_eq!(a.report().await, R::PreSwitchover);
    for _ in 0..2 {
        a.order(vm, C::SwitchOver);
    }
    let mut completed = a.report().await;
    if completed == R::PreSwitchover {
        // The second StartCopy came after the first was at pre-switchover.
        completed = a.report().await;
    }
    assert!(matches!(completed, R::SourceCompleted(_)), "{completed:?}");
    assert_eq!(a.ask(vm, C::SwitchOver).await, completed);
    assert_eq!(a.ask(vm, C::CancelCopy).await, completed, "`completed` has won");
    assert_eq!(b.report().await, R::IncomingCompleted);
    for _ in 0..2 {
        assert_eq!(a.ask(vm, C::Fence).await, R::Fenced);
    }
    for _ in 0..2 {
        assert_eq!(b.ask(vm, C::Resume(RunState::Running)).await, R::Resumed);
    }
    for _ in 0..2 {
        assert_eq!(a.ask(vm, C::Discard).await, R::Discarded);
    }
    for _ in 0..2 {
        assert_eq!(a.ask(vm, C::DestroyIncoming).await, R::IncomingGone, "it never was there");
    }
    assert_eq!(b.looks(vm).await, Seen::Running);
}

#[tokio::test]
async fn what_runs_is_neither_destroyed_nor_discarded() {
    let (mut a, mut b, vm) = (Host::start("runs-a"), Host::start("runs-b"), VmId(0x17));
    a.run_and_find(vm, None).await;
    assert_eq!(a.ask(vm, C::DestroyIncoming).await, R::Looked(Seen::Running));
    assert_eq!(a.ask(vm, C::Discard).await, R::Looked(Seen::Running));
    move_over(&mut a, &mut b, vm, FAST, RunState::Running).await;
    assert_eq!(b.ask(vm, C::DestroyIncoming).await, R::Looked(Seen::Running));
    b.by_hand(vm, "stop");
    assert_eq!(b.ask(vm, C::DestroyIncoming).await, R::Looked(Seen::Paused), "it once ran here");
    assert_eq!(b.pids().len(), 1);
}

#[tokio::test]
async fn a_vm_taken_back_after_the_target_gave_it_up_runs_at_the_source() {
    let (mut a, mut b, vm) = (Host::start("back-a"), Host::start("back-b"), VmId(0x18));
    let definition = a.run_and_find(vm, None).await;
    let endpoint = b.prepare(&definition, FAST).await;
    assert_eq!(a.ask(vm, C::StartCopy(endpoint, FAST)).await, R::PreSwitchover);
    assert!(matches!(
        a.ask(vm, C::TakeBack(RunState::Running)).await,
        R::ResumeFailed(_, Seen::Copying)
    ));
    assert!(matches!(a.ask(vm, C::SwitchOver).await, R::SourceCompleted(_)));
    assert_eq!(b.report().await, R::IncomingCompleted);
    assert_eq!(b.ask(vm, C::DestroyIncoming).await, R::IncomingGone);
    assert!(b.pids().is_empty());
    assert_eq!(a.ask(vm, C::TakeBack(RunState::Running)).await, R::Resumed);
    assert_eq!(a.looks(vm).await, Seen::Running);
}

#[tokio::test]
async fn a_target_refuses_what_it_cannot_start_and_keeps_nothing_of_it() {
    let (mut a, mut b, vm) = (Host::start("refuse-a"), Host::start("refuse-b"), VmId(0x19));
    let good = a.run_and_find(vm, None).await;
    for (from, to, said) in [
        ("\"-nodefaults\"", "\"-no-such-option\"", "-no-such-option: invalid option"),
        ("qemu-system-x86_64", "qemu-system-absent", "could not be started"),
        ("{uuid}", "00000000-0000-0000-0000-0000000000ff", "pass -uuid"),
        ("\"pc\"", "\"q35\"", "it needs pc-i440fx"),
        ("vcpus = 1", "", "missing field `vcpus`"),
    ] {
        let mut wrong = good.clone();
        wrong.start = good.start.replace(from, to);
        let R::PrepareFailed(why) = b.ask(vm, C::Prepare(Box::new(wrong), FAST, None)).await else {
            panic!("{to}")
        };
        assert!(why.contains(said), "{to}: {why}");
        assert_eq!((files(&b.dir), b.pids()), (vec![], vec![]), "{to}");
    }
    let R::PrepareFailed(why) = a.ask(vm, C::Prepare(Box::new(good), FAST, None)).await else {
        panic!("it is here")
    };
    assert!(why.contains("here already"), "{why}");
    assert_eq!(a.looks(vm).await, Seen::Running);
}

fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// In a network namespace of its own: this thread's, its children's, and that of no other test.
#[test]
fn the_tap_moves_with_its_vm() {
    // SAFETY: without `FILES` in the flags, the table of open files stays shared with the other threads.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }.expect("root");
    ip("link set lo up");
    ip("link add br0 type bridge");
    ip("tuntap add dev tap-t mode tap");
    ip("link set tap-t master br0 up");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (mut a, mut b, vm) = (Host::start("tap-a"), Host::start("tap-b"), VmId(0x1a));
        let definition = a.run_and_find(vm, Some("tap-t")).await;
        assert_eq!(definition.needs.bridge, "br0");
        assert_eq!(a.driver().watched()[0].tap.as_deref(), Some("tap-t"));
        // One namespace for both hosts: the name is taken, until the target's definition has another.
        let R::PrepareFailed(why) =
            b.ask(vm, C::Prepare(Box::new(definition.clone()), FAST, None)).await
        else {
            panic!("taken")
        };
        assert!(why.contains("tap-t is here already"), "{why}");
        let mut there = definition.clone();
        there.start = definition.start.replace("tap-t", "tap-u");
        let endpoint = b.prepare(&there, FAST).await;
        assert!(ip("link show dev tap-u").contains("master br0"));
        assert_eq!(a.ask(vm, C::StartCopy(endpoint, FAST)).await, R::PreSwitchover);
        assert!(matches!(a.ask(vm, C::SwitchOver).await, R::SourceCompleted(_)));
        assert_eq!(b.report().await, R::IncomingCompleted);
        assert_eq!(a.ask(vm, C::Fence).await, R::Fenced);
        assert!(
            ip("link show dev tap-t").contains("tap-t")
                && !ip("link show dev tap-t").contains("master")
        );
        assert_eq!(b.ask(vm, C::DestroyIncoming).await, R::IncomingGone);
        assert_eq!(ip("link show dev tap-u"), "");
        assert_eq!(a.ask(vm, C::TakeBack(RunState::Running)).await, R::Resumed);
        assert!(ip("link show dev tap-t").contains("master br0"));
        let endpoint = b.prepare(&there, FAST).await;
        assert_eq!(a.ask(vm, C::StartCopy(endpoint, FAST)).await, R::PreSwitchover);
        assert!(matches!(a.ask(vm, C::SwitchOver).await, R::SourceCompleted(_)));
        assert_eq!(b.report().await, R::IncomingCompleted);
        assert_eq!(a.ask(vm, C::Fence).await, R::Fenced);
        assert_eq!(b.ask(vm, C::Resume(RunState::Running)).await, R::Resumed);
        assert_eq!(a.ask(vm, C::Discard).await, R::Discarded);
        assert_eq!(ip("link show dev tap-t"), "");
        assert!(ip("link show dev tap-u").contains("master br0"));
        ip("link delete tap-u");
        let Sighting::Unusable(Some(_), why) = b.sighting().await else { panic!("no tap") };
        assert!(why.contains("there is no tap tap-u"), "{why}");
        assert_eq!(b.looks(vm).await, Seen::Running);
    });
}
