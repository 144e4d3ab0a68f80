//! The API described for programs: `GET /v1/openapi.json`, OpenAPI 3.1, from the routes as they are and the types that they answer with.
//!
//! **Invariant:** each route of the table is described once, and nothing else is; a test holds both lists together.

use std::sync::OnceLock;

use api::{
    Applied, ApplyRequest, AuditFilter, AuditView, Balancer, BalancerRequest, BestHost,
    BestHostRequest, ClusterView, DrainRequest, DrainView, Event, EventFilter, ExcludeRequest,
    Exclusion, FlowView, HistoryFilter, HistoryView, HostView, InventoryFilter, Me, MoveRequest,
    MoveStarted, MoveView, MovesFilter, Overview, Plan, PlanFilter, Problem, Report, Resolve,
    Status, TokenMade, TokenRequest, TokenView, Unsettled, VmPlace, VmTags, VmTagsRequest, VmView,
    WhenFilter, Why, WhyFilter,
};
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use utoipa::openapi::path::{
    HttpMethod, OperationBuilder, Parameter, ParameterBuilder, ParameterIn,
};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    ComponentsBuilder, ContentBuilder, InfoBuilder, OpenApi, OpenApiBuilder, PathsBuilder, Ref,
    RefOr, Required, Response, ResponseBuilder, Schema,
};
use utoipa::{IntoParams, ToSchema};

use super::Backend;
use super::routes::{Needs, Route, table};

/// A type that crosses the API, and those within it.
struct Shape {
    kind: &'static str,
    schema: RefOr<Schema>,
    named: Vec<(String, RefOr<Schema>)>,
}

const JSON: &str = "application/json";
const PROBLEM: &str = "application/problem+json";
const TOKEN: &str = "token";

/// What a route is for, takes and answers.
struct Described {
    method: &'static str,
    path: &'static str,
    summary: &'static str,
    query: Vec<Parameter>,
    body: Option<Shape>,
    status: &'static str,
    answer: Shape,
}

impl Described {
    fn query<T: IntoParams>(mut self) -> Described {
        self.query = T::into_params(|| Some(ParameterIn::Query));
        self
    }

    fn body<T: ToSchema>(mut self) -> Described {
        self.body = Some(one::<T>());
        self
    }

    /// Begun, and not at its end when it is answered.
    fn accepted(self) -> Described {
        Described { status: "202", ..self }
    }

    fn created(self) -> Described {
        Described { status: "201", ..self }
    }
}

fn one<T: ToSchema>() -> Shape {
    let name = T::name().into_owned();
    let mut named = vec![(name.clone(), T::schema())];
    T::schemas(&mut named);
    Shape { kind: JSON, schema: Ref::from_schema_name(name).into(), named }
}

fn list<T: ToSchema>() -> Shape {
    let Shape { kind, schema, named } = one::<T>();
    Shape { kind, schema: ArrayBuilder::new().items(schema).into(), named }
}

fn plain(kind: &'static str) -> Shape {
    let schema = ObjectBuilder::new().schema_type(Type::String).into();
    Shape { kind, schema, named: Vec::new() }
}

fn any() -> Shape {
    Shape { kind: JSON, schema: ObjectBuilder::new().into(), named: Vec::new() }
}

fn get(path: &'static str, summary: &'static str, answer: Shape) -> Described {
    let query = Vec::new();
    Described { method: "GET", path, summary, query, body: None, status: "200", answer }
}

fn post(path: &'static str, summary: &'static str, answer: Shape) -> Described {
    Described { method: "POST", ..get(path, summary, answer) }
}

fn looks() -> Vec<Described> {
    vec![
        get("/", "The dashboard", plain("text/html")),
        get("/assets/{file}", "A file of the dashboard's", plain("application/octet-stream")),
        get("/healthz", "Whether the agent's loop answers", plain("text/plain")),
        get("/metrics", "Figures for Prometheus", plain("text/plain")),
        get("/v1/openapi.json", "This description", any()),
        get("/v1/me", "Who asks, and what is allowed", one::<Me>()),
        get("/v1/report", "This host, its VMs and its moves in short", one::<Report>()),
        get("/v1/overview", "Every host with what it reports of itself", one::<Overview>()),
        get("/v1/at/{host}/{*path}", "What that host's agent answers a viewer", any()),
        get("/v1/status", "This agent in one look", one::<Status>()),
        get("/v1/hosts", "The hosts that it knows", list::<HostView>()),
        get("/v1/vms", "The VMs on this host", list::<VmView>()),
        get("/v1/traffic", "Who sends how much to whom on this host", list::<FlowView>()),
        get("/v1/vms/{vm}/history", "How a VM did over time", one::<HistoryView>())
            .query::<HistoryFilter>(),
        get("/v1/hosts/{host}/history", "How a host did over time", one::<HistoryView>())
            .query::<HistoryFilter>(),
        get("/v1/vms/{vm}/tags", "A VM's rules of its own", one::<VmTags>()),
        get("/v1/exclusions", "The VMs that are excluded by hand", list::<Exclusion>()),
        get("/v1/inventory", "The VMs of all hosts, by name; more by the header `link`", {
            list::<VmPlace>()
        })
        .query::<InventoryFilter>(),
        get("/v1/cluster", "The whole cluster with figures", one::<ClusterView>()),
        get(
            "/v1/moves",
            "The moves from or to this host, newest first; more by the header `link`",
            list::<MoveView>(),
        )
        .query::<MovesFilter>(),
        get("/v1/moves/{id}", "One move", one::<MoveView>()),
        get("/v1/moves/{id}/resolve", "What is known of an open move", one::<Unsettled>()),
        get("/v1/events", "Events, oldest first; as a stream where that is accepted", {
            list::<Event>()
        })
        .query::<EventFilter>(),
        get("/v1/balancer", "Whether this host begins balancing moves", one::<Balancer>()),
        get("/v1/drain", "How the drain of this host goes", one::<DrainView>()),
        get("/v1/plan", "What would be moved from this host now", one::<Plan>())
            .query::<PlanFilter>(),
        get("/v1/plan/shown", "The plan that was numbered last", one::<Plan>()),
        get("/v1/why", "Why nothing is being moved, or was", one::<Why>()).query::<WhenFilter>(),
        get("/v1/why/{about}", "Why a VM or move went as it did", one::<Why>())
            .query::<WhyFilter>(),
        get("/v1/tokens", "The tokens, without their secrets", list::<TokenView>()),
        get("/v1/audit", "What was asked that could change something", one::<AuditView>())
            .query::<AuditFilter>(),
    ]
}

fn orders() -> Vec<Described> {
    vec![
        post("/v1/vms/{vm}/exclude", "Leave a VM where it is", one::<Exclusion>())
            .body::<ExcludeRequest>(),
        post("/v1/vms/{vm}/include", "End that", one::<Exclusion>()),
        post("/v1/vms/{vm}/tags", "Write a VM's rules of its own", one::<VmTags>())
            .body::<VmTagsRequest>(),
        post("/v1/moves", "Move a VM now; `force` needs the role admin", one::<MoveStarted>())
            .body::<MoveRequest>()
            .accepted(),
        post("/v1/moves/{id}/cancel", "Cancel a move", one::<MoveView>()).accepted(),
        post("/v1/moves/{id}/resolve", "End a move that only a person can", one::<MoveView>())
            .body::<Resolve>()
            .accepted(),
        post("/v1/balancer", "Switch balancing on or off", one::<Balancer>())
            .body::<BalancerRequest>(),
        post("/v1/drain", "Begin or end the drain of this host", one::<DrainView>())
            .body::<DrainRequest>(),
        post("/v1/best-host", "Which host would take a VM yet to be started", list::<BestHost>())
            .body::<BestHostRequest>(),
        post("/v1/plan/apply", "Begin what is planned", one::<Applied>())
            .body::<ApplyRequest>()
            .accepted(),
        post("/v1/tokens", "Make a token", one::<TokenMade>()).body::<TokenRequest>().created(),
        post("/v1/tokens/{id}/revoke", "Revoke a token", one::<TokenView>()),
    ]
}

/// Answers with the description of all routes.
pub(super) async fn openapi<B: Backend>() -> impl IntoResponse {
    static TEXT: OnceLock<String> = OnceLock::new();
    let text = TEXT.get_or_init(|| {
        document(&table::<B>()).to_json().expect("text keys and values alone are always JSON")
    });
    ([(CONTENT_TYPE, JSON)], text.as_str())
}

fn document(routes: &[Route]) -> OpenApi {
    let (mut paths, mut components) = (PathsBuilder::new(), ComponentsBuilder::new());
    let problem = one::<Problem>();
    components = components.schemas_from_iter(problem.named.clone());
    for described in looks().into_iter().chain(orders()) {
        let same =
            |route: &&Route| (route.method, route.path) == (described.method, described.path);
        let needs = routes.iter().find(same).map(|route| route.needs);
        components = components.schemas_from_iter(described.answer.named.clone());
        if let Some(body) = &described.body {
            components = components.schemas_from_iter(body.named.clone());
        }
        let method = if described.method == "POST" { HttpMethod::Post } else { HttpMethod::Get };
        // OpenAPI has no word for a name that takes in slashes.
        let path = described.path.replace("{*", "{");
        paths = paths.path(
            path,
            utoipa::openapi::PathItem::new(method, operation(described, needs, &problem)),
        );
    }
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("Made by `evenkeel token create`; not needed over the unix socket"))
        .build();
    let info = InfoBuilder::new().title("Evenkeel").version(env!("CARGO_PKG_VERSION"));
    let components = components.security_scheme(TOKEN, SecurityScheme::Http(bearer));
    OpenApiBuilder::new()
        .info(info)
        .paths(paths.build())
        .components(Some(components.build()))
        .build()
}

fn operation(described: Described, needs: Option<Needs>, problem: &Shape) -> OperationBuilder {
    let names = described.path.split('{').skip(1).filter_map(|rest| rest.split('}').next());
    let in_path = names.map(|name| {
        ParameterBuilder::new()
            .name(name.trim_start_matches('*'))
            .parameter_in(ParameterIn::Path)
            .required(Required::True)
            .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
            .build()
    });
    let needs = match needs {
        Some(Needs::Role(role)) => format!("Needs the role {role}."),
        Some(Needs::Here) => "Over the unix socket alone.".to_owned(),
        Some(Needs::Nothing) | None => "Needs no token.".to_owned(),
    };
    let mut operation = OperationBuilder::new()
        .summary(Some(described.summary))
        .parameters(Some(in_path.chain(described.query).collect::<Vec<_>>()));
    if needs.starts_with("Needs the role") {
        let none: [&str; 0] = [];
        operation = operation.security(SecurityRequirement::new(TOKEN, none));
    }
    if let Some(body) = described.body {
        let content = ContentBuilder::new().schema(Some(body.schema)).build();
        let body = RequestBodyBuilder::new().content(body.kind, content);
        operation = operation.request_body(Some(body.required(Some(Required::True)).build()));
    }
    operation
        .description(Some(needs))
        .response(described.status, answer("As asked", &described.answer, described.answer.kind))
        .response("default", answer("A refusal: what is wrong, and what to do", problem, PROBLEM))
}

fn answer(what: &str, shape: &Shape, kind: &str) -> Response {
    let content = ContentBuilder::new().schema(Some(shape.schema.clone())).build();
    ResponseBuilder::new().description(what).content(kind, content).build()
}
