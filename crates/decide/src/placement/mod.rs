//! Which VM, and whether here: pure judgements over figures, with their reasons.

pub mod admission;
pub mod candidates;
pub mod exchange;
pub mod pairs;
pub mod share;
