//! A backend of fixed values that keeps what it was asked, and a server for it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use agent::http::{
    About, Admitted, ApiSocket, Backend, Doors, EventQuery, Gate, Limits, TlsListener, serve,
    until_events,
};
use agent::net::Looked;
use api::client::Client;
use api::{
    Applied, AppliedVm, ApplyRequest, Balancer, BalancerRequest, BestHost, BestHostRequest, Choice,
    ClusterView, Decision, DrainRequest, DrainView, Event, ExcludeRequest, Exclusion, FlowView,
    HistoryFilter, HistoryView, HostView, LeavingVm, MoveRequest, MoveStarted, MoveView, Overview,
    Plan, PlannedMove, Problem, Report, Resolve, Status, Step, Unsettled, VmPlace, VmTags,
    VmTagsRequest, VmTile, VmView, Why,
};
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::JoinHandle;

pub(crate) const VM: &str = "web";
pub(crate) const MOVE: &str = "1a2b3c4d.1.3";
/// A move whose cancelling takes until [`Fixed::go`].
pub(crate) const HELD: &str = "held";

/// Fixed values; only events can be added.
#[derive(Clone)]
pub(crate) struct Fixed {
    kept: Arc<Mutex<Kept>>,
    newest: watch::Sender<u64>,
    pub(crate) go: Arc<Notify>,
}

#[derive(Default)]
struct Kept {
    events: Vec<Event>,
    queries: Vec<EventQuery>,
    names: Vec<String>,
    places: Vec<VmPlace>,
    asked: usize,
}

impl Fixed {
    pub(crate) fn new() -> Fixed {
        Fixed { kept: Arc::default(), newest: watch::Sender::new(0), go: Arc::default() }
    }

    /// Adds an event of `move_id`.
    pub(crate) fn note(&self, move_id: &str) {
        let mut kept = self.kept.lock().unwrap();
        let seq = kept.events.len() as u64 + 1;
        kept.events.push(event(seq, move_id));
        self.newest.send_replace(seq);
    }

    /// Lists so many VMs from now on.
    pub(crate) fn list(&self, count: usize) {
        self.kept.lock().unwrap().places = (0..count).map(place).collect();
    }

    /// The event queries that were made.
    pub(crate) fn queries(&self) -> Vec<EventQuery> {
        self.kept.lock().unwrap().queries.clone()
    }

    /// The names that arrived, in paths and bodies.
    pub(crate) fn names(&self) -> Vec<String> {
        self.kept.lock().unwrap().names.clone()
    }

    /// How often anything was asked.
    pub(crate) fn asked(&self) -> usize {
        self.kept.lock().unwrap().asked
    }

    fn count(&self) {
        self.kept.lock().unwrap().asked += 1;
    }

    /// Ready once somebody waits for an event.
    pub(crate) async fn awaited(&self) {
        while self.newest.receiver_count() == 0 {
            tokio::task::yield_now().await;
        }
    }

    fn named(&self, name: &str) {
        self.kept.lock().unwrap().names.push(name.to_owned());
    }

    fn find(&self, query: &EventQuery) -> Vec<Event> {
        let kept = self.kept.lock().unwrap();
        let of_move = |e: &&Event| query.move_id.is_none() || e.move_id == query.move_id;
        let events: Vec<Event> = kept.events.iter().filter(of_move).cloned().collect();
        match query.after {
            Some(after) => events.into_iter().filter(|e| e.seq > after).take(query.limit).collect(),
            None => events[events.len().saturating_sub(query.limit)..].to_vec(),
        }
    }
}

/// Several have one name.
pub(crate) fn place(number: usize) -> VmPlace {
    VmPlace {
        name: format!("web & {}", number / 3),
        id: format!("id-{number:05}"),
        host: "host1".to_owned(),
        host_state: "alive".to_owned(),
        age_seconds: 0.0,
        state: "running".to_owned(),
        epoch: 1,
        memory_mib: 1024,
    }
}

pub(crate) fn event(seq: u64, move_id: &str) -> Event {
    Event {
        seq,
        time: "2026-03-01T17:12:03.250Z".to_owned(),
        host: "host1".to_owned(),
        move_id: Some(move_id.to_owned()),
        vm: Some(VM.to_owned()),
        step: Step::Acceptance,
        reason: "has room".to_owned(),
        peer: Some("host2".to_owned()),
        cost_percent: Some(3.1),
        copy: None,
    }
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
        vms: 2,
        moves_under_way: 0,
        hot: None,
        disk_bytes_per_second: Some(2_500_000),
        uplink: None,
        doing: "no host is hot".to_owned(),
        config: None,
        webhooks_failing: vec![],
        traces_failing: None,
        alarms: vec![],
    }
}

pub(crate) fn balancer(on: bool) -> Balancer {
    Balancer { host: "host1".to_owned(), on, balance: "recommend".to_owned() }
}

fn tags(vm: String, tags: Vec<String>) -> VmTags {
    VmTags { vm, vm_id: VM.to_owned(), host: "host1".to_owned(), tags }
}

pub(crate) fn exclusion(vm: String) -> Exclusion {
    Exclusion {
        vm,
        vm_id: "00000000-0000-0000-0000-0000000000aa".to_owned(),
        host: "host1".to_owned(),
        here: true,
        excluded: true,
        until: None,
        rule: None,
    }
}

pub(crate) fn best_host() -> BestHost {
    BestHost {
        host: "host1".to_owned(),
        host_id: "00000000-0000-0000-0000-000000000001".to_owned(),
        cost_percent: Some(3.1),
        against: None,
        age_seconds: None,
    }
}

pub(crate) fn drain(draining: bool) -> DrainView {
    let waits = LeavingVm {
        vm: VM.to_owned(),
        vm_id: "00000000-0000-0000-0000-0000000000aa".to_owned(),
        memory_mib: 1024,
        state: "waits".to_owned(),
        move_id: None,
        why: Some("no other host answers".to_owned()),
    };
    let (left, stopped) = (vec![], vec![]);
    DrainView {
        host: "host1".to_owned(),
        looking: false,
        draining,
        left,
        here: vec![waits],
        stopped,
    }
}

pub(crate) fn cluster() -> ClusterView {
    let (host, host_id) = (status().host, status().host_id);
    ClusterView { host, host_id, hosts: vec![], vms: vec![] }
}

pub(crate) fn plan() -> Plan {
    let planned = PlannedMove {
        number: 1,
        likely: None,
        cost_percent: None,
        vm: VM.to_owned(),
        vm_id: "00000000-0000-0000-0000-0000000000aa".to_owned(),
        from: "host1".to_owned(),
        to: vec![],
        asked: "all 3".to_owned(),
        reason: "hot".to_owned(),
        choice: None,
        relief_percent: Some(31.5),
        copy_cost_percent: 0.03,
        memory_mib: 1024,
        copy_ms: None,
        downtime_ms: Some(80),
        recommended: None,
    };
    Plan { host: "host1".to_owned(), moves: vec![planned], held: None, end: "not hot".to_owned() }
}

pub(crate) fn one_move() -> MoveView {
    MoveView {
        id: MOVE.to_owned(),
        vm: VM.to_owned(),
        vm_id: "00000000-0000-0000-0000-0000000000aa".to_owned(),
        from: "host1".to_owned(),
        to: Some("host2".to_owned()),
        phase: "copying".to_owned(),
        reason: "packets".to_owned(),
        overridden: vec![],
        began: "2026-03-01T17:12:00Z".to_owned(),
        ended: false,
        others_to_come: false,
        outcome: None,
        acceptances: 2,
        refusals: 1,
        copied_bytes: 1 << 20,
        total_bytes: 1 << 27,
        rounds: 1,
        encrypted: None,
        total_ms: None,
        downtime_ms: None,
        promised_percent: None,
        measured_percent: None,
        paid: None,
    }
}

pub(crate) fn report() -> Report {
    let vm = VmTile {
        name: VM.to_owned(),
        id: "00000000-0000-0000-0000-0000000000aa".to_owned(),
        state: "running".to_owned(),
        memory_mib: 1024,
        cpu_percent: 12.5,
        sent_packets_per_second: 10,
        received_packets_per_second: 20,
        bits_per_second: 9600,
        excluded: false,
        trouble: None,
    };
    Report { status: status(), vms: vec![vm], moves: vec![one_move()], newest_event: 7 }
}

pub(crate) fn overview() -> Overview {
    let Status { host, host_id, cluster, .. } = status();
    Overview { host, host_id, cluster, hosts: vec![] }
}

fn no_such_vm(name: &str) -> Problem {
    Problem::new(
        404,
        "no-such-vm",
        format!("no VM {name} on this host"),
        "`evenkeel vms` lists them",
    )
}

impl Backend for Fixed {
    async fn status(&self) -> Result<Status, Problem> {
        self.count();
        Ok(status())
    }
    async fn metrics(&self) -> Result<String, Problem> {
        self.count();
        Ok("# HELP up It is.\n".to_owned())
    }
    async fn hosts(&self) -> Result<Vec<HostView>, Problem> {
        self.count();
        Ok(vec![])
    }
    async fn vms(&self) -> Result<Vec<VmView>, Problem> {
        self.count();
        Err(Problem::new(503, "starting", "the agent starts", "Try again in a moment"))
    }
    async fn traffic(&self) -> Result<Vec<FlowView>, Problem> {
        self.count();
        Ok(vec![flow()])
    }
    async fn history(&self, about: About, filter: HistoryFilter) -> Result<HistoryView, Problem> {
        self.count();
        let step_seconds = filter.step.unwrap_or(10);
        Ok(HistoryView {
            name: format!("{about:?}"),
            id: String::new(),
            host: String::new(),
            step_seconds,
            at: Vec::new(),
            metrics: Vec::new(),
            past: Vec::new(),
        })
    }
    async fn inventory(&self) -> Result<Vec<VmPlace>, Problem> {
        self.count();
        Ok(self.kept.lock().unwrap().places.clone())
    }
    async fn cluster(&self) -> Result<ClusterView, Problem> {
        self.count();
        Ok(cluster())
    }

    async fn moves(&self) -> Result<Vec<MoveView>, Problem> {
        self.count();
        Ok(vec![one_move()])
    }
    async fn one_move(&self, id: String) -> Result<MoveView, Problem> {
        self.count();
        self.named(&id);
        Ok(one_move())
    }
    async fn events(&self, query: EventQuery) -> Result<Vec<Event>, Problem> {
        self.count();
        self.kept.lock().unwrap().queries.push(query.clone());
        until_events(self.newest.subscribe(), query.wait, async || Ok(self.find(&query))).await
    }
    async fn why(&self, about: Option<String>) -> Result<Why, Problem> {
        self.count();
        let about = about.unwrap_or_else(|| "nothing".to_owned());
        self.named(&about);
        Ok(Why {
            about,
            verdict: "no host is hot".to_owned(),
            because: vec![],
            events: vec![event(1, MOVE)],
        })
    }
    async fn why_at(&self, at: String) -> Result<Why, Problem> {
        self.count();
        self.named(&at);
        let about = format!("host h at {at}");
        Ok(Why { about, verdict: "it was not hot".to_owned(), because: vec![], events: vec![] })
    }
    async fn why_not(&self, vm: String, to: String) -> Result<Why, Problem> {
        self.count();
        self.named(&vm);
        self.named(&to);
        let about = format!("VM {vm} to {to}");
        Ok(Why { about, verdict: "it rests".to_owned(), because: vec![], events: vec![] })
    }
    async fn report(&self) -> Result<Report, Problem> {
        self.count();
        Ok(report())
    }
    async fn overview(&self) -> Result<Overview, Problem> {
        self.count();
        Ok(overview())
    }
    async fn at(&self, host: String, path: String) -> Result<Looked, Problem> {
        self.count();
        self.named(&host);
        self.named(&path);
        let kind = "application/json".to_owned();
        Ok(Looked { status: 200, kind, body: b"[\"there\"]".to_vec() })
    }
    async fn plan(&self, numbered: bool) -> Result<Plan, Problem> {
        self.count();
        let end = if numbered { "numbered" } else { "not hot" };
        Ok(Plan { end: end.to_owned(), ..plan() })
    }
    async fn shown_plan(&self) -> Result<Plan, Problem> {
        self.count();
        Ok(Plan { end: "shown".to_owned(), ..plan() })
    }

    async fn apply(&self, request: ApplyRequest) -> Result<Applied, Problem> {
        self.count();
        let began = |vm| AppliedVm { vm, move_id: Some(MOVE.to_owned()), refused: None };
        let vms = request.vms.into_iter().map(began).collect();
        Ok(Applied { host: "host1".to_owned(), vms, nothing: None })
    }
    async fn balancer(&self) -> Result<Balancer, Problem> {
        self.count();
        Ok(balancer(true))
    }
    async fn switch_balancer(&self, request: BalancerRequest) -> Result<Balancer, Problem> {
        self.count();
        Ok(balancer(request.on))
    }
    async fn exclude(&self, vm: String, request: ExcludeRequest) -> Result<Exclusion, Problem> {
        self.count();
        self.named(&vm);
        let until = request.for_seconds.map(|seconds| format!("in {seconds} s"));
        Ok(Exclusion { until, ..exclusion(vm) })
    }
    async fn include(&self, vm: String) -> Result<Exclusion, Problem> {
        self.count();
        self.named(&vm);
        Ok(Exclusion { excluded: false, ..exclusion(vm) })
    }
    async fn vm_tags(&self, vm: String) -> Result<VmTags, Problem> {
        self.count();
        self.named(&vm);
        Ok(tags(vm, Vec::new()))
    }
    async fn set_vm_tags(&self, vm: String, request: VmTagsRequest) -> Result<VmTags, Problem> {
        self.count();
        self.named(&vm);
        Ok(tags(vm, request.set.into_iter().flat_map(|tag| tag.values).collect()))
    }
    async fn exclusions(&self) -> Result<Vec<Exclusion>, Problem> {
        self.count();
        Ok(vec![exclusion(VM.to_owned())])
    }
    async fn best_host(&self, request: BestHostRequest) -> Result<Vec<BestHost>, Problem> {
        self.count();
        request.tags.iter().for_each(|tag| self.named(tag));
        Ok(vec![best_host()])
    }
    async fn drain(&self) -> Result<DrainView, Problem> {
        self.count();
        Ok(drain(true))
    }
    async fn set_drain(&self, request: DrainRequest) -> Result<DrainView, Problem> {
        self.count();
        request.host.iter().for_each(|host| self.named(host));
        Ok(drain(request.on))
    }
    async fn start_move(&self, request: MoveRequest) -> Result<MoveStarted, Problem> {
        self.count();
        self.named(&request.vm);
        if request.vm == VM {
            Ok(MoveStarted { move_id: MOVE.to_owned(), overridden: vec![] })
        } else {
            Err(no_such_vm(&request.vm))
        }
    }
    async fn cancel(&self, id: String) -> Result<MoveView, Problem> {
        self.count();
        self.named(&id);
        if id == HELD {
            self.go.notified().await;
        }
        Ok(one_move())
    }
    async fn unsettled(&self, id: String) -> Result<Unsettled, Problem> {
        self.count();
        self.named(&id);
        Ok(unsettled())
    }
    async fn resolve(&self, id: String, resolve: Resolve) -> Result<MoveView, Problem> {
        self.count();
        self.named(&id);
        match (resolve.decision, resolve.fenced) {
            (Decision::KeepHere, None) => {
                Err(Problem::new(409, "refused", "the VM may run on host2", "switch host2 off"))
            }
            (Decision::KeepHere | Decision::GiveUp, _) => Ok(one_move()),
        }
    }
}

pub(crate) fn unsettled() -> Unsettled {
    let against = Some("it goes on by itself".to_owned());
    Unsettled {
        move_id: MOVE.to_owned(),
        vm: VM.to_owned(),
        peer: "host2".to_owned(),
        known: vec!["it stands at: HandingOver".to_owned()],
        choices: vec![
            Choice { decision: Decision::KeepHere, against: None },
            Choice { decision: Decision::GiveUp, against },
        ],
    }
}

/// A served [`Fixed`], in a folder of its own.
pub(crate) struct Served {
    pub(crate) backend: Fixed,
    pub(crate) client: Client,
    pub(crate) socket: PathBuf,
    stop: oneshot::Sender<()>,
    server: JoinHandle<anyhow::Result<()>>,
    pub(crate) folder: tempfile::TempDir,
}

impl Served {
    /// For whoever runs the tests.
    pub(crate) async fn start() -> Served {
        let folder = tempfile::tempdir().unwrap();
        Served::with(folder, Admitted::of("no-such-group"), Limits::default(), None).await
    }

    /// For those, in this folder.
    pub(crate) async fn with(
        folder: tempfile::TempDir,
        admitted: Admitted,
        limits: Limits,
        tls: Option<TlsListener>,
    ) -> Served {
        let socket = folder.path().join("api.sock");
        let (stop, stopped) = oneshot::channel();
        let backend = Fixed::new();
        let bound = ApiSocket::bind(&socket, admitted.gid).await.unwrap();
        let gate = Arc::new(Gate::open(folder.path(), admitted, limits).unwrap());
        let until = async {
            let _ = stopped.await;
        };
        let doors = Doors { socket: bound, tls };
        let server = tokio::spawn(serve(doors, gate, backend.clone(), until));
        Served { backend, client: Client::new(&socket), socket, stop, server, folder }
    }

    /// Ends it as a signal ends the agent.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.stop.send(()).unwrap();
        self.server.await.unwrap()
    }
}

pub(crate) fn flow() -> FlowView {
    FlowView {
        from: VM.to_owned(),
        from_id: Some("00000000-0000-0000-0000-0000000000aa".to_owned()),
        to: "many".to_owned(),
        to_id: None,
        packets_per_second: 12,
        bits_per_second: 9600,
    }
}
