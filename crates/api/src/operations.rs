//! What a person has a host do, or leave be, beside single moves.

use serde::{Deserialize, Serialize};

/// `POST /v1/vms/{vm}/exclude`: leave a VM on this host where it is; balancing and rules pass it over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExcludeRequest {
    /// For so long; absent: for good.
    pub for_seconds: Option<u64>,
}

/// Answer to `POST /v1/vms/{vm}/exclude` and `/include`, and one of `GET /v1/exclusions`: the VMs that are excluded by hand on
/// this host. Kept over restarts of the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
