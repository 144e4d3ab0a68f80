//! What becomes of the copy that a move leaves behind at the source, and how it is taken back or ended.
//!
//! ```text
//!   SourceCompleted ─▶ Fence: taps off, held by libvirt's job, else SIGSTOP ─▶ Discard: Confirm3 or SIGKILL, undefined
//!                                                                          └▶ TakeBack: Confirm3 cancelled, taps on
//! ```
//!
//! While this driver holds the connection of the copy, libvirt itself lets nobody resume it, or change its domain. That ends with the
//! connection, after a restart of either; then QEMU's process is stopped by a signal, and obeys nobody. It is not stopped before: libvirt, at the end of
//! the connection, has something to say to it, and would wait with all that it does until it hears (seen with 11.3).
//!
//! libvirt ends it as a domain that has moved, so that it leaves alone what the target uses: owners and labels of disks. Where its
//! job has ended with a connection, it can only be destroyed, and libvirt gives these back as after any end.
//!
//! **Invariant:** a copy that was released can be let run by nobody but this driver before it is said to be fenced.
//! **Invariant:** what runs is not discarded.

use std::time::Duration;

use decide::migrate::hypervisor::{HypervisorReport, RunState, Seen};
use decide::units::MoveId;
use tokio::time::{Instant, sleep};

use super::calls::{Domain, State};
use super::definition::Definition;
use super::files;
use super::rpc::{Rpc, RpcError};
use super::source::Held;
use super::vm::{Call, Following, VmTask};
use crate::hypervisor::tap::{self, Link};

/// The pause between two looks whether libvirt has told a stopped QEMU to end.
const TOLD_PAUSE: Duration = Duration::from_millis(2);
/// libvirt kills a process by itself that does not end for so long.
const TOLD_MAX: Duration = Duration::from_secs(15);

impl VmTask {
    pub(super) async fn fence(&mut self, move_id: MoveId) {
        let outcome = match self.take_off_bridges().await {
            Ok(()) if self.is_held() => Ok(()),
            Ok(()) => self.stop_what_waits().await,
            Err(why) => Err(why),
        };
        match outcome {
            Ok(()) => self.report(move_id, HypervisorReport::Fenced).await,
            // Not fenced is not said to be: the order comes again.
            Err(why) => self.say_problem(format!("it cannot be fenced: {why}")).await,
        }
    }

    /// Whether libvirt's own job holds it.
    fn is_held(&self) -> bool {
        self.held.as_ref().is_some_and(|held| held.rpc.is_open())
    }

    /// Whether it is as a copy left it whose guest had been paused before. Nobody could let it run as long as it was held; from then on
    /// it is stopped at once.
    pub(super) fn is_left_paused(&self, state: State) -> bool {
        state == State::Paused && self.left_paused && (self.held.is_some() || self.unheld)
    }

    /// A copy that libvirt held, and holds no more since that connection or libvirt itself ended, is stopped now; while libvirt is
    /// away it is tried again at each look.
    pub(super) async fn stay_fenced(&mut self) {
        if !self.unheld || self.place.shared().is_none() {
            return;
        }
        let stopped = match self.find_process() {
            Ok(true) => self.stop_what_waits().await,
            Ok(false) => Ok(()),
            Err(error) => Err(format!("/proc cannot be read: {error}")),
        };
        match stopped {
            Ok(()) => self.unheld = false,
            Err(why) => self.say_problem(format!("it cannot be fenced any more: {why}")).await,
        }
    }

    async fn take_off_bridges(&mut self) -> Result<(), String> {
        if !self.find_process().map_err(|error| format!("/proc cannot be read: {error}"))? {
            return Ok(());
        }
        for link in self.links().await? {
            if tap::exists(&link.tap).unwrap_or(true) {
                tap::detach(&link).await.map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }

    /// The VM's taps and bridges, from its definition.
    async fn links(&mut self) -> Result<Vec<Link>, String> {
        if let Some((_, definition)) = &self.definition {
            return Ok(definition.links.clone());
        }
        let (rpc, domain) = self.reach().await.map_err(|error| error.to_string())?;
        let live = rpc.live(&domain).await.map_err(|error| error.to_string())?;
        Ok(Definition::parse(&live).map_err(|garbled| garbled.to_string())?.links)
    }

    /// Stops a copy that nothing has held for a while, if it still is as the copy left it. Where somebody has let it run since, what
    /// the target has is older than the disk.
    async fn stop_what_waits(&mut self) -> Result<(), String> {
        if self.process.is_none() || self.is_fenced() {
            return Ok(());
        }
        let (rpc, domain) = self.reach().await.map_err(|error| error.to_string())?;
        self.job_is_over(&rpc, &domain).await?;
        match rpc.state(&domain).await.map_err(|error| error.to_string())? {
            State::PausedByMigration => self.stop_for_good().await,
            State::Paused if self.is_left_paused(State::Paused) => self.stop_for_good().await,
            State::Off => Ok(()),
            other @ (State::Running | State::Paused) => Err(format!(
                "it was complete, and somebody has touched it since ({other:?}): only a person can say which copy counts"
            )),
        }
    }

    /// Waits until libvirt has ended its job for a copy whose connection has ended. It has something to say to QEMU in that, and
    /// would wait for one that was stopped.
    async fn job_is_over(&self, rpc: &Rpc, domain: &Domain) -> Result<(), String> {
        let give_up = Instant::now() + self.place.config.answer_max;
        while rpc.job(domain, false).await.map_err(|error| error.to_string())?.active {
            if Instant::now() >= give_up {
                return Err("libvirt does not end its job for it".to_owned());
            }
            sleep(TOLD_PAUSE).await;
        }
        Ok(())
    }

    /// Stops QEMU's process, and leaves word that it was this driver. Nothing to do where there is none.
    async fn stop_for_good(&mut self) -> Result<(), String> {
        let max = self.place.config.answer_max;
        let Some(process) = &self.process else { return Ok(()) };
        let (pid, mark) = (process.pid(), &self.files.fenced);
        files::leave(mark, &format!("{pid} {}\n", process.start_time()))
            .map_err(|error| format!("{}: {error}", mark.display()))?;
        let stopped = process.stop(max).await;
        stopped.map_err(|error| format!("QEMU's process {pid} is not stopped: {error}"))
    }

    /// Whether its QEMU is stopped because this driver, or one before it, fenced it.
    pub(super) fn is_fenced(&mut self) -> bool {
        let Ok(mark) = std::fs::read_to_string(&self.files.fenced) else { return false };
        let found = self.find_process();
        found.is_ok()
            && self.process.as_ref().is_some_and(|process| {
                let named = format!("{} {}", process.pid(), process.start_time());
                process.is_stopped() && mark.trim() == named
            })
    }

    pub(super) async fn discard(&mut self, move_id: MoveId) {
        let seen = self.look().await;
        if ![Seen::PostMigrate, Seen::Gone].contains(&seen) {
            self.report(move_id, HypervisorReport::Looked(seen)).await;
            return;
        }
        match self.end_and_undefine(move_id).await {
            Ok(()) => self.report(move_id, HypervisorReport::Discarded).await,
            Err(why) => {
                self.say_problem(format!("what was left of it cannot be ended: {why}")).await
            }
        }
    }

    async fn end_and_undefine(&mut self, move_id: MoveId) -> Result<(), String> {
        self.following = Following::Nothing;
        if self.find_process().map_err(|error| format!("/proc cannot be read: {error}"))? {
            self.end_left().await?;
        }
        (self.held, self.unheld, self.left_paused) = (None, false, false);
        self.process = None;
        self.forget();
        let undefined = match self.reach().await {
            Ok((rpc, domain)) => rpc.undefine(&domain).await,
            Err(error) => Err(error),
        };
        match undefined {
            Err(error) if !error.no_domain() => {
                return Err(format!("its definition cannot be removed: {error}"));
            }
            _ => {}
        }
        self.definition = None;
        self.remove_copied(move_id).await?;
        self.no_copy();
        for mark in [&self.files.fenced, &self.files.autostart] {
            files::remove(mark).map_err(|error| format!("{}: {error}", mark.display()))?;
        }
        let came = &self.files.lasting;
        self.files.kept().map_err(|error| format!("{}: {error}", came.display()))
    }

    /// Has libvirt end a QEMU. libvirt asks it to end; one that is stopped would hear that only if it went on, so it is killed as
    /// soon as libvirt has begun with it.
    async fn end_left(&mut self) -> Result<(), String> {
        let call = match &self.held {
            Some(Held { rpc, domain, flags }) => {
                let (rpc, domain, flags) = (rpc.clone(), domain.clone(), *flags);
                Call::begin(async move {
                    ended(rpc.confirm(&domain, flags, false).await, || rpc.destroy(&domain)).await
                })
            }
            None => {
                let domain = self.reach().await.map_err(|error| error.to_string())?.1;
                let rpc = self.place.connect(None).await?;
                Call::begin(async move { rpc.destroy(&domain).await })
            }
        };
        let Some(process) = &mut self.process else { return Ok(()) };
        let give_up = Instant::now() + TOLD_MAX;
        while process.is_stopped() && !process.has_been_told_to_end() && Instant::now() < give_up {
            sleep(TOLD_PAUSE).await;
        }
        if process.is_stopped() {
            if !process.has_been_told_to_end() {
                return Err("libvirt does not end it".to_owned());
            }
            let max = self.place.config.answer_max;
            let killed = process.kill(max).await;
            killed.map_err(|error| format!("its QEMU could not be ended: {error}"))?;
        }
        if !process.gone_within(TOLD_MAX).await {
            return Err("libvirt did not end it".to_owned());
        }
        // libvirt has seen its end before the definition is removed.
        call.end_of().await.map_err(|error| error.to_string())
    }

    pub(super) async fn take_back(&mut self, move_id: MoveId, run_state: RunState) {
        // From here on it may run: no longer a copy that is stopped for good.
        (self.settled, self.unheld, self.left_paused) = (None, false, false);
        let report = match self.try_take_back(run_state).await {
            Ok(()) => {
                self.keep_disks(move_id);
                HypervisorReport::Resumed
            }
            Err(why) => HypervisorReport::ResumeFailed(why, self.look().await),
        };
        self.report(move_id, report).await;
        self.stale = true;
        self.look_at_domain().await;
    }

    async fn try_take_back(&mut self, run_state: RunState) -> Result<(), String> {
        let copying = matches!(&self.following, Following::Out(leaving) if !leaving.is_done());
        if copying || self.files.is_incoming() || matches!(self.following, Following::In(_)) {
            return Err("its copy is not settled, or it is not this host's".to_owned());
        }
        if !self.find_process().map_err(|error| format!("/proc cannot be read: {error}"))? {
            return Err("no QEMU runs for it".to_owned());
        }
        let links = self.links().await?;
        self.thaw()?;
        for link in links {
            tap::attach(&link).await.map_err(|error| error.to_string())?;
        }
        let (rpc, domain) = self.reach().await.map_err(|error| error.to_string())?;
        if let Some(Held { rpc, domain, flags }) = self.held.take()
            && let Err(error) = rpc.confirm(&domain, flags, true).await
        {
            tracing::info!(vm = %self.vm, %error, "libvirt's job for it had ended before");
        }
        let state = rpc.state(&domain).await.map_err(|error| error.to_string())?;
        self.taken_back = true;
        match (run_state, state) {
            (RunState::Running, State::Running) | (RunState::Paused, _) => Ok(()),
            (RunState::Running, _) => {
                rpc.resume(&domain).await.map_err(|error| error.to_string())?;
                self.seen_running(&rpc).await
            }
        }
    }

    /// Lets a QEMU that is stopped go on.
    fn thaw(&mut self) -> Result<(), String> {
        files::remove(&self.files.fenced).map_err(|error| error.to_string())?;
        match &self.process {
            Some(process) if process.is_stopped() => {
                process.go_on().map_err(|error| error.to_string())
            }
            _ => Ok(()),
        }
    }
}

/// The end by which a domain has moved; where libvirt has no such job any more, its plain end.
async fn ended<F: Future<Output = Result<(), RpcError>>>(
    confirmed: Result<(), RpcError>,
    destroy: impl FnOnce() -> F,
) -> Result<(), RpcError> {
    match confirmed {
        Err(RpcError::Refused { .. }) => destroy().await,
        other => other,
    }
}
