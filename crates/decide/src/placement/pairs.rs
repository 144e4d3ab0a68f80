//! Which VM should leave for which hosts, by what those said of themselves last: where hosts are to be evened out, the best VM
//! depends on who would take it.
//!
//! A view may be old, so this only proposes whom to ask: what a VM would cost at a target is the target's word.

use std::cmp::Reverse;

use super::candidates::{Candidate, Offer};
use super::exchange;
use crate::policy::cost;
use crate::policy::hot::used;
use crate::units::{Cost, HostId, Mib, MilliCores, PacketsPerSec, VmId};
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
    /// The same, less what it would lift that host above the mean: what pairs are ranked by.
    fit: Cost,
    /// Where it would pay.
    pub hosts: Vec<HostId>,
}

/// Whether a VM may go to a host.
type May<'a> = &'a dyn Fn(VmId, HostId) -> bool;

/// GiB that every move counts as beside its memory: a copy of nothing is a move all the same.
const GIB_OF_ANY_MOVE: f64 = 24.0;

/// The VMs whose move would pay, best first: gain / (memory + 24 GiB)^¾. Dividing by the memory itself would move many small
/// VMs that each gain little; not dividing, few large ones. `lowest` is the least load that this host may come to have;
/// `may` says which VM may go where at all.
pub fn ranked(
    candidates: &[Candidate],
    (lowest, capacity): (Load, Capacity),
    margin: Cost,
    mean: Mean,
    (places, may): (&[Place], May<'_>),
) -> Vec<Pair> {
    // What hosts cost as they are is reckoned once for all VMs.
    let before = |place: &Place| cost::of_load(place.load, place.capacity);
    let places: Vec<(Place, Cost)> = places.iter().map(|place| (*place, before(place))).collect();
    let mut pairs: Vec<Pair> = candidates
        .iter()
        .filter_map(|candidate| {
            pair(Offer::of(*candidate, lowest, capacity), margin, mean, (&places, may))
        })
        .collect();
    pairs.sort_by(|a, b| {
        let order = worth(b).total_cmp(&worth(a));
        order.then(a.offer.candidate.vm.cmp(&b.offer.candidate.vm))
    });
    pairs
}

/// Where this VM's move would pay, if anywhere. Of those hosts one that it would lift above the mean counts as dearer: room for
/// VMs that fit better would be used up, and who has moved rests for hours.
fn pair(
    offer: Offer,
    margin: Cost,
    mean: Mean,
    (places, may): (&[(Place, Cost)], May<'_>),
) -> Option<Pair> {
    let useful = offer.useful_max(margin);
    if useful <= Cost(0) {
        return None;
    }
    let Candidate { vm, demand, memory, .. } = offer.candidate;
    let size = super::admission::size_with_overhead(memory);
    let fitting = places.iter().filter(|(place, _)| place.room >= size);
    let mut found: Vec<(Cost, Cost, HostId)> = fitting
        .map(|(place, before)| {
            let with_it = cost::of_load(place.load.plus(demand), place.capacity);
            (with_it.minus(*before), place)
        })
        .filter(|(there, place)| *there <= useful && may(vm, place.host))
        .map(|(there, place)| {
            let over = mean.overshoot(place.load.plus(demand), place.capacity);
            (there.plus(over), there, place.host)
        })
        .collect();
    found.sort_unstable();
    let (with_overshoot, there, _) = *found.first()?;
    let hosts = found.into_iter().map(|(_, _, host)| host).collect();
    let gain = |there: Cost| useful.minus(there).plus(Cost(1));
    Some(Pair { offer, gain: gain(there), fit: gain(with_overshoot), hosts })
}

/// The VM that might gain most in exchange for another, and the hosts where it might, best first. What comes back is the
/// hosts' word, so this only says whom to ask about which: both copies must be paid, and there must be room for it beside
/// what it is exchanged for.
pub fn exchanged(
    candidates: &[Candidate],
    own: &exchange::Side,
    margin: Cost,
    (places, may): (&[Place], May<'_>),
) -> Option<(Offer, Vec<HostId>)> {
    // Of each host, and of this one, once for all VMs.
    let before = cost::of_each(own.lowest, own.capacity);
    let there = |place: &Place| cost::of_each(place.load, place.capacity);
    let places: Vec<(&Place, [Cost; 4])> =
        places.iter().map(|place| (place, there(place))).collect();
    let judged = candidates.iter().filter_map(|candidate| {
        let Candidate { vm, demand, memory, .. } = *candidate;
        let offer = Offer::of(*candidate, own.lowest, own.capacity);
        let relief = exchange::relief_of_each(own, before, demand);
        let paid = offer.price().plus(offer.copy).plus(margin);
        let size = super::admission::size_with_overhead(memory);
        let fitting = places.iter().filter(|(place, _)| place.room >= size);
        let mut hosts: Vec<(Cost, HostId)> = fitting
            .map(|(place, there)| {
                let host = (place.load, place.capacity);
                (exchange::most(relief, host, *there, demand), place.host)
            })
            .filter(|(most, host)| *most > paid && may(vm, *host))
            .collect();
        hosts.sort_unstable_by_key(|(most, host)| (Reverse(*most), *host));
        let best = hosts.first()?.0;
        let hosts = hosts.into_iter().map(|(_, host)| host).collect();
        Some((by_size(best.minus(paid), memory), offer, hosts))
    });
    let best = judged.max_by(|(a, one, _), (b, other, _)| {
        a.total_cmp(b).then(other.candidate.vm.cmp(&one.candidate.vm))
    });
    best.map(|(_, offer, hosts)| (offer, hosts))
}

fn worth(pair: &Pair) -> f64 {
    by_size(pair.fit, pair.offer.candidate.memory)
}

/// Roots, unlike powers, are rounded alike on every processor (IEEE 754).
#[expect(clippy::cast_precision_loss, reason = "neither costs nor sizes exceed 2^53")]
fn by_size(gain: Cost, memory: Mib) -> f64 {
    let gib = memory.0 as f64 / 1024.0 + GIB_OF_ANY_MOVE;
    gain.0 as f64 / (gib.sqrt() * gib.sqrt().sqrt())
}

/// What hosts use in the mean: all demand by all there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mean {
    load: Load,
    capacity: Capacity,
    hosts: u64,
    /// The most that any host but this one sends and receives.
    most_packets: PacketsPerSec,
}

impl Mean {
    /// Of these hosts and this one.
    pub fn of(others: impl Iterator<Item = (Load, Capacity)>, own: (Load, Capacity)) -> Mean {
        let sum = |a: Capacity, b: Capacity| Capacity {
            cpu: a.cpu.plus(b.cpu),
            memory: a.memory.plus(b.memory),
            ..Capacity::default()
        };
        let add = |mean: Mean, (load, capacity)| Mean {
            load: mean.load.plus(load),
            capacity: sum(mean.capacity, capacity),
            hosts: mean.hosts + 1,
            most_packets: mean.most_packets.max(load.packets),
        };
        let others = others.fold(Mean::default(), add);
        Mean { most_packets: others.most_packets, ..add(others, own) }
    }

    /// What a host's VMs send and receive.
    pub fn packets(&self) -> PacketsPerSec {
        PacketsPerSec(self.load.packets.0 / self.hosts.max(1))
    }

    /// The most that any host but this one sends and receives.
    pub fn most_packets(&self) -> PacketsPerSec {
        self.most_packets
    }

    /// How a host's use of processors and memory stands to it.
    pub fn above(&self, load: Load, capacity: Capacity) -> [Above; 2] {
        let above = |name, own: (u64, u64), all: (u64, u64)| Above {
            name,
            own: used(own.0, own.1),
            mean: used(all.0, all.1),
        };
        let (all, there) = (self.load, self.capacity);
        [
            above("cpu", (load.cpu.0, capacity.cpu.0), (all.cpu.0, there.cpu.0)),
            above("memory", (load.memory.0, capacity.memory.0), (all.memory.0, there.memory.0)),
        ]
    }

    /// Twice what it would cost a host to use what it has above the mean, and nothing else: tried on generated clusters, a
    /// weight of 2 left processors more even than ½, 1 and 0, for as many moves.
    fn overshoot(&self, after: Load, capacity: Capacity) -> Cost {
        let [cpu, memory] = self.above(after, capacity).map(|above| above.by());
        let over = Load {
            cpu: MilliCores(capacity.cpu.0 / 1000 * cpu),
            memory: Mib(capacity.memory.0 * memory / 1000),
            ..Load::default()
        };
        Cost(
            cost::of_load(over, Capacity { bits: None, packets: None, ..capacity })
                .0
                .saturating_mul(2),
        )
    }
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
        Candidate {
            vm: VmId(vm),
            demand: load(cpu, memory),
            memory: Mib(memory),
            copied: Mib(memory),
            apart: Cost(0),
        }
    }

    #[test]
    fn the_vm_that_gains_most_is_asked_about_and_the_host_it_fits_first() {
        let own = (load(12_000, 60_000), capacity());
        // One has processors to give, the other memory.
        let places = [place(1, 2000, 70_000), place(2, 9000, 10_000), place(3, 4000, 30_000)];
        let mean = mean(&places, own);
        let (busy, big) = (candidate(1, 4000, 4096), candidate(2, 100, 24_576));
        let pair =
            ranked(&[busy, big], own, Cost(200_000), mean, (&places, &|_, _| true)).remove(0);
        assert_eq!((pair.offer.candidate.vm, &pair.hosts[..1]), (VmId(1), &[HostId(3)][..]));
        let pair = ranked(&[big], own, Cost(200_000), mean, (&places, &|_, _| true)).remove(0);
        assert_eq!(pair.hosts[0], HostId(2));
    }

    #[test]
    fn hosts_that_are_even_have_no_pair() {
        let own = (load(8000, 40_000), capacity());
        let places = [place(1, 8000, 40_000), place(2, 8000, 40_000)];
        let mean = mean(&places, own);
        assert_eq!(
            ranked(&[candidate(1, 800, 4096)], own, Cost(200_000), mean, (&places, &|_, _| true)),
            []
        );
    }

    #[test]
    fn the_mean_is_of_all_there_is() {
        let own = (load(12_000, 9830), capacity());
        let above = mean(&[place(1, 4000, 29_491)], own).above(own.0, own.1);
        assert_eq!(
            above.map(|a| (a.name, a.own, a.mean)),
            [("cpu", 750, 500), ("memory", 99, 199)]
        );
        assert_eq!(Above::furthest(above).by(), 250);
    }

    #[test]
    fn of_two_hosts_that_gain_alike_the_one_below_the_mean_is_asked_first() {
        let own = (load(14_000, 60_000), capacity());
        // The first has little memory left to use, and plenty of processors in use.
        let places = [place(1, 6000, 14_000), place(2, 2000, 36_000)];
        let pair = ranked(
            &[candidate(1, 4000, 4096)],
            own,
            Cost(200_000),
            mean(&places, own),
            (&places, &|_, _| true),
        );
        assert_eq!(pair[0].hosts, [HostId(2), HostId(1)]);
    }

    fn mean(places: &[Place], own: (Load, Capacity)) -> Mean {
        Mean::of(places.iter().map(|place| (place.load, place.capacity)), own)
    }
}
