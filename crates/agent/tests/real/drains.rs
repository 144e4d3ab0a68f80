//! What an operator says of a host or VM is kept by its agent: a drain goes on after the agent was killed in its midst, an
//! exclusion holds.

use std::time::Duration;

use anyhow::ensure;
use api::{DrainRequest, DrainView, ExcludeRequest};
use lab::cluster::Cluster;
use tokio::time::Instant;

use crate::bed::{MOVE_MAX, SOON, fast, idle, moved, roomy, slow, with_cluster};
use crate::sight::{never_rebooted, runs_only};

/// Waits until the drain of the first host is as it must be.
async fn until(
    cluster: &Cluster,
    within: Duration,
    reached: impl Fn(&DrainView) -> bool,
) -> anyhow::Result<DrainView> {
    let deadline = Instant::now() + within;
    loop {
        let view = cluster.api(0).drain().await;
        match view {
            Ok(view) if reached(&view) => return Ok(view),
            view => ensure!(Instant::now() < deadline, "not so far: {view:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn state<'a>(view: &'a DrainView, vm: &str) -> &'a str {
    view.here.iter().find(|it| it.vm == vm).map_or("left", |it| &it.state)
}

#[test]
fn a_drain_outlives_its_agent_and_an_exclusion_keeps_a_vm_here() {
    with_cluster(
        "drains::a_drain_outlives_its_agent_and_an_exclusion_keeps_a_vm_here",
        &roomy("off"),
        &[(idle("web1", 1), 0), (idle("db1", 2), 0), (idle("web2", 3), 1)],
        async |cluster, guests| {
            let api = |cluster: &Cluster| cluster.api(0);
            let hour = ExcludeRequest { for_seconds: Some(3600) };
            let excluded = api(cluster).exclude("db1", hour).await?;
            ensure!(excluded.excluded && excluded.until.is_some(), "{excluded:?}");
            let on = DrainRequest { on: true, host: None };
            let other = DrainRequest { host: Some("host2".to_owned()), ..on.clone() };
            let refused = api(cluster).set_drain(&other).await.unwrap_err().to_string();
            ensure!(refused.contains("drains its own host alone"), "{refused}");
            for host in [1, 2] {
                slow(cluster, host)?;
            }
            api(cluster).set_drain(&on).await?;
            let moving = |view: &DrainView| state(view, "web1") == "moving";
            until(cluster, SOON, moving).await?;

            cluster.kill_agent(0)?;
            cluster.start_agent(0)?;
            for host in [1, 2] {
                fast(cluster, host)?;
            }
            let over = |view: &DrainView| view.draining && state(view, "web1") == "left";
            let view = until(cluster, MOVE_MAX, over).await?;
            ensure!(state(&view, "db1") == "stays", "{view:?}");
            let [left] = &view.left[..] else { anyhow::bail!("{view:?}") };
            ensure!(left.vm == "web1" && left.to == left.at, "{left:?}");
            let to = usize::from(left.to == cluster.host(2).name()) + 1;
            runs_only(cluster, &guests[0].plan, to).await?;

            // By hand the excluded one goes, and nobody comes before the drain is ended.
            let back = DrainRequest { on: false, host: None };
            let ended = api(cluster).set_drain(&back).await?;
            ensure!(!ended.draining && ended.left.len() == 1, "{ended:?}");
            ensure!(api(cluster).exclusions().await?.len() == 1, "kept over the restart");
            moved(cluster, "web1", to, 0).await?;
            let included = api(cluster).include("db1").await?;
            ensure!(!included.excluded, "{included:?}");
            // Not to any host: the one that the killed agent had chosen may still keep room for `web1`.
            moved(cluster, "db1", 0, to).await?;
            guests.iter().try_for_each(|guest| never_rebooted(cluster, &guest.plan))
        },
    );
}
