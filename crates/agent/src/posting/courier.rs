//! One delivery: a connection, a request, the head of an answer.
//!
//! **Invariant:** it ends within [`PATIENCE`], reads at most [`BODY_MAX`] bytes of an answer's body, follows no redirect, and
//! leaves no connection behind.

use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::ready::Ready;
use crate::clock::unix_seconds;

/// From the look for its address until its answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// Of an answer's body: only its first words are used, and only where it is a refusal.
const BODY_MAX: usize = 1024;
/// Of an answer's head.
const HEAD_MAX: usize = 16 * 1024;
/// Characters of a refusal that are shown.
const WORDS_MAX: usize = 120;

/// How a delivery failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The receiver is not there or not well: another delivery would fare the same.
    Unwell(String),
    /// It says that it is gone for good: 410.
    Gone(String),
    /// It does not want this body.
    Refused(String),
}

impl Failure {
    pub(super) fn words(&self) -> &str {
        match self {
            Failure::Unwell(words) | Failure::Gone(words) | Failure::Refused(words) => words,
        }
    }
}

/// Posts it once.
pub(super) async fn post(to: &Ready, id: &str, body: Bytes) -> Result<(), Failure> {
    let waited = format!("no answer within {} s", PATIENCE.as_secs());
    match timeout(PATIENCE, connected(to, id, body)).await {
        Ok(Ok(answered)) => answered,
        Ok(Err(error)) => Err(Failure::Unwell(format!("{error:#}"))),
        Err(_elapsed) => Err(Failure::Unwell(waited)),
    }
}

type Asked = anyhow::Result<Result<(), Failure>>;

async fn connected(to: &Ready, id: &str, body: Bytes) -> Asked {
    let stream = TcpStream::connect((&*to.url.host, to.url.port)).await?;
    stream.set_nodelay(true)?;
    match &to.tls {
        None => exchange(stream, to, id, body).await,
        Some(tls) => {
            exchange(tls.connector.connect(tls.name.clone(), stream).await?, to, id, body).await
        }
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    to: &Ready,
    id: &str,
    body: Bytes,
) -> Asked {
    let mut builder = http1::Builder::new();
    let (mut sender, connection) =
        builder.max_buf_size(HEAD_MAX).handshake(TokioIo::new(stream)).await?;
    // Ends when this does, at the latest; what goes wrong there is told to the sender as well.
    let mut task = JoinSet::new();
    task.spawn(connection);
    let second = unix_seconds();
    let request = Request::post(&*to.url.path)
        .header(header::HOST, &*to.url.authority)
        .header(header::USER_AGENT, concat!("evenkeeld/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close")
        .header(header::CONTENT_TYPE, "application/json")
        .header("webhook-id", id)
        .header("webhook-timestamp", second)
        .header("webhook-signature", to.secrets.signature(id, second, &body))
        .body(Full::new(body))?;
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let words = words(answer.into_body()).await;
    Ok(judged(status, &words))
}

/// The first words of an answer. Whether it could be read to its end does not matter.
async fn words(body: Incoming) -> String {
    let (mut body, mut read) = (Limited::new(body, BODY_MAX), Vec::new());
    while let Some(Ok(frame)) = body.frame().await {
        if let Ok(part) = frame.into_data() {
            read.extend_from_slice(&part);
        }
    }
    String::from_utf8_lossy(&read).chars().take(WORDS_MAX).collect()
}

fn judged(status: StatusCode, words: &str) -> Result<(), Failure> {
    if status.is_success() {
        return Ok(());
    }
    let said = if words.is_empty() { String::new() } else { format!(": {words:?}") };
    let said = format!("it answers {}{said}", status.as_u16());
    Err(match status {
        StatusCode::GONE => Failure::Gone(said),
        StatusCode::BAD_REQUEST
        | StatusCode::PAYLOAD_TOO_LARGE
        | StatusCode::UNPROCESSABLE_ENTITY => Failure::Refused(said),
        _ if status.is_redirection() => {
            Failure::Unwell(format!("{said}; redirects are not followed: write the URL itself"))
        }
        _ => Failure::Unwell(said),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_whether_another_body_would_fare_better() {
        let of = |status: u16| judged(StatusCode::from_u16(status).unwrap(), "why\n");
        for status in [200, 201, 202, 204] {
            assert_eq!(of(status), Ok(()));
        }
        let said = |status: u16| format!("it answers {status}: \"why\\n\"");
        for status in [400, 413, 422] {
            assert_eq!(of(status), Err(Failure::Refused(said(status))));
        }
        for status in [401, 403, 404, 408, 429, 500, 503] {
            assert_eq!(of(status), Err(Failure::Unwell(said(status))));
        }
        assert_eq!(of(410), Err(Failure::Gone(said(410))));
        assert!(of(302).unwrap_err().words().contains("redirects are not followed"));
        assert_eq!(judged(StatusCode::NOT_FOUND, "").unwrap_err().words(), "it answers 404");
    }
}
