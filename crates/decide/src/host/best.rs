//! Which host would take a VM that is yet to be started, at what cost: by what hosts said last.
//!
//! **Invariant:** nobody is asked, nothing is reserved, nothing changes.

use std::time::Duration;

use super::Host;
use super::others::place;
use crate::membership::inventory::ListedState;
use crate::membership::{Digest, HostState, View};
use crate::placement::admission::{fits, size_with_overhead};
use crate::placement::pairs::Place;
use crate::policy::cost;
use crate::policy::rules::{HostIs, Kind, VmRules};
use crate::units::{Cost, HostId, Mib, MilliCores, Time, VmId};
use crate::usage::load::{Capacity, Load};

/// A VM that is yet to be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Its name, by which rules may know it; may be empty.
    pub name: String,
    /// Its tags: rules are read from them.
    pub tags: Vec<String>,
    /// Memory of the guest, without overhead.
    pub memory: Mib,
    /// Processor time that it is expected to ask.
    pub cpu: MilliCores,
}

/// What speaks for or against one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// Which.
    pub host: HostId,
    /// What the VM would cost there, or what is against it.
    pub verdict: Result<Cost, String>,
    /// How long ago that host said what this goes by; absent: it is this host, or that one has said nothing.
    pub age: Option<Duration>,
}

impl Host {
    /// All hosts, those first where the VM would cost least, those that cannot take it last.
    pub fn best_hosts(&self, now: Time, wish: &Wish) -> Vec<Judged> {
        let rules = self.settings.rules.of(VmId(0), &wish.name, &wish.tags);
        let verdict = self.here(now, wish, &rules);
        let mut all = vec![Judged { host: self.id, verdict, age: None }];
        all.extend(self.membership.hosts().map(|view| Judged {
            host: view.peer.host,
            verdict: self.there(view, wish, &rules),
            age: view.digest.is_some().then(|| now.since(view.heard)),
        }));
        all.sort_by_key(|judged| match &judged.verdict {
            Ok(cost) => (false, cost.0, self.name_of(judged.host)),
            Err(_) => (true, 0, self.name_of(judged.host)),
        });
        all
    }

    fn here(&self, now: Time, wish: &Wish, rules: &VmRules) -> Result<Cost, String> {
        self.takes_any()?;
        if self.usage.read().is_none() {
            return Err("nothing has been measured here yet".to_owned());
        }
        let is = HostIs { name: &self.name, labels: Some(&self.settings.host.labels) };
        self.follows_rules(self.id, is, rules)?;
        if let Some(crossed) = self.hot(now) {
            return Err(format!("is hot: {crossed}"));
        }
        let room = self.target.free();
        self.judge_wish(wish, room, self.highest_load(now, None), self.usage.capacity())
    }

    fn there(&self, view: &View, wish: &Wish, rules: &VmRules) -> Result<Cost, String> {
        match view.state {
            HostState::Alive => {}
            HostState::Suspect => return Err("does not answer".to_owned()),
            HostState::Gone => return Err("is gone".to_owned()),
        }
        let Some(Place { load, capacity, room, .. }) = place(view) else {
            return Err("has not said enough of itself".to_owned());
        };
        let labels = self.inventories.held().get(&view.peer.host);
        let labels = labels.map(|held| &*held.inventory.labels);
        self.follows_rules(view.peer.host, HostIs { name: &view.peer.name, labels }, rules)?;
        if view.digest.as_ref().is_some_and(|digest: &Digest| digest.hot) {
            return Err("is hot".to_owned());
        }
        self.judge_wish(wish, room, load, capacity)
    }

    fn judge_wish(
        &self,
        wish: &Wish,
        room: Mib,
        load: Load,
        capacity: Capacity,
    ) -> Result<Cost, String> {
        let size = size_with_overhead(wish.memory);
        if size > room {
            return Err(format!("no room: {size} asked, {room} free"));
        }
        let demand = Load { cpu: wish.cpu, memory: wish.memory, ..Load::default() };
        fits(demand, load, capacity, &self.settings.target, &self.settings.hot)?;
        Ok(cost::of_arrival(load, demand, capacity))
    }

    /// Whether groups and pins let it be at that host, by what hosts last listed.
    fn follows_rules(&self, host: HostId, is: HostIs<'_>, rules: &VmRules) -> Result<(), String> {
        rules.allows(is)?;
        for group in &rules.anti_affinity {
            if let Some((_, name)) =
                self.group_members(Kind::AntiAffinity, group).find(|(at, _)| *at == host)
            {
                return Err(format!("anti-affinity {group}: {name} of it is there"));
            }
        }
        for group in &rules.affinity {
            let members: Vec<(HostId, String)> =
                self.group_members(Kind::Affinity, group).collect();
            let elsewhere = members.iter().find(|(at, _)| *at != host);
            if let Some((at, name)) =
                elsewhere.filter(|_| !members.iter().any(|(at, _)| *at == host))
            {
                return Err(format!("affinity {group}: {name} of it is at {}", self.name_of(*at)));
            }
        }
        Ok(())
    }

    /// The VMs of a group and where they are, those here included.
    fn group_members<'a>(
        &'a self,
        kind: Kind,
        group: &'a str,
    ) -> impl Iterator<Item = (HostId, String)> + 'a {
        let here = self.vms.values().filter(move |vm| vm.rules.groups(kind).contains(group));
        let here = here.map(|vm| (self.id, vm.definition.name.clone()));
        let alive = self.inventories().filter(|(view, ..)| view.state == HostState::Alive);
        let listed = alive.flat_map(move |(view, _, inventory)| {
            let members = inventory.vms.iter().filter(move |listed| {
                !matches!(listed.state, ListedState::Released | ListedState::Down)
                    && self.settings.rules.in_group(
                        kind,
                        group,
                        listed.vm,
                        &listed.name,
                        &listed.tags,
                    )
            });
            members.map(|listed| (view.peer.host, listed.name.clone()))
        });
        here.chain(listed)
    }
}
