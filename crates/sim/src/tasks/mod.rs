//! The tasks of the command line: arguments in, a table for people on standard error, one JSON document on standard output.

mod forecast;
mod generate;
mod gossip;
mod policy;
mod simulate;
mod swarm;
mod travel;

use std::io::Write as _;

use anyhow::Context;
use serde::Serialize;

pub(crate) use forecast::Forecast;
pub(crate) use generate::Generate;
pub(crate) use gossip::Gossip;
pub(crate) use policy::Policy;
pub(crate) use simulate::Simulate;
pub(crate) use swarm::Swarm;
pub(crate) use travel::Travel;

fn say(text: &str) -> anyhow::Result<()> {
    std::io::stderr().lock().write_all(text.as_bytes()).context("writing to standard error")
}

fn print(report: &impl Serialize) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, report).context("writing to standard output")?;
    out.write_all(b"\n").context("writing to standard output")
}
