//! `evenkeel-sim`: what `evenkeel lab` hands over to.

mod tasks;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "evenkeel-sim",
    about = "Simulation, replay and checks",
    after_help = "`evenkeel lab dump` writes a living cluster as its agents see it, for `simulate`.",
    disable_help_subcommand = true
)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// How far forecasts are from what came, on real traces
    Forecast(tasks::Forecast),
    /// A cluster that is unevenly used, drawn from a seed, for `simulate`
    Generate(tasks::Generate),
    /// What the hosts' views of each other cost: bytes per host and second, by the number of hosts
    Gossip(tasks::Gossip),
    /// Expressions of a config: whether they are right, and what they decide
    Policy(tasks::Policy),
    Replay(sim::replay::Replay),
    /// A described cluster, lived by the production agents until nothing moves
    Simulate(tasks::Simulate),
    /// Clusters that suffer faults drawn from seeds, and must never break a promise
    Swarm(tasks::Swarm),
    /// What it brings that usage histories travel, on traces of real VMs
    Travel(tasks::Travel),
}

fn main() -> ExitCode {
    let ended = match Arguments::parse().task {
        Task::Forecast(forecast) => forecast.run(),
        Task::Generate(generate) => generate.run(),
        Task::Gossip(gossip) => gossip.run(),
        Task::Policy(policy) => policy.run(),
        Task::Replay(replay) => replay.run(),
        Task::Simulate(simulate) => simulate.run(),
        Task::Swarm(swarm) => swarm.run(),
        Task::Travel(travel) => travel.run(),
    };
    ended.unwrap_or_else(|error| {
        // Where standard error is closed, the exit code alone must do.
        let _ = writeln!(io::stderr(), "evenkeel-sim: {error:#}");
        ExitCode::FAILURE
    })
}
