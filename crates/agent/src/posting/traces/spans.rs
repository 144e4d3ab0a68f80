//! A host's part of a move's story, as spans.
//!
//! ```text
//!   source   move ─┬─ request ─▶ choice ─▶ history ─▶ readiness ─▶ copy ─▶ switch-over ─▶ hand-over
//!                  ├─ pay-back, minutes later
//!   target         └─ arrival ─── admission ─▶ history ─▶ preparation ─▶ incoming-copy
//! ```
//!
//! A phase begins with an event and lasts until the next one begins; what else is noted meanwhile, each answer of a host for one,
//! is an event of its span. All times are the log's.
//!
//! **Invariant:** no id is drawn or passed on: trace and spans are named by hashes of the cluster, the move and the host's part in it,
//! so both hosts give the same trace and the same root, and what is sent again is the same again.

use api::{CopyView, Event, Step};
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::otlp::{Attribute, Span, SpanEvent, Status, Value, text};
use crate::posting::Teller;

const MOVE: &str = "move";
const ARRIVAL: &str = "arrival";
const PAY_BACK: &str = "pay-back";

/// Whether the move of this id is one from the host of this id: moves are named by their source.
pub(super) fn is_source(host_id: &str, move_id: &str) -> bool {
    move_id.split('.').next().is_some_and(|source| host_id.starts_with(source))
}

/// Whether such an event may end a host's part of a move, or tells what came of it.
pub(super) fn may_end(source: bool, step: Step) -> bool {
    ends(source, step) || (source && step == Step::PayBack)
}

/// Whether nothing before such an event can belong to the part of the story that `end` ends.
pub(super) fn begins(source: bool, end: Step, step: Step) -> bool {
    match (source, end) {
        (true, Step::PayBack) => step == Step::Done,
        (true, _) => step == Step::Monitoring,
        (false, _) => step == Step::Acceptance,
    }
}

fn ends(source: bool, step: Step) -> bool {
    match source {
        true => matches!(step, Step::Done | Step::Abandoned | Step::VmDown),
        false => matches!(step, Step::Running | Step::Undo | Step::VmDown),
    }
}

/// What lasts from such an event on; `Some(None)`: nothing of its own.
fn phase(source: bool, step: Step) -> Option<Option<&'static str>> {
    let name = match (source, step) {
        (true, Step::Request) => "request",
        (true, Step::Choice) => "choice",
        (_, Step::Confirmation) => "history",
        (true, Step::UsageHistory) => "readiness",
        (true, Step::Copy) => "copy",
        (true, Step::SwitchOver) => "switch-over",
        (true, Step::HandOver) => "hand-over",
        (true, Step::Undo) => "undo",
        (false, Step::Acceptance) => "admission",
        (false, Step::UsageHistory) => "preparation",
        (false, Step::Readiness) => "incoming-copy",
        (true, Step::Readiness) | (_, Step::Running) => return Some(None),
        _ => return None,
    };
    Some(Some(name))
}

/// The spans of a host's part of a story that is told in full, oldest first: its last event has ended it. None if that has not, or
/// if this host has no part in it that is worth telling: a target that was not chosen is told of by the source.
pub(super) fn spans(teller: &Teller, story: &[Event]) -> Option<Vec<Span>> {
    let last = story.last()?;
    let source = is_source(&teller.host_id, last.move_id.as_deref()?);
    let names = Names { teller, move_id: last.move_id.as_deref()? };
    if source && last.step == Step::PayBack {
        return Some(vec![pay_back(&names, story)?]);
    }
    let first_end = story.iter().position(|event| ends(source, event.step))?;
    let chosen = story.iter().any(|event| event.step == Step::Confirmation);
    if first_end + 1 != story.len() || !(source || chosen) {
        return None;
    }
    let mut whole = names.whole(source, at(story.first()?)?);
    whole.attributes = about(source, story);
    let mut phases: Vec<Span> = Vec::new();
    let mut open = false;
    for event in story {
        let now = at(event)?;
        let begun = phase(source, event.step);
        let goes_on = open && phases.last().map(|span| Some(span.name)) == begun;
        match begun.filter(|_| !goes_on) {
            Some(begun) => {
                if let Some(before) = phases.last_mut().filter(|_| open) {
                    before.end(now);
                }
                open = begun.is_some();
                if let Some(name) = begun {
                    let mut span = names.span(source, name, phases.len(), now);
                    span.parent_span_id = Some(whole.span_id);
                    span.attributes = details(event);
                    phases.push(span);
                } else {
                    whole.happened(span_event(event, now));
                }
            }
            None => {
                let within = phases.last_mut().filter(|_| open).unwrap_or(&mut whole);
                within.happened(span_event(event, now));
            }
        }
    }
    let end = at(last)?;
    whole.end(end);
    let made = made(last);
    whole.status = if made { Status::ok() } else { Status::error(&last.reason) };
    if let Some(cut) = phases.last_mut().filter(|_| open) {
        cut.end(end);
        if !made {
            cut.status = Status::error(&last.reason);
        }
    }
    Some([vec![whole], phases].concat())
}

/// Whether a story that ends so is one of a move that was made.
fn made(end: &Event) -> bool {
    matches!(end.step, Step::Done | Step::Running)
}

/// From when the VM ran at its new host until it was known what that brought.
fn pay_back(names: &Names<'_>, story: &[Event]) -> Option<Span> {
    let told = story.last()?;
    let done = story.iter().find(|event| event.step == Step::Done).unwrap_or(told);
    let mut span = Span::new(names.trace(), names.id(&[PAY_BACK]), PAY_BACK, at(done)?);
    span.parent_span_id = Some(names.root());
    span.attributes = details(told);
    span.end(at(told)?);
    Some(span)
}

/// How spans are named.
struct Names<'a> {
    teller: &'a Teller,
    move_id: &'a str,
}

impl Names<'_> {
    fn trace(&self) -> [u8; 16] {
        self.hash(&["trace"])
    }

    /// Of the whole move: its source's.
    fn root(&self) -> [u8; 8] {
        self.id(&[MOVE])
    }

    fn whole(&self, source: bool, now: u64) -> Span {
        if source {
            return Span::new(self.trace(), self.root(), MOVE, now);
        }
        let id = self.id(&[ARRIVAL, &self.teller.host_id]);
        let mut span = Span::new(self.trace(), id, ARRIVAL, now);
        span.parent_span_id = Some(self.root());
        span
    }

    fn span(&self, source: bool, name: &'static str, number: usize, now: u64) -> Span {
        let whole = if source { MOVE } else { ARRIVAL };
        let id = self.id(&[whole, &self.teller.host_id, &number.to_string()]);
        Span::new(self.trace(), id, name, now)
    }

    fn id(&self, of: &[&str]) -> [u8; 8] {
        let long: [u8; 16] = self.hash(of);
        std::array::from_fn(|at| long[at])
    }

    /// The first bytes of a SHA-256 over all parts, each with its length.
    fn hash(&self, of: &[&str]) -> [u8; 16] {
        let mut hash = Sha256::new();
        for part in [&*self.teller.cluster, self.move_id].iter().chain(of) {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let whole = hash.finalize();
        std::array::from_fn(|at| whole[at])
    }
}

/// What is told of the move as a whole.
fn about(source: bool, story: &[Event]) -> Vec<Attribute> {
    let of = |step: Step| story.iter().rev().find(|event| event.step == step);
    let Some(last) = story.last() else { return Vec::new() };
    let other = last.peer.as_deref().or_else(|| of(Step::Choice)?.peer.as_deref());
    let here = Some(&*last.host);
    let (from, to) = if source { (here, other) } else { (other, here) };
    let outcome = match last.step == Step::VmDown {
        true => "down",
        false if made(last) => "made",
        false => "not made",
    };
    let policy = of(Step::VmPolicy);
    let texts = [
        ("evenkeel.move.id", last.move_id.as_deref()),
        ("evenkeel.vm.name", last.vm.as_deref()),
        ("evenkeel.move.from", from),
        ("evenkeel.move.to", to),
        ("evenkeel.move.outcome", Some(outcome)),
        ("evenkeel.move.why", policy.map(|event| &*event.reason)),
        ("evenkeel.reason", Some(&*last.reason)),
    ];
    let costs = [
        ("evenkeel.move.relief_percent", policy),
        ("evenkeel.move.cost_percent", of(Step::Readiness).or_else(|| of(Step::Choice))),
    ];
    let texts = texts.into_iter().filter_map(|(key, value)| Some(text(key, value?)));
    let costs = costs.into_iter().filter_map(|(key, of)| cost(key, of?));
    texts.chain(costs).chain(last.copy.iter().flat_map(copied)).collect()
}

/// What the copy took, where the end says it.
fn copied(copy: &CopyView) -> impl Iterator<Item = Attribute> + use<> {
    let figures = [
        ("evenkeel.copy.bytes", Some(copy.copied_bytes)),
        ("evenkeel.copy.rounds", Some(u64::from(copy.rounds))),
        ("evenkeel.copy.duration_ms", copy.total_ms),
        ("evenkeel.copy.downtime_ms", copy.downtime_ms),
    ];
    let figures = figures.into_iter().filter_map(|(key, figure)| Some((key, figure?)));
    figures.map(|(key, figure)| Attribute { key, value: Value::Whole(figure) })
}

/// What an event says besides its time and its step.
fn details(event: &Event) -> Vec<Attribute> {
    let peer = event.peer.as_deref().map(|peer| text("evenkeel.peer", peer));
    let cost = cost("evenkeel.cost_percent", event);
    [Some(text("evenkeel.reason", &*event.reason)), peer, cost].into_iter().flatten().collect()
}

fn cost(key: &'static str, event: &Event) -> Option<Attribute> {
    Some(Attribute { key, value: Value::Real(event.cost_percent?) })
}

fn span_event(event: &Event, now: u64) -> SpanEvent {
    SpanEvent { time_unix_nano: now, name: event.step.to_string(), attributes: details(event) }
}

/// Nanoseconds since 1970.
fn at(event: &Event) -> Option<u64> {
    let time: Timestamp = event.time.parse().ok()?;
    u64::try_from(time.as_nanosecond()).ok()
}
