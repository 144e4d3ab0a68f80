//! Every decision that Evenkeel makes, and nothing else: no I/O, no clock, no randomness but the seed given.
//!
//! **Invariant:** the same seed and the same events give the same actions, bit for bit.

pub mod host;
pub mod log;
pub mod membership;
pub mod migrate;
pub mod negotiate;
pub mod placement;
pub mod planted;
pub mod policy;
pub mod units;
pub mod usage;
pub mod wire;
