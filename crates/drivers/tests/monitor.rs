//! The monitor on the machine as it is: no privilege needed.

#![allow(clippy::unwrap_used, reason = "a test says by panicking that it failed")]

use std::process::{Child, Command, Stdio};

use decide::units::VmId;
use decide::usage::reading::VcpuCounters;
use drivers::monitor::{Monitor, MonitorError, Told, Watched};

/// A process that stands for a hypervisor, ended with the test.
struct Stand(Child);

impl Stand {
    fn start(script: &str) -> Stand {
        let mut command = Command::new("sh");
        Stand(command.args(["-c", script]).stdin(Stdio::piped()).spawn().unwrap())
    }

    fn watched(&self, vm: u128) -> Watched {
        let pid = self.0.id();
        Watched {
            vm: VmId(vm),
            pid,
            process_start: start_of(pid),
            tap: None,
            told: Told::default(),
        }
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start_of(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit(')').next().unwrap().split_ascii_whitespace().nth(19).unwrap().parse().unwrap()
}

#[test]
fn the_host_is_read() {
    let mut monitor = Monitor::new(Some("lo".to_owned())).unwrap();
    let first = monitor.read(&[]).unwrap();
    let second = monitor.read(&[]).unwrap();
    assert!(first.cpu_us > 0 && second.cpu_us >= first.cpu_us);
    assert!(first.cores > 0);
    assert!(first.memory_available <= first.memory_total && first.memory_available.0 > 0);
    assert_eq!(first.uplink.unwrap().ifindex, 1);
    assert_eq!(first.uplink_speed, None, "the loopback has no speed");
    assert_eq!(first.pressure.is_some(), std::fs::read("/proc/pressure/cpu").is_ok());
    let pressure = first.pressure.unwrap_or_default();
    for share in [pressure.cpu, pressure.memory, pressure.io] {
        assert!((0.0..=1.0).contains(&share), "{share}");
    }
}

#[test]
fn an_uplink_that_is_not_there_is_absent() {
    let mut monitor = Monitor::new(Some("nosuchlink".to_owned())).unwrap();
    let reading = monitor.read(&[]).unwrap();
    assert_eq!((reading.uplink, reading.uplink_speed), (None, None));
}

#[test]
fn a_name_that_no_interface_can_have_is_refused() {
    for name in ["", "a/b", "../x", "..", "a b", "a:b", "sixteen-letters-"] {
        let refused = Monitor::new(Some(name.to_owned())).unwrap_err();
        assert!(matches!(refused, MonitorError::BadInterfaceName(ref bad) if bad == name));
    }
}

#[test]
fn a_process_is_read_and_left_out_once_it_is_gone() {
    let mut monitor = Monitor::new(None).unwrap();
    let busy = Stand::start("while :; do :; done");
    let mut idle = Stand::start("read line");
    let watched = [busy.watched(2), idle.watched(1)];

    let mut reading = monitor.read(&watched).unwrap();
    let order: Vec<u128> = reading.vms.iter().map(|vm| vm.vm.0).collect();
    assert_eq!(order, [1, 2], "in the order of their ids");
    assert!(reading.vms.iter().all(|vm| vm.link.is_none()));
    // The busy one burns processor time: its count must rise, in microseconds.
    let began = reading.vms[1].cpu_us;
    while reading.vms[1].cpu_us < began + 100_000 {
        reading = monitor.read(&watched).unwrap();
    }
    assert!(reading.vms[0].cpu_us < 100_000, "the other one waits");

    // Killed but not waited for it is a zombie: gone all the same.
    idle.0.kill().unwrap();
    while monitor.read(&watched).unwrap().vms.len() == 2 {}
    idle.0.wait().unwrap();
    let after = monitor.read(&watched).unwrap();
    assert_eq!(after.vms.len(), 1);
    assert_eq!(after.vms[0].vm, VmId(2));
}

#[test]
fn two_that_share_a_processor_wait_for_each_other() {
    let allowed = rustix::thread::sched_getaffinity(None).unwrap();
    let one = (0..rustix::thread::CpuSet::MAX_CPU).find(|cpu| allowed.is_set(*cpu)).unwrap();
    let script = format!("exec taskset -c {one} sh -c 'while :; do :; done'");
    let busy = [Stand::start(&script), Stand::start(&script)];
    let mut watched: Vec<Watched> = vec![busy[0].watched(0), busy[1].watched(1)];
    for vm in &mut watched {
        vm.told.vcpu_threads = vec![vm.pid];
    }
    let mut monitor = Monitor::new(None).unwrap();
    let mut vcpus = |watched: &[Watched]| {
        let reading = monitor.read(watched).unwrap();
        reading.vms.into_iter().map(|vm| vm.vcpus).collect::<Vec<_>>()
    };
    let waited = |vcpus: &[Option<VcpuCounters>]| {
        vcpus.iter().all(|vcpus| vcpus.unwrap().waited_us > 200_000)
    };
    while !waited(&vcpus(&watched)) {}
    let end = vcpus(&watched);
    assert!(end.iter().all(|vcpus| vcpus.unwrap().ran_us > 0), "{end:?}");

    // A thread that is not there: that VM cannot be told, the other can; and it can again once its threads are known.
    watched[0].told.vcpu_threads = vec![watched[0].pid, watched[1].pid];
    let odd = vcpus(&watched);
    assert!(odd[0].is_none() && odd[1].is_some(), "{odd:?}");
    watched[0].told.vcpu_threads.pop();
    assert_eq!(vcpus(&watched)[0].unwrap().threads, 1);
}

#[test]
fn a_process_of_another_start_is_another_process() {
    let mut monitor = Monitor::new(None).unwrap();
    let stand = Stand::start("read line");
    let right = stand.watched(1);
    let wrong = Watched { process_start: right.process_start + 1, ..right.clone() };
    assert_eq!(monitor.read(&[wrong]).unwrap().vms.len(), 0);
    assert_eq!(monitor.read(&[right]).unwrap().vms.len(), 1);
}
