//! What QEMU tells of a VM now and then, and that a move is not disturbed by it.

use std::time::Duration;

use decide::migrate::hypervisor::{HypervisorCommand as C, HypervisorReport as R, Seen};
use decide::units::{Bytes, Mib, VmId};
use drivers::hypervisor::{Hypervisor, Told};
use drivers::monitor::{Monitor, Watched};
use rustix::process::Signal;
use tokio::time::Instant;

use crate::hosts::{Host, until};

/// The first sector of a disk, to be completed with its mark: without an interrupt it adds one to a word of every page from
/// 1 MiB to 63 MiB, over and over. It switches to protected mode to reach them, and stays in its 16-bit code:
/// cli; ds = 0; lgdt; cr0.PE = 1; es = selector 8 (all memory); edi = 1 MiB; inc es:[edi]; edi += 4 KiB; again below 63 MiB.
const DIRTIES: [u8; 74] = [
    0xfa, 0x31, 0xc0, 0x8e, 0xd8, 0x0f, 0x01, 0x16, 0x34, 0x7c, 0x0f, 0x20, 0xc0, 0x0c, 0x01, 0x0f,
    0x22, 0xc0, 0xbb, 0x08, 0x00, 0x8e, 0xc3, 0x66, 0xbf, 0x00, 0x00, 0x10, 0x00, 0x26, 0x67, 0x66,
    0xff, 0x07, 0x66, 0x81, 0xc7, 0x00, 0x10, 0x00, 0x00, 0x66, 0x81, 0xff, 0x00, 0x00, 0xf0, 0x03,
    0x72, 0xeb, 0xeb, 0xe3, 0x0f, 0x00, 0x3a, 0x7c, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0xff, 0xff, 0x00, 0x00, 0x00, 0x92, 0xcf, 0x00,
];

/// A host that asks so often that a test need not wait.
fn curious(name: &str) -> Host {
    Host::start_with(name, |config| {
        config.figures_every = Duration::from_millis(50);
        config.answer_max = Duration::from_secs(50);
    })
}

/// Starts a VM that boots from a disk what writes to its memory without end.
async fn run_dirtying(host: &mut Host, vm: VmId) -> decide::migrate::hypervisor::VmDefinition {
    let (path, mut disk) = (host.dir.join("disk"), vec![0; 1 << 20]);
    disk[..DIRTIES.len()].copy_from_slice(&DIRTIES);
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    std::fs::write(&path, disk).unwrap();
    let drive = format!("file={},format=raw,if=virtio", path.display());
    let more = ["-drive", &drive, "-device", "virtio-balloon-pci", "-name", "x,debug-threads=on"];
    host.run_with_and_find(vm, &more).await
}

fn told(host: &Host) -> Told {
    host.driver().watched().remove(0).told
}

/// When the last measurement of its memory began, by QEMU's clock, and how far it is.
fn measured(host: &Host, vm: VmId) -> String {
    host.by_hand(vm, "query-dirty-rate")
}

#[tokio::test]
async fn the_vcpu_thread_the_disk_and_how_fast_memory_is_written_to_are_told() {
    let (mut host, vm) = (curious("told"), VmId(0x40));
    run_dirtying(&mut host, vm).await;
    until("its memory is measured", || told(&host).dirty.is_some_and(|rate| rate.0 > 0)).await;
    let told = told(&host);
    let (_, disk) = told.disk.expect("it has a disk");
    assert!(disk.read >= Bytes(512) && disk.requests > 0, "it booted from it: {disk:?}");
    assert_eq!((disk.written, told.guest_memory), (Bytes(0), None), "no driver for the balloon");

    let [thread] = told.vcpu_threads[..] else { panic!("one vCPU: {told:?}") };
    let watched = host.driver().watched().remove(0);
    let name = std::fs::read_to_string(format!("/proc/{}/task/{thread}/comm", watched.pid));
    assert!(name.as_ref().is_ok_and(|name| name.starts_with("CPU 0")), "{name:?}");
    let watched = [Watched {
        vm,
        pid: watched.pid,
        process_start: watched.process_start,
        tap: None,
        told: watched.told,
    }];
    let mut monitor = Monitor::new(None).unwrap();
    let mut read = || monitor.read(&watched).unwrap().vms.remove(0);
    let first = read();
    let (vcpus, began) = (first.vcpus.unwrap(), first.vcpus.unwrap().ran_us);
    assert_eq!((vcpus.threads, first.disk), (1, Some(disk)));
    let mut last = first.clone();
    until("the guest has run for half a second", || {
        last = read();
        last.vcpus.unwrap().ran_us >= began + 500_000
    })
    .await;
    // What the process used beside it is emulation: it has started QEMU at the least.
    assert!(last.cpu_us > last.vcpus.unwrap().ran_us, "{last:?}");
    assert!(last.disk_age > Duration::ZERO && last.memory > Mib(0));
}

#[tokio::test]
async fn memory_is_not_measured_while_a_copy_is_under_way() {
    let (mut a, mut b, vm) = (curious("quiet-a"), curious("quiet-b"), VmId(0x41));
    let definition = a.run_full_and_find(vm).await;
    until("it is measured", || told(&a).dirty.is_some()).await;
    let endpoint = b.prepare(&definition, crate::hosts::SLOW).await;
    a.copy_until_progress(vm, endpoint).await;
    // One that was begun before may still go on.
    until("it has ended", || measured(&a, vm).contains("\"measured\"")).await;
    let before = measured(&a, vm);
    // A quarter of a second each: five times as long as from one measurement to the next.
    for _ in 0..12 {
        assert!(matches!(a.any_report().await, R::Progress(_)));
    }
    assert_eq!(measured(&a, vm), before);
    let incoming = measured(&b, vm);
    assert!(incoming.contains("\"unstarted\""), "{incoming}");
    // A driver that knows nothing of the copy does not measure either.
    a.restart();
    assert!(matches!(a.sighting().await, decide::migrate::hypervisor::Sighting::Found(..)));
    until("it was asked", || !told(&a).vcpu_threads.is_empty()).await;
    let asked = Instant::now();
    until("two measurements' time has passed", || asked.elapsed() > Duration::from_millis(2500))
        .await;
    assert_eq!(measured(&a, vm), before);
    let R::CopyFailed(_, Seen::Running) = a.ask(vm, C::CancelCopy).await else { panic!() };
    until("it is measured again", || measured(&a, vm) != before).await;
}

#[tokio::test]
async fn an_order_does_not_wait_for_a_question_that_qemu_does_not_answer() {
    let (mut host, vm) = (curious("first"), VmId(0x42));
    run_dirtying(&mut host, vm).await;
    until("it is asked", || told(&host).disk.is_some()).await;
    host.signal(Signal::STOP);
    // Asked twenty times a second: by now a question is open.
    until("no answer comes", || {
        told(&host).disk.is_some_and(|(read, _)| read.elapsed() > Duration::from_millis(500))
    })
    .await;
    let ordered = Instant::now();
    assert_eq!(host.ask(vm, C::Fence).await, R::Fenced);
    assert!(ordered.elapsed() < Duration::from_secs(20), "the answer's deadline is 50 s");
}
