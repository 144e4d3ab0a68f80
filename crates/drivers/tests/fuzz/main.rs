//! Usage histories and messages as they come from other hosts, damaged: they take no more memory than honest ones may.

#[path = "../measured/mod.rs"]
mod measured;
#[path = "../../../decide/tests/wire/samples.rs"]
#[allow(dead_code, reason = "records and definitions are of no use here")]
mod samples;

use std::time::Duration;

use decide::units::Time;
use decide::usage::history::aged::{AgedBlock, AgedHistory, AgedLevel, WholeHistory};
use decide::usage::history::bucket::{Bucket, Stats};
use decide::usage::history::levels::{Closed, Level};
use decide::usage::history::sample::{METRICS, Sample};
use decide::wire::{self, limits};
use drivers::store::history::pack::{BLOCK_MAX, pack, unpack};
use drivers::store::history::travel;
use fuzz::Samples;

use measured::{KIB, measured};

/// What reading may take, for each byte that came, and besides. The form of messages has room of up to some hundred bytes for
/// parts of two bytes; all of them are of limited length.
const FOR_A_BYTE: usize = 160;
const BESIDES: usize = 512 * KIB;

fn cheap<T>(bytes: &[u8], act: impl FnOnce(&[u8]) -> T) -> T {
    let (given, cost) = measured(|| act(bytes));
    assert!(cost <= BESIDES + FOR_A_BYTE * bytes.len(), "{cost} bytes for {}", bytes.len());
    given
}

fn spans(level: Level, count: u64) -> Vec<Closed> {
    let mut lot = 1_u64;
    let mut stats = || -> Stats {
        let mut bucket = Bucket::default();
        for _ in 0..3 {
            lot = lot.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let figures = [(); METRICS].map(|()| lot >> 40);
            bucket.add(&Sample::of(figures), 1);
        }
        bucket.stats().expect("three samples")
    };
    // With a gap.
    let number = |index| if index < count / 2 { index } else { index + 7 };
    (0..count)
        .map(|index| Closed { level, start: level.at(number(index)), stats: stats() })
        .collect()
}

fn level(level: Level, count: u64) -> AgedLevel {
    let packed = travel::packed(Time(u64::MAX), level, &spans(level, count)).expect("some");
    AgedLevel { newest_age: Duration::from_secs(1000), ..packed }
}

/// One block in a history of its own, so that what is damaged is mostly the block.
fn of_block(packed: Vec<u8>) -> WholeHistory {
    let blocks = vec![AgedBlock { back: 1000, packed }];
    let level = AgedLevel { level: Level::Minute, newest_age: Duration::from_secs(60), blocks };
    WholeHistory { recent: AgedHistory::default(), levels: vec![level] }
}

#[test]
fn damaged_histories_are_refused_or_used_without_taking_much_memory() {
    let recent =
        AgedHistory { samples: vec![samples::aged(2), samples::aged(1)], ..AgedHistory::default() };
    let levels = Level::ALL.map(|one| level(one, 20)).to_vec();
    let small = |count| pack(Level::Minute, &spans(Level::Minute, count));
    let blocks = [small(1), small(12), small(BLOCK_MAX as u64)];
    let whole = [
        WholeHistory { recent, levels },
        WholeHistory::default(),
        of_block(blocks[1].clone()),
        of_block(blocks[2].clone()),
    ];
    let genuine = whole.iter().map(wire::encode_history).chain(blocks.iter().cloned());
    let samples = Samples { length_max: limits::WHOLE_MAX + 1, ..Samples::bytes(genuine) };
    samples.damaged(|bytes| {
        let now = Time(2_000_000_000_000_000);
        cheap(bytes, |bytes| {
            // As a block of a level of its own, and by itself.
            let _ = travel::arrived(now, &of_block(bytes.to_vec()).levels);
        });
        if let Ok(spans) = cheap(bytes, |bytes| unpack(Level::Minute, 1_000, bytes)) {
            assert!(spans.len() <= BLOCK_MAX);
            if !spans.is_empty() {
                let again = pack(Level::Minute, &spans);
                assert_eq!(unpack(Level::Minute, 1_000, &again), Ok(spans));
            }
        }
        let Ok(whole) = cheap(bytes, wire::decode_history) else { return };
        assert_eq!(wire::decode_history(&wire::encode_history(&whole)).as_ref(), Ok(&whole));
        cheap(bytes, |_| {
            if travel::check(&whole.levels).is_ok() {
                let spans = travel::arrived(now, &whole.levels).expect("it was checked");
                assert!(spans.iter().all(|span| span.start.plus(span.level.span()) <= now));
            }
        });
    });
}

#[test]
fn damaged_messages_take_no_more_memory_than_their_length_allows() {
    let genuine = samples::bodies().into_iter().map(samples::message);
    let genuine: Vec<Vec<u8>> = genuine.map(|message| wire::encode(&message)).collect();
    // Very many parts of two bytes each: of a history, of a request.
    let many = |key: u8| {
        let mut head = genuine[0][..44].to_vec();
        head.extend([key, 0].repeat(limits::MESSAGE_MAX / 2 - 30));
        head
    };
    let bombs = [0x0a, 0x1a, 0x22, 0x7a, 0x8a].map(many);
    let genuine = genuine.into_iter().chain(bombs);
    let samples = Samples { length_max: limits::MESSAGE_MAX, ..Samples::bytes(genuine) };
    samples.damaged(|bytes| {
        let _ = cheap(bytes, wire::decode);
        let _ = cheap(bytes, wire::decode_inventory);
        let _ = cheap(bytes, wire::decode_move_record);
    });
}
