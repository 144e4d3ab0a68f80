//! The one place that reads the clock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use decide::policy::rules::hours::LocalTimes;
use decide::units::Time;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use tokio::time::Instant;

/// The agent's clock: monotonic for decisions, the wall clock for people.
///
/// `decide`'s time begins in 1970 by what the wall clock said when the agent started, so that a history that is kept over a
/// restart goes on where it was, and what a peer's history says of earlier times has its place too. From then on it is
/// monotonic: setting the wall clock changes nothing until the next start.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
    before: Time,
    /// What it is set to, if it does not go by itself.
    told: Option<&'static AtomicU64>,
}

impl Clock {
    /// A clock that starts now.
    #[must_use]
    pub fn start() -> Clock {
        Clock { started: Instant::now(), before: Time(unix_micros()), told: None }
    }

    /// One that stands at what it is told, microseconds since 1970, also for people: for hosts that are simulated.
    #[must_use]
    pub fn told(now: &'static AtomicU64) -> Clock {
        Clock { told: Some(now), ..Clock::start() }
    }

    /// Now, for decisions.
    #[must_use]
    pub fn now(&self) -> Time {
        match self.told {
            Some(now) => Time(now.load(Ordering::Relaxed)),
            None => self.before.plus(self.started.elapsed()),
        }
    }

    /// When `at` will be, for a timer.
    #[must_use]
    pub fn instant(&self, at: Time) -> Instant {
        self.started + at.since(self.before)
    }

    /// The wall clock now.
    #[must_use]
    pub fn timestamp(&self) -> Timestamp {
        match self.told.map(|now| i64::try_from(now.load(Ordering::Relaxed))) {
            Some(micros) => micros
                .ok()
                .and_then(|micros| Timestamp::from_microsecond(micros).ok())
                .unwrap_or(Timestamp::UNIX_EPOCH),
            None => Timestamp::now(),
        }
    }

    /// The wall clock at `at`, RFC 3339 in UTC with milliseconds.
    #[must_use]
    pub fn wall(&self, at: Time) -> String {
        let then = self.timestamp().checked_sub(self.now().since(at));
        format!("{:.3}", then.unwrap_or(Timestamp::UNIX_EPOCH))
    }
}

/// Seconds since 1970, for what must grow from one journal to the next.
#[must_use]
pub fn unix_seconds() -> u32 {
    u32::try_from(Timestamp::now().as_second()).unwrap_or(u32::MAX)
}

/// A second since 1970, for people: RFC 3339 in UTC.
#[must_use]
pub fn date(second: u64) -> String {
    let at = i64::try_from(second).ok().and_then(|second| Timestamp::from_second(second).ok());
    at.map_or_else(|| "never".to_owned(), |at| at.to_string())
}

/// Microseconds since 1970, for people.
#[must_use]
pub fn unix_micros() -> u64 {
    u64::try_from(Timestamp::now().as_microsecond()).unwrap_or_default()
}

/// What the calendar says now, in these time zones; one that the machine does not know is left out.
#[must_use]
pub fn local_times<'a>(zones: impl Iterator<Item = &'a str>) -> LocalTimes {
    let now = Timestamp::now();
    let minute = |zone: &str| {
        let there = now.to_zoned(TimeZone::get(zone).ok()?);
        let day = i32::from(there.weekday().to_monday_zero_offset());
        let minute = day * 24 * 60 + i32::from(there.hour()) * 60 + i32::from(there.minute());
        Some((zone.to_owned(), u16::try_from(minute).ok()?))
    };
    let unix = u64::try_from(now.as_second()).unwrap_or_default();
    LocalTimes { unix, zones: zones.filter_map(minute).collect() }
}

/// Whether the machine knows this time zone.
///
/// # Errors
/// If it does not.
pub fn know_zone(zone: &str) -> anyhow::Result<()> {
    TimeZone::get(zone).map(drop).with_context(|| format!("there is no time zone {zone:?}"))
}

/// How often the monitor reads.
pub const CYCLE: Duration = Duration::from_secs(1);
