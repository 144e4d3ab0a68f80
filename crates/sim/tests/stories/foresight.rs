//! What is expected of the next hour makes a host hot as what is read does, and a jump that comes back does not.

use decide::host::Event;
use decide::policy::settings::Hot;
use expect_test::expect;
use sim::world::World;
use sim::world::scene::{flooded, settings, vm_id};

use super::{Duration, Settings, Step, secs};

const HOUR: u64 = 3600;

fn packets(world: &mut World, vm: u32, packets: u64) {
    world.guests.get_mut(&vm_id(vm)).unwrap().packets = packets;
}

fn hot(world: &World) -> Option<String> {
    let host = world.sites[&1].host.as_ref().unwrap();
    host.hot(world.now).map(ToString::to_string)
}

/// Two days on which vm1 sends much from nine to eleven, and nobody moves anything; then it is a quarter to nine.
fn two_days(settings: Settings) -> World {
    let mut world = flooded(settings);
    world.handle(1, Event::Balancer { on: false });
    for _ in 0..2 {
        packets(&mut world, 1, 650);
        world.run(secs(9 * HOUR));
        packets(&mut world, 1, 850);
        world.run(secs(2 * HOUR));
        packets(&mut world, 1, 650);
        world.run(secs(13 * HOUR));
    }
    world.run(secs(8 * HOUR + 2700));
    world
}

/// Its balancer is switched on then, and vm1 leaves at once; at nine it sends so much. What its move has brought by the time.
fn leaves_and_then_sends(sent: u64, settings: Settings) -> String {
    let mut world = two_days(settings);
    let expected = "packets_per_second 1065 over 1000 (expected in the next hour)";
    assert_eq!(hot(&world).as_deref(), Some(expected), "{}", world.story());
    world.handle(1, Event::Balancer { on: true });
    world.run(secs(600));
    assert!(!world.runs_at(vm_id(1)).contains(&1), "{}", world.story());
    assert_eq!(hot(&world), None, "{}", world.story());
    assert!(!world.noted(Step::PayBack), "before the hour is over: {}", world.story());
    world.run(secs(300));
    packets(&mut world, 1, sent);
    world.run(secs(HOUR));
    let paid = world.notes.iter().find(|(.., note)| note.step == Step::PayBack);
    paid.map(|(.., note)| note.reason.clone()).unwrap_or_default()
}

#[test]
fn what_comes_each_day_is_relieved_before_it_comes() {
    expect!["promised 131.56 % less, measured 189.11 %: it paid"]
        .assert_eq(&leaves_and_then_sends(850, settings()));
}

#[test]
fn what_was_expected_and_does_not_come_has_not_paid() {
    expect!["promised 131.56 % less, measured 1.96 %: it did not pay, less than half of it came"]
        .assert_eq(&leaves_and_then_sends(10, settings()));
}

/// What others say when a host asks them by its forecast, and what the move is reckoned by.
#[test]
fn why_a_vm_leaves_for_what_is_expected() {
    let mut world = two_days(settings());
    let before = world.notes.len();
    world.handle(1, Event::Balancer { on: true });
    world.run(secs(60));
    let told: Vec<String> = world.notes[before..]
        .iter()
        .filter(|(_, at, note)| {
            *at == 1 && matches!(note.step, Step::VmPolicy | Step::Request | Step::Acceptance)
        })
        .map(|(.., note)| note.reason.clone())
        .collect();
    expect![[r#"
        the balancer is on again on this host
        vm1 should leave: packets_per_second 1065 over 1000 (expected in the next hour); without it 131.56 % less (765 packets/s, 2000 mcores), most relief per GiB copied (1024 MiB, copy cost 0.03 %)
        2 hosts asked, a cost up to 126.53 % will do
        it would cost 52.57 % there
        it would cost 83.06 % there"#]].assert_eq(&told.join("\n"));
}

#[test]
fn jumps_that_come_back_are_not_expected() {
    // A jump makes five minutes look hot; the higher one a quarter of an hour too.
    for (jump, pauses) in [(3000, 900..7200), (9000, 5400..9000)] {
        let hot_for = Duration::from_mins(2);
        let settings = settings();
        let mut world =
            flooded(Settings { hot: Hot { window: hot_for, ..settings.hot }, ..settings });
        world.guests.values_mut().for_each(|guest| guest.packets = 200);
        for pause in pauses.step_by(300) {
            packets(&mut world, 1, jump);
            world.run(secs(110));
            packets(&mut world, 1, 200);
            for _ in 0..pause / 10 {
                world.run(secs(10));
                assert_eq!(hot(&world), None, "{jump}, {pause} s: {}", world.story());
            }
        }
    }
}
