//! Copies on a network of their own.

use std::path::PathBuf;

use anyhow::ensure;
use lab::hosts::{BESIDE, UPLINK};

use crate::{DAEMON, LONG, Set, with_guest_and};

/// Of the guest's memory at least what it writes to is sent, which does not compress.
const COPY_MIN: u64 = 16 << 20;
/// What the agents say to each other about one move, and the guest's own frames.
const WORDS_MAX: u64 = 2 << 20;

/// Encrypted, though the certificates name the agents' addresses alone.
#[test]
fn copies_go_by_a_network_of_their_own() {
    let test = "apart::copies_go_by_a_network_of_their_own";
    let set = Set { host: "copy_address = \"198.19.0.{number}\"\n", ..Set::default() };
    let agent = |network: &lab::hosts::Network| {
        network.join_beside()?;
        Ok(PathBuf::from(DAEMON))
    };
    with_guest_and(test, &set, agent, async |bed| {
        for (from, to) in [(0, 1), (1, 0)] {
            let target = bed.cluster.host(to);
            let before = [target.received(BESIDE)?, target.received(UPLINK)?];
            let id = bed.send(from, to).await?;
            let view = bed.cluster.ended(from, &id, LONG).await?;
            let target = bed.cluster.host(to);
            let [beside, uplink] =
                [target.received(BESIDE)? - before[0], target.received(UPLINK)? - before[1]];
            println!("{beside} bytes came beside, {uplink} by the uplink");
            ensure!(view.phase == "done", "{view:?}");
            ensure!(view.encrypted == Some(true), "{view:?}");
            ensure!(beside >= COPY_MIN, "{beside} bytes came by the network of copies");
            ensure!(uplink <= WORDS_MAX, "{uplink} bytes came by the agents' network");
            bed.runs_only(to).await?;
            bed.cluster.watches(to, "web1").await?;
        }
        Ok(())
    });
}
