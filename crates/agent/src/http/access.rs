//! The routes that the gate itself answers: tokens and the audit log.

use std::sync::Arc;

use api::{AUDIT, AUDIT_MAX, AuditFilter, AuditView, Problem, TokenMade, TokenRequest, TokenView};
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query};
use axum::http::StatusCode;
use axum::{Extension, Json};

use super::gate::Gate;
use super::paging;
use super::routes::{Accepted, Answer, Named};
use super::tokens::NotMade;
use crate::clock::{unix_micros, unix_seconds};

pub(super) async fn tokens(Extension(gate): Extension<Arc<Gate>>) -> Answer<Vec<TokenView>> {
    Ok(Json(gate.tokens.all(now())))
}

pub(super) async fn make_token(
    Extension(gate): Extension<Arc<Gate>>,
    wish: Result<Json<TokenRequest>, JsonRejection>,
) -> Accepted<TokenMade> {
    let Json(wish) = wish?;
    let made = blocking(move || gate.tokens.make(wish, now())).await?;
    let made = made.map_err(|not| match not {
        NotMade::Wish(wrong) => {
            Problem::new(422, "wrong-fields", wrong, "`evenkeel token create --help` tells more")
        }
        NotMade::Full => {
            let title = "there are as many tokens as an agent keeps";
            Problem::new(409, "too-many", title, "revoke some: `evenkeel token list` shows them")
        }
    })?;
    Ok((StatusCode::CREATED, Json(made)))
}

pub(super) async fn revoke_token(
    Extension(gate): Extension<Arc<Gate>>,
    id: Named,
) -> Answer<TokenView> {
    let Path(id) = id?;
    let wanted = id.clone();
    let revoked = blocking(move || gate.tokens.revoke(&wanted, now())).await?;
    Ok(Json(revoked.ok_or_else(|| {
        let title = format!("there is no token {id:?}");
        Problem::new(404, "no-such-token", title, "`evenkeel token list` shows them")
    })?))
}

pub(super) async fn audit(
    Extension(gate): Extension<Arc<Gate>>,
    filter: Result<Query<AuditFilter>, QueryRejection>,
) -> Answer<AuditView> {
    let Query(mut filter) = filter?;
    let limit = paging::limit(filter.limit, AUDIT, AUDIT_MAX)?;
    filter.limit = u32::try_from(limit).ok();
    Ok(Json(blocking(move || gate.audit.look(&filter, unix_micros() / 1000)).await?))
}

fn now() -> u64 {
    u64::from(unix_seconds())
}

/// What touches the disk.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> Result<T, Problem> {
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.unwrap_or_else(|error| Err(error.into()));
    done.map_err(|error| {
        let hint = "look into the agent's log; mend or make room for that file";
        Problem::new(500, "not-kept", format!("{error:#}"), hint)
    })
}
