//! A usage history, from the protobuf form to the meaning and back.
//!
//! **Invariant:** before anything is unpacked it is known how many parts it has: a few bytes cannot claim much memory.

use std::time::Duration;

use prost::Message as _;

use super::convert::{Result, id_in, id_out, micros, need};
use super::error::BadMessage;
use super::{limits, proto};
use crate::units::{BitsPerSec, BytesPerSec, HostId, Mib, MibPerSec, MilliCores, PacketsPerSec};
use crate::usage::history::aged::{
    AgedBlock, AgedHistory, AgedLevel, WholeHistory, from_bytes, to_bytes,
};
use crate::usage::history::levels::Level;
use crate::usage::history::past::{AgedStay, PAST_MAX};
use crate::usage::history::quarters::AgedQuarters;
use crate::usage::history::{Aged, SAMPLES_MAX, Sample};

/// The bytes of what decides.
pub(super) fn encode(history: &AgedHistory) -> Vec<u8> {
    proto::History::from(history).encode_to_vec()
}

/// What decides, of these bytes.
pub(super) fn decode(bytes: &[u8]) -> Result<AgedHistory> {
    count(bytes, &[(1, "history.samples", SAMPLES_MAX), (3, "history.past", PAST_MAX)])?;
    proto::History::decode(bytes).map_err(BadMessage::Garbled)?.try_into()
}

/// The bytes of all of a history.
pub(super) fn encode_whole(whole: &WholeHistory) -> Vec<u8> {
    let levels = whole.levels.iter().map(|level| proto::StoredLevel {
        span_seconds: u32::try_from(level.level.span().as_secs()).expect("minutes"),
        newest_age_us: Some(micros(level.newest_age)),
        blocks: level.blocks.iter().map(Into::into).collect(),
    });
    let whole = proto::WholeHistory { recent: encode(&whole.recent), levels: levels.collect() };
    whole.encode_to_vec()
}

/// All of a history, of these bytes. What is packed in its blocks is not looked at.
pub(super) fn decode_whole(bytes: &[u8]) -> Result<WholeHistory> {
    limits::at_most("history.length", bytes.len(), limits::WHOLE_MAX)?;
    count(bytes, &[(2, "history.levels", Level::ALL.len())])?;
    for recent in parts(bytes, 1) {
        limits::at_most("history.recent", recent.len(), limits::MESSAGE_MAX)?;
    }
    for level in parts(bytes, 2) {
        count(level, &[(3, "history.levels.blocks", limits::BLOCKS_MAX)])?;
    }
    let whole = proto::WholeHistory::decode(bytes).map_err(BadMessage::Garbled)?;
    let recent = decode(&whole.recent)?;
    limits::check_history(&recent)?;
    let levels = whole.levels.into_iter().map(TryInto::try_into).collect::<Result<_>>()?;
    Ok(WholeHistory { recent, levels })
}

/// One field of a message: its number, and its bytes if it has a length.
fn field<'a>(rest: &mut &'a [u8]) -> Option<(usize, &'a [u8])> {
    let mut number = || prost::decode_length_delimiter(&mut *rest).ok();
    let key = number()?;
    let length = match key % 8 {
        0 => number().map(|_value| 0)?,
        1 => 8,
        2 => number()?,
        5 => 4,
        _ => return None,
    };
    let (bytes, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some((key / 8, bytes))
}

/// The parts of this number in a message whose fields can be told apart.
fn parts(mut rest: &[u8], wanted: usize) -> impl Iterator<Item = &[u8]> {
    let fields = std::iter::from_fn(move || field(&mut rest));
    fields.filter(move |(number, _)| *number == wanted).map(|(_, bytes)| bytes)
}

/// Whether a message has no more of these fields than it may.
fn count(mut rest: &[u8], limits: &[(usize, &'static str, usize)]) -> Result<()> {
    let mut counts = vec![0; limits.len()];
    while !rest.is_empty() {
        let (number, _) = field(&mut rest).ok_or(BadMessage::Malformed("history"))?;
        for (count, limit) in counts.iter_mut().zip(limits) {
            *count += usize::from(limit.0 == number);
        }
    }
    limits
        .iter()
        .zip(counts)
        .try_for_each(|(limit, count)| limits::at_most(limit.1, count, limit.2))
}

impl From<&AgedBlock> for proto::StoredBlock {
    fn from(it: &AgedBlock) -> Self {
        proto::StoredBlock { back: it.back, packed: it.packed.clone() }
    }
}

impl TryFrom<proto::StoredLevel> for AgedLevel {
    type Error = BadMessage;

    fn try_from(it: proto::StoredLevel) -> Result<Self> {
        let spans = |level: &Level| level.span().as_secs() == u64::from(it.span_seconds);
        let level = Level::ALL.into_iter().find(spans);
        let newest_age = need(it.newest_age_us, "history.levels.newest_age_us")?;
        let block = |it: proto::StoredBlock| AgedBlock { back: it.back, packed: it.packed };
        Ok(AgedLevel {
            level: level.ok_or(BadMessage::Malformed("history.levels.span_seconds"))?,
            newest_age: Duration::from_micros(newest_age),
            blocks: it.blocks.into_iter().map(block).collect(),
        })
    }
}

impl From<&AgedHistory> for proto::History {
    fn from(it: &AgedHistory) -> Self {
        proto::History {
            samples: it.samples.iter().map(Into::into).collect(),
            quarters: (!it.quarters.rows.is_empty()).then(|| (&it.quarters).into()),
            past: it.past.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<proto::History> for AgedHistory {
    type Error = BadMessage;

    fn try_from(it: proto::History) -> Result<Self> {
        Ok(AgedHistory {
            samples: it.samples.into_iter().map(Into::into).collect(),
            quarters: it.quarters.map(TryInto::try_into).transpose()?.unwrap_or_default(),
            past: it.past.into_iter().map(TryInto::try_into).collect::<Result<_>>()?,
        })
    }
}

impl From<&AgedQuarters> for proto::Quarters {
    fn from(it: &AgedQuarters) -> Self {
        proto::Quarters { newest_age_us: Some(micros(it.newest_age)), rows: to_bytes(&it.rows) }
    }
}

impl TryFrom<proto::Quarters> for AgedQuarters {
    type Error = BadMessage;

    fn try_from(it: proto::Quarters) -> Result<Self> {
        let newest_age = need(it.newest_age_us, "history.quarters.newest_age_us")?;
        // Before they are unpacked.
        limits::check_quarters(it.rows.len() / 16)?;
        let rows = from_bytes(&it.rows).ok_or(BadMessage::Malformed("history.quarters.rows"))?;
        if rows.is_empty() {
            // Nothing has no age, or two histories with the same in them would differ.
            return Ok(AgedQuarters::default());
        }
        Ok(AgedQuarters { newest_age: Duration::from_micros(newest_age), rows })
    }
}

impl From<&AgedStay> for proto::Stay {
    fn from(it: &AgedStay) -> Self {
        proto::Stay {
            age_us: micros(it.age),
            host: id_out(it.host.0),
            name: limits::cut(&it.name, limits::NAME_MAX).to_owned(),
            move_id: Some(it.move_id.into()),
        }
    }
}

impl TryFrom<proto::Stay> for AgedStay {
    type Error = BadMessage;

    fn try_from(it: proto::Stay) -> Result<Self> {
        Ok(AgedStay {
            age: Duration::from_micros(it.age_us),
            host: HostId(id_in(&it.host, "history.past.host")?),
            name: it.name,
            move_id: need(it.move_id, "history.past.move_id")?.try_into()?,
        })
    }
}

impl From<&Aged> for proto::Aged {
    fn from(it: &Aged) -> Self {
        proto::Aged {
            age_us: micros(it.age),
            cpu_millicores: it.sample.cpu.0,
            memory_mib: it.sample.memory.0,
            sent_packets_per_second: it.sample.sent_packets.0,
            received_packets_per_second: it.sample.received_packets.0,
            sent_bits_per_second: it.sample.sent_bits.0,
            received_bits_per_second: it.sample.received_bits.0,
            dropped_packets_per_second: it.sample.dropped.0,
            cpu_wait_millicores: it.sample.cpu_wait.0,
            disk_bytes_per_second: it.sample.disk.0,
            dirty_mib_per_second: it.sample.dirty.0,
        }
    }
}

impl From<proto::Aged> for Aged {
    fn from(it: proto::Aged) -> Self {
        Aged {
            age: Duration::from_micros(it.age_us),
            sample: Sample {
                cpu: MilliCores(it.cpu_millicores),
                memory: Mib(it.memory_mib),
                sent_packets: PacketsPerSec(it.sent_packets_per_second),
                received_packets: PacketsPerSec(it.received_packets_per_second),
                sent_bits: BitsPerSec(it.sent_bits_per_second),
                received_bits: BitsPerSec(it.received_bits_per_second),
                dropped: PacketsPerSec(it.dropped_packets_per_second),
                cpu_wait: MilliCores(it.cpu_wait_millicores),
                disk: BytesPerSec(it.disk_bytes_per_second),
                dirty: MibPerSec(it.dirty_mib_per_second),
            },
        }
    }
}
