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

use decide::migrate::hypervisor::{
    HypervisorCommand, HypervisorReport, Sighting, VmShare, Witness,
};
use decide::units::{MoveId, VmId};

use tokio::sync::oneshot;

pub use crate::monitor::Told;

/// A hypervisor as the agent uses it.
pub trait Hypervisor: fmt::Debug + Send + Sync {
    /// Queues a command for a VM and returns. What comes of it is heard as [`FromHypervisor::Report`] with the same
    /// move. A VM's queue is limited: what does not fit is dropped with an error in the log, and `Look` tells later.
    fn order(&self, move_id: MoveId, vm: VmId, command: HypervisorCommand);

    /// The VMs that are adopted, in the order of their ids, for the monitor to read.
    fn watched(&self) -> Vec<Watched>;

    /// Changes a VM's tags where its own definition has them, for now and its next start; gives them as they then are. The change is handed
    /// those that stand there.
    ///
    /// Drivers whose definitions are an operator's own files say where they are.
    fn change_tags(&self, vm: VmId, change: TagChange) -> oneshot::Receiver<ChangedTags>;

    /// Has a VM's own definition say who owns it and under which epoch, so that it is found there again, where the driver has a place for that.
    /// What fails is logged and tried again; nobody waits for it. While the VM is in a move nothing is written.
    fn testify(&self, _vm: VmId, _witness: Witness) {}

    /// VMs that are defined on this host and not adopted, in the order of their ids. Of drivers that cannot tell: none.
    fn others(&self) -> Vec<Other> {
        Vec::new()
    }
}

/// What is to become of a VM's tags: from those that it has, or why not.
pub type TagChange = Box<dyn FnOnce(Vec<String>) -> Result<Vec<String>, String> + Send>;

/// The tags as they are now; or why they are as they were, and what to do.
pub type ChangedTags = Result<Vec<String>, TagsError>;

/// A VM's tags were not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TagsError {
    /// What was asked for cannot be: nothing was done.
    #[error("{0}")]
    Wrong(String),
    /// Not now, or not by this driver: nothing was done.
    #[error("{0}")]
    Refused(String),
    /// The hypervisor failed: it may have been done.
    #[error("{0}")]
    Failed(String),
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
