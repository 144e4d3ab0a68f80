//! A history as a whole: its limits, its figures, and what becomes of it when it travels.

use super::quarters::{AgedQuarters, QUARTERS_MAX};
use super::*;

fn packets(n: u64) -> Sample {
    Sample { received_packets: PacketsPerSec(n), ..Sample::default() }
}

fn push(history: &mut History, second: u64, n: u64) {
    history.push(Time(second * 1_000_000), packets(n), &mut Vec::new());
}

fn filled(from: u64, to: u64) -> History {
    let mut history = History::default();
    (from..to).for_each(|second| push(&mut history, second, second));
    history
}

fn came(now: Time, sent: &AgedHistory) -> History {
    History::of_aged(now, sent).unwrap()
}

#[test]
fn never_more_than_its_limit_and_the_newest_stay() {
    let history = filled(1, 1000);
    assert_eq!(history.len(), SAMPLES_MAX);
    assert_eq!(history.newest(), Some(packets(999)));
    assert_eq!(history.span(), Duration::from_secs(599));
}

#[test]
fn demand_is_made_of_samples_as_they_were_read_and_the_older_ones_are_to_a_percent() {
    let mut history = History::default();
    (1..=100).for_each(|second| push(&mut history, second, 99_999));
    let mean = |window| {
        history.mean(Time(100_000_000), Duration::from_secs(window), Mib(1)).unwrap().packets.0
    };
    assert_eq!(mean(10), 99_999);
    assert!(mean(99).abs_diff(99_999) <= 99_999 / 128);
}

#[test]
fn a_history_that_travels_ends_up_once() {
    let now = Time(5_000_000_000);
    let sent = filled(100, 4_990).aged(now);
    let mut here = History::default();
    push(&mut here, 5_000, 7);
    here.import(&came(now, &sent));
    let once = here.clone();
    here.import(&came(now, &sent));
    assert_eq!(here, once);
    assert_eq!(here.len(), SAMPLES_MAX);
    assert_eq!(here.newest(), Some(packets(7)));
    assert_eq!(here.quarters().len(), 5);
}

#[test]
fn a_move_is_remembered_at_the_next_one_too() {
    let stay = |host: u128, counter| {
        let host = crate::units::HostId(host);
        let move_id = crate::units::MoveId { host, incarnation: 1, counter };
        Stay { host, name: format!("host{counter}"), move_id, ended: Time(50) }
    };
    let mut here = filled(1, 5);
    here.arrived(stay(1, 1));
    let mut there = came(Time(5_000_000), &here.aged(Time(5_000_000)));
    there.arrived(stay(2, 2));
    let names: Vec<&str> = there.past().stays().iter().map(|stay| &*stay.name).collect();
    assert_eq!(names, ["host1", "host2"]);
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let now = Time(20_000_000);
    let refused = |sent: AgedHistory| History::of_aged(now, &sent).unwrap_err().to_string();
    let mut turned = filled(1, 10).aged(now);
    turned.samples.reverse();
    assert_eq!(refused(turned), "samples are not in order of time, oldest first");
    let sample = Aged { age: Duration::ZERO, sample: Sample::default() };
    let many = AgedHistory { samples: vec![sample; SAMPLES_MAX + 1], ..AgedHistory::default() };
    assert_eq!(refused(many), "601 samples, 600 at the most");
    let quarters = |rows: usize, newest_age| AgedHistory {
        quarters: AgedQuarters { newest_age, rows: vec![None; rows] },
        ..AgedHistory::default()
    };
    let (long, short) = (Duration::from_hours(1), Duration::from_mins(14));
    assert_eq!(refused(quarters(QUARTERS_MAX + 1, long)), "2881 quarters, 2880 at the most");
    assert_eq!(refused(quarters(1, short)), "its newest quarter of an hour is not over yet");
    // What a clock ahead would make of a negative age.
    let ahead = Duration::from_micros(u64::MAX - 5);
    let no_time =
        |what| format!("{what} from a time that cannot be: ahead, or a hundred years back");
    assert_eq!(refused(quarters(1, ahead)), no_time("quarters"));
    let samples = vec![Aged { age: ahead, sample: Sample::default() }];
    assert_eq!(refused(AgedHistory { samples, ..AgedHistory::default() }), no_time("samples"));
}

#[test]
fn the_peak_is_the_highest_mean_of_a_run() {
    let mut history = History::default();
    for (second, n) in (1..).zip([10, 10, 90, 90, 90, 10]) {
        push(&mut history, second, n);
    }
    assert_eq!(history.peak(3, Mib(1)).unwrap().packets, PacketsPerSec(90));
    let last = history.mean(Time(6_000_000), Duration::from_secs(1), Mib(1)).unwrap();
    assert_eq!(last.packets, PacketsPerSec(50));
}
