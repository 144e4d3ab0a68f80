//! Figures of `bench move`, the ratios made of them, and what is wanted of those.

use serde::Serialize;

/// What is wanted of ours beside moves by hand.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Limits {
    /// Ours may take this much of the time by hand.
    pub(crate) total_max: f64,
    /// Likewise for the pause that a client notices, …
    pub(crate) downtime_max: f64,
    /// … unless it is longer by no more than this, in milliseconds.
    pub(crate) downtime_more_max: f64,
}

impl Limits {
    /// Beside QMP by hand.
    pub(crate) const QEMU: Limits =
        Limits { total_max: 1.15, downtime_max: 1.5, downtime_more_max: 50.0 };
    /// Beside libvirt's own migration.
    pub(crate) const LIBVIRT: Limits =
        Limits { total_max: 1.10, downtime_max: 1.2, downtime_more_max: 100.0 };
}

/// The moves of one side, in the order in which they were made.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Side {
    /// From the start of the memory copy to the guest running at the target; under libvirt from the order to the end of all, as libvirt's own
    /// migration is one call.
    pub(crate) total_ms: Vec<u64>,
    /// Longest silence that a client noticed, pinging each 5 ms.
    pub(crate) downtime_ms: Vec<u64>,
    /// The pause by the mover's own count: QEMU's by hand; by Evenkeel until the guest was seen running at the target.
    pub(crate) own_downtime_ms: Vec<u64>,
    /// Sent.
    pub(crate) bytes: Vec<u64>,
    /// Rounds over the memory.
    pub(crate) rounds: Vec<u64>,
    /// Medians.
    pub(crate) median_total_ms: f64,
    /// Medians.
    pub(crate) median_downtime_ms: f64,
}

/// The one document.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figures {
    /// Evenkeel's moves.
    pub(crate) ours: Side,
    /// Moves by hand.
    pub(crate) raw: Side,
    /// Medians of the total times, ours over by hand.
    pub(crate) ratio_total: f64,
    /// Medians of the silences, ours over by hand.
    pub(crate) ratio_downtime: f64,
    /// From request to readiness, ours alone: the guest runs meanwhile.
    pub(crate) negotiation_ms: Vec<u64>,
    /// Its median.
    pub(crate) median_negotiation_ms: f64,
    /// What both sides were told.
    pub(crate) parameters: Parameters,
    /// What is wanted.
    pub(crate) limits: Limits,
    /// How long all took.
    pub(crate) seconds: f64,
    /// Whether all held.
    pub(crate) ok: bool,
    /// What did not.
    pub(crate) failures: Vec<String>,
}

/// What both sides were told, and of what guest.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Parameters {
    pub(crate) bandwidth_bits_per_second: u64,
    pub(crate) downtime_limit_ms: u64,
    pub(crate) multifd: bool,
    pub(crate) guest_mib: u64,
    pub(crate) dirty_mib: u64,
    pub(crate) dirty_mib_per_second: u64,
    pub(crate) accelerator: String,
}

impl Figures {
    /// None yet.
    pub(crate) fn new(limits: Limits) -> Figures {
        Figures {
            ours: Side::default(),
            raw: Side::default(),
            ratio_total: 0.0,
            ratio_downtime: 0.0,
            negotiation_ms: Vec::new(),
            median_negotiation_ms: 0.0,
            parameters: Parameters::default(),
            limits,
            seconds: 0.0,
            ok: false,
            failures: Vec::new(),
        }
    }

    /// Reckons medians and ratios, and judges them.
    pub(crate) fn reckon(&mut self) {
        for side in [&mut self.ours, &mut self.raw] {
            side.median_total_ms = median(&side.total_ms);
            side.median_downtime_ms = median(&side.downtime_ms);
        }
        self.median_negotiation_ms = median(&self.negotiation_ms);
        let Limits { total_max, downtime_max, downtime_more_max } = self.limits;
        let (ours, raw) = (&self.ours, &self.raw);
        if ours.total_ms.is_empty() || raw.total_ms.is_empty() {
            self.failures.push("a side made no move".to_owned());
            return;
        }
        self.ratio_total = ratio(ours.median_total_ms, raw.median_total_ms);
        self.ratio_downtime = ratio(ours.median_downtime_ms, raw.median_downtime_ms);
        let more = ours.median_downtime_ms - raw.median_downtime_ms;
        if self.ratio_total > total_max {
            let total = self.ratio_total;
            self.failures.push(format!("total time: {total} of by hand, at most {total_max}"));
        }
        if self.ratio_downtime > downtime_max && more > downtime_more_max {
            self.failures.push(format!(
                "downtime: {} of by hand and {more} ms more, at most {downtime_max} or {downtime_more_max} ms",
                self.ratio_downtime
            ));
        }
        self.ok = self.failures.is_empty();
    }

    /// The table for people; in Markdown, so that it can go into docs/benchmarks.md as it is.
    pub(crate) fn table(&self) -> String {
        let Limits { total_max, downtime_max, downtime_more_max } = self.limits;
        let (ours, raw) = (&self.ours, &self.raw);
        let mut lines = vec![
            "| median | Evenkeel | by hand | ratio | wanted |".to_owned(),
            "|---|---|---|---|---|".to_owned(),
            format!(
                "| total time | {} ms | {} ms | {} | at most {total_max} |",
                ours.median_total_ms, raw.median_total_ms, self.ratio_total
            ),
            format!(
                "| downtime, by a client | {} ms | {} ms | {} | at most {downtime_max}, or {downtime_more_max} ms more |",
                ours.median_downtime_ms, raw.median_downtime_ms, self.ratio_downtime
            ),
            format!(
                "| downtime, by its own count | {} ms | {} ms | | |",
                median(&ours.own_downtime_ms),
                median(&raw.own_downtime_ms)
            ),
            format!("| sent | {:.1} MiB | {:.1} MiB | | |", mib(&ours.bytes), mib(&raw.bytes)),
            format!("| rounds | {} | {} | | |", median(&ours.rounds), median(&raw.rounds)),
            format!("| request to readiness | {} ms | | | |", self.median_negotiation_ms),
        ];
        lines.extend(self.failures.iter().map(|why| format!("FAILED: {why}")));
        lines.join("\n")
    }
}

/// The middle one, or the middle between two.
#[expect(clippy::cast_precision_loss, reason = "milliseconds and bytes of one move")]
fn median(all: &[u64]) -> f64 {
    let mut sorted = all.to_vec();
    sorted.sort_unstable();
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2] as f64,
        n => (sorted[n / 2 - 1] + sorted[n / 2]) as f64 / 2.0,
    }
}

fn mib(bytes: &[u64]) -> f64 {
    median(bytes) / f64::from(1 << 20)
}

fn ratio(ours: f64, raw: f64) -> f64 {
    (ours / raw.max(1.0) * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(ours: (&[u64], &[u64]), raw: (&[u64], &[u64])) -> Figures {
        let side = |(total, downtime): (&[u64], &[u64])| Side {
            total_ms: total.to_vec(),
            downtime_ms: downtime.to_vec(),
            ..Side::default()
        };
        let mut figures =
            Figures { ours: side(ours), raw: side(raw), ..Figures::new(Limits::QEMU) };
        figures.reckon();
        figures
    }

    #[test]
    fn medians_not_means_are_compared() {
        let figures = judged((&[1000, 9000, 1100], &[100]), (&[1000], &[100]));
        assert!(figures.ok, "{figures:?}");
        assert!((figures.ratio_total - 1.1).abs() < 1e-9, "{figures:?}");
    }

    #[test]
    fn a_longer_pause_is_forgiven_if_it_is_short() {
        assert!(judged((&[1000], &[70]), (&[1000], &[20])).ok);
        let long = judged((&[1000], &[300]), (&[1000], &[150]));
        assert_eq!(long.failures, ["downtime: 2 of by hand and 150 ms more, at most 1.5 or 50 ms"]);
    }

    #[test]
    fn a_longer_move_is_not() {
        let slow = judged((&[1160], &[100]), (&[1000], &[100]));
        assert_eq!(slow.failures, ["total time: 1.16 of by hand, at most 1.15"]);
        assert!(!judged((&[], &[]), (&[1000], &[100])).ok);
    }
}
