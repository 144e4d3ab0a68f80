//! The API's routes: read the request, ask the backend, write the answer.

use std::time::Duration;

use api::{
    Applied, ApplyRequest, Balancer, BalancerRequest, BestHost, BestHostRequest, ClusterView,
    DrainRequest, DrainView, Event, ExcludeRequest, Exclusion, FlowView, HistoryFilter,
    HistoryView, HostView, MoveRequest, MoveStarted, MoveView, Plan, Resolve, Status, Unsettled,
    VmPlace, VmView, Why, WhyFilter,
};
use api::{BODY_MAX, EVENTS, EVENTS_MAX, EventFilter, FOLLOW_MAX};
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};

use super::problem::{Refused, no_such_method, no_such_route};
use super::{About, Backend, EventQuery};

type Answer<T> = Result<Json<T>, Refused>;
type Accepted<T> = Result<(StatusCode, Json<T>), Refused>;
type Named = Result<Path<String>, PathRejection>;

/// All routes of the API, answered by `backend`.
pub fn router<B: Backend>(backend: B) -> Router {
    Router::new()
        .route("/healthz", get(healthz::<B>))
        .route("/v1/status", get(status::<B>))
        .route("/v1/hosts", get(hosts::<B>))
        .route("/v1/vms", get(vms::<B>))
        .route("/v1/traffic", get(traffic::<B>))
        .route("/v1/vms/{vm}/history", get(vm_history::<B>))
        .route("/v1/hosts/{host}/history", get(host_history::<B>))
        .route("/v1/vms/{vm}/exclude", post(exclude::<B>))
        .route("/v1/vms/{vm}/include", post(include::<B>))
        .route("/v1/exclusions", get(exclusions::<B>))
        .route("/v1/inventory", get(inventory::<B>))
        .route("/v1/cluster", get(cluster::<B>))
        .route("/v1/moves", get(moves::<B>).post(start_move::<B>))
        .route("/v1/moves/{id}", get(one_move::<B>))
        .route("/v1/moves/{id}/cancel", post(cancel::<B>))
        .route("/v1/moves/{id}/resolve", get(unsettled::<B>).post(resolve::<B>))
        .route("/v1/events", get(events::<B>))
        .route("/v1/balancer", get(balancer::<B>).post(switch_balancer::<B>))
        .route("/v1/drain", get(drain::<B>).post(set_drain::<B>))
        .route("/v1/best-host", post(best_host::<B>))
        .route("/v1/plan", get(plan::<B>))
        .route("/v1/plan/shown", get(shown_plan::<B>))
        .route("/v1/plan/apply", post(apply::<B>))
        .route("/v1/why", get(why_nothing::<B>))
        .route("/v1/why/{about}", get(why::<B>))
        .fallback(no_such_route)
        .method_not_allowed_fallback(no_such_method)
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(backend)
}

/// Healthy is an agent whose loop answers, not just one whose socket does.
async fn healthz<B: Backend>(State(backend): State<B>) -> Result<&'static str, Refused> {
    backend.status().await?;
    Ok("ok\n")
}

async fn status<B: Backend>(State(backend): State<B>) -> Answer<Status> {
    Ok(Json(backend.status().await?))
}

async fn hosts<B: Backend>(State(backend): State<B>) -> Answer<Vec<HostView>> {
    Ok(Json(backend.hosts().await?))
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

async fn inventory<B: Backend>(State(backend): State<B>) -> Answer<Vec<VmPlace>> {
    Ok(Json(backend.inventory().await?))
}

async fn cluster<B: Backend>(State(backend): State<B>) -> Answer<ClusterView> {
    Ok(Json(backend.cluster().await?))
}

async fn moves<B: Backend>(State(backend): State<B>) -> Answer<Vec<MoveView>> {
    Ok(Json(backend.moves().await?))
}

async fn one_move<B: Backend>(State(backend): State<B>, id: Named) -> Answer<MoveView> {
    let Path(id) = id?;
    Ok(Json(backend.one_move(id).await?))
}

async fn events<B: Backend>(
    State(backend): State<B>,
    filter: Result<Query<EventFilter>, QueryRejection>,
) -> Answer<Vec<Event>> {
    let Query(EventFilter { after, limit, move_id, follow }) = filter?;
    let limit = limit.unwrap_or(EVENTS).clamp(1, EVENTS_MAX) as usize;
    let wait = if follow { FOLLOW_MAX } else { Duration::ZERO };
    Ok(Json(backend.events(EventQuery { after, limit, move_id, wait }).await?))
}

async fn why_nothing<B: Backend>(State(backend): State<B>) -> Answer<Why> {
    Ok(Json(backend.why(None).await?))
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

async fn plan<B: Backend>(State(backend): State<B>) -> Answer<Plan> {
    Ok(Json(backend.plan().await?))
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

async fn start_move<B: Backend>(
    State(backend): State<B>,
    request: Result<Json<MoveRequest>, JsonRejection>,
) -> Accepted<MoveStarted> {
    let Json(request) = request?;
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
