//! Which VM should leave, where something asks for a move: of a hot host the one whose departure helps most for the least copying, else the
//! one that gains most where it would go.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::Host;
use super::balance::{ASKED, Cause, Chance, Leaves};
use super::loads::Basis;
use super::policies::Failures;
use crate::placement::admission::size_with_overhead;
use crate::placement::candidates::{Candidate, Offer, ranked};
use crate::placement::pairs::{self, Place};
use crate::policy::cost;
use crate::units::{Cost, HostId, Time, VmId};
use crate::usage::load::{Capacity, Load};

impl Host {
    /// Of a hot host: the VM whose departure helps most for the least copying.
    pub(super) fn relieves_most(
        &self,
        now: Time,
        candidates: &[Candidate],
        cause: &Cause,
        chance: &mut Chance,
    ) -> Result<Leaves, String> {
        let Cause { margin, basis, .. } = *cause;
        let candidates = self.as_asked(basis, now, candidates);
        let lowest = self.lowest_load_by(basis, now, None);
        let ranked = ranked(&candidates, lowest, self.usage.capacity(), margin);
        let ranked = self.in_order(now, ranked, &mut chance.failures);
        // Nobody need be asked about a VM that would pay nowhere, by what others said; they may be asked if none would.
        let paying = ranked.iter().find(|offer| self.pays_somewhere(offer, margin));
        let pays = paying.is_some();
        // What others would give in return is known by what it asks now.
        let exchange = !pays && basis == Basis::Now;
        let offer = paying.or(ranked.first()).copied().ok_or_else(|| {
            format!("none of {} VMs that may leave would relieve it by more than {margin} beyond the copy", candidates.len())
        })?;
        let words = self.first_of(now, &offer, &ranked, self.first_by());
        Ok(Leaves { offer, asked: None, words, pays, exchange })
    }

    /// Of the VMs here whose move would pay, the one that sends and receives most.
    pub(super) fn busiest_at_the_card(
        &self,
        now: Time,
        candidates: &[Candidate],
        margin: Cost,
    ) -> Result<Leaves, String> {
        let (lowest, capacity) = (self.lowest_load(now, None), self.usage.capacity());
        let mut ranked = ranked(candidates, lowest, capacity, margin);
        ranked.sort_by_key(|offer| Reverse(offer.candidate.demand.packets));
        self.sort_by_trials(now, &mut ranked);
        let offer = ranked.iter().find(|offer| self.pays_somewhere(offer, margin)).copied();
        let offer = offer.ok_or_else(|| {
            format!("none of {} VMs that may leave would gain more than {margin} beyond the copy anywhere", candidates.len())
        })?;
        let words = "busiest at the card of those whose move pays";
        let words = self.first_of(now, &offer, &ranked, words);
        Ok(Leaves { offer, asked: None, words, pays: true, exchange: false })
    }

    /// Whether some host could take the VM and it would cost little enough there, by what that host said of itself last.
    fn pays_somewhere(&self, offer: &Offer, margin: Cost) -> bool {
        let useful = offer.useful_max(margin);
        let Candidate { vm, demand, memory, .. } = offer.candidate;
        let size = size_with_overhead(memory);
        let packets = self.usage.capacity().packets;
        self.membership.alive().any(|view| {
            let cheap = |place: Place| {
                let capacity = Capacity { packets, ..place.capacity };
                place.room >= size && cost::of_arrival(place.load, demand, capacity) <= useful
            };
            self.place(view).is_some_and(cheap) && self.all_allowed(vm, view)
        })
    }

    /// Of a host above the mean: the VM that gains most where it would go, by what some of the others said of themselves.
    pub(super) fn evens_most(
        &self,
        now: Time,
        candidates: &[Candidate],
        margin: Cost,
        chance: &mut Chance,
    ) -> Result<Leaves, String> {
        let places = self.some_places(chance);
        let own = (self.lowest_load(now, None), self.usage.capacity());
        let may = |vm, host| self.may_even_out(vm, host);
        let mean = self.others.as_ref().map(|others| others.mean).unwrap_or_default();
        let places = (&*places, &may as &dyn Fn(VmId, HostId) -> bool);
        let mut pairs = pairs::ranked(candidates, own, margin, mean, places);
        let places = places.0;
        let offers = pairs.iter().map(|pair| pair.offer).collect();
        let offers = self.in_order(now, offers, &mut chance.failures);
        let first = offers.first().map(|offer| offer.candidate.vm);
        let Some(at) = pairs.iter().position(|pair| Some(pair.offer.candidate.vm) == first) else {
            let why = || {
                let (vms, hosts) = (candidates.len(), places.len());
                format!(
                    "none of {vms} VMs that may leave would gain more than {margin} beyond the copy at any of {hosts} hosts, nor in exchange"
                )
            };
            return self.exchanges_most(now, candidates, margin, places).ok_or_else(why);
        };
        let pair = pairs.swap_remove(at);
        let by = match self.settings.vm_policy.order {
            Some(_) => self.first_by(),
            None => "most gain for what is copied",
        };
        let by = self.first_of(now, &pair.offer, &offers, by);
        let words = format!("{by}, {} at best", pair.gain.plus(margin));
        let asked = pair.hosts.into_iter().take(ASKED).collect();
        Ok(Leaves { offer: pair.offer, asked: Some(asked), words, pays: true, exchange: false })
    }

    /// The VM by whose exchange for another most might be gained, where no VM would gain anything by going alone.
    fn exchanges_most(
        &self,
        now: Time,
        candidates: &[Candidate],
        margin: Cost,
        places: &[Place],
    ) -> Option<Leaves> {
        let own = self.side(now, None);
        let may = |vm, host| self.may_even_out(vm, host);
        // What copies of disks would cost is known to their own host alone.
        let alone = |it: &&Candidate| self.group_of(it.vm).len() == 1 && it.copied == it.memory;
        let mut by_trials: BTreeMap<u32, Vec<Candidate>> = BTreeMap::new();
        for candidate in candidates.iter().filter(alone) {
            by_trials.entry(self.trials(now, candidate.vm)).or_default().push(*candidate);
        }
        let best = |candidates: &Vec<Candidate>| {
            pairs::exchanged(candidates, &own, margin, (places, &may))
        };
        let (offer, hosts) = by_trials.values().find_map(best)?;
        let asked = Some(hosts.into_iter().take(ASKED).collect());
        let words = "for one in return that does less for as much memory".to_owned();
        Some(Leaves { offer, asked, words, pays: false, exchange: true })
    }

    /// Offers as the policy orders them, those that were asked about in vain less often before the others.
    fn in_order(&self, now: Time, offers: Vec<Offer>, failures: &mut Failures) -> Vec<Offer> {
        let mut offers = self.in_order_of_policy(now, offers, failures);
        self.sort_by_trials(now, &mut offers);
        offers
    }

    fn sort_by_trials(&self, now: Time, offers: &mut [Offer]) {
        offers.sort_by_key(|offer| self.trials(now, offer.candidate.vm));
    }

    /// How often a VM was asked about in vain, as far as it counts: where nothing is urgent the best VM is worth waiting for, since
    /// another evens out less.
    fn trials(&self, now: Time, vm: VmId) -> u32 {
        if self.still_hot(now).is_some() { self.vms[&vm].in_vain } else { 0 }
    }

    /// Why this one of the offers is the first.
    fn first_of(&self, now: Time, offer: &Offer, offers: &[Offer], by: &str) -> String {
        let trials = self.trials(now, offer.candidate.vm);
        if offers.iter().any(|other| self.trials(now, other.candidate.vm) > trials) {
            format!("{by} of those less often asked about in vain")
        } else {
            by.to_owned()
        }
    }

    /// Candidates with what they ask now, or will.
    fn as_asked<'a>(
        &self,
        basis: Basis,
        now: Time,
        candidates: &'a [Candidate],
    ) -> Cow<'a, [Candidate]> {
        if basis == Basis::Now {
            return Cow::Borrowed(candidates);
        }
        let asks = |it: &Candidate| {
            let group = self.group_of(it.vm);
            let each = group.into_iter().map(|vm| self.demand_by(basis, now, vm));
            Candidate { demand: each.fold(Load::default(), Load::plus), ..*it }
        };
        candidates.iter().map(asks).collect()
    }
}
