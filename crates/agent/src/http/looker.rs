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
    // Never as something that a browser would show.
    let kind = if looked.kind.starts_with("application/") { &*looked.kind } else { "text/plain" };
    if let Ok(kind) = HeaderValue::from_str(kind) {
        answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    }
    answer
}
