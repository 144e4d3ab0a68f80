//! What the monitor reads, raw: counters as the kernel and the hypervisor keep them. Rates are made in `usage`.

use serde::{Deserialize, Serialize};

use crate::units::{Bytes, Mib, VmId};

/// Counters of one link since it came up. Directions are the *VM's*: what a tap receives, its VM has sent.
/// For an uplink they are the host's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkCounters {
    /// The kernel's number of the interface: another number is another link, whose counters began at zero.
    pub ifindex: u32,
    /// Packets that the VM (or host) sent.
    pub sent_packets: u64,
    /// Bytes that it sent.
    pub sent_bytes: Bytes,
    /// Packets that it received.
    pub received_packets: u64,
    /// Bytes that it received.
    pub received_bytes: Bytes,
    /// Packets meant for it, or from it, that the link dropped.
    pub dropped: u64,
}

/// Share of time in which some task waited, 10-second average of the kernel's pressure stall information.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Pressure {
    /// Waiting for a processor: 0 to 1.
    #[serde(with = "crate::log::form::bits")]
    pub cpu: f64,
    /// Waiting for memory: 0 to 1.
    #[serde(with = "crate::log::form::bits")]
    pub memory: f64,
    /// Waiting for a disk: 0 to 1.
    #[serde(with = "crate::log::form::bits")]
    pub io: f64,
}

/// One VM as read in one cycle.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VmReading {
    /// Whose reading.
    pub vm: VmId,
    /// Its tap, absent while the link is not there.
    pub link: Option<LinkCounters>,
    /// Processor time used by its hypervisor process since that process began, in microseconds.
    pub cpu_us: u64,
    /// Start time of that process in clock ticks since boot: another start is another process, whose time began at zero.
    pub process_start: u64,
    /// Memory resident in its hypervisor process.
    pub memory: Mib,
}

/// The host and all its VMs as read in one cycle.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// Processor time used by everything on the host since boot, in microseconds over all cores.
    pub cpu_us: u64,
    /// Cores that are on line.
    pub cores: u32,
    /// All memory of the host.
    pub memory_total: Mib,
    /// Memory that could be had without swapping; page cache counts as available.
    pub memory_available: Mib,
    /// The kernel's pressure figures, where it has them.
    pub pressure: Option<Pressure>,
    /// The host's uplink, absent while the link is not there.
    pub uplink: Option<LinkCounters>,
    /// Speed of the uplink, where its driver tells.
    pub uplink_speed: Option<crate::units::BitsPerSec>,
    /// The host's VMs, in the order of their ids.
    pub vms: Vec<VmReading>,
}
