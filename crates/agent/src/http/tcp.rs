//! The API over TCP: TLS 1.3 with this host's certificate, tokens for those who ask.
//!
//! One request a connection: whoever is slow, or says nothing, is cut off after a while, and what waits is bounded.
//!
//! **Invariant:** nothing is read before TLS is agreed on, and no connection outlives [`Limits::whole`](super::Limits).

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::extract::ConnectInfo;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use trust::keys::Keys;

use super::gate::Limits;
use super::peer::Peer;
use crate::connections::Connections;

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
        let open = Connections::new(limits.connections, limits.connections_per_address);
        let mut connections = JoinSet::new();
        tokio::pin!(stop);
        loop {
            let permit = tokio::select! {
                () = &mut stop => return connections,
                permit = open.room() => permit,
            };
            let Some(permit) = permit else { return connections };
            let accepted = tokio::select! {
                () = &mut stop => return connections,
                accepted = self.listener.accept() => accepted,
            };
            // Those that have ended go, so that their number stays that of the places.
            while connections.try_join_next().is_some() {}
            match accepted {
                Ok((stream, address)) => {
                    let Some(place) = open.open(address.ip(), permit) else { continue };
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
