//! How a pre-copy goes: each round sends what the guest dirtied during the one before, until the rest fits into the pause.
//!
//! A guest dirties its working set over and over: no more than `working_set` is ever dirty. So a round is never longer than
//! that takes, and a guest that dirties faster than the link carries never converges (seen on QEMU, which does it so).

use std::time::Duration;

use decide::migrate::hypervisor::{CopyFigures, CopyParameters, CopyProgress};
use decide::migrate::precopy;
use decide::units::{BitsPerSec, Bytes, Mib, MibPerSec, Time};

const MIB: u64 = 1 << 20;

/// A guest's memory, and how it writes to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// All of it.
    pub size: Mib,
    /// What it writes to, over and over.
    pub working_set: Mib,
    /// Dirtied in a second.
    pub dirty_rate: Mib,
}

impl Memory {
    /// How much of it a second writes to: what is written twice counts once.
    pub fn written(&self) -> MibPerSec {
        MibPerSec(self.dirty_rate.min(self.working_set).0)
    }

    /// Whether a copy ends before it is given up.
    pub fn copy_ends(&self, copy: CopyParameters, pause_max: Duration) -> bool {
        precopy::foreseen(self.size, Mib(0), Some(self.written()), copy, pause_max).is_some()
    }
}

/// What follows a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// Another, which takes so long.
    Round(Duration),
    /// The rest fits into the pause.
    Converged,
}

/// One copy's rounds.
#[derive(Clone, Debug)]
pub(super) struct Precopy {
    memory: Memory,
    bandwidth: u64,
    downtime_max: Duration,
    began: Time,
    round_began: Time,
    paused: Option<Time>,
    rounds: u32,
    transferred: u64,
    remaining: u64,
}

impl Precopy {
    /// A copy that begins; `link` is what the network between the two carries.
    pub(super) fn new(
        now: Time,
        memory: Memory,
        copy: CopyParameters,
        link: BitsPerSec,
    ) -> Precopy {
        Precopy {
            memory,
            bandwidth: copy.bandwidth.min(link).0.max(8) / 8,
            downtime_max: copy.downtime_max,
            began: now,
            round_began: now,
            paused: None,
            rounds: 1,
            transferred: 0,
            remaining: memory.size.0 * MIB,
        }
    }

    /// How long sending the rest takes.
    pub(super) fn rest(&self) -> Duration {
        let micros = u128::from(self.remaining) * 1_000_000 / u128::from(self.bandwidth);
        Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }

    /// The last round may take so long from now on.
    pub(super) fn allow(&mut self, pause: Duration) {
        self.downtime_max = pause;
    }

    /// A round has ended.
    pub(super) fn round_ended(&mut self, now: Time) -> After {
        let took = now.since(self.round_began);
        let dirtied = u128::from(self.memory.dirty_rate.0 * MIB) * took.as_micros() / 1_000_000;
        let dirtied = u64::try_from(dirtied).unwrap_or(u64::MAX);
        self.transferred += self.remaining;
        self.remaining = dirtied.min(self.memory.working_set.0 * MIB);
        self.round_began = now;
        if self.rest() <= self.downtime_max {
            self.paused = Some(now);
            return After::Converged;
        }
        self.rounds += 1;
        After::Round(self.rest())
    }

    /// The guest is paused and the rest was sent.
    pub(super) fn complete(&mut self) {
        self.transferred += self.remaining;
        self.remaining = 0;
    }

    pub(super) fn progress(&self) -> CopyProgress {
        CopyProgress {
            transferred: Bytes(self.transferred),
            remaining: Bytes(self.remaining),
            total: Bytes(self.memory.size.0 * MIB),
            rounds: self.rounds,
        }
    }

    pub(super) fn figures(&self, now: Time) -> CopyFigures {
        let downtime = self.paused.map_or(Duration::ZERO, |paused| now.since(paused));
        CopyFigures { progress: self.progress(), total: now.since(self.began), downtime }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARAMETERS: CopyParameters = CopyParameters {
        bandwidth: BitsPerSec(1_000_000_000),
        downtime_max: Duration::from_millis(100),
        multifd: false,
        encrypted: false,
        auto_converge: false,
        copy_disks: false,
    };

    /// Rounds, seconds and the pause of a 1 GiB guest on 1 Gbit/s; none: it does not converge in 50 rounds. Whether it does is
    /// known before.
    fn copy(working_set: u64, dirty_rate: u64) -> Option<(u32, f64, u128)> {
        let memory =
            Memory { size: Mib(1024), working_set: Mib(working_set), dirty_rate: Mib(dirty_rate) };
        let copied = rounds(memory);
        assert_eq!(memory.copy_ends(PARAMETERS, PARAMETERS.downtime_max), copied.is_some());
        copied
    }

    fn rounds(memory: Memory) -> Option<(u32, f64, u128)> {
        let mut now = Time(0);
        let mut copy = Precopy::new(now, memory, PARAMETERS, BitsPerSec(u64::MAX));
        now = now.plus(copy.rest());
        for _ in 0..50 {
            match copy.round_ended(now) {
                After::Round(takes) => now = now.plus(takes),
                After::Converged => {
                    now = now.plus(copy.rest());
                    copy.complete();
                    let figures = copy.figures(now);
                    let sent = figures.progress.transferred.0 / MIB;
                    assert!(sent >= 1024, "{sent} MiB sent");
                    let (total, pause) =
                        (figures.total.as_secs_f64(), figures.downtime.as_millis());
                    return Some((figures.progress.rounds, total, pause));
                }
            }
        }
        None
    }

    #[test]
    fn an_idle_guest_takes_one_round() {
        let (rounds, seconds, pause) = copy(1024, 0).unwrap();
        assert_eq!((rounds, pause), (1, 0));
        assert!((8.5..8.7).contains(&seconds), "{seconds}");
    }

    #[test]
    fn a_guest_that_dirties_half_of_what_the_link_carries_converges_in_rounds() {
        let (rounds, seconds, pause) = copy(1024, 60).unwrap();
        assert!((6..9).contains(&rounds) && pause <= 100, "{rounds} rounds, {pause} ms");
        assert!((16.0..18.0).contains(&seconds), "{seconds}");
    }

    #[test]
    fn a_guest_that_dirties_faster_than_the_link_never_converges() {
        assert_eq!(copy(512, 200), None);
    }

    #[test]
    fn a_small_working_set_converges_however_fast_it_is_dirtied() {
        assert_eq!(copy(8, 5000).map(|(rounds, ..)| rounds), Some(1));
    }
}
