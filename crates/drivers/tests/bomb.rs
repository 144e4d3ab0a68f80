//! Few bytes that claim much: each is refused by name, and costs no more memory than an honest history does.

#![expect(clippy::print_stdout, reason = "figures are read by people")]

mod measured;

use std::time::Duration;

use decide::units::Time;
use decide::usage::history::aged::{AgedBlock, AgedHistory, AgedLevel, WholeHistory};
use decide::usage::history::bucket::{Bucket, Stats};
use decide::usage::history::levels::{Closed, Level};
use decide::usage::history::sample::{METRICS, Sample};
use decide::wire;
use drivers::store::history::pack::{BLOCK_MAX, pack};
use drivers::store::history::travel;
use pco::standalone::{FileDecompressor, simple_decompress_into};

use measured::{KIB, measured};

/// As the agent reads what has come.
fn read(bytes: &[u8]) -> Result<WholeHistory, String> {
    let whole = wire::decode_history(bytes).map_err(|bad| bad.to_string())?;
    travel::check(&whole.levels).map_err(|bad| bad.to_string())?;
    Ok(whole)
}

fn refused(bytes: &[u8]) -> String {
    let (read, cost) = measured(|| read(bytes));
    let why = read.expect_err("it is a bomb");
    println!("{} bytes cost {} KiB: {why}", bytes.len(), cost / KIB);
    assert!(cost <= 1024 * KIB, "{cost} bytes for {why}");
    why
}

fn spans(level: Level, count: u64) -> Vec<Closed> {
    let mut lot = 1u64;
    let mut figure = || {
        lot = lot.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        lot >> 30
    };
    let mut stats = || -> Stats {
        let mut bucket = Bucket::default();
        (0..3).for_each(|_| bucket.add(&Sample::of([(); METRICS].map(|()| figure())), 1));
        bucket.stats().expect("three samples")
    };
    (0..count).map(|number| Closed { level, start: level.at(number), stats: stats() }).collect()
}

fn with(level: AgedLevel) -> Vec<u8> {
    wire::encode_history(&WholeHistory { recent: AgedHistory::default(), levels: vec![level] })
}

fn one_block(packed: Vec<u8>) -> Vec<u8> {
    let blocks = vec![AgedBlock { back: 1_000, packed }];
    with(AgedLevel { level: Level::Minute, newest_age: Duration::from_secs(60), blocks })
}

/// A block whose first column, of the steps, has another head in its chunk: from its count on.
fn with_head(head: &[u8]) -> Vec<u8> {
    let mut block = pack(Level::Minute, &spans(Level::Minute, BLOCK_MAX as u64));
    let at = chunk_at(&block);
    block[at + 1..at + 1 + head.len()].copy_from_slice(head);
    block
}

/// Where the first column's chunk begins: after the block's form and count, the column's kind and length, and pco's head.
fn chunk_at(block: &[u8]) -> usize {
    let column = &block[6..];
    let (_, chunk) = FileDecompressor::new(column).expect("it is pco's");
    block.len() - chunk.len()
}

#[test]
fn a_bomb_is_refused_by_name_and_costs_less_than_an_honest_history() {
    let honest = WholeHistory {
        recent: AgedHistory::default(),
        levels: Level::ALL
            .into_iter()
            .filter_map(|level| travel::packed(Time(u64::MAX), level, &spans(level, 3_000)))
            .map(|level| AgedLevel { newest_age: Duration::from_secs(900), ..level })
            .collect(),
    };
    let bytes = wire::encode_history(&honest);
    let (read, cost) = measured(|| read(&bytes));
    println!("the longest: {} bytes cost {} KiB", bytes.len(), cost / KIB);
    assert_eq!(read, Ok(honest));
    assert!(bytes.len() < wire::limits::WHOLE_MAX, "{}", bytes.len());

    // Very many samples, stays or levels, two bytes each; and blocks inside of one level.
    let many = |key: u8, count: usize| [key, 0].repeat(count);
    let inside = |key: u8, body: Vec<u8>| {
        let mut bytes = vec![key];
        let mut length = body.len();
        while length > 127 {
            bytes.push(u8::try_from(length % 128).unwrap() | 128);
            length /= 128;
        }
        bytes.push(u8::try_from(length).unwrap());
        [bytes, body].concat()
    };
    let many_samples = inside(0x0a, many(0x0a, 130_000));
    assert_eq!(refused(&many_samples), "history.samples: 130000, at most 600");
    assert_eq!(refused(&inside(0x0a, many(0x1a, 130_000))), "history.past: 130000, at most 64");
    let long = inside(0x0a, many(0x0a, 500_000));
    assert_eq!(refused(&long), "history.recent: 1000000, at most 262144");
    assert_eq!(refused(&many(0x12, 500_000)), "history.levels: 500000, at most 3");
    let many_blocks = inside(0x12, many(0x1a, 500_000));
    assert_eq!(refused(&many_blocks), "history.levels.blocks: 500000, at most 32");
    let age = [0x08, 1].to_vec();
    let rows = inside(0x12, vec![0xff; 160_000]);
    let quarters = inside(0x0a, inside(0x12, [age, rows].concat()));
    assert_eq!(refused(&quarters), "history.quarters.rows: 10000, at most 2880");
    assert_eq!(
        refused(&vec![0; wire::limits::WHOLE_MAX + 1]),
        "history.length: 1048577, at most 1048576"
    );

    // A block that claims more spans than there can be, and columns that claim more numbers.
    let mut block = with_head(&[]);
    block[1..3].copy_from_slice(&[0xff; 2]);
    assert_eq!(refused(&one_block(block)), "its minutes: 65535 spans in a block, 480 at the most");
    let garbled = "its minutes: a column is garbled";
    let numbers = with_head(&[0xff, 0xff, 0xff]);
    assert_eq!(refused(&one_block(numbers)), garbled);
    // Mode 4, a dictionary of 2^25 - 1 numbers; mode 0 and differences in a window of 2^24.
    let count = u32::try_from(BLOCK_MAX).unwrap() - 1;
    let [low, middle, high, _] = count.to_le_bytes();
    let dictionary = with_head(&[low, middle, high, 0xf4, 0xff, 0xff, 0x1f, 0]);
    assert_eq!(refused(&one_block(dictionary.clone())), garbled);
    let window = with_head(&[low, middle, high, 0x20, 0x17, 0, 0, 0]);
    assert_eq!(refused(&one_block(window)), garbled);

    // It is one: pco alone makes room for it.
    let mut values = [0u16; BLOCK_MAX];
    let column = &dictionary[6..];
    let (read, cost) = measured(|| simple_decompress_into(column, &mut values).is_ok());
    println!("by pco alone the dictionary costs {} KiB", cost / KIB);
    assert!(!read && cost > 10 * 1024 * KIB, "{cost}");
}
