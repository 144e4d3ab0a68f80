//! The shape of the day or of the week, and whether to believe it.

use super::DAY;
use super::level::{LOOK_BACK, level, size};

/// Quarters in a week.
const WEEK: usize = 7 * DAY;
/// Hours that a shape is tried on: the last two days.
const HOURS: usize = 48;
/// Quarters in an hour.
const HOUR: usize = 4;
/// Quarters that a shape is made for: the hours that it is tried on, what their levels look back at, and the hour to come.
const SPAN: usize = (HOURS + 1) * HOUR + LOOK_BACK + HOUR + 1;
/// Fewer hours than these say nothing of a shape, nor of a spread: half a day.
const HOURS_MIN: usize = 12;
/// A shape must have made errors smaller by this, or loads are taken as without one: on traces of VMs, days are often
/// less alike than they seem.
const BETTER: f64 = 0.8;
/// One in so many hours may have been higher than the peak that is forecast.
const HIGHER: usize = 10;

/// A mean for each of the last quarters and of those to come, by what was at that time on earlier days.
pub(super) struct Shape {
    from: usize,
    values: Vec<Option<f64>>,
}

/// How forecasts at one hour would have done in hours that are over, the newest first.
pub(super) struct Backtest([Option<Tried>; HOURS]);

#[derive(Clone, Copy)]
struct Tried {
    error: f64,
    /// By how much the hour's highest quarter was above its forecast.
    above: f64,
}

impl Shape {
    /// The shape that did best, and how it did.
    pub(super) fn chosen(quarters: &[Option<f64>]) -> (Shape, Backtest) {
        let flat = Shape::flat(quarters.len());
        let without = flat.tried(quarters);
        let mut best = BETTER;
        let mut chosen = None;
        for period in [DAY, WEEK] {
            if quarters.len() < period + HOURS_MIN * HOUR {
                continue;
            }
            let shape = Shape::of(quarters, period);
            let with = shape.tried(quarters);
            if let Some(ratio) = with.errors_over(&without).filter(|ratio| *ratio < best) {
                best = ratio;
                chosen = Some((shape, with));
            }
        }
        chosen.unwrap_or((flat, without))
    }

    /// No shape: zero everywhere.
    fn flat(quarters: usize) -> Shape {
        Shape { from: quarters.saturating_sub(SPAN), values: vec![Some(0.0); SPAN + HOUR + 1] }
    }

    /// The mean of the same quarter, and its neighbours, of all periods before.
    fn of(quarters: &[Option<f64>], period: usize) -> Shape {
        let from = quarters.len().saturating_sub(SPAN);
        let first = from.saturating_sub(1);
        let rough: Vec<Option<f64>> = (first..quarters.len() + HOUR + 2)
            .map(|at| {
                let before = at.checked_sub(period)?;
                mean(quarters[..=before].iter().rev().step_by(period).flatten().copied())
            })
            .collect();
        let smooth = |at: usize| {
            rough[at - first]?;
            let neighbours = (at - first).saturating_sub(1)..=at - first + 1;
            mean(rough[neighbours].iter().flatten().copied())
        };
        Shape { from, values: (from..quarters.len() + HOUR + 1).map(smooth).collect() }
    }

    /// What it is in a quarter.
    pub(super) fn at(&self, quarter: usize) -> Option<f64> {
        *self.values.get(quarter.checked_sub(self.from)?)?
    }

    fn tried(&self, quarters: &[Option<f64>]) -> Backtest {
        let above_shape = |quarter: usize| Some(quarters[quarter]? - self.at(quarter)?);
        let from = self.from;
        let left: Vec<Option<f64>> = (from..quarters.len()).rev().map(above_shape).collect();
        Backtest(std::array::from_fn(|hour| {
            // The hour's last quarter, and all that was known when it began.
            let back = hour * HOUR;
            let at = quarters.len().checked_sub(back + 1)?;
            let known = left.get(back + HOUR..)?;
            let newest = [*known.first()?, *known.get(1)?];
            let level = level(newest, &known[..known.len().min(LOOK_BACK)])?;
            let error = size((*left.get(back)?)? - level);
            let of_hour = quarters[(at + 1).saturating_sub(HOUR)..=at].iter().flatten();
            let peak = of_hour.copied().reduce(higher)?;
            Some(Tried { error, above: peak - level - self.at(at)? })
        }))
    }
}

impl Backtest {
    /// The sum of errors over that of another, in hours that both have; `None` if these are too few.
    fn errors_over(&self, other: &Backtest) -> Option<f64> {
        let both = self.0.iter().zip(&other.0).filter_map(|(a, b)| Some(((*a)?, (*b)?)));
        let add =
            |(n, ours, others), (a, b): (Tried, Tried)| (n + 1, ours + a.error, others + b.error);
        let (hours, ours, others) = both.fold((0, 0.0, 0.0), add);
        (hours >= HOURS_MIN && others > 0.0).then(|| ours / others)
    }

    /// What nine of ten hours' peaks were above their forecasts at the most; `None` if too few hours are known.
    pub(super) fn spread(&self) -> Option<f64> {
        let mut above: Vec<f64> = self.0.iter().flatten().map(|tried| tried.above).collect();
        if above.len() < HOURS_MIN {
            return None;
        }
        above.sort_unstable_by(f64::total_cmp);
        Some(higher(above[above.len() - 1 - above.len() / HIGHER], 0.0))
    }
}

pub(super) fn higher(a: f64, b: f64) -> f64 {
    if a > b { a } else { b }
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, n) = values.fold((0.0, 0.0), |(sum, n), value| (sum + value, n + 1.0));
    (n > 0.0).then(|| sum / n)
}
