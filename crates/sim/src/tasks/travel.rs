//! `evenkeel-sim travel`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use sim::traces::{bitbrains, planetlab};
use sim::travel::{Options, Pair, travel};

use super::{print, say};

/// Arguments of the task.
#[derive(Args)]
#[command(after_help = "Example: evenkeel-sim travel --traces ~/traces --seeds 5")]
pub(crate) struct Travel {
    /// Folder with planetlab/ and bitbrains/
    #[arg(long)]
    traces: PathBuf,
    /// Seeds of each trace; each lives twice
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// Hosts of each cluster
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u16).range(2..=100))]
    hosts: u16,
    /// VMs of each
    #[arg(long, default_value_t = 144)]
    vms: usize,
    /// Mean use of all processors, percent
    #[arg(long, default_value_t = 55, value_parser = clap::value_parser!(u32).range(1..=100))]
    load: u32,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl Travel {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let options = Options { hosts: self.hosts, vms: self.vms, load: self.load };
        let days = ["2013-07-01", "2013-07-02", "2013-07-03"];
        let traces = [
            ("Bitbrains, three days", bitbrains(&self.traces, &days)?),
            ("PlanetLab 20110306", planetlab(&self.traces, "20110306")?),
        ];
        let mut reports = Vec::new();
        for (name, guests) in &traces {
            let report = travel(name, guests, self.seeds, &options, &progress);
            say(&format!("{}\n", report.table()))?;
            reports.push(report);
        }
        if self.json {
            print(&reports)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn progress(pair: &Pair) {
    let Pair { seed, with, without } = pair;
    let (moves, cold) = (with.moves, without.moves);
    let (over, over_cold) = (with.overload_minutes, without.overload_minutes);
    // Progress that cannot be shown is no failure.
    let _ = say(&format!(
        "seed {seed}: {moves} moves and {over} overload minutes with, {cold} and {over_cold} without\n"
    ));
}
