//! Rules about where VMs are, kept by every move, and what is done where one is broken.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test")]

use std::collections::BTreeMap;
use std::time::Duration;

use decide::host::story::Step;
use decide::host::{Ask, Event};
use decide::policy::file;
use decide::policy::rules::hours::LocalTimes;
use decide::policy::rules::until::Until;
use decide::policy::settings::{Balance, Settings};
use decide::units::{Mib, MoveId};
use decide::wire::message::Body;
use sim::hypervisor::Memory;
use sim::world::scene::{settings, vm_id};
use sim::world::{World, host_id};

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// The usual settings with these rules; where one is broken nothing is done.
fn ruled(rules: &str) -> Settings {
    let mut all = settings();
    all.rules = file::settings(rules).unwrap().rules;
    all.mode.rules = Balance::Off;
    all
}

/// Nothing is balanced; what breaks a rule is moved.
fn enforced(rules: &str) -> Settings {
    let mut all = ruled(rules);
    (all.mode.balance, all.mode.rules) = (Balance::Off, Balance::Automatic);
    all.worth_it.host_rest = secs(2);
    all
}

fn group(kind: &str, vms: &str) -> String {
    format!("[[rules.group]]\nname = \"web\"\nkind = \"{kind}\"\nvms = {vms}\n")
}

fn pin(vms: &str, to: &str) -> String {
    format!("[[rules.pin]]\nvms = {vms}\n{to}\n")
}

/// VMs at hosts, all alike and quiet.
fn with(settings: Settings, vms: &[(u16, u32)]) -> World {
    let mut world = World::of(1, 3, settings);
    vms.iter().for_each(|(at, vm)| world.boot(*at, *vm, 512, 500, 10));
    world.run(secs(5));
    world
}

/// vm1 makes host 1 hot; host 3 has the least to do, host 2 a little more.
fn flooded(settings: Settings) -> World {
    let mut world = with(settings, &[(1, 1), (1, 2), (2, 3)]);
    world.guests.get_mut(&vm_id(1)).unwrap().packets = 900;
    world.guests.get_mut(&vm_id(2)).unwrap().packets = 300;
    world
}

fn by_hand(world: &mut World, at: u16, vm: u32, to: u16) -> Result<MoveId, String> {
    world.ask(at, Ask::Move { vm: vm_id(vm), to: Some(host_id(to)) })
}

fn at(world: &World, vm: u32) -> Vec<u16> {
    world.runs_at(vm_id(vm)).into_iter().collect()
}

/// What hosts said of this kind.
fn said(world: &World, step: Step) -> Vec<&str> {
    world
        .notes
        .iter()
        .filter(|(.., note)| note.step == step)
        .map(|(.., note)| &*note.reason)
        .collect()
}

fn doing(world: &World, at: u16) -> &str {
    world.sites[&at].host.as_ref().unwrap().doing()
}

/// What the calendar says, told to all agents.
fn tell_time(world: &mut World, unix: u64, minute_of_week: u16) {
    let zones = BTreeMap::from([("UTC".to_owned(), minute_of_week)]);
    for n in 1..=3 {
        world.handle(n, Event::LocalTimes(LocalTimes { unix, zones: zones.clone() }));
    }
}

/// One host's settings change.
fn set(world: &mut World, at: u16, change: impl FnOnce(&mut Settings)) {
    let mut settings = world.sites[&at].host.as_ref().unwrap().settings().clone();
    change(&mut settings);
    world.handle(at, Event::Settings(Box::new(settings)));
}

#[test]
fn a_vm_does_not_go_where_one_is_that_it_keeps_away_from() {
    let mut world = flooded(settings());
    world.run(secs(60));
    assert_eq!(at(&world, 1), [3], "without rules: {}", world.story());
    let mut world = flooded(ruled(&group("anti-affinity", r#"["vm1", "vm4"]"#)));
    world.boot(3, 4, 512, 500, 1);
    world.run(secs(60));
    assert_eq!(at(&world, 1), [2], "{}", world.story());
}

#[test]
fn two_vms_that_keep_apart_cannot_come_to_one_host_at_once() {
    let mut world = with(ruled(&group("anti-affinity", r#"["vm1", "vm2"]"#)), &[(1, 1), (2, 2)]);
    by_hand(&mut world, 1, 1, 3).unwrap();
    by_hand(&mut world, 2, 2, 3).unwrap();
    world.run(secs(60));
    assert_eq!((at(&world, 1), at(&world, 2)), (vec![3], vec![2]), "{}", world.story());
    let refusals = said(&world, Step::Refusal);
    assert!(refusals.contains(&"anti-affinity web: vm1 of it is on its way here"), "{refusals:?}");
}

#[test]
fn a_target_that_was_restarted_knows_who_is_on_its_way() {
    let rules = ruled(&group("anti-affinity", r#"["vm1", "vm2"]"#));
    let mut world = World::of(1, 3, rules);
    let slow = Memory { size: Mib(8192), working_set: Mib(1), dirty_rate: Mib(1) };
    world.boot_with(1, 1, slow, 500, 10);
    world.boot(2, 2, 512, 500, 10);
    world.run(secs(5));
    set(&mut world, 3, |settings| settings.limits.moves_per_host = 2);
    by_hand(&mut world, 1, 1, 3).unwrap();
    assert!(world.until(secs(20), |w| w.noted(Step::Copy)), "{}", world.story());
    world.settings.limits.moves_per_host = 2;
    world.crash_for(3, secs(1));
    world.run(secs(8));
    assert_eq!(at(&world, 1), [1], "the copy takes longer: {}", world.story());
    by_hand(&mut world, 2, 2, 3).unwrap();
    world.run(secs(2));
    let refusals = said(&world, Step::Refusal);
    assert!(refusals.contains(&"anti-affinity web: vm1 of it is on its way here"), "{refusals:?}");
}

#[test]
fn the_target_refuses_by_name_what_its_source_has_not_heard_of() {
    let mut world = with(ruled(&group("anti-affinity", r#"["vm*"]"#)), &[(1, 1), (2, 2)]);
    world.boot(3, 3, 512, 500, 10);
    by_hand(&mut world, 1, 1, 3).unwrap();
    world.run(secs(2));
    let refusals = said(&world, Step::Refusal);
    assert!(refusals.contains(&"anti-affinity web: vm3 of it is here already"), "{refusals:?}");
    world.run(secs(10));
    // Its source knows by now.
    assert_eq!(
        by_hand(&mut world, 1, 1, 3),
        Err("anti-affinity web: a VM of it is there".to_owned())
    );
}

#[test]
fn tags_are_rules_like_those_of_the_file() {
    let mut world = with(ruled(""), &[(1, 1), (2, 2)]);
    for (host, vm) in [(1, 1), (2, 2)] {
        world.retag(host, vm_id(vm), &["plb_anti_affinity_web"]);
    }
    by_hand(&mut world, 1, 1, 3).unwrap();
    by_hand(&mut world, 2, 2, 3).unwrap();
    world.run(secs(60));
    assert_eq!((at(&world, 1), at(&world, 2)), (vec![3], vec![2]), "{}", world.story());
    // The tag went with the VM, and is listed.
    assert_eq!(
        by_hand(&mut world, 2, 2, 3),
        Err("anti-affinity web: a VM of it is there".to_owned())
    );
    let too_many: Vec<String> = (0..30).map(|n| format!("plb_pin_host-number-{n}")).collect();
    let too_many: Vec<&str> = too_many.iter().map(String::as_str).collect();
    world.retag(2, vm_id(2), &too_many);
    let why = by_hand(&mut world, 2, 2, 1).unwrap_err();
    assert!(
        why.starts_with("its tags that are groups and pins take 650 bytes, 240 at most"),
        "{why}"
    );
}

#[test]
fn a_pinned_vm_leaves_only_for_its_hosts() {
    let mut world = flooded(ruled(&pin(r#"["vm1"]"#, r#"hosts = ["host1", "host2"]"#)));
    world.run(secs(60));
    assert_eq!(at(&world, 1), [2], "{}", world.story());
    assert_eq!(by_hand(&mut world, 2, 1, 3), Err("pin: it may be at host1, host2 only".to_owned()));
}

#[test]
fn a_pin_to_a_label_is_kept_by_the_host_that_lacks_it() {
    let mut rules = ruled(&pin(r#"["vm1"]"#, r#"labels = ["rack-a"]"#));
    rules.host.labels = vec!["rack-a".to_owned()];
    let mut world = flooded(rules);
    // Nobody has heard of it yet.
    set(&mut world, 3, |settings| settings.host.labels.clear());
    by_hand(&mut world, 1, 1, 3).unwrap();
    world.run(secs(2));
    let refusals = said(&world, Step::Refusal);
    assert!(refusals.contains(&"pin: it may be at hosts with label rack-a only"), "{refusals:?}");
    world.run(secs(60));
    assert_eq!(at(&world, 1), [2], "{}", world.story());
}

#[test]
fn a_preferred_host_comes_before_a_cheaper_one() {
    let rule = pin(r#"["vm1"]"#, "hosts = [\"host2\"]\nshould = true");
    let mut world = flooded(ruled(&rule));
    world.run(secs(60));
    assert_eq!(at(&world, 1), [2], "{}", world.story());
    // Where none of those can take it another will do.
    let mut world = flooded(ruled(&rule));
    set(&mut world, 2, |settings| settings.host.maintenance = true);
    world.run(secs(120));
    assert_eq!(at(&world, 1), [3], "{}", world.story());
}

#[test]
fn a_host_in_maintenance_takes_no_vm() {
    let mut world = flooded(settings());
    set(&mut world, 3, |settings| settings.host.maintenance = true);
    world.run(secs(60));
    assert_eq!(at(&world, 1), [2], "{}", world.story());
    let refusals = said(&world, Step::Refusal);
    assert!(refusals.contains(&"maintenance: this host takes no VM"), "{refusals:?}");
}

#[test]
fn vms_that_stay_together_are_not_parted_by_hand() {
    let mut rules = ruled(&group("affinity", r#"["vm1", "vm2"]"#));
    rules.mode.balance = Balance::Off;
    let mut world = flooded(rules);
    let why = "affinity web: it stays with vm2, which is here".to_owned();
    assert_eq!(by_hand(&mut world, 1, 1, 3), Err(why));
}

#[test]
fn an_excluded_vm_stays_until_its_time_and_by_hand_it_goes() {
    let rule = "[[rules.exclude]]\nvms = [\"vm1\", \"vm2\"]\nuntil = \"2026-12-24T00:00Z\"\n";
    let ends = Until::parse("2026-12-24").unwrap().0;
    let mut world = flooded(ruled(rule));
    world.run(secs(30));
    tell_time(&mut world, ends - 1, 0);
    world.run(secs(30));
    assert_eq!(at(&world, 1), [1], "{}", world.story());
    tell_time(&mut world, ends, 0);
    world.run(secs(60));
    assert_eq!(at(&world, 1), [3], "{}", world.story());
    let mut world = with(ruled(rule), &[(1, 1)]);
    by_hand(&mut world, 1, 1, 2).unwrap();
    world.run(secs(20));
    assert_eq!(at(&world, 1), [2], "{}", world.story());
}

#[test]
fn nothing_is_moved_by_itself_outside_the_hours() {
    let mut night = settings();
    night.limits.hours = decide::policy::rules::hours::Hours::parse("22:00-04:00 UTC").unwrap();
    let mut world = flooded(night);
    tell_time(&mut world, 0, 12 * 60);
    world.run(secs(30));
    assert_eq!(at(&world, 1), [1], "{}", world.story());
    assert!(doing(&world, 1).ends_with("but hours: only 22:00-04:00 UTC"), "{}", doing(&world, 1));
    tell_time(&mut world, 0, 23 * 60);
    world.run(secs(60));
    assert_eq!(at(&world, 1), [3], "{}", world.story());
    // A VM's own hours keep that one.
    let mut world = flooded(ruled("[[rules.vm]]\nvms = [\"vm1\"]\nhours = \"22:00-04:00 UTC\"\n"));
    tell_time(&mut world, 0, 12 * 60);
    world.run(secs(60));
    assert_eq!((at(&world, 1), at(&world, 2)), (vec![1], vec![3]), "{}", world.story());
}

#[test]
fn what_keeps_one_vm_of_a_hot_host_is_said_of_that_one_alone() {
    let hours =
        |vm, from| format!("[[rules.vm]]\nvms = [\"{vm}\"]\nhours = \"{from}-04:00 UTC\"\n");
    let mut world = flooded(ruled(&(hours("vm1", "22:00") + &hours("vm2", "23:00"))));
    let keeps = |world: &World, vm| {
        let site = &world.sites[&1];
        site.host.as_ref().unwrap().keeps(site.clock.shown(world.now), vm_id(vm))
    };
    tell_time(&mut world, 0, 12 * 60);
    assert_eq!(keeps(&world, 1), None, "nothing asks for a move yet");
    world.run(secs(30));
    for (vm, own) in [(1, "22:00-04:00 UTC"), (2, "23:00-04:00 UTC")] {
        let why = keeps(&world, vm).unwrap_or_default();
        assert!(why.contains(own), "vm{vm}: {why}");
    }
}

#[test]
fn who_has_a_higher_priority_is_asked_last() {
    let mut world = flooded(ruled("[[rules.vm]]\nvms = [\"vm1\"]\npriority = 1\n"));
    world.run(secs(60));
    assert_eq!((at(&world, 1), at(&world, 2)), (vec![1], vec![3]), "{}", world.story());
}

#[test]
fn who_has_a_higher_priority_is_asked_where_nobody_with_less_fits_anywhere() {
    let mut world = World::of(1, 3, ruled("[[rules.vm]]\nvms = [\"vm4\"]\npriority = 1\n"));
    (1..=3).for_each(|vm| world.boot(1, vm, 17_000, 500, 400));
    [2, 3].into_iter().for_each(|n| world.boot(n, 10 + u32::from(n), 40_000, 500, 10));
    world.boot(1, 4, 512, 500, 300);
    assert!(world.until(secs(60), |w| at(w, 4) != [1]), "{}", world.story());
}

#[test]
fn a_vms_own_pause_and_rest_take_the_place_of_the_usual() {
    let mut world =
        flooded(ruled("[[rules.vm]]\nvms = [\"vm1\"]\ndowntime = \"37ms\"\nrest = \"20s\"\n"));
    world.run(secs(40));
    let downtimes: Vec<Duration> = world
        .commands
        .iter()
        .filter_map(|o| match &o.command {
            decide::migrate::hypervisor::HypervisorCommand::StartCopy(_, copy) => {
                Some(copy.downtime_max)
            }
            _ => None,
        })
        .collect();
    assert_eq!(downtimes, [Duration::from_millis(37)], "{}", world.story());
    let host = world.sites[&3].host.as_ref().unwrap();
    let arrived = world.checks.passed[0].when;
    let rests = host.vms()[&vm_id(1)].rest_until.since(arrived);
    assert!(rests < secs(25), "{rests:?}");
}

#[test]
fn as_many_moves_as_the_cluster_may_have_are_begun() {
    // The large ones are copied for minutes.
    let mut many = ruled("[[rules.exclude]]\nvms = [\"vm11\", \"vm12\"]\n");
    many.limits.moves_per_host = 2;
    let mut few = many.clone();
    few.limits.moves_per_cluster = Some(1);
    let slow = Memory { size: Mib(16_384), working_set: Mib(1), dirty_rate: Mib(1) };
    let begun = |settings: Settings| {
        let mut world = World::of(1, 4, settings);
        for (host, vm) in [(1, 1), (2, 2)] {
            world.boot_with(host, vm, slow, 500, 10);
            world.boot(host, vm + 10, 512, 500, 10);
        }
        for vm in [1, 2] {
            world.guests.get_mut(&vm_id(vm)).unwrap().packets = 500;
            world.guests.get_mut(&vm_id(vm + 10)).unwrap().packets = 700;
            // The others hear of it meanwhile.
            world.run(secs(15));
        }
        world.run(secs(15));
        world.notes.iter().filter(|(.., note)| note.step == Step::Copy).count()
    };
    assert_eq!((begun(many), begun(few)), (2, 1));
}

#[test]
fn of_vms_that_keep_apart_and_are_together_all_but_one_leave() {
    let rules = enforced(&group("anti-affinity", r#"["vm1", "vm2", "vm3"]"#));
    let mut world = with(rules.clone(), &[(1, 1), (1, 2), (1, 3)]);
    world.run(secs(120));
    let hosts = [at(&world, 1), at(&world, 2), at(&world, 3)];
    assert_eq!(hosts[0], [1], "the lowest stays: {}", world.story());
    assert!(
        hosts[1] != hosts[2] && hosts[1] != [1] && hosts[2] != [1],
        "{hosts:?}: {}",
        world.story()
    );
    let moves = said(&world, Step::Done).len();
    assert_eq!(moves, 2, "{}", world.story());
    // One that may not leave stays in its place.
    let excluded = format!(
        "{}[[rules.exclude]]\nvms = [\"vm2\"]\n",
        group("anti-affinity", r#"["vm1", "vm2"]"#)
    );
    let mut world = with(enforced(&excluded), &[(1, 1), (1, 2)]);
    world.run(secs(60));
    assert_eq!(at(&world, 2), [1], "{}", world.story());
    assert_ne!(at(&world, 1), [1], "{}", world.story());
}

#[test]
fn a_vm_that_is_not_where_it_is_pinned_goes_there() {
    let mut world = with(enforced(&pin(r#"["vm1"]"#, r#"hosts = ["host3"]"#)), &[(1, 1), (1, 2)]);
    world.run(secs(30));
    assert_eq!((at(&world, 1), at(&world, 2)), (vec![3], vec![1]), "{}", world.story());
    let should = pin(r#"["vm1"]"#, "hosts = [\"host3\"]\nshould = true");
    let mut world = with(enforced(&should), &[(1, 1)]);
    world.run(secs(30));
    assert_eq!(at(&world, 1), [3], "{}", world.story());
    let mut world = with(enforced(&pin(r#"["vm1"]"#, r#"hosts = ["host9"]"#)), &[(1, 1)]);
    world.run(secs(30));
    assert_eq!(at(&world, 1), [1], "{}", world.story());
    let told = "vm1: pin: it may be at host9 only, but no host that answers may take it; this host is not hot";
    assert_eq!(doing(&world, 1), told);
}

#[test]
fn where_a_vm_should_be_others_are_asked_in_turn() {
    let hosts: Vec<String> = (1..=10).map(|n| format!("\"host{n}\"")).collect();
    let should = pin(r#"["vm1"]"#, &format!("hosts = [{}]\nshould = true", hosts.join(", ")));
    let mut world = World::of(1, 12, enforced(&should));
    world.boot(12, 1, 512, 500, 10);
    // More than are asked at once hear nothing of it.
    world.filter = Some(Box::new(|_, to, m| to > 8 || !matches!(m.body, Body::Request(_))));
    world.run(secs(120));
    assert!([[9], [10]].contains(&at(&world, 1)[..].try_into().unwrap()), "{}", world.story());
}

/// With a VM that should be there host 3 is hot each second minute.
#[test]
fn where_a_vm_should_be_and_heat_do_not_send_it_to_and_fro() {
    let should = pin(r#"["vm1"]"#, "hosts = [\"host3\"]\nshould = true");
    let must = pin(r#"["vm2"]"#, "hosts = [\"host3\"]");
    let mut settings = enforced(&(should + &must));
    settings.mode.balance = Balance::Automatic;
    settings.worth_it.vm_rest = secs(600);
    let mut world = with(settings, &[(1, 1), (3, 2)]);
    world.guests.get_mut(&vm_id(1)).unwrap().packets = 300;
    for minute in 0..60 {
        world.guests.get_mut(&vm_id(2)).unwrap().packets = [100, 900][minute % 2];
        world.run(secs(60));
    }
    let moves = said(&world, Step::Done).len();
    assert!((3..=6).contains(&moves), "{moves} moves: {}", world.story());
}

#[test]
fn a_vm_whose_copy_would_never_end_is_not_moved_for_a_rule() {
    let rules = enforced(&pin(r#"["vm1"]"#, r#"hosts = ["host3"]"#));
    let mut world = World::of(1, 3, rules);
    let restless = Memory { size: Mib(4096), working_set: Mib(2048), dirty_rate: Mib(4000) };
    world.boot_with(1, 1, restless, 500, 10);
    world.run(secs(60));
    assert!(!world.noted(Step::Request), "{}", world.story());
    assert!(doing(&world, 1).contains("its copy would not end"), "{}", doing(&world, 1));
}

#[test]
fn the_smaller_part_of_a_group_goes_to_the_larger() {
    let rules = enforced(&group("affinity", r#"["vm1", "vm2", "vm3", "vm4", "vm5"]"#));
    let mut world = with(rules, &[(1, 1), (1, 2), (2, 3), (2, 4), (2, 5)]);
    world.run(secs(120));
    let all: Vec<Vec<u16>> = (1..=5).map(|vm| at(&world, vm)).collect();
    assert_eq!(all, vec![vec![2]; 5], "{}", world.story());
    // Alike parts: where the lowest is.
    let mut world = with(enforced(&group("affinity", r#"["vm1", "vm2"]"#)), &[(3, 1), (2, 2)]);
    world.run(secs(60));
    assert_eq!((at(&world, 1), at(&world, 2)), (vec![3], vec![3]), "{}", world.story());
}

#[test]
fn what_breaks_a_rule_is_recommended_once_where_that_is_wanted() {
    let mut rules = enforced(&group("anti-affinity", r#"["vm1", "vm2"]"#));
    rules.mode.rules = Balance::Recommend;
    let mut world = with(rules, &[(1, 1), (1, 2)]);
    world.run(secs(60));
    assert_eq!((at(&world, 1), at(&world, 2)), (vec![1], vec![1]));
    assert_eq!(
        said(&world, Step::VmPolicy),
        [
            "vm2 should leave: anti-affinity web: vm1 of it is here too; rules is \"recommend\", so it stays until somebody moves it"
        ]
    );
}

#[test]
fn a_rule_overrides_no_room() {
    let mut rules = enforced(&group("anti-affinity", r#"["vm1", "vm2"]"#));
    rules.target.memory_reserve = Mib(0);
    let mut world = World::of_size(1, 2, rules, 4096);
    world.boot(1, 1, 512, 100, 1);
    world.boot(1, 2, 1024, 100, 1);
    world.boot(2, 3, 3000, 100, 1);
    world.run(secs(120));
    assert_eq!((at(&world, 2), said(&world, Step::Copy).len()), (vec![1], 0), "{}", world.story());
    let refused = said(&world, Step::Request).len();
    assert!((1..12).contains(&refused), "{refused} requests in two minutes");
}

#[test]
fn hosts_with_other_rules_do_not_trade() {
    let mut world = flooded(settings());
    let rules = file::settings(&group("anti-affinity", r#"["vm8", "vm9"]"#)).unwrap().rules;
    set(&mut world, 3, |settings| settings.rules = rules);
    world.run(secs(60));
    assert_eq!(at(&world, 1), [2], "{}", world.story());
    let refusals = said(&world, Step::Refusal);
    assert!(refusals.iter().any(|why| why.contains("groups and pins in [rules]")), "{refusals:?}");
}
