//! `cargo xtask bench security`: what a move costs agents more with keys than without, in processor time of release builds.
//!
//! The same guest goes to and fro between the same two hosts, first without keys, then with them; its memory is copied in the clear
//! both times, by QEMU, which is not counted. What the agents take without any move, in the same time, is taken off.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use api::MoveRequest;
use clap::Args;
use lab::cluster::{CALM, Cluster};
use lab::guests::{self, Guest, GuestPlan};
use lab::hosts::Network;
use lab::sandbox;
use lab::setup::Parts;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::demo::prepare;
use crate::{print, say};

const IN_THE_CLEAR: &str = "[migration]\nencryption = \"off\"\n";
const MOVE_MAX: Duration = Duration::from_secs(60);
/// How long agents are watched without a move.
const IDLE: Duration = Duration::from_secs(20);
/// The most that a move may cost a host more, in milliseconds of one processor.
const MORE_MAX: f64 = 10.0;

/// Arguments of the task.
#[derive(Args)]
pub(crate) struct Security {
    /// Moves of each side
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(2..=100))]
    rounds: u32,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// What `--json` prints. Milliseconds of one processor, of one host's agent.
#[derive(Serialize)]
struct Report {
    rounds: u32,
    /// A whole move, without keys.
    without_ms: f64,
    /// A whole move, with keys.
    with_ms: f64,
    more_ms: f64,
    more_ms_max: f64,
    /// Each second without a move.
    idle_without_ms: f64,
    idle_with_ms: f64,
    ok: bool,
}

impl Security {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        if sandbox::outside() {
            sandbox::allowed()?;
            prepare::release(&["agent", "--bin", "evenkeeld"])?;
        }
        prepare::in_sandbox(async || self.inside().await)
    }

    async fn inside(&self) -> anyhow::Result<ExitCode> {
        let daemon = prepare::released("evenkeeld");
        let mut cluster = Cluster::start_insecure(Network::new(2)?, &daemon, CALM)?;
        let plan = GuestPlan::new("web1", 1);
        let guest = guests::start(cluster.host(0), &plan, &Parts::load()?)?;
        guest.ready(cluster.host(0), Duration::from_secs(120)).await?;
        say("moves without keys");
        let without = self.measured(&mut cluster, &guest).await.context("without keys")?;
        for number in 0..2 {
            cluster.stop_agent(number)?;
        }
        cluster.start_anew(&[CALM, IN_THE_CLEAR].concat()).await.context("making keys")?;
        say("moves with keys");
        let with = self.measured(&mut cluster, &guest).await.context("with keys")?;
        let more = with.0 - without.0;
        let report = Report {
            rounds: self.rounds,
            without_ms: tenths(without.0),
            with_ms: tenths(with.0),
            more_ms: tenths(more),
            more_ms_max: MORE_MAX,
            idle_without_ms: tenths(without.1),
            idle_with_ms: tenths(with.1),
            ok: more <= MORE_MAX,
        };
        let words = || {
            let Report { without_ms, with_ms, more_ms, idle_without_ms, idle_with_ms, .. } = report;
            format!(
                "a move, of each host's agent: {without_ms} ms without keys, {with_ms} ms with keys: {more_ms} ms more, {MORE_MAX} allowed\n\
                 each second without a move: {idle_without_ms} ms without keys, {idle_with_ms} ms with keys"
            )
        };
        print(&if self.json { serde_json::to_string_pretty(&report)? } else { words() });
        Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// Milliseconds of a host's agent for a move, and for a second without one.
    async fn measured(&self, cluster: &mut Cluster, guest: &Guest) -> anyhow::Result<(f64, f64)> {
        let name = &guest.plan.name;
        cluster.settled().await?;
        cluster.watches(0, name).await?;
        let before = used(cluster)?;
        sleep(IDLE).await;
        let idle = (used(cluster)? - before) / 2.0 / IDLE.as_secs_f64();
        let (mut moving, mut at) = (0.0, 0);
        // Back to where it was at the end, as it began.
        for _ in 0..self.rounds.next_multiple_of(2) {
            let (before, began) = (used(cluster)?, Instant::now());
            let to = Some(cluster.host(1 - at).name());
            let request = MoveRequest { vm: name.clone(), to, force: false };
            let id = cluster.api(at).start_move(&request).await?.move_id;
            let view = cluster.ended(at, &id, MOVE_MAX).await?;
            ensure!(view.phase == "done", "{view:?}");
            let took = began.elapsed().as_secs_f64();
            moving += (used(cluster)? - before) / 2.0 - idle * took;
            at = 1 - at;
            cluster.watches(at, name).await?;
        }
        Ok((moving / f64::from(self.rounds.next_multiple_of(2)), idle))
    }
}

/// Milliseconds that both agents have used so far, all their threads together.
fn used(cluster: &Cluster) -> anyhow::Result<f64> {
    let per_second = rustix::param::clock_ticks_per_second() as f64;
    let mut ticks = 0;
    for number in 0..2 {
        let pid = cluster.agent_pid(number).context("an agent")?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // After the name come the third field and so on; 14 and 15 are user's and system's time.
        let fields = stat.rsplit(") ").next().context("fields")?.split(' ');
        for field in fields.skip(11).take(2) {
            ticks += field.parse::<u64>()?;
        }
    }
    Ok(ticks as f64 * 1000.0 / per_second)
}

fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}
