//! How long a pre-copy may take, and how long one is foreseen to take.

use std::time::Duration;

use super::convergence::Convergence;
use super::hypervisor::{CopyParameters, CopyProgress};
use crate::units::{BitsPerSec, Bytes, Mib, MibPerSec};

/// The longest that a copy of `memory`, and of disks that go along, over `bandwidth` may take before it is abandoned: four times the time of one full
/// round (a guest that dirties three quarters of what the link carries converges in that), plus half a minute.
pub fn longest(memory: Mib, bandwidth: BitsPerSec) -> Duration {
    let bits = memory.0.saturating_mul(8 << 20);
    let round = Duration::from_secs(bits / bandwidth.0.max(1));
    round.saturating_mul(4).saturating_add(Duration::from_secs(30))
}

/// The longest that a copy so made may take: a guest that is slowed down is so step by step, over many rounds, and gets twice as long.
/// Its target waits twice as long as for any other, and a minute more.
pub fn allowed(memory: Mib, copy: CopyParameters) -> Duration {
    longest(memory, copy.bandwidth).saturating_mul(if copy.auto_converge { 2 } else { 1 })
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
/// is allowed. Disks that go along are sent before the first. Empty pages, which cost next to nothing, are not known and count as full: this is the most that it takes. Absent:
/// it would not end before it is abandoned. Where rounds stall, the pause grows up to `pause_max`; with auto-converge a guest that still
/// writes too much is slowed down (by QEMU to a hundredth at most), which is foreseen as if it were so from the beginning, by the first half, quarter … that
/// suffices: such a copy takes longer than is said, since QEMU slows a guest down step by step.
pub fn foreseen(
    memory: Mib,
    disks: Mib,
    dirty: Option<MibPerSec>,
    parameters: CopyParameters,
    pause_max: Duration,
) -> Option<Foreseen> {
    let halvings = if parameters.auto_converge { 7 } else { 0 };
    (0..=halvings).find_map(|halvings| {
        let dirty = dirty.map(|dirty| MibPerSec(dirty.0 >> halvings));
        at_rate((memory, disks), dirty, parameters, pause_max)
    })
}

fn at_rate(
    (memory, disks): (Mib, Mib),
    dirty: Option<MibPerSec>,
    parameters: CopyParameters,
    pause_max: Duration,
) -> Option<Foreseen> {
    let bandwidth = u128::from(parameters.bandwidth.0.max(1));
    let takes = |bits: u128| {
        let micros = bits.saturating_mul(1_000_000) / bandwidth;
        Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    };
    let bits = |mib: u64| u128::from(mib) * (8 << 20);
    let all = bits(memory.0);
    let before = takes(bits(disks.0));
    let Some(dirty) = dirty else {
        return Some(Foreseen { copy: before.saturating_add(takes(all)), pause: None });
    };
    let (mut left, mut copy) = (all, before);
    let mut rounds = Convergence::new(parameters.downtime_max, pause_max, parameters.auto_converge);
    for number in 1.. {
        let round = takes(left);
        let remaining = Bytes(u64::try_from(left / 8).unwrap_or(u64::MAX));
        rounds.heard(CopyProgress { rounds: number, remaining, ..CopyProgress::default() });
        copy = copy.saturating_add(round);
        if copy > allowed(memory.plus(disks), parameters) {
            return None;
        }
        if round <= rounds.allowed() {
            return Some(Foreseen { copy, pause: Some(round) });
        }
        let written = bits(dirty.0).saturating_mul(round.as_micros()) / 1_000_000;
        left = written.min(all);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(memory: u64, dirty: Option<u64>) -> Option<(u128, Option<u128>)> {
        with(memory, dirty, 100, false)
    }

    fn with(
        memory: u64,
        dirty: Option<u64>,
        pause_max: u64,
        auto_converge: bool,
    ) -> Option<(u128, Option<u128>)> {
        let parameters = CopyParameters {
            bandwidth: BitsPerSec(800 << 20), // 100 MiB/s
            downtime_max: Duration::from_millis(100),
            multifd: false,
            encrypted: false,
            auto_converge,
            copy_disks: false,
        };
        let (dirty, pause_max) = (dirty.map(MibPerSec), Duration::from_millis(pause_max));
        let foreseen = foreseen(Mib(memory), Mib(0), dirty, parameters, pause_max)?;
        Some((foreseen.copy.as_millis(), foreseen.pause.map(|pause| pause.as_millis())))
    }

    #[test]
    fn a_longer_pause_lets_end_what_would_not() {
        // As fast as the link: each round of a small VM leaves all of it, 400 ms.
        assert_eq!(of(40, Some(100)), None);
        // The fourth round is the second that stalled; at the fifth 400 ms are allowed.
        assert_eq!(with(40, Some(100), 500, false), Some((2_000, Some(400))));
        assert_eq!(with(40, Some(100), 300, false), None);
    }

    #[test]
    fn a_guest_that_is_slowed_down_comes_to_an_end() {
        assert_eq!(of(1000, Some(200)), None);
        // At a quarter of its rate it writes half of what the link carries.
        assert_eq!(with(1000, Some(200), 100, true), with(1000, Some(50), 100, false));
        assert_eq!(with(1000, Some(50), 100, true), with(1000, Some(50), 100, false));
        assert_eq!(with(1000, Some(u64::MAX), 100, true), None);
    }

    #[test]
    fn a_guest_that_writes_nothing_takes_one_round_and_one_that_writes_takes_more() {
        assert_eq!(of(1000, Some(0)), Some((10_000, Some(0))));
        // 10 s + 2 s + 400 ms, then 80 ms at rest.
        assert_eq!(of(1000, Some(20)), Some((12_480, Some(80))));
        assert_eq!(of(8, Some(20)), Some((80, Some(80))), "it fits into the pause as it is");
    }

    #[test]
    fn disks_that_go_along_come_first_and_add_to_the_time_that_is_allowed() {
        let parameters = CopyParameters {
            bandwidth: BitsPerSec(800 << 20),
            downtime_max: Duration::from_millis(300),
            multifd: false,
            encrypted: false,
            auto_converge: false,
            copy_disks: true,
        };
        let takes = |disks: u64, dirty: Option<u64>| {
            let dirty = dirty.map(MibPerSec);
            let max = Duration::from_millis(300);
            let foreseen = foreseen(Mib(1000), Mib(disks), dirty, parameters, max)?;
            Some((foreseen.copy.as_secs(), foreseen.pause.is_some()))
        };
        assert_eq!((takes(0, None), takes(50_000, None)), (Some((10, false)), Some((510, false))));
        assert_eq!(takes(50_000, Some(10)), Some((511, true)));
        assert_eq!(allowed(Mib(51_000), parameters), Duration::from_secs(4 * 510 + 30));
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
