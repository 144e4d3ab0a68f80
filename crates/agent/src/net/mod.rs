//! Messages between agents: requests and gossip by datagram, everything else by gRPC.
//!
//! ```text
//!   cast ──── one datagram: multicast, broadcast, or one to each known host ────▶ ┐
//!   gossip ── one datagram to one host ─────────────────────────────────────────▶ ├─▶ Heard
//!   send ──── queue per peer ─▶ one connection per peer ─▶ rpc Deliver ─────────▶ ┘
//!                 └── no answer in time ──▶ Heard::Undelivered, at the sender
//!   send_history ── the same queue ─▶ rpc History, a stream ─▶ Heard::History or BadHistory
//!   fetch ── a connection of its own ─▶ rpc Inventory ─▶ Heard::Inventory, at the asker
//!   looks ── the same ─▶ rpc Get ─▶ what that host's API answers a viewer
//! ```
//!
//! **Invariant:** nothing that arrives stops an agent: what cannot be used becomes [`Heard::Bad`].
//! **Invariant:** `send`, `cast`, `gossip` and `fetch` never wait.
//! **Invariant:** messages to one peer arrive in the order in which they were sent. One of them may arrive twice, or
//! arrive although it was reported as undelivered; the machines in `decide` allow for both.
//! **Boundary:** who may speak is decided in `guard` alone. With keys the host named in a message's `from` is the one whose
//! certificate, or seal, it came by; without, it is what the sender says it is.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use decide::membership::inventory::Inventory;
use decide::units::{HostId, MoveId, VmId};
use decide::usage::history::aged::AgedLevel;
use decide::wire::message::Message;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};

mod datagram;
#[cfg(test)]
mod fuzz;
mod gate;
mod guard;
mod handshakes;
mod joining;
mod lists;
mod looks;
mod parts;
mod peers;
pub mod seal;
mod serve;
mod services;
mod spread;

use datagram::Datagrams;
pub use datagram::{DATAGRAM_MAX, GOSSIP_MAX};
pub use guard::Authentication;
use guard::{Guard, Keeper};
pub use joining::join;
use lists::Own;
pub use looks::{Looked, Looker, Looks};
pub use parts::Place;
use peers::Peers;
use spread::Answering;
pub use spread::Spread;

/// How long a message may take from [`Net::send`] until the peer has it: a local network answers in milliseconds, and
/// whoever waits for an answer waits longer than this.
pub const DELIVERY_MAX: Duration = Duration::from_secs(2);

/// How this agent speaks and listens.
#[derive(Clone, Debug)]
pub struct NetSettings {
    /// The address of this host that the other agents reach. Everything is sent from it.
    pub address: IpAddr,
    /// UDP and TCP port, the same number for both and on every host.
    pub port: u16,
    /// How requests go out.
    pub request: RequestMode,
    /// Routers that a multicast request may pass, plus one. 1 keeps it in the local network.
    pub multicast_ttl: u32,
    /// Whether hosts are authenticated.
    pub authentication: Authentication,
    /// The folder in which the CA's key is, if it is on this host: then new hosts are let in, and certificates renewed.
    pub authority: PathBuf,
}

/// How requests go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestMode {
    /// One datagram to a group, on the interface that holds the agent's address. Its port may be the agent's own.
    Multicast {
        /// The group, in 224.0.0.0/4, and its port.
        group: SocketAddrV4,
    },
    /// One datagram to every host of the local network, on the agent's port.
    Broadcast {
        /// 255.255.255.255 unless a subnet's own broadcast address is wanted; the same on every host.
        to: Ipv4Addr,
    },
    /// One datagram to each host that is known.
    FanOut,
}

impl RequestMode {
    /// Broadcast to the local network, whatever its addresses are.
    pub const BROADCAST: RequestMode = RequestMode::Broadcast { to: Ipv4Addr::BROADCAST };
}

impl fmt::Display for RequestMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RequestMode::Multicast { .. } => "multicast",
            RequestMode::Broadcast { .. } => "broadcast",
            RequestMode::FanOut => "fan-out",
        })
    }
}

/// A host, and where it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct To {
    /// Who must answer there, by its certificate.
    pub host: HostId,
    /// Its agent's address.
    pub at: SocketAddr,
}

/// What the network brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A message; also this host's own request, where the network brings it back: know it by its `from`.
    Message(Message),
    /// All of a VM's usage history: its length, hash and form are right.
    History {
        /// The part that decides.
        message: Message,
        /// Whose it is, by its source's word.
        vm: VmId,
        /// All of it.
        bytes: Vec<u8>,
        /// To be dropped with it.
        place: Place,
    },
    /// A usage history that is none.
    BadHistory {
        /// Its source.
        from: HostId,
        /// The move that it belongs to.
        move_id: MoveId,
        /// What is wrong with it.
        why: String,
    },
    /// Gossip of the membership.
    Gossip {
        /// The agent that sent it.
        from: SocketAddr,
        /// What it sent.
        bytes: Vec<u8>,
    },
    /// The answer to [`Net::fetch`].
    Inventory {
        /// The host that was asked.
        host: HostId,
        /// Its VMs, or why they are not known.
        fetched: Result<Inventory, String>,
    },
    /// Something that could not be used.
    Bad {
        /// Who sent it; for gRPC its port is that of a connection.
        from: SocketAddr,
        /// What is wrong with it.
        why: String,
    },
    /// A message of ours that is not known to have arrived. It may have, where the answer was lost.
    Undelivered {
        /// Where it should have gone.
        to: SocketAddr,
        /// Itself.
        message: Message,
        /// What stood in its way.
        why: String,
    },
}

/// The agent's voice. What it hears comes through the channel given to [`Net::start`]. It falls silent when dropped.
#[derive(Debug)]
pub struct Net {
    datagrams: Datagrams,
    peers: Peers,
    own: Own,
    from: IpAddr,
    guard: Guard,
    keeper: Keeper,
    looks: Looks,
    heard: mpsc::Sender<Heard>,
    /// The receivers of datagrams; they end when this is dropped.
    receivers: JoinSet<()>,
    /// Dropped to end the server.
    stopping: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

impl Net {
    /// Opens the sockets and listens.
    ///
    /// # Errors
    /// If the settings contradict each other, the agent would be open to strangers, or keys or an address cannot be used.
    pub async fn start(settings: NetSettings, heard: mpsc::Sender<Heard>) -> Result<Net> {
        let authority = settings.authority.clone();
        let guard =
            Guard::new(settings.authentication.clone(), settings.address, authority.clone())?;
        let here = SocketAddr::new(settings.address, settings.port);
        let listener =
            TcpListener::bind(here).await.with_context(|| format!("listening on TCP {here}"))?;
        let mut receivers = JoinSet::new();
        let datagrams = Datagrams::start(&settings, &guard, &heard, &mut receivers)?;
        receivers.spawn(guard.clone().keep());
        let peers = Peers::new(settings.address, guard.clone(), heard.clone());
        let (stopping, stopped) = oneshot::channel();
        let own = Own::default();
        let from = settings.address;
        let answering = Answering::new(guard.clone(), authority);
        let looks = Looks::new(from, guard.clone());
        let services = serve::Services { own: own.clone(), answering, looks: looks.clone() };
        let serving = serve::serve(listener, guard.clone(), services, heard.clone(), stopped);
        let server = tokio::spawn(serving);
        let keeper = Keeper(guard.clone());
        Ok(Net {
            datagrams,
            peers,
            own,
            from,
            guard,
            keeper,
            looks,
            heard,
            receivers,
            stopping,
            server,
        })
    }

    /// Queues a message for one peer. If it has not arrived after [`DELIVERY_MAX`], or cannot be queued,
    /// [`Heard::Undelivered`] says so.
    pub fn send(&self, to: To, message: Message) {
        self.peers.send(to, message);
    }

    /// Queues a VM's usage history for one peer, as [`send`](Net::send) does a message: with what is stored of it, if `stored`
    /// says so in time. A peer of the version before gets the message alone.
    pub fn send_history(
        &self,
        to: To,
        message: Message,
        vm: VmId,
        stored: oneshot::Receiver<Vec<AgedLevel>>,
    ) {
        self.peers.send_history(to, message, vm, stored);
    }

    /// What asks other hosts for keys.
    #[must_use]
    pub fn spread(&self) -> Spread {
        Spread::new(self.from, self.guard.clone())
    }

    /// What asks the APIs of other hosts, and answers them.
    #[must_use]
    pub fn looks(&self) -> Looks {
        self.looks.clone()
    }

    /// Sends a request to all: one datagram, or one to each of `known` in fan-out. What could not be sent comes back
    /// as [`Heard::Undelivered`]; what the network lost does not.
    pub fn cast(&self, request: &Message, known: &[SocketAddr]) {
        self.datagrams.cast(request, known);
    }

    /// Sends at most [`GOSSIP_MAX`] bytes of gossip to one host. The membership lives with losses, so what cannot be sent
    /// at once is dropped.
    pub fn gossip(&self, to: SocketAddr, bytes: &[u8]) {
        self.datagrams.gossip(to, bytes);
    }

    /// Fetches the VMs of a host; [`Heard::Inventory`] follows. The caller sees to it that few are under way at once.
    pub fn fetch(&self, host: HostId, at: SocketAddr) {
        let to = To { host, at };
        let fetching = lists::fetch(self.from, self.guard.clone(), to, self.heard.clone());
        tokio::spawn(fetching);
    }

    /// What this host answers to whoever fetches its VMs, from now on.
    pub fn list(&self, inventory: &Inventory) {
        self.own.set(inventory);
    }

    /// Ends listening and waits until the port is free, [`DELIVERY_MAX`] at the longest.
    pub async fn stop(self) {
        let Net { datagrams, mut receivers, keeper, stopping, mut server, .. } = self;
        drop(stopping);
        drop(datagrams);
        receivers.shutdown().await;
        drop(keeper);
        if tokio::time::timeout(DELIVERY_MAX, &mut server).await.is_err() {
            server.abort();
        }
    }
}

/// Tells the agent of a message that will not arrive. If it is too busy to hear even that, only the log knows: each wait
/// for an answer has a deadline of its own.
fn undelivered(heard: &mpsc::Sender<Heard>, to: SocketAddr, message: Message, why: String) {
    if let Err(dropped) = heard.try_send(Heard::Undelivered { to, message, why }) {
        tracing::warn!(%to, %dropped, "a message was not delivered and the agent is too busy to be told");
    }
}
