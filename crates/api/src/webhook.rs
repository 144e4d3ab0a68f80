//! What an agent posts to webhooks.

use serde::{Deserialize, Serialize};

use crate::Event;

/// The body of one delivery; it is signed as Standard Webhooks says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Delivery {
    /// As in the header `webhook-id`: of this event at this webhook or any other, the same each time that it is tried.
    pub id: String,
    /// `alarm.raised`, `vm.down`, `move.begun`, `move.done` or `move.failed`.
    #[serde(rename = "type")]
    pub kind: String,
    /// When it happened, RFC 3339 in UTC. The header `webhook-timestamp` says when it was sent.
    pub timestamp: String,
    /// Name of the cluster.
    pub cluster: String,
    /// Name of the host that tells.
    pub host: String,
    /// Its id.
    pub host_id: String,
    /// The event, as `GET /v1/events` of that host has it.
    pub data: Event,
}
