//! Room: never overcommitted, and what is kept for nobody ends.

use std::collections::BTreeMap;
use std::time::Duration;

use decide::host::Host;
use decide::migrate::precopy;
use decide::negotiate::Limits;
use decide::negotiate::target::Stage;
use decide::placement::admission::{room, size_with_overhead};
use decide::units::{BitsPerSec, Mib};

use super::{Checks, Property};
use crate::world::World;

/// How much slower the slowest clock may run, and what a tick may be late.
const SLACK: Duration = Duration::from_secs(5);
/// Within so long an agent has seen what an operator started.
const SEEN_AFTER: Duration = Duration::from_secs(60);

pub(super) fn check(checks: &mut Checks, world: &World, at: u16) {
    let site = &world.sites[&at];
    let Some(host) = &site.host else {
        checks.offers.remove(&at);
        return;
    };
    let taken = taken(host);
    let room = room(&world.settings.target, site.machine.memory);
    let since = checks.overfilled.get(&at).copied();
    if taken <= room && since.is_some_and(|since| world.now.since(since) > SEEN_AFTER) {
        checks.overfilled.remove(&at);
    }
    if taken > room && since.is_none() {
        let what = format!("host{at}: {taken} taken of {room}");
        checks.fails(Property::Room, world.now, None, what);
    }
    reservations(checks, world, at, host);
}

/// Room that guests here, and those that have been promised room, take.
pub(crate) fn taken(host: &Host) -> Mib {
    let used = host.vms().values().map(|vm| size_with_overhead(vm.definition.memory));
    let offers = host.reservations().offers().values();
    let reserved = offers.filter(|o| !host.vms().contains_key(&o.vm)).map(|o| o.size);
    used.chain(reserved).fold(Mib(0), Mib::plus)
}

/// No reservation outlives all waits that can follow each other while it lasts.
fn reservations(checks: &mut Checks, world: &World, at: u16, host: &Host) {
    let offers = host.reservations().offers();
    let before = checks.offers.remove(&at).unwrap_or_default();
    if offers.is_empty() && before.is_empty() {
        return;
    }
    let limits = Limits::default();
    let mut open = BTreeMap::new();
    for (id, offer) in offers {
        let since = before.get(id).copied().unwrap_or(world.now);
        let longest = match offer.stage {
            Stage::Offered => limits.reserved + SLACK,
            Stage::Confirmed | Stage::Preparing | Stage::Ready => {
                limits.reserved + limits.readiness_within * 3 + move_takes(offer.size)
            }
        };
        let lasts = world.now.since(since);
        if lasts > longest {
            let what =
                format!("host{at}: {id} has been {:?} for {} s", offer.stage, lasts.as_secs());
            checks.fails(Property::ReservationsEnd, world.now, offer.vm, what);
        }
        open.insert(*id, since);
    }
    checks.offers_ended += before.keys().filter(|id| !open.contains_key(*id)).count() as u64;
    checks.offers.insert(at, open);
}

/// The longest that a move may take over the slowest link, faults and restarts included.
fn move_takes(memory: Mib) -> Duration {
    precopy::longest(memory, BitsPerSec(500_000_000)) * 2 + Duration::from_secs(660)
}
