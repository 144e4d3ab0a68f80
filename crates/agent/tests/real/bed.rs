//! The bed of all tests: three hosts with an agent each, guests on them, and moves by hand.

use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use api::{MoveRequest, MoveView};
use decide::units::{BitsPerSec, Mib};
use lab::cluster::Cluster;
use lab::guests::{self, Dirty, Guest, GuestPlan};
use lab::hosts::Network;
use lab::sandbox;
use lab::setup::Parts;

pub(crate) const DAEMON: &str = env!("CARGO_BIN_EXE_evenkeeld");
pub(crate) const MOVE_MAX: Duration = Duration::from_secs(60);
/// Within so long agents notice, answer, or settle what concerns nobody else.
pub(crate) const SOON: Duration = Duration::from_secs(15);
pub(crate) const BOOT_MAX: Duration = Duration::from_secs(60);

/// All lab hosts share the machine's processors, so their use says nothing here.
const COMMON: &str = r#"
[hot]
for = "3s"
packets_per_second = 1500
cpu_used = "100%"
cpu_pressure = "100%"
drops_per_second = 100000
[worth_it]
gain_min = "1%"
"#;
const ROOMY: &str = "[target]\ncpu_used_max = \"1000%\"\nmemory_reserve = \"1GiB\"\n";

/// The operator's sections: hosts with room, and this balance.
pub(crate) fn roomy(balance: &str) -> String {
    sections(balance, ROOMY)
}

/// The operator's sections with another `[target]`.
pub(crate) fn sections(balance: &str, target: &str) -> String {
    format!("[mode]\nbalance = \"{balance}\"\n{COMMON}{target}")
}

/// A guest that leaves its memory alone.
pub(crate) fn idle(name: &str, number: u8) -> GuestPlan {
    GuestPlan::new(name, number)
}

/// A guest that writes faster than [`slow`] lets a copy follow, and slower than a free link does.
pub(crate) fn busy(name: &str, number: u8) -> GuestPlan {
    let dirty = Some(Dirty { memory: Mib(32), per_second: Mib(20), work: 0 });
    GuestPlan { dirty, ..GuestPlan::new(name, number) }
}

/// Limits what a host's link carries, so that the copy of a busy guest to there goes on until that is lifted.
pub(crate) fn slow(cluster: &Cluster, host: usize) -> anyhow::Result<()> {
    cluster.host(host).limit_uplink(Some(BitsPerSec(60_000_000)))
}

/// Lifts the limit.
pub(crate) fn fast(cluster: &Cluster, host: usize) -> anyhow::Result<()> {
    cluster.host(host).limit_uplink(None)
}

/// Runs `body` in a sandbox with three hosts, an agent on each, and the guests, each on the host of its number.
pub(crate) fn with_cluster(
    test: &str,
    sections: &str,
    plans: &[(GuestPlan, usize)],
    body: impl AsyncFnOnce(&mut Cluster, &[Guest]) -> anyhow::Result<()>,
) {
    sandbox::test(test, async || {
        let parts = Parts::load()?;
        let mut cluster = Cluster::start(Network::new(3)?, Path::new(DAEMON), sections).await?;
        let mut guests = Vec::new();
        for (plan, host) in plans {
            guests.push(guests::start(cluster.host(*host), plan, &parts)?);
        }
        let done = async {
            for (guest, (plan, host)) in guests.iter().zip(plans) {
                guest.ready(cluster.host(*host), BOOT_MAX).await?;
                cluster.watches(*host, &plan.name).await?;
            }
            cluster.settled().await?;
            body(&mut cluster, &guests).await?;
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

/// Asks the agent of `from` to move a VM to the host `to`; gives the move's id.
pub(crate) async fn send(
    cluster: &Cluster,
    vm: &str,
    from: usize,
    to: usize,
) -> anyhow::Result<String> {
    let request =
        MoveRequest { vm: vm.to_owned(), to: Some(cluster.host(to).name()), force: false };
    Ok(cluster.api(from).start_move(&request).await?.move_id)
}

/// Moves a VM by hand and sees that it arrives.
pub(crate) async fn moved(
    cluster: &Cluster,
    vm: &str,
    from: usize,
    to: usize,
) -> anyhow::Result<MoveView> {
    let id = send(cluster, vm, from, to).await?;
    let view = cluster.ended(from, &id, MOVE_MAX).await?;
    ensure!(view.phase == "done" && view.to == Some(cluster.host(to).name()), "{view:?}");
    Ok(view)
}

/// Begins a move by hand to a host that was made [`slow`], and waits until memory is being copied.
pub(crate) async fn copying(
    cluster: &Cluster,
    vm: &str,
    from: usize,
    to: usize,
) -> anyhow::Result<String> {
    let id = send(cluster, vm, from, to).await?;
    at_phase(cluster, from, &id, "copying").await?;
    Ok(id)
}

/// Waits until a move is in this phase; in a copy, until some of it was sent.
pub(crate) async fn at_phase(
    cluster: &Cluster,
    from: usize,
    id: &str,
    phase: &str,
) -> anyhow::Result<MoveView> {
    let deadline = tokio::time::Instant::now() + MOVE_MAX;
    loop {
        let view = cluster.api(from).one_move(id).await?;
        if view.phase == phase && (phase != "copying" || view.copied_bytes > 0) {
            return Ok(view);
        }
        ensure!(!view.ended, "it ended before it was {phase}: {view:?}");
        ensure!(tokio::time::Instant::now() < deadline, "never {phase}: {view:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
