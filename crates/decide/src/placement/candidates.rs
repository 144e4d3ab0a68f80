//! Which VM should leave: the one whose departure helps most for the least copying.

use std::cmp::Reverse;

use crate::policy::cost;
use crate::units::{Cost, Mib, VmId};
use crate::usage::load::{Capacity, Load};

/// A VM that may be asked to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub vm: VmId,
    /// What it asks of its host.
    pub demand: Load,
    /// Size of its memory.
    pub memory: Mib,
    /// What must be copied: its memory, and disks that go along.
    pub copied: Mib,
    /// What it costs that its traffic with VMs that stay crosses the wire from then on.
    pub apart: Cost,
}

/// A candidate and what its departure is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Which.
    pub candidate: Candidate,
    /// What the host would be rid of.
    pub relief: Cost,
    /// What the copy would cost.
    pub copy: Cost,
}

impl Offer {
    /// `lowest` is the least load that this host may come to have: every departure under way already gone.
    pub fn of(candidate: Candidate, lowest: Load, capacity: Capacity) -> Offer {
        let relief = cost::relief(lowest, candidate.demand, capacity);
        Offer { candidate, relief, copy: cost::of_copy(candidate.copied) }
    }

    /// What is to be paid wherever it goes: the copy, and its traffic with VMs that stay.
    pub fn price(&self) -> Cost {
        self.copy.plus(self.candidate.apart)
    }

    /// The highest cost at a target that would still be useful: relief − cost > price + margin must hold.
    pub fn useful_max(&self, margin: Cost) -> Cost {
        self.relief.minus(self.price()).minus(margin).minus(Cost(1))
    }
}

/// The candidates that are worth asking about, best first: most relief per GiB copied, then the lowest id.
pub fn ranked(
    candidates: &[Candidate],
    lowest: Load,
    capacity: Capacity,
    margin: Cost,
) -> Vec<Offer> {
    let mut offers: Vec<Offer> = candidates
        .iter()
        .map(|candidate| Offer::of(*candidate, lowest, capacity))
        .filter(|offer| offer.useful_max(margin) > Cost(0))
        .collect();
    offers.sort_by_key(|o| (Reverse(relief_per_gib(o)), o.candidate.vm));
    offers
}

fn relief_per_gib(offer: &Offer) -> i128 {
    i128::from(offer.relief.minus(offer.candidate.apart).0) * 1024
        / i128::from(offer.candidate.copied.0.max(1))
}

/// Whether a move to a target that would cost `there` is worth it; if not, why.
///
/// # Errors
/// The reason, in figures.
pub fn worth_it(relief: Cost, there: Cost, price: Cost, margin: Cost) -> Result<(), String> {
    let gain = relief.minus(there);
    let needed = price.plus(margin);
    if gain > needed {
        Ok(())
    } else {
        Err(format!(
            "not worth it: relief {relief} − cost there {there} = {gain}, needed more than {needed}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{MilliCores, PacketsPerSec};

    fn candidate(id: u128, packets: u64, memory: u64) -> Candidate {
        let demand =
            Load { packets: PacketsPerSec(packets), memory: Mib(memory), ..Load::default() };
        Candidate { vm: VmId(id), demand, memory: Mib(memory), copied: Mib(memory), apart: Cost(0) }
    }

    fn host() -> Capacity {
        let packets = Some(PacketsPerSec(1000));
        Capacity { cpu: MilliCores(8000), memory: Mib(65_536), bits: None, packets }
    }

    #[test]
    fn the_vm_that_helps_most_for_the_least_copying_comes_first() {
        let all = [candidate(1, 300, 512), candidate(2, 800, 512), candidate(3, 800, 4096)];
        let lowest = all.iter().fold(Load::default(), |sum, c| sum.plus(c.demand));
        let order: Vec<u128> = ranked(&all, lowest, host(), Cost::percent(1))
            .iter()
            .map(|o| o.candidate.vm.0)
            .collect();
        assert_eq!(order, [2, 1, 3]);
    }

    #[test]
    fn one_that_talks_with_those_that_stay_comes_after_one_that_does_not() {
        let talks = Candidate { apart: Cost::percent(20), ..candidate(1, 400, 512) };
        let all = [talks, candidate(2, 390, 512), candidate(3, 200, 512)];
        let lowest = all.iter().fold(Load::default(), |sum, c| sum.plus(c.demand));
        let ranked = ranked(&all, lowest, host(), Cost::percent(1));
        assert_eq!(ranked[0].candidate.vm, VmId(2));
        let talks = ranked.iter().find(|offer| offer.candidate.vm == VmId(1)).unwrap();
        let alone = Offer::of(candidate(1, 400, 512), lowest, host());
        let less = alone.useful_max(Cost(0)).minus(talks.useful_max(Cost(0)));
        assert_eq!(less, Cost::percent(20));
    }

    #[test]
    fn what_would_not_pay_is_not_asked_about() {
        let all = [candidate(1, 3, 512)];
        assert_eq!(ranked(&all, all[0].demand, host(), Cost::percent(1)), []);
    }

    #[test]
    fn worth_it_names_its_figures() {
        let no = worth_it(Cost::percent(10), Cost::percent(4), Cost::percent(1), Cost::percent(5))
            .unwrap_err();
        assert_eq!(
            no,
            "not worth it: relief 10.00 % − cost there 4.00 % = 6.00 %, needed more than 6.00 %"
        );
        assert_eq!(
            worth_it(Cost::percent(11), Cost::percent(4), Cost::percent(1), Cost::percent(5)),
            Ok(())
        );
    }
}
