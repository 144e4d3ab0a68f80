//! The agent's HTTP API: its types, which are a stable promise, and a client for it.
//!
//! Figures carry their unit in the name. Ids are UUIDs in text. A time is RFC 3339 in UTC.
//! Answers may gain fields; what is sent to the agent may not have fields that it does not know, so that a
//! misspelt one is an error and not a silent default.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

mod access;
pub mod client;
pub mod cluster;
mod history;
mod operations;
mod overview;
mod paging;
mod plan;
mod tags;
mod webhook;

pub use access::{
    AUDIT, AUDIT_MAX, AuditCheck, AuditFilter, AuditLine, AuditView, Role, TOKEN_DAYS_MAX,
    TokenMade, TokenRequest, TokenView, Who,
};
pub use cluster::{ClusterHost, ClusterLoad, ClusterView, ClusterVm};
pub use history::{HistoryFilter, HistoryView, Series, StayView};
pub use operations::{
    BestHost, BestHostRequest, DrainRequest, DrainView, ExcludeRequest, Exclusion, LeavingVm,
    LeftVm, StoppedVm,
};
pub use overview::{MADE_REPORTED, Me, Overview, OverviewHost, Report, UNMADE_REPORTED, VmTile};
pub use paging::{EVENTS_RESET, InventoryFilter, LIST_MAX, MovesFilter};
pub use plan::{Applied, AppliedVm, ApplyRequest, PLAN_SHOWN_MAX, Plan, PlanFilter, PlannedMove};
pub use tags::{VmTag, VmTags, VmTagsRequest};
pub use webhook::Delivery;

/// Where an agent listens unless told otherwise.
pub const SOCKET: &str = "/run/evenkeel/api.sock";
/// The largest body that the agent reads, in bytes.
pub const BODY_MAX: usize = 64 * 1024;
/// Events in one answer where the request names no limit.
pub const EVENTS: u32 = 100;
/// The most events that may be asked for at once.
pub const EVENTS_MAX: u32 = 1000;
/// How long the agent holds an answer back while there is no event to tell.
pub const FOLLOW_MAX: Duration = Duration::from_secs(10);
/// How long a stream of `GET /v1/events` (`accept: text/event-stream`) goes on before it ends, to be resumed by `last-event-id`: so
/// long, at the most, a token that was revoked still sees events.
pub const STREAM_MAX: Duration = Duration::from_secs(50);
/// Streams of events that an agent serves at once.
pub const STREAMS_MAX: usize = 32;

/// `GET /v1/status`: the local agent in one look.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Status {
    /// Version of the agent.
    pub version: String,
    /// Name of the cluster.
    pub cluster: String,
    /// This host's name.
    pub host: String,
    /// This host's id.
    pub host_id: String,
    /// `off`, `recommend` or `automatic`.
    pub balance: String,
    /// Whether this host may begin balancing moves, where `balance` allows it: a person may switch them off.
    pub balancer_on: bool,
    /// How requests go out: `multicast`, `broadcast` or `fan-out`.
    pub request: String,
    /// Hosts that answer, this one included.
    pub hosts_alive: u32,
    /// Hosts known, this one included.
    pub hosts_known: u32,
    /// VMs on this host.
    pub vms: u32,
    /// Moves under way from or to this host.
    pub moves_under_way: u32,
    /// Whether this host is hot, and by which threshold.
    pub hot: Option<String>,
    /// Bytes per second read from this host's disks and written to them, where the kernel tells.
    pub disk_bytes_per_second: Option<u64>,
    /// The configured uplink, while it exists.
    pub uplink: Option<UplinkView>,
    /// Why nothing is being moved now, or what is.
    pub doing: String,
    /// What of the configuration file, as it was read last, is not in force: a mistake, or what waits for a restart.
    pub config: Option<String>,
    /// Webhooks that fail, one sentence each: which, since when, why, and how many events wait.
    #[serde(default)]
    pub webhooks_failing: Vec<String>,
    /// The same of traces, if they fail.
    #[serde(default)]
    pub traces_failing: Option<String>,
    /// What needs a person, most urgent first.
    pub alarms: Vec<String>,
}

/// The network card that the VMs' bridge goes out by, and what its driver says of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct UplinkView {
    /// Its name.
    pub name: String,
    /// Name of its driver; where it is no device of its own, its kind, such as `bond`.
    pub driver: Option<String>,
    /// Its speed, where the driver tells: in one direction, or in both together at half duplex.
    pub speed_bits_per_second: Option<u64>,
    /// `half` or `full`.
    pub duplex: Option<String>,
    /// Whether it has a link.
    pub up: Option<bool>,
    /// Its queues that lose something, where the driver tells; of the last ten seconds that were measured.
    pub losing_queues: Vec<QueueView>,
}

/// A queue of the uplink that loses something.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct QueueView {
    /// `rx` (the host receives) or `tx`, and its number: `rx-3`.
    pub queue: String,
    /// Packets that its hardware dropped, per second.
    pub drops_per_second: f64,
    /// How often there was no memory for a packet that came, per second.
    pub failed_allocations_per_second: f64,
}

/// One of `GET /v1/hosts`: what this agent knows of a host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct HostView {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: String,
    /// Where its agent is reached.
    pub address: String,
    /// `alive`, `suspect` or `gone`.
    pub state: String,
    /// Whether it is the host that answers.
    pub local: bool,
    /// Age of what follows, in seconds; absent: that host has said nothing yet, and what follows means nothing.
    pub age_seconds: Option<f64>,
    /// Processor use, percent of all cores.
    pub cpu_percent: f64,
    /// Memory that guests have at full size, percent.
    pub memory_percent: f64,
    /// Packets per second at the taps.
    pub packets_per_second: u64,
    /// Bits per second at the taps.
    pub bits_per_second: u64,
    /// VMs there.
    pub vms: u32,
    /// Whether it is hot.
    pub hot: bool,
    /// Memory that it could still give to guests, in MiB; absent: it does not say.
    pub room_mib: Option<u64>,
    /// What it is able to: its driver, `kvm`, `tcg`, `program` (it counts in the kernel, at its taps).
    pub able: Vec<String>,
}

/// One of `GET /v1/inventory`: a VM of this or of another host, as that host listed it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct VmPlace {
    /// Its name.
    pub name: String,
    /// Its UUID.
    pub id: String,
    /// The host that lists it.
    pub host: String,
    /// Whether that host is `alive`, `suspect` or `gone`.
    pub host_state: String,
    /// Age of the list, in seconds.
    pub age_seconds: f64,
    /// `running`, `paused`, `released`, `down`, or `doubtful`: that host does not know.
    pub state: String,
    /// How often ownership has passed.
    pub epoch: u64,
    /// Memory at full size, in MiB.
    pub memory_mib: u64,
}

/// One of `GET /v1/vms`: a VM on this host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct VmView {
    /// Its name.
    pub name: String,
    /// Its UUID.
    pub id: String,
    /// The host it is on.
    pub host: String,
    /// `running`, `paused`, `moving`, `released`, `down`.
    pub state: String,
    /// How often ownership has passed.
    pub epoch: u64,
    /// Memory at full size, in MiB.
    pub memory_mib: u64,
    /// Processor use, percent of one core.
    pub cpu_percent: f64,
    /// That of its vCPUs alone, where they can be told apart; the rest is emulation, and a copy while one is made.
    pub vcpu_percent: Option<f64>,
    /// What its vCPUs wanted and did not get, percent of one core.
    pub cpu_wait_percent: Option<f64>,
    /// Memory in use inside the guest, page cache not counted, in MiB, where its balloon tells.
    pub guest_memory_mib: Option<u64>,
    /// How fast it writes to its memory, as last measured, in MiB per second.
    pub dirty_mib_per_second: Option<u64>,
    /// Bytes per second read from its disks and written to them, where it has some.
    pub disk_bytes_per_second: Option<u64>,
    /// Requests per second to its disks.
    pub disk_requests_per_second: Option<u64>,
    /// What it was given of this host when it arrived, where `[share]` allows it.
    pub share: Option<ShareView>,
    /// Packets sent per second.
    pub sent_packets_per_second: u64,
    /// Packets received per second.
    pub received_packets_per_second: u64,
    /// Bits per second, both directions.
    pub bits_per_second: u64,
    /// Seconds of usage history that are kept for it.
    pub history_seconds: u64,
    /// What it is expected to ask in the next hour; absent where less than a quarter of an hour is known of it.
    pub next_hour: Option<NextHourView>,
    /// How long it is left where it is, by hand or by a rule, if it is.
    pub excluded: Option<String>,
    /// The rules that hold of it, one each, as they were understood from the settings and its tags.
    pub rules: Vec<String>,
    /// What is wrong with it, if anything.
    pub trouble: Option<String>,
}

/// One of `GET /v1/traffic`: who sends how much to whom on this host, the most first; a mean over the last ten seconds. At
/// least one end is a VM here, and pairs that sent nothing are left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct FlowView {
    /// The sender: a VM's name, or `outside`: another machine, or the host itself.
    pub from: String,
    /// The sender's UUID, if it is a VM.
    pub from_id: Option<String>,
    /// The receiver: a VM's name, `outside`, or `many`: broadcast and multicast.
    pub to: String,
    /// The receiver's UUID, if it is a VM.
    pub to_id: Option<String>,
    /// Packets per second, as they are on the wire.
    pub packets_per_second: u64,
    /// Bits per second, headers counted.
    pub bits_per_second: u64,
}

/// What a VM is expected to ask in the next hour, by its usage history; made anew every five minutes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct NextHourView {
    /// Processor time used and waited for, mean of the hour, percent of one core.
    pub cpu_mean_percent: f64,
    /// The same, mean of the hour's highest quarter: nine of ten hours stay below.
    pub cpu_peak_percent: f64,
    /// Bits per second, both directions, mean of the hour.
    pub mean_bits_per_second: u64,
    /// The same, mean of the hour's highest quarter.
    pub peak_bits_per_second: u64,
}

/// What a VM was given of its host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ShareView {
    /// Weight of its processor time beside others with one: 1 to 10,000, 100 is usual.
    pub cpu_weight: Option<u32>,
    /// The most that its tap lets it receive, in bits per second.
    pub receives_bits_per_second_max: Option<u64>,
    /// What it was reckoned from.
    pub why: String,
    /// What of it could not be done, and why.
    pub trouble: Option<String>,
}

/// One of `GET /v1/moves`: a move from or to this host, newest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct MoveView {
    /// Its id.
    pub id: String,
    /// The VM's name.
    pub vm: String,
    /// The VM's UUID.
    pub vm_id: String,
    /// Name of the source.
    pub from: String,
    /// Name of the chosen target, once there is one.
    pub to: Option<String>,
    /// `asking`, `confirmed`, `ready`, `copying`, `switching-over`, `handing-over`, `done`, `abandoned`, …
    pub phase: String,
    /// Why the VM should leave.
    pub reason: String,
    /// What stands against it that a person overrides, one sentence each.
    #[serde(default)]
    pub overridden: Vec<String>,
    /// When it began.
    pub began: String,
    /// Whether it has ended.
    pub ended: bool,
    /// Something that was agreed in it is still to come or to go: others of its affinity group, or a VM in return.
    #[serde(default)]
    pub others_to_come: bool,
    /// How it ended.
    pub outcome: Option<String>,
    /// Acceptances so far.
    pub acceptances: u32,
    /// Refusals so far.
    pub refusals: u32,
    /// Sent so far.
    pub copied_bytes: u64,
    /// To send in all, as far as is known.
    pub total_bytes: u64,
    /// Rounds of the copy.
    pub rounds: u32,
    /// Whether the copy is encrypted; absent: it has not come to one, or the agent was started anew since.
    #[serde(default)]
    pub encrypted: Option<bool>,
    /// From the start of the copy until the VM was seen running at the target, in milliseconds.
    pub total_ms: Option<u64>,
    /// From the pause at the source until the VM was seen running at the target, in milliseconds.
    pub downtime_ms: Option<u64>,
    /// What the source was to be rid of by it, percent of pressure; absent: not a move of the policy's, or not from here.
    pub promised_percent: Option<f64>,
    /// The same by what the VM asked once it was measured at its new host.
    pub measured_percent: Option<f64>,
    /// Whether that paid: at least half of what was promised, and the source not hot again.
    pub paid: Option<bool>,
}

/// One of `GET /v1/events`: something that was decided or seen. A move's events tell its whole story.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Event {
    /// Counts this host's events.
    pub seq: u64,
    /// When.
    pub time: String,
    /// The host that noted it.
    pub host: String,
    /// The move it belongs to.
    pub move_id: Option<String>,
    /// The VM it is about, by name where known.
    pub vm: Option<String>,
    /// What happened: a [`Step`] in kebab case.
    pub step: Step,
    /// Why, in words.
    pub reason: String,
    /// The other host, where there is one, by name.
    pub peer: Option<String>,
    /// A cost or relief that was judged, percent of pressure.
    pub cost_percent: Option<f64>,
    /// Of `done`: what the copy took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub copy: Option<CopyView>,
}

/// What the copy of a move that was made has taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct CopyView {
    /// Bytes that were sent.
    pub copied_bytes: u64,
    /// Rounds of the copy.
    pub rounds: u32,
    /// From its start until the VM was seen running at its new host, where that was seen.
    pub total_ms: Option<u64>,
    /// The same from the pause of the guest.
    pub downtime_ms: Option<u64>,
}

/// The steps of the method, and what else is worth noting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// The monitor saw a threshold crossed.
    Monitoring,
    /// The VM policy says that a VM should leave, and which.
    VmPolicy,
    /// The other hosts were asked.
    Request,
    /// A target accepts.
    Acceptance,
    /// A target refuses.
    Refusal,
    /// The migration policy chose.
    Choice,
    /// The chosen target was told.
    Confirmation,
    /// The others were told.
    Release,
    /// The VM's usage history went to, or came to, the chosen target.
    UsageHistory,
    /// The chosen target is ready.
    Readiness,
    /// The memory copy began.
    Copy,
    /// The copy does not follow its guest: a longer pause is allowed at its end.
    Stall,
    /// The guest is paused for the last round.
    SwitchOver,
    /// Ownership passes.
    HandOver,
    /// The VM was seen running at the target.
    Running,
    /// The move is over and was made.
    Done,
    /// What the move has brought, against what was promised.
    PayBack,
    /// The move is over and was not made; the VM stays.
    Abandoned,
    /// Something was undone.
    Undo,
    /// A VM was found and is watched now.
    Adopted,
    /// A VM's process ended.
    VmDown,
    /// Something needs a person.
    Alarm,
    /// A host came, went, or is suspected.
    Membership,
    /// The configuration was read anew.
    Settings,
    /// Why nothing is being moved, or what is, where that became another reason.
    Doing,
    /// A message or file could not be used.
    BadInput,
}

impl fmt::Display for Step {
    /// Its name in kebab case, as in JSON.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// What is asked of `GET /v1/events`, as its query.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "schema", derive(utoipa::IntoParams))]
#[cfg_attr(feature = "schema", into_params(parameter_in = Query))]
#[serde(default, deny_unknown_fields)]
pub struct EventFilter {
    /// Only events with a greater `seq`, the oldest `limit` of them; absent: the newest `limit` of all. One that is yet to come is of a
    /// log that was lost: refused by the code [`EVENTS_RESET`], and the answer is to begin anew without it.
    pub after: Option<u64>,
    /// At most so many: 1 to [`EVENTS_MAX`]; absent: [`EVENTS`].
    pub limit: Option<u32>,
    /// Only events of this move.
    #[serde(rename = "move")]
    pub move_id: Option<String>,
    /// Hold the answer back until there is an event to tell, or [`FOLLOW_MAX`] has passed.
    pub follow: bool,
}

/// `POST /v1/moves`: move a VM now, by hand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct MoveRequest {
    /// Name or UUID of a VM on this host.
    pub vm: String,
    /// Name or id of the only host to ask; absent: all are asked.
    pub to: Option<String>,
    /// Override what rules say of where the VM may be; never room, what a host must offer, or who owns the VM.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
}

/// Answer to `POST /v1/moves`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct MoveStarted {
    /// The move, to be followed under `/v1/moves/{id}`.
    pub move_id: String,
    /// What stands against it that it overrides, one sentence each: exclusions, and rules where it was forced.
    #[serde(default)]
    pub overridden: Vec<String>,
}

/// `GET /v1/balancer`, and the answer to `POST /v1/balancer`: whether this host begins balancing moves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Balancer {
    /// This host's name.
    pub host: String,
    /// Whether it may begin them, where `balance` allows it. Kept over restarts of the agent.
    pub on: bool,
    /// `off`, `recommend` or `automatic`: what the configuration says.
    pub balance: String,
}

/// `POST /v1/balancer`: switch it on or off, on this host alone. Moves that are under way go on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct BalancerRequest {
    /// Whether it shall be on.
    pub on: bool,
}

/// `GET /v1/moves/{id}/resolve`: what is known of a move that may need a person to end it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Unsettled {
    /// The move.
    pub move_id: String,
    /// The VM's name.
    pub vm: String,
    /// Name of the other side.
    pub peer: String,
    /// What is known, one line each.
    pub known: Vec<String>,
    /// What may be decided.
    pub choices: Vec<Choice>,
}

/// One decision, and whether it may be taken now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Choice {
    /// The decision.
    pub decision: Decision,
    /// What speaks against it; absent: it may be taken.
    pub against: Option<String>,
}

/// What a person decides of a move that cannot be settled without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Decision {
    /// The VM is this host's, and may run here.
    KeepHere,
    /// The VM is not this host's, and its stopped copy here may go.
    GiveUp,
}

/// `POST /v1/moves/{id}/resolve`: end a move that cannot be settled without a person.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Resolve {
    /// What was decided.
    pub decision: Decision,
    /// Name or id of the other side, of which the person has made sure that the VM does not run there and will not; to keep a
    /// VM here it must be named.
    pub fenced: Option<String>,
}

/// What is asked of `GET /v1/why/{vm}`, as its query.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "schema", derive(utoipa::IntoParams))]
#[cfg_attr(feature = "schema", into_params(parameter_in = Query))]
#[serde(default, deny_unknown_fields)]
pub struct WhyFilter {
    /// Name or id of another host: what keeps the VM from going there. The first obstacle is the verdict, each with the least
    /// that would have to change.
    pub to: Option<String>,
}

/// What is asked of `GET /v1/why`, as its query.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "schema", derive(utoipa::IntoParams))]
#[cfg_attr(feature = "schema", into_params(parameter_in = Query))]
#[serde(default, deny_unknown_fields)]
pub struct WhenFilter {
    /// A time that is over: RFC 3339, or a time of day in UTC, `03:10`, which is the last one. Absent: now.
    pub at: Option<String>,
}

/// `GET /v1/why/{vm or move}`: why it moved, or why it does not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Why {
    /// What was asked about.
    pub about: String,
    /// The answer in one sentence.
    pub verdict: String,
    /// What was read and weighed, one line each.
    pub because: Vec<String>,
    /// The events that tell the story, oldest first.
    pub events: Vec<Event>,
}

/// Any refusal of the API: RFC 9457's problem details.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Problem {
    /// HTTP status.
    pub status: u16,
    /// Stable code in kebab case, for programs.
    pub code: String,
    /// What is wrong.
    pub title: String,
    /// What to do about it.
    pub hint: String,
}

impl Problem {
    /// A refusal with HTTP status `status`, the stable `code`, what is wrong and what to do about it.
    pub fn new(
        status: u16,
        code: &str,
        title: impl Into<String>,
        hint: impl Into<String>,
    ) -> Problem {
        Problem { status, code: code.to_owned(), title: title.into(), hint: hint.into() }
    }
}

impl fmt::Display for Problem {
    /// What is wrong and what to do, for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})\n  {}", self.title, self.code, self.hint)
    }
}

#[cfg(test)]
mod typescript;
