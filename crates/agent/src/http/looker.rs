//! Answers looks of other hosts' agents: by the same gate and routes, with the role of a viewer.
//!
//! **Invariant:** only what is read is passed on, and never what would have this agent ask others in turn.

use std::sync::Arc;

use api::Problem;
use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{HeaderValue, Request, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, Limited};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;

use super::gate::Gate;
use super::peer::Peer;
use super::problem::Refused;
use super::{Backend, routes};
use crate::net::{Looked, Looker};

/// Bytes of an answer that are passed on.
const ANSWER_MAX: usize = 7 * 1024 * 1024;
/// What has an agent ask others.
const ASKS_OTHERS: [&str; 2] = ["/v1/at/", "/v1/overview"];

/// What answers of other hosts may be.
const KINDS: [&str; 2] = ["application/json", "application/problem+json"];

/// What answers other hosts by `backend`.
pub fn looker<B: Backend>(gate: Arc<Gate>, backend: B) -> Looker {
    let router = routes::router(gate, backend);
    Arc::new(move |who, path| {
        let router = router.clone();
        Box::pin(async move { look(router, who, &path).await })
    })
}

async fn look(router: Router, who: String, path: &str) -> Looked {
    let uri = path.parse::<Uri>().ok().filter(|uri| uri.path().starts_with("/v1/"));
    let uri = uri.filter(|uri| !ASKS_OTHERS.iter().any(|asks| uri.path().starts_with(asks)));
    let answer = match uri {
        Some(uri) => {
            let mut request = Request::new(Body::empty());
            *request.uri_mut() = uri;
            request.extensions_mut().insert(ConnectInfo(Peer::Host(who)));
            let Ok(answer) = TowerToHyperService::new(router).call(request).await;
            answer
        }
        None => {
            let hint = "Name a path of the API after the host: /v1/at/HOST/v1/vms";
            let problem = Problem::new(
                404,
                "not-passed-on",
                format!("{path} is not asked of other hosts"),
                hint,
            );
            Refused::from(problem).into_response()
        }
    };
    taken(answer).await
}

async fn taken(answer: Response) -> Looked {
    let status = answer.status().as_u16();
    let kind = answer.headers().get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default().to_owned();
    match Limited::new(answer.into_body(), ANSWER_MAX).collect().await {
        Ok(body) => Looked { status, kind, body: body.to_bytes().to_vec() },
        Err(error) => {
            let hint = "Ask for less: a shorter history, fewer events";
            let problem = Problem::new(500, "not-passed-on", error.to_string(), hint);
            let body = serde_json::to_vec(&problem).unwrap_or_default();
            Looked { status: 500, kind: "application/problem+json".to_owned(), body }
        }
    }
}

/// What another agent answered, as an answer of this one.
pub(super) fn answer(looked: Looked) -> Response {
    let status = StatusCode::from_u16(looked.status).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut answer = (status, looked.body).into_response();
    // Never as something that a browser would run: another host's agent may have been broken into.
    let kind = KINDS.iter().find(|kind| **kind == looked.kind).unwrap_or(&"text/plain");
    let guard = [
        (header::CONTENT_TYPE, *kind),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; sandbox"),
    ];
    for (name, value) in guard {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_another_host_is_passed_on_as_what_a_browser_would_run() {
        for (kind, passed) in [
            ("application/json", "application/json"),
            ("application/problem+json", "application/problem+json"),
            ("application/xhtml+xml", "text/plain"),
            ("application/javascript", "text/plain"),
            ("text/html", "text/plain"),
            ("", "text/plain"),
        ] {
            let looked = Looked { status: 200, kind: kind.to_owned(), body: b"{}".to_vec() };
            let answer = answer(looked);
            assert_eq!(answer.headers()[header::CONTENT_TYPE], passed, "{kind}");
            assert_eq!(answer.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
            let policy = &answer.headers()[header::CONTENT_SECURITY_POLICY];
            assert_eq!(policy, "default-src 'none'; sandbox");
        }
    }
}
