//! What came when, where the same often comes many times in a row: it is kept once, with how often it came.
//!
//! Most VMs do the same for long, and with many VMs it is memory that a reading waits for.
//!
//! **Invariant:** the runs together are as long as there are times, and no two neighbours are the same.

use std::collections::{VecDeque, vec_deque};

use crate::units::Time;

/// Oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Runs<T> {
    at: VecDeque<Time>,
    /// Each with how often it came.
    runs: VecDeque<(T, u32)>,
}

impl<T> Default for Runs<T> {
    fn default() -> Runs<T> {
        Runs { at: VecDeque::new(), runs: VecDeque::new() }
    }
}

impl<T: Copy + PartialEq> Runs<T> {
    pub(super) fn len(&self) -> usize {
        self.at.len()
    }

    pub(super) fn newest(&self) -> Option<(Time, T)> {
        Some((*self.at.back()?, self.runs.back()?.0))
    }

    /// Adds the newest; there will be no more than `max`.
    pub(super) fn push(&mut self, at: Time, one: T, max: usize) {
        if self.at.len() == self.at.capacity() {
            // All of it at once: pages that were never written to take no memory, and nothing is copied to where there is more.
            self.at.reserve_exact(max.saturating_sub(self.at.len()));
        }
        self.at.push_back(at);
        match self.runs.back_mut() {
            Some((same, times)) if *same == one => *times += 1,
            Some(_) | None => self.runs.push_back((one, 1)),
        }
    }

    /// Takes the oldest.
    pub(super) fn pop(&mut self) -> Option<(Time, T)> {
        let at = self.at.pop_front()?;
        let (one, times) = self.runs.front_mut()?;
        let one = *one;
        *times -= 1;
        if *times == 0 {
            self.runs.pop_front();
        }
        Some((at, one))
    }

    pub(super) fn iter(&self) -> Iter<'_, T> {
        Iter { at: self.at.iter(), runs: self.runs.iter(), front: None, back: None }
    }
}

/// Goes through them from either end.
pub(super) struct Iter<'a, T> {
    at: vec_deque::Iter<'a, Time>,
    runs: vec_deque::Iter<'a, (T, u32)>,
    /// What is left of the run that each end is in.
    front: Option<(T, u32)>,
    back: Option<(T, u32)>,
}

/// One of what is left of a run.
fn one<T: Copy>(run: &mut Option<(T, u32)>) -> Option<T> {
    let (one, left) = run.as_mut()?;
    let one = *one;
    *left -= 1;
    if *left == 0 {
        *run = None;
    }
    Some(one)
}

impl<T: Copy> Iterator for Iter<'_, T> {
    type Item = (Time, T);

    fn next(&mut self) -> Option<(Time, T)> {
        let at = self.at.next()?;
        if self.front.is_none() {
            // Between the two ends no run is left but that in which the other end is.
            self.front = self.runs.next().copied().or_else(|| self.back.take());
        }
        Some((*at, one(&mut self.front)?))
    }
}

impl<T: Copy> DoubleEndedIterator for Iter<'_, T> {
    fn next_back(&mut self) -> Option<(Time, T)> {
        let at = self.at.next_back()?;
        if self.back.is_none() {
            self.back = self.runs.next_back().copied().or_else(|| self.front.take());
        }
        Some((*at, one(&mut self.back)?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_pushed_comes_out_from_either_end(
            values in vec(0u8..3, 0..40),
            pops in 0usize..40,
            ends in vec(any::<bool>(), 40),
        ) {
            let mut runs = Runs::default();
            let mut plain = VecDeque::new();
            for (at, value) in (0..).zip(values) {
                runs.push(Time(at), value, 40);
                plain.push_back((Time(at), value));
            }
            for _ in 0..pops {
                prop_assert_eq!(runs.pop(), plain.pop_front());
            }
            prop_assert_eq!((runs.len(), runs.newest()), (plain.len(), plain.back().copied()));
            let mut iter = runs.iter();
            for from_front in ends {
                let (one, other) = match from_front {
                    true => (iter.next(), plain.pop_front()),
                    false => (iter.next_back(), plain.pop_back()),
                };
                prop_assert_eq!(one, other);
            }
        }
    }
}
