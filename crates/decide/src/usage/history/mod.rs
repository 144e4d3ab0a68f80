//! A VM's usage history, or the host's own. A VM's travels with it.
//!
//! ```text
//!   sample ─▶ seconds (10 min, in memory)
//!      └────▶ ten seconds ─▶ minute ─▶ quarter of an hour ─▶ quarters (30 days, in memory)
//!                  └────────────┴──────────┴─▶ Closed: kept on disk by whoever drives this
//! ```
//!
//! **Invariant:** whatever a peer sends, no limit is passed, and a history that came twice is there once.

use std::time::Duration;

pub mod aged;
pub mod bucket;
pub mod code;
pub mod levels;
pub mod past;
pub mod quarters;
mod runs;
pub mod sample;
mod seconds;

use serde::{Deserialize, Serialize};

use super::load::Load;
use crate::units::{BitsPerSec, Mib, MilliCores, PacketsPerSec, Time, VmId};
use aged::AgedHistory;
use levels::{Closed, Levels};
use past::{Past, Stay};
use quarters::{DAY, Quarters};
pub use sample::{Aged, Sample};
pub use seconds::SAMPLES_MAX;
use seconds::Seconds;

/// Whose history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Whose {
    /// The host's own.
    Host,
    /// That VM's.
    Vm(VmId),
}

/// What is to be kept of a history beyond the agent's life.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Kept {
    /// A span that is over.
    Span(Whose, Closed),
    /// All stays of a VM, since there is a new one.
    Past(VmId, Past),
}

/// One VM's history, or the host's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    seconds: Seconds,
    levels: Levels,
    quarters: Quarters,
    past: Past,
}

impl History {
    /// Adds the newest sample; what spans are over by it are added to `closed`. One that is not newer than the last is left out.
    pub fn push(&mut self, now: Time, sample: Sample, closed: &mut Vec<Closed>) {
        if !self.seconds.push(now, sample) {
            return;
        }
        let before = closed.len();
        self.levels.push(now, &sample, closed);
        closed[before..].iter().for_each(|closed| self.quarters.push(closed));
    }

    /// Number of samples, one a second.
    pub fn len(&self) -> usize {
        self.seconds.len()
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.seconds.len() == 0
    }

    /// The newest sample.
    pub fn newest(&self) -> Option<Sample> {
        self.seconds.newest().map(|(_, sample)| sample)
    }

    /// The samples of the newest ten minutes, oldest first.
    pub fn seconds(&self) -> impl DoubleEndedIterator<Item = (Time, Sample)> {
        self.seconds.iter()
    }

    /// From the oldest sample to the newest.
    pub fn span(&self) -> Duration {
        let mut samples = self.seconds.iter();
        match (samples.next(), samples.next_back()) {
            (Some((first, _)), Some((last, _))) => last.since(first),
            _ => Duration::ZERO,
        }
    }

    /// The load by quarters of an hour.
    pub fn quarters(&self) -> &Quarters {
        &self.quarters
    }

    /// Where the VM was before.
    pub fn past(&self) -> &Past {
        &self.past
    }

    /// Mean demand over the samples of the last `window`, with `memory` at the guest's full size; `None` without samples.
    pub fn mean(&self, now: Time, window: Duration, memory: Mib) -> Option<Load> {
        let recent = self.seconds.iter().rev().take_while(|(at, _)| now.since(*at) <= window);
        mean(recent.map(|(_, sample)| sample), memory)
    }

    /// The highest mean over any `run` samples in a row, each resource for itself: what the VM is known to reach.
    pub fn peak(&self, run: usize, memory: Mib) -> Option<Load> {
        let samples: Vec<Sample> = self.seconds.iter().map(|(_, sample)| sample).collect();
        let run = run.min(samples.len()).max(1);
        samples.windows(run).filter_map(|w| mean(w.iter().copied(), memory)).reduce(Load::highest)
    }

    /// The highest p95 of any quarter of the last 24 hours, each resource for itself, with `memory` at the guest's full size;
    /// and how much of that time was measured. `None` where no quarter was.
    pub fn daily_peak(&self, now: Time, memory: Mib) -> Option<(Load, Duration)> {
        let peak = self.quarters.peak(now, DAY);
        peak.map(|(load, covered)| (Load { memory, ..load }, covered))
    }

    /// All of it with ages, to be sent.
    pub fn aged(&self, now: Time) -> AgedHistory {
        AgedHistory {
            samples: self.seconds.aged(now),
            quarters: self.quarters.aged(now),
            past: self.past.aged(now),
        }
    }

    /// What a peer sent at `now`.
    ///
    /// # Errors
    /// If there is too much of it, if it is not in order, oldest first, or lies ahead.
    pub fn of_aged(now: Time, sent: &AgedHistory) -> Result<History, BadHistory> {
        Ok(History {
            seconds: Seconds::of_aged(now, &sent.samples)?,
            levels: Levels::default(),
            quarters: Quarters::of_aged(now, &sent.quarters)?,
            past: Past::of_aged(now, &sent.past)?,
        })
    }

    /// Joins what was before, here or elsewhere. Twice the same does no harm.
    pub fn import(&mut self, older: &History) {
        self.seconds.import(&older.seconds);
        self.recall(&older.quarters, &older.past);
    }

    /// Joins what was stored of it.
    pub fn recall(&mut self, quarters: &Quarters, past: &Past) {
        self.quarters.import(quarters);
        self.past.import(past);
    }

    /// The VM has come here: its stay before is over.
    pub fn arrived(&mut self, stay: Stay) {
        self.past.push(stay);
    }
}

/// A history that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadHistory {
    /// More than any agent keeps.
    #[error("{1} {0}, {2} at the most")]
    TooMany(&'static str, usize, usize),
    /// Out of order.
    #[error("{0} are not in order of time, oldest first")]
    Disorder(&'static str),
    /// Of a time that is not over.
    #[error("its newest quarter of an hour is not over yet")]
    Future,
    /// Of no time that was.
    #[error("{0} from a time that cannot be: ahead, or a hundred years back")]
    NoTime(&'static str),
}

fn mean(samples: impl Iterator<Item = Sample>, memory: Mib) -> Option<Load> {
    let (mut n, mut cpu, mut bits, mut packets) = (0u64, 0u64, 0u64, 0u64);
    for sample in samples {
        n += 1;
        cpu = cpu.saturating_add(sample.wanted_cpu().0);
        bits = bits.saturating_add(sample.bits().0);
        packets = packets.saturating_add(sample.packets().0);
    }
    let cpu = cpu.checked_div(n)?;
    Some(Load {
        cpu: MilliCores(cpu),
        memory,
        bits: BitsPerSec(bits / n),
        packets: PacketsPerSec(packets / n),
    })
}

#[cfg(test)]
mod tests;
