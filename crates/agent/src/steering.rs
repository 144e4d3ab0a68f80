//! The loop: whatever is heard goes into `Host::handle`, whatever it wants is carried out, in order.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use api::{Event as Told, Problem};
use decide::host::story::Note;
use decide::host::{Action, Ask, Event, Host};
use decide::units::{HostId, MoveId, Time};
use drivers::hypervisor::{FromHypervisor, Hypervisor};
use drivers::store::Events;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior};

use crate::clock::{CYCLE, Clock};
use crate::journal::{Write, Written};
use crate::net::{Heard, Net};
use crate::{monitoring, views};

/// A look at the host, or a question to it, between two events.
pub(crate) type Question = Box<dyn FnOnce(&mut Steering) + Send>;

/// The agent at work.
pub(crate) struct Steering {
    pub(crate) host: Host,
    pub(crate) clock: Clock,
    pub(crate) cluster: String,
    pub(crate) request: String,
    net: Net,
    hypervisor: Arc<dyn Hypervisor>,
    journal: mpsc::UnboundedSender<Write>,
    events: Arc<Events>,
    newest: watch::Sender<u64>,
    replies: BTreeMap<u64, oneshot::Sender<Result<MoveId, String>>>,
    asked: u64,
}

impl std::fmt::Debug for Steering {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Steering").field("host", &self.host.id()).finish_non_exhaustive()
    }
}

/// What the loop listens to.
#[derive(Debug)]
pub(crate) struct Ears {
    pub(crate) net: mpsc::Receiver<Heard>,
    pub(crate) hypervisor: mpsc::Receiver<FromHypervisor>,
    pub(crate) journal: mpsc::UnboundedReceiver<Written>,
    pub(crate) readings: mpsc::Receiver<monitoring::Read>,
    pub(crate) questions: mpsc::Receiver<Question>,
}

/// What the loop speaks by.
pub(crate) struct Hands {
    pub(crate) net: Net,
    pub(crate) hypervisor: Arc<dyn Hypervisor>,
    pub(crate) journal: mpsc::UnboundedSender<Write>,
    pub(crate) events: Arc<Events>,
    pub(crate) newest: watch::Sender<u64>,
}

impl Steering {
    pub(crate) fn new(
        host: Host,
        clock: Clock,
        cluster: String,
        request: String,
        hands: Hands,
    ) -> Steering {
        let Hands { net, hypervisor, journal, events, newest } = hands;
        let (replies, asked) = (BTreeMap::new(), 0);
        Steering {
            host,
            clock,
            cluster,
            request,
            net,
            hypervisor,
            journal,
            events,
            newest,
            replies,
            asked,
        }
    }

    /// Goes on until `stop`, or until one of the parts that it listens to is gone.
    pub(crate) async fn go(mut self, mut ears: Ears, mut stop: oneshot::Receiver<()>) {
        let mut sync = tokio::time::interval(CYCLE);
        sync.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let deadline = self.host.deadline();
            let event = tokio::select! {
                biased;
                _ = &mut stop => return,
                Some(report) = ears.hypervisor.recv() => of_hypervisor(report),
                Some(written) = ears.journal.recv() => of_journal(written),
                Some(heard) = ears.net.recv() => self.of_net(heard),
                () = until(self.clock, deadline) => Event::Tick,
                Some(question) = ears.questions.recv() => {
                    question(&mut self);
                    continue;
                }
                Some(read) = ears.readings.recv() => match read {
                    Ok(reading) => Event::Reading(reading),
                    Err(why) => Event::BadInput(why),
                },
                _ = sync.tick() => {
                    self.sync_events();
                    continue;
                }
                else => return,
            };
            self.handle(event);
        }
    }

    /// One event, and what follows from it.
    pub(crate) fn handle(&mut self, event: Event) {
        let mut actions = Vec::new();
        self.host.handle(self.clock.now(), event, &mut actions);
        self.carry_out(actions);
    }

    /// Asks the host what only it can answer.
    pub(crate) fn ask(&mut self, what: Ask, reply: oneshot::Sender<Result<MoveId, String>>) {
        self.asked += 1;
        self.replies.insert(self.asked, reply);
        self.handle(Event::Asked { number: self.asked, what });
    }

    pub(crate) fn carry_out(&mut self, actions: Vec<Action>) {
        let mut notes = Vec::new();
        for action in actions {
            match action {
                Action::Send { address, message, .. } => self.net.send(address, message),
                Action::Cast { message, known } => self.net.cast(&message, &known),
                Action::Gossip { to, bytes } => self.net.gossip(to, &bytes),
                Action::Persist { number, records } => {
                    // The thread ends only after the loop; if it died, nothing is said to be stored, so nothing goes on.
                    if self.journal.send(Write { number, records }).is_err() {
                        tracing::error!("the journal's thread is gone: nothing can be written");
                    }
                }
                Action::Hypervisor(move_id, vm, command) => {
                    self.hypervisor.order(move_id, vm, command)
                }
                Action::Note(note) => notes.push(note),
                Action::Reply { number, answer } => {
                    // Nobody waits any more only if the client went away.
                    let _ = self.replies.remove(&number).map(|reply| reply.send(answer));
                }
            }
        }
        self.tell(&notes);
    }

    /// Writes notes to the event log and the log, and wakes those who follow.
    fn tell(&self, notes: &[Note]) {
        if notes.is_empty() {
            return;
        }
        let now = self.clock.now();
        let told: Vec<Told> =
            notes.iter().map(|note| views::event(&self.host, self.clock, now, note)).collect();
        for event in &told {
            let (move_id, vm) =
                (event.move_id.as_deref().unwrap_or("-"), event.vm.as_deref().unwrap_or("-"));
            tracing::info!(
                move_id,
                vm,
                peer = event.peer.as_deref().unwrap_or("-"),
                "{}: {}",
                event.step,
                event.reason
            );
        }
        let records: Vec<Vec<u8>> =
            told.iter().filter_map(|event| serde_json::to_vec(event).ok()).collect();
        match self.events.note(&records) {
            Ok(first) => {
                self.newest.send_replace(first + records.len() as u64 - 1);
            }
            Err(error) => tracing::error!(%error, "events could not be kept"),
        }
    }

    fn sync_events(&self) {
        let events = Arc::clone(&self.events);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = events.sync() {
                tracing::error!(%error, "events could not be made durable");
            }
        });
    }

    fn of_net(&self, heard: Heard) -> Event {
        match heard {
            Heard::Message(message) => Event::Message(message),
            Heard::Gossip { from, bytes } => Event::Gossip { from, bytes },
            Heard::Bad { from, why } => Event::BadInput(format!("from {from}: {why}")),
            Heard::Undelivered { to, message, why } => match self.host_at(to) {
                Some(to) => Event::Undelivered { to, message, why },
                None => Event::BadInput(format!(
                    "{} to {to} was not delivered: {why}",
                    message.body.name()
                )),
            },
        }
    }

    fn host_at(&self, address: SocketAddr) -> Option<HostId> {
        self.host
            .membership()
            .hosts()
            .find(|view| view.peer.address == address)
            .map(|view| view.peer.host)
    }
}

fn of_hypervisor(heard: FromHypervisor) -> Event {
    match heard {
        FromHypervisor::Report(move_id, vm, report) => Event::Report(move_id, vm, report),
        FromHypervisor::Sighting(sighting) => Event::Sighting(sighting),
    }
}

fn of_journal(written: Written) -> Event {
    match written.result {
        Ok(generation) => Event::Stored { number: written.number, generation },
        Err(why) => Event::StoreFailed { number: written.number, why },
    }
}

async fn until(clock: Clock, deadline: Option<Time>) {
    match deadline.map(|at| clock.instant(at)) {
        Some(at) => tokio::time::sleep_until(Instant::from(at)).await,
        None => std::future::pending().await,
    }
}

/// No answer comes from a loop that has ended.
pub(crate) fn gone() -> Problem {
    Problem::new(503, "agent-stopping", "the agent is stopping", "try again when it is back")
}
