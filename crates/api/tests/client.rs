//! What the client tells when there is no answer, or none that it can use.

#![expect(clippy::unwrap_used, reason = "a test that panics has failed, which is what is wanted")]

use std::os::unix::net::UnixListener as StdListener;

use api::client::{Client, ClientError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

/// A listener that reads one request, answers with `bytes` and closes.
fn answering(folder: &tempfile::TempDir, bytes: &'static str) -> Client {
    let socket = folder.path().join("api.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.windows(4).any(|end| end == b"\r\n\r\n") {
            assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0, "the client hung up");
        }
        stream.write_all(bytes.as_bytes()).await.unwrap();
    });
    Client::new(socket)
}

#[tokio::test]
async fn an_absent_socket_is_named_with_what_to_do() {
    let error = Client::new("/nowhere/api.sock").status().await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("/nowhere/api.sock: No such file") && text.contains("--socket"),
        "{text}"
    );
}

#[tokio::test]
async fn a_socket_of_a_killed_agent_is_told_from_an_absent_one() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("api.sock");
    drop(StdListener::bind(&socket).unwrap());
    let error = Client::new(&socket).status().await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("nobody listens"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_never_answers_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("api.sock");
    let _deaf = StdListener::bind(&socket).unwrap();
    let error = Client::new(&socket).status().await.unwrap_err();
    assert!(matches!(error, ClientError::NoAnswer { .. }), "{error}");
    assert!(
        error.to_string().contains("(GET /v1/status) but gave no answer: waited 10 s"),
        "{error}"
    );
}

#[tokio::test]
async fn an_agent_that_dies_before_its_answer_may_have_acted() {
    let folder = tempfile::tempdir().unwrap();
    let error = answering(&folder, "").cancel("1.1.1").await.unwrap_err();
    assert!(matches!(error, ClientError::NoAnswer { .. }), "{error}");
    assert!(error.to_string().contains("may have acted"), "{error}");
}

#[tokio::test]
async fn an_answer_in_other_words_is_not_taken_for_one() {
    let folder = tempfile::tempdir().unwrap();
    let client = answering(&folder, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}");
    let error = client.status().await.unwrap_err();
    assert!(matches!(error, ClientError::NotUnderstood { .. }), "{error}");
    assert!(error.to_string().contains("missing field `version`"), "{error}");
}

#[tokio::test]
async fn a_refusal_without_problem_details_is_not_taken_for_the_agents() {
    let folder = tempfile::tempdir().unwrap();
    let client = answering(&folder, "HTTP/1.1 502 Bad Gateway\r\ncontent-length: 4\r\n\r\noops");
    let error = client.hosts().await.unwrap_err();
    assert!(matches!(error, ClientError::NotUnderstood { .. }), "{error}");
    assert!(error.to_string().contains("502"), "{error}");
}
