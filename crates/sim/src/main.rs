//! `evenkeel-sim`: what `evenkeel lab` hands over to.

mod tasks;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "evenkeel-sim",
    about = "Simulation, replay and checks",
    disable_help_subcommand = true
)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Clusters that suffer faults drawn from seeds, and must never break a promise
    Swarm(tasks::Swarm),
}

fn main() -> anyhow::Result<ExitCode> {
    match Arguments::parse().task {
        Task::Swarm(swarm) => swarm.run(),
    }
}
