//! Seeds side by side, one to a processor at a time. Which thread lives a seed changes nothing of it.
//!
//! The clocks read here tell how long it took; nothing in a seed's life knows of them.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Life, Options, Report, live, replay};
use crate::time::{ClockId, time};

/// When it is enough.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// So many seeds.
    Seeds(u64),
    /// No seed is begun after this long.
    Passed(Duration),
}

/// Lives seeds from `first` on; `told` hears of each that is over, in no particular order.
pub fn swarm(
    first: u64,
    until: Until,
    options: &Options,
    plant: Option<&str>,
    told: &(dyn Fn(&Life, u64) + Sync),
) -> Report {
    let began = time(ClockId::Monotonic);
    let next = AtomicU64::new(0);
    let report = Mutex::new(Report::new(first, options.hosts));
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    let one_after_the_other = || {
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            let enough = match until {
                Until::Seeds(seeds) => n >= seeds,
                Until::Passed(span) => time(ClockId::Monotonic).saturating_sub(began) >= span,
            };
            if enough {
                return;
            }
            let before = time(ClockId::ThreadCPUTime);
            let life = live(first.wrapping_add(n), options);
            let took = time(ClockId::ThreadCPUTime).saturating_sub(before);
            let mut report = report.lock().expect("no thread panics while it holds the report");
            report.add(&life, took, |seed| replay(seed, options, plant));
            told(&life, report.seeds);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(one_after_the_other);
        }
    });
    let mut report = report.into_inner().expect("no thread panics while it holds the report");
    report.close();
    report
}
