//! Modes of single VMs beside those of the cluster: who goes by itself, who waits for a person, who stays.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use decide::host::story::Step;
use decide::host::{Ask, Event};
use decide::policy::file;
use decide::policy::rules::hours::Hours;
use decide::policy::settings::{Balance, Settings, Trigger};
use decide::units::{Cost, Share};
use sim::world::scene::{flooded, settings, vm_id};
use sim::world::{World, host_id};

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// The usual settings in this mode, with these rules.
fn with(balance: Balance, rules: &str) -> Settings {
    let mut all = settings();
    all.rules = file::settings(rules).unwrap().rules;
    all.mode.balance = balance;
    all
}

fn own(vm: &str, mode: &str) -> String {
    format!("[[rules.vm]]\nvms = [\"{vm}\"]\n{mode}\n")
}

fn group(kind: &str, vms: &str) -> String {
    format!("[[rules.group]]\nname = \"web\"\nkind = \"{kind}\"\nvms = {vms}\n")
}

fn at(world: &World, vm: u32) -> Vec<u16> {
    world.runs_at(vm_id(vm)).into_iter().collect()
}

/// What hosts recommended.
fn recommended(world: &World) -> Vec<String> {
    let told = world.notes.iter().filter(|(.., note)| note.step == Step::VmPolicy);
    let told = told.map(|(.., note)| &note.reason);
    let told = told.filter(|why| why.ends_with("so it stays until somebody moves it"));
    let ends = |why: &String| {
        let (first, last) = (why.split(':').next().unwrap(), why.rsplit("; ").next().unwrap());
        format!("{first}: {last}")
    };
    told.map(ends).collect()
}

fn plan(world: &mut World, at: u16) -> decide::host::plan::Plan {
    let site = world.sites.get_mut(&at).unwrap();
    let now = site.clock.shown(world.now);
    site.host.as_mut().unwrap().plan(now)
}

#[test]
fn a_vm_that_goes_by_itself_goes_before_one_that_waits_for_a_person() {
    // vm1 would bring most.
    let mut world = flooded(with(Balance::Automatic, &own("vm1", "balance = \"recommend\"")));
    world.run(secs(120));
    assert_eq!((at(&world, 1), at(&world, 2).contains(&1)), (vec![1], false), "{}", world.story());
    assert_eq!(recommended(&world), [""; 0], "it is hot no more: {}", world.story());
}

#[test]
fn where_only_one_that_waits_would_help_it_is_recommended_once_and_goes_when_it_is_applied() {
    let mut world = flooded(with(Balance::Automatic, &own("vm1", "balance = \"recommend\"")));
    world.retag(1, vm_id(2), &["evenkeel:exclude"]);
    world.run(secs(1800));
    let once =
        "vm1 should leave: balance is \"recommend\" for vm1, so it stays until somebody moves it";
    assert_eq!((recommended(&world), at(&world, 1)), (vec![once.to_owned()], vec![1]));
    let found = plan(&mut world, 1);
    assert_eq!(found.held.as_deref(), Some("balance is \"recommend\" for vm1"));
    assert_eq!(found.moves[0].vm, vm_id(1));
    world.ask(1, Ask::Apply { vm: vm_id(1) }).unwrap();
    world.run(secs(60));
    assert_eq!(at(&world, 1), [3], "{}", world.story());
}

#[test]
fn while_one_waits_for_a_person_another_that_begins_to_help_goes_by_itself() {
    let mut world = flooded(with(Balance::Automatic, &own("vm1", "balance = \"recommend\"")));
    world.retag(1, vm_id(2), &["evenkeel:exclude"]);
    world.run(secs(120));
    assert_eq!(recommended(&world).len(), 1);
    world.retag(1, vm_id(2), &[]);
    world.run(secs(120));
    assert_eq!((at(&world, 1), at(&world, 2).contains(&1)), (vec![1], false), "{}", world.story());
}

#[test]
fn a_plan_of_some_that_go_and_some_that_wait_begins_with_what_goes() {
    let rules = group("anti-affinity", "[\"vm2\", \"vm5\"]");
    let mut settings = with(Balance::Automatic, &(rules + &own("vm5", "rules = \"recommend\"")));
    settings.limits.hours = Hours::parse("Sun 00:00-00:01 UTC").unwrap();
    let mut world = flooded(settings);
    world.boot(1, 5, 512, 100, 10);
    world.retag(1, vm_id(2), &["evenkeel:exclude"]);
    world.run(secs(30));
    let mut set = world.sites[&1].host.as_ref().unwrap().settings().clone();
    set.limits.hours = Hours::Any;
    world.handle(1, Event::Settings(Box::new(set)));
    let found = plan(&mut world, 1);
    let vms: Vec<_> = found.moves.iter().map(|it| (it.vm, it.relief.is_some())).collect();
    assert_eq!(vms, [(vm_id(1), true), (vm_id(5), false)], "{found:?}");
    assert_eq!(found.held, None, "the first is about to be moved");
    assert_eq!(plan(&mut world, 1), found);
    world.run(secs(60));
    let told =
        "vm5 should leave: rules is \"recommend\" for vm5, so it stays until somebody moves it";
    assert_eq!(at(&world, 1), [3]);
    assert_eq!(recommended(&world), [told, told], "once by the settings before, once by these");
    // Once it has rested.
    world.run(secs(300));
    assert_eq!(plan(&mut world, 1).held.as_deref(), Some("rules is \"recommend\" for vm5"));
}

#[test]
fn one_vm_may_go_by_itself_where_all_others_wait() {
    let mut world = flooded(with(Balance::Recommend, ""));
    world.retag(1, vm_id(1), &["evenkeel:balance=automatic"]);
    world.run(secs(120));
    assert_eq!((at(&world, 1), at(&world, 2)), (vec![3], vec![1]), "{}", world.story());
    assert_eq!(recommended(&world), [""; 0]);
}

#[test]
fn off_in_the_cluster_is_off_for_every_vm() {
    let rules = own("*", "balance = \"automatic\"\nrules = \"automatic\"");
    let mut off = with(Balance::Off, &(rules + &group("anti-affinity", "[\"vm1\", \"vm2\"]")));
    off.mode.rules = Balance::Off;
    let mut world = flooded(off);
    world.run(secs(300));
    assert!(!world.noted(Step::Request), "{}", world.story());
    assert_eq!(plan(&mut world, 1).held.as_deref(), Some("balance is \"off\""));
}

#[test]
fn a_vm_whose_balance_is_off_is_neither_planned_nor_moved_but_by_hand_and_for_rules() {
    let mut world = flooded(with(Balance::Automatic, &own("vm*", "balance = \"off\"")));
    world.run(secs(300));
    assert!(!world.noted(Step::Request), "{}", world.story());
    assert_eq!(plan(&mut world, 1).moves, []);
    let why = world.ask(1, Ask::Apply { vm: vm_id(1) }).unwrap_err();
    assert_eq!(why, "balance is \"off\" for vm1");
    let host = world.sites[&1].host.as_ref().unwrap();
    let obstacles = host.obstacles(world.sites[&1].clock.shown(world.now), vm_id(1), host_id(3));
    let told: Vec<&str> = obstacles.iter().map(|it| &*it.words).collect();
    assert_eq!(told, ["balance is \"off\" for vm1"]);
    world.ask(1, Ask::Move { vm: vm_id(1), to: Some(host_id(3)) }).unwrap();
    world.run(secs(60));
    assert_eq!(at(&world, 1), [3], "{}", world.story());
    let rules = own("vm*", "balance = \"off\"") + &group("anti-affinity", "[\"vm1\", \"vm2\"]");
    let mut enforced = with(Balance::Automatic, &rules);
    enforced.mode.rules = Balance::Automatic;
    let mut world = flooded(enforced);
    world.run(secs(120));
    assert_ne!(at(&world, 1), at(&world, 2), "{}", world.story());
}

#[test]
fn a_group_goes_as_the_most_cautious_of_its_vms() {
    let rules = group("affinity", "[\"vm1\", \"vm2\"]");
    let cautious = rules.clone() + &own("vm2", "balance = \"recommend\"");
    let mut world = flooded(with(Balance::Automatic, &cautious));
    world.run(secs(300));
    let whose = "vm1 and 1 more of its affinity group should leave: balance is \"recommend\" for vm2, which goes with it, so it stays until somebody moves it";
    assert_eq!(recommended(&world), [whose], "{}", world.story());
    let mut world = flooded(with(Balance::Automatic, &(rules + &own("vm2", "balance = \"off\""))));
    world.run(secs(300));
    assert_eq!((recommended(&world), world.noted(Step::Request)), (vec![], false));
}

#[test]
fn of_vms_that_break_a_rule_together_the_one_that_goes_by_itself_leaves() {
    let apart = group("anti-affinity", "[\"vm1\", \"vm2\"]");
    let world = |mode: Balance, own: &str| {
        let mut settings = with(Balance::Off, &(apart.clone() + own));
        settings.mode.rules = mode;
        let mut world = flooded(settings);
        world.run(secs(120));
        world
    };
    for (cluster, mode) in [
        (Balance::Automatic, own("vm2", "rules = \"off\"")),
        (Balance::Automatic, own("vm2", "rules = \"recommend\"")),
        (Balance::Recommend, own("vm1", "rules = \"automatic\"")),
    ] {
        let world = world(cluster, &mode);
        let left = (at(&world, 1).contains(&1), at(&world, 2), recommended(&world));
        assert_eq!(left, (false, vec![1], vec![]), "{mode}: {}", world.story());
    }
    let waits = world(Balance::Automatic, &own("vm*", "rules = \"recommend\""));
    let told =
        "vm2 should leave: rules is \"recommend\" for vm2, so it stays until somebody moves it";
    assert_eq!((recommended(&waits), at(&waits, 2)), (vec![told.to_owned()], vec![1]));
    let stays = world(Balance::Automatic, &own("vm*", "rules = \"off\""));
    assert_eq!((recommended(&stays), at(&stays, 2)), (vec![], vec![1]));
}

fn evening(balance: Balance) -> Settings {
    let mut settings = with(balance, "");
    settings.mode.trigger = Trigger::Spread;
    settings.target.memory_used_max = Share(960);
    settings.spread.gain_min = Cost::percent(1);
    settings
}

fn settings_of(balance: Balance) -> Event {
    Event::Settings(Box::new(evening(balance)))
}

/// Two hosts with room for one guest more each, where only an exchange helps: host 1 has much to do. Host 2 is in this mode.
fn tight(first: Balance, second: Balance) -> World {
    let mut world = World::of_size(1, 2, evening(first), 98_304);
    for n in 1..=4 {
        world.boot(1, n, 18_000, 2500, 10);
        world.boot(2, 4 + n, 18_000, 200, 10);
    }
    world.handle(2, settings_of(second));
    world
}

#[test]
fn nothing_is_given_in_return_but_by_itself_or_at_a_persons_word() {
    let exchanges = |world: &World| {
        world.notes.iter().any(|(.., note)| note.reason.contains(" would go in return"))
    };
    for (second, gives) in
        [(Balance::Automatic, true), (Balance::Recommend, false), (Balance::Off, false)]
    {
        let mut world = tight(Balance::Automatic, second);
        world.run(secs(900));
        assert_eq!(exchanges(&world), gives, "{second:?}: {}", world.story());
    }
    // That a VM waits keeps none from being exchanged, nor does it go itself.
    let mut beside = tight(Balance::Automatic, Balance::Automatic);
    beside.retag(1, vm_id(1), &["evenkeel:balance=recommend"]);
    beside.run(secs(900));
    assert!(exchanges(&beside) && at(&beside, 1) == [1], "{}", beside.story());
    // Between the offer and the return a person changes that.
    for change in [Event::Balancer { on: false }, settings_of(Balance::Recommend)] {
        let mut changed = tight(Balance::Automatic, Balance::Automatic);
        assert!(changed.until(secs(900), exchanges), "{}", changed.story());
        let back: Vec<u32> = (5..=8).collect();
        assert!(changed.until(secs(900), |w| w.noted(Step::Copy)), "{}", changed.story());
        changed.handle(2, change);
        changed.run(secs(1800));
        assert!(back.iter().all(|vm| at(&changed, *vm) == [2]), "{}", changed.story());
        let told = changed.notes.iter().any(|(.., note)| {
            note.reason.ends_with("it was to go to host1, as agreed, and could not: it stays here")
        });
        assert!(told, "{}", changed.story());
    }
    let mut switched_off = tight(Balance::Automatic, Balance::Automatic);
    switched_off.handle(2, Event::Balancer { on: false });
    switched_off.run(secs(900));
    assert!(!exchanges(&switched_off), "{}", switched_off.story());
    for (second, gives) in [(Balance::Recommend, true), (Balance::Off, false)] {
        let mut applied = tight(Balance::Recommend, second);
        applied.run(secs(60));
        applied.ask(1, Ask::Apply { vm: vm_id(1) }).unwrap();
        applied.run(secs(900));
        assert_eq!(exchanges(&applied), gives, "{second:?}: {}", applied.story());
    }
}
