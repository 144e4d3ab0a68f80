//! What came of a case: means over its seeds.

use serde::Serialize;
use sim::simulate::{Cluster, Figures, HotNodes, Report};

use super::hbal::Theirs;
use super::judge::Check;

/// One seed's life.
#[derive(Debug)]
pub(crate) struct Lived {
    pub(crate) seed: u64,
    pub(crate) report: Report,
}

/// All of a case; where nothing else is said, means over seeds.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Row {
    pub(crate) case: String,
    pub(crate) nodes: usize,
    /// In the last seed's cluster.
    pub(crate) vms: usize,
    pub(crate) trigger: &'static str,
    pub(crate) before: Figures,
    pub(crate) after: Figures,
    /// Migrations made.
    pub(crate) moves: f64,
    pub(crate) moved_gib: f64,
    pub(crate) rounds: f64,
    pub(crate) messages: f64,
    pub(crate) messages_per_move: f64,
    pub(crate) cpu_s: f64,
    /// Sums over seeds, as are those that follow.
    pub(crate) hot: HotNodes,
    pub(crate) over: usize,
    pub(crate) over_at_some_instant: usize,
    pub(crate) rules_broken: usize,
    pub(crate) unended: usize,
    /// Percent of a node, at any instant, in any seed.
    pub(crate) memory_peak: f64,
    pub(crate) hbal: Option<Theirs>,
    pub(crate) seeds: Vec<Seed>,
}

/// One seed.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Seed {
    seed: u64,
    after: Figures,
    moves: usize,
    moved_gib: f64,
    rounds: u64,
    messages: u64,
    cpu_s: f64,
    hot: HotNodes,
}

impl Row {
    pub(crate) fn of(
        case: String,
        cluster: &Cluster,
        trigger: &'static str,
        lived: &[Lived],
    ) -> Row {
        let reports = || lived.iter().map(|lived| &lived.report);
        let of = |figure: fn(&Report) -> f64| mean(reports().map(figure));
        let sum = |figure: fn(&Report) -> usize| reports().map(figure).sum();
        let (moves, messages) = (of(|r| r.steps.moves as f64), of(|r| r.messages as f64));
        Row {
            case,
            nodes: cluster.nodes.len(),
            vms: cluster.vms.len(),
            trigger,
            before: Figures::mean(reports().map(|r| &r.before)),
            after: Figures::mean(reports().map(|r| &r.after)),
            moves,
            moved_gib: of(|r| r.steps.moved_gib),
            rounds: of(|r| r.rounds as f64),
            messages,
            messages_per_move: if moves > 0.0 { messages / moves } else { 0.0 },
            cpu_s: of(|r| r.cpu_s),
            hot: HotNodes {
                before: sum(|r| r.hot.before),
                made: sum(|r| r.hot.made),
                after: sum(|r| r.hot.after),
            },
            over: sum(|r| r.after.over),
            over_at_some_instant: sum(|r| r.steps.over_at_some_instant),
            rules_broken: sum(|r| r.steps.rules_broken),
            unended: sum(|r| usize::from(!r.quiet)),
            memory_peak: reports().map(|r| r.steps.memory_peak).fold(0.0, f64::max),
            hbal: None,
            seeds: lived.iter().map(Seed::of).collect(),
        }
    }
}

impl Seed {
    fn of(Lived { seed, report }: &Lived) -> Seed {
        let Report { after, steps, rounds, messages, cpu_s, hot, .. } = report;
        let (moves, moved_gib) = (steps.moves, steps.moved_gib);
        let (after, rounds, messages) = (*after, *rounds, *messages);
        Seed { seed: *seed, after, moves, moved_gib, rounds, messages, cpu_s: *cpu_s, hot: *hot }
    }
}

pub(crate) fn mean(all: impl ExactSizeIterator<Item = f64>) -> f64 {
    let n = all.len().max(1) as f64;
    all.sum::<f64>() / n
}

/// The table for people; in Markdown, so that it can go into docs/benchmarks.md as it is.
pub(crate) fn table(rows: &[Row], checks: &[Check], hbal: &str) -> String {
    let mut lines = vec![
        "| cluster | | moves | GiB moved | CPU std % | CPU spread % | memory std % | memory spread % | CPU-s | messages a move |".to_owned(),
        "|---|---|---|---|---|---|---|---|---|---|".to_owned(),
    ];
    for row in rows {
        let figures = |who: &str, moves: f64, gib: f64, f: &Figures| {
            format!(
                "| {} | {who} | {moves:.1} | {gib:.0} | {:.2} | {:.2} | {:.2} | {:.2} |",
                row.case, f.cpu_std, f.cpu_spread, f.mem_std, f.mem_spread
            )
        };
        lines.push(figures("before", 0.0, 0.0, &row.before) + " | |");
        let ours = figures("Evenkeel", row.moves, row.moved_gib, &row.after);
        lines.push(format!("{ours} {:.1} | {:.0} |", row.cpu_s, row.messages_per_move));
        if let Some(theirs) = &row.hbal {
            let theirs = figures("hbal", theirs.moves, theirs.moved_gib, &theirs.after);
            lines.push(theirs + " | |");
        }
    }
    lines.push(format!("\nhbal: {hbal}\n"));
    lines.push("| cluster | what | measured | at most | |".to_owned());
    lines.push("|---|---|---|---|---|".to_owned());
    // What may never be is told only where it is.
    let shown = checks.iter().filter(|check| !check.held || check.max > 0.0);
    for Check { case, what, value, max, held } in shown {
        let word = if *held { "" } else { "MISSED" };
        lines.push(format!("| {case} | {what} | {value:.2} | {max:.2} | {word} |"));
    }
    let missed = checks.iter().filter(|check| !check.held).count();
    lines.push(format!("\n{} figures, {missed} missed", checks.len()));
    lines.join("\n")
}
