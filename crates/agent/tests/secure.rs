//! Agents with keys, on loopback: what a host of the cluster may say, and what strangers, forgers and the revoked may not. Addresses
//! of its own in 127.79.0.0/16.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use agent::clock::unix_seconds;
use agent::net::{Authentication, GOSSIP_MAX, Heard, Net, NetSettings, RequestMode, To, join};
use decide::membership::inventory::Inventory;
use decide::units::{HostId, MoveId};
use decide::wire::message::{Body, Message};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::time::timeout;
use trust::authority::{Authority, LIFE};
use trust::identity::Unix;
use trust::join::Token;
use trust::keys::Keys;
use trust::request::{Wanted, make};
use trust::seal::Sealer;
use trust::window::Life;

const PORT: u16 = 7790;
/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

fn at(test: u8, host: u8) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 79, test, host)), PORT)
}

fn to(test: u8, host: u8) -> To {
    To { host: HostId(u128::from(host)), at: at(test, host) }
}

fn now() -> Unix {
    Unix(u64::from(unix_seconds()))
}

struct Cluster {
    folder: tempfile::TempDir,
    authority: Authority,
    test: u8,
}

impl Cluster {
    fn new(test: u8) -> Cluster {
        let folder = tempfile::tempdir().expect("a folder");
        let then = Unix(now().0 - LIFE.as_secs() - 100);
        let authority = Authority::init(&folder.path().join("ca"), "c", None, then);
        Cluster { authority: authority.expect("a CA"), folder, test }
    }

    fn keys_folder(&self, host: u8) -> PathBuf {
        self.folder.path().join(format!("keys{host}"))
    }

    fn keys(&self, host: u8) -> Arc<Keys> {
        self.keys_of(host, now())
    }

    fn keys_of(&self, host: u8, then: Unix) -> Arc<Keys> {
        let folder = self.keys_folder(host);
        let request = make(&folder, &self.wanted(host)).expect("a request");
        let (grant, _) = self.authority.sign(&request, LIFE, then).expect("signed");
        grant.install(&folder, now()).expect("installed");
        Arc::new(Keys::load(&folder).expect("loaded"))
    }

    fn wanted(&self, host: u8) -> Wanted {
        let addresses = vec![at(self.test, host).ip()];
        Wanted { host: HostId(u128::from(host)), name: format!("host{host}"), addresses }
    }

    /// Where the CA is.
    fn ca(&self) -> PathBuf {
        self.folder.path().join("ca")
    }

    async fn agent(&self, host: u8, incarnation: u32) -> Agent {
        self.with(host, self.keys(host), incarnation).await
    }

    async fn with(&self, host: u8, keys: Arc<Keys>, incarnation: u32) -> Agent {
        let authentication = Authentication::Keys {
            keys: Arc::clone(&keys),
            life: Life { incarnation, lot: u64::from(incarnation) },
            heard: self.folder.path().join(format!("heard{host}")),
        };
        let (sender, heard) = mpsc::channel(256);
        let net =
            Net::start(settings(at(self.test, host), authentication, self.ca()), sender).await;
        Agent { net: net.expect("it starts"), heard, keys }
    }

    /// Brings a host what the CA has.
    fn update(&self, host: u8, keys: &Keys) {
        let update = self.authority.update().expect("an update");
        update.install(&self.keys_folder(host), now()).expect("installed");
        assert!(keys.reload().expect("read anew"));
    }
}

fn settings(at: SocketAddr, authentication: Authentication, authority: PathBuf) -> NetSettings {
    NetSettings {
        address: at.ip(),
        port: PORT,
        request: RequestMode::FanOut,
        multicast_ttl: 1,
        authentication,
        authority,
    }
}

struct Agent {
    net: Net,
    heard: mpsc::Receiver<Heard>,
    keys: Arc<Keys>,
}

impl Agent {
    async fn hears(&mut self) -> Heard {
        timeout(PATIENCE, self.heard.recv()).await.expect("something is heard").expect("it runs")
    }

    async fn hears_bad(&mut self) -> String {
        let heard = self.hears().await;
        let Heard::Bad { why, .. } = heard else { panic!("{heard:?}") };
        why
    }

    async fn hears_undelivered(&mut self) -> String {
        let heard = self.hears().await;
        let Heard::Undelivered { why, .. } = heard else { panic!("{heard:?}") };
        why
    }
}

fn release(from: u8, counter: u32) -> Message {
    let from = HostId(u128::from(from));
    Message { from, move_id: MoveId { host: from, incarnation: 1, counter }, body: Body::Release }
}

#[tokio::test]
async fn hosts_of_a_cluster_speak_with_each_other() {
    let cluster = Cluster::new(1);
    let (mut one, mut two) = (cluster.agent(1, 1).await, cluster.agent(2, 1).await);
    for counter in 0..20 {
        one.net.send(to(1, 2), release(1, counter));
        assert_eq!(two.hears().await, Heard::Message(release(1, counter)));
    }
    two.net.gossip(at(1, 1), &[5; GOSSIP_MAX]);
    let gossip = Heard::Gossip { from: at(1, 2), bytes: vec![5; GOSSIP_MAX] };
    assert_eq!(one.hears().await, gossip);
    let list = Inventory { hash: 5, vms: Vec::new(), left_out: 0, labels: Vec::new() };
    two.net.list(&list);
    one.net.fetch(HostId(2), at(1, 2));
    assert_eq!(one.hears().await, Heard::Inventory { host: HostId(2), fetched: Ok(list) });
}

#[tokio::test]
async fn nobody_speaks_in_the_name_of_another_host() {
    let cluster = Cluster::new(2);
    let (mut one, mut two) = (cluster.agent(1, 1).await, cluster.agent(2, 1).await);
    one.net.send(to(2, 2), release(3, 1));
    let (three, is) = (HostId(3), HostId(1));
    let words = format!("in the name of host {three}, by the certificate of host {is}: not taken");
    assert_eq!(two.hears_bad().await, words);
    assert_eq!(one.hears_undelivered().await, format!("refused: {words}"));
    one.net.send(to(2, 2), release(1, 2));
    assert_eq!(two.hears().await, Heard::Message(release(1, 2)));
}

#[tokio::test]
async fn hosts_of_other_clusters_the_expired_and_agents_without_keys_get_nowhere() {
    let (cluster, other) = (Cluster::new(3), Cluster::new(3));
    let mut one = cluster.agent(1, 1).await;
    let other_ca = "its certificate is of another CA than this cluster's";

    let mut stranger = other.agent(2, 1).await;
    stranger.net.send(to(3, 1), release(2, 1));
    assert_eq!(stranger.hears_undelivered().await, other_ca);
    assert!(one.hears_bad().await.starts_with("a connection: "));
    one.net.send(to(3, 2), release(1, 1));
    assert_eq!(one.hears_undelivered().await, other_ca);

    let late = cluster.keys_of(3, Unix(now().0 - LIFE.as_secs() - 1));
    let mut late = cluster.with(3, late, 1).await;
    late.net.send(to(3, 1), release(3, 1));
    assert!(one.hears_bad().await.contains("its certificate has expired"));
    let why = late.hears_undelivered().await;
    assert!(why.contains("expired") || why.contains("Expired"), "{why}");

    let (sender, heard) = mpsc::channel(16);
    let clear = Net::start(settings(at(3, 4), Authentication::None, "none".into()), sender).await;
    let mut clear = Agent { net: clear.expect("it starts"), heard, keys: cluster.keys(4) };
    clear.net.send(to(3, 1), release(4, 1));
    let why = one.hears_bad().await;
    assert!(why.contains("it does not speak TLS: its agent has no keys"), "{why}");
    clear.hears_undelivered().await;
    clear.net.gossip(at(3, 1), b"hello");
    let why = one.hears_bad().await;
    assert!(why.ends_with("version 1, this agent speaks 2: its agent has no keys"), "{why}");
    one.net.gossip(at(3, 4), b"hello");
    assert!(clear.hears_bad().await.contains("this agent runs without keys"));
    one.net.send(to(3, 4), release(1, 2));
    assert!(clear.hears_bad().await.contains("it does not begin as HTTP/2"));
    one.hears_undelivered().await;
}

#[tokio::test]
async fn a_revoked_host_is_shut_out_on_connections_that_are_open_too() {
    let cluster = Cluster::new(4);
    let (mut one, mut two) = (cluster.agent(1, 1).await, cluster.agent(2, 1).await);
    two.net.send(to(4, 1), release(2, 1));
    assert_eq!(one.hears().await, Heard::Message(release(2, 1)));
    cluster.authority.revoke(HostId(2), now()).expect("revoked");
    cluster.update(1, &one.keys);
    two.net.send(to(4, 1), release(2, 2));
    let words = format!("the certificate of host {} is revoked", HostId(2));
    assert_eq!(one.hears_bad().await, words);
    assert_eq!(two.hears_undelivered().await, format!("refused: {words}"));
    two.net.gossip(at(4, 1), b"hello");
    let why = one.hears_bad().await;
    assert_eq!(why, format!("a datagram of host {}, which is revoked", HostId(2)));
    one.net.send(to(4, 2), release(1, 3));
    assert_eq!(one.hears_undelivered().await, "its certificate is revoked");
}

#[tokio::test]
async fn a_datagram_that_was_captured_is_no_use_at_once_nor_after_restarts() {
    let cluster = Cluster::new(5);
    let mut one = cluster.agent(1, 1).await;
    let wire = UdpSocket::bind(at(5, 9)).await.expect("an address");
    let two = cluster.keys(2);
    let mut sealer = Sealer::new(HostId(2), Life { incarnation: 1, lot: 7 });
    let mut sealed = |at| sealer.seal(&two.held(), (Duration::from_secs(at), now()), 2, b"hello");
    let captured = sealed(10);
    let send = async |datagram: &[u8]| wire.send_to(datagram, at(5, 1)).await.map(drop);
    send(&captured).await.expect("sent");
    assert_eq!(one.hears().await, Heard::Gossip { from: at(5, 9), bytes: b"hello".to_vec() });
    send(&captured).await.expect("sent");
    let why = one.hears_bad().await;
    assert!(why.ends_with("it came before: repeated, or replayed"), "{why}");

    one.net.stop().await;
    let mut one = cluster.with(1, one.keys, 2).await;
    send(&captured).await.expect("sent");
    let why = one.hears_bad().await;
    assert!(why.ends_with("it is too old: delayed, or replayed"), "{why}");
    // The host itself is heard at once.
    send(&sealed(11)).await.expect("sent");
    assert_eq!(one.hears().await, Heard::Gossip { from: at(5, 9), bytes: b"hello".to_vec() });

    let mut anew = Sealer::new(HostId(2), Life { incarnation: 2, lot: 8 });
    send(&anew.seal(&two.held(), (Duration::ZERO, now()), 2, b"anew")).await.expect("sent");
    assert_eq!(one.hears().await, Heard::Gossip { from: at(5, 9), bytes: b"anew".to_vec() });
    send(&sealed(12)).await.expect("sent");
    assert!(one.hears_bad().await.contains("from before the sender's last start"));
}

#[tokio::test]
async fn noise_and_silence_are_told_and_life_goes_on() {
    let cluster = Cluster::new(6);
    let (mut one, two) = (cluster.agent(1, 1).await, cluster.agent(2, 1).await);
    let mut noise = TcpStream::connect(at(6, 1)).await.expect("connected");
    noise.write_all(&[0xa5; 4096]).await.expect("sent");
    // It is closed; whatever was said before.
    let _ = timeout(PATIENCE, noise.read_to_end(&mut Vec::new())).await.expect("it is closed");
    assert!(one.hears_bad().await.contains("it does not speak TLS"));
    let mut silent = TcpStream::connect(at(6, 1)).await.expect("connected");
    let _ = timeout(PATIENCE, silent.read_to_end(&mut Vec::new())).await.expect("it is closed");
    assert!(one.hears_bad().await.contains("a connection that says nothing"));
    two.net.send(to(6, 1), release(2, 1));
    assert_eq!(one.hears().await, Heard::Message(release(2, 1)));
}

#[tokio::test]
async fn of_one_address_few_connections_are_open_before_it_is_known_whose_they_are() {
    let cluster = Cluster::new(9);
    let (mut one, two) = (cluster.agent(1, 1).await, cluster.agent(2, 1).await);
    let mut silent = Vec::new();
    for _ in 0..8 {
        silent.push(TcpStream::connect(at(9, 1)).await.expect("connected"));
    }
    // One more is closed at once; the others when they have said nothing for too long.
    let mut more = TcpStream::connect(at(9, 1)).await.expect("connected");
    let _ = timeout(PATIENCE, more.read_to_end(&mut Vec::new())).await.expect("it is closed");
    let waits = silent.iter().all(|open| {
        open.try_read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    });
    assert!(waits, "those before are still listened to");
    two.net.send(to(9, 1), release(2, 1));
    assert_eq!(one.hears().await, Heard::Message(release(2, 1)));
}

#[tokio::test]
async fn a_message_goes_to_the_host_that_it_is_for_and_to_no_other_at_its_address() {
    let cluster = Cluster::new(10);
    let (mut one, mut two) = (cluster.agent(1, 1).await, cluster.agent(2, 1).await);
    one.net.send(To { host: HostId(3), at: at(10, 2) }, release(1, 1));
    let why = one.hears_undelivered().await;
    let expected = format!(
        "host {} answers at {}, not host {}: have two hosts one address?",
        HostId(2),
        at(10, 2),
        HostId(3)
    );
    assert_eq!(why, expected);
    one.net.fetch(HostId(3), at(10, 2));
    assert_eq!(one.hears().await, Heard::Inventory { host: HostId(3), fetched: Err(expected) });
    one.net.send(to(10, 2), release(1, 2));
    assert_eq!(two.hears().await, Heard::Message(release(1, 2)));
}

#[tokio::test]
async fn a_new_host_joins_by_a_token_once_and_only_at_a_host_of_the_tokens_ca() {
    let cluster = Cluster::new(7);
    let mut one = cluster.agent(1, 1).await;
    let request = |host: u8| {
        let wanted = cluster.wanted(host);
        make(&cluster.keys_folder(host), &wanted).expect("a request")
    };
    let here = |host: u8| at(7, host).ip();
    let offer = |address| cluster.authority.offer(Duration::from_secs(60), address, now());
    let refused = async |from: u8, token: &Token, request: &str| {
        let why = join(here(from), at(7, 1), token, request).await.expect_err("refused");
        format!("{why:#}")
    };

    let token = offer(None).expect("a token");
    assert_eq!(token.to_string().parse::<Token>().expect("read"), token);
    let request2 = request(2);
    let grant = join(here(2), at(7, 1), &token, &request2).await.expect("it joins");
    let identity = grant.install(&cluster.keys_folder(2), now()).expect("installed");
    assert_eq!(identity.expect("a certificate").host, HostId(2));
    let keys = Arc::new(Keys::load(&cluster.keys_folder(2)).expect("loaded"));
    let two = cluster.with(2, keys, 1).await;
    two.net.send(to(7, 1), release(2, 1));
    assert_eq!(one.hears().await, Heard::Message(release(2, 1)));

    let used = "the token is unknown, used or over";
    assert!(refused(3, &token, &request(3)).await.contains(used));
    assert!(one.hears_bad().await.contains("a new host was not let in: the token is unknown"));
    // A token lets nobody take the place of a host that is there.
    let why = refused(3, &offer(None).expect("a token"), &request2).await;
    assert!(why.contains("a token gives the address that it came from"), "{why}");
    one.hears_bad().await;
    let why = refused(2, &offer(None).expect("a token"), &request2).await;
    assert!(why.contains("has a certificate already") && why.contains("ca revoke"), "{why}");
    one.hears_bad().await;
    let why = refused(3, &offer(Some(here(4))).expect("a token"), &request(3)).await;
    assert!(why.contains("the token is for 127.79.7.4"), "{why}");
    one.hears_bad().await;
    let over = cluster.authority.offer(Duration::ZERO, None, now()).expect("a token");
    assert!(refused(3, &over, &request(3)).await.contains(used));
    one.hears_bad().await;

    let stranger = Cluster::new(7).authority.offer(Duration::from_secs(60), None, now());
    let why = refused(3, &stranger.expect("a token"), &request(3)).await;
    assert!(why.contains("its certificate is of another CA"), "{why}");
    one.hears_bad().await;
    // Where the CA's key is not, nobody can be let in.
    let token = offer(None).expect("a token");
    std::fs::rename(cluster.ca(), cluster.folder.path().join("away")).expect("moved");
    assert!(refused(3, &token, &request(3)).await.contains("this host cannot sign"));
}

#[tokio::test]
async fn keys_go_from_host_to_host_and_a_certificate_is_renewed_by_whoever_can_sign() {
    let cluster = Cluster::new(8);
    let (one, two) = (cluster.agent(1, 1).await, cluster.agent(2, 1).await);
    let ask = async |keys: &Keys| {
        let mark = keys.held().mark;
        two.net.spread().fetch(at(8, 1), &mark).await.expect("answered")
    };
    assert!(ask(&two.keys).await.grant.is_none());
    cluster.authority.revoke(HostId(9), now()).expect("revoked");
    cluster.update(1, &one.keys);
    let answer = ask(&two.keys).await;
    assert!(answer.signs);
    assert!(answer.grant.expect("news").merge(two.keys.folder(), now()).expect("merged"));
    assert!(two.keys.reload().expect("read anew"));
    assert_eq!((two.keys.held().newest(), two.keys.held().revoked.version), (2, 1));
    assert!(ask(&two.keys).await.grant.is_none());

    let request = make(two.keys.folder(), &cluster.wanted(2)).expect("a request");
    let grant = two.net.spread().renew(at(8, 1), &request).await.expect("renewed");
    let before = two.keys.held().identity.clone();
    grant.install(two.keys.folder(), now()).expect("installed");
    two.keys.reload().expect("read anew");
    let after = two.keys.held().identity.clone();
    assert!(after.begins >= before.begins);
    // As of its admission, by which it can be revoked.
    assert_eq!((after.host, after.issued), (before.host, before.issued));
    let other = make(&cluster.keys_folder(3), &cluster.wanted(3)).expect("a request");
    let why = two.net.spread().renew(at(8, 1), &other).await.expect_err("refused");
    assert!(why.contains("asks for a certificate of host"), "{why}");
    let addresses = vec![at(8, 2).ip(), at(8, 3).ip()];
    let more = Wanted { addresses, ..cluster.wanted(2) };
    let more = make(two.keys.folder(), &more).expect("a request");
    let why = two.net.spread().renew(at(8, 1), &more).await.expect_err("refused");
    assert!(why.contains("a new address"), "{why}");

    // What the folder says counts at once, also while the agent still goes by what it read before.
    cluster.authority.revoke(HostId(2), now()).expect("revoked");
    let update = cluster.authority.update().expect("an update");
    update.install(one.keys.folder(), now()).expect("installed");
    let request = make(two.keys.folder(), &cluster.wanted(2)).expect("a request");
    let why = two.net.spread().renew(at(8, 1), &request).await.expect_err("refused");
    assert!(why.contains("is revoked"), "{why}");
    let why = two.net.spread().fetch(at(8, 1), &[0; 32]).await.expect_err("refused");
    assert!(why.contains("is revoked"), "{why}");
}
