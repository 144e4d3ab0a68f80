//! The whole cluster in one answer: what each agent reports of its own host, asked by the one that answers.

use serde::{Deserialize, Serialize};

use crate::{HostView, MoveView, Role, Status};

/// Moves that were made, of each host, in a [`Report`].
pub const MADE_REPORTED: usize = 10;
/// Moves that ended without being made: many tries must not hide what moved.
pub const UNMADE_REPORTED: usize = 5;

/// `GET /v1/me`: who asks, as the agent knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Me {
    /// For people: `anna (token 1a2b3c4d)`, `root (uid 0)`.
    pub who: String,
    /// What is allowed.
    pub role: Role,
    /// Whether it came over the unix socket, where more is allowed.
    pub here: bool,
    /// Name of the host that answers: what changes something is asked of the VM's own host.
    pub host: String,
}

/// `GET /v1/overview`: every host that is known, with what it reports of itself, as of a second or two ago.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Overview {
    /// Name of the host that answers.
    pub host: String,
    /// Its id.
    pub host_id: String,
    /// Name of the cluster.
    pub cluster: String,
    /// The host that answers first, then the others by name.
    pub hosts: Vec<OverviewHost>,
}

/// A host: what is known of it, and what it reported when it was asked last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct OverviewHost {
    /// As `GET /v1/hosts` has it.
    pub seen: HostView,
    /// What it reported last; absent: nothing since the answering agent was first asked for an overview.
    pub report: Option<Report>,
    /// How old that is, in seconds.
    pub report_age_seconds: Option<f64>,
    /// Why it did not report when it was asked last; absent: it did, or the answer is still awaited.
    pub problem: Option<String>,
}

/// `GET /v1/report`: a host, its VMs and its moves, short enough to be asked for every other second.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Report {
    /// The host in one look.
    pub status: Status,
    /// Its VMs, by name.
    pub vms: Vec<VmTile>,
    /// Moves from or to it, newest first: all that are under way, of those that have ended the newest [`MADE_REPORTED`] that
    /// were made, and the newest [`UNMADE_REPORTED`] that were not.
    pub moves: Vec<MoveView>,
    /// Number of its newest event; 0: there is none.
    pub newest_event: u64,
}

/// A VM in short; `GET /v1/vms` tells all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct VmTile {
    /// Its name.
    pub name: String,
    /// Its UUID.
    pub id: String,
    /// `running`, `paused`, `moving`, `released`, `down`.
    pub state: String,
    /// Memory at full size, in MiB.
    pub memory_mib: u64,
    /// Processor use, percent of one core.
    pub cpu_percent: f64,
    /// Packets sent per second.
    pub sent_packets_per_second: u64,
    /// Packets received per second.
    pub received_packets_per_second: u64,
    /// Bits per second, both directions.
    pub bits_per_second: u64,
    /// Whether it is left where it is, by hand or by a rule.
    pub excluded: bool,
    /// What is wrong with it, if anything.
    pub trouble: Option<String>,
}
