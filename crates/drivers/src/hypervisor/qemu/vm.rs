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

use decide::migrate::hypervisor::{
    HypervisorCommand, HypervisorReport, Needs, RunState, Seen, Sighting, VmDefinition,
};
use decide::units::{MoveId, VmId};
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::definition::{Definition, Paths, Stage};
use super::incoming::Arriving;
use super::messages::{
    Event, Migration, MigrationStatus, QomGet, QueryKvm, QueryMigrate, QueryStatus, QueryUuid,
    Status,
};
use super::process::Process;
use super::qmp::{ConnectError, Qmp, QmpError};
use super::source::Leaving;
use super::{LOOK_EVERY, Place, tap};
use crate::hypervisor::{FromHypervisor, Watched};

/// How often the progress of a copy is asked for.
const PROGRESS_EVERY: Duration = Duration::from_millis(250);
/// The pause between two looks at what QEMU is about to settle by itself.
pub(super) const SETTLE_PAUSE: Duration = Duration::from_millis(1);
/// How often an incoming side that no move speaks of is looked at before it is reported.
const FORGOTTEN_AFTER: u32 = 60;

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

/// QEMU cannot be asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreached {
    /// There is no process, proven.
    #[error("no QEMU runs for it")]
    Gone,
    /// There is one, or may be.
    #[error("{0}")]
    Mute(String),
}

/// A connection with its events.
#[derive(Debug)]
struct Link {
    qmp: Qmp,
    events: mpsc::Receiver<Event>,
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
    orders: mpsc::Receiver<Order>,
    link: Option<Link>,
    /// Present while the VM is adopted.
    run_state: Option<RunState>,
    problem: Option<String>,
    last_shutdown: Option<String>,
    looks_at_incoming: u32,
}

impl VmTask {
    pub(super) fn new(place: Arc<Place>, vm: VmId, orders: mpsc::Receiver<Order>) -> VmTask {
        let _in_runtime = place.runtime.enter();
        let mut progress = interval(PROGRESS_EVERY);
        progress.set_missed_tick_behavior(MissedTickBehavior::Delay);
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
            looks_at_incoming: 0,
        }
    }

    /// Runs until the VM has no files, no process and no orders, or the driver is dropped.
    pub(super) async fn run(mut self) {
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
                _ = look.tick() => if self.look_at_files().await { return },
            }
        }
    }

    async fn obey(&mut self, Order { move_id, command }: Order) {
        tracing::debug!(%move_id, vm = %self.vm, ?command, "order");
        self.looks_at_incoming = 0;
        match command {
            HypervisorCommand::Prepare(wanted, copy) => self.prepare(move_id, &wanted, copy).await,
            HypervisorCommand::StartCopy(endpoint, copy) => {
                self.start_copy(move_id, endpoint, copy).await
            }
            HypervisorCommand::SwitchOver => self.switch_over(move_id).await,
            HypervisorCommand::CancelCopy => self.cancel_copy(move_id).await,
            HypervisorCommand::Fence => self.fence(move_id).await,
            HypervisorCommand::Discard => self.discard(move_id).await,
            HypervisorCommand::TakeBack(run_state) => self.take_back(move_id, run_state).await,
            HypervisorCommand::Resume(run_state) => self.resume(move_id, run_state).await,
            HypervisorCommand::DestroyIncoming => self.destroy_incoming(move_id).await,
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

    /// Looks at the VM's files, once a second; true if there is nothing left to do for this VM.
    async fn look_at_files(&mut self) -> bool {
        match self.paths.stage() {
            Stage::Own => self.adopt_or_say_why().await,
            Stage::Incoming => self.look_at_incoming().await,
            Stage::Absent if self.run_state.is_some() => {
                let file = self.paths.definition.display();
                self.say_problem(format!(
                    "{file}: it is gone although its VM runs: write it again"
                ))
                .await;
            }
            Stage::Absent if self.paths.socket.exists() => {
                let (socket, file) = (self.paths.socket.display(), self.paths.definition.display());
                self.say_problem(format!(
                    "{socket}: a socket without a definition: write {file}, or remove it"
                ))
                .await;
            }
            Stage::Absent => return self.leave(),
        }
        false
    }

    /// Leaves the roster, unless orders came. A QEMU that was not adopted, and lost its files, is let go.
    fn leave(&mut self) -> bool {
        let idle = matches!(self.following, Following::Nothing);
        // Orders are put into the mailbox under the same lock.
        let mut roster = self.place.roster();
        let leaves = idle && self.orders.is_empty();
        if leaves {
            roster.remove(&self.vm);
        }
        leaves
    }

    async fn look_at_incoming(&mut self) {
        // Connected, its end is noticed. If it cannot be reached, `Look` and `DestroyIncoming` find that out.
        let reached = self.connect().await.is_ok();
        match &self.following {
            Following::In(_) if reached => self.on_arriving().await,
            Following::Nothing => self.looks_at_incoming = self.looks_at_incoming.saturating_add(1),
            Following::In(_) | Following::Out(_) => {}
        }
        if self.looks_at_incoming == FORGOTTEN_AFTER {
            let file = self.paths.incoming.display();
            self.say_problem(format!("{file}: the incoming side of a move that nobody asks for: if no host holds that move, end its QEMU and remove this file")).await;
        }
    }

    async fn adopt_or_say_why(&mut self) {
        match self.adopt().await {
            Ok(None) => self.problem = None,
            Ok(Some(found)) => {
                self.problem = None;
                self.sight(found).await;
            }
            Err(why) => self.say_problem(why).await,
        }
    }

    /// Adopts the VM if it is not; an error names the file and what to do.
    async fn adopt(&mut self) -> Result<Option<Sighting>, String> {
        let file = self.paths.definition.display().to_string();
        if self.run_state.is_none() {
            let text = std::fs::read_to_string(&self.paths.definition)
                .map_err(|error| format!("{file}: it cannot be read: {error}"))?;
            self.definition =
                Some(Definition::parse(&text).map_err(|garbled| format!("{file}: {garbled}"))?);
        }
        let Some(definition) = self.definition.clone() else { return Ok(None) };
        let socket = self.paths.socket.display().to_string();
        if let Err(unreached) = self.reach().await {
            return Err(match unreached {
                Unreached::Gone if self.paths.socket.exists() => {
                    format!(
                        "{socket}: nobody listens: start VM {}, or remove {file}",
                        definition.name
                    )
                }
                Unreached::Gone => {
                    format!(
                        "{socket}: the QMP socket beside {file} is absent: start VM {}, or remove it",
                        definition.name
                    )
                }
                Unreached::Mute(why) => {
                    format!("{socket}: {why}: free it, or restart VM {}", definition.name)
                }
            });
        }
        if let Some(link) = &definition.link
            && !tap::exists(&link.tap).unwrap_or(true)
        {
            let (tap, bridge) = (&link.tap, &link.bridge);
            return Err(format!(
                "{file}: there is no tap {tap}: make it and put it on {bridge}, or mend `tap`"
            ));
        }
        if self.run_state.is_some() {
            return Ok(None);
        }
        if self.place.name_taken(self.vm, &definition.name) {
            return Err(format!(
                "{file}: another VM here is named {:?}: rename one",
                definition.name
            ));
        }
        let (needs, run_state) =
            self.ask_who_it_is(&definition).await.map_err(|why| format!("{socket}: {why}"))?;
        self.watch(run_state);
        Ok(Some(Sighting::Found(vm_definition(self.vm, &definition, needs), run_state)))
    }

    async fn ask_who_it_is(
        &mut self,
        definition: &Definition,
    ) -> Result<(Needs, RunState), String> {
        let (vm, answer) = (self.vm, |error: QmpError| error.to_string());
        let qmp = self.reach().await.map_err(|unreached| unreached.to_string())?;
        let uuid = qmp.call(QueryUuid {}).await.map_err(answer)?.uuid;
        if uuid.parse() != Ok(vm) {
            return Err(format!(
                "its QEMU runs VM {uuid}: rename the files, or pass -uuid {{uuid}}"
            ));
        }
        let needs = needs(qmp, definition).await.map_err(answer)?;
        let status = qmp.call(QueryStatus {}).await.map_err(answer)?.status;
        Ok((needs, if status.executes() { RunState::Running } else { RunState::Paused }))
    }

    /// Counts the VM as adopted.
    pub(super) fn watch(&mut self, run_state: RunState) {
        self.run_state = Some(run_state);
        if let (Some(definition), Some(process)) = (&self.definition, &self.process)
            && let Some(entry) = self.place.roster().get_mut(&self.vm)
        {
            entry.watched = Some(Watched {
                vm: self.vm,
                name: definition.name.clone(),
                pid: process.pid().unsigned_abs(),
                process_start: process.start_time(),
                tap: definition.link.as_ref().map(|link| link.tap.clone()),
            });
        }
    }

    /// No longer counts it as adopted; whether it was.
    pub(super) fn forget(&mut self) -> bool {
        if let Some(entry) = self.place.roster().get_mut(&self.vm) {
            entry.watched = None;
        }
        self.run_state.take().is_some()
    }

    /// The connection, made where there is none; without one, whether there is a process all the same.
    pub(super) async fn reach(&mut self) -> Result<&mut Qmp, Unreached> {
        match self.connect().await {
            Ok(()) => {}
            Err(ConnectError::Mute(why)) => return Err(Unreached::Mute(why)),
            Err(ConnectError::Absent) => return Err(self.prove_gone().await),
        }
        self.link.as_mut().map(|link| &mut link.qmp).ok_or(Unreached::Gone)
    }

    async fn connect(&mut self) -> Result<(), ConnectError> {
        if self.link.is_none() {
            let (qmp, events) =
                Qmp::connect(&self.paths.socket, self.place.config.answer_max).await?;
            self.take_process(qmp.peer()).map_err(|error| ConnectError::Mute(error.to_string()))?;
            if self.process.is_none() {
                return Err(ConnectError::Absent);
            }
            self.link = Some(Link { qmp, events });
        }
        Ok(())
    }

    fn take_process(&mut self, pid: i32) -> std::io::Result<()> {
        if self.process.as_ref().is_none_or(|process| process.pid() != pid) {
            // Another process is another run of the VM: it is adopted anew.
            self.forget();
            self.process = Process::open(pid)?;
        }
        Ok(())
    }

    /// Nobody listens: is there a process all the same?
    async fn prove_gone(&mut self) -> Unreached {
        if self.process.is_none() {
            match Process::find(&self.paths.socket) {
                Ok(found) => self.process = found,
                Err(error) => return Unreached::Mute(format!("/proc cannot be read: {error}")),
            }
        }
        let Some(process) = &mut self.process else { return Unreached::Gone };
        // Its end will be noticed by the loop; here it is enough to know.
        if process.gone_within(SETTLE_PAUSE).await {
            Unreached::Gone
        } else {
            Unreached::Mute(format!("process {} runs but nobody listens", process.pid()))
        }
    }

    /// What the guest's processors do.
    pub(super) async fn status(&mut self) -> Result<Status, String> {
        self.ask(QueryStatus {}).await.map(|answer| answer.status)
    }

    /// The last migration.
    pub(super) async fn migration(&mut self) -> Result<Migration, String> {
        self.ask(QueryMigrate {}).await
    }

    /// One question or command.
    pub(super) async fn ask<C: super::messages::Command>(
        &mut self,
        command: C,
    ) -> Result<C::Answer, String> {
        let qmp = self.reach().await.map_err(|unreached| unreached.to_string())?;
        qmp.call(command).await.map_err(|error| error.to_string())
    }

    /// What is there.
    pub(super) async fn look(&mut self) -> Seen {
        // A connection that breaks on the way is made again once: then it is known whether the process is gone.
        for _ in 0..2 {
            match self.reach().await {
                Err(Unreached::Gone) => return Seen::Gone,
                Err(Unreached::Mute(_)) => return Seen::Unknown,
                Ok(_) => {}
            }
            if let Some(seen) = self.seen().await {
                return seen;
            }
            self.link = None;
        }
        Seen::Unknown
    }

    async fn seen(&mut self) -> Option<Seen> {
        let (status, migration) = self.settle().await.ok()?;
        let here_before = self.paths.stage() != Stage::Incoming;
        Some(match (status, migration.status()) {
            (Status::Inmigrate, _) => Seen::Incoming,
            (Status::Postmigrate, _) => Seen::PostMigrate,
            (_, migration) if here_before && !migration.settled() => Seen::Copying,
            (Status::FinishMigrate, _) => Seen::Copying,
            (status, _) if status.executes() => Seen::Running,
            (_, MigrationStatus::Completed) if !here_before => Seen::IncomingComplete,
            (_, migration) if !here_before && !migration.settled() => Seen::Incoming,
            _ => Seen::Paused,
        })
    }

    /// Run state and migration, read again while QEMU is between the end of a migration and the run state after it.
    pub(super) async fn settle(&mut self) -> Result<(Status, Migration), String> {
        let max = 2 * self.place.config.answer_max;
        let settle = async {
            loop {
                let migration = self.migration().await?;
                let status = self.status().await?;
                if status != Status::FinishMigrate || !migration.status().settled() {
                    return Ok((status, migration));
                }
                tokio::time::sleep(SETTLE_PAUSE).await;
            }
        };
        tokio::time::timeout(max, settle)
            .await
            .unwrap_or_else(|_late| Err("QEMU does not settle".to_owned()))
    }

    /// Events that came before the last answer belong to what was before it: nobody follows a copy yet.
    pub(super) fn drop_old_events(&mut self) {
        if let Some(link) = &mut self.link {
            while let Ok(event) = link.events.try_recv() {
                match event {
                    Event::Lost(_) => {
                        self.link = None;
                        return;
                    }
                    Event::Shutdown(reason) => self.last_shutdown = Some(reason),
                    Event::Migration(_) | Event::Stop | Event::Resume => {}
                }
            }
        }
    }

    /// Gives up the connection; the process, if any, lives on.
    pub(super) fn hang_up(&mut self) {
        self.link = None;
    }

    pub(super) async fn report(&self, move_id: MoveId, report: HypervisorReport) {
        tracing::debug!(%move_id, vm = %self.vm, ?report, "report");
        self.place.say(FromHypervisor::Report(move_id, self.vm, report)).await;
    }

    pub(super) async fn sight(&self, sighting: Sighting) {
        self.place.say(FromHypervisor::Sighting(sighting)).await;
    }

    /// Says what is wrong, once.
    pub(super) async fn say_problem(&mut self, problem: String) {
        if self.problem.as_ref() != Some(&problem) {
            self.sight(Sighting::Unusable(Some(self.vm), problem.clone())).await;
            self.problem = Some(problem);
        }
    }
}

/// What a target must offer: the machine type and accelerator that this QEMU has, fully named.
pub(super) async fn needs(qmp: &mut Qmp, definition: &Definition) -> Result<Needs, QmpError> {
    let machine = match qmp.call(QomGet { path: "/machine", property: "type" }).await {
        Ok(machine) => machine.strip_suffix("-machine").unwrap_or(&machine).to_owned(),
        Err(QmpError::Refused { .. } | QmpError::Odd { .. }) => {
            definition.machine_by_command_line()
        }
        Err(error) => return Err(error),
    };
    let accelerator = if qmp.call(QueryKvm {}).await?.enabled { "kvm" } else { "tcg" };
    let bridge = definition.link.as_ref().map(|link| link.bridge.clone()).unwrap_or_default();
    Ok(Needs { driver: "qemu".to_owned(), machine, accelerator: accelerator.to_owned(), bridge })
}

fn vm_definition(vm: VmId, definition: &Definition, needs: Needs) -> VmDefinition {
    VmDefinition {
        vm,
        name: definition.name.clone(),
        memory: definition.memory,
        vcpus: definition.vcpus,
        needs,
        start: definition.text.clone(),
    }
}

async fn next_event(link: &mut Option<Link>) -> Event {
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
