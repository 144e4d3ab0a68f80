//! `evenkeel lab replay`.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use super::{replay, show, unpacked};

const HELP: &str = "\
A log is what an agent recorded (`[record]` in its configuration). Nothing is contacted and nothing is done: the events
go into a fresh copy of the code that decides, and what it gives is held against what was given then.

Exit codes: 0 the same up to the log's end, 1 another outcome, damage, or no log, 2 wrong command line.

Examples:
  evenkeel lab replay /var/lib/evenkeel/record/83a68107.1795373297.jsonl.lz4
  evenkeel lab replay LOG --move 83a68107.1795373297.1
  evenkeel lab replay LOG --json | jq -r '.decisions[] | select(.step == \"choice\") | .reason'";

/// Go through what an agent recorded again: the same actions, bit for bit? And what was decided, and why.
#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub struct Replay {
    /// What an agent recorded.
    log: PathBuf,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
    /// Show decisions from this event on (their first column).
    #[arg(long, value_name = "EVENT", default_value_t = 0)]
    from: u64,
    /// Show the decisions of this move only.
    #[arg(long = "move", value_name = "MOVE")]
    move_id: Option<String>,
}

impl Replay {
    /// Goes through the log, and tells.
    ///
    /// # Errors
    /// If it cannot be opened or is no log, or if nobody takes what is printed.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let name = || self.log.display().to_string();
        let file = File::open(&self.log).with_context(|| format!("opening {}", name()))?;
        let log = unpacked(file).with_context(|| format!("reading {}", name()))?;
        let mut replayed = replay(log).with_context(name)?;
        replayed.decisions.retain(|decision| {
            let of_move =
                |wanted: &String| decision.note.move_id.is_some_and(|id| id.to_string() == *wanted);
            decision.event >= self.from && self.move_id.as_ref().is_none_or(of_move)
        });
        let text = if self.json { show::document(&replayed)? } else { show::table(&replayed) };
        match io::stdout().lock().write_all(text.as_bytes()) {
            // Whoever read it has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            written => written.context("writing to standard output")?,
        }
        Ok(if replayed.same() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
