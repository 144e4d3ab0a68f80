//! A usage history, from the protobuf form to the meaning and back.

use std::time::Duration;

use super::convert::{Result, id_in, id_out, micros, need};
use super::error::BadMessage;
use super::{limits, proto};
use crate::units::{BitsPerSec, BytesPerSec, HostId, Mib, MibPerSec, MilliCores, PacketsPerSec};
use crate::usage::history::aged::{AgedHistory, from_bytes, to_bytes};
use crate::usage::history::past::AgedStay;
use crate::usage::history::quarters::AgedQuarters;
use crate::usage::history::{Aged, Sample};

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
