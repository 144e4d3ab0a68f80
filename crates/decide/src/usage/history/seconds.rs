//! The newest ten minutes, a sample a second.
//!
//! **Invariant:** at most [`SAMPLES_MAX`] samples, in order of time; the newest [`EXACT`] as they were read, since demand is
//! made of them, the older ones to one percent.

use std::collections::VecDeque;

use super::BadHistory;
use super::aged::AGE_MAX;
use super::code::{Codes, decoded, encoded};
use super::sample::{Aged, Sample};
use crate::units::Time;

/// Ten minutes of one sample a second.
pub const SAMPLES_MAX: usize = 600;
/// As many are kept as they were read: more than the longest window of demand.
const EXACT: usize = 16;

/// The samples, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seconds {
    older: VecDeque<(Time, Codes)>,
    exact: Exact,
}

/// Samples as they were read. Most VMs do the same for long, and with many VMs it is memory that a reading waits for: so
/// what came several times in a row is there once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Exact {
    at: VecDeque<Time>,
    /// How often each came in a row: as many as there are times.
    runs: VecDeque<(Sample, usize)>,
}

impl Exact {
    fn len(&self) -> usize {
        self.at.len()
    }

    fn newest(&self) -> Option<(Time, Sample)> {
        Some((*self.at.back()?, self.runs.back()?.0))
    }

    fn push(&mut self, now: Time, sample: Sample) {
        self.at.push_back(now);
        match self.runs.back_mut() {
            Some((same, times)) if *same == sample => *times += 1,
            Some(_) | None => self.runs.push_back((sample, 1)),
        }
    }

    fn pop(&mut self) -> Option<(Time, Sample)> {
        let (sample, times) = self.runs.front_mut()?;
        let oldest = (self.at.pop_front()?, *sample);
        *times -= 1;
        if *times == 0 {
            self.runs.pop_front();
        }
        Some(oldest)
    }

    fn iter(&self) -> impl DoubleEndedIterator<Item = (Time, Sample)> {
        self.at.iter().enumerate().map(|(place, at)| (*at, self.sample(place)))
    }

    /// The sample at a place below `len`, sought from the newest on.
    fn sample(&self, place: usize) -> Sample {
        let mut before = self.len();
        let mut from_newest = self.runs.iter().rev();
        let run = from_newest.find(|(_, times)| {
            before -= times;
            before <= place
        });
        run.map(|(sample, _)| *sample).unwrap_or_default()
    }
}

impl Seconds {
    /// Adds the newest, unless it is not newer than the last; whether it was added.
    pub(super) fn push(&mut self, now: Time, sample: Sample) -> bool {
        if self.exact.at.back().is_some_and(|last| *last >= now) {
            return false;
        }
        if self.exact.len() == EXACT {
            self.make_older();
        }
        self.exact.push(now, sample);
        true
    }

    fn make_older(&mut self) {
        if self.older.len() == SAMPLES_MAX - EXACT {
            self.older.pop_front();
        }
        if self.older.len() == self.older.capacity() {
            // All of it at once: pages that were never written to take no memory, and nothing is copied to where there is more.
            self.older.reserve_exact(SAMPLES_MAX - EXACT - self.older.len());
        }
        self.older.extend(self.exact.pop().map(|(at, sample)| (at, encoded(&sample))));
    }

    pub(super) fn len(&self) -> usize {
        self.older.len() + self.exact.len()
    }

    /// Oldest first.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (Time, Sample)> {
        let older = self.older.iter().map(|(at, codes)| (*at, decoded(codes)));
        older.chain(self.exact.iter())
    }

    pub(super) fn newest(&self) -> Option<(Time, Sample)> {
        self.exact.newest()
    }

    pub(super) fn aged(&self, now: Time) -> Vec<Aged> {
        self.iter().map(|(at, sample)| Aged { age: now.since(at), sample }).collect()
    }

    /// What a peer sent.
    pub(super) fn of_aged(now: Time, sent: &[Aged]) -> Result<Seconds, BadHistory> {
        if sent.len() > SAMPLES_MAX {
            return Err(BadHistory::TooMany("samples", sent.len(), SAMPLES_MAX));
        }
        if sent.windows(2).any(|pair| pair[0].age <= pair[1].age) {
            return Err(BadHistory::Disorder("samples"));
        }
        if sent.iter().any(|aged| aged.age > AGE_MAX) {
            return Err(BadHistory::NoTime("samples"));
        }
        let mut seconds = Seconds::default();
        sent.iter().for_each(|aged| {
            seconds.push(now.minus(aged.age), aged.sample);
        });
        Ok(seconds)
    }

    /// Puts those in front that are older than its own.
    pub(super) fn import(&mut self, older: &Seconds) {
        let own_since = self.iter().next().map(|(at, _)| at);
        let mut joined = Seconds::default();
        let older = older.iter().filter(|(at, _)| own_since.is_none_or(|since| *at < since));
        older.chain(self.iter()).for_each(|(at, sample)| {
            joined.push(at, sample);
        });
        *self = joined;
    }
}
