//! One hook: the events that it is told wait as numbers, the oldest is posted until it is taken, then the next.
//!
//! ```text
//!   look (new numbers) ──▶ none waits ──▶ sleep until an event is noted
//!     ▲                └─▶ post the oldest ── taken ──▶ settle ─┐
//!     ├────────────────────────────────────────────────────────┘
//!     └── later: 1 s, 2 s, … 5 min ◀── failed
//! ```
//!
//! **Invariant:** one delivery at a time, in the order of the log; the next begins when the one before was taken or given up.
//! **Invariant:** at most [`WAITING_MAX`] wait: the oldest are given up, counted, and that is said once until the hook is well.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use drivers::store::{Events, Noted};
use hyper::body::Bytes;
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::courier::{Failure, post};
use super::cursors::Cursors;
use super::ready::Ready;
use super::webhook::{message, wanted};
use super::{Failing, Posts, Teller};
use crate::clock::{date, unix_seconds};
use crate::metrics::Deliveries;

/// Events that wait for a receiver.
pub(super) const WAITING_MAX: usize = 1000;
/// Events that are read at once.
const READ_MAX: usize = 256;
/// Until the second try; then twice as long each time.
const DELAY: Duration = Duration::from_secs(1);
const DELAY_MAX: Duration = Duration::from_secs(300);
/// A hook that fails for so long is said to.
const LONG: Duration = Duration::from_secs(300);
/// An event that a receiver refuses for so long is given up, so that the others come.
const REFUSED_MAX: Duration = Duration::from_secs(3600);

/// A hook at work.
pub(super) struct Queue {
    ready: Ready,
    teller: Teller,
    events: Arc<Events>,
    newest: watch::Receiver<u64>,
    cursors: Cursors,
    deliveries: Deliveries,
    failing: Failing,
    /// The last event that was looked at.
    seen: u64,
    /// Those that the receiver is to have, oldest first.
    waiting: VecDeque<u64>,
    /// Given up since it was well.
    dropped: u64,
    trouble: Option<Trouble>,
    /// Its cursor cannot be kept, and that was said.
    unkept: bool,
}

/// Since when, and how often, nothing could be delivered.
struct Trouble {
    since: Instant,
    date: String,
    tries: u32,
    said: bool,
    /// The event that is refused, and since when.
    refused: Option<(u64, Instant)>,
}

impl Queue {
    pub(super) fn new(of: &Posts, ready: Ready, after: u64) -> Queue {
        Queue {
            ready,
            teller: of.teller.clone(),
            events: Arc::clone(&of.events),
            newest: of.newest.clone(),
            cursors: of.cursors.clone(),
            deliveries: of.deliveries.clone(),
            failing: of.failing.clone(),
            seen: after,
            waiting: VecDeque::new(),
            dropped: 0,
            trouble: None,
            unkept: false,
        }
    }

    /// Goes on until no more events can come.
    pub(super) async fn go(mut self) {
        loop {
            let delay = match self.once().await {
                Ok(true) => continue,
                Ok(false) => {
                    if self.newest.changed().await.is_err() {
                        return;
                    }
                    continue;
                }
                Err(failure) => self.failed(&failure).await,
            };
            sleep(delay).await;
        }
    }

    /// Looks for what is new, and delivers the oldest that waits; false if there is none.
    async fn once(&mut self) -> Result<bool, Failure> {
        self.look().await?;
        let Some(&seq) = self.waiting.front() else { return Ok(false) };
        match self.message(seq).await? {
            Some((id, body)) => {
                post(&self.ready, &id, body).await?;
                self.deliveries.delivered.inc();
                self.well();
            }
            // The log has lost it meanwhile.
            None => self.give_up("it is not in the event log any more"),
        }
        self.settle(seq).await;
        Ok(true)
    }

    /// Reads what was noted since it looked last.
    async fn look(&mut self) -> Result<(), Failure> {
        let newest = *self.newest.borrow_and_update();
        if newest < self.seen {
            // The log has lost its end.
            self.waiting.retain(|seq| *seq <= newest);
            self.seen = newest;
        }
        let mut over = None;
        while self.seen < newest {
            let read = self.read(self.seen + 1, READ_MAX).await?;
            self.seen = read.last().map_or(newest, |noted| noted.seq);
            let told = &self.ready.told;
            let wanted = read.iter().filter(|noted| wanted(noted, told).is_some());
            self.waiting.extend(wanted.map(|noted| noted.seq));
            while self.waiting.len() > WAITING_MAX {
                over = self.waiting.pop_front();
                self.give_up("more wait than may");
            }
        }
        if let Some(seq) = over {
            self.keep(seq).await;
        }
        Ok(())
    }

    async fn message(&self, seq: u64) -> Result<Option<(String, Bytes)>, Failure> {
        let noted = self.read(seq, 1).await?.into_iter().find(|noted| noted.seq == seq);
        let message = noted.and_then(|noted| {
            let (event, kind) = wanted(&noted, &self.ready.told)?;
            message(&self.teller, &noted, event, kind)
        });
        Ok(message)
    }

    async fn read(&self, from: u64, limit: usize) -> Result<Vec<Noted>, Failure> {
        let events = Arc::clone(&self.events);
        let read = tokio::task::spawn_blocking(move || events.events(from, limit)).await;
        let unread = |why: String| Failure::Unwell(format!("the event log cannot be read: {why}"));
        read.map_err(|error| unread(error.to_string()))?.map_err(|error| unread(error.to_string()))
    }

    /// It was taken or given up.
    async fn settle(&mut self, seq: u64) {
        if self.waiting.front() == Some(&seq) {
            self.waiting.pop_front();
        }
        self.keep(seq).await;
    }

    async fn keep(&mut self, seq: u64) {
        let kept = self.cursors.settle(self.ready.key.clone(), seq).await;
        if let (Err(error), false) = (&kept, self.unkept) {
            tracing::warn!(
                "webhook {}: after a restart some events are delivered again: {error:#}",
                self.ready.url
            );
        }
        self.unkept = kept.is_err();
    }

    fn give_up(&mut self, why: &str) {
        self.deliveries.dropped.inc();
        if self.dropped == 0 {
            let url = &self.ready.url;
            tracing::warn!("webhook {url}: an event is given up, and more may be: {why}");
        }
        self.dropped += 1;
    }

    fn well(&mut self) {
        if self.trouble.take().is_some_and(|trouble| trouble.said) || self.dropped > 0 {
            let (url, dropped) = (&self.ready.url, self.dropped);
            tracing::info!("webhook {url}: delivered again; {dropped} events were given up");
        }
        self.dropped = 0;
        self.failing.well(&self.ready.key);
    }

    /// Notes it; gives how long to wait.
    async fn failed(&mut self, failure: &Failure) -> Duration {
        let now = Instant::now();
        let trouble = self.trouble.get_or_insert_with(|| Trouble {
            since: now,
            date: date(u64::from(unix_seconds())),
            tries: 0,
            said: false,
            refused: None,
        });
        trouble.tries = trouble.tries.saturating_add(1);
        let oldest = self.waiting.front().copied();
        trouble.refused = match (failure, oldest, trouble.refused) {
            (Failure::Refused(_), Some(seq), Some((same, since))) if same == seq => {
                Some((seq, since))
            }
            (Failure::Refused(_), Some(seq), _) => Some((seq, now)),
            _ => None,
        };
        let (tries, refused) = (trouble.tries, trouble.refused);
        let (url, words) = (&self.ready.url, failure.words());
        if now - trouble.since >= LONG || matches!(failure, Failure::Gone(_)) {
            let since = &trouble.date;
            if !std::mem::replace(&mut trouble.said, true) {
                tracing::warn!(
                    "webhook {url}: nothing delivered since {since}, tried again: {words}"
                );
            }
            let (waiting, dropped) = (self.waiting.len(), self.dropped);
            let told = format!(
                "{url}: nothing delivered since {since}: {words}; {waiting} wait, {dropped} given up"
            );
            self.failing.fails(&self.ready.key, told);
        }
        let delay = delay(&self.teller.host_id, tries);
        if let Some((seq, since)) = refused.filter(|(_, since)| now - *since >= REFUSED_MAX) {
            tracing::debug!(
                "webhook {}: event {seq} refused for {:?}",
                self.ready.url,
                now - since
            );
            self.give_up("it was refused for an hour");
            self.settle(seq).await;
        }
        // Last, so that whoever sees it counted knows that the wait begins.
        self.deliveries.failed.inc();
        delay
    }
}

/// Before the next try: twice as long each time, less up to half of it, so that hosts do not all come at once.
fn delay(host: &str, tries: u32) -> Duration {
    let whole = DELAY.saturating_mul(1 << tries.saturating_sub(1).min(16)).min(DELAY_MAX);
    let hash = Sha256::digest(format!("{host} {tries}"));
    whole - whole * u32::from(hash[0]) / 512
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_five_minutes_and_hosts_differ() {
        let mut before = Duration::ZERO;
        for (tries, whole) in
            [(1, 1), (2, 2), (3, 4), (9, 256), (10, 300), (11, 300), (u32::MAX, 300)]
        {
            let (least, most) = (Duration::from_secs(whole) / 2, Duration::from_secs(whole));
            let found = delay("a", tries);
            assert!(found > least && found <= most, "{tries}: {found:?}");
            assert!(tries > 4 || found >= before, "{tries}");
            before = found;
        }
        assert_ne!(delay("a", 10), delay("b", 10));
    }
}
