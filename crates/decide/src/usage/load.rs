//! What VMs ask of a host, and what a host has to give, in absolute units: they cross the wire between unequal hosts.

use serde::{Deserialize, Serialize};

use super::forecast::differs;
use crate::units::{BitsPerSec, Mib, MilliCores, PacketsPerSec};

/// Demand for the resources of a host: use plus what was wanted and not had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Load {
    /// Processor time.
    pub cpu: MilliCores,
    /// Memory, guests at full size.
    pub memory: Mib,
    /// Traffic, both directions together.
    pub bits: BitsPerSec,
    /// Packets, both directions together.
    pub packets: PacketsPerSec,
}

impl Load {
    /// Both loads on one host.
    pub fn plus(self, more: Load) -> Load {
        Load {
            cpu: self.cpu.plus(more.cpu),
            memory: self.memory.plus(more.memory),
            bits: self.bits.plus(more.bits),
            packets: self.packets.plus(more.packets),
        }
    }

    /// What stays when `less` leaves; no resource falls below zero.
    pub fn minus(self, less: Load) -> Load {
        Load {
            cpu: self.cpu.minus(less.cpu),
            memory: self.memory.minus(less.memory),
            bits: self.bits.minus(less.bits),
            packets: self.packets.minus(less.packets),
        }
    }

    /// One of `n` equal parts.
    pub fn divided(self, n: u64) -> Load {
        let n = n.max(1);
        Load {
            cpu: MilliCores(self.cpu.0 / n),
            memory: Mib(self.memory.0 / n),
            bits: BitsPerSec(self.bits.0 / n),
            packets: PacketsPerSec(self.packets.0 / n),
        }
    }

    /// The higher of the two, resource by resource, where what is foreseen [`differs`] from what is asked.
    pub fn at_least(self, foreseen: Load) -> Load {
        let more = |now: u64, next: u64| if differs(next, now) { now.max(next) } else { now };
        Load {
            cpu: MilliCores(more(self.cpu.0, foreseen.cpu.0)),
            memory: Mib(more(self.memory.0, foreseen.memory.0)),
            bits: BitsPerSec(more(self.bits.0, foreseen.bits.0)),
            packets: PacketsPerSec(more(self.packets.0, foreseen.packets.0)),
        }
    }

    /// The higher of the two, resource by resource.
    pub fn highest(self, other: Load) -> Load {
        Load {
            cpu: self.cpu.max(other.cpu),
            memory: self.memory.max(other.memory),
            bits: self.bits.max(other.bits),
            packets: self.packets.max(other.packets),
        }
    }
}

/// What a host has to give.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Capacity {
    /// All its cores.
    pub cpu: MilliCores,
    /// All its memory.
    pub memory: Mib,
    /// Speed of its uplink, both directions together, where known.
    pub bits: Option<BitsPerSec>,
    /// Packets that its network card can take, where the operator says so.
    pub packets: Option<PacketsPerSec>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_foreseen_counts_where_it_is_more_by_over_a_fiftieth() {
        let cpu =
            |cpu| Load { cpu: MilliCores(cpu), packets: PacketsPerSec(10), ..Load::default() };
        let raised = [990, 1020, 1021].map(|foreseen| cpu(1000).at_least(cpu(foreseen)));
        assert_eq!(raised, [cpu(1000), cpu(1000), cpu(1021)]);
    }
}
