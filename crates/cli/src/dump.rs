//! `evenkeel lab dump`: asks agents what the cluster is like, and writes it for `evenkeel lab simulate`.
//!
//! **Invariant:** what is missing or reckoned is named on standard error, and the exit code says so.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use api::client::Client;
use api::cluster::dump;
use clap::Parser;

use crate::REFUSED;

const HELP: &str = "\
Each agent tells the VMs of its own host by what it measures, and of all others what they said of themselves. Of hosts whose
agents are not asked, the VMs stand in the dump with their memory, and with the host's own sums divided among them. Agents
are asked at their unix sockets; ssh brings those of other hosts here:

  ssh -fNL /run/host2.sock:/run/evenkeel/api.sock host2
  evenkeel lab dump /run/evenkeel/api.sock /run/host2.sock -o cluster.json
  evenkeel lab simulate cluster.json

Exclusions, priorities, hours, rests and what VMs should rather do are not in the dump: `lab simulate` does not know them.

Exit codes: 0 all is there, 1 something is missing, divided or assumed: standard error names it; 3 no agent answered.";

/// Writes the cluster as its agents see it, in the form that `evenkeel lab simulate` reads.
#[derive(Debug, Parser)]
#[command(name = "evenkeel lab dump", after_help = HELP)]
pub(crate) struct Dump {
    /// Where it goes; without it: standard output.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// The sockets of agents; without any: this host's.
    #[arg(value_name = "SOCKET")]
    sockets: Vec<PathBuf>,
}

impl Dump {
    /// From what follows `lab`, if that is a dump.
    pub(crate) fn of(args: &[OsString]) -> Option<Dump> {
        let (first, rest) = args.split_first()?;
        let name = OsString::from("evenkeel lab dump");
        (first == "dump").then(|| Dump::parse_from(std::iter::once(&name).chain(rest)))
    }
}

/// Writes the dump.
///
/// # Errors
///
/// When no agent answers, or the dump cannot be written.
pub(crate) async fn run(here: &Client, wanted: Dump) -> anyhow::Result<ExitCode> {
    let clients: Vec<Client> = match &wanted.sockets[..] {
        [] => vec![here.clone()],
        sockets => sockets.iter().map(Client::new).collect(),
    };
    let (mut answers, mut lost) = (Vec::new(), Vec::new());
    for client in clients {
        match client.cluster().await {
            Ok(answer) => answers.push(answer),
            Err(error) => lost.push(error),
        }
    }
    if answers.is_empty() {
        let last = lost.pop().context("no agent was asked")?;
        lost.iter().for_each(|error| told(&error.to_string()));
        return Err(last.into());
    }
    let (dump, notes) = dump(&answers);
    let text = serde_json::to_string_pretty(&dump).context("writing JSON")? + "\n";
    write(wanted.output.as_deref(), &text)?;
    lost.iter().for_each(|error| told(&error.to_string()));
    notes.iter().for_each(|note| told(note));
    let whole = lost.is_empty() && notes.is_empty();
    Ok(if whole { ExitCode::SUCCESS } else { ExitCode::from(REFUSED) })
}

fn write(output: Option<&Path>, text: &str) -> anyhow::Result<()> {
    match output {
        Some(path) => fs::write(path, text).with_context(|| format!("writing {}", path.display())),
        None => Ok(io::stdout().lock().write_all(text.as_bytes())?),
    }
}

/// Where standard error is closed, the exit code alone must do.
fn told(words: &str) {
    let _ = writeln!(io::stderr(), "evenkeel: {words}");
}
