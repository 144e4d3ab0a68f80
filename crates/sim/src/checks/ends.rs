//! What must be so in the end, once everything is whole again.

use std::collections::{BTreeMap, BTreeSet};

use decide::membership::HostState;
use decide::migrate::hypervisor::{CopyParameters, Seen};
use decide::migrate::record::Ownership;
use decide::placement::admission::{fits, room, size_with_overhead};
use decide::policy::cost;
use decide::policy::settings::{Copy, Settings};
use decide::units::{BitsPerSec, Cost, Mib, VmId};
use decide::usage::load::{Capacity, Load};

use super::taken;
use crate::world::{World, host_id};

/// What is not yet as it must be in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotYet {
    /// The VM that it is about, if it is about one.
    pub vm: Option<VmId>,
    /// What it is.
    pub what: String,
}

impl NotYet {
    fn of(vm: VmId, what: String) -> NotYet {
        NotYet { vm: Some(vm), what }
    }
}

impl From<String> for NotYet {
    fn from(what: String) -> NotYet {
        NotYet { vm: None, what }
    }
}

/// Whether no move is open anywhere: no process waits for one, no journal has one, every VM is at the one host that owns it.
///
/// # Errors
/// The first thing that is still open, or not as it must be in the end.
pub fn settled(world: &World) -> Result<(), NotYet> {
    for (n, site) in &world.sites {
        let Some(host) = &site.host else {
            return Err(format!("the agent of host{n} is down").into());
        };
        if let Some((id, record)) = site.journal.moves.first_key_value() {
            return Err(NotYet::of(
                record.vm,
                format!("host{n} has {id} open: {:?}", record.stage),
            ));
        }
        let awaited = host.moves_under_way();
        if awaited > 0 {
            return Err(format!("host{n} counts {awaited} moves as under way").into());
        }
        let odd = world
            .fleet
            .processes(*n)
            .find(|(_, process)| !matches!(process.seen, Seen::Running | Seen::Paused));
        if let Some((vm, process)) = odd {
            return Err(NotYet::of(
                vm,
                format!("host{n} has a process {:?} of {vm}", process.seen),
            ));
        }
        let here: BTreeSet<VmId> = world.fleet.processes(*n).map(|(vm, _)| vm).collect();
        // What is down is still listed; so is, until the next start, what died at its new owner and is gone here too.
        let gone = |owner| matches!(owner, Ownership::Down | Ownership::Released(..));
        let known = host.vms().iter().filter(|(_, vm)| !gone(vm.record.ownership));
        let known: BTreeSet<VmId> = known.map(|(vm, _)| *vm).collect();
        if let Some(vm) = here.symmetric_difference(&known).next() {
            let (has, record) = (here.contains(vm), host.vms().get(vm).map(|vm| vm.record));
            let what = format!("host{n} has {vm}: {has}; its agent thinks {record:?}");
            return Err(NotYet::of(*vm, what));
        }
    }
    world.guests.keys().try_for_each(|vm| owned(world, vm))
}

/// Whether a VM is at one host alone, its owner; one that is down is nowhere, and nobody else's than its last owner's.
fn owned(world: &World, vm: VmId) -> Result<(), NotYet> {
    let is = |n: &u16, ownership| {
        world.sites[n].journal.vms.get(&vm).is_some_and(|record| record.ownership == ownership)
    };
    let owners: Vec<u16> =
        world.sites.keys().copied().filter(|n| is(n, Ownership::Owner)).collect();
    let at: Vec<u16> = world.fleet.of(vm).map(|(at, _)| at).collect();
    if world.checks.down().contains(&vm) {
        let down = world.sites.keys().filter(|n| is(n, Ownership::Down)).count();
        return if at.is_empty() && owners.len() + down <= 1 {
            Ok(())
        } else {
            let what = format!("{vm} is down, but at {at:?}, owned by {owners:?} and {down} more");
            Err(NotYet::of(vm, what))
        };
    }
    if owners != at || owners.len() != 1 {
        return Err(NotYet::of(vm, format!("{vm} is owned by {owners:?} and is at {at:?}")));
    }
    Ok(())
}

/// Whether every agent holds all others for alive, and has heard what they have now.
///
/// # Errors
/// The first two that do not agree.
pub fn agreed(world: &World) -> Result<(), NotYet> {
    let mut said = BTreeMap::new();
    for (n, site) in &world.sites {
        let Some(host) = &site.host else {
            return Err(format!("the agent of host{n} is down").into());
        };
        let digest = host.digest(site.clock.shown(world.now));
        said.insert(host_id(*n), (digest.inventory, digest.vms));
    }
    for (n, site) in &world.sites {
        let host = site.host.as_ref().expect("the loop before has seen it");
        if host.membership().alive().count() + 1 != world.sites.len() {
            let others = host.membership().hosts();
            let odd = others.filter(|view| view.state != HostState::Alive);
            let odd: Vec<String> =
                odd.map(|view| format!("{} {:?}", view.peer.name, view.state)).collect();
            return Err(format!("host{n} does not see all others alive: {}", odd.join(", ")).into());
        }
        for view in host.membership().hosts() {
            let heard = view.digest.as_ref().map(|digest| (digest.inventory, digest.vms));
            if view.state != HostState::Alive || heard.as_ref() != said.get(&view.peer.host) {
                return Err(format!("host{n} has not heard what {} has now", view.peer.name).into());
            }
        }
    }
    Ok(())
}

/// Whether no host is hot of which a move would help.
///
/// # Errors
/// The first that is, and what it does about it.
pub fn cool(world: &World) -> Result<(), NotYet> {
    for (n, site) in &world.sites {
        let Some(host) = &site.host else { continue };
        if host.crossed().next().is_some() && some_move_pays(world, *n) {
            return Err(format!("host{n} is hot: {}", host.doing()).into());
        }
    }
    Ok(())
}

/// Whether the policy would want some VM to leave this host, by the loads as they are: a host that is hardly over its threshold
/// stays so where no departure is worth a move, of VMs that do not rest, whose copies would end, and which no rule keeps, to a
/// host that has room, that it would bring beyond no limit, and that no rule forbids.
fn some_move_pays(world: &World, from: u16) -> bool {
    /// What loads as hosts measure them may be off, in percent of pressure.
    const MEASURED: Cost = Cost::percent(1);
    let site = &world.sites[&from];
    let Some(host) = &site.host else { return false };
    let now = site.clock.shown(world.now);
    let at = world.checks.places();
    let vms_at = |n: u16| at.iter().filter(move |(_, at)| **at == n).map(|(vm, _)| *vm);
    let load =
        |n: u16| vms_at(n).fold(Load::default(), |sum, vm| sum.plus(world.guests[&vm].load()));
    let capacity = |n: u16| world.sites[&n].machine.capacity();
    let own = load(from);
    let others: Vec<(u16, Load, Capacity, Mib)> = world
        .sites
        .keys()
        .filter(|n| **n != from)
        .map(|n| (*n, load(*n), capacity(*n), free(world, *n)))
        .collect();
    let ruled = &world.checks.ruled;
    let takes = |vm: VmId, n: u16| {
        let apart = || ruled.apart_from(vm).all(|other| at.get(&other) != Some(&n));
        ruled.pinned(vm, n) && apart()
    };
    let needed = world.settings.worth_it.gain_min.plus(MEASURED);
    let rests = |vm: VmId| host.vms().get(&vm).is_none_or(|here| now < here.rest_until);
    let Copy { bandwidth, downtime, downtime_max, multifd } = world.settings.copy;
    let bandwidth = BitsPerSec(site.machine.link.0 / 1000 * u64::from(bandwidth.0));
    let parameters = CopyParameters {
        bandwidth,
        downtime_max: downtime,
        multifd,
        encrypted: false,
        auto_converge: false,
        copy_disks: false,
    };
    let ends = |vm: VmId| world.fleet.memory(vm).copy_ends(parameters, downtime_max.max(downtime));
    let may = |vm: VmId| ruled.may_leave(vm) && !rests(vm) && ends(vm);
    vms_at(from).filter(|vm| may(*vm)).any(|id| {
        let vm = world.guests[&id].load();
        let rid = cost::relief(own, vm, capacity(from)).minus(cost::of_copy(vm.memory));
        let size = size_with_overhead(vm.memory);
        let bears = |load: Load, capacity: Capacity| {
            let Settings { target, hot, .. } = &world.settings;
            // What hosts measure may be a little more.
            fits(vm, load.plus(load.divided(100)), capacity, target, hot).is_ok()
        };
        let there = others.iter().filter(|(n, load, capacity, free)| {
            size <= *free && bears(*load, *capacity) && takes(id, *n)
        });
        let there = there.map(|(_, load, capacity, _)| cost::of_arrival(*load, vm, *capacity));
        there.min().is_some_and(|there| rid.minus(there) > needed)
    })
}

/// Room that a host has for guests, by its agent's word.
fn free(world: &World, at: u16) -> Mib {
    let site = &world.sites[&at];
    let taken = site.host.as_ref().map(taken);
    taken.map_or(Mib(0), |taken| room(&world.settings.target, site.machine.memory).minus(taken))
}
