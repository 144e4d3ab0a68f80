//! The figures of all seeds, with and without, for people and for programs.

use std::fmt::Write as _;

use serde::Serialize;

use super::{Figures, Options};

/// A figure's name, and how it is had.
type Figure = (&'static str, fn(&Figures) -> f64);

/// A seed's two lives.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Pair {
    /// The seed.
    pub seed: u64,
    /// Histories travel.
    pub with: Figures,
    /// They begin anew at each arrival.
    pub without: Figures,
}

/// One figure, over all seeds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Arm {
    /// Mean over seeds.
    pub mean: f64,
    /// Of the seed with the least.
    pub least: f64,
    /// Of the seed with the most.
    pub most: f64,
}

/// All of one trace.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Which trace.
    pub trace: String,
    /// Hosts of each cluster.
    pub hosts: u16,
    /// VMs of each.
    pub vms: usize,
    /// Mean use of all processors, percent.
    pub load: u32,
    /// Every seed.
    pub pairs: Vec<Pair>,
    /// Each figure: its name, with, without, and how much more with, seed by seed.
    pub rows: Vec<(&'static str, Arm, Arm, Arm)>,
}

impl Report {
    pub(super) fn new(trace: &str, options: &Options, mut pairs: Vec<Pair>) -> Report {
        pairs.sort_by_key(|pair| pair.seed);
        let figures: [Figure; 6] = [
            ("moves", |f| f.moves as f64),
            ("GiB moved", |f| f.gib_moved),
            ("overload minutes", |f| f.overload_minutes as f64),
            ("hot minutes", |f| f.hot_minutes as f64),
            ("refused at readiness", |f| f.refused_at_readiness as f64),
            ("refusals in all", |f| f.refusals as f64),
        ];
        let row = |(name, of): Figure| {
            let arm = |figure: &dyn Fn(&Pair) -> f64| Arm::of(pairs.iter().map(figure));
            let (with, without) = (arm(&|pair| of(&pair.with)), arm(&|pair| of(&pair.without)));
            (name, with, without, arm(&|pair| of(&pair.with) - of(&pair.without)))
        };
        let rows = figures.into_iter().map(row).collect();
        let Options { hosts, vms, load } = *options;
        Report { trace: trace.to_owned(), hosts, vms, load, pairs, rows }
    }

    /// In Markdown, so that it can go into docs/benchmarks.md as it is.
    pub fn table(&self) -> String {
        let Report { trace, hosts, vms, load, pairs, .. } = self;
        let seeds = pairs.len();
        let mut text = format!(
            "{trace}: {seeds} seeds, {hosts} hosts, {vms} VMs, {load} % mean use; mean (least to most)\n\n| per seed | histories travel | begin anew | more with, seed by seed |\n|---|---|---|---|\n"
        );
        for (name, with, without, more) in &self.rows {
            let _ = writeln!(text, "| {name} | {with} | {without} | {more} |");
        }
        text
    }
}

impl Arm {
    fn of(all: impl Iterator<Item = f64> + Clone) -> Arm {
        let mean = all.clone().sum::<f64>() / all.clone().count().max(1) as f64;
        let least = all.clone().reduce(f64::min).unwrap_or(0.0);
        let most = all.reduce(f64::max).unwrap_or(0.0);
        Arm { mean, least, most }
    }
}

impl std::fmt::Display for Arm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.1} ({:.0} to {:.0})", self.mean, self.least, self.most)
    }
}
