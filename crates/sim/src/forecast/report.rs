//! The figures, for people and for programs.

use std::fmt::Write as _;

use serde::Serialize;

use super::score::Measure;

/// At one hour forecasts must be better than the best of the others by this.
const RATIO_MAX: f64 = 0.95;

/// Errors of one load at one horizon.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Trace and day judged.
    pub trace: String,
    /// cpu, memory or network.
    pub load: &'static str,
    /// Whether constants were chosen on this day.
    pub tuned_on: bool,
    /// How far ahead.
    pub horizon: &'static str,
    /// Error of the forecast, percent.
    pub ours: f64,
    /// Of "same as now".
    pub now: f64,
    /// Of the mean of the last 30 minutes.
    pub half_hour: f64,
    /// Of "same as yesterday", where yesterday is in the trace.
    pub yesterday: Option<f64>,
    /// Ours over the best of the others.
    pub ratio: f64,
}

/// How often the hour's highest quarter stayed below the peak that was forecast, and at what price.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Peaks {
    /// Trace and day judged.
    pub trace: String,
    /// cpu, memory or network.
    pub load: &'static str,
    /// Hours judged.
    pub hours: u64,
    /// Share of hours that stayed below the forecast's peak.
    pub below: f64,
    /// By how much that peak was above the hour's on average, percent as in [`Row`]; negative: below.
    pub above: f64,
    /// The same of a peak taken to be that of the hour before.
    pub below_hour_before: f64,
    /// The same of a peak taken to be that of the hour before.
    pub above_hour_before: f64,
}

/// All figures.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// A row per trace, load and horizon.
    pub rows: Vec<Row>,
    /// Peaks, per trace and load.
    pub peaks: Vec<Peaks>,
    /// Processor time of one forecast from 30 days of quarters, microseconds; read, not judged.
    pub us_per_series: f64,
    /// Whether, at one hour and on the days that were not tuned on, the forecast of processor use was better by 5 %.
    pub ok: bool,
}

impl Row {
    pub(super) fn new(
        measure: &Measure,
        horizon: &'static str,
        ours: f64,
        now: f64,
        half_hour: f64,
        yesterday: Option<f64>,
    ) -> Row {
        let best = yesterday.unwrap_or(now).min(now).min(half_hour);
        // A load that never changes: all are right.
        let ratio = if best > 0.0 { ours / best } else { 1.0 };
        let (trace, load, tuned_on) = (measure.trace.clone(), measure.load, measure.tuned_on);
        Row { trace, load, tuned_on, horizon, ours, now, half_hour, yesterday, ratio }
    }
}

impl Peaks {
    pub(super) fn of(measure: &Measure) -> Peaks {
        Peaks { trace: measure.trace.clone(), load: measure.load, ..Peaks::default() }
    }

    /// One hour whose highest quarter was `came`.
    pub(super) fn add(&mut self, came: f64, said: f64, hour_before: f64, scale: f64) {
        self.hours += 1;
        self.below += f64::from(u8::from(came <= said));
        self.below_hour_before += f64::from(u8::from(came <= hour_before));
        self.above += (said - came) * scale;
        self.above_hour_before += (hour_before - came) * scale;
    }

    pub(super) fn close(&mut self) {
        let hours = self.hours.max(1) as f64;
        for sum in [
            &mut self.below,
            &mut self.above,
            &mut self.below_hour_before,
            &mut self.above_hour_before,
        ] {
            *sum /= hours;
        }
    }
}

impl Report {
    /// All rows are in.
    pub fn close(&mut self) {
        let judged = |row: &&Row| !row.tuned_on && row.load == "cpu" && row.horizon == "60 min";
        let mut judged = self.rows.iter().filter(judged).peekable();
        self.ok = judged.peek().is_some() && judged.all(|row| row.ratio <= RATIO_MAX);
    }

    /// In Markdown, so that it can go into docs/benchmarks.md as it is.
    pub fn table(&self) -> String {
        let mut text = "| trace, load | ahead | forecast | same as now | mean of 30 min | same as yesterday | over the best |\n|---|---|---|---|---|---|---|\n".to_owned();
        for row in &self.rows {
            let tuned = if row.tuned_on { " (tuned on)" } else { "" };
            let yesterday = row.yesterday.map_or(String::new(), |error| format!("{error:.2}"));
            let Row { trace, load, horizon, ours, now, half_hour, ratio, .. } = row;
            let _ = writeln!(
                text,
                "| {trace} {load}{tuned} | {horizon} | {ours:.2} | {now:.2} | {half_hour:.2} | {yesterday} | {ratio:.3} |"
            );
        }
        text.push_str("\n| trace, load | hours below the peak forecast | that peak above the hour's | hours below the hour before's | above |\n|---|---|---|---|---|\n");
        for peaks in &self.peaks {
            let Peaks { trace, load, below, above, below_hour_before, above_hour_before, .. } =
                peaks;
            let (below, below_hour_before) = (below * 100.0, below_hour_before * 100.0);
            let _ = writeln!(
                text,
                "| {trace} {load} | {below:.1} % | {above:.2} | {below_hour_before:.1} % | {above_hour_before:.2} |"
            );
        }
        let _ = writeln!(text, "\none forecast from 30 days: {:.1} µs", self.us_per_series);
        text
    }
}
