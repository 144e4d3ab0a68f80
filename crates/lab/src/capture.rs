//! All frames that pass a host, kept to be looked through: what somebody on the wire would read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::sockopt::{
    Timeout, set_socket_recv_buffer_size_force, set_socket_timeout, socket_recv_buffer_size,
};
use rustix::net::{AddressFamily, Protocol, RecvFlags, SocketType, recv, socket};

use crate::hosts::Host;

/// `ETH_P_ALL`, as the kernel wants it: in the order of the network.
const ALL_PROTOCOLS: u32 = (3_u16).to_be() as u32;
/// What may wait for the reader.
const BUFFER: usize = 256 << 20;
/// The kernel hands over what the cards would have cut, up to 64 KiB.
const FRAME_MAX: usize = 128 << 10;
/// The most that is kept.
const KEPT_MAX: usize = 1 << 30;
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Frames are being kept.
#[derive(Debug)]
pub struct Capture {
    stop: Arc<AtomicBool>,
    reader: JoinHandle<anyhow::Result<Vec<u8>>>,
}

impl Capture {
    /// Keeps what passes any link of this host from now on. A frame that passes several is kept several times.
    ///
    /// # Errors
    /// If the host's links cannot be listened to.
    pub fn start(host: &Host) -> anyhow::Result<Capture> {
        let listener = host.namespace().inside(listen)??;
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let reader = thread::Builder::new().name("capture".to_owned());
        let reader = reader.spawn(move || keep(&listener, &told)).context("starting a reader")?;
        Ok(Capture { stop, reader })
    }

    /// All frames, one after the other.
    ///
    /// # Errors
    /// If they could not be read, or were too many.
    pub fn stop(self) -> anyhow::Result<Vec<u8>> {
        self.stop.store(true, Ordering::Relaxed);
        self.reader.join().map_err(|_panicked| anyhow::anyhow!("the reader panicked"))?
    }
}

fn listen() -> anyhow::Result<OwnedFd> {
    let protocol = Protocol::from_raw(ALL_PROTOCOLS.try_into().context("it is not zero")?);
    let listener = socket(AddressFamily::PACKET, SocketType::RAW, Some(protocol))
        .context("listening to all frames")?;
    set_socket_recv_buffer_size_force(&listener, BUFFER).context("a large buffer")?;
    ensure!(socket_recv_buffer_size(&listener)? >= BUFFER, "no buffer of {BUFFER} bytes");
    set_socket_timeout(&listener, Timeout::Recv, Some(LOOK_EVERY)).context("a timeout")?;
    Ok(listener)
}

fn keep(listener: &OwnedFd, stop: &AtomicBool) -> anyhow::Result<Vec<u8>> {
    let (mut kept, mut frame) = (Vec::new(), vec![0; FRAME_MAX]);
    loop {
        match recv(listener, &mut *frame, RecvFlags::empty()) {
            Ok((length, _)) => kept.extend_from_slice(&frame[..length]),
            // Nothing waits any more.
            Err(Errno::AGAIN) if stop.load(Ordering::Relaxed) => return Ok(kept),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => return Err(error).context("reading frames"),
        }
        ensure!(kept.len() < KEPT_MAX, "more than {KEPT_MAX} bytes passed");
    }
}

/// Whether these words stand somewhere in it.
#[must_use]
pub fn holds(bytes: &[u8], words: &[u8]) -> bool {
    bytes.windows(words.len()).any(|window| window == words)
}
