//! Faults on real moves: in each phase of a move something breaks, and what becomes of the VM is held against a table.
//!
//! ```text
//!   move ─▶ agent stops itself at the phase ─▶ the phase is read from disk ─▶ fault ─▶ agent goes on
//!        ─▶ what becomes of the VM while the fault lasts ─▶ the fault ends ─▶ what becomes of it in the end
//! ```
//!
//! A move is held in a phase by state, not by time: the agent is told by a file to stop itself at a step (see the
//! agent's `hold`); a copy under way is held by a slow link. What must come of each case stands in [`table`], in code;
//! a case is right only if it came so. All is looked at past the agents: processes, QEMU's own word, heartbeats.
//!
//! **Invariant:** a case that cannot be is named with its reason; none is left out silently.

mod bed;
mod case;
mod domains;
mod journals;
mod look;
mod phase;
mod row;
pub mod table;

pub use self::bed::Bed;
pub use self::case::{Case, Driver, Fault, Outcome, Phase, State};
