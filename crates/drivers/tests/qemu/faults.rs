//! QEMUs and drivers that die, hang or are restarted in mid-move.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::time::Duration;

use decide::migrate::hypervisor::{
    CopyParameters, HypervisorCommand as C, HypervisorReport as R, RunState, Seen, Sighting,
};
use decide::units::VmId;
use drivers::hypervisor::Hypervisor;
use rustix::process::Signal;

use crate::hosts::{FAST, Host, SLOW, definition, files, lives};

#[tokio::test]
async fn a_source_killed_in_mid_copy_fails_the_target_with_its_own_words() {
    let (mut a, mut b, vm) = (Host::start("ks-a"), Host::start("ks-b"), VmId(0x21));
    let definition = a.run_and_find(vm, None).await;
    let endpoint = b.prepare(&definition, SLOW).await;
    a.copy_until_progress(vm, endpoint).await;
    a.signal(Signal::KILL);
    let R::CopyFailed(_, Seen::Gone) = a.report().await else { panic!("it is gone") };
    let R::IncomingFailed(why) = b.report().await else { panic!("it failed") };
    assert!(why.contains("it said: qemu-system-x86_64"), "{why}");
    assert_eq!((files(&b.dir), b.pids()), (vec![], vec![]));
    assert!(a.file(vm, "toml").exists(), "the definition of a VM that is down is kept");
}

/// A stopped target takes no bytes and says nothing back: to the source, the same as a link that is down.
#[tokio::test]
async fn a_copy_that_stalls_is_cancelled_and_the_source_runs_on() {
    let mut a = Host::start_with("stall-a", |config| config.stall_max = Duration::from_secs(1));
    let (mut b, vm) = (Host::start("stall-b"), VmId(0x24));
    let definition = a.run_and_find(vm, None).await;
    let endpoint = b.prepare(&definition, FAST).await;
    b.signal(Signal::STOP);
    a.order(vm, C::StartCopy(endpoint, FAST));
    let mut report = a.report().await;
    if report == R::PreSwitchover {
        // All of the memory fitted into the socket; now the source waits for the target's word.
        report = a.ask(vm, C::SwitchOver).await;
    }
    assert_eq!(
        report,
        R::CopyFailed("cancelled: nothing was sent for 1s".to_owned(), Seen::Running)
    );
    assert!(a.guest_runs(vm));
    b.signal(Signal::CONT);
    let mut heard = b.ask(vm, C::DestroyIncoming).await;
    while heard != R::IncomingGone {
        assert!(matches!(heard, R::IncomingFailed(_) | R::IncomingCompleted), "{heard:?}");
        heard = b.report().await;
    }
}

/// As QEMU 10.0 does with several connections now and then: its threads wait for each other.
#[tokio::test]
async fn a_copy_that_qemu_does_not_end_is_told_with_what_to_do() {
    let mut a = Host::start_with("hang-a", |config| config.stall_max = Duration::from_secs(1));
    let vm = VmId(0x2d);
    hanging(UnixListener::bind(a.file(vm, "sock")).unwrap(), vm);
    a.write(vm, "toml", &definition("vm-2d", None));
    assert!(matches!(a.sighting().await, Sighting::Found(..)));
    assert_eq!(a.looks(vm).await, Seen::Copying);
    a.order(vm, C::CancelCopy);
    match a.sighting().await {
        Sighting::Unusable(Some(unusable), why) => {
            assert_eq!(unusable, vm);
            assert!(why.contains("does not end a copy") && why.contains("started anew"), "{why}");
        }
        other => panic!("{other:?}"),
    }
}

/// Answers as a QEMU whose cancelled copy never ends.
fn hanging(listener: UnixListener, vm: VmId) {
    let answer = move |command: &str| match command {
        "query-uuid" => format!(r#"{{"UUID":"{vm}"}}"#),
        "query-status" => r#"{"status":"running"}"#.to_owned(),
        "query-kvm" => r#"{"enabled":false}"#.to_owned(),
        "qom-get" => r#""pc-i440fx-7.2-machine""#.to_owned(),
        "query-migrate" => r#"{"status":"cancelling"}"#.to_owned(),
        _ => "{}".to_owned(),
    };
    std::thread::spawn(move || {
        let (client, _) = listener.accept().unwrap();
        writeln!(&client, r#"{{"QMP":{{"capabilities":[]}}}}"#).unwrap();
        // Until the driver goes away.
        for line in BufReader::new(&client).lines().map_while(Result::ok) {
            let asked: serde_json::Value = serde_json::from_str(&line).unwrap();
            let answer = answer(asked["execute"].as_str().unwrap());
            if writeln!(&client, r#"{{"return":{answer},"id":{}}}"#, asked["id"]).is_err() {
                return;
            }
        }
    });
}

/// QEMU itself would wait until TCP gives up: its threads hang in the kernel with what nobody takes.
#[tokio::test]
async fn a_cancel_of_a_copy_whose_bytes_nobody_takes_is_settled_within_seconds() {
    let (mut a, mut b, vm) = (Host::start("yank-a"), Host::start("yank-b"), VmId(0x2a));
    let copy = CopyParameters { multifd: true, ..FAST };
    let definition = a.run_full_and_find(vm).await;
    let endpoint = b.prepare(&definition, copy).await;
    b.signal(Signal::STOP);
    a.order(vm, C::StartCopy(endpoint, copy));
    let mut before = None;
    loop {
        match a.any_report().await {
            R::Progress(now) if before == Some(now.transferred) => break,
            R::Progress(now) => before = Some(now.transferred),
            other => panic!("{other:?}"),
        }
    }
    let cancelled = tokio::time::timeout(Duration::from_secs(20), a.ask(vm, C::CancelCopy));
    let cancelled = cancelled.await.expect("it does not hang");
    assert_eq!(cancelled, R::CopyFailed("cancelled".to_owned(), Seen::Running));
    assert!(a.guest_runs(vm));
}

#[tokio::test]
async fn an_incoming_side_that_hangs_is_destroyed_all_the_same() {
    let mut b = Host::start_with("hang-b", |config| config.answer_max = Duration::from_millis(500));
    let (mut a, vm) = (Host::start("hang-a"), VmId(0x25));
    let definition = a.run_and_find(vm, None).await;
    b.prepare(&definition, SLOW).await;
    b.signal(Signal::STOP);
    let pid = b.pids()[0];
    assert_eq!(b.looks(vm).await, Seen::Unknown);
    assert_eq!(b.ask(vm, C::DestroyIncoming).await, R::IncomingGone);
    assert!(!lives(pid));
}

#[tokio::test]
async fn a_restarted_driver_takes_up_a_copy_and_its_cancel() {
    let (mut a, mut b, vm) = (Host::start("ra-a"), Host::start("ra-b"), VmId(0x26));
    let definition = a.run_and_find(vm, None).await;
    let endpoint = b.prepare(&definition, SLOW).await;
    a.copy_until_progress(vm, endpoint).await;
    a.restart();
    b.restart();
    assert_eq!((a.looks(vm).await, b.looks(vm).await), (Seen::Copying, Seen::Incoming));
    assert!(matches!(a.sighting().await, Sighting::Found(_, RunState::Running)));
    assert!(matches!(a.any_report().await, R::Progress(_)));
    assert_eq!(
        a.ask(vm, C::CancelCopy).await,
        R::CopyFailed("cancelled".to_owned(), Seen::Running)
    );
    assert!(matches!(b.report().await, R::IncomingFailed(_)), "it is followed again");
    assert_eq!((files(&b.dir), b.pids()), (vec![], vec![]));
}

#[tokio::test]
async fn a_restarted_driver_takes_up_a_copy_at_pre_switchover_and_both_ends_after_it() {
    let (mut a, mut b, vm) = (Host::start("rb-a"), Host::start("rb-b"), VmId(0x27));
    let definition = a.run_and_find(vm, None).await;
    let endpoint = b.prepare(&definition, FAST).await;
    assert_eq!(a.ask(vm, C::StartCopy(endpoint, FAST)).await, R::PreSwitchover);
    a.restart();
    b.restart();
    assert_eq!((a.looks(vm).await, b.looks(vm).await), (Seen::Copying, Seen::Incoming));
    assert_eq!(a.report().await, R::PreSwitchover);
    assert!(matches!(a.ask(vm, C::SwitchOver).await, R::SourceCompleted(_)));
    assert_eq!(b.report().await, R::IncomingCompleted);
    a.restart();
    b.restart();
    assert_eq!((a.looks(vm).await, b.looks(vm).await), (Seen::PostMigrate, Seen::IncomingComplete));
    assert_eq!(b.ask(vm, C::Resume(RunState::Running)).await, R::Resumed);
    b.restart();
    assert_eq!(b.looks(vm).await, Seen::Running);
    assert_eq!(a.ask(vm, C::Discard).await, R::Discarded);
    assert_eq!(a.pids(), Vec::<i32>::new());
    assert_eq!(a.looks(vm).await, Seen::Gone);
}

#[tokio::test]
async fn a_restarted_driver_destroys_an_incoming_side_of_which_only_files_and_process_are_left() {
    let (mut a, mut b, vm) = (Host::start("rd-a"), Host::start("rd-b"), VmId(0x28));
    let definition = a.run_and_find(vm, None).await;
    b.prepare(&definition, SLOW).await;
    let pid = b.pids()[0];
    b.restart();
    assert_eq!(b.ask(vm, C::DestroyIncoming).await, R::IncomingGone);
    assert!(!lives(pid));
    assert_eq!(files(&b.dir), Vec::<String>::new());
}

#[tokio::test]
async fn leftovers_of_a_dead_incoming_side_do_not_stand_in_the_way() {
    let (mut a, mut b, vm) = (Host::start("lo-a"), Host::start("lo-b"), VmId(0x29));
    let found = a.run_and_find(vm, None).await;
    b.write(vm, "incoming", &definition("vm-29", None));
    b.write(vm, "sock", "");
    b.prepare(&found, FAST).await;
    assert_eq!(b.pids().len(), 1);
    assert_eq!(b.driver().watched(), vec![], "an incoming side is not watched");
}
