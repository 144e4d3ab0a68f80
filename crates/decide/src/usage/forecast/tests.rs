//! What forecasts must and must not foresee, on loads that are made up.

use proptest::prelude::*;

use super::*;

/// Quarters of so many days of a load, given by day and quarter of the day.
fn days(n: usize, load: impl Fn(usize, usize) -> f64) -> Vec<Option<f64>> {
    (0..n * DAY).map(|at| Some(load(at / DAY, at % DAY))).collect()
}

fn of(quarters: &[Option<f64>]) -> Forecast {
    let now = *quarters.last().expect("some quarters");
    forecast(Past { quarters, now, before: now, open: 0 }).expect("something was measured")
}

/// A bit of chance that is the same everywhere.
fn noise(at: usize) -> f64 {
    (at * 7919 % 101) as f64 / 101.0
}

/// Much from nine to five, little else.
fn office(quarter: usize) -> f64 {
    if (36..68).contains(&quarter) { 80.0 } else { 10.0 }
}

#[test]
fn nothing_gives_nothing_and_one_slot_or_quarter_is_enough() {
    assert_eq!(forecast(Past::default()), None);
    let gaps = [None; 5];
    assert_eq!(forecast(Past { quarters: &gaps, open: 1, ..Past::default() }), None);
    let same = Forecast { ahead: [7.0; 4], mean: 7.0, peak: 7.0 };
    let slot = Past { now: Some(7.0), open: 1, ..Past::default() };
    assert_eq!(forecast(slot), Some(same));
    let quarter = Past { quarters: &[Some(7.0)], ..Past::default() };
    assert_eq!(forecast(quarter), Some(same));
}

#[test]
fn a_rise_that_came_each_day_is_foreseen() {
    let all = days(5, |day, quarter| office(quarter) + 4.0 * noise(day * DAY + quarter));
    // Half past eight on the fifth day.
    let forecast = of(&all[..4 * DAY + 34]);
    assert!(forecast.ahead[0] < 20.0, "{forecast:?}");
    assert!(forecast.ahead[3] > 70.0, "{forecast:?}");
    assert!(forecast.peak > 75.0, "{forecast:?}");
}

#[test]
fn on_a_saturday_the_rise_of_working_days_is_not_expected_once_weeks_are_known() {
    let week = |day: usize, quarter| if day % 7 < 5 { office(quarter) } else { 10.0 };
    let all = days(28, |day, quarter| week(day, quarter) + 4.0 * noise(day * DAY + quarter));
    let friday = of(&all[..25 * DAY + 34]);
    // A Saturday is told by the week before last, tried on Friday and Thursday; Sunday by Saturday, too.
    let sunday = of(&all[..27 * DAY + 34]);
    assert!(friday.ahead[3] > 70.0, "{friday:?}");
    assert!(sunday.ahead[3] < 20.0, "{sunday:?}");
}

#[test]
fn a_shape_that_is_not_there_is_not_believed() {
    // Yesterday at this time there was a peak, the days before there were others at other times.
    let all =
        days(6, |day, quarter| if (day * 37 + 11) % DAY / 4 == quarter / 4 { 90.0 } else { 10.0 });
    for quarter in 0..DAY {
        let forecast = of(&all[..5 * DAY + quarter]);
        let now = all[5 * DAY + quarter - 1].expect("no gaps here");
        assert!(now > 50.0 || forecast.ahead[3] < 11.0, "{quarter}: {forecast:?}");
    }
}

#[test]
fn the_peak_is_what_nine_of_ten_hours_stay_below() {
    // Once in six hours a quarter of 50, else 10.
    let all = days(3, |_, quarter| if quarter % 24 == 5 { 50.0 } else { 10.0 });
    assert!(of(&all).peak > 45.0, "{:?}", of(&all));
    // Once in two days is rarer than that.
    let all = days(4, |day, quarter| if day % 2 == 0 && quarter == 5 { 50.0 } else { 10.0 });
    assert!(of(&all).peak < 15.0, "{:?}", of(&all));
}

#[test]
fn the_same_bits_in_every_build() {
    let all = days(9, |day, quarter| office(quarter) / 3.0 + 17.3 * noise(day * DAY + quarter));
    let bits = of(&all[..8 * DAY + 50]).ahead.map(f64::to_bits);
    assert_eq!(
        bits,
        [4630525384986650092, 4630525384986650092, 4630296373043964962, 4630649935341443758]
    );
}

proptest! {
    #[test]
    fn whatever_is_known_forecasts_are_finite_and_the_peak_is_the_highest(
        quarters in prop::collection::vec(prop::option::weighted(0.8, 0.0f64..1e12), 0..900),
        (now, before) in (prop::option::of(0.0f64..1e12), prop::option::of(0.0f64..1e12)),
        open in 0usize..9,
    ) {
        let past = Past { quarters: &quarters, now, before, open };
        let late = quarters.iter().rev().take(24).chain([&now, &before]);
        let known = late.flatten().next().is_some();
        let forecast = forecast(past);
        prop_assert_eq!(forecast.is_some(), known);
        prop_assert_eq!(forecast, super::forecast(past));
        let Some(Forecast { ahead, mean, peak }) = forecast else { return Ok(()) };
        prop_assert!(ahead.iter().all(|value| value.is_finite() && *value >= 0.0 && *value <= peak));
        prop_assert!(peak.is_finite() && mean <= peak);
    }
}
