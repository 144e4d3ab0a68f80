//! What is stored of a history, on its way to another host: blocks, and ages in place of times.
//!
//! **Invariant:** whatever came, unpacking it takes no more room than [`spans_max`] spans of each level do.
//! **Invariant:** no time ahead is taken in: the newest span of a level is over, and no other is newer.

use decide::units::Time;
use decide::usage::history::aged::{AGE_MAX, AgedBlock, AgedLevel};
use decide::usage::history::bucket::Stats;
use decide::usage::history::levels::{Closed, Level};

use super::Spans;
use super::pack::{self, BLOCK_MAX, BadBlock, pack, unpack};

/// Why what came of a level cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadLevel {
    /// A level comes once.
    #[error("its {0} come twice")]
    Twice(&'static str),
    /// The newest span is not over.
    #[error("the newest of its {0} is not over yet")]
    Future(&'static str),
    /// Of no time that was.
    #[error("its {0} are from a time that cannot be: ahead, or a hundred years back")]
    NoTime(&'static str),
    /// Older than what travels.
    #[error("its {0} go {1} spans back, {2} at the most")]
    TooFar(&'static str, u32, u32),
    /// Blocks out of order, or one over the end of the level.
    #[error("its {0} are not in order of time, oldest first, or go on beyond the newest")]
    Disorder(&'static str),
    /// A block that cannot be unpacked.
    #[error("its {0}: {1}")]
    Block(&'static str, BadBlock),
}

/// Spans of a level that travel: as many as are kept of it where nothing else is set.
#[must_use]
pub fn spans_max(level: Level) -> u32 {
    let time = Spans::default().of(level).as_secs();
    u32::try_from(time / level.span().as_secs()).expect("a few thousand")
}

/// The newest of these spans of one level, oldest first; nothing if there are none. One that is not over, by a clock that was set
/// back since, stays.
#[must_use]
pub fn packed(now: Time, level: Level, spans: &[Closed]) -> Option<AgedLevel> {
    let spans = &spans[..spans.partition_point(|span| span.start.plus(level.span()) <= now)];
    let newest = spans.last()?.start;
    let back = |span: &Closed| {
        let back = level.number(newest).saturating_sub(level.number(span.start));
        u32::try_from(back).unwrap_or(u32::MAX)
    };
    let since = spans.partition_point(|span| back(span) >= spans_max(level));
    let rows = spans[since..].chunk_by(|a, b| pack::fits(level, a, b));
    let block = |spans: &[Closed]| AgedBlock { back: back(&spans[0]), packed: pack(level, spans) };
    let blocks = rows.flat_map(|row| row.chunks(BLOCK_MAX)).map(block).collect();
    Some(AgedLevel { level, newest_age: now.since(newest), blocks })
}

/// Whether all levels are what they must be.
///
/// # Errors
/// The first thing that is wrong.
pub fn check(levels: &[AgedLevel]) -> Result<(), BadLevel> {
    for (index, level) in levels.iter().enumerate() {
        if levels[..index].iter().any(|before| before.level == level.level) {
            return Err(BadLevel::Twice(word(level.level)));
        }
        each(level, |_, _| ())?;
    }
    Ok(())
}

/// The spans on this host's grid: the two clocks' grids differ by less than half a span, either way. What lies before the
/// beginning of this host's time has no place.
///
/// # Errors
/// As [`check`].
pub fn arrived(now: Time, levels: &[AgedLevel]) -> Result<Vec<Closed>, BadLevel> {
    check(levels)?;
    let mut spans = Vec::new();
    for came in levels {
        let AgedLevel { level, newest_age, .. } = came;
        let half = level.span() / 2;
        let newest = level.number(now.minus(*newest_age).plus(half));
        // Rounded up it may seem not to be over.
        let newest = newest.min(level.number(now).saturating_sub(1));
        each(came, |back, stats| {
            let number = newest.checked_sub(u64::from(back));
            let start = number.map(|number| level.at(number));
            spans.extend(start.map(|start| Closed { level: *level, start, stats }));
        })?;
    }
    Ok(spans)
}

/// Each span of a level, and how many spans it lies before the newest.
fn each(level: &AgedLevel, mut take: impl FnMut(u32, Stats)) -> Result<(), BadLevel> {
    let AgedLevel { level, newest_age, blocks } = level;
    let (word, max) = (word(*level), spans_max(*level));
    if *newest_age < level.span() {
        return Err(BadLevel::Future(word));
    }
    if *newest_age > AGE_MAX {
        return Err(BadLevel::NoTime(word));
    }
    let mut next_max = max;
    for AgedBlock { back, packed } in blocks {
        if *back >= max {
            return Err(BadLevel::TooFar(word, *back, max));
        }
        for span in unpack(*level, 0, packed).map_err(|bad| BadLevel::Block(word, bad))? {
            let after = u32::try_from(level.number(span.start)).unwrap_or(u32::MAX);
            let back = back.checked_sub(after).filter(|back| *back < next_max);
            let back = back.ok_or(BadLevel::Disorder(word))?;
            next_max = back;
            take(back, span.stats);
        }
    }
    Ok(())
}

fn word(level: Level) -> &'static str {
    match level {
        Level::TenSeconds => "spans of ten seconds",
        Level::Minute => "minutes",
        Level::Quarter => "quarters of an hour",
    }
}

#[cfg(test)]
mod tests;
