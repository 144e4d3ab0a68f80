//! One receiver: the events that it is to have wait as numbers, the oldest is posted until it is taken, then the next.
//!
//! ```text
//!   look (new numbers) ──▶ none waits ──▶ sleep until an event is noted
//!     ▲                └─▶ post the oldest ── taken ──▶ settle ─┐
//!     ├────────────────────────────────────────────────────────┘
//!     └── later: 1 s, 2 s, … 5 min ◀── failed
//! ```
//!
//! **Invariant:** one delivery at a time, in the order of the log; the next begins when the one before was taken or given up.
//! **Invariant:** at most [`WAITING_MAX`] wait: the oldest are given up, counted, and that is said once until the receiver is well.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use drivers::store::{Events, Noted, StoreError};
use hyper::body::Bytes;
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::courier::{Failure, post};
use super::cursors::Cursors;
use super::ready::{Gets, Ready};
use super::{Account, Posts, Teller, traces, webhook};
use crate::clock::{date, unix_seconds};

/// Events that wait for a receiver.
pub(super) const WAITING_MAX: usize = 1000;
/// Events that are read at once.
const READ_MAX: usize = 256;
/// Until the second try; then twice as long each time.
const DELAY: Duration = Duration::from_secs(1);
const DELAY_MAX: Duration = Duration::from_secs(300);
/// A receiver that fails for so long is said to.
const LONG: Duration = Duration::from_secs(300);
/// An event that a receiver refuses for so long is given up, so that the others come.
const REFUSED_MAX: Duration = Duration::from_secs(3600);

/// The queue of a receiver, at work.
pub(super) struct Queue {
    ready: Ready,
    teller: Teller,
    events: Arc<Events>,
    newest: watch::Receiver<u64>,
    cursors: Cursors,
    account: Account,
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

/// What is to be posted of an event.
enum Written {
    /// This, under this id.
    Post(String, Bytes),
    /// Nothing: it ends no story that is to be told.
    Nothing,
    /// The log does not have it any more.
    Lost,
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
        let account = match ready.gets {
            Gets::Events { .. } => &of.webhooks,
            Gets::Traces { .. } => &of.traces,
        };
        Queue {
            account: account.clone(),
            ready,
            teller: of.teller.clone(),
            events: Arc::clone(&of.events),
            newest: of.newest.clone(),
            cursors: of.cursors.clone(),
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
            Written::Post(id, body) => {
                if let Some(partly) = post(&self.ready, &id, body).await? {
                    tracing::warn!("{}: of {id} {partly}", self.ready);
                }
                self.account.deliveries.delivered.inc();
                self.well();
            }
            Written::Nothing => {}
            Written::Lost => self.give_up("it is not in the event log any more"),
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
            let wanted = read.iter().filter(|noted| match &self.ready.gets {
                Gets::Events { told, .. } => webhook::wanted(noted, told).is_some(),
                Gets::Traces { .. } => traces::wanted(&self.teller, noted),
            });
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

    async fn message(&self, seq: u64) -> Result<Written, Failure> {
        let noted = self.read(seq, 1).await?.into_iter().find(|noted| noted.seq == seq);
        // The log may have lost it meanwhile.
        let Some(noted) = noted else { return Ok(Written::Lost) };
        let message = match &self.ready.gets {
            Gets::Events { told, .. } => webhook::wanted(&noted, told)
                .and_then(|(event, kind)| webhook::message(&self.teller, &noted, event, kind)),
            Gets::Traces { .. } => {
                let teller = self.teller.clone();
                self.look_up(move |events| traces::message(&teller, events, &noted)).await?
            }
        };
        Ok(message.map_or(Written::Nothing, |(id, body)| Written::Post(id, body)))
    }

    async fn read(&self, from: u64, limit: usize) -> Result<Vec<Noted>, Failure> {
        self.look_up(move |events| events.events(from, limit)).await
    }

    /// Looks something up in the event log, in a thread of its own.
    async fn look_up<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Events) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Failure> {
        let events = Arc::clone(&self.events);
        let read = tokio::task::spawn_blocking(move || look(&events)).await;
        let unread = |why| Failure::Unwell(format!("the event log cannot be read: {why}"), None);
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
                "{}: after a restart some events are delivered again: {error:#}",
                self.ready
            );
        }
        self.unkept = kept.is_err();
    }

    fn give_up(&mut self, why: &str) {
        self.account.deliveries.dropped.inc();
        if self.dropped == 0 {
            tracing::warn!("{}: an event is given up, and more may be: {why}", self.ready);
        }
        self.dropped += 1;
    }

    fn well(&mut self) {
        if self.trouble.take().is_some_and(|trouble| trouble.said) || self.dropped > 0 {
            let (name, dropped) = (&self.ready, self.dropped);
            tracing::info!("{name}: delivered again; {dropped} events were given up");
        }
        self.dropped = 0;
        self.account.failing.well(&self.ready.key);
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
        let never = matches!(failure, Failure::Never(_));
        // One that is not asked again says nothing of how the next body fares.
        trouble.tries = if never { 0 } else { trouble.tries.saturating_add(1) };
        let oldest = self.waiting.front().copied();
        trouble.refused = match (failure, oldest, trouble.refused) {
            (Failure::Refused(_), Some(seq), Some((same, since))) if same == seq => {
                Some((seq, since))
            }
            (Failure::Refused(_), Some(seq), _) => Some((seq, now)),
            _ => None,
        };
        let (tries, refused) = (trouble.tries, trouble.refused);
        let at_once = matches!(failure, Failure::Gone(_) | Failure::Never(_));
        let (long, since) = (now - trouble.since >= LONG, trouble.date.clone());
        let unsaid = (long || at_once) && !std::mem::replace(&mut trouble.said, true);
        let refused = refused.filter(|(_, since)| now - *since >= REFUSED_MAX);
        let given_up = match (failure, oldest, refused) {
            (Failure::Never(words), Some(seq), _) => Some((seq, &**words)),
            (_, _, Some((seq, _))) => Some((seq, "it was refused for an hour")),
            _ => None,
        };
        if let Some((seq, why)) = given_up {
            self.give_up(why);
            self.settle(seq).await;
        }
        let (ready, words) = (&self.ready, failure.words());
        if unsaid {
            let then = if never { "given up" } else { "tried again" };
            tracing::warn!("{ready}: nothing delivered since {since}, {then}: {words}");
        }
        if long || at_once {
            let (url, waiting, dropped) = (&ready.url, self.waiting.len(), self.dropped);
            let told = format!(
                "{url}: nothing delivered since {since}: {words}; {waiting} wait, {dropped} given up"
            );
            self.account.failing.fails(&ready.key, told);
        }
        // Last, so that whoever sees it counted knows that the wait begins.
        self.account.deliveries.failed.inc();
        match failure {
            Failure::Unwell(_, Some(after)) => {
                delay(&self.teller.host_id, tries).max((*after).min(DELAY_MAX))
            }
            // The next body may fare better.
            Failure::Never(_) => DELAY,
            Failure::Unwell(_, None) | Failure::Gone(_) | Failure::Refused(_) => {
                delay(&self.teller.host_id, tries)
            }
        }
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
