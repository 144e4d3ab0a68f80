//! `cargo xtask attack`: what strangers, thieves and forgers try against three hosts with keys, each case a row.
//!
//! ```text
//!   hosts with keys and one guest ─▶ for each case: attack ─▶ refused, as it must be? ─▶ agents alive? guest untouched? ─▶ row
//! ```
//!
//! Attacks come from the client's network, which is no host's. `stranger` has what attackers have: sockets, a CA of their own, keys that
//! were stolen, and everything that passes on the wire.
//!
//! **Invariant:** the exit code is 0 only if every case was refused, with all agents alive and the guest where and what it was.

mod api;
mod bed;
mod connections;
mod copies;
mod datagrams;
mod flood;
mod forged;
mod joins;
mod stranger;

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use tokio::time::Instant;

use crate::demo::prepare;
use crate::{print, say};
use bed::{Bed, Row};

/// Arguments of the task.
#[derive(Args)]
pub(crate) struct Attack {
    /// Only cases whose name holds these words
    #[arg(long)]
    case: Option<String>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    cases: Vec<Row>,
    refused: usize,
    ok: bool,
    seconds: f64,
}

impl Attack {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        prepare::in_sandbox(async || self.inside().await)
    }

    async fn inside(&self) -> anyhow::Result<ExitCode> {
        let began = Instant::now();
        let mut bed = Bed::make(self.case.clone()).await?;
        datagrams::run(&mut bed).await?;
        connections::run(&mut bed).await?;
        joins::run(&mut bed).await?;
        api::run(&mut bed).await?;
        forged::run(&mut bed).await?;
        copies::run(&mut bed).await?;
        flood::run(&mut bed).await?;
        let cases = bed.rows;
        let refused = cases.iter().filter(|row| row.refused).count();
        let ok = !cases.is_empty() && cases.iter().all(|row| row.ok);
        let seconds = (began.elapsed().as_secs_f64() * 10.0).round() / 10.0;
        let report = Report { cases, refused, ok, seconds };
        print(&if self.json { serde_json::to_string_pretty(&report)? } else { in_words(&report) });
        Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn in_words(report: &Report) -> String {
    let mut lines: Vec<String> = report.cases.iter().map(Row::line).collect();
    let good = report.cases.iter().filter(|row| row.ok).count();
    let all = report.cases.len();
    lines.push(format!("{good} of {all} cases as they must be, in {} s", report.seconds));
    lines.join("\n")
}

fn told(row: &Row) {
    say(&row.line());
}
