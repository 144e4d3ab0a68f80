//! `cargo xtask mutants`: do the checks bite? Each planted bug (`decide::planted`) must be caught by one of them.
//!
//! The tree without a bug goes first and must pass. Then each bug has a process of its own, in which nothing but the bug
//! differs; the check that should catch it comes first, the others after it, until one has. Checks are the models and, for
//! what is about many hosts, the simulator: seeds without faults, in which each balancing move must lower the sum of costs, then
//! seeds with faults, among them clusters with rules and clusters that swap VMs.

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

/// What is built to run with a bug planted.
struct Built {
    /// The model checks.
    models: PathBuf,
    /// Their tests.
    tests: BTreeSet<String>,
    simulator: PathBuf,
}

/// What found a bug: by whom, the property, and the length of the path to it.
struct Caught {
    by: String,
    property: String,
    length: Option<usize>,
}

const SIMULATOR: &str = "simulator";
/// What the simulator lives, until it finds something.
const SWARMS: [&[&str]; 2] = [&["--seeds", "40", "--faulty", "0"], &["--seeds", "60"]];

/// What should catch the bug: the simulator, or the model with this in its test's name.
fn first_tried(bug: Bug) -> &'static str {
    match bug {
        Bug::ReliefWithDepartures
        | Bug::RulesWithoutArrivals
        | Bug::ReturnNotJudged
        | Bug::ReturnAwaitedForEver => SIMULATOR,
        Bug::ReservationKept | Bug::ConfirmedTwice => "two_sources_that_want_the_same_room",
        Bug::ResumeBeforeRecord
        | Bug::ReleasedBeforeCompleted
        | Bug::ResumeOnLostAnswer
        | Bug::VoidBeforeGone
        | Bug::EarlyCont
        | Bug::EpochNotRaised
        | Bug::TapLeftOn => "agents_that_crash_disks",
        Bug::FreshJournalVoids => "a_journal_that_is_lost",
        Bug::DiscardOnOwner
        | Bug::DiscardCompleteOnTimeout
        | Bug::ReleasedWhenGone
        | Bug::LateCopyEnded => "hypervisors_and_hosts_that_die",
    }
}

impl Mutants {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let built = build()?;
        say("the tree without a bug");
        let mut unmutated_passes = swarm(&built, None)?.is_none();
        for test in &built.tests {
            unmutated_passes &= run(&built, test, None)?.0;
        }
        let mut rows = Vec::new();
        for bug in Bug::ALL {
            say(&format!("bug {}", bug.name()));
            rows.push(hunt(&built, *bug)?);
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

/// Builds the checks with bugs that can be planted.
fn build() -> anyhow::Result<Built> {
    let mut build =
        cargo(&["test", "--package", "sim", "--features", "planted", "--test", "model"]);
    build.args(["--no-run", "--message-format", "json-render-diagnostics"]);
    let done = build.stdout(Stdio::piped()).output().context("running cargo")?;
    String::from_utf8_lossy(&done.stderr).lines().for_each(say);
    ensure!(done.status.success(), "cargo test --no-run ended with {}", done.status);
    let messages = String::from_utf8_lossy(&done.stdout);
    let models = executable(&messages, "model").context("cargo names no test binary")?;
    let simulator = executable(&messages, "evenkeel-sim").context("cargo names no simulator")?;
    Ok(Built { tests: tests(&models)?, models, simulator })
}

/// The binary of that name that cargo says it has built.
fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut built = messages.filter(|message| message["target"]["name"] == name);
    built.find_map(|message| message["executable"].as_str().map(PathBuf::from))
}

fn tests(binary: &Path) -> anyhow::Result<BTreeSet<String>> {
    let listed = Command::new(binary).args(["--list", "--format", "terse"]).output();
    let listed = listed.with_context(|| format!("running {}", binary.display()))?;
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    let names = text.lines().filter_map(|line| line.strip_suffix(": test"));
    Ok(names.map(str::to_owned).collect())
}

/// Tries one check after the other until one finds the bug.
fn hunt(built: &Built, bug: Bug) -> anyhow::Result<Row> {
    let began = Instant::now();
    let first = first_tried(bug);
    let mut caught = None;
    if first == SIMULATOR {
        caught = swarm(built, Some(bug))?;
    }
    let (likely, others): (Vec<_>, Vec<_>) =
        built.tests.iter().partition(|test| test.contains(first));
    for test in likely.into_iter().chain(others) {
        if caught.is_none() {
            caught = run(built, test, Some(bug))?.1.iter().find_map(violation);
        }
    }
    if caught.is_none() && first != SIMULATOR {
        caught = swarm(built, Some(bug))?;
    }
    let seconds = (began.elapsed().as_secs_f64() * 10.0).round() / 10.0;
    let (caught_by, property, trace_length) = match caught {
        Some(Caught { by, property, length }) => (Some(by), Some(property), length),
        None => (None, None, None),
    };
    Ok(Row { bug: bug.name(), caught_by, property, trace_length, seconds })
}

/// Runs one test; whether it passed, and what its model came to.
fn run(built: &Built, test: &str, bug: Option<Bug>) -> anyhow::Result<(bool, Vec<Checked>)> {
    let file = report_file("mutants")?;
    let mut command = Command::new(&built.models);
    command.args(["--exact", test]).env("EVENKEEL_MODEL_REPORT", &file).env("RUST_BACKTRACE", "0");
    match bug {
        Some(bug) => command.env("EVENKEEL_PLANTED", bug.name()),
        None => command.env_remove("EVENKEEL_PLANTED"),
    };
    let done = command.output().context("running the model checks")?;
    let models = read(&fs::read_to_string(&file).unwrap_or_default())?;
    if models.is_empty() {
        bail!("{test} reports nothing: {}", String::from_utf8_lossy(&done.stdout));
    }
    if bug.is_none() && !done.status.success() {
        say(&String::from_utf8_lossy(&done.stdout));
    }
    Ok((done.status.success(), models))
}

/// The property that a model found broken, with the shortest path.
fn violation(model: &Checked) -> Option<Caught> {
    let broken = model.properties.iter().filter(|property| !property.holds);
    let with_path = broken.filter_map(|p| Some((p.path.as_ref()?.len(), p.name.clone())));
    let (length, property) = with_path.min()?;
    Some(Caught { by: format!("model: {}", model.model), property, length: Some(length) })
}

/// What the simulator finds.
fn swarm(built: &Built, bug: Option<Bug>) -> anyhow::Result<Option<Caught>> {
    for seeds in SWARMS {
        let caught = lived(built, seeds, bug)?;
        if caught.is_some() {
            return Ok(caught);
        }
    }
    Ok(None)
}

fn lived(built: &Built, seeds: &[&str], bug: Option<Bug>) -> anyhow::Result<Option<Caught>> {
    let mut command = Command::new(&built.simulator);
    command.args(["swarm", "--json"]).args(seeds);
    if let Some(bug) = bug {
        command.args(["--plant", bug.name()]);
    }
    let done = command.output().context("running the simulator")?;
    let found: Value = serde_json::from_slice(&done.stdout).with_context(|| {
        format!("reading what it prints: {}", String::from_utf8_lossy(&done.stderr))
    })?;
    Ok(broken_in(&found))
}

fn broken_in(found: &Value) -> Option<Caught> {
    let first = found["failures"].as_array()?.first()?;
    let (seed, property) = (first["seed"].as_u64()?, first["property"].as_str()?.to_owned());
    Some(Caught { by: format!("simulator: seed {seed}"), property, length: None })
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
        assert_eq!(executable(messages, "model"), Some(PathBuf::from("/t/model-1")));
        assert_eq!(executable(messages, "evenkeel-sim"), None);
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
        let found = violation(&model.unwrap()[0]).unwrap();
        assert_eq!((&*found.by, &*found.property, found.length), ("model: m", "q", Some(1)));
    }

    #[test]
    fn what_the_simulator_finds_names_its_seed() {
        let found = serde_json::json!({ "failures": [{ "seed": 3, "property": "costs-fall" }] });
        let caught = broken_in(&found).unwrap();
        assert_eq!((&*caught.by, &*caught.property), ("simulator: seed 3", "costs-fall"));
        assert!(broken_in(&serde_json::json!({ "failures": [] })).is_none());
    }
}
