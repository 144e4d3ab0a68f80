//! What is seen outside of moves, and what cannot be used.

use std::os::unix::net::UnixListener;
use std::time::Duration;

use decide::migrate::hypervisor::{RunState, Seen, Sighting};
use decide::units::VmId;
use drivers::hypervisor::Hypervisor;
use rustix::process::Signal;

use crate::hosts::{Host, definition, until};

/// What is said next, which must be that something cannot be used.
async fn unusable(host: &mut Host) -> (Option<VmId>, String) {
    match host.sighting().await {
        Sighting::Unusable(vm, why) => (vm, why),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_cannot_be_used_is_said_once_with_its_file_and_what_to_do() {
    let mut host = Host::start_with("odd", |config| config.answer_max = Duration::from_millis(300));
    let at = |n: u128| VmId(n);
    for (vm, extension, text, said) in [
        (at(0x30), "toml", definition("absent", None), "the QMP socket beside"),
        (at(0x31), "toml", "name = ".to_owned(), "0031.toml"),
        (at(0x32), "toml", definition("x", None) + "colour = 1", "unknown field `colour`"),
        (at(0x33), "sock", String::new(), "a socket without a definition"),
    ] {
        host.write(vm, extension, &text);
        let (about, why) = unusable(&mut host).await;
        assert_eq!(about, Some(vm));
        assert!(why.contains(said) && why.contains(&vm.to_string()), "{why}");
    }
    std::fs::write(host.dir.join("web1.toml"), definition("web1", None)).unwrap();
    let (about, why) = unusable(&mut host).await;
    assert!(about.is_none() && why.contains("web1.toml: rename it"), "{why}");

    // Said once: the next thing said is about the next file.
    let mute = UnixListener::bind(host.file(at(0x34), "sock")).unwrap();
    host.write(at(0x34), "toml", &definition("mute", None));
    loop {
        let (about, why) = unusable(&mut host).await;
        assert_eq!(about, Some(at(0x34)), "{why}");
        if why.contains("is another client connected?") {
            break;
        }
    }
    drop(mute);
    let (about, why) = unusable(&mut host).await;
    assert_eq!(about, Some(at(0x34)));
    assert!(why.contains("nobody listens: start VM mute"), "{why}");
    // A mended file is used without a restart.
    host.run(at(0x31), None);
    host.write(at(0x31), "toml", &definition("mended", None));
    loop {
        match host.sighting().await {
            Sighting::Found(found, RunState::Running) if found.name == "mended" => break,
            Sighting::Unusable(Some(vm), _) if vm == at(0x31) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_vm_with_another_uuid_name_or_no_tap_is_not_adopted() {
    let mut host = Host::start("strange");
    let (vm, other, third) = (VmId(0x35), VmId(0x36), VmId(0x37));
    host.run_and_find(vm, None).await;
    host.run(other, None);
    let socket = host.file(other, "sock");
    until("QEMU listens", || std::os::unix::net::UnixStream::connect(&socket).is_ok()).await;
    host.write(other, "toml", &definition("vm-35", None));
    let (_, why) = loop {
        let said = unusable(&mut host).await;
        if !said.1.contains("without a definition") {
            break said;
        }
    };
    assert!(why.contains("another VM here is named \"vm-35\""), "{why}");
    host.write(other, "toml", &definition("vm-36", Some("tap-absent")));
    let (_, why) = unusable(&mut host).await;
    assert!(why.contains("there is no tap tap-absent: make it and put it on br0"), "{why}");
    std::fs::remove_file(host.file(other, "toml")).unwrap();
    std::fs::rename(host.file(other, "sock"), host.file(third, "sock")).unwrap();
    host.write(third, "toml", &definition("vm-37", None));
    let (_, why) = loop {
        let said = unusable(&mut host).await;
        if said.0 == Some(third) {
            break said;
        }
    };
    assert!(why.contains("its QEMU runs VM 00000000-0000-0000-0000-000000000036"), "{why}");
    assert_eq!(host.driver().watched().len(), 1);
}

#[tokio::test]
async fn an_operators_pause_and_the_end_of_a_process_are_seen() {
    let (mut host, vm) = (Host::start("seen"), VmId(0x38));
    host.run_and_find(vm, None).await;
    let watched = host.driver().watched();
    assert_eq!((watched[0].name.as_str(), watched[0].pid.cast_signed()), ("vm-38", host.pids()[0]));
    assert!(watched[0].process_start > 0 && watched[0].tap.is_none());
    host.by_hand(vm, "stop");
    assert_eq!(host.sighting().await, Sighting::RunStateChanged(vm, RunState::Paused));
    host.by_hand(vm, "cont");
    assert_eq!(host.sighting().await, Sighting::RunStateChanged(vm, RunState::Running));
    host.by_hand(vm, "quit");
    let Sighting::Gone(gone, how) = host.sighting().await else { panic!("it ended") };
    assert!(gone == vm && how.contains("host-qmp-quit"), "{how}");
    assert_eq!(host.looks(vm).await, Seen::Gone);
    assert_eq!(host.driver().watched(), vec![]);
    assert!(host.file(vm, "toml").exists());
    // Started again it is found again.
    host.run(vm, None);
    loop {
        match host.sighting().await {
            Sighting::Found(..) => break,
            Sighting::Unusable(..) => {}
            other => panic!("{other:?}"),
        }
    }
    host.signal(Signal::KILL);
    assert!(matches!(host.sighting().await, Sighting::Gone(..)));
}

#[tokio::test]
async fn one_vm_that_hangs_delays_no_other() {
    let mut host = Host::start_with("stuck", |config| config.answer_max = Duration::from_secs(50));
    let (stuck, well) = (VmId(0x39), VmId(0x3a));
    host.run_and_find(stuck, None).await;
    host.signal(Signal::STOP);
    host.order(stuck, decide::migrate::hypervisor::HypervisorCommand::Look);
    host.run_and_find(well, None).await;
    assert_eq!(host.looks(well).await, Seen::Running, "answered first, though asked last");
}
