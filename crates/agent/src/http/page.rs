//! The dashboard's files, as they were in `web/dist` when the agent was built; without them a page that says how to build it.
//!
//! **Invariant:** nothing but these files is served, no page may load or ask anything elsewhere, and none may be framed.

use api::Problem;
use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::problem::Refused;

/// One file.
struct File {
    /// Its path, without a slash before it.
    path: &'static str,
    kind: &'static str,
    /// A hash of its content, as `etag` has it.
    tag: &'static str,
    plain: &'static [u8],
    /// The same, compressed by gzip; empty: that is no shorter.
    gzip: &'static [u8],
}

include!(concat!(env!("OUT_DIR"), "/dashboard.rs"));

const INDEX: &str = "index.html";
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// Files whose names change with their content.
const FOR_GOOD: &str = "public, max-age=31536000, immutable";
const ASK_AGAIN: &str = "no-cache";
const NOT_BUILT: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Evenkeel</title>\
<h1>This agent was built without its dashboard</h1>\
<p>To have it, run <code>cargo xtask web</code> (it needs Node.js 20 and npm), then build and install <code>evenkeeld</code> again. \
The API under <code>/v1/</code> and the command <code>evenkeel</code> work without it.</p></html>";

/// The page itself.
pub(super) async fn index(headers: HeaderMap) -> Response {
    match FILES.iter().find(|file| file.path == INDEX) {
        Some(file) => served(file, ASK_AGAIN, &headers),
        None => guarded((StatusCode::OK, NOT_BUILT).into_response(), "text/html; charset=utf-8"),
    }
}

/// A file that the page names.
pub(super) async fn asset(
    file: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let Path(name) = file?;
    let wanted = format!("assets/{name}");
    let found = FILES.iter().find(|file| file.path == wanted);
    let file = found.ok_or_else(|| {
        let hint = "Load the page anew: the agent was replaced by one with another dashboard";
        Problem::new(404, "no-such-file", format!("the dashboard has no file {name:?}"), hint)
    })?;
    Ok(served(file, FOR_GOOD, &headers))
}

fn served(file: &File, kept: &'static str, headers: &HeaderMap) -> Response {
    let told = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let tags = told(header::IF_NONE_MATCH).unwrap_or_default();
    let has_it = tags.split(',').any(|tag| tag.trim().trim_start_matches("W/") == file.tag);
    let unpacks = told(header::ACCEPT_ENCODING).unwrap_or_default();
    let unpacks =
        unpacks.split(',').any(|kind| kind.split(';').next().map(str::trim) == Some("gzip"));
    let mut answer = match (has_it, unpacks && !file.gzip.is_empty()) {
        (true, _) => StatusCode::NOT_MODIFIED.into_response(),
        (false, true) => {
            let gzip = (header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            ([gzip], file.gzip).into_response()
        }
        (false, false) => file.plain.into_response(),
    };
    let set = answer.headers_mut();
    set.insert(header::ETAG, HeaderValue::from_static(file.tag));
    set.insert(header::CACHE_CONTROL, HeaderValue::from_static(kept));
    set.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    guarded(answer, file.kind)
}

fn guarded(mut answer: Response, kind: &'static str) -> Response {
    let headers = answer.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    answer
}
