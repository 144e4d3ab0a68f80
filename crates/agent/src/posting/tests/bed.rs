//! Receivers, and hooks that are served from a real event log.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Deref;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};

use api::{Delivery, Event, Step};
use data_encoding::BASE64;
use decide::units::HostId;
use drivers::store::Events;
use http_body_util::BodyExt;
use hyper::body::{Bytes, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinSet, yield_now};
use tokio_rustls::TlsAcceptor;
use trust::authority::{Authority, LIFE};
use trust::identity::Unix;
use trust::keys::{CA_CERTIFICATE, HOST_CERTIFICATE, HOST_KEY};
use trust::request::{Wanted, make};

use super::super::ready::{of_traces, of_webhook};
use super::super::{Posts, Ready, Teller};
use crate::clock::unix_seconds;
use crate::config::{Told, Traces, Webhook};
use crate::metrics::Totals;

/// Far more than anything here takes; each is a look at what has happened.
const LOOKS: usize = 10_000_000;
/// The secret's bytes.
const SECRET: [u8; 32] = [7; 32];

/// Time stands still while this is there, and moves by `advance` alone: without, a paused clock runs ahead of real sockets.
#[derive(Debug)]
pub(super) struct Still(
    #[expect(dead_code, reason = "its end ends it")] std::sync::mpsc::Sender<()>,
);

impl Still {
    pub(super) fn new() -> Still {
        tokio::time::pause();
        let (ends, ended) = std::sync::mpsc::channel::<()>();
        // The clock does not run ahead while something blocks.
        tokio::task::spawn_blocking(move || ended.recv());
        Still(ends)
    }
}

/// Waits for what tasks of this runtime do.
async fn until(what: &str, mut is: impl FnMut() -> bool) {
    for _ in 0..LOOKS {
        if is() {
            return;
        }
        yield_now().await;
    }
    panic!("{what}: never");
}

pub(super) fn event(step: Step, reason: &str) -> Event {
    Event {
        seq: 0,
        time: "2026-11-29T03:10:00.000Z".to_owned(),
        host: "host1".to_owned(),
        move_id: None,
        vm: Some("web".to_owned()),
        step,
        reason: reason.to_owned(),
        peer: None,
        cost_percent: None,
        copy: None,
    }
}

/// Standard Webhooks' signature by RFC 2104's own words, from a hash alone.
pub(super) fn signed(id: &str, timestamp: &str, body: &[u8]) -> String {
    let pad = |with: u8| {
        let mut block = [with; 64];
        block.iter_mut().zip(SECRET).for_each(|(byte, key)| *byte ^= key);
        block
    };
    let text = [format!("{id}.{timestamp}.").as_bytes(), body].concat();
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(text).finalize();
    let outer = Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize();
    format!("v1,{}", BASE64.encode(&outer))
}

/// An agent's hooks, its event log and cursors.
pub(super) struct Bed {
    folder: TempDir,
    events: Arc<Events>,
    newest: watch::Sender<u64>,
    totals: Totals,
    posts: Posts,
}

impl Bed {
    pub(super) fn new() -> Bed {
        Bed::within(tempfile::tempdir().expect("a folder"))
    }

    fn within(folder: TempDir) -> Bed {
        let events = Arc::new(Events::open(folder.path(), 100_000).expect("a log"));
        let before = events.latest(1).expect("read").last().map_or(0, |noted| noted.seq);
        let (newest, seen) = watch::channel(before);
        let totals = Totals::new().expect("metrics");
        let teller = Teller { cluster: "prod".to_owned(), host_id: "host-id".to_owned() };
        let posts = Posts::new(teller, folder.path(), Arc::clone(&events), seen, &totals);
        Bed { folder, events, newest, totals, posts }
    }

    /// What a start of the agent does after its end.
    pub(super) async fn start_anew(&mut self) {
        self.posts.tasks.lock().await.shutdown().await;
        let folder = std::mem::replace(&mut self.folder, tempfile::tempdir().expect("a folder"));
        // Its log is to be open once.
        let events = Arc::new(Events::open(self.folder.path(), 1).expect("a log"));
        let (newest, seen) = watch::channel(0);
        let teller = Teller { cluster: String::new(), host_id: String::new() };
        self.posts =
            Posts::new(teller, self.folder.path(), Arc::clone(&events), seen, &self.totals);
        (self.events, self.newest) = (events, newest);
        *self = Bed::within(folder);
    }

    /// The same, its event log taken away meanwhile.
    pub(super) async fn lose_the_log(&mut self) {
        fs::remove_file(self.folder.path().join("events.redb")).expect("removed");
        self.start_anew().await;
    }

    /// As after a SIGHUP.
    pub(super) async fn serve(&self, hooks: Vec<Ready>) {
        self.posts.serve_anew(hooks).await;
    }

    /// As at a start, at which something may have been noted already.
    pub(super) async fn serve_at_start(&self, hooks: Vec<Ready>) {
        self.posts.serve_at_start(hooks).await;
    }

    /// As the loop does.
    pub(super) fn note(&self, events: &[Event]) {
        let records: Vec<Vec<u8>> =
            events.iter().map(|event| serde_json::to_vec(event).expect("JSON")).collect();
        let first = self.events.note(&records).expect("noted");
        self.newest.send_replace(first + records.len() as u64 - 1);
    }

    pub(super) fn failing(&self) -> Vec<String> {
        self.posts.webhooks.failing.told()
    }

    pub(super) fn traces_failing(&self) -> Option<String> {
        self.posts.traces.failing.told().pop()
    }

    /// Traces that were delivered, and given up.
    pub(super) fn traces(&self) -> (u64, u64) {
        (self.totals.traces.delivered.get(), self.totals.traces.dropped.get())
    }

    /// Waits until so many tries to deliver a trace have failed.
    pub(super) async fn traces_have_failed(&self, tries: u64) {
        until("a trace fails", || self.totals.traces.failed.get() == tries).await;
    }

    pub(super) fn delivered(&self) -> u64 {
        self.totals.deliveries.delivered.get()
    }

    pub(super) fn failed(&self) -> u64 {
        self.totals.deliveries.failed.get()
    }

    pub(super) fn dropped(&self) -> u64 {
        self.totals.deliveries.dropped.get()
    }

    /// Waits until so many tries have failed, and the wait after the last one has begun.
    pub(super) async fn has_failed(&self, tries: u64) {
        until(&format!("try {tries} fails"), || self.failed() == tries).await;
    }

    /// Waits until the only hook's cursor is there, on disk.
    pub(super) async fn settled(&self, seq: u64) {
        let file = self.folder.path().join("webhooks.json");
        let there =
            || fs::read_to_string(&file).is_ok_and(|text| text.contains(&format!(": {seq}\n")));
        until("it is settled", there).await;
    }
}

/// What a receiver does.
#[derive(Clone, Copy, Debug)]
pub(super) enum Answer {
    Status(u16),
    /// With a header that says when to come again, in seconds.
    Later(u16, u64),
    /// It is taken, but for a span.
    Partly,
    /// Never.
    Hang,
    /// Ends the connection.
    Close,
    /// To the receiver at this port.
    Redirect(u16),
    /// With a body that has no end.
    Endless(u16),
    /// With headers that have no end.
    EndlessHead,
}

/// What a receiver got.
#[derive(Debug)]
pub(super) struct Got {
    pub(super) path: String,
    pub(super) kind: String,
    pub(super) id: String,
    pub(super) timestamp: String,
    pub(super) signature: String,
    pub(super) body: Bytes,
    pub(super) key: String,
    pub(super) delivery: Parsed,
}

/// The body, where it is that of a webhook.
#[derive(Debug)]
pub(super) struct Parsed(Option<Delivery>);

impl Deref for Parsed {
    type Target = Delivery;

    fn deref(&self) -> &Delivery {
        self.0.as_ref().expect("a delivery")
    }
}

type Script = Arc<Mutex<VecDeque<Answer>>>;

/// A server on loopback, which answers by its script and then takes all.
pub(super) struct Receiver {
    pub(super) address: SocketAddr,
    folder: TempDir,
    tls: bool,
    got: mpsc::UnboundedReceiver<Got>,
    _serves: JoinSet<()>,
}

impl Receiver {
    pub(super) async fn start(script: &[Answer]) -> Receiver {
        Receiver::serve(script, false).await
    }

    pub(super) async fn start_tls(script: &[Answer]) -> Receiver {
        Receiver::serve(script, true).await
    }

    async fn serve(script: &[Answer], tls: bool) -> Receiver {
        let folder = tempfile::tempdir().expect("a folder");
        let secret = folder.path().join("hook.key");
        fs::write(&secret, format!("whsec_{}\n", BASE64.encode(&SECRET))).expect("written");
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).expect("set");
        let acceptor = tls.then(|| certified(&folder));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let script: Script = Arc::new(Mutex::new(script.iter().copied().collect()));
        let (tell, got) = mpsc::unbounded_channel();
        let mut serves = JoinSet::new();
        serves.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (tell, script, acceptor) =
                    (tell.clone(), Arc::clone(&script), acceptor.clone());
                connections.spawn(async move {
                    match acceptor {
                        None => answer(stream, tell, script).await,
                        Some(acceptor) => {
                            if let Ok(stream) = acceptor.accept(stream).await {
                                answer(stream, tell, script).await;
                            }
                        }
                    }
                });
            }
        });
        Receiver { address, folder, tls, got, _serves: serves }
    }

    /// A hook that posts here.
    pub(super) fn ready(&self, events: &[Told]) -> Ready {
        self.ready_by(self, events)
    }

    /// The same, but that it takes receivers of the other's CA.
    pub(super) fn ready_by(&self, other: &Receiver, events: &[Told]) -> Ready {
        let ca = other.folder.path().join("keys").join(CA_CERTIFICATE);
        let scheme = if self.tls { "https" } else { "http" };
        let mut hook: Webhook = toml(&format!("{scheme}://{}/hook?for=s3cret", self.address));
        hook.events = events.to_vec();
        hook.secret_file = self.folder.path().join("hook.key");
        hook.ca_file = self.tls.then_some(ca);
        of_webhook(&hook).expect("files as they are to be")
    }

    /// A receiver of traces here, which asks for a header.
    pub(super) fn ready_for_traces(&self) -> Ready {
        let file = self.folder.path().join("header");
        fs::write(&file, "x-key: s3cret\n").expect("written");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("set");
        let url = format!("http://{}/v1/traces", self.address);
        let json = serde_json::json!({ "url": url, "header_file": file });
        let traces: Traces = serde_json::from_value(json).expect("a section");
        of_traces(&traces).expect("files as they are to be")
    }

    /// The next so many; waits for them.
    pub(super) async fn got(&mut self, count: usize) -> Vec<Got> {
        let mut all = Vec::new();
        until("it is told", || {
            all.extend(self.got.try_recv().ok());
            all.len() == count
        })
        .await;
        all
    }

    /// Whether nothing has come, and nothing comes as things stand.
    pub(super) async fn nothing(&mut self) -> bool {
        for _ in 0..10_000 {
            yield_now().await;
        }
        self.got.try_recv().is_err()
    }
}

fn toml(url: &str) -> Webhook {
    let json = serde_json::json!({ "url": url, "secret_file": "" });
    serde_json::from_value(json).expect("a webhook")
}

/// By a CA of its own.
fn certified(folder: &TempDir) -> TlsAcceptor {
    let (ca, keys) = (folder.path().join("ca"), folder.path().join("keys"));
    let now = Unix(u64::from(unix_seconds()));
    let authority = Authority::init(&ca, "prod", None, now).expect("a CA");
    let addresses = vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
    let wanted = Wanted { host: HostId(7), name: "h".to_owned(), addresses };
    let request = make(&keys, &wanted).expect("a request");
    let (grant, _) = authority.sign(&request, LIFE, now).expect("signed");
    grant.install(&keys, now).expect("installed");
    let chain = CertificateDer::pem_file_iter(keys.join(HOST_CERTIFICATE)).expect("there");
    let chain = chain.collect::<Result<Vec<_>, _>>().expect("PEM");
    let key = PrivateKeyDer::from_pem_file(keys.join(HOST_KEY)).expect("PEM");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("TLS")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a key");
    TlsAcceptor::from(Arc::new(config))
}

async fn answer(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    tell: mpsc::UnboundedSender<Got>,
    script: Script,
) {
    let next = script.lock().expect("whole").pop_front().unwrap_or(Answer::Status(204));
    if let Answer::EndlessHead = next {
        return endless_head(stream, tell).await;
    }
    let (close, closed) = oneshot::channel::<()>();
    let close = Mutex::new(Some(close));
    let service = service_fn(|request: Request<Incoming>| {
        let (tell, close) = (&tell, &close);
        async move {
            // Whoever does not wait for it has ended.
            let _ = tell.send(read(request).await);
            let (status, body) = match next {
                Answer::Status(status) | Answer::Later(status, _) => (status, Body::Short),
                Answer::Partly => (200, Body::Partly),
                Answer::Redirect(_) => (302, Body::Short),
                Answer::Endless(status) => (status, Body::Endless),
                Answer::Hang => std::future::pending().await,
                Answer::Close | Answer::EndlessHead => {
                    close.lock().expect("whole").take();
                    std::future::pending().await
                }
            };
            let mut response = Response::builder().status(status);
            if let Answer::Later(_, seconds) = next {
                response = response.header("retry-after", seconds);
            }
            if let Answer::Redirect(port) = next {
                response = response.header("location", format!("http://127.0.0.1:{port}/hook"));
            }
            Ok::<_, Infallible>(response.body(body).expect("a response"))
        }
    });
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        _ended = connection => {}
        Err(_dropped) = closed => {}
    }
}

async fn read(request: Request<Incoming>) -> Got {
    let (head, body) = request.into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    let header = |name: &str| {
        head.headers.get(name).map_or("", |value| value.to_str().expect("text")).to_owned()
    };
    assert_eq!(head.method, "POST");
    Got {
        path: head.uri.to_string(),
        kind: header("content-type"),
        id: header("webhook-id"),
        timestamp: header("webhook-timestamp"),
        signature: header("webhook-signature"),
        key: header("x-key"),
        delivery: Parsed(serde_json::from_slice(&body).ok()),
        body,
    }
}

/// What no server library would send.
async fn endless_head(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    tell: mpsc::UnboundedSender<Got>,
) {
    let mut asked = Vec::new();
    while !asked.ends_with(b"}") {
        if stream.read_buf(&mut asked).await.expect("read") == 0 {
            return;
        }
    }
    let at = asked.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
    let body = Bytes::copy_from_slice(&asked[at..]);
    let delivery = serde_json::from_slice(&body).expect("a delivery");
    let none = String::new;
    let got = Got {
        path: none(),
        kind: none(),
        id: none(),
        timestamp: none(),
        signature: none(),
        body,
        key: none(),
        delivery: Parsed(Some(delivery)),
    };
    let _ = tell.send(got);
    let mut sent = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
    while sent.is_ok() {
        sent = stream.write_all(b"x-more: and more\r\n").await;
    }
}

/// No body, one of OTLP's answers, or one of zeros without an end.
enum Body {
    Short,
    Partly,
    Endless,
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        const PART: Bytes = Bytes::from_static(&[b'0'; 4096]);
        const PARTLY: &[u8] =
            b"{\"partialSuccess\":{\"rejectedSpans\":\"1\",\"errorMessage\":\"too old\"}}";
        std::task::Poll::Ready(match *self {
            Body::Short => None,
            Body::Partly => {
                *self = Body::Short;
                Some(Ok(Frame::data(Bytes::from_static(PARTLY))))
            }
            Body::Endless => Some(Ok(Frame::data(PART))),
        })
    }
}
