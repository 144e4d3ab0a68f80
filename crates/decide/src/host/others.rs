//! What the others said of themselves, as the triggers `spread` and `packets` go by it: their mean, and hosts drawn by lot to look at.
//!
//! All of them are gone through now and then only, and the more seldom the more there are: in the mean at most ten of them a
//! second. A look draws from the list of that pass, which is copied: 16 bytes for each host.

use std::time::Duration;

use rand_chacha::rand_core::Rng as _;

use super::Host;
use super::balance::Chance;
use super::outgoing::may_take;
use crate::membership::{HostState, View};
use crate::placement::pairs::{Mean, Place};
use crate::policy::settings::Trigger;
use crate::units::{HostId, Mib, Time};
use crate::usage::load::{Capacity, Load};

/// Where a VM might go is looked up for so many hosts at the most, drawn by lot: hosts that look at the same few best ones
/// would all ask the same.
const LOOKED_AT: usize = 32;
/// The mean of the cluster is reckoned so often, …
pub(super) const MEAN_EVERY: Duration = Duration::from_secs(30);
/// … or, of more than 300 hosts, after so long for each: what they say is heard more seldom too (docs/benchmarks.md).
const MEAN_EVERY_HOST: Duration = Duration::from_millis(100);

/// The others, when they were last gone through.
#[derive(Debug)]
pub(super) struct Others {
    /// What hosts use in the mean, this one included.
    pub(super) mean: Mean,
    /// Those that were alive and had said enough.
    hosts: Vec<HostId>,
    reckoned: Time,
    /// How often they had been told from outside.
    told: u64,
}

impl Others {
    fn hold_until(&self) -> Time {
        let hosts = u32::try_from(self.hosts.len()).unwrap_or(u32::MAX);
        self.reckoned.plus(MEAN_EVERY_HOST.saturating_mul(hosts).max(MEAN_EVERY))
    }
}

impl Host {
    /// Goes through the others, if it is time to.
    pub(super) fn reckon_others(&mut self, now: Time) {
        let wanted = self.settings.mode.trigger != Trigger::Hot;
        if !wanted || self.others.as_ref().is_some_and(|others| now < others.hold_until()) {
            return;
        }
        let mut hosts = Vec::new();
        let places = self.membership.alive().filter_map(place).map(|place| {
            hosts.push(place.host);
            (place.load, place.capacity)
        });
        let own = (self.load_of_vms(now), self.usage.capacity());
        let mean = Mean::of(places, own);
        let told = self.membership.told_times();
        self.others = (!hosts.is_empty()).then_some(Others { mean, hosts, reckoned: now, told });
    }

    /// Until when going through the others again gives what it gave before.
    pub(super) fn others_hold_until(&self) -> Time {
        const FOR_EVER: Time = Time(u64::MAX);
        if self.settings.mode.trigger == Trigger::Hot {
            return FOR_EVER;
        }
        let Some(others) = &self.others else { return Time::default() };
        // This host is one of all of which that is the mean.
        let as_it_was = others.reckoned >= self.usage.settled();
        let same = as_it_was && others.told == self.membership.told_times();
        if same { FOR_EVER } else { others.hold_until() }
    }

    /// Hosts that could take a VM by what they said last, a few of many.
    pub(super) fn some_places(&self, chance: &mut Chance) -> Vec<Place> {
        let policy = self.settings.hash();
        let max = self.settings.limits.moves_per_host;
        let may = |view: &&View| {
            view.digest.as_ref().is_some_and(|digest| {
                may_take(digest, Mib(0)) && digest.policy == policy && digest.moves_under_way < max
            }) && !self.journals.set_back(view.peer.host)
        };
        let mut left = self.others.as_ref().map(|others| others.hosts.clone()).unwrap_or_default();
        let mut places = Vec::new();
        while !left.is_empty() && places.len() < LOOKED_AT {
            let n = u64::try_from(left.len()).unwrap_or(u64::MAX);
            let index = usize::try_from(chance.rng.next_u64() % n).unwrap_or(0);
            let drawn = self.membership.view(left.swap_remove(index));
            let alive = drawn.filter(|view| view.state == HostState::Alive).filter(may);
            places.extend(alive.and_then(|view| self.place(view)));
        }
        places
    }
}

/// A host as it said of itself, if it said enough.
pub(super) fn place(view: &View) -> Option<Place> {
    let digest = view.digest.as_ref()?;
    let headroom = digest.headroom.filter(|headroom| headroom.memory > Mib(0))?;
    let committed = headroom.memory.0.saturating_mul(u64::from(digest.memory_committed.0)) / 1000;
    let load = Load {
        cpu: headroom.cpu_asked,
        memory: Mib(committed),
        bits: digest.bits,
        packets: digest.packets,
    };
    let bits = Some(headroom.nic).filter(|nic| nic.0 > 0);
    let capacity = Capacity { cpu: headroom.cpu, memory: headroom.memory, bits, packets: None };
    Some(Place { host: view.peer.host, load, capacity, room: headroom.room })
}
