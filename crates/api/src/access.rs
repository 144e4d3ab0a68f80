//! Who may ask what of an agent, and what was asked: roles, tokens and the audit log.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The longest life of a token, in days.
pub const TOKEN_DAYS_MAX: u32 = 366;
/// Lines of the audit log in one answer where the request names no limit.
pub const AUDIT: u32 = 100;
/// The most lines of the audit log that may be asked for at once.
pub const AUDIT_MAX: u32 = 1000;

/// What a token is good for; each role may do all that the one before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// May look.
    Viewer,
    /// May have VMs moved and left alone, and a host drained.
    Operator,
    /// May do all but make tokens: that is done over the agent's unix socket alone.
    Admin,
}

impl fmt::Display for Role {
    /// Its name, as in JSON.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// `POST /v1/tokens`: make a token. Over the unix socket alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// Whose it is, or what it is for: 1 to 64 bytes, for people.
    pub name: String,
    /// What it is good for.
    pub role: Role,
    /// For how long: 1 to [`TOKEN_DAYS_MAX`].
    pub days: u32,
}

/// Answer to `POST /v1/tokens`: the only time that the token itself is told.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct TokenMade {
    /// What is sent as `Authorization: Bearer …`. A secret.
    pub token: String,
    /// What is known of it from now on.
    pub view: TokenView,
}

impl fmt::Debug for TokenMade {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenMade").field("view", &self.view).finish_non_exhaustive()
    }
}

/// One of `GET /v1/tokens`, and the answer to `POST /v1/tokens/{id}/revoke`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct TokenView {
    /// Names it; no secret.
    pub id: String,
    /// Whose it is.
    pub name: String,
    /// What it is good for.
    pub role: Role,
    /// When it was made.
    pub made: String,
    /// Until when it holds.
    pub until: String,
    /// Whether it holds: it has not expired, and was not revoked.
    pub holds: bool,
}

/// What is asked of `GET /v1/audit`, as its query.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "schema", derive(utoipa::IntoParams))]
#[cfg_attr(feature = "schema", into_params(parameter_in = Query))]
#[serde(default, deny_unknown_fields)]
pub struct AuditFilter {
    /// Only lines of so many seconds back from now.
    pub since: Option<u64>,
    /// Only lines with a greater number, the oldest `limit` of them; absent: the newest `limit` of all.
    pub after: Option<u64>,
    /// At most so many: 1 to [`AUDIT_MAX`]; absent: [`AUDIT`].
    pub limit: Option<u32>,
    /// A hash that was kept elsewhere: whether a line with it is there still.
    pub kept: Option<String>,
}

/// `GET /v1/audit`: what was asked of this agent that could change something.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct AuditView {
    /// Its lines, oldest first.
    pub lines: Vec<AuditLine>,
    /// Number of the newest line of all; 0: there is none.
    pub newest_seq: u64,
    /// Hash of the newest line, to be kept elsewhere: it stands for all lines before it.
    pub newest_hash: String,
    /// What going through all of it gave.
    pub check: AuditCheck,
}

/// What was asked of an agent, by whom, and what came of it: one line of the audit log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct AuditLine {
    /// Counts the lines from 1.
    pub seq: u64,
    /// When it was answered, in milliseconds since 1970.
    pub at: u64,
    /// The same for people.
    pub time: String,
    /// Who asked.
    pub who: Who,
    /// Where from: `unix pid 4711`, `tcp 198.18.0.7:40000`, or `agent`.
    pub from: String,
    /// HTTP method; empty: a remark of the agent's own.
    pub method: String,
    /// Path and query, cut at 512 bytes.
    pub path: String,
    /// The body, cut at 1 KiB; for what was refused unread: why.
    pub what: String,
    /// HTTP status of the answer; 0: a remark.
    pub status: u16,
    /// Hash of the line before.
    pub before: String,
    /// SHA-256 of this line as it stands in the file, with this field empty.
    pub hash: String,
}

/// Who asked: a user of the host, or whoever holds a token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Who {
    /// A user of the host, by the kernel's word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// The id of the token that was shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Name of the user or of the token; absent: nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl fmt::Display for Who {
    /// For people: `root (uid 0)`, `ci (token 1a2b3c4d)`, `unknown`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.as_deref().unwrap_or("unknown");
        match (self.uid, &self.token) {
            (Some(uid), _) => write!(f, "{name} (uid {uid})"),
            (None, Some(token)) => write!(f, "{name} (token {token})"),
            (None, None) => f.write_str(name),
        }
    }
}

/// Whether the lines of an audit log fit together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct AuditCheck {
    /// Lines that were gone through.
    pub lines: u64,
    /// Number of the first line; above 1: what was before is not there any more.
    pub first_seq: u64,
    /// The first line that does not fit, with its file and why; absent: all fit.
    pub broken: Option<String>,
    /// Whether a line with the hash that was kept is there; absent: none was given.
    pub kept_found: Option<bool>,
}
