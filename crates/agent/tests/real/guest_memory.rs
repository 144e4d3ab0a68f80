//! What a guest tells of its memory by its balloon, as the agent has it, before a move and after; and that one without a
//! balloon tells nothing, which is not zero.

use std::time::Duration;

use anyhow::{Context, ensure};
use api::VmView;
use lab::cluster::Cluster;
use lab::guests::{BALLOON, GuestPlan, operator_socket};
use lab::qmp::Qmp;
use serde_json::json;
use tokio::time::Instant;

use crate::bed::{idle, moved, roomy, with_cluster};
use crate::sight::{runs_only, vm};

/// Agents ask QEMU every five seconds, and QEMU the guest as often.
const TOLD_MAX: Duration = Duration::from_secs(40);
const PACE: Duration = Duration::from_millis(200);

/// Waits until the agent of a host tells this of a VM.
async fn told(
    cluster: &Cluster,
    host: usize,
    name: &str,
    wanted: impl Fn(&VmView) -> bool,
) -> anyhow::Result<VmView> {
    let deadline = Instant::now() + TOLD_MAX;
    loop {
        let now = vm(cluster, host, name).await?;
        if wanted(&now) {
            return Ok(now);
        }
        ensure!(Instant::now() < deadline, "not told: {now:?}");
        tokio::time::sleep(PACE).await;
    }
}

/// Total and available memory in MiB, by the guest's own word, past the agent.
async fn by_hand(cluster: &Cluster, host: usize, guest: &GuestPlan) -> anyhow::Result<(u64, u64)> {
    let mut qmp = Qmp::connect(&operator_socket(cluster.host(host), guest.vm())).await?;
    let what = json!({ "path": BALLOON, "property": "guest-stats" });
    let told = qmp.command("qom-get", what).await?;
    let mib = |name: &str| told["stats"][name].as_u64().map(|bytes| bytes >> 20);
    let figures = mib("stat-total-memory").zip(mib("stat-available-memory"));
    figures.with_context(|| format!("no figures: {told}"))
}

/// Sees that the agent tells what the guest does, and that it makes sense.
async fn tells(cluster: &Cluster, host: usize, guest: &GuestPlan) -> anyhow::Result<()> {
    let known = told(cluster, host, &guest.name, |vm| vm.guest_memory_mib.is_some()).await?;
    let used = known.guest_memory_mib.context("it was told")?;
    let (total, available) = by_hand(cluster, host, guest).await?;
    println!("{used} MiB in use; {available} of {total} MiB available");
    // The kernel keeps some for itself: its code, and a description of each page.
    ensure!((guest.memory.0 / 2..=guest.memory.0).contains(&total), "{total} MiB");
    ensure!(0 < available && available < total, "{available} of {total} MiB");
    // The guest may have told anew between the two looks; MiB are rounded down.
    ensure!(used.abs_diff(total - available) <= 8, "{used}, {total}, {available} MiB");
    Ok(())
}

#[test]
fn a_guest_with_a_balloon_tells_its_memory_before_and_after_a_move_and_another_does_not() {
    let balloon = GuestPlan { balloon: true, operator: true, ..idle("web1", 1) };
    with_cluster(
        "guest_memory::a_guest_with_a_balloon_tells_its_memory_before_and_after_a_move_and_another_does_not",
        &roomy("off"),
        &[(balloon, 0), (idle("web2", 2), 0)],
        async |cluster, guests| {
            let plan = &guests[0].plan;
            tells(cluster, 0, plan).await?;
            moved(cluster, "web1", 0, 1).await?;
            runs_only(cluster, plan, 1).await?;
            tells(cluster, 1, plan).await?;
            // It was asked for its devices just after its threads, and for its memory, if it had a balloon, since long.
            let without = told(cluster, 0, "web2", |vm| vm.vcpu_percent.is_some()).await?;
            ensure!(without.guest_memory_mib.is_none(), "{without:?}");
            moved(cluster, "web2", 0, 2).await?;
            let without = told(cluster, 2, "web2", |vm| vm.vcpu_percent.is_some()).await?;
            ensure!(without.guest_memory_mib.is_none(), "{without:?}");
            Ok(())
        },
    );
}
