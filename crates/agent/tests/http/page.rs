//! The dashboard's files: there for everybody who reaches the agent's port, guarded, and nothing else with them.

use agent::http::{Admitted, Limits};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::{HeaderMap, Request, header};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use crate::backend::Served;

async fn asked(served: &Served, path: &str, with: &[(&str, &str)]) -> (u16, HeaderMap, Bytes) {
    let stream = UnixStream::connect(&served.socket).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut request = Request::builder().uri(path);
    for (name, value) in with {
        request = request.header(*name, *value);
    }
    let answer = sender.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
    let (head, body) = answer.into_parts();
    (head.status.as_u16(), head.headers, body.collect().await.unwrap().to_bytes())
}

#[tokio::test]
async fn the_page_loads_nothing_from_elsewhere_and_is_not_framed() {
    let served = Served::start().await;
    let (status, headers, body) = asked(&served, "/", &[("host", "localhost:1")]).await;
    let body = String::from_utf8(body.to_vec()).unwrap();
    assert_eq!(
        (status, &headers[header::CONTENT_TYPE]),
        (200, &"text/html; charset=utf-8".parse().unwrap())
    );
    let policy = headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none';") && policy.contains("frame-ancestors 'none'"));
    let sources = policy.split(';').flat_map(|rule| rule.split_whitespace().skip(1));
    for source in sources {
        assert!(["'none'", "'self'", "data:"].contains(&source), "{source}: {policy}");
    }
    assert!(!body.contains("//") && body.contains("Evenkeel"), "{body}");
    assert_eq!(served.backend.asked(), 0);
}

#[tokio::test]
async fn each_file_that_the_page_names_is_there_for_good_packed_and_known_by_its_tag() {
    let served = Served::start().await;
    let host = ("host", "localhost:1");
    let (_, headers, body) = asked(&served, "/", &[host]).await;
    let page = String::from_utf8(body.to_vec()).unwrap();
    // Without a built dashboard the page names none, and says how to build it.
    let named: Vec<&str> = page.split('"').filter(|word| word.starts_with("/assets/")).collect();
    assert_eq!(named.is_empty(), page.contains("cargo xtask web"), "{page}");
    assert_eq!(named.is_empty(), !headers.contains_key(header::ETAG));
    for file in named {
        let (status, headers, plain) = asked(&served, file, &[host]).await;
        assert_eq!(status, 200, "{file}");
        assert!(headers[header::CACHE_CONTROL].to_str().unwrap().contains("immutable"), "{file}");
        assert!(!headers.contains_key(header::CONTENT_ENCODING));
        let (_, packed_headers, packed) =
            asked(&served, file, &[host, ("accept-encoding", "br, gzip")]).await;
        assert_eq!(packed_headers[header::CONTENT_ENCODING], "gzip", "{file}");
        assert!(packed.len() < plain.len() && packed.starts_with(&[0x1f, 0x8b]), "{file}");
        let tag = headers[header::ETAG].to_str().unwrap();
        let (status, _, body) = asked(&served, file, &[host, ("if-none-match", tag)]).await;
        assert_eq!((status, body.len()), (304, 0), "{file}");
    }
    assert_eq!(asked(&served, "/assets/none.js", &[host]).await.0, 404);
}

#[tokio::test]
async fn over_the_socket_no_other_page_gets_an_answer_whoever_forwards_it_to_a_browser() {
    let served = Served::start().await;
    for with in [
        &[("host", "localhost:8080"), ("sec-fetch-site", "cross-site")][..],
        &[("host", "localhost:8080"), ("origin", "http://elsewhere.example")],
        &[("host", "rebound.example"), ("sec-fetch-site", "same-origin")],
        &[("host", "rebound.example:8080")],
    ] {
        for path in ["/", "/v1/status"] {
            let (status, _, body) = asked(&served, path, with).await;
            assert_eq!(status, 403, "{path} {with:?}");
            assert!(String::from_utf8_lossy(&body).contains("another-page"));
        }
    }
    let own = [("host", "localhost:8080"), ("sec-fetch-site", "same-origin")];
    assert_eq!(asked(&served, "/v1/status", &own).await.0, 200);
    let nobody = Admitted { uids: vec![], group: "evenkeel".to_owned(), gid: None };
    let folder = tempfile::tempdir().unwrap();
    let served = Served::with(folder, nobody, Limits::default(), None).await;
    assert_eq!(asked(&served, "/", &own).await.0, 403, "users who are not admitted");
}
