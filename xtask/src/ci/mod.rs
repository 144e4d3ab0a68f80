//! `cargo xtask ci`: the gate. Every phase runs, also after one has failed, so that one run shows all that is wrong.
//!
//! ```text
//!   setup ─▶ bpf ─▶ fmt ─▶ clippy ─▶ tests ─▶ swarm ─▶ doc ─▶ real
//!     ─▶ (with --full: demo ─▶ libvirt ─▶ attack ─▶ web ─▶ night ─▶ bench dashboard ─▶ bench move ─▶ faults
//!                      ─▶ builds ─▶ dist ─▶ newcomer ─▶ model ─▶ mutants ─▶ fuzz)
//! ```
//!
//! **Invariant:** nothing is skipped silently: what cannot run here is named, and its phase fails.
//! **Invariant:** a test that fails is not tried again.

mod phases;
mod summary;

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tokio::time::Instant;

pub(crate) use self::phases::{cargo, nextest, root};
pub(crate) use self::summary::{Summary, closing_lines};
use crate::{print, say};

/// Arguments of the task.
#[derive(Args)]
pub(crate) struct Ci {
    /// Whatever takes longer too: demo, libvirt, `attack`, browser, benchmarks, `faults`, release builds, packages, `model`, `mutants` and
    /// a minute of each fuzz target
    #[arg(long)]
    full: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// How one phase went.
struct Ran {
    name: &'static str,
    took: Duration,
    outcome: anyhow::Result<()>,
}

impl Ci {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let phases = if self.full { phases::FULL } else { phases::GATE };
        let mut ran = Vec::new();
        let mut summaries = Vec::new();
        for (number, phase) in (1..).zip(phases) {
            say(&format!("== {} ({number} of {}): {}", phase.name, phases.len(), phase.what));
            let began = Instant::now();
            let outcome = (phase.run)(&mut summaries);
            if let Err(error) = &outcome {
                say(&format!("== {} failed: {error:#}", phase.name));
            }
            ran.push(Ran { name: phase.name, took: began.elapsed(), outcome });
        }
        let ok = ran.iter().all(|phase| phase.outcome.is_ok());
        let text = format!("{}\n\n{}", table(&ran), closing_lines(&summaries));
        if self.json {
            say(&text);
            print(&serde_json::to_string_pretty(&report(&ran, &summaries))?);
        } else {
            print(&text);
        }
        Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// One line per phase, and why it failed.
fn table(ran: &[Ran]) -> String {
    let mut lines = vec![format!("{:<10} {:>8}  RESULT", "PHASE", "SECONDS")];
    for phase in ran {
        let result = match &phase.outcome {
            Ok(()) => "ok".to_owned(),
            Err(error) => format!("FAILED: {error:#}"),
        };
        lines.push(format!("{:<10} {:>8.1}  {result}", phase.name, phase.took.as_secs_f64()));
    }
    let whole: Duration = ran.iter().map(|phase| phase.took).sum();
    lines.push(format!("{:<10} {:>8.1}", "all", whole.as_secs_f64()));
    lines.join("\n")
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    phases: Vec<PhaseReport>,
    tests: Summary,
}

#[derive(Serialize)]
struct PhaseReport {
    name: &'static str,
    seconds: f64,
    ok: bool,
}

fn report(ran: &[Ran], summaries: &[Summary]) -> Report {
    let row = |phase: &Ran| PhaseReport {
        name: phase.name,
        seconds: (phase.took.as_secs_f64() * 10.0).round() / 10.0,
        ok: phase.outcome.is_ok(),
    };
    Report { phases: ran.iter().map(row).collect(), tests: summary::sum(summaries) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ran() -> [Ran; 2] {
        let fmt = Ran { name: "fmt", took: Duration::from_millis(1240), outcome: Ok(()) };
        let outcome = Err(anyhow::anyhow!("cargo ended with exit status: 101"));
        [fmt, Ran { name: "tests", took: Duration::from_secs(60), outcome }]
    }

    #[test]
    fn the_table_says_what_failed_and_why() {
        assert_eq!(
            table(&ran()),
            "PHASE       SECONDS  RESULT\n\
             fmt             1.2  ok\n\
             tests          60.0  FAILED: cargo ended with exit status: 101\n\
             all            61.2"
        );
    }

    #[test]
    fn the_report_has_a_row_per_phase_and_the_sums() {
        let summaries = ["Summary [ 1s] 3 tests run: 2 passed, 1 failed, 0 skipped"; 2];
        let summaries: Vec<Summary> =
            summaries.iter().filter_map(|line| Summary::read(line)).collect();
        let report = serde_json::to_value(report(&ran(), &summaries)).unwrap();
        assert_eq!(
            report,
            serde_json::json!({
                "phases": [
                    { "name": "fmt", "seconds": 1.2, "ok": true },
                    { "name": "tests", "seconds": 60.0, "ok": false },
                ],
                "tests": { "run": 6, "passed": 4, "failed": 2 },
            })
        );
    }
}
