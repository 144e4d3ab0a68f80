//! Who may speak to this agent: the one place where authentication lives.
//!
//! With keys: connections are mutual TLS 1.3, datagrams are sealed, and both name a host of the cluster (`trust`). Without, an
//! agent starts only with `--insecure`, and only where no stranger can reach it (`seal`); what comes from elsewhere is not
//! listened to.
//!
//! **Invariant:** with keys nothing in the clear is sent, or taken in.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context as Task, Poll};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use decide::units::HostId;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout};
use tokio_rustls::{LazyConfigAcceptor, TlsConnector, client, server};
use tonic::codegen::{BoxFuture, Service, http};
use tonic::transport::{Channel, Endpoint};
use trust::heard::Heard;
use trust::identity::{Identity, Unix};
use trust::keys::Keys;
use trust::seal::{Marks, Opener, Sealer};
use trust::tls;
use trust::window::{AHEAD, Life};

use super::DELIVERY_MAX;
use super::joining::{self, JOIN_MAX};
use super::seal::{self, Kind};
use crate::clock::unix_seconds;
use crate::connections::{Connections, Open};

/// How often what was heard of each sender is kept: less than [`AHEAD`].
const KEPT_EVERY: Duration = Duration::from_secs(1);

/// Whether hosts are authenticated.
#[derive(Clone, Debug)]
pub enum Authentication {
    /// They are not: see [`seal::check_insecure`].
    None,
    /// By these keys.
    Keys {
        /// This host's.
        keys: Arc<Keys>,
        /// This start of the agent.
        life: Life,
        /// The file that keeps over restarts what was heard of each sender of datagrams.
        heard: PathBuf,
    },
}

/// What lets others in and calls them.
#[derive(Clone, Debug)]
pub(super) enum Guard {
    /// Without authentication.
    Clear,
    /// With keys.
    Keyed(Arc<Keyed>),
}

/// All that keys are used for.
pub(super) struct Keyed {
    keys: Arc<Keys>,
    /// Where the CA's key would be.
    authority: PathBuf,
    server: Arc<ServerConfig>,
    joined: Arc<ServerConfig>,
    /// New hosts that are spoken with.
    joins: Connections,
    connector: TlsConnector,
    began: Instant,
    sealer: Mutex<Sealer>,
    opener: Mutex<Opener>,
    heard: Arc<Heard>,
}

impl std::fmt::Debug for Keyed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyed").field("keys", &self.keys).finish_non_exhaustive()
    }
}

impl Guard {
    /// # Errors
    /// If strangers could reach an agent without authentication, the keys cannot be used, or what was kept cannot be read.
    pub(super) fn new(
        authentication: Authentication,
        address: IpAddr,
        authority: PathBuf,
    ) -> Result<Guard> {
        let Authentication::Keys { keys, life, heard } = authentication else {
            seal::check_insecure(&[address])?;
            return Ok(Guard::Clear);
        };
        let server = tls::server(&keys).context("using the keys for TLS")?;
        let joined = tls::joined(&keys).context("using the keys for TLS")?;
        let joins = Connections::new(joining::JOINS_MAX, joining::JOINS_PER_ADDRESS);
        let connector = tls::client(&keys).context("using the keys for TLS")?.into();
        let heard = Arc::new(Heard::new(heard));
        let marks = heard.read().unwrap_or_else(|error| {
            tracing::warn!("{error:#}; going on without");
            Marks::default()
        });
        let sealer = Mutex::new(Sealer::new(keys.held().identity.host, life));
        let opener = Mutex::new(Opener::resume(marks));
        let began = Instant::now();
        let keyed = Keyed {
            keys,
            authority,
            server,
            joined,
            joins,
            connector,
            began,
            sealer,
            opener,
            heard,
        };
        Ok(Guard::Keyed(Arc::new(keyed)))
    }

    /// The keys, if there are any.
    pub(super) fn keys(&self) -> Option<Arc<Keys>> {
        match self {
            Guard::Clear => None,
            Guard::Keyed(keyed) => Some(Arc::clone(&keyed.keys)),
        }
    }

    /// The number of the list of revocations that is gone by.
    pub(super) fn revocations(&self) -> u64 {
        self.keys().map_or(0, |keys| keys.held().revoked.version)
    }

    /// The datagram that carries these bytes.
    pub(super) fn seal(&self, kind: Kind, bytes: &[u8]) -> Vec<u8> {
        match self {
            Guard::Clear => seal::seal(kind, bytes),
            Guard::Keyed(keyed) => {
                let at = (keyed.began.elapsed(), Unix(u64::from(unix_seconds())));
                lock(&keyed.sealer).seal(&keyed.keys.held(), at, kind as u8, bytes)
            }
        }
    }

    /// What a datagram carries, and the host that sent it if that is proven.
    ///
    /// # Errors
    /// If it is not of this protocol, of another version, from a stranger, or came before.
    pub(super) fn open(
        &self,
        from: SocketAddr,
        datagram: &[u8],
    ) -> Result<(Option<HostId>, Kind, Vec<u8>)> {
        match self {
            Guard::Clear => {
                let (kind, bytes) = seal::open(from, datagram)?;
                Ok((None, kind, bytes.to_vec()))
            }
            Guard::Keyed(keyed) => {
                let opened = lock(&keyed.opener).open(&keyed.keys.held(), datagram)?;
                Ok((Some(opened.sender), Kind::of(opened.kind)?, opened.content))
            }
        }
    }

    /// A channel to a peer, sent from this host's own address. It connects when first used, and again after a loss. With keys a
    /// host of the cluster must answer at that address, and this one if one is named.
    pub(super) fn dial(
        &self,
        from: IpAddr,
        to: SocketAddr,
        host: Option<HostId>,
    ) -> Result<Channel> {
        let endpoint = Endpoint::from_shared(format!("http://{to}"))
            .with_context(|| format!("the address {to}"))?
            .connect_timeout(DELIVERY_MAX);
        match self {
            Guard::Clear => {
                seal::check_insecure(&[to.ip()])?;
                Ok(endpoint.tcp_nodelay(true).local_address(Some(from)).connect_lazy())
            }
            Guard::Keyed(keyed) => {
                let connector = keyed.connector.clone();
                Ok(endpoint.connect_with_connector_lazy(Dialer { from, to, host, connector }))
            }
        }
    }

    /// Lets in who connected; nothing more is to be done for a new host, which has then been spoken with.
    ///
    /// # Errors
    /// If it is a stranger.
    pub(super) async fn welcome(
        &self,
        stream: TcpStream,
        from: SocketAddr,
    ) -> Result<Option<Stream>> {
        stream.set_nodelay(true).context("setting up a connection")?;
        match self {
            Guard::Clear => {
                seal::check_insecure(&[from.ip()]).context("a connection from a stranger")?;
                Ok(Some(Stream::Clear(stream)))
            }
            Guard::Keyed(keyed) => {
                let shaken = timeout(DELIVERY_MAX, keyed.shaken(stream, from)).await;
                let (stream, joins) = shaken.context("a connection that says nothing")??;
                if let Some(_place) = joins {
                    let spoken = timeout(JOIN_MAX, keyed.join(stream, from)).await;
                    spoken.context("a new host that says nothing more")??;
                    return Ok(None);
                }
                let peer = tls::peer(stream.get_ref().1.peer_certificates())?;
                Ok(Some(Stream::Tls(Box::new(stream), Arc::new(peer))))
            }
        }
    }

    /// Whether a caller may say this, in the name of that host if it names one.
    ///
    /// # Errors
    /// If not.
    pub(super) fn allows(
        &self,
        caller: Option<&Caller>,
        claims: Option<HostId>,
    ) -> Result<(), String> {
        let Guard::Keyed(keyed) = self else { return Ok(()) };
        let peer = caller.and_then(|caller| caller.peer.as_deref());
        let peer = peer.ok_or_else(|| "a caller without a certificate".to_owned())?;
        tls::admitted(&keyed.keys, peer, Unix(u64::from(unix_seconds())))?;
        match claims.filter(|host| *host != peer.host) {
            Some(host) => Err(format!(
                "in the name of host {host}, by the certificate of host {}: not taken",
                peer.host
            )),
            None => Ok(()),
        }
    }

    /// Keeps what was heard of each sender, now and then, for ever.
    pub(super) async fn keep(self) {
        let Guard::Keyed(keyed) = self else { return };
        loop {
            tokio::time::sleep(KEPT_EVERY).await;
            let marks = lock(&keyed.opener).marks(AHEAD);
            let heard = Arc::clone(&keyed.heard);
            let written = tokio::task::spawn_blocking(move || heard.keep(marks)).await;
            if let Ok(Err(error)) = written {
                tracing::warn!("{error:#}: datagrams could be replayed after a restart");
            }
        }
    }
}

impl Keyed {
    /// The connection after its handshake, and the place that it takes if it is a new host's.
    async fn shaken(
        &self,
        stream: TcpStream,
        from: SocketAddr,
    ) -> Result<(server::TlsStream<TcpStream>, Option<Open>)> {
        let begun = LazyConfigAcceptor::new(Acceptor::default(), stream).await;
        let begun = begun.map_err(|error| explained(&error)).context("a connection")?;
        let joins = {
            let mut spoken = begun.client_hello().alpn().into_iter().flatten();
            spoken.any(|spoken| spoken == tls::JOIN)
        };
        let place = joins.then(|| {
            self.joins.try_open(from.ip()).context("a new host while others join: try again")
        });
        let place = place.transpose()?;
        let config = if joins { &self.joined } else { &self.server };
        let shaken = begun.into_stream(Arc::clone(config)).await;
        let stream = shaken.map_err(|error| explained(&error)).context("a connection")?;
        Ok((stream, place))
    }

    async fn join(&self, stream: server::TlsStream<TcpStream>, from: SocketAddr) -> Result<()> {
        let keys = Arc::clone(&self.keys);
        let joined = joining::serve(stream, from, keys, &self.authority).await;
        let wanted = joined.context("a new host was not let in")?;
        tracing::info!(host = %wanted.host, name = wanted.name, "a new host has joined");
        Ok(())
    }
}

/// Keeps, at the end, what was heard of each sender: no further ahead than it was heard.
#[derive(Debug)]
pub(super) struct Keeper(pub(super) Guard);

impl Drop for Keeper {
    fn drop(&mut self) {
        let Guard::Keyed(keyed) = &self.0 else { return };
        // A write that is still under way ends before.
        let marks = lock(&keyed.opener).marks(0);
        if let Err(error) = keyed.heard.close(marks) {
            tracing::warn!("{error:#}: datagrams could be replayed after the next start");
        }
    }
}

/// The reason of TLS, for people.
pub(super) fn explained(error: &io::Error) -> anyhow::Error {
    let of_tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    anyhow::anyhow!(of_tls.map_or_else(|| error.to_string(), tls::explain))
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    // Sealing and opening do not panic half-way: each change of theirs is one step.
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// Its address.
    pub(super) from: Option<SocketAddr>,
    /// Whom its certificate names; absent without authentication.
    pub(super) peer: Option<Arc<Identity>>,
}

impl Caller {
    /// For people.
    pub(super) fn name(&self) -> String {
        match (&self.peer, self.from) {
            (Some(peer), _) => format!("host {}", peer.host),
            (None, Some(from)) => format!("the host at {}", from.ip()),
            (None, None) => "another host".to_owned(),
        }
    }
}

/// A connection that was let in.
#[derive(Debug)]
pub(super) enum Stream {
    Clear(TcpStream),
    Tls(Box<server::TlsStream<TcpStream>>, Arc<Identity>),
}

impl Stream {
    pub(super) fn caller(&self) -> Caller {
        match self {
            Stream::Clear(stream) => Caller { from: stream.peer_addr().ok(), peer: None },
            Stream::Tls(stream, peer) => {
                let from = stream.get_ref().0.peer_addr().ok();
                Caller { from, peer: Some(Arc::clone(peer)) }
            }
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Task<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Clear(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Tls(stream, _) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Task<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Clear(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Tls(stream, _) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Clear(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream, _) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Clear(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream, _) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// Connects to one peer, from this host's own address.
#[derive(Clone)]
struct Dialer {
    from: IpAddr,
    to: SocketAddr,
    /// Who must answer.
    host: Option<HostId>,
    connector: TlsConnector,
}

impl Dialer {
    async fn dial(self) -> io::Result<client::TlsStream<TcpStream>> {
        let Dialer { from, to, host, connector } = self;
        let stream = connect(from, to).await?;
        let shaken = connector.connect(tls::name(to.ip()), stream).await;
        let stream = shaken.map_err(|error| io::Error::other(explained(&error).to_string()))?;
        let peer = tls::peer(stream.get_ref().1.peer_certificates()).map_err(io::Error::other)?;
        match host.filter(|host| *host != peer.host) {
            Some(host) => Err(io::Error::other(format!(
                "host {} answers at {to}, not host {host}: have two hosts one address?",
                peer.host
            ))),
            None => Ok(stream),
        }
    }
}

/// Connects from this host's own address.
pub(super) async fn connect(from: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.bind(SocketAddr::new(from, 0))?;
    let stream = socket.connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

impl Service<http::Uri> for Dialer {
    type Response = TokioIo<client::TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = BoxFuture<Self::Response, io::Error>;

    fn poll_ready(&mut self, _cx: &mut Task<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: http::Uri) -> Self::Future {
        let dialer = self.clone();
        Box::pin(async move { Ok(TokioIo::new(dialer.dial().await?)) })
    }
}

/// Kinds as sealed.
impl Kind {
    pub(super) fn of(number: u8) -> Result<Kind> {
        match number {
            1 => Ok(Kind::Request),
            2 => Ok(Kind::Gossip),
            other => bail!("a datagram of unknown kind {other}, from a newer version?"),
        }
    }
}
