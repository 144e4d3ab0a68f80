//! The spans over which a history is kept: ten seconds, a minute, a quarter of an hour. Each is made of the one below.
//!
//! Spans lie on the grid of [`Time`]. A span that is over is closed by the first sample after it.
//!
//! **Invariant:** at most one span of each level is open, and what a closed one held has gone into the one above.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::bucket::{Bucket, Stats};
use super::sample::Sample;
use crate::units::Time;

/// How long the spans are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Level {
    /// Ten seconds each.
    TenSeconds,
    /// A minute each.
    Minute,
    /// 15 minutes each.
    Quarter,
}

impl Level {
    /// All, the shortest spans first.
    pub const ALL: [Level; 3] = [Level::TenSeconds, Level::Minute, Level::Quarter];

    /// The length of a span.
    pub const fn span(self) -> Duration {
        match self {
            Level::TenSeconds => Duration::from_secs(10),
            Level::Minute => Duration::from_secs(60),
            Level::Quarter => Duration::from_secs(900),
        }
    }

    /// When the span began in which `at` lies.
    pub fn start(self, at: Time) -> Time {
        let span = self.micros();
        Time(at.0 / span * span)
    }

    /// The number of the span in which `at` lies, counted from the beginning of [`Time`].
    pub fn number(self, at: Time) -> u64 {
        at.0 / self.micros()
    }

    /// When the span of that number begins; the end of [`Time`] for one beyond it.
    pub fn at(self, number: u64) -> Time {
        Time(number.saturating_mul(self.micros()))
    }

    const fn micros(self) -> u64 {
        self.span().as_secs() * 1_000_000
    }
}

/// A span that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Closed {
    /// How long it was.
    pub level: Level,
    /// When it began.
    pub start: Time,
    /// What was used in it.
    pub stats: Stats,
}

/// The spans that are not over.
///
/// Most VMs do the same for long: until a span has seen something else, the sample and how often it came say all. With many
/// VMs it is memory that a reading waits for, so what says all lies close together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Levels {
    /// The newest sample.
    steady: Sample,
    open: [Open; Level::ALL.len()],
}

/// A span that is not over; none while nothing is in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Open {
    start: Time,
    /// How often the newest sample came, and nothing else.
    times: u64,
    /// What came, once something else did: `times` is then zero.
    varied: Option<Box<Bucket>>,
}

impl Open {
    fn is_empty(&self) -> bool {
        self.times == 0 && self.varied.is_none()
    }

    /// Something else than `steady` comes: what there was so far goes where it is added to.
    fn vary(&mut self, steady: &Sample) -> &mut Bucket {
        let times = std::mem::take(&mut self.times);
        self.varied.get_or_insert_with(|| {
            let mut bucket = Box::<Bucket>::default();
            bucket.add(steady, times);
            bucket
        })
    }

    /// Counts what the span below has counted, which began in this one.
    fn merge(&mut self, start: Time, below: &Open, steady: &Sample) {
        self.start = start;
        match (&mut self.varied, &below.varied) {
            (None, None) => self.times += below.times,
            (Some(bucket), None) => bucket.add(steady, below.times),
            (_, Some(other)) => self.vary(steady).merge(other),
        }
    }

    fn stats(&self, steady: &Sample) -> Stats {
        let varied = self.varied.as_ref().and_then(|bucket| bucket.stats());
        varied.unwrap_or_else(|| Stats::steady(steady))
    }
}

impl Levels {
    /// Counts a sample; what it closes is added to `closed`.
    pub(super) fn push(&mut self, now: Time, sample: &Sample, closed: &mut Vec<Closed>) {
        let start = Level::TenSeconds.start(now);
        if self.open[0].start != start {
            self.close(now, closed);
        }
        let Levels { steady, open } = self;
        if steady != sample {
            for open in open.iter_mut().filter(|open| open.times > 0) {
                open.vary(steady);
            }
            *steady = *sample;
        }
        let newest = &mut open[0];
        newest.start = start;
        match &mut newest.varied {
            Some(bucket) => bucket.add(sample, 1),
            None => newest.times += 1,
        }
    }

    /// Closes what is over at `now`, from the shortest level on, so that each has all of the one below.
    fn close(&mut self, now: Time, closed: &mut Vec<Closed>) {
        let Levels { steady, open } = self;
        for (index, level) in Level::ALL.into_iter().enumerate() {
            let (upto, longer) = open.split_at_mut(index + 1);
            let over = &mut upto[index];
            if over.is_empty() || over.start == level.start(now) {
                continue;
            }
            if let (Some(above), Some(open)) = (Level::ALL.get(index + 1), longer.first_mut()) {
                // All of what is open there is of the same span: else it would have been closed before this one began.
                open.merge(above.start(over.start), over, steady);
            }
            closed.push(Closed { level, start: over.start, stats: over.stats(steady) });
            *over = Open::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::usage::history::sample::Metric;

    fn sample(cpu: u64) -> Sample {
        Sample::of([cpu, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    }

    fn pushed(seconds: impl IntoIterator<Item = u64>) -> Vec<Closed> {
        let (mut levels, mut closed) = (Levels::default(), Vec::new());
        for second in seconds {
            levels.push(Time(second * 1_000_000), &sample(second), &mut closed);
        }
        closed
    }

    #[test]
    fn an_hour_closes_spans_of_every_level_on_their_grid() {
        let closed = pushed(0..=3600);
        let of = |level| closed.iter().filter(move |c| c.level == level).collect::<Vec<_>>();
        let [tens, minutes, quarters] = Level::ALL.map(of);
        assert_eq!((tens.len(), minutes.len(), quarters.len()), (360, 60, 4));
        for one in &closed {
            assert_eq!(one.level.start(one.start), one.start);
            let (first, last) = (one.start.0 / 1_000_000, one.level.span().as_secs());
            let cpu = one.stats.of(Metric::Cpu);
            let mean = first + (last - 1) / 2;
            assert!(cpu.mean.value().abs_diff(mean) <= mean / 128 + 1, "{one:?}");
            assert!(cpu.min.value().abs_diff(first) <= first / 128 + 1, "{one:?}");
        }
    }

    proptest! {
        #[test]
        fn a_span_has_what_was_seen_in_it_however_often_that_changed(
            values in vec((0u64..3, 1u64..9), 1..200),
        ) {
            let mut levels = Levels::default();
            let (mut closed, mut seen) = (Vec::new(), Vec::new());
            let mut second = 0;
            for (cpu, later) in values {
                second += later;
                levels.push(Time(second * 1_000_000), &sample(cpu), &mut closed);
                seen.push((Time(second * 1_000_000), cpu));
            }
            for one in closed {
                let mut bucket = Bucket::default();
                let within = seen.iter().filter(|(at, _)| one.level.start(*at) == one.start);
                within.for_each(|(_, cpu)| bucket.add(&sample(*cpu), 1));
                prop_assert_eq!(Some(one.stats), bucket.stats());
            }
        }
    }

    #[test]
    fn a_gap_closes_what_was_open_and_leaves_nothing_in_between() {
        let closed = pushed([0, 1, 5000]);
        let starts: Vec<(Level, u64)> = closed.iter().map(|c| (c.level, c.start.0)).collect();
        assert_eq!(starts, [(Level::TenSeconds, 0), (Level::Minute, 0), (Level::Quarter, 0)]);
    }
}
