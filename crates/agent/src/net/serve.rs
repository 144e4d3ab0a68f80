//! The receiving side of gRPC.
//!
//! **Invariant:** a message is answered only after the agent has taken it in, so those of one peer keep their order and
//! a busy agent slows its peers down.
//! **Invariant:** whatever a peer sends wrongly is refused to the peer and told to the agent, in the same words.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll};
use std::time::Duration;

use anyhow::{Context, ensure};
use decide::units::HostId;
use decide::wire::limits::MESSAGE_MAX;
use decide::wire::message::Message;
use decide::wire::proto;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::NamedService;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tonic::{Code, Request, Response, Status, Streaming};

use super::guard::{Caller, Guard, Stream};
use super::handshakes::Handshakes;
use super::lists::Own;
use super::looks::{self, Looks};
use super::parts::{self, Places};
use super::services::look::look_server::LookServer;
use super::services::peer::peer_server::{Peer, PeerServer};
use super::services::trust::trust_server::TrustServer;
use super::spread::{self, Answering};
use super::{DELIVERY_MAX, Heard};

/// Connections that may be open at once: one from each peer, and as many that are being replaced.
const CONNECTIONS_MAX: usize = 2048;
/// Calls that one connection may have open at once; a peer of ours has one.
const CALLS_MAX: u32 = 16;
/// How often a silent connection is asked whether it is still there, and how long it may take to answer.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// What every connection of HTTP/2 begins with (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long to wait after the kernel failed to hand over a connection.
const PAUSE: Duration = Duration::from_millis(100);

/// What is answered to other hosts beside messages.
pub(super) struct Services {
    pub(super) own: Own,
    pub(super) answering: Answering,
    pub(super) looks: Looks,
}

/// Serves until `stopped`, then lets calls that are under way end. The port is free from then on.
pub(super) async fn serve(
    listener: TcpListener,
    guard: Guard,
    services: Services,
    heard: mpsc::Sender<Heard>,
    stopped: oneshot::Receiver<()>,
) {
    let Services { own, answering, looks } = services;
    let places = Places::default();
    let inbox = Inbox { heard: heard.clone(), guard: guard.clone(), own, places };
    let connected = heard.clone();
    let peer = PeerServer::new(inbox).max_decoding_message_size(MESSAGE_MAX);
    let trust = TrustServer::new(answering).max_decoding_message_size(spread::QUESTION_MAX);
    let look = LookServer::new(looks).max_decoding_message_size(looks::QUESTION_MAX);
    let (welcomed, connections) = mpsc::channel(1);
    let serving = Server::builder()
        .timeout(DELIVERY_MAX)
        .max_concurrent_streams(CALLS_MAX)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .add_service(Reporting { inner: peer, heard: heard.clone() })
        .add_service(Reporting { inner: trust, heard: heard.clone() })
        .add_service(Reporting { inner: look, heard })
        .serve_with_incoming_shutdown(ReceiverStream::new(connections), async {
            // Told to stop, or whoever would tell is gone: the same.
            let _ = stopped.await;
        });
    let accepting = async {
        tokio::select! {
            () = accept(listener, &guard, &welcomed, &connected) => {}
            () = welcomed.closed() => {}
        }
    };
    if let (Err(error), ()) = tokio::join!(serving, accepting) {
        tracing::error!(%error, "no more messages can be received");
    }
}

/// Takes connections in, for ever. Those that are too many are closed at once: who is there must not wait for who says nothing.
async fn accept(
    listener: TcpListener,
    guard: &Guard,
    welcomed: &mpsc::Sender<io::Result<Connection>>,
    heard: &mpsc::Sender<Heard>,
) {
    let (slots, handshakes) = (Arc::new(Semaphore::new(CONNECTIONS_MAX)), Handshakes::new());
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                let Some(begun) = handshakes.begin(from.ip()) else {
                    tracing::debug!(%from, "too many connections of strangers");
                    continue;
                };
                let (slots, handshakes) = (Arc::clone(&slots), handshakes.clone());
                let (guard, welcomed, heard) = (guard.clone(), welcomed.clone(), heard.clone());
                tokio::spawn(async move {
                    let greeted = greeted(stream, from, &guard, &slots).await;
                    if matches!(greeted, Ok(Some(_))) {
                        handshakes.proven(from.ip());
                    }
                    drop(begun);
                    pass_on(greeted, from, &welcomed, &heard).await;
                });
            }
            // Out of file descriptors, mostly: trying again at once would only burn the processor.
            Err(error) => {
                tracing::warn!(%error, "no connection could be accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// The connection, if who opened it is welcome and speaks HTTP/2, and there is a slot. Whoever says nothing for a while, or goes
/// away again, gets none.
async fn greeted(
    stream: TcpStream,
    from: SocketAddr,
    guard: &Guard,
    slots: &Arc<Semaphore>,
) -> anyhow::Result<Option<Connection>> {
    let Some(stream) = guard.welcome(stream, from).await? else { return Ok(None) };
    if let Stream::Clear(clear) = &stream {
        let mut first = [0; PREFACE.len()];
        let said = tokio::time::timeout(DELIVERY_MAX, clear.peek(&mut first)).await;
        let length = said.context("a connection that says nothing")?.context("a connection")?;
        ensure!(
            PREFACE.starts_with(&first[..length]),
            "a connection that is not of this protocol: it does not begin as HTTP/2"
        );
        if length == 0 {
            return Ok(None);
        }
    }
    let slot = Arc::clone(slots).try_acquire_owned();
    let slot = slot.with_context(|| format!("{CONNECTIONS_MAX} connections are open already"))?;
    Ok(Some(Connection { stream, _slot: slot }))
}

/// Nobody listens on either channel only if the agent is stopping.
async fn pass_on(
    greeted: anyhow::Result<Option<Connection>>,
    from: SocketAddr,
    welcomed: &mpsc::Sender<io::Result<Connection>>,
    heard: &mpsc::Sender<Heard>,
) {
    match greeted {
        Ok(Some(connection)) => {
            let _ = welcomed.send(Ok(connection)).await;
        }
        Ok(None) => {}
        Err(why) => {
            // Where the agent is too busy to be told, a flood of these would only pile up.
            let _ = heard.try_send(Heard::Bad { from, why: format!("{why:#}") });
        }
    }
}

/// A connection and the slot that it takes.
#[derive(Debug)]
struct Connection {
    stream: Stream,
    _slot: OwnedSemaphorePermit,
}

impl Connected for Connection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.stream.caller()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Task<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Task<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Where messages arrive.
#[derive(Debug)]
struct Inbox {
    heard: mpsc::Sender<Heard>,
    guard: Guard,
    own: Own,
    places: Places,
}

impl Inbox {
    fn allows(&self, caller: Option<&Caller>, claims: Option<HostId>) -> Result<(), Status> {
        self.guard.allows(caller, claims).map_err(Status::permission_denied)
    }
}

#[tonic::async_trait]
impl Peer for Inbox {
    async fn deliver(
        &self,
        request: Request<proto::Message>,
    ) -> Result<Response<proto::Received>, Status> {
        let caller = request.extensions().get::<Caller>().cloned();
        self.allows(caller.as_ref(), None)?;
        let message = Message::try_from(request.into_inner())
            .map_err(|bad| Status::invalid_argument(bad.to_string()))?;
        self.allows(caller.as_ref(), Some(message.from))?;
        let taken = self.heard.send(Heard::Message(message)).await;
        taken.map_err(|_closed| Status::unavailable("the agent is stopping"))?;
        Ok(Response::new(proto::Received {}))
    }

    async fn history(
        &self,
        request: Request<Streaming<proto::HistoryPart>>,
    ) -> Result<Response<proto::Received>, Status> {
        let caller = request.extensions().get::<Caller>().cloned();
        let may_say = |from| self.allows(caller.as_ref(), Some(from));
        let came = parts::taken_in(request.into_inner(), &self.places, may_say).await?;
        let taken = self.heard.send(came).await;
        taken.map_err(|_closed| Status::unavailable("the agent is stopping"))?;
        Ok(Response::new(proto::Received {}))
    }

    async fn inventory(
        &self,
        request: Request<proto::InventoryRequest>,
    ) -> Result<Response<proto::Inventory>, Status> {
        self.allows(request.extensions().get::<Caller>(), None)?;
        Ok(Response::new(self.own.get()))
    }
}

/// Tells the agent of every call that was refused, also of those that never reach [`Inbox`] because their body is
/// garbled or too long.
#[derive(Clone, Debug)]
struct Reporting<S> {
    inner: S,
    heard: mpsc::Sender<Heard>,
}

impl<S: NamedService> NamedService for Reporting<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Reporting<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<http::Response<Body>, Infallible>;

    fn poll_ready(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let from = request.extensions().get::<Caller>().and_then(|caller| caller.from);
        let heard = self.heard.clone();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            if let (Some(from), Some(why)) = (from, refusal(answer.headers())) {
                // Nobody left to be told: the agent is stopping.
                let _ = heard.send(Heard::Bad { from, why }).await;
            }
            Ok(answer)
        })
    }
}

/// Why a call was refused, if it was and the peer is to blame.
fn refusal(headers: &http::HeaderMap) -> Option<String> {
    let status = Status::from_header_map(headers)?;
    let ours = matches!(status.code(), Code::Ok | Code::Unavailable);
    (!ours).then(|| status.message().to_owned())
}
