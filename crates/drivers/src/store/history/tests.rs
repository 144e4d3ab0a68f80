//! Histories on disk: what is written is read again, whatever happened in between, and never more than its time.

use decide::units::{HostId, MoveId, VmId};
use decide::usage::history::bucket::{Bucket, Stats};
use decide::usage::history::past::Stay;
use decide::usage::history::sample::{METRICS, Sample};
use proptest::collection::vec;
use proptest::prelude::*;

use super::pack::BadBlock;
use super::*;

const VM: Whose = Whose::Vm(VmId(7));

fn stats(samples: &[[u64; METRICS]]) -> Stats {
    let mut bucket = Bucket::default();
    samples.iter().for_each(|values| bucket.add(&Sample::of(*values), 1));
    bucket.stats().unwrap()
}

/// Something else in every span.
pub(super) fn span(level: Level, number: u64) -> Closed {
    let value = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 44;
    let stats = stats(&[[value; METRICS], [value / 3; METRICS], [number; METRICS]]);
    Closed { level, start: level.at(number), stats }
}

pub(super) fn kept(whose: Whose, level: Level, numbers: std::ops::Range<u64>) -> Vec<Kept> {
    numbers.map(|number| Kept::Span(whose, span(level, number))).collect()
}

pub(super) fn open(dir: &Path) -> Histories {
    let (histories, set_aside) = Histories::open(dir, Spans::default()).unwrap();
    assert!(set_aside.is_none(), "{set_aside:?}");
    histories
}

pub(super) fn numbers(spans: &[Closed]) -> Vec<u64> {
    spans.iter().map(|span| span.level.number(span.start)).collect()
}

#[test]
fn what_is_written_is_read_again_after_a_restart_as_rows_and_as_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let mut histories = open(dir.path());
    for minute in 100..1700 {
        histories.write(&kept(VM, Level::Minute, minute..minute + 1)).unwrap();
    }
    // As after a kill: nothing is closed in order.
    drop(histories);
    let mut histories = open(dir.path());
    let read = histories.read(VM, Level::Minute, Time(0)).unwrap();
    let expected: Vec<Closed> = (100..1700).map(|number| span(Level::Minute, number)).collect();
    assert_eq!(read, expected);
    let since = Level::Minute.at(1690);
    assert_eq!(histories.read(VM, Level::Minute, since).unwrap().len(), 10);
    assert_eq!(histories.read(Whose::Host, Level::Minute, Time(0)).unwrap(), []);
}

#[test]
fn a_level_holds_its_time_and_a_block_at_the_most() {
    let dir = tempfile::tempdir().unwrap();
    let mut histories = open(dir.path());
    for minute in 0..2000u64 {
        histories.write(&kept(VM, Level::TenSeconds, minute * 6..minute * 6 + 6)).unwrap();
    }
    let read = numbers(&histories.read(VM, Level::TenSeconds, Time(0)).unwrap());
    assert_eq!(read.last(), Some(&11_999));
    let six_hours = 6 * 360;
    assert!((six_hours..=six_hours + BLOCK_MAX).contains(&read.len()), "{}", read.len());
}

#[test]
fn gaps_and_clocks_that_were_set_back_do_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let mut histories = open(dir.path());
    for range in [0..40, 100_000..100_040, 100_020..100_060, 100_030..100_031] {
        histories.write(&kept(VM, Level::Minute, range)).unwrap();
    }
    let read = numbers(&histories.read(VM, Level::Minute, Level::Minute.at(100_000)).unwrap());
    assert_eq!(read, (100_000..100_060).collect::<Vec<_>>());
}

#[test]
fn a_host_goes_on_with_what_it_is_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut histories = open(dir.path());
    assert_eq!(histories.recall(VM).unwrap(), None);
    let host = HostId(3);
    let move_id = MoveId { host, incarnation: 1, counter: 2 };
    let mut past = Past::default();
    past.push(Stay { host, name: "host3".to_owned(), move_id, ended: Time(5) });
    histories.write(&kept(VM, Level::Quarter, 50..70)).unwrap();
    histories.write(&[Kept::Past(VmId(7), past.clone())]).unwrap();
    drop(histories);
    let (quarters, again) = open(dir.path()).recall(VM).unwrap().unwrap();
    assert_eq!((quarters.len(), quarters.start()), (20, Level::Quarter.at(50)));
    assert_eq!(again, past);
}

#[test]
fn a_vm_that_is_gone_is_kept_for_a_week() {
    let dir = tempfile::tempdir().unwrap();
    let mut histories = open(dir.path());
    histories.write(&kept(VM, Level::Quarter, 0..1)).unwrap();
    histories.write(&kept(Whose::Host, Level::Quarter, 7 * 96..7 * 96 + 1)).unwrap();
    assert_eq!(histories.read(VM, Level::Quarter, Time(0)).unwrap().len(), 1);
    histories.write(&kept(Whose::Host, Level::Quarter, 7 * 96 + 1..7 * 96 + 2)).unwrap();
    assert_eq!(histories.read(VM, Level::Quarter, Time(0)).unwrap(), []);
}

#[test]
fn a_file_that_cannot_be_used_is_set_aside_and_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("history.redb"), b"none of ours").unwrap();
    let (mut histories, set_aside) = Histories::open(dir.path(), Spans::default()).unwrap();
    assert!(matches!(set_aside, Some(StoreError::Garbled { .. })), "{set_aside:?}");
    histories.write(&kept(VM, Level::Minute, 0..1)).unwrap();
    assert!(dir.path().join("history.redb.bad").exists());
}

#[test]
fn a_block_that_claims_far_too_much_is_refused_before_it_is_unpacked() {
    let mut block = pack(Level::Minute, &[span(Level::Minute, 1)]);
    block[1..3].copy_from_slice(&u16::MAX.to_le_bytes());
    assert_eq!(unpack(Level::Minute, 1, &block), Err(BadBlock::TooMany(65_535)));
    block[0] = 9;
    assert_eq!(unpack(Level::Minute, 1, &block), Err(BadBlock::Form(9)));
}

proptest! {
    #[test]
    fn a_block_is_unpacked_to_what_was_packed(
        spans in vec((vec(any::<[u64; METRICS]>(), 1..4), 1u64..300, 0u32..64), 0..BLOCK_MAX / 8),
        first in any::<u32>(),
    ) {
        let mut number = u64::from(first);
        let spans: Vec<Closed> = spans.into_iter().map(|(samples, step, shift)| {
            number += step;
            let samples: Vec<_> = samples.iter().map(|sample| sample.map(|n| n >> shift)).collect();
            Closed { level: Level::Quarter, start: Level::Quarter.at(number), stats: stats(&samples) }
        }).collect();
        let first = spans.first().map_or(0, |span| Level::Quarter.number(span.start));
        let packed = pack(Level::Quarter, &spans);
        prop_assert_eq!(unpack(Level::Quarter, first, &packed), Ok(spans.clone()));
        for one in &spans {
            prop_assert_eq!(row::decode(&row::encode(&one.stats)), Ok(one.stats));
        }
    }

    #[test]
    fn no_bytes_make_the_reader_panic(
        at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>(),
    ) {
        let spans: Vec<Closed> = (0..100).map(|number| span(Level::Minute, number)).collect();
        let mut block = pack(Level::Minute, &spans);
        let at = at.index(block.len());
        block[at] = byte;
        let _ = unpack(Level::Minute, 0, &block);
        let cut = cut.index(block.len());
        prop_assert!(unpack(Level::Minute, 0, &block[..cut]).is_err());
        let _ = row::decode(&block);
    }
}
