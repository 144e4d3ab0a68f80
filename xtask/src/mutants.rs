//! `cargo xtask mutants`: do the checks bite? Each planted bug (`decide::planted`) must be caught by one of them.
//!
//! The tree without a bug goes first and must pass. Then each bug has a process of its own, in which nothing but the bug
//! differs; the check that should catch it comes first, the others after it, until one has.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, bail, ensure};
use clap::Args;
use decide::planted::Bug;
use serde::Serialize;
use serde_json::Value;
use tokio::time::Instant;

use crate::ci::cargo;
use crate::model::{Checked, read, report_file};
use crate::{print, say};

/// Arguments of the task.
#[derive(Args)]
pub(crate) struct Mutants {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    planted: usize,
    caught: usize,
    /// Whether the tree without a bug passed.
    unmutated_passes: bool,
    rows: Vec<Row>,
}

/// One bug.
#[derive(Debug, Serialize)]
struct Row {
    bug: &'static str,
    caught_by: Option<String>,
    property: Option<String>,
    trace_length: Option<usize>,
    seconds: f64,
}

/// The model that should catch the bug, by a part of its test's name.
fn first_tried(bug: Bug) -> &'static str {
    match bug {
        Bug::ReservationKept | Bug::ConfirmedTwice => "two_sources_that_want_the_same_room",
        Bug::ResumeBeforeRecord
        | Bug::ReleasedBeforeCompleted
        | Bug::ResumeOnLostAnswer
        | Bug::VoidBeforeGone
        | Bug::EarlyCont
        | Bug::EpochNotRaised
        | Bug::FreshJournalVoids
        | Bug::ReliefWithDepartures
        | Bug::TapLeftOn => "agents_that_crash_disks",
        Bug::DiscardOnOwner
        | Bug::DiscardCompleteOnTimeout
        | Bug::ReleasedWhenGone
        | Bug::LateCopyEnded => "hypervisors_and_hosts_that_die",
    }
}

impl Mutants {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let binary = build()?;
        let tests = tests(&binary)?;
        say("the tree without a bug");
        let unmutated_passes = tests.iter().try_fold(true, |passes, test| {
            Ok::<bool, anyhow::Error>(passes & run(&binary, test, None)?.0)
        })?;
        let mut rows = Vec::new();
        for bug in Bug::ALL {
            say(&format!("bug {}", bug.name()));
            rows.push(hunt(&binary, &tests, *bug)?);
        }
        let caught = rows.iter().filter(|row| row.caught_by.is_some()).count();
        let report = Report { planted: rows.len(), caught, unmutated_passes, rows };
        if self.json {
            say(&table(&report));
            print(&serde_json::to_string_pretty(&report)?);
        } else {
            print(&table(&report));
        }
        let ok = unmutated_passes && caught == report.planted;
        Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Builds the model checks with bugs that can be planted, and finds the binary.
fn build() -> anyhow::Result<PathBuf> {
    let mut build =
        cargo(&["test", "--package", "sim", "--features", "planted", "--test", "model"]);
    build.args(["--no-run", "--message-format", "json"]).stdout(Stdio::piped());
    let done = build.output().context("running cargo")?;
    ensure!(done.status.success(), "cargo test --no-run ended with {}", done.status);
    let text = String::from_utf8_lossy(&done.stderr);
    text.lines().for_each(say);
    executable(&String::from_utf8_lossy(&done.stdout)).context("cargo names no test binary")
}

/// The test binary that cargo says it has built.
fn executable(messages: &str) -> Option<PathBuf> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut built = messages.filter(|message| message["target"]["name"] == "model");
    built.find_map(|message| message["executable"].as_str().map(PathBuf::from))
}

fn tests(binary: &Path) -> anyhow::Result<BTreeSet<String>> {
    let listed = Command::new(binary).args(["--list", "--format", "terse"]).output();
    let listed = listed.with_context(|| format!("running {}", binary.display()))?;
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    let names = text.lines().filter_map(|line| line.strip_suffix(": test"));
    Ok(names.map(str::to_owned).collect())
}

/// Runs one test; whether it passed, and what its model came to.
fn run(binary: &Path, test: &str, bug: Option<Bug>) -> anyhow::Result<(bool, Vec<Checked>)> {
    let file = report_file("mutants")?;
    let mut command = Command::new(binary);
    command.args(["--exact", test]).env("EVENKEEL_MODEL_REPORT", &file).env("RUST_BACKTRACE", "0");
    match bug {
        Some(bug) => command.env("EVENKEEL_PLANTED", bug.name()),
        None => command.env_remove("EVENKEEL_PLANTED"),
    };
    let done = command.output().with_context(|| format!("running {}", binary.display()))?;
    let models = read(&fs::read_to_string(&file).unwrap_or_default())?;
    if models.is_empty() {
        bail!("{test} reports nothing: {}", String::from_utf8_lossy(&done.stdout));
    }
    if bug.is_none() && !done.status.success() {
        say(&String::from_utf8_lossy(&done.stdout));
    }
    Ok((done.status.success(), models))
}

/// Tries one check after the other until one finds the bug.
fn hunt(binary: &Path, tests: &BTreeSet<String>, bug: Bug) -> anyhow::Result<Row> {
    let began = Instant::now();
    let first = tests.iter().filter(|test| test.contains(first_tried(bug)));
    let others = tests.iter().filter(|test| !test.contains(first_tried(bug)));
    let row = |caught: Option<(String, String, usize)>| {
        let seconds = (began.elapsed().as_secs_f64() * 10.0).round() / 10.0;
        let (by, property, length) = match caught {
            Some((by, property, length)) => (Some(by), Some(property), Some(length)),
            None => (None, None, None),
        };
        Row { bug: bug.name(), caught_by: by, property, trace_length: length, seconds }
    };
    for test in first.chain(others) {
        let (_, models) = run(binary, test, Some(bug))?;
        if let Some(caught) = models.iter().find_map(violation) {
            return Ok(row(Some(caught)));
        }
    }
    Ok(row(None))
}

/// The property that a model found broken, with the shortest path.
fn violation(model: &Checked) -> Option<(String, String, usize)> {
    let broken = model.properties.iter().filter(|property| !property.holds);
    let with_path = broken.filter_map(|p| Some((p.path.as_ref()?.len(), p.name.clone())));
    let (length, name) = with_path.min()?;
    Some((format!("model: {}", model.model), name, length))
}

fn table(report: &Report) -> String {
    let mut lines = vec![format!(
        "{:<28} {:<26} {:>5} {:>7}  PROPERTY",
        "BUG", "CAUGHT BY", "STEPS", "SECONDS"
    )];
    for row in &report.rows {
        let shown = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        let by = row.caught_by.clone().unwrap_or_else(|| "NOT CAUGHT".to_owned());
        let steps = row.trace_length.map_or("-".to_owned(), |length| length.to_string());
        let (bug, seconds, property) = (row.bug, row.seconds, shown(&row.property));
        lines.push(format!("{bug:<28} {by:<26} {steps:>5} {seconds:>7.1}  {property}"));
    }
    let passes = if report.unmutated_passes { "passes" } else { "FAILS" };
    lines.push(format!(
        "{} caught of {} planted; the tree without a bug {passes}",
        report.caught, report.planted
    ));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_binary_is_read_from_what_cargo_says() {
        let messages = "{\"target\":{\"name\":\"decide\"},\"executable\":null}\nnoise\n\
                        {\"target\":{\"name\":\"model\"},\"executable\":\"/t/model-1\"}";
        assert_eq!(executable(messages), Some(PathBuf::from("/t/model-1")));
    }

    #[test]
    fn a_bug_that_nobody_catches_is_shown() {
        let row = |bug, property: Option<&str>| Row {
            bug,
            caught_by: property.map(|_| "model: m".to_owned()),
            property: property.map(str::to_owned),
            trace_length: property.map(|_| 3),
            seconds: 0.5,
        };
        let rows = vec![row("a", Some("p")), row("b", None)];
        let report = Report { planted: 2, caught: 1, unmutated_passes: true, rows };
        let shown = table(&report);
        assert!(shown.contains("NOT CAUGHT") && shown.contains("1 caught of 2 planted"), "{shown}");
    }

    #[test]
    fn the_shortest_path_of_a_violation_is_told() {
        let model = read(
            r#"{"model":"m","states":7,"steps":9,"depth":3,"seconds":0.1,"properties":[{"name":"p","expects":"always","holds":false,"path":["a","b"]},{"name":"q","expects":"always","holds":false,"path":["a"]},{"name":"r","expects":"sometimes","holds":false,"path":null}]}"#,
        );
        let found = violation(&model.unwrap()[0]);
        assert_eq!(found, Some(("model: m".to_owned(), "q".to_owned(), 1)));
    }
}
