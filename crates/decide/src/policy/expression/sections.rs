//! The sections of the settings that hold expressions.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::{Expression, Place};
use crate::policy::quantity;
use crate::policy::settings::Settings;

/// Section `[vm_policy]`: when a VM should leave, and which, in CEL.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VmPolicy {
    /// A condition that makes this host hot, beside the thresholds of `[hot]`. It can say what they cannot, and one that holds
    /// often moves often. Absent: the thresholds alone.
    #[serde(deserialize_with = "when")]
    pub when: Option<Expression>,
    /// Key `for`: how long `when` must hold. Absent: as long as a threshold (`hot.for`), whose trade it shares.
    #[serde(rename = "for", deserialize_with = "some_duration")]
    pub window: Option<Duration>,
    /// A number, the VM with the highest leaves first, among those whose move pays. Absent: most relief per GiB copied, which
    /// costs the network least.
    #[serde(deserialize_with = "vm_order")]
    pub order: Option<Expression>,
}

/// Section `[admission]`: which VMs this host takes, in CEL.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Admission {
    /// A condition that must hold beside `[target]` and room. Each host may have its own; one that is strict everywhere leaves
    /// hot hosts hot.
    #[serde(deserialize_with = "accept")]
    pub accept: Option<Expression>,
}

/// Section `[migration_policy]`: where a VM goes, in CEL.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MigrationPolicy {
    /// A number, the acceptor with the lowest is chosen. Absent: the lowest cost, which leaves the cluster most even. A move
    /// must pay whatever this says.
    #[serde(deserialize_with = "migrate_order")]
    pub order: Option<Expression>,
    /// A condition that passes an acceptor over. Strict ones leave VMs where they are.
    #[serde(deserialize_with = "reject")]
    pub reject: Option<Expression>,
}

impl Settings {
    /// The expressions that are set.
    pub fn expressions(&self) -> impl Iterator<Item = &Expression> {
        let VmPolicy { when, order, .. } = &self.vm_policy;
        let MigrationPolicy { order: choice, reject } = &self.migration_policy;
        [when, order, &self.admission.accept, choice, reject].into_iter().flatten()
    }
}

impl VmPolicy {
    /// What of it all hosts must have alike, as bytes by key.
    pub(in crate::policy) fn agreed(&self) -> impl Iterator<Item = (&'static str, Vec<u8>)> {
        let window =
            self.window.map(|window| ("vm_policy.for", window.as_micros().to_be_bytes().to_vec()));
        texts([&self.when, &self.order]).chain(window)
    }
}

impl MigrationPolicy {
    /// What of it all hosts must have alike, as bytes by key.
    pub(in crate::policy) fn agreed(&self) -> impl Iterator<Item = (&'static str, Vec<u8>)> {
        texts([&self.order, &self.reject])
    }
}

fn texts(
    expressions: [&Option<Expression>; 2],
) -> impl Iterator<Item = (&'static str, Vec<u8>)> + use<> {
    let text = |e: &Expression| (e.place().key(), e.text().as_bytes().to_vec());
    expressions.map(|expression| expression.as_ref().map(text)).into_iter().flatten()
}

fn some_duration<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    quantity::positive_duration(from).map(Some)
}

fn read<'de, D: Deserializer<'de>>(place: Place, from: D) -> Result<Option<Expression>, D::Error> {
    let text = String::deserialize(from)?;
    Expression::new(place, &text).map(Some).map_err(serde::de::Error::custom)
}

macro_rules! readers {
    ($($name:ident, $place:ident;)*) => {$(
        fn $name<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Expression>, D::Error> {
            read(Place::$place, from)
        }
    )*};
}

readers! {
    when, VmWhen;
    vm_order, VmOrder;
    accept, Accept;
    migrate_order, MigrateOrder;
    reject, Reject;
}
