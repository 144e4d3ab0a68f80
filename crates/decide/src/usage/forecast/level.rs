//! Where a load stands now, and how much of now's distance from that stays.

/// One, three and six hours, in quarters.
const WINDOWS: [usize; 3] = [4, 12, LOOK_BACK];
/// Quarters of the longest window.
pub(super) const LOOK_BACK: usize = 24;
/// Parts of the distance that may stay.
const PARTS: [f64; 5] = [0.0, 0.25, 0.5, 0.75, 1.0];
/// Less stays unless more would have been better by this: six hours tell no more than that from chance.
const CLEARLY: f64 = 1.2;

/// The median of the newest slots and of the medians of all windows, gaps left out. `None` if there are only gaps.
pub(super) fn level(newest: [Option<f64>; 2], newest_first: &[Option<f64>]) -> Option<f64> {
    let mut voices = Sorted::<{ 2 + WINDOWS.len() }>::default();
    newest.into_iter().flatten().for_each(|value| voices.insert(value));
    // One sorted list grows from window to window.
    let mut sorted = Sorted::<LOOK_BACK>::default();
    let mut from = 0;
    for window in WINDOWS {
        let to = window.min(newest_first.len());
        newest_first[from..to].iter().flatten().for_each(|value| sorted.insert(*value));
        from = to;
        sorted.middle().into_iter().for_each(|median| voices.insert(median));
    }
    voices.middle()
}

/// At most `N` values in their order.
struct Sorted<const N: usize> {
    values: [f64; N],
    len: usize,
}

impl<const N: usize> Default for Sorted<N> {
    fn default() -> Self {
        Sorted { values: [0.0; N], len: 0 }
    }
}

impl<const N: usize> Sorted<N> {
    fn insert(&mut self, value: f64) {
        let mut at = self.len;
        while at > 0 && self.values[at - 1] > value {
            self.values[at] = self.values[at - 1];
            at -= 1;
        }
        self.values[at] = value;
        self.len += 1;
    }

    /// The middle one, or the middle between two.
    fn middle(&self) -> Option<f64> {
        let half = self.len / 2;
        match self.len {
            0 => None,
            odd if odd % 2 == 1 => Some(self.values[half]),
            _ => Some((self.values[half - 1] + self.values[half]) / 2.0),
        }
    }
}

/// The part of now's distance from the level that stays for so many quarters: the least that was not clearly worse than the
/// best one.
pub(super) fn damping(newest_first: &[Option<f64>], level: f64, quarters: usize) -> f64 {
    let mut errors = [0.0; PARTS.len()];
    for (later, earlier) in newest_first.iter().zip(newest_first.iter().skip(quarters)) {
        let (Some(later), Some(earlier)) = (later, earlier) else { continue };
        let (later, earlier) = (later - level, earlier - level);
        for (error, part) in errors.iter_mut().zip(PARTS) {
            *error += size(later - part * earlier);
        }
    }
    let least = errors.iter().fold(errors[0], |least, e| if *e < least { *e } else { least });
    let part = errors.iter().zip(PARTS).find(|(error, _)| **error <= least * CLEARLY);
    part.map_or(0.0, |(_, part)| part)
}

pub(super) fn size(value: f64) -> f64 {
    if value < 0.0 { -value } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(values: &[f64]) -> Vec<Option<f64>> {
        values.iter().copied().map(Some).collect()
    }

    #[test]
    fn a_single_jump_does_not_move_the_level() {
        let values = some(&[10.0; LOOK_BACK]);
        assert_eq!(level([Some(90.0), Some(10.0)], &values), Some(10.0));
        assert_eq!(level([Some(90.0), Some(80.0)], &values), Some(10.0));
    }

    #[test]
    fn one_value_is_a_level_and_none_is_not() {
        assert_eq!(level([Some(7.0), None], &[]), Some(7.0));
        assert_eq!(level([None, None], &[None, None]), None);
        assert_eq!(level([None, None], &[None, Some(3.0)]), Some(3.0));
    }

    #[test]
    fn windows_that_are_gaps_have_no_voice() {
        let mut values = vec![None; 4];
        values.extend(some(&[5.0; 8]));
        values.extend(some(&[9.0; 12]));
        assert_eq!(level([None, None], &values), Some(7.0));
    }

    #[test]
    fn what_stayed_before_stays_and_what_came_back_does_not() {
        // Steps that last: now is the best guess. Jumps of one quarter: the level is.
        let steps: Vec<f64> = (0..24).map(|back| f64::from(20 * ((back / 8 + 1) % 2))).collect();
        assert!(damping(&some(&steps), 10.0, 1) > 0.9);
        let jumps: Vec<f64> = (0..24).map(|back| if back % 9 == 0 { 50.0 } else { 10.0 }).collect();
        assert!(damping(&some(&jumps), 10.0, 1) < 0.1);
    }
}
