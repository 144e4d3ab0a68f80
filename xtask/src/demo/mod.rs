//! `cargo xtask demo`: a VM is flooded and moves by itself, on three hosts made of namespaces, while clients watch it.
//!
//! ```text
//!   outside: setup ─▶ build ─▶ sandbox ─▶ inside: stage ─▶ everyday packets ─▶ flood ─▶ move ─▶ judge ─▶ (keep)
//! ```
//!
//! What the agents tell goes to standard error as it happens; the table, or the document, to standard output at the end.
//!
//! **Invariant:** the document is printed however the demo ends, unless it is killed.
//! **Invariant:** all that was started ends with the sandbox, and that with this program.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use api::{EVENTS_MAX, Event, EventFilter, MoveView};
use clap::Args;
use lab::guests;
use tokio::time::{Instant, sleep};

mod judge;
mod live;
mod outcome;
pub(crate) mod prepare;
mod stage;

use crate::{print, say};
use live::Live;
use outcome::Outcome;
use prepare::Driver;
use stage::{Clients, FLOODED, Noticed, SOURCE, Stage};

/// From the flood to the first request: `for`, some readings, and the agents' own pace.
const ASKED_MAX: Duration = Duration::from_secs(60);
const MOVE_MAX: Duration = Duration::from_secs(120);
/// Three seconds of pings after the move.
const PINGS_AFTER: u32 = 15;
const BEATS_MAX: Duration = Duration::from_secs(20);
/// Lines of each agent's log that are shown after a failure.
const LOG_LINES: usize = 15;

/// Arguments of the task.
#[derive(Args)]
pub(crate) struct Demo {
    /// What moves the guests
    #[arg(long, value_enum, default_value_t = Driver::Qemu)]
    driver: Driver,
    /// Leave it running until Ctrl-C, to look around
    #[arg(long)]
    keep: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl Demo {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        prepare::in_sandbox_with(self.driver, async || self.inside().await)
    }

    async fn inside(&self) -> anyhow::Result<ExitCode> {
        let began = Instant::now();
        let stage = Stage::set(self.driver).await.context("setting the stage");
        let (stage, mut outcome) = match stage {
            Ok(mut stage) => {
                let outcome = perform(&mut stage).await;
                (Some(stage), outcome)
            }
            Err(error) => (None, failed(&error)),
        };
        outcome.seconds = (began.elapsed().as_secs_f64() * 10.0).round() / 10.0;
        outcome.ok = outcome.failures.is_empty();
        if !outcome.ok
            && let Some(stage) = &stage
        {
            show_logs(stage);
        }
        print(&if self.json {
            serde_json::to_string_pretty(&outcome)?
        } else {
            outcome::table(&outcome)
        });
        if self.keep
            && let Some(stage) = &stage
        {
            say(&format!(
                "Left running until Ctrl-C. From another terminal, as root:\n{}",
                stage::ways_in(&stage.cluster)?
            ));
            std::future::pending::<()>().await;
        }
        Ok(if outcome.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn failed(error: &anyhow::Error) -> Outcome {
    let mut outcome = Outcome::new(Vec::new(), &[], None);
    outcome.failures.push(format!("{error:#}"));
    outcome
}

/// Floods, waits for the move, and gathers what came of it.
async fn perform(stage: &mut Stage) -> Outcome {
    let mut failures = Vec::new();
    let noticed = play(stage).await.map_err(|error| failures.push(format!("{error:#}"))).ok();
    let (mut moves, mut events) = (Vec::new(), Vec::new());
    for host in 0..stage.hosts() {
        match kept(stage, host).await {
            Ok((of_host, told)) => {
                moves.extend(of_host);
                events.push(told);
            }
            Err(error) => failures.push(format!("{error:#}")),
        }
    }
    if let Err(error) = stage.cluster.all_run() {
        failures.push(format!("{error:#}"));
    }
    let mut outcome = Outcome::new(moves, &events, noticed.as_ref());
    failures.extend(judge::failures(&outcome));
    outcome.failures = failures;
    outcome
}

/// What the agent of a host keeps: the moves from there, and its events.
async fn kept(stage: &Stage, host: usize) -> anyhow::Result<(Vec<MoveView>, Vec<Event>)> {
    let name = stage.cluster.host(host).name();
    let api = stage.cluster.api(host);
    let moves = api.moves().await.with_context(|| format!("asking {name} for its moves"))?;
    let all = EventFilter { limit: Some(EVENTS_MAX), ..EventFilter::default() };
    let events = api.events(&all).await.with_context(|| format!("asking {name} for its events"))?;
    Ok((moves.into_iter().filter(|one| one.from == name).collect(), events))
}

async fn play(stage: &mut Stage) -> anyhow::Result<Noticed> {
    let live = Live::start(&stage.cluster, stage.hosts(), SOURCE).await?;
    stage.everyday().await.context("sending everyday packets")?;
    let clients = Clients::start(stage).await.context("starting the clients")?;
    let ended = ended(stage).await;
    let after = match &ended {
        Ok(one) => settle(stage, &clients, one).await,
        Err(_) => Ok(()),
    };
    let noticed = clients.stop().await;
    live.stop().await;
    ended?;
    after?;
    noticed
}

/// Waits for the flooded host's first move, and for its end.
async fn ended(stage: &mut Stage) -> anyhow::Result<MoveView> {
    let deadline = Instant::now() + ASKED_MAX;
    loop {
        stage.cluster.all_run()?;
        if let Some(one) = stage.cluster.api(SOURCE).moves().await?.first() {
            return stage.cluster.ended(SOURCE, &one.id, MOVE_MAX).await;
        }
        let status = stage.cluster.api(SOURCE).status().await?;
        ensure!(
            Instant::now() < deadline,
            "{} has asked nobody within {ASKED_MAX:?} of the flood: {}",
            status.host,
            status.doing
        );
        sleep(Duration::from_millis(100)).await;
    }
}

/// Pings on for a while, and sees the guest alive at its new host, and that it lived one life.
async fn settle(stage: &Stage, clients: &Clients, one: &MoveView) -> anyhow::Result<()> {
    clients.ping_more(PINGS_AFTER).await?;
    let to = one.to.as_deref().and_then(|name| stage.host(name));
    let (Some(from), Some(to)) = (stage.host(&one.from), to) else { return Ok(()) };
    if one.phase != "done" || one.vm != FLOODED {
        return Ok(());
    }
    let vm = stage.flooded().vm();
    let beats = || Ok((guests::heartbeats(to, vm).len() >= 3).then_some(()));
    lab::wait::until(BEATS_MAX, "three heartbeats at the target", beats).await?;
    guests::one_life([from, to], vm)
}

fn show_logs(stage: &Stage) {
    for host in 0..stage.hosts() {
        let log = std::fs::read_to_string(stage.cluster.log(host)).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let first = lines.len().saturating_sub(LOG_LINES);
        say(&format!("---- log of the agent of {} ----", stage.cluster.host(host).name()));
        lines[first..].iter().for_each(|line| say(line));
    }
}
