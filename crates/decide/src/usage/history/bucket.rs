//! What a metric did over a span of time: least, mean, most, and a histogram of 16 buckets that says how often.
//!
//! The histogram's buckets are as wide as they must be: bucket i counts the values from i·w to (i+1)·w − 1, w a power of two;
//! a value of 16·w or more doubles w and joins the buckets two by two.
//!
//! **Invariant:** a histogram depends on the values alone, not on their order or on how they were parted: those of a minute
//! added up are the minute's, exactly.

use serde::{Deserialize, Serialize};

use super::code::Code;
use super::sample::{METRICS, Metric, Sample};

/// Buckets of a histogram.
pub const HISTOGRAM: usize = 16;

/// How often which values came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// The width of a bucket is 2 to the power of this.
    width: u8,
    counts: [u16; HISTOGRAM],
}

impl Histogram {
    /// Counts a value that came so often. More than 65,535 in one bucket are not told apart.
    pub fn add(&mut self, value: u64, times: u64) {
        self.widen(width_for(value));
        let count = &mut self.counts[place(value, self.width)];
        *count = count.saturating_add(u16::try_from(times).unwrap_or(u16::MAX));
    }

    /// Counts what the other has counted.
    pub fn merge(&mut self, other: &Histogram) {
        let mut other = *other;
        self.widen(other.width);
        other.widen(self.width);
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count = count.saturating_add(more);
        }
    }

    /// Values that were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().map(|count| u64::from(*count)).sum()
    }

    /// The value that 95 of 100 do not exceed, to within the width of a bucket: as if the values lay evenly in theirs.
    fn p95(&self) -> u64 {
        let all = self.count();
        let mut left = all - all / 20;
        for (bucket, count) in (0u64..).zip(self.counts) {
            let count = u64::from(count);
            if left <= count {
                let width = u128::from(1u64 << self.width);
                let inside = width * u128::from(left) / u128::from(count.max(1));
                let value = u128::from(bucket) * width + inside.saturating_sub(1);
                return u64::try_from(value).unwrap_or(u64::MAX);
            }
            left -= count;
        }
        0
    }

    fn widen(&mut self, width: u8) {
        while self.width < width {
            let joined =
                |half: usize| self.counts[2 * half].saturating_add(self.counts[2 * half + 1]);
            let mut counts = [0; HISTOGRAM];
            for (half, count) in counts.iter_mut().enumerate().take(HISTOGRAM / 2) {
                *count = joined(half);
            }
            (self.counts, self.width) = (counts, self.width + 1);
        }
    }
}

/// The least width at which a value has a bucket.
fn width_for(value: u64) -> u8 {
    let bits = u64::BITS - value.leading_zeros();
    u8::try_from(bits.saturating_sub(HISTOGRAM.ilog2())).expect("at most 60")
}

fn place(value: u64, width: u8) -> usize {
    usize::try_from(value >> width).expect("below 16")
}

/// One metric over a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Series {
    least: u64,
    most: u64,
    sum: u64,
    histogram: Histogram,
}

impl Series {
    const EMPTY: Series = Series {
        least: u64::MAX,
        most: 0,
        sum: 0,
        histogram: Histogram { width: 0, counts: [0; HISTOGRAM] },
    };

    /// Counts a value that came so often.
    fn add(&mut self, value: u64, times: u64) {
        self.least = self.least.min(value);
        self.most = self.most.max(value);
        self.sum = self.sum.saturating_add(value.saturating_mul(times));
        self.histogram.add(value, times);
    }

    fn merge(&mut self, other: &Series) {
        self.least = self.least.min(other.least);
        self.most = self.most.max(other.most);
        self.sum = self.sum.saturating_add(other.sum);
        self.histogram.merge(&other.histogram);
    }

    fn stat(&self, count: u64) -> Stat {
        // A sum that has stopped at its greatest value would give a mean below the least.
        let mean = (self.sum / count.max(1)).clamp(self.least, self.most);
        let p95 = self.histogram.p95().clamp(self.least, self.most);
        let [min, mean, max, p95] = [self.least, mean, self.most, p95].map(Code::of);
        Stat { min, mean, max, p95 }
    }
}

/// All metrics over a span.
///
/// Most metrics of most VMs stay the same within one: until a second value comes, the first and the count say all. With many
/// VMs it is memory that a reading waits for, so what says all lies close together, and the rest is not touched before.
#[derive(Clone, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Bucket {
    count: u64,
    /// Which metrics had more than one value.
    varied: [bool; METRICS],
    /// The one value of those that had no other, else zero.
    only: [u64; METRICS],
    /// Of those that varied, else empty.
    series: [Series; METRICS],
}

impl Default for Bucket {
    fn default() -> Bucket {
        let (varied, only) = ([false; METRICS], [0; METRICS]);
        Bucket { count: 0, varied, only, series: [Series::EMPTY; METRICS] }
    }
}

impl Bucket {
    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Counts a sample that came so often.
    pub fn add(&mut self, sample: &Sample, times: u64) {
        for (metric, value) in sample.values().into_iter().enumerate() {
            self.add_value(metric, value, times);
        }
        self.count += times;
    }

    /// Counts what the other has counted.
    pub fn merge(&mut self, other: &Bucket) {
        if other.is_empty() {
            return;
        }
        for metric in 0..METRICS {
            if other.varied[metric] {
                self.vary(metric);
                self.series[metric].merge(&other.series[metric]);
            } else {
                self.add_value(metric, other.only[metric], other.count);
            }
        }
        self.count += other.count;
    }

    fn add_value(&mut self, metric: usize, value: u64, times: u64) {
        if self.is_empty() {
            self.only[metric] = value;
        } else if self.varied[metric] || self.only[metric] != value {
            self.vary(metric);
            self.series[metric].add(value, times);
        }
    }

    /// Another value comes: what there was so far goes where it is added to.
    fn vary(&mut self, metric: usize) {
        if !self.varied[metric] {
            self.varied[metric] = true;
            let only = std::mem::take(&mut self.only[metric]);
            if !self.is_empty() {
                self.series[metric].add(only, self.count);
            }
        }
    }

    /// What is kept of it; `None` of an empty one.
    pub fn stats(&self) -> Option<Stats> {
        (!self.is_empty()).then(|| Stats(std::array::from_fn(|metric| self.stat(metric))))
    }

    fn stat(&self, metric: usize) -> Stat {
        if self.varied[metric] {
            return self.series[metric].stat(self.count);
        }
        Stat::steady(self.only[metric])
    }
}

/// One metric over a span, to one percent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Stat {
    /// The least.
    pub min: Code,
    /// The mean.
    pub mean: Code,
    /// The most.
    pub max: Code,
    /// What it did not exceed for 95 of 100 seconds, to within an eighth of the most.
    pub p95: Code,
}

impl Stat {
    fn steady(value: u64) -> Stat {
        let all = Code::of(value);
        Stat { min: all, mean: all, max: all, p95: all }
    }

    /// Whether the four can be of one span.
    pub fn holds(&self) -> bool {
        self.min <= self.mean
            && self.mean <= self.max
            && self.min <= self.p95
            && self.p95 <= self.max
    }
}

/// All metrics over a span, in the order of [`Metric::ALL`].
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Stats(pub [Stat; METRICS]);

impl Stats {
    /// Of a span in which nothing but this was seen.
    pub fn steady(sample: &Sample) -> Stats {
        Stats(sample.values().map(Stat::steady))
    }

    /// That metric's.
    pub fn of(&self, metric: Metric) -> Stat {
        self.0[metric.index()]
    }
}

impl std::fmt::Debug for Stats {
    /// In short: it is written down, or hashed, of each VM every ten seconds.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for Stat { min, mean, max, p95 } in &self.0 {
            let [min, mean, max, p95] = [min, mean, max, p95].map(|code| u64::from(code.bits()));
            write!(f, "{:012x}.", min << 36 | mean << 24 | max << 12 | p95)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn histogram(values: &[u64]) -> Histogram {
        let mut histogram = Histogram::default();
        values.iter().for_each(|value| histogram.add(*value, 1));
        histogram
    }

    fn cpu(values: &[u64]) -> Bucket {
        let mut bucket = Bucket::default();
        for value in values {
            bucket.add(&Sample::of([*value, 0, 0, 0, 0, 0, 0, 0, 0, 0]), 1);
        }
        bucket
    }

    #[test]
    fn a_metric_over_a_span() {
        let values: Vec<u64> = (1..=100).collect();
        let stat = cpu(&values).stats().unwrap().of(Metric::Cpu);
        assert_eq!([stat.min, stat.mean, stat.max].map(Code::value), [1, 50, 100]);
        assert!(stat.p95.value().abs_diff(95) <= 4, "{stat:?}");
        assert_eq!(cpu(&[]).stats(), None);
        let steady = cpu(&[77; 10]).stats().unwrap().of(Metric::Cpu);
        assert_eq!([steady.min, steady.mean, steady.max, steady.p95].map(Code::value), [77; 4]);
    }

    proptest! {
        #[test]
        fn histograms_add_up_to_that_of_all_values(
            values in vec((any::<u64>(), 0u32..64).prop_map(|(n, shift)| n >> shift), 0..50),
            cut in any::<prop::sample::Index>(),
        ) {
            let (one, other) = values.split_at(cut.index(values.len() + 1));
            let mut sum = histogram(one);
            sum.merge(&histogram(other));
            prop_assert_eq!(sum, histogram(&values));
            prop_assert_eq!(sum.count(), values.len() as u64);
        }

        #[test]
        fn a_metric_that_stays_the_same_for_a_while_adds_up_as_any_other(
            values in vec(0u64..3, 0..12),
            cut in any::<prop::sample::Index>(),
        ) {
            let (one, other) = values.split_at(cut.index(values.len() + 1));
            let mut sum = cpu(one);
            sum.merge(&cpu(other));
            let mut sorted = values.clone();
            sorted.sort_unstable();
            prop_assert_eq!(&sum, &cpu(&sorted));
            // As if all had gone into the histogram at once.
            let mut plain = Series::EMPTY;
            values.iter().for_each(|value| plain.add(*value, 1));
            let stat = sum.stats().map(|stats| stats.of(Metric::Cpu));
            prop_assert_eq!(stat, (!values.is_empty()).then(|| plain.stat(sum.count)));
        }

        #[test]
        fn buckets_add_up_and_their_figures_are_in_order(
            values in vec((any::<u64>(), 0u32..64).prop_map(|(n, shift)| n >> shift), 1..50),
            cut in any::<prop::sample::Index>(),
        ) {
            let (one, other) = values.split_at(cut.index(values.len() + 1));
            let mut sum = cpu(one);
            sum.merge(&cpu(other));
            prop_assert_eq!(&sum, &cpu(&values));
            let stat = sum.stats().unwrap().of(Metric::Cpu);
            prop_assert!(stat.holds());
            let mut sorted = values.clone();
            sorted.sort_unstable();
            let most = sorted[sorted.len() - 1];
            let rank = sorted.len() - sorted.len() / 20;
            prop_assert!(stat.p95.value().abs_diff(sorted[rank - 1]) <= most / 8 + most / 128 + 1);
        }
    }
}
