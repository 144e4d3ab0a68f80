//! `cargo xtask bench …`: figures against something that is known, as ratios taken in one run.

use std::process::ExitCode;

use clap::Subcommand;

pub(crate) use self::monitor::StandIn;

mod balance;
mod dashboard;
mod domains;
mod figures;
mod history;
mod monitor;
mod moves;
mod security;

/// What is measured.
#[derive(Subcommand)]
pub(crate) enum Bench {
    /// How even the agents make described clusters, with how many moves, against hbal
    #[command(
        after_help = "Examples:\n  cargo xtask bench balance --quick\n  cargo xtask bench balance --cluster cluster.json --json"
    )]
    Balance(balance::Balance),
    /// First paint, script, events and processor time of a dashboard with 50 hosts, 1,000 VMs and 10 viewers
    #[command(after_help = "Example: cargo xtask bench dashboard --json")]
    Dashboard(dashboard::Dashboard),
    /// Moves by Evenkeel against moves driven by hand through QMP, or by libvirt's own migration
    #[command(
        after_help = "Examples:\n  cargo xtask bench move --rounds 7 --json\n  cargo xtask bench move --driver libvirt"
    )]
    Move(moves::Move),
    /// What usage histories take on disk, and what they cost
    #[command(after_help = "Example: cargo xtask bench history traces/ --json")]
    History(history::History),
    /// What watching costs: a reading cycle, the programs at the taps, the agent
    #[command(after_help = "Example: cargo xtask bench monitor --json")]
    Monitor(monitor::Monitor),
    /// What a move costs agents more with keys than without
    #[command(after_help = "Example: cargo xtask bench security --json")]
    Security(security::Security),
}

impl Bench {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        match self {
            Bench::Balance(task) => task.run(),
            Bench::Dashboard(task) => task.run(),
            Bench::Move(task) => task.run(),
            Bench::History(task) => task.run(),
            Bench::Monitor(task) => task.run(),
            Bench::Security(task) => task.run(),
        }
    }
}
