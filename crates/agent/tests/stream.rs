//! A usage history between two agents on loopback: streamed, broken off, sent again, garbled on purpose. Addresses of its own in
//! 127.78.0.0/16.

#![expect(clippy::print_stdout, reason = "figures are read by people")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use agent::net::{Authentication, Heard, Net, NetSettings, Place, RequestMode, To};
use decide::units::{HostId, MoveId, VmId};
use decide::usage::history::aged::{AgedHistory, AgedLevel, WholeHistory};
use decide::usage::history::bucket::Bucket;
use decide::usage::history::levels::{Closed, Level};
use decide::usage::history::sample::{Aged, METRICS, Sample};
use decide::wire::limits::{PART_MAX, WHOLE_MAX};
use decide::wire::message::{Body, Message};
use decide::wire::{self, proto};
use drivers::store::history::travel;
use proto::history_part::Part;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tonic::body::Body as HttpBody;
use tonic::codegen::http;
use tonic::transport::{Endpoint, Server};
use tonic::{Code, Request, Response, Status};

const PORT: u16 = 7789;
/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(10);
const VM: VmId = VmId(7);
const MOVE: MoveId = MoveId { host: HostId(1), incarnation: 1, counter: 5 };

/// Without keys nobody proves who it is.
fn called(at: SocketAddr) -> To {
    To { host: HostId(2), at }
}

fn at(test: u8, host: u8) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 78, test, host)), PORT)
}

struct Agent {
    net: Net,
    heard: mpsc::Receiver<Heard>,
}

async fn start(at: SocketAddr) -> Agent {
    let (sender, heard) = mpsc::channel(256);
    let settings = NetSettings {
        address: at.ip(),
        port: PORT,
        request: RequestMode::FanOut,
        multicast_ttl: 1,
        authentication: Authentication::None,
        authority: "none".into(),
    };
    Agent { net: Net::start(settings, sender).await.expect("it starts"), heard }
}

impl Agent {
    async fn hears(&mut self) -> Heard {
        timeout(PATIENCE, self.heard.recv()).await.expect("something is heard").expect("it runs")
    }

    /// Nothing was heard before this release, which comes after all that was sent before.
    async fn hears_nothing_before(&mut self, source: &Agent, to: SocketAddr) {
        let release = Message { from: HostId(1), move_id: MOVE, body: Body::Release };
        source.net.send(called(to), release.clone());
        assert_eq!(self.hears().await, Heard::Message(release));
    }

    fn sends(&self, to: SocketAddr, whole: &WholeHistory) {
        let (reply, stored) = oneshot::channel();
        reply.send(whole.levels.clone()).expect("it is awaited");
        self.net.send_history(called(to), message(whole), VM, stored);
    }
}

fn message(whole: &WholeHistory) -> Message {
    let body = Body::History(Box::new(whole.recent.clone()));
    Message { from: HostId(1), move_id: MOVE, body }
}

fn level(level: Level, count: u64) -> Option<AgedLevel> {
    let span = |number: u64| {
        let mut bucket = Bucket::default();
        let value = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 44;
        bucket.add(&Sample::of([value; METRICS]), 1);
        bucket.add(&Sample::of([number; METRICS]), 1);
        Closed { level, start: level.at(number), stats: bucket.stats().expect("two samples") }
    };
    travel::packed(level.at(count + 1), level, &(0..count).map(span).collect::<Vec<_>>())
}

/// Ten minutes by seconds, and all that is stored of a month.
fn whole() -> WholeHistory {
    let aged =
        |age: u64| Aged { age: Duration::from_secs(age), sample: Sample::of([age; METRICS]) };
    let samples = (0..600).rev().map(aged).collect();
    let levels = Level::ALL.into_iter().filter_map(|one| level(one, 2_880)).collect();
    WholeHistory { recent: AgedHistory { samples, ..AgedHistory::default() }, levels }
}

fn heard(whole: &WholeHistory) -> Heard {
    let (message, bytes) = (message(whole), wire::encode_history(whole));
    Heard::History { message, vm: VM, bytes, place: Place::default() }
}

/// Where the first connection through it breaks.
#[derive(Clone, Copy)]
enum Break {
    /// After so many bytes from the source.
    After(u64),
    /// When the target answers.
    AtAnswer,
}

/// Passes connections on to `to`; the first one breaks.
async fn broken_once(at: SocketAddr, to: SocketAddr, first: Break) {
    let listener = TcpListener::bind(at).await.expect("the address is free");
    tokio::spawn(async move {
        let mut breaks = std::iter::once(first);
        while let Ok((from, _)) = listener.accept().await {
            let to = TcpStream::connect(to).await.expect("it listens");
            tokio::spawn(pass(from, to, breaks.next()));
        }
    });
}

/// Passes on what is said, until either side ends or it breaks; then both are closed.
async fn pass(mut from: TcpStream, mut to: TcpStream, at: Option<Break>) {
    let ((from_read, mut from_write), (to_read, mut to_write)) = (from.split(), to.split());
    let most = if let Some(Break::After(bytes)) = at { bytes } else { u64::MAX };
    let mut out = from_read.take(most);
    let mut answers = to_read;
    let back = async {
        if let Some(Break::AtAnswer) = at {
            frames_before_answer(&mut answers, &mut from_write).await
        } else {
            tokio::io::copy(&mut answers, &mut from_write).await.map(|_bytes| ())
        }
    };
    tokio::select! {
        _ = tokio::io::copy(&mut out, &mut to_write) => {}
        _ = back => {}
    }
}

/// Passes frames of HTTP/2 on until one with headers comes, which begins an answer (RFC 9113, sections 4.1 and 6.2).
async fn frames_before_answer(
    from: &mut (impl AsyncReadExt + Unpin),
    to: &mut (impl AsyncWriteExt + Unpin),
) -> std::io::Result<()> {
    loop {
        let mut head = [0; 9];
        from.read_exact(&mut head).await?;
        if head[3] == 1 {
            return Ok(());
        }
        let mut body = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        from.read_exact(&mut body).await?;
        to.write_all(&[&head[..], &body].concat()).await?;
    }
}

#[tokio::test]
async fn a_history_arrives_whole_with_what_is_stored_of_it() {
    let (source, mut target) = (start(at(1, 1)).await, start(at(1, 2)).await);
    source.sends(at(1, 2), &whole());
    assert_eq!(target.hears().await, heard(&whole()));
    let Heard::History { bytes, .. } = heard(&whole()) else { panic!("it is one") };
    println!("{} bytes", bytes.len());
    assert!(bytes.len() > 2 * PART_MAX, "it is in parts");
    assert_eq!(wire::decode_history(&bytes), Ok(whole()));
    target.hears_nothing_before(&source, at(1, 2)).await;

    // What is stored is not told: what is in memory goes alone.
    let (reply, stored) = oneshot::channel();
    drop(reply);
    source.net.send_history(called(at(1, 2)), message(&whole()), VM, stored);
    let alone = WholeHistory { levels: Vec::new(), ..whole() };
    assert_eq!(target.hears().await, heard(&alone));
}

#[tokio::test]
async fn a_stream_that_breaks_in_the_middle_is_sent_again_and_heard_once() {
    let (source, mut target) = (start(at(2, 1)).await, start(at(2, 2)).await);
    broken_once(at(2, 3), at(2, 2), Break::After(100_000)).await;
    source.sends(at(2, 3), &whole());
    assert_eq!(target.hears().await, heard(&whole()));
    target.hears_nothing_before(&source, at(2, 3)).await;
}

#[tokio::test]
async fn a_history_whose_answer_was_lost_comes_again_just_the_same() {
    let (mut source, mut target) = (start(at(3, 1)).await, start(at(3, 2)).await);
    broken_once(at(3, 3), at(3, 2), Break::AtAnswer).await;
    source.sends(at(3, 3), &whole());
    assert_eq!(target.hears().await, heard(&whole()));
    assert_eq!(target.hears().await, heard(&whole()));
    target.hears_nothing_before(&source, at(3, 3)).await;
    assert!(source.heard.try_recv().is_err(), "it has arrived, as far as its source knows");
}

#[tokio::test]
async fn a_history_keeps_its_place_until_whoever_heard_it_is_done_with_it() {
    let mut target = start(at(7, 2)).await;
    let bytes = wire::encode_history(&whole());
    let mut held = Vec::new();
    for _ in 0..4 {
        streamed(at(7, 2), parts(head(&bytes), &bytes)).await.expect("there is a place");
        held.push(target.hears().await);
    }
    let refused = streamed(at(7, 2), parts(head(&bytes), &bytes)).await.unwrap_err();
    assert!([Code::Cancelled, Code::DeadlineExceeded].contains(&refused.code()), "{refused}");
    held.pop();
    streamed(at(7, 2), parts(head(&bytes), &bytes)).await.expect("one is free");
}

/// An agent of the version before: it knows messages, and no streams.
#[derive(Clone)]
struct Before {
    heard: mpsc::Sender<proto::Message>,
}

impl tonic::server::NamedService for Before {
    const NAME: &'static str = "evenkeel.v1.Peer";
}

impl tonic::server::UnaryService<proto::Message> for Before {
    type Response = proto::Received;
    type Future = tonic::codegen::BoxFuture<Response<proto::Received>, Status>;

    fn call(&mut self, request: Request<proto::Message>) -> Self::Future {
        let heard = self.heard.clone();
        Box::pin(async move {
            heard.send(request.into_inner()).await.expect("it is awaited");
            Ok(Response::new(proto::Received {}))
        })
    }
}

impl tonic::codegen::Service<http::Request<HttpBody>> for Before {
    type Response = http::Response<HttpBody>;
    type Error = std::convert::Infallible;
    type Future = tonic::codegen::BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<HttpBody>) -> Self::Future {
        let before = self.clone();
        Box::pin(async move {
            if request.uri().path() != "/evenkeel.v1.Peer/Deliver" {
                return Ok(Status::unimplemented("").into_http());
            }
            let codec = tonic_prost::ProstCodec::default();
            Ok(tonic::server::Grpc::new(codec).unary(before, request).await)
        })
    }
}

#[tokio::test]
async fn a_peer_of_the_version_before_gets_what_decides_as_one_message() {
    let source = start(at(4, 1)).await;
    let (heard, mut messages) = mpsc::channel(4);
    let serving = Server::builder().add_service(Before { heard }).serve(at(4, 2));
    let serving = tokio::spawn(serving);
    source.sends(at(4, 2), &whole());
    let came = timeout(PATIENCE, messages.recv()).await.expect("it comes").expect("it runs");
    assert_eq!(Message::try_from(came), Ok(message(&whole())));
    serving.abort();
}

/// A head for these bytes.
fn head(bytes: &[u8]) -> proto::HistoryHead {
    proto::HistoryHead {
        from: HostId(1).0.to_be_bytes().to_vec(),
        move_id: Some(MOVE.into()),
        vm: VM.0.to_be_bytes().to_vec(),
        form: 1,
        length: bytes.len() as u64,
        sha256: Sha256::digest(bytes).to_vec(),
    }
}

fn parts(head: proto::HistoryHead, bytes: &[u8]) -> Vec<Part> {
    let parts = bytes.chunks(PART_MAX).map(|part| Part::Bytes(part.to_vec()));
    std::iter::once(Part::Head(head)).chain(parts).collect()
}

/// What the peer answers to such a stream.
async fn streamed(to: SocketAddr, parts: Vec<Part>) -> Result<(), Status> {
    let endpoint = Endpoint::from_shared(format!("http://{to}")).expect("an address");
    let mut client = tonic::client::Grpc::new(endpoint.connect_lazy());
    client.ready().await.expect("it is ready");
    let path = http::uri::PathAndQuery::from_static("/evenkeel.v1.Peer/History");
    let codec = tonic_prost::ProstCodec::<_, proto::Received>::default();
    let parts = parts.into_iter().map(|part| proto::HistoryPart { part: Some(part) });
    let parts = tokio_stream::iter(parts.collect::<Vec<_>>());
    client.client_streaming(Request::new(parts), path, codec).await.map(|_: Response<_>| ())
}

#[tokio::test]
async fn a_stream_that_is_not_what_its_head_says_may_be_sent_again() {
    let mut target = start(at(5, 2)).await;
    let bytes = wire::encode_history(&whole());
    let mut other = bytes.clone();
    other[1_000] ^= 1;
    let long = [Part::Head(head(&bytes)), Part::Bytes(vec![0; PART_MAX + 1])].to_vec();
    let cut = bytes.len() - 1;
    for (parts, code, words) in [
        (vec![Part::Bytes(Vec::new())], Code::InvalidArgument, "begins without its head"),
        (vec![], Code::InvalidArgument, "begins without its head"),
        (
            parts(proto::HistoryHead { vm: vec![1], ..head(&bytes) }, &bytes),
            Code::InvalidArgument,
            "without its VM",
        ),
        (parts(head(&bytes), &other), Code::DataLoss, "their hash differs"),
        (parts(head(&bytes), &bytes[..cut]), Code::DataLoss, "cut off after"),
        (parts(head(&bytes[..cut]), &bytes), Code::DataLoss, "of more than the"),
        (long, Code::DataLoss, "of 65537 bytes, at most 65536"),
        (vec![Part::Head(head(&bytes)); 2], Code::DataLoss, "no bytes of it"),
    ] {
        let status = streamed(at(5, 2), parts).await.expect_err(words);
        println!("{}", status.message());
        assert!(status.code() == code && status.message().contains(words), "{status:?}");
        let Heard::Bad { why, .. } = target.hears().await else { panic!("it is told") };
        assert_eq!(why, status.message());
    }
    assert_eq!(streamed(at(5, 2), parts(head(&bytes), &bytes)).await.map_err(|s| s.code()), Ok(()));
    assert_eq!(target.hears().await, heard(&whole()));
}

/// The most memory that this process ever had, since it was last told to forget.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("it can be read");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("the kernel says");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}

#[tokio::test]
async fn a_history_that_cannot_be_is_refused_by_name_and_costs_little() {
    let mut target = start(at(6, 2)).await;
    // Once in good order, so that what every history needs has been allocated.
    let bytes = wire::encode_history(&whole());
    streamed(at(6, 2), parts(head(&bytes), &bytes)).await.expect("it is taken in");
    assert_eq!(target.hears().await, heard(&whole()));

    let changed = |change: &dyn Fn(&mut WholeHistory)| {
        let mut whole = whole();
        change(&mut whole);
        let bytes = wire::encode_history(&whole);
        parts(head(&bytes), &bytes)
    };
    let claims = |length| proto::HistoryHead { length, ..head(&bytes) };
    let newer = proto::HistoryHead { form: 2, ..head(&bytes) };
    let noise = vec![0x5a; 300_000];
    let samples = proto::WholeHistory { recent: [0x0a, 0].repeat(130_000), levels: Vec::new() };
    let samples = prost::Message::encode_to_vec(&samples);
    let cases = [
        (parts(claims(1_000_000_000_000), &bytes), "of 1000000000000 bytes, at most 1048576"),
        (parts(claims(WHOLE_MAX as u64 + 1), &[]), "of 1048577 bytes"),
        (parts(head(&noise), &noise), "history: not of its form"),
        (parts(head(&samples), &samples), "history.samples: 130000, at most 600"),
        (
            changed(&|whole| whole.levels[1].newest_age = Duration::ZERO),
            "the newest of its minutes is not over yet",
        ),
        (
            changed(&|whole| whole.levels[2].newest_age = Duration::from_micros(u64::MAX - 9)),
            "its quarters of an hour are from a time that cannot be: ahead",
        ),
        (changed(&|whole| whole.levels[1].blocks.swap(0, 1)), "its minutes are not in order"),
        (
            changed(&|whole| whole.levels[0].blocks[0].packed[40] ^= 0x55),
            "its spans of ten seconds: ",
        ),
    ];
    std::fs::write("/proc/self/clear_refs", "5").expect("the peak is forgotten");
    let before = peak_kib();
    for (parts, words) in cases {
        // A refusal of a claim may come while the rest is still under way: then the stream is cut.
        let _ = streamed(at(6, 2), parts).await;
        let came = target.hears().await;
        let Heard::BadHistory { from: HostId(1), move_id: MOVE, why } = came else {
            panic!("{words}: {came:?}")
        };
        println!("{why}");
        assert!(why.contains(words), "{why}");
    }
    // Then the message of the version before is sent.
    let refused = streamed(at(6, 2), parts(newer, &bytes)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented, "{refused}");
    let cost = peak_kib() - before;
    println!("at the most {cost} KiB more than before");
    assert!(cost <= 10 * 1024, "{cost} KiB");
}
