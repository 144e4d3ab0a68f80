//! The machine's clocks, which tell how long something took; nothing that is simulated knows of them.

use std::time::Duration;

pub(crate) use rustix::time::ClockId;
use rustix::time::clock_gettime;

/// What a clock says.
pub(crate) fn time(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}
