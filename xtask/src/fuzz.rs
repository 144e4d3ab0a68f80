//! `cargo xtask fuzz`: hostile input for longer than the gate has time for, from where nobody has looked.
//!
//! A target is a test that is in a binary, or a module, named `fuzz`.

use std::process::ExitCode;

use anyhow::ensure;
use clap::Args;
use serde::Serialize;

use crate::ci::{Summary, closing_lines, nextest};
use crate::{print, say};

/// All targets, for nextest. What tests the tools is none.
const TARGETS: &str =
    "(binary(fuzz) | test(/(^|::)fuzz::/)) & not (package(fuzz) | package(xtask))";
/// The crates that have some. Nextest takes a crate that is not there for a mistake.
const CRATES: [&str; 4] = ["agent", "decide", "drivers", "trust"];

/// Arguments of the task.
#[derive(Args)]
pub(crate) struct Fuzz {
    /// Only targets of this crate, or with this in their name: `trust`, `histories`
    target: Option<String>,
    /// How long each target runs
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Where they begin; a new place each time if left out
    #[arg(long)]
    seed: Option<u64>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    seed: u64,
    seconds: u64,
    ok: bool,
    targets: Vec<Summary>,
}

impl Fuzz {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let (seed, seconds) = (self.seed.unwrap_or_else(fresh), self.seconds);
        let mut summaries = Vec::new();
        let ran = run(self.target.as_deref(), seconds, seed, &mut summaries);
        if let Err(error) = &ran {
            say(&format!("error: {error:#}"));
        }
        let text = closing_lines(&summaries);
        if self.json {
            say(&text);
            let report = Report { seed, seconds, ok: ran.is_ok(), targets: summaries };
            print(&serde_json::to_string_pretty(&report)?);
        } else {
            print(&text);
        }
        Ok(if ran.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// All targets for a minute each, from where nobody has looked.
pub(crate) fn for_a_minute(summaries: &mut Vec<Summary>) -> anyhow::Result<()> {
    run(None, 60, fresh(), summaries)
}

fn run(
    target: Option<&str>,
    seconds: u64,
    seed: u64,
    summaries: &mut Vec<Summary>,
) -> anyhow::Result<()> {
    say(&format!("EVENKEEL_FUZZ_SEED={seed} EVENKEEL_FUZZ_SECONDS={seconds}"));
    let filter = filter(target)?;
    let arguments =
        ["--workspace", "--profile", "fuzz", "--success-output", "immediate", "-E", &filter];
    let variables = [("EVENKEEL_FUZZ_SEED", seed), ("EVENKEEL_FUZZ_SECONDS", seconds)];
    nextest(&arguments, &variables, summaries)
}

/// A seed that was not tried before: the clock draws it.
fn fresh() -> u64 {
    jiff::Timestamp::now().as_millisecond().unsigned_abs()
}

/// Those targets for nextest; the words of its language are not for names.
fn filter(target: Option<&str>) -> anyhow::Result<String> {
    let Some(target) = target else { return Ok(TARGETS.to_owned()) };
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "_-:".contains(letter);
    ensure!(target.chars().all(plain), "no target has {target:?} in its name");
    let of = if CRATES.contains(&target) { "package(=" } else { "test(~" };
    Ok(format!("{TARGETS} & {of}{target})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_chosen_by_a_part_of_their_name() {
        assert_eq!(filter(None).unwrap(), TARGETS);
        let some = filter(Some("net::fuzz")).unwrap();
        assert_eq!(some, format!("{TARGETS} & test(~net::fuzz)"));
        assert_eq!(filter(Some("trust")).unwrap(), format!("{TARGETS} & package(=trust)"));
        let why = filter(Some("a) | all()")).unwrap_err().to_string();
        assert_eq!(why, "no target has \"a) | all()\" in its name");
    }
}
