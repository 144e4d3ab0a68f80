//! Which VM should leave for which hosts, by what those said of themselves last: where hosts are to be evened out, the best VM
//! depends on who would take it.
//!
//! A view may be old, so this only proposes whom to ask: what a VM would cost at a target is the target's word.

use super::candidates::{Candidate, Offer};
use crate::policy::cost;
use crate::units::{Cost, HostId, Mib};
use crate::usage::load::{Capacity, Load};

/// What a host said of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which.
    pub host: HostId,
    /// What its VMs ask of it.
    pub load: Load,
    /// What it has.
    pub capacity: Capacity,
    /// Memory that it may still give to guests, the hypervisor's overhead included.
    pub room: Mib,
}

/// A VM worth asking about, and the hosts to ask, best first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The VM.
    pub offer: Offer,
    /// By how much the sum of costs would fall at the best of them, copy and margin paid.
    pub gain: Cost,
    /// Where it would pay.
    pub hosts: Vec<HostId>,
}

/// GiB that every move counts as beside its memory: a copy of nothing is a move all the same.
const GIB_OF_ANY_MOVE: f64 = 24.0;

/// The VMs whose move would pay, best first: gain / (memory + 24 GiB)^¾. Dividing by the memory itself would move many small
/// VMs that each gain little; not dividing, few large ones. `lowest` is the least load that this host may come to have.
pub fn ranked(
    candidates: &[Candidate],
    (lowest, capacity): (Load, Capacity),
    margin: Cost,
    places: &[Place],
) -> Vec<Pair> {
    let mut pairs: Vec<Pair> = candidates
        .iter()
        .filter_map(|candidate| {
            let relief = cost::relief(lowest, candidate.demand, capacity);
            let copy = cost::of_copy(candidate.memory);
            pair(Offer { candidate: *candidate, relief, copy }, margin, places)
        })
        .collect();
    pairs.sort_by(|a, b| {
        let order = worth(b).total_cmp(&worth(a));
        order.then(a.offer.candidate.vm.cmp(&b.offer.candidate.vm))
    });
    pairs
}

/// Where this VM's move would pay, if anywhere.
fn pair(offer: Offer, margin: Cost, places: &[Place]) -> Option<Pair> {
    let useful = offer.useful_max(margin);
    if useful <= Cost(0) {
        return None;
    }
    let Candidate { demand, memory, .. } = offer.candidate;
    let size = super::admission::size_with_overhead(memory);
    let fitting = places.iter().filter(|place| place.room >= size);
    let mut found: Vec<(Cost, HostId)> = fitting
        .map(|place| (cost::of_arrival(place.load, demand, place.capacity), place.host))
        .filter(|(there, _)| *there <= useful)
        .collect();
    found.sort_unstable();
    let (cheapest, _) = *found.first()?;
    let hosts = found.into_iter().map(|(_, host)| host).collect();
    Some(Pair { offer, gain: useful.minus(cheapest).plus(Cost(1)), hosts })
}

/// Roots, unlike powers, are rounded alike on every processor (IEEE 754).
#[expect(clippy::cast_precision_loss, reason = "neither costs nor sizes exceed 2^53")]
fn worth(pair: &Pair) -> f64 {
    let gib = pair.offer.candidate.memory.0 as f64 / 1024.0 + GIB_OF_ANY_MOVE;
    pair.gain.0 as f64 / (gib.sqrt() * gib.sqrt().sqrt())
}

/// How far `load` is above the mean of all, in thousandths of what there is: processors and memory. `others` are all hosts
/// that told, this one not among them.
pub fn above_mean(load: Load, capacity: Capacity, others: &[Place]) -> [Above; 2] {
    let cpu = |load: Load, capacity: Capacity| (load.cpu.0, capacity.cpu.0);
    let memory = |load: Load, capacity: Capacity| (load.memory.0, capacity.memory.0);
    let above = |name, of: fn(Load, Capacity) -> (u64, u64)| {
        let (mut asked, mut all) = of(load, capacity);
        let own = crate::policy::hot::used(asked, all);
        for place in others {
            let (more, there) = of(place.load, place.capacity);
            (asked, all) = (asked.saturating_add(more), all.saturating_add(there));
        }
        Above { name, own, mean: crate::policy::hot::used(asked, all) }
    };
    [above("cpu", cpu), above("memory", memory)]
}

/// A resource's use here and in the mean, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Above {
    /// `cpu` or `memory`.
    pub name: &'static str,
    /// Here.
    pub own: u64,
    /// All demand by all there is.
    pub mean: u64,
}

impl Above {
    /// How far this host is above the mean; zero if it is below.
    pub fn by(&self) -> u64 {
        self.own.saturating_sub(self.mean)
    }

    /// The one that is further above.
    pub fn furthest(all: [Above; 2]) -> Above {
        let [cpu, memory] = all;
        if cpu.by() >= memory.by() { cpu } else { memory }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{MilliCores, VmId};

    fn load(cpu: u64, memory: u64) -> Load {
        Load { cpu: MilliCores(cpu), memory: Mib(memory), ..Load::default() }
    }

    fn capacity() -> Capacity {
        Capacity { cpu: MilliCores(16_000), memory: Mib(98_304), bits: None, packets: None }
    }

    fn place(host: u128, cpu: u64, memory: u64) -> Place {
        let room = Mib(80_000_u64.saturating_sub(memory));
        Place { host: HostId(host), load: load(cpu, memory), capacity: capacity(), room }
    }

    fn candidate(vm: u128, cpu: u64, memory: u64) -> Candidate {
        Candidate { vm: VmId(vm), demand: load(cpu, memory), memory: Mib(memory) }
    }

    #[test]
    fn the_vm_that_fits_the_hole_is_asked_about_and_the_emptiest_host_first() {
        let own = (load(12_000, 60_000), capacity());
        // One lacks processors, the other memory.
        let places = [place(1, 2000, 70_000), place(2, 9000, 10_000)];
        let (busy, big) = (candidate(1, 4000, 4096), candidate(2, 100, 24_576));
        let pair = ranked(&[busy, big], own, Cost(200_000), &places).remove(0);
        assert_eq!((pair.offer.candidate.vm, &pair.hosts[..1]), (VmId(1), &[HostId(1)][..]));
        let pair = ranked(&[big], own, Cost(200_000), &places).remove(0);
        assert_eq!(pair.hosts, [HostId(2)]);
    }

    #[test]
    fn hosts_that_are_even_have_no_pair() {
        let own = (load(8000, 40_000), capacity());
        let places = [place(1, 8000, 40_000), place(2, 8000, 40_000)];
        assert_eq!(ranked(&[candidate(1, 800, 4096)], own, Cost(200_000), &places), []);
    }

    #[test]
    fn the_mean_is_of_all_there_is() {
        let above = above_mean(load(12_000, 9830), capacity(), &[place(1, 4000, 29_491)]);
        assert_eq!(
            above.map(|a| (a.name, a.own, a.mean)),
            [("cpu", 750, 500), ("memory", 99, 199)]
        );
        assert_eq!(Above::furthest(above).by(), 250);
    }
}
