//! Where a VM was before: a host, and the move by which it left.
//!
//! **Invariant:** at most [`PAST_MAX`] stays, oldest first; the oldest go.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::BadHistory;
use super::aged::AGE_MAX;
use crate::units::{HostId, MoveId, Time};

/// Stays that are kept.
pub const PAST_MAX: usize = 64;

/// A stay that is over.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Stay {
    /// The host.
    pub host: HostId,
    /// Its name then.
    pub name: String,
    /// The move that ended it.
    pub move_id: MoveId,
    /// When that was.
    pub ended: Time,
}

/// A stay, and how long before the sending it ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AgedStay {
    /// How long ago.
    pub age: Duration,
    /// The host.
    pub host: HostId,
    /// Its name then.
    pub name: String,
    /// The move that ended it.
    pub move_id: MoveId,
}

/// A VM's stays before this one, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Past(Vec<Stay>);

impl Past {
    /// The stays, oldest first.
    pub fn stays(&self) -> &[Stay] {
        &self.0
    }

    /// Adds the newest; one whose move is there already is left out.
    pub fn push(&mut self, stay: Stay) {
        if self.0.iter().any(|there| there.move_id == stay.move_id) {
            return;
        }
        self.0.push(stay);
        self.trim();
    }

    /// Joins what was told of it elsewhere; twice the same does no harm.
    pub fn import(&mut self, told: &Past) {
        let known: BTreeSet<MoveId> = self.0.iter().map(|stay| stay.move_id).collect();
        self.0.extend(told.0.iter().filter(|stay| !known.contains(&stay.move_id)).cloned());
        // All in order before the oldest go.
        self.0.sort_by_key(|stay| stay.ended);
        self.trim();
    }

    fn trim(&mut self) {
        self.0.drain(..self.0.len().saturating_sub(PAST_MAX));
    }

    /// With their ages, to be sent.
    pub fn aged(&self, now: Time) -> Vec<AgedStay> {
        let aged = |Stay { host, name, move_id, ended }: &Stay| AgedStay {
            age: now.since(*ended),
            host: *host,
            name: name.clone(),
            move_id: *move_id,
        };
        self.0.iter().map(aged).collect()
    }

    /// What a peer sent.
    ///
    /// # Errors
    /// If there are too many or they are not in order, oldest first.
    pub fn of_aged(now: Time, sent: &[AgedStay]) -> Result<Past, BadHistory> {
        if sent.len() > PAST_MAX {
            return Err(BadHistory::TooMany("stays", sent.len(), PAST_MAX));
        }
        if sent.windows(2).any(|pair| pair[0].age < pair[1].age) {
            return Err(BadHistory::Disorder("stays"));
        }
        if sent.iter().any(|stay| stay.age > AGE_MAX) {
            return Err(BadHistory::NoTime("stays"));
        }
        let stay = |AgedStay { age, host, name, move_id }: &AgedStay| Stay {
            host: *host,
            name: name.clone(),
            move_id: *move_id,
            ended: now.minus(*age),
        };
        Ok(Past(sent.iter().map(stay).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stay(counter: u32) -> Stay {
        let host = HostId(7);
        let move_id = MoveId { host, incarnation: 1, counter };
        Stay { host, name: "host7".to_owned(), move_id, ended: Time(u64::from(counter) * 1_000) }
    }

    #[test]
    fn the_oldest_go_and_each_move_ends_one_stay() {
        let mut past = Past::default();
        (1..=70).chain([70]).for_each(|counter| past.push(stay(counter)));
        assert_eq!(past.stays().len(), PAST_MAX);
        assert_eq!(past.stays().first(), Some(&stay(7)));
        assert_eq!(past.stays().last(), Some(&stay(70)));
    }

    #[test]
    fn of_more_than_are_kept_the_newest_stay_whoever_tells_them() {
        let of = |counters: std::ops::RangeInclusive<u32>| Past(counters.map(stay).collect());
        for (here, told) in [(1..=62, 30..=69), (30..=69, 1..=62), (1..=64, 2..=69)] {
            let mut joined = of(here);
            joined.import(&of(told));
            assert_eq!(joined, of(6..=69));
        }
    }

    #[test]
    fn it_travels_with_ages_and_ends_up_once() {
        let mut sent = Past::default();
        (1..=3).for_each(|counter| sent.push(stay(counter)));
        let aged = sent.aged(Time(5_000));
        let mut here = Past::default();
        here.import(&Past::of_aged(Time(5_000), &aged).unwrap());
        here.import(&Past::of_aged(Time(5_000), &aged).unwrap());
        assert_eq!(here, sent);
        let turned: Vec<_> = aged.into_iter().rev().collect();
        assert_eq!(Past::of_aged(Time(5_000), &turned), Err(BadHistory::Disorder("stays")));
    }
}
