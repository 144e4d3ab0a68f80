//! Of each VM: one running copy at most, one good copy at least, no incoming side that nobody knows of.

use decide::migrate::hypervisor::Seen;
use decide::units::VmId;

use super::{Checks, Property};
use crate::world::World;

pub(super) fn check(checks: &mut Checks, world: &World, vm: VmId) {
    if checks.doubled.contains(&vm) {
        return;
    }
    let now = world.now;
    let mut running = Vec::new();
    let mut good = false;
    for (at, process) in world.fleet.of(vm) {
        if process.executes() {
            running.push(at);
            if process.stale {
                let what = format!("{vm} goes on at host{at} from a memory left behind");
                checks.fails(Property::MemoryNeverGoesBack, now, vm, what);
            }
        }
        good |= process.is_complete() && !process.stale;
        if process.seen == Seen::Incoming {
            let known = |id| world.sites[&at].journal.moves.contains_key(&id);
            if !process.move_id().is_some_and(known) {
                let what =
                    format!("host{at} has an incoming side that its journal knows nothing of");
                checks.fails(Property::NoOrphan, now, vm, what);
            }
        }
    }
    if running.len() > 1 {
        checks.fails(Property::OneRunningCopy, now, vm, format!("{vm} runs at {running:?}"));
    }
    if !good && !checks.down.contains(&vm) {
        let what = format!("no complete copy of {vm} is left, and no fault took the last");
        checks.fails(Property::NothingLost, now, vm, what);
    }
}
