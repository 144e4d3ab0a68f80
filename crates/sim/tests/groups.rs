//! Affinity groups that balancing moves: where the first goes the others follow, or nobody does.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;
use std::time::Duration;

use decide::host::story::Step;
use decide::host::{Ask, Event};
use decide::policy::file;
use decide::policy::rules::Excluded;
use decide::policy::settings::{Balance, Settings};
use expect_test::expect;
use proptest::prelude::*;
use sim::checks::Half;
use sim::world::scene::{restless, settings, vm_id};
use sim::world::{World, host_id};

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// The usual settings, with affinity groups of these VMs; what is parted is brought together again.
fn grouped(mut settings: Settings, groups: &[&str]) -> Settings {
    let group = |(n, vms): (usize, &&str)| {
        format!("[[rules.group]]\nname = \"g{n}\"\nkind = \"affinity\"\nvms = {vms}\n")
    };
    let text: String = groups.iter().enumerate().map(group).collect();
    settings.rules = file::settings(&text).unwrap().rules;
    settings.mode.rules = Balance::Automatic;
    settings
}

fn three() -> Settings {
    grouped(settings(), &[r#"["vm1", "vm2", "vm3"]"#])
}

/// Host 1 is hot by vm1 to vm3, a group, with vm5, which stays; vm4 at host 2 has a little to do, host 3 nothing.
fn hot(settings: Settings, memory: u64) -> World {
    let mut world = World::of(1, 3, settings);
    for vm in 1..=3 {
        world.boot(1, vm, memory, 1000, 280);
    }
    world.boot(1, 5, 1024, 500, 300);
    world.boot(2, 4, 512, 500, 100);
    world.handle(1, Event::Excluded { vm: vm_id(5), excluded: Some(Excluded::Always) });
    world
}

fn places(world: &World, vms: impl Iterator<Item = u32>) -> BTreeSet<u16> {
    vms.flat_map(|vm| world.runs_at(vm_id(vm))).collect()
}

#[test]
fn a_group_leaves_as_one_and_goes_to_one_host() {
    let mut world = hot(three(), 1024);
    world.run(secs(200));
    let passed: Vec<(u16, Half)> = world.checks.passed.iter().map(|it| (it.to, it.half)).collect();
    let first = world.checks.passed.first().expect("they have left").id;
    let (lead, others) = ((3, Half::First(2)), (3, Half::OtherOf(first)));
    assert_eq!(passed, [lead, others, others], "{}", world.story());
    let after = world.story().matches("it follows its affinity group to host3").count();
    assert!(after >= 2, "{}", world.story());
    // One copy at a time: they share the link.
    let mut open = BTreeSet::new();
    for (_, _, note) in world.notes.iter().filter(|(_, at, _)| *at == 1) {
        if note.step == Step::Copy {
            assert!(open.insert(note.move_id) && open.len() == 1);
        } else if note.step == Step::Done {
            assert!(open.remove(&note.move_id));
        }
    }
    world.run(secs(400));
    assert_eq!(world.checks.passed.len(), 3, "and there they stay: {}", world.story());
    assert_eq!(world.settled(), Ok(()));
}

#[test]
fn a_move_awaits_the_others_until_the_host_is_free_for_another() {
    let mut world = hot(three(), 1024);
    assert!(world.until(secs(200), |w| w.noted(Step::Done)), "{}", world.story());
    let first = world.checks.passed.first().expect("it has left").id;
    let awaits =
        |world: &World| world.sites[&1].host.as_ref().is_some_and(|host| host.awaits_others(first));
    let by_hand = |world: &mut World| world.ask(1, Ask::Move { vm: vm_id(5), to: None });
    assert!(awaits(&world));
    let refused = by_hand(&mut world).unwrap_err();
    assert_eq!(refused, "moves_per_host: 2 under way here, 1 allowed");
    assert!(world.until(secs(200), |w| !awaits(w)), "{}", world.story());
    assert_eq!(places(&world, 1..=3), [3].into(), "{}", world.story());
    by_hand(&mut world).expect("nothing is under way");
}

#[test]
fn a_group_is_measured_as_a_whole_once_all_of_it_has_come() {
    let mut world = hot(three(), 512);
    world.run(secs(700));
    let told = world.notes.iter().filter(|(.., note)| note.step == Step::PayBack);
    let told: Vec<&str> = told.map(|(.., note)| &*note.reason).collect();
    expect![[r#"
        [
            "promised 184.50 % less, measured 184.50 %: it paid",
            "the move to here paid",
        ]
    "#]]
    .assert_debug_eq(&told);
}

#[test]
fn where_there_is_no_room_for_all_nobody_leaves() {
    let mut world = hot(three(), 16_384);
    // Each alone would fit, all three do not: 48 and 10 GiB of 54.
    world.boot(2, 6, 10_240, 200, 10);
    world.boot(3, 7, 10_240, 200, 10);
    world.run(secs(300));
    assert_eq!(world.checks.passed.len(), 0, "{}", world.story());
    assert!(!world.noted(Step::Acceptance), "{}", world.story());
}

#[test]
fn a_group_that_was_parted_on_its_way_comes_together_again() {
    for at in [1, 3] {
        let mut world = hot(three(), 1024);
        assert!(world.until(secs(100), |w| !w.checks.passed.is_empty()), "{}", world.story());
        // What was agreed is forgotten by whoever starts anew.
        world.crash_for(at, secs(5));
        world.run(secs(2000));
        assert_eq!(places(&world, 1..=3).len(), 1, "host {at}: {}", world.story());
        assert_eq!(world.settled(), Ok(()));
    }
}

#[test]
fn no_request_asks_about_more_than_it_can_tell_of() {
    let vms: Vec<String> = (1..=10).map(|vm| format!("\"vm{vm}\"")).collect();
    let all = format!("[{}]", vms.join(", "));
    let mut world = World::of(1, 3, grouped(settings(), &[&all]));
    (1..=10).for_each(|vm| world.boot(1, vm, 512, 500, 150));
    world.run(secs(100));
    assert_eq!(world.checks.passed.len(), 0);
    assert!(!world.noted(Step::Request), "{}", world.story());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn moves_of_groups_lower_the_sum_of_costs_and_end_and_no_group_is_parted_for_good(
        loads in prop::collection::vec((0u8..6, 1u64..4, 0u64..8, 1u64..8), 4..16)
    ) {
        let groups = [r#"["vm1", "vm2"]"#, r#"["vm3", "vm4", "vm5"]"#];
        let mut all = grouped(restless(), &groups);
        all.mode.trigger = decide::policy::settings::Trigger::Spread;
        let mut world = World::of(7, 4, all);
        for (vm, (at, cpu, packets, memory)) in (1u32..).zip(&loads) {
            // Groups are together at first.
            let at = match vm { 1 | 2 => 1, 3..=5 => 2, _ => [1, 1, 2, 2, 3, 4][usize::from(*at)] };
            world.boot(at, vm, memory * 128, cpu * 500, packets * 70);
        }
        let margin = world.settings.spread.gain_min;
        let at = world.checks.places().clone();
        world.run(secs(600));
        // Who asks in vain waits up to eleven minutes, so a move may follow late; but moves end.
        let passed = |world: &World| world.checks.passed.len();
        let mut quiet = false;
        for _ in 0..24 {
            let before = passed(&world);
            world.run(secs(1800));
            quiet = passed(&world) == before;
            if quiet {
                break;
            }
        }
        prop_assert!(quiet, "{} moves and no end: {}", passed(&world), world.story());
        for (parts, broken, lower) in world.lowered(at) {
            prop_assert!(!broken && lower > margin, "{parts:?} by {lower}: {}", world.story());
        }
        for group in [1..=2, 3..=5] {
            let vms = u32::try_from(loads.len()).unwrap();
            prop_assert!(places(&world, group.filter(|vm| *vm <= vms)).len() <= 1, "{}", world.story());
        }
        prop_assert_eq!(world.settled(), Ok(()), "{}", world.story());
    }
}

#[test]
fn a_target_takes_nobody_from_whom_one_that_is_to_follow_keeps_away() {
    let mut settings = three();
    settings.limits.moves_per_host = 4;
    let apart =
        "[[rules.group]]\nname = \"a\"\nkind = \"anti-affinity\"\nvms = [\"vm3\", \"vm6\"]\n";
    settings.rules.group.extend(file::settings(apart).unwrap().rules.group);
    let mut world = hot(settings, 1024);
    world.boot(2, 6, 512, 500, 10);
    let copying = |w: &World| w.notes.iter().any(|(.., note)| note.step == Step::Copy);
    assert!(world.until(secs(100), copying), "{}", world.story());
    // A person need not know that vm3 is to follow vm1 there.
    let asked = world.ask(2, Ask::Move { vm: vm_id(6), to: Some(host_id(3)) });
    assert!(asked.is_ok(), "{asked:?}");
    world.run(secs(200));
    assert_eq!(places(&world, 1..=3), BTreeSet::from([3]), "{}", world.story());
    assert_eq!(places(&world, 6..=6), BTreeSet::from([2]));
    assert!(world.story().contains("anti-affinity a: vm3 of it is to follow here"));
}

#[test]
fn a_target_that_may_not_have_one_of_them_has_none() {
    let mut settings = three();
    let apart =
        "[[rules.group]]\nname = \"a\"\nkind = \"anti-affinity\"\nvms = [\"vm3\", \"vm6\"]\n";
    settings.rules.group.extend(file::settings(apart).unwrap().rules.group);
    let mut world = hot(settings, 1024);
    world.boot(3, 6, 512, 500, 10);
    world.run(secs(200));
    assert_eq!(places(&world, 1..=3), BTreeSet::from([2]), "{}", world.story());
}
