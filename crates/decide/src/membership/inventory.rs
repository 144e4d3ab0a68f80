//! The VMs of one host, as it lists them for the others.
//!
//! **Invariant:** two inventories with the same hash list the same VMs in the same states.

use serde::{Deserialize, Serialize};

use crate::units::{Mib, VmId};

/// VMs of one host, as of one instant.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Inventory {
    /// Hash over all VMs there, those left out included: what the host's digest says.
    pub hash: u64,
    /// The VMs, at most `wire::limits::LISTED_MAX`.
    pub vms: Vec<Listed>,
    /// VMs beyond that.
    pub left_out: u32,
    /// What rules may name that host by, besides its name.
    #[serde(default)]
    pub labels: Vec<String>,
}

/// One VM of a host.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Listed {
    /// Which.
    pub vm: VmId,
    /// Its name.
    pub name: String,
    /// The number of its epoch, by that host's journal.
    pub epoch: u64,
    /// What it does there.
    pub state: ListedState,
    /// Memory of the guest at full size.
    pub memory: Mib,
    /// Those of its tags that name its groups. Where a host has very many, its last VMs are listed without.
    #[serde(default)]
    pub tags: Vec<String>,
}

/// What a VM does at the host that lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ListedState {
    /// It is that host's and runs there, a copy to elsewhere under way or not.
    Running,
    /// It is that host's, and an operator has paused it.
    Paused,
    /// It was given to another host; its stopped copy is left.
    Released,
    /// It is that host's, and its only copy is gone.
    Down,
    /// That host does not know: its journal was set back while the VM was being moved.
    Doubtful,
}

impl ListedState {
    /// Its name, for people.
    pub fn name(self) -> &'static str {
        match self {
            ListedState::Running => "running",
            ListedState::Paused => "paused",
            ListedState::Released => "released",
            ListedState::Down => "down",
            ListedState::Doubtful => "doubtful",
        }
    }
}

/// One VM, as it is listed.
pub(crate) type Line<'a> = (VmId, &'a str, u64, ListedState, Mib, Vec<&'a str>);

/// FNV-1a (64 bits, RFC 9923) over all that is listed of a host with these labels and VMs.
pub(crate) fn hash<'a>(labels: &[String], vms: impl Iterator<Item = Line<'a>>) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut take = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    for label in labels {
        take(label.as_bytes());
        take(&[0xff]);
    }
    for (vm, name, epoch, state, memory, tags) in vms {
        take(&vm.0.to_be_bytes());
        take(name.as_bytes());
        // No name has this byte, so no two lists run into each other alike.
        take(&[0xff]);
        take(&epoch.to_be_bytes());
        take(state.name().as_bytes());
        take(&memory.0.to_be_bytes());
        for tag in tags {
            take(tag.as_bytes());
            take(&[0xff]);
        }
    }
    hash
}
