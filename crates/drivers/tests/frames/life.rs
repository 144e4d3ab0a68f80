//! What becomes of counters when agent, links or rights come and go.

use std::path::PathBuf;

use aya::maps::{MapData, PerCpuHashMap};
use drivers::monitor::{Counting, NotCounted};

use crate::bed::{bed, flow, flows, inside, inside_as, monitor, of, run, vm, watched};

const PINS: &str = "/sys/fs/bpf/evenkeel";

/// The folder of pins, of which there must be one.
fn folder() -> PathBuf {
    let mut folders = std::fs::read_dir(PINS).unwrap();
    let folder = folders.next().expect("there is one").unwrap().path();
    assert!(folders.next().is_none(), "and no other");
    folder
}

fn keys_of_links() -> Vec<u32> {
    let map = aya::maps::Map::PerCpuHashMap(MapData::from_pin(folder().join("links")).unwrap());
    let map = PerCpuHashMap::<_, u32, [u64; 20]>::try_from(map).unwrap();
    let mut keys: Vec<u32> = map.keys().map(Result::unwrap).collect();
    keys.sort_unstable();
    keys
}

fn keys_of_cells() -> usize {
    let map = aya::maps::Map::PerCpuHashMap(MapData::from_pin(folder().join("cells")).unwrap());
    PerCpuHashMap::<_, [u32; 2], [u64; 2]>::try_from(map).unwrap().keys().count()
}

#[test]
fn counters_outlive_the_agent() {
    if !inside("life::counters_outlive_the_agent") {
        return;
    }
    let taps = bed(2);
    let vms = watched(&taps);
    let mut first = monitor();
    first.count_frames(&Counting::default()).unwrap();
    first.read(&vms).unwrap();
    (0..10).for_each(|_| taps[1].send(&taps[1].frame(taps[2].address, 100)));
    let before = first.read(&vms).unwrap();
    assert_eq!(flows(&before), [flow(vm(1), vm(2), 10, 1000)]);
    drop(first);

    let mut second = monitor();
    second.count_frames(&Counting::default()).unwrap();
    let after = second.read(&vms).unwrap();
    assert_eq!((flows(&after), of(&after, 1).1), (flows(&before), of(&before, 1).1));
    (0..5).for_each(|_| taps[1].send(&taps[1].frame(taps[2].address, 100)));
    assert_eq!(flows(&second.read(&vms).unwrap()), [flow(vm(1), vm(2), 15, 1500)]);
}

#[test]
fn what_another_program_left_is_removed_and_a_second_agent_counts_for_itself() {
    if !inside("life::what_another_program_left_is_removed_and_a_second_agent_counts_for_itself") {
        return;
    }
    let taps = bed(2);
    let vms = watched(&taps);
    let mut first = monitor();
    first.count_frames(&Counting::default()).unwrap();
    let ours = folder();
    let network = ours.file_name().unwrap().to_str().unwrap().split_once('-').unwrap().0.to_owned();
    std::fs::create_dir(format!("{PINS}/{network}-0123456789ab")).unwrap();
    drop(first);
    let mut first = monitor();
    first.count_frames(&Counting::default()).unwrap();
    assert_eq!(folder(), ours);
    first.read(&vms).unwrap();

    let mut second = monitor();
    second.count_frames(&Counting::default()).unwrap();
    second.read(&vms).unwrap();
    (0..10).for_each(|_| taps[1].send(&taps[1].frame(taps[2].address, 100)));
    for monitor in [&mut first, &mut second] {
        assert_eq!(flows(&monitor.read(&vms).unwrap()), [flow(vm(1), vm(2), 10, 1000)]);
    }
}

#[test]
fn entries_go_with_their_link() {
    if !inside("life::entries_go_with_their_link") {
        return;
    }
    let mut taps = bed(3);
    let mut monitor = monitor();
    monitor.count_frames(&Counting::default()).unwrap();
    monitor.read(&watched(&taps)).unwrap();
    for (from, to) in [(1, 2), (2, 3), (3, 1), (1, 0)] {
        taps[from].send(&taps[from].frame(taps[to].address, 100));
    }
    let reading = monitor.read(&watched(&taps)).unwrap();
    assert_eq!(flows(&reading).len(), 4);
    assert_eq!((keys_of_links().len(), keys_of_cells()), (4, 4));

    // A tap goes when its other end is closed.
    let gone = of(&reading, 3).0.ifindex;
    drop(taps.remove(3));
    let reading = monitor.read(&watched(&taps)).unwrap();
    assert_eq!(
        flows(&reading),
        [flow(vm(1), vm(2), 1, 100), flow(vm(1), decide::usage::reading::End::Outside, 1, 100)]
    );
    assert_eq!((keys_of_links().len(), keys_of_cells()), (3, 2));
    assert!(!keys_of_links().contains(&gone));

    // One that comes is counted from the cycle on that sees it.
    taps.push(crate::bed::Tap::new(3, true));
    let came = of(&monitor.read(&watched(&taps)).unwrap(), 3);
    assert!(came.0.ifindex != gone && came.1.sent == 0);
    taps[3].send(&taps[3].frame(taps[1].address, 100));
    let reading = monitor.read(&watched(&taps)).unwrap();
    assert_eq!(of(&reading, 3).1.sent, 1);
    assert!(flows(&reading).contains(&flow(vm(3), vm(1), 1, 100)));

    // A VM that leaves while its tap stays takes its entry with it.
    let left = of(&reading, 2).0.ifindex;
    taps.remove(2);
    run("ip tuntap add dev tap2 mode tap");
    monitor.read(&watched(&taps)).unwrap();
    assert!(!keys_of_links().contains(&left) && keys_of_links().len() == 3);
}

#[test]
fn without_a_bpffs_it_counts_all_the_same() {
    if !inside_as("life::without_a_bpffs_it_counts_all_the_same", "true", "") {
        return;
    }
    let taps = bed(2);
    let vms = watched(&taps);
    let mut monitor = monitor();
    monitor.count_frames(&Counting::default()).unwrap();
    monitor.read(&vms).unwrap();
    taps[1].send(&taps[1].frame(taps[2].address, 100));
    assert_eq!(flows(&monitor.read(&vms).unwrap()), [flow(vm(1), vm(2), 1, 100)]);
    assert!(!std::path::Path::new(PINS).exists(), "nothing is left behind");
}

/// `setpriv` with these capabilities and no others; 39 is CAP_BPF, 38 CAP_PERFMON.
const WITH_ALL_THREE: &str =
    "setpriv --bounding-set=-all,+cap_39,+cap_38,+net_admin --inh-caps=-all --no-new-privs";
const WITHOUT_ONE: &str =
    "setpriv --bounding-set=-all,+cap_38,+net_admin --inh-caps=-all --no-new-privs";
const WITH_NONE: &str = "setpriv --bounding-set=-all --inh-caps=-all --no-new-privs";
/// What needs more rights than the agent has is done before.
const TAPS: &str = "mount -t bpf bpf /sys/fs/bpf && ip tuntap add dev tap0 mode tap \
     && ip tuntap add dev tap1 mode tap && ip link set dev tap1 up";

#[test]
fn three_capabilities_are_enough() {
    if !inside_as("life::three_capabilities_are_enough", TAPS, WITH_ALL_THREE) {
        return;
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    assert!(status.contains("CapEff:\t000000c000001000"), "{status}");
    let taps = bed(2);
    let vms = watched(&taps);
    let mut monitor = monitor();
    monitor.count_frames(&Counting::default()).unwrap();
    monitor.read(&vms).unwrap();
    (0..10).for_each(|_| taps[1].send(&taps[1].frame(taps[2].address, 100)));
    assert_eq!(flows(&monitor.read(&vms).unwrap()), [flow(vm(1), vm(2), 10, 1000)]);
    assert_eq!((keys_of_links().len(), keys_of_cells()), (3, 1), "pinned as well");
}

fn what_is_lacking() -> Vec<&'static str> {
    let mut monitor = monitor();
    let refused = monitor.count_frames(&Counting::default()).unwrap_err();
    let NotCounted::NotAllowed(lacking) = refused else { panic!("{refused}") };
    // All else is read as before.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let start = stat.rsplit(')').next().unwrap().split_ascii_whitespace().nth(19).unwrap();
    let vm = drivers::monitor::Watched {
        vm: decide::units::VmId(1),
        pid: std::process::id(),
        process_start: start.parse().unwrap(),
        tap: Some("tap1".to_owned()),
        told: drivers::monitor::Told::default(),
    };
    let reading = monitor.read(&[vm]).unwrap();
    assert!(reading.vms[0].link.is_some() && reading.vms[0].frames.is_none());
    assert!(reading.uplink.is_some() && reading.flows.is_none());
    lacking
}

#[test]
fn a_missing_capability_is_named_and_link_statistics_go_on() {
    if inside_as("life::a_missing_capability_is_named_and_link_statistics_go_on", TAPS, WITHOUT_ONE)
    {
        assert_eq!(what_is_lacking(), ["CAP_BPF"]);
    }
}

#[test]
fn without_any_right_link_statistics_go_on() {
    if inside_as("life::without_any_right_link_statistics_go_on", TAPS, WITH_NONE) {
        assert_eq!(what_is_lacking(), ["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"]);
    }
}
