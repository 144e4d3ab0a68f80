//! What expressions decide, told as stories.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use decide::host::story::{Note, Step};
use decide::host::{Ask, Event};
use decide::migrate::hypervisor::{RunState, Sighting};
use decide::policy::file;
use decide::policy::settings::Settings;
use decide::units::Time;
use decide::wire::message::Body;
use sim::world::scene::{self, settings, vm_id};
use sim::world::{World, host_id};

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// The scene's settings with the expressions of this text.
fn with(text: &str) -> Settings {
    let Settings { vm_policy, admission, migration_policy, .. } = file::settings(text).unwrap();
    Settings { vm_policy, admission, migration_policy, ..settings() }
}

/// Host 1 has vm1, which is flooded, and vm2; host 2 has vm3; host 3, with vm4, has least to do.
fn flooded(text: &str) -> World {
    scene::flooded(with(text))
}

/// Lets it go on for a while; then this stands in its story.
fn tells(world: &mut World, words: &str) {
    let told = |w: &World| w.story().contains(words);
    assert!(world.until(secs(60), told), "no {words:?} in\n{}", world.story());
}

fn is_at(world: &mut World, vm: u32, at: u16) {
    world.run(secs(30));
    assert_eq!(world.settled(), Ok(()), "{}", world.story());
    assert_eq!(world.runs_at(vm_id(vm)).into_iter().collect::<Vec<_>>(), [at], "{}", world.story());
}

#[test]
fn a_condition_makes_a_host_hot_once_it_has_held_for_its_time() {
    let mut world =
        flooded("vm_policy = { when = 'host.vms >= 2 && host.cpu_used > 0.1', for = '8s' }");
    // No threshold is crossed.
    world.guests.values_mut().for_each(|guest| guest.packets = guest.packets.min(700));
    world.run(secs(5));
    assert!(!world.noted(Step::VmPolicy), "{}", world.story());
    tells(
        &mut world,
        "host1 Monitoring: vm_policy.when `host.vms >= 2 && host.cpu_used > 0.1` (host.cpu_used 0.15",
    );
    tells(&mut world, "host.vms 2) for 8 s: this host is hot");
}

#[test]
fn the_order_says_which_vm_leaves_first_and_one_that_has_none_comes_last() {
    let mut world =
        flooded("vm_policy.order = 'vm.name == \"vm1\" ? 1 / (vm.cpu - 2) : -vm.packets'");
    tells(
        &mut world,
        "host1 VmPolicy: vm_policy.order fails: 1 / (vm.cpu - 2) divides by zero; such a VM comes last",
    );
    tells(&mut world, "host1 VmPolicy: vm2 should leave: ");
    tells(&mut world, "first by vm_policy.order (1024 MiB");
    assert_eq!(world.story().matches("fails").count(), 1, "{}", world.story());
}

#[test]
fn a_host_takes_only_what_its_admission_accepts_and_says_why() {
    let mut world = flooded("");
    let mut strict = with("admission.accept = 'vm.cpu < 1 || host.name != \"host3\"'");
    strict.vm_policy = world.settings.vm_policy.clone();
    world.handle(3, Event::Settings(Box::new(strict)));
    tells(
        &mut world,
        "host3 Refusal [host1]: admission.accept does not hold: `vm.cpu < 1 || host.name != \"host3\"` with host.name \"host3\", vm.cpu 2",
    );
    is_at(&mut world, 1, 2);
}

#[test]
fn an_admission_that_fails_refuses() {
    let mut world = flooded("admission.accept = 'host.nic_used / (host.vms - 1) < 0.5'");
    tells(
        &mut world,
        "host3 Refusal [host1]: admission.accept fails: host.nic_used / (host.vms - 1) divides by zero",
    );
    is_at(&mut world, 1, 1);
}

#[test]
fn the_migration_policy_orders_acceptors_by_more_than_cost() {
    let mut world = flooded("migration_policy.order = 'answer.host == \"host2\" ? 0 : 1'");
    tells(
        &mut world,
        "host1 Acceptance [host2]: it would cost 98.96 % there, migration_policy.order 0",
    );
    tells(
        &mut world,
        "host1 Choice [host2]: first of 2 by the migration policy, at a cost of 98.96 %; the next 61.73 %",
    );
    is_at(&mut world, 1, 2);
}

#[test]
fn an_acceptor_whose_order_fails_is_the_last_choice() {
    let mut world =
        flooded("migration_policy.order = 'answer.cost / (answer.host == \"host3\" ? 0 : 1)'");
    tells(&mut world, "there, the last choice: migration_policy.order fails: ");
    tells(&mut world, "host1 Choice [host2]: ");
    is_at(&mut world, 1, 2);
}

#[test]
fn an_acceptor_that_is_rejected_is_passed_over_and_let_go() {
    let mut world = flooded(
        "migration_policy.reject = 'answer.vms > 0 && answer.cost < 80 && vm.packets > 500'",
    );
    tells(
        &mut world,
        "host1 Refusal [host3]: migration_policy.reject holds: `answer.vms > 0 && answer.cost < 80 && vm.packets > 500` with answer.cost 61.7",
    );
    tells(&mut world, "host3 Release [host1]: the source let go; the room is free");
    is_at(&mut world, 1, 2);
}

#[test]
fn who_moves_a_vm_to_a_host_by_name_has_chosen_it() {
    let mut world = flooded("migration_policy.reject = 'answer.vms >= 0'");
    world.guests.values_mut().for_each(|guest| guest.packets = 100);
    world.run(secs(8));
    world.ask(1, Ask::Move { vm: vm_id(1), to: Some(host_id(3)) }).unwrap();
    is_at(&mut world, 1, 3);
}

#[test]
fn hosts_with_and_without_a_new_policy_do_not_trade() {
    let mut world = flooded("");
    for at in [2, 3] {
        let settings = with("migration_policy.order = 'answer.vms'");
        world.handle(at, Event::Settings(Box::new(settings)));
    }
    tells(&mut world, "Refusal [host1]: its settings differ from mine");
    is_at(&mut world, 1, 1);
}

#[test]
fn by_the_trigger_packets_the_vm_busiest_at_the_card_leaves_the_busiest_card() {
    let text = "[mode]\nbalance = \"automatic\"\ntrigger = \"packets\"\n[hot]\npackets_per_second = 5000\n";
    let mut world = World::of(1, 3, file::settings(text).unwrap());
    // Nobody is hot. Host 1 has most to do for its processors, host 2 for its card.
    world.boot(1, 1, 1024, 6000, 10);
    world.boot(2, 2, 1024, 500, 900);
    world.boot(2, 3, 512, 1500, 300);
    world.boot(2, 4, 512, 500, 200);
    world.boot(3, 5, 512, 500, 100);
    assert!(world.until(secs(120), |w| w.noted(Step::Done)), "{}", world.story());
    world.run(secs(2000));
    let passed: Vec<_> = world.checks.passed.iter().map(|it| (it.vm, it.to)).collect();
    assert_eq!(passed, [(vm_id(2), 3)], "{}", world.story());
    let why = "vm2 should leave: 1400 packets/s, 100 at the next busiest card, 503 in the mean of the cluster";
    assert!(world.notes.iter().any(|(.., note)| note.reason.starts_with(why)), "{}", world.story());
}

/// Four hosts of 16 cores and 64 GiB; hosts 2 to 4 have two small VMs each, host 1 three.
fn scattered() -> World {
    let text = "[mode]\nbalance = \"automatic\"\ntrigger = \"consolidate\"\n[worth_it]\nhost_rest = \"10s\"\n";
    let mut world = World::of(1, 4, file::settings(text).unwrap());
    for n in 0..9 {
        world.boot([1, 1, 1, 2, 2, 3, 3, 4, 4][n as usize], n + 1, 4096, 900, 10);
    }
    world
}

#[test]
fn by_the_trigger_consolidate_hosts_empty_from_the_last_and_nobody_is_overfilled() {
    let mut world = scattered();
    world.run(secs(80_000));
    let at: Vec<u16> = (1..=9).map(|n| *world.runs_at(vm_id(n)).first().unwrap()).collect();
    // 9 VMs of 0.9 cores and 4 GiB fit on one host.
    assert_eq!(at, [1; 9], "{}", world.story());
    let moves = world.checks.passed.len();
    assert_eq!(moves, 6, "nobody moves to a host that is to be emptied later itself");
    for n in 2..=4 {
        let doing = world.sites[&n].host.as_ref().unwrap().doing();
        assert_eq!(doing, "this host has no VM: it could sleep");
    }
    world.run(secs(40_000));
    assert_eq!(world.checks.passed.len(), moves, "nothing moves any more");
}

#[test]
fn a_host_with_a_vm_that_stays_takes_others_and_keeps_none_from_emptying() {
    for words in ["evenkeel:exclude", "evenkeel:balance=off", "evenkeel:pin=host4"] {
        let mut world = scattered();
        world.run(secs(5));
        world.retag(4, vm_id(9), &[words]);
        world.run(secs(80_000));
        let at: Vec<u16> = (1..=9).map(|n| *world.runs_at(vm_id(n)).first().unwrap()).collect();
        assert_eq!(at, [4; 9], "{words}: {}", world.story());
        let moves = world.checks.passed.len();
        assert_eq!(moves, 7, "{words}: vm8 and vm9 are where all go: {}", world.story());
        let doing = world.sites[&4].host.as_ref().unwrap().doing();
        assert!(doing.starts_with("this host is not hot, and is not emptied: vm9: "), "{doing}");
        for n in 1..=3 {
            let doing = world.sites[&n].host.as_ref().unwrap().doing();
            assert_eq!(doing, "this host has no VM: it could sleep");
        }
    }
}

#[test]
fn a_host_that_empties_asks_others_where_the_first_never_answer() {
    let text = "[mode]\nbalance = \"automatic\"\ntrigger = \"consolidate\"\n";
    let mut world = World::of(1, 11, file::settings(text).unwrap());
    (1..=11).for_each(|n| world.boot(n, u32::from(n), 4096, 900, 10));
    world.filter = Some(Box::new(|_, to, m| to == 7 || !matches!(m.body, Body::Request(_))));
    world.run(secs(600));
    // By name host 9 is the last, and host 7 the ninth.
    assert_eq!(world.runs_at(vm_id(9)).first(), Some(&7), "{}", world.story());
}

#[test]
fn a_host_that_empties_in_vain_uses_up_no_moves_of_its_day() {
    let mut world = scattered();
    for n in 1..=4 {
        let mut settings = world.sites[&n].host.as_ref().unwrap().settings().clone();
        settings.limits.moves_per_day = 2;
        world.handle(n, Event::Settings(Box::new(settings)));
    }
    for n in [8, 9] {
        let guest = world.guests.get_mut(&vm_id(n)).unwrap();
        guest.definition.needs.bridge = "br9".to_owned();
        let found = Sighting::Found(guest.definition.clone(), RunState::Running);
        world.handle(4, Event::Sighting(found));
    }
    world.run(secs(3000));
    let asked = |(_, at, note): &&(Time, u16, Note)| *at == 4 && note.step == Step::Request;
    assert!(world.notes.iter().filter(asked).count() > 2, "{}", world.story());
}

#[test]
fn a_host_does_not_empty_where_what_it_has_fits_nowhere() {
    let mut world = scattered();
    // 10 of 16 cores are asked at each of the first three: 70 % leave 1.2 cores there.
    for n in [1, 4, 6] {
        world.guests.get_mut(&vm_id(n)).unwrap().cpu = 9000;
    }
    world.guests.get_mut(&vm_id(9)).unwrap().cpu = 9000;
    world.run(secs(5000));
    assert_eq!(world.checks.passed.len(), 0, "{}", world.story());
}
