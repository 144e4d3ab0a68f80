//! What of moves only QEMU has: several connections, taps, and what a target cannot start or a source must not be told.

use std::process::Command;

use decide::migrate::hypervisor::{
    CopyParameters, Endpoint, HypervisorCommand as C, HypervisorReport as R, RunState, Seen,
    Sighting,
};
use decide::units::VmId;
use drivers::hypervisor::Hypervisor;

use crate::hosts::{FAST, Host, files};

#[tokio::test]
async fn a_vm_moves_over_several_connections_where_both_sides_can() {
    let (mut a, mut b, vm) = (Host::start("multi-a"), Host::start("multi-b"), VmId(0x11));
    let copy = CopyParameters { multifd: true, ..FAST };
    let definition = a.run_and_find(vm, None).await;
    let needs = &definition.needs;
    assert!(needs.machine.starts_with("pc-i440fx-"), "{needs:?}");
    assert_eq!((needs.driver.as_str(), needs.accelerator.as_str()), ("qemu", "tcg"));
    let endpoint = b.prepare(&definition, copy).await;
    assert!(endpoint.multifd);
    assert_eq!(a.ask(vm, C::StartCopy(endpoint, copy)).await, R::PreSwitchover);
    assert!(matches!(a.ask(vm, C::SwitchOver).await, R::SourceCompleted(_)));
    assert_eq!(b.report().await, R::IncomingCompleted);
    assert_eq!(a.ask(vm, C::Fence).await, R::Fenced);
    assert_eq!(b.ask(vm, C::Resume(RunState::Running)).await, R::Resumed);
    assert_eq!(a.ask(vm, C::Discard).await, R::Discarded);
    assert_eq!((a.driver().watched().len(), b.driver().watched().len()), (0, 1));
    assert_eq!(b.driver().watched()[0].pid.cast_signed(), b.pids()[0]);
    b.by_hand(vm, "stop");
    assert_eq!(b.sighting().await, Sighting::RunStateChanged(vm, RunState::Paused));
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
