//! Each datagram of a sender is taken once, also if it comes late, and none from a life of it that is over.
//!
//! A sender's numbers are the microseconds that it has run, each higher than the last. So what is kept over a restart of the
//! receiver may lie a little ahead ([`AHEAD`]): it costs that long of deafness, and needs no write for each datagram. Clocks of
//! two hosts are never compared.
//!
//! A sender begins anew with each cluster key: whoever had the key before, and has it no more, could have sent in its name what
//! lies far ahead.
//!
//! **Invariant:** no number of one life is taken twice; no number of an earlier life, or under an earlier key, is taken after one of
//! a later.
//! **Invariant:** what comes in order under one key, or at most [`KEPT`] datagrams late, is taken.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// Numbers that are remembered one by one; whatever lies below the lowest of them is over.
pub const KEPT: usize = 128;
/// How far what is kept on disk lies ahead of what was taken, in microseconds: longer than from one write to the next.
pub const AHEAD: u64 = 2_000_000;

/// One start of a sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Life {
    /// Grows with each start of the agent.
    pub incarnation: u32,
    /// Drawn at that start, so that no two starts ever seal with the same key.
    pub lot: u64,
}

/// Why a number is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stale {
    /// It was taken before.
    #[error("it came before: repeated, or replayed")]
    Again,
    /// It may have been taken before.
    #[error("it is too old: delayed, or replayed")]
    Old,
    /// Its sender seals with a later key since.
    #[error("it is sealed with an earlier key than its sender's last: delayed, or replayed")]
    Retired,
    /// Its sender has started anew since.
    #[error("it is from before the sender's last start: delayed, or replayed")]
    Outlived,
    /// Two starts that cannot be told apart in time.
    #[error("two starts of its sender bear the same number: start the agent there once more")]
    Twins,
}

/// What was taken of one sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// The cluster key's.
    epoch: u32,
    life: Life,
    /// Nothing up to here is taken any more.
    floor: u64,
    taken: BTreeSet<u64>,
}

/// What of it is kept over a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The cluster key's.
    pub epoch: u32,
    /// The sender's life.
    pub life: Life,
    /// Nothing up to here is to be taken.
    pub floor: u64,
}

impl Window {
    /// Of a sender that begins, or begins anew.
    #[must_use]
    pub fn new(epoch: u32, life: Life) -> Window {
        Window { epoch, life, floor: 0, taken: BTreeSet::new() }
    }

    /// As it was kept.
    #[must_use]
    pub fn from_mark(mark: Mark) -> Window {
        Window { floor: mark.floor, ..Window::new(mark.epoch, mark.life) }
    }

    /// What to keep on disk.
    #[must_use]
    pub fn mark(&self, ahead: u64) -> Mark {
        let newest = self.taken.last().map_or(self.floor, |last| last.saturating_add(ahead));
        Mark { epoch: self.epoch, life: self.life, floor: newest.max(self.floor) }
    }

    /// The life that is listened to, and the key that it was last heard under.
    #[must_use]
    pub fn life(&self) -> (u32, Life) {
        (self.epoch, self.life)
    }

    /// Takes a number, or says why not. Only after the datagram was found to be genuine.
    ///
    /// # Errors
    /// If it was taken, or may have been; nothing has changed then.
    pub fn take(&mut self, epoch: u32, life: Life, number: u64) -> Result<(), Stale> {
        if epoch < self.epoch {
            return Err(Stale::Retired);
        }
        if epoch > self.epoch {
            *self = Window::new(epoch, life);
        }
        if life.incarnation < self.life.incarnation {
            return Err(Stale::Outlived);
        }
        if life.incarnation > self.life.incarnation {
            *self = Window::new(epoch, life);
        } else if life.lot != self.life.lot {
            return Err(Stale::Twins);
        }
        if number <= self.floor {
            return Err(Stale::Old);
        }
        if !self.taken.insert(number) {
            return Err(Stale::Again);
        }
        if self.taken.len() > KEPT {
            self.floor = self.taken.pop_first().unwrap_or(self.floor);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIFE: Life = Life { incarnation: 7, lot: 1 };

    proptest! {
        #[test]
        fn nothing_is_taken_twice_whatever_the_order_and_over_restarts(
            come in proptest::collection::vec((1_u32..4, 5_u32..9, 1_u64..400, any::<bool>()), 0..800),
        ) {
            let mut window = Window::new(1, LIFE);
            let mut taken = BTreeSet::new();
            let mut newest = (1, LIFE.incarnation);
            for (epoch, incarnation, number, restart) in come {
                if restart {
                    window = Window::from_mark(window.mark(3));
                }
                if window.take(epoch, Life { incarnation, lot: 1 }, number).is_ok() {
                    let now = (epoch, incarnation);
                    prop_assert!(now >= newest, "of a key or life that is over");
                    newest = now;
                    prop_assert!(taken.insert((now, number)), "taken twice");
                }
            }
        }

        #[test]
        fn what_comes_a_little_late_is_taken(
            steps in proptest::collection::vec(1_u64..50, 1..600),
            swaps in proptest::collection::vec((0_usize..600, 1..KEPT), 0..40),
        ) {
            let mut numbers: Vec<u64> = steps
                .iter()
                .scan(0, |sum, step| {
                    *sum += step;
                    Some(*sum)
                })
                .collect();
            // Each is set back once at most, so at most KEPT others overtake it.
            let mut free = 0;
            for (at, by) in swaps {
                let at = at.max(free);
                if at + by < numbers.len() {
                    numbers[at..=at + by].rotate_left(1);
                    free = at + by + 1;
                }
            }
            let mut window = Window::new(1, LIFE);
            for number in numbers {
                prop_assert_eq!(window.take(1, LIFE, number), Ok(()));
            }
        }
    }

    #[test]
    fn what_is_kept_lies_ahead_but_not_without_end() {
        let mut window = Window::new(1, LIFE);
        assert_eq!(window.mark(AHEAD).floor, 0);
        window.take(1, LIFE, 1_000_000).unwrap();
        let mark = window.mark(AHEAD);
        assert_eq!(mark.floor, 3_000_000);
        let mut again = Window::from_mark(mark);
        assert_eq!(again.take(1, LIFE, 1_000_000), Err(Stale::Old));
        assert_eq!(again.take(1, LIFE, 3_000_000), Err(Stale::Old));
        // Restarts alone lift it no further.
        assert_eq!(again.mark(AHEAD), mark);
        assert_eq!(again.take(1, LIFE, 3_000_001), Ok(()));
        assert_eq!(again.take(1, LIFE, 3_000_001), Err(Stale::Again));
    }

    #[test]
    fn a_life_that_is_over_is_not_heard_again() {
        let mut window = Window::new(1, LIFE);
        window.take(1, LIFE, 5).unwrap();
        let later = Life { incarnation: 8, lot: 9 };
        assert_eq!(window.take(1, later, 5), Ok(()));
        assert_eq!(window.take(1, LIFE, 6), Err(Stale::Outlived));
        assert_eq!(window.take(1, Life { incarnation: 8, lot: 10 }, 6), Err(Stale::Twins));
        assert_eq!(window.life(), (1, later));
    }

    #[test]
    fn what_was_said_ahead_in_a_senders_name_ends_with_the_key() {
        let mut window = Window::new(1, LIFE);
        window.take(1, Life { incarnation: u32::MAX, lot: 5 }, u64::MAX).unwrap();
        assert_eq!(window.take(1, LIFE, 7), Err(Stale::Outlived));
        let mut kept = Window::from_mark(window.mark(AHEAD));
        assert_eq!(kept.take(2, LIFE, 7), Ok(()));
        assert_eq!(kept.take(1, LIFE, 8), Err(Stale::Retired));
        assert_eq!(kept.take(2, LIFE, 8), Ok(()));
    }
}
