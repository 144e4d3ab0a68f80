//! A VM's tags, by which its own rules are read.

use serde::{Deserialize, Serialize};

/// Answer to `GET` and `POST /v1/vms/{vm}/tags`: what stands in the VM's own definition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct VmTags {
    /// The VM's name.
    pub vm: String,
    /// The VM's UUID.
    pub vm_id: String,
    /// Its host's name.
    pub host: String,
    /// Its tags, sorted; those of others among them.
    pub tags: Vec<String>,
}

/// `POST /v1/vms/{vm}/tags`: change rules of a VM in its own definition, for now and its next start. They go with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(deny_unknown_fields)]
pub struct VmTagsRequest {
    /// What is to be set, one after another.
    pub set: Vec<VmTag>,
}

/// One rule of a VM: the tags `evenkeel:KEY=VALUE`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(deny_unknown_fields)]
pub struct VmTag {
    /// `affinity`, `anti-affinity`, `pin`, `pin-label`, `prefer`, `prefer-label`, `exclude`, `priority`, `downtime`, `auto-converge`, `copy-disks`, `rest`,
    /// `hours`, `balance` or `rules`.
    pub key: String,
    /// Replaces all that the VM has of this key; none takes them away. An empty one is for keys that need none, `exclude`.
    pub values: Vec<String>,
}
