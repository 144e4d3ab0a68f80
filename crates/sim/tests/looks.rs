//! Looks for a VM to move that find none: later and later, but at once when something has changed at that host.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use decide::host::Event;
use decide::host::story::Step;
use decide::policy::settings::Trigger;
use sim::world::World;
use sim::world::scene::{restless, vm_id};

/// Host 1 has all there is, and a person has it left there; it has looked in vain for ten minutes.
fn looked_in_vain() -> World {
    let mut settings = restless();
    settings.mode.trigger = Trigger::Spread;
    let mut world = World::of(1, 3, settings);
    for vm in [1, 2] {
        world.boot(1, vm, 4096, 4000, 10);
        world.exclude(1, vm_id(vm), true);
    }
    world.run(Duration::from_mins(10));
    assert!(!world.noted(Step::Request), "{}", world.story());
    let host = world.sites[&1].host.as_ref().unwrap();
    assert!(host.doing().contains("no VM here may leave"), "{}", host.doing());
    world
}

/// The next look of one that goes on waiting is up to two minutes away.
fn asks_within(world: &mut World, seconds: u64) {
    let asked = world.until(Duration::from_secs(seconds), |world| world.noted(Step::Request));
    assert!(asked, "{}", world.story());
}

#[test]
fn a_vm_that_a_person_lets_go_is_asked_about_at_once() {
    let mut world = looked_in_vain();
    world.exclude(1, vm_id(2), false);
    asks_within(&mut world, 2);
}

#[test]
fn one_that_comes_is_asked_about_once_it_was_watched() {
    let mut world = looked_in_vain();
    world.boot(1, 3, 1024, 2000, 10);
    // At the first look it was not yet.
    asks_within(&mut world, 35);
}

#[test]
fn a_host_that_is_switched_on_again_looks_at_once() {
    let mut world = looked_in_vain();
    world.handle(1, Event::Balancer { on: false });
    world.exclude(1, vm_id(2), false);
    world.run(Duration::from_mins(10));
    assert!(!world.noted(Step::Request), "{}", world.story());
    world.handle(1, Event::Balancer { on: true });
    asks_within(&mut world, 2);
}
