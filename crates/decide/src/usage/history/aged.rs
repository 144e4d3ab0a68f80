//! A usage history on its way to another host: ages, never clock readings.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::code::Code;
use super::levels::Level;
use super::past::AgedStay;
use super::quarters::{AgedQuarters, Quarter};
use super::sample::Aged;

/// What a target must know of a VM's past.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AgedHistory {
    /// The newest ten minutes, oldest first.
    pub samples: Vec<Aged>,
    /// The newest thirty days; none from a host of the version before.
    #[serde(default)]
    pub quarters: AgedQuarters,
    /// Where it was, oldest first; nothing from a host of the version before.
    #[serde(default)]
    pub past: Vec<AgedStay>,
}

impl AgedHistory {
    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty() && self.quarters.rows.is_empty() && self.past.is_empty()
    }

    /// How long the quarters cover, gaps included.
    pub fn quarters_span(&self) -> Duration {
        let count = u32::try_from(self.quarters.rows.len()).unwrap_or(u32::MAX);
        Level::Quarter.span().saturating_mul(count)
    }
}

/// All of a history on its way: what decides, and what is stored of it, which goes into the target's store once the VM is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WholeHistory {
    /// What decides.
    pub recent: AgedHistory,
    /// What is stored, each level once.
    pub levels: Vec<AgedLevel>,
}

/// What is stored of one level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgedLevel {
    /// Which.
    pub level: Level,
    /// How long before the sending the newest span began: it is over, so at least as long ago as it is long.
    pub newest_age: Duration,
    /// The spans, oldest first.
    pub blocks: Vec<AgedBlock>,
}

/// Spans in a row, packed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgedBlock {
    /// How many spans the first one lies before the newest of its level.
    pub back: u32,
    /// Themselves; `drivers` knows the form.
    pub packed: Vec<u8>,
}

/// Longer ago than this nothing was: a time before a clock's beginning, or ahead.
pub const AGE_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Quarters as bytes, 16 each: eight codes, low byte first, those of the mean before those of the p95. A gap has all bits set.
pub fn to_bytes<'a>(rows: impl IntoIterator<Item = &'a Option<Quarter>>) -> Vec<u8> {
    rows.into_iter()
        .flat_map(|row| row.map_or([u16::MAX; 8], |quarter| quarter.codes().map(Code::bits)))
        .flat_map(u16::to_le_bytes)
        .collect()
}

/// The quarters of these bytes, if they are some.
pub fn from_bytes(bytes: &[u8]) -> Option<Vec<Option<Quarter>>> {
    let (rows, []) = bytes.as_chunks::<16>() else { return None };
    rows.iter().map(row).collect()
}

fn row(bytes: &[u8; 16]) -> Option<Option<Quarter>> {
    let mut codes = [Code::default(); 8];
    if bytes.iter().all(|byte| *byte == u8::MAX) {
        return Some(None);
    }
    for (code, pair) in codes.iter_mut().zip(bytes.as_chunks::<2>().0) {
        *code = Code::from_bits(u16::from_le_bytes(*pair))?;
    }
    Some(Some(Quarter::from_codes(codes)))
}

/// For the log: as bytes, in hexadecimal digits.
pub(crate) mod rows {
    use serde::de::Error as _;
    use serde::{Deserializer, Serializer};

    use super::Quarter;
    use crate::log::form::hex;

    pub(crate) fn serialize<'a, S: Serializer>(
        it: impl IntoIterator<Item = &'a Option<Quarter>>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        hex::serialize(&super::to_bytes(it), to)
    }

    pub(crate) fn deserialize<'de, T: FromIterator<Option<Quarter>>, D: Deserializer<'de>>(
        from: D,
    ) -> Result<T, D::Error> {
        let rows = super::from_bytes(&hex::deserialize(from)?);
        rows.map(|rows| rows.into_iter().collect()).ok_or_else(|| D::Error::custom("not quarters"))
    }
}
