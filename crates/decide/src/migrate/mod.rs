//! The phases of a move after readiness: copy, switch-over, hand-over, undo, recovery.
//!
//! One machine on each side. They see ids, reports and named timers only, so that a model checker can drive them.

use serde::{Deserialize, Serialize};

/// What a person decides of a move that cannot be settled without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Resolution {
    /// This host owns the VM: its copy here may run. Only right if none runs, or ever will, on the other side.
    KeepHere,
    /// This host does not own the VM, and its stopped copy here may go.
    GiveUp,
}

pub mod convergence;
pub mod hypervisor;
pub mod precopy;
pub mod record;
pub mod source;
pub mod target;

/// The alarm of either side about a move that was open in a journal that had been set back.
fn in_doubt(stage: record::MoveStage, seen: hypervisor::Seen) -> String {
    format!(
        "the journal was set back while this move was open ({stage:?}); found {seen:?} here; nothing is done until it is resolved"
    )
}
