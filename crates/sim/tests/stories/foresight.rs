//! What is expected of the next hour makes a host hot as what is read does, and a jump that comes back does not.

use decide::host::Event;
use decide::policy::settings::Hot;
use sim::world::World;
use sim::world::scene::{flooded, settings, vm_id};

use super::{Duration, Settings, secs};

const HOUR: u64 = 3600;

fn packets(world: &mut World, vm: u32, packets: u64) {
    world.guests.get_mut(&vm_id(vm)).unwrap().packets = packets;
}

fn hot(world: &World) -> Option<String> {
    let host = world.sites[&1].host.as_ref().unwrap();
    host.hot(world.now).map(ToString::to_string)
}

/// Two days on which vm1 sends much from nine to eleven, and nobody moves anything; then it is half past eight.
fn two_days(settings: Settings) -> World {
    let mut world = flooded(settings);
    world.handle(1, Event::Balancer { on: false });
    for _ in 0..2 {
        packets(&mut world, 1, 550);
        world.run(secs(9 * HOUR));
        packets(&mut world, 1, 1200);
        world.run(secs(2 * HOUR));
        packets(&mut world, 1, 550);
        world.run(secs(13 * HOUR));
    }
    world.run(secs(8 * HOUR + 1800));
    world
}

#[test]
fn what_comes_each_day_is_relieved_before_it_comes() {
    let mut world = two_days(settings());
    let expected = "packets_per_second 1104 over 1000 (expected in the next hour)";
    assert_eq!(hot(&world).as_deref(), Some(expected), "{}", world.story());
    world.handle(1, Event::Balancer { on: true });
    world.run(secs(1500));
    assert!(!world.runs_at(vm_id(1)).contains(&1), "{}", world.story());
    assert_eq!(hot(&world), None, "{}", world.story());
}

#[test]
fn jumps_that_come_back_are_not_expected() {
    let settings = settings();
    let hot_for = Duration::from_mins(2);
    let mut world = flooded(Settings { hot: Hot { window: hot_for, ..settings.hot }, ..settings });
    world.guests.values_mut().for_each(|guest| guest.packets = 200);
    for pause in (190..1000).step_by(30) {
        packets(&mut world, 1, 9000);
        world.run(secs(110));
        packets(&mut world, 1, 200);
        for _ in 0..pause {
            world.run(secs(1));
            assert_eq!(hot(&world), None, "{}", world.story());
        }
    }
}
