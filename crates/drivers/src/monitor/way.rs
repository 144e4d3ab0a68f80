//! A way to ask the kernel that may fail, and is then tried again after a while.
//!
//! ```text
//!   Closed ── opened ──▶ Open ── an answer fails ──▶ Closed, for `AGAIN_AFTER`
//!      └── the kernel has no such thing ──▶ Absent
//! ```
//!
//! **Invariant:** after a failure the way is opened anew: rests of an answer cut short stay in the old socket.
//! **Invariant:** what the kernel does not have is looked for once: each time it would run modprobe for it.

use std::time::Duration;

use tokio::time::Instant;

use super::MonitorError;

/// How long after a failure the next try is made.
const AGAIN_AFTER: Duration = Duration::from_mins(1);

/// One way.
#[derive(Debug)]
pub(super) enum Way<T> {
    /// To be used.
    Open(T),
    /// Not opened yet, or since it failed.
    Closed {
        /// When it failed.
        failed: Option<Instant>,
    },
    /// The kernel has no such thing.
    Absent,
}

impl<T> Way<T> {
    /// Never opened.
    pub(super) fn new() -> Way<T> {
        Way::Closed { failed: None }
    }

    /// Opens the way if it is time, and asks; none if it is closed. An error closes it.
    pub(super) fn ask<A>(
        &mut self,
        now: Instant,
        open: impl FnOnce() -> Result<Option<T>, MonitorError>,
        ask: impl FnOnce(&mut T) -> Result<A, MonitorError>,
    ) -> Option<Result<A, MonitorError>> {
        let asked = self.opened(now, open).and_then(|way| way.map(ask).transpose());
        if asked.is_err() {
            *self = Way::Closed { failed: Some(now) };
        }
        asked.transpose()
    }

    fn opened(
        &mut self,
        now: Instant,
        open: impl FnOnce() -> Result<Option<T>, MonitorError>,
    ) -> Result<Option<&mut T>, MonitorError> {
        if let Way::Closed { failed } = self
            && failed.is_none_or(|failed| now.duration_since(failed) >= AGAIN_AFTER)
        {
            *self = open()?.map_or(Way::Absent, Way::Open);
        }
        match self {
            Way::Open(way) => Ok(Some(way)),
            Way::Closed { .. } | Way::Absent => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    fn broken() -> MonitorError {
        MonitorError::unreadable("a test", Errno::TIMEDOUT)
    }

    #[test]
    fn what_failed_is_opened_anew_after_a_while_and_not_before() {
        let (mut way, now) = (Way::new(), Instant::now());
        assert!(matches!(way.ask(now, || Ok(Some(1)), |way| Ok(*way)), Some(Ok(1))));
        let fails = way.ask(now, || panic!("it is open"), |_| Err::<(), _>(broken()));
        assert!(matches!(fails, Some(Err(_))));
        let soon = now + AGAIN_AFTER - Duration::from_millis(1);
        assert!(way.ask(soon, || panic!("too soon"), |way| Ok(*way)).is_none());
        let late = now + AGAIN_AFTER;
        assert!(matches!(way.ask(late, || Err(broken()), |way| Ok(*way)), Some(Err(_))));
        assert!(way.ask(late, || panic!("too soon"), |way| Ok(*way)).is_none());
        let later = late + AGAIN_AFTER;
        assert!(matches!(way.ask(later, || Ok(Some(2)), |way| Ok(*way)), Some(Ok(2))));
    }

    #[test]
    fn what_the_kernel_does_not_have_is_looked_for_once() {
        let (mut way, now) = (Way::<u8>::new(), Instant::now());
        assert!(way.ask(now, || Ok(None), |way| Ok(*way)).is_none());
        let never = now + AGAIN_AFTER * 1000;
        assert!(way.ask(never, || panic!("it is known"), |way| Ok(*way)).is_none());
    }
}
