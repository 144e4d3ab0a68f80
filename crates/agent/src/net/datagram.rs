//! Requests and gossip, by UDP.
//!
//! One socket on the agent's own address sends everything and hears gossip and fan-out. Linux brings multicast and
//! broadcast only to sockets that are bound to the group, to the broadcast address or to all addresses; so a second
//! socket is bound to just that group or broadcast address, and hears nothing else. It is shared (SO_REUSEADDR) with
//! other agents under the same kernel, which hear the same request.
//!
//! **Boundary:** a broadcast is heard on every interface; `guard` drops what comes from a stranger.
//! **Invariant:** of a datagram that is too long, or more than a host says, nothing is looked at.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use decide::wire::message::{Body, Message};
use decide::wire::{self, limits};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::gate::Gate;
use super::guard::Guard;
use super::seal::Kind;
use super::{Heard, NetSettings, RequestMode, undelivered};

/// Bytes of a datagram: below the usual MTU of 1500 with room for headers and tunnels.
pub const DATAGRAM_MAX: usize = 1400;
/// Bytes of gossip that one datagram carries.
pub const GOSSIP_MAX: usize = DATAGRAM_MAX - trust::seal::OVERHEAD;

/// How long to wait after the kernel failed to hand over a datagram.
const PAUSE: Duration = Duration::from_millis(100);

/// The sending half; the receivers run by themselves.
#[derive(Debug)]
pub(super) struct Datagrams {
    socket: UdpSocket,
    /// Where requests go; absent in fan-out.
    all: Option<SocketAddr>,
    guard: Guard,
    heard: mpsc::Sender<Heard>,
}

/// What each receiver has.
#[derive(Clone)]
pub(super) struct Ear {
    pub(super) guard: Guard,
    gate: Arc<Mutex<Gate>>,
    heard: mpsc::Sender<Heard>,
}

impl Datagrams {
    pub(super) fn start(
        settings: &NetSettings,
        guard: &Guard,
        heard: &mpsc::Sender<Heard>,
        receivers: &mut JoinSet<()>,
    ) -> Result<Datagrams> {
        let ear = Ear::new(guard, heard);
        let here = SocketAddr::new(settings.address, settings.port);
        let own = open(here, false)?;
        let all = match settings.request {
            RequestMode::Multicast { group } => {
                let interface = v4(settings, "multicast")?;
                ensure!(group.ip().is_multicast(), "{} is not a multicast group", group.ip());
                own.set_multicast_if_v4(&interface).context("choosing the multicast interface")?;
                own.set_multicast_ttl_v4(settings.multicast_ttl)
                    .context("setting multicast TTL")?;
                // Other agents under this kernel must hear it too.
                own.set_multicast_loop_v4(true).context("setting multicast loop")?;
                receivers.spawn(receive(join(group, interface)?, ear.clone()));
                Some(SocketAddr::V4(group))
            }
            RequestMode::Broadcast { to } => {
                v4(settings, "broadcast")?;
                own.set_broadcast(true).context("allowing broadcast")?;
                let all = SocketAddr::V4(SocketAddrV4::new(to, settings.port));
                receivers.spawn(receive(listen(open(all, true)?)?, ear.clone()));
                Some(all)
            }
            RequestMode::FanOut => None,
        };
        let socket: UdpSocket = own.try_clone().context("sharing a socket")?.into();
        receivers.spawn(receive(listen(own)?, ear));
        Ok(Datagrams { socket, all, guard: guard.clone(), heard: heard.clone() })
    }

    pub(super) fn cast(&self, request: &Message, known: &[SocketAddr]) {
        let to_all = self.all.map(|all| [all]);
        let to: &[SocketAddr] = to_all.as_ref().map_or(known, |all| all);
        let sealed = self.sealed_request(request);
        for to in to {
            let sent = sealed.as_ref().map_err(ToString::to_string).and_then(|datagram| {
                self.socket.send_to(datagram, to).map_err(|error| error.to_string())
            });
            if let Err(why) = sent {
                undelivered(&self.heard, *to, request.clone(), why);
            }
        }
    }

    pub(super) fn gossip(&self, to: SocketAddr, bytes: &[u8]) {
        if bytes.len() > GOSSIP_MAX {
            tracing::error!(%to, length = bytes.len(), "gossip that does not fit a datagram was dropped");
            return;
        }
        if let Err(error) = self.socket.send_to(&self.guard.seal(Kind::Gossip, bytes), to) {
            tracing::debug!(%to, %error, "gossip was dropped");
        }
    }

    /// A request as a datagram.
    fn sealed_request(&self, request: &Message) -> Result<Vec<u8>> {
        let Body::Request(_) = request.body else {
            bail!("a {} cannot go to all, only a request can", request.body.name());
        };
        limits::check(request)?;
        let sealed = self.guard.seal(Kind::Request, &wire::encode(request));
        ensure!(
            sealed.len() <= DATAGRAM_MAX,
            "a request of {} bytes does not fit a datagram of {DATAGRAM_MAX}: ask fewer hosts by name",
            sealed.len()
        );
        Ok(sealed)
    }
}

impl Ear {
    pub(super) fn new(guard: &Guard, heard: &mpsc::Sender<Heard>) -> Ear {
        let gate = Arc::new(Mutex::new(Gate::new(Instant::now())));
        Ear { guard: guard.clone(), gate, heard: heard.clone() }
    }

    /// What a datagram says; nothing if it is one of too many.
    fn understand(&self, from: SocketAddr, datagram: &[u8]) -> Option<Heard> {
        let now = Instant::now();
        let gate = || self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        if !gate().admits(from.ip(), now) {
            return None;
        }
        match self.opened(from, datagram) {
            Ok(heard) => {
                gate().genuine(from.ip(), now);
                Some(heard)
            }
            Err(why) => {
                let left_out = gate().tells(now)?;
                let more = match left_out {
                    0 => String::new(),
                    count => format!(" (after {count} that were not told)"),
                };
                Some(Heard::Bad { from, why: format!("{why:#}{more}") })
            }
        }
    }

    pub(super) fn opened(&self, from: SocketAddr, datagram: &[u8]) -> Result<Heard> {
        ensure!(datagram.len() <= DATAGRAM_MAX, "a datagram of more than {DATAGRAM_MAX} bytes");
        let (sender, kind, bytes) = self.guard.open(from, datagram)?;
        if kind == Kind::Gossip {
            return Ok(Heard::Gossip { from, bytes });
        }
        let message = wire::decode(&bytes)?;
        let Body::Request(_) = message.body else {
            bail!("a {} came to all, only a request may", message.body.name());
        };
        if let Some(sender) = sender.filter(|sender| *sender != message.from) {
            bail!("a request in the name of host {}, sealed by host {sender}", message.from);
        }
        Ok(Heard::Message(message))
    }
}

async fn receive(socket: tokio::net::UdpSocket, ear: Ear) {
    // One byte more, so that a longer datagram is seen to be longer.
    let mut buffer = vec![0; DATAGRAM_MAX + 1];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((length, from)) => {
                let Some(heard) = ear.understand(from, &buffer[..length]) else { continue };
                // While the agent is busy the kernel keeps what comes, and drops what does not fit.
                if ear.heard.send(heard).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "no datagram could be received");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

fn open(address: SocketAddr, shared: bool) -> Result<Socket> {
    let open = || {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_reuse_address(shared)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        Ok::<_, std::io::Error>(socket)
    };
    open().with_context(|| format!("opening UDP {address}"))
}

/// A socket that hears the group on one interface, and no group that others under this kernel joined elsewhere.
fn join(group: SocketAddrV4, interface: Ipv4Addr) -> Result<tokio::net::UdpSocket> {
    let socket = open(SocketAddr::V4(group), true)?;
    socket.set_multicast_all_v4(false).context("narrowing multicast")?;
    socket
        .join_multicast_v4(group.ip(), &interface)
        .with_context(|| format!("joining {} on the interface of {interface}", group.ip()))?;
    listen(socket)
}

fn listen(socket: Socket) -> Result<tokio::net::UdpSocket> {
    tokio::net::UdpSocket::from_std(socket.into()).context("listening for datagrams")
}

fn v4(settings: &NetSettings, mode: &str) -> Result<Ipv4Addr> {
    match settings.address {
        IpAddr::V4(address) => Ok(address),
        IpAddr::V6(address) => {
            bail!("{mode} needs an IPv4 address, not {address}: use fan-out with IPv6")
        }
    }
}
