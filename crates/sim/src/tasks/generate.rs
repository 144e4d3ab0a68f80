//! `evenkeel-sim generate`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use sim::simulate::{Form, ganeti, generate};

use super::print;

/// Arguments of the task.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  evenkeel-sim generate 40 15 42 > cluster.json\n  evenkeel-sim generate 40 15 42 --hetero --rules 0.3 --out cluster"
)]
pub(crate) struct Generate {
    /// Hosts
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    nodes: u16,
    /// VMs, by the number of hosts
    vms_per_node: u16,
    /// For all that is drawn
    seed: u64,
    /// Share of the VMs that are under rules, all of which hold at first
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    rules: f64,
    /// Every second host is larger
    #[arg(long)]
    hetero: bool,
    /// Share of all memory up to which VMs are added; a host is full at 0.92
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    fill: f64,
    /// Write OUT.json, and OUT.ganeti and OUT.util for hbal, instead of printing the JSON
    #[arg(long)]
    out: Option<PathBuf>,
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "a number from 0 to 1 is needed".to_owned())
}

impl Generate {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let form = Form {
            nodes: self.nodes.into(),
            vms_per_node: self.vms_per_node.into(),
            hetero: self.hetero,
            rules: self.rules,
            fill: self.fill,
        };
        let cluster = generate(&form, self.seed);
        let Some(out) = &self.out else {
            print(&cluster)?;
            return Ok(ExitCode::SUCCESS);
        };
        write(out, "json", &serde_json::to_string(&cluster)?)?;
        write(out, "ganeti", &ganeti::state(&cluster))?;
        write(out, "util", &ganeti::usage(&cluster))?;
        Ok(ExitCode::SUCCESS)
    }
}

fn write(out: &Path, ending: &str, text: &str) -> anyhow::Result<()> {
    let mut path = out.as_os_str().to_owned();
    path.push(format!(".{ending}"));
    std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
}
