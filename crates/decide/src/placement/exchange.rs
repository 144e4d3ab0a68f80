//! Two hosts swap VMs: what that costs each, and which VM to give back.
//!
//! Where memory is tight everywhere, a VM may fit nowhere for long although a host with little to do has one of the same size
//! that does as little. Each host judges its own part by its own loads, and the sum over both must fall as for a single move.

use serde::{Deserialize, Serialize};

use crate::policy::cost;
use crate::units::{Cost, VmId};
use crate::usage::load::{Capacity, Load};

/// What a host comes to be by an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Side {
    /// The least load that it may come to have without it.
    pub lowest: Load,
    /// The most.
    pub highest: Load,
    /// What it has.
    pub capacity: Capacity,
}

impl Side {
    /// What the host pays when one load comes and another goes: less than nothing if it is relieved.
    ///
    /// g is separable and convex, so what grows is judged at the highest load and what shrinks at the lowest: whatever other
    /// moves do meanwhile, it is no more.
    pub fn cost(&self, comes: Load, goes: Load) -> Cost {
        let more = cost::of_arrival(self.highest, comes.minus(goes), self.capacity);
        more.minus(cost::relief(self.lowest, goes.minus(comes), self.capacity))
    }

    /// What is to be paid on top of a move of `goes` away if `back` comes in return, its copy included: its relief is then as
    /// much less.
    pub fn cost_of_return(&self, goes: Load, back: Load) -> Cost {
        let alone = cost::relief(self.lowest, goes, self.capacity);
        alone.plus(self.cost(back, goes)).plus(cost::of_copy(back.memory))
    }
}

/// A VM that might be given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub vm: VmId,
    /// What it asks now: its host is rid of no more.
    pub demand: Load,
    /// What it is expected to ask: it costs the other host as much.
    pub expected: Load,
    /// What it costs that its traffic with VMs that stay crosses the wire from then on.
    pub apart: Cost,
}

/// Of these VMs the one whose return makes the exchange cheapest for both, what it costs here, and what it costs in all.
pub fn cheapest(
    source: &Side,
    target: &Side,
    comes: Load,
    candidates: impl Iterator<Item = Candidate>,
) -> Option<(Candidate, Cost, Cost)> {
    let judged = candidates.map(|candidate| {
        let here = target.cost(comes, candidate.demand);
        let there = source.cost_of_return(comes, candidate.expected).plus(candidate.apart);
        (candidate, here, here.plus(there))
    });
    judged.min_by_key(|(candidate, _, all)| (*all, candidate.vm))
}

/// The most that an exchange could gain by which `vm` goes to a host, the copies not counted: each resource for itself, since
/// what comes back may make up for the others. `relief`: what the source is rid of; `there`: what the host's load costs it.
pub fn most(
    relief: [Cost; 4],
    (load, capacity): (Load, Capacity),
    there: [Cost; 4],
    vm: Load,
) -> Cost {
    let with_it = cost::of_each(load.plus(vm), capacity);
    let each = relief.into_iter().zip(with_it).zip(there);
    let gain =
        each.map(|((relief, with_it), there)| relief.minus(with_it.minus(there)).max(Cost(0)));
    gain.fold(Cost(0), Cost::plus)
}

/// What the source would be rid of without `vm`, each resource for itself; `before`: what its lowest load costs it.
pub fn relief_of_each(source: &Side, before: [Cost; 4], vm: Load) -> [Cost; 4] {
    let after = cost::of_each(source.lowest.minus(vm), source.capacity);
    std::array::from_fn(|resource| before[resource].minus(after[resource]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{Mib, MilliCores};
    use proptest::prelude::*;

    fn load(cpu: u64, memory: u64) -> Load {
        Load { cpu: MilliCores(cpu), memory: Mib(memory), ..Load::default() }
    }

    fn side(lowest: Load, highest: Load) -> Side {
        let capacity =
            Capacity { cpu: MilliCores(16_000), memory: Mib(98_304), ..Capacity::default() };
        Side { lowest, highest, capacity }
    }

    fn steady(cpu: u64, memory: u64) -> Side {
        side(load(cpu, memory), load(cpu, memory))
    }

    #[test]
    fn where_memory_is_tight_only_an_exchange_evens_out_processors() {
        let (busy, idle) = (steady(14_000, 90_000), steady(4000, 90_000));
        let vm = load(2000, 8192);
        let alone = cost::relief(busy.lowest, vm, busy.capacity);
        assert!(alone < cost::of_arrival(idle.highest, vm, idle.capacity), "no single move pays");
        let theirs = [(1, load(100, 8192)), (2, load(1900, 8192)), (3, load(100, 1024))];
        let theirs = theirs.map(|(vm, demand)| Candidate {
            vm: VmId(vm),
            demand,
            expected: demand,
            apart: Cost(0),
        });
        let (back, there, all) = cheapest(&busy, &idle, vm, theirs.into_iter()).unwrap();
        assert_eq!(back.vm, VmId(1), "as much memory, little to do");
        let gain = alone.minus(all).minus(cost::of_copy(vm.memory));
        assert!(gain > Cost::percent(5), "{gain}");
        let before = cost::of_each(busy.lowest, busy.capacity);
        let relief = relief_of_each(&busy, before, vm);
        let at_idle = cost::of_each(idle.highest, idle.capacity);
        let most = most(relief, (idle.highest, idle.capacity), at_idle, vm);
        assert!(there < all && most > gain);
    }

    #[test]
    fn what_a_vm_only_was_or_will_be_like_relieves_nobody() {
        let (source, target) = (steady(9000, 50_000), steady(9000, 50_000));
        let comes = load(1000, 4096);
        let swap = |now: u64, expected: u64| {
            let [demand, expected] = [now, expected].map(|cpu| load(cpu, 4096));
            let back = Candidate { vm: VmId(1), demand, expected, apart: Cost(0) };
            cheapest(&source, &target, comes, [back].into_iter()).unwrap()
        };
        let (_, here, all) = swap(500, 500);
        assert_eq!(swap(500, 3000).1, here, "the target is rid of what it asks now");
        assert!(swap(500, 3000).2 > all, "the source pays for what it is expected to ask");
    }

    /// What both pay after less what both paid before, by the loads as they are.
    fn rise(sides: [&Side; 2], goes: Load, back: Load) -> Cost {
        let [source, target] = sides;
        let now = |side: &Side, comes: Load, goes: Load| {
            let after = cost::of_load(side.lowest.minus(goes).plus(comes), side.capacity);
            after.minus(cost::of_load(side.lowest, side.capacity))
        };
        now(source, back, goes).plus(now(target, goes, back))
    }

    proptest! {
        #[test]
        fn what_is_judged_is_what_the_sum_rises_by_while_nothing_else_moves(
            loads in prop::array::uniform2((2000u64..16_000, 20_000u64..90_000)),
            vms in prop::array::uniform2((0u64..2000, 512u64..16_384)),
        ) {
            let [source, target] = loads.map(|(cpu, memory)| steady(cpu, memory));
            let [goes, back] = vms.map(|(cpu, memory)| load(cpu, memory));
            let judged = target.cost(goes, back).plus(source.cost(back, goes));
            prop_assert!((judged.0 - rise([&source, &target], goes, back).0).abs() <= 8);
        }

        #[test]
        fn it_is_never_judged_cheaper_than_it_is_whatever_moves_meanwhile(
            (low, more) in ((2000u64..9000, 20_000u64..50_000), (0u64..7000, 0u64..40_000)),
            at in (0u64..=7000, 0u64..=40_000),
            vms in prop::array::uniform2((0u64..2000, 512u64..16_384)),
        ) {
            let lowest = load(low.0, low.1);
            let wide = side(lowest, lowest.plus(load(more.0, more.1)));
            let between = lowest.plus(load(at.0.min(more.0), at.1.min(more.1)));
            let [comes, goes] = vms.map(|(cpu, memory)| load(cpu, memory));
            let exact = side(between, between);
            prop_assert!(wide.cost(comes, goes).0 + 8 >= exact.cost(comes, goes).0);
        }
    }
}
