//! Judgements over one VM's rules, each with its reason in words.

use super::hours::LocalTimes;
use super::{Excluded, Kind, Places, VmRules};

/// A host, as rules see it.
#[derive(Clone, Copy, Debug)]
pub struct HostIs<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its labels, where they are known.
    pub labels: Option<&'a [String]>,
}

impl VmRules {
    /// Whether the VM must not be at this host.
    ///
    /// # Errors
    /// The pin that says so. Where a host's labels are not known they are taken to be right: the host itself knows.
    pub fn allows(&self, host: HostIs<'_>) -> Result<(), String> {
        match self.must.iter().find(|places| !places.hold(host)) {
            None => Ok(()),
            Some(places) => Err(format!("pin: it may be at {places} only")),
        }
    }

    /// Groups of this kind that the VM shares with another.
    pub fn shared<'a>(&'a self, other: &'a VmRules, kind: Kind) -> Option<&'a str> {
        self.groups(kind).intersection(other.groups(kind)).next().map(String::as_str)
    }

    /// Whether it is left where it is now.
    ///
    /// # Errors
    /// By what, and until when. While nobody has told the time, no exclusion has ended.
    pub fn may_leave(&self, now: Option<&LocalTimes>) -> Result<(), String> {
        self.excluded.iter().try_for_each(|excluded| excluded.has_ended(now))
    }

    /// Whether its hours allow it to be moved by itself now.
    ///
    /// # Errors
    /// The hours that do not.
    pub fn in_hours(&self, now: Option<&LocalTimes>) -> Result<(), String> {
        self.hours.iter().try_for_each(|hours| hours.allow(now))
    }

    /// Whether it would rather be at this host than at one of which this is not said.
    pub fn prefers(&self, host: HostIs<'_>) -> bool {
        self.should.iter().all(|places| places.hold(host))
    }
}

impl Excluded {
    /// Whether the VM may leave again.
    ///
    /// # Errors
    /// Until when it may not. While nobody has told the time, no exclusion has ended.
    pub fn has_ended(self, now: Option<&LocalTimes>) -> Result<(), String> {
        match self {
            Excluded::Always => Err("exclude: it is left where it is".to_owned()),
            Excluded::Until(until) if now.is_none_or(|now| now.before(until)) => {
                Err(format!("exclude: it is left where it is until {until}"))
            }
            Excluded::Until(_) => Ok(()),
        }
    }
}

impl std::fmt::Display for Excluded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Excluded::Always => write!(f, "for good"),
            Excluded::Until(until) => write!(f, "until {until}"),
        }
    }
}

impl Places {
    /// Whether this host is one of them, as far as its labels are known.
    pub fn hold(&self, host: HostIs<'_>) -> bool {
        let labelled = match host.labels {
            None => !self.labels.is_empty(),
            Some(labels) => labels.iter().any(|label| self.labels.contains(label)),
        };
        labelled || self.hosts.contains(host.name)
    }
}

/// Names shown of a longer list.
const SHOWN: usize = 6;

impl std::fmt::Display for Places {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let hosts = self.hosts.iter().cloned();
        let labels = self.labels.iter().map(|label| format!("hosts with label {label}"));
        let all: Vec<String> = hosts.chain(labels).collect();
        write!(f, "{}", all[..all.len().min(SHOWN)].join(", "))?;
        match all.len().saturating_sub(SHOWN) {
            0 if all.is_empty() => write!(f, "no host"),
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}
