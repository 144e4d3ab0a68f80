//! Whether copies are encrypted, by what both hosts want: each pair of them, and hosts whose settings change on the way.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use decide::host::story::Step;
use decide::host::{Ask, Event};
use decide::migrate::hypervisor::HypervisorCommand;
use decide::policy::settings::Encryption::{self, Off, Preferred, Required};
use decide::policy::settings::{Migration, Settings};
use decide::units::{Cost, MoveId};
use decide::wire::message::{Body, Message};
use sim::world::scene::{flooded, settings, vm_id};
use sim::world::{World, host_id};

/// A host's keys and setting.
type Side = (bool, Option<Encryption>);

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// vm1 is to go from host 1 to host 2, nobody hot.
fn asked(source: Side, target: Side) -> (World, MoveId) {
    let mut world = flooded(settings());
    world.guests.values_mut().for_each(|guest| guest.packets = 100);
    world.enrol(1, source.0, source.1);
    world.enrol(2, target.0, target.1);
    world.run(secs(60));
    let id = world.ask(1, Ask::Move { vm: vm_id(1), to: Some(host_id(2)) }).unwrap();
    (world, id)
}

/// Whether both sides' commands say that the copy is encrypted; absent: there was none.
fn copied(world: &World) -> Option<bool> {
    let encrypted = |command: &HypervisorCommand| {
        use HypervisorCommand::{Prepare, StartCopy};
        let (Prepare(_, copy, _) | StartCopy(_, copy)) = command else { return None };
        Some(copy.encrypted)
    };
    let all: Vec<bool> = world.commands.iter().filter_map(|it| encrypted(&it.command)).collect();
    match all[..] {
        [] => None,
        [target, source] => {
            assert_eq!(target, source, "one side encrypts, the other does not");
            Some(source)
        }
        _ => panic!("{all:?}"),
    }
}

fn refusal(world: &World) -> String {
    let refused = world.notes.iter().find(|(_, _, note)| note.step == Step::Refusal);
    refused.map(|(_, _, note)| note.reason.clone()).unwrap_or_default()
}

#[test]
fn each_pair_of_wishes_ends_encrypted_clear_or_refused_with_a_reason() {
    let of = |encryption| (true, Some(encryption));
    let none = (false, None);
    let source_off = "an encrypted copy is required here, at its source it is off";
    let target_off = "its source requires an encrypted copy, here it is off";
    let no_keys = "its source requires an encrypted copy, this host has no keys for it";
    let pairs: [(Side, Side, Result<bool, &str>); 16] = [
        (of(Off), of(Off), Ok(false)),
        (of(Off), of(Preferred), Ok(false)),
        (of(Off), of(Required), Err(source_off)),
        (of(Preferred), of(Off), Ok(false)),
        (of(Preferred), of(Preferred), Ok(true)),
        (of(Preferred), of(Required), Ok(true)),
        (of(Required), of(Off), Err(target_off)),
        (of(Required), of(Preferred), Ok(true)),
        (of(Required), of(Required), Ok(true)),
        // What a host wants that says nothing: all with keys, nothing without.
        ((true, None), (true, None), Ok(true)),
        (none, none, Ok(false)),
        (none, (true, None), Err(source_off)),
        ((true, None), none, Err(no_keys)),
        (none, of(Preferred), Ok(false)),
        (of(Preferred), none, Ok(false)),
        // A wish is not enough without keys.
        ((false, Some(Preferred)), of(Preferred), Ok(false)),
    ];
    for (source, target, wanted) in pairs {
        let (mut world, _) = asked(source, target);
        world.run(secs(120));
        let at = world.runs_at(vm_id(1)).into_iter().collect::<Vec<_>>();
        let what = format!("{source:?} to {target:?}: {}", world.story());
        match wanted {
            Ok(encrypted) => {
                assert_eq!((copied(&world), at), (Some(encrypted), vec![2]), "{what}");
                let told = world.story().contains("copying memory, encrypted, to");
                assert_eq!(told, encrypted, "{what}");
                let host = world.sites[&1].host.as_ref().unwrap();
                let story = host.stories().next_back().unwrap();
                assert_eq!(story.encrypted, Some(encrypted), "{what}");
            }
            Err(why) => {
                assert_eq!((copied(&world), at), (None, vec![1]), "{what}");
                assert_eq!(refusal(&world), format!("migration.encryption: {why}"), "{what}");
            }
        }
    }
}

/// Hosts of the version before neither ask for it nor agree to it.
#[test]
fn a_source_that_requires_it_does_not_choose_a_target_that_does_not_agree_to_it() {
    let (mut world, move_id) = asked((true, None), (true, Some(Preferred)));
    world.filter = Some(Box::new(|_, _, message| !matches!(message.body, Body::Acceptance { .. })));
    assert!(world.until(secs(30), |w| w.noted(Step::Acceptance)), "{}", world.story());
    let (cost, reserved) = (Cost(0), secs(45));
    let body = Body::Acceptance { cost, reserved, in_return: None, encrypted: false };
    world.handle(1, Event::Message(Message { from: host_id(2), move_id, body }));
    world.run(secs(120));
    assert_eq!(copied(&world), None, "{}", world.story());
    let why = "migration.encryption: required here, the copy would be in the clear";
    assert!(world.story().contains(why), "{}", world.story());
}

#[test]
fn a_target_that_requires_it_since_it_accepted_takes_no_clear_copy() {
    let (mut world, _) = asked((true, Some(Off)), (true, Some(Preferred)));
    assert!(world.until(secs(30), |w| w.noted(Step::Acceptance)), "{}", world.story());
    let migration = Migration { encryption: Some(Required) };
    let settings = Settings { migration, ..world.settings.clone() };
    world.handle(2, Event::Settings(Box::new(settings)));
    world.run(secs(120));
    assert_eq!(copied(&world), None, "{}", world.story());
    let why = "migration.encryption: required here, the copy would be in the clear";
    assert!(world.story().contains(why), "{}", world.story());
    assert_eq!(world.runs_at(vm_id(1)).into_iter().collect::<Vec<_>>(), [1]);
}
