//! Agents that stop, or are killed at any instruction: VMs go on, and what was open is settled.

use std::time::Duration;

use anyhow::ensure;
use lab::cluster::Cluster;
use lab::guests::GuestPlan;
use tokio::time::Instant;

use crate::bed::{
    MOVE_MAX, SOON, at_phase, busy, copying, fast, idle, moved, roomy, slow, with_cluster,
};
use crate::sight::{beats, never_rebooted, nothing_left, owned, runs_only, vm};

/// Waits until no agent but that of `at` has the VM, which runs there.
async fn settled(cluster: &Cluster, name: &str, at: usize) -> anyhow::Result<u64> {
    let deadline = Instant::now() + MOVE_MAX;
    loop {
        let here = vm(cluster, at, name).await;
        if let Ok(here) = &here
            && here.state == "running"
            && here.trouble.is_none()
        {
            return Ok(here.epoch);
        }
        ensure!(Instant::now() < deadline, "not settled: {here:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until the move that an agent found open has ended; gives how.
async fn found_ended(cluster: &Cluster, host: usize, id: &str) -> anyhow::Result<String> {
    let deadline = Instant::now() + SOON;
    while cluster.api(host).status().await.is_err() {
        ensure!(Instant::now() < deadline, "the agent does not come back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(cluster.ended(host, id, MOVE_MAX).await?.phase)
}

#[test]
fn an_agent_that_is_told_to_stop_ends_at_once_and_its_guests_go_on() {
    with_cluster(
        "restarts::an_agent_that_is_told_to_stop_ends_at_once_and_its_guests_go_on",
        &roomy("off"),
        &[(idle("web1", 1), 0)],
        async |cluster, guests| {
            let web1 = &guests[0].plan;
            moved(cluster, "web1", 0, 1).await?;
            for host in 0..3 {
                let begun = Instant::now();
                cluster.stop_agent(host)?;
                let took = begun.elapsed();
                println!("host{} stopped in {took:?}", host + 1);
                ensure!(took < Duration::from_secs(2), "host{} took {took:?}", host + 1);
            }
            runs_only(cluster, web1, 1).await?;
            for host in 0..3 {
                cluster.start_agent(host)?;
            }
            cluster.watches(1, "web1").await?;
            cluster.settled().await?;
            owned(cluster, "web1", 1, 2).await?;
            moved(cluster, "web1", 1, 0).await?;
            owned(cluster, "web1", 0, 3).await?;
            runs_only(cluster, web1, 0).await?;
            never_rebooted(cluster, web1)
        },
    );
}

/// Waits until the guest's heart, which beats each second, has stood still for three; gives what was heard until then.
async fn silent(cluster: &Cluster, plan: &GuestPlan) -> anyhow::Result<Vec<Vec<u64>>> {
    let deadline = Instant::now() + MOVE_MAX;
    let (mut heard, mut since) = (beats(cluster, plan), Instant::now());
    while since.elapsed() < Duration::from_secs(3) {
        ensure!(Instant::now() < deadline, "it never was paused for the last round: {heard:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
        let now = beats(cluster, plan);
        if now != heard {
            (heard, since) = (now, Instant::now());
        }
    }
    Ok(heard)
}

#[test]
fn a_target_agent_killed_during_the_copy_takes_it_up_again() {
    with_cluster(
        "restarts::a_target_agent_killed_during_the_copy_takes_it_up_again",
        &roomy("off"),
        &[(busy("web1", 1), 0)],
        async |cluster, guests| {
            let web1 = &guests[0].plan;
            // Back before the copy is complete.
            slow(cluster, 1)?;
            let id = copying(cluster, "web1", 0, 1).await?;
            cluster.kill_agent(1)?;
            runs_only(cluster, web1, 0).await?;
            cluster.start_agent(1)?;
            fast(cluster, 1)?;
            let view = cluster.ended(0, &id, MOVE_MAX).await?;
            println!("back before the end: {view:?}");
            ensure!(view.phase == "done", "{view:?}");
            runs_only(cluster, web1, 1).await?;
            nothing_left(cluster, 0, web1).await?;
            owned(cluster, "web1", 1, 2).await?;

            // Away when the VM is handed over: it stays paused, here as there, until the agent is back.
            slow(cluster, 2)?;
            cluster.settled().await?;
            let id = copying(cluster, "web1", 1, 2).await?;
            cluster.kill_agent(2)?;
            fast(cluster, 2)?;
            at_phase(cluster, 1, &id, "handing-over").await?;
            let before = beats(cluster, web1);
            tokio::time::sleep(Duration::from_secs(2)).await;
            ensure!(beats(cluster, web1) == before, "a copy runs although nobody owns it yet");
            cluster.start_agent(2)?;
            let view = cluster.ended(1, &id, MOVE_MAX).await?;
            println!("back after the hand-over: {view:?}");
            ensure!(view.phase == "done", "{view:?}");
            runs_only(cluster, web1, 2).await?;
            nothing_left(cluster, 1, web1).await?;
            owned(cluster, "web1", 2, 3).await?;
            never_rebooted(cluster, web1)
        },
    );
}

#[test]
fn a_source_agent_killed_during_the_copy_settles_it() {
    with_cluster(
        "restarts::a_source_agent_killed_during_the_copy_settles_it",
        &roomy("off"),
        &[(busy("web1", 1), 0)],
        async |cluster, guests| {
            let web1 = &guests[0].plan;
            // Back before the copy is complete.
            slow(cluster, 1)?;
            let id = copying(cluster, "web1", 0, 1).await?;
            cluster.kill_agent(0)?;
            runs_only(cluster, web1, 0).await?;
            cluster.start_agent(0)?;
            let phase = found_ended(cluster, 0, &id).await?;
            ensure!(phase == "abandoned", "{phase}");
            settled(cluster, "web1", 0).await?;
            runs_only(cluster, web1, 0).await?;
            nothing_left(cluster, 1, web1).await?;

            // Away at the switch-over: the guest is paused there until the agent is back.
            cluster.settled().await?;
            slow(cluster, 2)?;
            let id = copying(cluster, "web1", 0, 2).await?;
            cluster.kill_agent(0)?;
            fast(cluster, 2)?;
            let still = silent(cluster, web1).await?;
            ensure!(still[2].is_empty(), "it runs at the target: {still:?}");
            cluster.start_agent(0)?;
            let phase = found_ended(cluster, 0, &id).await?;
            ensure!(phase == "abandoned", "{phase}");
            settled(cluster, "web1", 0).await?;
            runs_only(cluster, web1, 0).await?;
            nothing_left(cluster, 2, web1).await?;

            fast(cluster, 1)?;
            cluster.settled().await?;
            moved(cluster, "web1", 0, 1).await?;
            runs_only(cluster, web1, 1).await?;

            // It has just moved: it rests where it is, whatever becomes of the agent.
            cluster.stop_agent(1)?;
            cluster.start_agent(1)?;
            settled(cluster, "web1", 1).await?;
            let why = cluster.api(1).why(Some("web1")).await?;
            ensure!(why.verdict.starts_with("web1 rests for "), "{why:?}");
            never_rebooted(cluster, web1)
        },
    );
}
