//! What is looked at in every test: that a guest runs, in one copy, where it should; that nothing is left elsewhere;
//! what agents told.

use anyhow::{Context, ensure};
use api::{Event, EventFilter, Step, VmView};
use lab::cluster::Cluster;
use lab::guests::{GuestPlan, console, each_once, heartbeats, left};
use lab::wait;

use crate::bed::SOON;

/// Sees that the guest runs on that host and nowhere else: its heartbeats go on there, and over all hosts none came
/// twice, went back, or was made while another host made one.
pub(crate) async fn runs_only(
    cluster: &Cluster,
    guest: &GuestPlan,
    at: usize,
) -> anyhow::Result<()> {
    let before = beats(cluster, guest);
    let what = format!("two more heartbeats of {} on {}", guest.name, cluster.host(at).name());
    let after = wait::until(SOON, &what, || {
        let now = beats(cluster, guest);
        Ok((now[at].len() >= before[at].len() + 2).then_some(now))
    })
    .await?;
    let seen = each_once(&after)?;
    for (host, all) in after.iter().enumerate() {
        ensure!(
            host == at || all.len() == before[host].len(),
            "it also runs on host{}: {before:?}, then {after:?}",
            host + 1
        );
    }
    let newest = seen.last_key_value().context("heartbeats")?;
    ensure!(*newest.1 == at, "the newest heartbeat is not from host{}: {after:?}", at + 1);
    Ok(())
}

/// The guest's heartbeats on each host.
pub(crate) fn beats(cluster: &Cluster, guest: &GuestPlan) -> Vec<Vec<u64>> {
    cluster.network.hosts().iter().map(|host| heartbeats(host, guest.vm())).collect()
}

/// What the agent of a host says of a VM.
pub(crate) async fn vm(cluster: &Cluster, host: usize, name: &str) -> anyhow::Result<VmView> {
    let all = cluster.api(host).vms().await?;
    let found = all.iter().find(|vm| vm.name == name).cloned();
    found.with_context(|| format!("{name} is not on host{}: {all:?}", host + 1))
}

/// Sees that the agent of a host runs the VM under that epoch, and that no other agent has it.
pub(crate) async fn owned(
    cluster: &Cluster,
    name: &str,
    at: usize,
    epoch: u64,
) -> anyhow::Result<()> {
    let here = vm(cluster, at, name).await?;
    ensure!(here.state == "running" && here.epoch == epoch, "epoch {epoch} wanted: {here:?}");
    for host in (0..cluster.network.hosts().len()).filter(|host| *host != at) {
        let all = cluster.api(host).vms().await?;
        ensure!(all.iter().all(|vm| vm.name != name), "host{} has it too: {all:?}", host + 1);
    }
    Ok(())
}

/// Sees that a host has nothing of this VM any more: no process, tap or file; nor does its agent show it.
pub(crate) async fn nothing_left(
    cluster: &Cluster,
    host: usize,
    guest: &GuestPlan,
) -> anyhow::Result<()> {
    let at = cluster.host(host);
    let left = || left(at, guest);
    let what = format!("nothing of {} on {}", guest.name, at.name());
    let gone = wait::until(SOON, &what, || Ok(left()?.is_empty().then_some(()))).await;
    gone.with_context(|| format!("left: {:?}", left().unwrap_or_default()))?;
    let all = cluster.api(host).vms().await?;
    ensure!(all.iter().all(|vm| vm.name != guest.name), "{} still shows it: {all:?}", at.name());
    Ok(())
}

/// Waits until the agent of a host has told this, and gives it.
pub(crate) async fn told(
    cluster: &Cluster,
    host: usize,
    step: Step,
    words: &[&str],
) -> anyhow::Result<Event> {
    let deadline = tokio::time::Instant::now() + SOON;
    loop {
        let all = events(cluster, host).await?;
        let found = all
            .iter()
            .find(|event| event.step == step && words.iter().all(|w| event.reason.contains(w)));
        if let Some(event) = found {
            return Ok(event.clone());
        }
        ensure!(
            tokio::time::Instant::now() < deadline,
            "{} never told {step} with {words:?}",
            cluster.host(host).name()
        );
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

/// All that the agent of a host has told.
pub(crate) async fn events(cluster: &Cluster, host: usize) -> anyhow::Result<Vec<Event>> {
    let filter = EventFilter { limit: Some(api::EVENTS_MAX), ..EventFilter::default() };
    Ok(cluster.api(host).events(&filter).await?)
}

/// The steps that the agent of a host told of a move.
pub(crate) async fn steps(
    cluster: &Cluster,
    host: usize,
    move_id: &str,
) -> anyhow::Result<Vec<Step>> {
    let of_move = |event: &&Event| event.move_id.as_deref() == Some(move_id);
    Ok(events(cluster, host).await?.iter().filter(of_move).map(|event| event.step).collect())
}

/// Sees that no guest rebooted: its kernel came up once, over all hosts.
pub(crate) fn never_rebooted(cluster: &Cluster, guest: &GuestPlan) -> anyhow::Result<()> {
    let consoles = cluster.network.hosts().iter().map(|host| console(host, guest.vm()));
    let boots: usize = consoles.map(|text| text.matches("READY").count()).sum();
    ensure!(boots == 1, "{} came up {boots} times", guest.name);
    Ok(())
}
