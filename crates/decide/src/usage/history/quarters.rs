//! Thirty days of load by quarters of an hour, in memory: what a forecast and the daily peak are made of.
//!
//! **Invariant:** at most [`QUARTERS_MAX`] quarters in a row, oldest first, each on the grid of [`Level::Quarter`]; one in
//! which nothing was measured is a gap.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::BadHistory;
use super::aged::AGE_MAX;
use super::bucket::{Stat, Stats};
use super::code::Code;
use super::levels::{Closed, Level};
use super::sample::Metric;
use crate::units::{BitsPerSec, Mib, MilliCores, PacketsPerSec, Time};
use crate::usage::load::Load;

/// Thirty days.
pub const QUARTERS_MAX: usize = 30 * 96;
/// A VM's daily peak is its highest quarter of so long.
pub const DAY: Duration = Duration::from_secs(24 * 3600);
/// Quarters by which room is made: a day.
const GROWTH: usize = 96;

const QUARTER_US: u64 = Level::Quarter.span().as_secs() * 1_000_000;

/// The resources of a [`Load`], as codes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CodedLoad {
    /// Processor time wanted: use and wait.
    pub cpu: Code,
    /// Memory in use.
    pub memory: Code,
    /// Bits, both directions.
    pub bits: Code,
    /// Packets, both directions and dropped.
    pub packets: Code,
}

impl CodedLoad {
    /// The load, to one percent; its memory is what was in use, not the guest's full size.
    pub fn load(self) -> Load {
        Load {
            cpu: MilliCores(self.cpu.value()),
            memory: Mib(self.memory.value()),
            bits: BitsPerSec(self.bits.value()),
            packets: PacketsPerSec(self.packets.value()),
        }
    }
}

/// The load of one quarter of an hour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Quarter {
    /// Its mean.
    pub mean: CodedLoad,
    /// What it did not exceed for 95 of 100 seconds. Of sums (use and wait, both directions) it is the sum of the parts',
    /// which is never far too low and may be too high.
    pub p95: CodedLoad,
}

impl Quarter {
    /// The load in what is kept of a quarter.
    pub fn of(stats: &Stats) -> Quarter {
        let load = |figure: fn(Stat) -> Code| {
            let sum = |metrics: &[Metric]| {
                Code::of(metrics.iter().fold(0u64, |sum, metric| {
                    sum.saturating_add(figure(stats.of(*metric)).value())
                }))
            };
            CodedLoad {
                cpu: sum(&[Metric::Cpu, Metric::CpuWait]),
                memory: sum(&[Metric::Memory]),
                bits: sum(&[Metric::SentBits, Metric::ReceivedBits]),
                packets: sum(&[Metric::SentPackets, Metric::ReceivedPackets, Metric::Dropped]),
            }
        };
        Quarter { mean: load(|stat| stat.mean), p95: load(|stat| stat.p95) }
    }

    /// As bare numbers, for the wire and the log.
    pub fn codes(&self) -> [Code; 8] {
        let Quarter { mean, p95 } = self;
        let four = |load: &CodedLoad| [load.cpu, load.memory, load.bits, load.packets];
        let ([a, b, c, d], [e, f, g, h]) = (four(mean), four(p95));
        [a, b, c, d, e, f, g, h]
    }

    /// The quarter of these.
    pub fn from_codes([a, b, c, d, e, f, g, h]: [Code; 8]) -> Quarter {
        let load =
            |[cpu, memory, bits, packets]: [Code; 4]| CodedLoad { cpu, memory, bits, packets };
        Quarter { mean: load([a, b, c, d]), p95: load([e, f, g, h]) }
    }
}

/// Quarters in a row.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarters {
    /// The first one's number: quarters since the beginning of [`Time`].
    first: u64,
    #[serde(with = "super::aged::rows")]
    rows: VecDeque<Option<Quarter>>,
}

/// Quarters, oldest first, and how long before the sending the newest began. A gap is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AgedQuarters {
    /// How long ago the newest began: it is over, so at least as long ago as it is long.
    pub newest_age: Duration,
    /// Themselves.
    #[serde(with = "super::aged::rows")]
    pub rows: Vec<Option<Quarter>>,
}

impl Quarters {
    /// Takes a closed quarter in; what is not a quarter, or not newer than the newest, is left out.
    pub fn push(&mut self, closed: &Closed) {
        if closed.level == Level::Quarter {
            self.put(closed.start.0 / QUARTER_US, Quarter::of(&closed.stats));
        }
    }

    fn put(&mut self, number: u64, quarter: Quarter) {
        let end = self.end();
        if self.rows.is_empty() || number >= end.saturating_add(QUARTERS_MAX as u64) {
            self.rows.clear();
            self.first = number;
        } else if number < end {
            return;
        } else {
            (end..number).for_each(|_| self.append(None));
        }
        self.append(Some(quarter));
    }

    fn append(&mut self, row: Option<Quarter>) {
        if self.rows.len() == QUARTERS_MAX {
            self.rows.pop_front();
            self.first += 1;
        }
        if self.rows.len() == self.rows.capacity() {
            self.rows.reserve_exact(GROWTH);
        }
        self.rows.push_back(row);
    }

    fn end(&self) -> u64 {
        self.first + self.rows.len() as u64
    }

    /// Number of quarters, gaps included.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// When the first began.
    pub fn start(&self) -> Time {
        Time(self.first * QUARTER_US)
    }

    /// All, oldest first: when each began, and its load unless it is a gap.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (Time, Option<&Quarter>)> {
        let start = |index: usize| Time((self.first + index as u64) * QUARTER_US);
        self.rows.iter().enumerate().map(move |(index, row)| (start(index), row.as_ref()))
    }

    /// The highest p95 of any quarter that began within `window` before `now`, each resource for itself, and how much time
    /// these quarters cover; `None` if none was measured.
    pub fn peak(&self, now: Time, window: Duration) -> Option<(Load, Duration)> {
        let recent = self.iter().rev().take_while(|(start, _)| now.since(*start) <= window);
        let measured = recent.filter_map(|(_, quarter)| quarter);
        let (peak, count) = measured.fold((Load::default(), 0u32), |(peak, count), quarter| {
            (peak.highest(quarter.p95.load()), count + 1)
        });
        (count > 0).then(|| (peak, Level::Quarter.span() * count))
    }

    /// With its age, to be sent.
    pub fn aged(&self, now: Time) -> AgedQuarters {
        let newest = Time(self.end().saturating_sub(1) * QUARTER_US);
        AgedQuarters { newest_age: now.since(newest), rows: self.rows.iter().copied().collect() }
    }

    /// What a peer sent, on this host's grid: the two clocks' grids differ by less than half a quarter, either way.
    ///
    /// # Errors
    /// If there are too many, or the newest cannot be over yet.
    pub fn of_aged(now: Time, sent: &AgedQuarters) -> Result<Quarters, BadHistory> {
        let AgedQuarters { newest_age, rows } = sent;
        if rows.len() > QUARTERS_MAX {
            return Err(BadHistory::TooMany("quarters", rows.len(), QUARTERS_MAX));
        }
        if rows.is_empty() {
            return Ok(Quarters::default());
        }
        if *newest_age < Level::Quarter.span() {
            return Err(BadHistory::Future);
        }
        if *newest_age > AGE_MAX {
            return Err(BadHistory::NoTime("quarters"));
        }
        let newest = now.minus(*newest_age).0;
        let newest = ((newest + QUARTER_US / 2) / QUARTER_US).min((now.0 / QUARTER_US).max(1) - 1);
        // What lies before the beginning of this host's time has no place.
        let known = usize::try_from(newest + 1).unwrap_or(usize::MAX).min(rows.len());
        let rows: VecDeque<_> = rows[rows.len() - known..].iter().copied().collect();
        Ok(Quarters { first: newest + 1 - known as u64, rows })
    }

    /// Joins others; where both have a quarter, this one's own stays. Twice the same does no harm.
    pub fn import(&mut self, others: &Quarters) {
        if others.is_empty() {
            return;
        }
        if self.is_empty() {
            return self.clone_from(others);
        }
        let end = self.end().max(others.end());
        let first = self.first.min(others.first).max(end.saturating_sub(QUARTERS_MAX as u64));
        let joined = (first..end).map(|number| self.at(number).or(others.at(number)).copied());
        self.rows = joined.collect();
        self.first = first;
    }

    /// Leaves out what was not over at `now`: the clock may have been set back since it was stored.
    pub fn forget_after(&mut self, now: Time) {
        let over = (now.0 / QUARTER_US).saturating_sub(self.first);
        self.rows.truncate(usize::try_from(over).unwrap_or(usize::MAX));
    }

    fn at(&self, number: u64) -> Option<&Quarter> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.rows.get(index)?.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quarter(cpu: u64) -> Quarter {
        let load = CodedLoad { cpu: Code::of(cpu), ..CodedLoad::default() };
        Quarter { mean: load, p95: load }
    }

    fn row(from: u64, cpus: &[u64]) -> Quarters {
        let mut quarters = Quarters::default();
        (from..).zip(cpus).for_each(|(number, cpu)| quarters.put(number, quarter(*cpu)));
        quarters
    }

    fn at(quarters: u64) -> Time {
        Time(quarters * QUARTER_US)
    }

    fn cpus(quarters: &Quarters) -> Vec<Option<u64>> {
        quarters.iter().map(|(_, row)| row.map(|row| row.mean.cpu.value())).collect()
    }

    #[test]
    fn the_newest_thirty_days_stay_and_gaps_are_kept() {
        let mut quarters = row(10, &[1, 2]);
        quarters.put(14, quarter(5));
        quarters.put(12, quarter(9));
        assert_eq!(cpus(&quarters), [Some(1), Some(2), None, None, Some(5)]);
        quarters.put(10 + QUARTERS_MAX as u64, quarter(6));
        assert_eq!((quarters.start(), quarters.len()), (at(11), QUARTERS_MAX));
        quarters.put(1_000_000, quarter(7));
        assert_eq!((quarters.start(), cpus(&quarters)), (at(1_000_000), vec![Some(7)]));
    }

    #[test]
    fn the_daily_peak_is_the_highest_quarter_of_a_day_and_says_how_much_it_saw() {
        let mut cpus = vec![9_000];
        cpus.extend([100; 60]);
        cpus.push(3_400);
        cpus.extend([200; 30]);
        let (peak, covered) = row(0, &cpus).peak(at(97), DAY).unwrap();
        assert!(peak.cpu.0.abs_diff(3_400) <= 3_400 / 128, "{peak:?}");
        assert_eq!(covered, Level::Quarter.span() * 91);
        assert_eq!(row(0, &[1]).peak(at(98), DAY), None);
    }

    #[test]
    fn what_travels_keeps_its_age_whatever_the_other_clock_says() {
        let sent = row(1_000, &[1, 2, 3]).aged(at(1_003).plus(Duration::from_secs(60)));
        for ahead in [0, 60, 61, 400, 899] {
            let now = Time(5_000 * QUARTER_US + ahead * 1_000_000);
            let here = Quarters::of_aged(now, &sent).unwrap();
            assert_eq!(cpus(&here), [Some(1), Some(2), Some(3)]);
            let newest = here.start().plus(Level::Quarter.span() * 2);
            let age = now.since(newest);
            assert!(age >= Level::Quarter.span(), "not over: {ahead}");
            assert!(age.abs_diff(sent.newest_age) < Level::Quarter.span(), "{ahead}");
        }
        let young = AgedQuarters { newest_age: Duration::from_secs(899), ..sent };
        assert_eq!(Quarters::of_aged(at(9), &young), Err(BadHistory::Future));
    }

    #[test]
    fn what_is_older_than_this_hosts_time_is_left_out() {
        let sent = row(100, &[1, 2, 3]).aged(at(103));
        assert_eq!(cpus(&Quarters::of_aged(at(2), &sent).unwrap()), [Some(2), Some(3)]);
    }

    #[test]
    fn joined_once_or_twice_is_the_same_and_its_own_stays() {
        let mut here = row(12, &[70, 80]);
        let sent = row(10, &[1, 2, 3]);
        here.import(&sent);
        let once = here.clone();
        here.import(&sent);
        assert_eq!(here, once);
        assert_eq!(cpus(&here), [Some(1), Some(2), Some(70), Some(80)]);
        here.import(&row(16, &[9]));
        assert_eq!(here.len(), 7);
    }
}
