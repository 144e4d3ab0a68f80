//! Quantities and names, each a type of its own, so that two of different meaning cannot be mixed.

use std::fmt;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An instant of the agent's own monotonic clock, in microseconds since an arbitrary start.
/// It never crosses the wire: only durations do.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Time(pub u64);

impl Time {
    /// The instant `after` later; stops at the end of the clock instead of wrapping.
    pub fn plus(self, after: Duration) -> Time {
        Time(self.0.saturating_add(u64::try_from(after.as_micros()).unwrap_or(u64::MAX)))
    }

    /// The instant `before` earlier; stops at the start of the clock instead of wrapping.
    pub fn minus(self, before: Duration) -> Time {
        Time(self.0.saturating_sub(u64::try_from(before.as_micros()).unwrap_or(u64::MAX)))
    }

    /// Time passed since `earlier`; zero if `earlier` lies ahead.
    pub fn since(self, earlier: Time) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

macro_rules! quantity {
    ($(#[$doc:meta])* $name:ident, $unit:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The sum; stops at the greatest value instead of wrapping.
            pub fn plus(self, more: $name) -> $name { $name(self.0.saturating_add(more.0)) }
            /// The difference; zero where it would be negative.
            pub fn minus(self, less: $name) -> $name { $name(self.0.saturating_sub(less.0)) }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { write!(f, concat!("{} ", $unit), self.0) }
        }
    };
}

quantity!(/// Memory in mebibytes.
    Mib, "MiB");
quantity!(/// Processor time per second, in thousandths of one core.
    MilliCores, "mcores");
quantity!(/// Bits per second on a link, both directions together unless said otherwise.
    BitsPerSec, "bit/s");
quantity!(/// Packets per second on a link, both directions together unless said otherwise.
    PacketsPerSec, "packets/s");
quantity!(/// Bytes.
    Bytes, "bytes");
quantity!(/// Bytes per second read from and written to disks.
    BytesPerSec, "bytes/s");
quantity!(/// Memory that a guest writes to, in mebibytes per second: what a copy must send again.
    MibPerSec, "MiB/s");

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u128);

        impl fmt::Display for $name {
            /// The form of a UUID, in lower case.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let v = self.0;
                write!(
                    f,
                    "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
                    v >> 96,
                    (v >> 80) & 0xffff,
                    (v >> 64) & 0xffff,
                    (v >> 48) & 0xffff,
                    v & 0xffff_ffff_ffff
                )
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl std::str::FromStr for $name {
            type Err = NotAnId;

            fn from_str(text: &str) -> Result<Self, NotAnId> {
                let bad = || NotAnId(text.to_owned());
                let dashes: Vec<usize> = text.match_indices('-').map(|(i, _)| i).collect();
                if text.len() != 36 || dashes != [8, 13, 18, 23] {
                    return Err(bad());
                }
                let digits: String = text.chars().filter(|c| *c != '-').collect();
                u128::from_str_radix(&digits, 16).map($name).map_err(|_not_hex| bad())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                String::deserialize(from)?.parse().map_err(D::Error::custom)
            }
        }
    };
}

id!(/// A host: derived from its machine-id, so that it outlives the agent.
    HostId);
id!(/// A VM: the UUID that its hypervisor knows it by.
    VmId);
id!(/// One journal: drawn anew whenever an agent starts without one.
    JournalId);

/// The text is not an id.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not a UUID (8-4-4-4-12 hexadecimal digits)")]
pub struct NotAnId(String);

/// One story from request to end: unique for ever, since `incarnation` grows at each start of the source's agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MoveId {
    /// The source.
    pub host: HostId,
    /// How often the source's agent had started with its journal, this time included.
    pub incarnation: u32,
    /// Counts the moves of that incarnation from 1.
    pub counter: u32,
}

impl fmt::Display for MoveId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}.{}.{}", self.host.0 >> 96, self.incarnation, self.counter)
    }
}

impl Serialize for MoveId {
    /// With the whole id of the host, unlike what people read.
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{}.{}.{}", self.host, self.incarnation, self.counter))
    }
}

impl<'de> Deserialize<'de> for MoveId {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let parts: Vec<&str> = text.split('.').collect();
        let read = || match parts[..] {
            [host, incarnation, counter] => Some(MoveId {
                host: host.parse().ok()?,
                incarnation: incarnation.parse().ok()?,
                counter: counter.parse().ok()?,
            }),
            _ => None,
        };
        read().ok_or_else(|| D::Error::custom(format!("{text:?} is not the id of a move")))
    }
}

/// How often ownership of a VM has passed, and to whom last. It only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch {
    /// Raised by one at each hand-over.
    pub number: u64,
    /// The owner.
    pub owner: HostId,
}

impl Epoch {
    /// The epoch that a hand-over to `owner` would begin.
    pub fn next(self, owner: HostId) -> Epoch {
        Epoch { number: self.number + 1, owner }
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{:08x}", self.number, self.owner.0 >> 96)
    }
}

/// What a load costs a host, or a move is worth, in millionths of one percent of pressure (see `policy::cost`).
/// Integer, so that every host and every build orders two costs alike.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Cost(pub i64);

impl Cost {
    /// The cost of `percent` of pressure.
    pub const fn percent(percent: i64) -> Cost {
        Cost(percent * 1_000_000)
    }
    /// The sum; stops at the ends instead of wrapping.
    pub fn plus(self, more: Cost) -> Cost {
        Cost(self.0.saturating_add(more.0))
    }
    /// The difference; stops at the ends instead of wrapping.
    pub fn minus(self, less: Cost) -> Cost {
        Cost(self.0.saturating_sub(less.0))
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let thousandths = (self.0.unsigned_abs() + 500) / 1_000;
        write!(f, "{sign}{}.{:02} %", thousandths / 1_000, thousandths % 1_000 / 10)
    }
}

/// A number's place among all numbers: the lowest comes first. An integer, so that it can be hashed, and ordered by any
/// machine alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rank(pub i64);

impl Rank {
    /// After all numbers.
    pub const LAST: Rank = Rank(i64::MAX);

    /// The place of a number that is finite.
    pub fn of(number: f64) -> Rank {
        // Both zeros are one. The bits of IEEE 754 are ordered by magnitude: those of negative ones are turned round.
        let bits = (number + 0.0).to_bits().cast_signed();
        Rank(if bits < 0 { bits ^ i64::MAX } else { bits })
    }

    /// The place of a cost among costs.
    pub fn by_cost(cost: Cost) -> Rank {
        Rank(cost.0)
    }
}

/// A share of a whole, in thousandths: `Share(800)` is 80 %.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Share(pub u32);

impl Share {
    /// The share as a fraction of one.
    pub fn fraction(self) -> f64 {
        f64::from(self.0) / 1000.0
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(10) {
            write!(f, "{} %", self.0 / 10)
        } else {
            write!(f, "{}.{} %", self.0 / 10, self.0 % 10)
        }
    }
}
