//! What would be moved, and a person's word to carry it out.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The numbers of a plan hold for so long after it was shown last.
pub const PLAN_SHOWN_MAX: Duration = Duration::from_mins(10);

/// What is asked of `GET /v1/plan`, as its query.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "schema", derive(utoipa::IntoParams))]
#[cfg_attr(feature = "schema", into_params(parameter_in = Query))]
#[serde(default, deny_unknown_fields)]
pub struct PlanFilter {
    /// Its numbers shall mean these moves from now on, in `GET /v1/plan/shown`: for whoever shows it to a person who then names
    /// numbers. A look without it changes nothing.
    pub numbered: bool,
}

/// `GET /v1/plan`: what would be moved from this host now. Nothing is done, and no other host asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Plan {
    /// This host's name.
    pub host: String,
    /// What would be moved, one after another: each is judged as if those before it had been made.
    pub moves: Vec<PlannedMove>,
    /// Why nothing is moved, or not by itself; absent: the first is about to be moved.
    pub held: Option<String>,
    /// Why no more follow.
    pub end: String,
}

/// One move that would be made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct PlannedMove {
    /// Its place in the plan, from 1. If it was asked for `numbered`, `GET /v1/plan/shown` tells what it means, for ten minutes.
    pub number: u32,
    /// The VM's name.
    pub vm: String,
    /// The VM's UUID.
    pub vm_id: String,
    /// Name of the source.
    pub from: String,
    /// The hosts that would be asked, where their own figures say already which are best: the best first. Empty: no one knows
    /// before they have answered.
    pub to: Vec<String>,
    /// How many would be asked, in words.
    pub asked: String,
    /// Who would take it at the least cost, by what hosts said of themselves last; absent: nobody has the room, by that.
    pub likely: Option<String>,
    /// What it would cost there, percent of pressure.
    pub cost_percent: Option<f64>,
    /// What asks for it: a threshold, in figures, or a rule.
    pub reason: String,
    /// Why this VM; absent: the rule names it.
    pub choice: Option<String>,
    /// What this host would be rid of, percent of pressure; absent: a rule asks, at any cost.
    pub relief_percent: Option<f64>,
    /// What the copy would cost, percent of pressure.
    pub copy_cost_percent: f64,
    /// The size of its memory, in MiB.
    pub memory_mib: u64,
    /// How long the copy would take at the most; absent: it would not end, as fast as the VM writes to its memory.
    pub copy_ms: Option<u64>,
    /// How long the VM would stand still for the last round; the hand-over comes on top. Absent: not known.
    pub downtime_ms: Option<u64>,
    /// Since when it is recommended.
    pub recommended: Option<String>,
}

/// `POST /v1/plan/apply`: begin what is planned, as far as it still holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ApplyRequest {
    /// Names or UUIDs of VMs on this host; empty: all that are planned.
    pub vms: Vec<String>,
}

/// Answer to `POST /v1/plan/apply`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Applied {
    /// This host's name.
    pub host: String,
    /// What came of each VM.
    pub vms: Vec<AppliedVm>,
    /// Why there was nothing to apply, where no VM was named and none was planned.
    pub nothing: Option<String>,
}

/// What came of one VM: its move has begun, or it was refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct AppliedVm {
    /// As it was named.
    pub vm: String,
    /// The move, to be followed under `/v1/moves/{id}`.
    pub move_id: Option<String>,
    /// What does not hold, or not any more.
    pub refused: Option<String>,
}
