//! What one reading cycle of 500 taps costs, at four levels of traffic, beside the same by sysfs and by `ip -s link`; and what
//! the programs at the taps cost a packet. One JSON document; `cargo xtask bench monitor` runs it, in namespaces of its own.
//!
//! Processor time is the reading thread's own, the middle of fifty cycles. A cycle is links and maps; the whole reading, with
//! 500 processes, is told apart.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    dead_code,
    reason = "a program for measuring: it panics to fail, prints its figures, and reads the clock to keep its pace"
)]

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use drivers::monitor::{Counting, Monitor, Watched};
use serde_json::json;

#[path = "../tests/frames/bed.rs"]
mod bed;

use bed::{Tap, bed, watched};

const TAPS: u64 = 500;
/// Frames per second over all taps; the last is more than one processor sends.
const LEVELS: [u64; 4] = [0, 1_000, 20_000, 1_000_000];
/// Frames that a tap sends to the next in one go, as guests do.
const TRAIN: u64 = 32;
const CYCLES: u64 = 50;
/// Of every level, while readings go on.
const BETWEEN: Duration = Duration::from_millis(20);
const STATS: &str = "/proc/sys/kernel/bpf_stats_enabled";

fn main() {
    let taps = bed(u16::try_from(TAPS).unwrap() - 1);
    let vms = watched(&taps);
    let mut monitor = bed::monitor();
    monitor.count_frames(&Counting::default()).expect("frames can be counted");
    monitor.read(&vms).unwrap();
    let before = std::fs::read_to_string(STATS).unwrap();
    std::fs::write(STATS, "1").unwrap();
    let levels: Vec<_> =
        LEVELS.iter().map(|level| at_level(*level, &taps, &mut monitor, &vms)).collect();
    std::fs::write(STATS, before).unwrap();
    let with_processes = cost(|| drop(monitor.read(&vms).unwrap()));
    let mut by_links = bed::monitor();
    let links_only = cost(|| drop(by_links.read(&[]).unwrap()));
    let report = json!({
        "taps": TAPS,
        "levels": levels,
        "cpu_ms_with_processes": with_processes,
        "cpu_ms_links_only": links_only,
        "cpu_ms_by_sysfs": by_sysfs(&taps),
        "cpu_ms_by_ip": by_ip(),
    });
    println!("{report}");
}

/// Milliseconds of this thread's processor time that `what` takes: the middle of many.
fn cost(mut what: impl FnMut()) -> f64 {
    middle((0..CYCLES).map(|_| spent(&mut what)).collect())
}

fn spent(what: &mut impl FnMut()) -> u64 {
    let began = thread_cpu_ns();
    what();
    thread_cpu_ns() - began
}

fn middle(mut all: Vec<u64>) -> f64 {
    all.sort_unstable();
    millis(all[all.len() / 2])
}

fn at_level(level: u64, taps: &[Tap], monitor: &mut Monitor, vms: &[Watched]) -> serde_json::Value {
    let (done, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let (runs, time) = programs();
    let began = Instant::now();
    let mut used = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| send(level, taps, &done, &sent));
        for _ in 0..CYCLES {
            std::thread::sleep(BETWEEN);
            let mut flows = None;
            used.push(spent(&mut || flows = monitor.read_network(vms).unwrap()));
            assert!(level == 0 || flows.is_some_and(|flows| !flows.is_empty()));
        }
        done.store(true, Ordering::Relaxed);
    });
    let seconds = began.elapsed().as_secs_f64();
    let (more_runs, more_time) = programs();
    json!({
        "packets_per_second": (as_float(sent.into_inner()) / seconds).round(),
        "cpu_ms_per_cycle": middle(used),
        "ns_per_packet": (more_time - time).checked_div(more_runs - runs),
    })
}

/// Sends from each tap to the next in turn, at that pace, and takes what has come.
fn send(level: u64, taps: &[Tap], done: &AtomicBool, sent: &AtomicU64) {
    let began = Instant::now();
    while !done.load(Ordering::Relaxed) {
        let due = u128::from(level) * began.elapsed().as_micros() / 1_000_000;
        while u128::from(sent.load(Ordering::Relaxed)) < due && !done.load(Ordering::Relaxed) {
            let train = usize::try_from(sent.fetch_add(TRAIN, Ordering::Relaxed) / TRAIN).unwrap();
            let (from, to) = (&taps[train % taps.len()], &taps[(train + 1) % taps.len()]);
            let frame = from.frame(to.address, [60, 300, 1514][train % 3]);
            (0..TRAIN).for_each(|_| from.send(&frame));
            to.receive();
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// How often this process' programs ran, and for how many nanoseconds, by the kernel's own count.
fn programs() -> (u64, u64) {
    let mut sums = (0, 0);
    for entry in std::fs::read_dir("/proc/self/fdinfo").unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap_or_default();
        let field = |name: &str| -> Option<u64> {
            text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
        };
        sums.0 += field("run_cnt:").unwrap_or_default();
        sums.1 += field("run_time_ns:").unwrap_or_default();
    }
    sums
}

/// The six counters that the monitor takes of each link, from their files.
fn by_sysfs(taps: &[Tap]) -> f64 {
    let files = ["rx_packets", "rx_bytes", "tx_packets", "tx_bytes", "rx_dropped", "tx_dropped"];
    let began = thread_cpu_ns();
    for tap in taps {
        for file in files {
            let path = format!("/sys/class/net/{}/statistics/{file}", tap.name);
            std::hint::black_box(
                std::fs::read_to_string(path).unwrap().trim().parse::<u64>().unwrap(),
            );
        }
    }
    millis(thread_cpu_ns() - began)
}

/// By the program that people would use; its own time alone, what would be needed to read its output not counted.
fn by_ip() -> f64 {
    let ticks = || {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let fields = stat.rsplit(')').next().unwrap().split_ascii_whitespace();
        fields.skip(13).take(2).map(|field| field.parse::<u64>().unwrap()).sum::<u64>()
    };
    let began = ticks();
    for _ in 0..CYCLES {
        assert!(Command::new("ip").args(["-s", "link"]).output().unwrap().status.success());
    }
    as_float(ticks() - began) * 10.0 / as_float(CYCLES)
}

fn thread_cpu_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes a `timespec`, which `now` is.
    let told = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut now) };
    assert_eq!(told, 0);
    u64::try_from(now.tv_sec * 1_000_000_000 + now.tv_nsec).unwrap()
}

fn millis(ns: u64) -> f64 {
    (as_float(ns) / 1000.0).round() / 1000.0
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn as_float(number: u64) -> f64 {
    number as f64
}
