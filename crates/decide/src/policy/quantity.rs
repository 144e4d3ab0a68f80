//! A number and its unit in text: `"2min"`, `"80%"`, `"4GiB"`; read exactly, without floats, and without overflow.
//!
//! **Invariant:** what the functions ending in `_text` write, the reader reads back as the same value.

use std::fmt;
use std::time::Duration;

use serde::Serializer;
use serde::de::{Deserializer, Error, Unexpected, Visitor};

use crate::units::{Cost, Mib, PacketsPerSec, Share};

/// What one kind of quantity looks like.
#[derive(Debug)]
struct Kind {
    /// With its article, for messages.
    name: &'static str,
    /// One that is right.
    example: &'static str,
    /// Units, smallest first, each with its size in the smallest step that is kept.
    units: &'static [(&'static str, u64)],
    /// The least and the greatest, in steps.
    range: (u64, u64),
}

/// Steps of one microsecond; a year at most, so that adding to an instant cannot overflow.
const DURATION: Kind = Kind {
    name: "a duration above zero, up to 366d",
    example: "\"2min\"",
    units: &[
        ("us", 1),
        ("ms", 1_000),
        ("s", 1_000_000),
        ("min", 60_000_000),
        ("h", 3_600_000_000),
        ("d", 86_400_000_000),
    ],
    range: (1, 366 * 86_400_000_000),
};
/// Steps of one thousandth.
const SHARE: Kind = Kind {
    name: "a share from 0% to 100%",
    example: "\"80%\"",
    units: &[("%", 10)],
    range: (0, 1000),
};
/// Steps of one thousandth; more than the whole where processors may be overcommitted.
const OVERCOMMIT: Kind = Kind {
    name: "a share from 0% to 1000%",
    example: "\"80%\"",
    units: &[("%", 10)],
    range: (0, 10_000),
};
/// Steps of one thousandth, none of which is of no use.
const POSITIVE_SHARE: Kind = Kind {
    name: "a share from 0.1% to 100%",
    example: "\"50%\"",
    units: &[("%", 10)],
    range: (1, 1000),
};
/// Steps of one mebibyte; a pebibyte at most.
const MEMORY: Kind = Kind {
    name: "an amount of memory",
    example: "\"4GiB\"",
    units: &[("MiB", 1), ("GiB", 1024), ("TiB", 1024 * 1024)],
    range: (0, 1024 * 1024 * 1024),
};
/// Steps of a millionth of a percent. Zero would let rounding alone justify a move.
const COST: Kind = Kind {
    name: "a percentage of pressure above 0% and up to 1000%",
    example: "\"10%\"",
    units: &[("%", 1_000_000)],
    range: (1, 1_000_000_000),
};
/// The same where zero means that it does not count.
const WEIGHT: Kind =
    Kind { name: "a percentage of pressure from 0% to 1000%", range: (0, 1_000_000_000), ..COST };

/// The text is not a quantity of the kind wanted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} {what}; write {kind}, such as {example}")]
pub struct NotAQuantity {
    text: String,
    what: String,
    kind: &'static str,
    example: &'static str,
}

/// Reads a duration above zero: `"100ms"`, `"1.5h"`.
pub fn parse_duration(text: &str) -> Result<Duration, NotAQuantity> {
    parse(text, &DURATION).map(Duration::from_micros)
}

/// Reads a share of a whole: `"80%"`, `"12.5%"`.
pub fn parse_share(text: &str) -> Result<Share, NotAQuantity> {
    parse(text, &SHARE).map(share_of_steps)
}

/// Reads an amount of memory: `"4GiB"`.
pub fn parse_memory(text: &str) -> Result<Mib, NotAQuantity> {
    parse(text, &MEMORY).map(Mib)
}

/// Reads a cost above zero, in percent of pressure: `"10%"`.
pub fn parse_cost(text: &str) -> Result<Cost, NotAQuantity> {
    parse(text, &COST).map(cost_of_steps)
}

/// Writes a duration as the file has it, in the greatest unit that gives a whole number; less than 1 µs is dropped.
pub fn duration_text(duration: Duration) -> String {
    let steps = duration.as_micros();
    let fits = |unit: &&(&str, u64)| steps.is_multiple_of(u128::from(unit.1));
    let (unit, size) = DURATION.units.iter().rev().find(fits).unwrap_or(&DURATION.units[0]);
    format!("{}{unit}", steps / u128::from(*size))
}

/// Writes an amount of memory as the file has it, in the greatest unit that gives a whole number.
pub fn memory_text(memory: Mib) -> String {
    let fits = |unit: &&(&str, u64)| memory.0.is_multiple_of(unit.1);
    let (unit, size) = MEMORY.units.iter().rev().find(fits).unwrap_or(&MEMORY.units[0]);
    format!("{}{unit}", memory.0 / size)
}

/// Writes a share as the file has it.
pub fn share_text(share: Share) -> String {
    format!("{}.{}%", share.0 / 10, share.0 % 10).replace(".0%", "%")
}

/// For serde: a duration above zero.
pub fn positive_duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    from.deserialize_any(Text(&DURATION)).map(Duration::from_micros)
}

/// For serde: a duration above zero that may be absent.
pub(crate) fn optional_duration<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<Duration>, D::Error> {
    positive_duration(from).map(Some)
}

/// For serde: a duration as the reader takes it.
#[expect(clippy::ref_option, reason = "serde hands it so")]
pub(crate) fn duration_out<S: Serializer>(
    duration: &Option<Duration>,
    to: S,
) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => to.serialize_str(&duration_text(*duration)),
        None => to.serialize_none(),
    }
}

/// For serde: a share, zero included.
pub(crate) fn share<'de, D: Deserializer<'de>>(from: D) -> Result<Share, D::Error> {
    from.deserialize_any(Text(&SHARE)).map(share_of_steps)
}

/// For serde: a share that may exceed the whole.
pub(crate) fn overcommit<'de, D: Deserializer<'de>>(from: D) -> Result<Share, D::Error> {
    from.deserialize_any(Text(&OVERCOMMIT)).map(share_of_steps)
}

/// For serde: a share above zero.
pub(crate) fn positive_share<'de, D: Deserializer<'de>>(from: D) -> Result<Share, D::Error> {
    from.deserialize_any(Text(&POSITIVE_SHARE)).map(share_of_steps)
}

/// For serde: an amount of memory.
pub(crate) fn memory<'de, D: Deserializer<'de>>(from: D) -> Result<Mib, D::Error> {
    from.deserialize_any(Text(&MEMORY)).map(Mib)
}

/// For serde: a cost above zero.
pub(crate) fn cost<'de, D: Deserializer<'de>>(from: D) -> Result<Cost, D::Error> {
    from.deserialize_any(Text(&COST)).map(cost_of_steps)
}

/// For serde: a cost, or zero.
pub(crate) fn weight<'de, D: Deserializer<'de>>(from: D) -> Result<Cost, D::Error> {
    from.deserialize_any(Text(&WEIGHT)).map(cost_of_steps)
}

/// For serde: a whole number above zero.
pub(crate) fn positive_count<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    from.deserialize_any(Count { max: 1_000_000_000_000 })
}

/// For serde: a whole number above zero, of things that are few.
pub(crate) fn positive_small_count<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    let count = from.deserialize_any(Count { max: 10_000 })?;
    Ok(u32::try_from(count).expect("not above 10 000"))
}

/// For serde: the same, where it may be absent.
pub(crate) fn optional_small_count<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<u32>, D::Error> {
    positive_small_count(from).map(Some)
}

/// For serde: packets each second, above zero.
pub(crate) fn packets<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<PacketsPerSec>, D::Error> {
    positive_count(from).map(|count| Some(PacketsPerSec(count)))
}

fn share_of_steps(steps: u64) -> Share {
    Share(u32::try_from(steps).expect("a share's range ends at 1000"))
}

fn cost_of_steps(steps: u64) -> Cost {
    Cost(i64::try_from(steps).expect("a cost's range ends at 1000 %"))
}

/// The number of steps that `text` names, exactly.
fn parse(text: &str, kind: &Kind) -> Result<u64, NotAQuantity> {
    let wrong = |what: String| NotAQuantity {
        text: text.to_owned(),
        what,
        kind: kind.name,
        example: kind.example,
    };
    let trimmed = text.trim();
    let end = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
    let (number, unit) = (&trimmed[..end], trimmed[end..].trim_start());
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || fraction.contains('.') || (number.contains('.') && fraction.is_empty()) {
        return Err(wrong("does not begin with a number".to_owned()));
    }
    if unit.is_empty() {
        return Err(wrong("has no unit".to_owned()));
    }
    let Some((_, size)) = kind.units.iter().find(|(name, _)| *name == unit) else {
        let known: Vec<&str> = kind.units.iter().map(|(name, _)| *name).collect();
        return Err(wrong(format!("has the unit {unit:?}, which is none of {}", known.join(", "))));
    };
    let out_of_range = || wrong("is out of range".to_owned());
    // Nineteen digits fit into 64 bits, and times the greatest unit into 128.
    let digits = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<u64>().ok() };
    let whole = u128::from(digits(whole).ok_or_else(out_of_range)?) * u128::from(*size);
    let fraction = fraction.trim_end_matches('0');
    let too_fine = || wrong("is finer than what is kept".to_owned());
    let parts = u32::try_from(fraction.len())
        .ok()
        .and_then(|n| 10_u64.checked_pow(n))
        .ok_or_else(too_fine)?;
    let fraction = u128::from(digits(fraction).ok_or_else(too_fine)?) * u128::from(*size);
    if !fraction.is_multiple_of(u128::from(parts)) {
        return Err(too_fine());
    }
    let steps =
        u64::try_from(whole + fraction / u128::from(parts)).map_err(|_too_big| out_of_range())?;
    let (least, most) = kind.range;
    if steps < least || steps > most { Err(out_of_range()) } else { Ok(steps) }
}

/// Takes a quantity out of a string; anything else is told what would be right.
struct Text(&'static Kind);

impl Visitor<'_> for Text {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, such as {}", self.0.name, self.0.example)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<u64, E> {
        parse(text, self.0).map_err(E::custom)
    }
}

/// Takes a whole number from one to `max`.
struct Count {
    max: u64,
}

impl Visitor<'_> for Count {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number from 1 to {}, without quotes and unit, such as 100", self.max)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<u64, E> {
        let wrong = || E::invalid_value(Unexpected::Signed(number), &self);
        u64::try_from(number).ok().filter(|n| (1..=self.max).contains(n)).ok_or_else(wrong)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<u64, E> {
        let wrong = || E::invalid_value(Unexpected::Unsigned(number), &self);
        Some(number).filter(|n| (1..=self.max).contains(n)).ok_or_else(wrong)
    }
}
