//! Waiting: a host that looked in vain for a VM to move looks again later and later, and every host can tell how long it will do
//! nothing by itself.

use super::Host;
use super::others::MEAN_EVERY;
use crate::units::Time;
use crate::usage::FORECAST_EVERY;

/// After a look in vain the next comes when the others may have been gone through again; after another one twice as long, and so on.
const DOUBLINGS_MAX: u32 = 2;

/// What a host does by itself, or why nothing.
#[derive(Clone, Debug, Default)]
pub(super) struct Doing {
    pub(super) words: String,
    waits: Waits,
}

/// How long readings that say what the last one said change nothing about what a host does.
#[derive(Clone, Copy, Debug, Default)]
enum Waits {
    /// The next may.
    #[default]
    Not,
    Until(Time),
    /// Until the other hosts are gone through again, if they are not told anew before: they had been told so often.
    ForOthers(u64),
}

impl Doing {
    /// The next reading may change it.
    pub(super) fn now(words: String) -> Doing {
        Doing { words, waits: Waits::Not }
    }

    /// Nothing else until then.
    pub(super) fn until(until: Time, words: String) -> Doing {
        Doing { words, waits: Waits::Until(until) }
    }

    /// Nothing, by what this host and the others are like; these had been told so often.
    pub(super) fn calm(words: String, told: u64) -> Doing {
        Doing { words, waits: Waits::ForOthers(told) }
    }

    /// Something has come: what is done is for the next reading to say.
    pub(super) fn may_change(&mut self) {
        self.waits = Waits::Not;
    }

    /// The same in other words.
    pub(super) fn said(self, words: impl FnOnce(String) -> String) -> Doing {
        Doing { words: words(self.words), ..self }
    }
}

/// A VM that would even out hosts was looked for, and none was found.
#[derive(Clone, Debug)]
pub(super) struct InVain {
    why: String,
    /// How often in a row before.
    times: u32,
    /// None is looked for before.
    pub(super) until: Time,
}

impl InVain {
    /// For the first time.
    pub(super) fn first(now: Time, why: String) -> InVain {
        InVain::again(None, now, why)
    }

    /// Once more, if that before was of late.
    pub(super) fn again(before: Option<InVain>, now: Time, why: String) -> InVain {
        let before = before.filter(|before| now.since(before.until) < MEAN_EVERY);
        let times = before.map_or(0, |before| before.times.saturating_add(1));
        let wait = MEAN_EVERY.saturating_mul(1 << times.min(DOUBLINGS_MAX));
        InVain { why, times, until: now.plus(wait) }
    }

    /// Why none was found, while none is looked for again.
    pub(super) fn holds(&self, now: Time) -> Option<&str> {
        (now < self.until).then_some(&*self.why)
    }
}

impl Host {
    /// Until when readings that say what the last one said have this host do nothing: only another event can. `None`: the next one
    /// may. Of use where the others are as told ([`Host::tell_views`]): a host that gossips speaks by its readings.
    pub fn waits_until(&self, now: Time) -> Option<Time> {
        let open = !self.outgoing.is_empty()
            || !self.incoming.is_empty()
            || !self.agreed.is_empty()
            || !self.arrived.is_empty()
            || !self.foreign.is_empty();
        // A threshold that is crossed makes a host hot by time alone.
        let heats = self.hot.crossed().next().is_some() && self.noted_hot.is_none();
        let read = self.usage.read()?;
        if open || heats || read < self.usage.settled() || !self.membership.is_told() {
            return None;
        }
        // Within that time each VM is forecast anew; what makes a host hot by that lasts longer anyway.
        let forecast = read.plus(FORECAST_EVERY);
        let measured = self.pay_backs.next().unwrap_or(forecast);
        let asked = match self.doing.waits {
            Waits::Not => return None,
            Waits::Until(until) => until,
            Waits::ForOthers(told) if told != self.membership.told_times() => return None,
            Waits::ForOthers(_) => self.others_hold_until(),
        };
        let until = asked.min(forecast).min(measured);
        (now < until).then_some(until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(n: u64) -> Time {
        Time(n * 1_000_000)
    }

    #[test]
    fn looks_in_vain_come_later_and_later_up_to_two_minutes() {
        let mut last = None;
        let mut now = 0;
        let waits = [(); 5].map(|()| {
            let next = InVain::again(last.take(), second(now), "none".to_owned());
            let wait = next.until.since(second(now)).as_secs();
            assert_eq!(next.holds(second(now + wait - 1)), Some("none"));
            assert_eq!(next.holds(second(now + wait)), None);
            // The reading after that.
            now += wait + 1;
            last = Some(next);
            wait
        });
        assert_eq!(waits, [30, 60, 120, 120, 120]);
        let evening = InVain::again(last, second(now + 36_000), "none".to_owned());
        assert_eq!(evening.until.since(second(now + 36_000)).as_secs(), 30, "not in a row");
    }
}
