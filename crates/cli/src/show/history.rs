//! A usage history as a table, as comma-separated values, or drawn.

use api::{HistoryView, Series};

use super::table::{Table, cell};
use super::{figures, plot};
use crate::screen::Look;

/// Each metric over the whole time in a line, and where the VM was before.
pub(crate) fn history(view: &HistoryView, look: Look) -> String {
    let mut text = head(view);
    let mut table = Table::new(look).words("METRIC").figures("LEAST").figures("MEAN");
    table = table.figures("P95").figures("MOST").figures("NEWEST");
    for series in &view.metrics {
        let Series { metric, unit, min, mean, max, p95 } = series;
        let count = u64::try_from(mean.len()).unwrap_or(u64::MAX).max(1);
        let sum = mean.iter().fold(0u64, |sum, value| sum.saturating_add(*value));
        let figure = |value: Option<u64>| cell(value.map_or(String::new(), |v| with(v, unit)));
        table.row(vec![
            cell(metric),
            figure(min.iter().min().copied()),
            figure(mean.first().map(|_| sum / count)),
            figure(p95.iter().max().copied()),
            figure(max.iter().max().copied()),
            figure(mean.last().copied()),
        ]);
    }
    text += &table.text();
    for stay in &view.past {
        text += &format!("\nbefore on {} until {} (move {})", stay.host, stay.ended, stay.move_id);
    }
    text
}

/// One metric over time.
pub(crate) fn history_plot(view: &HistoryView, look: Look) -> String {
    let mut text = head(view);
    for series in &view.metrics {
        let label = |value: u64| with(value, &series.unit);
        text += &format!("{}: mean, and the most of each point dotted above it\n", series.metric);
        let ends = (view.at.first().map(String::as_str), view.at.last().map(String::as_str));
        let ends = (ends.0.unwrap_or_default(), ends.1.unwrap_or_default());
        text += &plot::drawn(&series.mean, &series.max, ends, look.width, &label);
    }
    text
}

/// `at,metric,unit,min,mean,max,p95`, a line each.
pub(crate) fn history_csv(view: &HistoryView) -> String {
    let mut text = "at,metric,unit,min,mean,max,p95\n".to_owned();
    for Series { metric, unit, min, mean, max, p95 } in &view.metrics {
        let figures = min.iter().zip(mean).zip(max).zip(p95);
        for (at, (((min, mean), max), p95)) in view.at.iter().zip(figures) {
            text += &format!("{at},{metric},{unit},{min},{mean},{max},{p95}\n");
        }
    }
    text
}

fn head(view: &HistoryView) -> String {
    let points = view.at.len();
    let long = figures::seconds(view.step_seconds);
    match (view.at.first(), view.at.last()) {
        (Some(first), Some(last)) => {
            format!("{}: {points} points of {long}, {first} to {last}\n", view.name)
        }
        _ => format!("{}: nothing is kept of that time\n", view.name),
    }
}

fn with(value: u64, unit: &str) -> String {
    match unit {
        "bit/s" => figures::bits_per_second(value),
        "bytes/s" => figures::bytes_per_second(value),
        "MiB" => figures::mib(value),
        "MiB/s" => figures::mib(value) + "/s",
        "packets/s" => figures::count(value) + " pkt/s",
        _ => format!("{value} {unit}"),
    }
}
