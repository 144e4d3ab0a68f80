//! foca's timers, in the order in which they end.
//!
//! **Invariant:** two timers that end together fire in the order in which they were set.

use std::collections::BTreeMap;

use foca::Timer;

use super::identity::Identity;
use crate::units::Time;

#[derive(Debug, Default)]
pub(super) struct Timers {
    queue: BTreeMap<(Time, u64), Timer<Identity>>,
    set: u64,
}

impl Timers {
    pub(super) fn set(&mut self, at: Time, timer: Timer<Identity>) {
        if let Timer::RemoveDown(gone) = &timer {
            // These run for a day. foca keeps one entry for each host, so only the last can still be meant; without this a
            // host that comes and goes would pile them up.
            let host = gone.peer.host;
            self.queue
                .retain(|_, other| !matches!(other, Timer::RemoveDown(id) if id.peer.host == host));
        }
        self.set += 1;
        self.queue.insert((at, self.set), timer);
    }

    pub(super) fn pop_due(&mut self, now: Time) -> Option<Timer<Identity>> {
        let first = self.queue.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        self.queue.first_key_value().map(|((at, _), _)| *at)
    }
}
