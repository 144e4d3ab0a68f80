//! How long a pre-copy may take.

use std::time::Duration;

use crate::units::{BitsPerSec, Mib};

/// The longest that a copy of `memory` over `bandwidth` may take before it is abandoned: four times the time of one full
/// round (a guest that dirties three quarters of what the link carries converges in that), plus half a minute.
pub fn longest(memory: Mib, bandwidth: BitsPerSec) -> Duration {
    let bits = memory.0.saturating_mul(8 << 20);
    let round = Duration::from_secs(bits / bandwidth.0.max(1));
    round.saturating_mul(4).saturating_add(Duration::from_secs(30))
}
