//! The judge finds what is wrong, and only that.

use super::*;
use crate::demo::outcome::Answer;

fn event(seq: u64, step: Step, peer: Option<&str>) -> Event {
    Event {
        seq,
        time: format!("2026-01-02T03:04:05.{seq:03}Z"),
        host: "host1".to_owned(),
        move_id: Some("1.1.1".to_owned()),
        vm: None,
        step,
        reason: String::new(),
        peer: peer.map(str::to_owned),
        cost_percent: None,
        copy: None,
    }
}

fn answer(host: &str, cost_percent: f64) -> Answer {
    Answer { host: host.to_owned(), cost_percent }
}

fn good() -> Outcome {
    let one = Moved {
        move_id: "1.1.1".to_owned(),
        vm: FLOODED.to_owned(),
        from: "host1".to_owned(),
        to: Some("host2".to_owned()),
        phase: "done".to_owned(),
        acceptances: 2,
        pings_sent: Some(50),
        pings_lost: Some(1),
        tcp_alive: Some(true),
        ..Moved::default()
    };
    let mut steps = METHOD.to_vec();
    steps.insert(3, Step::Acceptance);
    let steps = (1..).zip(steps).map(|(seq, step)| event(seq, step, None)).collect();
    let answers = vec![answer("host3", 60.0), answer("host2", 40.0)];
    Outcome { moves: vec![one], steps, answers, ..Outcome::default() }
}

fn found(change: impl FnOnce(&mut Outcome)) -> String {
    let mut outcome = good();
    change(&mut outcome);
    failures(&outcome).join("; ")
}

#[test]
fn a_good_demo_has_no_failures() {
    assert_eq!(found(|_| {}), "");
}

#[test]
fn each_thing_that_is_wrong_is_named() {
    assert_eq!(
        found(|o| o.moves.clear()),
        "web1 was flooded, but its host never asked who takes it"
    );
    assert_eq!(
        found(|o| o.moves[0].phase = "abandoned".to_owned()),
        "the move of web1 was not made: it is abandoned"
    );
    assert_eq!(found(|o| o.moves[0].acceptances = 1), "1 acceptances only, wanted 2");
    assert_eq!(found(|o| o.moves[0].pings_lost = Some(3)), "3 pings lost, at most 2 allowed");
    assert_eq!(found(|o| o.moves[0].pings_lost = None), "nobody pinged it to the end");
    assert_eq!(found(|o| o.moves[0].tcp_alive = Some(false)), "the TCP connection broke");
    assert_eq!(found(|o| o.moves[0].tcp_alive = None), "nobody kept a TCP connection to the end");
    assert_eq!(found(|o| o.answers.clear()), "no acceptance tells its cost");
    let other = Moved { vm: "db1".to_owned(), reason: "hot".to_owned(), ..Moved::default() };
    assert_eq!(found(|o| o.moves.push(other)), "db1 was moved, and nobody flooded it (hot)");
}

#[test]
fn a_dearer_host_may_not_be_chosen() {
    assert_eq!(
        found(|o| o.answers.push(answer("host4", 39.5))),
        "host2 was chosen, though host4 costs 39.50 % only"
    );
}

#[test]
fn each_step_must_be_told_by_the_source_and_in_order() {
    for step in METHOD {
        let missing = found(|o| {
            let at = o.steps.iter().position(|event| event.step == step).expect("it is there");
            o.steps.remove(at);
        });
        assert!(missing.starts_with("host1 does not tell "), "{step}: {missing}");
    }
    let elsewhere = found(|o| o.steps[4].host = "host2".to_owned());
    assert!(elsewhere.starts_with("host1 does not tell "), "{elsewhere}");
    let swapped = found(|o| o.steps.swap(9, 10));
    assert_eq!(swapped, "host1 does not tell hand-over where the method has it");
}
