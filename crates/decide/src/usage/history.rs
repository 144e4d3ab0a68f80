//! A VM's usage history: one sample a second, the newest ten minutes. It travels with the VM.
//!
//! **Invariant:** at most [`SAMPLES_MAX`] samples, in order of time, whatever a peer sends.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::load::Load;
use crate::units::{BitsPerSec, BytesPerSec, Mib, MibPerSec, MilliCores, PacketsPerSec, Time};

/// Ten minutes of one sample a second.
pub const SAMPLES_MAX: usize = 600;

/// What a VM used in one second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Sample {
    /// Processor time of its hypervisor process.
    pub cpu: MilliCores,
    /// Processor time that its vCPUs wanted and did not get.
    pub cpu_wait: MilliCores,
    /// Memory in use inside the guest where it tells, else resident in that process.
    pub memory: Mib,
    /// Packets that it sent.
    pub sent_packets: PacketsPerSec,
    /// Packets that it received.
    pub received_packets: PacketsPerSec,
    /// Bits that it sent.
    pub sent_bits: BitsPerSec,
    /// Bits that it received.
    pub received_bits: BitsPerSec,
    /// Packets that its tap dropped: wanted, not had.
    pub dropped: PacketsPerSec,
    /// Bytes that it read from its disks and wrote to them.
    pub disk: BytesPerSec,
    /// Memory that it writes to.
    pub dirty: MibPerSec,
}

impl Sample {
    /// All processor time that was wanted, had or not: a VM that is starved does not look small.
    pub fn wanted_cpu(&self) -> MilliCores {
        self.cpu.plus(self.cpu_wait)
    }

    /// All packets that were wanted, both directions, had or dropped.
    pub fn packets(&self) -> PacketsPerSec {
        self.sent_packets.plus(self.received_packets).plus(self.dropped)
    }

    /// All bits, both directions.
    pub fn bits(&self) -> BitsPerSec {
        self.sent_bits.plus(self.received_bits)
    }
}

/// A sample and how long ago it was taken: no clock reading crosses the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Aged {
    /// How long before the sending.
    pub age: Duration,
    /// What was used then.
    pub sample: Sample,
}

/// The newest samples of one VM, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    samples: VecDeque<(Time, Sample)>,
}

impl History {
    /// Adds the newest sample; the oldest goes when there are too many. One that is not newer than the last is left out.
    pub fn push(&mut self, now: Time, sample: Sample) {
        if self.samples.back().is_some_and(|(last, _)| *last >= now) {
            return;
        }
        if self.samples.len() == SAMPLES_MAX {
            self.samples.pop_front();
        }
        self.samples.push_back((now, sample));
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// The newest sample.
    pub fn newest(&self) -> Option<Sample> {
        self.samples.back().map(|(_, s)| *s)
    }

    /// From the oldest sample to the newest.
    pub fn span(&self) -> Duration {
        match (self.samples.front(), self.samples.back()) {
            (Some((first, _)), Some((last, _))) => last.since(*first),
            _ => Duration::ZERO,
        }
    }

    /// Mean demand over the samples of the last `window`, with `memory` at the guest's full size; `None` without samples.
    pub fn mean(&self, now: Time, window: Duration, memory: Mib) -> Option<Load> {
        let recent = self.samples.iter().rev().take_while(|(at, _)| now.since(*at) <= window);
        mean(recent.map(|(_, s)| s), memory)
    }

    /// The highest mean over any `run` samples in a row, each resource for itself: what the VM is known to reach.
    pub fn peak(&self, run: usize, memory: Mib) -> Option<Load> {
        let samples: Vec<&Sample> = self.samples.iter().map(|(_, s)| s).collect();
        let run = run.min(samples.len()).max(1);
        samples.windows(run).filter_map(|w| mean(w.iter().copied(), memory)).reduce(Load::highest)
    }

    /// The samples with their ages, to be sent.
    pub fn aged(&self, now: Time) -> Vec<Aged> {
        self.samples
            .iter()
            .map(|(at, sample)| Aged { age: now.since(*at), sample: *sample })
            .collect()
    }

    /// Puts what a peer sent in front of what is here. Twice the same does no harm.
    ///
    /// # Errors
    /// If there are too many samples or they are not in order, oldest first; nothing is changed then.
    pub fn import(&mut self, now: Time, sent: &[Aged]) -> Result<(), BadHistory> {
        if sent.len() > SAMPLES_MAX {
            return Err(BadHistory::TooMany(sent.len()));
        }
        if sent.windows(2).any(|pair| pair[0].age <= pair[1].age) {
            return Err(BadHistory::Disorder);
        }
        let own_since =
            self.samples.front().map_or(now.plus(Duration::from_secs(1)), |(at, _)| *at);
        let older =
            sent.iter().map(|s| (now.minus(s.age), s.sample)).filter(|(at, _)| *at < own_since);
        let joined: VecDeque<_> = older.chain(self.samples.iter().copied()).collect();
        self.samples = joined;
        while self.samples.len() > SAMPLES_MAX {
            self.samples.pop_front();
        }
        Ok(())
    }
}

/// A history that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadHistory {
    /// More samples than any agent keeps.
    #[error("{0} samples, {SAMPLES_MAX} at the most")]
    TooMany(usize),
    /// Samples out of order.
    #[error("samples are not in order of time, oldest first")]
    Disorder,
}

fn mean<'a>(samples: impl Iterator<Item = &'a Sample>, memory: Mib) -> Option<Load> {
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
mod tests {
    use super::*;

    fn packets(n: u64) -> Sample {
        Sample { received_packets: PacketsPerSec(n), ..Sample::default() }
    }

    fn filled(from: u64, to: u64) -> History {
        let mut history = History::default();
        (from..to).for_each(|s| history.push(Time(s * 1_000_000), packets(s)));
        history
    }

    #[test]
    fn never_more_than_its_limit_and_the_newest_stay() {
        let history = filled(1, 1000);
        assert_eq!(history.len(), SAMPLES_MAX);
        assert_eq!(history.newest(), Some(packets(999)));
    }

    #[test]
    fn a_history_that_travels_ends_up_once() {
        let sent = filled(100, 150).aged(Time(150_000_000));
        let mut here = History::default();
        here.push(Time(500_000_000), packets(7));
        here.import(Time(500_000_000), &sent).unwrap();
        let once = here.clone();
        here.import(Time(500_000_000), &sent).unwrap();
        assert_eq!(here, once);
        assert_eq!(here.len(), 51);
        assert_eq!(here.newest(), Some(packets(7)));
    }

    #[test]
    fn what_is_not_in_order_is_refused_and_changes_nothing() {
        let mut sent = filled(1, 10).aged(Time(10_000_000));
        sent.reverse();
        let mut here = filled(1, 3);
        assert_eq!(here.import(Time(20_000_000), &sent), Err(BadHistory::Disorder));
        assert_eq!(here, filled(1, 3));
        let many = vec![Aged { age: Duration::ZERO, sample: Sample::default() }; SAMPLES_MAX + 1];
        assert_eq!(here.import(Time(20_000_000), &many), Err(BadHistory::TooMany(SAMPLES_MAX + 1)));
    }

    #[test]
    fn the_peak_is_the_highest_mean_of_a_run() {
        let mut history = History::default();
        for (second, n) in [10, 10, 90, 90, 90, 10].into_iter().enumerate() {
            history.push(Time((second as u64 + 1) * 1_000_000), packets(n));
        }
        assert_eq!(history.peak(3, Mib(1)).unwrap().packets, PacketsPerSec(90));
        assert_eq!(
            history.mean(Time(6_000_000), Duration::from_secs(1), Mib(1)).unwrap().packets,
            PacketsPerSec(50)
        );
    }
}
