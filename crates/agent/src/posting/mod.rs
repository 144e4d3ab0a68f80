//! What is posted by HTTP to whoever the configuration names: alarms and moves of this host to webhooks, moves as traces to a
//! collector; docs/operations.md.
//!
//! ```text
//!   steering ──▶ event log ──▶ queue (a task each) ──▶ courier ──▶ receiver
//!       └─ newest number ──▶ ▲        │
//!                            └ cursor ┘ on disk, behind what is settled
//! ```
//!
//! **Invariant:** the event log is what holds events: a queue has at most [`queue::WAITING_MAX`] numbers in memory, and one event.
//! **Invariant:** nothing waits for a queue: it only reads, in threads of its own, what was noted anyway.
//! **Invariant:** a cursor never passes an event that was neither taken nor given up: each is delivered at least once.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use api::Status;
use drivers::store::Events;
use tokio::sync::watch;
use tokio::task::JoinSet;

use self::cursors::Cursors;
use self::queue::Queue;
pub(crate) use self::ready::{Ready, ready, receivers};
use crate::metrics::{Deliveries, Totals};

mod courier;
mod cursors;
mod queue;
mod ready;
mod secret;
#[cfg(test)]
mod tests;
mod traces;
mod webhook;

/// Who tells.
#[derive(Clone, Debug)]
pub(crate) struct Teller {
    pub(crate) cluster: String,
    pub(crate) host_id: String,
}

/// All receivers of this agent, and the tasks that serve them.
#[derive(Debug)]
pub(crate) struct Posts {
    teller: Teller,
    events: Arc<Events>,
    newest: watch::Receiver<u64>,
    /// The last event when the log was opened.
    before: u64,
    cursors: Cursors,
    webhooks: Account,
    traces: Account,
    tasks: tokio::sync::Mutex<JoinSet<()>>,
}

impl Posts {
    /// None as yet; their cursors are kept in this folder, which is there. To be made before anything is noted anew.
    pub(crate) fn new(
        teller: Teller,
        folder: &Path,
        events: Arc<Events>,
        newest: watch::Receiver<u64>,
        totals: &Totals,
    ) -> Posts {
        let before = *newest.borrow();
        Posts {
            teller,
            events,
            newest,
            before,
            cursors: Cursors::within(folder),
            webhooks: Account::new(&totals.deliveries),
            traces: Account::new(&totals.traces),
            tasks: tokio::sync::Mutex::default(),
        }
    }

    /// Serves these from the start of the agent on. Each goes on where it stopped, but not beyond what the log held when it was
    /// opened: what was delivered of a log that lost its end is not what has those numbers now. A new one begins there.
    pub(crate) async fn serve_at_start(&self, receivers: Vec<Ready>) {
        self.serve(receivers, self.before).await;
    }

    /// Serves these from now on, and no others. Each goes on where it stopped; a new one begins with what happens from now on.
    pub(crate) async fn serve_anew(&self, receivers: Vec<Ready>) {
        let newest = *self.newest.borrow();
        self.serve(receivers, newest).await;
    }

    async fn serve(&self, receivers: Vec<Ready>, newest: u64) {
        let mut tasks = self.tasks.lock().await;
        // A delivery that is broken off is made again.
        tasks.shutdown().await;
        self.webhooks.failing.clear();
        self.traces.failing.clear();
        let keys = receivers.iter().map(|ready| ready.key.clone()).collect();
        let from = self.cursors.begin(keys, newest).await;
        for ready in receivers {
            let after = from.get(&ready.key).copied().unwrap_or(newest);
            tasks.spawn(Queue::new(self, ready, after).go());
        }
    }

    /// Says in a status which of them fail, one sentence each.
    pub(crate) fn failing(&self, status: Status) -> Status {
        let (webhooks_failing, traces_failing) =
            (self.webhooks.failing.told(), self.traces.failing.told().pop());
        Status { webhooks_failing, traces_failing, ..status }
    }
}

/// What becomes of what receivers of one kind are to get.
#[derive(Clone, Debug)]
struct Account {
    deliveries: Deliveries,
    failing: Failing,
}

impl Account {
    fn new(deliveries: &Deliveries) -> Account {
        Account { deliveries: deliveries.clone(), failing: Failing::default() }
    }
}

/// The receivers that fail, in words, by their key.
#[derive(Clone, Debug, Default)]
struct Failing(Arc<Mutex<BTreeMap<String, String>>>);

impl Failing {
    fn told(&self) -> Vec<String> {
        self.with(|all| all.values().cloned().collect())
    }

    fn fails(&self, key: &str, words: String) {
        self.with(|all| all.insert(key.to_owned(), words));
    }

    fn well(&self, key: &str) {
        self.with(|all| all.remove(key));
    }

    fn clear(&self) {
        self.with(BTreeMap::clear);
    }

    /// Each change is one call, so that a panic leaves it whole.
    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<String, String>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
