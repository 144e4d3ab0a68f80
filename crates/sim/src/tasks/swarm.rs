//! `evenkeel-sim swarm`.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use sim::swarm::{Life, Options, Until, swarm};

use super::{print, say};

/// Arguments of the task.
#[derive(Args)]
#[command(after_help = "Example: evenkeel-sim swarm --seeds 1000 --hosts 12")]
pub(crate) struct Swarm {
    /// Seeds to live
    #[arg(long, default_value_t = 100, conflicts_with = "seconds")]
    seeds: u64,
    /// Instead of a number of seeds: begin new ones for so long
    #[arg(long)]
    seconds: Option<u64>,
    /// The first seed; the others follow it
    #[arg(long, default_value_t = 1)]
    first_seed: u64,
    /// Hosts of each cluster
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u16).range(2..=1000))]
    hosts: u16,
    /// Seconds of simulated time in which things go wrong; 0: nothing does
    #[arg(long, default_value_t = Options::default().faulty.as_secs())]
    faulty: u64,
    /// Plant this bug before, to see that it is found
    #[cfg(feature = "planted")]
    #[arg(long)]
    plant: Option<String>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl Swarm {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let plant = self.plant()?;
        let options = Options {
            hosts: self.hosts,
            faulty: Duration::from_secs(self.faulty),
            ..Options::default()
        };
        let until = match self.seconds {
            Some(seconds) => Until::Passed(Duration::from_secs(seconds)),
            None => Until::Seeds(self.seeds),
        };
        let report = swarm(self.first_seed, until, &options, plant, &progress);
        say(&report.table())?;
        if self.json {
            print(&report)?;
        }
        Ok(if report.violations == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    #[cfg(feature = "planted")]
    fn plant(&self) -> anyhow::Result<Option<&str>> {
        use anyhow::Context as _;
        use decide::planted::{Bug, plant};
        let Some(name) = &self.plant else { return Ok(None) };
        let bug = Bug::ALL.iter().find(|bug| bug.name() == name);
        let names = || Bug::ALL.iter().map(|bug| bug.name()).collect::<Vec<_>>().join(", ");
        plant(Some(*bug.with_context(|| format!("no bug {name}; there are: {}", names()))?));
        Ok(Some(name))
    }

    #[cfg(not(feature = "planted"))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "as with the feature")]
    fn plant(&self) -> anyhow::Result<Option<&str>> {
        Ok(None)
    }
}

/// Now and then a line, and each failure at once.
fn progress(life: &Life, lived: u64) {
    let line = match life.violations.first() {
        Some(first) => format!("seed {}: {}: {}\n", life.seed, first.property.name(), first.what),
        None if lived.is_multiple_of(50) => format!("{lived} seeds\n"),
        None => return,
    };
    // Progress that cannot be shown is no failure of the swarm.
    let _ = say(&line);
}
