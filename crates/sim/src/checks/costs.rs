//! Every balancing move lowers the sum of costs over all hosts by more than the margin: judged by the loads as they are.

use decide::units::Cost;

use super::{Checks, Passed, Property};
use crate::hypervisor;
use crate::world::World;
use crate::world::scene::sum_of_costs;

pub(super) fn check(checks: &mut Checks, world: &World, passed: hypervisor::Passed) {
    let hypervisor::Passed { id, vm, to } = passed;
    let before = sum_of_costs(world, &checks.at);
    checks.at.insert(vm, to);
    let after = sum_of_costs(world, &checks.at);
    let balancing = checks.balancing.get(&id).copied();
    checks.passed.push(Passed { id, vm, to, before, after, balancing });
    let judged = checks.steady_since.is_some_and(|since| balancing.is_some_and(|at| at >= since));
    let (lower, margin) = (before.minus(after), world.settings.worth_it.gain_min);
    // Rates are whole numbers: each side may be off by a few thousandths.
    if judged && lower.plus(ROUNDING) <= margin {
        let what = format!("{id} lowered the sum of costs by {lower}, not by more than {margin}");
        checks.fails(Property::CostsFall, world.now, vm, what);
    }
}

const ROUNDING: Cost = Cost(500_000);
