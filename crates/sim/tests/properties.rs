//! What must hold whatever happens, over worlds drawn by lot. The checkers look on after every event.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test")]

use std::hash::Hasher as _;
use std::time::Duration;

use decide::host::Ask;
use decide::migrate::hypervisor::Seen;
use proptest::collection::vec;
use proptest::prelude::*;
use sim::world::scene::{restless, settings, vm_id};
use sim::world::{self, World};

/// Where a VM is at first.
fn host_of(vm: u32) -> u16 {
    1 + u16::try_from(vm).unwrap() % HOSTS
}

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// What may go wrong, or be asked for.
#[derive(Clone, Debug)]
enum Turn {
    Crash { host: u16, down_ms: u64 },
    Move { vm: u32, to: Option<u16> },
    Cancel,
    FailCopy { vm: u32 },
    FailWrites { host: u16, writes: u32 },
    Refuse { host: u16, refuses: bool },
}

const HOSTS: u16 = 3;
const VMS: u32 = 4;

fn turn() -> impl Strategy<Value = Turn> {
    let (host, vm) = (1..=HOSTS, 1..=VMS);
    prop_oneof![
        2 => (host.clone(), 0..8000u64).prop_map(|(host, down_ms)| Turn::Crash { host, down_ms }),
        6 => (vm.clone(), proptest::option::of(host.clone())).prop_map(|(vm, to)| Turn::Move { vm, to }),
        1 => Just(Turn::Cancel),
        1 => vm.prop_map(|vm| Turn::FailCopy { vm }),
        1 => (host.clone(), 1..4u32).prop_map(|(host, writes)| Turn::FailWrites { host, writes }),
        1 => (host, any::<bool>()).prop_map(|(host, refuses)| Turn::Refuse { host, refuses }),
    ]
}

fn take(world: &mut World, turn: &Turn) {
    match *turn {
        Turn::Crash { host, down_ms } => world.crash_for(host, Duration::from_millis(down_ms)),
        Turn::Move { vm, to } => {
            let vm = vm_id(vm);
            let to = to.map(world::host_id);
            for at in world.runs_at(vm) {
                if world.sites[&at].host.is_some() {
                    let _refused_is_fine = world.ask(at, Ask::Move { vm, to });
                }
            }
        }
        Turn::Cancel => {
            let last = world.commands.last().map(|ordered| ordered.id);
            if let Some((at, id)) = last.map(|id| (world::number(id.host), id))
                && world.sites[&at].host.is_some()
            {
                let _refused_is_fine = world.ask(at, Ask::Cancel(id));
            }
        }
        Turn::FailCopy { vm } => {
            for at in world.runs_at(vm_id(vm)) {
                world.fail_copy(at, vm_id(vm), "connection reset");
            }
        }
        Turn::FailWrites { host, writes } => {
            world.sites.get_mut(&host).unwrap().journal.fails = writes;
        }
        Turn::Refuse { host, refuses } => {
            world.fleet.refuse(host, refuses);
        }
    }
}

fn troubled(seed: u64, net: world::Net, turns: &[(u64, Turn)]) -> World {
    // Room is short: most hosts can take one VM more, and not any.
    let mut world = World::of_size(seed, HOSTS, restless(), 1000);
    for vm in 1..=VMS {
        world.boot(host_of(vm), vm, 128 * u64::from(vm), 1000, 200 * u64::from(vm));
    }
    world.run(secs(4));
    world.net = net;
    for (after, turn) in turns {
        world.run(Duration::from_millis(*after));
        take(&mut world, turn);
    }
    world
}

fn net() -> impl Strategy<Value = world::Net> {
    (0..150u32, 0..300u32, 1..400u64).prop_map(|(lost, twice, ms)| world::Net {
        lost,
        twice,
        delay_max: Duration::from_millis(ms),
        ..world::Net::default()
    })
}

/// Nothing goes wrong any more, and nobody is hot.
fn heal(world: &mut World) {
    world.net = world::Net { delay_max: Duration::from_millis(1), ..world::Net::default() };
    world.guests.values_mut().for_each(|guest| guest.packets = 10);
    for (at, site) in &mut world.sites {
        site.journal.fails = 0;
        world.fleet.refuse(*at, false);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_lost_repeated_or_killed_one_copy_runs_and_every_move_settles_once_healed(
        seed in any::<u64>(), net in net(), turns in vec((0..6000u64, turn()), 1..40)
    ) {
        let mut world = troubled(seed, net, &turns);
        heal(&mut world);
        let settled = world.until(secs(900), |world| world.settled().is_ok());
        prop_assert!(settled, "{:?}\n{}", world.settled(), world.story());
        // Who was hot when all healed may be so for a moment yet, and begin one more move.
        world.run(secs(60));
        let settled = world.until(secs(200), |world| world.settled().is_ok());
        prop_assert!(settled, "{:?}\n{}", world.settled(), world.story());
        world.run(secs(300));
        prop_assert_eq!(world.settled(), Ok(()), "{}", world.story());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_same_seed_and_events_give_the_same_actions(
        seed in any::<u64>(), net in net(), turns in vec((0..6000u64, turn()), 1..20)
    ) {
        let [one, other] = [(); 2].map(|()| troubled(seed, net.clone(), &turns));
        prop_assert_eq!(one.notes, other.notes);
        prop_assert_eq!(one.trace.finish(), other.trace.finish());
    }
}

#[test]
fn worlds_of_the_properties_do_move_vms_several_at_once() {
    let mut world = World::of(7, 4, restless());
    for vm in 1..=12 {
        world.boot(1 + (vm % 2) as u16, vm, 512, 1500, 300);
    }
    let most = |w: &World| {
        let copies = |at| w.fleet.processes(at).filter(|(_, p)| p.seen == Seen::Copying).count();
        w.sites.keys().map(|at| copies(*at)).sum::<usize>()
    };
    let mut at_once = 0;
    for _ in 0..400 {
        world.run(Duration::from_millis(500));
        at_once = at_once.max(most(&world));
    }
    assert!(
        at_once >= 2 && world.checks.passed.len() >= 4,
        "{at_once} at once, {:?}",
        world.checks.passed
    );
    assert!(world.checks.offers_ended > 4);
}

#[test]
fn two_sources_cannot_both_win_the_same_room() {
    for seed in 0..20 {
        let mut world = World::of_size(seed, 3, restless(), 2000);
        world.boot(1, 1, 1024, 100, 10);
        world.boot(2, 2, 1024, 100, 10);
        world.run(secs(5));
        let answers = [1, 2]
            .map(|n| world.ask(n, Ask::Move { vm: vm_id(n.into()), to: Some(world::host_id(3)) }));
        assert!(answers.iter().all(Result::is_ok));
        world.run(secs(400));
        assert_eq!(world.settled(), Ok(()), "{}", world.story());
        assert_eq!(world.checks.passed.len(), 1, "seed {seed}: {}", world.story());
    }
}

#[test]
fn a_reservation_that_nobody_confirms_ends_by_itself() {
    let mut world = World::of(1, 3, settings());
    world.boot(1, 1, 1024, 100, 10);
    world.run(secs(5));
    world.filter = Some(Box::new(|from, _, _| from == 1));
    world.ask(1, Ask::Move { vm: vm_id(1), to: None }).unwrap();
    world.run(Duration::from_millis(50));
    world.crash(1);
    let reserved = |w: &World| {
        w.sites
            .values()
            .filter_map(|s| s.host.as_ref())
            .any(|h| !h.reservations().offers().is_empty())
    };
    world.run(Duration::from_millis(50));
    assert!(reserved(&world), "{}", world.story());
    world.run(secs(46));
    assert!(!reserved(&world), "{}", world.story());
}
