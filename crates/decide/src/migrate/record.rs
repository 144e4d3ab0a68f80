//! What the journal keeps of VMs and moves: enough to say after any crash who owns what, and to settle what was open.
//!
//! **Invariant:** a VM's `floor` never falls.

use serde::{Deserialize, Serialize};

use super::hypervisor::{RunState, VmDefinition};
use crate::units::{HostId, MoveId, VmId};
use crate::wire::message::JournalMark;

/// What one VM is to this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VmRecord {
    /// The highest epoch number that this journal has seen, given away or voided: nothing at or below it is taken.
    pub floor: u64,
    /// The highest epoch number under which the guest ran here; 0: never.
    pub ran: u64,
    /// Who owns it, as far as this host has a part in it.
    pub ownership: Ownership,
}

/// Who owns a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Ownership {
    /// This host, under epoch `floor`. The guest may run here if it ever ran under it, or the move says so.
    Owner,
    /// Given to that host under epoch `floor`: the guest must not run here, its stopped copy may be.
    Released(HostId, MoveId),
    /// Not this host.
    Away,
    /// This host, and its only copy is gone.
    Down,
}

/// A move that is open, as far as this host has a part in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MoveRecord {
    /// The VM.
    pub vm: VmId,
    /// The other host.
    pub peer: HostId,
    /// The VM's epoch number before the move.
    pub epoch: u64,
    /// What the guest did before the move.
    pub run: RunState,
    /// The target's journal when it was ready.
    pub journal: JournalMark,
    /// How far it has come here.
    pub stage: MoveStage,
    /// What the VM is.
    pub definition: Option<VmDefinition>,
    /// It was found in a journal that had been set back: what happened since is not known, so only a person ends it.
    pub doubtful: bool,
}

/// How far a move has come on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum MoveStage {
    /// Source: a copy may be under way; nothing was promised.
    Copying,
    /// Source: released; the target owns it once it has heard so.
    HandingOver,
    /// Source: taken back under a new epoch; the guest may not have been resumed yet.
    TakingBack,
    /// Target: an incoming side may be there.
    Prepared,
    /// Target: the owner; the guest may not have been resumed yet.
    Owning,
    /// Target: promised never to own it under this move; an incoming side may still be there.
    Voiding,
}

/// One thing to be written. What is written together is on disk together, or not at all.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::large_enum_variant, reason = "there are two of them at a time")]
pub enum Record {
    /// What a VM is to this host.
    Vm(VmId, VmRecord),
    /// An open move; absent: it is over.
    Move(MoveId, Option<MoveRecord>),
}
