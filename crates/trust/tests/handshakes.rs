//! Real handshakes over loopback: who gets in, who does not, and what is said of it.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use decide::units::HostId;
use rustls::{ClientConnection, ProtocolVersion, ServerConnection, Stream};
use trust::authority::{Authority, LIFE};
use trust::identity::{Identity, Unix};
use trust::keys::Keys;
use trust::request::{Wanted, make};
use trust::tls;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const DAY: u64 = 24 * 3600;

/// The second in which the test runs: rustls reads the clock by itself.
#[expect(clippy::disallowed_methods, reason = "certificates must hold at the time of the test")]
fn now() -> Unix {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Unix(since.expect("after 1970").as_secs())
}

struct Cluster {
    folder: tempfile::TempDir,
    authority: Authority,
}

impl Cluster {
    fn new() -> Cluster {
        let folder = tempfile::tempdir().expect("a folder");
        // Long ago, so that it could sign what has expired since.
        let begin = Unix(now().0 - 400 * DAY);
        let authority = Authority::init(&folder.path().join("ca"), "c", None, begin);
        Cluster { authority: authority.expect("a CA"), folder }
    }

    fn keys_folder(&self, host: u128) -> PathBuf {
        self.folder.path().join(format!("keys{host}"))
    }

    /// The keys of a host at this address, signed then.
    fn host_at(&self, host: u128, address: IpAddr, then: Unix) -> Arc<Keys> {
        let folder = self.keys_folder(host);
        let (name, addresses) = (format!("host{host}"), vec![address]);
        let wanted = Wanted { host: HostId(host), name, addresses };
        let request = make(&folder, &wanted).expect("a request");
        let (grant, asked) = self.authority.sign(&request, LIFE, then).expect("signed");
        assert_eq!(asked, wanted);
        grant.install(&folder, now()).expect("installed");
        Arc::new(Keys::load(&folder).expect("loaded"))
    }

    fn host(&self, host: u128) -> Arc<Keys> {
        self.host_at(host, HERE, now())
    }
}

/// What either end came to: whom it saw, or why not.
type Seen = Result<Identity, String>;

/// One shakes hands with the other; gives what the client and the server saw.
fn shake(client: &Arc<Keys>, server: &Arc<Keys>) -> (Seen, Seen) {
    let listener = TcpListener::bind((HERE, 0)).expect("a port");
    let to = listener.local_addr().expect("an address");
    let config = tls::server(server).expect("a server");
    let served = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut connection = ServerConnection::new(config).expect("a server");
        let mut stream = patient(&mut stream);
        let mut word = [0; 5];
        let said = Stream::new(&mut connection, &mut stream).read_exact(&mut word);
        let said = said.and_then(|()| Stream::new(&mut connection, &mut stream).write_all(&word));
        let seen = seen(said, connection.peer_certificates());
        if seen.is_ok() {
            assert_eq!(connection.protocol_version(), Some(ProtocolVersion::TLSv1_3));
        } else {
            // What it had to say of it.
            let _ = connection.complete_io(&mut stream);
        }
        seen
    });
    let client = call(client, to);
    (client, served.join().expect("it ends"))
}

fn call(keys: &Arc<Keys>, to: SocketAddr) -> Seen {
    let mut stream = TcpStream::connect(to).expect("connected");
    let config = tls::client(keys).expect("a client");
    let mut connection = ClientConnection::new(config, tls::name(to.ip())).expect("a client");
    let mut stream = patient(&mut stream);
    let mut word = [0; 5];
    let said = Stream::new(&mut connection, &mut stream).write_all(b"hello");
    let said = said.and_then(|()| Stream::new(&mut connection, &mut stream).read_exact(&mut word));
    seen(said, connection.peer_certificates())
}

fn patient(stream: &mut TcpStream) -> &mut TcpStream {
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
    stream
}

fn seen(
    said: std::io::Result<()>,
    shown: Option<&[rustls::pki_types::CertificateDer<'_>]>,
) -> Seen {
    said.map_err(|error| {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        inner.map_or_else(|| error.to_string(), tls::explain)
    })?;
    tls::peer(shown).map_err(|error| error.to_string())
}

#[test]
fn two_hosts_of_a_cluster_know_each_other() {
    let cluster = Cluster::new();
    let (one, two) = (cluster.host(1), cluster.host(2));
    let (client, server) = shake(&one, &two);
    let (client, server) = (client.expect("it sees"), server.expect("it sees"));
    assert_eq!((client.host, server.host), (HostId(2), HostId(1)));
    assert_eq!(server.addresses, [HERE]);
    assert!(tls::admitted(&two, &server, now()).is_ok());
    let why = tls::admitted(&two, &server, Unix(server.ends.0 + 1)).expect_err("it has ended");
    assert!(why.ends_with("has expired"), "{why}");
}

#[test]
fn a_host_of_another_cluster_is_refused_by_either_side() {
    let (cluster, other) = (Cluster::new(), Cluster::new());
    let (one, stranger) = (cluster.host(1), other.host(1));
    let other_ca = "its certificate is of another CA than this cluster's";
    assert_eq!(shake(&stranger, &one).0.expect_err("refused"), other_ca);
    assert_eq!(shake(&one, &stranger).0.expect_err("refused"), other_ca);
    // A client that looks away is refused by the server.
    let why = trusting(&stranger, &one).expect_err("refused");
    assert_eq!(why, other_ca);
}

/// What the server says of a client that takes any server.
fn trusting(client: &Arc<Keys>, server: &Arc<Keys>) -> Seen {
    raw(server, |config| {
        let shown = tls::client(client).expect("a client").client_auth_cert_resolver.clone();
        config.with_client_cert_resolver(shown)
    })
}

type Unfinished = rustls::ConfigBuilder<rustls::ClientConfig, rustls::client::WantsClientCert>;

/// What the server says of a client that is none of ours.
fn raw(server: &Arc<Keys>, finish: impl FnOnce(Unfinished) -> rustls::ClientConfig) -> Seen {
    let listener = TcpListener::bind((HERE, 0)).expect("a port");
    let to = listener.local_addr().expect("an address");
    let config = tls::server(server).expect("a server");
    let served = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut connection = ServerConnection::new(config).expect("a server");
        let mut stream = patient(&mut stream);
        let said = Stream::new(&mut connection, &mut stream).read_exact(&mut [0; 5]);
        seen(said, connection.peer_certificates())
    });
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Blind(provider)));
    let mut config = finish(builder);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let mut stream = TcpStream::connect(to).expect("connected");
    let mut connection =
        ClientConnection::new(Arc::new(config), tls::name(to.ip())).expect("a client");
    // It may be refused at any step.
    let _ = Stream::new(&mut connection, patient(&mut stream)).write_all(b"hello");
    let _ = Stream::new(&mut connection, patient(&mut stream)).read(&mut [0; 5]);
    served.join().expect("it ends")
}

/// Takes any server.
#[derive(Debug)]
struct Blind(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for Blind {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[test]
fn who_shows_nothing_is_refused() {
    let cluster = Cluster::new();
    let why = raw(&cluster.host(1), |config| config.with_no_client_auth());
    assert_eq!(why.expect_err("refused"), "it shows no certificate");
}

#[test]
fn a_certificate_that_has_expired_is_refused_by_either_side() {
    let cluster = Cluster::new();
    let (one, late) =
        (cluster.host(1), cluster.host_at(2, HERE, Unix(now().0 - LIFE.as_secs() - 1)));
    let (client, server) = shake(&late, &one);
    let expired = "its certificate has expired (or one of the two clocks is wrong)";
    assert_eq!(server.expect_err("refused"), expired);
    let why = client.expect_err("refused");
    assert!(why.starts_with("it says that this host's certificate has expired"), "{why}");
    assert_eq!(shake(&one, &late).0.expect_err("refused"), expired);
}

#[test]
fn a_revoked_host_is_refused_from_the_next_connection_on_until_it_is_let_in_anew() {
    let cluster = Cluster::new();
    let (one, two) = (cluster.host(1), cluster.host(2));
    let before = shake(&two, &one).1.expect("it is let in");
    cluster.authority.revoke(HostId(2), now()).expect("revoked");
    cluster
        .authority
        .update()
        .expect("an update")
        .install(&cluster.keys_folder(1), Unix(0))
        .expect("it is");
    assert!(one.reload().expect("read anew"));
    let why = tls::admitted(&one, &before, now()).expect_err("revoked");
    assert!(why.ends_with("is revoked"), "{why}");
    let (client, server) = shake(&two, &one);
    assert_eq!(server.expect_err("refused"), "its certificate is revoked");
    let told = "it says that this host's certificate is revoked";
    assert_eq!(client.expect_err("refused"), told);
    assert_eq!(shake(&one, &two).0.expect_err("refused"), "its certificate is revoked");
    let anew = cluster.host_at(2, HERE, Unix(now().0 + 1));
    assert!(shake(&anew, &one).1.is_ok());
}

#[test]
fn a_certificate_of_another_address_is_no_servers_here() {
    let cluster = Cluster::new();
    let elsewhere = cluster.host_at(2, "127.0.0.2".parse().expect("an address"), now());
    let why = shake(&cluster.host(1), &elsewhere).0.expect_err("refused");
    assert_eq!(why, "its certificate is not for this address");
}

#[test]
fn a_renewed_certificate_is_shown_from_the_next_connection_on() {
    let cluster = Cluster::new();
    let then = Unix(now().0 - 20 * DAY);
    let (one, two) = (cluster.host(1), cluster.host_at(2, HERE, then));
    assert_eq!(shake(&two, &one).1.expect("it is let in").issued, then);
    assert!(!two.reload().expect("read anew"), "nothing has changed");
    cluster.host(2);
    assert!(two.reload().expect("read anew"));
    assert!(shake(&two, &one).1.expect("it is let in").issued > then);
}
