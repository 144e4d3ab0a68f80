//! `cargo xtask bench …`: figures against something that is known, as ratios taken in one run.

use std::process::ExitCode;

use clap::Subcommand;

mod figures;
mod moves;

/// What is measured.
#[derive(Subcommand)]
pub(crate) enum Bench {
    /// Moves by Evenkeel against moves driven by hand through QMP
    #[command(after_help = "Example: cargo xtask bench move --rounds 7 --json")]
    Move(moves::Move),
}

impl Bench {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        match self {
            Bench::Move(task) => task.run(),
        }
    }
}
