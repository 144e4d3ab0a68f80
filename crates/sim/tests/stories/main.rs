//! Moves told as stories: what happens goes in, what hosts note comes out.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test")]

use std::collections::BTreeMap;
use std::time::Duration;

use decide::host::story::Step;
use decide::host::{Ask, Event};
use decide::migrate::hypervisor::{Endpoint, RunState, Seen, Sighting};
use decide::policy::settings::{Balance, Settings};
use decide::units::{Cost, Epoch, JournalId, Mib, MoveId};
use decide::wire::message::{Body, JournalMark, Message, Standing};
use expect_test::{Expect, expect};
use sim::hypervisor::Memory;
use sim::world::scene::{flooded, settings, vm_id};
use sim::world::{Ordered, World, host_id};

mod foresight;
mod restarts;
mod witness;

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[expect(clippy::needless_pass_by_value, reason = "`expect!` is written where it is used")]
fn check(world: &World, expect: Expect) {
    expect.assert_eq(&world.story());
}

/// The same with nobody hot.
fn calm(settings: Settings) -> World {
    let mut world = flooded(settings);
    world.guests.values_mut().for_each(|guest| guest.packets = 100);
    world.run(secs(5));
    world
}

/// vm1 is moved to host 2 by hand, as far as this command at this host.
fn moving(at: u16, like: &str) -> (World, MoveId) {
    let mut world = calm(settings());
    let id = move_by_hand(&mut world, Some(2));
    until_command(&mut world, at, like);
    (world, id)
}

fn move_by_hand(world: &mut World, to: Option<u16>) -> MoveId {
    world.ask(1, Ask::Move { vm: vm_id(1), to: to.map(host_id) }).expect("it may be moved")
}

/// Whether the command is of this kind, by its name.
fn is(ordered: &Ordered, like: &str) -> bool {
    format!("{:?}", ordered.command).starts_with(like)
}

fn until_command(world: &mut World, at: u16, like: &str) {
    let given = |w: &World| w.commands.iter().any(|o| o.at == at && is(o, like));
    assert!(world.until(secs(60), given), "no {like} at host{at}: {}", world.story());
}

fn until_noted(world: &mut World, step: Step) {
    assert!(world.until(secs(60), |w| w.noted(step)), "no {step:?}: {}", world.story());
}

fn ends_at(world: &mut World, at: u16) {
    world.run(secs(400));
    assert_eq!(world.settled(), Ok(()), "{}", world.story());
    assert_eq!(world.runs_at(vm_id(1)).into_iter().collect::<Vec<_>>(), [at], "{}", world.story());
}

#[test]
fn the_flooded_vm_leaves_for_the_cheapest_acceptor() {
    let mut world = flooded(settings());
    until_noted(&mut world, Step::Done);
    check(
        &world,
        expect![[r#"
            host1 Monitoring: packets_per_second 1100 over 1000 for 5 s: this host is hot
            host1 Monitoring: packets_per_second 1100 over 1000; 1100 packets/s at the taps here, 800 of them at the tap of this VM; it uses 2000 mcores
            host1 VmPolicy: vm1 should leave: packets_per_second 1100 over 1000; without it 154.21 % less (800 packets/s, 2000 mcores), most relief per GiB copied (1024 MiB, copy cost 0.03 %)
            host1 Request: 2 hosts asked, a cost up to 149.18 % will do
            host3 Acceptance [host1]: room is kept for 45 s
            host1 Acceptance [host3]: it would cost 61.73 % there
            host2 Acceptance [host1]: room is kept for 45 s
            host1 Acceptance [host2]: it would cost 98.96 % there
            host1 Choice [host3]: lowest cost of 2: 61.73 %, the next 98.96 %
            host1 Confirmation [host3]: chosen; told so
            host1 UsageHistory [host3]: 6 samples of packets, bytes, processor and memory sent
            host3 Confirmation [host1]: this host was chosen
            host3 UsageHistory [host1]: 6 samples read; at its peak 800 packets/s, 2000 mcores
            host3 Readiness [host1]: the incoming side listens, paused
            host1 Release [host2]: its room is not needed
            host1 Readiness [host3]: it has read the history, the VM may come
            host2 Release [host1]: the source let go; the room is free
            host1 Copy: copying memory to sim:3, at most 500 Mbit/s
            host1 SwitchOver: paused for the last round
            host1 HandOver [host3]: released on disk, the tap is off; epoch 2 is the target's
            host3 Running [host1]: the VM runs here
            host1 Running [host3]: it was seen running there
            host1 Done [host3]: the VM runs at host3
        "#]],
    );
    ends_at(&mut world, 3);
}

#[test]
fn when_all_refuse_the_vm_stays_and_the_host_backs_off() {
    let mut world = flooded(settings());
    for vm in [3, 4] {
        world.guests.get_mut(&vm_id(vm)).unwrap().packets = 900;
    }
    until_noted(&mut world, Step::Abandoned);
    check(
        &world,
        expect![[r#"
            host1 Monitoring: packets_per_second 1100 over 1000 for 5 s: this host is hot
            host1 Monitoring: packets_per_second 1100 over 1000; 1100 packets/s at the taps here, 800 of them at the tap of this VM; it uses 2000 mcores
            host1 VmPolicy: vm1 should leave: packets_per_second 1100 over 1000; without it 154.21 % less (800 packets/s, 2000 mcores), most relief per GiB copied (1024 MiB, copy cost 0.03 %)
            host1 Request: 2 hosts asked, a cost up to 149.18 % will do, alone or in exchange
            host2 Refusal [host1]: packets_per_second: would reach 1700, allowed 1000
            host3 Refusal [host1]: packets_per_second: would reach 1700, allowed 1000
            host1 Refusal [host2]: packets_per_second: would reach 1700, allowed 1000
            host1 Refusal [host3]: packets_per_second: would reach 1700, allowed 1000
            host1 Abandoned: 2 answered, 0 accepted
        "#]],
    );
    world.run(secs(2));
    expect!["hot (packets_per_second 1100 over 1000), but this host rests for 3 s: the last move was not made (2 answered, 0 accepted)"].assert_eq(world.sites[&1].host.as_ref().unwrap().doing());
    world.run(secs(300));
    let requests = world.notes.iter().filter(|(_, _, n)| n.step == Step::Request).count();
    assert!((4..=9).contains(&requests), "{requests} requests in 5 minutes");
}

#[test]
fn a_late_refusal_leads_to_the_next_best_acceptor() {
    let mut world = flooded(settings());
    world.fleet.refuse(3, true);
    until_noted(&mut world, Step::Done);
    check(
        &world,
        expect![[r#"
            host1 Monitoring: packets_per_second 1100 over 1000 for 5 s: this host is hot
            host1 Monitoring: packets_per_second 1100 over 1000; 1100 packets/s at the taps here, 800 of them at the tap of this VM; it uses 2000 mcores
            host1 VmPolicy: vm1 should leave: packets_per_second 1100 over 1000; without it 154.21 % less (800 packets/s, 2000 mcores), most relief per GiB copied (1024 MiB, copy cost 0.03 %)
            host1 Request: 2 hosts asked, a cost up to 149.18 % will do
            host3 Acceptance [host1]: room is kept for 45 s
            host1 Acceptance [host3]: it would cost 61.73 % there
            host2 Acceptance [host1]: room is kept for 45 s
            host1 Acceptance [host2]: it would cost 98.96 % there
            host1 Choice [host3]: lowest cost of 2: 61.73 %, the next 98.96 %
            host1 Confirmation [host3]: chosen; told so
            host1 UsageHistory [host3]: 6 samples of packets, bytes, processor and memory sent
            host3 Confirmation [host1]: this host was chosen
            host3 UsageHistory [host1]: 6 samples read; at its peak 800 packets/s, 2000 mcores
            host3 Refusal [host1]: no port free
            host1 Refusal [host3]: no port free
            host1 Choice [host2]: the only acceptor: 98.96 %
            host1 Confirmation [host2]: chosen; told so
            host1 UsageHistory [host2]: 6 samples of packets, bytes, processor and memory sent
            host2 Confirmation [host1]: this host was chosen
            host2 UsageHistory [host1]: 6 samples read; at its peak 800 packets/s, 2000 mcores
            host3 Undo [host1]: no port free; the incoming side is gone, the VM stays at its source
            host2 Readiness [host1]: the incoming side listens, paused
            host1 Readiness [host2]: it has read the history, the VM may come
            host1 Copy: copying memory to sim:2, at most 500 Mbit/s
            host1 SwitchOver: paused for the last round
            host1 HandOver [host2]: released on disk, the tap is off; epoch 2 is the target's
            host2 Running [host1]: the VM runs here
            host1 Running [host2]: it was seen running there
            host1 Done [host2]: the VM runs at host2
        "#]],
    );
    ends_at(&mut world, 2);
}

/// Writes to its memory faster than the link carries.
const RESTLESS: Memory = Memory { size: Mib(256), working_set: Mib(200), dirty_rate: Mib(500) };

/// Host 1 is hot by vm1, with by far the most relief for the least copying, and vm2.
fn two_that_could_leave(memory: Memory) -> World {
    let mut world = World::of(1, 3, settings());
    world.boot_with(1, 1, memory, 2000, 700);
    world.boot(1, 2, 1024, 500, 500);
    world
}

fn abandoned(world: &World) -> bool {
    world.notes.iter().any(|(.., n)| n.step == Step::Abandoned && n.vm == Some(vm_id(1)))
}

#[test]
fn a_vm_whose_copy_would_never_end_is_not_asked_about() {
    let mut world = two_that_could_leave(RESTLESS);
    assert!(world.until(secs(60), |w| w.noted(Step::Done)), "{}", world.story());
    assert!(!abandoned(&world) && world.runs_at(vm_id(1)).contains(&1), "{}", world.story());
    let now = world.sites[&1].clock.shown(world.now);
    let kept = world.sites[&1].host.as_ref().unwrap().may_be_balanced(now, vm_id(1));
    let why = "it writes 200 MiB/s of its memory: its copy would not end";
    assert_eq!(kept, Err(why.to_owned()));
}

#[test]
fn a_vm_whose_copy_does_not_end_does_not_keep_others_from_leaving() {
    let mut world = two_that_could_leave(Memory { dirty_rate: Mib(5), ..RESTLESS });
    assert!(world.until(secs(60), |w| w.noted(Step::Confirmation)), "{}", world.story());
    world.fleet.know(vm_id(1), RESTLESS);
    assert!(world.until(secs(300), |w| w.noted(Step::Done)), "{}", world.story());
    assert!(abandoned(&world), "{}", world.story());
    assert!(world.runs_at(vm_id(1)).contains(&1) && !world.runs_at(vm_id(2)).contains(&1));
}

#[test]
fn a_vm_that_has_just_arrived_counts_in_what_its_new_host_asks_for_the_next() {
    for pause in [100, 1100, 2100] {
        let mut world = World::of(1, 3, settings());
        // Room for one of the two beside what is there.
        world.boot(2, 3, 512, 500, 450);
        world.boot(1, 1, 512, 1000, 400);
        world.boot(3, 2, 512, 1000, 400);
        // It has been quiet until its history was sent.
        world.guests.get_mut(&vm_id(1)).unwrap().packets = 0;
        world.run(secs(20));
        world.ask(1, Ask::Move { vm: vm_id(1), to: Some(host_id(2)) }).unwrap();
        until_command(&mut world, 1, "StartCopy");
        world.guests.get_mut(&vm_id(1)).unwrap().packets = 400;
        until_command(&mut world, 2, "Resume");
        // A cycle of the monitor without a rate, then one with; the second one tells.
        world.run(Duration::from_millis(2000 + pause));
        world.ask(3, Ask::Move { vm: vm_id(2), to: Some(host_id(2)) }).unwrap();
        world.run(secs(60));
        assert!(world.runs_at(vm_id(2)).contains(&3), "{pause}: {}", world.story());
    }
}

#[test]
fn a_vm_that_has_arrived_but_was_not_measured_asks_what_was_expected_of_it() {
    let mut world = World::of(1, 3, settings());
    world.boot(2, 3, 512, 500, 450);
    world.boot(1, 1, 4096, 1000, 400);
    world.boot(3, 2, 512, 1000, 400);
    world.run(secs(20));
    world.ask(1, Ask::Move { vm: vm_id(1), to: Some(host_id(2)) }).unwrap();
    let arrived = |w: &World| {
        w.sites[&2].host.as_ref().is_some_and(|host| host.vms().contains_key(&vm_id(1)))
    };
    // The copy takes longer than what its history tells of is looked back at.
    assert!(world.until(secs(200), arrived), "{}", world.story());
    world.ask(3, Ask::Move { vm: vm_id(2), to: Some(host_id(2)) }).unwrap();
    world.run(secs(60));
    assert!(world.runs_at(vm_id(2)).contains(&3), "{}", world.story());
}

/// A VM that sent 700 packets a second for half an hour has been quiet for so long, and is moved by hand: why its target refuses.
fn refused_after_quiet(quiet: Duration) -> String {
    let mut world = World::of(1, 3, settings());
    world.boot(2, 3, 512, 500, 450);
    world.boot(1, 1, 1024, 1000, 700);
    world.run(secs(2000));
    world.guests.get_mut(&vm_id(1)).unwrap().packets = 100;
    world.run(quiet);
    move_by_hand(&mut world, Some(2));
    world.run(secs(20));
    assert!(world.runs_at(vm_id(1)).contains(&1), "{}", world.story());
    let refusal = world.notes.iter().rev().find(|(_, at, n)| *at == 2 && n.step == Step::Refusal);
    refusal.map(|(.., note)| note.reason.clone()).unwrap_or_default()
}

#[test]
fn a_target_refuses_a_vm_whose_daily_peak_would_not_fit_whatever_it_asks_now() {
    let words = refused_after_quiet(secs(5400));
    expect!["its daily peak of 704 packets/s, 1000 mcores, read in its history: packets_per_second: would reach 1154, allowed 1000"].assert_eq(&words);
}

#[test]
fn a_target_is_asked_by_what_the_next_hour_will_bring() {
    let words = refused_after_quiet(secs(1000));
    expect!["packets_per_second: would reach 1154, allowed 1000"].assert_eq(&words);
}

#[test]
fn a_silent_target_leads_to_the_next_best_acceptor() {
    let mut world = flooded(settings());
    world.filter = Some(Box::new(|_, to, m| to != 3 || !matches!(m.body, Body::Confirmation(_))));
    until_noted(&mut world, Step::Done);
    check(
        &world,
        expect![[r#"
            host1 Monitoring: packets_per_second 1100 over 1000 for 5 s: this host is hot
            host1 Monitoring: packets_per_second 1100 over 1000; 1100 packets/s at the taps here, 800 of them at the tap of this VM; it uses 2000 mcores
            host1 VmPolicy: vm1 should leave: packets_per_second 1100 over 1000; without it 154.21 % less (800 packets/s, 2000 mcores), most relief per GiB copied (1024 MiB, copy cost 0.03 %)
            host1 Request: 2 hosts asked, a cost up to 149.18 % will do
            host3 Acceptance [host1]: room is kept for 45 s
            host1 Acceptance [host3]: it would cost 61.73 % there
            host2 Acceptance [host1]: room is kept for 45 s
            host1 Acceptance [host2]: it would cost 98.96 % there
            host1 Choice [host3]: lowest cost of 2: 61.73 %, the next 98.96 %
            host1 Confirmation [host3]: chosen; told so
            host1 UsageHistory [host3]: 6 samples of packets, bytes, processor and memory sent
            host1 Release [host3]: its room is not needed
            host1 Choice [host2]: the only acceptor: 98.96 %
            host1 Confirmation [host2]: chosen; told so
            host1 UsageHistory [host2]: 21 samples of packets, bytes, processor and memory sent
            host3 Release [host1]: the source let go; the room is free
            host2 Confirmation [host1]: this host was chosen
            host2 UsageHistory [host1]: 21 samples read; at its peak 800 packets/s, 2000 mcores
            host2 Readiness [host1]: the incoming side listens, paused
            host1 Readiness [host2]: it has read the history, the VM may come
            host1 Copy: copying memory to sim:2, at most 500 Mbit/s
            host1 SwitchOver: paused for the last round
            host1 HandOver [host2]: released on disk, the tap is off; epoch 2 is the target's
            host2 Running [host1]: the VM runs here
            host1 Running [host2]: it was seen running there
            host1 Done [host2]: the VM runs at host2
        "#]],
    );
    ends_at(&mut world, 2);
}

#[test]
fn one_acceptor_will_do_after_the_deadline() {
    let mut world = flooded(settings());
    world.filter = Some(Box::new(|_, to, m| to != 3 || !matches!(m.body, Body::Request(_))));
    until_noted(&mut world, Step::Choice);
    check(
        &world,
        expect![[r#"
            host1 Monitoring: packets_per_second 1100 over 1000 for 5 s: this host is hot
            host1 Monitoring: packets_per_second 1100 over 1000; 1100 packets/s at the taps here, 800 of them at the tap of this VM; it uses 2000 mcores
            host1 VmPolicy: vm1 should leave: packets_per_second 1100 over 1000; without it 154.21 % less (800 packets/s, 2000 mcores), most relief per GiB copied (1024 MiB, copy cost 0.03 %)
            host1 Request: 2 hosts asked, a cost up to 149.18 % will do
            host2 Acceptance [host1]: room is kept for 45 s
            host1 Acceptance [host2]: it would cost 98.96 % there
            host1 Request: asked again
            host2 Acceptance [host1]: room is kept for 45 s
            host1 Choice [host2]: the only acceptor: 98.96 %
            host1 Confirmation [host2]: chosen; told so
            host1 UsageHistory [host2]: 6 samples of packets, bytes, processor and memory sent
        "#]],
    );
    ends_at(&mut world, 2);
}

#[test]
fn a_move_by_hand_goes_where_it_is_told() {
    let mut world = calm(settings());
    move_by_hand(&mut world, Some(2));
    until_noted(&mut world, Step::Done);
    check(
        &world,
        expect![[r#"
            host1 Monitoring: no threshold crossed; 200 packets/s at the taps here, 100 of them at the tap of this VM; it uses 2000 mcores
            host1 VmPolicy: asked for by hand, to host2
            host1 Request: 1 hosts asked, any cost will do
            host2 Acceptance [host1]: room is kept for 45 s
            host1 Acceptance [host2]: it would cost 3.44 % there
            host1 Choice [host2]: the only acceptor: 3.44 %
            host1 Confirmation [host2]: chosen; told so
            host1 UsageHistory [host2]: 4 samples of packets, bytes, processor and memory sent
            host2 Confirmation [host1]: this host was chosen
            host2 UsageHistory [host1]: 4 samples read; at its peak 100 packets/s, 2000 mcores
            host2 Readiness [host1]: the incoming side listens, paused
            host1 Readiness [host2]: it has read the history, the VM may come
            host1 Copy: copying memory to sim:2, at most 500 Mbit/s
            host1 SwitchOver: paused for the last round
            host1 HandOver [host2]: released on disk, the tap is off; epoch 2 is the target's
            host2 Running [host1]: the VM runs here
            host1 Running [host2]: it was seen running there
            host1 Done [host2]: the VM runs at host2
        "#]],
    );
    ends_at(&mut world, 2);
}

#[test]
fn an_alarm_of_one_move_does_not_silence_that_of_the_next() {
    let mut world = calm(settings());
    let mut lost = BTreeMap::new();
    world.filter = Some(Box::new(move |_, _, m| {
        let of_move = lost.entry(m.move_id).or_insert(0);
        *of_move += u32::from(matches!(m.body, Body::Standing { .. }));
        !matches!(m.body, Body::Standing { .. }) || *of_move > 12
    }));
    for n in [1, 2] {
        let to = Some(host_id(2));
        world.ask(1, Ask::Move { vm: vm_id(n), to }).expect("it may be moved");
        world.run(secs(30));
        let told = world.story().matches("host1 Alarm: no word from the target").count();
        assert_eq!(told, n as usize, "{}", world.story());
    }
}

#[test]
fn recommend_moves_nothing() {
    let mut recommend = settings();
    recommend.mode.balance = Balance::Recommend;
    let mut world = flooded(recommend);
    world.run(secs(120));
    check(
        &world,
        expect![[r#"
            host1 Monitoring: packets_per_second 1100 over 1000 for 5 s: this host is hot
            host1 VmPolicy: vm1 should leave: packets_per_second 1100 over 1000; without it 154.21 % less (800 packets/s, 2000 mcores), most relief per GiB copied (1024 MiB, copy cost 0.03 %); balance is "recommend", so it stays until somebody moves it
        "#]],
    );
}

#[test]
fn a_host_whose_balancer_is_off_accepts_but_begins_nothing_by_itself() {
    let mut world = flooded(settings());
    world.handle(1, Event::Balancer { on: false });
    world.handle(1, Event::Balancer { on: false });
    world.run(secs(60));
    check(
        &world,
        expect![[r#"
            host1 VmPolicy: the balancer is off on this host: it begins no balancing move until `evenkeel balancer on`
            host1 Monitoring: packets_per_second 1100 over 1000 for 5 s: this host is hot
        "#]],
    );
    expect!["hot (packets_per_second 1100 over 1000), but the balancer is off on this host (`evenkeel balancer on`)"].assert_eq(world.sites[&1].host.as_ref().unwrap().doing());
    world.ask(3, Ask::Move { vm: vm_id(4), to: Some(host_id(2)) }).unwrap();
    world.handle(2, Event::Balancer { on: false });
    world.run(secs(30));
    assert_eq!(world.runs_at(vm_id(4)).into_iter().collect::<Vec<_>>(), [2], "{}", world.story());
    world.handle(1, Event::Balancer { on: true });
    world.run(secs(60));
    assert!(world.noted(Step::Request), "{}", world.story());
    ends_at(&mut world, 3);
}

#[test]
fn a_blip_moves_nothing() {
    let mut world = calm(settings());
    for _ in 0..30 {
        world.guests.get_mut(&vm_id(1)).unwrap().packets = 5000;
        world.run(secs(1));
        world.guests.get_mut(&vm_id(1)).unwrap().packets = 0;
        world.run(secs(30));
    }
    check(&world, expect![[""]]);
}

/// All that a third host could say about a move, to either side.
fn forged() -> Vec<Body> {
    let (vm, run, cost) = (vm_id(1), RunState::Running, Cost(0));
    let epoch = Epoch { number: 2, owner: host_id(3) };
    let journal = JournalMark { id: JournalId(3), generation: 0, opened: 0, life: 0 };
    vec![
        Body::Release,
        Body::Refusal { why: "no".to_owned(), known_epoch: None },
        Body::Acceptance { cost, reserved: secs(1), in_return: None, encrypted: false },
        Body::Readiness { cost, endpoint: Endpoint::default(), journal },
        Body::HandOver { vm, epoch, run, journal },
        Body::Standing { vm, epoch, standing: Standing::Void, journal: None },
        Body::Standing { vm, epoch, standing: Standing::Running, journal: None },
        Body::Standing { vm, epoch, standing: Standing::OwnerCopyGone, journal: None },
    ]
}

#[test]
fn messages_of_a_third_host_about_anothers_move_change_nothing() {
    for like in ["StartCopy", "Fence"] {
        let (mut world, id) = moving(1, like);
        let (mut twin, _) = moving(1, like);
        world.run(Duration::from_millis(3));
        for from in [host_id(3), host_id(9)] {
            for (to, body) in
                [1, 2].into_iter().flat_map(|to| forged().into_iter().map(move |b| (to, b)))
            {
                world.handle(to, Event::Message(Message { from, move_id: id, body }));
            }
        }
        ends_at(&mut world, 2);
        ends_at(&mut twin, 2);
        let commands =
            |w: &World| w.commands.iter().map(|o| (o.at, o.command.clone())).collect::<Vec<_>>();
        assert_eq!(commands(&world), commands(&twin));
        let stories = |w: &World| {
            let all = w.sites.values().flat_map(|site| site.host.as_ref().unwrap().stories());
            all.map(|s| (s.phase, s.acceptances, s.refusals)).collect::<Vec<_>>()
        };
        assert_eq!(stories(&world), stories(&twin));
    }
}

#[test]
fn a_history_that_is_none_is_refused_by_name_and_the_vm_stays() {
    let mut world = calm(settings());
    world.filter = Some(Box::new(|_, _, m| !matches!(m.body, Body::History(_))));
    let id = move_by_hand(&mut world, Some(2));
    let why = "of 1000000000000 bytes, at most 1048576 are taken".to_owned();
    let chosen = |world: &World| {
        world.notes.iter().any(|(_, at, note)| *at == 2 && note.step == Step::Confirmation)
    };
    assert!(world.until(secs(5), chosen), "{}", world.story());
    let awaits =
        |world: &World| world.sites[&2].host.as_ref().unwrap().awaits_history(id, vm_id(1));
    assert!(world.sites[&2].host.as_ref().unwrap().awaits_history(id, vm_id(2)).is_err());
    // From a host whose part it is not; then of its source.
    for from in [host_id(3), host_id(1)] {
        assert_eq!(awaits(&world), Ok(true));
        world.handle(2, Event::BadHistory { from, move_id: id, why: why.clone() });
    }
    assert_eq!(awaits(&world), Ok(false), "once only");
    world.run(secs(5));
    let of_move = world.notes.iter().filter(|(_, _, note)| note.move_id == Some(id));
    let told: Vec<String> = of_move
        .filter(|(_, _, note)| matches!(note.step, Step::Refusal | Step::Abandoned))
        .map(|(_, at, note)| format!("host{at}: {}", note.reason))
        .collect();
    expect![[r#"
        [
            "host2: the usage history cannot be used: of 1000000000000 bytes, at most 1048576 are taken",
            "host1: the usage history cannot be used: of 1000000000000 bytes, at most 1048576 are taken",
            "host1: every acceptor fell away",
        ]
    "#]]
    .assert_debug_eq(&told);
}

#[test]
fn a_vm_without_a_tap_is_not_moved() {
    let mut world = flooded(settings());
    world.guests.get_mut(&vm_id(1)).unwrap().has_tap = false;
    world.run(secs(60));
    check(
        &world,
        expect![[r#"
        host1 BadInput: vm1: its tap is missing: its traffic cannot be seen and it is not moved; create the tap, or mend its name in the VM's definition
    "#]],
    );
    let refused = world.ask(1, Ask::Move { vm: vm_id(1), to: None });
    expect!["its tap is missing: its traffic cannot be seen and it is not moved"]
        .assert_eq(&refused.unwrap_err());
}

#[test]
fn a_vm_found_here_though_the_journal_says_away_is_adopted_under_the_next_epoch() {
    let mut world = calm(settings());
    move_by_hand(&mut world, Some(2));
    ends_at(&mut world, 2);
    // Somebody moves it back past us.
    world.fleet.forget(2, vm_id(1));
    world.fleet.start(world.now, 1, vm_id(1), Seen::Running);
    world.handle(2, Event::Sighting(Sighting::Gone(vm_id(1), "it has left".to_owned())));
    world.crash_for(1, secs(1));
    world.run(secs(5));
    let adopted = world.notes.iter().rev().find(|(_, at, n)| *at == 1 && n.vm == Some(vm_id(1)));
    expect!["vm1 found here; it came here without Evenkeel: adopted under the next epoch"]
        .assert_eq(&adopted.unwrap().2.reason);
    expect!["VmRecord { floor: 3, ran: 3, ownership: Owner }"]
        .assert_eq(&format!("{:?}", world.sites[&1].journal.vms[&vm_id(1)]));
}

#[test]
fn messages_that_come_twice_make_one_incoming_side() {
    let mut world = calm(settings());
    world.net.twice = 1000;
    move_by_hand(&mut world, Some(2));
    ends_at(&mut world, 2);
    for like in ["Prepare", "StartCopy", "Resume", "Discard"] {
        let count = world.commands.iter().filter(|o| is(o, like)).count();
        assert_eq!(count, 1, "{like}: {}", world.story());
    }
    assert!(!world.noted(Step::Alarm), "{}", world.story());
}
