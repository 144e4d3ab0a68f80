//! Every refusal as RFC 9457 problem details, with a stable code and what to do.

use api::{BODY_MAX, Problem};
use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

/// A refusal on its way out.
#[derive(Debug)]
pub(super) struct Refused(Problem);

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Refused {
        Refused(problem)
    }
}

impl From<JsonRejection> for Refused {
    fn from(rejection: JsonRejection) -> Refused {
        let title = rejection.body_text();
        let status = rejection.status();
        if status == StatusCode::PAYLOAD_TOO_LARGE {
            return Refused(too_large());
        }
        let (code, hint) = if status == StatusCode::UNSUPPORTED_MEDIA_TYPE {
            ("not-json", "Send a JSON body with `content-type: application/json`".to_owned())
        } else if status == StatusCode::UNPROCESSABLE_ENTITY {
            ("wrong-fields", "Send the fields that this request has, and no others".to_owned())
        } else {
            ("bad-json", "Send one well-formed JSON document".to_owned())
        };
        Refused(Problem::new(status.as_u16(), code, title, hint))
    }
}

impl From<QueryRejection> for Refused {
    fn from(rejection: QueryRejection) -> Refused {
        let hint = "Events take after=NUMBER, limit=NUMBER, move=ID and follow=true; moves before=ID and limit=NUMBER; an inventory after=ID/HOST/NAME and limit=NUMBER; a plan numbered=true; a history since=SECONDS, step=SECONDS and metric=NAME; audit since=SECONDS, after=NUMBER, limit=NUMBER and kept=HASH";
        Refused(Problem::new(rejection.status().as_u16(), "bad-query", rejection.body_text(), hint))
    }
}

impl From<PathRejection> for Refused {
    fn from(rejection: PathRejection) -> Refused {
        let hint = "Write names in the path as UTF-8, percent-encoded";
        Refused(Problem::new(rejection.status().as_u16(), "bad-path", rejection.body_text(), hint))
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self.0)).into_response();
        let kind = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        if status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
        }
        response
    }
}

/// A body that is not read to its end.
pub(super) fn too_large() -> Problem {
    let hint = format!("Send at most {BODY_MAX} bytes");
    Problem::new(413, "body-too-large", "the body of the request is too large", hint)
}

/// Answers what no route is there for.
pub(super) async fn no_such_route(uri: Uri) -> Refused {
    let hint = "The API's paths begin with /v1/: overview, status, hosts, vms, moves, events, why";
    Refused(Problem::new(404, "no-such-route", format!("there is nothing at {}", uri.path()), hint))
}

/// Answers a method that a route does not have.
pub(super) async fn no_such_method(method: Method, uri: Uri) -> Refused {
    let hint = "Reading is done by GET; POST starts a move at /v1/moves and cancels one at /v1/moves/{id}/cancel";
    Refused(Problem::new(
        405,
        "no-such-method",
        format!("{} cannot be asked with {method}", uri.path()),
        hint,
    ))
}
