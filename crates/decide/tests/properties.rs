//! What must hold whatever happens, over worlds drawn by lot. The checkers of `world::check` look on after every event.

mod world;

use std::time::Duration;

use decide::host::Ask;
use decide::policy::settings::Settings;
use proptest::collection::vec;
use proptest::prelude::*;
use world::World;
use world::hypervisor;
use world::scene::{settings, vm_id};

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// What may go wrong, or be asked for.
#[derive(Clone, Debug)]
enum Turn {
    Crash { host: u8, down_ms: u64 },
    Move { vm: u8, to: Option<u8> },
    Cancel,
    FailCopy { vm: u8 },
    FailWrites { host: u8, writes: u32 },
    Refuse { host: u8, refuses: bool },
}

const HOSTS: u8 = 3;
const VMS: u8 = 4;

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

fn restless() -> Settings {
    let mut settings = settings();
    settings.limits.moves_per_host = 3;
    settings.limits.moves_per_day = 10_000;
    settings.worth_it.vm_rest = secs(1);
    settings.worth_it.host_rest = secs(1);
    settings
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
            let last = world.commands.last().map(|(_, id, ..)| *id);
            if let Some((at, id)) = last.map(|id| (world::number(id.host), id)) {
                if world.sites[&at].host.is_some() {
                    let _refused_is_fine = world.ask(at, Ask::Cancel(id));
                }
            }
        }
        Turn::FailCopy { vm } => {
            for at in world.runs_at(vm_id(vm)) {
                hypervisor::fail(world, at, vm_id(vm), "connection reset");
            }
        }
        Turn::FailWrites { host, writes } => {
            world.sites.get_mut(&host).unwrap().journal.fails = writes;
        }
        Turn::Refuse { host, refuses } => {
            world.sites.get_mut(&host).unwrap().hypervisor.refuses = refuses;
        }
    }
}

fn troubled(seed: u64, net: world::Net, turns: &[(u64, Turn)]) -> World {
    let mut world = World::of(seed, HOSTS, restless());
    for vm in 1..=VMS {
        world.boot(1 + vm % HOSTS, vm, 32 * u64::from(vm), 1000, 200 * u64::from(vm));
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
    })
}

/// Nothing goes wrong any more, and nobody is hot.
fn heal(world: &mut World) {
    world.net = world::Net { delay_max: Duration::from_millis(1), ..world::Net::default() };
    world.guests.values_mut().for_each(|guest| guest.packets = 10);
    for site in world.sites.values_mut() {
        (site.journal.fails, site.hypervisor.refuses) = (0, false);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_lost_repeated_or_killed_one_copy_runs_and_every_move_settles_once_healed(
        seed in any::<u64>(), net in net(), turns in vec((0..6000u64, turn()), 1..40)
    ) {
        let mut world = troubled(seed, net, &turns);
        heal(&mut world);
        let settled = world.until(secs(900), |world| world.settled().is_ok());
        prop_assert!(settled, "{:?}\n{}", world.settled(), world.story());
        world.run(secs(60));
        prop_assert_eq!(world.settled(), Ok(()), "{}", world.story());
        println!("STAT passed {} notes {:?}", world.checks.passed.len(), world.notes.iter().filter(|n| matches!(n.2.step, decide::host::story::Step::Undo | decide::host::story::Step::Alarm)).count());
    }
}
