//! VMs that stay: because every host refuses, or because nobody said that they may be moved.

use std::time::Duration;

use anyhow::ensure;
use api::Step;
use decide::units::PacketsPerSec;
use lab::clients::Flood;

use crate::bed::{MOVE_MAX, idle, roomy, sections, with_cluster};
use crate::sight::{events, owned, runs_only, told};

#[test]
fn a_guest_that_every_host_refuses_stays_and_why_says_so() {
    with_cluster(
        "refusals::a_guest_that_every_host_refuses_stays_and_why_says_so",
        &sections("automatic", "[target]\ncpu_used_max = \"1000%\"\nmemory_used_max = \"1%\"\n"),
        &[(idle("web1", 1), 0)],
        async |cluster, guests| {
            let web1 = &guests[0].plan;
            let flood =
                Flood::start(cluster.network.client(), web1.address(), PacketsPerSec(2000), 200)?;
            let refusals = ["host2", "host3"];
            for _ in refusals {
                told(cluster, 0, Step::Refusal, &["memory_used_max"]).await?;
            }
            let view = cluster.api(0).moves().await?.into_iter().next_back();
            let id = view.map(|view| view.id).unwrap_or_default();
            let view = cluster.ended(0, &id, MOVE_MAX).await?;
            println!("{view:?}");
            ensure!(view.phase == "abandoned" && view.refusals == 2, "{view:?}");
            ensure!(view.acceptances == 0 && view.to.is_none(), "{view:?}");
            for host in refusals {
                let all = events(cluster, 0).await?;
                let refused = all.iter().find(|event| {
                    event.step == Step::Refusal && event.peer.as_deref() == Some(host)
                });
                ensure!(
                    refused.is_some_and(|event| event.reason.contains("memory_used_max")),
                    "{refused:?}"
                );
            }
            let why = cluster.api(0).why(Some("web1")).await?;
            println!("{} {}", why.about, why.verdict);
            ensure!(
                why.events.iter().any(|event| event.step == Step::Refusal
                    && event.reason.contains("memory_used_max")),
                "{why:?}"
            );
            let nothing = cluster.api(0).why(None).await?;
            println!("{} {}", nothing.about, nothing.verdict);
            ensure!(nothing.verdict.contains("hot"), "{nothing:?}");
            flood.stop()?;
            owned(cluster, "web1", 0, 1).await?;
            runs_only(cluster, web1, 0).await
        },
    );
}

#[test]
fn where_moves_are_only_recommended_one_recommendation_is_made_and_nothing_moves() {
    with_cluster(
        "refusals::where_moves_are_only_recommended_one_recommendation_is_made_and_nothing_moves",
        &roomy("recommend"),
        &[(idle("web1", 1), 0)],
        async |cluster, guests| {
            let web1 = &guests[0].plan;
            let flood =
                Flood::start(cluster.network.client(), web1.address(), PacketsPerSec(2000), 200)?;
            let told = told(cluster, 0, Step::VmPolicy, &["balance is \"recommend\""]).await?;
            println!("{}", told.reason);
            ensure!(told.vm.as_deref() == Some("web1"), "{told:?}");
            // Several more readings, each of which could recommend it again.
            let deadline = tokio::time::Instant::now() + Duration::from_secs(4);
            while tokio::time::Instant::now() < deadline {
                let status = cluster.api(0).status().await?;
                ensure!(status.hot.is_some() && status.moves_under_way == 0, "{status:?}");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            let all = events(cluster, 0).await?;
            let recommended = all.iter().filter(|event| event.step == Step::VmPolicy).count();
            ensure!(recommended == 1, "recommended {recommended} times");
            ensure!(cluster.api(0).moves().await?.is_empty(), "something moved");
            flood.stop()?;
            owned(cluster, "web1", 0, 1).await?;
            runs_only(cluster, web1, 0).await
        },
    );
}
