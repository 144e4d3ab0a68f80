//! Events as a stream: each with its number, resumed where it broke, and bounded whoever looks.

use std::time::Duration;

use api::{STREAM_MAX, STREAMS_MAX};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response, header};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::backend::{MOVE, Served};

const PATIENCE: Duration = Duration::from_secs(20);

async fn asked(served: &Served, query: &str, last: Option<&str>) -> Response<Incoming> {
    let stream = UnixStream::connect(&served.socket).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut request = Request::builder().uri(format!("/v1/events{query}"));
    request = request.header(header::HOST, "a").header(header::ACCEPT, "text/event-stream");
    if let Some(last) = last {
        request = request.header("last-event-id", last);
    }
    sender.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap()
}

/// Reads until so many events have come; their ids.
async fn ids(stream: &mut Response<Incoming>, count: usize) -> Vec<u64> {
    let mut text = String::new();
    let found = |text: &str| -> Vec<u64> {
        text.lines().filter_map(|line| line.strip_prefix("id: ")?.parse().ok()).collect()
    };
    while found(&text).len() < count {
        let frame = timeout(PATIENCE, stream.frame()).await.expect("it comes").unwrap().unwrap();
        text += std::str::from_utf8(frame.data_ref().unwrap()).unwrap();
    }
    assert_eq!(text.matches("data: {\"seq\":").count(), count, "{text}");
    found(&text)
}

#[tokio::test]
async fn a_stream_begins_with_the_newest_and_goes_on_as_events_come() {
    let served = Served::start().await;
    (0..3).for_each(|_| served.backend.note(MOVE));
    let mut stream = asked(&served, "?limit=2", None).await;
    assert_eq!(stream.headers()[header::CONTENT_TYPE], "text/event-stream");
    assert_eq!(ids(&mut stream, 2).await, [2, 3]);
    served.backend.note(MOVE);
    assert_eq!(ids(&mut stream, 1).await, [4]);
}

#[tokio::test]
async fn a_stream_is_resumed_after_the_last_event_that_came_however_many_there_were() {
    let served = Served::start().await;
    (0..300).for_each(|_| served.backend.note(MOVE));
    let mut stream = asked(&served, "?after=290", Some("5")).await;
    assert_eq!(ids(&mut stream, 295).await, (6..=300).collect::<Vec<u64>>());
    let mut stream = asked(&served, "?limit=1", Some("99999")).await;
    assert_eq!(ids(&mut stream, 1).await, [300], "an id of a log that was lost");
    let mut stream = asked(&served, "?limit=1", Some("301")).await;
    let mut text = String::new();
    while !text.contains("data: {\"seq\":300") {
        let frame = timeout(PATIENCE, stream.frame()).await.expect("it comes").unwrap().unwrap();
        text += std::str::from_utf8(frame.data_ref().unwrap()).unwrap();
    }
    assert!(text.contains("\n\nevent: reset\ndata: {\"newest\":300}\n\nid: 300\n"), "{text}");
    let refused = asked(&served, "", Some("x")).await;
    assert_eq!(refused.status(), 400);
    let body = refused.into_body().collect().await.unwrap().to_bytes();
    assert!(std::str::from_utf8(&body).unwrap().contains("bad-event-id"));
}

#[tokio::test]
async fn a_viewer_too_many_is_refused_and_a_place_is_free_again_once_one_has_gone() {
    let served = Served::start().await;
    let mut streams = Vec::new();
    for _ in 0..STREAMS_MAX {
        streams.push(asked(&served, "", None).await);
        assert_eq!(streams.last().unwrap().status(), 200);
    }
    let refused = asked(&served, "", None).await;
    assert_eq!(refused.status(), 503);
    let body = refused.into_body().collect().await.unwrap().to_bytes();
    assert!(std::str::from_utf8(&body).unwrap().contains("too-many-viewers"));
    streams.pop();
    let again = async { while asked(&served, "", None).await.status() != 200 {} };
    timeout(PATIENCE, again).await.expect("a place is free");
}

#[tokio::test]
async fn a_stream_ends_after_its_time_so_that_a_revoked_token_sees_no_more() {
    let served = Served::start().await;
    let mut stream = asked(&served, "", None).await;
    let frame = stream.frame().await.unwrap().unwrap();
    let first = std::str::from_utf8(frame.data_ref().unwrap()).unwrap();
    assert!(first.contains("retry: 1000\n"), "{first}");
    tokio::time::pause();
    let began = tokio::time::Instant::now();
    while stream.frame().await.is_some() {}
    let took = began.elapsed();
    assert!(took <= STREAM_MAX + Duration::from_secs(1) && took >= STREAM_MAX / 2, "{took:?}");
}

#[tokio::test]
async fn a_viewer_that_takes_nothing_is_dropped_and_its_place_is_free() {
    let served = Served::start().await;
    // More than a socket and a queue hold.
    (0..3000).for_each(|_| served.backend.note(MOVE));
    let mut deaf = Vec::new();
    for _ in 0..STREAMS_MAX {
        let mut stream = UnixStream::connect(&served.socket).await.unwrap();
        let request =
            "GET /v1/events?after=0 HTTP/1.1\r\nhost: a\r\naccept: text/event-stream\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.readable().await.unwrap();
        deaf.push(stream);
    }
    assert_eq!(asked(&served, "", None).await.status(), 503, "all places are taken");
    tokio::time::pause();
    tokio::time::advance(STREAM_MAX / 4).await;
    tokio::time::resume();
    let again = async { while asked(&served, "", None).await.status() != 200 {} };
    timeout(PATIENCE, again).await.expect("they are dropped before a stream's time is over");
    drop(deaf);
}
