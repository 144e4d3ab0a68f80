//! Agents with keys: a move as without, strangers on the wire, and a host that is shut out.

use std::path::Path;

use anyhow::ensure;
use lab::cluster::Cluster;
use lab::guests;
use lab::hosts::Network;
use lab::sandbox;
use lab::setup::Parts;

use crate::bed::{BOOT_MAX, DAEMON, idle, moved, roomy};
use crate::sight::{never_rebooted, owned, runs_only};

#[test]
fn a_guest_moves_between_hosts_that_know_each_other_by_their_keys() {
    let test = "keys::a_guest_moves_between_hosts_that_know_each_other_by_their_keys";
    sandbox::test(test, async || {
        let parts = Parts::load()?;
        let network = Network::new(3)?;
        let mut cluster = Cluster::start(network, Path::new(DAEMON), &roomy("off")).await?;
        let plan = idle("web1", 1);
        let guest = guests::start(cluster.host(0), &plan, &parts)?;
        let done = async {
            guest.ready(cluster.host(0), BOOT_MAX).await?;
            cluster.watches(0, &plan.name).await?;
            cluster.settled().await?;
            let view = moved(&cluster, "web1", 0, 1).await?;
            println!("{view:?}");
            ensure!(view.acceptances >= 1, "{view:?}");
            owned(&cluster, "web1", 1, 2).await?;
            runs_only(&cluster, &guest.plan, 1).await?;
            never_rebooted(&cluster, &guest.plan)?;
            cluster.all_run()
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
