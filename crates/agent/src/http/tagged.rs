//! Answers with a tag: who has it already is told that it has not changed (304), and gets no body.
//!
//! The tag is a hash of the body, so it stands only before what does not change by itself: figures and ages change with each look.

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

/// More than any list that is tagged can have: they come page by page.
const BODY_MAX: usize = 4 << 20;

/// Adds the tag, and answers whoever has it.
pub(super) async fn tagged(request: Request, next: Next) -> Response {
    let wanted = [Method::GET, Method::HEAD].contains(request.method());
    let had = request.headers().get_all(header::IF_NONE_MATCH).iter().cloned().collect::<Vec<_>>();
    let answer = next.run(request).await;
    if !wanted || answer.status() != StatusCode::OK {
        return answer;
    }
    let (mut head, body) = answer.into_parts();
    let Ok(body) = to_bytes(body, BODY_MAX).await else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let hash = HEXLOWER.encode(&Sha256::digest(&body)[..16]);
    let tag = format!("\"{hash}\"");
    // Weak: the same list, in whatever form it travels.
    if let Ok(weak) = HeaderValue::from_str(&format!("W/{tag}")) {
        head.headers.insert(header::ETAG, weak);
    }
    head.headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if had.iter().any(|value| has(value, &tag)) {
        head.headers.remove(header::CONTENT_TYPE);
        head.headers.remove(header::CONTENT_LENGTH);
        head.status = StatusCode::NOT_MODIFIED;
        return Response::from_parts(head, Body::empty());
    }
    Response::from_parts(head, Body::from(body))
}

fn has(value: &HeaderValue, tag: &str) -> bool {
    let tags = value.to_str().unwrap_or_default().split(',').map(str::trim);
    tags.into_iter().any(|one| one == "*" || one.trim_start_matches("W/") == tag)
}
