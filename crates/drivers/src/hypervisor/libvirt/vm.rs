//! One VM's task: its mailbox, its domain, and what is seen of it outside of moves.
//!
//! ```text
//!   no domain ──▶ domain, not adopted ──▶ adopted ──▶ its process ended ──▶ domain, not adopted
//!                 (said once, why not)    (watched)
//! ```
//!
//! Source and target side of a move are in `source` and `incoming`; each follows its copy by the end of one call, and looks
//! by itself where that was lost with its connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use decide::migrate::hypervisor::{
    HypervisorCommand, HypervisorReport, RunState, Seen, Sighting, Witness,
};
use decide::units::{MoveId, VmId};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::Place;
use super::calls::{Change, Domain, Figures, State};
use super::connections::LookedAfter;
use super::definition::Definition;
use super::files::Files;
use super::incoming::Arriving;
use super::rpc::{Rpc, RpcError};
use super::source::{Held, Leaving};
use super::tags::Wanted;
use super::witness::Testimony;
use crate::hypervisor::FromHypervisor;
use crate::hypervisor::process::Process;
use crate::monitor::Told;

/// How often the progress of a copy is asked for.
const PROGRESS_EVERY: Duration = Duration::from_millis(250);

/// What a VM's task hears.
#[derive(Debug)]
pub(super) enum Mail {
    /// A command of a move.
    Order(MoveId, HypervisorCommand),
    /// libvirt says that something changed.
    Changed(Change),
    /// Time to look; libvirt's name of the domain, where there is one.
    Look(Option<Domain>),
    /// The daemon came back, or went.
    Daemon(bool),
    /// Its figures.
    Told(Figures),
    /// Its tags are to be changed.
    Tags(Wanted),
    /// Who its definition is to name as its owner.
    Testify(Witness),
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

/// A call that takes as long as its copy. Given up with this value; libvirt then goes on by itself.
#[derive(Debug)]
pub(super) struct Call(JoinHandle<Result<(), RpcError>>);

impl Call {
    pub(super) fn begin(call: impl Future<Output = Result<(), RpcError>> + Send + 'static) -> Call {
        Call(tokio::spawn(call))
    }

    async fn end(&mut self) -> Result<(), RpcError> {
        (&mut self.0).await.unwrap_or(Err(RpcError::Lost))
    }

    /// Waits for its end.
    pub(super) async fn end_of(mut self) -> Result<(), RpcError> {
        self.end().await
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// One VM.
#[derive(Debug)]
pub(super) struct VmTask {
    pub(super) place: Arc<Place>,
    pub(super) vm: VmId,
    pub(super) files: Files,
    pub(super) domain: Option<Domain>,
    /// As last read, with the text it was read from.
    pub(super) definition: Option<(String, Definition)>,
    pub(super) following: Following,
    /// Connections of a copy from here.
    pub(super) looked_after: Option<LookedAfter>,
    /// How the last copy of a move ended: the answer to whoever asks again.
    pub(super) settled: Option<(MoveId, HypervisorReport)>,
    pub(super) process: Option<Process>,
    progress: Interval,
    mail: mpsc::Receiver<Mail>,
    /// A look waits in it.
    looks: Arc<AtomicBool>,
    /// Looks in which its QEMU, which did not answer, is not asked.
    pub(super) mute: u32,
    /// It did not answer when it was asked last.
    pub(super) doubted: bool,
    /// Present while the VM is adopted.
    pub(super) run_state: Option<RunState>,
    pub(super) problem: Option<String>,
    /// Why what came with it is not kept here, as last said.
    pub(super) not_kept: Option<String>,
    /// Its process ended, which was not told yet.
    pub(super) gone: bool,
    /// How its process ended, as libvirt said.
    pub(super) ended: Option<&'static str>,
    /// Looks at what a move left here since an order was last heard.
    pub(super) unasked: u32,
    /// Taken back after a copy, paused as it was before: libvirt still calls that paused by a migration.
    pub(super) taken_back: bool,
    /// It was left by a move, and had been paused before: libvirt does not call that paused by a migration.
    pub(super) left_paused: bool,
    /// Its definition is to be read again.
    pub(super) stale: bool,
    /// Whether it is started with its host, as last read.
    pub(super) autostart: bool,
    /// Looks in which it is told anew that it was found.
    pub(super) told_again: u32,
    /// By what libvirt holds the copy that was left.
    pub(super) held: Option<Held>,
    /// It does so no more, and the copy is to be stopped.
    pub(super) unheld: bool,
    pub(super) told: Told,
    pub(super) testimony: Testimony,
    /// Looks before libvirt is asked again whether it would move it, which it would not; 0: it would.
    pub(super) ask_again: u32,
    /// The last move to here that was refused before anything of it was started.
    pub(super) never_begun: Option<MoveId>,
}

impl VmTask {
    pub(super) fn new(
        place: Arc<Place>,
        vm: VmId,
        mail: mpsc::Receiver<Mail>,
        looks: Arc<AtomicBool>,
    ) -> VmTask {
        let _in_runtime = place.runtime.enter();
        let mut progress = interval(PROGRESS_EVERY);
        progress.set_missed_tick_behavior(MissedTickBehavior::Delay);
        VmTask {
            files: Files::new(&place.config.dir, &place.config.on_disk, vm),
            place,
            vm,
            domain: None,
            definition: None,
            following: Following::Nothing,
            looked_after: None,
            settled: None,
            process: None,
            progress,
            mail,
            looks,
            mute: 0,
            doubted: false,
            run_state: None,
            problem: None,
            not_kept: None,
            gone: false,
            ended: None,
            unasked: 0,
            taken_back: false,
            left_paused: false,
            stale: false,
            autostart: false,
            told_again: 0,
            held: None,
            unheld: false,
            told: Told::default(),
            testimony: Testimony::default(),
            never_begun: None,
            ask_again: 0,
        }
    }

    /// Runs until there is no domain, no process, no mark and no mail, or the driver is dropped.
    pub(super) async fn run(mut self) {
        loop {
            let hold_ends = end_of_hold(&self.following, self.held.as_ref());
            tokio::select! {
                biased;
                end = end_of_call(&mut self.following) => self.on_call_end(end).await,
                () = end_of(&mut self.process) => self.on_end().await,
                () = hold_ends => self.on_hold_lost().await,
                mail = self.mail.recv() => match mail {
                    Some(mail) => if self.open(mail).await { return },
                    None => return,
                },
                _ = self.progress.tick(), if matches!(self.following, Following::Out(_)) => self.on_progress().await,
            }
        }
    }

    /// Reads a letter; true if there is nothing left to do for this VM.
    async fn open(&mut self, mail: Mail) -> bool {
        match mail {
            Mail::Order(move_id, command) => self.obey(move_id, command).await,
            Mail::Changed(change) => {
                self.ended = change.ended.or(self.ended);
                self.stale |= change.ended.is_none();
                self.domain = Some(change.domain);
                // How it ended comes last.
                if !self.gone || self.ended.is_some() {
                    self.look_at_domain().await;
                }
            }
            Mail::Look(domain) => {
                self.looks.store(false, Ordering::Relaxed);
                self.mute = self.mute.saturating_sub(1);
                self.domain = domain;
                self.look_after_again();
                self.look_at_domain().await;
                return self.domain.is_none() && self.leave();
            }
            Mail::Daemon(true) => self.on_daemon_back().await,
            Mail::Daemon(false) => {}
            Mail::Told(figures) => self.on_figures(&figures),
            Mail::Tags(wanted) => self.on_tags(wanted).await,
            Mail::Testify(witness) => self.on_testify(witness).await,
        }
        false
    }

    /// Whether a move of it is under way here, or something of one is left: then its definition is on its way.
    pub(super) fn is_in_move(&mut self) -> bool {
        !matches!(self.following, Following::Nothing)
            || self.held.is_some()
            || self.unheld
            || self.files.is_incoming()
            || self.is_fenced()
    }

    /// Leaves the roster, unless there is more to do.
    fn leave(&mut self) -> bool {
        let idle = matches!(self.following, Following::Nothing)
            && self.process.is_none()
            && !self.files.any();
        // Orders are put into the mailbox under the same lock.
        let mut roster = self.place.roster();
        let leaves = idle && self.mail.is_empty();
        if leaves {
            roster.remove(&self.vm);
        }
        leaves
    }

    async fn obey(&mut self, move_id: MoveId, command: HypervisorCommand) {
        tracing::debug!(%move_id, vm = %self.vm, ?command, "order");
        self.unasked = 0;
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
                self.follow_again(move_id, seen);
                self.report(move_id, HypervisorReport::Looked(seen)).await;
            }
        }
    }

    /// Takes up following what `Look` found under way, without the call that would tell its end.
    fn follow_again(&mut self, move_id: MoveId, seen: Seen) {
        match (seen, &self.following) {
            (Seen::Copying, Following::Nothing) => {
                self.following = Following::Out(Leaving::found(move_id));
            }
            (Seen::Incoming, Following::Nothing) => {
                self.following = Following::In(Arriving::found(move_id, false));
            }
            (Seen::IncomingComplete, Following::Nothing) => {
                self.following = Following::In(Arriving::found(move_id, true));
            }
            _ => {}
        }
    }

    async fn on_call_end(&mut self, end: Result<(), RpcError>) {
        match &self.following {
            Following::Out(_) => self.on_performed(end).await,
            Following::In(_) => self.on_finished(end).await,
            Following::Nothing => {}
        }
    }

    /// The connection by which libvirt held a complete copy has ended.
    async fn on_hold_lost(&mut self) {
        match &mut self.following {
            Following::Out(leaving) => leaving.no_longer_held(),
            Following::In(_) | Following::Nothing => {
                self.held = None;
                self.unheld = true;
                self.stay_fenced().await;
            }
        }
    }

    /// The daemon was away: whatever it said meanwhile was not heard.
    async fn on_daemon_back(&mut self) {
        self.stale = true;
        self.stay_fenced().await;
        self.switch_over_again().await;
        match &self.following {
            Following::Out(_) => self.find_out_leaving().await,
            Following::In(_) => self.find_out_arriving().await,
            Following::Nothing => {}
        }
    }

    /// Its QEMU ended.
    async fn on_end(&mut self) {
        self.process = None;
        let adopted = self.forget();
        let how = "QEMU ended while libvirt was away".to_owned();
        match &self.following {
            Following::Out(_) => self.ended_leaving(how).await,
            Following::In(_) => self.ended_arriving(how).await,
            Following::Nothing if adopted && self.place.shared().is_some() => {
                self.gone = true;
                // Else libvirt's word for how follows.
                if self.ended.is_some() {
                    self.look_at_domain().await;
                }
            }
            Following::Nothing if adopted => self.sight(Sighting::Gone(self.vm, how)).await,
            Following::Nothing => {}
        }
    }

    /// What is there, as seen from outside.
    pub(super) async fn look(&mut self) -> Seen {
        if self.is_fenced() {
            return Seen::PostMigrate;
        }
        // Without a process there is nothing, whatever the daemon knows.
        match self.find_process() {
            Ok(true) => {}
            Ok(false) => return Seen::Gone,
            Err(_unreadable) => return Seen::Unknown,
        }
        let Ok((rpc, domain)) = self.reach().await else { return Seen::Unknown };
        let Ok(state) = rpc.state(&domain).await else { return Seen::Unknown };
        match (state, self.files.is_incoming()) {
            // It has a process: it is on its way in or out.
            (State::Off, _) => Seen::Unknown,
            (State::PausedByMigration, true) => Seen::Incoming,
            (State::Paused, true) => Seen::IncomingComplete,
            (state, _) => self.look_at_own(&rpc, &domain, state).await,
        }
    }

    /// What a VM of this host's does.
    async fn look_at_own(&mut self, rpc: &Rpc, domain: &Domain, state: State) -> Seen {
        let completed = matches!(&self.settled, Some((_, HypervisorReport::SourceCompleted(_))));
        if completed && (state == State::PausedByMigration || self.is_left_paused(state)) {
            return Seen::PostMigrate;
        }
        match rpc.job(domain, false).await {
            Ok(job) if job.active && job.leaves => return Seen::Copying,
            Ok(_) => {}
            Err(_) => return Seen::Unknown,
        }
        match state {
            // A copy that was taken back is a VM of this host's again.
            State::PausedByMigration if self.taken_back => Seen::Paused,
            State::PausedByMigration => match rpc.job(domain, true).await {
                Ok(job) if job.leaves => Seen::PostMigrate,
                // libvirt was started anew since: whether it was complete cannot be known.
                _ => Seen::Paused,
            },
            State::Paused => Seen::Paused,
            State::Running | State::Off => Seen::Running,
        }
    }

    /// The shared connection, and libvirt's name of the domain.
    pub(super) async fn reach(&mut self) -> Result<(Rpc, Domain), RpcError> {
        let rpc = self.place.connected_soon().await.ok_or(RpcError::Lost)?;
        let domain = match &self.domain {
            Some(domain) => domain.clone(),
            None => rpc.lookup(self.vm).await?,
        };
        self.domain = Some(domain.clone());
        Ok((rpc, domain))
    }

    /// Takes hold of the VM's QEMU; whether there is one.
    pub(super) fn find_process(&mut self) -> std::io::Result<bool> {
        if self.process.is_none() {
            let (theirs, ours) = self.place.folder();
            let name = self.domain.as_ref().map_or("", |domain| &domain.name);
            let likely = std::fs::read_to_string(ours.join(format!("qemu/{name}.pid")));
            let likely = likely.ok().and_then(|pid| pid.trim().parse().ok());
            self.process = Process::of_vm(self.vm, likely, (theirs, ours))?;
        }
        Ok(self.process.is_some())
    }

    pub(super) async fn report(&self, move_id: MoveId, report: HypervisorReport) {
        tracing::debug!(%move_id, vm = %self.vm, ?report, "report");
        self.place.say(FromHypervisor::Report(move_id, self.vm, report)).await;
    }

    pub(super) async fn sight(&self, sighting: Sighting) {
        self.place.say(FromHypervisor::Sighting(sighting)).await;
    }
}

async fn end_of_call(following: &mut Following) -> Result<(), RpcError> {
    let call = match following {
        Following::Out(leaving) => &mut leaving.call,
        Following::In(arriving) => &mut arriving.call,
        Following::Nothing => return std::future::pending().await,
    };
    let Some(running) = call else { return std::future::pending().await };
    let end = running.end().await;
    *call = None;
    end
}

/// Ends when the connection does by which a complete copy is held.
fn end_of_hold(following: &Following, held: Option<&Held>) -> impl Future<Output = ()> + use<> {
    let held = match following {
        Following::Out(leaving) => leaving.held_when_done(),
        Following::In(_) | Following::Nothing => held,
    };
    let closed = held.map(|held| held.rpc.closed());
    async {
        match closed {
            Some(closed) => closed.await,
            None => std::future::pending().await,
        }
    }
}

async fn end_of(process: &mut Option<Process>) {
    match process {
        Some(process) => drop(process.ended().await),
        None => std::future::pending().await,
    }
}
