//! Drivers of hypervisors: orders in, reports and sightings out.
//!
//! The words are those of `decide::migrate::hypervisor`. A driver queues each order and returns at once; what comes of
//! it is heard through one channel.
//!
//! **Invariant:** orders for one VM are carried out one after the other, in the order given.
//! **Invariant:** a VM that hangs delays no other.

#[cfg(feature = "qemu")]
mod handshake;
#[cfg(feature = "libvirt")]
pub mod libvirt;
#[cfg(feature = "qemu")]
mod private;
#[cfg(feature = "qemu")]
mod process;
#[cfg(feature = "qemu")]
pub mod qemu;
#[cfg(feature = "qemu")]
mod tap;

use std::fmt;

use decide::migrate::hypervisor::{HypervisorCommand, HypervisorReport, Sighting, VmShare};
use decide::units::{MoveId, VmId};

pub use crate::monitor::Told;

/// A hypervisor as the agent uses it.
pub trait Hypervisor: fmt::Debug + Send + Sync {
    /// Queues a command for a VM and returns. What comes of it is heard as [`FromHypervisor::Report`] with the same
    /// move. A VM's queue is limited: what does not fit is dropped with an error in the log, and `Look` tells later.
    fn order(&self, move_id: MoveId, vm: VmId, command: HypervisorCommand);

    /// The VMs that are adopted, in the order of their ids, for the monitor to read.
    fn watched(&self) -> Vec<Watched>;

    /// VMs that are defined on this host and not adopted, in the order of their ids. Of drivers that cannot tell: none.
    fn others(&self) -> Vec<Other> {
        Vec::new()
    }
}

/// A VM that is defined on a host and not adopted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Other {
    /// Which.
    pub vm: VmId,
    /// Its name, or its id where its definition cannot be read.
    pub name: String,
    /// Whether its hypervisor runs all the same.
    pub runs: bool,
}

/// Heard from a hypervisor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromHypervisor {
    /// About a VM in a move.
    Report(MoveId, VmId, HypervisorReport),
    /// About a VM outside of any move.
    Sighting(Sighting),
}

/// Where the monitor finds the figures of one VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// Its UUID.
    pub vm: VmId,
    /// Its name.
    pub name: String,
    /// Its hypervisor process.
    pub pid: u32,
    /// When that process began, in clock ticks since boot: a reused pid has another.
    pub process_start: u64,
    /// Its tap, where it has one.
    pub tap: Option<String>,
    /// What the hypervisor tells of it; asked for now and then.
    pub told: Told,
    /// The share of this host that it was given, where it was.
    pub share: Option<GivenShare>,
}

/// A share, as far as it could be given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenShare {
    /// What was asked for.
    pub share: VmShare,
    /// What of it could not be done, and why.
    pub trouble: Option<String>,
}
