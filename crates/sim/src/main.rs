//! `evenkeel-sim`: what `evenkeel lab` hands over to.

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
enum Task {}

fn main() -> ExitCode {
    match Arguments::parse().task {}
}
