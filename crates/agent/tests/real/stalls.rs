//! Copies that do not follow their guest: each round leaves the 32 MiB that it writes to, for which the link takes 0.9 s.

use anyhow::{Context, ensure};
use api::{EventFilter, MoveView};
use decide::units::{BitsPerSec, Mib};
use lab::cluster::Cluster;
use lab::guests::{Dirty, GuestPlan};

use crate::bed::{MOVE_MAX, roomy, send, with_cluster};
use crate::sight::runs_only;

const LINK: BitsPerSec = BitsPerSec(300_000_000);
const ALLOWED: &str = "at its end is allowed now";

fn with_writer(
    test: &str,
    copy: &str,
    body: impl AsyncFnOnce(&Cluster, &GuestPlan) -> anyhow::Result<()>,
) {
    let dirty = Some(Dirty { memory: Mib(32), per_second: Mib(45) });
    let plan = GuestPlan { dirty, ..GuestPlan::new("web1", 1) };
    let sections = roomy("off") + copy;
    with_cluster(test, &sections, &[(plan, 0)], async |cluster, guests| {
        cluster.host(1).limit_uplink(Some(LINK))?;
        body(cluster, &guests[0].plan).await
    });
}

/// Moves the guest over that link; gives the move as it ended, and what was told of its pauses.
async fn moved(cluster: &Cluster) -> anyhow::Result<(MoveView, Vec<String>)> {
    let id = send(cluster, "web1", 0, 1).await?;
    let view = cluster.ended(0, &id, MOVE_MAX).await?;
    let filter = EventFilter { move_id: Some(id), ..EventFilter::default() };
    let told = cluster.api(0).events(&filter).await?.into_iter();
    let told = told.map(|event| event.reason).filter(|reason| reason.contains(ALLOWED)).collect();
    println!("{} rounds, pause {:?} ms, {}: {told:?}", view.rounds, view.downtime_ms, view.phase);
    Ok((view, told))
}

#[test]
fn a_longer_pause_is_allowed_step_by_step_until_it_suffices() {
    let test = "stalls::a_longer_pause_is_allowed_step_by_step_until_it_suffices";
    with_writer(test, "[copy]\ndowntime_max = \"2.1s\"\n", async |cluster, plan| {
        let (view, told) = moved(cluster).await?;
        ensure!(view.phase == "done", "{view:?}");
        ensure!(told.first().is_some_and(|first| first.contains("600ms")), "{told:?}");
        ensure!(told.len() <= 3, "no longer than it needs: {told:?}");
        ensure!(view.downtime_ms.is_some_and(|pause| pause > 300), "{view:?}");
        runs_only(cluster, plan, 1).await
    });
}

#[test]
fn where_it_never_suffices_the_move_is_given_up_with_what_would_help() {
    let test = "stalls::where_it_never_suffices_the_move_is_given_up_with_what_would_help";
    with_writer(test, "[copy]\ndowntime_max = \"300ms\"\n", async |cluster, plan| {
        let (view, told) = moved(cluster).await?;
        ensure!(view.phase == "abandoned", "{view:?}");
        let why = view.outcome.context("it ended")?;
        ensure!(why.contains("faster than the copy follows"), "{why}");
        ensure!(why.contains("300ms") && why.contains("auto-converge"), "{why}");
        ensure!(told.len() == 4, "{told:?}");
        runs_only(cluster, plan, 0).await
    });
}

#[test]
fn a_guest_that_consents_is_slowed_down_until_the_copy_follows() {
    let test = "stalls::a_guest_that_consents_is_slowed_down_until_the_copy_follows";
    // The same as where it is given up, but for the rule.
    let rule =
        "[copy]\ndowntime_max = \"300ms\"\n[[rules.vm]]\nvms = [\"web1\"]\nauto_converge = true\n";
    with_writer(test, rule, async |cluster, plan| {
        let (view, _told) = moved(cluster).await?;
        ensure!(view.phase == "done", "{view:?}");
        runs_only(cluster, plan, 1).await
    });
}
