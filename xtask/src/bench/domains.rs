//! `bench move --driver libvirt`: one domain, moved by Evenkeel and by libvirt's own migration, turn about, in one sandbox.
//!
//! By hand it is `virsh migrate --live --p2p`, which lets the guest run at the target by itself. Evenkeel moves it to the second host
//! and libvirt back to the first, which are alike in all but name: so an agent need not first learn from the other what was done past it. A
//! move counts from its order until all of it is over, since libvirt's own prepares the target within its one call.
//!
//! Only for that the libvirts of this bench listen on TCP: agents need no such thing.

use anyhow::{Context, ensure};
use api::{EventFilter, MoveRequest};
use lab::clients::Pinger;
use lab::cluster::Cluster;
use lab::guests::{self, GuestPlan};
use lab::hosts::Network;
use lab::libvirt::{self, Daemon};
use lab::raw::{self, PING_MARGIN, PING_PACE};
use lab::setup::Parts;
use tokio::time::Instant;

use super::figures::Figures;
use super::moves::{
    BOOT_MAX, CONFIG, DIRTY, MEMORY, MOVE_MAX, PARAMETERS, negotiation, note, note_by_hand,
    parameters, say_round,
};
use crate::demo::prepare::{self, Driver};
use crate::say;

struct Stand {
    cluster: Cluster,
    plan: GuestPlan,
    /// After the agents: they need not be told that these end.
    _daemons: Vec<Daemon>,
}

/// Makes the moves of so many rounds.
pub(super) async fn measure(rounds: u32, figures: &mut Figures) -> anyhow::Result<()> {
    let parts = Parts::load()?;
    figures.parameters = parameters(Driver::Libvirt.accelerator(&parts));
    let network = Network::new(2)?;
    let mut daemons = Vec::new();
    for host in network.hosts() {
        daemons.push(Daemon::start_listening(host).await?);
    }
    let config = format!("{CONFIG}{}", Driver::Libvirt.section());
    let cluster = Cluster::start(network, &prepare::daemon()?, &config).await?;
    let plan = GuestPlan { memory: MEMORY, dirty: Some(DIRTY), ..GuestPlan::new("web1", 1) };
    say("booting a guest");
    let first = cluster.host(0);
    libvirt::start(first, &plan.name, &libvirt::definition(&plan, &parts))?;
    let ready = || Ok(guests::console(first, plan.vm()).contains("READY").then_some(()));
    lab::wait::until(BOOT_MAX, "the guest boots", ready).await?;
    let mut stand = Stand { cluster, plan, _daemons: daemons };
    stand.cluster.settled().await?;
    for round in 1..=rounds {
        stand.ours(0, figures).await.with_context(|| format!("Evenkeel's move {round}"))?;
        stand.by_hand(1, figures).await.with_context(|| format!("move {round} by hand"))?;
        say_round(round, rounds, figures);
    }
    let hosts = stand.cluster.network.hosts();
    let corrupt =
        hosts.iter().find(|host| guests::console(host, stand.plan.vm()).contains("CORRUPT"));
    ensure!(corrupt.is_none(), "the guest lost memory on {:?}", corrupt.map(|host| host.name()));
    Ok(())
}

impl Stand {
    async fn ours(&mut self, from: usize, figures: &mut Figures) -> anyhow::Result<()> {
        let (to, vm) = (1 - from, self.plan.name.clone());
        self.cluster.all_run()?;
        self.cluster.watches(from, &vm).await?;
        let pinger = Pinger::start(self.cluster.network.client(), self.plan.address(), PING_PACE)?;
        raw::answered(&pinger, PING_MARGIN).await?;
        let api = self.cluster.api(from);
        let request = MoveRequest { vm, to: Some(self.cluster.host(to).name()), force: false };
        let start = Instant::now();
        let begun = api.start_move(&request).await?;
        let ended = self.cluster.ended(from, &begun.move_id, MOVE_MAX).await?;
        let total = start.elapsed();
        ensure!(ended.phase == "done", "{} ({:?})", ended.phase, ended.outcome);
        let so_far = pinger.so_far().answered;
        raw::answered(&pinger, so_far + PING_MARGIN).await.context("the guest after its move")?;
        let gap = pinger.stop().await?.gap_ms;
        note(figures, &ended, gap)?;
        if let Some(last) = figures.ours.total_ms.last_mut() {
            *last = u64::try_from(total.as_millis())?;
        }
        let filter = EventFilter { move_id: Some(begun.move_id), ..EventFilter::default() };
        figures.negotiation_ms.push(negotiation(&api.events(&filter).await?)?);
        Ok(())
    }

    /// The agents find the domain gone here and there: it was moved past them.
    async fn by_hand(&mut self, from: usize, figures: &mut Figures) -> anyhow::Result<()> {
        self.cluster.all_run()?;
        self.cluster.watches(from, &self.plan.name).await?;
        let hosts = (self.cluster.host(from), self.cluster.host(1 - from));
        let network = &self.cluster.network;
        let one = raw::move_domain(network, &self.plan, hosts, PARAMETERS).await?;
        note_by_hand(&mut figures.raw, one);
        Ok(())
    }
}
