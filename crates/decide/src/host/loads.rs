//! This host's load, at its lowest and at its highest: moves end only because relief is judged by the one and cost by the other.

use super::Host;
use super::groups::demand_of;
use super::incoming::Incoming;
use super::outgoing::Outgoing;
use crate::negotiate::target::Stage;
use crate::placement::admission::{room, size_with_overhead};
use crate::planted::{Bug, planted};
use crate::policy::hot::Seen;
use crate::units::{Mib, MilliCores, MoveId, Time, VmId};
use crate::usage::DEMAND_WINDOW;
use crate::usage::load::Load;

/// By which of what VMs ask the relief of a move is reckoned, at its source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Basis {
    /// What they ask now.
    #[default]
    Now,
    /// What they are expected to ask in the next hour, on average: that is what makes the host hot.
    NextHour,
}

/// What VMs here ask at the instant of a reading: all that is made of it asks again and again.
#[derive(Clone, Debug, Default)]
pub(super) struct Demands {
    at: Option<Time>,
    /// By VM.
    of: Vec<(VmId, Load)>,
}

impl Demands {
    /// Something may have changed.
    pub(super) fn forget(&mut self) {
        self.at = None;
    }

    fn of(&self, now: Time, vm: VmId) -> Option<Load> {
        self.at.filter(|at| *at == now)?;
        let place = self.of.binary_search_by_key(&vm, |(vm, _)| *vm).ok()?;
        Some(self.of[place].1)
    }
}

impl Host {
    /// Reckons what each VM here asks, which holds until the next event.
    pub(super) fn reckon_demands(&mut self, now: Time) {
        let mut of = std::mem::take(&mut self.demands.of);
        of.clear();
        of.extend(self.vms.keys().map(|vm| (*vm, self.demand_anew(now, *vm))));
        self.demands = Demands { at: Some(now), of };
    }

    /// What all VMs here ask together, those leaving included.
    pub(super) fn demand_of_vms(&self, now: Time) -> Load {
        self.vms.keys().fold(Load::default(), |sum, vm| sum.plus(self.demand(now, *vm)))
    }

    /// What the thresholds of `[hot]` are held against, with these of its VMs.
    pub(super) fn seen(&self, now: Time, counts: impl Fn(VmId) -> bool) -> Seen {
        let mut seen =
            Seen { host: *self.usage.host(), own: self.usage.own_cpu().0, ..Seen::default() };
        for vm in self.vms.keys().copied().filter(|vm| counts(*vm)) {
            seen.vms = seen.vms.plus(self.demand(now, vm));
            seen.next_hour = seen.next_hour.plus(self.demand_by(Basis::NextHour, now, vm));
        }
        seen
    }

    /// What one VM asks of this host now, or will as far as that is foretold by more than a single jump.
    pub(super) fn demand_by(&self, basis: Basis, now: Time, vm: VmId) -> Load {
        let demand = self.demand(now, vm);
        if basis == Basis::Now || !self.usage.is_measured(now, vm) {
            return demand;
        }
        let next = self.usage.next_hour(vm).filter(|next| next.steady);
        next.map_or(demand, |next| Load { memory: demand.memory, ..next.mean })
    }

    /// What one VM asks of this host.
    pub fn demand(&self, now: Time, vm: VmId) -> Load {
        match self.demands.of(now, vm) {
            Some(demand) => {
                debug_assert_eq!(demand, self.demand_anew(now, vm), "it changed within a reading");
                demand
            }
            None => self.demand_anew(now, vm),
        }
    }

    fn demand_anew(&self, now: Time, vm: VmId) -> Load {
        let memory = self.vms.get(&vm).map_or(Mib(0), |vm| vm.definition.memory);
        // What makes the host hot has lasted for its window: a longer look back would see the calm before.
        self.usage.demand(now, vm, memory, self.settings.hot.window)
    }

    /// What one VM is expected to ask of its host: what it asks now, or on average in the next hour if that is notably more.
    pub(super) fn expected(&self, now: Time, vm: VmId) -> Load {
        let demand = self.demand(now, vm);
        self.usage.next_hour(vm).map_or(demand, |next| demand.at_least(next.mean))
    }

    /// The least load that this host may come to have: every departure under way already gone (but `but`), no arrival counted.
    pub(super) fn lowest_load(&self, now: Time, but: Option<MoveId>) -> Load {
        self.lowest_load_by(Basis::Now, now, but)
    }

    /// The same by what its VMs ask now, or will.
    pub(super) fn lowest_load_by(&self, basis: Basis, now: Time, but: Option<MoveId>) -> Load {
        let outgoing = self
            .outgoing
            .iter()
            .filter(|(id, _)| Some(**id) != but && !planted(Bug::ReliefWithDepartures))
            .map(|(_, out)| out.vm);
        let promised = self.promised(but).map(|(vm, _)| vm).chain(self.following(but));
        let leaving: Vec<VmId> = outgoing.chain(promised).collect();
        let staying = self.vms.keys().filter(|vm| !leaving.contains(vm) && !self.ahead.has(**vm));
        let own = own_load(self.usage.own_cpu().0);
        staying.fold(own, |sum, vm| sum.plus(self.demand_by(basis, now, *vm)))
    }

    /// The most load that this host may come to have: departures still here, every reservation and arrival in (but `but`),
    /// each VM by what it is expected to ask.
    pub(super) fn highest_load(&self, now: Time, but: Option<MoveId>) -> Load {
        let own = own_load(self.usage.own_cpu().1);
        let staying = self.vms.keys().filter(|vm| !self.ahead.has(**vm));
        let here = staying.fold(own, |sum, vm| {
            let demand = self.expected(now, *vm);
            // Who has just arrived has not been measured here: until then it asks what it was expected to.
            sum.plus(self.arrived.get(vm).map_or(demand, |(expected, _)| demand.highest(*expected)))
        });
        let coming = self
            .incoming
            .iter()
            .filter(|(id, incoming)| Some(**id) != but && !self.vms.contains_key(&incoming.vm));
        let reserved = coming
            .filter(|(id, incoming)| self.target.offers().contains_key(id) || incoming.open());
        let here = self.coming_in_return(but).fold(here, Load::plus);
        reserved.fold(here, |sum, (_, incoming)| {
            sum.plus(incoming.demand).plus(demand_of(&incoming.followers))
        })
    }

    /// What all VMs here ask together, those that have just arrived by what was expected of them.
    pub(super) fn load_of_vms(&self, now: Time) -> Load {
        let staying = self.vms.keys().filter(|vm| !self.ahead.has(**vm));
        staying.fold(Load::default(), |sum, vm| {
            let demand = self.demand(now, *vm);
            sum.plus(self.arrived.get(vm).map_or(demand, |(expected, _)| demand.highest(*expected)))
        })
    }

    /// Forgets what was expected of VMs that have been measured here by now.
    pub(super) fn forget_expected(&mut self, now: Time) {
        let Host { vms, usage, arrived, .. } = self;
        let measured = |vm: VmId, since: Time| {
            let newest = usage.history(vm).and_then(|history| history.seconds().next_back());
            newest.is_some_and(|(at, _)| at > since)
        };
        arrived.retain(|vm, (_, since)| {
            let awaited = now.since(*since) <= DEMAND_WINDOW || !measured(*vm, *since);
            awaited && vms.contains_key(vm)
        });
    }

    /// Counts what guests here take, those on their way in without a reservation (after a restart) included.
    pub(super) fn count_room(&mut self) {
        self.count_room_but(None);
    }

    /// The same without what is kept for that VM as agreed in that move.
    pub(super) fn count_room_but(&mut self, due: Option<(MoveId, VmId)>) {
        let here = self.vms.values().map(|vm| vm.definition.memory);
        let coming = self.incoming.iter().filter(|(id, incoming)| {
            incoming.open()
                && !self.target.offers().contains_key(id)
                && !self.vms.contains_key(&incoming.vm)
        });
        let used = here
            .chain(coming.map(|(_, incoming)| incoming.memory))
            .fold(self.kept_for_returns(due), |sum, memory| sum.plus(size_with_overhead(memory)));
        self.target.set_room(room(&self.settings.target, self.usage.capacity().memory), used);
    }

    /// Moves from here, and moves to here that were confirmed.
    pub fn moves_under_way(&self) -> usize {
        let confirmed = |id: &MoveId| {
            self.target.offers().get(id).is_some_and(|offer| offer.stage != Stage::Offered)
        };
        // What comes in return is under way from its request on: it was agreed.
        let half = |id, incoming: &Incoming| incoming.half_of.is_some() && self.holds(id);
        let coming = self
            .incoming
            .iter()
            .filter(|(id, incoming)| confirmed(id) || incoming.open() || half(id, incoming));
        self.outgoing.len() + coming.count() + self.agreed_elsewhere()
    }

    /// The same without those from here of which hosts are only asked yet.
    pub fn moves_agreed(&self) -> usize {
        let asking = |out: &&Outgoing| !out.confirmed && out.half_of.is_none();
        let asking = self.outgoing.values().filter(asking).count();
        self.moves_under_way() - asking
    }
}

/// What the host itself uses beside its VMs: processors only, since its traffic is mostly the copies.
fn own_load(cpu: MilliCores) -> Load {
    Load { cpu, ..Load::default() }
}
