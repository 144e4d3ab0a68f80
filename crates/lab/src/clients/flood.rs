//! Floods a guest with UDP packets, at a steady rate.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket as StdUdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, anyhow};
use decide::units::PacketsPerSec;
use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::hosts::Namespace;

const DISCARD_PORT: u16 = 9;
/// Packets due are sent together this often: fine enough for a tap's queue, coarse enough to cost little.
const PACE: Duration = Duration::from_millis(2);

/// What was sent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Flooded {
    /// Packets that left.
    pub packets: u64,
    /// In so many seconds.
    pub seconds: f64,
}

impl Flooded {
    /// Packets per second that really left.
    pub fn per_second(&self) -> f64 {
        self.packets as f64 / self.seconds.max(0.001)
    }
}

/// Floods until stopped, on a thread of its own, so that nothing else delays it.
#[derive(Debug)]
pub struct Flood {
    sent: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<Flooded>>,
}

impl Flood {
    /// Sends `rate` packets of `size` bytes (UDP payload) from `client` to the guest at `to`.
    pub fn start(
        client: &Namespace,
        to: Ipv4Addr,
        rate: PacketsPerSec,
        size: usize,
    ) -> anyhow::Result<Flood> {
        let open = || -> io::Result<StdUdpSocket> {
            let socket = StdUdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.connect(SocketAddrV4::new(to, DISCARD_PORT))?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        let socket = client.inside(open)?.context("opening a UDP socket")?;
        let (sent, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (counter, stopped) = (Arc::clone(&sent), Arc::clone(&stop));
        let thread = thread::Builder::new().name("flood".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
            Ok(runtime.block_on(run(&socket, rate, &vec![0x55; size], &counter, &stopped)))
        })?;
        Ok(Flood { sent, stop, thread })
    }

    /// Packets sent so far.
    pub fn so_far(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Stops and says what was sent.
    pub fn stop(self) -> anyhow::Result<Flooded> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_panic| anyhow!("the flood panicked"))?.context("flooding")
    }
}

async fn run(
    socket: &StdUdpSocket,
    rate: PacketsPerSec,
    packet: &[u8],
    sent: &AtomicU64,
    stop: &AtomicBool,
) -> Flooded {
    let start = Instant::now();
    let mut ticks = interval(PACE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut due_before, mut packets) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        let due =
            u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX).saturating_mul(rate.0)
                / 1_000_000;
        for _ in due_before..due {
            // A full queue or an unreachable guest costs packets, as in life: they are not made up for later.
            if socket.send(packet).is_ok() {
                packets += 1;
            }
        }
        due_before = due;
        sent.store(packets, Ordering::Relaxed);
    }
    Flooded { packets, seconds: start.elapsed().as_secs_f64() }
}
