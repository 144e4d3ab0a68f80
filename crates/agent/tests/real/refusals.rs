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
        &sections(
            "automatic",
            "[target]\ncpu_used_max = \"1000%\"\nmemory_reserve = \"1000GiB\"\n",
        ),
        &[(idle("web1", 1), 0), (idle("db1", 2), 0)],
        async |cluster, guests| {
            let web1 = &guests[0].plan;
            // Neither alone is too much for another host: what stands in the way is memory.
            let client = cluster.network.client();
            let flood = Flood::start(client, web1.address(), PacketsPerSec(1200), 200)?;
            let other = Flood::start(client, guests[1].plan.address(), PacketsPerSec(600), 200)?;
            let refused = told(cluster, 0, Step::Refusal, &["memory_reserve"]).await?;
            let id = refused.move_id.unwrap_or_default();
            let view = cluster.ended(0, &id, MOVE_MAX).await?;
            println!("{view:?}");
            ensure!(view.phase == "abandoned" && view.refusals == 2, "{view:?}");
            ensure!(view.acceptances == 0 && view.to.is_none(), "{view:?}");
            let all = events(cluster, 0).await?;
            for host in ["host2", "host3"] {
                let refused = all.iter().any(|event| {
                    event.step == Step::Refusal
                        && event.move_id.as_deref() == Some(&id)
                        && event.peer.as_deref() == Some(host)
                        && event.reason.contains("memory_reserve")
                });
                ensure!(refused, "{host} gave no such reason: {all:?}");
            }
            let why = cluster.api(0).why(Some("web1")).await?;
            println!("{} {}", why.about, why.verdict);
            ensure!(
                why.events
                    .iter()
                    .any(|event| event.step == Step::Refusal
                        && event.reason.contains("memory_reserve")),
                "{why:?}"
            );
            let nothing = cluster.api(0).why(None).await?;
            println!("{} {}", nothing.about, nothing.verdict);
            ensure!(nothing.verdict.contains("hot"), "{nothing:?}");
            flood.stop()?;
            other.stop()?;
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
