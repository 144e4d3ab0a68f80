//! The newest ten minutes, a sample a second.
//!
//! **Invariant:** at most [`SAMPLES_MAX`] samples, in order of time; the newest [`EXACT`] as they were read, since demand is
//! made of them, the older ones to one percent.

use super::BadHistory;
use super::aged::AGE_MAX;
use super::code::{Codes, decoded, encoded};
use super::runs::Runs;
use super::sample::{Aged, Sample};
use crate::units::Time;

/// Ten minutes of one sample a second.
pub const SAMPLES_MAX: usize = 600;
/// As many are kept as they were read: more than the longest window of demand.
const EXACT: usize = 16;

/// The samples, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seconds {
    older: Runs<Codes>,
    exact: Runs<Sample>,
}

impl Seconds {
    /// Adds the newest, unless it is not newer than the last; whether it was added.
    pub(super) fn push(&mut self, now: Time, sample: Sample) -> bool {
        if self.exact.newest().is_some_and(|(last, _)| last >= now) {
            return false;
        }
        if self.exact.len() == EXACT {
            self.make_older();
        }
        self.exact.push(now, sample, EXACT);
        true
    }

    fn make_older(&mut self) {
        if self.older.len() == SAMPLES_MAX - EXACT {
            self.older.pop();
        }
        if let Some((at, sample)) = self.exact.pop() {
            self.older.push(at, encoded(&sample), SAMPLES_MAX - EXACT);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.older.len() + self.exact.len()
    }

    /// Oldest first.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (Time, Sample)> {
        let older = self.older.iter().map(|(at, codes)| (at, decoded(&codes)));
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
