//! VMs that talk much with each other stay together, unless leaving relieves by more.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use decide::host::Ask;
use decide::host::story::Step;
use decide::policy::settings::Settings;
use decide::units::{BitsPerSec, Cost};
use sim::world::World;
use sim::world::scene::{settings, vm_id};

const MBIT: u64 = 1_000_000;

/// Host 1 is hot by vm1 and vm2, which are alike; vm1 sends `mbit` to vm3, which does nothing else.
fn alike(settings: Settings, mbit: u64) -> World {
    let mut world = World::of(1, 3, settings);
    world.boot(1, 1, 1024, 2000, 600);
    world.boot(1, 2, 1024, 2000, 600);
    world.boot(1, 3, 8192, 100, 0);
    world.boot(2, 4, 512, 500, 100);
    world.talks.set(vm_id(1), vm_id(3), BitsPerSec(mbit * MBIT));
    world
}

/// The first VM that leaves host 1 by itself within two minutes.
fn leaves(world: &mut World) -> Option<u128> {
    world.until(Duration::from_secs(120), |w| w.noted(Step::Confirmation));
    let confirmed = world.notes.iter().find(|(_, _, note)| note.step == Step::Confirmation);
    confirmed.and_then(|(_, _, note)| Some(note.vm?.0))
}

#[test]
fn of_two_vms_alike_the_one_leaves_that_talks_with_nobody_here() {
    assert_eq!(leaves(&mut alike(settings(), 0)), Some(1), "the lower one, if neither talks");
    assert_eq!(leaves(&mut alike(settings(), 400)), Some(2));
}

#[test]
fn traffic_that_does_not_count_keeps_nobody() {
    let mut settings = settings();
    settings.worth_it.traffic_apart = Cost(0);
    assert_eq!(leaves(&mut alike(settings, 400)), Some(1));
}

#[test]
fn vms_that_talk_more_than_leaving_would_relieve_stay_together_and_why_says_so() {
    let mut world = alike(settings(), 40_000);
    world.talks.set(vm_id(2), vm_id(3), BitsPerSec(40_000 * MBIT));
    assert_eq!(leaves(&mut world), None, "{}", world.story());
    let why = world.sites[&1].host.as_ref().unwrap().doing().to_owned();
    assert!(why.contains("would relieve it by more than"), "{why}");
    // A person may part them.
    world.ask(1, Ask::Move { vm: vm_id(1), to: None }).unwrap();
    assert!(world.until(Duration::from_secs(60), |w| w.noted(Step::Done)), "{}", world.story());
}

#[test]
fn what_it_costs_that_they_part_is_said() {
    let mut world = alike(settings(), 100);
    world.talks.set(vm_id(2), vm_id(3), BitsPerSec(100 * MBIT));
    assert_eq!(leaves(&mut world), Some(1));
    // 100 Mbit/s at 10 % a Gbit/s.
    assert!(world.story().contains("its traffic with VMs here 1.00 %"), "{}", world.story());
}
