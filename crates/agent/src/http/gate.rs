//! Who may ask what: each request passes here before a route sees it, and each that could change something is noted.
//!
//! ```text
//!   request ─▶ who asks? ─▶ may they? ─▶ changes something? ─ no ─▶ route ─▶ answer
//!                 └ 401, 403, 429 ◀─┘              └ yes ─▶ body, route, line of the audit log on disk ─▶ answer
//! ```
//!
//! **Invariant:** what is not in the table of routes is for the unix socket alone; a request of which it is not known where it
//! came from is refused. What was begun is noted even if whoever asked has gone away.
//! **Invariant:** over the unix socket, which a person may forward to a browser, no page but the agent's own is answered.

use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::{BODY_MAX, Me, Problem, Role, Who};
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::time::{Instant, timeout};

use super::audit::{Audit, Call};
use super::browser;
use super::guesses::{Guesses, WINDOW};
use super::peer::{Admitted, Peer, Process, user};
use super::problem::{Refused, too_large};
use super::refusals::{By, Line, Refusals};
use super::routes::{Needs, Route};
use super::tokens::{Tokens, Wrong};
use crate::clock::unix_seconds;

/// Who may ask, and what is noted of it; limits of what one may take.
#[derive(Debug)]
pub struct Gate {
    admitted: Admitted,
    limits: Limits,
    pub(super) tokens: Tokens,
    pub(super) audit: Arc<Audit>,
    guesses: Mutex<Guesses>,
    refusals: Arc<Mutex<Refusals>>,
}

/// What a connection may take. Each wait has its end, so that whoever is slow holds nothing up for long.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections over TCP at once.
    pub connections: usize,
    /// Of these from one address.
    pub connections_per_address: usize,
    /// Until TLS is agreed on.
    pub handshake: Duration,
    /// Until the head of a request is there, over TCP.
    pub head: Duration,
    /// Until its body is there.
    pub body: Duration,
    /// A connection over TCP from its beginning to its end; longer than [`api::FOLLOW_MAX`].
    pub whole: Duration,
    /// Wrong tokens of one address within a minute; then none of its is looked at before that is over.
    pub wrong_tokens: u32,
    /// Bytes of the audit log before it is rotated; as many are kept once more.
    pub audit_bytes: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 64,
            connections_per_address: 16,
            handshake: Duration::from_secs(5),
            head: Duration::from_secs(5),
            body: Duration::from_secs(10),
            whole: Duration::from_secs(60),
            wrong_tokens: 10,
            audit_bytes: 16 << 20,
        }
    }
}

/// Who asks, as the gate knows it.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    who: Who,
    role: Role,
    here: bool,
}

impl Caller {
    /// As the API tells it, by the agent of this host.
    pub(super) fn me(&self, host: String) -> Me {
        let name = self.who.name.clone().or_else(|| self.who.uid.and_then(user));
        let who = Who { name, ..self.who.clone() };
        Me { who: who.to_string(), role: self.role, here: self.here, host }
    }

    /// Lets this role and higher ones through.
    ///
    /// # Errors
    /// What this caller lacks.
    pub(super) fn needs(&self, role: Role, what: &str) -> Result<(), Problem> {
        if self.role >= role {
            return Ok(());
        }
        let title = format!("{} is {} only, and {what} needs {role}", self.who, self.role);
        let hint = format!(
            "Use a token with the role {role} (`evenkeel token create --role {role}`), or ask on the agent's host"
        );
        Err(Problem::new(403, "role-too-low", title, hint))
    }
}

/// A request that goes no further.
struct Stopped {
    who: Who,
    problem: Problem,
    retry: Option<Duration>,
    /// Nobody that is known here: of these few are noted.
    stranger: bool,
}

/// What the gate goes by: itself, and the table of routes.
#[derive(Clone, Debug)]
pub(super) struct Passage {
    pub(super) gate: Arc<Gate>,
    pub(super) table: Arc<[Route]>,
}

impl Gate {
    /// With the tokens and the audit log in this folder, which is there.
    ///
    /// # Errors
    /// One of them cannot be read.
    pub fn open(folder: &Path, admitted: Admitted, limits: Limits) -> anyhow::Result<Gate> {
        let audit = Arc::new(Audit::open(folder, limits.audit_bytes)?);
        let tokens = Tokens::open(folder)?;
        Ok(Gate {
            admitted,
            limits,
            tokens,
            audit,
            guesses: Guesses::new(limits.wrong_tokens).into(),
            refusals: Arc::default(),
        })
    }

    pub(super) fn limits(&self) -> Limits {
        self.limits
    }

    fn guesses(&self) -> MutexGuard<'_, Guesses> {
        lock(&self.guesses)
    }

    fn caller(&self, peer: &Peer, headers: &HeaderMap) -> Result<Caller, Box<Stopped>> {
        match peer {
            Peer::Unix(process) => self.user(process, headers),
            Peer::Tcp(address) => self.holder(address.ip(), headers),
            Peer::Host(name) => {
                let who = Who { name: Some(name.clone()), ..Who::default() };
                Ok(Caller { who, role: Role::Viewer, here: false })
            }
        }
    }

    fn user(&self, process: &Process, headers: &HeaderMap) -> Result<Caller, Box<Stopped>> {
        let mut who = Who { uid: process.uid, ..Who::default() };
        if self.admitted.admits(process) {
            if browser::of_another_page(headers) {
                let title = "a browser asks this for a page that is not the agent's own";
                let hint =
                    "Open the dashboard as http://localhost:PORT, by its address and not by a link";
                let problem = Problem::new(403, "another-page", title, hint);
                return Err(Box::new(Stopped { who, problem, retry: None, stranger: false }));
            }
            return Ok(Caller { who, role: Role::Admin, here: true });
        }
        who.name = process.uid.and_then(user);
        let title = format!("{who} may not ask this agent anything");
        let hint = self.admitted.way_in(who.name.as_deref().unwrap_or("USER"));
        let problem = Problem::new(403, "not-admitted", title, hint);
        Err(Box::new(Stopped { who, problem, retry: None, stranger: true }))
    }

    fn holder(&self, from: IpAddr, headers: &HeaderMap) -> Result<Caller, Box<Stopped>> {
        let now = Instant::now();
        let stopped = |status, code, title: String, hint: &str| {
            let problem = Problem::new(status, code, title, hint);
            Box::new(Stopped { who: Who::default(), problem, retry: None, stranger: true })
        };
        if let Some(rest) = self.guesses().barred(from, now) {
            let title = format!(
                "{} wrong tokens came from {from} within {} s",
                self.limits.wrong_tokens,
                WINDOW.as_secs()
            );
            let hint = "Wait a minute: until then no token of this address is looked at";
            let mut stopped = stopped(429, "too-many-wrong-tokens", title, hint);
            stopped.retry = Some(rest);
            return Err(stopped);
        }
        let make = "`evenkeel token create` on the agent's host makes one";
        let Some(shown) = bearer(headers) else {
            let title = "over TCP this agent asks for a token".to_owned();
            let hint = format!(
                "Send `Authorization: Bearer evk_…` (EVENKEEL_TOKEN, --token-file): {make}"
            );
            return Err(stopped(401, "no-token", title, &hint));
        };
        let (holder, expired) = match self.tokens.holder(shown, u64::from(unix_seconds())) {
            Ok(holder) => (holder, false),
            Err(Wrong::Expired(holder)) => (holder, true),
            Err(Wrong::Unknown) => {
                if self.guesses().wrong(from, now) {
                    tracing::warn!(
                        "{} wrong tokens came from {from}: none of that address is looked at for a minute",
                        self.limits.wrong_tokens
                    );
                }
                let title = "this token is not of this agent, or was revoked".to_owned();
                let hint = format!(
                    "`evenkeel token list` on the agent's host shows those that hold; {make}"
                );
                return Err(stopped(401, "wrong-token", title, &hint));
            }
        };
        let who = Who { token: Some(holder.id), name: Some(holder.name), ..Who::default() };
        if expired {
            let title = format!("the time of {who} is over");
            return Err(Box::new(Stopped { who, ..*stopped(401, "expired-token", title, make) }));
        }
        Ok(Caller { who, role: holder.role, here: false })
    }

    /// Whether what is to be changed can be noted.
    async fn ready(&self) -> Result<(), Problem> {
        let audit = Arc::clone(&self.audit);
        let ready = tokio::task::spawn_blocking(move || audit.ready()).await;
        let ready = ready.unwrap_or_else(|error| Err(error.into()));
        ready.map_err(|error| {
            let title =
                format!("nothing is changed while the audit log cannot be written: {error:#}");
            Problem::new(
                503,
                "audit-unwritable",
                title,
                "Make room on the agent's disk, or mend that file",
            )
        })
    }

    /// Whether a call has a line of its own: of what was refused to one caller only the first of each minute have.
    fn has_line(&self, call: &Call) -> bool {
        let known = call.who.uid.is_some() || call.who.token.is_some();
        if !known || !(400..500).contains(&call.status) {
            return true;
        }
        let line = lock(&self.refusals).refused(&call.who, Instant::now());
        if let Line::Counted(Some((at, by))) = &line {
            tokio::spawn(tell_more(
                Arc::clone(&self.refusals),
                Arc::clone(&self.audit),
                (*at, by.clone()),
                call.who.clone(),
            ));
        }
        line == Line::Own
    }

    /// Notes a call, then lets its answer go.
    pub(super) async fn noted(&self, mut call: Call, answer: Response) -> Response {
        call.status = answer.status().as_u16();
        if !self.has_line(&call) {
            return answer;
        }
        let audit = Arc::clone(&self.audit);
        let noted = tokio::task::spawn_blocking(move || {
            call.who = named(call.who);
            audit.note(call)
        });
        match noted.await.unwrap_or_else(|error| Err(error.into())) {
            Ok(()) => answer,
            Err(error) => {
                tracing::error!("the audit log: {error:#}");
                let title = format!(
                    "what was asked was answered with status {}, but the audit log cannot be written: {error:#}",
                    answer.status().as_u16()
                );
                let done = if answer.status().is_client_error() {
                    "Nothing was done"
                } else {
                    "It may have been done: look with `evenkeel status`"
                };
                let hint = format!(
                    "{done}. Make room on the agent's disk; until then nothing more is changed"
                );
                Refused::from(Problem::new(500, "not-noted", title, hint)).into_response()
            }
        }
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    // Counts at most; a panic of another thread leaves them usable.
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// With the user's name, which may have to be looked up.
fn named(who: Who) -> Who {
    let name = who.name.or_else(|| who.uid.and_then(user));
    Who { name, ..who }
}

/// When the minute is over, says how many refused calls had no line of their own.
async fn tell_more(
    refusals: Arc<Mutex<Refusals>>,
    audit: Arc<Audit>,
    (at, by): (Instant, By),
    who: Who,
) {
    tokio::time::sleep_until(at).await;
    let more = lock(&refusals).more(&by);
    let noted = tokio::task::spawn_blocking(move || {
        let of = if by == By::Others { "others".to_owned() } else { named(who).to_string() };
        audit.remark(format!(
            "{more} more calls of {of} were refused within a minute, and are not noted one by one"
        ))
    });
    if let Err(error) = noted.await.unwrap_or_else(|error| Err(error.into())) {
        tracing::error!("the audit log: {error:#}");
    }
}

/// Lets a request through to its route, or not.
pub(super) async fn pass(
    State(Passage { gate, table }): State<Passage>,
    mut request: Request,
    next: Next,
) -> Response {
    let changing = !matches!(*request.method(), Method::GET | Method::HEAD);
    let Some(ConnectInfo(peer)) = request.extensions().get::<ConnectInfo<Peer>>().cloned() else {
        let title = "it is not known where this request came from";
        return refused(Problem::new(403, "not-admitted", title, "Report this as a mistake"));
    };
    let mut call = Call {
        who: Who::default(),
        from: from(&peer),
        method: request.method().to_string(),
        path: request.uri().path_and_query().map_or_else(String::new, ToString::to_string),
        what: String::new(),
        status: 0,
    };
    let needs = needs(&table, &request);
    if needs == Needs::Nothing && !changing && matches!(peer, Peer::Tcp(_)) {
        return next.run(request).await;
    }
    let caller = gate.caller(&peer, request.headers()).and_then(|caller| {
        let may = admits(needs, &caller, &call);
        may.map_err(|problem| Stopped {
            who: caller.who.clone(),
            problem,
            retry: None,
            stranger: false,
        })?;
        Ok(caller)
    });
    let caller = match caller {
        Ok(caller) => caller,
        Err(stopped) => return stop(&gate, *stopped, call, changing).await,
    };
    call.who.clone_from(&caller.who);
    request.extensions_mut().insert(caller);
    request.extensions_mut().insert(Arc::clone(&gate));
    if !changing {
        return next.run(request).await;
    }
    if let Err(problem) = gate.ready().await {
        return refused(problem);
    }
    let (head, body) = request.into_parts();
    let body = match read(body, gate.limits.body).await {
        Ok(body) => body,
        Err(problem) => {
            call.what = format!("refused: {}", problem.code);
            return gate.noted(call, refused(problem)).await;
        }
    };
    call.what = String::from_utf8_lossy(&body).into_owned();
    // A task of its own: whoever asks may go away at any time, and what was begun is noted all the same.
    let carried_out = tokio::spawn(async move {
        let answer = next.run(Request::from_parts(head, Body::from(body))).await;
        gate.noted(call, answer).await
    });
    carried_out.await.unwrap_or_else(|error| {
        let title = format!("the agent failed at it: {error}");
        refused(Problem::new(500, "failed", title, "look into the agent's log"))
    })
}

/// What a route needs, by the table.
fn needs(table: &[Route], request: &Request) -> Needs {
    let Some(path) = request.extensions().get::<MatchedPath>() else {
        // There is nothing, which anybody who may look is told.
        return Needs::Role(Role::Viewer);
    };
    let method = if request.method() == Method::HEAD { &Method::GET } else { request.method() };
    let of_path = || table.iter().filter(|route| route.path == path.as_str());
    let found = of_path().find(|route| route.method == method.as_str());
    match found {
        Some(route) => route.needs,
        None if of_path().next().is_some() => Needs::Role(Role::Viewer),
        None => Needs::Here,
    }
}

fn admits(needs: Needs, caller: &Caller, call: &Call) -> Result<(), Problem> {
    let what = format!("{} {}", call.method, call.path);
    match needs {
        Needs::Nothing => Ok(()),
        Needs::Role(role) => caller.needs(role, &what),
        Needs::Here if caller.here => Ok(()),
        Needs::Here => {
            let title = format!("{what} is for the agent's unix socket alone");
            Err(Problem::new(403, "only-here", title, "Run it on the agent's host, without --host"))
        }
    }
}

async fn stop(gate: &Gate, stopped: Stopped, mut call: Call, changing: bool) -> Response {
    let Stopped { who, problem, retry, stranger } = stopped;
    call.what = format!("refused: {}", problem.code);
    let mut answer = refused(problem);
    if let Some(retry) = retry {
        answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry.as_secs() + 1));
    }
    if !changing {
        return answer;
    }
    if stranger {
        let Some(before) = gate.guesses().noted(Instant::now()) else { return answer };
        if before > 0 {
            call.what += &format!("; {before} of strangers before it are not noted");
        }
    }
    call.who = who;
    gate.noted(call, answer).await
}

fn refused(problem: Problem) -> Response {
    Refused::from(problem).into_response()
}

fn from(peer: &Peer) -> String {
    match peer {
        Peer::Tcp(address) => format!("tcp {address}"),
        Peer::Unix(Process { pid: Some(pid), .. }) => format!("unix pid {pid}"),
        Peer::Unix(_) => "unix".to_owned(),
        Peer::Host(name) => name.clone(),
    }
}

/// The token of `Authorization: Bearer …`, if that is all there is.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(only), None) = (all.next(), all.next()) else { return None };
    let (scheme, token) = only.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

async fn read(body: Body, patience: Duration) -> Result<Bytes, Problem> {
    match timeout(patience, Limited::new(body, BODY_MAX).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(error)) => {
            let title = format!("the body of the request broke off: {error}");
            Err(Problem::new(400, "bad-body", title, "Send as many bytes as `content-length` says"))
        }
        Err(_elapsed) => {
            let title =
                format!("the body of the request was not there after {} s", patience.as_secs());
            Err(Problem::new(408, "too-slow", title, "Send it at once"))
        }
    }
}
