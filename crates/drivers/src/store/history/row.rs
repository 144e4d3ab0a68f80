//! One closed span as a few bytes, until there are enough of them for a block.
//!
//! ```text
//!   form u8, which metrics are not zero u16, and of each of those: mean, mean − min, max − mean, max − p95
//!   each of these: below 255 one byte, else 255 and two bytes
//! ```

use decide::usage::history::bucket::Stats;
use decide::usage::history::sample::METRICS;

use super::pack::{BadBlock, figures, stat, take};

const FORM: u8 = 1;

pub(super) fn encode(stats: &Stats) -> Vec<u8> {
    let all = stats.0.map(figures);
    let there = |metric: &usize| all[*metric] != [0; 4];
    let mask = (0..METRICS).filter(there).fold(0u16, |mask, metric| mask | 1 << metric);
    let mut bytes = vec![FORM];
    bytes.extend(mask.to_le_bytes());
    for value in (0..METRICS).filter(there).flat_map(|metric| all[metric]) {
        match u8::try_from(value) {
            Ok(short) if short < u8::MAX => bytes.push(short),
            _ => {
                bytes.push(u8::MAX);
                bytes.extend(value.to_le_bytes());
            }
        }
    }
    bytes
}

pub(super) fn decode(mut bytes: &[u8]) -> Result<Stats, BadBlock> {
    let rest = &mut bytes;
    match take(rest)? {
        [FORM] => {}
        [form] => return Err(BadBlock::Form(form)),
    }
    let mask = u16::from_le_bytes(take(rest)?);
    let mut stats = Stats::default();
    for (metric, place) in stats.0.iter_mut().enumerate() {
        if mask & 1 << metric == 0 {
            continue;
        }
        let mut figures = [0; 4];
        for figure in &mut figures {
            *figure = match take(rest)? {
                [u8::MAX] => u16::from_le_bytes(take(rest)?),
                [short] => u16::from(short),
            };
        }
        *place = stat(figures).ok_or(BadBlock::Figures)?;
    }
    if rest.is_empty() { Ok(stats) } else { Err(BadBlock::Length) }
}
