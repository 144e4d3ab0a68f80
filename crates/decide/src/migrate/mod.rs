//! The phases of a move after readiness: copy, switch-over, hand-over, undo, recovery.

pub mod hypervisor;
