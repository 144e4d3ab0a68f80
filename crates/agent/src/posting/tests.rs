//! Webhooks and traces against real receivers on loopback, which take, fail, hang, redirect and babble. Time stands still but where a test moves it.

use std::time::Duration;

use api::Step;
use tokio::time::advance;

use self::bed::{Answer, Bed, Got, Receiver, Still, event, signed};
use super::queue::WAITING_MAX;
use crate::config::Told;

mod bed;

const ALL: [Told; 2] = [Told::Alarms, Told::Moves];
/// More than any wait between two tries.
const LATER: Duration = Duration::from_secs(301);

fn kinds(got: &[Got]) -> Vec<&str> {
    got.iter().map(|got| &*got.delivery.kind).collect()
}

#[tokio::test]
async fn what_happens_is_posted_in_order_signed_and_once() {
    let _still = Still::new();
    let mut receiver = Receiver::start(&[]).await;
    let bed = Bed::new();
    bed.note(&[event(Step::Alarm, "before there was a hook")]);
    bed.serve(vec![receiver.ready(&ALL)]).await;
    bed.note(&[
        event(Step::Request, "nobody's"),
        event(Step::Alarm, "one"),
        event(Step::Copy, "two"),
    ]);
    bed.note(&[event(Step::Running, "the target's"), event(Step::Done, "three")]);
    bed.note(&[event(Step::Abandoned, "four"), event(Step::VmDown, "five")]);
    let got = receiver.got(5).await;
    assert_eq!(kinds(&got), ["alarm.raised", "move.begun", "move.done", "move.failed", "vm.down"]);
    let told: Vec<(u64, &str)> =
        got.iter().map(|got| (got.delivery.data.seq, &*got.delivery.data.reason)).collect();
    assert_eq!(told, [(3, "one"), (4, "two"), (6, "three"), (7, "four"), (8, "five")]);
    for got in &got {
        assert_eq!((&*got.path, &*got.kind), ("/hook?for=s3cret", "application/json"));
        assert_eq!((&*got.delivery.cluster, &*got.delivery.host_id), ("prod", "host-id"));
        assert_eq!((&*got.delivery.host, &got.delivery.id), ("host1", &got.id));
        assert_eq!(got.delivery.timestamp, got.delivery.data.time);
        assert_eq!(got.signature, signed(&got.id, &got.timestamp, &got.body));
        assert!(got.timestamp.parse::<u64>().expect("seconds") > 1_700_000_000);
    }
    bed.settled(8).await;
    assert_eq!((bed.delivered(), bed.failed(), bed.dropped()), (5, 0, 0));
    assert!(receiver.nothing().await);
}

#[tokio::test]
async fn a_hook_is_told_only_what_it_asks_for() {
    let _still = Still::new();
    let mut receiver = Receiver::start(&[]).await;
    let bed = Bed::new();
    bed.serve(vec![receiver.ready(&[Told::Moves])]).await;
    bed.note(&[event(Step::Alarm, "one"), event(Step::VmDown, "two"), event(Step::Done, "three")]);
    assert_eq!(kinds(&receiver.got(1).await), ["move.done"]);
}

#[tokio::test]
async fn what_fails_is_tried_again_the_same_and_nothing_overtakes_it() {
    let _still = Still::new();
    let answers = [Answer::Status(500), Answer::Close, Answer::Hang, Answer::Status(429)];
    let mut receiver = Receiver::start(&answers).await;
    let bed = Bed::new();
    bed.serve(vec![receiver.ready(&ALL)]).await;
    bed.note(&[event(Step::Alarm, "one"), event(Step::Alarm, "two")]);
    let first = receiver.got(1).await.remove(0);
    // A timer ends at the next millisecond.
    let patience = Duration::from_millis(10_001);
    for (tries, waits) in [(1, false), (2, false), (3, true), (4, false)] {
        if waits {
            advance(patience).await;
        }
        bed.has_failed(tries).await;
        assert!(receiver.nothing().await, "it waits");
        advance(Duration::from_secs(1 << (tries - 1))).await;
        let again = receiver.got(1).await.remove(0);
        assert_eq!((&again.id, &again.body), (&first.id, &first.body));
        assert_eq!(again.signature, signed(&again.id, &again.timestamp, &again.body));
    }
    let next = receiver.got(1).await.remove(0);
    assert_eq!(next.delivery.data.reason, "two");
    assert_ne!(next.id, first.id);
    bed.settled(2).await;
    assert_eq!((bed.delivered(), bed.failed(), bed.dropped()), (2, 4, 0));
    assert!(bed.failing().is_empty(), "it was for seconds alone");
}

#[tokio::test]
async fn what_fails_for_long_is_said_without_the_secret_until_it_is_well() {
    let _still = Still::new();
    let mut receiver = Receiver::start(&[Answer::Status(503); 10]).await;
    let bed = Bed::new();
    bed.serve(vec![receiver.ready(&ALL)]).await;
    bed.note(&[event(Step::Alarm, "one")]);
    for tries in 1..=10 {
        receiver.got(1).await;
        bed.has_failed(tries).await;
        // After 1 + 2 + … + 256 s, less up to half.
        assert!(tries > 8 || bed.failing().is_empty(), "{tries}: {:?}", bed.failing());
        advance(Duration::from_secs(1 << (tries - 1))).await;
    }
    let told = bed.failing().remove(0);
    for words in [
        "http://127.0.0.1:",
        "/…: nothing delivered since ",
        "it answers 503",
        "1 wait, 0 given up",
    ] {
        assert!(told.contains(words) && !told.contains("s3cret"), "{told}");
    }
    receiver.got(1).await;
    bed.settled(1).await;
    assert!(bed.failing().is_empty());
}

#[tokio::test]
async fn a_receiver_that_is_gone_is_said_at_once_and_tried_again() {
    let _still = Still::new();
    let mut receiver = Receiver::start(&[Answer::Status(410)]).await;
    let bed = Bed::new();
    bed.serve(vec![receiver.ready(&ALL)]).await;
    bed.note(&[event(Step::Alarm, "one")]);
    receiver.got(1).await;
    bed.has_failed(1).await;
    assert!(bed.failing()[0].contains("it answers 410"), "{:?}", bed.failing());
    advance(LATER).await;
    receiver.got(1).await;
    bed.settled(1).await;
    assert!(bed.failing().is_empty());
}

#[tokio::test]
async fn what_is_refused_for_an_hour_is_given_up_so_that_the_next_comes() {
    let _still = Still::new();
    let mut receiver = Receiver::start(&[Answer::Status(400); 3]).await;
    let bed = Bed::new();
    bed.serve(vec![receiver.ready(&ALL)]).await;
    bed.note(&[event(Step::Alarm, "one"), event(Step::Alarm, "two")]);
    for (tries, wait) in [(1, 1), (2, 3600), (3, 301)] {
        assert_eq!(receiver.got(1).await[0].delivery.data.reason, "one");
        bed.has_failed(tries).await;
        advance(Duration::from_secs(wait)).await;
    }
    assert_eq!(receiver.got(1).await[0].delivery.data.reason, "two");
    bed.settled(2).await;
    assert_eq!((bed.delivered(), bed.failed(), bed.dropped()), (1, 3, 1));
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let _still = Still::new();
    let mut elsewhere = Receiver::start(&[]).await;
    let mut receiver = Receiver::start(&[Answer::Redirect(elsewhere.address.port())]).await;
    let bed = Bed::new();
    bed.serve(vec![receiver.ready(&ALL)]).await;
    bed.note(&[event(Step::Alarm, "one")]);
    receiver.got(1).await;
    bed.has_failed(1).await;
    advance(LATER).await;
    receiver.got(1).await;
    bed.settled(1).await;
    assert!(elsewhere.nothing().await);
}

#[tokio::test]
async fn endless_answers_are_not_read_to_their_end() {
    let _still = Still::new();
    let mut receiver =
        Receiver::start(&[Answer::EndlessHead, Answer::Endless(500), Answer::Endless(200)]).await;
    let bed = Bed::new();
    bed.serve(vec![receiver.ready(&ALL)]).await;
    bed.note(&[event(Step::Alarm, "one")]);
    for tries in 1..=2 {
        receiver.got(1).await;
        bed.has_failed(tries).await;
        advance(LATER).await;
    }
    receiver.got(1).await;
    // All without a second passing.
    bed.settled(1).await;
    assert_eq!(bed.delivered(), 1);
}

#[tokio::test]
async fn of_too_many_that_wait_the_oldest_are_given_up_and_counted() {
    let _still = Still::new();
    let mut receiver = Receiver::start(&[Answer::Status(500)]).await;
    let bed = Bed::new();
    bed.serve(vec![receiver.ready(&ALL)]).await;
    bed.note(&[event(Step::Alarm, "the first")]);
    receiver.got(1).await;
    bed.has_failed(1).await;
    let many: Vec<_> = (0..WAITING_MAX + 99).map(|n| event(Step::Alarm, &n.to_string())).collect();
    bed.note(&many);
    advance(LATER).await;
    assert_eq!(receiver.got(1).await[0].delivery.data.seq, 101);
    assert_eq!(bed.dropped(), 100);
    bed.settled(101).await;
    assert_eq!(receiver.got(1).await[0].delivery.data.seq, 102);
}

#[tokio::test]
async fn a_new_start_goes_on_where_the_last_one_stopped() {
    let _still = Still::new();
    let mut receiver =
        Receiver::start(&[Answer::Status(200), Answer::Status(200), Answer::Hang]).await;
    let mut bed = Bed::new();
    bed.serve(vec![receiver.ready(&ALL)]).await;
    let all = ["one", "two", "three", "four"].map(|words| event(Step::Alarm, words));
    bed.note(&all);
    let before = receiver.got(3).await;
    bed.settled(2).await;
    bed.start_anew().await;
    bed.note(&[event(Step::Alarm, "while it starts")]);
    bed.serve_at_start(vec![receiver.ready(&ALL)]).await;
    let after = receiver.got(3).await;
    let words: Vec<&str> = after.iter().map(|got| &*got.delivery.data.reason).collect();
    assert_eq!(words, ["three", "four", "while it starts"]);
    assert_eq!((&after[0].id, &after[0].body), (&before[2].id, &before[2].body));
    bed.settled(5).await;
}

#[tokio::test]
async fn numbers_that_come_again_after_the_log_lost_its_end_are_told_as_new() {
    let _still = Still::new();
    let mut receiver = Receiver::start(&[]).await;
    let mut bed = Bed::new();
    bed.serve(vec![receiver.ready(&ALL)]).await;
    bed.note(&["one", "two"].map(|words| event(Step::Alarm, words)));
    let before = receiver.got(2).await;
    bed.settled(2).await;
    bed.lose_the_log().await;
    bed.note(&[event(Step::Alarm, "another"), event(Step::Alarm, "and one more")]);
    bed.serve_at_start(vec![receiver.ready(&ALL)]).await;
    let after = receiver.got(2).await;
    let told: Vec<(u64, &str)> =
        after.iter().map(|got| (got.delivery.data.seq, &*got.delivery.data.reason)).collect();
    assert_eq!(told, [(1, "another"), (2, "and one more")]);
    let known = |got: &Got| before.iter().any(|had| had.id == got.id);
    assert!(!after.iter().any(known), "no receiver takes it for one that it has");
}

#[tokio::test]
async fn by_tls_only_a_receiver_of_the_named_ca_is_told() {
    let _still = Still::new();
    let mut receiver = Receiver::start_tls(&[]).await;
    let stranger = Receiver::start_tls(&[]).await;
    let bed = Bed::new();
    bed.serve(vec![receiver.ready_by(&stranger, &ALL)]).await;
    bed.note(&[event(Step::Alarm, "one")]);
    bed.has_failed(1).await;
    assert!(receiver.nothing().await);
    bed.serve(vec![receiver.ready(&ALL)]).await;
    let got = receiver.got(1).await.remove(0);
    assert_eq!(got.signature, signed(&got.id, &got.timestamp, &got.body));
    bed.settled(1).await;
}

#[tokio::test]
async fn one_that_hangs_keeps_no_other_from_being_told() {
    let _still = Still::new();
    let mut hangs = Receiver::start(&[Answer::Hang]).await;
    let mut receiver = Receiver::start(&[]).await;
    let bed = Bed::new();
    bed.serve(vec![hangs.ready(&ALL), receiver.ready(&ALL)]).await;
    bed.note(&[event(Step::Alarm, "one"), event(Step::Alarm, "two")]);
    hangs.got(1).await;
    assert_eq!(receiver.got(2).await.len(), 2);
}

/// The steps of two moves, whose ids are of this host: one that was made, one that nobody took.
fn moves() -> Vec<api::Event> {
    let of = |id: &str, step, words| {
        let move_id = Some(format!("host-id.1.{id}"));
        api::Event { move_id, ..event(step, words) }
    };
    vec![
        of("1", Step::Monitoring, "hot"),
        of("1", Step::Copy, "copying"),
        of("1", Step::Done, "there"),
        of("2", Step::Monitoring, "hot"),
        of("2", Step::Request, "asked"),
        of("2", Step::Abandoned, "nobody"),
    ]
}

/// The names of a trace's spans.
fn names(got: &Got) -> Vec<String> {
    let body: serde_json::Value = serde_json::from_slice(&got.body).expect("JSON");
    let spans = body["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().expect("spans");
    spans.iter().map(|span| span["name"].as_str().expect("a name").to_owned()).collect()
}

#[tokio::test]
async fn moves_that_are_over_are_posted_as_traces_beside_what_a_webhook_gets() {
    let _still = Still::new();
    let mut traces = Receiver::start(&[]).await;
    let mut hook = Receiver::start(&[]).await;
    let bed = Bed::new();
    bed.serve(vec![traces.ready_for_traces(), hook.ready(&[Told::Moves])]).await;
    bed.note(&moves());
    let got = traces.got(2).await;
    assert_eq!(names(&got[0]), ["move", "copy"]);
    assert_eq!(names(&got[1]), ["move", "request"]);
    for got in &got {
        assert_eq!((&*got.path, &*got.kind), ("/v1/traces", "application/json"));
        assert_eq!((&*got.key, &*got.signature), ("s3cret", ""));
    }
    assert_eq!(kinds(&hook.got(3).await), ["move.begun", "move.done", "move.failed"]);
    assert!(traces.nothing().await && hook.nothing().await);
    assert_eq!((bed.traces(), bed.delivered(), bed.dropped()), ((2, 0), 3, 0));
}

#[tokio::test]
async fn a_collector_says_when_to_come_again_and_gets_the_same() {
    let _still = Still::new();
    let mut receiver = Receiver::start(&[Answer::Later(503, 100), Answer::Partly]).await;
    let bed = Bed::new();
    bed.serve(vec![receiver.ready_for_traces()]).await;
    bed.note(&moves());
    let first = receiver.got(1).await.remove(0);
    bed.traces_have_failed(1).await;
    advance(Duration::from_secs(99)).await;
    assert!(receiver.nothing().await, "it waits");
    advance(Duration::from_secs(2)).await;
    let got = receiver.got(2).await;
    assert_eq!(got[0].body, first.body);
    assert_eq!(names(&got[1]), ["move", "request"]);
    bed.settled(6).await;
    // That a part was not taken is no reason to send it again.
    assert_eq!(bed.traces(), (2, 0));
    assert_eq!(bed.traces_failing(), None);
}

#[tokio::test]
async fn what_a_collector_refuses_is_given_up_said_and_holds_nothing_up() {
    let _still = Still::new();
    let mut receiver = Receiver::start(&[Answer::Status(400), Answer::Hang]).await;
    let bed = Bed::new();
    bed.serve(vec![receiver.ready_for_traces()]).await;
    bed.note(&moves()[..3]);
    assert_eq!(names(&receiver.got(1).await[0]), ["move", "copy"]);
    bed.traces_have_failed(1).await;
    assert_eq!(bed.traces(), (0, 1));
    let told = bed.traces_failing().expect("it is said at once");
    for words in ["http://127.0.0.1:", "it answers 400", "0 wait, 1 given up"] {
        assert!(told.contains(words) && !told.contains("s3cret"), "{told}");
    }
    assert!(bed.failing().is_empty(), "no webhook fails");
    bed.note(&moves()[3..]);
    advance(Duration::from_secs(2)).await;
    assert_eq!(names(&receiver.got(1).await[0]), ["move", "request"]);
    // No answer: it is tried again.
    advance(Duration::from_millis(10_001)).await;
    bed.traces_have_failed(2).await;
    advance(LATER).await;
    assert_eq!(names(&receiver.got(1).await[0]), ["move", "request"]);
    bed.settled(6).await;
    assert_eq!((bed.traces(), bed.traces_failing()), ((1, 1), None));
}
