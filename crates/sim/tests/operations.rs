//! What an operator does to a cluster at work, on the production hosts: VMs excluded by hand, hosts drained, moves against rules,
//! VMs that others move too, the best host for a new one; and hosts that see too little of the cluster to do anything by themselves.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::time::Duration;

use decide::host::best::Wish;
use decide::host::drain::Stand;
use decide::host::foreign::DUELLING;
use decide::host::story::Step;
use decide::host::{Ask, Event, Host};
use decide::policy::file;
use decide::policy::rules::Excluded;
use decide::policy::rules::hours::LocalTimes;
use decide::policy::rules::until::Until;
use decide::policy::settings::Balance;
use decide::units::{Mib, MilliCores, MoveId, VmId};
use sim::hypervisor::Memory;
use sim::world::scene::{flooded, settings, vm_id};
use sim::world::{World, host_id, number};

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn by_hand(world: &mut World, at: u16, vm: u32, to: u16) -> Result<MoveId, String> {
    world.ask(at, Ask::Move { vm: vm_id(vm), to: Some(host_id(to)) })
}

fn at(world: &World, vm: u32) -> Vec<u16> {
    world.runs_at(vm_id(vm)).into_iter().collect()
}

fn host(world: &World, at: u16) -> &Host {
    world.sites[&at].host.as_ref().unwrap()
}

/// What hosts said of this kind.
fn said(world: &World, step: Step) -> Vec<&str> {
    let notes = world.notes.iter().filter(|(.., note)| note.step == step);
    notes.map(|(.., note)| &*note.reason).collect()
}

/// What the calendar says, told to all agents.
fn tell_time(world: &mut World, unix: u64) {
    for n in world.sites.keys().copied().collect::<Vec<_>>() {
        world.handle(n, Event::LocalTimes(LocalTimes { unix, zones: BTreeMap::new() }));
    }
}

/// An operator at host 1 excludes a VM, until then if that is said.
fn exclude(world: &mut World, vm: u32, until: Option<u64>) {
    let excluded = until.map_or(Excluded::Always, |until| Excluded::Until(Until(until)));
    world.handle(1, Event::Excluded { vm: vm_id(vm), excluded: Some(excluded) });
}

#[test]
fn a_vm_that_is_excluded_by_hand_stays_until_its_time_comes() {
    let mut world = flooded(settings());
    tell_time(&mut world, 1000);
    exclude(&mut world, 1, Some(1060));
    exclude(&mut world, 1, Some(1060));
    let noted = "vm1 is excluded by hand until 1970-01-01T00:17:40Z: neither balancing nor rules move it from this host";
    assert_eq!(said(&world, Step::VmPolicy), [noted], "once");
    exclude(&mut world, 2, None);
    world.run(secs(40));
    let why = "exclude: it is left where it is until 1970-01-01T00:17:40Z, by hand".to_owned();
    assert_eq!(host(&world, 1).may_be_balanced(world.now, vm_id(1)), Err(why));
    assert!(!world.noted(Step::Request), "{}", world.story());
    tell_time(&mut world, 1060);
    assert_eq!(host(&world, 1).exclusions().len(), 1);
    assert!(said(&world, Step::VmPolicy).contains(&"the time has come to which vm1 was excluded"));
    world.run(secs(60));
    assert_eq!(at(&world, 1), [3], "{}", world.story());
}

#[test]
fn a_vm_that_is_excluded_for_good_stays_until_it_is_included_and_by_hand_it_goes() {
    let mut world = flooded(settings());
    exclude(&mut world, 1, None);
    exclude(&mut world, 2, None);
    world.run(secs(60));
    assert_eq!(at(&world, 1), [1], "{}", world.story());
    by_hand(&mut world, 1, 1, 2).unwrap();
    let asked = "asked for by hand, to host2, although exclude: it is left where it is, by hand";
    assert!(said(&world, Step::VmPolicy).contains(&asked), "{}", world.story());
    world.run(secs(30));
    assert_eq!(at(&world, 1), [2], "{}", world.story());
    assert_eq!(world.settled(), Ok(()));

    let mut world = flooded(settings());
    exclude(&mut world, 1, None);
    exclude(&mut world, 2, None);
    world.run(secs(30));
    world.handle(1, Event::Excluded { vm: vm_id(1), excluded: None });
    assert!(said(&world, Step::VmPolicy).contains(&"vm1 is excluded by hand no more"));
    world.run(secs(60));
    assert_eq!(at(&world, 1), [3], "{}", world.story());
}

/// Hosts of the first kind and of the second do not reach each other.
fn cut(world: &mut World, few: &[u16]) {
    let all: Vec<u16> = world.sites.keys().copied().collect();
    for a in &all {
        for b in all.iter().filter(|b| few.contains(a) != few.contains(*b)) {
            world.net.cuts.insert((*a, *b));
        }
    }
}

/// Six hosts, of which the first and the third are about to be hot.
fn six() -> World {
    let mut world = World::of(1, 6, settings());
    for (at, vm) in [(1, 1), (1, 2), (3, 3), (3, 4)] {
        world.boot(at, vm, 512, 500, 10);
    }
    world.run(secs(20));
    world
}

fn flood(world: &mut World, vms: &[u32]) {
    vms.iter().for_each(|vm| world.guests.get_mut(&vm_id(*vm)).unwrap().packets = 600);
}

#[test]
fn the_side_of_a_cut_that_sees_less_than_half_begins_nothing_and_the_other_goes_on() {
    let mut world = six();
    cut(&mut world, &[1, 2]);
    world.run(secs(20));
    let few = "sees 2 of 6 hosts (0 suspected, 4 gone within the hour): less than half, so it begins no move by itself";
    assert_eq!(host(&world, 1).sees_enough(), Err(few.to_owned()));
    assert_eq!(host(&world, 1).doing(), format!("{few}; this host is not hot"));
    flood(&mut world, &[1, 2, 3, 4]);
    world.run(secs(60));
    let began = |at: u16| {
        let of_it =
            world.notes.iter().filter(|(_, n, note)| *n == at && note.step == Step::Request);
        of_it.count()
    };
    assert_eq!(began(1), 0, "{}", world.story());
    let doing = host(&world, 1).doing();
    assert!(
        doing.starts_with("hot (packets_per_second 1200 over 1000)") && doing.contains(few),
        "{doing}"
    );
    assert!(began(3) > 0, "{}", world.story());
    assert!(at(&world, 3) != [3] || at(&world, 4) != [3], "{}", world.story());
    let noted = said(&world, Step::Membership);
    assert!(noted.iter().filter(|words| words.starts_with("sees ")).count() >= 2, "{noted:?}");

    // By hand the few move as ever; and once they see the others again, they go on.
    by_hand(&mut world, 1, 2, 2).unwrap();
    world.run(secs(30));
    assert_eq!(at(&world, 2), [2], "{}", world.story());
    world.net.cuts.clear();
    world.run(secs(60));
    assert_eq!(host(&world, 1).sees_enough(), Ok(()));
    assert!(said(&world, Step::Membership).contains(&"sees 6 of 6 hosts: enough to go on"));
}

#[test]
fn one_of_two_hosts_and_those_left_by_hosts_that_were_drained_see_enough() {
    let mut world = World::of(1, 2, settings());
    world.run(secs(20));
    world.crash(2);
    world.run(secs(20));
    assert_eq!(host(&world, 1).sees_enough(), Ok(()));

    // Three of five were drained before they were switched off; a fourth, drained too, went before that.
    let mut world = six();
    for at in [4, 5, 6] {
        world.handle(at, Event::Drain(Some(BTreeMap::new())));
    }
    world.run(secs(20));
    for at in [4, 5, 6] {
        world.crash(at);
    }
    world.run(secs(20));
    world.crash(3);
    world.run(secs(20));
    assert_eq!(host(&world, 1).sees_enough(), Ok(()), "2 of 3");
    world.crash(2);
    world.run(secs(20));
    let few = host(&world, 1).sees_enough().unwrap_err();
    assert!(few.starts_with("sees 1 of 3 hosts (0 suspected, 2 gone within the hour)"), "{few}");
    world.run(secs(3600));
    assert_eq!(host(&world, 1).sees_enough(), Ok(()), "they are given up");
}

fn drain(world: &mut World, at: u16) {
    world.handle(at, Event::Drain(Some(BTreeMap::new())));
}

/// How each VM stands at host 1 that is to leave it.
fn stands(world: &World) -> Vec<(u32, Stand)> {
    let drained = host(world, 1).drain(world.now).unwrap();
    let number = |vm: VmId| (1..20).find(|n| vm_id(*n) == vm).unwrap();
    drained.here.into_iter().map(|(vm, stand)| (number(vm), stand)).collect()
}

/// In which order VMs began to leave.
fn began(world: &World) -> Vec<VmId> {
    let asked = world.notes.iter().filter(|(.., note)| note.step == Step::Request);
    let mut all: Vec<VmId> = asked.filter_map(|(.., note)| note.vm).collect();
    all.dedup();
    all
}

#[test]
fn a_host_that_is_drained_sends_all_away_the_largest_first_and_takes_none() {
    let mut settings = settings();
    settings.mode.balance = Balance::Off;
    let mut world = World::of(1, 3, settings);
    for (vm, memory) in [(1, 256), (2, 1024), (3, 512)] {
        world.boot(1, vm, memory, 200, 10);
    }
    world.boot(2, 4, 512, 200, 10);
    world.run(secs(5));
    drain(&mut world, 1);
    world.run(secs(3));
    by_hand(&mut world, 2, 4, 1).unwrap();
    world.run(secs(2));
    let refusals = said(&world, Step::Refusal);
    assert!(refusals.contains(&"it is being drained"), "{refusals:?}");
    assert_eq!(host(&world, 1).digest(world.now).headroom.unwrap().room, Mib(0));
    let doing = host(&world, 1).doing();
    assert_eq!(doing, "it is being drained: 0 of 3 VMs have left; moving vm2");
    world.run(secs(200));
    assert_eq!(began(&world)[..1], [vm_id(2)], "{}", world.story());
    let left: Vec<VmId> = began(&world).into_iter().filter(|vm| *vm != vm_id(4)).collect();
    assert_eq!(left, [vm_id(2), vm_id(3), vm_id(1)]);
    assert!([1, 2, 3].iter().all(|vm| at(&world, *vm) != [1]), "{}", world.story());
    let drained = host(&world, 1).drain(world.now).unwrap();
    assert_eq!((drained.left.len(), drained.here.len()), (3, 0));
    assert_eq!(drained.left[&vm_id(2)].name, "vm2");
    let end = "drained: 3 VMs have left, none is here";
    assert_eq!(said(&world, Step::VmPolicy).iter().filter(|words| **words == end).count(), 1);
    world.handle(1, Event::Drain(None));
    let back = match at(&world, 1)[..] {
        [n] => n,
        ref more => panic!("{more:?}"),
    };
    by_hand(&mut world, back, 1, 1).unwrap();
    world.run(secs(30));
    assert_eq!(at(&world, 1), [1], "{}", world.story());
    assert_eq!(world.settled(), Ok(()));
}

#[test]
fn no_host_is_called_drained_before_its_agent_has_found_what_is_there() {
    let mut world = World::of(1, 2, settings());
    drain(&mut world, 1);
    world.run(secs(3));
    assert!(host(&world, 1).drain(world.now).unwrap().looking);
    let ended =
        |world: &World| said(world, Step::VmPolicy).iter().any(|it| it.starts_with("drained"));
    assert!(!ended(&world), "{}", world.story());
    world.run(secs(10));
    assert!(!host(&world, 1).drain(world.now).unwrap().looking && ended(&world));
}

#[test]
fn a_vm_that_was_on_its_way_here_when_the_drain_began_leaves_again() {
    let mut world = World::of(1, 3, settings());
    world.boot(2, 1, 1024, 200, 10);
    world.run(secs(15));
    by_hand(&mut world, 2, 1, 1).unwrap();
    assert!(world.until(secs(20), |w| w.noted(Step::Copy)), "{}", world.story());
    drain(&mut world, 1);
    world.run(secs(1));
    let drained = host(&world, 1).drain(world.now).unwrap();
    assert_eq!((drained.here.len(), drained.coming), (0, vec![(vm_id(1), "vm1")]));
    let doing = host(&world, 1).doing();
    assert!(doing.ends_with("; on their way here still: vm1"), "{doing}");
    world.run(secs(100));
    assert_eq!(
        said(&world, Step::VmPolicy).last(),
        Some(&"drained: 1 VMs have left, none is here")
    );
    assert_ne!(at(&world, 1), [1], "{}", world.story());
    assert_eq!(world.settled(), Ok(()));
}

#[test]
fn what_keeps_a_vm_from_leaving_is_named_and_does_not_stop_the_others() {
    let mut world = World::of(1, 3, settings());
    for vm in 1..=4 {
        world.boot(1, vm, 512, 200, 10);
    }
    world.retag(1, vm_id(1), &["plb_pin_host1"]);
    world.retag(1, vm_id(3), &["plb_anti_affinity_db"]);
    for (at, vm) in [(2, 5), (3, 6)] {
        world.boot(at, vm, 512, 200, 10);
        world.retag(at, vm_id(vm), &["plb_anti_affinity_db"]);
    }
    exclude(&mut world, 2, None);
    world.run(secs(20));
    drain(&mut world, 1);
    world.run(secs(60));
    assert_eq!(at(&world, 4), [2], "{}", world.story());
    let kept = |why: &str| Stand::Stays(why.to_owned());
    assert_eq!(
        stands(&world),
        [
            (1, kept("no host that answers may take it: pin: it may be at host1 only")),
            (2, kept("exclude: it is left where it is, by hand")),
            (3, kept("no host that answers may take it: anti-affinity db: a VM of it is there")),
        ]
    );
    let end = "drained as far as can be: 1 VMs have left, kept here: vm1, vm2, vm3";
    assert!(said(&world, Step::VmPolicy).contains(&end), "{}", world.story());
    // Once nothing keeps it any more, it goes.
    world.handle(1, Event::Excluded { vm: vm_id(2), excluded: None });
    world.run(secs(60));
    assert_ne!(at(&world, 2), [1], "{}", world.story());
}

#[test]
fn who_is_refused_is_tried_again_later_and_later_while_the_others_go_on() {
    let mut settings = settings();
    settings.target.memory_reserve = Mib(0);
    let mut world = World::of_size(1, 2, settings, 4096);
    world.boot(1, 1, 2048, 100, 1);
    world.boot(1, 2, 512, 100, 1);
    world.boot(2, 3, 2048, 100, 1);
    world.run(secs(5));
    drain(&mut world, 1);
    world.run(secs(300));
    assert_eq!((at(&world, 1), at(&world, 2)), (vec![1], vec![2]), "{}", world.story());
    let [(1, Stand::Waits(why))] = &stands(&world)[..] else { panic!("{:?}", stands(&world)) };
    assert!(
        why.starts_with("it was not moved (") && why.contains("it is tried again in "),
        "{why}"
    );
    let asked =
        world.notes.iter().filter(|(.., n)| n.step == Step::VmPolicy && n.vm == Some(vm_id(1)));
    assert!((4..9).contains(&asked.count()), "5 + 10 + 20 + 40 + 80 + 160 s: {}", world.story());
    // There is room at last.
    world.kill(2, vm_id(3));
    world.run(secs(240));
    assert_eq!(at(&world, 1), [2], "{}", world.story());
}

#[test]
fn an_affinity_group_is_drained_to_one_host() {
    let mut settings = settings();
    settings.mode.balance = Balance::Off;
    settings.rules = file::settings(
        "[[rules.group]]\nname = \"web\"\nkind = \"affinity\"\nvms = [\"vm1\", \"vm3\", \"vm5\"]\n",
    )
    .unwrap()
    .rules;
    settings.limits.moves_per_host = 2;
    settings.mode.rules = Balance::Off;
    let mut world = World::of(1, 4, settings);
    for (vm, memory) in [(1, 512), (2, 1024), (3, 256), (4, 768), (5, 256)] {
        world.boot(1, vm, memory, 200, 10);
    }
    world.run(secs(20));
    assert!(by_hand(&mut world, 1, 1, 2).is_err(), "affinity keeps it");
    drain(&mut world, 1);
    world.run(secs(300));
    assert_eq!(host(&world, 1).vms().len(), 0, "{}", world.story());
    assert_eq!((at(&world, 3), at(&world, 5)), (at(&world, 1), at(&world, 1)), "{}", world.story());
    assert_eq!(world.settled(), Ok(()));
}

#[test]
fn a_drain_goes_on_after_its_agent_was_killed_in_the_midst_of_a_copy() {
    let mut world = World::of(1, 3, settings());
    for vm in 1..=3 {
        world.boot(1, vm, 2048, 200, 10);
    }
    world.run(secs(5));
    drain(&mut world, 1);
    assert!(world.until(secs(60), |w| w.noted(Step::Copy)), "{}", world.story());
    world.crash(1);
    world.restart(1);
    // As an agent does from what it has kept.
    drain(&mut world, 1);
    world.run(secs(300));
    assert_eq!(host(&world, 1).vms().len(), 0, "{}", world.story());
    assert_eq!(host(&world, 1).drain(world.now).unwrap().left.len(), 3, "the one under way too");
    assert_eq!(world.settled(), Ok(()));
}

/// A rule that keeps vm1 from host 2, and one that keeps it with vm2, at host 1.
fn ruled(rules: &str) -> World {
    let mut settings = settings();
    settings.mode.balance = Balance::Off;
    settings.mode.rules = Balance::Automatic;
    settings.rules = file::settings(rules).unwrap().rules;
    (settings.worth_it.vm_rest, settings.worth_it.host_rest) = (secs(600), secs(2));
    let mut world = World::of(1, 3, settings);
    for (at, vm) in [(1, 1), (1, 2), (2, 3)] {
        world.boot(at, vm, 512, 200, 10);
    }
    world.run(secs(20));
    world
}

fn by_force(world: &mut World, vm: u32, to: Option<u16>) -> Result<MoveId, String> {
    world.ask(1, Ask::Force { vm: vm_id(vm), to: to.map(host_id) })
}

const APART: &str =
    "[[rules.group]]\nname = \"db\"\nkind = \"anti-affinity\"\nvms = [\"vm1\", \"vm3\"]\n";
const TOGETHER: &str =
    "[[rules.group]]\nname = \"web\"\nkind = \"affinity\"\nvms = [\"vm1\", \"vm2\"]\n";

#[test]
fn a_person_may_move_a_vm_against_rules_which_are_named_and_left_broken_for_a_while() {
    let mut world = ruled(&format!("{APART}{TOGETHER}"));
    let kept = by_hand(&mut world, 1, 1, 2).unwrap_err();
    assert_eq!(kept, "affinity web: it stays with vm2, which is here");
    let id = by_force(&mut world, 1, Some(2)).unwrap();
    let rules =
        ["affinity web: it stays with vm2, which is here", "anti-affinity db: a VM of it is there"];
    let story = host(&world, 1).stories().find(|story| story.move_id == id).unwrap();
    assert_eq!(story.overridden, rules);
    let asked = format!("asked for by hand, to host2, although {}", rules.join("; "));
    assert!(said(&world, Step::VmPolicy).contains(&&*asked), "{}", world.story());
    world.run(secs(30));
    assert_eq!(at(&world, 1), [2], "{}", world.story());
    let there = "a person overrides anti-affinity db: vm3 of it is here already";
    assert!(said(&world, Step::Acceptance).contains(&there), "{}", world.story());
    // Rules are mended around it: what a person has done Evenkeel does not undo.
    world.run(secs(300));
    assert_eq!((at(&world, 1), at(&world, 2)), (vec![2], vec![2]), "{}", world.story());
    assert_ne!(at(&world, 3), [2], "{}", world.story());
    assert_eq!(world.settled(), Ok(()));
}

#[test]
fn force_overrides_neither_room_nor_capability_nor_a_host_that_takes_none() {
    let mut world = ruled(APART);
    world.run(secs(5));
    drain(&mut world, 2);
    by_force(&mut world, 1, Some(2)).unwrap();
    world.run(secs(20));
    assert!(said(&world, Step::Refusal).contains(&"it is being drained"), "{}", world.story());
    world.handle(2, Event::Drain(None));

    world.guests.get_mut(&vm_id(1)).unwrap().definition.needs.driver = "other".to_owned();
    world.retag(1, vm_id(1), &[]);
    by_force(&mut world, 1, Some(2)).unwrap();
    world.run(secs(20));
    assert_eq!(at(&world, 1), [1], "{}", world.story());

    let mut settings = world.settings.clone();
    settings.target.memory_reserve = Mib(0);
    let mut world = World::of_size(1, 2, settings, 4096);
    world.boot(1, 1, 2048, 200, 10);
    world.boot(2, 3, 3000, 200, 10);
    world.run(secs(20));
    by_force(&mut world, 1, Some(2)).unwrap();
    world.run(secs(20));
    assert_eq!(at(&world, 1), [1], "{}", world.story());
}

#[test]
fn without_a_host_named_force_asks_those_first_that_no_rule_forbids() {
    let mut world = ruled(APART);
    by_force(&mut world, 1, None).unwrap();
    world.run(secs(30));
    assert_eq!(at(&world, 1), [3], "{}", world.story());

    let mut world = ruled("[[rules.pin]]\nvms = [\"vm1\"]\nhosts = [\"host1\"]\n");
    by_force(&mut world, 1, None).unwrap();
    let asked = "asked for by hand, although pin: it may be at host1 only";
    assert!(said(&world, Step::VmPolicy).contains(&asked), "{}", world.story());
    world.run(secs(300));
    assert_ne!(at(&world, 1), [1], "{}", world.story());
    // It has rested: now the rule holds again.
    world.run(secs(400));
    assert_eq!(at(&world, 1), [1], "{}", world.story());
}

/// vm1 makes any host hot that it is at with vm2 or vm3; the settings' rest is this long.
fn duellists(rest: u64) -> World {
    let mut settings = settings();
    (settings.worth_it.vm_rest, settings.worth_it.host_rest) = (secs(rest), secs(2));
    let mut world = World::of(1, 2, settings);
    for (vm, packets) in [(1, 700), (2, 600)] {
        world.boot(1, vm, 512, 200, packets);
    }
    exclude(&mut world, 2, None);
    world
}

fn adopted(world: &World) -> Vec<&str> {
    let found = said(world, Step::Adopted);
    found.into_iter().filter(|words| words.contains("somebody")).collect()
}

#[test]
fn two_balancers_duelling_over_a_vm_leave_it_alone_for_longer_each_time() {
    let mut world = duellists(120);
    let mut waits = Vec::new();
    for _ in 0..4 {
        let since = world.now;
        assert!(world.until(secs(2000), |w| at(w, 1) == [2]), "{}", world.story());
        waits.push(world.now.since(since).as_secs());
        world.run(secs(10));
        // The other balancer wants it at host 1, for reasons of its own.
        world.move_past(2, 1, vm_id(1));
    }
    world.run(secs(1));
    assert!(waits[0] < 60 && waits[1] >= 120 && waits[2] >= 240 && waits[3] >= 480, "{waits:?}");
    assert!(waits[3] < 600, "{waits:?}");
    assert_eq!(
        adopted(&world),
        [
            "vm1 found here; it came here without Evenkeel: adopted under the next epoch; somebody has moved it from host2; it is left alone for 2 min",
            "vm1 found here; it came here without Evenkeel: adopted under the next epoch; somebody has moved it from host2, the 2nd time in a row; it is left alone for 4 min",
            "vm1 found here; it came here without Evenkeel: adopted under the next epoch; somebody has moved it from host2, the 3rd time in a row; it is left alone for 8 min",
            "vm1 found here; it came here without Evenkeel: adopted under the next epoch; somebody has moved it from host2, the 4th time in a row; it is left alone for 16 min",
        ]
    );
    let alarms = host(&world, 1).alarms();
    let [alarm] = alarms else { panic!("one alarm, once: {alarms:?}") };
    assert_eq!(alarm.vm, Some(vm_id(1)));
    assert!(alarm.reason.starts_with(DUELLING), "{alarm:?}");
    // Once the other lets it be, it is forgotten, and the alarm with it.
    world.guests.get_mut(&vm_id(1)).unwrap().packets = 10;
    world.run(secs(25 * 3600));
    assert!(host(&world, 1).alarms().is_empty());
    world.move_past(1, 2, vm_id(1));
    world.move_past(2, 1, vm_id(1));
    world.run(secs(1));
    assert!(adopted(&world).last().unwrap().ends_with("it is left alone for 2 min"));
}

#[test]
fn a_vm_that_others_move_against_a_rule_again_and_again_is_left_to_them() {
    let mut settings = settings();
    settings.mode.balance = Balance::Off;
    settings.mode.rules = Balance::Automatic;
    settings.rules =
        file::settings("[[rules.pin]]\nvms = [\"vm1\"]\nhosts = [\"host2\"]\n").unwrap().rules;
    (settings.worth_it.vm_rest, settings.worth_it.host_rest) = (secs(120), secs(2));
    let mut world = World::of(1, 2, settings);
    world.boot(2, 1, 512, 200, 10);
    world.run(secs(20));
    world.move_past(2, 1, vm_id(1));
    // Once may be a mistake: the rule is mended.
    assert!(world.until(secs(60), |w| at(w, 1) == [2]), "{}", world.story());
    world.run(secs(10));
    world.move_past(2, 1, vm_id(1));
    world.run(secs(200));
    assert_eq!(at(&world, 1), [1], "{}", world.story());
    world.run(secs(100));
    assert_eq!(at(&world, 1), [2], "4 min are over: {}", world.story());
}

#[test]
fn a_vm_that_was_only_started_here_rests_as_ever() {
    let mut world = duellists(120);
    world.run(secs(15));
    world.boot(2, 3, 512, 200, 10);
    let told = "vm3 found here; adopted; it is left alone for 2 min";
    assert!(said(&world, Step::Adopted).contains(&told), "{:?}", said(&world, Step::Adopted));
}

#[test]
fn a_vm_that_is_started_here_after_its_host_died_was_moved_by_nobody() {
    let mut world = World::of(1, 3, settings());
    world.boot(2, 1, 512, 200, 10);
    world.run(secs(15));
    world.lose_power(2, secs(7200));
    world.run(secs(60));
    for _ in 0..4 {
        world.boot(1, 1, 512, 200, 10);
        world.run(secs(10));
        world.kill(1, vm_id(1));
        world.run(secs(10));
    }
    assert_eq!(adopted(&world), Vec::<&str>::new(), "{}", world.story());
    assert!(!host(&world, 1).alarms().iter().any(|it| it.reason.starts_with(DUELLING)));
}

fn wish(memory: u64, cpu: u64, name: &str, tags: &[&str]) -> Wish {
    let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
    Wish { name: name.to_owned(), tags, memory: Mib(memory), cpu: MilliCores(cpu) }
}

/// What host 1 says of each host.
fn best(world: &World, wish: &Wish) -> Vec<(u16, String)> {
    let judged = host(world, 1).best_hosts(world.now, wish);
    let words =
        |verdict: Result<_, String>| verdict.map_or_else(|why| why, |_cost| "fine".to_owned());
    judged.into_iter().map(|one| (number(one.host), words(one.verdict))).collect()
}

#[test]
fn the_best_host_for_a_vm_yet_to_be_started_has_the_least_cost_and_breaks_no_rule() {
    let mut world = World::of(1, 4, settings());
    for (at, vm, cpu) in [(1, 1, 1000), (2, 2, 500), (3, 3, 100), (4, 4, 2000)] {
        world.boot(at, vm, 1024, cpu, 10);
    }
    world.retag(3, vm_id(3), &["plb_anti_affinity_db"]);
    world.run(secs(20));
    let fine = |n: u16| (n, "fine".to_owned());
    assert_eq!(best(&world, &wish(512, 200, "new", &[])), [fine(3), fine(2), fine(1), fine(4)]);
    drain(&mut world, 2);
    world.run(secs(60));
    let apart = best(&world, &wish(512, 200, "new", &["plb_anti_affinity_db"]));
    assert!(apart.contains(&(3, "anti-affinity db: vm3 of it is there".to_owned())), "{apart:?}");
    assert!(apart.iter().any(|(n, why)| *n == 2 && why.starts_with("no room: ")), "{apart:?}");
    assert_eq!(apart[0].1, "fine");
    let pinned = best(&world, &wish(512, 200, "new", &["plb_pin_host4"]));
    assert_eq!(pinned[0], fine(4));
    assert_eq!(pinned.iter().filter(|(_, why)| why == "pin: it may be at host4 only").count(), 3);
    let huge = best(&world, &wish(1 << 20, 200, "new", &[]));
    assert!(huge.iter().all(|(_, why)| why.starts_with("no room: ")), "{huge:?}");
    let hungry = best(&world, &wish(512, 1 << 20, "new", &[]));
    assert!(hungry.iter().any(|(_, why)| why.starts_with("cpu_used_max: ")), "{hungry:?}");
    world.retag(4, vm_id(4), &["plb_affinity_shop"]);
    world.run(secs(60));
    let with = best(&world, &wish(512, 200, "new", &["plb_affinity_shop"]));
    assert_eq!(with.iter().filter(|(_, why)| why == "fine").collect::<Vec<_>>(), [&fine(4)]);
    world.crash(4);
    world.run(secs(20));
    // Whoever is gone takes nothing, and ties nobody to it.
    let gone = best(&world, &wish(512, 200, "new", &["plb_affinity_shop"]));
    assert!(gone.contains(&(4, "is gone".to_owned())) && gone[0] == fine(3), "{gone:?}");
}

#[test]
fn a_copy_that_stalls_has_begun_once_and_says_each_pause_that_it_is_allowed() {
    let mut world = World::of(1, 3, settings());
    // As fast as the link: each round leaves all that it writes to.
    let writes = Memory { size: Mib(1024), working_set: Mib(200), dirty_rate: Mib(2000) };
    world.boot_with(1, 1, writes, 500, 10);
    world.run(secs(20));
    by_hand(&mut world, 1, 1, 2).unwrap();
    assert!(world.until(secs(300), |w| w.noted(Step::Abandoned)), "{}", world.story());
    assert_eq!((at(&world, 1), said(&world, Step::Copy).len()), (vec![1], 1), "{}", world.story());
    let pauses = ["200ms", "300ms", "400ms", "500ms"];
    let stalls = said(&world, Step::Stall);
    assert_eq!(stalls.len(), pauses.len(), "{stalls:?}");
    assert!(stalls.iter().zip(pauses).all(|(words, pause)| words.contains(pause)), "{stalls:?}");
    assert!(said(&world, Step::Abandoned)[0].contains("faster than the copy follows"));
}
