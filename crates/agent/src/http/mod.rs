//! The agent's HTTP API, served on a unix socket and, where that is wanted, over TCP with TLS and tokens.
//!
//! ```text
//!   socket ─┐                ┌─▶ audit (what could change something)
//!   tcp ────┼─▶ gate (who?) ─┴─▶ routes ──▶ Backend (the agent's loop)
//!   looker ─┘    │                 │
//!                └─────────────────┴─ whatever is wrong with a request ──▶ problem
//! ```
//!
//! **Boundary:** only the types of the crate `api` cross it, and answers of other agents, as they came. What the routes do is
//! read the request and write the answer; all else is the [`Backend`]'s. `page` has the dashboard's files.
//!
//! **Invariant:** every refusal, also of an unknown path or a garbled body, is a [`Problem`] with a stable code.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use api::{
    Applied, ApplyRequest, Balancer, BalancerRequest, BestHost, BestHostRequest, ClusterView,
    DrainRequest, DrainView, Event, ExcludeRequest, Exclusion, FlowView, HistoryFilter,
    HistoryView, HostView, MoveRequest, MoveStarted, MoveView, Overview, Plan, Problem, Report,
    Resolve, Status, Unsettled, VmPlace, VmTags, VmTagsRequest, VmView, Why,
};
use tokio::sync::watch;

use self::peer::Peer;
use crate::net::Looked;

pub use self::gate::{Gate, Limits};
pub use self::hold::until_events;
pub use self::looker::looker;
pub use self::peer::Admitted;
pub use self::routes::{Needs, Route, table};
pub use self::socket::ApiSocket;
pub use self::tcp::TlsListener;

mod access;
mod audit;
mod browser;
#[cfg(test)]
mod fuzz;
mod gate;
mod guesses;
mod hold;
mod looker;
mod openapi;
mod page;
mod paging;
mod peer;
mod problem;
mod refusals;
mod routes;
mod socket;
mod stream;
mod tagged;
mod tags;
mod tcp;
mod tokens;

/// Requests under way when the agent ends get so long to be answered; those that wait for events are not.
const GRACE: Duration = Duration::from_secs(1);

/// Which events are wanted; read from [`api::EventFilter`], its limits kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventQuery {
    /// Only events with a greater `seq`, the oldest `limit` of them; absent: the newest `limit` of all.
    pub after: Option<u64>,
    /// At most so many: 1 to [`api::EVENTS_MAX`].
    pub limit: usize,
    /// Only events of this move.
    pub move_id: Option<String>,
    /// How long to hold an empty answer back; zero: not at all. [`until_events`] does it.
    pub wait: Duration,
}

/// Whose history is asked for, by name or id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum About {
    /// A VM's.
    Vm(String),
    /// A host's.
    Host(String),
}

/// What answers the API: the agent's loop, or fixed values in a test. Lists of events are oldest first.
pub trait Backend: Clone + Send + Sync + 'static {
    /// The local agent in one look.
    fn status(&self) -> impl Future<Output = Result<Status, Problem>> + Send;
    /// Figures for Prometheus, in its text form.
    fn metrics(&self) -> impl Future<Output = Result<String, Problem>> + Send;
    /// The hosts that it knows.
    fn hosts(&self) -> impl Future<Output = Result<Vec<HostView>, Problem>> + Send;
    /// The VMs on its host.
    fn vms(&self) -> impl Future<Output = Result<Vec<VmView>, Problem>> + Send;
    /// Who sends how much to whom on its host, the most first.
    fn traffic(&self) -> impl Future<Output = Result<Vec<FlowView>, Problem>> + Send;
    /// How a VM or host did over time.
    fn history(
        &self,
        about: About,
        filter: HistoryFilter,
    ) -> impl Future<Output = Result<HistoryView, Problem>> + Send;
    /// The VMs of all hosts, as each listed its own.
    fn inventory(&self) -> impl Future<Output = Result<Vec<VmPlace>, Problem>> + Send;
    /// The whole cluster as it knows it, with figures.
    fn cluster(&self) -> impl Future<Output = Result<ClusterView, Problem>> + Send;
    /// Its host, its VMs and its moves in short.
    fn report(&self) -> impl Future<Output = Result<Report, Problem>> + Send;
    /// Every host that it knows, with what each reports of itself.
    fn overview(&self) -> impl Future<Output = Result<Overview, Problem>> + Send;
    /// What the agent of that host answers a viewer who asks for this path and query.
    fn at(
        &self,
        host: String,
        path: String,
    ) -> impl Future<Output = Result<Looked, Problem>> + Send;
    /// The moves from or to its host, newest first.
    fn moves(&self) -> impl Future<Output = Result<Vec<MoveView>, Problem>> + Send;
    /// One move, by its id.
    fn one_move(&self, id: String) -> impl Future<Output = Result<MoveView, Problem>> + Send;
    /// The events that `query` wants.
    fn events(&self, query: EventQuery)
    -> impl Future<Output = Result<Vec<Event>, Problem>> + Send;
    /// Why a VM (name or UUID) or move went as it did; about nothing: why nothing is being moved.
    fn why(&self, about: Option<String>) -> impl Future<Output = Result<Why, Problem>> + Send;
    /// What its host did, and why nothing else, at a time that is over: RFC 3339, or a time of day in UTC.
    fn why_at(&self, at: String) -> impl Future<Output = Result<Why, Problem>> + Send;
    /// What keeps a VM on its host from going to that host.
    fn why_not(&self, vm: String, to: String) -> impl Future<Output = Result<Why, Problem>> + Send;
    /// Whether its host begins balancing moves.
    fn balancer(&self) -> impl Future<Output = Result<Balancer, Problem>> + Send;
    /// Lets its host begin them, or not; kept before it is answered.
    fn switch_balancer(
        &self,
        request: BalancerRequest,
    ) -> impl Future<Output = Result<Balancer, Problem>> + Send;
    /// Leaves a VM (name or UUID) on its host where it is; kept before it is answered.
    fn exclude(
        &self,
        vm: String,
        request: ExcludeRequest,
    ) -> impl Future<Output = Result<Exclusion, Problem>> + Send;
    /// Ends that; kept before it is answered.
    fn include(&self, vm: String) -> impl Future<Output = Result<Exclusion, Problem>> + Send;
    /// The tags of a VM (name or UUID) on its host, as the VM's own definition has them.
    fn vm_tags(&self, vm: String) -> impl Future<Output = Result<VmTags, Problem>> + Send;
    /// Changes them there.
    fn set_vm_tags(
        &self,
        vm: String,
        request: VmTagsRequest,
    ) -> impl Future<Output = Result<VmTags, Problem>> + Send;
    /// The VMs that are excluded by hand, by name.
    fn exclusions(&self) -> impl Future<Output = Result<Vec<Exclusion>, Problem>> + Send;
    /// How the drain of its host goes.
    fn drain(&self) -> impl Future<Output = Result<DrainView, Problem>> + Send;
    /// Begins or ends it; kept before it is answered.
    fn set_drain(
        &self,
        request: DrainRequest,
    ) -> impl Future<Output = Result<DrainView, Problem>> + Send;
    /// Which host would take a VM that is yet to be started, the best first.
    fn best_host(
        &self,
        request: BestHostRequest,
    ) -> impl Future<Output = Result<Vec<BestHost>, Problem>> + Send;
    /// What would be moved from its host now; if `numbered`, its numbers mean that from now on.
    fn plan(&self, numbered: bool) -> impl Future<Output = Result<Plan, Problem>> + Send;
    /// The plan that it numbered last.
    fn shown_plan(&self) -> impl Future<Output = Result<Plan, Problem>> + Send;
    /// Begins what is planned, as far as it still holds.
    fn apply(&self, request: ApplyRequest)
    -> impl Future<Output = Result<Applied, Problem>> + Send;
    /// Starts a move by hand.
    fn start_move(
        &self,
        request: MoveRequest,
    ) -> impl Future<Output = Result<MoveStarted, Problem>> + Send;
    /// Cancels a move, and tells how it stands: the copy's end, either way, comes later.
    fn cancel(&self, id: String) -> impl Future<Output = Result<MoveView, Problem>> + Send;
    /// What is known of an open move, before a person ends it.
    fn unsettled(&self, id: String) -> impl Future<Output = Result<Unsettled, Problem>> + Send;
    /// Ends a move that cannot be settled without a person, and tells how it stands.
    fn resolve(
        &self,
        id: String,
        resolve: Resolve,
    ) -> impl Future<Output = Result<MoveView, Problem>> + Send;
}

/// Where an agent listens.
#[derive(Debug)]
pub struct Doors {
    /// The unix socket.
    pub socket: ApiSocket,
    /// A TCP port, where one is wanted.
    pub tls: Option<TlsListener>,
}

/// Serves the API at `doors` until `stop` is ready, to those whom `gate` lets through.
///
/// # Errors
///
/// None in practice: a failed accept is retried, and a failed connection ends alone.
pub async fn serve<B: Backend>(
    doors: Doors,
    gate: Arc<Gate>,
    backend: B,
    stop: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let (listener, _removed_at_the_end) = doors.socket.into_parts();
    let (limits, router) = (gate.limits(), routes::router(gate, backend));
    let (stopping, stopped) = watch::channel(false);
    let here = axum::serve(listener, router.clone().into_make_service_with_connect_info::<Peer>())
        .with_graceful_shutdown(told(stopped.clone()));
    let there = async {
        if let Some(tls) = doors.tls {
            let connections = tls.serve(router, limits, told(stopped)).await;
            connections.join_all().await;
        }
    };
    let served = async { tokio::join!(here, there).0 };
    let grace_over = async {
        stop.await;
        stopping.send_replace(true);
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        ended = served => ended.context("serving the API"),
        () = grace_over => Ok(()),
    }
}

async fn told(mut stopped: watch::Receiver<bool>) {
    // An error means that the sender is gone, which is the end too.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}
