//! Usage histories: how a VM or a host did over time.

use serde::{Deserialize, Serialize};

/// What is asked of `GET /v1/vms/{vm}/history` and `GET /v1/hosts/{host}/history`, as its query.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "schema", derive(utoipa::IntoParams))]
#[cfg_attr(feature = "schema", into_params(parameter_in = Query))]
#[serde(default, deny_unknown_fields)]
pub struct HistoryFilter {
    /// How far back, in seconds; absent: 600.
    pub since: Option<u64>,
    /// Length of a point in seconds: 1, 10, 60 or 900; absent: the shortest that is kept for so long.
    pub step: Option<u64>,
    /// Only this metric, by its [`Series::metric`]; absent: all.
    pub metric: Option<String>,
}

/// How a VM or a host did over time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct HistoryView {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: String,
    /// The host it is on.
    pub host: String,
    /// The length of a point, in seconds.
    pub step_seconds: u64,
    /// When each point began, oldest first.
    pub at: Vec<String>,
    /// The metrics, each with as many figures as there are points.
    pub metrics: Vec<Series>,
    /// Where a VM was before, oldest first.
    pub past: Vec<StayView>,
}

/// One metric over time, to one percent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Series {
    /// `cpu`, `cpu-wait`, `memory`, `sent-packets`, `received-packets`, `sent-bits`, `received-bits`, `dropped`, `disk`, `dirty`.
    pub metric: String,
    /// `mcores` (thousandths of a core), `MiB`, `packets/s`, `bit/s`, `bytes/s` or `MiB/s`.
    pub unit: String,
    /// The least of each point.
    pub min: Vec<u64>,
    /// The mean.
    pub mean: Vec<u64>,
    /// The most.
    pub max: Vec<u64>,
    /// What was not exceeded for 95 of 100 seconds.
    pub p95: Vec<u64>,
}

/// A stay of a VM on another host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct StayView {
    /// The host's name then.
    pub host: String,
    /// Its id.
    pub host_id: String,
    /// The move that ended it.
    pub move_id: String,
    /// When that was.
    pub ended: String,
}
