//! The load of a VM in the next hour, from its history.

use std::time::Duration;

use super::{Forecast, Past, SLOTS, forecast};
use crate::units::{BitsPerSec, MilliCores, PacketsPerSec, Time};
use crate::usage::history::History;
use crate::usage::history::quarters::{CodedLoad, Quarter};
use crate::usage::load::Load;

/// Five minutes, and the quarter that three of them make.
const SLOT: Duration = Duration::from_secs(300);
const QUARTER_US: u64 = 900_000_000;
/// Of so many quarters one may be high without their median.
const STEADY: usize = 4;

/// Of loads that go on as they are a forecast is off by up to this part of them: what history keeps is told to one percent.
const OFF_BY: u64 = 50;

/// Whether what is foreseen says anything else than what is asked now.
pub fn differs(foreseen: u64, now: u64) -> bool {
    foreseen.abs_diff(now) > now / OFF_BY
}

/// What a VM will ask of its host. Memory is left at zero: a guest is always counted at its full size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NextHour {
    /// On average.
    pub mean: Load,
    /// In its highest quarter, each resource for itself; nine of ten hours stay below.
    pub peak: Load,
    /// So much is known that no single jump can bring it about.
    pub steady: bool,
}

/// Forecasts each resource for itself. `None` before a quarter of an hour is known: until then what was measured last tells more.
pub fn next_hour(now: Time, history: &History) -> Option<NextHour> {
    history.quarters().iter().find_map(|(_, quarter)| quarter)?;
    let slots = Slots::of(now, history);
    let of = |resource: usize, quarter: fn(&CodedLoad) -> u64| {
        one(now, history, slots.means(resource), quarter).unwrap_or_default()
    };
    let cpu = of(0, |load| load.cpu.value());
    let bits = of(1, |load| load.bits.value());
    let packets = of(2, |load| load.packets.value());
    let load = |figure: fn(&Forecast) -> f64| Load {
        cpu: MilliCores(whole(figure(&cpu))),
        bits: BitsPerSec(whole(figure(&bits))),
        packets: PacketsPerSec(whole(figure(&packets))),
        ..Load::default()
    };
    let steady = history.quarters().iter().filter_map(|(_, quarter)| quarter).nth(STEADY - 1);
    Some(NextHour {
        mean: load(|forecast| forecast.mean),
        peak: load(|forecast| forecast.peak),
        steady: steady.is_some(),
    })
}

/// The newest five minutes and those before: of each how many samples, and the sums of processors, bits and packets.
#[derive(Default)]
struct Slots([(f64, [f64; 3]); 2]);

impl Slots {
    fn of(now: Time, history: &History) -> Slots {
        let mut slots = Slots::default();
        for (at, sample) in history.seconds().rev() {
            let age = now.since(at);
            let Some(slot) = [SLOT, SLOT * 2].iter().position(|end| age < *end) else { break };
            let (n, sums) = &mut slots.0[slot];
            *n += 1.0;
            let values = [sample.wanted_cpu().0, sample.bits().0, sample.packets().0];
            sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += as_f64(value));
        }
        slots
    }

    /// In the newest and the one before, where something was measured.
    fn means(&self, resource: usize) -> [Option<f64>; 2] {
        self.0.map(|(n, sums)| (n > 0.0).then(|| sums[resource] / n))
    }
}

fn one(
    now: Time,
    history: &History,
    [newest, before]: [Option<f64>; 2],
    quarter: fn(&CodedLoad) -> u64,
) -> Option<Forecast> {
    let mean = |quarter_of: &Quarter| as_f64(quarter(&quarter_of.mean));
    let rows = history.quarters().iter();
    let mut quarters: Vec<Option<f64>> = rows.map(|(_, row)| row.map(mean)).collect();
    // Quarters that are over and were not measured at all are gaps.
    let start = history.quarters().start().0 / QUARTER_US;
    let over = usize::try_from((now.0 / QUARTER_US).saturating_sub(start)).unwrap_or(usize::MAX);
    quarters.resize(over.min(quarters.len() + super::QUARTERS_MAX), None);
    let open = usize::try_from(now.0 % QUARTER_US * SLOTS as u64 / QUARTER_US).unwrap_or(0);
    forecast(Past { quarters: &quarters, now: newest, before, open })
}

#[expect(
    clippy::cast_precision_loss,
    reason = "loads beyond 2^53 do not occur, and rounding there is the same everywhere"
)]
fn as_f64(value: u64) -> f64 {
    value as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a forecast is not negative, and `as` saturates"
)]
fn whole(value: f64) -> u64 {
    (value + 0.5) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::history::Sample;

    /// Two days of a load that rises each day at nine, a sample each ten seconds, up to half past eight on the third.
    fn lived(clock: u64) -> (Time, History) {
        let mut history = History::default();
        let end = 2 * 86_400 + 30_600;
        for second in (0..=end).step_by(10) {
            let busy = (32_400..61_200).contains(&(second % 86_400));
            let cpu = MilliCores(if busy { 4_000 } else { 300 } + second * 7919 % 101);
            let sample =
                Sample { cpu, sent_packets: PacketsPerSec(cpu.0 / 10), ..Sample::default() };
            history.push(Time((clock + second) * 1_000_000), sample, &mut Vec::new());
        }
        (Time((clock + end) * 1_000_000), history)
    }

    #[test]
    fn what_comes_each_day_is_foreseen_from_a_history() {
        let (now, history) = lived(0);
        let NextHour { mean, peak, .. } = next_hour(now, &history).unwrap();
        assert!((1_500..3_500).contains(&mean.cpu.0), "{mean:?}");
        assert!((3_900..4_500).contains(&peak.cpu.0), "{peak:?}");
        assert!((390..450).contains(&peak.packets.0), "{peak:?}");
    }

    #[test]
    fn who_has_just_arrived_is_forecast_as_if_it_had_always_been_here() {
        let (now, here) = lived(0);
        let lived_here = next_hour(now, &here);
        // The other host's clock shows something else, and what travels carries ages only.
        for clock in [0, 90_000_000, 5 * 900] {
            let (sent_at, there) = lived(clock);
            let came = History::of_aged(now, &there.aged(sent_at)).unwrap();
            let mut arrived = History::default();
            arrived.import(&came);
            assert_eq!(next_hour(now, &arrived), lived_here, "clock {clock}");
        }
    }

    #[test]
    fn before_a_quarter_is_known_nothing_is_foretold() {
        let mut history = History::default();
        let sample = Sample { cpu: MilliCores(500), ..Sample::default() };
        (1..899).for_each(|s| history.push(Time(s * 1_000_000), sample, &mut Vec::new()));
        assert_eq!(next_hour(Time(899_000_000), &history), None);
        (899..902).for_each(|s| history.push(Time(s * 1_000_000), sample, &mut Vec::new()));
        let next = next_hour(Time(901_000_000), &history).unwrap();
        assert!(next.mean.cpu.0.abs_diff(500) <= 5, "{next:?}");
    }
}
