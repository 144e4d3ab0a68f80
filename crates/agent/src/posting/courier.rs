//! One delivery: a connection, a request, the head of an answer.
//!
//! **Invariant:** it ends within [`PATIENCE`], reads at most [`BODY_MAX`] bytes of an answer's body, follows no redirect, and
//! leaves no connection behind.

use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{HeaderMap, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::ready::{Gets, Ready};
use super::secret::Header;
use crate::clock::unix_seconds;

/// From the look for its address until its answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// Of an answer's body: of a refusal its first words are used, of OTLP's answer what it says of a part.
const BODY_MAX: usize = 16 * 1024;
/// Of an answer's head.
const HEAD_MAX: usize = 16 * 1024;
/// Characters of a refusal that are shown.
const WORDS_MAX: usize = 120;

/// How a delivery failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The receiver is not there or not well: another delivery would fare the same. It may say when to come again.
    Unwell(String, Option<Duration>),
    /// It says that it is gone for good: 410.
    Gone(String),
    /// It does not want this body.
    Refused(String),
    /// It does not want this body and is not to be asked again, as OTLP has it.
    Never(String),
}

impl Failure {
    pub(super) fn words(&self) -> &str {
        match self {
            Failure::Unwell(words, _)
            | Failure::Gone(words)
            | Failure::Refused(words)
            | Failure::Never(words) => words,
        }
    }
}

/// Posts it once. Gives what of it was not taken, in words, where the receiver says so.
pub(super) async fn post(to: &Ready, id: &str, body: Bytes) -> Result<Option<String>, Failure> {
    let waited = format!("no answer within {} s", PATIENCE.as_secs());
    match timeout(PATIENCE, connected(to, id, body)).await {
        Ok(Ok(answered)) => answered,
        Ok(Err(error)) => Err(Failure::Unwell(format!("{error:#}"), None)),
        Err(_elapsed) => Err(Failure::Unwell(waited, None)),
    }
}

type Asked = anyhow::Result<Result<Option<String>, Failure>>;

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
        .header(header::CONTENT_TYPE, "application/json");
    let request = match &to.gets {
        Gets::Events { secrets, .. } => request
            .header("webhook-id", id)
            .header("webhook-timestamp", second)
            .header("webhook-signature", secrets.signature(id, second, &body)),
        Gets::Traces { header: Some(Header { name, value }) } => request.header(name, value),
        Gets::Traces { header: None } => request,
    };
    let answer = sender.send_request(request.body(Full::new(body))?).await?;
    let (status, after) = (answer.status(), after(answer.headers()));
    let read = read(answer.into_body()).await;
    Ok(match to.gets {
        Gets::Events { .. } => judged(status, after, &shown(&read)).map(|()| None),
        Gets::Traces { .. } => judged_by_otlp(status, after, &read),
    })
}

/// When to come again, if the answer says it in seconds; the date that it might say instead is not looked at.
fn after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// The beginning of an answer's body. Whether it could be read to its end does not matter.
async fn read(body: Incoming) -> Vec<u8> {
    let (mut body, mut read) = (body, Vec::new());
    while read.len() < BODY_MAX
        && let Some(Ok(frame)) = body.frame().await
    {
        if let Ok(part) = frame.into_data() {
            read.extend_from_slice(&part[..part.len().min(BODY_MAX - read.len())]);
        }
    }
    read
}

/// Its first words.
fn shown(read: &[u8]) -> String {
    String::from_utf8_lossy(read).chars().take(WORDS_MAX).collect()
}

/// OTLP's rules: what may come again is named, and nothing else does; a body may be taken in part.
fn judged_by_otlp(
    status: StatusCode,
    after: Option<Duration>,
    read: &[u8],
) -> Result<Option<String>, Failure> {
    match judged(status, after, &shown(read)) {
        Ok(()) => {
            let answer: Option<Answer> = serde_json::from_slice(read).ok();
            let partial = answer.and_then(|answer| answer.partial_success);
            let partial = partial.map(|it| (it.rejected(), it.error_message));
            let partial = partial.filter(|(spans, why)| *spans > 0 || !why.is_empty());
            Ok(partial.map(|(spans, why)| {
                let why: String = why.chars().take(WORDS_MAX).collect();
                format!("{spans} spans were not taken: {why:?}")
            }))
        }
        Err(failure) => Err(match status.as_u16() {
            429 | 502 | 503 | 504 => failure,
            _ => Failure::Never(failure.words().to_owned()),
        }),
    }
}

/// `ExportTraceServiceResponse`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    partial_success: Option<Partial>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Partial {
    /// An `int64`: a number, or its digits as text.
    rejected_spans: serde_json::Value,
    error_message: String,
}

impl Partial {
    fn rejected(&self) -> u64 {
        let text = self.rejected_spans.as_str().and_then(|digits| digits.parse().ok());
        text.or(self.rejected_spans.as_u64()).unwrap_or(0)
    }
}

fn judged(status: StatusCode, after: Option<Duration>, words: &str) -> Result<(), Failure> {
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
            let said = format!("{said}; redirects are not followed: write the URL itself");
            Failure::Unwell(said, None)
        }
        _ => Failure::Unwell(said, after),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_whether_another_body_would_fare_better() {
        let soon = Some(Duration::from_secs(7));
        let of = |status: u16| judged(StatusCode::from_u16(status).unwrap(), soon, "why\n");
        for status in [200, 201, 202, 204] {
            assert_eq!(of(status), Ok(()));
        }
        let said = |status: u16| format!("it answers {status}: \"why\\n\"");
        for status in [400, 413, 422] {
            assert_eq!(of(status), Err(Failure::Refused(said(status))));
        }
        for status in [401, 403, 404, 408, 429, 500, 503] {
            assert_eq!(of(status), Err(Failure::Unwell(said(status), soon)));
        }
        assert_eq!(of(410), Err(Failure::Gone(said(410))));
        assert!(of(302).unwrap_err().words().contains("redirects are not followed"));
        let silent = judged(StatusCode::NOT_FOUND, None, "").unwrap_err();
        assert_eq!(silent.words(), "it answers 404");
    }

    #[test]
    fn of_traces_only_what_otlp_names_comes_again_and_what_is_taken_in_part_is_told() {
        let of = |status: u16, body: &str| {
            judged_by_otlp(StatusCode::from_u16(status).unwrap(), None, body.as_bytes())
        };
        for status in [429, 502, 503, 504] {
            assert!(matches!(of(status, ""), Err(Failure::Unwell(..))), "{status}");
        }
        for status in [301, 400, 401, 404, 408, 410, 413, 500, 501] {
            assert!(matches!(of(status, ""), Err(Failure::Never(_))), "{status}");
        }
        for whole in ["", "{}", "{\"partialSuccess\":{}}", "{\"partialSuccess\":null}", "no JSON"] {
            assert_eq!(of(200, whole), Ok(None), "{whole}");
        }
        for spans in ["\"3\"", "3"] {
            let answer = "{\"partialSuccess\":{\"rejectedSpans\":N,\"errorMessage\":\"old\"}}";
            let told = of(200, &answer.replace('N', spans)).unwrap().unwrap();
            assert_eq!(told, "3 spans were not taken: \"old\"");
        }
    }

    #[test]
    fn an_answer_may_say_when_to_come_again() {
        let of = |value: &'static str| {
            after(&HeaderMap::from_iter([(header::RETRY_AFTER, value.parse().unwrap())]))
        };
        assert_eq!(of("120"), Some(Duration::from_secs(120)));
        for odd in ["Fri, 31 Dec 1999 23:59:59 GMT", "-1", "1.5", ""] {
            assert_eq!(of(odd), None, "{odd}");
        }
        assert_eq!(after(&HeaderMap::new()), None);
    }
}
