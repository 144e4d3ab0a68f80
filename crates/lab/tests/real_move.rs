//! A real guest on a host of the lab, seen by clients, moved by hand.

#![expect(clippy::print_stdout, reason = "figures are read by people")]

use std::time::Duration;

use anyhow::ensure;
use decide::migrate::hypervisor::CopyParameters;
use decide::units::{BitsPerSec, Mib, PacketsPerSec};
use lab::clients::{Flood, Pinger, TcpProbe};
use lab::guests::{self, Dirty, GuestPlan};
use lab::hosts::Network;
use lab::setup::Parts;
use lab::{raw, sandbox, wait};

const BOOT_MAX: Duration = Duration::from_secs(60);
const PARAMETERS: CopyParameters = CopyParameters {
    bandwidth: BitsPerSec(1_000_000_000),
    downtime_max: Duration::from_millis(300),
    multifd: true,
    encrypted: false,
    auto_converge: false,
    copy_disks: false,
};

#[test]
fn a_guest_moves_and_its_connection_survives() {
    sandbox::test("a_guest_moves_and_its_connection_survives", async || {
        let parts = Parts::load()?;
        let network = Network::new(2)?;
        let [host1, host2] = network.hosts() else { unreachable!("two hosts were made") };
        let start = tokio::time::Instant::now();
        let plan = GuestPlan::new("web1", 1);
        let guest = guests::start(host1, &plan, &parts)?;
        guest.ready(host1, BOOT_MAX).await?;
        println!("booted in {:?}", start.elapsed());

        let pinger = Pinger::start(network.client(), plan.address(), Duration::from_millis(200))?;
        let tcp = TcpProbe::start(network.client(), plan.address())?;
        let (moved, figures) =
            raw::move_guest(&network, &guest, (host1, host2), &parts, PARAMETERS).await?;
        println!("{figures:?}");
        wait::until(Duration::from_secs(5), "two heartbeats at the target", || {
            Ok((guests::heartbeats(host2, plan.vm()).len() >= 2).then_some(()))
        })
        .await?;
        wait::until(Duration::from_secs(5), "QEMU gone at the source", || Ok(guest.ended()))
            .await?;
        let (pings, line) = (pinger.stop().await?, tcp.stop().await?);
        println!("{pings:?} {line:?}");
        ensure!(line.alive(), "the connection died: {line:?}");
        ensure!(pings.sent >= 10 && pings.lost() <= 2, "too many pings lost: {pings:?}");
        ensure!(figures.bytes > 10_000_000 && figures.rounds >= 2, "that was no copy: {figures:?}");

        let heard: Vec<u64> =
            [host1, host2].iter().flat_map(|host| guests::heartbeats(host, plan.vm())).collect();
        ensure!(heard.is_sorted_by(|a, b| a < b), "heartbeats repeat: {heard:?}");
        ensure!(moved.ended().is_none(), "the moved guest ended");
        Ok(())
    });
}

#[test]
fn a_guest_that_writes_keeps_its_memory() {
    sandbox::test("a_guest_that_writes_keeps_its_memory", async || {
        let parts = Parts::load()?;
        let network = Network::new(2)?;
        let [host1, host2] = network.hosts() else { unreachable!("two hosts were made") };
        let dirty = Some(Dirty { memory: Mib(24), per_second: Mib(16), work: 0 });
        let plan = GuestPlan { dirty, ..GuestPlan::new("db1", 2) };
        let guest = guests::start(host1, &plan, &parts)?;
        guest.ready(host1, BOOT_MAX).await?;
        let slow = CopyParameters { bandwidth: BitsPerSec(400_000_000), ..PARAMETERS };
        let (_moved, figures) =
            raw::move_guest(&network, &guest, (host1, host2), &parts, slow).await?;
        println!("{figures:?}");
        ensure!(
            figures.rounds > 2 && figures.total_ms > 1_000,
            "it wrote nothing while it moved: {figures:?}"
        );
        // Three seconds at this rate write every page twice, and each page is checked before it is written.
        wait::until(Duration::from_secs(10), "three heartbeats at the target", || {
            Ok((guests::heartbeats(host2, plan.vm()).len() >= 3).then_some(()))
        })
        .await?;
        for host in [host1, host2] {
            ensure!(
                !guests::console(host, plan.vm()).contains("CORRUPT"),
                "memory was lost on {}",
                host.name()
            );
        }
        Ok(())
    });
}

#[test]
fn a_flood_arrives_at_the_rate_that_was_asked_for() {
    sandbox::test("a_flood_arrives_at_the_rate_that_was_asked_for", async || {
        let parts = Parts::load()?;
        let network = Network::new(1)?;
        let host = &network.hosts()[0];
        let plan = GuestPlan::new("web1", 1);
        let guest = guests::start(host, &plan, &parts)?;
        guest.ready(host, BOOT_MAX).await?;
        let counter = |name: &str| -> anyhow::Result<u64> {
            let path = host.path(&format!("/sys/class/net/{}/statistics/{name}", plan.tap()));
            Ok(std::fs::read_to_string(path)?.trim().parse()?)
        };
        let (packets, dropped) = (counter("tx_packets")?, counter("tx_dropped")?);
        let flood = Flood::start(network.client(), plan.address(), PacketsPerSec(4_000), 200)?;
        wait::until(Duration::from_secs(10), "8,000 packets sent", || {
            Ok((flood.so_far() >= 8_000).then_some(()))
        })
        .await?;
        let flooded = flood.stop()?;
        wait::until(Duration::from_secs(10), "what was sent to arrive", || {
            Ok((counter("tx_packets")? + counter("tx_dropped")? - packets - dropped
                >= flooded.packets)
                .then_some(()))
        })
        .await?;
        println!(
            "{flooded:?}, {} per second, dropped {}",
            flooded.per_second(),
            counter("tx_dropped")? - dropped
        );
        ensure!(
            (3_600.0..4_400.0).contains(&flooded.per_second()),
            "{flooded:?} is not 4,000 per second"
        );
        Ok(())
    });
}
