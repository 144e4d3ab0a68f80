//! What a plan of several moves takes for made: each is judged as if those before it had been carried out.
//!
//! **Invariant:** it is empty but while a plan is made, so nothing that happens goes by it.

use std::collections::BTreeMap;

use super::Host;
use super::others::place;
use crate::membership::View;
use crate::placement::admission::size_with_overhead;
use crate::placement::pairs::Place;
use crate::policy::hot::Crossed;
use crate::units::{HostId, Mib, MilliCores, PacketsPerSec, Time, VmId};
use crate::usage::load::Load;

/// VMs that are taken to have left.
#[derive(Debug, Default)]
pub(super) struct Ahead(BTreeMap<VmId, Left>);

/// One of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Left {
    /// Where it would be then, if that can be told.
    pub(super) to: Option<HostId>,
    /// What it asks.
    pub(super) demand: Load,
    /// What it would ask there.
    pub(super) expected: Load,
    /// Its memory.
    pub(super) memory: Mib,
    /// It counts by `limits.moves_per_day`.
    pub(super) balances: bool,
}

impl Ahead {
    pub(super) fn add(&mut self, vm: VmId, left: Left) {
        self.0.insert(vm, left);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn has(&self, vm: VmId) -> bool {
        self.0.contains_key(&vm)
    }

    /// Those that count by `limits.moves_per_day`.
    pub(super) fn balancing(&self) -> usize {
        self.0.values().filter(|left| left.balances).count()
    }

    /// What would be at that host then.
    pub(super) fn at(&self, host: HostId) -> impl Iterator<Item = (VmId, &Left)> {
        let there = self.0.iter().filter(move |(_, left)| left.to == Some(host));
        there.map(|(vm, left)| (*vm, left))
    }

    /// Memory that would be taken there.
    pub(super) fn size_at(&self, host: HostId) -> Mib {
        self.at(host).fold(Mib(0), |sum, (_, left)| sum.plus(size_with_overhead(left.memory)))
    }

    /// Memory and processor time that all of them take.
    pub(super) fn taken(&self) -> (Mib, MilliCores) {
        self.0.values().fold((Mib(0), MilliCores(0)), |(size, cpu), left| {
            (size.plus(size_with_overhead(left.memory)), cpu.plus(left.demand.cpu))
        })
    }
}

impl Host {
    /// A host as it said of itself, with what would be there then.
    pub(super) fn place(&self, view: &View) -> Option<Place> {
        let place = place(view)?;
        let size = self.ahead.size_at(place.host);
        let load =
            self.ahead.at(place.host).fold(place.load, |sum, (_, left)| sum.plus(left.expected));
        Some(Place { load, room: Mib(place.room.0.saturating_sub(size.0)), ..place })
    }

    /// The most packets of a host to which a VM would have gone.
    pub(super) fn most_packets_ahead(&self) -> PacketsPerSec {
        let hosts = self.ahead.0.values().filter_map(|left| self.membership.view(left.to?));
        let places = hosts.filter_map(|view| self.place(view));
        places.map(|place| place.load.packets).max().unwrap_or_default()
    }

    /// What makes this host hot, with those VMs gone. What drops, pressure and `vm_policy.when` would then be is not foretold: they
    /// do not count once anything is ahead.
    pub(super) fn still_hot(&self, now: Time) -> Option<Crossed> {
        let crossed = self.hot(now)?;
        if self.ahead.0.is_empty() {
            return Some(crossed.clone());
        }
        let hot = self.settings.hot_as_it_counts();
        let gone = self.ahead.0.values().fold(Load::default(), |sum, left| sum.plus(left.demand));
        let seen = self.seen(now, |vm| !self.ahead.has(vm)).without(gone);
        self.hot.still_hot(now, &hot, &seen, self.usage.capacity())
    }
}
