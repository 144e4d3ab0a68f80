//! What a person has a host do, or leave be, beside single moves.

use serde::{Deserialize, Serialize};

/// `POST /v1/vms/{vm}/exclude`: leave a VM on this host where it is; balancing and rules pass it over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ExcludeRequest {
    /// For so long; absent: for good.
    pub for_seconds: Option<u64>,
}

/// Answer to `POST /v1/vms/{vm}/exclude` and `/include`, and one of `GET /v1/exclusions`: the VMs that are excluded by hand on
/// this host. Kept over restarts of the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Exclusion {
    /// The VM's name.
    pub vm: String,
    /// The VM's UUID.
    pub vm_id: String,
    /// This host's name. Its exclusions hold here alone: they do not go with a VM.
    pub host: String,
    /// Whether the VM is on this host.
    pub here: bool,
    /// Whether it is excluded by hand.
    pub excluded: bool,
    /// Until when; absent: for good.
    pub until: Option<String>,
    /// What `[rules]` say besides, if they exclude it.
    pub rule: Option<String>,
}

/// `POST /v1/drain`: have all VMs leave this host and none come, or end that. Moves that are under way go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct DrainRequest {
    /// Whether it shall be drained.
    pub on: bool,
    /// Name or id of the host that is meant; another than the agent's own is refused.
    pub host: Option<String>,
}

/// `GET /v1/drain`, and the answer to `POST /v1/drain`: how a drain goes. Kept over restarts of the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct DrainView {
    /// This host's name.
    pub host: String,
    /// Whether it is being drained.
    pub draining: bool,
    /// The agent has only just begun to look: VMs may be here that it has not found yet.
    #[serde(default)]
    pub looking: bool,
    /// The VMs that have left since the drain began, also after it was ended.
    pub left: Vec<LeftVm>,
    /// The VMs that are here and are to leave, in the order in which they would.
    pub here: Vec<LeavingVm>,
    /// VMs that are defined here and do not run: they stay.
    pub stopped: Vec<StoppedVm>,
}

/// A VM that left a host while it was drained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct LeftVm {
    /// Its name.
    pub vm: String,
    /// Its UUID.
    pub vm_id: String,
    /// Name of the host that it went to.
    pub to: String,
    /// Name of the host that lists it now; that it went to, where none does.
    pub at: String,
}

/// A VM that is to leave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct LeavingVm {
    /// Its name.
    pub vm: String,
    /// Its UUID.
    pub vm_id: String,
    /// Memory at full size, in MiB.
    pub memory_mib: u64,
    /// `moving`; `next`: its turn comes; `waits`: it is tried again by itself; `stays`: until a person sees to it.
    pub state: String,
    /// The move that is under way.
    pub move_id: Option<String>,
    /// What it waits for, or what keeps it.
    pub why: Option<String>,
}

/// A VM that is defined on a host and does not run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct StoppedVm {
    /// Its name; its UUID where its definition does not say.
    pub vm: String,
    /// Its UUID.
    pub vm_id: String,
}

/// `POST /v1/best-host`: which host would take a VM that is yet to be started. Nothing is done, and nobody asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct BestHostRequest {
    /// Its name, by which `[rules]` may know it.
    #[serde(default)]
    pub name: String,
    /// Its tags that are rules.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Memory at full size, in MiB.
    pub memory_mib: u64,
    /// Processor time that it is expected to ask, in thousandths of a core.
    pub cpu_millicores: u64,
}

/// One of the answer to `POST /v1/best-host`: the best first, those that cannot take the VM last. By what is known at this host,
/// without a reservation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct BestHost {
    /// The host's name.
    pub host: String,
    /// Its id.
    pub host_id: String,
    /// What the VM would cost there, percent of pressure; absent: it cannot be there.
    pub cost_percent: Option<f64>,
    /// What is against it.
    pub against: Option<String>,
    /// How long ago the host said what this goes by, in seconds; absent: it is the host that answers, or it has said nothing.
    pub age_seconds: Option<f64>,
}
