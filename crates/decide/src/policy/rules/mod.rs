//! What must hold of where VMs are: groups that stay together or apart, pins, exclusions, and what single VMs ask for.
//!
//! Rules come from the settings file, by the names of VMs, and from the VMs' own tags (`words`). Both together are one VM's
//! [`VmRules`]. A rule is held by whoever is asked to take the VM, from its name and tags alone, since moves run side by side
//! and only the target knows who else is on its way to it. What the source leaves out beforehand only saves questions.
//!
//! **Invariant:** hosts whose `Settings::hash` agree judge the same VM by the same groups and pins.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use super::quantity;
use super::settings::Balance;
use crate::units::VmId;
use crate::wire::limits::{TAG_MAX, TAGS_MAX};

pub mod contradictions;
pub mod hours;
mod judge;
mod told;
pub mod until;
mod words;

pub use judge::HostIs;
pub use words::{of_groups, of_places, unreadable};

use hours::Hours;
use until::Until;

/// Letters of a UUID.
const UUID_LEN: usize = 36;

/// Section `[rules]`: four kinds of tables, each naming VMs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rules {
    /// VMs that stay together, or apart.
    pub group: Vec<Group>,
    /// Where VMs must, or should, be.
    pub pin: Vec<Pin>,
    /// VMs that are left where they are.
    pub exclude: Vec<Exclude>,
    /// What single VMs ask for.
    pub vm: Vec<Own>,
}

/// VMs that stay together, or apart. Groups of one name and kind are one group, tags included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Its name, for people, and for tags that name it.
    pub name: String,
    /// Together or apart.
    pub kind: Kind,
    /// Names of VMs, in which `*` stands for anything.
    pub vms: Vec<String>,
}

/// What a group asks of its VMs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// All on one host.
    Affinity,
    /// No two on one host.
    AntiAffinity,
}

impl Kind {
    /// As the file has it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Affinity => "affinity",
            Kind::AntiAffinity => "anti-affinity",
        }
    }
}

/// Where VMs must, or should, be: at one of these hosts, or at one that bears one of these labels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pin {
    /// Names of VMs, in which `*` stands for anything.
    pub vms: Vec<String>,
    /// Names of hosts.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// Labels of hosts: racks, pools.
    #[serde(default)]
    pub labels: Vec<String>,
    /// Only preferred: elsewhere will do where none of these can.
    #[serde(default)]
    pub should: bool,
}

/// VMs that are left where they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exclude {
    /// Names of VMs, in which `*` stands for anything.
    pub vms: Vec<String>,
    /// Until then; for good where absent.
    #[serde(default)]
    pub until: Option<Until>,
}

/// What single VMs ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Own {
    /// Names of VMs, in which `*` stands for anything.
    pub vms: Vec<String>,
    /// Who has more is asked to leave only where nobody with less would help. −100 to 100, zero for all others.
    #[serde(default)]
    pub priority: Option<i32>,
    /// The longest pause at the end of a copy, in place of `copy.downtime_max`; where it is shorter than `copy.downtime`, in place of both.
    #[serde(
        default,
        deserialize_with = "quantity::optional_duration",
        serialize_with = "quantity::duration_out",
        skip_serializing_if = "Option::is_none"
    )]
    pub downtime: Option<Duration>,
    /// Consents to be slowed down while a copy of it does not follow (QEMU's auto-converge). Absent or no: it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_converge: Option<bool>,
    /// Consents that disks which the target has not are copied along, and removed here afterwards. Absent or no: it moves only where they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy_disks: Option<bool>,
    /// Its rest after it has moved, in place of `worth_it.vm_rest`.
    #[serde(
        default,
        deserialize_with = "quantity::optional_duration",
        serialize_with = "quantity::duration_out",
        skip_serializing_if = "Option::is_none"
    )]
    pub rest: Option<Duration>,
    /// When it may be moved by itself.
    #[serde(default)]
    pub hours: Option<Hours>,
    /// Who moves it to balance load, in place of `mode.balance` where that is not `off`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balance: Option<Balance>,
    /// Who moves it where a rule is broken, in place of `mode.rules` where that is not `off`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<Balance>,
}

/// Hosts of one pin: a VM is right at any of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// By name.
    pub hosts: BTreeSet<String>,
    /// By label.
    pub labels: BTreeSet<String>,
}

/// All that holds of one VM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VmRules {
    /// Groups whose VMs it stays with.
    pub affinity: BTreeSet<String>,
    /// Groups whose VMs it keeps away from.
    pub anti_affinity: BTreeSet<String>,
    /// It must be at one of each of these.
    pub must: Vec<Places>,
    /// It should be at one of each of these.
    pub should: Vec<Places>,
    /// It is left where it is.
    pub excluded: Vec<Excluded>,
    /// See [`Own::priority`].
    pub priority: i32,
    /// See [`Own::downtime`].
    pub downtime: Option<Duration>,
    /// See [`Own::auto_converge`].
    pub auto_converge: bool,
    /// See [`Own::copy_disks`].
    pub copy_disks: bool,
    /// See [`Own::rest`].
    pub rest: Option<Duration>,
    /// It is moved by itself only when all of these say so.
    pub hours: Vec<Hours>,
    /// See [`Own::balance`].
    pub balance: Option<Balance>,
    /// See [`Own::rules`].
    pub rules: Option<Balance>,
}

/// How long a VM is left where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Excluded {
    /// For good.
    Always,
    /// Until then.
    Until(Until),
}

impl Rules {
    /// All that holds of a VM with this name and these tags.
    pub fn of(&self, vm: VmId, name: &str, tags: &[String]) -> VmRules {
        let mut all = words::read(tags);
        let names = |patterns: &[String]| patterns.iter().any(|p| means(p, vm, name));
        for group in self.group.iter().filter(|group| names(&group.vms)) {
            all.groups_of(group.kind).insert(group.name.clone());
        }
        for pin in self.pin.iter().filter(|pin| names(&pin.vms)) {
            let places = Places {
                hosts: pin.hosts.iter().cloned().collect(),
                labels: pin.labels.iter().cloned().collect(),
            };
            if pin.should { all.should.push(places) } else { all.must.push(places) }
        }
        for exclude in self.exclude.iter().filter(|exclude| names(&exclude.vms)) {
            all.excluded.push(exclude.until.map_or(Excluded::Always, Excluded::Until));
        }
        for own in self.vm.iter().filter(|own| names(&own.vms)) {
            all.priority = own.priority.unwrap_or(all.priority);
            all.downtime = own.downtime.or(all.downtime);
            all.auto_converge = own.auto_converge.unwrap_or(all.auto_converge);
            all.copy_disks = own.copy_disks.unwrap_or(all.copy_disks);
            all.rest = own.rest.or(all.rest);
            all.hours.extend(own.hours.clone());
            all.balance = own.balance.or(all.balance);
            all.rules = own.rules.or(all.rules);
        }
        all
    }

    /// Whether a VM with this name and these tags is in that group.
    pub fn in_group(&self, kind: Kind, group: &str, vm: VmId, name: &str, tags: &[String]) -> bool {
        let of_kind = self.group.iter().filter(|g| g.kind == kind && g.name == group);
        let mut patterns = of_kind.flat_map(|g| &g.vms);
        patterns.any(|p| means(p, vm, name)) || words::read(tags).groups(kind).contains(group)
    }

    /// What two hosts must agree on: who may be where. What only the VM's own host goes by is left out.
    pub(crate) fn canonical(&self) -> Vec<&str> {
        let mut all = Vec::new();
        for group in &self.group {
            all.extend(["rules.group", &group.name, group.kind.name()]);
            all.extend(group.vms.iter().map(String::as_str));
        }
        for pin in self.pin.iter().filter(|pin| !pin.should) {
            all.push("rules.pin");
            all.extend(pin.vms.iter().map(String::as_str));
            all.push("hosts");
            all.extend(pin.hosts.iter().map(String::as_str));
            all.push("labels");
            all.extend(pin.labels.iter().map(String::as_str));
        }
        all
    }
}

impl VmRules {
    /// Whether nothing at all is demanded but modes: what is asked of every VM and host at every look.
    pub fn is_empty(&self) -> bool {
        let VmRules {
            affinity,
            anti_affinity,
            must,
            should,
            excluded,
            hours,
            priority,
            downtime,
            auto_converge,
            copy_disks,
            rest,
            // They say nothing of places.
            balance: _,
            rules: _,
        } = self;
        let places = affinity.is_empty() && anti_affinity.is_empty();
        let places = places && must.is_empty() && should.is_empty();
        let times = excluded.is_empty() && hours.is_empty() && rest.is_none();
        places && times && *priority == 0 && downtime.is_none() && !auto_converge && !copy_disks
    }

    /// The groups of one kind.
    pub fn groups(&self, kind: Kind) -> &BTreeSet<String> {
        match kind {
            Kind::Affinity => &self.affinity,
            Kind::AntiAffinity => &self.anti_affinity,
        }
    }

    pub(crate) fn groups_of(&mut self, kind: Kind) -> &mut BTreeSet<String> {
        match kind {
            Kind::Affinity => &mut self.affinity,
            Kind::AntiAffinity => &mut self.anti_affinity,
        }
    }
}

/// For serde: labels of a host, as many and as long as others can be told.
pub fn labels<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let labels = Vec::<String>::deserialize(from)?;
    if labels.len() > TAGS_MAX || labels.iter().any(|l| l.is_empty() || l.len() > TAG_MAX) {
        let most = format!("{TAGS_MAX} labels at most, each of 1 to {TAG_MAX} bytes");
        return Err(D::Error::custom(most));
    }
    Ok(labels)
}

/// Whether this VM is meant: by its name, or by its id.
fn means(pattern: &str, vm: VmId, name: &str) -> bool {
    covers(pattern, name) || (pattern.len() == UUID_LEN && pattern == vm.to_string())
}

/// Whether a name is one that the pattern stands for: `*` stands for any text, also for none.
pub(crate) fn covers(pattern: &str, name: &str) -> bool {
    if !pattern.contains('*') {
        return pattern == name;
    }
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.len() >= last.len() && rest.ends_with(last)
}

#[cfg(test)]
mod tests;
