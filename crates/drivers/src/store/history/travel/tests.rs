//! What travels is the same there, whatever the other clock says; what cannot be is refused by name.

use std::time::Duration;

use proptest::collection::btree_set;
use proptest::prelude::*;

use super::super::tests::span;
use super::*;

fn minutes(numbers: impl IntoIterator<Item = u64>) -> Vec<Closed> {
    numbers.into_iter().map(|number| span(Level::Minute, number)).collect()
}

fn level(numbers: std::ops::Range<u64>) -> AgedLevel {
    let now = Level::Minute.at(numbers.end);
    packed(now, Level::Minute, &minutes(numbers)).unwrap()
}

fn why(change: impl FnOnce(&mut AgedLevel)) -> String {
    let mut bad = level(10_000..11_000);
    change(&mut bad);
    check(&[bad]).unwrap_err().to_string()
}

#[test]
fn the_newest_spans_travel_and_no_more_than_are_kept_by_default() {
    assert_eq!(Level::ALL.map(spans_max), [2160, 2880, 2880]);
    assert_eq!(packed(Time(0), Level::Minute, &[]), None);
    let came = arrived(Level::Minute.at(20_000), &[level(10_000..20_000)]).unwrap();
    assert_eq!(came, minutes(20_000 - 2880..20_000));
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    assert_eq!(check(&[level(0..1_000)]), Ok(()));
    let twice = check(&[level(0..10), level(0..10)]).unwrap_err().to_string();
    assert_eq!(twice, "its minutes come twice");
    assert_eq!(
        why(|level| level.newest_age = Duration::from_secs(59)),
        "the newest of its minutes is not over yet"
    );
    assert_eq!(
        why(|level| level.newest_age = Duration::from_micros(u64::MAX - 3)),
        "its minutes are from a time that cannot be: ahead, or a hundred years back"
    );
    assert_eq!(
        why(|level| level.blocks[0].back = 2880),
        "its minutes go 2880 spans back, 2880 at the most"
    );
    let disorder = "its minutes are not in order of time, oldest first, or go on beyond the newest";
    assert_eq!(why(|level| level.blocks.swap(0, 1)), disorder);
    assert_eq!(why(|level| level.blocks[2].back += 1), disorder, "into the block before");
    assert_eq!(why(|level| level.blocks[2].back -= 1), disorder, "into the future");
    assert_eq!(
        why(|level| level.blocks[1].packed[1..3].copy_from_slice(&[0xff; 2])),
        "its minutes: 65535 spans in a block, 480 at the most"
    );
    assert_eq!(
        why(|level| level.blocks[1].packed.truncate(100)),
        "its minutes: cut off, or too long"
    );
    assert_eq!(why(|level| level.blocks[0].packed[20] ^= 0x55), "its minutes: a column is garbled");
}

proptest! {
    #[test]
    fn what_travels_keeps_its_gaps_its_figures_and_about_its_age(
        numbers in btree_set(1_000_000u64..1_002_880, 1..600),
        late in 0u64..600_000_000,
        skew in 0u64..600_000_000,
    ) {
        let sent = minutes(numbers.iter().copied());
        let newest = sent[sent.len() - 1].start;
        let now = newest.plus(Duration::from_micros(60_000_000 + late));
        let level = packed(now, Level::Minute, &sent).unwrap();
        let there = now.plus(Duration::from_micros(skew));
        let came = arrived(there, std::slice::from_ref(&level)).unwrap();
        prop_assert_eq!(&came, &arrived(there, &[level]).unwrap());
        prop_assert_eq!(came.len(), sent.len());
        let shift = Level::Minute.number(came[0].start) - Level::Minute.number(sent[0].start);
        for (one, other) in came.iter().zip(&sent) {
            prop_assert_eq!(one.stats, other.stats);
            let numbers = [one, other].map(|span| Level::Minute.number(span.start));
            prop_assert_eq!(numbers[0] - numbers[1], shift);
        }
        let last = came[came.len() - 1].start;
        prop_assert!(last.plus(Level::Minute.span()) <= there, "it is over");
        prop_assert!(there.since(last).abs_diff(now.since(newest)) < Level::Minute.span());
    }

    #[test]
    fn no_damage_makes_the_reader_panic(
        block in 0usize..3, at in any::<prop::sample::Index>(), byte in any::<u8>(), back in any::<u32>(),
    ) {
        let mut bad = level(10_000..11_000);
        let bytes = &mut bad.blocks[block].packed;
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = check(&[bad.clone()]);
        bad.blocks[block].back = back;
        let _ = check(&[bad]);
    }
}
