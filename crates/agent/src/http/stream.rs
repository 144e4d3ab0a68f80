//! Events as they come, to whoever looks (`accept: text/event-stream`): each with its number as id, so that a stream goes on where
//! it broke (`last-event-id`).
//!
//! ```text
//!   event log ─▶ read from the cursor ─▶ queue of [`QUEUE`] ─▶ viewer
//!                       ▲ woken by the newest      └ full for [`PATIENCE`]: dropped, to resume by its last id
//! ```
//!
//! **Invariant:** a viewer costs a bounded queue, whatever it does; there are [`STREAMS_MAX`] at the most, and each ends after
//! [`STREAM_MAX`].

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use api::{EVENTS, Event, FOLLOW_MAX, Problem, STREAM_MAX, STREAMS_MAX};
use axum::http::{HeaderMap, header};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use tokio::sync::mpsc::{self, Sender};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};
use tokio_stream::wrappers::ReceiverStream;

use super::{Backend, EventQuery};

/// Events that wait for a viewer.
const QUEUE: usize = 64;
/// A viewer that takes nothing for so long is dropped.
const PATIENCE: Duration = Duration::from_secs(10);
/// A stream that says nothing for so long says that it is there.
const BEAT: Duration = Duration::from_secs(10);
/// How long a browser waits before it comes again.
const RETRY: Duration = Duration::from_secs(1);

type Told = Result<sse::Event, Infallible>;

/// The places of all viewers.
#[derive(Clone, Debug)]
pub(super) struct Streams(Arc<Semaphore>);

impl Default for Streams {
    fn default() -> Streams {
        Streams(Arc::new(Semaphore::new(STREAMS_MAX)))
    }
}

/// Whether a stream is what is accepted.
pub(super) fn wanted(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted
        .flat_map(|value| value.split(','))
        .any(|kind| kind.split(';').next().is_some_and(|kind| kind.trim() == "text/event-stream"))
}

/// The number of the last event that came, if a stream is resumed.
///
/// # Errors
/// It is no number.
pub(super) fn last_id(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(id) = headers.get("last-event-id") else { return Ok(None) };
    let number = id.to_str().ok().and_then(|id| id.trim().parse().ok());
    number.map(Some).ok_or_else(|| {
        let title = "last-event-id is not the number of an event";
        Problem::new(400, "bad-event-id", title, "Send the id of the last event that came, or none")
    })
}

impl Streams {
    /// Begins a stream: with what came after `query.after`, else with the newest `query.limit`.
    ///
    /// # Errors
    /// There are as many as there may be, or the event log cannot be read.
    pub(super) async fn begin<B: Backend>(
        self,
        backend: B,
        mut query: EventQuery,
    ) -> Result<Response, Problem> {
        let place = self.0.try_acquire_owned().map_err(|_full| {
            let title = format!("{STREAMS_MAX} viewers follow this agent's events already");
            let hint =
                "Close some, follow another host's agent, or ask for events without a stream";
            Problem::new(503, "too-many-viewers", title, hint)
        })?;
        query.wait = Duration::ZERO;
        let newest = newest(&backend).await?;
        // A number that is still to come is of a log that was lost.
        let reset = query.after.is_some_and(|after| after > newest).then_some(newest);
        query.after = query.after.filter(|_| reset.is_none());
        let first = backend.events(query.clone()).await?;
        query.after = Some(first.last().map_or(query.after.unwrap_or(newest), |event| event.seq));
        query.limit = EVENTS as usize;
        query.wait = FOLLOW_MAX;
        let (queue, viewer) = mpsc::channel(QUEUE);
        tokio::spawn(follow(backend, query, (reset, first), queue, place));
        let beat = KeepAlive::new().interval(BEAT).text("here");
        Ok(Sse::new(ReceiverStream::new(viewer)).keep_alive(beat).into_response())
    }
}

/// The number of the newest event; 0: there is none.
pub(super) async fn newest<B: Backend>(backend: &B) -> Result<u64, Problem> {
    let query = EventQuery { after: None, limit: 1, move_id: None, wait: Duration::ZERO };
    Ok(backend.events(query).await?.last().map_or(0, |event| event.seq))
}

async fn follow<B: Backend>(
    backend: B,
    mut query: EventQuery,
    (reset, first): (Option<u64>, Vec<Event>),
    queue: Sender<Told>,
    _place: OwnedSemaphorePermit,
) {
    let end = Instant::now() + STREAM_MAX;
    let hello = Ok(sse::Event::default().retry(RETRY).comment("events follow"));
    if !told(&queue, hello, end).await {
        return;
    }
    if let Some(newest) = reset {
        let text = format!("{{\"newest\":{newest}}}");
        if !told(&queue, Ok(sse::Event::default().event("reset").data(text)), end).await {
            return;
        }
    }
    let mut events = first;
    loop {
        for event in events {
            query.after = Some(event.seq);
            let Ok(text) = serde_json::to_string(&event) else { continue };
            let one = sse::Event::default().id(event.seq.to_string()).data(text);
            if !told(&queue, Ok(one), end).await {
                return;
            }
        }
        let more = tokio::select! {
            more = timeout_at(end, backend.events(query.clone())) => more,
            () = queue.closed() => return,
        };
        // Whether its time is over or the agent ends: the viewer comes again.
        let Ok(Ok(more)) = more else { return };
        events = more;
    }
}

/// Whether the viewer has taken it in, or will.
async fn told(queue: &Sender<Told>, one: Told, end: Instant) -> bool {
    let patience = end.min(Instant::now() + PATIENCE);
    matches!(timeout_at(patience, queue.send(one)).await, Ok(Ok(())))
}
