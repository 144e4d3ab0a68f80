//! `evenkeel-sim gossip`.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use serde::Serialize;
use sim::gossip::{Bound, Cost, Row, measure};

/// Arguments of the task.
#[derive(Args)]
#[command(after_help = "Example: evenkeel-sim gossip --hosts 10,40,100")]
pub(crate) struct Gossip {
    /// Sizes of clusters
    #[arg(long, value_delimiter = ',', default_value = "10,40,100", value_parser = clap::value_parser!(u16).range(2..=2000))]
    hosts: Vec<u16>,
    /// Simulated seconds of steadiness, and as many of churn
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// For all that is drawn
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Document {
    rows: Vec<Row>,
    steady: Bound,
    churn: Bound,
}

impl Gossip {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let mut rows = Vec::new();
        say(&format!("{HEAD}\n"))?;
        for hosts in &self.hosts {
            let row = measure(self.seed, *hosts, self.seconds).map_err(anyhow::Error::msg)?;
            say(&lines(&row))?;
            rows.push(row);
        }
        let bound = |cost: fn(&Row) -> Cost| {
            let bytes: Vec<(u16, f64)> =
                rows.iter().map(|row| (row.hosts, cost(row).bytes())).collect();
            Bound::over(&bytes)
        };
        let (steady, churn) = (bound(|row| row.steady), bound(|row| row.churn));
        for (when, Bound { a, b }) in [("steady", steady), ("churn", churn)] {
            say(&format!("{when}: at most {a:.0} + {b:.2} * hosts bytes per host and second\n"))?;
        }
        if self.json {
            let mut out = std::io::stdout().lock();
            serde_json::to_writer_pretty(&mut out, &Document { rows, steady, churn })
                .context("writing to standard output")?;
            out.write_all(b"\n").context("writing to standard output")?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

const HEAD: &str = "HOSTS  WHEN    DATAGRAMS/s  BYTES/s  INVENTORIES/s  BYTES/s  ALL BYTES/s  AGE MEAN  AGE MAX  MOVES  FOUND AFTER";

/// Two lines: per host and second.
fn lines(row: &Row) -> String {
    let mut text = String::new();
    let started = format!("{} s", row.start_s);
    let moves = row.moves.to_string();
    let two = [("steady", row.steady, "", started.as_str()), ("churn", row.churn, &*moves, "")];
    for (when, cost, moves, started) in two {
        let Cost { datagrams, datagram_bytes, inventories, inventory_bytes, .. } = cost;
        let (all, mean, max) = (cost.bytes(), cost.age_mean_s, cost.age_max_s);
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "{:>5}  {when:<6}  {datagrams:>11.1}  {datagram_bytes:>7.0}  {inventories:>13.3}  {inventory_bytes:>7.0}  {all:>11.0}  {mean:>6.1} s  {max:>5.1} s  {moves:>5}  {started:>11}",
            row.hosts
        );
    }
    text
}

fn say(text: &str) -> anyhow::Result<()> {
    std::io::stderr().lock().write_all(text.as_bytes()).context("writing to standard error")
}
