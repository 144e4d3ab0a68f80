//! The transport between agents, on loopback. Each test has addresses of its own in 127.77.0.0/16, so that all can run at
//! once; loopback brings multicast and broadcast to every socket that is bound for them, as a network does.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use agent::net::{
    Authentication, DATAGRAM_MAX, DELIVERY_MAX, GOSSIP_MAX, Heard, Net, NetSettings, RequestMode,
    To, seal,
};
use decide::membership::inventory::{Inventory, Listed, ListedState};
use decide::migrate::hypervisor::{CopyParameters, Needs, VmDefinition};
use decide::policy::settings::Encryption;
use decide::units::{BitsPerSec, Cost, Epoch, HostId, Mib, MoveId, VmId};
use decide::usage::load::Load;
use decide::wire::message::{Body, Confirmation, Message, Request};
use decide::wire::{self, proto};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tonic::transport::Endpoint;

const PORT: u16 = 7788;
/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(10);

struct Agent {
    net: Net,
    heard: mpsc::Receiver<Heard>,
}

/// Without keys nobody proves who it is.
fn called(at: SocketAddr) -> To {
    To { host: HostId(2), at }
}

fn at(test: u8, host: u8) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 77, test, host)), PORT)
}

fn settings(address: IpAddr, request: RequestMode) -> NetSettings {
    NetSettings {
        address,
        port: PORT,
        request,
        multicast_ttl: 1,
        authentication: Authentication::None,
        authority: "none".into(),
    }
}

async fn start(at: SocketAddr, request: RequestMode) -> Agent {
    let (sender, heard) = mpsc::channel(256);
    let net = Net::start(settings(at.ip(), request), sender).await.expect("it starts");
    Agent { net, heard }
}

impl Agent {
    async fn hears(&mut self) -> Heard {
        timeout(PATIENCE, self.heard.recv()).await.expect("something is heard").expect("it runs")
    }

    async fn hears_bad(&mut self) -> (IpAddr, String) {
        let heard = self.hears().await;
        let Heard::Bad { from, why } = heard else { panic!("{heard:?}") };
        (from.ip(), why)
    }

    async fn hears_undelivered(&mut self) -> (SocketAddr, u32, String) {
        let heard = self.hears().await;
        let Heard::Undelivered { to, message, why } = heard else { panic!("{heard:?}") };
        (to, message.move_id.counter, why)
    }

    async fn hears_message(&mut self) -> Message {
        let heard = self.hears().await;
        let Heard::Message(message) = heard else { panic!("{heard:?}") };
        message
    }
}

fn message(counter: u32, body: Body) -> Message {
    let from = HostId(1);
    Message { from, move_id: MoveId { host: from, incarnation: 1, counter }, body }
}

fn release(counter: u32) -> Message {
    message(counter, Body::Release)
}

fn request(asked: usize) -> Message {
    let word = || "n".repeat(63);
    message(
        1,
        Body::Request(Box::new(Request {
            attempt: 1,
            vm: VmId(7),
            name: "web1".repeat(60),
            demand: Load::default(),
            memory: Mib(128),
            needs: Needs { driver: word(), machine: word(), accelerator: word(), bridge: word() },
            useful_max: Some(Cost(5)),
            policy_hash: 9,
            asked: vec![HostId(2); asked],
            answer_within: Duration::from_millis(500),
            epoch: 1,
            tags: Vec::new(),
            exchange: None,
            half_of: None,
            followers: Vec::new(),
            forced: false,
            joins: false,
            encryption: Encryption::Off,
        })),
    )
}

#[tokio::test]
async fn a_request_by_multicast_reaches_every_host_and_comes_back() {
    let request_mode = |octet| {
        let group = SocketAddrV4::new(Ipv4Addr::new(239, 77, 1, octet), PORT);
        RequestMode::Multicast { group }
    };
    let mut source = start(at(1, 1), request_mode(1)).await;
    let mut one = start(at(1, 2), request_mode(1)).await;
    let mut two = start(at(1, 3), request_mode(1)).await;
    let mut elsewhere = start(at(1, 4), request_mode(2)).await;
    source.net.cast(&request(0), &[]);
    for agent in [&mut source, &mut one, &mut two] {
        assert_eq!(agent.hears_message().await, request(0));
    }
    // What belongs to another group never came: the first it hears is what came after.
    source.net.gossip(at(1, 4), b"after");
    assert_eq!(elsewhere.hears().await, Heard::Gossip { from: at(1, 1), bytes: b"after".to_vec() });
}

#[tokio::test]
async fn a_request_by_broadcast_reaches_every_host() {
    for to in [Ipv4Addr::new(127, 255, 255, 255), Ipv4Addr::BROADCAST] {
        let request_mode = RequestMode::Broadcast { to };
        let source = start(at(2, 1), request_mode).await;
        let mut one = start(at(2, 2), request_mode).await;
        let mut two = start(at(2, 3), request_mode).await;
        source.net.cast(&request(0), &[]);
        for agent in [&mut one, &mut two] {
            assert_eq!(agent.hears_message().await, request(0), "{to}");
        }
        for agent in [source, one, two] {
            agent.net.stop().await;
        }
    }
}

#[tokio::test]
async fn a_request_by_fan_out_reaches_those_who_are_known() {
    let mut source = start(at(3, 1), RequestMode::FanOut).await;
    let mut one = start(at(3, 2), RequestMode::FanOut).await;
    let mut two = start(at(3, 3), RequestMode::FanOut).await;
    source.net.cast(&request(0), &[at(3, 2), at(3, 3)]);
    for agent in [&mut one, &mut two] {
        assert_eq!(agent.hears_message().await, request(0));
    }
    one.net.gossip(at(3, 1), &[5; GOSSIP_MAX]);
    let gossip = Heard::Gossip { from: at(3, 2), bytes: vec![5; GOSSIP_MAX] };
    assert_eq!(source.hears().await, gossip);
}

#[tokio::test]
async fn messages_to_one_peer_arrive_in_order() {
    let source = start(at(4, 1), RequestMode::FanOut).await;
    let mut target = start(at(4, 2), RequestMode::FanOut).await;
    for batch in 0..5 {
        for n in 0..60 {
            source.net.send(called(at(4, 2)), release(batch * 60 + n));
        }
        for n in 0..60 {
            assert_eq!(target.hears_message().await, release(batch * 60 + n));
        }
    }
}

#[tokio::test]
async fn a_peer_that_is_down_is_told_of_and_one_that_comes_back_is_reached_again() {
    let mut source = start(at(5, 1), RequestMode::FanOut).await;
    for round in 0..3 {
        source.net.send(called(at(5, 2)), release(10 * round + 1));
        let (to, counter, why) = source.hears_undelivered().await;
        assert_eq!((to, counter), (at(5, 2), 10 * round + 1));
        assert!(why.contains("refused"), "{why}");
        let mut target = start(at(5, 2), RequestMode::FanOut).await;
        source.net.send(called(at(5, 2)), release(10 * round + 2));
        assert_eq!(target.hears_message().await, release(10 * round + 2));
        target.net.stop().await;
        // Down and up again between two messages: nothing is lost.
        let mut target = start(at(5, 2), RequestMode::FanOut).await;
        source.net.send(called(at(5, 2)), release(10 * round + 3));
        assert_eq!(target.hears_message().await, release(10 * round + 3));
        target.net.stop().await;
    }
}

#[tokio::test]
async fn a_peer_that_never_answers_delays_nothing_beyond_the_deadline() {
    let mut source = start(at(6, 1), RequestMode::FanOut).await;
    // The kernel accepts for it, nobody ever reads.
    let _silent = TcpListener::bind(at(6, 2)).await.unwrap();
    let mut well = start(at(6, 3), RequestMode::FanOut).await;
    let began = Instant::now();
    for n in 0..5 {
        source.net.send(called(at(6, 2)), release(n));
    }
    source.net.send(called(at(6, 3)), release(9));
    assert_eq!(well.hears_message().await, release(9));
    assert!(began.elapsed() < DELIVERY_MAX);
    for n in 0..5 {
        let (_, counter, why) = source.hears_undelivered().await;
        assert_eq!((counter, why.as_str()), (n, "no answer within 2 s"));
    }
    let waited = began.elapsed();
    assert!(waited >= DELIVERY_MAX, "{waited:?}");
    assert!(waited < 2 * DELIVERY_MAX, "each waited for the one before: {waited:?}");
}

#[tokio::test]
async fn a_full_queue_is_told_of_at_once() {
    let mut source = start(at(7, 1), RequestMode::FanOut).await;
    let _silent = TcpListener::bind(at(7, 2)).await.unwrap();
    // All are sent before the peer's task has had a turn, so exactly the queue's 64 wait.
    for n in 0..70 {
        source.net.send(called(at(7, 2)), release(n));
    }
    for n in 64..70 {
        let (_, counter, why) = source.hears_undelivered().await;
        assert_eq!((counter, why.as_str()), (n, "64 messages to it are waiting already"));
    }
}

#[tokio::test]
async fn a_busy_agent_holds_its_peers_back_and_loses_nothing_it_took() {
    let (sender, mut heard) = mpsc::channel(1);
    let _target = Net::start(settings(at(8, 2).ip(), RequestMode::FanOut), sender).await.unwrap();
    let mut source = start(at(8, 1), RequestMode::FanOut).await;
    for n in 0..3 {
        source.net.send(called(at(8, 2)), release(n));
    }
    // One is taken in; for the next there is no place until its deadline.
    let (_, counter, _) = source.hears_undelivered().await;
    assert_eq!(counter, 1);
    assert_eq!(heard.recv().await, Some(Heard::Message(release(0))));
}

#[tokio::test]
async fn garbled_datagrams_are_told_of_and_life_goes_on() {
    let mut agent = start(at(9, 1), RequestMode::FanOut).await;
    let stranger = UdpSocket::bind(at(9, 2)).await.unwrap();
    let sealed = |bytes: &[u8]| seal::seal(seal::Kind::Request, bytes);
    let bad: [(Vec<u8>, &str); 6] = [
        (b"hello, is there anybody?".to_vec(), "a datagram that is not of this protocol"),
        (Vec::new(), "a datagram of 0 bytes, too short to be ours"),
        (sealed(&[0xff; 30]), "not a message: "),
        (sealed(&[]), "from is missing"),
        (sealed(&wire::encode(&release(1))), "a release came to all, only a request may"),
        (vec![0; DATAGRAM_MAX + 1], "a datagram of more than 1400 bytes"),
    ];
    for (datagram, expected) in bad {
        stranger.send_to(&datagram, at(9, 1)).await.unwrap();
        let (from, why) = agent.hears_bad().await;
        assert_eq!(from, at(9, 2).ip());
        assert!(why.starts_with(expected), "{why}");
    }
    stranger.send_to(&sealed(&wire::encode(&request(0))), at(9, 1)).await.unwrap();
    assert_eq!(agent.hears_message().await, request(0));
}

/// Calls `Deliver` with another message than it takes; what the peer answers.
async fn call(
    from: SocketAddr,
    to: SocketAddr,
    body: impl prost::Message + 'static,
) -> tonic::Status {
    let endpoint = Endpoint::from_shared(format!("http://{to}")).expect("an address");
    let channel = endpoint.local_address(Some(from.ip())).connect_lazy();
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.expect("it is ready");
    let path = tonic::codegen::http::uri::PathAndQuery::from_static("/evenkeel.v1.Peer/Deliver");
    let codec = tonic_prost::ProstCodec::<_, proto::Received>::default();
    let answer = client.unary(tonic::Request::new(body), path, codec).await;
    answer.map(tonic::Response::into_inner).expect_err("it is refused")
}

#[tokio::test]
async fn garbled_calls_are_told_of_and_life_goes_on() {
    let mut agent = start(at(10, 1), RequestMode::FanOut).await;
    let (peer, us) = (at(10, 2), at(10, 1));
    let status = call(
        peer,
        us,
        proto::Acceptance { cost: Some(1), reserved_us: Some(1), ..proto::Acceptance::default() },
    )
    .await;
    let (from, why) = agent.hears_bad().await;
    assert_eq!((from, why.as_str()), (peer.ip(), status.message()));
    assert!(why.contains("invalid wire type"), "{why}");

    call(peer, us, proto::Refusal { why: "no".to_owned(), known_epoch: None }).await;
    assert_eq!(agent.hears_bad().await.1, "from: an id of 2 bytes instead of 16");

    let mut newer = proto::Message::from(&release(1));
    newer.body = None;
    call(peer, us, newer).await;
    assert_eq!(agent.hears_bad().await.1, "unknown kind of message, from a newer version?");

    call(peer, us, proto::Refusal { why: "n".repeat(300 * 1024), known_epoch: None }).await;
    let (_, why) = agent.hears_bad().await;
    assert!(why.contains("the limit is: 262144 bytes"), "{why}");

    // Not even HTTP: the connection is closed, and told of.
    let mut noise = TcpStream::connect(us).await.unwrap();
    noise.write_all(&[0xa5; 4096]).await.unwrap();
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, noise.read_to_end(&mut answer)).await.expect("it is closed");
    let (_, why) = agent.hears_bad().await;
    assert!(why.ends_with("it does not begin as HTTP/2"), "{why}");

    let source = start(peer, RequestMode::FanOut).await;
    source.net.send(called(us), release(3));
    assert_eq!(agent.hears_message().await, release(3));
}

#[tokio::test]
async fn what_is_too_long_stays_with_its_sender() {
    let mut source = start(at(11, 1), RequestMode::FanOut).await;
    source.net.cast(&request(64), &[at(11, 2)]);
    let (to, _, why) = source.hears_undelivered().await;
    assert_eq!(to, at(11, 2));
    assert!(why.ends_with("does not fit a datagram of 1400: ask fewer hosts by name"), "{why}");

    let definition = VmDefinition {
        vm: VmId(7),
        name: "web1".to_owned(),
        memory: Mib(128),
        vcpus: 1,
        needs: Needs::default(),
        start: "s".repeat(70_000),
        tags: Vec::new(),
        local_disks: Mib(0),
        witness: None,
    };
    let copy = CopyParameters {
        bandwidth: BitsPerSec(1),
        downtime_max: Duration::from_millis(100),
        multifd: false,
        encrypted: false,
        auto_converge: false,
        copy_disks: false,
    };
    let epoch = Epoch { number: 1, owner: HostId(1) };
    let (unpaid, measured) = (0, false);
    let confirmation =
        Confirmation { epoch, definition, copy, unpaid, measured, measured_after: Duration::ZERO };
    let confirmation = Body::Confirmation(Box::new(confirmation));
    source.net.send(called(at(11, 2)), message(1, confirmation));
    let (_, _, why) = source.hears_undelivered().await;
    assert_eq!(why, "definition.start: 70000, at most 65536");

    source.net.cast(&release(1), &[at(11, 2)]);
    let (_, _, why) = source.hears_undelivered().await;
    assert_eq!(why, "a release cannot go to all, only a request can");
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused_with_a_reason() {
    let refused = async |settings| {
        let (sender, _heard) = mpsc::channel(1);
        format!("{:#}", Net::start(settings, sender).await.expect_err("it does not start"))
    };
    let here = at(12, 1).ip();
    let why = refused(settings("10.0.0.1".parse().unwrap(), RequestMode::FanOut)).await;
    assert!(why.starts_with("--insecure is refused on 10.0.0.1"), "{why}");
    let why = refused(settings("::1".parse().unwrap(), RequestMode::BROADCAST)).await;
    assert!(why.starts_with("broadcast needs an IPv4 address"), "{why}");
    let group = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), PORT);
    let why = refused(settings(here, RequestMode::Multicast { group })).await;
    assert_eq!(why, "10.0.0.1 is not a multicast group");
    let _first = start(at(12, 1), RequestMode::FanOut).await;
    let why = refused(settings(here, RequestMode::FanOut)).await;
    assert!(why.starts_with("listening on TCP 127.77.12.1:7788: Address already in use"), "{why}");
}

#[tokio::test]
async fn ipv6_works_by_fan_out() {
    let here = SocketAddr::new("::1".parse().unwrap(), PORT);
    let mut agent = start(here, RequestMode::FanOut).await;
    agent.net.cast(&request(0), &[here]);
    assert_eq!(agent.hears_message().await, request(0));
    agent.net.send(called(here), release(1));
    assert_eq!(agent.hears_message().await, release(1));
}

fn inventory(vms: usize) -> Inventory {
    let listed = Listed {
        vm: VmId(7),
        name: "web1".to_owned(),
        epoch: 3,
        state: ListedState::Running,
        memory: Mib(128),
        tags: Vec::new(),
    };
    Inventory { hash: 5, vms: vec![listed; vms], left_out: 0, labels: Vec::new() }
}

/// What came of fetching the VMs of host 2 at this address.
async fn fetched(agent: &mut Agent, at: SocketAddr) -> Result<Inventory, String> {
    agent.net.fetch(HostId(2), at);
    let Heard::Inventory { host: HostId(2), fetched } = agent.hears().await else {
        panic!("something else was heard")
    };
    fetched
}

#[tokio::test]
async fn a_host_lists_its_vms_as_it_last_said_to_whoever_fetches_them() {
    let mut asker = start(at(20, 1), RequestMode::FanOut).await;
    let asked = start(at(20, 2), RequestMode::FanOut).await;
    assert_eq!(fetched(&mut asker, at(20, 2)).await.map(|list| list.vms), Ok(vec![]));
    for vms in [512, 1] {
        asked.net.list(&inventory(vms));
        assert_eq!(fetched(&mut asker, at(20, 2)).await, Ok(inventory(vms)));
    }
}

#[tokio::test]
async fn a_list_that_is_too_long_and_a_host_that_is_not_there_are_said_to_the_asker() {
    let mut asker = start(at(21, 1), RequestMode::FanOut).await;
    let asked = start(at(21, 2), RequestMode::FanOut).await;
    asked.net.list(&inventory(513));
    let why = fetched(&mut asker, at(21, 2)).await.unwrap_err();
    assert_eq!(why, "inventory.vms: 513, at most 512");
    asked.net.list(&inventory(100_000));
    let why = fetched(&mut asker, at(21, 2)).await.unwrap_err();
    assert!(why.contains("too large"), "{why}");
    let why = fetched(&mut asker, at(21, 3)).await.unwrap_err();
    assert!(why.contains("Connection refused"), "{why}");
    // Who takes the call and never answers.
    let _silent = TcpListener::bind(at(21, 4)).await.unwrap();
    let why = fetched(&mut asker, at(21, 4)).await.unwrap_err();
    assert_eq!(why, "no answer within 2 s");
}
