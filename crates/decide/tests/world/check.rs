//! What must hold in every instant of the world, whatever its hosts believe.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use decide::host::Host;
use decide::migrate::hypervisor::Seen;
use decide::negotiate::Limits;
use decide::placement::admission::{room, size_with_overhead};
use decide::policy::cost;
use decide::units::{Cost, HostId, Mib, MoveId, Time, VmId};
use decide::usage::load::Load;

use super::scene::Guest;
use super::{Site, World};

/// A move that passed a VM from one host to another.
#[derive(Clone, Debug)]
pub(crate) struct Passed {
    pub(crate) id: MoveId,
    pub(crate) vm: VmId,
    pub(crate) to: u8,
    /// The sum of all hosts' costs before and after.
    pub(crate) before: Cost,
    pub(crate) after: Cost,
}

#[derive(Default)]
pub(crate) struct Checks {
    /// VMs of which a process was killed: they may be gone.
    pub(crate) killed: BTreeSet<VmId>,
    pub(crate) passed: Vec<Passed>,
    /// Whose load counts where it is.
    at: BTreeMap<VmId, u8>,
    offers: BTreeMap<(u8, MoveId), Time>,
    /// Reservations that ended.
    pub(crate) offers_ended: u64,
}

impl Checks {
    pub(crate) fn place(&mut self, vm: VmId, at: u8) {
        self.at.insert(vm, at);
    }

    /// What all hosts' loads cost together, each VM counted at its owner.
    pub(crate) fn sum_of_costs(
        &self,
        guests: &BTreeMap<VmId, Guest>,
        sites: &BTreeMap<u8, Site>,
    ) -> Cost {
        sites.iter().fold(Cost(0), |sum, (n, site)| {
            let here = self.at.iter().filter(|(_, at)| *at == n);
            let load = here.fold(Load::default(), |sum, (vm, _)| sum.plus(guests[vm].load()));
            sum.plus(cost::of_load(load, site.machine.capacity()))
        })
    }
}

/// A VM has been let run at its new owner.
pub(crate) fn passed(world: &mut World, to: u8, id: MoveId, vm: VmId, before: Cost) {
    world.checks.place(vm, to);
    let after = world.checks.sum_of_costs(&world.guests, &world.sites);
    world.checks.passed.push(Passed { id, vm, to, before, after });
}

pub(crate) fn all(world: &mut World) {
    copies(world);
    rooms(world);
    reservations(world);
}

fn copies(world: &World) {
    for vm in world.guests.keys() {
        let running = world.runs_at(*vm);
        assert!(running.len() <= 1, "{vm} runs at {running:?}: {}", world.story());
        let lives = |site: &Site| !matches!(site.hypervisor.seen(*vm), Seen::Gone | Seen::Incoming);
        let lost = !world.sites.values().any(lives);
        assert!(!lost || world.checks.killed.contains(vm), "{vm} is lost: {}", world.story());
    }
}

fn rooms(world: &World) {
    for (n, site) in &world.sites {
        let Some(host) = &site.host else { continue };
        let taken = taken(host);
        let room = room(&world.settings.target, site.machine.memory);
        assert!(taken <= room, "host{n}: {taken} taken of {room}: {}", world.story());
    }
}

/// Room that guests here, and those that have been promised room, take.
fn taken(host: &Host) -> Mib {
    let used = host.vms().values().map(|vm| size_with_overhead(vm.definition.memory));
    let offers = host.reservations().offers().values();
    let reserved = offers.filter(|o| !host.vms().contains_key(&o.vm)).map(|o| o.size);
    used.chain(reserved).fold(Mib(0), Mib::plus)
}

/// No reservation outlives all waits that can follow each other while it lasts.
fn reservations(world: &mut World) {
    let limits = Limits::default();
    let longest = limits.reserved + limits.readiness_within * 3 + Duration::from_secs(600);
    let mut open = BTreeMap::new();
    for (n, site) in &world.sites {
        for id in site.host.iter().flat_map(|host| host.reservations().offers().keys()) {
            let since = world.checks.offers.get(&(*n, *id)).copied().unwrap_or(world.now);
            assert!(world.now.since(since) < longest, "{id} has been reserved since {since:?}");
            open.insert((*n, *id), since);
        }
    }
    let ended = world.checks.offers.keys().filter(|key| !open.contains_key(*key)).count();
    world.checks.offers_ended += ended as u64;
    world.checks.offers = open;
}

/// Whether no move is open anywhere: no process waits for one, no journal has one, every VM runs at one host that owns it.
pub(crate) fn settled(world: &World) -> Result<(), String> {
    for (n, site) in &world.sites {
        if let Some((id, record)) = site.journal.moves.first_key_value() {
            return Err(format!("host{n} has {id} open: {record:?}"));
        }
        let seen = site.hypervisor.processes.values().map(|p| p.seen);
        if let Some(odd) = seen.into_iter().find(|s| !matches!(s, Seen::Running | Seen::Paused)) {
            return Err(format!("host{n} has a process {odd:?}"));
        }
    }
    for vm in world.guests.keys() {
        let owners = owners(world, *vm);
        let running: Vec<HostId> = world.runs_at(*vm).into_iter().map(super::host_id).collect();
        if owners != running || owners.len() != 1 {
            return Err(format!("{vm} is owned by {owners:?} and runs at {running:?}"));
        }
    }
    Ok(())
}

fn owners(world: &World, vm: VmId) -> Vec<HostId> {
    let owns = |site: &&Site| {
        use decide::migrate::record::Ownership;
        site.journal.vms.get(&vm).is_some_and(|record| record.ownership == Ownership::Owner)
    };
    let sites = world.sites.iter().filter(|(_, site)| owns(site));
    sites.map(|(n, _)| super::host_id(*n)).collect()
}
