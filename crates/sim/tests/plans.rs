//! Plans: what hosts would do, told without doing it, and done at a person's word.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use decide::host::plan::{Asked, Plan};
use decide::host::story::Step;
use decide::host::{Ask, Event};
use decide::policy::file;
use decide::policy::settings::{Balance, Settings, Trigger};
use decide::units::{Cost, Mib, VmId};
use expect_test::expect;
use sim::world::scene::{flooded, settings, vm_id};
use sim::world::{World, host_id};

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn with(balance: Balance) -> Settings {
    let mut settings = settings();
    settings.mode.balance = balance;
    settings
}

/// Host 1 has much more to do than the others, none of which is hot.
fn uneven(mut settings: Settings) -> World {
    settings.mode.trigger = Trigger::Spread;
    let mut world = World::of(1, 5, settings);
    for n in 1..=6 {
        world.boot(1, n, 1024, 1500, 10);
    }
    world.boot(2, 7, 1024, 2000, 10);
    world
}

fn plan(world: &mut World, at: u16) -> Plan {
    let site = world.sites.get_mut(&at).unwrap();
    let now = site.clock.shown(world.now);
    site.host.as_mut().unwrap().plan(now)
}

fn count(world: &World, step: Step) -> usize {
    world.notes.iter().filter(|(_, _, note)| note.step == step).count()
}

#[test]
fn a_plan_says_which_vm_and_whom_and_what_it_brings_and_takes() {
    let mut world = flooded(with(Balance::Recommend));
    world.run(secs(2));
    assert_eq!((plan(&mut world, 1).moves, plan(&mut world, 2).moves), (vec![], vec![]));
    expect!["packets_per_second 1100 over 1000, not for 5 s yet"]
        .assert_eq(&plan(&mut world, 1).held.unwrap());
    world.run(secs(28));
    let Plan { moves, held, .. } = plan(&mut world, 1);
    let [planned] = &moves[..] else { panic!("{moves:?}") };
    assert_eq!(held.as_deref(), Some("balance is \"recommend\""));
    assert_eq!((planned.vm, planned.memory), (vm_id(1), Mib(1024)));
    let (likely, there) = planned.likely.unwrap();
    assert_eq!(likely, host_id(3), "it has less to do than host 2");
    assert!(there > Cost(0) && there < planned.relief.unwrap());
    assert_eq!(planned.reason, "hot (packets_per_second 1100 over 1000)");
    assert_eq!(planned.choice.as_deref(), Some("most relief per GiB copied"));
    assert_eq!(planned.asked, Asked::All(vec![host_id(2), host_id(3)]));
    assert!(planned.relief.unwrap() > Cost::percent(100) && planned.copy_cost > Cost(0));
    let foreseen = planned.foreseen.unwrap();
    let quiet = Some(Duration::ZERO);
    assert_eq!((foreseen.copy.as_secs(), foreseen.pause), (17, quiet), "1 GiB at 500 Mbit/s");
    let noted = world.notes.iter().find(|(_, _, note)| note.step == Step::VmPolicy).unwrap();
    let since = planned.recommended.unwrap();
    assert!(noted.0.since(since) <= secs(1) && since <= noted.0, "{since:?} {noted:?}");
}

/// What hosts told a person to move, in two hours in which loads tremble by a fifth.
fn recommended(mut world: World) -> Vec<String> {
    let asked: Vec<(VmId, u64)> = world.guests.iter().map(|(vm, guest)| (vm, guest.cpu)).collect();
    for second in (0..7200).step_by(10) {
        for (at, (vm, cpu)) in asked.iter().enumerate() {
            let trembles = 80 + (second * 7919 + at as u64 * 104_729) % 41;
            world.guests.get_mut(vm).unwrap().cpu = cpu * trembles / 100;
        }
        world.run(secs(10));
    }
    let told = world.notes.iter().filter(|(.., note)| note.step == Step::VmPolicy);
    told.map(|(_, at, note)| format!("host{at} {}", note.reason.split(':').next().unwrap()))
        .collect()
}

#[test]
fn recommendations_neither_pile_up_nor_repeat() {
    assert_eq!(recommended(uneven(with(Balance::Recommend))), ["host1 vm1 should leave"]);
    let mut hot = flooded(with(Balance::Recommend));
    hot.run(secs(30));
    assert_eq!(recommended(hot), ["host1 vm1 should leave"]);
}

#[test]
fn a_vm_that_would_make_any_host_hot_is_not_likely_to_be_taken() {
    let mut world = World::of(1, 3, with(Balance::Recommend));
    world.boot(1, 1, 1024, 100, 1500);
    world.boot(1, 2, 1024, 100, 10);
    world.run(secs(30));
    let Plan { moves, .. } = plan(&mut world, 1);
    let planned = moves.iter().find(|planned| planned.vm == vm_id(1)).unwrap();
    assert_eq!((planned.likely, planned.exchange), (None, false), "{planned:?}");
    let refused = world.ask(1, Ask::Apply { vm: vm_id(1) }).map(|_| world.run(secs(30)));
    assert!(refused.is_err() || world.runs_at(vm_id(1)) == [1].into(), "{}", world.story());
}

#[test]
fn where_hosts_are_evened_out_a_plan_names_the_hosts_that_are_asked() {
    let mut world = uneven(with(Balance::Recommend));
    world.run(secs(30));
    let Plan { moves, .. } = plan(&mut world, 1);
    let [planned, ..] = &moves[..] else { panic!("{moves:?}: {}", world.story()) };
    assert!(planned.reason.starts_with("above the mean (cpu used "), "{planned:?}");
    let Asked::Best(hosts) = &planned.asked else { panic!("{planned:?}") };
    assert_eq!((hosts.len(), hosts.last()), (4, Some(&host_id(2))), "host 2 has a VM already");
    world.ask(1, Ask::Apply { vm: planned.vm }).unwrap();
    let asked = world.notes.iter().find(|(_, _, note)| note.step == Step::Request).unwrap();
    assert_eq!(asked.2.vm, Some(planned.vm));
    assert!(asked.2.reason.starts_with("4 hosts asked, a cost up to "), "{asked:?}");
}

#[test]
fn a_plan_of_several_is_what_comes_of_it_when_it_is_carried_out_one_after_another() {
    let mut settings = with(Balance::Recommend);
    settings.worth_it.host_rest = Duration::from_hours(1);
    let mut world = uneven(settings);
    world.run(secs(30));
    let Plan { moves, end, .. } = plan(&mut world, 1);
    let planned: Vec<_> = moves.iter().map(|it| (it.vm, it.likely.map(|(host, _)| host))).collect();
    assert!(planned.len() >= 2, "{planned:?}");
    let why = "above the mean (cpu used 18.7 %, 13.7 % in the mean of the cluster, 0.5 % above it allowed), but none of 2 VMs";
    assert!(end.starts_with(why), "{end}");
    for (n, (vm, to)) in planned.iter().enumerate() {
        let first = plan(&mut world, 1).moves;
        assert!(n > 0 || first[0].vm == *vm);
        world.ask(1, Ask::Apply { vm: *vm }).unwrap();
        world.run(secs(60));
        let at: Vec<_> = world.runs_at(*vm).into_iter().map(host_id).collect();
        assert_eq!(at, [to.unwrap()], "move {}: {}", n + 1, world.story());
    }
    assert_eq!(plan(&mut world, 1).moves, [], "{}", world.story());
    assert_eq!(world.settled(), Ok(()));
}

#[test]
fn a_hot_host_plans_until_it_would_not_be_hot_any_more() {
    let mut world = World::of(1, 3, with(Balance::Recommend));
    (1..=4).for_each(|n| world.boot(1, n, 1024, 500, 350));
    world.run(secs(30));
    let Plan { moves, end, .. } = plan(&mut world, 1);
    let words: Vec<_> = moves.iter().map(|it| &*it.reason).collect();
    let hot = |packets| format!("hot (packets_per_second {packets} over 1000)");
    assert_eq!(words, [hot(1400), hot(1050)], "{end}");
    let likely: Vec<_> = moves.iter().map(|it| it.likely.unwrap().0).collect();
    assert!(likely[0] != likely[1], "the first has more to do by then: {likely:?}");
    assert_eq!(end, "nothing asks for more, as far as it can be foretold");
}

#[test]
fn a_host_that_a_plan_has_filled_is_not_likely_to_take_the_next_one() {
    let mut settings = with(Balance::Recommend);
    settings.target.memory_reserve = Mib(0);
    let mut world = World::of_size(1, 3, settings, 8192);
    (1..=4).for_each(|n| world.boot(1, n, 1024, 500, 700));
    // Room for one of them, and for none.
    world.boot(2, 5, 5500, 100, 10);
    world.boot(3, 6, 6400, 100, 10);
    world.run(secs(30));
    let Plan { moves, end, .. } = plan(&mut world, 1);
    let likely: Vec<_> = moves.iter().map(|it| it.likely.map(|(host, _)| host)).collect();
    assert_eq!(likely, [Some(host_id(2)), None]);
    assert!(moves[1].exchange && end == "what follows depends on what comes in return", "{end}");
}

#[test]
fn rules_that_are_broken_are_all_planned_and_no_move_breaks_what_one_before_it_mends() {
    let mut settings = with(Balance::Recommend);
    let group = "[[rules.group]]\nname = \"web\"\nkind = \"anti-affinity\"\nvms = [\"vm1\", \"vm2\", \"vm5\"]\n";
    settings.rules = file::settings(group).unwrap().rules;
    settings.mode.rules = Balance::Recommend;
    let mut world = flooded(settings);
    world.boot(1, 5, 512, 100, 10);
    world.run(secs(30));
    let Plan { moves, held, .. } = plan(&mut world, 1);
    let by_rule: Vec<_> = moves.iter().filter(|it| it.relief.is_none()).collect();
    assert_eq!(
        by_rule.iter().map(|it| it.vm).collect::<Vec<_>>(),
        [vm_id(2), vm_id(5)],
        "{moves:?}"
    );
    let likely: Vec<_> = by_rule.iter().map(|it| it.likely.unwrap().0).collect();
    assert!(likely[0] != likely[1], "{likely:?}");
    assert!(held.unwrap().starts_with("rules is \"recommend\""));
}

#[test]
fn a_plan_keeps_to_what_is_left_of_a_day_s_moves() {
    let mut settings = with(Balance::Recommend);
    settings.limits.moves_per_day = 1;
    let mut world = uneven(settings);
    world.run(secs(30));
    let Plan { moves, end, .. } = plan(&mut world, 1);
    assert_eq!(moves.len(), 1);
    assert!(end.ends_with("but moves_per_day: 0 were made, 1 planned"), "{end}");
}

/// What hosts tell and do in 100 s, in the midst of which all VMs of host 1 are applied; whether plans are asked for all the time.
fn lived(mut world: World, plans: bool) -> (World, usize) {
    world.logs = Some([].into());
    for at in world.sites.keys().copied().collect::<Vec<_>>() {
        world.crash(at);
        world.restart(at);
    }
    let mut planned = 0;
    for n in 0..400 {
        world.run(Duration::from_millis(250));
        for at in world.sites.keys().copied().filter(|_| plans).collect::<Vec<_>>() {
            let found = plan(&mut world, at);
            assert_eq!(found, plan(&mut world, at));
            planned += found.moves.len();
        }
        if n == 200 {
            (1..=6).for_each(|vm| drop(world.ask(1, Ask::Apply { vm: vm_id(vm) })));
        }
    }
    assert!(world.noted(Step::Done), "{}", world.story());
    (world, planned)
}

#[test]
fn planning_at_every_moment_changes_nothing_that_follows() {
    for scene in [flooded, uneven] {
        let (quiet, _) = lived(scene(with(Balance::Recommend)), false);
        let (asked, planned) = lived(scene(with(Balance::Recommend)), true);
        assert!(planned > 0, "there was something to plan");
        assert_eq!(quiet.story(), asked.story());
        assert!(quiet.logs == asked.logs, "each action and deadline of each host is the same");
    }
}

#[test]
fn what_is_applied_moves_as_if_the_policy_had_begun_it_whatever_the_mode() {
    for mode in [Balance::Recommend, Balance::Off, Balance::Automatic] {
        let mut world = flooded(with(mode));
        world.handle(1, Event::Balancer { on: false });
        world.run(secs(30));
        assert!(!world.noted(Step::Request), "{}", world.story());
        world.ask(1, Ask::Apply { vm: vm_id(1) }).unwrap();
        world.run(secs(60));
        let story = world.story();
        assert!(
            story.contains("1100 over 1000, applied by hand")
                || story.contains("copy cost 0.03 %), applied by hand"),
            "{story}"
        );
        assert!(story.contains("a cost up to 149.18 % will do"), "{story}");
        assert_eq!(world.runs_at(vm_id(1)).into_iter().collect::<Vec<_>>(), [3], "{story}");
        assert_eq!(world.settled(), Ok(()));
    }
}

#[test]
fn what_does_not_hold_any_more_is_not_applied() {
    let mut world = flooded(with(Balance::Recommend));
    world.run(secs(30));
    assert_eq!(plan(&mut world, 1).moves.len(), 1);
    // It was flooded; now vm2 asks next to nothing, and the host stays hot.
    world.guests.get_mut(&vm_id(2)).unwrap().packets = 1;
    world.guests.get_mut(&vm_id(2)).unwrap().cpu = 1;
    world.guests.get_mut(&vm_id(1)).unwrap().packets = 1200;
    world.run(secs(20));
    let refused = |world: &mut World, n| world.ask(1, Ask::Apply { vm: vm_id(n) }).unwrap_err();
    expect!["none of 1 VMs that may leave would relieve it by more than 5.00 % beyond the copy"]
        .assert_eq(&refused(&mut world, 2));
    assert!(refused(&mut world, 4).starts_with("no VM "), "it is on host 3");
    world.guests.get_mut(&vm_id(1)).unwrap().packets = 10;
    world.run(secs(20));
    expect!["this host is not hot"].assert_eq(&refused(&mut world, 1));
    assert!(!world.noted(Step::Request), "{}", world.story());
}

#[test]
fn a_vm_that_was_applied_is_not_applied_again() {
    let mut world = flooded(with(Balance::Recommend));
    world.run(secs(30));
    world.ask(1, Ask::Apply { vm: vm_id(1) }).unwrap();
    let again = world.ask(1, Ask::Apply { vm: vm_id(1) }).unwrap_err();
    expect!["it is being moved already"].assert_eq(&again);
    expect![
        "hot (packets_per_second 1100 over 1000), but moves_per_host: 1 under way here, 1 allowed"
    ]
    .assert_eq(&plan(&mut world, 1).held.unwrap());
}

#[test]
fn a_recommendation_is_made_once_and_expires_with_what_asks_for_it() {
    let mut world = flooded(with(Balance::Recommend));
    world.run(secs(1800));
    assert_eq!(count(&world, Step::VmPolicy), 1, "{}", world.story());
    for guest in world.guests.values_mut() {
        guest.packets = 10;
    }
    world.run(secs(60));
    assert_eq!(plan(&mut world, 1).moves, []);
    world.guests.get_mut(&vm_id(1)).unwrap().packets = 1100;
    world.run(secs(60));
    assert_eq!(count(&world, Step::VmPolicy), 2, "another cause, another recommendation");
}

#[test]
fn a_rule_that_is_broken_is_planned_first_and_can_be_applied() {
    let mut settings = with(Balance::Recommend);
    let group =
        "[[rules.group]]\nname = \"web\"\nkind = \"anti-affinity\"\nvms = [\"vm1\", \"vm2\"]\n";
    settings.rules = file::settings(group).unwrap().rules;
    settings.mode.rules = Balance::Recommend;
    let mut world = flooded(settings);
    world.run(secs(30));
    let Plan { moves, held, .. } = plan(&mut world, 1);
    let [planned] = &moves[..] else { panic!("{moves:?}") };
    assert_eq!(held.as_deref(), Some("rules is \"recommend\""));
    assert!(planned.reason.starts_with("anti-affinity web"), "{planned:?}");
    assert!(planned.relief.is_none() && planned.choice.is_none() && planned.recommended.is_some());
    let vm = planned.vm;
    world.ask(1, Ask::Apply { vm }).unwrap();
    world.run(secs(60));
    assert!(world.noted(Step::Done), "{}", world.story());
    assert!(!world.runs_at(vm).contains(&1));
}
