//! Rules of some clusters, in settings and in tags, and what persons do about them.

use std::collections::BTreeSet;

use decide::host::Ask;
use decide::policy::rules::{Exclude, Group, Kind, Pin};
use decide::policy::settings::Balance;
use decide::units::VmId;

use super::scenario::one_guest;
use crate::checks::Ruled;
use crate::world::{World, host_id, host_name, number};

/// Labels that hosts bear, one each.
const LABELS: [&str; 3] = ["rack-a", "rack-b", "rack-c"];

/// Rules of all kinds, until a share of the VMs is under one. Most hold at first.
pub(super) fn lay_down(world: &mut World) {
    let at: Vec<u16> = world.sites.keys().copied().collect();
    for at in &at {
        let label = LABELS[usize::from(at % 3)].to_owned();
        world.sites.get_mut(at).expect("it was listed").here.labels = vec![label];
    }
    let modes = [Balance::Off, Balance::Recommend, Balance::Automatic, Balance::Automatic];
    world.settings.mode.rules = modes[world.draw(4) as usize];
    let mut loose: Vec<VmId> = world.guests.keys().collect();
    let wanted = loose.len() * (20 + world.draw(50) as usize) / 100;
    let (mut ruled, all) = (Ruled::default(), loose.len());
    while all - loose.len() < wanted && !loose.is_empty() {
        let n = world.draw(u32::try_from(loose.len()).unwrap_or(1)) as usize;
        let first = loose.swap_remove(n);
        match world.draw(6) {
            0..2 => ruled.apart.extend(group(world, first, &mut loose, Kind::AntiAffinity)),
            2 => ruled.together.extend(group(world, first, &mut loose, Kind::Affinity)),
            3 => {
                let hosts = pin(world, first, false);
                ruled.pins.entry(first).or_default().push(hosts);
            }
            4 => drop(pin(world, first, true)),
            _ => {
                ruled.excluded.insert(first);
                exclude(world, first);
            }
        }
    }
    world.checks.lay_down(ruled);
}

/// A group of a few VMs: those that keep apart are mostly at hosts of their own at first, those that stay together at one.
fn group(
    world: &mut World,
    first: VmId,
    loose: &mut Vec<VmId>,
    kind: Kind,
) -> Option<BTreeSet<VmId>> {
    let size = match kind {
        Kind::AntiAffinity => 2 + world.draw(4) as usize,
        Kind::Affinity => 2,
    };
    let anywhere = world.draw(4) == 0;
    let mut group = BTreeSet::from([first]);
    let places = world.checks.places();
    loose.retain(|vm| {
        let beside = group.iter().any(|other| places[other] == places[vm]);
        let fits = anywhere || beside == (kind == Kind::Affinity);
        let joins = group.len() < size && fits;
        if joins {
            group.insert(*vm);
        }
        !joins
    });
    if group.len() < 2 {
        return None;
    }
    let name = format!("of-{}", world.guests[&first].definition.name);
    let mut listed = Vec::new();
    for vm in &group {
        if world.draw(2) == 0 {
            let tag = format!("evenkeel:{}={name}", kind.name());
            tags(world, *vm).push(tag);
        } else {
            listed.push(world.guests[vm].definition.name.clone());
        }
    }
    world.settings.rules.group.push(Group { name, kind, vms: listed });
    Some(group)
}

/// Pins a VM to some hosts, mostly with the one where it is; these.
fn pin(world: &mut World, vm: VmId, should: bool) -> BTreeSet<u16> {
    let all: Vec<u16> = world.sites.keys().copied().collect();
    let mut right = BTreeSet::new();
    let (mut hosts, mut labels) = (Vec::new(), Vec::new());
    if world.draw(2) == 0 {
        let n = u16::try_from(world.draw(3)).unwrap_or(0);
        labels.push(LABELS[usize::from(n)].to_owned());
        right.extend(all.iter().filter(|at| *at % 3 == n));
    } else {
        let size = 2 + world.draw(3) as usize;
        right.extend((0..size).map(|_| all[world.draw(u32::from(u16::MAX)) as usize % all.len()]));
        if world.draw(4) > 0 {
            right.insert(world.checks.places()[&vm]);
        }
        hosts.extend(right.iter().map(|at| host_name(*at)));
    }
    if world.draw(2) == 0 {
        let word = if should { "prefer" } else { "pin" };
        let hosts = hosts.iter().map(|host| format!("evenkeel:{word}={host}"));
        let labels = labels.iter().map(|label| format!("evenkeel:{word}-label={label}"));
        let words: Vec<String> = hosts.chain(labels).collect();
        tags(world, vm).extend(words);
    } else {
        let vms = vec![world.guests[&vm].definition.name.clone()];
        world.settings.rules.pin.push(Pin { vms, hosts, labels, should });
    }
    right
}

/// Nobody applies anything here: modes that wait for a person keep a VM where it is too.
fn exclude(world: &mut World, vm: VmId) {
    if world.draw(2) == 0 {
        let words: &[&str] = match vm.0 % 3 {
            0 => &["evenkeel:exclude"],
            1 => &["evenkeel:balance=off", "evenkeel:rules=recommend"],
            _ => &["evenkeel:balance=recommend", "evenkeel:rules=off"],
        };
        tags(world, vm).extend(words.iter().map(|word| (*word).to_owned()));
    } else {
        let vms = vec![world.guests[&vm].definition.name.clone()];
        world.settings.rules.exclude.push(Exclude { vms, until: None });
    }
}

fn tags(world: &mut World, vm: VmId) -> &mut Vec<String> {
    &mut world.guests.get_mut(&vm).expect("a guest of this world").definition.tags
}

/// A person does something that has to do with rules.
pub(super) fn turn(world: &mut World) {
    match world.draw(8) {
        0 => {
            let at = one_host(world);
            let maintenance = !world.sites[&at].here.maintenance;
            world.maintain(at, maintenance);
        }
        1..3 => exclude_by_hand(world),
        3 => force(world),
        _ => bring_together(world),
    }
}

/// Persons have lifted what they may lift: no host is in maintenance, and no VM is excluded by hand.
pub(super) fn lift(world: &mut World) {
    for at in world.sites.keys().copied().collect::<Vec<_>>() {
        if world.sites[&at].here.maintenance {
            world.maintain(at, false);
        }
        for vm in world.sites[&at].excluded.clone() {
            world.exclude(at, vm, false);
        }
    }
}

fn one_host(world: &mut World) -> u16 {
    let n = world.draw(u32::try_from(world.sites.len()).unwrap_or(1)) as usize;
    world.sites.keys().nth(n).copied().expect("one of the hosts was drawn")
}

/// If one was named that would go in return for another, it may be that one: its move may not have begun yet.
fn exclude_by_hand(world: &mut World) {
    let vm = one_guest(world);
    let at = world.checks.places()[&vm];
    let named = world.checks.named_in_return.map(|(host, vm)| (number(host), vm));
    let (at, vm) = named.filter(|_| world.draw(2) == 0).unwrap_or((at, vm));
    let excluded = !world.sites[&at].excluded.contains(&vm);
    world.exclude(at, vm, excluded);
}

fn force(world: &mut World) {
    let (vm, to) = (one_guest(world), host_id(one_host(world)));
    let at = world.checks.places()[&vm];
    // That it is refused is an answer too.
    let _ = world.ask(at, Ask::Force { vm, to: Some(to) });
}

/// VMs that keep apart are asked to come to one host, at once.
fn bring_together(world: &mut World) {
    let groups = u32::try_from(world.checks.ruled.apart.len()).unwrap_or(0);
    let n = world.draw(groups) as usize;
    let Some(group) = world.checks.ruled.apart.get(n).cloned() else { return };
    let to = host_id(one_host(world));
    for vm in group {
        let at = world.checks.places()[&vm];
        if world.draw(4) > 0 {
            let _ = world.ask(at, Ask::Move { vm, to: Some(to) });
        }
    }
}
