//! Whether a copy comes to an end, and what is done where it does not.
//!
//! ```text
//!   a round ended ─┬─ a tenth less was left than in the best before it ─▶ the copy follows: nothing is changed
//!                  └─ else it stalls ─▶ the pause allowed grows by a step: first … max
//!                                        │ all steps taken, and three more rounds stall
//!                                        ▼
//!                                     hopeless: the move gives it some seconds more, then gives it up
//! ```
//!
//! Judged by rounds, as oVirt does it ("convergence schedule" of VDSM, 100 to 500 ms): a guest that writes faster than the copy follows
//! leaves as much after each round as after the one before, however long rounds take. What is left is looked at several times in a round;
//! the most counts, which is what the round began with.
//!
//! **Invariant:** the pause allowed never shrinks, and is never longer than what was said at the beginning.

use std::time::Duration;

use super::hypervisor::CopyProgress;
use crate::units::Bytes;

/// Steps from the first pause to the longest.
const STEPS: u32 = 4;
/// Rounds that stall, with none better between them, before all is lost: one that gains little by little gains a tenth in three.
const STALLED_MIN: u32 = 3;

/// How a copy's rounds go.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Convergence {
    first: Duration,
    max: Duration,
    /// QEMU slows the guest down until it converges: it is given all the time that a copy may take.
    slows_down: bool,
    /// Steps taken.
    steps: u32,
    round: u32,
    /// Left at the beginning of this round, as far as was seen.
    left: Bytes,
    /// What the last round that was better than all before it began with.
    best: Option<Bytes>,
    /// Rounds that stalled since the last step, with no better one.
    stalled: u32,
}

impl Convergence {
    /// Of a copy that begins with a pause of `first`, of which up to `max` may become. `slows_down`: with auto-converge.
    pub fn new(first: Duration, max: Duration, slows_down: bool) -> Convergence {
        Convergence {
            first: first.min(max),
            max,
            slows_down,
            steps: 0,
            round: 0,
            left: Bytes(0),
            best: None,
            stalled: 0,
        }
    }

    /// The pause that is allowed now.
    pub fn allowed(&self) -> Duration {
        if self.steps == STEPS {
            return self.max;
        }
        self.first + (self.max - self.first) / STEPS * self.steps
    }

    /// The longest that will be.
    pub fn max(&self) -> Duration {
        self.max
    }

    /// Hears how far the copy is. Gives the pause to be allowed from now on, if it is another.
    pub fn heard(&mut self, progress: CopyProgress) -> Option<Duration> {
        if progress.rounds <= self.round {
            self.left = self.left.max(progress.remaining);
            return None;
        }
        let (ended, began_with) = (self.round, self.left);
        (self.round, self.left) = (progress.rounds, progress.remaining);
        if ended == 0 {
            return None;
        }
        // A tenth is within what one guest's rounds differ by; less than that from round to round adds up.
        if self.best.is_none_or(|best| began_with.0 < best.0 / 10 * 9) {
            (self.best, self.stalled) = (Some(began_with), 0);
            return None;
        }
        if self.steps == STEPS {
            self.stalled += 1;
            return None;
        }
        let before = self.allowed();
        self.steps += 1;
        Some(self.allowed()).filter(|allowed| *allowed > before)
    }

    /// Whether nothing that may be done is left to do.
    pub fn is_hopeless(&self) -> bool {
        self.stalled >= STALLED_MIN && !self.slows_down
    }

    /// Whether the longest pause is allowed, and did not suffice so far.
    pub fn all_is_allowed(&self) -> bool {
        self.steps == STEPS
    }

    /// Why it is given up, and what would help.
    pub fn why_hopeless(&self) -> String {
        let (rounds, mib) = (self.round, self.best.unwrap_or_default().0 >> 20);
        let pause = crate::policy::quantity::duration_text(self.max);
        let consent = if self.slows_down { "" } else { ", or the rule `auto-converge`" };
        format!(
            "the guest writes to its memory faster than the copy follows: {mib} MiB are left round after round, {rounds} by now, which does not fit into a \
             pause of {pause}; more copy.bandwidth, a longer copy.downtime_max or rule `downtime`{consent} would help"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(100);
    const MAX: Duration = Duration::from_millis(500);

    fn progress(rounds: u32, mib: u64) -> CopyProgress {
        CopyProgress { rounds, remaining: Bytes(mib << 20), ..CopyProgress::default() }
    }

    /// What is allowed after each of these rounds, by what they begin with; each is seen at its beginning and near its end.
    fn allowed(copy: &mut Convergence, rounds: &[u64]) -> Vec<u128> {
        let mut all = Vec::new();
        for (round, mib) in (1..).zip(rounds) {
            let raised = copy.heard(progress(round, *mib));
            assert_eq!(copy.heard(progress(round, mib / 3)), None, "a round counts once");
            assert!(raised.is_none_or(|raised| raised == copy.allowed()));
            all.push(copy.allowed().as_millis());
        }
        all
    }

    #[test]
    fn a_copy_that_follows_keeps_its_pause() {
        let mut copy = Convergence::new(FIRST, MAX, false);
        assert_eq!(allowed(&mut copy, &[1000, 500, 250, 125, 60, 30]), [100; 6]);
        assert!(!copy.is_hopeless());
    }

    #[test]
    fn one_that_stalls_is_given_a_longer_pause_step_by_step_and_then_no_more() {
        let mut copy = Convergence::new(FIRST, MAX, false);
        let rounds = [1000, 300, 300, 295, 300, 300];
        assert_eq!(allowed(&mut copy, &rounds), [100, 100, 100, 200, 300, 400]);
        assert!(!copy.is_hopeless());
        assert_eq!(copy.heard(progress(7, 300)), Some(MAX));
        for round in 8..11 {
            assert!(!copy.is_hopeless(), "the longest pause is given some rounds");
            assert_eq!(copy.heard(progress(round, 300)), None);
        }
        assert!(copy.is_hopeless());
        let why = copy.why_hopeless();
        assert!(why.contains("300 MiB") && why.contains("500ms"), "{why}");
    }

    #[test]
    fn one_that_gains_little_by_little_follows_all_the_same() {
        let mut copy = Convergence::new(FIRST, MAX, false);
        let lefts = std::iter::successors(Some(1_000_000_u64), |left| Some(left / 100 * 95));
        for (round, left) in (1..60).zip(lefts) {
            copy.heard(progress(round, left));
            assert!(!copy.is_hopeless(), "round {round}");
        }
    }

    #[test]
    fn a_better_round_gives_hope_again_and_takes_no_step_back() {
        let mut copy = Convergence::new(FIRST, MAX, false);
        allowed(&mut copy, &[300; 10]);
        assert!(copy.is_hopeless());
        for round in 11..14 {
            copy.heard(progress(round, 100));
            assert_eq!((copy.is_hopeless(), copy.allowed()), (round == 11, MAX), "round {round}");
        }
        copy.heard(progress(14, 100));
        copy.heard(progress(15, 100));
        assert!(copy.is_hopeless());
    }

    #[test]
    fn a_pause_that_may_not_grow_does_not_and_a_first_one_is_never_above_the_longest() {
        let mut copy = Convergence::new(FIRST, Duration::from_millis(30), false);
        assert_eq!(allowed(&mut copy, &[300; 9]), [30; 9]);
        assert!(copy.is_hopeless());
    }

    #[test]
    fn a_guest_that_is_slowed_down_is_not_given_up() {
        let mut copy = Convergence::new(FIRST, MAX, true);
        assert_eq!(allowed(&mut copy, &[300; 20]).last(), Some(&500));
        assert!(!copy.is_hopeless());
    }
}
