//! A usage history goes where its VM goes, with what is stored of it, and is there after the agent was killed.

use std::time::Duration;

use anyhow::{Context, ensure};
use api::{HistoryFilter, HistoryView};
use lab::cluster::Cluster;
use tokio::time::Instant;

use crate::bed::{MOVE_MAX, SOON, busy, copying, fast, idle, moved, roomy, slow, with_cluster};
use crate::sight::{owned, runs_only};

/// Spans of ten seconds take ten seconds each to be over.
const POINTS: usize = 3;
const POINTS_MAX: Duration = Duration::from_secs(60);

/// What the agent of a host tells of the VM by spans of ten seconds.
async fn stored(cluster: &Cluster, host: usize) -> anyhow::Result<HistoryView> {
    let filter = HistoryFilter { since: Some(3600), step: Some(10), metric: Some("memory".into()) };
    Ok(cluster.api(host).vm_history("web1", &filter).await?)
}

/// When its spans began, to the second, and what they hold.
fn points(view: &HistoryView) -> anyhow::Result<Vec<(String, [u64; 4])>> {
    let series = view.metrics.first().context("the metric asked for")?;
    let points = view.at.iter().enumerate().map(|(index, at)| {
        let figures = [&series.min, &series.mean, &series.max, &series.p95];
        // The tenth second: the wall clock is told to the millisecond, which may lie on either side of it.
        let second: jiff::Timestamp = at.parse()?;
        let second = second.as_second() + i64::from(second.subsec_millisecond() > 500);
        Ok((second.to_string(), figures.map(|figure| figure[index])))
    });
    points.collect()
}

/// Waits until some spans are over; gives them.
async fn some(cluster: &Cluster, host: usize) -> anyhow::Result<Vec<(String, [u64; 4])>> {
    let deadline = Instant::now() + POINTS_MAX;
    loop {
        let first = points(&stored(cluster, host).await?)?;
        if first.len() >= POINTS {
            return Ok(first);
        }
        ensure!(Instant::now() < deadline, "too little is kept: {first:?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Waits until the spans that were there before the move are told at this host, then gives all.
async fn has(
    cluster: &Cluster,
    host: usize,
    before: &[(String, [u64; 4])],
) -> anyhow::Result<HistoryView> {
    let deadline = Instant::now() + SOON;
    loop {
        let view = stored(cluster, host).await;
        if let Ok(view) = &view {
            let here = points(view)?;
            if before.iter().all(|point| here.contains(point)) {
                let mut starts: Vec<_> = here.iter().map(|(at, _)| at).collect();
                starts.dedup();
                ensure!(starts.len() == here.len(), "it is there twice: {here:?}");
                return Ok(view.clone());
            }
        }
        ensure!(Instant::now() < deadline, "of {before:?} on host{}: {view:?}", host + 1);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn was_on(view: &HistoryView, hosts: &[&str]) -> anyhow::Result<()> {
    let past: Vec<&str> = view.past.iter().map(|stay| stay.host.as_str()).collect();
    ensure!(past == hosts, "{past:?} instead of {hosts:?}");
    Ok(())
}

#[test]
fn a_history_goes_where_its_vm_goes_and_outlives_the_agents_there() {
    with_cluster(
        "histories::a_history_goes_where_its_vm_goes_and_outlives_the_agents_there",
        &roomy("off"),
        &[(idle("web1", 1), 0)],
        async |cluster, guests| {
            let web1 = &guests[0].plan;
            let first = some(cluster, 0).await?;
            moved(cluster, "web1", 0, 1).await?;
            was_on(&has(cluster, 1, &first).await?, &["host1"])?;

            cluster.kill_agent(1)?;
            cluster.start_agent(1)?;
            cluster.watches(1, "web1").await?;
            cluster.settled().await?;
            let there = has(cluster, 1, &first).await?;
            was_on(&there, &["host1"])?;
            println!("{} spans at host2 after its agent was killed", there.at.len());

            // Back again: what was kept here is there, and what came from there.
            let both = points(&there)?;
            moved(cluster, "web1", 1, 0).await?;
            was_on(&has(cluster, 0, &both).await?, &["host1", "host2"])?;
            owned(cluster, "web1", 0, 3).await?;
            runs_only(cluster, web1, 0).await
        },
    );
}

#[test]
fn a_history_that_came_is_there_though_the_agent_was_killed_before_its_vm_was() {
    with_cluster(
        "histories::a_history_that_came_is_there_though_the_agent_was_killed_before_its_vm_was",
        &roomy("off"),
        &[(busy("web1", 1), 0)],
        async |cluster, guests| {
            let first = some(cluster, 0).await?;
            // A move that is undone leaves nothing of the history behind.
            slow(cluster, 2)?;
            let undone = copying(cluster, "web1", 0, 2).await?;
            cluster.api(0).cancel(&undone).await?;
            ensure!(cluster.ended(0, &undone, MOVE_MAX).await?.phase == "abandoned", "not undone");
            ensure!(stored(cluster, 2).await.is_err(), "the VM never was at host3");
            cluster.settled().await?;

            slow(cluster, 1)?;
            let id = copying(cluster, "web1", 0, 1).await?;
            cluster.kill_agent(1)?;
            cluster.start_agent(1)?;
            fast(cluster, 1)?;
            let view = cluster.ended(0, &id, MOVE_MAX).await?;
            ensure!(view.phase == "done", "{view:?}");
            // The name of host1 is known once it was met again: an agent that was killed is deaf for two seconds.
            cluster.settled().await?;
            was_on(&has(cluster, 1, &first).await?, &["host1"])?;
            runs_only(cluster, &guests[0].plan, 1).await
        },
    );
}
