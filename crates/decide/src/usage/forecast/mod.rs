//! What a load will be over the next hour: a damped level, on the shape of the day or the week where that has proved itself.
//!
//! 1. *Shape*: the mean at the same time of day, or of the week, over what is known. It counts only if, over the last
//!    two days, it would have made forecasts at one hour clearly better (`shape`). Else loads are taken as without one.
//! 2. *Level*: of what is left above the shape, the median of now, of five minutes ago, and of the medians of one, three
//!    and six hours. Loads jump and come back: a median does not follow a single jump, and which window suits a VM need not
//!    be known (`level`).
//! 3. *Damping*: a part of how far now is above the level stays, for each horizon as much as would have been best in the
//!    last six hours.
//! 4. *Peak*: the forecast, and what nine of ten hours of the last two days had above theirs.
//!
//! No clock is read: what is known ends now, and a day is 96 quarters. Nothing is used but what travels with a VM.
//!
//! **Invariant:** only + − × ÷ and comparisons, in a fixed order: the same past gives the same forecast, bit for bit.

mod level;
mod next_hour;
mod shape;

pub use next_hour::{NextHour, differs, next_hour};

use level::{LOOK_BACK, damping, level};
use shape::{Shape, higher};

/// Quarters of an hour in a day.
pub const DAY: usize = 96;
/// Quarters that are looked at: 30 days.
pub const QUARTERS_MAX: usize = 30 * DAY;
/// Slots of five minutes in a quarter.
const SLOTS: usize = 3;
/// Slots from now to the end of each horizon of [`Forecast::ahead`].
pub const HORIZONS: [usize; 4] = [1, 3, 6, 12];
/// Of the twelve slots of an hour, those that each horizon is the nearest to.
const NEAREST: [f64; 4] = [2.0, 2.0, 5.0, 3.0];

/// What is known of one load, in any unit; `None` where nothing was measured.
#[derive(Clone, Copy, Debug, Default)]
pub struct Past<'a> {
    /// Means of 15 minutes, oldest first, up to the last complete one; the last [`QUARTERS_MAX`] count.
    pub quarters: &'a [Option<f64>],
    /// Mean of the last five minutes.
    pub now: Option<f64>,
    /// Mean of the five minutes before these.
    pub before: Option<f64>,
    /// How many slots of five minutes are over of the quarter that is open: 0 to 2.
    pub open: usize,
}

/// What a load will be, in the unit of its past. Never below zero.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Forecast {
    /// Means of the five minutes that end 5, 15, 30 and 60 minutes from now.
    pub ahead: [f64; 4],
    /// Mean of the next hour.
    pub mean: f64,
    /// Highest mean of a quarter in the next hour, below which nine of ten hours stay.
    pub peak: f64,
}

/// What the load will be; `None` if nothing was measured in the last six hours. One measurement is enough to begin with.
pub fn forecast(past: Past<'_>) -> Option<Forecast> {
    let quarters = &past.quarters[past.quarters.len().saturating_sub(QUARTERS_MAX)..];
    let (shape, tested) = Shape::chosen(quarters);
    // Places counted in slots from the first quarter on; now is the end of the last.
    let end = quarters.len() * SLOTS + past.open.min(SLOTS - 1);
    let shape_at = |slot: usize| shape.at(slot / SLOTS).unwrap_or(0.0);
    let above = |back: usize, value: Option<f64>| Some(value? - shape_at(end.saturating_sub(back)));
    let newest = [above(1, past.now), above(2, past.before)];
    let rows = quarters.iter().enumerate().rev().take(LOOK_BACK);
    let left: Vec<Option<f64>> =
        rows.map(|(at, quarter)| Some((*quarter)? - shape.at(at)?)).collect();
    let level = level(newest, &left)?;
    let now = newest.iter().chain(&left).flatten().next().copied().unwrap_or(level);
    let ahead = HORIZONS.map(|horizon| {
        let stays = damping(&left, level, horizon.div_ceil(SLOTS)) * (now - level);
        higher(level + stays + shape_at(end + horizon - 1), 0.0)
    });
    let weighted = ahead.iter().zip(NEAREST).fold(0.0, |sum, (ahead, slots)| sum + ahead * slots);
    let mean = weighted / 12.0;
    let highest = ahead.into_iter().fold(0.0, higher);
    // Before there are enough hours to tell: as high as anything was of late.
    let spread = tested.spread().unwrap_or_else(|| {
        let late = quarters.iter().rev().take(LOOK_BACK).chain([&past.now, &past.before]);
        late.flatten().map(|value| value - highest).fold(0.0, higher)
    });
    Some(Forecast { ahead, mean, peak: (highest + spread).max(mean) })
}

#[cfg(test)]
mod tests;
