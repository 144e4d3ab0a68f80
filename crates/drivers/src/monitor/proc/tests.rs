//! The formats of /proc and /sys, with what has tripped others: names with parentheses, guests counted twice.

use decide::units::{Bytes, Mib};
use decide::usage::reading::DiskCounters;

use super::disks::disk_counters;
use super::host::{memory, processors, some_avg10};
use super::process::{ProcessStat, process_stat, schedstat};
use super::*;

#[test]
fn used_time_has_guests_once_and_no_idle_waiting_or_stolen_time() {
    let stat = b"cpu  100 20 30 9999 8888 4 5 7777 60 6\n\
                 cpu0 50 10 15 0 0 2 2 0 30 3\n\
                 cpu3 50 10 15 0 0 2 3 0 30 3\n\
                 intr 12345 0 0\n\
                 ctxt 5\n";
    assert_eq!(processors(stat), Some((microseconds(159), 2)));
    assert_eq!(processors(b"cpu  100 20 30\ncpu0 1\n"), None);
    assert_eq!(processors(b"intr 1\n"), None);
    assert_eq!(processors(b"cpu  \xff"), None);
}

#[test]
fn memory_is_in_mebibytes() {
    let meminfo =
        b"MemTotal:       24684084 kB\nMemFree:  1 kB\nMemAvailable:   24307520 kB\nHugepagesize: 2048 kB\n";
    assert_eq!(memory(meminfo), Some((Mib(24_105), Mib(23_737))));
    assert_eq!(memory(b"MemTotal: 1024 kB\n"), None);
    assert_eq!(memory(b"MemTotal: many kB\nMemAvailable: 1 kB\n"), None);
}

#[test]
fn pressure_is_a_share() {
    let text =
        b"some avg10=12.50 avg60=0.52 avg300=0.28 total=5568900\nfull avg10=99.00 avg60=0.00\n";
    let share = some_avg10(text).unwrap();
    assert!((share - 0.125).abs() < 1e-9, "{share}");
    assert_eq!(some_avg10(b"full avg10=1.0"), None);
}

#[test]
fn a_process_may_be_named_anything() {
    let stat = b"42 (a) b (c\xff) R) S 1 42 42 0 -1 4194560 500 0 0 0 1200 34 5 6 20 0 7 0 987654 1000000 2560 18446744073709551615 1\n";
    let expected = ProcessStat { ended: false, ticks: 1234, start: 987_654, resident_pages: 2560 };
    assert_eq!(process_stat(stat), Some(expected));
    let zombie = b"42 (q) Z 1 42 42 0 -1 4194560 500 0 0 0 1200 34 5 6 20 0 7 0 987654 0 0 0\n";
    assert!(process_stat(zombie).unwrap().ended);
}

#[test]
fn a_garbled_process_file_is_none_and_no_panic() {
    let stat =
        b"42 (qemu) S 1 42 42 0 -1 4194560 500 0 0 0 1200 34 5 6 20 0 7 0 987654 1000000 2560";
    for end in 0..stat.len() - 4 {
        assert_eq!(process_stat(&stat[..end]), None, "cut at {end}");
    }
}

#[test]
fn a_thread_ran_and_waited_in_nanoseconds() {
    assert_eq!(schedstat(b"1234567890 987654321 42\n"), Some((1_234_567_890, 987_654_321)));
    for garbled in [&b""[..], b"12\n", b"12 x 1\n", b"-1 2 3\n", b"\xff"] {
        assert_eq!(schedstat(garbled), None);
    }
}

#[test]
fn what_reaches_a_disk_is_counted_once() {
    // Recorded: a loop device, a disk with a partition, a volume on it, and an older kernel's shorter line.
    let text = b"   7       0 loop0 9 9 9 9 9 9 9 9 0 0 0 0 0 0 0 0 0\n\
                 254       0 vda 2400125 63208 140690442 4259853 320115 579618 317257280 1652489 0 304176 6006178 455653 94 284002768 76526 42407 17309\n\
                 254       1 vda1 2400000 63208 140690000 4259853 320115 579618 317257280 1652489 0 304176 6006178\n\
                 253       0 dm-0 9 9 9 9 9 9 9 9 0 0 0\n\
                 104       0 cciss/c0d0 1 0 2 0 3 0 4 0 0 0 0\n";
    let mut asked = Vec::new();
    let sum = disk_counters(text, |device, name| {
        asked.push(device.to_owned());
        ["vda", "cciss!c0d0"].contains(&name)
    });
    let expected = DiskCounters {
        read: Bytes((140_690_442 + 2) * 512),
        written: Bytes((317_257_280 + 4) * 512),
        requests: 2_400_125 + 320_115 + 1 + 3,
    };
    assert_eq!(sum, Some(expected));
    assert_eq!(asked.len(), 5);
    assert_eq!(asked[4], "104:0 cciss!c0d0");
    assert_eq!(disk_counters(b"254 0 vda 1 2 3 4 5 6\n", |_, _| true), None, "cut short");
    assert_eq!(disk_counters(b"", |_, _| true), Some(DiskCounters::default()));
}
