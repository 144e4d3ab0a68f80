//! QMP input as it should not be, and a server that misbehaves.

use std::path::PathBuf;

use tokio::net::UnixListener;

use super::super::messages::{MigrationStatus, QueryMigrate, QueryStatus, Status};
use super::*;

fn parse(line: &str) -> Line {
    Line::parse(line.as_bytes()).expect("valid JSON")
}

#[test]
fn an_unknown_event_is_no_error() {
    assert_eq!(
        parse(r#"{"event": "BALLOON_CHANGE", "data": {"actual": 1}, "timestamp": {"seconds": 1}}"#),
        Line::Unknown
    );
    assert_eq!(parse(r#"{"event": "MIGRATION"}"#), Line::Unknown);
    assert_eq!(parse(r#"{"event": "MIGRATION", "data": 7}"#), Line::Unknown);
}

#[test]
fn an_unknown_word_in_a_known_place_is_no_error() {
    let line = parse(r#"{"event": "MIGRATION", "data": {"status": "teleporting", "more": []}}"#);
    assert_eq!(line, Line::Event(Event::Migration(MigrationStatus::Other)));
    let status: Status = serde_json::from_str(r#""guest-panicked""#).expect("any word");
    assert_eq!(status, Status::Stopped);
}

#[test]
fn known_events_are_read() {
    let line = parse(r#"{"event": "MIGRATION", "data": {"status": "pre-switchover"}}"#);
    assert_eq!(line, Line::Event(Event::Migration(MigrationStatus::PreSwitchover)));
    assert_eq!(parse(r#"{"event": "STOP"}"#), Line::Event(Event::Stop));
    assert_eq!(
        parse(r#"{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-shutdown"}}"#),
        Line::Event(Event::Shutdown("guest-shutdown".to_owned()))
    );
}

#[test]
fn an_answer_without_an_id_of_ours_is_nobodys() {
    for line in [
        r#"{"return": {}}"#,
        r#"{"return": {}, "id": "seven"}"#,
        r#"{"error": {"class": "GenericError", "desc": "x"}}"#,
        r"{}",
    ] {
        assert_eq!(parse(line), Line::Unknown, "{line}");
    }
}

#[test]
fn an_error_without_a_description_is_still_a_refusal() {
    assert_eq!(
        parse(r#"{"error": {}, "id": 3}"#),
        Line::Answer(3, Err("no reason given".to_owned()))
    );
}

#[test]
fn what_is_not_json_is_told_apart() {
    for line in ["", "\u{0}\u{1}", "QEMU 10.0 monitor", "[1, 2", "7"] {
        assert!(Line::parse(line.as_bytes()).is_err(), "{line:?}");
    }
}

const GREETING: &str = "{\"QMP\": {\"version\": {}, \"capabilities\": [\"oob\"]}}\n";

/// A server that greets, then answers the n-th line it reads with the n-th text.
fn server(name: &str, greeting: &'static str, answers: &'static [&'static str]) -> PathBuf {
    let socket = std::env::temp_dir().join(format!("qmp-test-{}-{name}.sock", std::process::id()));
    drop(std::fs::remove_file(&socket));
    let listener = UnixListener::bind(&socket).expect("a socket in the temporary folder");
    let bound = socket.clone();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a client");
        std::fs::remove_file(bound).expect("one client is enough");
        let (read, mut write) = stream.into_split();
        write.write_all(greeting.as_bytes()).await.expect("written");
        let mut lines = BufReader::new(read).lines();
        for answer in answers {
            lines.next_line().await.expect("a line").expect("a command");
            write.write_all(answer.as_bytes()).await.expect("written");
        }
        if greeting.is_empty() {
            lines.next_line().await.expect("the end");
        }
    });
    socket
}

const SOON: Duration = Duration::from_millis(200);

#[tokio::test]
async fn garbage_and_strange_answers_between_do_not_disturb_a_call() {
    let socket = server(
        "garbage",
        GREETING,
        &[
            "{\"return\": {}, \"id\": 1}\n",
            "%%%\n{\"return\": 1}\n{\"return\": {}, \"id\": 99}\n{\"event\": \"STOP\"}\n\
             {\"return\": {\"status\": \"paused\", \"new\": 1}, \"id\": 2}\n",
        ],
    );
    let (mut qmp, mut events) =
        Qmp::connect(&socket, Duration::from_secs(5)).await.expect("connected");
    let answer = qmp.call(QueryStatus {}).await.expect("answered");
    assert_eq!(answer.status, Status::Paused);
    assert_eq!(events.try_recv().expect("before the answer"), Event::Stop);
    assert!(matches!(events.recv().await, Some(Event::Lost(_))));
    assert!(matches!(qmp.call(QueryStatus {}).await, Err(QmpError::Lost { .. })));
}

#[tokio::test]
async fn a_silent_server_ends_in_a_deadline() {
    let socket = server("silent", GREETING, &["{\"return\": {}, \"id\": 1}\n", "", ""]);
    let (mut qmp, _events) = Qmp::connect(&socket, SOON).await.expect("connected");
    assert!(matches!(
        qmp.call(QueryMigrate {}).await,
        Err(QmpError::Silent { command: "query-migrate", .. })
    ));
}

#[tokio::test]
async fn a_server_that_does_not_greet_is_mute_and_no_server_is_absent() {
    let socket = server("mute", "", &[]);
    assert!(matches!(Qmp::connect(&socket, SOON).await, Err(ConnectError::Mute(_))));
    assert!(matches!(Qmp::connect(&socket, SOON).await, Err(ConnectError::Absent)));
}
