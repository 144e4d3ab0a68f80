//! Lists that grow, page by page.

use serde::{Deserialize, Serialize};

use crate::VmPlace;

/// Moves or VMs in one answer: where the request names no limit, and at the most.
pub const LIST_MAX: u32 = 1000;
/// Code of a refusal: the request is for what came after an event that this log does not have. See [`crate::EventFilter::after`].
pub const EVENTS_RESET: &str = "events-reset";

/// What is asked of `GET /v1/moves`, as its query.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::IntoParams))]
#[cfg_attr(feature = "schema", into_params(parameter_in = Query))]
#[serde(default, deny_unknown_fields)]
pub struct MovesFilter {
    /// Only moves that began before this one, by its id.
    pub before: Option<String>,
    /// At most so many, the newest: 1 to [`LIST_MAX`], which it is where absent.
    pub limit: Option<u32>,
}

/// What is asked of `GET /v1/inventory`, as its query.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::IntoParams))]
#[cfg_attr(feature = "schema", into_params(parameter_in = Query))]
#[serde(default, deny_unknown_fields)]
pub struct InventoryFilter {
    /// Only what follows this one, which need not be there any more: `ID/HOST/NAME`.
    pub after: Option<String>,
    /// At most so many: 1 to [`LIST_MAX`], which it is where absent.
    pub limit: Option<u32>,
}

impl VmPlace {
    /// By what `GET /v1/inventory` is in order: name, host, id.
    #[must_use]
    pub fn key(&self) -> (&str, &str, &str) {
        (&self.name, &self.host, &self.id)
    }

    /// What [`InventoryFilter::after`] takes to go on after this one.
    #[must_use]
    pub fn cursor(&self) -> String {
        format!("{}/{}/{}", self.id, self.host, self.name)
    }
}
