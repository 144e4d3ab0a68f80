//! The API over TCP: TLS 1.3 with this host's certificate, tokens for those who ask.
//!
//! One request a connection: whoever is slow, or says nothing, is cut off after a while, and what waits is bounded.
//!
//! **Invariant:** nothing is read before TLS is agreed on, and no connection outlives [`Limits::whole`](super::Limits).

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use axum::extract::ConnectInfo;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use trust::keys::Keys;

use super::gate::Limits;
use super::peer::Peer;

/// Bytes of a request's head.
const HEAD_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;
/// After a failed accept, which is mostly a lack of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// A TCP port that listens.
pub struct TlsListener {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl std::fmt::Debug for TlsListener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsListener").field("listener", &self.listener).finish_non_exhaustive()
    }
}

impl TlsListener {
    /// Listens at `address`; shows what certificate `keys` hold at each moment.
    ///
    /// # Errors
    /// The address is not this host's, or is taken.
    pub async fn bind(address: SocketAddr, keys: &Arc<Keys>) -> anyhow::Result<TlsListener> {
        let config = trust::tls::api_server(keys).context("the keys, for TLS")?;
        let listener = TcpListener::bind(address).await;
        let listener =
            listener.with_context(|| format!("listening at {address} (key api.listen)"))?;
        Ok(TlsListener { listener, acceptor: TlsAcceptor::from(config) })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves `router` until `stop` is ready. Connections end with what this gives.
    pub(super) async fn serve(
        self,
        router: Router,
        limits: Limits,
        stop: impl Future<Output = ()>,
    ) -> JoinSet<()> {
        let places = Places::new(limits);
        let mut connections = JoinSet::new();
        tokio::pin!(stop);
        loop {
            let permit = tokio::select! {
                () = &mut stop => return connections,
                permit = Arc::clone(&places.all).acquire_owned() => permit,
            };
            let Ok(permit) = permit else { return connections };
            let accepted = tokio::select! {
                () = &mut stop => return connections,
                accepted = self.listener.accept() => accepted,
            };
            // Those that have ended go, so that their number stays that of the places.
            while connections.try_join_next().is_some() {}
            match accepted {
                Ok((stream, address)) => {
                    let Some(place) = places.take(address.ip(), permit) else { continue };
                    let acceptor = self.acceptor.clone();
                    let router = router.clone();
                    connections.spawn(async move {
                        let _place = place;
                        let one = connection(acceptor, stream, address, router, limits);
                        // However it ends, nobody is to be told but the other end.
                        let _ = timeout(limits.whole, one).await;
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "accepting a connection to the API");
                    sleep(PAUSE).await;
                }
            }
        }
    }
}

async fn connection(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    address: SocketAddr,
    router: Router,
    limits: Limits,
) -> anyhow::Result<()> {
    // An answer is written as a whole.
    stream.set_nodelay(true)?;
    let stream = timeout(limits.handshake, acceptor.accept(stream)).await??;
    let router = router.layer(Extension(ConnectInfo(Peer::Tcp(address))));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    Ok(served.await?)
}

/// Who is connected: so many in all, and so many of one address.
struct Places {
    all: Arc<Semaphore>,
    per_address: usize,
    by: Arc<Mutex<BTreeMap<IpAddr, usize>>>,
}

/// One place, free again when dropped.
struct Place {
    address: IpAddr,
    by: Arc<Mutex<BTreeMap<IpAddr, usize>>>,
    _permit: OwnedSemaphorePermit,
}

impl Places {
    fn new(limits: Limits) -> Places {
        let all = Arc::new(Semaphore::new(limits.connections));
        Places { all, per_address: limits.connections_per_address, by: Arc::default() }
    }

    /// None: this address has as many as it may have.
    fn take(&self, address: IpAddr, permit: OwnedSemaphorePermit) -> Option<Place> {
        let mut by = self.by.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = by.entry(address).or_default();
        if *taken >= self.per_address {
            return None;
        }
        *taken += 1;
        Some(Place { address, by: Arc::clone(&self.by), _permit: permit })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut by = self.by.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = by.get_mut(&self.address) {
            *taken -= 1;
            if *taken == 0 {
                by.remove(&self.address);
            }
        }
    }
}
