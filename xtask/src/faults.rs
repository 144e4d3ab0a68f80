//! `cargo xtask faults`: in each phase of a move something breaks; what becomes of the VM is held against a table.
//!
//! **Invariant:** the exit code is 0 only if every case came out as the table in `lab::faults::table` has it.

use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use lab::faults::table::{self, Cell};
use lab::faults::{self, Bed, Case, Fault, Phase};
use serde::Serialize;
use tokio::time::Instant;

use crate::demo::prepare::{self, Driver};
use crate::{print, say};

/// Arguments of the task.
#[derive(Args)]
pub(crate) struct Faults {
    /// What moves the guests
    #[arg(long, value_enum, default_value_t = Driver::Qemu)]
    driver: Driver,
    /// Only these phases, as the table names them
    #[arg(long)]
    phase: Vec<Phase>,
    /// Only these faults, as the table names them
    #[arg(long)]
    fault: Vec<Fault>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    cases: Vec<Case>,
    absent: Vec<Absent>,
    ok: bool,
    seconds: f64,
}

/// A cell of the table that is no case.
#[derive(Serialize)]
struct Absent {
    phase: Phase,
    fault: Fault,
    reason: &'static str,
}

impl Faults {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        prepare::in_sandbox_with(self.driver, async || self.inside().await)
    }

    async fn inside(&self) -> anyhow::Result<ExitCode> {
        let began = Instant::now();
        let mut report = Report { cases: Vec::new(), absent: Vec::new(), ok: false, seconds: 0.0 };
        let driver = match self.driver {
            Driver::Qemu => faults::Driver::Qemu,
            Driver::Libvirt => faults::Driver::Libvirt,
        };
        let mut bed =
            Bed::make(&prepare::daemon()?, driver).await.context("making hosts and a guest")?;
        let cells = table::all(driver).into_iter().filter(|(p, f, _)| self.wants(*p, *f));
        for (phase, fault, cell) in cells {
            match cell {
                Cell::Absent(reason) => report.absent.push(Absent { phase, fault, reason }),
                Cell::Case(expected) => {
                    let case = bed.run(phase, fault, expected).await?;
                    say(&line(&case));
                    if let Some(problem) = &case.problem {
                        say(problem);
                    }
                    report.cases.push(case);
                }
            }
        }
        report.ok = !report.cases.is_empty() && report.cases.iter().all(|case| case.ok);
        report.seconds = (began.elapsed().as_secs_f64() * 10.0).round() / 10.0;
        print(&if self.json { serde_json::to_string_pretty(&report)? } else { in_words(&report) });
        Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn wants(&self, phase: Phase, fault: Fault) -> bool {
        (self.phase.is_empty() || self.phase.contains(&phase))
            && (self.fault.is_empty() || self.fault.contains(&fault))
    }
}

fn in_words(report: &Report) -> String {
    let mut lines = vec![format!(
        "{:<18} {:<24} {:<18} {:>6} {:<18} {:>7}  RESULT",
        "PHASE", "FAULT", "OUTCOME", "COPIES", "AFTER IT", "SECONDS"
    )];
    lines.extend(report.cases.iter().map(line));
    for Absent { phase, fault, reason } in &report.absent {
        lines.push(format!("{phase:<18} {fault:<24} no such case: {reason}"));
    }
    let good = report.cases.iter().filter(|case| case.ok).count();
    let (all, seconds) = (report.cases.len(), report.seconds);
    lines.push(format!("{good} of {all} cases as they must be, in {seconds} s"));
    lines.join("\n")
}

fn line(case: &Case) -> String {
    let healed = case.healed.as_ref().map(|state| state.outcome.to_string()).unwrap_or_default();
    format!(
        "{:<18} {:<24} {:<18} {:>6} {healed:<18} {:>7.1}  {}",
        case.phase,
        case.fault,
        case.outcome,
        case.running_copies,
        case.seconds,
        if case.ok { "ok" } else { "WRONG" },
    )
}
