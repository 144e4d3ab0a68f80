//! What an operator does to a cluster at work, on the production hosts: VMs excluded by hand.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::time::Duration;

use decide::host::story::Step;
use decide::host::{Ask, Event, Host};
use decide::policy::rules::Excluded;
use decide::policy::rules::hours::LocalTimes;
use decide::policy::rules::until::Until;
use decide::units::MoveId;
use sim::world::scene::{flooded, settings, vm_id};
use sim::world::{World, host_id};

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn by_hand(world: &mut World, at: u16, vm: u32, to: u16) -> Result<MoveId, String> {
    world.ask(at, Ask::Move { vm: vm_id(vm), to: Some(host_id(to)) })
}

fn at(world: &World, vm: u32) -> Vec<u16> {
    world.runs_at(vm_id(vm)).into_iter().collect()
}

fn host(world: &World, at: u16) -> &Host {
    world.sites[&at].host.as_ref().unwrap()
}

/// What hosts said of this kind.
fn said(world: &World, step: Step) -> Vec<&str> {
    let notes = world.notes.iter().filter(|(.., note)| note.step == step);
    notes.map(|(.., note)| &*note.reason).collect()
}

/// What the calendar says, told to all agents.
fn tell_time(world: &mut World, unix: u64) {
    for n in world.sites.keys().copied().collect::<Vec<_>>() {
        world.handle(n, Event::LocalTimes(LocalTimes { unix, zones: BTreeMap::new() }));
    }
}

/// An operator at host 1 excludes a VM, until then if that is said.
fn exclude(world: &mut World, vm: u32, until: Option<u64>) {
    let excluded = until.map_or(Excluded::Always, |until| Excluded::Until(Until(until)));
    world.handle(1, Event::Excluded { vm: vm_id(vm), excluded: Some(excluded) });
}

#[test]
fn a_vm_that_is_excluded_by_hand_stays_until_its_time_comes() {
    let mut world = flooded(settings());
    tell_time(&mut world, 1000);
    exclude(&mut world, 1, Some(1060));
    exclude(&mut world, 1, Some(1060));
    let noted = "vm1 is excluded by hand until 1970-01-01T00:17:40Z: neither balancing nor rules move it from this host";
    assert_eq!(said(&world, Step::VmPolicy), [noted], "once");
    exclude(&mut world, 2, None);
    world.run(secs(40));
    let why = "exclude: it is left where it is until 1970-01-01T00:17:40Z, by hand".to_owned();
    assert_eq!(host(&world, 1).may_be_balanced(world.now, vm_id(1)), Err(why));
    assert!(!world.noted(Step::Request), "{}", world.story());
    tell_time(&mut world, 1060);
    assert_eq!(host(&world, 1).exclusions().len(), 1);
    assert!(said(&world, Step::VmPolicy).contains(&"the time has come to which vm1 was excluded"));
    world.run(secs(60));
    assert_eq!(at(&world, 1), [3], "{}", world.story());
}

#[test]
fn a_vm_that_is_excluded_for_good_stays_until_it_is_included_and_by_hand_it_goes() {
    let mut world = flooded(settings());
    exclude(&mut world, 1, None);
    exclude(&mut world, 2, None);
    world.run(secs(60));
    assert_eq!(at(&world, 1), [1], "{}", world.story());
    by_hand(&mut world, 1, 1, 2).unwrap();
    let asked = "asked for by hand, to host2, although exclude: it is left where it is, by hand";
    assert!(said(&world, Step::VmPolicy).contains(&asked), "{}", world.story());
    world.run(secs(30));
    assert_eq!(at(&world, 1), [2], "{}", world.story());
    assert_eq!(world.settled(), Ok(()));

    let mut world = flooded(settings());
    exclude(&mut world, 1, None);
    exclude(&mut world, 2, None);
    world.run(secs(30));
    world.handle(1, Event::Excluded { vm: vm_id(1), excluded: None });
    assert!(said(&world, Step::VmPolicy).contains(&"vm1 is excluded by hand no more"));
    world.run(secs(60));
    assert_eq!(at(&world, 1), [3], "{}", world.story());
}
