//! What comes one after another, where the same often comes many times in a row: it is kept once, with how often it came.
//!
//! Most VMs do the same for long, and with many VMs it is memory that a reading waits for.
//!
//! **Invariant:** no two neighbours are the same, and each came at least once.

use std::collections::{VecDeque, vec_deque};

/// Oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Runs<T> {
    /// Each with how often it came.
    before: VecDeque<(T, u32)>,
    /// The same of the newest: where nothing else came, nothing else is looked at.
    newest: Option<(T, u32)>,
}

impl<T> Default for Runs<T> {
    fn default() -> Runs<T> {
        Runs { before: VecDeque::new(), newest: None }
    }
}

impl<T: Copy + PartialEq> Runs<T> {
    pub(super) fn newest(&self) -> Option<T> {
        self.newest.map(|(one, _)| one)
    }

    pub(super) fn push(&mut self, one: T) {
        match &mut self.newest {
            Some((same, times)) if *same == one => *times += 1,
            newest => self.before.extend(newest.replace((one, 1))),
        }
    }

    /// Takes the oldest; whether the next is the same.
    pub(super) fn pop(&mut self) -> Option<(T, bool)> {
        let oldest = self.before.front_mut().or(self.newest.as_mut())?;
        oldest.1 -= 1;
        let (one, left) = *oldest;
        if left == 0 && self.before.pop_front().is_none() {
            self.newest = None;
        }
        Some((one, left > 0))
    }

    pub(super) fn iter(&self) -> Iter<'_, T> {
        Iter { runs: self.before.iter(), front: None, back: self.newest }
    }
}

/// Goes through them from either end.
pub(super) struct Iter<'a, T> {
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
    type Item = T;

    fn next(&mut self) -> Option<T> {
        if self.front.is_none() {
            // Between the two ends no run is left but that in which the other end is.
            self.front = self.runs.next().copied().or_else(|| self.back.take());
        }
        one(&mut self.front)
    }
}

impl<T: Copy> DoubleEndedIterator for Iter<'_, T> {
    fn next_back(&mut self) -> Option<T> {
        if self.back.is_none() {
            self.back = self.runs.next_back().copied().or_else(|| self.front.take());
        }
        one(&mut self.back)
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
            values.iter().for_each(|value| runs.push(*value));
            let mut plain: VecDeque<u8> = values.into();
            for _ in 0..pops {
                let oldest = plain.pop_front();
                let popped = oldest.map(|one| (one, plain.front() == Some(&one)));
                prop_assert_eq!(runs.pop(), popped);
            }
            prop_assert_eq!(runs.newest(), plain.back().copied());
            let mut iter = runs.iter();
            for from_front in ends {
                let (one, other) = if from_front {
                    (iter.next(), plain.pop_front())
                } else {
                    (iter.next_back(), plain.pop_back())
                };
                prop_assert_eq!(one, other);
            }
        }
    }
}
