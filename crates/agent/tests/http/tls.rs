//! The API over TCP: real handshakes on loopback, and each way to be refused, route by route.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use agent::clock::unix_seconds;
use agent::http::{Admitted, Limits, Needs, Route, TlsListener, table};
use api::client::{Client, ClientError, Remote};
use api::{AuditFilter, Event, EventFilter, MoveRequest, Problem, Role, TokenRequest};
use decide::units::HostId;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use trust::authority::{Authority, LIFE};
use trust::identity::Unix;
use trust::keys::{CA_CERTIFICATE, Keys};
use trust::request::{Wanted, make};

use crate::backend::{Fixed, MOVE, Served, VM, status};

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);
/// Limits of what is slow, in tests of that.
const SHORT: Duration = Duration::from_millis(200);
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const ROLES: [Role; 3] = [Role::Viewer, Role::Operator, Role::Admin];

struct Bed {
    served: Served,
    address: SocketAddr,
    authority: Authority,
    keys: Arc<Keys>,
    ca: Vec<u8>,
}

fn roomy() -> Limits {
    Limits { wrong_tokens: 1000, ..Limits::default() }
}

fn install(authority: &Authority, folder: &Path, then: u64) {
    let wanted = Wanted { host: HostId(7), name: "h".to_owned(), addresses: vec![HERE] };
    let request = make(folder, &wanted).expect("a request");
    let (grant, _) = authority.sign(&request, LIFE, Unix(then)).expect("signed");
    grant.install(folder, Unix(then)).expect("installed");
}

fn now() -> u64 {
    u64::from(unix_seconds())
}

fn keys_folder(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join("keys")
}

impl Bed {
    async fn start(limits: Limits) -> Bed {
        Bed::with(tempfile::tempdir().unwrap(), limits).await
    }

    async fn with(folder: tempfile::TempDir, limits: Limits) -> Bed {
        let then = Unix(now() - 1000);
        let authority = Authority::init(&folder.path().join("ca"), "c", None, then).unwrap();
        install(&authority, &keys_folder(&folder), now() - 500);
        let keys = Arc::new(Keys::load(&keys_folder(&folder)).unwrap());
        let ca = fs::read(keys_folder(&folder).join(CA_CERTIFICATE)).unwrap();
        let tls = TlsListener::bind(SocketAddr::new(HERE, 0), &keys).await.unwrap();
        let address = tls.address().unwrap();
        let admitted = Admitted::of("no-such-group");
        let served = Served::with(folder, admitted, limits, Some(tls)).await;
        Bed { served, address, authority, keys, ca }
    }

    async fn token(&self, role: Role) -> String {
        let wish = TokenRequest { name: format!("a {role}"), role, days: 1 };
        self.served.client.make_token(&wish).await.unwrap().token
    }

    fn client(&self, token: &str) -> Client {
        Client::remote(Remote::new(&format!("https://{}", self.address), &self.ca, token).unwrap())
    }

    async fn tls(&self) -> TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&self.ca).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::IpAddress(HERE.into());
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
    }

    /// Status, `retry-after`, and what was refused if it was.
    async fn asks(
        &self,
        route: &Route,
        authorization: Option<&str>,
    ) -> (u16, Option<String>, Option<Problem>) {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(self.tls().await)).await.unwrap();
        tokio::spawn(connection);
        let path = route.path.replace(['{', '}'], "");
        let mut request = Request::builder().method(route.method).uri(path);
        request =
            request.header(header::HOST, "a").header(header::CONTENT_TYPE, "application/json");
        if let Some(authorization) = authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let answer =
            sender.send_request(request.body(Full::new(Bytes::from("{}"))).unwrap()).await.unwrap();
        let status = answer.status().as_u16();
        let headers = answer.headers();
        assert_eq!(headers.contains_key(header::WWW_AUTHENTICATE), status == 401);
        let retry = headers.get(header::RETRY_AFTER).map(|v| v.to_str().unwrap().to_owned());
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, retry, serde_json::from_slice(&body).ok())
    }

    async fn refused(&self, route: &Route, authorization: Option<&str>) -> (u16, String) {
        let (status, _, problem) = self.asks(route, authorization).await;
        let problem = problem.unwrap_or_else(|| panic!("{status} to {route:?}"));
        assert_eq!(problem.status, status);
        assert!(!problem.title.is_empty() && !problem.hint.is_empty(), "{problem:?}");
        (status, problem.code)
    }
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

fn needed(route: &Route) -> Option<Role> {
    match route.needs {
        Needs::Role(role) => Some(role),
        Needs::Here => None,
        Needs::Nothing => Some(Role::Viewer),
    }
}

const MOVES: Route =
    Route { method: "POST", path: "/v1/moves", needs: Needs::Role(Role::Operator) };
const STATUS: Route = Route { method: "GET", path: "/v1/status", needs: Needs::Role(Role::Viewer) };

#[tokio::test]
async fn no_route_answers_without_a_token_that_holds_and_suffices() {
    let folder = tempfile::tempdir().unwrap();
    let hash: String = Sha256::digest("5ecret").iter().map(|byte| format!("{byte:02x}")).collect();
    let file = folder.path().join("tokens.json");
    let expired = format!(
        "{{\"0a0a0a0a\":{{\"name\":\"old\",\"role\":\"admin\",\"hash\":\"{hash}\",\"made\":1,\"until\":2}}}}"
    );
    fs::write(&file, expired).unwrap();
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let bed = Bed::with(folder, roomy()).await;
    let revoked = bed.token(Role::Admin).await;
    bed.served.client.revoke_token(&revoked[4..12]).await.unwrap();
    let mut tokens = Vec::new();
    for role in ROLES {
        tokens.push((role, bed.token(role).await));
    }
    let admin = &tokens[2].1;
    let all = table::<Fixed>();
    assert!(all.len() > 30 && all.iter().filter(|route| route.method != "GET").count() > 10);
    for route in all.iter().filter(|route| route.needs != Needs::Nothing) {
        let wrong = format!("{}{}", &admin[..admin.len() - 4], "zzzz");
        for (authorization, code) in [
            (None, "no-token"),
            (Some("Bearer".to_owned()), "no-token"),
            (Some(format!("Basic {admin}")), "no-token"),
            (Some(bearer("")), "no-token"),
            (Some(bearer(&wrong)), "wrong-token"),
            (Some(bearer("evk_0a0a0a0a_5ecret")), "expired-token"),
            (Some(bearer(&revoked)), "wrong-token"),
        ] {
            let refused = bed.refused(route, authorization.as_deref()).await;
            assert_eq!(refused, (401, code.to_owned()), "{route:?} {authorization:?}");
        }
        for (role, token) in &tokens {
            let code = match needed(route) {
                None => "only-here",
                Some(needed) if *role < needed => "role-too-low",
                Some(_) => continue,
            };
            let refused = bed.refused(route, Some(&bearer(token))).await;
            assert_eq!(refused, (403, code.to_owned()), "{route:?} {role}");
        }
    }
    for route in all.iter().filter(|route| route.needs == Needs::Nothing) {
        assert_eq!(route.method, "GET");
        let (status, ..) = bed.asks(route, None).await;
        assert_eq!(status, if route.path == "/" { 200 } else { 404 }, "{route:?}");
    }
    assert_eq!(bed.served.backend.asked(), 0, "nothing was asked of the agent");
}

#[tokio::test]
async fn each_route_lets_its_role_and_higher_ones_through_and_notes_who_it_was() {
    let bed = Bed::start(roomy()).await;
    for role in ROLES {
        let token = bed.token(role).await;
        for route in table::<Fixed>() {
            if needed(&route).is_some_and(|needed| role >= needed) && route.path != "/v1/events" {
                let (status, ..) = bed.asks(&route, Some(&bearer(&token))).await;
                assert!(![401, 403, 429].contains(&status), "{status} to {role} for {route:?}");
            }
        }
    }
    assert!(bed.served.backend.asked() > 50);
    let client = bed.client(&bed.token(Role::Operator).await);
    assert_eq!(client.status().await.unwrap(), status());
    assert_eq!(client.cancel(MOVE).await.unwrap().id, MOVE);
    let mut request = MoveRequest { vm: VM.to_owned(), to: None, force: true };
    let Err(ClientError::Refused(problem)) = client.start_move(&request).await else {
        panic!("a forced move needs more")
    };
    assert_eq!((problem.status, &*problem.code), (403, "role-too-low"));
    request.force = false;
    client.start_move(&request).await.unwrap();
    let admin = bed.client(&bed.token(Role::Admin).await);
    let lines = admin.audit(&AuditFilter::default()).await.unwrap().lines;
    let [cancelled, forced, moved, _token] = &lines[lines.len() - 4..] else { panic!("{lines:?}") };
    assert_eq!([cancelled.status, forced.status, moved.status], [202, 403, 202]);
    assert_eq!(forced.who.name.as_deref(), Some("a operator"));
    assert!(forced.who.token.is_some() && forced.from.starts_with("tcp 127.0.0.1:"), "{forced:?}");
}

#[tokio::test]
async fn a_token_that_is_revoked_is_good_for_nothing_at_once() {
    let bed = Bed::start(roomy()).await;
    let token = bed.token(Role::Viewer).await;
    let client = bed.client(&token);
    client.status().await.unwrap();
    bed.served.client.revoke_token(&token[4..12]).await.unwrap();
    let Err(ClientError::Refused(problem)) = client.status().await else { panic!("let through") };
    assert_eq!((problem.status, &*problem.code), (401, "wrong-token"));
    assert!(!problem.to_string().contains(&token[13..]), "{problem}");
}

#[tokio::test]
async fn whoever_guesses_is_barred_for_a_while_also_with_a_right_token() {
    let bed = Bed::start(Limits { wrong_tokens: 3, ..Limits::default() }).await;
    let right = bearer(&bed.token(Role::Admin).await);
    for _ in 0..3 {
        assert_eq!(bed.refused(&STATUS, Some("Bearer evk_1_2")).await.1, "wrong-token");
    }
    for authorization in [Some("Bearer evk_1_2"), Some(&*right), None] {
        let (status, retry, problem) = bed.asks(&MOVES, authorization).await;
        assert_eq!((status, &*problem.unwrap().code), (429, "too-many-wrong-tokens"));
        assert!(retry.is_some_and(|retry| (1..=60).contains(&retry.parse::<u32>().unwrap())));
    }
    assert_eq!(bed.served.backend.asked(), 0);
    bed.served.client.status().await.expect("the socket is not concerned");
}

#[tokio::test]
async fn a_client_trusts_only_the_ca_that_it_was_given_and_a_renewed_certificate_is_shown_at_once()
{
    let bed = Bed::start(roomy()).await;
    let token = bed.token(Role::Viewer).await;
    let shown = async || bed.tls().await.get_ref().1.peer_certificates().unwrap()[0].clone();
    let before = shown().await;
    install(&bed.authority, &keys_folder(&bed.served.folder), now());
    assert!(bed.keys.reload().unwrap());
    assert_ne!(shown().await, before);
    bed.client(&token).status().await.unwrap();
    let other = tempfile::tempdir().unwrap();
    let then = Unix(now() - 1000);
    let stranger = Authority::init(&other.path().join("ca"), "c", None, then).unwrap();
    install(&stranger, &keys_folder(&other), now());
    let ca = fs::read(keys_folder(&other).join(CA_CERTIFICATE)).unwrap();
    let remote = Remote::new(&format!("https://{}", bed.address), &ca, &token).unwrap();
    let error = Client::remote(remote).status().await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("--ca"), "{error}");
    assert!(!format!("{error:?}").contains(&token[13..]));
}

/// Reads until the other end has closed; what came.
async fn cut_off(mut stream: impl tokio::io::AsyncRead + Unpin) -> Vec<u8> {
    let mut read = Vec::new();
    let closed = timeout(PATIENCE, stream.read_to_end(&mut read)).await;
    // A connection that is reset is closed too.
    let _ = closed.expect("it is cut off");
    read
}

#[tokio::test]
async fn whoever_is_slow_is_cut_off_at_every_step() {
    let slow = Limits { handshake: SHORT, head: SHORT, body: SHORT, ..roomy() };
    let bed = Bed::start(slow).await;
    // Nothing, and no TLS.
    assert_eq!(cut_off(TcpStream::connect(bed.address).await.unwrap()).await, b"");
    let mut plain = TcpStream::connect(bed.address).await.unwrap();
    plain.write_all(b"GET /v1/status HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    assert!(!cut_off(plain).await.windows(4).any(|some| some == b"HTTP"));
    // Half a head.
    let mut stream = bed.tls().await;
    stream.write_all(b"GET /v1/status HTTP/1.1\r\nhost: a\r\nx: ").await.unwrap();
    let read = cut_off(stream).await;
    assert!(
        read.is_empty() || read.starts_with(b"HTTP/1.1 408"),
        "{}",
        String::from_utf8_lossy(&read)
    );
    // Half a body.
    let token = bed.token(Role::Operator).await;
    let mut stream = bed.tls().await;
    let head = format!(
        "POST /v1/moves HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\ncontent-length: 90\r\n\r\n{{"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let read = String::from_utf8(cut_off(stream).await).unwrap();
    assert!(read.starts_with("HTTP/1.1 408") && read.contains("too-slow"), "{read}");
    assert_eq!(bed.served.backend.asked(), 0);
    let lines = bed.served.client.audit(&AuditFilter::default()).await.unwrap().lines;
    assert_eq!(
        lines.last().map(|line| (line.status, &*line.what)),
        Some((408, "refused: too-slow"))
    );
    bed.client(&token).status().await.unwrap();
}

#[tokio::test]
async fn no_connection_outlives_its_whole_time() {
    let bed = Bed::start(Limits { whole: SHORT, ..roomy() }).await;
    let client = bed.client(&bed.token(Role::Viewer).await);
    let filter = EventFilter { follow: true, ..EventFilter::default() };
    let cut: Result<Vec<Event>, _> = timeout(PATIENCE, client.events(&filter)).await.unwrap();
    assert!(matches!(cut, Err(ClientError::NoAnswer { .. })), "{cut:?}");
}

#[tokio::test]
async fn one_request_is_all_that_a_connection_carries_and_its_head_has_a_limit() {
    let bed = Bed::start(roomy()).await;
    let mut stream = bed.tls().await;
    let one = "GET /v1/status HTTP/1.1\r\nhost: a\r\n\r\n";
    stream.write_all(one.repeat(2).as_bytes()).await.unwrap();
    let read = String::from_utf8(cut_off(stream).await).unwrap();
    assert_eq!(read.matches("HTTP/1.1 401").count(), 1, "{read}");
    let mut stream = bed.tls().await;
    let long = format!("GET /v1/status HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(64 * 1024));
    // It may be closed before all of it was sent.
    let _ = stream.write_all(long.as_bytes()).await;
    let read = cut_off(stream).await;
    assert!(
        read.is_empty() || read.starts_with(b"HTTP/1.1 431"),
        "{}",
        String::from_utf8_lossy(&read)
    );
    let mut stream = bed.tls().await;
    let many = format!("GET /v1/status HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(65));
    stream.write_all(many.as_bytes()).await.unwrap();
    assert!(cut_off(stream).await.starts_with(b"HTTP/1.1 431"));
}

#[tokio::test]
async fn one_address_has_few_connections_at_once_and_others_wait_until_some_end() {
    let few = Limits { connections: 8, connections_per_address: 2, ..roomy() };
    let bed = Bed::start(few).await;
    let token = bed.token(Role::Viewer).await;
    let (one, two) = (bed.tls().await, bed.tls().await);
    assert_eq!(cut_off(TcpStream::connect(bed.address).await.unwrap()).await, b"", "one too many");
    drop((one, two));
    let client = bed.client(&token);
    timeout(PATIENCE, async { while client.status().await.is_err() {} }).await.expect("free again");
    // All places taken: who comes then waits, and is served when one is free.
    let bed = Bed::start(Limits { connections: 1, ..roomy() }).await;
    let token = bed.token(Role::Viewer).await;
    let only = bed.tls().await;
    let client = bed.client(&token);
    let waits = tokio::spawn(async move { client.status().await });
    drop(only);
    timeout(PATIENCE, waits).await.expect("served").unwrap().unwrap();
}

#[tokio::test]
async fn ending_the_agent_ends_connections_that_say_nothing() {
    let bed = Bed::start(roomy()).await;
    let open = bed.tls().await;
    timeout(PATIENCE, bed.served.stop()).await.expect("within the grace").unwrap();
    cut_off(open).await;
}
