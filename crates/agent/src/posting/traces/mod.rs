//! Moves as traces, by OTLP over HTTP: what a host noted of a move, posted when its part of it is over; docs/operations.md.
//!
//! **Invariant:** nothing is gathered while a move goes on: its story is read back from the event log when its end is to be told.

use api::Event;
use drivers::store::{Events, Noted, StoreError};
use hyper::body::Bytes;

use self::otlp::{Attribute, text};
use super::Teller;

mod otlp;
mod spans;
#[cfg(test)]
mod tests;

/// Events that are read back at once.
const READ_MAX: usize = 256;
/// Events that are looked through for a story's beginning; of a longer one the rest is told.
const BACK_MAX: u64 = 20_000;

/// Whether this event may end a story that is to be told.
pub(super) fn wanted(teller: &Teller, noted: &Noted) -> bool {
    read(noted).is_some_and(|event| {
        let source = event.move_id.as_deref().map(|id| spans::is_source(&teller.host_id, id));
        source.is_some_and(|source| spans::may_end(source, event.step))
    })
}

/// The trace's id, for people, and the body that tells the story which this event ends; none if it ends none.
///
/// # Errors
/// The log cannot be read.
pub(super) fn message(
    teller: &Teller,
    events: &Events,
    end: &Noted,
) -> Result<Option<(String, Bytes)>, StoreError> {
    let Some(event) = read(end) else { return Ok(None) };
    let story = story(teller, events, event)?;
    let host = story.last().map(|event| event.host.clone()).unwrap_or_default();
    Ok(spans::spans(teller, &story).and_then(|spans| {
        let id = spans.first()?.trace_id;
        Some((data_encoding::HEXLOWER.encode(&id), otlp::body(resource(teller, host), spans)?))
    }))
}

/// What this host noted of the move until then, oldest first.
fn story(teller: &Teller, events: &Events, end: Event) -> Result<Vec<Event>, StoreError> {
    let Some(id) = end.move_id.clone() else { return Ok(Vec::new()) };
    let source = spans::is_source(&teller.host_id, &id);
    let (step, mut before) = (end.step, end.seq);
    let least = end.seq.saturating_sub(BACK_MAX).max(1);
    let mut backwards = vec![end];
    'all: while before > least {
        let from = before.saturating_sub(READ_MAX as u64).max(least);
        let many = usize::try_from(before - from).unwrap_or(READ_MAX);
        for noted in events.events(from, many)?.iter().rev().filter(|noted| noted.seq < before) {
            let event = read_of(noted, &id);
            let begun = event.as_ref().is_some_and(|it| spans::begins(source, step, it.step));
            backwards.extend(event);
            if begun {
                break 'all;
            }
        }
        before = from;
    }
    backwards.reverse();
    Ok(backwards)
}

fn read(noted: &Noted) -> Option<Event> {
    let event: Event = serde_json::from_slice(&noted.record).ok()?;
    Some(Event { seq: noted.seq, ..event })
}

/// The event, if it is of this move.
fn read_of(noted: &Noted, id: &str) -> Option<Event> {
    // Most are not: that is cheaper to see than what they say.
    let mentions = noted.record.windows(id.len()).any(|part| part == id.as_bytes());
    mentions.then(|| read(noted)).flatten().filter(|event| event.move_id.as_deref() == Some(id))
}

/// Who tells.
fn resource(teller: &Teller, host: String) -> Vec<Attribute> {
    vec![
        text("service.name", "evenkeel"),
        text("service.version", env!("CARGO_PKG_VERSION")),
        text("service.instance.id", &*teller.host_id),
        text("host.name", host),
        text("evenkeel.cluster", &*teller.cluster),
    ]
}
