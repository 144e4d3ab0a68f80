//! The share that a VM is given where it arrives: set, kept over a restart of the driver, gone with the VM.

use std::path::{Path, PathBuf};
use std::process::Command;

use decide::migrate::hypervisor::{
    HypervisorCommand as C, HypervisorReport as R, RunState, Sighting, VmDefinition, VmShare,
};
use decide::units::{BitsPerSec, VmId};
use drivers::hypervisor::{GivenShare, Hypervisor};
use rustix::process::Signal;

use crate::hosts::{FAST, Host};

fn share() -> VmShare {
    let rate = Some(BitsPerSec(20_000_000));
    VmShare { weight: Some(200), rate, why: "a test".to_owned() }
}

/// A cgroup of this test's own below the root, of version 2 where that has the processors, else of version 1; removed at the
/// end. With the file that has the weight, and what 200 is there.
struct Group(PathBuf, &'static str, &'static str);

impl Group {
    fn new() -> Group {
        let v2 = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers");
        let name = format!("ek-test-{}", std::process::id());
        if v2.is_ok_and(|controllers| controllers.split_whitespace().any(|one| one == "cpu")) {
            Group(Path::new("/sys/fs/cgroup").join(name), "cpu.weight", "200")
        } else {
            Group(Path::new("/sys/fs/cgroup/cpu").join(name), "cpu.shares", "2048")
        }
    }

    fn weight(&self, vm: VmId) -> Option<String> {
        let text = std::fs::read_to_string(self.0.join(vm.to_string()).join(self.1)).ok()?;
        Some(text.trim().to_owned())
    }

    fn processes(&self, vm: VmId) -> String {
        std::fs::read_to_string(self.0.join(vm.to_string()).join("cgroup.procs")).unwrap()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Absent if nothing was given.
        drop(std::fs::remove_dir(&self.0));
    }
}

fn run(program: &str, arguments: &str) -> String {
    let output = Command::new(program).args(arguments.split(' ')).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn shaped(tap: &str) -> bool {
    run("tc", &format!("qdisc show dev {tap}")).contains("tbf e4e: root refcnt 2 rate 20Mbit")
}

async fn prepare(b: &mut Host, there: &VmDefinition, share: Option<VmShare>) -> R {
    b.ask(there.vm, C::Prepare(Box::new(there.clone()), FAST, share.map(Box::new))).await
}

async fn arrive(a: &mut Host, b: &mut Host, there: &VmDefinition) {
    let vm = there.vm;
    let R::Prepared(endpoint) = prepare(b, there, Some(share())).await else { panic!("prepared") };
    assert_eq!(a.ask(vm, C::StartCopy(endpoint, FAST)).await, R::PreSwitchover);
    assert!(matches!(a.ask(vm, C::SwitchOver).await, R::SourceCompleted(_)));
    assert_eq!(b.report().await, R::IncomingCompleted);
    assert_eq!(a.ask(vm, C::Fence).await, R::Fenced);
    assert_eq!(b.ask(vm, C::Resume(RunState::Running)).await, R::Resumed);
}

/// In a network namespace of its own: this thread's, its children's, and that of no other test.
#[test]
fn a_vm_that_arrives_gets_its_weight_and_rate_and_leaves_nothing_of_them() {
    // SAFETY: without `FILES` in the flags, the table of open files stays shared with the other threads.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }.expect("root");
    for line in [
        "link set lo up",
        "link add br0 type bridge",
        "tuntap add dev tap-t mode tap",
        "link set tap-t master br0 up",
    ] {
        run("ip", line);
    }
    let group = Group::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (mut a, vm) = (Host::start("share-a"), VmId(0x50));
        let mut b = Host::start_with("share-b", |config| config.cgroup = group.0.clone());
        let mut there = a.run_and_find(vm, Some("tap-t")).await;
        there.start = there.start.replace("tap-t", "tap-u");

        // None is given unless it is asked for.
        assert!(matches!(prepare(&mut b, &there, None).await, R::Prepared(_)));
        assert!(!group.0.exists() && !shaped("tap-u") && !b.file(vm, "share").exists());
        assert_eq!(b.ask(vm, C::DestroyIncoming).await, R::IncomingGone);

        // A move that is undone undoes it.
        assert!(matches!(prepare(&mut b, &there, Some(share())).await, R::Prepared(_)));
        assert_eq!(group.weight(vm).as_deref(), Some(group.2));
        assert_eq!(group.processes(vm).trim(), b.pids()[0].to_string());
        assert!(shaped("tap-u"), "{}", run("tc", "qdisc show dev tap-u"));
        assert_eq!(b.ask(vm, C::DestroyIncoming).await, R::IncomingGone);
        assert_eq!((group.weight(vm), run("ip", "link show dev tap-u")), (None, String::new()));
        assert!(!b.file(vm, "share").exists());

        // It is there when the guest runs, and a restarted driver knows of it and gives it again.
        arrive(&mut a, &mut b, &there).await;
        let given = Some(GivenShare { share: share(), trouble: None });
        assert_eq!(b.driver().watched()[0].share, given);
        run("tc", "qdisc del dev tap-u root");
        b.restart();
        assert!(matches!(b.sighting().await, Sighting::Found(..)));
        assert_eq!(b.driver().watched()[0].share, given);
        assert!(group.weight(vm).as_deref() == Some(group.2) && shaped("tap-u"));

        // It ends with the process; the tap stays, as it was made.
        b.signal(Signal::KILL);
        assert!(matches!(b.sighting().await, Sighting::Gone(..)));
        assert_eq!(group.weight(vm), None);
        assert!(run("ip", "link show dev tap-u").contains("tap-u") && !shaped("tap-u"));
        assert!(!b.file(vm, "share").exists());
    });
}

#[tokio::test]
async fn a_share_that_cannot_be_given_stops_no_move_and_is_told() {
    let (mut a, vm) = (Host::start("unshared-a"), VmId(0x51));
    let mut b = Host::start_with("unshared-b", |config| config.cgroup = "/run/no/such".into());
    let there = a.run_and_find(vm, None).await;
    arrive(&mut a, &mut b, &there).await;
    let given = b.driver().watched()[0].share.clone().expect("it was asked for");
    let trouble = given.trouble.expect("it cannot be");
    assert!(trouble.contains("no cgroup, nor below one"), "{trouble}");
    assert!(!Path::new("/run/no").exists());
}
