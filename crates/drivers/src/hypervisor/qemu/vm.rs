//! One VM's task: its mailbox, its QEMU, and what is seen of it outside of moves.
//!
//! ```text
//!   no files ──▶ files, not adopted ──▶ adopted ──▶ process ended ──▶ files, not adopted
//!                (said once, why not)    (watched)
//! ```
//!
//! Source and target side of a move are in `source` and `incoming`; both follow their copy by QEMU's events, and look
//! by themselves from time to time in case one was lost.

use std::sync::Arc;
use std::time::Duration;

use decide::migrate::hypervisor::{HypervisorCommand, HypervisorReport, RunState, Seen, Sighting};
use decide::units::{MoveId, VmId};
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::definition::{Definition, Paths};
use super::figures::{self, Figures, heard};
use super::incoming::Arriving;
use super::messages::{Event, Status};
use super::process::Process;
use super::reach::Connection;
use super::source::Leaving;
use super::{LOOK_EVERY, Place};
use crate::hypervisor::{FromHypervisor, GivenShare};

/// How often the progress of a copy is asked for.
const PROGRESS_EVERY: Duration = Duration::from_millis(250);
/// The pause between two looks at what QEMU is about to settle by itself.
pub(super) const SETTLE_PAUSE: Duration = Duration::from_millis(1);

/// A command for one VM.
#[derive(Debug)]
pub(super) struct Order {
    /// The move that it belongs to.
    pub(super) move_id: MoveId,
    /// What to do.
    pub(super) command: HypervisorCommand,
}

/// The copy that is followed.
#[derive(Debug)]
pub(super) enum Following {
    /// None.
    Nothing,
    /// One to elsewhere.
    Out(Leaving),
    /// One from elsewhere.
    In(Arriving),
}

/// One VM.
#[derive(Debug)]
pub(super) struct VmTask {
    pub(super) place: Arc<Place>,
    pub(super) vm: VmId,
    pub(super) paths: Paths,
    pub(super) definition: Option<Definition>,
    pub(super) following: Following,
    /// How the last copy of a move ended: the answer to whoever asks again.
    pub(super) settled: Option<(MoveId, HypervisorReport)>,
    pub(super) process: Option<Process>,
    pub(super) progress: Interval,
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) link: Option<Connection>,
    /// Present while the VM is adopted.
    pub(super) run_state: Option<RunState>,
    pub(super) problem: Option<String>,
    pub(super) last_shutdown: Option<String>,
    /// Looks at what a move left here since an order was last heard.
    pub(super) unasked: u32,
    /// Taken back after a copy, paused as it was before: QEMU still calls that `postmigrate`.
    pub(super) taken_back: bool,
    pub(super) figures: Figures,
    /// The share that its process was given here.
    pub(super) share: Option<GivenShare>,
}

impl VmTask {
    pub(super) fn new(place: Arc<Place>, vm: VmId, orders: mpsc::Receiver<Order>) -> VmTask {
        let _in_runtime = place.runtime.enter();
        let mut progress = interval(PROGRESS_EVERY);
        progress.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let figures = Figures::new(vm, place.config.figures_every);
        VmTask {
            paths: Paths::new(&place.config.dir, vm),
            place,
            vm,
            definition: None,
            following: Following::Nothing,
            settled: None,
            process: None,
            progress,
            orders,
            link: None,
            run_state: None,
            problem: None,
            last_shutdown: None,
            unasked: 0,
            taken_back: false,
            figures,
            share: None,
        }
    }

    /// Runs until the VM has no files, no process and no orders, or the driver is dropped.
    pub(super) async fn run(mut self) {
        let mut beat = figures::beat(self.vm, self.place.config.figures_every);
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                event = next_event(&mut self.link) => self.on_event(event).await,
                how = end_of(&mut self.process) => self.on_end(&how).await,
                order = self.orders.recv() => match order {
                    Some(order) => self.obey(order).await,
                    None => return,
                },
                _ = self.progress.tick(), if matches!(self.following, Following::Out(_)) => self.on_progress().await,
                answer = heard(&mut self.figures) => self.on_answer(answer).await,
                _ = look.tick() => if self.look_at_files().await { return },
                _ = beat.tick() => self.on_beat().await,
            }
        }
    }

    async fn obey(&mut self, Order { move_id, command }: Order) {
        tracing::debug!(%move_id, vm = %self.vm, ?command, "order");
        self.unasked = 0;
        self.figures.give_way();
        match command {
            HypervisorCommand::Prepare(wanted, copy, share) => {
                self.prepare(move_id, &wanted, copy, share.map(|share| *share)).await
            }
            HypervisorCommand::StartCopy(endpoint, copy) => {
                self.start_copy(move_id, endpoint, copy).await
            }
            HypervisorCommand::AllowPause(pause) => self.allow_pause(move_id, pause).await,
            HypervisorCommand::SwitchOver => self.switch_over(move_id).await,
            HypervisorCommand::CancelCopy => self.cancel_copy(move_id).await,
            HypervisorCommand::Fence => self.fence(move_id).await,
            HypervisorCommand::Discard => self.discard(move_id).await,
            HypervisorCommand::TakeBack(run_state) => self.take_back(move_id, run_state).await,
            HypervisorCommand::Resume(run_state) => self.resume(move_id, run_state).await,
            HypervisorCommand::DestroyIncoming => self.destroy_incoming(move_id).await,
            HypervisorCommand::DestroyIncomplete => self.destroy_incomplete(move_id).await,
            HypervisorCommand::Look => {
                let seen = self.look().await;
                self.report(move_id, HypervisorReport::Looked(seen)).await;
                self.follow_again(move_id, seen).await;
            }
        }
    }

    /// Takes up following what `Look` found under way.
    async fn follow_again(&mut self, move_id: MoveId, seen: Seen) {
        match (seen, &self.following) {
            (Seen::Copying, Following::Nothing) => {
                self.following = Following::Out(Leaving::new(move_id));
                self.on_progress().await;
            }
            (Seen::Incoming, Following::Nothing) => {
                self.following = Following::In(Arriving::new(move_id, None))
            }
            // Its end is news.
            (Seen::IncomingComplete, Following::Nothing) => {
                self.following = Following::In(Arriving::complete(move_id))
            }
            _ => {}
        }
    }

    async fn on_event(&mut self, event: Event) {
        match event {
            Event::Lost(why) => {
                tracing::debug!(vm = %self.vm, why, "connection to QEMU lost");
                self.link = None;
            }
            Event::Shutdown(reason) => self.last_shutdown = Some(reason),
            Event::Migration(status) => match self.following {
                Following::Out(_) => self.on_leaving(status).await,
                Following::In(_) => self.on_arriving().await,
                Following::Nothing => {}
            },
            Event::Stop | Event::Resume => match self.following {
                // The copy itself stops the guest too, and then says so at once: ask only if it does not.
                Following::Out(_) => self.progress.reset_after(PROGRESS_EVERY / 10),
                Following::In(_) => {}
                Following::Nothing => self.see_run_state().await,
            },
        }
    }

    /// Compares whether the guest executes with what was last said, and says so if an operator changed it.
    pub(super) async fn see_run_state(&mut self) {
        let Ok(status) = self.status().await else { return };
        let run_state = if status.executes() { RunState::Running } else { RunState::Paused };
        if status != Status::FinishMigrate
            && self.run_state.is_some_and(|before| before != run_state)
        {
            self.run_state = Some(run_state);
            self.sight(Sighting::RunStateChanged(self.vm, run_state)).await;
        }
    }

    async fn on_end(&mut self, how: &str) {
        let how = self.how_it_ended(how);
        self.process = None;
        self.link = None;
        self.take_share().await;
        let adopted = self.forget();
        match std::mem::replace(&mut self.following, Following::Nothing) {
            Following::Out(leaving) => self.ended_leaving(leaving, how).await,
            Following::In(arriving) if !arriving.complete => {
                self.ended_arriving(&arriving, how).await
            }
            Following::Nothing if !adopted => {}
            Following::In(_) | Following::Nothing => self.sight(Sighting::Gone(self.vm, how)).await,
        }
    }

    /// The end of a process in words: how, after which shutdown, and what QEMU said last.
    pub(super) fn how_it_ended(&mut self, how: &str) -> String {
        let mut text = format!("QEMU {how}");
        if let Some(reason) = self.last_shutdown.take() {
            text += &format!(" after a shutdown ({reason})");
        }
        if let Some(words) = self.paths.last_words() {
            text += &format!("; it said: {words}");
        }
        text
    }

    pub(super) async fn report(&self, move_id: MoveId, report: HypervisorReport) {
        tracing::debug!(%move_id, vm = %self.vm, ?report, "report");
        self.place.say(FromHypervisor::Report(move_id, self.vm, report)).await;
    }

    pub(super) async fn sight(&self, sighting: Sighting) {
        self.place.say(FromHypervisor::Sighting(sighting)).await;
    }
}

async fn next_event(link: &mut Option<Connection>) -> Event {
    match link {
        Some(link) => {
            link.events.recv().await.unwrap_or_else(|| Event::Lost("the reader ended".to_owned()))
        }
        None => std::future::pending().await,
    }
}

async fn end_of(process: &mut Option<Process>) -> String {
    match process {
        Some(process) => process.ended().await,
        None => std::future::pending().await,
    }
}
