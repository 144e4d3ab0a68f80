//! Who may ask over the unix socket, and what is noted of it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::Duration;

use agent::http::{Admitted, Limits, Needs, table};
use api::client::ClientError;
use api::{AuditFilter, AuditLine, BalancerRequest, MoveRequest, Problem, Role, TokenRequest};
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep};

use crate::backend::{Fixed, HELD, MOVE, Served, VM};

const PATIENCE: Duration = Duration::from_secs(20);

/// Status, and what was refused if it was.
async fn asked(served: &Served, method: &str, path: &str) -> (u16, Option<Problem>) {
    let stream = UnixStream::connect(&served.socket).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request =
        Request::builder().method(method).uri(path).header("content-type", "application/json");
    let request = request.header("host", "agent").body(Full::new(Bytes::from("{}"))).unwrap();
    let answer = sender.send_request(request).await.unwrap();
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).ok())
}

async fn noted(served: &Served) -> Vec<AuditLine> {
    served.client.audit(&AuditFilter::default()).await.unwrap().lines
}

fn refusal<T: std::fmt::Debug>(answer: Result<T, ClientError>) -> Problem {
    let ClientError::Refused(problem) = answer.unwrap_err() else { panic!("not a refusal") };
    problem
}

#[tokio::test]
async fn users_who_are_not_admitted_are_refused_by_name_whatever_they_ask() {
    let nobody = Admitted { uids: vec![], group: "evenkeel".to_owned(), gid: None };
    let folder = tempfile::tempdir().unwrap();
    let served = Served::with(folder, nobody, Limits::default(), None).await;
    let uid = fs::metadata(&served.socket).unwrap().uid();
    let all = table::<Fixed>();
    assert!(all.len() > 30, "the table has all routes");
    for route in all {
        let (status, problem) =
            asked(&served, route.method, &route.path.replace(['{', '}'], "")).await;
        let problem = problem.unwrap();
        assert_eq!((status, &*problem.code), (403, "not-admitted"), "{route:?}");
        assert!(problem.title.contains(&format!("(uid {uid})")), "{problem}");
        assert!(problem.hint.contains("usermod -aG evenkeel"), "{problem}");
    }
    for path in ["/", "/v1/none", "/v1/../etc/passwd"] {
        assert_eq!(asked(&served, "GET", path).await.0, 403, "{path}");
    }
    assert_eq!(served.backend.asked(), 0);
    let lines = fs::read_to_string(served.folder.path().join("audit.log")).unwrap();
    assert_eq!(lines.lines().count(), 6, "a few of strangers' calls are noted, not all");
    assert!(lines.contains("refused: not-admitted") && lines.contains(&format!("\"uid\":{uid}")));
}

#[tokio::test]
async fn members_of_the_group_are_admitted_and_the_socket_is_theirs() {
    let folder = tempfile::tempdir().unwrap();
    let gid = fs::metadata(folder.path()).unwrap().gid();
    let members = Admitted { uids: vec![], group: "evenkeel".to_owned(), gid: Some(gid) };
    let served = Served::with(folder, members, Limits::default(), None).await;
    served.client.switch_balancer(BalancerRequest { on: true }).await.unwrap();
    let socket = fs::metadata(&served.socket).unwrap();
    assert_eq!((socket.gid(), socket.permissions().mode() & 0o777), (gid, 0o660));
}

#[tokio::test]
async fn each_call_that_could_change_something_is_noted_with_who_what_and_how_it_ended() {
    let served = Served::start().await;
    served.client.status().await.unwrap();
    let mut request = MoveRequest { vm: VM.to_owned(), to: None, force: true };
    served.client.start_move(&request).await.unwrap();
    request.vm = "nobody".to_owned();
    served.client.start_move(&request).await.unwrap_err();
    assert_eq!(asked(&served, "DELETE", "/v1/moves").await.0, 405);
    assert_eq!(asked(&served, "POST", "/v1/none?a=b").await.0, 404);
    let view = served.client.audit(&AuditFilter::default()).await.unwrap();
    let told: Vec<_> =
        view.lines.iter().map(|line| (line.status, &*line.method, &*line.path)).collect();
    assert_eq!(
        told,
        [
            (202, "POST", "/v1/moves"),
            (404, "POST", "/v1/moves"),
            (405, "DELETE", "/v1/moves"),
            (404, "POST", "/v1/none?a=b")
        ]
    );
    assert_eq!((view.check.broken, view.newest_seq), (None, 4));
    assert_eq!(view.newest_hash, view.lines[3].hash);
    let first = &view.lines[0];
    assert_eq!(first.what, "{\"vm\":\"web\",\"to\":null,\"force\":true}");
    let uid = fs::metadata(&served.socket).unwrap().uid();
    assert_eq!(first.who.uid, Some(uid));
    assert_eq!(first.from, format!("unix pid {}", std::process::id()));
}

#[tokio::test]
async fn what_was_begun_is_noted_even_if_whoever_asked_has_gone() {
    let served = Served::start().await;
    let mut stream = UnixStream::connect(&served.socket).await.unwrap();
    let request =
        format!("POST /v1/moves/{HELD}/cancel HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    while served.backend.names().is_empty() {
        tokio::task::yield_now().await;
    }
    drop(stream);
    assert_eq!(noted(&served).await, []);
    served.backend.go.notify_one();
    let deadline = Instant::now() + PATIENCE;
    while noted(&served).await.is_empty() {
        assert!(Instant::now() < deadline);
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(noted(&served).await[0].status, 202);
}

#[tokio::test]
async fn while_the_log_cannot_be_written_nothing_is_changed_and_all_can_be_seen() {
    let served = Served::start().await;
    let log = served.folder.path().join("audit.log");
    fs::create_dir(&log).unwrap();
    // It is not known before the first; what became of it is told.
    let problem = refusal(served.client.cancel(MOVE).await);
    assert_eq!((problem.status, &*problem.code), (500, "not-noted"));
    assert!(problem.title.contains("status 202") && problem.hint.contains("may have been done"));
    let before = served.backend.asked();
    let problem = refusal(served.client.cancel(MOVE).await);
    assert_eq!((problem.status, &*problem.code), (503, "audit-unwritable"));
    assert_eq!(served.backend.asked(), before);
    served.client.status().await.unwrap();
    fs::remove_dir(&log).unwrap();
    served.client.cancel(MOVE).await.unwrap();
    let lines = noted(&served).await;
    assert_eq!((lines.len(), &*lines[0].what), (2, "1 calls before this line could not be noted"));
}

#[tokio::test]
async fn tokens_are_made_listed_and_revoked_and_the_audit_log_has_no_secret() {
    let served = Served::start().await;
    let wish = TokenRequest { name: "ci".to_owned(), role: Role::Operator, days: 90 };
    let made = served.client.make_token(&wish).await.unwrap();
    assert!(made.token.starts_with(&format!("evk_{}_", made.view.id)), "{made:?}");
    assert_eq!(served.client.tokens().await.unwrap(), std::slice::from_ref(&made.view));
    let id = made.view.id;
    assert!(!served.client.revoke_token(&id).await.unwrap().holds);
    assert_eq!(served.client.tokens().await.unwrap(), []);
    let wrong = TokenRequest { days: 0, ..wish };
    assert_eq!(refusal(served.client.make_token(&wrong).await).code, "wrong-fields");
    for id in [&*id, "../tokens", "..", "%00"] {
        let problem = refusal(served.client.revoke_token(id).await);
        assert_eq!((problem.status, &*problem.code), (404, "no-such-token"), "{id}");
    }
    let log = fs::read_to_string(served.folder.path().join("audit.log")).unwrap();
    assert!(log.contains("/v1/tokens") && !log.contains(&made.token[13..]));
    assert_eq!(served.backend.asked(), 0);
}

#[tokio::test]
async fn paths_that_climb_lead_nowhere() {
    let served = Served::start().await;
    for path in [
        "/../etc/passwd",
        "/v1/../../etc/passwd",
        "/v1/..%2f..%2fetc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/v1//status",
        "/v1/status/",
        "/v1/vms/../../../etc/passwd/history",
        "/v1/vms/%FF/history",
        "/v1/moves/%2e%2e%2fx/",
        "/v1\\status",
    ] {
        // Bytes as they are: a client could put a path in order before it is sent.
        let mut stream = UnixStream::connect(&served.socket).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer);
        let status = answer.split(' ').nth(1).unwrap();
        assert!(["404", "400"].contains(&status), "{path}: {answer}");
    }
    assert_eq!(served.backend.asked(), 0);
}

/// The requests that the docs name in the row of those who need so much.
fn documented(needs: &str) -> Vec<String> {
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/security.md");
    let docs = fs::read_to_string(docs).unwrap();
    let row = docs.lines().find_map(|line| line.strip_prefix(&format!("| {needs} | ")));
    let quoted = row.unwrap().split('`').skip(1).step_by(2);
    let mut all: Vec<String> =
        quoted.filter(|word| word.contains(" /")).map(str::to_owned).collect();
    all.sort();
    all
}

#[test]
fn the_table_in_the_docs_is_the_one_that_is_gone_by() {
    for (row, needs) in [
        ("viewer", Needs::Role(Role::Viewer)),
        ("operator", Needs::Role(Role::Operator)),
        ("admin", Needs::Role(Role::Admin)),
        ("the unix socket", Needs::Here),
        ("nothing over TCP", Needs::Nothing),
    ] {
        let of_row = table::<Fixed>().into_iter().filter(|route| route.needs == needs);
        let mut all: Vec<String> =
            of_row.map(|route| format!("{} {}", route.method, route.path)).collect();
        all.sort();
        assert_eq!(documented(row), all, "{row}");
    }
}
