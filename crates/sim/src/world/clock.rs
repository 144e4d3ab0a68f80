//! A host's clock, which begins anywhere and runs at a rate of its own.

use decide::units::Time;

const MILLION: u128 = 1_000_000;

/// Turns the simulation's time into a host's, and back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// Since when it runs at its rate, in the simulation's time and in its own.
    since: (Time, Time),
    /// Its microseconds in a million of the simulation's.
    rate: u32,
}

impl Default for Clock {
    fn default() -> Clock {
        Clock { since: (Time(0), Time(0)), rate: 1_000_000 }
    }
}

impl Clock {
    /// A clock that shows `shown` at `now` and gains (or loses) so many millionths.
    pub fn new(now: Time, shown: Time, drift: i32) -> Clock {
        let mut clock = Clock { since: (now, shown), ..Clock::default() };
        clock.drift(now, drift);
        clock
    }

    /// From now on it gains (or loses) so many millionths.
    pub fn drift(&mut self, now: Time, drift: i32) {
        self.since = (now, self.shown(now));
        self.rate = 1_000_000_u32.saturating_add_signed(drift).max(1);
    }

    /// Whether it keeps time.
    pub fn is_true(&self) -> bool {
        self.rate == 1_000_000
    }

    /// What it shows.
    pub fn shown(&self, now: Time) -> Time {
        let passed = u128::from(now.0.saturating_sub(self.since.0.0));
        Time(self.since.1.0.saturating_add(whole(passed * u128::from(self.rate) / MILLION)))
    }

    /// The first instant at which it shows this, or more.
    pub fn when(&self, shown: Time) -> Time {
        let passed = u128::from(shown.0.saturating_sub(self.since.1.0));
        let passed = (passed * MILLION).div_ceil(u128::from(self.rate));
        Time(self.since.0.0.saturating_add(whole(passed)))
    }
}

fn whole(micros: u128) -> u64 {
    u64::try_from(micros).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_shows_what_is_waited_for_when_it_says_so() {
        for drift in [-50_000, -1, 0, 7, 50_000] {
            let clock = Clock::new(Time(17), Time(1_000_003), drift);
            for shown in (1_000_003..1_100_000).step_by(977) {
                let when = clock.when(Time(shown));
                assert!(clock.shown(when) >= Time(shown), "{drift} {shown}");
                assert!(when.0 == 17 || clock.shown(Time(when.0 - 1)) < Time(shown), "{drift}");
            }
        }
    }

    #[test]
    fn a_clock_never_goes_back_when_its_rate_changes() {
        let mut clock = Clock::new(Time(0), Time(5), 50_000);
        let before = clock.shown(Time(1_000_000));
        clock.drift(Time(1_000_000), -50_000);
        assert_eq!(clock.shown(Time(1_000_000)), before);
        assert_eq!(clock.shown(Time(2_000_000)).since(before).as_millis(), 950);
    }
}
