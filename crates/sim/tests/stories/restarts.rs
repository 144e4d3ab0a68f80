//! Moves whose copy breaks, or whose agents or processes die on the way.
use super::*;

#[test]
fn a_cancelled_copy_leaves_the_source_running_and_the_target_void_and_the_vm_can_go_there_later() {
    let (mut world, id) = moving(1, "StartCopy");
    world.run(secs(3));
    world.ask(1, Ask::Cancel(id)).unwrap();
    world.run(secs(2));
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
            host1 Undo: cancelling the copy
            host2 Undo [host1]: the other side has gone; the incoming side is gone, the VM stays at its source
            host1 Abandoned [host2]: cancelled by hand; the VM stays here
        "#]],
    );
    ends_at(&mut world, 1);
    move_by_hand(&mut world, Some(2));
    ends_at(&mut world, 2);
}

#[test]
fn a_target_process_that_dies_in_mid_copy_leaves_the_source_running() {
    let (mut world, _) = moving(1, "StartCopy");
    world.run(secs(3));
    world.kill(2, vm_id(1));
    world.run(secs(2));
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
            host2 Undo [host1]: killed by signal 9; the incoming side is gone, the VM stays at its source
            host1 Abandoned [host2]: the other side has gone; the VM stays here
        "#]],
    );
    ends_at(&mut world, 1);
}

#[test]
fn a_vm_that_is_started_again_before_its_move_is_over_is_not_forgotten() {
    let mut world = calm(settings());
    world.sites.get_mut(&1).unwrap().write_takes = secs(2);
    let id = move_by_hand(&mut world, Some(2));
    until_noted(&mut world, Step::Readiness);
    world.run(Duration::from_millis(100));
    world.kill(1, vm_id(1));
    world.run(Duration::from_millis(100));
    world.start_again(1, vm_id(1));
    world.ask(1, Ask::Cancel(id)).expect("it is not over");
    ends_at(&mut world, 1);
    assert!(!world.noted(Step::VmDown), "{}", world.story());
}

#[test]
fn a_source_agent_killed_in_mid_copy_cancels_it_when_it_is_back() {
    let (mut world, _) = moving(1, "StartCopy");
    world.run(secs(3));
    world.crash_for(1, secs(2));
    world.run(secs(10));
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
            host1 Undo: cancelling the copy
            host2 Undo [host1]: the other side has gone; the incoming side is gone, the VM stays at its source
            host1 Abandoned [host2]: the agent was restarted; the VM stays here
        "#]],
    );
    ends_at(&mut world, 1);
}

#[test]
fn a_source_agent_killed_after_released_hands_over_when_it_is_back() {
    let (mut world, _) = moving(1, "Fence");
    world.crash_for(1, secs(2));
    world.run(secs(10));
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
fn a_target_agent_killed_with_a_complete_copy_takes_it_when_it_is_back() {
    let (mut world, _) = moving(1, "StartCopy");
    let complete = |w: &World| w.fleet.seen(2, vm_id(1)) == Seen::IncomingComplete;
    assert!(world.until(secs(60), complete));
    world.crash_for(2, secs(2));
    world.run(secs(10));
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
fn agents_killed_at_any_command_settle_the_move() {
    for (at, like, ends) in [
        (1, "StartCopy", 1),
        (1, "SwitchOver", 2),
        (1, "Fence", 2),
        (1, "Discard", 2),
        (2, "Prepare", 1),
        (2, "Resume", 2),
    ] {
        let (mut world, _) = moving(at, like);
        world.crash_for(at, secs(2));
        ends_at(&mut world, ends);
    }
}

#[test]
fn lost_answers_to_the_hand_over_are_asked_for_again() {
    let mut world = calm(settings());
    let mut lost = 0;
    world.filter = Some(Box::new(move |_, _, m| {
        lost += u32::from(matches!(m.body, Body::Standing { .. }));
        !matches!(m.body, Body::Standing { .. }) || lost > 12
    }));
    move_by_hand(&mut world, Some(2));
    world.run(secs(60));
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
            host1 Alarm: no word from the target since the hand-over: the VM stays paused here until it answers
            host1 Running [host2]: it was seen running there
            host1 Done [host2]: the VM runs at host2
        "#]],
    );
    ends_at(&mut world, 2);
}

#[test]
fn an_incoming_side_that_its_source_has_forgotten_is_let_go_within_seconds() {
    let (mut world, _) = moving(2, "Prepare");
    // Nothing is on the source's disk yet, and readiness comes while its agent is away.
    world.crash_for(1, secs(2));
    world.run(secs(10));
    assert!(world.story().contains("host2 Undo [host1]: the source let go"), "{}", world.story());
    world.settled().unwrap();
    ends_at(&mut world, 1);
}

#[test]
fn a_source_whose_agent_was_killed_before_it_chose_is_not_kept_waiting_for_its_own_reservations() {
    let mut world = calm(settings());
    world.run(secs(10));
    world.ask(1, Ask::Move { vm: vm_id(1), to: None }).unwrap();
    assert!(world.until(secs(2), |w| w.noted(Step::Acceptance)), "{}", world.story());
    world.crash(1);
    world.restart(1);
    world.run(secs(5));
    assert!(!world.noted(Step::Confirmation), "{}", world.story());
    world.ask(1, Ask::Move { vm: vm_id(1), to: None }).unwrap();
    // Reservations that nobody confirms hold for 45 s.
    assert!(world.until(secs(25), |w| w.noted(Step::Done)), "{}", world.story());
    assert!(!world.noted(Step::Refusal), "{}", world.story());
}
