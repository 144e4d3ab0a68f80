//! What keeps a VM from a host, as the production host tells it.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use decide::host::obstacles::Obstacle;
use decide::host::story::Step;
use decide::host::{Ask, Event, Host};
use decide::policy::settings::{Balance, Settings};
use decide::units::Share;
use expect_test::{Expect, expect};
use sim::world::scene::{self, settings, vm_id};
use sim::world::{World, host_id};

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn host(world: &World) -> &Host {
    world.sites[&1].host.as_ref().unwrap()
}

/// What keeps vm1, at host 1, from that host.
fn obstacles(world: &World, to: u16) -> Vec<Obstacle> {
    let now = world.sites[&1].clock.shown(world.now);
    host(world).obstacles(now, vm_id(1), host_id(to))
}

fn told(world: &World, to: u16) -> String {
    let line = |Obstacle { words, change, by_hand }: &Obstacle| {
        format!("{}{words}; {change}\n", if *by_hand { "" } else { "(not by hand) " })
    };
    obstacles(world, to).iter().map(line).collect()
}

#[expect(clippy::needless_pass_by_value, reason = "`expect!` is written where it is used")]
fn check(world: &World, to: u16, expect: Expect) {
    expect.assert_eq(&told(world, to));
}

/// Nobody is hot.
fn calm(settings: Settings) -> World {
    let mut world = scene::flooded(settings);
    world.guests.values_mut().for_each(|guest| guest.packets = 100);
    world.run(secs(60));
    world
}

#[test]
fn where_nothing_asks_a_person_may_still_move_it() {
    let mut world = calm(settings());
    check(
        &world,
        3,
        expect![[r#"
            (not by hand) nothing asks for a move: this host is not hot; none is needed; by hand: `evenkeel move VM --to HOST`
            (not by hand) it would cost 3.44 % there by what that host said last, useful is 0.00 % at the most: 3.45 % less here, copy 0.03 %, gain_min 5.00 %; relieve that host first: all hosts together would be 0.02 % worse off
        "#]],
    );
    assert!(obstacles(&world, 3).iter().all(|obstacle| !obstacle.by_hand));
    world.ask(1, Ask::Move { vm: vm_id(1), to: Some(host_id(3)) }).unwrap();
    assert!(world.until(secs(60), |w| w.noted(Step::Done)), "{}", world.story());
}

#[test]
fn nothing_keeps_a_flooded_vm_from_where_it_is_about_to_go() {
    let mut world = scene::flooded(settings());
    assert!(world.until(secs(30), |w| w.noted(Step::VmPolicy)), "{}", world.story());
    // It is asked about by now, and that is all.
    check(
        &world,
        3,
        expect![[r#"
            it is being moved already; wait for it, or put it right
            (not by hand) moves_per_host: 1 under way here, 1 allowed; wait, or change [limits] or worth_it.host_rest
        "#]],
    );
}

#[test]
fn the_rule_is_named_with_the_vm_that_is_there() {
    let mut world = calm(settings());
    world.retag(1, vm_id(1), &["plb_anti_affinity_web", "plb_pin_host1", "plb_pin_host3"]);
    world.retag(3, vm_id(4), &["plb_anti_affinity_web"]);
    world.run(secs(90));
    let first = |to| obstacles(&world, to).first().cloned().unwrap();
    assert_eq!(first(3).words, "rule anti-affinity web: vm4 is there");
    assert_eq!(first(2).words, "rule pin: it may be at host1, host3 only");
    assert!(first(2).by_hand && first(3).by_hand);
}

#[test]
fn room_tells_what_is_asked_what_is_there_and_what_would_do() {
    let mut world = World::of_size(1, 2, settings(), 65_536);
    world.boot(1, 1, 8192, 500, 100);
    world.boot(2, 2, 49_152, 500, 100);
    world.run(secs(60));
    let first = obstacles(&world, 2).first().cloned().unwrap();
    expect![["room: 8288 MiB asked, 5842 MiB to give there; free 2446 MiB there, or raise target.memory_used_max to 89% on all hosts"]].assert_eq(&format!("{}; {}", first.words, first.change));
    // As said, so done: nothing more is said of room.
    let mut raised = settings();
    raised.target.memory_used_max = Share(900);
    for at in [1, 2] {
        world.handle(at, Event::Settings(Box::new(raised.clone())));
    }
    world.run(secs(60));
    assert!(!told(&world, 2).contains("room"), "{}", told(&world, 2));
}

#[test]
fn what_persons_and_limits_hold_back_is_told_all_at_once() {
    let mut set = settings();
    set.mode.balance = Balance::Recommend;
    let mut world = calm(set);
    world.retag(1, vm_id(1), &["evenkeel:exclude"]);
    world.handle(1, Event::Balancer { on: false });
    world.crash(3);
    world.run(secs(60));
    check(
        &world,
        3,
        expect![[r#"
            it does not answer; bring its agent back
            (not by hand) balance is "recommend"; `evenkeel apply` where it is planned, or set mode.balance to "automatic" here
            (not by hand) the balancer is off on this host (`evenkeel balancer on`); `evenkeel balancer on`
            (not by hand) nothing asks for a move: this host is not hot; none is needed; by hand: `evenkeel move VM --to HOST`
            (not by hand) exclude: it is left where it is; end the exclusion
            (not by hand) it would cost 3.44 % there by what that host said last, useful is 0.00 % at the most: 3.45 % less here, copy 0.03 %, gain_min 5.00 %; relieve that host first: all hosts together would be 0.02 % worse off
        "#]],
    );
}

#[test]
fn what_a_host_said_when_it_was_asked_last_is_kept() {
    let mut world = scene::flooded(settings());
    for vm in [3, 4] {
        world.guests.get_mut(&vm_id(vm)).unwrap().packets = 900;
    }
    assert!(world.until(secs(60), |w| w.noted(Step::Abandoned)), "{}", world.story());
    let (_, why) = host(&world).last_refusal(vm_id(1), host_id(2)).unwrap();
    assert_eq!(why, "packets_per_second: would reach 1700, allowed 1000");
    assert!(
        told(&world, 2).contains("packets_per_second: would reach 1700"),
        "{}",
        told(&world, 2)
    );
    let story = host(&world).stories().next().unwrap();
    assert_eq!(story.answers.len(), 2, "{story:?}");
    assert_eq!(host(&world).last_refusal(vm_id(2), host_id(2)), None);
}
