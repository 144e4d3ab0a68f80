//! Copies that do not succeed: cancelled by hand, or because a QEMU dies.

use std::time::Duration;

use anyhow::ensure;
use api::Step;
use lab::clients::Pinger;
use lab::guests::{kill_qemu, qemus};

use crate::bed::{MOVE_MAX, busy, copying, fast, moved, roomy, slow, with_cluster};
use crate::sight::{never_rebooted, nothing_left, owned, runs_only, steps, told};

#[test]
fn a_cancelled_copy_leaves_the_guest_where_it_was_and_nothing_at_the_target() {
    with_cluster(
        "cancels::a_cancelled_copy_leaves_the_guest_where_it_was_and_nothing_at_the_target",
        &roomy("off"),
        &[(busy("web1", 1), 0)],
        async |cluster, guests| {
            let web1 = &guests[0].plan;
            let pinger = Pinger::start(
                cluster.network.client(),
                web1.address(),
                Duration::from_millis(200),
            )?;
            slow(cluster, 1)?;
            let id = copying(cluster, "web1", 0, 1).await?;
            ensure!(qemus(cluster.host(1), web1.vm())?.len() == 1, "an incoming side is there");
            cluster.api(0).cancel(&id).await?;
            let view = cluster.ended(0, &id, MOVE_MAX).await?;
            println!("{view:?}");
            ensure!(view.phase == "abandoned", "{view:?}");
            let why = view.outcome.unwrap_or_default();
            ensure!(why.contains("cancelled by hand"), "{why}");
            runs_only(cluster, web1, 0).await?;
            nothing_left(cluster, 1, web1).await?;
            let pings = pinger.stop().await?;
            println!("{pings:?}");
            ensure!(pings.sent >= 5 && pings.lost() <= 1, "{pings:?}");
            let steps = steps(cluster, 0, &id).await?;
            ensure!(steps.contains(&Step::Undo) && steps.contains(&Step::Abandoned), "{steps:?}");
            ensure!(cluster.api(0).cancel(&id).await.is_err(), "cancelled twice");

            fast(cluster, 1)?;
            moved(cluster, "web1", 0, 1).await?;
            runs_only(cluster, web1, 1).await?;
            nothing_left(cluster, 0, web1).await?;
            never_rebooted(cluster, web1)
        },
    );
}

#[test]
fn a_target_whose_qemu_dies_during_the_copy_costs_the_guest_nothing() {
    with_cluster(
        "cancels::a_target_whose_qemu_dies_during_the_copy_costs_the_guest_nothing",
        &roomy("off"),
        &[(busy("web1", 1), 0)],
        async |cluster, guests| {
            let web1 = &guests[0].plan;
            slow(cluster, 1)?;
            let id = copying(cluster, "web1", 0, 1).await?;
            kill_qemu(cluster.host(1), web1.vm())?;
            let view = cluster.ended(0, &id, MOVE_MAX).await?;
            println!("{view:?}");
            ensure!(view.phase == "abandoned", "{view:?}");
            runs_only(cluster, web1, 0).await?;
            nothing_left(cluster, 1, web1).await?;
            moved(cluster, "web1", 0, 2).await?;
            runs_only(cluster, web1, 2).await?;
            never_rebooted(cluster, web1)
        },
    );
}

#[test]
fn a_guest_whose_qemu_dies_during_the_copy_is_told_and_started_nowhere() {
    with_cluster(
        "cancels::a_guest_whose_qemu_dies_during_the_copy_is_told_and_started_nowhere",
        &roomy("off"),
        &[(busy("web1", 1), 0), (busy("db1", 2), 0)],
        async |cluster, guests| {
            let (web1, db1) = (&guests[0].plan, &guests[1].plan);
            slow(cluster, 1)?;
            let id = copying(cluster, "web1", 0, 1).await?;
            guests[0].kill()?;
            let view = cluster.ended(0, &id, MOVE_MAX).await?;
            println!("{view:?}");
            ensure!(view.phase == "down", "{view:?}");
            let down = told(cluster, 0, Step::VmDown, &["its process ended"]).await?;
            ensure!(down.vm.as_deref() == Some("web1") && down.move_id == Some(id), "{down:?}");
            nothing_left(cluster, 1, web1).await?;
            for host in cluster.network.hosts() {
                ensure!(qemus(host, web1.vm())?.is_empty(), "started again on {}", host.name());
            }
            let kept = cluster.host(0).path(&format!("/run/evenkeel/qemu/{}.toml", web1.vm()));
            ensure!(kept.exists(), "its definition is gone");
            fast(cluster, 1)?;
            moved(cluster, "db1", 0, 1).await?;
            runs_only(cluster, db1, 1).await?;
            owned(cluster, "db1", 1, 2).await
        },
    );
}
