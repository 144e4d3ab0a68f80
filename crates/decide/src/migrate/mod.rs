//! The phases of a move after readiness: copy, switch-over, hand-over, undo, recovery.
//!
//! One machine on each side. They see ids, reports and named timers only, so that a model checker can drive them.

pub mod hypervisor;
pub mod precopy;
pub mod record;
pub mod source;
pub mod target;
