//! What moves were to bring and what they brought, told as stories.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use decide::host::Ask;
use decide::host::story::Step;
use decide::policy::settings::Settings;
use decide::units::{Cost, MoveId};
use sim::world::scene::{self, settings, vm_id};
use sim::world::{World, host_id};

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Host 1 with the flooded vm1; the other VMs stay where they are.
fn flooded() -> World {
    let mut world = scene::flooded(quick());
    for (at, vm) in [(1, 2), (2, 3), (3, 4)] {
        world.retag(at, vm_id(vm), &["evenkeel:exclude"]);
    }
    world
}

/// Rests short enough to be lived through; what a move brought is measured half a minute after it.
fn quick() -> Settings {
    let mut quick = settings();
    quick.worth_it.vm_rest = secs(120);
    quick.worth_it.host_rest = secs(2);
    quick.worth_it.measure_after = secs(30);
    quick
}

/// How often this was noted at a host.
fn noted(world: &World, words: &str) -> usize {
    world.story().matches(words).count()
}

fn tells(world: &mut World, within: Duration, words: &str) {
    let told = |w: &World| w.story().contains(words);
    assert!(world.until(within, told), "no {words:?} in\n{}", world.story());
}

fn asks(world: &mut World, vm: u32, packets: u64) {
    world.guests.get_mut(&vm_id(vm)).unwrap().packets = packets;
}

/// Waits until so many moves have been made.
fn moved(world: &mut World, times: usize) {
    let done = |w: &World| w.notes.iter().filter(|(_, _, n)| n.step == Step::Done).count() >= times;
    assert!(world.until(secs(900), done), "{times} moves wanted\n{}", world.story());
}

fn at(world: &World, vm: u32) -> u16 {
    world.runs_at(vm_id(vm)).into_iter().next().expect("it runs")
}

/// Seconds that vm1 is still left alone.
fn rests(world: &World) -> u64 {
    let host = world.sites[&at(world, 1)].host.as_ref().unwrap();
    let now = world.sites[&at(world, 1)].clock.shown(world.now);
    host.vms()[&vm_id(1)].rest_until.since(now).as_secs()
}

/// Once vm1 may leave again, the host that it is on becomes hot by it.
fn flood_where_it_is(world: &mut World) {
    let rest = rests(world);
    world.run(secs(rest + 1));
    let here = at(world, 1);
    for vm in 2..=4 {
        let packets = if at(world, vm) == here { 300 } else { 100 };
        asks(world, vm, packets);
    }
    asks(world, 1, 800);
}

#[test]
fn moves_that_do_not_pay_rest_longer_each_time() {
    let mut world = flooded();
    moved(&mut world, 1);
    asks(&mut world, 1, 10);
    tells(&mut world, secs(60), "host1 PayBack [host3]: promised 154.21 % less, measured ");
    tells(&mut world, secs(10), ": it did not pay, less than half of it came");
    tells(
        &mut world,
        secs(10),
        "host3 PayBack [host1]: the move to here did not pay, 1 in a row: the VM rests for 240 s in all",
    );
    // It is told once on each side, and the rest counts from its arrival.
    world.run(secs(120));
    assert_eq!(noted(&world, "PayBack"), 2, "{}", world.story());
    assert!((60..120).contains(&rests(&world)), "{}", rests(&world));

    flood_where_it_is(&mut world);
    moved(&mut world, 2);
    asks(&mut world, 1, 10);
    tells(&mut world, secs(60), "2 in a row: the VM rests for 480 s in all");

    // One that pays is all it takes.
    flood_where_it_is(&mut world);
    moved(&mut world, 3);
    assert!(rests(&world) > 360, "before it is measured: {}", rests(&world));
    tells(&mut world, secs(60), "the move to here paid");
    world.run(secs(2));
    assert!(rests(&world) < 120, "{}", rests(&world));
    let story = world.sites[&1].host.as_ref().unwrap().stories().next().unwrap().clone();
    assert_eq!(story.paid, Some(false));
    assert!(story.measured.unwrap() < Cost(story.promised.unwrap().0 / 2), "{story:?}");
}

#[test]
fn a_rest_is_doubled_four_times_at_the_most() {
    let mut world = flooded();
    for times in 1..=6 {
        moved(&mut world, times);
        asks(&mut world, 1, 10);
        let row = times.min(4);
        let words = format!("{row} in a row: the VM rests for {} s in all", 120 << row);
        let so_often = times.saturating_sub(3).max(1);
        let told = |w: &World| noted(w, &words) >= so_often;
        assert!(world.until(secs(90), told), "no {words:?}\n{}", world.story());
        flood_where_it_is(&mut world);
    }
}

#[test]
fn a_move_that_pays_lengthens_no_rest() {
    let mut world = flooded();
    moved(&mut world, 1);
    tells(&mut world, secs(60), "host1 PayBack [host3]: promised 154.21 % less, measured 154");
    tells(&mut world, secs(10), "host3 PayBack [host1]: the move to here paid");
    assert!((60..120).contains(&rests(&world)), "{}", rests(&world));
}

#[test]
fn a_source_that_is_hot_again_at_once_was_not_helped() {
    let mut world = flooded();
    moved(&mut world, 1);
    world.run(secs(10));
    asks(&mut world, 2, 1200);
    tells(&mut world, secs(60), ": it did not pay, this host is hot again (packets_per_second");
    tells(&mut world, secs(10), "1 in a row: the VM rests for 240 s in all");
}

#[test]
fn a_source_that_stays_hot_needs_more_than_one_move_and_that_one_paid() {
    let mut world = flooded();
    asks(&mut world, 2, 1200);
    moved(&mut world, 1);
    tells(&mut world, secs(60), ": it paid, though it was not enough: this host is still hot");
}

#[test]
fn a_move_by_hand_promises_nothing() {
    let mut world = scene::flooded(quick());
    (1..=4).for_each(|vm| asks(&mut world, vm, 10));
    world.run(secs(5));
    world.ask(1, Ask::Move { vm: vm_id(1), to: Some(host_id(3)) }).unwrap();
    moved(&mut world, 1);
    world.run(secs(400));
    assert_eq!(noted(&world, "PayBack"), 0, "{}", world.story());
}

#[test]
fn a_source_that_was_started_anew_says_nothing_and_the_rest_is_as_it_was() {
    let mut world = flooded();
    moved(&mut world, 1);
    world.crash(1);
    world.restart(1);
    asks(&mut world, 1, 10);
    world.run(secs(80));
    assert_eq!(noted(&world, "PayBack"), 0, "{}", world.story());
    assert!((10..120).contains(&rests(&world)), "{}", rests(&world));
    assert_eq!(world.settled(), Ok(()), "{}", world.story());
}

/// The agent of that host, and its journal, go on as after an upgrade.
fn anew(world: &mut World, at: u16) {
    world.crash(at);
    world.restart(at);
    world.run(secs(5));
}

#[test]
fn a_target_that_was_started_anew_lets_the_vm_rest_on_and_counts_on() {
    let mut world = flooded();
    moved(&mut world, 1);
    asks(&mut world, 1, 10);
    tells(&mut world, secs(60), "1 in a row: the VM rests for 240 s in all");
    let before = rests(&world);
    anew(&mut world, 3);
    assert!((before - 6..before).contains(&rests(&world)), "{before}, {}", rests(&world));
    flood_where_it_is(&mut world);
    moved(&mut world, 2);
    asks(&mut world, 1, 10);
    tells(&mut world, secs(60), "2 in a row: the VM rests for 480 s in all");
}

#[test]
fn what_was_kept_of_a_vm_that_has_left_does_not_come_back_with_it() {
    let mut world = flooded();
    moved(&mut world, 1);
    asks(&mut world, 1, 10);
    tells(&mut world, secs(60), "1 in a row: the VM rests for 240 s in all");
    let kept = |world: &World, at: u16| world.sites[&at].rests.vms.get(&vm_id(1)).copied();
    assert_eq!(kept(&world, 3).map(|rest| rest.unpaid), Some(1));
    // It goes back, and its old host's agent starts without it.
    flood_where_it_is(&mut world);
    moved(&mut world, 2);
    assert_eq!(kept(&world, 3), None, "{:?}", world.sites[&3].rests);
    tells(&mut world, secs(60), "the move to here paid");
    let back = at(&world, 1);
    assert_eq!(kept(&world, back).map(|rest| rest.unpaid), Some(0));
}

#[test]
fn a_vm_that_a_person_has_forced_somewhere_stays_there_over_a_restart() {
    let pin = "[[rules.pin]]\nvms = [\"vm1\"]\nhosts = [\"host1\"]\n";
    let mut settings = quick();
    settings.rules = decide::policy::file::settings(pin).unwrap().rules;
    settings.mode.rules = decide::policy::settings::Balance::Automatic;
    let mut world = World::of(1, 3, settings);
    world.boot(1, 1, 512, 100, 1);
    world.run(secs(5));
    world.ask(1, Ask::Force { vm: vm_id(1), to: Some(host_id(2)) }).unwrap();
    moved(&mut world, 1);
    anew(&mut world, 2);
    world.run(secs(60));
    assert_eq!(at(&world, 1), 2, "it stays as long as it rests: {}", world.story());
    moved(&mut world, 2);
    assert_eq!(at(&world, 1), 1, "{}", world.story());
}

#[test]
fn the_moves_of_the_day_are_counted_over_restarts() {
    let mut settings = quick();
    settings.limits.moves_per_day = 1;
    let mut world = scene::flooded(settings);
    moved(&mut world, 1);
    anew(&mut world, 1);
    asks(&mut world, 2, 1100);
    world.run(secs(60));
    assert_eq!(at(&world, 2), 1, "{}", world.story());
    let doing = world.sites[&1].host.as_ref().unwrap().doing();
    assert!(doing.contains("moves_per_day: 1 were made"), "{doing}");
}

#[test]
fn a_clock_that_was_ahead_makes_no_rest_longer_than_any_may_be() {
    use decide::host::Event;
    use decide::host::rests::{Rest, Rests};
    use decide::units::Time;
    let mut world = flooded();
    let ahead = Time(u64::MAX);
    let rest = Rest { until: ahead, insisted_until: ahead, unpaid: u32::MAX };
    let rests_of = Rests { made: vec![ahead], vms: [(vm_id(1), rest)].into() };
    world.handle(1, Event::Rests(rests_of));
    assert!((120 * 32 - 1..=120 * 32).contains(&rests(&world)), "{}", rests(&world));
    world.run(Duration::from_hours(25));
    moved(&mut world, 1);
}

#[test]
fn a_word_about_a_move_that_nobody_promised_changes_nothing() {
    use decide::host::Event;
    use decide::wire::message::{Body, Message};
    let mut world = flooded();
    moved(&mut world, 1);
    let before = rests(&world);
    for (from, host) in [(1, 1), (2, 2)] {
        let move_id = MoveId { host: host_id(host), incarnation: 1, counter: 7 };
        let body = Body::PayBack { vm: vm_id(1), paid: false };
        world.handle(3, Event::Message(Message { from: host_id(from), move_id, body }));
    }
    assert_eq!(rests(&world), before);
    assert_eq!(noted(&world, "PayBack"), 0, "{}", world.story());
}
