//! A client of the agent's HTTP API: over its unix socket, or over TCP with TLS and a token.
//!
//! Each call opens a connection of its own: on a unix socket that costs less than keeping one alive would in code.
//!
//! **Invariant:** every call ends: each has a deadline, and answers beyond a limit are not read.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::time::timeout;

pub use self::remote::Remote;
use crate::{
    Applied, ApplyRequest, AuditFilter, AuditView, Balancer, BalancerRequest, BestHost,
    BestHostRequest, ClusterView, DrainRequest, DrainView, EVENTS_RESET, Event, EventFilter,
    ExcludeRequest, Exclusion, FOLLOW_MAX, FlowView, HistoryFilter, HistoryView, HostView,
    LIST_MAX, Me, MoveRequest, MoveStarted, MoveView, Overview, Plan, Problem, Report, Resolve,
    Status, TokenMade, TokenRequest, TokenView, Unsettled, VmPlace, VmTags, VmTagsRequest, VmView,
    Why,
};

mod remote;

/// An agent that does not answer for so long is taken for stuck.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Another host that is not reached, and agrees on TLS, within this is taken for gone.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// The longest answer that is read; a thousand events are about half a megabyte.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// What may stand in a path segment or query value as it is.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Why there is no answer to use.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No connection: nothing was asked of the agent.
    #[error("no agent can be reached at {at}: {why}\n  {hint}")]
    Unreachable {
        /// Where an agent was looked for.
        at: String,
        /// What the system said.
        why: String,
        /// What to do about it.
        hint: &'static str,
    },
    /// The agent was asked, but its answer was lost: it may or may not have acted.
    #[error(
        "the agent at {at} was asked ({request}) but gave no answer: {why}\n  \
         It may have acted all the same: look with `evenkeel moves`, and at the log of evenkeeld"
    )]
    NoAnswer {
        /// Where the agent is.
        at: String,
        /// Method and path.
        request: String,
        /// How the answer was lost.
        why: String,
    },
    /// The agent said no; nothing was changed.
    #[error("{0}")]
    Refused(Problem),
    /// Something answered, but not in the words of this API.
    #[error(
        "what answers at {at} does not speak this version of the API ({request}): {why}\n  \
         Install evenkeel and evenkeeld of the same version, and check --socket or --host"
    )]
    NotUnderstood {
        /// Where it is.
        at: String,
        /// Method and path.
        request: String,
        /// What could not be read.
        why: String,
    },
}

/// A client of one agent.
#[derive(Clone, Debug)]
pub struct Client {
    way: Way,
    /// The host whose agent is asked through it; absent: itself.
    through: Option<String>,
}

/// How an agent is reached.
#[derive(Clone, Debug)]
enum Way {
    Socket(PathBuf),
    Remote(Box<Remote>),
}

impl Client {
    /// A client of the agent at `socket`; connects at each call, not before.
    pub fn new(socket: impl Into<PathBuf>) -> Client {
        Client { way: Way::Socket(socket.into()), through: None }
    }

    /// A client of the agent on another host; connects at each call, not before.
    #[must_use]
    pub fn remote(remote: Remote) -> Client {
        Client { way: Way::Remote(Box::new(remote)), through: None }
    }

    /// The same, to ask the agent of another host through this one: what a viewer may look at.
    #[must_use]
    pub fn on(&self, host: &str) -> Client {
        Client { through: Some(host.to_owned()), ..self.clone() }
    }

    /// Whether another host is asked.
    #[must_use]
    pub fn is_through(&self) -> bool {
        self.through.is_some()
    }

    /// Where the agent is looked for, for people.
    #[must_use]
    pub fn place(&self) -> String {
        match &self.way {
            Way::Socket(socket) => socket.display().to_string(),
            Way::Remote(remote) => remote.place(),
        }
    }

    /// The local agent in one look.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.get("/v1/status").await
    }

    /// The hosts that the agent knows.
    pub async fn hosts(&self) -> Result<Vec<HostView>, ClientError> {
        self.get("/v1/hosts").await
    }

    /// Every host with what it reports of itself, asked by the agent.
    pub async fn overview(&self) -> Result<Overview, ClientError> {
        self.get("/v1/overview").await
    }

    /// The agent's host, its VMs and moves in short.
    pub async fn report(&self) -> Result<Report, ClientError> {
        self.get("/v1/report").await
    }

    /// What the agent of another host, by its name or id, answers a viewer who asks for this path and query.
    pub async fn get_at<T: DeserializeOwned>(
        &self,
        host: &str,
        path: &str,
    ) -> Result<T, ClientError> {
        self.on(host).get(path).await
    }

    /// Who asks, as the agent knows it.
    pub async fn me(&self) -> Result<Me, ClientError> {
        self.get("/v1/me").await
    }

    /// The VMs on the agent's host.
    pub async fn vms(&self) -> Result<Vec<VmView>, ClientError> {
        self.get("/v1/vms").await
    }

    /// Who sends how much to whom on the agent's host, the most first.
    pub async fn traffic(&self) -> Result<Vec<FlowView>, ClientError> {
        self.get("/v1/traffic").await
    }

    /// How a VM on the agent's host did over time.
    pub async fn vm_history(
        &self,
        vm: &str,
        filter: &HistoryFilter,
    ) -> Result<HistoryView, ClientError> {
        self.get(&format!("/v1/vms/{}/history?{}", plain(vm), history_query(filter))).await
    }

    /// How the agent's host did over time.
    pub async fn host_history(
        &self,
        host: &str,
        filter: &HistoryFilter,
    ) -> Result<HistoryView, ClientError> {
        self.get(&format!("/v1/hosts/{}/history?{}", plain(host), history_query(filter))).await
    }

    /// The VMs of all hosts, as each listed its own.
    pub async fn inventory(&self) -> Result<Vec<VmPlace>, ClientError> {
        let mut all: Vec<VmPlace> = Vec::new();
        loop {
            let after = all.last().map(|last| format!("&after={}", plain(&last.cursor())));
            let path = format!("/v1/inventory?limit={LIST_MAX}{}", after.unwrap_or_default());
            let page: Vec<VmPlace> = self.get(&path).await?;
            let whole = page.len() == LIST_MAX as usize;
            all.extend(page);
            if !whole {
                return Ok(all);
            }
        }
    }

    /// The whole cluster as the agent knows it, with figures.
    pub async fn cluster(&self) -> Result<ClusterView, ClientError> {
        self.get("/v1/cluster").await
    }

    /// The moves from or to the agent's host, newest first.
    pub async fn moves(&self) -> Result<Vec<MoveView>, ClientError> {
        // An agent tells of a few hundred at the most.
        self.get(&format!("/v1/moves?limit={LIST_MAX}")).await
    }

    /// One move, by its id.
    pub async fn one_move(&self, id: &str) -> Result<MoveView, ClientError> {
        self.get(&format!("/v1/moves/{}", plain(id))).await
    }

    /// Events, oldest first. With `filter.follow` the answer may take [`FOLLOW_MAX`], and be empty then.
    pub async fn events(&self, filter: &EventFilter) -> Result<Vec<Event>, ClientError> {
        let mut query: Vec<String> = Vec::new();
        query.extend(filter.after.map(|seq| format!("after={seq}")));
        query.extend(filter.limit.map(|limit| format!("limit={limit}")));
        query.extend(filter.move_id.as_ref().map(|id| format!("move={}", plain(id))));
        let mut patience = ANSWER_MAX;
        if filter.follow {
            query.push("follow=true".to_owned());
            patience += FOLLOW_MAX;
        }
        let path = format!("/v1/events?{}", query.join("&"));
        self.ask(Method::GET, &path, Bytes::new(), patience).await
    }

    /// Events as they come: first what `filter` asks for, then each new one.
    pub fn follow(&self, filter: EventFilter) -> Follow {
        Follow { client: self.clone(), filter: EventFilter { follow: true, ..filter } }
    }

    /// Why a VM or move went as it did; about nothing: why nothing is being moved.
    pub async fn why(&self, about: Option<&str>) -> Result<Why, ClientError> {
        match about {
            Some(about) => self.get(&format!("/v1/why/{}", plain(about))).await,
            None => self.get("/v1/why").await,
        }
    }

    /// What its host did, and why nothing else, at a time that is over: RFC 3339, or a time of day in UTC.
    pub async fn why_at(&self, at: &str) -> Result<Why, ClientError> {
        self.get(&format!("/v1/why?at={}", plain(at))).await
    }

    /// What keeps a VM on the agent's host from going to that host.
    pub async fn why_not(&self, vm: &str, to: &str) -> Result<Why, ClientError> {
        self.get(&format!("/v1/why/{}?to={}", plain(vm), plain(to))).await
    }

    /// Whether the agent's host begins balancing moves.
    pub async fn balancer(&self) -> Result<Balancer, ClientError> {
        self.get("/v1/balancer").await
    }

    /// Lets the agent's host begin balancing moves, or not.
    pub async fn switch_balancer(&self, request: BalancerRequest) -> Result<Balancer, ClientError> {
        self.post("/v1/balancer", &request).await
    }

    /// Has the agent's host leave a VM where it is.
    pub async fn exclude(
        &self,
        vm: &str,
        request: ExcludeRequest,
    ) -> Result<Exclusion, ClientError> {
        self.post(&format!("/v1/vms/{}/exclude", plain(vm)), &request).await
    }

    /// Ends a VM's exclusion.
    pub async fn include(&self, vm: &str) -> Result<Exclusion, ClientError> {
        let path = format!("/v1/vms/{}/include", plain(vm));
        self.ask(Method::POST, &path, Bytes::new(), ANSWER_MAX).await
    }

    /// A VM's tags, as its own definition has them.
    pub async fn vm_tags(&self, vm: &str) -> Result<VmTags, ClientError> {
        self.get(&format!("/v1/vms/{}/tags", plain(vm))).await
    }

    /// Changes them.
    pub async fn set_vm_tags(
        &self,
        vm: &str,
        request: &VmTagsRequest,
    ) -> Result<VmTags, ClientError> {
        self.post(&format!("/v1/vms/{}/tags", plain(vm)), request).await
    }

    /// The VMs that are excluded by hand on the agent's host.
    pub async fn exclusions(&self) -> Result<Vec<Exclusion>, ClientError> {
        self.get("/v1/exclusions").await
    }

    /// How the drain of the agent's host goes.
    pub async fn drain(&self) -> Result<DrainView, ClientError> {
        self.get("/v1/drain").await
    }

    /// Begins or ends the drain of the agent's host.
    pub async fn set_drain(&self, request: &DrainRequest) -> Result<DrainView, ClientError> {
        self.post("/v1/drain", request).await
    }

    /// Which host would take a VM that is yet to be started, the best first.
    pub async fn best_host(&self, request: &BestHostRequest) -> Result<Vec<BestHost>, ClientError> {
        self.post("/v1/best-host", request).await
    }

    /// What would be moved from the agent's host now; nothing changes by it.
    pub async fn plan(&self) -> Result<Plan, ClientError> {
        self.get("/v1/plan").await
    }

    /// The same, to be shown to a person: from now on its numbers mean these moves.
    pub async fn numbered_plan(&self) -> Result<Plan, ClientError> {
        self.get("/v1/plan?numbered=true").await
    }

    /// The plan that the agent showed last, whose numbers still hold.
    pub async fn shown_plan(&self) -> Result<Plan, ClientError> {
        self.get("/v1/plan/shown").await
    }

    /// Begins what is planned, as far as it still holds.
    pub async fn apply(&self, request: &ApplyRequest) -> Result<Applied, ClientError> {
        self.post("/v1/plan/apply", request).await
    }

    /// Starts a move by hand.
    pub async fn start_move(&self, request: &MoveRequest) -> Result<MoveStarted, ClientError> {
        self.post("/v1/moves", request).await
    }

    /// Cancels a move; it has ended only when [`MoveView::ended`] says so, and may still be made.
    pub async fn cancel(&self, id: &str) -> Result<MoveView, ClientError> {
        let path = format!("/v1/moves/{}/cancel", plain(id));
        self.ask(Method::POST, &path, Bytes::new(), ANSWER_MAX).await
    }

    /// What is known of an open move, before a person ends it.
    pub async fn unsettled(&self, id: &str) -> Result<Unsettled, ClientError> {
        self.get(&format!("/v1/moves/{}/resolve", plain(id))).await
    }

    /// Ends a move that cannot be settled without a person; it has ended only when [`MoveView::ended`] says so.
    pub async fn resolve(&self, id: &str, resolve: &Resolve) -> Result<MoveView, ClientError> {
        self.post(&format!("/v1/moves/{}/resolve", plain(id)), resolve).await
    }

    /// The tokens that the agent takes over TCP.
    pub async fn tokens(&self) -> Result<Vec<TokenView>, ClientError> {
        self.get("/v1/tokens").await
    }

    /// Makes one; the only answer that holds it.
    pub async fn make_token(&self, request: &TokenRequest) -> Result<TokenMade, ClientError> {
        self.post("/v1/tokens", request).await
    }

    /// Ends one, at once.
    pub async fn revoke_token(&self, id: &str) -> Result<TokenView, ClientError> {
        let path = format!("/v1/tokens/{}/revoke", plain(id));
        self.ask(Method::POST, &path, Bytes::new(), ANSWER_MAX).await
    }

    /// What was asked of the agent that could change something, and whether the log of that fits together.
    pub async fn audit(&self, filter: &AuditFilter) -> Result<AuditView, ClientError> {
        let mut query = Vec::new();
        query.extend(filter.since.map(|seconds| format!("since={seconds}")));
        query.extend(filter.after.map(|seq| format!("after={seq}")));
        query.extend(filter.limit.map(|limit| format!("limit={limit}")));
        query.extend(filter.kept.as_ref().map(|hash| format!("kept={}", plain(hash))));
        self.get(&format!("/v1/audit?{}", query.join("&"))).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask(Method::GET, path, Bytes::new(), ANSWER_MAX).await
    }

    async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body)
            .expect("the API's types have text keys and finite figures only");
        self.ask(Method::POST, path, body.into(), ANSWER_MAX).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        patience: Duration,
    ) -> Result<T, ClientError> {
        let path = &self.path(&method, path)?;
        let request = format!("{method} {path}");
        let asked = self.exchanged(method, path, body, patience).await?;
        let lost = |why| ClientError::NoAnswer { at: self.place(), request: request.clone(), why };
        let (status, answer) = asked.map_err(lost)?;
        let not_understood =
            |why| ClientError::NotUnderstood { at: self.place(), request: request.clone(), why };
        if status.is_success() {
            return serde_json::from_slice(&answer)
                .map_err(|error| not_understood(error.to_string()));
        }
        match serde_json::from_slice(&answer) {
            Ok(problem) => Err(ClientError::Refused(problem)),
            Err(_not_a_problem) => {
                Err(not_understood(format!("HTTP status {status} without problem details")))
            }
        }
    }

    /// The path by which the host is asked that is wanted.
    fn path(&self, method: &Method, path: &str) -> Result<String, ClientError> {
        let Some(host) = &self.through else { return Ok(path.to_owned()) };
        if *method != Method::GET {
            let title = format!("{host} is only looked at from here");
            let hint = "Run the command on that host, or ask its agent by --host";
            return Err(ClientError::Refused(Problem::new(403, "only-looking", title, hint)));
        }
        Ok(format!("/v1/at/{}{path}", plain(host)))
    }

    /// What was answered; inside: why the answer was lost.
    async fn exchanged(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        patience: Duration,
    ) -> Result<Result<(StatusCode, Bytes), String>, ClientError> {
        let asked = async {
            match &self.way {
                Way::Socket(socket) => {
                    let stream = UnixStream::connect(socket).await;
                    let stream = stream.map_err(|error| self.unreachable(&error))?;
                    Ok(exchange(stream, None, method, path, body).await)
                }
                Way::Remote(remote) => {
                    let stream = timeout(CONNECT_MAX, remote.connect()).await;
                    let stream = stream.unwrap_or_else(|_late| Err(ErrorKind::TimedOut.into()));
                    let stream = stream.map_err(|error| self.unreachable(&error))?;
                    Ok(exchange(stream, Some(remote), method, path, body).await)
                }
            }
        };
        match timeout(patience, asked).await {
            Ok(Ok(answered)) => Ok(answered.map_err(|error| error.to_string())),
            Ok(Err(unreachable)) => Err(unreachable),
            Err(_elapsed) => Ok(Err(format!("waited {} s", patience.as_secs()))),
        }
    }

    fn unreachable(&self, error: &std::io::Error) -> ClientError {
        let kind = error.kind();
        let hint = if matches!(self.way, Way::Remote(_)) {
            if error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) {
                "Is --ca (EVENKEEL_CA) this cluster's ca.crt, and --host an address of that host's certificate?"
            } else {
                "Is [api] listen of its agent this address and port, and does the network let it through?"
            }
        } else if kind == ErrorKind::NotFound {
            "Is evenkeeld running on this host (`systemctl status evenkeeld`)? \
             If it listens elsewhere, name its socket with --socket or EVENKEEL_SOCKET"
        } else if kind == ErrorKind::ConnectionRefused {
            "The socket is there but nobody listens: evenkeeld was killed. \
             Start it again (`systemctl start evenkeeld`)"
        } else if kind == ErrorKind::PermissionDenied {
            "Run this as root, or join the group that owns the socket (`ls -l` shows it)"
        } else {
            "Check that --socket or EVENKEEL_SOCKET names the agent's socket"
        };
        ClientError::Unreachable { at: self.place(), why: error.to_string(), hint }
    }
}

/// Events as they come; see [`Client::follow`].
#[derive(Debug)]
pub struct Follow {
    client: Client,
    filter: EventFilter,
}

impl Follow {
    /// The next events, oldest first, at least one: waits until there are any. Each event is given once.
    pub async fn next(&mut self) -> Result<Vec<Event>, ClientError> {
        loop {
            let events = match self.client.events(&self.filter).await {
                // The agent's log was lost: what it has now was not seen yet.
                Err(ClientError::Refused(problem)) if problem.code == EVENTS_RESET => {
                    self.filter.after = None;
                    continue;
                }
                asked => asked?,
            };
            if let Some(last) = events.last() {
                self.filter.after = Some(last.seq);
                return Ok(events);
            }
        }
    }
}

fn history_query(filter: &HistoryFilter) -> String {
    let HistoryFilter { since, step, metric } = filter;
    let mut query = Vec::new();
    query.extend(since.map(|seconds| format!("since={seconds}")));
    query.extend(step.map(|seconds| format!("step={seconds}")));
    query.extend(metric.as_ref().map(|metric| format!("metric={}", plain(metric))));
    query.join("&")
}

fn plain(text: &str) -> String {
    utf8_percent_encode(text, PLAIN).to_string()
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    remote: Option<&Remote>,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends by itself when the sender is dropped; what goes wrong there is told to the sender as well.
    tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(path).header(header::HOST, "agent");
    if let Some(remote) = remote {
        request = request.header(header::AUTHORIZATION, remote.authorization());
    }
    if !body.is_empty() {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    let answer = sender.send_request(request.body(Full::new(body))?).await?;
    let status = answer.status();
    Ok((status, Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await?.to_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_may_not_be_opened_tells_how_one_may() {
        // Made by hand, since whoever runs the tests as root may open every socket.
        let denied = std::io::Error::from(ErrorKind::PermissionDenied);
        let text = Client::new("/run/evenkeel/api.sock").unreachable(&denied).to_string();
        assert!(text.contains("/run/evenkeel/api.sock: permission denied"), "{text}");
        assert!(text.contains("root, or join the group"), "{text}");
    }

    #[test]
    fn names_are_written_so_that_paths_and_queries_keep_their_shape() {
        assert_eq!(plain("web-1_a.b~"), "web-1_a.b~");
        assert_eq!(plain("a/b c?&%=ü"), "a%2Fb%20c%3F%26%25%3D%C3%BC");
    }
}
