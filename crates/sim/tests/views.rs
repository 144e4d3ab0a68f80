//! What hosts know of each other's VMs, as stories: lists that are fetched, two running copies that are told, hosts that are asked.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use decide::host::inventory::TWO_COPIES;
use decide::host::story::{Note, Step};
use decide::host::{Ask, Event};
use decide::membership::HostState;
use decide::migrate::hypervisor::{RunState, Seen, Sighting};
use decide::policy::settings::Settings;
use decide::units::Time;
use sim::world::scene::{settings, vm_id};
use sim::world::{World, host_id};

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Host 1 has vm1 and vm2, host 2 has vm3, host 3 has vm4; nobody is hot.
fn calm(settings: Settings) -> World {
    let mut world = World::of(1, 3, settings);
    for (vm, at) in [(1, 1), (2, 1), (3, 2), (4, 3)] {
        world.boot(at, vm, 512, 500, 100);
    }
    world.run(secs(5));
    world
}

#[test]
fn of_many_hosts_the_one_that_may_take_a_vm_by_its_own_word_is_asked() {
    let mut world = World::of(1, 20, settings());
    (3..=20).for_each(|n| world.boot(n, 100 + u32::from(n), 54_900, 500, 10));
    (1..=5).for_each(|vm| world.boot(1, vm, 512, 500, 10));
    world.run(secs(10));
    for vm in 1..=5 {
        world.ask(1, Ask::Move { vm: vm_id(vm), to: None }).unwrap();
        let went = world.until(secs(30), |w| w.runs_at(vm_id(vm)).contains(&2));
        assert!(went, "vm{vm}: {}", world.tale(Some(vm_id(vm))));
        world.run(secs(5));
    }
}

/// Hosts at which an alarm says that two copies run.
fn alarmed(world: &World) -> Vec<u16> {
    let told = |host: &decide::host::Host| {
        host.alarms().iter().any(|alarm| alarm.reason.starts_with(TWO_COPIES))
    };
    let sites = world.sites.iter();
    sites.filter(|(_, site)| site.host.as_ref().is_some_and(told)).map(|(at, _)| *at).collect()
}

/// What a host holds of the VMs of another, by number.
fn listed(world: &World, at: u16, of: u16) -> Vec<u32> {
    let host = world.sites[&at].host.as_ref().unwrap();
    let mut held = host.inventories().filter(|(view, ..)| view.peer.host == host_id(of));
    let vms = held.next().map(|(_, _, inventory)| inventory.vms.clone()).unwrap_or_default();
    vms.iter().map(|listed| u32::try_from(listed.vm.0).unwrap()).collect()
}

#[test]
fn every_host_holds_the_vms_of_the_others_also_after_a_move_and_losses() {
    let mut world = calm(settings());
    world.run(secs(20));
    assert_eq!((listed(&world, 2, 1), listed(&world, 3, 1)), (vec![1, 2], vec![1, 2]));
    world.net.lost = 300;
    world.ask(1, Ask::Move { vm: vm_id(1), to: Some(host_id(2)) }).unwrap();
    world.run(secs(300));
    world.net.lost = 0;
    world.run(secs(60));
    let to = world.runs_at(vm_id(1)).into_iter().next().unwrap();
    for (at, of) in [(3, 1), (3, 2), (1, 2), (2, 1)] {
        assert_eq!(listed(&world, at, of).contains(&1), of == to, "host{at} of host{of}");
    }
    let name = |at: u16| world.sites[&at].host.as_ref().unwrap().vm_name(vm_id(2));
    assert_eq!(name(3), "vm2", "host 3 never had to do with it");
    assert!(alarmed(&world).is_empty());
}

#[test]
fn a_host_that_is_gone_keeps_its_vms_in_the_views_of_others() {
    let mut world = calm(settings());
    world.run(secs(20));
    world.crash(1);
    world.run(secs(60));
    assert_eq!(listed(&world, 2, 1), [1, 2]);
}

#[test]
fn two_running_copies_are_told_everywhere_and_nothing_is_done_about_them() {
    let mut world = calm(settings());
    world.run(secs(20));
    // By hand, past everything that would have kept it, from a definition that names host 1: host 3 goes on above that.
    world.checks.doubled.insert(vm_id(1));
    let guest = world.guests[&vm_id(1)].definition.clone();
    world.fleet.start(world.now, 3, vm_id(1), Seen::Running);
    world.handle(3, Event::Sighting(Sighting::Found(guest, RunState::Running)));
    let commands = world.commands.len();
    assert!(world.until(secs(60), |w| alarmed(w) == [1, 2, 3]), "{:?}", alarmed(&world));
    let words =
        |world: &World, at: u16| world.sites[&at].host.as_ref().unwrap().alarms()[0].reason.clone();
    assert_eq!(
        words(&world, 1),
        "two copies run at once: at host1 under epoch 1, and at host3 under epoch 2; both hosts were asked more than once. End one of them by hand, and look at its disk: Evenkeel touches neither"
    );
    let refused = world.ask(1, Ask::Move { vm: vm_id(1), to: None }).unwrap_err();
    assert!(refused.starts_with(TWO_COPIES), "{refused}");
    assert_eq!(world.commands.len(), commands, "nothing was done");
    let told =
        |w: &World| w.notes.iter().filter(|(.., n)| n.reason.starts_with(TWO_COPIES)).count();
    world.run(secs(120));
    assert_eq!(told(&world), 3, "once at each host");
    world.kill(3, vm_id(1));
    assert!(world.until(secs(60), |w| alarmed(w).is_empty()), "{:?}", alarmed(&world));
}

#[test]
fn moves_back_and_forth_never_look_like_two_copies() {
    let mut settings = settings();
    settings.worth_it.vm_rest = Duration::from_millis(1);
    let mut world = calm(settings);
    // The checkers look on: an alarm while one copy runs would end this.
    for _ in 0..60 {
        let at = world.runs_at(vm_id(1)).into_iter().next().unwrap();
        let _refused_is_fine = world.ask(at, Ask::Move { vm: vm_id(1), to: None });
        world.run(secs(4));
    }
    let moves = world.notes.iter().filter(|(.., note)| note.step == Step::Done).count();
    assert!(moves > 15, "{moves}");
    assert!(alarmed(&world).is_empty());
}

#[test]
fn suspects_are_not_asked() {
    let mut world = calm(settings());
    world.crash(2);
    let suspected = |w: &World| {
        let views = w.sites[&1].host.as_ref().unwrap().membership();
        let state = |n| views.hosts().find(|v| v.peer.host == host_id(n)).map(|v| v.state);
        state(2) == Some(HostState::Suspect)
    };
    assert!(world.until(secs(20), suspected));
    world.ask(1, Ask::Move { vm: vm_id(1), to: None }).unwrap();
    let asked = |(.., note): &&(Time, u16, Note)| note.step == Step::Request;
    let request = world.notes.iter().find(asked).unwrap();
    assert_eq!(request.2.reason, "1 hosts asked, any cost will do");
}

#[test]
fn hosts_that_say_that_they_cannot_are_not_asked_while_enough_others_may() {
    let mut world = World::of_size(1, 8, settings(), 16_384);
    world.boot(1, 1, 1024, 500, 100);
    // Hosts 2 to 4 have no room left for another GiB, which leaves 5 to 8.
    for at in 2..=4 {
        world.boot(at, u32::from(at), 11_500, 500, 100);
    }
    world.run(secs(15));
    let asked = |world: &mut World| {
        let from = world.notes.len();
        world.ask(1, Ask::Move { vm: vm_id(1), to: None }).unwrap();
        let notes = world.notes[from..].iter().map(|(.., note)| note);
        notes.clone().find(|note| note.step == Step::Request).unwrap().reason.clone()
    };
    assert_eq!(asked(&mut world), "4 hosts asked, any cost will do");
    world.run(secs(60));
    // With two of those full as well the others are too few: all are asked, since views may be wrong.
    let mut world = World::of_size(1, 8, settings(), 16_384);
    world.boot(1, 1, 1024, 500, 100);
    for at in 2..=6 {
        world.boot(at, u32::from(at), 11_500, 500, 100);
    }
    world.run(secs(15));
    assert_eq!(asked(&mut world), "7 hosts asked, any cost will do");
}
