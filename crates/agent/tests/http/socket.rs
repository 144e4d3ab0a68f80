//! Who may listen where.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener as StdListener;
use std::path::Path;

use agent::http::ApiSocket;
use api::client::Client;

use crate::backend::{Served, status};

async fn refusal(path: &Path) -> String {
    format!("{:#}", ApiSocket::bind(path, None).await.unwrap_err())
}

#[tokio::test]
async fn owner_and_group_may_connect_and_nobody_else() {
    let served = Served::start().await;
    assert_eq!(fs::metadata(&served.socket).unwrap().permissions().mode() & 0o777, 0o660);
}

#[tokio::test]
async fn what_a_killed_agent_left_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("api.sock");
    drop(StdListener::bind(&socket).unwrap());
    drop(StdListener::bind(folder.path().join("api.sock.new")).unwrap());
    fs::write(folder.path().join("api.sock.lock"), "").unwrap();
    let bound = ApiSocket::bind(&socket, None).await.unwrap();
    tokio::net::UnixStream::connect(&socket).await.unwrap();
    assert!(!folder.path().join("api.sock.new").exists());
    drop(bound);
    assert!(!socket.exists());
}

#[tokio::test]
async fn a_second_agent_is_refused_and_the_first_goes_on() {
    let served = Served::start().await;
    let text = refusal(&served.socket).await;
    assert!(
        text.contains("another evenkeeld") && text.contains(served.socket.to_str().unwrap()),
        "{text}"
    );
    assert_eq!(served.client.status().await.unwrap(), status());
    let socket = served.socket.clone();
    served.stop().await.unwrap();
    assert!(Client::new(&socket).status().await.is_err());
}

#[tokio::test]
async fn of_many_agents_at_once_one_listens() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("api.sock");
    drop(StdListener::bind(&socket).unwrap());
    let mut starting = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let socket = socket.clone();
        starting.spawn(async move { ApiSocket::bind(&socket, None).await });
    }
    let started = starting.join_all().await;
    assert_eq!(started.iter().filter(|bound| bound.is_ok()).count(), 1);
    tokio::net::UnixStream::connect(&socket).await.unwrap();
}

#[tokio::test]
async fn others_files_and_sockets_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "mine").unwrap();
    let text = refusal(&file).await;
    assert!(text.contains("not a socket") && text.contains(file.to_str().unwrap()), "{text}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");

    let socket = folder.path().join("socket");
    let _listener = StdListener::bind(&socket).unwrap();
    let text = refusal(&socket).await;
    assert!(text.contains("another process listens"), "{text}");
    assert!(std::os::unix::net::UnixStream::connect(&socket).is_ok());
}

#[tokio::test]
async fn a_path_that_cannot_be_used_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let text = refusal(&folder.path().join("absent/api.sock")).await;
    assert!(text.contains("absent/api.sock.lock: its folder must exist"), "{text}");
    let text = refusal(&folder.path().join("x".repeat(120))).await;
    assert!(text.contains("107 bytes"), "{text}");
}
