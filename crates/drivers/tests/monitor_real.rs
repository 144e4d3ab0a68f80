//! The monitor on links that the test makes, in a network namespace of its own. Needs root, `ip` and `unshare`.
//!
//! Each test starts itself again inside a fresh network and mount namespace, with a /sys that shows it.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test panics to fail, and prints its figures"
)]

use std::net::UdpSocket;
use std::process::Command;
use std::sync::{Arc, Mutex};

use decide::units::{BitsPerSec, VmId};
use decide::usage::reading::{LinkCounters, Reading};
use drivers::monitor::{Duplex, Monitor, Told, Uplink, Watched};

const INSIDE: &str = "EVENKEEL_TEST_INSIDE";

/// True inside the namespaces; outside, runs the named test there and passes on its verdict.
fn inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let output = Command::new("unshare")
        .args(["--net", "--mount", "--propagation", "private", "sh", "-c"])
        .arg("mount -t sysfs sysfs /sys && ip link set lo up && exec \"$0\" \"$@\"")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .expect("unshare is part of util-linux");
    print!("{}", String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    false
}

fn ip(line: &str) {
    let output = Command::new("ip").args(line.split_ascii_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {line}: {}", String::from_utf8_lossy(&output.stderr));
}

fn own_start() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    stat.rsplit(')').next().unwrap().split_ascii_whitespace().nth(19).unwrap().parse().unwrap()
}

/// The test itself stands for the hypervisor.
fn watched(vm: u128, tap: &str) -> Watched {
    let pid = std::process::id();
    let (tap, told) = (Some(tap.to_owned()), Told::default());
    Watched { vm: VmId(vm), pid, process_start: own_start(), tap, told }
}

fn sysfs(link: &str, file: &str) -> u64 {
    let path = format!("/sys/class/net/{link}/statistics/{file}");
    std::fs::read_to_string(path).unwrap().trim().parse().unwrap()
}

/// What the monitor must say of a link, in its own direction, by another source.
fn own_direction(link: &str) -> LinkCounters {
    let index = std::fs::read_to_string(format!("/sys/class/net/{link}/ifindex")).unwrap();
    LinkCounters {
        ifindex: index.trim().parse().unwrap(),
        sent_packets: sysfs(link, "tx_packets"),
        sent_bytes: decide::units::Bytes(sysfs(link, "tx_bytes")),
        received_packets: sysfs(link, "rx_packets"),
        received_bytes: decide::units::Bytes(sysfs(link, "rx_bytes")),
        dropped: sysfs(link, "tx_dropped") + sysfs(link, "rx_dropped"),
    }
}

fn other_direction(link: LinkCounters) -> LinkCounters {
    LinkCounters {
        sent_packets: link.received_packets,
        sent_bytes: link.received_bytes,
        received_packets: link.sent_packets,
        received_bytes: link.sent_bytes,
        ..link
    }
}

fn link_of(reading: &Reading, vm: u128) -> Option<LinkCounters> {
    reading.vms.iter().find(|reading| reading.vm == VmId(vm)).expect("the test runs").link
}

/// A pair of links where nothing is sent but what the test sends: no ARP, no IPv6.
fn quiet_pair(near: &str, far: &str) {
    for name in ["default", "all"] {
        std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1").unwrap();
    }
    ip(&format!("link add {near} type veth peer name {far} address 02:00:00:00:00:02"));
    ip(&format!("addr add 198.18.0.1/24 dev {near}"));
    ip(&format!("link set {near} up"));
    ip(&format!("link set {far} up"));
    ip(&format!("neigh add 198.18.0.2 lladdr 02:00:00:00:00:02 dev {near} nud permanent"));
}

#[test]
fn every_packet_is_counted_once_and_in_the_direction_of_the_vm() {
    if !inside("every_packet_is_counted_once_and_in_the_direction_of_the_vm") {
        return;
    }
    quiet_pair("near", "far");
    let mut monitor = Monitor::new(Some("near".to_owned())).unwrap();
    let vms = [watched(1, "near"), watched(2, "far")];
    let before = monitor.read(&vms).unwrap();

    let socket = UdpSocket::bind("198.18.0.1:0").unwrap();
    for _ in 0..1000 {
        socket.send_to(&[7; 58], "198.18.0.2:9").unwrap();
    }
    let after = monitor.read(&vms).unwrap();

    // 58 bytes under headers of UDP (8), IP (20) and Ethernet (14).
    let (was, is) = (before.uplink.unwrap(), after.uplink.unwrap());
    assert_eq!(is.sent_packets - was.sent_packets, 1000, "the uplink keeps the host's direction");
    assert_eq!(is.sent_bytes.0 - was.sent_bytes.0, 100_000);
    assert_eq!(is.received_packets, was.received_packets);
    let (was, is) = (link_of(&before, 2).unwrap(), link_of(&after, 2).unwrap());
    assert_eq!(is.sent_packets - was.sent_packets, 1000, "what a tap receives, its VM has sent");
    assert_eq!(is.sent_bytes.0 - was.sent_bytes.0, 100_000);
    let (was, is) = (link_of(&before, 1).unwrap(), link_of(&after, 1).unwrap());
    assert_eq!(is.received_packets - was.received_packets, 1000);

    assert_eq!(after.uplink.unwrap(), own_direction("near"));
    for (vm, link) in [(1, "near"), (2, "far")] {
        assert_eq!(link_of(&after, vm).unwrap(), other_direction(own_direction(link)));
    }
    // The driver of veth says 10 Gbit/s.
    assert_eq!(after.uplink_speed, Some(BitsPerSec(10_000_000_000)));
}

/// An uplink as the monitor sees it after one reading, and the speed in that reading.
fn uplink_of(name: &str) -> (Uplink, Option<BitsPerSec>) {
    let mut monitor = Monitor::new(Some(name.to_owned())).unwrap();
    let speed = monitor.read(&[]).unwrap().uplink_speed;
    (monitor.uplink().unwrap().clone(), speed)
}

#[test]
fn speed_duplex_and_link_are_told_by_netlink_without_sysfs() {
    if !inside("speed_duplex_and_link_are_told_by_netlink_without_sysfs") {
        return;
    }
    quiet_pair("near", "far");
    ip("tuntap add dev tap1 mode tap");
    let sysfs_says = sysfs_speed("near");
    let unmounted = Command::new("umount").arg("-l").arg("/sys").status().unwrap();
    assert!(unmounted.success() && !std::path::Path::new("/sys/class/net/near").exists());

    let (veth, speed) = uplink_of("near");
    assert_eq!(
        (veth.modes.speed, veth.modes.duplex),
        (Some(BitsPerSec(10_000_000_000)), Some(Duplex::Full))
    );
    assert_eq!((speed, veth.modes.up), (veth.modes.speed, Some(true)));
    assert_eq!(veth.driver.as_deref(), Some("veth"), "its kind");
    assert_eq!(speed, sysfs_says);
    let mut monitor = Monitor::new(Some("near".to_owned())).unwrap();
    monitor.read(&[]).unwrap();
    ip("link set far down");
    monitor.read(&[]).unwrap();
    assert_eq!(monitor.uplink().unwrap().modes.up, Some(false), "as soon as the carrier is lost");

    let (tap, _) = uplink_of("tap1");
    assert_eq!((tap.modes.duplex, tap.modes.up), (Some(Duplex::Full), Some(false)));
    let (lo, speed) = uplink_of("lo");
    assert_eq!(
        (lo.modes.speed, lo.modes.duplex, speed),
        (None, None, None),
        "its driver does not tell"
    );
}

/// What is logged as a warning or worse, in the thread that listens.
struct Complaints(Mutex<Vec<String>>);

impl tracing::Subscriber for Complaints {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        self.0.lock().unwrap().push(format!("{event:?}"));
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[test]
fn a_driver_that_tells_nothing_of_its_queues_is_no_trouble_and_the_drivers_name_is_right() {
    if !inside(
        "a_driver_that_tells_nothing_of_its_queues_is_no_trouble_and_the_drivers_name_is_right",
    ) {
        return;
    }
    quiet_pair("near", "far");
    ip("link add br1 type bridge");
    ip("tuntap add dev tap1 mode tap");
    let complaints = Arc::new(Complaints(Mutex::new(Vec::new())));
    let listens = tracing::subscriber::set_default(Arc::clone(&complaints));
    let drivers =
        [("near", Some("veth")), ("br1", Some("bridge")), ("tap1", Some("tun")), ("lo", None)];
    for (name, driver) in drivers {
        let (uplink, _) = uplink_of(name);
        assert_eq!(
            (&*uplink.name, uplink.driver.as_deref(), &*uplink.losing),
            (name, driver, &[][..])
        );
    }
    assert_eq!(*complaints.0.lock().unwrap(), Vec::<String>::new());
    tracing::warn!("to see that it listens");
    assert_eq!(complaints.0.lock().unwrap().len(), 1);
    drop(listens);

    let mut monitor = Monitor::new(Some("near".to_owned())).unwrap();
    monitor.read(&[]).unwrap();
    ip("link del near");
    monitor.read(&[]).unwrap();
    assert_eq!(monitor.uplink(), None, "as long as it does not exist");
}

/// Megabits per second, by /sys.
fn sysfs_speed(link: &str) -> Option<BitsPerSec> {
    let text = std::fs::read_to_string(format!("/sys/class/net/{link}/speed")).ok()?;
    Some(BitsPerSec(text.trim().parse::<u64>().ok()? * 1_000_000))
}

#[test]
fn a_tap_that_goes_and_comes_back_is_another_link() {
    if !inside("a_tap_that_goes_and_comes_back_is_another_link") {
        return;
    }
    let vms = [watched(1, "tap1")];
    let mut monitor = Monitor::new(None).unwrap();
    assert_eq!(link_of(&monitor.read(&vms).unwrap(), 1), None, "not there yet");

    ip("tuntap add dev tap1 mode tap");
    let first = link_of(&monitor.read(&vms).unwrap(), 1).unwrap();
    ip("tuntap del dev tap1 mode tap");
    assert_eq!(link_of(&monitor.read(&vms).unwrap(), 1), None, "gone");

    ip("tuntap add dev tap1 mode tap");
    let second = link_of(&monitor.read(&vms).unwrap(), 1).unwrap();
    assert_ne!(first.ifindex, second.ifindex);

    ip("link set tap1 name tap2");
    let reading = monitor.read(&[watched(1, "tap1"), watched(2, "tap2")]).unwrap();
    assert_eq!(link_of(&reading, 1), None, "renamed");
    assert_eq!(link_of(&reading, 2), Some(second));
}

/// The same VMs with four threads each: of this test, which has three more for that.
fn with_threads(vms: &[Watched]) -> Vec<Watched> {
    let (said, heard) = std::sync::mpsc::channel();
    let mut threads = vec![rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned()];
    for _ in 0..3 {
        let said = said.clone();
        std::thread::spawn(move || {
            said.send(rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned()).unwrap();
            loop {
                std::thread::park();
            }
        });
        threads.push(heard.recv().unwrap());
    }
    let told = Told { vcpu_threads: threads, ..Told::default() };
    vms.iter().map(|vm| Watched { told: told.clone(), ..vm.clone() }).collect()
}

/// Time on a processor of the calling thread, in nanoseconds.
fn thread_cpu_ns() -> u64 {
    let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    schedstat.split_ascii_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn five_hundred_taps_cost_a_tenth_of_what_reading_them_by_sysfs_costs() {
    if !inside("five_hundred_taps_cost_a_tenth_of_what_reading_them_by_sysfs_costs") {
        return;
    }
    let batch: String =
        (0..500).map(|n| format!("tuntap add dev tap{n} mode tap\n")).collect::<String>();
    let file = std::env::temp_dir().join(format!("evenkeel-taps-{}", std::process::id()));
    std::fs::write(&file, batch).unwrap();
    ip(&format!("-batch {}", file.display()));
    std::fs::remove_file(&file).unwrap();

    let mut monitor = Monitor::new(Some("tap0".to_owned())).unwrap();
    let vms: Vec<Watched> = (0..500).map(|n| watched(n, &format!("tap{n}"))).collect();
    // The kernel brings the thread's time up to date once per tick or switch: taken over many cycles.
    const CYCLES: u64 = 200;
    let mut cost_us = |vms: &[Watched]| {
        let began = thread_cpu_ns();
        for _ in 0..CYCLES {
            assert_eq!(monitor.read(vms).unwrap().vms.len(), vms.len());
        }
        (thread_cpu_ns() - began) / 1000 / CYCLES
    };
    let links = cost_us(&[]);
    let all = cost_us(&vms);
    let vms_100 = cost_us(&vms[..100]);
    let threads = cost_us(&with_threads(&vms[..100]));
    let by_sysfs = {
        let files =
            ["rx_packets", "rx_bytes", "tx_packets", "tx_bytes", "rx_dropped", "tx_dropped"];
        let began = thread_cpu_ns();
        for n in 0..500 {
            files.iter().for_each(|file| {
                sysfs(&format!("tap{n}"), file);
            });
        }
        (thread_cpu_ns() - began) / 1000
    };
    println!("500 links: {links} µs a cycle, by sysfs {by_sysfs} µs; with 500 processes: {all} µs");
    println!("100 processes: {vms_100} µs, with four vCPU threads each {threads} µs");
    assert!(threads <= 3 * vms_100, "{threads} µs with threads, {vms_100} µs without");
    // A ratio of one run: the machine's own speed and load do not matter.
    assert!(links * 10 <= by_sysfs, "{links} µs for the links alone, {by_sysfs} µs by sysfs");

    let reading = monitor.read(&vms).unwrap();
    assert!(reading.vms.iter().all(|vm| vm.link.is_some()));
}
