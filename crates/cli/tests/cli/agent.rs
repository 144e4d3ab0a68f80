//! An agent of fixed values on a socket in a folder of its own, and the program run against it.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::{
    Applied, AppliedVm, ApplyRequest, AuditCheck, AuditFilter, AuditLine, AuditView, Balancer,
    BalancerRequest, BestHost, BestHostRequest, Choice, ClusterHost, ClusterLoad, ClusterView,
    ClusterVm, Decision, DrainRequest, DrainView, Event, EventFilter, ExcludeRequest, Exclusion,
    FlowView, HostView, MoveRequest, MoveStarted, MoveView, Plan, PlannedMove, Problem, Resolve,
    Role, Status, Step, TokenMade, TokenRequest, TokenView, Unsettled, VmPlace, VmView, Who, Why,
    WhyFilter,
};
use axum::extract::{Path as InPath, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use tokio::net::UnixListener;
use tokio::process::Command;
use tokio::sync::watch;
use tokio::time::timeout;

pub(crate) const MOVE: &str = "1a2b3c4d.1.3";
/// No run of the program takes so long unless it hangs.
const RUN_MAX: Duration = Duration::from_secs(60);

/// What the agent answers, and what it was asked.
pub(crate) struct Agent {
    script: Arc<Script>,
    pub(crate) socket: PathBuf,
    _folder: tempfile::TempDir,
}

struct Script {
    /// How a drain stands, look after look; the last stays.
    drains: Mutex<VecDeque<DrainView>>,
    /// How the move stands, look after look; the last stays.
    looks: Mutex<VecDeque<MoveView>>,
    /// Bodies of moves started, ids of moves cancelled.
    asked: Mutex<Vec<String>>,
    events: watch::Sender<Vec<Event>>,
}

/// What a run of the program gave.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Agent {
    /// An agent whose move goes through `looks`.
    pub(crate) fn start(looks: Vec<MoveView>) -> Agent {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("api.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let events = watch::Sender::new(vec![event(1, Step::Request), event(2, Step::Acceptance)]);
        let script = Arc::new(Script {
            drains: Mutex::default(),
            looks: Mutex::new(looks.into()),
            asked: Mutex::default(),
            events,
        });
        let router = router(script.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Agent { script, socket, _folder: folder }
    }

    /// An agent whose drain goes through `drains`.
    pub(crate) fn draining(drains: Vec<DrainView>) -> Agent {
        let agent = Agent::start(vec![]);
        *agent.script.drains.lock().unwrap() = drains.into();
        agent
    }

    pub(crate) async fn run(&self, arguments: &[&str]) -> Ran {
        run(&self.socket, arguments).await
    }

    /// The program, to be started by the test itself.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        command(&self.socket, arguments)
    }

    pub(crate) fn note(&self, event: Event) {
        self.script.events.send_modify(|events| events.push(event));
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.script.asked.lock().unwrap().clone()
    }
}

fn command(socket: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
    command.env_remove("EVENKEEL_SOCKET").env_remove("EVENKEEL_HOST");
    command
        .env_remove("EVENKEEL_CA")
        .env_remove("EVENKEEL_TOKEN")
        .arg("--socket")
        .arg(socket)
        .args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// Runs the program to its end against whatever is at `socket`.
pub(crate) async fn run(socket: &Path, arguments: &[&str]) -> Ran {
    ran(command(socket, arguments)).await
}

/// Runs `command` to its end.
pub(crate) async fn ran(mut command: Command) -> Ran {
    let output = timeout(RUN_MAX, command.output()).await.expect("the program ends").unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

fn router(script: Arc<Script>) -> Router {
    Router::new()
        .route("/v1/status", get(async || Json(status())))
        .route("/v1/hosts", get(async || Json(vec![host()])))
        .route("/v1/vms", get(async || Json(vec![vm()])))
        .route("/v1/vms/{vm}/exclude", post(exclude))
        .route("/v1/vms/{vm}/include", post(include))
        .route("/v1/exclusions", get(async || Json(vec![excluded("web", None), db_excluded()])))
        .route("/v1/best-host", post(best_host))
        .route("/v1/tokens", get(async || Json(vec![token(true), token(false)])).post(make_token))
        .route("/v1/tokens/{id}/revoke", post(revoke_token))
        .route("/v1/audit", get(audit))
        .route("/v1/drain", get(drain).post(set_drain))
        .route("/v1/traffic", get(async || Json(vec![flow()])))
        .route("/v1/cluster", get(async || Json(cluster())))
        .route("/v1/inventory", get(async || Json(inventory())))
        .route("/v1/moves", get(async || Json(vec![done()])).post(start_move))
        .route("/v1/moves/{id}", get(one_move))
        .route("/v1/moves/{id}/cancel", post(cancel))
        .route("/v1/moves/{id}/resolve", get(async || Json(unsettled())).post(resolve))
        .route("/v1/events", get(events))
        .route("/v1/plan", get(async || Json(plan())))
        .route("/v1/plan/shown", get(async || Json(plan())))
        .route("/v1/plan/apply", post(apply))
        .route("/v1/balancer", get(async || Json(balancer(true))).post(switch_balancer))
        .route("/v1/why", get(async || Json(why("host1"))))
        .route(
            "/v1/why/{about}",
            get(async |InPath(about): InPath<String>, Query(filter): Query<WhyFilter>| {
                Json(match filter.to {
                    Some(to) => why(&format!("{about} to {to}")),
                    None => why(&about),
                })
            }),
        )
        .with_state(script)
}

fn refused(problem: Problem) -> Response {
    (StatusCode::from_u16(problem.status).unwrap(), Json(problem)).into_response()
}

async fn start_move(
    State(script): State<Arc<Script>>,
    Json(request): Json<MoveRequest>,
) -> Response {
    script.asked.lock().unwrap().push(serde_json::to_string(&request).unwrap());
    if request.vm == "nobody" {
        return refused(Problem::new(
            404,
            "no-such-vm",
            "no VM nobody on host1",
            "`evenkeel vms` lists them",
        ));
    }
    let rule = || "anti-affinity db: a VM of it is there".to_owned();
    let overridden = request.force.then(rule).into_iter().collect();
    Json(MoveStarted { move_id: MOVE.to_owned(), overridden }).into_response()
}

/// Host 1, whose agent it is, with two VMs of a group; host 2 with one as it was listed.
fn cluster() -> ClusterView {
    let host = |name: &str, id: &str| ClusterHost {
        name: name.to_owned(),
        id: id.to_owned(),
        state: "alive".to_owned(),
        cpu_millicores: Some(16_000),
        memory_mib: Some(65_536),
        nic_bits_per_second: Some(20_000_000_000),
        cpu_asked_millicores: Some(2500),
        bits_per_second: Some(8_000_000),
        left_out: Some(0),
    };
    let load = ClusterLoad {
        cpu_millicores: 1250,
        received_bits_per_second: 1_500_000,
        sent_bits_per_second: 500_000,
        dirty_mib_per_second: Some(3),
    };
    let vm = |name: &str, host_id: &str, load: Option<ClusterLoad>| ClusterVm {
        name: name.to_owned(),
        id: format!("id-{name}"),
        host_id: host_id.to_owned(),
        state: "running".to_owned(),
        epoch: 1,
        memory_mib: 2048,
        vcpus: load.map(|_| 2),
        load,
        affinity: vec![],
        anti_affinity: if name == "db" { vec![] } else { vec!["web".to_owned()] },
        pinned: (name == "db").then(|| vec!["1".to_owned()]),
    };
    ClusterView {
        host: "host1".to_owned(),
        host_id: "1".to_owned(),
        hosts: vec![host("host1", "1"), host("host2", "2")],
        vms: vec![vm("web1", "1", Some(load)), vm("db", "1", Some(load)), vm("web2", "2", None)],
    }
}

fn plan() -> Plan {
    let web = PlannedMove {
        number: 1,
        likely: Some("host3".to_owned()),
        cost_percent: Some(4.25),
        vm: "web".to_owned(),
        vm_id: vm().id,
        from: "host1".to_owned(),
        to: vec!["host3".to_owned(), "host2".to_owned()],
        asked: "2, the best by what they said last".to_owned(),
        reason:
            "above the mean (cpu used 75 %, 50 % in the mean of the cluster, 10 % above it allowed)"
                .to_owned(),
        choice: Some("most gain for what is copied, 12.00 % at best".to_owned()),
        relief_percent: Some(31.5),
        copy_cost_percent: 0.03,
        memory_mib: 2048,
        copy_ms: Some(17_179),
        downtime_ms: Some(80),
        recommended: Some("2026-03-01T17:12:03.250Z".to_owned()),
    };
    let flooded = PlannedMove {
        number: 2,
        likely: None,
        cost_percent: None,
        vm: "db".to_owned(),
        vm_id: "00000000-0000-0000-0000-0000000000bb".to_owned(),
        to: vec![],
        asked: "8 of 40, by lot".to_owned(),
        reason: "anti-affinity db: db2 of it is here too".to_owned(),
        choice: None,
        relief_percent: None,
        copy_ms: None,
        downtime_ms: None,
        recommended: None,
        ..web.clone()
    };
    let held = Some("balance is \"recommend\"".to_owned());
    let end = "nothing asks for more, as far as it can be foretold".to_owned();
    Plan { host: "host1".to_owned(), moves: vec![web, flooded], held, end }
}

/// Refuses the VM of this name, and any while others are to follow the last; nothing is planned.
async fn apply(
    State(script): State<Arc<Script>>,
    Json(request): Json<ApplyRequest>,
) -> Json<Applied> {
    script.asked.lock().unwrap().extend(request.vms.clone());
    let looks = script.looks.lock().unwrap();
    let busy = looks.front().is_some_and(|look| look.others_to_come);
    let applied = |vm: String| {
        let nobody = (vm == "nobody").then_some("no VM or move \"nobody\" on this host");
        let refused = nobody.or(busy.then_some("moves_per_host: 1 under way here, 1 allowed"));
        let refused = refused.map(str::to_owned);
        AppliedVm { move_id: refused.is_none().then(|| MOVE.to_owned()), vm, refused }
    };
    let nothing = request.vms.is_empty().then(|| "this host is not hot".to_owned());
    let vms = request.vms.into_iter().map(applied).collect();
    Json(Applied { host: "host1".to_owned(), vms, nothing })
}

async fn exclude(
    InPath(vm): InPath<String>,
    Json(request): Json<ExcludeRequest>,
) -> Json<Exclusion> {
    Json(excluded(&vm, request.for_seconds.map(|seconds| format!("in {seconds} s"))))
}

/// One VM is excluded by a rule as well.
async fn include(InPath(vm): InPath<String>) -> Json<Exclusion> {
    let rule = (vm == "db").then(|| "exclude: it is left where it is".to_owned());
    Json(Exclusion { excluded: false, rule, ..excluded(&vm, None) })
}

fn excluded(name: &str, until: Option<String>) -> Exclusion {
    Exclusion {
        vm: name.to_owned(),
        vm_id: vm().id,
        host: "host1".to_owned(),
        here: true,
        excluded: true,
        until,
        rule: None,
    }
}

fn db_excluded() -> Exclusion {
    let until = Some("2026-03-01T17:12:03Z".to_owned());
    Exclusion { here: false, ..excluded("db", until) }
}

/// A VM of 512 GiB nobody takes.
async fn best_host(
    State(script): State<Arc<Script>>,
    Json(request): Json<BestHostRequest>,
) -> Json<Vec<BestHost>> {
    script.asked.lock().unwrap().push(serde_json::to_string(&request).unwrap());
    let none = request.memory_mib == 512 * 1024;
    let best = |name: &str, cost: f64, against: &str, age| BestHost {
        host: name.to_owned(),
        host_id: format!("id of {name}"),
        cost_percent: (!none && against.is_empty()).then_some(cost),
        against: (none || !against.is_empty()).then(|| against.to_owned()),
        age_seconds: age,
    };
    Json(vec![
        best("host3", 1.25, "", Some(4.2)),
        best("host1", 3.5, "", None),
        best("host2", 0.0, "anti-affinity db: db1 of it is there", Some(1.0)),
    ])
}

async fn make_token(
    State(script): State<Arc<Script>>,
    Json(request): Json<TokenRequest>,
) -> Json<TokenMade> {
    script.asked.lock().unwrap().push(serde_json::to_string(&request).unwrap());
    let view = TokenView { name: request.name, role: request.role, ..token(true) };
    Json(TokenMade { token: "evk_1a2b3c4d_5ecret".to_owned(), view })
}

async fn revoke_token(InPath(id): InPath<String>) -> Response {
    if id != "1a2b3c4d" {
        let title = format!("there is no token {id:?}");
        return refused(Problem::new(
            404,
            "no-such-token",
            title,
            "`evenkeel token list` shows them",
        ));
    }
    Json(token(false)).into_response()
}

fn token(holds: bool) -> TokenView {
    TokenView {
        id: "1a2b3c4d".to_owned(),
        name: "anna".to_owned(),
        role: Role::Operator,
        made: "2026-03-01T17:12:03Z".to_owned(),
        until: "2026-05-30T17:12:03Z".to_owned(),
        holds,
    }
}

/// One line; what was kept as `gone` is not there, and a log asked for by `since=60` is broken.
async fn audit(Query(filter): Query<AuditFilter>) -> Json<AuditView> {
    let line = AuditLine {
        seq: 7,
        at: 1_772_385_123_250,
        time: "2026-03-01T17:12:03Z".to_owned(),
        who: Who { token: Some("1a2b3c4d".to_owned()), name: Some("anna".to_owned()), uid: None },
        from: "tcp 198.18.0.7:40000".to_owned(),
        method: "POST".to_owned(),
        path: "/v1/balancer".to_owned(),
        what: "refused: role-too-low".to_owned(),
        status: 403,
        before: "b".repeat(64),
        hash: "a".repeat(64),
    };
    let broken = (filter.since == Some(60)).then(|| "audit.log, line 3: it was changed".to_owned());
    let kept_found = filter.kept.map(|kept| kept != "gone");
    let check = AuditCheck { lines: 4, first_seq: 4, broken, kept_found };
    Json(AuditView { lines: vec![line], newest_seq: 7, newest_hash: "a".repeat(64), check })
}

async fn drain(State(script): State<Arc<Script>>) -> Json<DrainView> {
    let mut drains = script.drains.lock().unwrap();
    if drains.len() > 1 {
        drains.pop_front();
    }
    Json(drains.front().cloned().unwrap())
}

async fn set_drain(
    State(script): State<Arc<Script>>,
    Json(request): Json<DrainRequest>,
) -> Response {
    script.asked.lock().unwrap().push(serde_json::to_string(&request).unwrap());
    if request.host.as_deref() == Some("host2") {
        let title = "this agent drains its own host alone, which is host1, not host2";
        return refused(Problem::new(409, "elsewhere", title, "run `evenkeel drain` on that host"));
    }
    let stands = script.drains.lock().unwrap().front().cloned().unwrap();
    Json(DrainView { draining: request.on, ..stands }).into_response()
}

async fn switch_balancer(Json(request): Json<BalancerRequest>) -> Json<Balancer> {
    Json(balancer(request.on))
}

fn balancer(on: bool) -> Balancer {
    Balancer { host: "host1".to_owned(), on, balance: "automatic".to_owned() }
}

async fn cancel(State(script): State<Arc<Script>>, InPath(id): InPath<String>) -> Response {
    script.asked.lock().unwrap().push(format!("cancel {id}"));
    if id != MOVE {
        return refused(Problem::new(
            404,
            "no-such-move",
            "no move of that id",
            "`evenkeel moves` lists them",
        ));
    }
    Json(copying()).into_response()
}

async fn resolve(
    State(script): State<Arc<Script>>,
    InPath(id): InPath<String>,
    Json(decided): Json<Resolve>,
) -> Response {
    let decided = serde_json::to_string(&decided).unwrap();
    script.asked.lock().unwrap().push(format!("resolve {id} {decided}"));
    if decided.contains("\"fenced\":null") && decided.contains("keep-here") {
        let why = "the VM may run on host2: switch host2 off, then say so with --fenced host2";
        return refused(Problem::new(409, "refused", why, "`evenkeel why` tells more"));
    }
    Json(copying()).into_response()
}

pub(crate) fn unsettled() -> Unsettled {
    let against = Some("the guest runs here: keep it, or end it by hand first".to_owned());
    Unsettled {
        move_id: MOVE.to_owned(),
        vm: "web".to_owned(),
        peer: "host2".to_owned(),
        known: vec![
            "this host is the source of the move of web".to_owned(),
            "the other side, host2, does not answer any more; last heard 93 s ago".to_owned(),
        ],
        choices: vec![
            Choice { decision: Decision::KeepHere, against: None },
            Choice { decision: Decision::GiveUp, against },
        ],
    }
}

async fn one_move(State(script): State<Arc<Script>>, InPath(id): InPath<String>) -> Json<MoveView> {
    assert_eq!(id, MOVE);
    let mut looks = script.looks.lock().unwrap();
    let now = looks.front().cloned().unwrap();
    if looks.len() > 1 {
        looks.pop_front();
    }
    Json(now)
}

async fn events(
    State(script): State<Arc<Script>>,
    Query(filter): Query<EventFilter>,
) -> Json<Vec<Event>> {
    let mut changes = script.events.subscribe();
    let wanted = |events: &Vec<Event>| -> Vec<Event> {
        let wanted = |e: &&Event| {
            e.seq > filter.after.unwrap_or(0)
                && (filter.move_id.is_none() || e.move_id == filter.move_id)
        };
        events.iter().filter(wanted).cloned().collect()
    };
    if filter.follow {
        let some = changes.wait_for(|events| !wanted(events).is_empty());
        // Nothing new within the wait: an empty answer follows below.
        let _ = timeout(api::FOLLOW_MAX, some).await;
    }
    let found = wanted(&changes.borrow());
    Json(found)
}

pub(crate) fn status() -> Status {
    Status {
        version: "0.1.0".to_owned(),
        cluster: "prod".to_owned(),
        host: "host1".to_owned(),
        host_id: "00000000-0000-0000-0000-000000000001".to_owned(),
        balance: "recommend".to_owned(),
        balancer_on: true,
        request: "multicast".to_owned(),
        hosts_alive: 3,
        hosts_known: 3,
        vms: 1,
        moves_under_way: 0,
        hot: None,
        disk_bytes_per_second: Some(2_500_000),
        uplink: None,
        doing: "nothing: no host is hot".to_owned(),
        config: None,
        webhooks_failing: vec![],
        traces_failing: None,
        alarms: vec![],
    }
}

fn host() -> HostView {
    HostView {
        name: "host1".to_owned(),
        id: "00000000-0000-0000-0000-000000000001".to_owned(),
        address: "198.18.0.1:7171".to_owned(),
        state: "alive".to_owned(),
        local: true,
        age_seconds: Some(0.0),
        cpu_percent: 12.5,
        memory_percent: 41.0,
        packets_per_second: 52_000,
        bits_per_second: 94_100_000,
        vms: 1,
        hot: false,
        room_mib: Some(2048),
        able: vec!["qemu".to_owned(), "tcg".to_owned()],
    }
}

fn flow() -> FlowView {
    FlowView {
        from: "web".to_owned(),
        from_id: Some(vm().id),
        to: "outside".to_owned(),
        to_id: None,
        packets_per_second: 1200,
        bits_per_second: 9_600_000,
    }
}

fn inventory() -> Vec<VmPlace> {
    let here = VmPlace {
        name: "web".to_owned(),
        id: "00000000-0000-0000-0000-0000000000aa".to_owned(),
        host: "host1".to_owned(),
        host_state: "alive".to_owned(),
        age_seconds: 0.0,
        state: "running".to_owned(),
        epoch: 1,
        memory_mib: 128,
    };
    let elsewhere = VmPlace {
        name: "mail".to_owned(),
        host: "host3".to_owned(),
        host_state: "gone".to_owned(),
        age_seconds: 61.4,
        state: "paused".to_owned(),
        epoch: 4,
        ..here.clone()
    };
    vec![elsewhere, here]
}

pub(crate) fn vm() -> VmView {
    VmView {
        name: "web".to_owned(),
        id: "00000000-0000-0000-0000-0000000000aa".to_owned(),
        host: "host1".to_owned(),
        state: "running".to_owned(),
        epoch: 1,
        memory_mib: 128,
        cpu_percent: 4.5,
        vcpu_percent: Some(4.0),
        cpu_wait_percent: Some(0.0),
        guest_memory_mib: Some(71),
        dirty_mib_per_second: Some(48),
        disk_bytes_per_second: Some(1_250_000),
        disk_requests_per_second: Some(310),
        share: None,
        sent_packets_per_second: 10,
        received_packets_per_second: 20,
        bits_per_second: 30_000,
        history_seconds: 45,
        next_hour: None,
        excluded: None,
        rules: vec![],
        trouble: None,
    }
}

/// A move whose copy is under way.
pub(crate) fn copying() -> MoveView {
    MoveView {
        id: MOVE.to_owned(),
        vm: "web".to_owned(),
        vm_id: "00000000-0000-0000-0000-0000000000aa".to_owned(),
        from: "host1".to_owned(),
        to: Some("host2".to_owned()),
        phase: "copying".to_owned(),
        reason: "asked for by hand".to_owned(),
        overridden: vec![],
        began: "2026-03-01T17:12:00Z".to_owned(),
        ended: false,
        others_to_come: false,
        outcome: None,
        acceptances: 2,
        refusals: 0,
        copied_bytes: 67_108_864,
        total_bytes: 134_217_728,
        rounds: 1,
        encrypted: None,
        total_ms: None,
        downtime_ms: None,
        promised_percent: None,
        measured_percent: None,
        paid: None,
    }
}

/// The same, made.
pub(crate) fn done() -> MoveView {
    MoveView {
        phase: "done".to_owned(),
        ended: true,
        outcome: Some("relief 31 %".to_owned()),
        copied_bytes: 137_363_456,
        rounds: 3,
        encrypted: None,
        total_ms: Some(2310),
        downtime_ms: Some(158),
        promised_percent: None,
        measured_percent: None,
        paid: None,
        ..copying()
    }
}

/// The same, not made.
pub(crate) fn abandoned() -> MoveView {
    let outcome = Some("cancelled by hand".to_owned());
    MoveView { phase: "abandoned".to_owned(), ended: true, outcome, ..copying() }
}

pub(crate) fn event(seq: u64, step: Step) -> Event {
    Event {
        seq,
        time: "2026-03-01T17:12:03.250Z".to_owned(),
        host: "host1".to_owned(),
        move_id: Some(MOVE.to_owned()),
        vm: Some("web".to_owned()),
        step,
        reason: "as the test says".to_owned(),
        peer: None,
        cost_percent: None,
        copy: None,
    }
}

fn why(about: &str) -> Why {
    Why {
        about: about.to_owned(),
        verdict: "no host is hot".to_owned(),
        because: vec![],
        events: vec![],
    }
}
