//! Closed spans of one level as one block of bytes: a column for each figure of each metric.
//!
//! ```text
//!   1  form        u8
//!   2  count       u16, low byte first
//!   3  steps       column: how much each span's number is above the one before; the first is 0
//!   4  per metric  columns: mean; mean − min; max − mean; max − p95, all in codes
//!
//!   column = 0, value u16                        all the same
//!          | 1, length u16, bytes of pco         else
//! ```
//!
//! The number of the first span is not in it: on disk it is the key, on the wire an age.
//!
//! **Invariant:** whatever the bytes are, unpacking takes no more room than [`BLOCK_MAX`] spans do, and gives only spans in
//! order whose figures can be. What pco would make room for is looked at before pco reads it (`bounded`).

use decide::usage::history::bucket::{Stat, Stats};
use decide::usage::history::code::Code;
use decide::usage::history::levels::{Closed, Level};
use decide::usage::history::sample::METRICS;
use pco::ChunkConfig;
use pco::standalone::{DecompressorItem, FileDecompressor, simple_compress};

/// Spans in one block.
pub const BLOCK_MAX: usize = 480;
/// The first byte of a block.
const FORM: u8 = 1;
/// Figures of a metric.
const FIGURES: usize = 4;
/// The largest window of differences is 2 to the power of this: what pco takes when it packs.
const WINDOW_LOG_MAX: u32 = 15;
/// More effort makes blocks hardly smaller.
const EFFORT: usize = 6;

/// Why bytes are not a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadBlock {
    /// It ends before it is whole, or goes on after it.
    #[error("cut off, or too long")]
    Length,
    /// Its form is not known.
    #[error("of form {0}, this version knows {FORM}")]
    Form(u8),
    /// More spans than a block has.
    #[error("{0} spans in a block, {BLOCK_MAX} at the most")]
    TooMany(usize),
    /// A column that cannot be unpacked.
    #[error("a column is garbled")]
    Column,
    /// Spans out of order, or beyond what is over.
    #[error("its spans are not in order, or not over yet")]
    Order,
    /// Figures that no span can have.
    #[error("its figures cannot be: a minimum above its maximum, or none of a code")]
    Figures,
}

/// The spans of one level, in order, as a block; at most [`BLOCK_MAX`].
#[must_use]
pub fn pack(level: Level, spans: &[Closed]) -> Vec<u8> {
    let count = u16::try_from(spans.len().min(BLOCK_MAX)).expect("a few hundred");
    let spans = &spans[..usize::from(count)];
    let mut bytes = vec![FORM];
    bytes.extend(count.to_le_bytes());
    let numbers: Vec<u64> = spans.iter().map(|span| level.number(span.start)).collect();
    let step = |pair: &[u64]| u16::try_from(pair[1] - pair[0]).unwrap_or(u16::MAX);
    let steps: Vec<u16> = std::iter::once(0).chain(numbers.windows(2).map(step)).collect();
    column(&mut bytes, &steps[..spans.len()]);
    for metric in 0..METRICS {
        let stats = || spans.iter().map(|span| figures(span.stats.0[metric]));
        for figure in 0..FIGURES {
            let values: Vec<u16> = stats().map(|figures| figures[figure]).collect();
            column(&mut bytes, &values);
        }
    }
    bytes
}

/// How many spans can stand in one block: as long as the steps between them can be written down.
#[must_use]
pub fn fits(level: Level, last: &Closed, next: &Closed) -> bool {
    level.number(next.start) - level.number(last.start) < u64::from(u16::MAX)
}

/// The spans in a block whose first one has this number.
///
/// # Errors
/// What is wrong with the bytes.
pub fn unpack(level: Level, first: u64, bytes: &[u8]) -> Result<Vec<Closed>, BadBlock> {
    let mut rest = bytes;
    match take(&mut rest)? {
        [FORM] => {}
        [form] => return Err(BadBlock::Form(form)),
    }
    let count = usize::from(u16::from_le_bytes(take(&mut rest)?));
    if count > BLOCK_MAX {
        return Err(BadBlock::TooMany(count));
    }
    let mut values = vec![0; count];
    read_column(&mut rest, &mut values)?;
    let mut number = first;
    let mut spans = Vec::with_capacity(count);
    for (index, step) in values.iter().enumerate() {
        if (*step == 0) != (index == 0) {
            return Err(BadBlock::Order);
        }
        number = number.checked_add(u64::from(*step)).ok_or(BadBlock::Order)?;
        spans.push(Closed { level, start: level.at(number), stats: Stats::default() });
    }
    for metric in 0..METRICS {
        let mut columns = vec![[0; FIGURES]; count];
        for figure in 0..FIGURES {
            read_column(&mut rest, &mut values)?;
            columns.iter_mut().zip(&values).for_each(|(row, value)| row[figure] = *value);
        }
        for (span, figures) in spans.iter_mut().zip(columns) {
            span.stats.0[metric] = stat(figures).ok_or(BadBlock::Figures)?;
        }
    }
    if rest.is_empty() { Ok(spans) } else { Err(BadBlock::Length) }
}

/// A metric's figures as the columns have them.
pub(super) fn figures(stat: Stat) -> [u16; FIGURES] {
    let Stat { min, mean, max, p95 } = stat;
    let [min, mean, max, p95] = [min, mean, max, p95].map(Code::bits);
    [mean, mean - min, max - mean, max - p95]
}

/// And back, if they can be.
pub(super) fn stat([mean, below, above, p95_below]: [u16; FIGURES]) -> Option<Stat> {
    let max = mean.checked_add(above)?;
    let code = |bits: Option<u16>| bits.and_then(Code::from_bits);
    let stat = Stat {
        min: code(mean.checked_sub(below))?,
        mean: code(Some(mean))?,
        max: code(Some(max))?,
        p95: code(max.checked_sub(p95_below))?,
    };
    stat.holds().then_some(stat)
}

fn column(bytes: &mut Vec<u8>, values: &[u16]) {
    let first = values.first().copied().unwrap_or_default();
    if values.iter().all(|value| *value == first) {
        bytes.push(0);
        bytes.extend(first.to_le_bytes());
        return;
    }
    let config = ChunkConfig::default().with_compression_level(EFFORT);
    let packed = simple_compress(values, &config).expect("the effort is one that there is");
    bytes.push(1);
    bytes.extend(u16::try_from(packed.len()).expect("of at most 480 short numbers").to_le_bytes());
    bytes.extend(packed);
}

fn read_column(rest: &mut &[u8], values: &mut [u16]) -> Result<(), BadBlock> {
    match take(rest)? {
        [0] => values.fill(u16::from_le_bytes(take(rest)?)),
        [1] => {
            let length = usize::from(u16::from_le_bytes(take(rest)?));
            let (packed, after) = rest.split_at_checked(length).ok_or(BadBlock::Length)?;
            *rest = after;
            decompress(packed, values).ok_or(BadBlock::Column)?;
        }
        [_] => return Err(BadBlock::Column),
    }
    Ok(())
}

/// Fills `values` from one chunk of pco, if it holds just as many.
fn decompress(packed: &[u8], values: &mut [u16]) -> Option<()> {
    let (file, chunk) = FileDecompressor::new(packed).ok()?;
    bounded(chunk, values.len()).then_some(())?;
    let DecompressorItem::Chunk(mut chunk) = file.chunk_decompressor::<u16, _>(chunk).ok()? else {
        return None;
    };
    let done = chunk.read(values).ok()?;
    let whole = done.finished && done.n_processed == values.len();
    // Nothing may follow but the mark of the end: another chunk would be read without a bound.
    (whole && chunk.into_src() == [0]).then_some(())
}

/// Whether a chunk, by its head, takes no more room than a block needs; else pco would make room for what a few bytes claim: for a
/// dictionary of 32 million numbers, or a window of 16 million.
///
/// By pco's format the head is, bits from the lowest on: 8 type; 24 count less one; 4 mode, of which our columns have none (0) or
/// a factor (1), whose 16 bits follow; 4 how differences are taken, if in a window (2) then 5 its size's logarithm less one.
fn bounded(chunk: &[u8], count: usize) -> bool {
    let mut head = [0; 16];
    head.iter_mut().zip(chunk).for_each(|(place, byte)| *place = *byte);
    let head = u128::from_le_bytes(head);
    let bits = |from: u32, width: u32| head >> from & ((1 << width) - 1);
    let differences = match bits(32, 4) {
        0 => 36,
        1 => 52,
        _ => return false,
    };
    let small = bits(differences, 4) != 2 || bits(differences + 4, 5) < u128::from(WINDOW_LOG_MAX);
    small && bits(8, 24) + 1 == count as u128
}

pub(super) fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], BadBlock> {
    let (taken, after) = rest.split_first_chunk().ok_or(BadBlock::Length)?;
    *rest = after;
    Ok(*taken)
}
