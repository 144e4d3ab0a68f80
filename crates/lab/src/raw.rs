//! A move made by hand: QMP `migrate` and nothing else, or `virsh migrate --p2p`, with the parameters that Evenkeel uses.
//!
//! What Evenkeel's own moves are compared with. The target runs by itself as soon as it is complete; nobody asks,
//! reserves or hands over anything.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use decide::migrate::hypervisor::CopyParameters;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use crate::clients::Pinger;
use crate::guests::{self, Guest, GuestPlan};
use crate::hosts::{Host, Network};
use crate::libvirt::virsh;
use crate::qmp::Qmp;
use crate::setup::Parts;

const PORT: u16 = 49_152;
const MULTIFD_CHANNELS: u8 = 2;
const MOVE_MAX: Duration = Duration::from_secs(120);
const SOCKET_MAX: Duration = Duration::from_secs(10);
/// Fine enough to measure a pause of some tens of milliseconds.
pub const PING_PACE: Duration = Duration::from_millis(5);
/// Pings go on so long before and after the move.
pub const PING_MARGIN: u32 = 40;

/// Figures of one move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RawMove {
    /// From `migrate` until the source is completed and the target runs.
    pub total_ms: u64,
    /// The guest's pause, by QEMU's own count.
    pub downtime_ms: u64,
    /// Longest silence that a client noticed, pinging each [`PING_PACE`].
    pub client_gap_ms: u64,
    /// Sent over the wire.
    pub bytes: u64,
    /// Rounds over the memory.
    pub rounds: u64,
}

/// Moves `guest` from one host to another; gives the guest as it runs there, and figures. The source's copy is ended.
pub async fn move_guest(
    network: &Network,
    guest: &Guest,
    (from, to): (&Host, &Host),
    parts: &Parts,
    parameters: CopyParameters,
) -> anyhow::Result<(Guest, RawMove)> {
    let incoming =
        guests::start_incoming(to, &guest.plan, parts).context("starting the incoming side")?;
    let mut source = Qmp::connect(&guest.qmp(from, SOCKET_MAX).await?).await.context("source")?;
    let mut target = Qmp::connect(&incoming.qmp(to, SOCKET_MAX).await?).await.context("target")?;
    for side in [&mut source, &mut target] {
        prepare(side, parameters).await?;
    }
    let uri = format!("tcp:{}:{PORT}", to.address());
    target.command("migrate-incoming", json!({ "uri": uri })).await?;

    let pinger = Pinger::start(network.client(), guest.plan.address(), PING_PACE)?;
    answered(&pinger, PING_MARGIN).await?;
    let start = Instant::now();
    let moved = timeout(MOVE_MAX, drive(&mut source, &mut target, &uri)).await;
    let total = start.elapsed();
    moved.with_context(|| format!("not moved within {MOVE_MAX:?}"))??;
    let so_far = pinger.so_far().answered;
    answered(&pinger, so_far + PING_MARGIN).await.context("the guest after its move")?;
    let pings = pinger.stop().await?;

    let figures = source.command("query-migrate", json!({})).await?;
    let number = |value: &Value| value.as_u64().context("query-migrate lacks a figure");
    let figures = RawMove {
        total_ms: u64::try_from(total.as_millis())?,
        downtime_ms: number(&figures["downtime"])?,
        client_gap_ms: pings.gap_ms,
        bytes: number(&figures["ram"]["transferred"])?,
        rounds: number(&figures["ram"]["dirty-sync-count"])?,
    };
    source.command("quit", json!({})).await?;
    from.ip(&format!("link del {}\n", guest.plan.tap()))?;
    Ok((incoming, figures))
}

/// Moves a domain from one host to another by libvirt's own migration, peer to peer; gives figures. The guest runs at the target as
/// soon as libvirt lets it. Total time is that of the command.
///
/// # Errors
/// If libvirt refuses, or the guest does not answer.
pub async fn move_domain(
    network: &Network,
    plan: &GuestPlan,
    (from, to): (&Host, &Host),
    parameters: CopyParameters,
) -> anyhow::Result<RawMove> {
    let name = &*plan.name;
    let downtime = parameters.downtime_max.as_millis().to_string();
    virsh(from, &["migrate-setmaxdowntime", name, &downtime])?;
    let (bandwidth, address) = ((parameters.bandwidth.0 / 8 / (1 << 20)).to_string(), to.address());
    let (peer, uri) = (format!("qemu+tcp://{address}/system"), format!("tcp://{address}"));
    let mut command = from.command("virsh");
    command.args(["-c", "qemu:///system", "migrate", "--live", "--p2p", "--abort-on-error"]);
    command.args(["--persistent", "--undefinesource", "--bandwidth", &bandwidth]);
    if parameters.multifd {
        command.arg("--parallel");
    }
    command.args([name, &peer, "--migrateuri", &uri]);

    let pinger = Pinger::start(network.client(), plan.address(), PING_PACE)?;
    answered(&pinger, PING_MARGIN).await?;
    let start = Instant::now();
    let output = tokio::process::Command::from(command).output();
    let output = timeout(MOVE_MAX, output).await;
    let total = start.elapsed();
    let output = output.with_context(|| format!("not moved within {MOVE_MAX:?}"))??;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "virsh migrate: {}", said.trim());
    let so_far = pinger.so_far().answered;
    answered(&pinger, so_far + PING_MARGIN).await.context("the guest after its move")?;
    let pings = pinger.stop().await?;

    let told = virsh(to, &["domjobinfo", name, "--completed", "--rawstats"])?;
    let figure = |key: &str| -> anyhow::Result<u64> {
        let line = told.lines().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix(':'));
        let value = line.with_context(|| format!("no {key} in:\n{told}"))?;
        value.trim().parse().with_context(|| format!("{key}: {value:?}"))
    };
    Ok(RawMove {
        total_ms: u64::try_from(total.as_millis())?,
        downtime_ms: figure("downtime")?,
        client_gap_ms: pings.gap_ms,
        bytes: figure("memory_processed")?,
        rounds: figure("memory_iteration")?,
    })
}

async fn prepare(side: &mut Qmp, parameters: CopyParameters) -> anyhow::Result<()> {
    let mut capabilities = vec!["events", "return-path", "pause-before-switchover"];
    if parameters.multifd {
        capabilities.push("multifd");
    }
    let capabilities: Vec<Value> =
        capabilities.into_iter().map(|name| json!({ "capability": name, "state": true })).collect();
    side.command("migrate-set-capabilities", json!({ "capabilities": capabilities })).await?;
    let mut values = json!({
        "max-bandwidth": parameters.bandwidth.0 / 8,
        "downtime-limit": u64::try_from(parameters.downtime_max.as_millis())?,
    });
    if parameters.multifd {
        values["multifd-channels"] = json!(MULTIFD_CHANNELS);
    }
    side.command("migrate-set-parameters", values).await?;
    Ok(())
}

async fn drive(source: &mut Qmp, target: &mut Qmp, uri: &str) -> anyhow::Result<()> {
    source.command("migrate", json!({ "uri": uri })).await?;
    loop {
        let event = source.event().await?;
        if event["event"] != "MIGRATION" {
            continue;
        }
        match event["data"]["status"].as_str() {
            Some("pre-switchover") => {
                source.command("migrate-continue", json!({ "state": "pre-switchover" })).await?;
            }
            Some("completed") => break,
            Some(bad @ ("failed" | "cancelled")) => bail!("the source says {bad}"),
            Some(_) | None => {}
        }
    }
    while target.event().await?["event"] != "RESUME" {}
    Ok(())
}

/// Waits until `count` pings have been answered.
pub async fn answered(pinger: &Pinger, count: u32) -> anyhow::Result<()> {
    let enough = || Ok((pinger.so_far().answered >= count).then_some(()));
    crate::wait::until(Duration::from_secs(10), "the guest answers ping", enough).await
}
