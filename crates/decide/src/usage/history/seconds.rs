//! The newest ten minutes, a sample a second.
//!
//! **Invariant:** at most [`SAMPLES_MAX`] samples, in order of time; the newest [`EXACT`] as they were read, since demand is
//! made of them, the older ones to one percent.

use std::collections::{VecDeque, vec_deque};

use super::BadHistory;
use super::aged::AGE_MAX;
use super::code::{Codes, decoded, encoded};
use super::runs::{self, Runs};
use super::sample::{Aged, Sample};
use crate::units::Time;

/// Ten minutes of one sample a second.
pub const SAMPLES_MAX: usize = 600;
/// As many are kept as they were read: more than the longest window of demand.
const EXACT: usize = 16;

/// The samples, oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Seconds {
    /// Of all of them.
    at: VecDeque<Time>,
    /// The newest of these.
    last: Option<Time>,
    older: Runs<Codes>,
    exact: Runs<Sample>,
    /// The oldest that is exact is the same as was made older last.
    as_before: bool,
}

impl PartialEq for Seconds {
    /// What `as_before` says only saves reckoning codes again.
    fn eq(&self, other: &Seconds) -> bool {
        (&self.at, &self.older, &self.exact) == (&other.at, &other.older, &other.exact)
    }
}

impl Eq for Seconds {}

impl Seconds {
    /// Adds the newest, unless it is not newer than the last; whether it was added.
    pub(super) fn push(&mut self, now: Time, sample: Sample) -> bool {
        if self.last.is_some_and(|last| last >= now) {
            return false;
        }
        if self.at.len() >= EXACT {
            self.make_older();
        }
        if self.at.len() == self.at.capacity() {
            // All of it at once: pages that were never written to take no memory, and nothing is copied to where there is more.
            let max = if self.at.len() < EXACT { EXACT } else { SAMPLES_MAX };
            self.at.reserve_exact(max.saturating_sub(self.at.len()));
        }
        self.at.push_back(now);
        self.last = Some(now);
        self.exact.push(sample);
        true
    }

    fn make_older(&mut self) {
        if self.at.len() == SAMPLES_MAX {
            self.at.pop_front();
            self.older.pop();
        }
        let Some((sample, more)) = self.exact.pop() else { return };
        let as_before = std::mem::replace(&mut self.as_before, more);
        let known = self.older.newest().filter(|_| as_before);
        self.older.push(known.unwrap_or_else(|| encoded(&sample)));
    }

    pub(super) fn len(&self) -> usize {
        self.at.len()
    }

    /// Oldest first.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (Time, Sample)> {
        Both { at: self.at.iter(), older: self.older.iter(), exact: self.exact.iter() }
    }

    pub(super) fn newest(&self) -> Option<(Time, Sample)> {
        Some((self.last?, self.exact.newest()?))
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

/// Instants and samples side by side.
struct Both<'a> {
    at: vec_deque::Iter<'a, Time>,
    older: runs::Iter<'a, Codes>,
    exact: runs::Iter<'a, Sample>,
}

impl Iterator for Both<'_> {
    type Item = (Time, Sample);

    fn next(&mut self) -> Option<(Time, Sample)> {
        let at = *self.at.next()?;
        let older = self.older.next().map(|codes| decoded(&codes));
        Some((at, older.or_else(|| self.exact.next())?))
    }
}

impl DoubleEndedIterator for Both<'_> {
    fn next_back(&mut self) -> Option<(Time, Sample)> {
        let at = *self.at.next_back()?;
        let exact = self.exact.next_back();
        let sample = exact.or_else(|| self.older.next_back().map(|codes| decoded(&codes)))?;
        Some((at, sample))
    }
}
