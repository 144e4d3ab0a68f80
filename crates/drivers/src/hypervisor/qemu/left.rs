//! What becomes of the copy that a move leaves behind at the source, and how a copy that is settled is let run or ended.
//!
//! ```text
//!   SourceCompleted ─▶ Fence: tap off, `.fenced` written, SIGSTOP ─▶ Discard: SIGKILL
//!                                                                 └▶ TakeBack: SIGCONT, tap on, cont
//! ```
//!
//! QEMU would obey a `cont` by hand after the copy is complete, and the guest would run twice. A process that is stopped
//! by a signal obeys nobody; what was said to it meanwhile it would hear when it goes on, so it goes on only to be taken
//! back, and is never asked to quit.
//!
//! **Invariant:** a copy that was released is stopped, its whole process, before that is said to be fenced.
//! **Invariant:** `cont` is sent only to a copy that is settled.
//! **Invariant:** what runs is not discarded.

use decide::migrate::hypervisor::{HypervisorReport, RunState, Seen};
use decide::units::MoveId;

use super::definition::{Definition, Link, Stage};
use super::messages::{AnnounceSelf, Cont, Quit, Status};
use super::private;
use super::process::Process;
use super::tap;
use super::vm::{Following, SETTLE_PAUSE, VmTask};

impl VmTask {
    pub(super) async fn fence(&mut self, move_id: MoveId) {
        let outcome = match self.link() {
            Ok(Some(link)) if tap::exists(&link.tap).unwrap_or(true) => {
                tap::detach(&link).await.map_err(|error| error.to_string())
            }
            Ok(None) if self.definition.is_none() && self.look().await != Seen::Gone => {
                Err("it is gone, so its tap is not known: write it again".to_owned())
            }
            Ok(_) => Ok(()),
            Err(why) => Err(why),
        };
        let outcome = match outcome {
            Ok(()) => self.stop_for_good().await,
            Err(why) => Err(why),
        };
        match outcome {
            Ok(()) => self.report(move_id, HypervisorReport::Fenced).await,
            // Not fenced is not said to be: the order comes again.
            Err(why) => {
                self.say_problem(format!("{}: {why}", self.paths.definition.display())).await
            }
        }
    }

    /// Stops QEMU's process, and leaves word that it was this driver. Nothing to do where there is none.
    async fn stop_for_good(&mut self) -> Result<(), String> {
        let max = self.place.config.answer_max;
        self.find_process().map_err(|error| format!("/proc cannot be read: {error}"))?;
        let Some(process) = &self.process else { return Ok(()) };
        let mark = format!("{} {}\n", process.pid(), process.start_time());
        private::write(&self.paths.fenced, mark.as_bytes())
            .map_err(|error| format!("{}: {error}", self.paths.fenced.display()))?;
        let stopped = process.stop(max).await;
        stopped.map_err(|error| format!("QEMU's process {} is not stopped: {error}", process.pid()))
    }

    /// Whether its QEMU is stopped because this driver, or one before it, fenced it.
    pub(super) fn is_fenced(&mut self) -> bool {
        let Ok(mark) = std::fs::read_to_string(&self.paths.fenced) else { return false };
        let found = self.find_process();
        found.is_ok()
            && self.process.as_ref().is_some_and(|process| {
                let named = format!("{} {}", process.pid(), process.start_time());
                process.is_stopped() && mark.trim() == named
            })
    }

    /// Lets a QEMU that is stopped go on.
    fn thaw(&mut self) -> Result<(), String> {
        let text = |error: std::io::Error| error.to_string();
        match std::fs::remove_file(&self.paths.fenced) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(text(error)),
            _ => {}
        }
        self.find_process().map_err(text)?;
        match &self.process {
            Some(process) if process.is_stopped() => process.go_on().map_err(text),
            _ => Ok(()),
        }
    }

    pub(super) async fn discard(&mut self, move_id: MoveId) {
        let completed = |settled: &(MoveId, HypervisorReport)| {
            settled.0 == move_id && matches!(settled.1, HypervisorReport::SourceCompleted(_))
        };
        let seen = self.look().await;
        // One that does not answer was stopped for good, and nobody let it run since.
        let stopped = seen == Seen::Unknown && self.settled.as_ref().is_some_and(completed);
        if !stopped && ![Seen::PostMigrate, Seen::Gone].contains(&seen) {
            self.report(move_id, HypervisorReport::Looked(seen)).await;
            return;
        }
        match self.end_and_remove().await {
            Ok(()) => self.report(move_id, HypervisorReport::Discarded).await,
            Err(why) => {
                self.say_problem(format!("{}: {why}", self.paths.definition.display())).await
            }
        }
    }

    pub(super) async fn take_back(&mut self, move_id: MoveId, run_state: RunState) {
        // From here on it may run: no longer a copy that is stopped for good.
        self.settled = None;
        let report = match self.try_take_back(run_state).await {
            Ok(()) => {
                self.watch(run_state);
                HypervisorReport::Resumed
            }
            Err(why) => HypervisorReport::ResumeFailed(why, self.look().await),
        };
        self.report(move_id, report).await;
        self.end_what_is_left().await;
    }

    async fn try_take_back(&mut self, run_state: RunState) -> Result<(), String> {
        if self.paths.stage() == Stage::Own {
            self.thaw()?;
        }
        let (status, migration) = self.settle().await?;
        if self.paths.stage() != Stage::Own
            || status == Status::Inmigrate
            || !migration.status().settled()
        {
            return Err("its copy is not settled, or it is not this host's".to_owned());
        }
        if let Some(link) = self.link()? {
            let there = tap::exists(&link.tap).map_err(|error| error.to_string())?;
            let attached = if there { tap::attach(&link).await } else { tap::create(&link).await };
            attached.map_err(|error| error.to_string())?;
        }
        match run_state {
            RunState::Running if !status.executes() => self.let_run().await,
            RunState::Running => Ok(()),
            RunState::Paused => {
                self.taken_back = true;
                Ok(())
            }
        }
    }

    /// Lets the guest run, sees it run, and announces its address.
    pub(super) async fn let_run(&mut self) -> Result<(), String> {
        self.ask(Cont {}).await?;
        let max = self.place.config.answer_max;
        let executes = async {
            while !self.status().await?.executes() {
                tokio::time::sleep(SETTLE_PAUSE).await;
            }
            Ok(())
        };
        tokio::time::timeout(max, executes)
            .await
            .unwrap_or_else(|_late| Err("it was not seen to run".to_owned()))?;
        if let Err(why) = self.ask(AnnounceSelf::DEFAULT).await {
            tracing::warn!(vm = %self.vm, why, "its address was not announced");
        }
        Ok(())
    }

    /// The VM's tap and bridge, from its definition or its file.
    pub(super) fn link(&mut self) -> Result<Option<Link>, String> {
        if self.definition.is_none() {
            let file = match self.paths.stage() {
                Stage::Own => &self.paths.definition,
                Stage::Incoming => &self.paths.incoming,
                Stage::Absent => return Ok(None),
            };
            let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
            self.definition =
                Some(Definition::parse(&text).map_err(|garbled| garbled.to_string())?);
        }
        Ok(self.definition.as_ref().and_then(|definition| definition.link.clone()))
    }

    /// Ends QEMU, proves it gone, and removes its tap and files.
    pub(super) async fn end_and_remove(&mut self) -> Result<(), String> {
        let link = self.link();
        let max = self.place.config.answer_max;
        let process = match self.process.take() {
            Some(process) => Some(process),
            None => Process::find(&self.paths.socket)
                .map_err(|error| format!("/proc cannot be read: {error}"))?,
        };
        if let Some(mut process) = process {
            // Asked to quit it closes what it has open; whatever it answers, its end is seen below. One that is stopped is
            // not asked: it would have to go on to hear it.
            let asked = !process.is_stopped() && self.ask(Quit {}).await.is_ok();
            if !(asked && process.gone_within(max).await)
                && let Err(error) = process.kill(max).await
            {
                let pid = process.pid();
                self.process = Some(process);
                return Err(format!("QEMU's process {pid} could not be ended: {error}"));
            }
        }
        self.process = None;
        self.take_share().await;
        self.hang_up();
        self.forget();
        self.following = Following::Nothing;
        if let Some(link) = link?
            && tap::exists(&link.tap).unwrap_or(true)
        {
            tap::delete(&link).await.map_err(|error| error.to_string())?;
        }
        self.paths.remove().map_err(|error| format!("its files could not be removed: {error}"))?;
        self.definition = None;
        Ok(())
    }
}
