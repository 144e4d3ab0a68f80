//! Every balancing move lowers the sum of costs over all hosts by more than the margin: judged by the loads as they are, while
//! they are steady.
//!
//! Moves under way together may pass in another order than they were judged in. A source judges each with those before it gone,
//! a target with those before it there; so it is in the order of judging that each lowers the sum, and it is judged in that
//! order here, once all are over.

use std::collections::BTreeMap;
use std::time::Duration;

use decide::policy::settings::{Settings, Trigger};
use decide::units::{Cost, MoveId, Time, VmId};

use super::{Checks, Passed, Property, rules, transactions};
use crate::hypervisor;
use crate::world::World;
use crate::world::scene::costs_of;

/// Rates are whole numbers, and a guest's pause shows in them: what each side reads may be off by a little.
const ROUNDING: Cost = Cost(500_000);

/// Whoever has arrived is measured after this long.
const MEASURED: Duration = Duration::from_secs(5);

/// While loads are steady.
#[derive(Debug)]
pub(super) struct Steady {
    /// Balancing moves that began later are judged.
    since: Time,
    /// Where each VM was then.
    at: BTreeMap<VmId, u16>,
    /// How many had passed before.
    passed: usize,
}

/// A VM has been let run at its new owner.
pub(super) fn passed(checks: &mut Checks, world: &World, passed: hypervisor::Passed) {
    let hypervisor::Passed { id, vm, to } = passed;
    checks.at.insert(vm, to);
    rules::has_gone(checks, id, vm);
    let (when, asked) = (world.now, checks.asked.get(&id).copied());
    let balancing = asked.filter(|(_, balancing)| *balancing).map(|(when, _)| when);
    let half = checks.half(id, to);
    checks.passed.push(Passed { id, vm, to, when, balancing, half });
}

/// Loads are steady from now on, and known to all from `since` on. What has passed before is judged.
pub(super) fn steady(checks: &mut Checks, world: &World, since: Time) {
    judge(checks, world);
    let (mut at, passed) = (checks.at.clone(), checks.passed.len());
    // What is down has no load, also if it is started again before this is judged.
    at.retain(|vm, _| !checks.down.contains(vm));
    checks.steady = Some(Steady { since, at, passed });
}

/// Judges all that passed while loads were steady, by the loads as they are.
pub(super) fn judge(checks: &mut Checks, world: &World) {
    let Some(Steady { since, mut at, passed }) = checks.steady.take() else { return };
    // Nor has what has gone down since.
    at.retain(|vm, _| !checks.down.contains(vm));
    let order = checks.as_judged(passed);
    // A VM that was asked about before loads were known is counted by the load of then as long as it is on its way, and by its
    // new one only once it has been measured where it went: until then nothing is judged that leaves there, or goes there too.
    let too_early = |id: &MoveId| checks.asked.get(id).is_none_or(|(when, _)| *when < since);
    let late: Vec<Passed> = order.iter().filter(|passed| too_early(&passed.id)).cloned().collect();
    let unknown = |host: u16, when: Time| {
        late.iter().any(|late| late.to == host && when < late.when.plus(MEASURED))
    };
    let margin = margin(&world.settings);
    for (parts, broken) in transactions(&order) {
        let Passed { id, vm, to, balancing, .. } = *parts[0];
        let Some(from) = at.get(&vm).copied() else { continue };
        let both = |at: u16| at == from || at == to;
        let before = costs_of(world, &at, both);
        for part in &parts {
            // What went down since has no load.
            if let Some(at) = at.get_mut(&part.vm) {
                *at = part.to;
            }
        }
        let lower = before.minus(costs_of(world, &at, both));
        let known = |began: Time| began >= since && !unknown(from, began) && !unknown(to, began);
        if broken || !balancing.is_some_and(known) {
            continue;
        }
        checks.judged += 1;
        if lower.plus(ROUNDING) <= margin {
            let what =
                format!("{id} lowered the sum of costs by {lower}, not by more than {margin}");
            checks.fails(Property::CostsFall, world.now, vm, what);
        }
    }
}

/// What each balancing move must bring at the least.
fn margin(settings: &Settings) -> Cost {
    let Settings { mode, worth_it, spread, .. } = settings;
    match mode.trigger {
        Trigger::Spread | Trigger::Packets => worth_it.gain_min.min(spread.gain_min),
        Trigger::Hot | Trigger::Consolidate => worth_it.gain_min,
    }
}
