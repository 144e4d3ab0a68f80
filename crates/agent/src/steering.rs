//! The loop: whatever is heard goes into `Host::handle`, whatever it wants is carried out, in order.
//!
//! **Invariant:** the loop never goes on deaf: if one of the parts that it listens to ends, so does it, and says which.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use api::{Event as Told, Problem, Step};
use decide::host::story::Note;
use decide::host::{Action, Ask, Event, Host};
use decide::policy::rules::hours::LocalTimes;
use decide::units::{HostId, MoveId, Time, VmId};
use decide::usage::history::Whose;
use decide::wire::message::{Body, Message};
use drivers::hypervisor::{FromHypervisor, Hypervisor};
use drivers::monitor::Uplink;
use drivers::store::Events;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::MissedTickBehavior;

use crate::clock::{CYCLE, Clock, local_times};
use crate::doing::Doing;
use crate::history::{Order, Orders};
use crate::hold::Hold;
use crate::journal::{Write, Written};
use crate::metrics::Totals;
use crate::net::{Heard, Net, To};
use crate::noise::Noise;
use crate::planned::Shown;
use crate::recording::Recording;
use crate::{draining, monitoring, views};

/// A look at the host, or a question to it, between two events.
pub(crate) type Question = Box<dyn FnOnce(&mut Steering) + Send>;

/// The agent at work.
pub(crate) struct Steering {
    pub(crate) host: Host,
    pub(crate) clock: Clock,
    pub(crate) cluster: String,
    pub(crate) request: String,
    /// What of the configuration file, as it was read last, is not in force.
    pub(crate) config: Option<String>,
    /// For people to see; the host goes by its reading.
    pub(crate) uplink: Option<Uplink>,
    net: Net,
    pub(crate) hypervisor: Arc<dyn Hypervisor>,
    journal: mpsc::UnboundedSender<Write>,
    pub(crate) history: Orders,
    pub(crate) events: Arc<Events>,
    newest: watch::Sender<u64>,
    hold: Option<Hold>,
    drain: draining::Shared,
    recording: Recording,
    noise: Noise,
    /// The hash of the inventory that others can read.
    listed: Option<u64>,
    replies: BTreeMap<u64, oneshot::Sender<Result<MoveId, String>>>,
    asked: u64,
    /// The plan whose numbers hold.
    pub(crate) shown: Shown,
    /// What is counted for metrics.
    pub(crate) totals: Totals,
    doing: Doing,
    /// If another loop drives the host: what it is to carry out.
    lent: Option<Vec<Action>>,
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
    pub(crate) history: mpsc::UnboundedReceiver<Event>,
    pub(crate) readings: mpsc::Receiver<monitoring::Read>,
    pub(crate) questions: mpsc::Receiver<Question>,
}

/// What the loop speaks by.
pub(crate) struct Hands {
    pub(crate) net: Net,
    pub(crate) hypervisor: Arc<dyn Hypervisor>,
    pub(crate) journal: mpsc::UnboundedSender<Write>,
    pub(crate) history: Orders,
    pub(crate) events: Arc<Events>,
    pub(crate) newest: watch::Sender<u64>,
    pub(crate) hold: Option<Hold>,
    pub(crate) drain: draining::Shared,
    pub(crate) recording: Recording,
    pub(crate) totals: Totals,
}

impl Steering {
    pub(crate) fn new(
        host: Host,
        clock: Clock,
        cluster: String,
        request: String,
        hands: Hands,
    ) -> Steering {
        let Hands {
            net,
            hypervisor,
            journal,
            history,
            events,
            newest,
            recording,
            hold,
            drain,
            totals,
        } = hands;
        let (noise, listed, replies, asked) = (Noise::default(), None, BTreeMap::new(), 0);
        Steering {
            host,
            clock,
            cluster,
            request,
            config: None,
            uplink: None,
            net,
            hypervisor,
            journal,
            history,
            events,
            newest,
            hold,
            drain,
            recording,
            noise,
            listed,
            replies,
            asked,
            shown: Shown::default(),
            totals,
            doing: Doing::default(),
            lent: None,
        }
    }

    /// Goes on until `stop`.
    ///
    /// # Errors
    /// The part that ended by itself: without it the agent would be deaf.
    pub(crate) async fn go(
        mut self,
        mut ears: Ears,
        mut stop: oneshot::Receiver<()>,
    ) -> anyhow::Result<()> {
        let mut sync = tokio::time::interval(CYCLE);
        sync.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let deadline = self.host.deadline();
            let event = tokio::select! {
                biased;
                _ = &mut stop => return Ok(()),
                heard = ears.hypervisor.recv() => of_hypervisor(heard.context("the driver ended")?),
                written = ears.journal.recv() => {
                    of_journal(written.context("the journal's thread ended")?)
                }
                heard = ears.net.recv() => self.of_net(heard.context("the network's part ended")?),
                () = until(self.clock, deadline) => Event::Tick,
                heard = ears.history.recv() => heard.context("the histories' thread ended")?,
                question = ears.questions.recv() => {
                    question.context("the API ended")?(&mut self);
                    continue;
                }
                read = ears.readings.recv() => match read.context("the monitor ended")? {
                    Ok((reading, uplink)) => {
                        self.uplink = uplink;
                        self.handle(Event::Reading(reading));
                        self.note_doing();
                        continue;
                    }
                    Err(why) => Event::BadInput(why),
                },
                _ = sync.tick() => {
                    self.sync_events();
                    self.tell_time();
                    continue;
                }
            };
            self.handle(event);
        }
    }

    /// Tells the host what the calendar says: once a minute, and when it asks for another time zone.
    fn tell_time(&mut self) {
        let zones = self.host.time_zones();
        let times = local_times(zones.iter().copied());
        let told = |told: &LocalTimes| {
            told.unix / 60 == times.unix / 60 && told.zones.keys().eq(times.zones.keys())
        };
        if !self.host.local_times().is_some_and(told) {
            self.handle(Event::LocalTimes(times));
        }
    }

    /// One event, and what follows from it.
    pub(crate) fn handle(&mut self, event: Event) {
        let of_network = matches!(
            event,
            Event::Message(_)
                | Event::BadHistory { .. }
                | Event::Gossip { .. }
                | Event::Inventory { .. }
                | Event::BadInput(_)
                | Event::Undelivered { .. }
        );
        let mut actions = Vec::new();
        let now = self.clock.now();
        self.recording.event(now, &event);
        self.host.handle(now, event, &mut actions);
        self.recording.gave(&actions, self.host.deadline());
        self.list();
        self.hold(&mut actions);
        let own = self.lend(actions);
        let notes = self.act(own);
        let notes = if of_network { self.noise.quieted(self.clock.now(), notes) } else { notes };
        self.tell(&notes);
        if let Some(why) = self.recording.ended() {
            self.tell(&[Note::bad_input(why)]);
        }
    }

    /// Notes why nothing is being moved, or what is, where that is another reason than the one noted last.
    pub(crate) fn note_doing(&mut self) {
        let note = self.doing.heard(self.clock.now(), self.host.doing());
        self.tell(note.as_slice());
    }

    /// Lets another loop drive the host from now on. What the host wants done is kept for that loop, but for replies and histories.
    pub(crate) fn driven_elsewhere(&mut self) {
        self.lent = Some(Vec::new());
    }

    /// What the other loop is to carry out, since this was asked last.
    pub(crate) fn take_lent(&mut self) -> Vec<Action> {
        self.lent.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Keeps what another loop is to carry out, if one drives the host; gives the rest.
    fn lend(&mut self, actions: Vec<Action>) -> Vec<Action> {
        let Some(lent) = &mut self.lent else { return actions };
        let (own, others) = actions.into_iter().partition(|action| {
            matches!(
                action,
                Action::Keep(_)
                    | Action::KeepLeft(..)
                    | Action::KeepRests(_)
                    | Action::Reply { .. }
            )
        });
        lent.extend::<Vec<Action>>(others);
        own
    }

    /// Lets others read what VMs are here now: before anything is done or said that follows from it.
    fn list(&mut self) {
        let hash = self.host.inventory_hash();
        if self.listed.replace(hash) != Some(hash) {
            self.net.list(&self.host.inventory());
        }
    }

    /// Stops here if a test wants this event held: its notes are told and on disk, nothing else was done.
    fn hold(&self, actions: &mut Vec<Action>) {
        let Some(hold) = &self.hold else { return };
        let mut notes = Vec::new();
        for action in actions.iter() {
            if let Action::Note(note) = action {
                notes.push(note.clone());
            }
        }
        let of_moves = notes.iter().filter(|note| note.move_id.is_some());
        let steps: Vec<String> = of_moves.map(|note| views::step(note.step).to_string()).collect();
        if steps.is_empty() || !hold.wanted(&steps) {
            return;
        }
        self.tell(&notes);
        actions.retain(|action| !matches!(action, Action::Note(_)));
        let held = self.events.sync().context("keeping events").and_then(|()| hold.stop());
        if let Err(error) = held {
            tracing::error!("not held: {error:#}");
        }
    }

    /// Asks the host what only it can answer.
    pub(crate) fn ask(&mut self, what: Ask, reply: oneshot::Sender<Result<MoveId, String>>) {
        self.asked += 1;
        self.replies.insert(self.asked, reply);
        self.handle(Event::Asked { number: self.asked, what });
    }

    /// Does what the host wanted outside of an event: when it was made.
    pub(crate) fn carry_out(&mut self, actions: Vec<Action>) {
        let notes = self.act(actions);
        self.tell(&notes);
    }

    /// Does what the host wants, in order; gives what it wants told.
    fn act(&mut self, actions: Vec<Action>) -> Vec<Note> {
        let mut notes = Vec::new();
        for action in actions {
            match action {
                Action::Send { to, address, message } => {
                    self.send(To { host: to, at: address }, message)
                }
                Action::Cast { message, known } => self.net.cast(&message, &known),
                Action::Gossip { to, bytes } => self.net.gossip(to, &bytes),
                Action::Fetch { from, address } => self.net.fetch(from, address),
                Action::Persist { number, records } => {
                    tracing::debug!(number, ?records, "to be stored");
                    // If it died, the loop ends for it; until then nothing is said to be stored, so nothing goes on.
                    if self.journal.send(Write { number, records }).is_err() {
                        tracing::error!("the journal's thread is gone: nothing can be written");
                    }
                }
                Action::Hypervisor(move_id, vm, command) => {
                    tracing::debug!(%move_id, %vm, ?command, "ordered");
                    self.hypervisor.order(move_id, vm, command);
                }
                Action::Testify(vm, witness) => self.hypervisor.testify(vm, witness),
                Action::Keep(kept) => self.history.send(Order::Keep(kept)),
                Action::Recall(whose) => self.history.send(Order::Recall(whose)),
                Action::DropHistory(vm) => self.history.send(Order::Unstage(vm)),
                Action::KeepLeft(vm, left) => draining::keep_left(&self.drain, vm, left),
                Action::KeepRests(rests) => self.history.send(Order::KeepRests(rests)),
                Action::Note(note) => notes.push(note),
                Action::Reply { number, answer } => {
                    // Nobody waits any more only if the client went away.
                    let _ = self.replies.remove(&number).map(|reply| reply.send(answer));
                }
            }
        }
        notes
    }

    /// A usage history goes with what is stored of it, which its thread reads.
    fn send(&self, to: To, message: Message) {
        let leaving = self.host.leaving(message.move_id);
        let Some(vm) = leaving.filter(|_| matches!(message.body, Body::History(_))) else {
            return self.net.send(to, message);
        };
        let (reply, stored) = oneshot::channel();
        self.history.send(Order::Gather(Whose::Vm(vm), self.clock.now(), reply));
        self.net.send_history(to, message, vm, stored);
    }

    /// A usage history that is awaited is set aside before the host hears of it.
    fn of_history(&self, message: Message, vm: VmId, bytes: Vec<u8>) -> Event {
        let Message { from, move_id, .. } = message;
        match self.host.awaits_history(move_id, vm) {
            Ok(awaited) => {
                if awaited && from == move_id.host {
                    self.history.send(Order::Stage(vm, self.clock.now(), bytes));
                }
                Event::Message(message)
            }
            Err(why) => Event::BadHistory { from, move_id, why },
        }
    }

    /// Writes notes to the event log and the log, and wakes those who follow.
    pub(crate) fn tell(&self, notes: &[Note]) {
        if notes.is_empty() {
            return;
        }
        let now = self.clock.now();
        let mut told: Vec<Told> =
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
        self.count(notes, &mut told);
        let records: Vec<Vec<u8>> =
            told.iter().filter_map(|event| serde_json::to_vec(event).ok()).collect();
        match self.events.note(&records) {
            Ok(first) => {
                self.newest.send_replace(first + records.len() as u64 - 1);
            }
            Err(error) => tracing::error!(%error, "events could not be kept"),
        }
    }

    /// Counts them, and has the end of a move say what its copy took.
    fn count(&self, notes: &[Note], told: &mut [Told]) {
        self.totals.told(told.iter());
        let done = notes.iter().zip(told).filter(|(_, told)| told.step == Step::Done);
        for (id, told) in done.filter_map(|(note, told)| Some((note.move_id?, told))) {
            let left = self.host.stories().rev().find(|story| story.move_id == id);
            if let Some(story) = left.filter(|_| id.host == self.host.id()) {
                let moved = views::one_move(self, story);
                self.totals.left(&moved);
                told.copy = Some(views::copy(&moved));
            }
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
            Heard::History { message, vm, bytes, place: _place } => {
                self.of_history(message, vm, bytes)
            }
            Heard::BadHistory { from, move_id, why } => Event::BadHistory { from, move_id, why },
            Heard::Gossip { from, bytes } => Event::Gossip { from, bytes },
            Heard::Inventory { host, fetched } => Event::Inventory { host, fetched },
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
        FromHypervisor::Report(move_id, vm, report) => {
            tracing::debug!(%move_id, %vm, ?report, "reported");
            Event::Report(move_id, vm, report)
        }
        FromHypervisor::Sighting(sighting) => Event::Sighting(sighting),
    }
}

fn of_journal(written: Written) -> Event {
    match written.result {
        Ok(generation) => {
            tracing::debug!(number = written.number, generation, "stored");
            Event::Stored { number: written.number, generation }
        }
        Err(why) => Event::StoreFailed { number: written.number, why },
    }
}

async fn until(clock: Clock, deadline: Option<Time>) {
    match deadline.map(|at| clock.instant(at)) {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// No answer comes from a loop that has ended.
pub(crate) fn gone() -> Problem {
    Problem::new(503, "agent-stopping", "the agent is stopping", "try again when it is back")
}
