//! How long a pre-copy may take, and how long one is foreseen to take.

use std::time::Duration;

use super::hypervisor::CopyParameters;
use crate::units::{BitsPerSec, Mib, MibPerSec};

/// The longest that a copy of `memory` over `bandwidth` may take before it is abandoned: four times the time of one full
/// round (a guest that dirties three quarters of what the link carries converges in that), plus half a minute.
pub fn longest(memory: Mib, bandwidth: BitsPerSec) -> Duration {
    let bits = memory.0.saturating_mul(8 << 20);
    let round = Duration::from_secs(bits / bandwidth.0.max(1));
    round.saturating_mul(4).saturating_add(Duration::from_secs(30))
}

/// What a copy is foreseen to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Foreseen {
    /// From its first byte to its last.
    pub copy: Duration,
    /// Its last round, for which the guest stands still; the hand-over, some tens of milliseconds, comes on top. Absent: not
    /// known, since nobody has measured how fast the guest writes.
    pub pause: Option<Duration>,
}

/// What a copy of `memory` takes, of a guest that writes to it at an even rate (after Clark et al., "Live Migration of Virtual
/// Machines", NSDI 2005): each round sends what was written during the one before, until what is left fits into the pause that
/// is allowed. Empty pages, which cost next to nothing, are not known and count as full: this is the most that it takes. Absent:
/// it would not end before it is abandoned.
pub fn foreseen(
    memory: Mib,
    dirty: Option<MibPerSec>,
    parameters: CopyParameters,
) -> Option<Foreseen> {
    let bandwidth = u128::from(parameters.bandwidth.0.max(1));
    let takes = |bits: u128| {
        let micros = bits.saturating_mul(1_000_000) / bandwidth;
        Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    };
    let bits = |mib: u64| u128::from(mib) * (8 << 20);
    let all = bits(memory.0);
    let Some(dirty) = dirty else { return Some(Foreseen { copy: takes(all), pause: None }) };
    let (mut left, mut copy) = (all, Duration::ZERO);
    loop {
        let round = takes(left);
        copy = copy.saturating_add(round);
        if copy > longest(memory, parameters.bandwidth) {
            return None;
        }
        if round <= parameters.downtime_max {
            return Some(Foreseen { copy, pause: Some(round) });
        }
        let written = bits(dirty.0).saturating_mul(round.as_micros()) / 1_000_000;
        left = written.min(all);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(memory: u64, dirty: Option<u64>) -> Option<(u128, Option<u128>)> {
        let parameters = CopyParameters {
            bandwidth: BitsPerSec(800 << 20), // 100 MiB/s
            downtime_max: Duration::from_millis(100),
            multifd: false,
            encrypted: false,
        };
        let foreseen = foreseen(Mib(memory), dirty.map(MibPerSec), parameters)?;
        Some((foreseen.copy.as_millis(), foreseen.pause.map(|pause| pause.as_millis())))
    }

    #[test]
    fn a_guest_that_writes_nothing_takes_one_round_and_one_that_writes_takes_more() {
        assert_eq!(of(1000, Some(0)), Some((10_000, Some(0))));
        // 10 s + 2 s + 400 ms, then 80 ms at rest.
        assert_eq!(of(1000, Some(20)), Some((12_480, Some(80))));
        assert_eq!(of(8, Some(20)), Some((80, Some(80))), "it fits into the pause as it is");
    }

    #[test]
    fn a_copy_that_never_ends_is_foreseen() {
        assert_eq!(of(1000, Some(100)), None, "as fast as the link");
        assert_eq!(of(1000, Some(u64::MAX)), None);
        assert!(of(1000, Some(75)).is_some_and(|(copy, _)| copy > 38_000));
    }

    #[test]
    fn no_pause_is_foreseen_for_a_guest_whose_writing_nobody_has_measured() {
        assert_eq!(of(1000, None), Some((10_000, None)));
    }
}
