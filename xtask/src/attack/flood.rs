//! A flood of datagrams, and a move in the middle of it.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};
use api::MoveView;
use lab::hosts::CLIENT;
use tokio::runtime::Handle;
use tokio::task::block_in_place;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::bed::{Bed, resident};

/// Datagrams a second.
const RATE: f64 = 50_000.0;
/// What is due is sent together this often.
const PACE: Duration = Duration::from_millis(1);
/// A while for it to pile up, if it does.
const BEFORE: Duration = Duration::from_secs(3);
const MOVE_MAX: Duration = Duration::from_secs(60);
const MEMORY_MAX: u64 = 20 << 20;

pub(super) async fn run(bed: &mut Bed) -> anyhow::Result<()> {
    bed.case("datagrams: 50,000 a second, while a VM moves away", async |bed| {
        let pid = bed.cluster.agent_pid(bed.at).context("an agent")?;
        let (before, at, to) = (resident(pid)?, bed.agent(bed.at), (bed.at + 1) % 3);
        let stop = AtomicBool::new(false);
        let (sent, moved) = thread::scope(|scope| {
            let flood = scope.spawn(|| bed.outside(async || send(at, &stop).await));
            let moved = block_in_place(|| Handle::current().block_on(moved(bed, to, pid)));
            stop.store(true, Ordering::Relaxed);
            (flood.join(), moved)
        });
        let rate = sent.map_err(|_panicked| anyhow::anyhow!("the flood panicked"))??;
        let (view, after) = moved?;
        ensure!(view.phase == "done", "{view:?}");
        bed.arrived(&view.id, to).await?;
        let more = after.saturating_sub(before);
        ensure!(more < MEMORY_MAX, "{} MiB more in memory", more >> 20);
        ensure!(rate >= RATE * 0.9, "only {rate:.0} a second were sent");
        Ok(format!("{rate:.0} a second; the move was made; {} KiB more in memory", more >> 10))
    })
    .await
}

/// The move, and what the agent's memory is then.
async fn moved(bed: &Bed, to: usize, pid: u32) -> anyhow::Result<(MoveView, u64)> {
    sleep(BEFORE).await;
    let id = bed.begin_move(to).await?;
    Ok((bed.cluster.ended(bed.at, &id, MOVE_MAX).await?, resident(pid)?))
}

/// Sends until told to stop; gives how many a second.
async fn send(to: SocketAddr, stop: &AtomicBool) -> anyhow::Result<f64> {
    let socket = UdpSocket::bind((CLIENT, 0))?;
    let forged = [&b"EVKL\x02\0\0\0\x01"[..], &[7; 200]].concat();
    let began = Instant::now();
    let (mut sent, mut tick) = (0.0, interval(PACE));
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while !stop.load(Ordering::Relaxed) {
        tick.tick().await;
        while sent < began.elapsed().as_secs_f64() * RATE {
            // A full queue drops some; that is no matter.
            let _ = socket.send_to(&forged, to);
            sent += 1.0;
        }
    }
    Ok(sent / began.elapsed().as_secs_f64())
}
