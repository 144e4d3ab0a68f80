//! Exchanges: where memory is tight, hosts swap VMs, each half a move of its own.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use decide::host::Ask;
use decide::host::story::Step;
use decide::policy::settings::{Settings, Trigger};
use decide::units::{Cost, Share};
use decide::wire::message::Body;
use expect_test::expect;
use sim::checks::Half;
use sim::world::scene::{settings, vm_id};
use sim::world::{World, host_id};

/// What each guest here has, in MiB.
const MEMORY: u64 = 18_000;

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn evening() -> Settings {
    let mut settings = settings();
    settings.mode.trigger = Trigger::Spread;
    settings.target.memory_used_max = Share(960);
    settings.spread.gain_min = Cost::percent(1);
    settings
}

/// Two hosts of 16 cores and 96 GiB, with room for one guest more each: vm1 to vm4 at host 1 have much to do, vm5 to vm8 at
/// host 2 little.
fn tight() -> World {
    let mut world = World::of_size(1, 2, evening(), 98_304);
    for n in 1..=4 {
        world.boot(1, n, MEMORY, 2500, 10);
        world.boot(2, 4 + n, MEMORY, 200, 10);
    }
    world
}

#[test]
fn a_host_that_is_full_takes_in_return_what_it_has_just_given_room_to() {
    let mut world = tight();
    // Host 1 has no room for one more: what comes for vm1 finds what vm1 has left.
    world.boot(1, 9, 6000, 100, 10);
    assert!(world.until(secs(900), |w| halves(w).len() == 2), "{}", world.story());
    assert_eq!(halves(&world), [(1, 2, true), (5, 1, false)]);
}

fn halves(world: &World) -> Vec<(u32, u16, bool)> {
    let half = |half| half == Half::First(1);
    let number = |vm| (1..=9).find(|n| vm_id(*n) == vm).unwrap();
    world.checks.passed.iter().map(|it| (number(it.vm), it.to, half(it.half))).collect()
}

/// The first half is over, the other has not begun.
fn half_way() -> World {
    let mut world = tight();
    assert!(world.until(secs(900), |w| w.noted(Step::Done)), "{}", world.story());
    assert_eq!(halves(&world), [(1, 2, true)]);
    world
}

fn said(world: &World, words: &str) -> bool {
    world.notes.iter().any(|(.., note)| note.reason.contains(words))
}

#[test]
fn where_no_single_move_pays_hosts_swap_vms_and_both_are_better_off() {
    let mut world = tight();
    let before = world.sum_of_costs(world.checks.places());
    world.run(secs(8000));
    assert_eq!(halves(&world), [(1, 2, true), (5, 1, false), (2, 2, true), (6, 1, false)]);
    let lower = before.minus(world.sum_of_costs(world.checks.places()));
    assert!(lower > Cost::percent(8), "{lower}");
    assert_eq!(world.settled(), Ok(()));
    let story = world.tale(Some(vm_id(1))) + &world.tale(Some(vm_id(5)));
    let before_second_copy = story.split("host2 Copy").next().unwrap();
    let story: String =
        before_second_copy.lines().map(|line| line.trim().to_owned() + "\n").collect();
    expect![[r#"
        5.000 host1 Adopted: vm1 found here; adopted
        35.007 host1 Monitoring: no threshold crossed; 40 packets/s at the taps here, 10 of them at the tap of this VM; it uses 2500 mcores
        35.007 host1 VmPolicy: vm1 should leave: cpu used 62.5 %, 33.7 % in the mean of the cluster, 0.5 % above it allowed; without it 26.00 % less (10 packets/s, 2500 mcores), for one in return that does less for as much memory (18000 MiB, copy cost 0.52 %)
        35.007 host1 Request: 1 hosts asked, a cost up to 24.47 % will do, alone or in exchange
        35.083 host2 Acceptance [host1]: room is kept for 45 s, and vm5 would go in return
        35.084 host1 Acceptance [host2]: it would cost 18.59 % with vm5 in return
        35.084 host1 Choice [host2]: the only acceptor: 18.59 %
        35.084 host1 Confirmation [host2]: chosen; told so
        35.084 host1 UsageHistory [host2]: 30 samples of packets, bytes, processor and memory sent
        35.084 host2 Confirmation [host1]: this host was chosen
        35.085 host2 UsageHistory [host1]: 30 samples read; at its peak 10 packets/s, 2500 mcores
        35.087 host2 orders Prepare
        35.287 host2 Readiness [host1]: the incoming side listens, paused
        35.287 host1 Readiness [host2]: it has read the history, the VM may come
        35.289 host1 Copy: copying memory to sim:2, at most 500 Mbit/s
        35.289 host1 orders StartCopy
        337.280 host1 SwitchOver: paused for the last round
        337.280 host1 orders SwitchOver
        337.333 host1 orders Fence
        337.334 host1 HandOver [host2]: released on disk, the tap is off; epoch 2 is the target's
        337.337 host2 orders Resume
        337.340 host2 Running [host1]: the VM runs here
        337.340 host1 Running [host2]: it was seen running there
        337.340 host1 orders Discard
        337.343 host1 Done [host2]: the VM runs at host2
        940.014 host1 PayBack [host2]: promised 10.17 % less, measured 10.15 %: it paid
        940.015 host2 PayBack [host1]: the move to here paid
        5.000 host2 Adopted: vm5 found here; adopted
        338.014 host2 Monitoring: no threshold crossed; 40 packets/s at the taps here, 10 of them at the tap of this VM; it uses 200 mcores
        338.014 host2 VmPolicy: it goes to host1 in return, as agreed
        338.014 host2 Request: 1 hosts asked, any cost will do
        338.014 host1 Acceptance [host2]: room is kept for 45 s
        338.015 host2 Acceptance [host1]: it would cost 32.16 % there
        338.015 host2 Choice [host1]: the only acceptor: 32.16 %
        338.015 host2 Confirmation [host1]: chosen; told so
        338.015 host2 UsageHistory [host1]: 333 samples of packets, bytes, processor and memory sent
        338.016 host1 Confirmation [host2]: this host was chosen
        338.016 host1 UsageHistory [host2]: 333 samples read; at its peak 10 packets/s, 200 mcores
        338.018 host1 orders Prepare
        338.218 host1 Readiness [host2]: the incoming side listens, paused
        338.219 host2 Readiness [host1]: it has read the history, the VM may come
        338.221
    "#]].assert_eq(&story);
}

fn paid(world: &World) -> Vec<&str> {
    let told = world.notes.iter().filter(|(.., note)| note.step == Step::PayBack);
    told.map(|(.., note)| &*note.reason).collect()
}

#[test]
fn an_exchange_is_measured_as_a_whole() {
    let mut world = half_way();
    world.run(secs(1200));
    expect![[r#"
        [
            "promised 10.17 % less, measured 10.15 %: it paid",
            "the move to here paid",
        ]
    "#]]
    .assert_debug_eq(&paid(&world));
    // What comes in return turns out to ask as much as what left, so both rest longer.
    let mut world = half_way();
    world.guests.get_mut(&vm_id(5)).unwrap().cpu = 2500;
    world.run(secs(1200));
    expect![[r#"
        [
            "promised 10.17 % less, measured 0.00 %: it did not pay, less than half of it came",
            "the move to here did not pay, 1 in a row: the VM rests for 43200 s in all, 42597 s more",
        ]
    "#]].assert_debug_eq(&paid(&world));
    let rests = |at: u16, vm: u32| {
        let host = world.sites[&at].host.as_ref().unwrap();
        host.vms()[&vm_id(vm)].rest_until.since(world.now).as_secs() / 3600
    };
    assert_eq!((rests(2, 1), rests(1, 5)), (11, 11), "twice six hours, of which some have passed");
}

#[test]
fn the_other_half_is_given_up_when_its_target_is_gone_and_what_passed_stays() {
    let mut world = half_way();
    world.crash(1);
    world.run(secs(400));
    assert_eq!(halves(&world), [(1, 2, true)]);
    assert!(said(&world, "it was to go to host1, as agreed, and could not: it stays here"));
    assert!(world.runs_at(vm_id(5)).contains(&2));
    // By what hosts are now, it pays for its own sake.
    world.restart(1);
    world.run(secs(900));
    assert_eq!(halves(&world), [(1, 2, true), (5, 1, false)], "{}", world.story());
    assert_eq!(world.checks.passed[1].half, Half::Alone);
    world.run(secs(8000));
    assert_eq!(world.settled(), Ok(()), "{}", world.story());
}

#[test]
fn what_was_to_come_in_return_is_not_waited_for_without_end() {
    let mut world = half_way();
    world.crash(2);
    world.run(secs(400));
    let words = "vm5, which host2 was to give, has not come: that ends";
    assert!(said(&world, words), "{}", world.story());
    let host = world.sites[&1].host.as_ref().unwrap();
    assert_eq!(host.moves_under_way(), 0);
}

#[test]
fn a_source_that_forgot_what_was_agreed_takes_the_other_half_as_any_vm() {
    let mut world = half_way();
    world.crash(1);
    world.restart(1);
    world.run(secs(600));
    // It has room, and whoever asks in return will have it at any cost.
    assert_eq!(halves(&world)[1..], [(5, 1, false)], "{}", world.story());
    assert_eq!(world.settled(), Ok(()));
}

#[test]
fn while_the_other_half_is_to_come_no_other_move_begins_beside_it() {
    let mut world = half_way();
    let to = Some(host_id(1));
    let why = world.ask(2, Ask::Move { vm: vm_id(6), to }).unwrap_err();
    assert_eq!(why, "moves_per_host: 1 under way here, 1 allowed");
    world.run(secs(900));
    assert_eq!(halves(&world)[1], (5, 1, false));
}

#[test]
fn while_the_other_half_is_asked_about_no_other_move_begins_beside_it() {
    let mut world = half_way();
    world.filter = Some(Box::new(|_, _, message| !matches!(message.body, Body::Confirmation(_))));
    let asked = |w: &World| w.tale(Some(vm_id(5))).contains("host1 Acceptance [host2]");
    assert!(world.until(secs(10), asked), "{}", world.story());
    let to = Some(host_id(2));
    let why = world.ask(1, Ask::Move { vm: vm_id(2), to }).unwrap_err();
    assert_eq!(why, "moves_per_host: 1 under way here, 1 allowed");
}

#[test]
fn a_vm_that_is_excluded_once_it_was_promised_in_return_stays() {
    let mut world = half_way();
    world.exclude(2, vm_id(5), true);
    world.run(secs(400));
    assert!(said(&world, "it was to go to host1, as agreed, and could not: it stays here"));
    assert!(world.runs_at(vm_id(5)).contains(&2), "{}", world.story());
}

#[test]
fn no_exchange_where_none_would_pay() {
    let mut world = World::of_size(1, 2, evening(), 98_304);
    for n in 1..=4 {
        world.boot(1, n, MEMORY, 1200, 10);
        world.boot(2, 4 + n, MEMORY, 1000, 10);
    }
    world.run(secs(2000));
    assert_eq!(halves(&world), []);
    assert!(!world.noted(Step::Request), "nobody is asked in vain: {}", world.story());
}
