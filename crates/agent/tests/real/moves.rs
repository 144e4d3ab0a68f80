//! Moves that are made: by the VM policy, and by hand.

use std::time::Duration;

use anyhow::{Context, ensure};
use api::{MoveView, Step};
use decide::units::PacketsPerSec;
use lab::clients::{Flood, Pinger, TcpProbe};
use lab::cluster::Cluster;
use lab::hosts::{BESIDE, UPLINK};

use crate::bed::{
    MOVE_MAX, at_phase, busy, copying, fast, idle, moved, roomy, send, slow, with_cluster,
};
use crate::sight::{never_rebooted, nothing_left, owned, runs_only, steps, vm};

/// The steps of the method, as the source tells them.
const METHOD: [Step; 12] = [
    Step::Request,
    Step::Acceptance,
    Step::Acceptance,
    Step::Choice,
    Step::Confirmation,
    Step::UsageHistory,
    Step::Readiness,
    Step::Copy,
    Step::SwitchOver,
    Step::HandOver,
    Step::Running,
    Step::Done,
];

async fn newest_move(cluster: &Cluster, host: usize, within: Duration) -> anyhow::Result<MoveView> {
    let deadline = tokio::time::Instant::now() + within;
    loop {
        if let Some(view) = cluster.api(host).moves().await?.into_iter().next() {
            return Ok(view);
        }
        ensure!(
            tokio::time::Instant::now() < deadline,
            "no move from host{} in {within:?}",
            host + 1
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[test]
fn a_flooded_guest_leaves_by_itself_and_its_connection_survives() {
    with_cluster(
        "moves::a_flooded_guest_leaves_by_itself_and_its_connection_survives",
        &roomy("automatic"),
        &[(idle("web1", 1), 0), (idle("db1", 2), 0), (idle("web2", 3), 1)],
        async |cluster, guests| {
            let client = cluster.network.client();
            let (web1, db1) = (guests[0].plan.address(), guests[1].plan.address());
            let pinger = Pinger::start(client, web1, Duration::from_millis(200))?;
            let tcp = TcpProbe::start(client, web1)?;
            let background = Flood::start(client, db1, PacketsPerSec(600), 200)?;
            let flood = Flood::start(client, web1, PacketsPerSec(1200), 200)?;

            let begun = newest_move(cluster, 0, Duration::from_secs(30)).await?;
            let moved = cluster.ended(0, &begun.id, MOVE_MAX).await?;
            println!("{moved:?}");
            ensure!(moved.phase == "done", "not made: {moved:?}");
            ensure!(moved.vm == "web1" && moved.acceptances >= 2, "{moved:?}");
            flood.stop()?;
            background.stop()?;
            let (pings, line) = (pinger.stop().await?, tcp.stop().await?);
            println!("{pings:?} {line:?}");
            ensure!(line.alive() && pings.lost() <= 2, "{pings:?} {line:?}");

            let to = moved.to.context("a target")?;
            let to = to.trim_start_matches("host").parse::<usize>()? - 1;
            owned(cluster, "web1", to, 2).await?;
            let there = vm(cluster, to, "web1").await?;
            ensure!(there.history_seconds > 5, "its history did not come along: {there:?}");
            let told = steps(cluster, 0, &begun.id).await?;
            let mut left = told.iter();
            ensure!(METHOD.iter().all(|step| left.any(|told| told == step)), "{told:?}");
            runs_only(cluster, &guests[0].plan, to).await?;
            nothing_left(cluster, 0, &guests[0].plan).await
        },
    );
}

#[test]
fn a_guest_moved_by_hand_goes_where_it_is_told_and_comes_back() {
    with_cluster(
        "moves::a_guest_moved_by_hand_goes_where_it_is_told_and_comes_back",
        &roomy("off"),
        &[(idle("web1", 1), 0)],
        async |cluster, guests| {
            let web1 = &guests[0].plan;
            slow(cluster, 1)?;
            let there = copying(cluster, "web1", 0, 1).await?;
            let first = at_phase(cluster, 0, &there, "copying").await?;
            ensure!(first.copied_bytes < first.total_bytes, "{first:?}");
            let again = send(cluster, "web1", 0, 2).await.err();
            let refused = again.context("a second move of the same VM")?.to_string();
            ensure!(refused.contains("it is being moved already"), "{refused}");
            fast(cluster, 1)?;
            let view = cluster.ended(0, &there, MOVE_MAX).await?;
            println!("there: {view:?}");
            ensure!(view.phase == "done" && view.to.as_deref() == Some("host2"), "{view:?}");
            ensure!(view.copied_bytes > first.copied_bytes, "no progress: {first:?}, {view:?}");
            owned(cluster, "web1", 1, 2).await?;
            runs_only(cluster, web1, 1).await?;
            nothing_left(cluster, 0, web1).await?;

            let back = moved(cluster, "web1", 1, 0).await?;
            println!("back: {back:?}");
            owned(cluster, "web1", 0, 3).await?;
            runs_only(cluster, web1, 0).await?;
            nothing_left(cluster, 1, web1).await?;
            never_rebooted(cluster, web1)
        },
    );
}

/// Encrypted, though the certificates name the agents' addresses alone.
#[test]
fn copies_go_by_a_network_of_their_own() {
    const COPY_MIN: u64 = 16 << 20;
    const WORDS_MAX: u64 = 2 << 20;
    let test = "moves::copies_go_by_a_network_of_their_own";
    let sections = format!("copy_address = \"198.19.0.{{number}}\"\n{}", roomy("off"));
    with_cluster(test, &sections, &[(busy("web1", 1), 0)], async |cluster, guests| {
        cluster.network.join_beside()?;
        let came = |link: &str| cluster.host(1).received(link);
        let before = (came(BESIDE)?, came(UPLINK)?);
        let view = moved(cluster, "web1", 0, 1).await?;
        let (beside, uplink) = (came(BESIDE)? - before.0, came(UPLINK)? - before.1);
        println!("{beside} bytes came beside, {uplink} by the uplink");
        ensure!(view.encrypted == Some(true), "{view:?}");
        ensure!(beside >= COPY_MIN, "{beside} bytes came by the network of copies");
        ensure!(uplink <= WORDS_MAX, "{uplink} bytes came by the agents' network");
        runs_only(cluster, &guests[0].plan, 1).await
    });
}
