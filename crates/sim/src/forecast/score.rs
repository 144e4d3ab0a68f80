//! Goes through a trace slot by slot, forecasts with what was known, and looks what came.

use std::path::Path;

use decide::usage::forecast::{Forecast, HORIZONS, Past, forecast};

use super::TRAFFIC_MIN;
use super::report::{Peaks, Row};
use crate::traces::{Guest, SLOTS_A_DAY, bitbrains, planetlab};

/// Slots in a quarter.
const QUARTER: usize = 3;
/// Slots in an hour: no forecast is judged before an hour is known.
const HOUR: usize = 12;
/// Slots of the mean that forecasts are held against.
const HALF_HOUR: usize = 6;

/// One load of all VMs of a trace, of which the last day is judged.
#[derive(Debug)]
pub struct Measure {
    /// Which trace and day.
    pub trace: String,
    /// Which load.
    pub load: &'static str,
    /// Whether constants were chosen by it.
    pub tuned_on: bool,
    /// Where judging begins.
    pub from: usize,
    /// Each VM's, and what 100 % of it is.
    pub series: Vec<(Vec<Option<f64>>, f64)>,
}

/// All that is measured. Constants were chosen on PlanetLab's 3 March and Bitbrains' first two days, never on the others.
///
/// # Errors
/// If a trace is not there or cannot be read.
pub fn measures(traces: &Path) -> anyhow::Result<Vec<Measure>> {
    let mut all = Vec::new();
    for (day, tuned_on) in [("20110303", true), ("20110306", false), ("20110309", false)] {
        let series = planetlab(traces, day)?.into_iter().map(|guest| (guest.cpu, 100.0)).collect();
        let trace = format!("PlanetLab {day}");
        all.push(Measure { trace, load: "cpu", tuned_on, from: HOUR, series });
    }
    let days = ["2013-07-01", "2013-07-02", "2013-07-03"];
    for (known, tuned_on) in [(2, true), (3, false)] {
        let guests = bitbrains(traces, &days[..known])?;
        let from = (known - 1) * SLOTS_A_DAY;
        let measure = |load, series| Measure {
            trace: format!("Bitbrains {}", days[known - 1]),
            load,
            tuned_on,
            from,
            series,
        };
        let of = |load: fn(&Guest) -> &Vec<Option<f64>>| {
            guests.iter().map(|guest| (load(guest).clone(), 100.0)).collect()
        };
        all.push(measure("cpu", of(|guest| &guest.cpu)));
        all.push(measure("memory", of(|guest| &guest.memory)));
        let traffic = guests.iter().filter_map(|guest| {
            let mean = mean(&guest.network).filter(|mean| *mean > TRAFFIC_MIN)?;
            Some((guest.network.clone(), mean))
        });
        all.push(measure("network", traffic.collect()));
    }
    Ok(all)
}

/// Errors of one method at each horizon, and of the hour's mean.
type Errors = [f64; HORIZONS.len() + 1];

/// Judges the last day of a load: a row per horizon, and the peaks.
pub fn score(measure: &Measure) -> (Vec<Row>, Peaks) {
    let mut sums = [Errors::default(); 4];
    let (mut vms, mut peaks) = (0.0, Peaks::of(measure));
    let yesterdays = measure.from >= SLOTS_A_DAY;
    for (series, whole) in &measure.series {
        let Some(of_vm) = one(series, measure.from, yesterdays, &mut peaks, 100.0 / whole) else {
            continue;
        };
        vms += 1.0;
        for (sums, errors) in sums.iter_mut().zip(of_vm) {
            sums.iter_mut().zip(errors).for_each(|(sum, e)| *sum += e * 100.0 / whole);
        }
    }
    peaks.close();
    let [ours, now, half_hour, yesterday] = sums.map(|errors| errors.map(|sum| sum / vms));
    let names = ["5 min", "15 min", "30 min", "60 min", "the hour's mean"];
    let row = |(at, horizon): (usize, &&'static str)| {
        let day_before = yesterdays.then_some(yesterday[at]);
        Row::new(measure, horizon, ours[at], now[at], half_hour[at], day_before)
    };
    (names.iter().enumerate().map(row).collect(), peaks)
}

/// One VM's mean errors by method; `None` if there was nothing to judge.
fn one(
    series: &[Option<f64>],
    from: usize,
    yesterdays: bool,
    peaks: &mut Peaks,
    scale: f64,
) -> Option<[Errors; 4]> {
    let quarters: Vec<Option<f64>> = series.chunks_exact(QUARTER).map(mean).collect();
    let mut sums = [Errors::default(); 4];
    let mut judged = 0.0;
    // `known` slots are known: the last of them is now.
    for known in from.max(1)..=series.len() - HOUR {
        let (Some(now), coming) = (series[known - 1], &series[known..known + HOUR]) else {
            continue;
        };
        let Some(coming) = coming.iter().copied().collect::<Option<Vec<f64>>>() else { continue };
        let before = yesterday(series, known, yesterdays).unwrap_or_default();
        if yesterdays && before.is_empty() {
            continue;
        }
        let (quarters, open) = (&quarters[..known / QUARTER], known % QUARTER);
        let before_now = known.checked_sub(2).and_then(|at| series[at]);
        let past = Past { quarters, now: Some(now), before: before_now, open };
        let Some(ours) = forecast(past) else { continue };
        let half_hour = mean(&series[known.saturating_sub(HALF_HOUR)..known]).unwrap_or(now);
        let hour = |value: f64| [value; HOUR];
        judged += 1.0;
        add(&mut sums[0], &coming, &by_horizon(&ours));
        add(&mut sums[1], &coming, &of_hour(&hour(now)));
        add(&mut sums[2], &coming, &of_hour(&hour(half_hour)));
        if yesterdays {
            add(&mut sums[3], &coming, &of_hour(&before));
        }
        let hour_before: Vec<f64> =
            series[known.saturating_sub(HOUR)..known].iter().flatten().copied().collect();
        peaks.add(highest_quarter(&coming), ours.peak, highest_quarter(&hour_before), scale);
    }
    (judged > 0.0).then(|| sums.map(|errors| errors.map(|sum| sum / judged)))
}

/// The hour to come, as it was a day ago; `None` where a slot of it is missing.
fn yesterday(series: &[Option<f64>], known: usize, wanted: bool) -> Option<Vec<f64>> {
    let from = wanted.then(|| known.checked_sub(SLOTS_A_DAY)).flatten()?;
    series[from..from + HOUR].iter().copied().collect()
}

fn by_horizon(ours: &Forecast) -> Errors {
    let [a, b, c, d] = ours.ahead;
    [a, b, c, d, ours.mean]
}

/// What a forecast of each slot says at each horizon, and of the hour's mean.
fn of_hour(slots: &[f64]) -> Errors {
    let [a, b, c, d] = HORIZONS.map(|horizon| slots[horizon - 1]);
    [a, b, c, d, slots.iter().sum::<f64>() / HOUR as f64]
}

fn add(sums: &mut Errors, came: &[f64], said: &Errors) {
    let came = of_hour(came);
    sums.iter_mut().zip(came).zip(said).for_each(|((sum, came), said)| *sum += (came - said).abs());
}

/// The highest mean of a quarter.
fn highest_quarter(slots: &[f64]) -> f64 {
    let means = slots.chunks(QUARTER).map(|slots| slots.iter().sum::<f64>() / slots.len() as f64);
    means.fold(0.0, f64::max)
}

/// The mean of what was measured.
fn mean(slots: &[Option<f64>]) -> Option<f64> {
    let known: Vec<f64> = slots.iter().flatten().copied().collect();
    (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64)
}
