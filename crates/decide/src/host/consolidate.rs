//! Consolidation: hosts empty in the order of their names, the last first, so that they could sleep. None is ever switched off.
//!
//! It wants the opposite of evening out and no cost is convex in it, so what ends it is the order: a VM goes only to a host
//! earlier in it that has VMs already, and no host begins before all later ones are empty. Hosts that have a VM which stays
//! come before all others, whatever their names: they are awake anyhow, and keep nobody from emptying.

use std::cmp::Reverse;

use super::balance::{Cause, Leaves};
use super::loads::Basis;
use super::outgoing::may_take;
use super::{Host, Vm};
use crate::membership::{Digest, View};
use crate::placement::admission::size_with_overhead;
use crate::placement::candidates::{Candidate, Offer};
use crate::policy::settings::Trigger;
use crate::units::{Cost, HostId, Mib, MoveId, Rank, Time, VmId};

/// Whether it may be emptied, its name, and itself.
type Place<'a> = (bool, &'a String, HostId);

impl Host {
    /// This host is the last of those that have VMs, and what it has fits at the others of them, by what they said last.
    pub(super) fn empties(&self, now: Time) -> Option<Cause> {
        let here = self.own_place();
        let last = || self.membership.alive().all(|view| place(view) < here || !has_vms(view));
        if !here.0 || self.vms.keys().all(|vm| self.ahead.has(*vm)) || !last() {
            return None;
        }
        let own = self
            .vms
            .iter()
            .filter(|(id, _)| !self.ahead.has(**id))
            .fold(Mib(0), |sum, (_, vm)| sum.plus(size_with_overhead(vm.definition.memory)));
        let busy = self.load_of_vms(now).cpu.0;
        let (room, cpu) = self.stays().filter_map(|view| view.digest.as_ref()).fold(
            (Mib(0), 0_u64),
            |(room, cpu), digest| {
                let (more, free) = self.free_at(digest);
                (room.plus(more), cpu.saturating_add(free))
            },
        );
        let (size, asked) = self.ahead.taken();
        let room = Mib(room.0.saturating_sub(size.0));
        let cpu = cpu.saturating_sub(asked.0);
        let words = format!(
            "last by name of the hosts with VMs, which take {own} and {busy} mcores; those before it have {room} and {cpu} mcores to give"
        );
        let cause =
            Cause { trigger: Trigger::Consolidate, words, margin: Cost(0), basis: Basis::Now };
        (own <= room && busy <= cpu).then_some(cause)
    }

    /// The largest VM that may leave, since it is the hardest to place, and the first hosts by name that could take it: those are
    /// the last to be emptied themselves, so that it need not move again.
    pub(super) fn leaves_first(
        &self,
        now: Time,
        candidates: &[Candidate],
    ) -> Result<Leaves, String> {
        let mut candidates = candidates.to_vec();
        candidates.sort_by_key(|candidate| (Reverse(candidate.memory), candidate.vm));
        let found = candidates.iter().find_map(|candidate| {
            let size = size_with_overhead(candidate.memory);
            let able = self.stays().filter(|view| {
                let digest = view.digest.as_ref();
                let size = size.plus(self.ahead.size_at(view.peer.host));
                digest.is_some_and(|digest| may_take(digest, size))
                    && self.may_even_out(candidate.vm, view.peer.host)
            });
            let mut able: Vec<Place> = able.map(place).collect();
            able.sort_unstable();
            let able = able.into_iter().map(|(.., host)| host).collect();
            let asked = self.in_turn(candidate.vm, able);
            (!asked.is_empty()).then_some((*candidate, asked))
        });
        let (candidate, asked) = found.ok_or_else(|| {
            format!("none of {} VMs that may leave fits at a host before it", candidates.len())
        })?;
        let (capacity, lowest) = (self.usage.capacity(), self.load_of_vms(now));
        let offer = Offer::of(candidate, lowest, capacity);
        let words = "the largest, to the first by name that takes it".to_owned();
        Ok(Leaves { offer, asked: Some(asked), words, pays: true, exchange: false })
    }

    /// A host's place in the order in which a VM that is to empty this one prefers them.
    pub(super) fn place_in_order(&self, id: MoveId, host: HostId) -> Rank {
        let asked = self.outgoing.get(&id).and_then(|out| out.negotiation.as_ref());
        let asked = asked.into_iter().flat_map(|negotiation| negotiation.asked());
        let at = |host: HostId| self.membership.view(host).map(place);
        let before = asked.filter(|other| at(**other) < at(host)).count();
        Rank::by_cost(Cost(i64::try_from(before).unwrap_or(i64::MAX)))
    }

    /// Hosts before this one that have VMs.
    fn stays(&self) -> impl Iterator<Item = &View> {
        let here = self.own_place();
        self.membership.alive().filter(move |view| place(view) < here && has_vms(view))
    }

    fn own_place(&self) -> Place<'_> {
        (self.stays_awake().is_none(), &self.name, self.id)
    }

    /// Why this host is not emptied: the first VM here that does not leave by itself for long, if hosts are emptied at all.
    pub(super) fn stays_awake(&self) -> Option<String> {
        if self.settings.mode.trigger != Trigger::Consolidate {
            return None;
        }
        let kept = |(vm, here): (&VmId, &Vm)| {
            let why = self.leaves_in_the_end(*vm, here).err()?;
            Some(format!("{}: {why}", here.definition.name))
        };
        self.vms.iter().find_map(kept)
    }

    /// Whether nothing keeps a VM here for long.
    fn leaves_in_the_end(&self, id: VmId, vm: &Vm) -> Result<(), String> {
        self.is_excluded(id)?;
        vm.trouble.clone().map_or(Ok(()), Err)?;
        if self.balance_of(id) < self.settings.mode.balance {
            self.balances(id)?;
        }
        let allowed = |view| vm.rules.allows(self.as_told(view)).is_ok();
        if vm.rules.must.is_empty() || self.membership.alive().any(allowed) {
            return Ok(());
        }
        let places: Vec<String> = vm.rules.must.iter().map(ToString::to_string).collect();
        Err(format!("pin: it must be at {}", places.join(" and ")))
    }

    /// Memory and processors that a host may still give to VMs, in thousandths of a core.
    fn free_at(&self, digest: &Digest) -> (Mib, u64) {
        let Some(headroom) = &digest.headroom else { return (Mib(0), 0) };
        let max = headroom.cpu.0 / 1000 * u64::from(self.settings.target.cpu_used_max.0);
        (headroom.room, max.saturating_sub(headroom.cpu_asked.0))
    }
}

/// A host's place in the order: those that stay awake first, then by name.
fn place(view: &View) -> Place<'_> {
    let stays = view.digest.as_ref().and_then(|digest| digest.headroom).is_some_and(|it| it.stays);
    (!stays, &view.peer.name, view.peer.host)
}

fn has_vms(view: &View) -> bool {
    view.digest.as_ref().is_some_and(|digest| digest.vms > 0)
}
