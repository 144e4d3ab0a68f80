//! The API's routes: read the request, ask the backend, write the answer.

use std::sync::Arc;
use std::time::Duration;

use api::{
    Applied, ApplyRequest, Balancer, BalancerRequest, BestHost, BestHostRequest, ClusterView,
    DrainRequest, DrainView, ExcludeRequest, Exclusion, FlowView, HistoryFilter, HistoryView,
    HostView, InventoryFilter, Me, MoveRequest, MoveStarted, MoveView, MovesFilter, Overview, Plan,
    PlanFilter, Problem, Report, Resolve, Role, Status, Unsettled, VmView, WhenFilter, Why,
    WhyFilter,
};
use api::{BODY_MAX, EVENTS, EVENTS_MAX, EVENTS_RESET, EventFilter, FOLLOW_MAX};
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::handler::Handler;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Extension, Json, Router};

use super::gate::{Caller, Gate, Passage, pass};
use super::problem::{Refused, no_such_method, no_such_route};
use super::stream::{self, Streams};
use super::tagged::tagged;
use super::{About, Backend, EventQuery, access, looker, openapi, page, paging, tags};

pub(super) type Answer<T> = Result<Json<T>, Refused>;
pub(super) type Accepted<T> = Result<(StatusCode, Json<T>), Refused>;
pub(super) type Named = Result<Path<String>, PathRejection>;

/// What a route needs of whoever asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// This role, or a higher one. Over the unix socket all have the highest.
    Role(Role),
    /// That it is asked over the unix socket.
    Here,
    /// Nothing over TCP: the dashboard's own files, in which nothing of this cluster stands. Over the unix socket what all needs.
    Nothing,
}

/// One route, as the table has it.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// Its method; HEAD is as GET.
    pub method: &'static str,
    /// Its path, with `{name}` for what is filled in.
    pub path: &'static str,
    /// What it needs.
    pub needs: Needs,
}

const LOOK: Needs = Needs::Role(Role::Viewer);
const STEER: Needs = Needs::Role(Role::Operator);
const RULE: Needs = Needs::Role(Role::Admin);

/// Routes under construction, and the table of what they need: none can be added without saying that.
struct Routes<B> {
    router: Router<B>,
    table: Vec<Route>,
}

impl<B: Backend> Routes<B> {
    fn get<T: 'static>(self, path: &'static str, needs: Needs, of: impl Handler<T, B>) -> Self {
        self.add("GET", path, needs, get(of))
    }

    /// One whose answer changes only when something is done: with a tag.
    fn tagged<T: 'static>(self, path: &'static str, needs: Needs, of: impl Handler<T, B>) -> Self {
        self.add("GET", path, needs, get(of).layer(from_fn(tagged)))
    }

    fn post<T: 'static>(self, path: &'static str, needs: Needs, of: impl Handler<T, B>) -> Self {
        self.add("POST", path, needs, post(of))
    }

    fn add(
        mut self,
        method: &'static str,
        path: &'static str,
        needs: Needs,
        of: MethodRouter<B>,
    ) -> Self {
        self.table.push(Route { method, path, needs });
        Routes { router: self.router.route(path, of), table: self.table }
    }
}

/// All routes, and what each needs; docs/security.md has this table too. Starting a forced move needs more: see [`start_move`].
fn routes<B: Backend>() -> Routes<B> {
    Routes { router: Router::new(), table: Vec::new() }
        .get("/", Needs::Nothing, page::index)
        .get("/assets/{file}", Needs::Nothing, page::asset)
        .get("/healthz", LOOK, healthz::<B>)
        .get("/metrics", LOOK, metrics::<B>)
        .tagged("/v1/openapi.json", LOOK, openapi::openapi::<B>)
        .get("/v1/me", LOOK, me::<B>)
        .get("/v1/report", LOOK, report::<B>)
        .get("/v1/overview", LOOK, overview::<B>)
        .get("/v1/at/{host}/{*path}", LOOK, at::<B>)
        .get("/v1/status", LOOK, status::<B>)
        .get("/v1/hosts", LOOK, hosts::<B>)
        .get("/v1/vms", LOOK, vms::<B>)
        .get("/v1/traffic", LOOK, traffic::<B>)
        .get("/v1/vms/{vm}/history", LOOK, vm_history::<B>)
        .get("/v1/hosts/{host}/history", LOOK, host_history::<B>)
        .post("/v1/vms/{vm}/exclude", STEER, exclude::<B>)
        .post("/v1/vms/{vm}/include", STEER, include::<B>)
        .tagged("/v1/vms/{vm}/tags", LOOK, tags::tags::<B>)
        .post("/v1/vms/{vm}/tags", RULE, tags::set_tags::<B>)
        .tagged("/v1/exclusions", LOOK, exclusions::<B>)
        .get("/v1/inventory", LOOK, inventory::<B>)
        .get("/v1/cluster", LOOK, cluster::<B>)
        .get("/v1/moves", LOOK, moves::<B>)
        .post("/v1/moves", STEER, start_move::<B>)
        .get("/v1/moves/{id}", LOOK, one_move::<B>)
        .post("/v1/moves/{id}/cancel", STEER, cancel::<B>)
        .get("/v1/moves/{id}/resolve", LOOK, unsettled::<B>)
        .post("/v1/moves/{id}/resolve", RULE, resolve::<B>)
        .get("/v1/events", LOOK, events::<B>)
        .tagged("/v1/balancer", LOOK, balancer::<B>)
        .post("/v1/balancer", RULE, switch_balancer::<B>)
        .get("/v1/drain", LOOK, drain::<B>)
        .post("/v1/drain", STEER, set_drain::<B>)
        .post("/v1/best-host", LOOK, best_host::<B>)
        .get("/v1/plan", LOOK, plan::<B>)
        .tagged("/v1/plan/shown", LOOK, shown_plan::<B>)
        .post("/v1/plan/apply", STEER, apply::<B>)
        .get("/v1/why", LOOK, why_nothing::<B>)
        .get("/v1/why/{about}", LOOK, why::<B>)
        .tagged("/v1/tokens", Needs::Here, access::tokens)
        .post("/v1/tokens", Needs::Here, access::make_token)
        .post("/v1/tokens/{id}/revoke", Needs::Here, access::revoke_token)
        .get("/v1/audit", RULE, access::audit)
}

/// What each route needs.
#[must_use]
pub fn table<B: Backend>() -> Vec<Route> {
    routes::<B>().table
}

/// All routes of the API behind `gate`, answered by `backend`.
pub(super) fn router<B: Backend>(gate: Arc<Gate>, backend: B) -> Router {
    let Routes { router, table } = routes::<B>();
    router
        .fallback(no_such_route)
        .method_not_allowed_fallback(no_such_method)
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(Extension(Streams::default()))
        .layer(from_fn_with_state(Passage { gate, table: table.into() }, pass))
        .with_state(backend)
}

/// Healthy is an agent whose loop answers, not just one whose socket does.
async fn healthz<B: Backend>(State(backend): State<B>) -> Result<&'static str, Refused> {
    backend.status().await?;
    Ok("ok\n")
}

/// In version 0.0.4 of the text form, which every Prometheus reads.
async fn metrics<B: Backend>(State(backend): State<B>) -> Result<impl IntoResponse, Refused> {
    let text = backend.metrics().await?;
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text))
}

async fn status<B: Backend>(State(backend): State<B>) -> Answer<Status> {
    Ok(Json(backend.status().await?))
}

async fn hosts<B: Backend>(State(backend): State<B>) -> Answer<Vec<HostView>> {
    Ok(Json(backend.hosts().await?))
}

async fn me<B: Backend>(
    State(backend): State<B>,
    Extension(caller): Extension<Caller>,
) -> Answer<Me> {
    Ok(Json(caller.me(backend.status().await?.host)))
}

async fn report<B: Backend>(State(backend): State<B>) -> Answer<Report> {
    Ok(Json(backend.report().await?))
}

async fn overview<B: Backend>(State(backend): State<B>) -> Answer<Overview> {
    Ok(Json(backend.overview().await?))
}

/// Passes a look on to another host's agent, and its answer back as it is.
async fn at<B: Backend>(
    State(backend): State<B>,
    named: Result<Path<(String, String)>, PathRejection>,
    uri: Uri,
) -> Result<Response, Refused> {
    let Path((host, _path)) = named?;
    // As it was written, still encoded: what follows `/v1/at/HOST`.
    let whole = uri.path_and_query().map_or("", |path| path.as_str());
    let rest = whole.splitn(5, '/').nth(4).unwrap_or_default();
    Ok(looker::answer(backend.at(host, format!("/{rest}")).await?))
}

async fn vms<B: Backend>(State(backend): State<B>) -> Answer<Vec<VmView>> {
    Ok(Json(backend.vms().await?))
}

async fn traffic<B: Backend>(State(backend): State<B>) -> Answer<Vec<FlowView>> {
    Ok(Json(backend.traffic().await?))
}

async fn vm_history<B: Backend>(
    State(backend): State<B>,
    vm: Named,
    filter: Result<Query<HistoryFilter>, QueryRejection>,
) -> Answer<HistoryView> {
    let (Path(vm), Query(filter)) = (vm?, filter?);
    Ok(Json(backend.history(About::Vm(vm), filter).await?))
}

async fn host_history<B: Backend>(
    State(backend): State<B>,
    host: Named,
    filter: Result<Query<HistoryFilter>, QueryRejection>,
) -> Answer<HistoryView> {
    let (Path(host), Query(filter)) = (host?, filter?);
    Ok(Json(backend.history(About::Host(host), filter).await?))
}

async fn inventory<B: Backend>(
    State(backend): State<B>,
    filter: Result<Query<InventoryFilter>, QueryRejection>,
) -> Result<Response, Refused> {
    let Query(filter) = filter?;
    Ok(paging::inventory(backend.inventory().await?, &filter)?)
}

async fn cluster<B: Backend>(State(backend): State<B>) -> Answer<ClusterView> {
    Ok(Json(backend.cluster().await?))
}

async fn moves<B: Backend>(
    State(backend): State<B>,
    filter: Result<Query<MovesFilter>, QueryRejection>,
) -> Result<Response, Refused> {
    let Query(filter) = filter?;
    Ok(paging::moves(backend.moves().await?, &filter)?)
}

async fn one_move<B: Backend>(State(backend): State<B>, id: Named) -> Answer<MoveView> {
    let Path(id) = id?;
    Ok(Json(backend.one_move(id).await?))
}

/// In one document, or as a stream where that is what is accepted.
async fn events<B: Backend>(
    State(backend): State<B>,
    Extension(streams): Extension<Streams>,
    headers: HeaderMap,
    filter: Result<Query<EventFilter>, QueryRejection>,
) -> Result<Response, Refused> {
    let Query(EventFilter { after, limit, move_id, follow }) = filter?;
    let limit = paging::limit(limit, EVENTS, EVENTS_MAX)?;
    let wait = if follow { FOLLOW_MAX } else { Duration::ZERO };
    let mut query = EventQuery { after, limit, move_id, wait };
    if stream::wanted(&headers) {
        query.after = stream::last_id(&headers)?.or(query.after);
        return Ok(streams.begin(backend, query).await?);
    }
    if let Some(after) = query.after {
        let newest = stream::newest(&backend).await?;
        if after > newest {
            let title = format!("there is no event {after} here: the newest is {newest}");
            let hint = "The agent's event log was lost, or the number is another host's: begin anew, without `after`";
            return Err(Problem::new(409, EVENTS_RESET, title, hint).into());
        }
    }
    Ok(Json(backend.events(query).await?).into_response())
}

async fn why_nothing<B: Backend>(
    State(backend): State<B>,
    filter: Result<Query<WhenFilter>, QueryRejection>,
) -> Answer<Why> {
    let Query(WhenFilter { at }) = filter?;
    Ok(Json(match at {
        Some(at) => backend.why_at(at).await?,
        None => backend.why(None).await?,
    }))
}

async fn why<B: Backend>(
    State(backend): State<B>,
    about: Named,
    filter: Result<Query<WhyFilter>, QueryRejection>,
) -> Answer<Why> {
    let (Path(about), Query(WhyFilter { to })) = (about?, filter?);
    Ok(Json(match to {
        Some(to) => backend.why_not(about, to).await?,
        None => backend.why(Some(about)).await?,
    }))
}

async fn balancer<B: Backend>(State(backend): State<B>) -> Answer<Balancer> {
    Ok(Json(backend.balancer().await?))
}

async fn switch_balancer<B: Backend>(
    State(backend): State<B>,
    request: Result<Json<BalancerRequest>, JsonRejection>,
) -> Answer<Balancer> {
    let Json(request) = request?;
    Ok(Json(backend.switch_balancer(request).await?))
}

async fn exclude<B: Backend>(
    State(backend): State<B>,
    vm: Named,
    request: Result<Json<ExcludeRequest>, JsonRejection>,
) -> Answer<Exclusion> {
    let (Path(vm), Json(request)) = (vm?, request?);
    Ok(Json(backend.exclude(vm, request).await?))
}

async fn include<B: Backend>(State(backend): State<B>, vm: Named) -> Answer<Exclusion> {
    let Path(vm) = vm?;
    Ok(Json(backend.include(vm).await?))
}

async fn exclusions<B: Backend>(State(backend): State<B>) -> Answer<Vec<Exclusion>> {
    Ok(Json(backend.exclusions().await?))
}

async fn drain<B: Backend>(State(backend): State<B>) -> Answer<DrainView> {
    Ok(Json(backend.drain().await?))
}

async fn set_drain<B: Backend>(
    State(backend): State<B>,
    request: Result<Json<DrainRequest>, JsonRejection>,
) -> Answer<DrainView> {
    let Json(request) = request?;
    Ok(Json(backend.set_drain(request).await?))
}

async fn best_host<B: Backend>(
    State(backend): State<B>,
    request: Result<Json<BestHostRequest>, JsonRejection>,
) -> Answer<Vec<BestHost>> {
    let Json(request) = request?;
    Ok(Json(backend.best_host(request).await?))
}

async fn plan<B: Backend>(
    State(backend): State<B>,
    Extension(caller): Extension<Caller>,
    filter: Result<Query<PlanFilter>, QueryRejection>,
) -> Answer<Plan> {
    let Query(PlanFilter { numbered }) = filter?;
    // Who may apply nothing, as whoever looks from another host, must not change what the numbers of others mean.
    let numbered = numbered && caller.needs(Role::Operator, "numbers to apply").is_ok();
    Ok(Json(backend.plan(numbered).await?))
}

async fn shown_plan<B: Backend>(State(backend): State<B>) -> Answer<Plan> {
    Ok(Json(backend.shown_plan().await?))
}

async fn apply<B: Backend>(
    State(backend): State<B>,
    request: Result<Json<ApplyRequest>, JsonRejection>,
) -> Accepted<Applied> {
    let Json(request) = request?;
    Ok((StatusCode::ACCEPTED, Json(backend.apply(request).await?)))
}

/// Who overrides rules (`force`) must be admin.
async fn start_move<B: Backend>(
    State(backend): State<B>,
    Extension(caller): Extension<Caller>,
    request: Result<Json<MoveRequest>, JsonRejection>,
) -> Accepted<MoveStarted> {
    let Json(request) = request?;
    if request.force {
        caller.needs(Role::Admin, "a forced move")?;
    }
    Ok((StatusCode::ACCEPTED, Json(backend.start_move(request).await?)))
}

async fn cancel<B: Backend>(State(backend): State<B>, id: Named) -> Accepted<MoveView> {
    let Path(id) = id?;
    Ok((StatusCode::ACCEPTED, Json(backend.cancel(id).await?)))
}

async fn unsettled<B: Backend>(State(backend): State<B>, id: Named) -> Answer<Unsettled> {
    let Path(id) = id?;
    Ok(Json(backend.unsettled(id).await?))
}

async fn resolve<B: Backend>(
    State(backend): State<B>,
    id: Named,
    decided: Result<Json<Resolve>, JsonRejection>,
) -> Accepted<MoveView> {
    let (Path(id), Json(decided)) = (id?, decided?);
    Ok((StatusCode::ACCEPTED, Json(backend.resolve(id, decided).await?)))
}
