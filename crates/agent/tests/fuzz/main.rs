//! Requests to the HTTP API, damaged from the first byte of the head to the last of the body: each is answered by the API's rules,
//! or the connection ended; the server goes on.

#![expect(clippy::unwrap_used, reason = "a test that panics has failed, which is what is wanted")]

#[path = "../http/backend.rs"]
#[allow(dead_code, reason = "what other tests look at is not looked at here")]
mod backend;

use std::panic;
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use api::Problem;
use fuzz::Samples;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::runtime::Builder;
use tokio::time::timeout;

use backend::{MOVE, Served};

/// For a request that waits for events, or for the rest of its body.
const PATIENCE: Duration = Duration::from_millis(20);
/// Panics of the server's tasks, which end with their connections.
static PANICS: AtomicUsize = AtomicUsize::new(0);

fn requests() -> Vec<String> {
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    let post = |path: &str, body: &str| {
        let length = body.len();
        let head = "host: x\r\nconnection: close\r\ncontent-type: application/json";
        format!("POST {path} HTTP/1.1\r\n{head}\r\ncontent-length: {length}\r\n\r\n{body}")
    };
    let chunked = "POST /v1/plan/apply HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n\
                   transfer-encoding: chunked\r\n\r\nb\r\n{\"vms\":[]} \r\n0\r\n\r\n";
    vec![
        get("/healthz"),
        get("/v1/status"),
        get("/v1/vms/web/history?since=600&step=10&metric=cpu"),
        get("/v1/hosts/%e2%82%ac/history"),
        get("/v1/moves/1a2b3c4d.1.3"),
        get("/v1/moves?limit=5&before=1a2b3c4d.1.3"),
        get("/v1/inventory?limit=5&after=1%2Fhost1%2Fweb"),
        get("/v1/events?after=3&limit=5&move_id=a&follow=false"),
        get("/v1/why/web?to=host2"),
        get("/v1/audit?since=60&limit=5&kept=00"),
        get("/v1/tokens"),
        post("/v1/moves", r#"{"vm":"web","to":"host2","force":true}"#),
        post("/v1/moves/1/cancel", ""),
        post("/v1/moves/1/resolve", r#"{"decision":"keep-here","fenced":"host2"}"#),
        post("/v1/balancer", r#"{"on":false}"#),
        post("/v1/drain", r#"{"on":true,"host":"host1"}"#),
        post("/v1/vms/web/exclude", r#"{"for_seconds":3600}"#),
        post("/v1/vms/web/include", ""),
        post("/v1/vms/web/tags", r#"{"set":[{"key":"pin","values":["host2"]}]}"#),
        post(
            "/v1/best-host",
            r#"{"name":"n","tags":["a"],"memory_mib":1024,"cpu_millicores":500}"#,
        ),
        post("/v1/tokens/0badcafe/revoke", ""),
        chunked.to_owned(),
    ]
}

const WORDS: [&str; 28] = [
    "\r\n",
    "\r\n\r\n",
    " ",
    "/",
    "?",
    "&",
    "=",
    "%",
    "%00",
    "%2f",
    "..",
    "://",
    "HEAD",
    "OPTIONS",
    "HTTP/1.0",
    "HTTP/2.0",
    "content-length: ",
    "transfer-encoding: chunked\r\n",
    "connection: keep-alive",
    "authorization: Bearer evk_a_b\r\n",
    "expect: 100-continue\r\n",
    "upgrade: h2c\r\n",
    "{",
    "}",
    "[",
    "\"",
    "null",
    "\\ud800",
];

/// Counts panics of whatever task, and lets bolero see those of the test.
fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |panicked| {
            PANICS.fetch_add(1, Ordering::Relaxed);
            before(panicked);
        }));
    });
}

async fn asked(served: &Served, bytes: &[u8]) -> Vec<u8> {
    let mut stream = UnixStream::connect(&served.socket).await.expect("it listens");
    let mut answer = Vec::new();
    // An answer may come, and the connection end, before all was sent.
    let _ = timeout(PATIENCE, async {
        let _ = stream.write_all(bytes).await;
        let _ = stream.shutdown().await;
        stream.read_to_end(&mut answer).await
    })
    .await;
    answer
}

/// What the first answer must be, if there is one.
fn look(answer: &[u8]) {
    let head = b"HTTP/1.";
    if answer.len() < 13 {
        return;
    }
    assert!(answer.starts_with(head), "{}", answer.escape_ascii());
    let status = str::from_utf8(&answer[9..12]).ok().and_then(|status| status.parse::<u16>().ok());
    let status = status.expect("a status");
    assert_ne!(status, 500, "{}", answer.escape_ascii());
    let Some(body) = answer.windows(4).position(|part| part == b"\r\n\r\n") else { return };
    let body = &answer[body + 4..];
    if status < 400 || body.is_empty() || body.windows(7).any(|part| part == head) {
        return;
    }
    let problem: Problem = serde_json::from_slice(body)
        .unwrap_or_else(|_| panic!("no problem: {}", answer.escape_ascii()));
    assert_eq!(problem.status, status);
    assert!(!problem.code.is_empty() && !problem.title.is_empty() && !problem.hint.is_empty());
}

#[test]
fn damaged_requests_are_answered_by_the_rules_and_the_server_goes_on() {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let served = runtime.block_on(async {
        let served = Served::start().await;
        served.backend.note(MOVE);
        served
    });
    Samples::texts(requests(), &WORDS).damaged(|bytes| {
        count_panics();
        PANICS.store(0, Ordering::Relaxed);
        let answer = runtime.block_on(asked(&served, bytes));
        look(&answer);
        assert_eq!(PANICS.load(Ordering::Relaxed), 0, "a task of the server panicked");
    });
    let status = runtime.block_on(asked(&served, requests()[1].as_bytes()));
    assert!(status.starts_with(b"HTTP/1.1 200 "), "{}", status.escape_ascii());
    runtime.block_on(served.stop()).unwrap();
}
