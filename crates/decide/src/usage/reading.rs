//! What the monitor reads, raw: counters as the kernel and the hypervisor keep them. Rates are made in `usage`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::units::{Bytes, Mib, MibPerSec, VmId};

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

/// Processor time of a VM's vCPU threads since its process began, in microseconds over all of them. What its other threads
/// use (emulation, migration, I/O) is in the process' time only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VcpuCounters {
    /// How many threads there are: where vCPUs share one, fewer than vCPUs.
    pub threads: u32,
    /// Time in which they ran.
    pub ran_us: u64,
    /// Time in which they wanted to run and waited for a processor (schedstat's run-queue wait).
    pub waited_us: u64,
}

/// Counters of disks since the process, or the host, began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskCounters {
    /// Bytes read.
    pub read: Bytes,
    /// Bytes written.
    pub written: Bytes,
    /// Requests, both ways.
    pub requests: u64,
}

/// Upper bounds of the packet sizes that are told apart, in bytes of the whole frame; a last class holds all above.
pub const PACKET_SIZES: [u32; 7] = [64, 128, 256, 512, 1024, 1518, 9018];

/// What the program at a VM's tap counted since it was put there: frames as they are on the wire, without their checksum,
/// those of a super-packet one by one. Directions are the VM's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameCounters {
    /// Frames that the VM sent.
    pub sent: u64,
    /// Bytes of these.
    pub sent_bytes: Bytes,
    /// Frames that went to it, also those that its tap then dropped.
    pub received: u64,
    /// Bytes of these.
    pub received_bytes: Bytes,
    /// Frames of both directions by size: [`PACKET_SIZES`] and the rest.
    pub sizes: [u64; PACKET_SIZES.len() + 1],
}

/// Where a flow of packets comes from, or goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum End {
    /// A VM on this host.
    Vm(VmId),
    /// All that is no VM on this host; as a sender, the host itself too.
    Outside,
    /// Many at once: broadcast and multicast.
    Many,
}

/// One cell of the traffic matrix: counted since both ends are there. Sender and receiver are known by the interfaces that the
/// frames came in and went out by, which no guest can forge. At least one of them is a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// Who sent.
    pub from: End,
    /// To whom.
    pub to: End,
    /// Frames.
    pub frames: u64,
    /// Bytes of these frames.
    pub bytes: Bytes,
}

/// One VM as read in one cycle.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
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
    /// Its vCPU threads alone, where they can be told apart.
    #[serde(default)]
    pub vcpus: Option<VcpuCounters>,
    /// Memory in use inside the guest, page cache not counted, where its balloon says so.
    #[serde(default)]
    pub guest_memory: Option<Mib>,
    /// Its disks, where it has some and the hypervisor tells.
    #[serde(default)]
    pub disk: Option<DiskCounters>,
    /// How long before this reading its disks were read: a hypervisor is not asked in every cycle.
    #[serde(default)]
    pub disk_age: Duration,
    /// How fast it writes to its memory, as last measured; never measured while it is being moved.
    #[serde(default)]
    pub dirty: Option<MibPerSec>,
    /// What the program at its tap counted, where it may run.
    #[serde(default)]
    pub frames: Option<FrameCounters>,
}

/// The host and all its VMs as read in one cycle.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
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
    /// All disks of the host together, where the kernel tells.
    #[serde(default)]
    pub disk: Option<DiskCounters>,
    /// The traffic matrix, in the order of its ends; absent where the programs at the taps may not run.
    #[serde(default)]
    pub flows: Option<Vec<Flow>>,
    /// The host's VMs, in the order of their ids.
    pub vms: Vec<VmReading>,
}
