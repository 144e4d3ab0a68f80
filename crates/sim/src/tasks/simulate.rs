//! `evenkeel-sim simulate`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use decide::policy::file;
use decide::policy::settings::{Settings, Trigger};
use sim::simulate::{Cluster, Options, Report, simulate};

use super::{print, say};

/// Arguments of the task.
#[derive(Args)]
#[command(
    after_help = "The agents act by themselves, and moves_per_day is lifted.\n\nExample: evenkeel-sim simulate cluster.json --trigger spread"
)]
pub(crate) struct Simulate {
    /// The cluster: nodes[] {id, cores, mem_mb, net_mbps}, vms[] {id, host, mem_mb, cpu, net_rx, net_tx, dirty_mbps}, rules[]
    cluster: PathBuf,
    /// What makes VMs leave: hot, spread or packets; the policy's own by default
    #[arg(long, value_parser = trigger)]
    trigger: Option<Trigger>,
    /// Settings, as in the agent's file; the shipped ones by default
    #[arg(long)]
    policy: Option<PathBuf>,
    /// For all that is drawn
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Ends after so many rounds of ten seconds, even if something still moves
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    max_rounds: u64,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

fn trigger(text: &str) -> Result<Trigger, String> {
    match text {
        "hot" => Ok(Trigger::Hot),
        "spread" => Ok(Trigger::Spread),
        "packets" => Ok(Trigger::Packets),
        "consolidate" => Ok(Trigger::Consolidate),
        _ => Err("known are hot, spread".to_owned()),
    }
}

impl Simulate {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let file = self.cluster.display();
        let text =
            std::fs::read_to_string(&self.cluster).with_context(|| format!("reading {file}"))?;
        let cluster = Cluster::read(&text).with_context(|| file.to_string())?;
        let mut settings = self.settings()?;
        settings.mode.trigger = self.trigger.unwrap_or(settings.mode.trigger);
        let (seed, rounds_max) = (self.seed, self.max_rounds);
        let options = Options { settings, seed, rounds_max, ..Options::default() };
        let report = simulate(&cluster, &options, &|rounds, moves| {
            // Progress that cannot be shown is no failure.
            let _ = say(&format!("\rround {rounds}: {moves} moves"));
        });
        say("\n")?;
        say(&table(&report))?;
        if self.json {
            print(&report)?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn settings(&self) -> anyhow::Result<Settings> {
        let Some(path) = &self.policy else { return Ok(Settings::default()) };
        let text =
            std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        file::settings(&text).map_err(|mistake| anyhow::anyhow!("{}: {mistake}", path.display()))
    }
}

fn table(report: &Report) -> String {
    let Report { before, after, steps, rounds, messages, hot, cpu_s, quiet, .. } = report;
    let line = |name: &str, a: f64, b: f64| format!("{name:<18} {a:>8.2} {b:>8.2}\n");
    let mut text = format!("{:<18} {:>8} {:>8}\n", "percent", "before", "after");
    text += &line("cpu std", before.cpu_std, after.cpu_std);
    text += &line("cpu spread", before.cpu_spread, after.cpu_spread);
    text += &line("cpu max", before.cpu_max, after.cpu_max);
    text += &line("memory std", before.mem_std, after.mem_std);
    text += &line("memory spread", before.mem_spread, after.mem_spread);
    text += &line("memory max", before.mem_max, after.mem_max);
    text += &line("network max", before.net_max, after.net_max);
    text += &format!(
        "{} moves, {:.0} GiB, {rounds} rounds of 10 s, {messages} messages, hosts hot at first {}, made hot {}, hot in the end {}\nmemory at most {:.1} % at any instant, {} times above the whole, {} rules broken; {cpu_s:.1} s of processor time\n",
        steps.moves,
        steps.moved_gib,
        hot.before,
        hot.made,
        hot.after,
        steps.memory_peak,
        steps.over_at_some_instant,
        steps.rules_broken
    );
    if !quiet {
        text += "something still moves: more rounds are needed\n";
    }
    text
}
