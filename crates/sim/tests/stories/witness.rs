//! A VM's own definition says who owns it; the journal decides, and what does not fit is told.
use super::*;

use decide::migrate::hypervisor::Witness;
use decide::migrate::record::{Ownership, VmRecord};
use decide::units::HostId;
use sim::world::Journal;

fn world_of(settings: Settings) -> World {
    let mut world = calm(settings);
    world.notes.clear();
    world
}

/// vm1 was moved to host 2, and back: epoch 3.
fn there_and_back() -> World {
    let mut world = world_of(settings());
    move_by_hand(&mut world, Some(2));
    ends_at(&mut world, 2);
    world.ask(2, Ask::Move { vm: vm_id(1), to: Some(host_id(1)) }).expect("it may be moved");
    ends_at(&mut world, 1);
    world.notes.clear();
    world
}

fn says(world: &World) -> Option<Epoch> {
    world.guests[&vm_id(1)].definition.witness.as_ref().map(|witness| witness.epoch)
}

fn let_say(world: &mut World, epoch: Option<Epoch>) {
    let name = |host: HostId| format!("host{}", host.0 >> 96);
    let witness = epoch.map(|epoch| Witness { epoch, name: name(epoch.owner) });
    world.guests.get_mut(&vm_id(1)).unwrap().definition.witness = witness;
}

fn epoch(number: u64, host: u16) -> Option<Epoch> {
    Some(Epoch { number, owner: host_id(host) })
}

fn journal(world: &mut World, at: u16) -> &mut Journal {
    &mut world.sites.get_mut(&at).unwrap().journal
}

fn record(world: &World, at: u16) -> VmRecord {
    world.sites[&at].journal.vms[&vm_id(1)]
}

/// What that host noted of vm1, and forgets it.
fn noted(world: &mut World, at: u16) -> Vec<String> {
    let notes = std::mem::take(&mut world.notes);
    let of_vm = notes.into_iter().filter(|(_, by, note)| *by == at && note.vm == Some(vm_id(1)));
    of_vm.map(|(_, _, note)| format!("{}: {}", note.step, note.reason)).collect()
}

/// The agent finds vm1 again; no more is different than what the test has changed.
fn found_again(world: &mut World, at: u16) {
    world.retag(at, vm_id(1), &[]);
    world.run(secs(1));
}

fn begins_anew(world: &mut World, at: u16) {
    world.crash(at);
    world.run(secs(1));
    world.restart(at);
    world.run(secs(5));
}

fn alarms(world: &World, at: u16) -> Vec<String> {
    let host = world.sites[&at].host.as_ref().expect("its agent runs");
    host.alarms().iter().map(|note| note.reason.clone()).collect()
}

#[test]
fn a_definition_names_its_owner_once_the_journal_does_and_at_each_owner_anew() {
    let mut world = world_of(settings());
    assert_eq!(says(&world), epoch(1, 1));
    move_by_hand(&mut world, Some(2));
    let before = |w: &World| w.fleet.seen(2, vm_id(1)) == Seen::IncomingComplete;
    assert!(world.until(secs(60), before), "{}", world.story());
    assert_eq!(says(&world), epoch(1, 1), "the target does not own it yet");
    ends_at(&mut world, 2);
    assert_eq!((says(&world), record(&world, 2).floor), (epoch(2, 2), 2));
}

#[test]
fn nothing_is_written_before_the_journal_has_it() {
    let mut world = world_of(settings());
    journal(&mut world, 1).fails = u32::MAX;
    let_say(&mut world, None);
    journal(&mut world, 1).vms.clear();
    begins_anew(&mut world, 1);
    assert_eq!(says(&world), None);
    journal(&mut world, 1).fails = 0;
    world.run(secs(60));
    assert_eq!((says(&world), record(&world, 1).floor), (epoch(1, 1), 1));
}

#[test]
fn a_copy_that_was_cancelled_leaves_the_definition_with_the_epoch_that_its_owner_goes_on_under() {
    let (mut world, id) = moving(1, "StartCopy");
    world.run(secs(1));
    world.ask(1, Ask::Cancel(id)).unwrap();
    ends_at(&mut world, 1);
    let floor = record(&world, 1).floor;
    assert_eq!(says(&world), epoch(floor, 1));
}

#[test]
fn a_later_epoch_that_is_seen_during_a_move_is_not_forgotten_after_it() {
    let (mut world, id) = moving(1, "StartCopy");
    let_say(&mut world, epoch(9, 2));
    found_again(&mut world, 1);
    assert_eq!(says(&world), epoch(9, 2), "while the move is open it stands");
    world.ask(1, Ask::Cancel(id)).unwrap();
    ends_at(&mut world, 1);
    assert!(record(&world, 1).floor > 9, "{}", world.story());
    assert_eq!(says(&world), epoch(record(&world, 1).floor, 1));
    let told = noted(&mut world, 1);
    assert!(told.iter().any(|it| it.contains("as its owner under epoch 9")), "{told:?}");
}

#[test]
fn a_vm_of_which_another_owner_is_named_is_not_asked_about_any_more() {
    let mut world = world_of(settings());
    move_by_hand(&mut world, Some(2));
    let_say(&mut world, epoch(1, 3));
    world.retag(1, vm_id(1), &[]);
    ends_at(&mut world, 1);
    assert!(!world.noted(Step::Copy), "{}", world.story());
    assert_eq!(alarms(&world, 1).len(), 1, "{}", world.story());
}

#[test]
fn an_agent_that_finds_what_its_journal_says_or_less_says_nothing_of_it() {
    for (left, why) in [
        (epoch(3, 1), "it agrees"),
        (epoch(2, 2), "the last write failed, and the one before was another host's"),
        (None, "none was written, or somebody took it away"),
        (epoch(u64::MAX, 2), "no VM was ever handed over so often"),
        (epoch(0, 2), "no epoch is 0"),
    ] {
        let mut world = there_and_back();
        let_say(&mut world, left);
        begins_anew(&mut world, 1);
        let noted = noted(&mut world, 1);
        assert_eq!(noted, ["adopted: vm1 found here; it is this host's, as the journal says"]);
        assert_eq!((says(&world), record(&world, 1).floor), (epoch(3, 1), 3), "{why}");
        assert!(alarms(&world, 1).is_empty(), "{why}");
    }
}

#[test]
fn a_journal_that_was_lost_or_set_back_is_told_of_and_the_vm_goes_on_under_a_later_epoch() {
    let mut lost = there_and_back();
    journal(&mut lost, 1).vms.clear();
    begins_anew(&mut lost, 1);
    expect![[r#"
        [
            "adopted: vm1 found here; adopted",
            "adopted: vm1: its definition names host1 as its owner under epoch 3, this host's journal does not know it; it goes on here under epoch 4; the journal was lost or set back",
        ]
    "#]]
    .assert_debug_eq(&noted(&mut lost, 1));

    let mut set_back = there_and_back();
    let before = VmRecord { floor: 1, ran: 1, ownership: Ownership::Owner };
    journal(&mut set_back, 1).vms.insert(vm_id(1), before);
    begins_anew(&mut set_back, 1);
    expect![[r#"
        [
            "adopted: vm1 found here; it is this host's, as the journal says",
            "adopted: vm1: its definition names host1 as its owner under epoch 3, this host's journal has epoch 1; it goes on here under epoch 4; the journal was lost or set back",
        ]
    "#]]
    .assert_debug_eq(&noted(&mut set_back, 1));

    for mut world in [lost, set_back] {
        let owns = VmRecord { floor: 4, ran: 4, ownership: Ownership::Owner };
        assert_eq!((record(&world, 1), says(&world)), (owns, epoch(4, 1)));
        // Once.
        begins_anew(&mut world, 1);
        found_again(&mut world, 1);
        assert_eq!(noted(&mut world, 1).len(), 1);
        // Nobody has heard of an epoch that stands in the way of its next move.
        move_by_hand(&mut world, Some(2));
        ends_at(&mut world, 2);
        assert_eq!(says(&world), epoch(5, 2));
    }
}

#[test]
fn a_vm_that_was_started_from_what_another_host_had_written_goes_on_above() {
    let mut world = there_and_back();
    // Host 3 has never heard of it.
    world.move_past(1, 3, vm_id(1));
    world.run(secs(5));
    let told = noted(&mut world, 3);
    expect!["adopted: vm1: its definition names host1 as its owner under epoch 3, this host's journal does not know it; it goes on here under epoch 4; it came here without Evenkeel, or the journal was lost or set back: look whether it runs at host1 too"]
        .assert_eq(told.last().unwrap());
    assert_eq!((record(&world, 3).floor, says(&world)), (4, epoch(4, 3)));
    // Back again by hand: of host 1's journal, which still has epoch 3, the definition knows better.
    world.move_past(3, 1, vm_id(1));
    world.run(secs(5));
    assert_eq!((record(&world, 1).floor, says(&world)), (5, epoch(5, 1)));
    assert!(alarms(&world, 1).is_empty() && alarms(&world, 3).is_empty());
}

#[test]
fn a_later_epoch_that_is_written_while_the_vm_is_here_is_told_of_once() {
    let mut world = world_of(settings());
    let_say(&mut world, epoch(7, 2));
    found_again(&mut world, 1);
    found_again(&mut world, 1);
    let told = noted(&mut world, 1);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("names host2 as its owner under epoch 7"), "{told:?}");
    assert_eq!((record(&world, 1).floor, says(&world)), (8, epoch(8, 1)));
}

#[test]
fn another_host_named_under_the_journals_own_epoch_is_an_alarm_and_nothing_is_done() {
    let mut world = there_and_back();
    let_say(&mut world, epoch(3, 2));
    let ordered = world.commands.len();
    found_again(&mut world, 1);
    found_again(&mut world, 1);
    begins_anew(&mut world, 1);
    world.run(secs(60));
    let said = alarms(&world, 1);
    expect![[r#"
        [
            "its definition names another owner than the journal: host2, under epoch 3, which is this host's by its journal; the VM is watched but not moved. Look whether it runs at host2 too; if not, take what its definition says away: `virsh metadata vm1 --uri urn:evenkeel:owner --live --config --remove`",
        ]
    "#]]
    .assert_debug_eq(&said);
    let raised = noted(&mut world, 1).iter().filter(|it| it.starts_with("alarm")).count();
    assert_eq!(raised, 2, "once by each agent");
    assert_eq!(world.commands.len(), ordered, "nobody was asked to do anything");
    assert_eq!((says(&world), record(&world, 1).floor), (epoch(3, 2), 3), "it stays as it is");
    let refused = world.ask(1, Ask::Move { vm: vm_id(1), to: Some(host_id(2)) });
    expect!["its definition names another owner than the journal: see the alarm"]
        .assert_eq(&refused.unwrap_err());

    let_say(&mut world, None);
    found_again(&mut world, 1);
    assert!(alarms(&world, 1).is_empty());
    assert_eq!(says(&world), epoch(3, 1));
    move_by_hand(&mut world, Some(2));
    ends_at(&mut world, 2);
}
