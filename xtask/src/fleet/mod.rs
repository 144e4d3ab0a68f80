//! `cargo xtask fleet`: a cluster of the simulator, answered for by the agent's own API: for the dashboard, the CLI and scrapers.
//!
//! ```text
//!   thread "world"    simulated hosts live on ─┐
//!                                              ├─ one lock ─ what hosts note ─▶ their event logs
//!   thread "answers"  what they are asked ─────┘
//!   threads "http"    a unix socket for each host, TLS for the first one
//! ```
//!
//! The hosts decide by `decide`, and are answered for by `agent`; only machines, network and clock are simulated. Hosts look at each
//! other in this process, so neither gRPC nor TLS between them is part of it.

pub(crate) mod child;
mod doors;
mod night;
mod stage;
mod truth;

use std::collections::BTreeMap;
use std::io::BufRead;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use decide::units::Time;
use serde::{Deserialize, Serialize};

use self::stage::{PINNED, Plan, Running, Stage};
pub(crate) use self::truth::Truth;

pub(crate) use self::child::Child;

use crate::{print, say};

/// How long a cluster lives before anybody sees it: long enough for hosts to know each other and VMs to have been measured.
const BEFORE: Duration = Duration::from_secs(60);

/// Arguments of the task.
#[derive(Args)]
pub(crate) struct Fleet {
    /// Hosts
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u16).range(2..=200))]
    hosts: u16,
    /// VMs on all of them together
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u32).range(1..=4000))]
    vms: u32,
    /// For all that is drawn
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Live a night first: a few hosts become hot after nine, then hours of quiet until half past three
    #[arg(long)]
    night: bool,
    /// Print where it is as one JSON document, then take orders from standard input and end with it: `burst N` has the first host
    /// note so many events
    #[arg(long)]
    json: bool,
}

/// Where a fleet is served.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Ways {
    /// The dashboard and API of the first host, by TLS.
    pub(crate) url: String,
    /// The certificate of its CA.
    pub(crate) ca: PathBuf,
    /// The socket of each host's API, the first host's first.
    pub(crate) sockets: Vec<PathBuf>,
    /// Tokens of the first host.
    pub(crate) operator: String,
    pub(crate) viewer: String,
    /// What the simulation knows of the night.
    pub(crate) truth: Option<Truth>,
}

impl Fleet {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let plan = Plan { hosts: self.hosts, vms: self.vms, seed: self.seed };
        let folder = tempfile::tempdir().context("a folder for the hosts' stores")?;
        let mut truth = None;
        let running = if self.night {
            say("living a night");
            let begins = night::begins();
            let mut running = Running::start(&plan, begins, folder.path())?;
            let mut doing = BTreeMap::new();
            night::live(&mut running, |stage| {
                if stage.clock() == night::asked_about(begins) {
                    doing = stage.doing();
                }
                Ok(())
            })?;
            truth = Some(Truth::of(&running.stage, doing)?);
            running
        } else {
            let began = Time(stage::now_micros()).minus(BEFORE).0;
            let mut running = Running::start(&plan, began, folder.path())?;
            running.live(BEFORE)?;
            running
        };
        let served = running.serve(truth)?;
        if !self.json {
            print(&words(served.ways()));
            return served.until_ctrl_c().map(|()| ExitCode::SUCCESS);
        }
        print(&serde_json::to_string(served.ways())?);
        for order in std::io::stdin().lock().lines() {
            let order = order.context("reading an order")?;
            let burst = order.strip_prefix("burst ").and_then(|count| count.parse().ok());
            served.burst(burst.with_context(|| format!("there is no order {order:?}"))?);
        }
        served.end();
        Ok(ExitCode::SUCCESS)
    }
}

fn words(ways: &Ways) -> String {
    let first = ways.sockets.first().map(|socket| socket.display().to_string()).unwrap_or_default();
    let Ways { url, operator, viewer, ca, .. } = ways;
    let ca = ca.display();
    format!(
        "Until Ctrl-C: {url}\n  operator  {operator}\n  viewer    {viewer}\n  CA        {ca}\n  evenkeel --socket {first} status\n  and so for each host"
    )
}

/// Whether a thread that waits for the end has to go on.
fn goes_on(stop: Result<(), RecvTimeoutError>) -> bool {
    stop == Err(RecvTimeoutError::Timeout)
}
