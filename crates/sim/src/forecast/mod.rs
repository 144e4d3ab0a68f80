//! How far forecasts are from what came, on real traces, beside what needs no forecasting: "same as now", the mean of the last
//! 30 minutes, and "same as yesterday".
//!
//! Errors are mean absolute errors, first over a VM's slots, then over VMs, so that a busy VM counts no more than an idle
//! one. Processor and memory in percent of what the VM may have; traffic in percent of the VM's own mean over the trace, of
//! VMs with more than [`TRAFFIC_MIN`]. All methods are judged at the same slots: those at which each has what it needs.

use std::hint::black_box;

use decide::usage::forecast::{DAY, Past, QUARTERS_MAX, forecast};

use crate::time::{ClockId, time};

mod report;
mod score;

pub use report::{Peaks, Report, Row};
pub use score::{Measure, measures, score};

/// KB/s of a VM's mean traffic, below which percent of it say nothing.
pub const TRAFFIC_MIN: f64 = 1.0;

/// Processor time of one forecast from 30 days of quarters, in microseconds: of a load with days, weeks and noise.
pub fn us_per_series() -> f64 {
    const ROUNDS: u32 = 200;
    let load =
        |at: usize| Some((at % DAY) as f64 + (at / DAY % 7) as f64 + (at * 7919 % 13) as f64);
    let quarters: Vec<Option<f64>> = (0..QUARTERS_MAX).map(load).collect();
    let past = Past { quarters: &quarters, now: load(1), before: load(2), open: 0 };
    let before = time(ClockId::ThreadCPUTime);
    for _ in 0..ROUNDS {
        black_box(forecast(black_box(past)));
    }
    let took = time(ClockId::ThreadCPUTime).saturating_sub(before);
    took.as_secs_f64() * 1e6 / f64::from(ROUNDS)
}
