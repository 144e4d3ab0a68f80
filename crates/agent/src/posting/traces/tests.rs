//! Stories of simulated hosts, as their agents log them, and the traces that they make; every body is read by OTLP's own messages.

use std::time::Duration;

use api::{CopyView, Step};
use decide::host::Ask;
use jiff::Timestamp;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use sim::world::World;
use sim::world::scene::{flooded, settings};

use super::*;
use crate::clock::Clock;
use crate::views;

/// A host that has lived.
struct Lived {
    teller: Teller,
    events: Vec<Event>,
}

/// What the agent of this host has in its log, by the simulation's time.
fn lived(world: &World, at: u16) -> Lived {
    let host = world.sites[&at].host.as_ref().expect("it lives");
    let notes = world.notes.iter().filter(|(_, noted_at, _)| *noted_at == at);
    let events = notes.map(|(when, _, note)| {
        let time = Timestamp::from_microsecond(when.0.try_into().expect("small")).expect("a time");
        let event = views::event(host, Clock::start(), *when, note);
        Event { time: format!("{time:.3}"), ..event }
    });
    let teller = Teller { cluster: "prod".to_owned(), host_id: host.id().to_string() };
    Lived { teller, events: events.collect() }
}

impl Lived {
    /// All that is posted of its log: the steps that end a story, and the bodies.
    fn posted(&self) -> Vec<(Step, Bytes)> {
        let folder = tempfile::tempdir().expect("a folder");
        let log = Events::open(folder.path(), 100_000).expect("a log");
        let records = self.events.iter().map(|event| serde_json::to_vec(event).expect("JSON"));
        log.note(&records.collect::<Vec<_>>()).expect("noted");
        let noted = log.events(1, 100_000).expect("read");
        let ends = noted.iter().filter(|noted| wanted(&self.teller, noted));
        let told = ends.filter_map(|end| {
            let (id, body) = message(&self.teller, &log, end).expect("read")?;
            assert_eq!(id.len(), 32);
            Some((read(end)?.step, body))
        });
        told.collect()
    }

    /// When this step of the first move was noted first, in nanoseconds since 1970.
    fn at(&self, step: Step) -> u64 {
        let first = |event: &&Event| event.step == step && event.move_id.is_some();
        let event = self.events.iter().find(first).expect("it was noted");
        let time: Timestamp = event.time.parse().expect("a time");
        time.as_nanosecond().try_into().expect("after 1970")
    }

    /// The spans of the body that this step, its nth, has ended.
    fn spans(&self, step: Step, nth: usize) -> Vec<Span> {
        let posted = self.posted();
        let mut ended = posted.iter().filter(|(ended, _)| *ended == step);
        official(&ended.nth(nth).expect("it is told").1).1
    }
}

/// The resource, as names and values, and the spans.
fn official(body: &[u8]) -> (Vec<String>, Vec<Span>) {
    let mut read: ExportTraceServiceRequest = serde_json::from_slice(body).expect("OTLP's JSON");
    assert_eq!(read.resource_spans.len(), 1);
    let mut of_host = read.resource_spans.remove(0);
    let resource = of_host.resource.expect("a resource");
    let about = resource.attributes.iter().map(|it| format!("{}={}", it.key, shown(&it.value)));
    assert_eq!(of_host.scope_spans.len(), 1);
    (about.collect(), of_host.scope_spans.remove(0).spans)
}

fn shown(value: &Option<opentelemetry_proto::tonic::common::v1::AnyValue>) -> String {
    let value = value.as_ref().and_then(|value| value.value.as_ref()).expect("a value");
    if let Value::StringValue(text) = value {
        return text.clone();
    }
    if let Value::DoubleValue(number) = value {
        return number.to_string();
    }
    let Value::IntValue(number) = value else { panic!("{value:?}") };
    number.to_string()
}

/// What an attribute of a span says.
fn attribute(span: &Span, key: &str) -> Option<String> {
    span.attributes.iter().find(|it| it.key == key).map(|it| shown(&it.value))
}

/// A span as a line: its parent among `all`, name, status, and what happened within it.
fn line(span: &Span, all: &[Span]) -> String {
    let parent = all.iter().find(|other| other.span_id == span.parent_span_id);
    let parent = parent.map_or(String::new(), |parent| format!("{}/", parent.name));
    let status = match span.status.as_ref().map(|it| it.code()) {
        Some(StatusCode::Ok) => " ok",
        Some(StatusCode::Error) => " error",
        Some(StatusCode::Unset) | None => "",
    };
    let within: Vec<&str> = span.events.iter().map(|event| &*event.name).collect();
    format!("{parent}{}{status} {within:?}", span.name)
}

fn lines(spans: &[Span], all: &[Span]) -> Vec<String> {
    spans.iter().map(|span| line(span, all)).collect()
}

/// Host 1 is flooded and gives its first VM to host 3, of which it is measured what it brought; what more it asks is refused.
fn made() -> World {
    let mut world = flooded(settings());
    world.run(Duration::from_secs(400));
    world
}

#[test]
fn a_move_that_was_made_is_one_trace_with_both_hosts_parts_in_it() {
    let world = made();
    let (source, target) = (lived(&world, 1), lived(&world, 3));
    let moved = source.spans(Step::Done, 0);
    let arrived = target.spans(Step::Running, 0);
    let paid = source.spans(Step::PayBack, 0);
    let all = [&*moved, &arrived, &paid].concat();
    assert_eq!(
        lines(&moved, &all),
        [
            "move ok [\"monitoring\", \"vm-policy\", \"readiness\", \"running\", \"done\"]",
            "move/request [\"acceptance\", \"acceptance\"]",
            "move/choice []",
            "move/history []",
            "move/readiness [\"release\"]",
            "move/copy []",
            "move/switch-over []",
            "move/hand-over []",
        ]
    );
    assert_eq!(
        lines(&arrived, &all),
        [
            "move/arrival ok [\"running\"]",
            "arrival/admission []",
            "arrival/history []",
            "arrival/preparation []",
            "arrival/incoming-copy []",
        ]
    );
    assert_eq!(lines(&paid, &all), ["move/pay-back []"]);
    for (name, begins, ends) in [
        ("move", source.at(Step::Monitoring), source.at(Step::Done)),
        ("request", source.at(Step::Request), source.at(Step::Choice)),
        ("readiness", source.at(Step::UsageHistory), source.at(Step::Readiness)),
        ("copy", source.at(Step::Copy), source.at(Step::SwitchOver)),
        ("switch-over", source.at(Step::SwitchOver), source.at(Step::HandOver)),
        ("hand-over", source.at(Step::HandOver), source.at(Step::Running)),
        ("pay-back", source.at(Step::Done), source.at(Step::PayBack)),
        ("arrival", target.at(Step::Acceptance), target.at(Step::Running)),
        ("admission", target.at(Step::Acceptance), target.at(Step::Confirmation)),
        ("incoming-copy", target.at(Step::Readiness), target.at(Step::Running)),
    ] {
        let span = all.iter().find(|span| span.name == name).expect(name);
        assert_eq!((span.start_time_unix_nano, span.end_time_unix_nano), (begins, ends), "{name}");
    }
    assert!(all.iter().all(|span| span.trace_id == moved[0].trace_id && span.trace_id.len() == 16));
    assert!(all.iter().all(|span| span.span_id.len() == 8));
    let mut ids: Vec<&[u8]> = all.iter().map(|span| &*span.span_id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), all.len(), "each has an id of its own");
}

#[test]
fn the_whole_says_which_vm_went_where_and_for_what_and_each_answer_who_gave_it() {
    let mut source = lived(&made(), 1);
    let copy = CopyView { copied_bytes: 7_000, rounds: 3, total_ms: Some(9), downtime_ms: None };
    for done in source.events.iter_mut().filter(|event| event.step == Step::Done) {
        done.copy = Some(copy.clone());
    }
    let moved = source.spans(Step::Done, 0);
    let of = |key: &str| attribute(&moved[0], key);
    for (key, value) in [
        ("evenkeel.move.id", "00000001.1.1"),
        ("evenkeel.vm.name", "vm1"),
        ("evenkeel.move.from", "host1"),
        ("evenkeel.move.to", "host3"),
        ("evenkeel.move.outcome", "made"),
        ("evenkeel.move.relief_percent", "154.21"),
        ("evenkeel.move.cost_percent", "61.73"),
        ("evenkeel.copy.bytes", "7000"),
        ("evenkeel.copy.rounds", "3"),
        ("evenkeel.copy.duration_ms", "9"),
    ] {
        assert_eq!(of(key).as_deref(), Some(value), "{key}");
    }
    assert!(of("evenkeel.move.why").is_some_and(|why| why.contains("vm1 should leave")));
    assert_eq!(of("evenkeel.copy.downtime_ms"), None);
    let answers = moved[1].events.iter().map(|event| {
        let said: Vec<String> = event.attributes.iter().map(|it| shown(&it.value)).collect();
        said.join(", ")
    });
    let expected =
        ["it would cost 61.73 % there, host3, 61.73", "it would cost 98.96 % there, host2, 98.96"];
    assert_eq!(answers.collect::<Vec<_>>(), expected);
    let (about, _) = official(&source.posted()[0].1);
    let version = concat!("service.version=", env!("CARGO_PKG_VERSION"));
    let id = format!("service.instance.id={}", source.teller.host_id);
    let expected =
        ["service.name=evenkeel", version, &id, "host.name=host1", "evenkeel.cluster=prod"];
    assert_eq!(about, expected);
}

#[test]
fn what_nobody_takes_is_told_by_the_source_alone_with_every_refusal() {
    let mut settings = settings();
    settings.limits.moves_per_host = 2;
    let mut world = flooded(settings);
    world.run(Duration::from_secs(120));
    let source = lived(&world, 1);
    let refused = source.spans(Step::Abandoned, 0);
    assert_eq!(
        lines(&refused, &refused),
        [
            "move error [\"monitoring\", \"vm-policy\"]",
            "move/request error [\"refusal\", \"refusal\", \"abandoned\"]",
        ]
    );
    assert_eq!(attribute(&refused[0], "evenkeel.move.outcome").as_deref(), Some("not made"));
    assert_eq!(attribute(&refused[0], "evenkeel.move.to"), None);
    assert_eq!(refused[0].status.as_ref().unwrap().message, "2 answered, 0 accepted");
    let hosts: Vec<String> =
        refused[1].events[..2].iter().map(|event| shown(&event.attributes[1].value)).collect();
    assert_eq!(hosts, ["host3", "host2"]);
    assert_eq!(lived(&world, 2).posted(), [], "it was not chosen");
    assert_eq!(lived(&world, 3).posted().len(), 1, "of what it refused nothing");
}

#[test]
fn a_copy_that_is_cancelled_is_told_by_both() {
    let mut world = flooded(settings());
    let copying = |world: &World| world.noted(decide::host::story::Step::Copy);
    assert!(world.until(Duration::from_secs(60), copying));
    world.run(Duration::from_secs(3));
    let id = world.notes.iter().find_map(|(_, _, note)| note.move_id).expect("a move");
    world.ask(1, Ask::Cancel(id)).expect("it may be");
    world.run(Duration::from_secs(5));
    let moved = lived(&world, 1).spans(Step::Abandoned, 0);
    let arrived = lived(&world, 3).spans(Step::Undo, 0);
    let all = [&*moved, &arrived].concat();
    let (moved, arrived) = (lines(&moved, &all), lines(&arrived, &all));
    assert!(moved[0].starts_with("move error "), "{moved:?}");
    let last = [&*moved[moved.len() - 2], &*moved[moved.len() - 1]];
    assert_eq!(last, ["move/copy []", "move/undo error [\"abandoned\"]"]);
    assert!(arrived[0].starts_with("move/arrival error "), "{arrived:?}");
    assert_eq!(arrived[4], "arrival/incoming-copy error [\"undo\"]");
}

#[test]
fn what_is_told_again_or_from_a_longer_log_is_the_same() {
    let source = lived(&made(), 1);
    let posted = source.posted();
    assert_eq!(posted, source.posted());
    // Far more than is read at once lies between what belongs together.
    let other = |n: usize| Event {
        move_id: n.is_multiple_of(2).then(|| "00000001.1.11".to_owned()),
        step: Step::Refusal,
        ..source.events[0].clone()
    };
    let between = |event: &Event| (0..300).map(other).chain([event.clone()]).collect::<Vec<_>>();
    let longer = source.events.iter().flat_map(between).collect();
    let longer = Lived { teller: source.teller.clone(), events: longer };
    assert_eq!(longer.posted(), posted);
    // Another cluster may have a move of the same name.
    let teller = Teller { cluster: "test".to_owned(), ..source.teller.clone() };
    let elsewhere = Lived { teller, events: source.events.clone() };
    let (here, there) = (source.spans(Step::Done, 0), elsewhere.spans(Step::Done, 0));
    assert!(here[0].trace_id != there[0].trace_id && here[0].span_id != there[0].span_id);
}

#[test]
fn a_story_is_told_once_however_much_is_noted_of_its_move_later() {
    let mut source = lived(&made(), 1);
    let told = source.posted().len();
    let done = source.events.iter().find(|event| event.step == Step::Done).cloned().unwrap();
    // A VM that was to come in return has not.
    source.events.push(Event { step: Step::Abandoned, ..done });
    assert_eq!(source.posted().len(), told);
}

#[test]
fn of_a_story_without_a_beginning_the_rest_is_told() {
    let mut source = lived(&made(), 1);
    let from = source.events.iter().position(|event| event.step == Step::Copy).unwrap();
    source.events.drain(..from);
    let rest = source.spans(Step::Done, 0);
    let names: Vec<&str> = rest.iter().map(|span| &*span.name).collect();
    assert_eq!(names, ["move", "copy", "switch-over", "hand-over"]);
    assert_eq!(attribute(&rest[0], "evenkeel.move.to").as_deref(), Some("host3"));
    assert_eq!(attribute(&rest[0], "evenkeel.move.why"), None);
}
