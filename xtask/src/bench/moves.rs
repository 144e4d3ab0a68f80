//! `cargo xtask bench move`: the same move by Evenkeel and by hand, turn about, in one sandbox.
//!
//! Two guests alike in all but address go to and fro between two hosts. One lies where the agents look and is moved by
//! `evenkeel move VM --to HOST`, over the API; the other lies elsewhere and is moved through its QMP sockets, with the
//! same parameters. Agents run all the time and both guests too, so each side is measured beside the same load.
//!
//! Under libvirt it is one domain, moved by Evenkeel and by `virsh migrate --p2p`, turn about.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use api::{Event, EventFilter, MoveRequest, MoveView, Step};
use clap::Args;
use decide::migrate::hypervisor::CopyParameters;
use decide::units::{BitsPerSec, Mib};
use jiff::Timestamp;
use lab::clients::Pinger;
use lab::cluster::Cluster;
use lab::guests::{self, Dirty, Guest, GuestPlan};
use lab::hosts::Network;
use lab::raw::{self, PING_MARGIN, PING_PACE, RawMove};
use lab::setup::Parts;
use tokio::time::Instant;

use super::domains;
use super::figures::{Figures, Limits, Parameters, Side};
use crate::demo::prepare::{self, Driver};
use crate::{print, say};

/// The share of the uplink below, of its 10 Gbit/s (a veth's), is `PARAMETERS.bandwidth`.
pub(super) const CONFIG: &str = r#"[mode]
balance = "off"
[hot]
cpu_used = "100%"
[target]
cpu_used_max = "1000%"
memory_reserve = "256MiB"
[copy]
bandwidth = "5%"
downtime = "100ms"
downtime_max = "100ms"
multifd = true
# As by hand.
[migration]
encryption = "off"
"#;
pub(super) const PARAMETERS: CopyParameters = CopyParameters {
    bandwidth: BitsPerSec(500_000_000),
    downtime_max: Duration::from_millis(100),
    multifd: true,
    encrypted: false,
    auto_converge: false,
    copy_disks: false,
};
pub(super) const MEMORY: Mib = Mib(160);
pub(super) const DIRTY: Dirty = Dirty { memory: Mib(24), per_second: Mib(16), work: 0 };

pub(super) const BOOT_MAX: Duration = Duration::from_secs(120);
pub(super) const MOVE_MAX: Duration = Duration::from_secs(120);

/// Arguments of the task.
#[derive(Args)]
pub(crate) struct Move {
    /// What moves the guests
    #[arg(long, value_enum, default_value_t = Driver::Qemu)]
    driver: Driver,
    /// Moves of each side
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl Move {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        prepare::in_sandbox_with(self.driver, async || self.inside().await)
    }

    async fn inside(&self) -> anyhow::Result<ExitCode> {
        let began = Instant::now();
        let limits = match self.driver {
            Driver::Qemu => Limits::QEMU,
            Driver::Libvirt => Limits::LIBVIRT,
        };
        let mut figures = Figures::new(limits);
        let measured = match self.driver {
            Driver::Qemu => self.measure(&mut figures).await,
            Driver::Libvirt => domains::measure(self.rounds, &mut figures).await,
        };
        if let Err(error) = measured {
            figures.failures.push(format!("{error:#}"));
        }
        figures.seconds = began.elapsed().as_secs_f64().round();
        figures.reckon();
        let document = || serde_json::to_string_pretty(&figures);
        print(&if self.json { document()? } else { figures.table() });
        Ok(if figures.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    async fn measure(&self, figures: &mut Figures) -> anyhow::Result<()> {
        let parts = Parts::load()?;
        figures.parameters = parameters(&parts.accelerator);
        let cluster = Cluster::start(Network::new(2)?, &prepare::daemon()?, CONFIG).await?;
        let mut bench = Stand {
            ours: start(&cluster, &parts, true)?,
            raw: start(&cluster, &parts, false)?,
            cluster,
            parts,
        };
        bench.ready().await?;
        for round in 1..=self.rounds {
            let from = usize::from(round % 2 == 0);
            bench.ours(from, figures).await.with_context(|| format!("Evenkeel's move {round}"))?;
            bench.by_hand(from, figures).await.with_context(|| format!("move {round} by hand"))?;
            say_round(round, self.rounds, figures);
        }
        for (guest, name) in [(&bench.ours, "Evenkeel's"), (&bench.raw, "the other")] {
            for host in bench.cluster.network.hosts() {
                let console = guests::console(host, guest.plan.vm());
                ensure!(
                    !console.contains("CORRUPT"),
                    "{name} guest lost memory on {}",
                    host.name()
                );
            }
        }
        Ok(())
    }
}

/// Says what one round brought.
pub(super) fn say_round(round: u32, of: u32, figures: &Figures) {
    let last = |all: &[u64]| all.last().copied().unwrap_or_default();
    let (ours, raw) = (&figures.ours, &figures.raw);
    say(&format!(
        "{round} of {of}: Evenkeel {} ms, downtime {} ms; by hand {} ms, downtime {} ms",
        last(&ours.total_ms),
        last(&ours.downtime_ms),
        last(&raw.total_ms),
        last(&raw.downtime_ms)
    ));
}

/// What both sides are told.
pub(super) fn parameters(accelerator: &str) -> Parameters {
    Parameters {
        bandwidth_bits_per_second: PARAMETERS.bandwidth.0,
        downtime_limit_ms: u64::try_from(PARAMETERS.downtime_max.as_millis()).unwrap_or(u64::MAX),
        multifd: PARAMETERS.multifd,
        guest_mib: MEMORY.0,
        dirty_mib: DIRTY.memory.0,
        dirty_mib_per_second: DIRTY.per_second.0,
        accelerator: accelerator.to_owned(),
    }
}

fn start(cluster: &Cluster, parts: &Parts, watched: bool) -> anyhow::Result<Guest> {
    let (name, number) = if watched { ("ours", 1) } else { ("byhand", 2) };
    let plan =
        GuestPlan { memory: MEMORY, dirty: Some(DIRTY), watched, ..GuestPlan::new(name, number) };
    guests::start(cluster.host(0), &plan, parts)
}

struct Stand {
    cluster: Cluster,
    parts: Parts,
    ours: Guest,
    raw: Guest,
}

impl Stand {
    async fn ready(&mut self) -> anyhow::Result<()> {
        say("booting two guests");
        for guest in [&self.ours, &self.raw] {
            guest.ready(self.cluster.host(0), BOOT_MAX).await?;
        }
        self.cluster.settled().await
    }

    async fn ours(&mut self, from: usize, figures: &mut Figures) -> anyhow::Result<()> {
        let to = 1 - from;
        self.cluster.all_run()?;
        self.cluster.watches(from, &self.ours.plan.name).await?;
        let pinger =
            Pinger::start(self.cluster.network.client(), self.ours.plan.address(), PING_PACE)?;
        raw::answered(&pinger, PING_MARGIN).await?;
        let api = self.cluster.api(from);
        let vm = self.ours.plan.name.clone();
        let request = MoveRequest { vm, to: Some(self.cluster.host(to).name()), force: false };
        let begun = api.start_move(&request).await?;
        let ended = self.cluster.ended(from, &begun.move_id, MOVE_MAX).await?;
        ensure!(ended.phase == "done", "{} ({:?})", ended.phase, ended.outcome);
        let so_far = pinger.so_far().answered;
        raw::answered(&pinger, so_far + PING_MARGIN).await.context("the guest after its move")?;
        let gap = pinger.stop().await?.gap_ms;
        note(figures, &ended, gap)?;
        let filter = EventFilter { move_id: Some(begun.move_id), ..EventFilter::default() };
        figures.negotiation_ms.push(negotiation(&api.events(&filter).await?)?);
        Ok(())
    }

    async fn by_hand(&mut self, from: usize, figures: &mut Figures) -> anyhow::Result<()> {
        let hosts = (self.cluster.host(from), self.cluster.host(1 - from));
        let network = &self.cluster.network;
        let (moved, one) =
            raw::move_guest(network, &self.raw, hosts, &self.parts, PARAMETERS).await?;
        self.raw = moved;
        note_by_hand(&mut figures.raw, one);
        Ok(())
    }
}

/// Keeps the figures of a move by hand.
pub(super) fn note_by_hand(side: &mut Side, one: RawMove) {
    side.total_ms.push(one.total_ms);
    side.downtime_ms.push(one.client_gap_ms);
    side.own_downtime_ms.push(one.downtime_ms);
    side.bytes.push(one.bytes);
    side.rounds.push(one.rounds);
}

/// Keeps the figures of a move of ours.
pub(super) fn note(figures: &mut Figures, ended: &MoveView, gap: u64) -> anyhow::Result<()> {
    let side = &mut figures.ours;
    side.total_ms.push(ended.total_ms.context("a move without a total time")?);
    side.downtime_ms.push(gap);
    side.own_downtime_ms.push(ended.downtime_ms.context("a move without a downtime")?);
    side.bytes.push(ended.copied_bytes);
    side.rounds.push(u64::from(ended.rounds));
    Ok(())
}

/// From request to readiness.
pub(super) fn negotiation(events: &[Event]) -> anyhow::Result<u64> {
    let time = |step: Step| -> anyhow::Result<Timestamp> {
        let event = events.iter().find(|event| event.step == step);
        let event = event.with_context(|| format!("the source does not tell {step}"))?;
        event.time.parse().with_context(|| format!("{} is no time", event.time))
    };
    let passed = time(Step::Readiness)?.duration_since(time(Step::Request)?);
    Ok(u64::try_from(passed.as_millis()).unwrap_or_default())
}
