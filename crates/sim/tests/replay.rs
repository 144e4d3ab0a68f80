//! What hosts of the world recorded gives the same again, bit for bit; what was changed in it is found.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::time::Duration;

use decide::host::Ask;
use decide::host::story::Step;
use decide::log::{FORM, Line};
use proptest::collection::vec;
use proptest::prelude::*;
use sim::replay::{Ending, NotALog, Replayed, replay};
use sim::world::scene::settings;
use sim::world::{self, World};

fn written(log: &[Line]) -> Vec<u8> {
    let line = |line: &Line| serde_json::to_string(line).unwrap() + "\n";
    log.iter().map(line).collect::<String>().into_bytes()
}

fn replayed(log: &[u8]) -> Replayed {
    replay(log).unwrap_or_else(|error| panic!("{error}"))
}

/// A VM that makes host 1 hot leaves it by itself, then goes on by hand to a host that has crashed and come back.
fn eventful() -> World {
    let mut world = World::new(7, settings());
    world.logs = Some([].into());
    world.add_alike(3, 65_536);
    world.run(Duration::from_secs(5));
    world.boot(1, 1, 1024, 2000, 900);
    world.boot(1, 2, 1024, 1000, 600);
    world.run(Duration::from_secs(40));
    assert_eq!(world.checks.passed.len(), 1, "{}", world.story());
    let (vm, to) = (world.checks.passed[0].vm, world.checks.passed[0].to);
    let third = 5 - to;
    world.crash_for(third, Duration::from_secs(2));
    world.run(Duration::from_secs(10));
    world.ask(to, Ask::Move { vm, to: Some(world::host_id(third)) }).unwrap();
    world.run(Duration::from_secs(40));
    assert_eq!(world.checks.passed.len(), 2, "{}", world.story());
    world
}

fn logs(world: &World) -> &BTreeMap<u16, Vec<Line>> {
    world.logs.as_ref().unwrap()
}

#[test]
fn a_whole_move_gives_the_same_on_every_host_and_tells_its_story() {
    let world = eventful();
    let mut told = Vec::new();
    for (at, log) in logs(&world) {
        let again = replayed(&written(log));
        assert!(again.same() && again.ending == Some(Ending::CutOff), "host{at}: {again:?}");
        assert!(again.events > 100 && again.host == format!("host{at}"), "{again:?}");
        told.extend(again.decisions.into_iter().map(|decision| (*at, decision.note)));
    }
    // The crashed host's first life has another log.
    let noted = world.notes.iter().filter(|(_, at, _)| world.sites[at].life == 1);
    let noted: Vec<_> = noted.map(|(_, at, note)| (*at, note.clone())).collect();
    for at in world.sites.iter().filter(|(_, site)| site.life == 1).map(|(at, _)| *at) {
        let of = |all: &[(u16, _)]| -> Vec<_> {
            all.iter()
                .filter(|(who, _)| *who == at)
                .map(|(_, note): &(u16, _)| Clone::clone(note))
                .collect()
        };
        assert_eq!(of(&told), of(&noted), "host{at}");
    }
    for step in [Step::Choice, Step::Readiness, Step::HandOver, Step::Running, Step::Done] {
        let count = told.iter().filter(|(_, note)| note.step == step).count();
        assert!(count >= 2, "{step}: {count}");
    }
}

#[test]
fn one_byte_changed_in_an_event_is_found_where_it_matters() {
    let world = eventful();
    let log = written(&logs(&world)[&1]);
    let text = String::from_utf8(log.clone()).unwrap();
    // The cost of an acceptance.
    let at = text.find("\"Acceptance\":{\"cost\":").unwrap() + "\"Acceptance\":{\"cost\":".len();
    let mut changed = log.clone();
    changed[at] = if changed[at] == b'9' { b'1' } else { changed[at] + 1 };
    let again = replayed(&changed);
    let difference = again.difference.as_ref().unwrap();
    let line = text[..at].matches('\n').count();
    assert_eq!(
        difference.event,
        line as u64 / 2,
        "its line is two for each event after the first two"
    );
    assert!(difference.what.contains("Acceptance") && !again.same(), "{difference:?}");
    assert_eq!(difference.recorded.actions.len(), difference.now.as_ref().unwrap().actions.len());
    assert!(difference.actions.iter().any(|action| action.contains("it would cost")));
}

#[test]
fn an_event_left_out_or_damaged_is_found() {
    let world = eventful();
    let log = &logs(&world)[&1];
    let gave =
        log.iter().rposition(|line| matches!(line, Line::Gave(gave) if gave.actions.len() > 1));
    let mut without = log.clone();
    without.drain(gave.unwrap() - 1..=gave.unwrap());
    assert!(!replayed(&written(&without)).same(), "an event with what it gave");
    without.clone_from(log);
    without.remove(gave.unwrap());
    let again = replayed(&written(&without));
    assert!(matches!(&again.ending, Some(Ending::Damaged { .. })) && !again.same(), "{again:?}");
    let mut bytes = written(log);
    let middle = bytes.len() / 2;
    let at = bytes[..middle].iter().rposition(|byte| *byte == b'{').unwrap();
    bytes[at] = b'[';
    let again = replayed(&bytes);
    assert!(matches!(&again.ending, Some(Ending::Damaged { .. })) && !again.same(), "{again:?}");
    let mut ended = log.clone();
    ended.push(Line::End { why: "the agent ended".to_owned() });
    let again = replayed(&written(&ended));
    assert!(again.same() && again.ending == Some(Ending::Ended("the agent ended".to_owned())));
}

#[test]
fn a_log_of_another_form_or_none_at_all_is_refused() {
    let world = eventful();
    let text = String::from_utf8(written(&logs(&world)[&2])).unwrap();
    let form = |number: u32| format!("\"form\":{number}");
    let newer = text.replacen(&form(FORM), &form(FORM + 1), 1);
    assert!(matches!(replay(newer.as_bytes()), Err(NotALog::Form(newer)) if newer == FORM + 1));
    let headless: String = text.split_inclusive('\n').skip(2).collect();
    let cut = format!("{{\"begin\":{{{}}}}}\n", form(FORM));
    for foreign in [&b""[..], b"\n", b"{}\n", cut.as_bytes(), &text.as_bytes()[..99]] {
        assert!(matches!(replay(foreign), Err(NotALog::Foreign(_))), "{foreign:?}");
    }
    assert!(matches!(replay(headless.as_bytes()), Err(NotALog::Foreign(_))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The events of a damaged log may be such as no host ever met.
    #[test]
    fn no_damage_makes_the_reader_panic(
        hits in vec((any::<prop::sample::Index>(), any::<u8>()), 1..20), cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = sample();
        for (at, value) in hits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes.truncate(cut.index(bytes.len() + 1));
        if let Ok(again) = replay(&bytes[..]) {
            prop_assert!(again.difference.is_some() || again.ending.is_some());
        }
    }
}

fn sample() -> Vec<u8> {
    use std::sync::OnceLock;
    static LOG: OnceLock<Vec<u8>> = OnceLock::new();
    LOG.get_or_init(|| written(&logs(&eventful())[&1])).clone()
}
