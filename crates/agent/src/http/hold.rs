//! Holding an answer back until there is something to tell.

use std::future::Future;
use std::time::Duration;

use api::{Event, Problem};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// What `look` finds, as soon as it finds events; none if `wait` passes first, or the agent ends.
///
/// `newest` is the number of the newest event, and must be raised only *after* `look` can find that event:
/// then none is missed. Whoever holds no answer back passes a `wait` of zero, and `look` is called once.
///
/// # Errors
///
/// Those of `look`.
pub async fn until_events<Looked>(
    mut newest: watch::Receiver<u64>,
    wait: Duration,
    mut look: impl FnMut() -> Looked,
) -> Result<Vec<Event>, Problem>
where
    Looked: Future<Output = Result<Vec<Event>, Problem>>,
{
    let deadline = Instant::now() + wait;
    loop {
        newest.mark_unchanged();
        let events = look().await?;
        if !events.is_empty() || wait.is_zero() {
            return Ok(events);
        }
        match timeout_at(deadline, newest.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_agent_ends)) => return Ok(events),
            Err(_waited_enough) => return Ok(events),
        }
    }
}
