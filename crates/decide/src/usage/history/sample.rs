//! The ten metrics of a usage history, read once a second.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::units::{BitsPerSec, BytesPerSec, Mib, MibPerSec, MilliCores, PacketsPerSec};

/// Metrics of a sample.
pub const METRICS: usize = 10;

/// What a VM, or a host, used in one second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Sample {
    /// Processor time of its hypervisor process; of a host: of everything on it.
    pub cpu: MilliCores,
    /// Processor time that its vCPUs wanted and did not get; of a host: pressure times cores.
    pub cpu_wait: MilliCores,
    /// Memory in use inside the guest where it tells, else resident in that process; of a host: not available.
    pub memory: Mib,
    /// Packets that it sent.
    pub sent_packets: PacketsPerSec,
    /// Packets that it received.
    pub received_packets: PacketsPerSec,
    /// Bits that it sent.
    pub sent_bits: BitsPerSec,
    /// Bits that it received.
    pub received_bits: BitsPerSec,
    /// Packets that its tap dropped: wanted, not had. Of a host: uplink and taps.
    pub dropped: PacketsPerSec,
    /// Bytes that it read from its disks and wrote to them.
    pub disk: BytesPerSec,
    /// Memory that it writes to; of a host: not told.
    pub dirty: MibPerSec,
}

/// One of the ten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields of `Sample` say what they are")]
pub enum Metric {
    Cpu,
    CpuWait,
    Memory,
    SentPackets,
    ReceivedPackets,
    SentBits,
    ReceivedBits,
    Dropped,
    Disk,
    Dirty,
}

impl Metric {
    /// All of them, in the order of [`Sample::values`].
    pub const ALL: [Metric; METRICS] = [
        Metric::Cpu,
        Metric::CpuWait,
        Metric::Memory,
        Metric::SentPackets,
        Metric::ReceivedPackets,
        Metric::SentBits,
        Metric::ReceivedBits,
        Metric::Dropped,
        Metric::Disk,
        Metric::Dirty,
    ];

    /// Its place in [`Sample::values`].
    pub fn index(self) -> usize {
        self as usize
    }
}

impl Sample {
    /// All packets that were wanted, both directions, had or dropped.
    pub fn packets(&self) -> PacketsPerSec {
        self.sent_packets.plus(self.received_packets).plus(self.dropped)
    }

    /// All bits, both directions.
    pub fn bits(&self) -> BitsPerSec {
        self.sent_bits.plus(self.received_bits)
    }

    /// All processor time that was wanted, had or not: a VM that is starved does not look small.
    pub fn wanted_cpu(&self) -> MilliCores {
        self.cpu.plus(self.cpu_wait)
    }

    /// The metrics as bare numbers, in the units of the fields.
    pub fn values(&self) -> [u64; METRICS] {
        [
            self.cpu.0,
            self.cpu_wait.0,
            self.memory.0,
            self.sent_packets.0,
            self.received_packets.0,
            self.sent_bits.0,
            self.received_bits.0,
            self.dropped.0,
            self.disk.0,
            self.dirty.0,
        ]
    }

    /// The sample of these numbers.
    pub fn of(values: [u64; METRICS]) -> Sample {
        let [cpu, cpu_wait, memory, sent_packets, received_packets, sent_bits, rest @ ..] = values;
        let [received_bits, dropped, disk, dirty] = rest;
        Sample {
            cpu: MilliCores(cpu),
            cpu_wait: MilliCores(cpu_wait),
            memory: Mib(memory),
            sent_packets: PacketsPerSec(sent_packets),
            received_packets: PacketsPerSec(received_packets),
            sent_bits: BitsPerSec(sent_bits),
            received_bits: BitsPerSec(received_bits),
            dropped: PacketsPerSec(dropped),
            disk: BytesPerSec(disk),
            dirty: MibPerSec(dirty),
        }
    }
}

/// A sample and how long ago it was taken: no clock reading crosses the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Aged {
    /// How long before the sending.
    pub age: Duration,
    /// What was used then.
    pub sample: Sample,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_places() {
        let values = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10];
        assert_eq!(Sample::of(values).values(), values);
        for (place, metric) in Metric::ALL.into_iter().enumerate() {
            assert_eq!(metric.index(), place);
        }
    }
}
