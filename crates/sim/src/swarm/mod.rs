//! Seeds by the thousand: each is a cluster of its own that suffers faults, heals, and must be whole again.
//!
//! ```text
//!   hosts start ─▶ faults: moves by hand, hot spots, everything that goes wrong ─▶ healed: hot spots ─▶ whole
//!                  ──────────────── safety is checked all the time ─────────────────── liveness at the end
//! ```

mod life;
mod report;
mod rules;
mod scenario;
mod threads;

pub use life::{Life, Options, live};
pub use report::{Report, replay};
pub use threads::{Until, swarm};
