//! Who speaks with whom, as the agent tells it of real guests.

use std::time::Duration;

use anyhow::{Context, ensure};
use api::FlowView;
use lab::clients::Pinger;
use lab::cluster::Cluster;

use crate::bed::{SOON, idle, roomy, with_cluster};

const PACE: Duration = Duration::from_millis(20);

/// Waits until the agent of host 1 tells of packets both ways between `web1` and outside.
async fn both_ways(cluster: &Cluster) -> anyhow::Result<Vec<FlowView>> {
    let deadline = tokio::time::Instant::now() + SOON;
    loop {
        let flows = cluster.api(0).traffic().await.unwrap_or_default();
        let speaks = |from: &str, to: &str| {
            let of = flows.iter().find(|flow| (&*flow.from, &*flow.to) == (from, to));
            of.is_some_and(|flow| flow.packets_per_second >= 20 && flow.bits_per_second > 10_000)
        };
        if speaks("outside", "web1") && speaks("web1", "outside") {
            return Ok(flows);
        }
        ensure!(tokio::time::Instant::now() < deadline, "not told: {flows:?}");
        tokio::time::sleep(PACE).await;
    }
}

#[test]
fn a_ping_is_seen_both_ways_also_after_a_restart() {
    with_cluster(
        "traffic::a_ping_is_seen_both_ways_also_after_a_restart",
        &roomy("off"),
        &[(idle("web1", 1), 0), (idle("web2", 2), 0)],
        async |cluster, guests| {
            let pinger = Pinger::start(cluster.network.client(), guests[0].plan.address(), PACE)?;
            let flows = both_ways(cluster).await?;
            let id = Some(guests[0].plan.vm().to_string());
            ensure!(flows.iter().any(|flow| flow.from_id == id), "{flows:?}");
            let between = |flow: &FlowView| flow.from == "web2" && flow.to == "web1";
            ensure!(!flows.iter().any(between), "nobody else pings: {flows:?}");

            let uplink = cluster.api(0).status().await?.uplink.context("it has one")?;
            ensure!(uplink.driver.as_deref() == Some("veth"), "{uplink:?}");
            // veth counts nothing by queue.
            ensure!(uplink.up == Some(true) && uplink.losing_queues.is_empty(), "{uplink:?}");

            cluster.kill_agent(0)?;
            cluster.start_agent(0)?;
            both_ways(cluster).await?;
            pinger.stop().await?;
            let log = std::fs::read_to_string(cluster.log(0))?;
            ensure!(!log.contains("counted"), "something was not counted:\n{log}");
            Ok(())
        },
    );
}
