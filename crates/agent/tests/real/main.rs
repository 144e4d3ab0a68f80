//! Real agents on real hosts with real guests: moves, cancels, refusals. Each test has a sandbox of its own.

#![expect(clippy::print_stdout, reason = "figures are read by people")]

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use api::{EventFilter, MoveView, Step};
use decide::units::PacketsPerSec;
use lab::clients::{Flood, Pinger, TcpProbe};
use lab::cluster::Cluster;
use lab::guests::{self, Guest, GuestPlan};
use lab::hosts::Network;
use lab::sandbox;
use lab::setup::Parts;

const DAEMON: &str = env!("CARGO_BIN_EXE_evenkeeld");
const BOOT_MAX: Duration = Duration::from_secs(60);
const MOVE_MAX: Duration = Duration::from_secs(60);
/// All lab hosts share the machine's processors, so their use says nothing here.
const AUTOMATIC: &str = r#"
[mode]
balance = "automatic"
[hot]
for = "3s"
packets_per_second = 1500
cpu_used = "100%"
cpu_pressure = "100%"
drops_per_second = 100000
[target]
cpu_used_max = "1000%"
memory_reserve = "1GiB"
[worth_it]
gain_min = "1%"
"#;

/// Runs `body` in a sandbox with three hosts, an agent on each, and one guest per name on the host of that number.
/// If it fails, the agents' logs are shown.
fn with_cluster(
    test: &str,
    sections: &str,
    guests: &[(&str, usize)],
    body: impl AsyncFnOnce(&mut Cluster, &[Guest]) -> anyhow::Result<()>,
) {
    sandbox::test(test, async || {
        let parts = Parts::load()?;
        let mut cluster = Cluster::start(Network::new(3)?, Path::new(DAEMON), sections)?;
        let mut started = Vec::new();
        for (number, (name, host)) in (1..).zip(guests) {
            started.push(guests::start(
                cluster.host(*host),
                &GuestPlan::new(name, number),
                &parts,
            )?);
        }
        let done = async {
            for (guest, (name, host)) in started.iter().zip(guests) {
                guest.ready(cluster.host(*host), BOOT_MAX).await?;
                cluster.watches(*host, name).await?;
            }
            cluster.settled().await?;
            body(&mut cluster, &started).await
        }
        .await;
        if done.is_err() {
            for number in 0..3 {
                let log = std::fs::read_to_string(cluster.log(number)).unwrap_or_default();
                println!("---- {} ----\n{log}", cluster.host(number).name());
            }
        }
        done
    });
}

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

async fn steps(cluster: &Cluster, host: usize, move_id: &str) -> anyhow::Result<Vec<Step>> {
    let filter = EventFilter {
        move_id: Some(move_id.to_owned()),
        limit: Some(1000),
        ..EventFilter::default()
    };
    Ok(cluster.api(host).events(&filter).await?.iter().map(|event| event.step).collect())
}

#[test]
fn a_flooded_guest_leaves_by_itself_and_its_connection_survives() {
    let test = "a_flooded_guest_leaves_by_itself_and_its_connection_survives";
    with_cluster(
        test,
        AUTOMATIC,
        &[("web1", 0), ("db1", 0), ("web2", 1)],
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
            let told = steps(cluster, 0, &begun.id).await?;
            println!("{told:?}");
            let to: usize =
                moved.to.context("a target")?.trim_start_matches("host").parse::<usize>()? - 1;
            let there = cluster.api(to).vms().await?;
            let vm = there.iter().find(|vm| vm.name == "web1").context("web1 at its target")?;
            ensure!(vm.state == "running" && vm.epoch == 2 && vm.history_seconds > 5, "{vm:?}");
            ensure!(
                cluster.api(0).vms().await?.iter().all(|vm| vm.name != "web1"),
                "still at the source"
            );
            Ok(())
        },
    );
}
