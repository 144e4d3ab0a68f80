//! The target's side of a move: an incoming copy prepared, completed, let run, or destroyed.
//!
//! ```text
//!   Prepare ─▶ definition `.incoming` ─▶ tap ─▶ QEMU with -S, listening ─▶ Prepared
//!      copy ─▶ completed, paused ─▶ IncomingCompleted ─ Resume ─▶ definition `.toml` ─▶ cont ─▶ Resumed
//!      failed, died, DestroyIncoming ─▶ process proven gone ─▶ tap, files ─▶ IncomingFailed | IncomingGone
//! ```
//!
//! **Invariant:** `cont` is never sent before the copy is `completed` and the guest `paused`: an early one makes QEMU
//! start the guest by itself when the copy ends.
//! **Invariant:** what may have run here is never destroyed.

use std::time::Duration;

use decide::migrate::hypervisor::{
    CopyParameters, Endpoint, HypervisorReport, RunState, Seen, VmDefinition, VmShare,
};
use decide::units::{HostId, MoveId};
use tokio::time::{Instant, timeout};

use super::adopt::needs;
use super::copy::{self, Side};
use super::definition::{Definition, Stage};
use super::handshake::{Ends, Handshakes};
use super::messages::{MigrateIncoming, MigrationStatus, QueryMigrate, QueryUuid, Status};
use super::process::Process;
use super::tap;
use super::tls::Peer;
use super::vm::{Following, VmTask};

/// The pause between two looks whether a QEMU that was just started has made its socket.
const START_PAUSE: Duration = Duration::from_millis(5);

/// A copy from elsewhere that is followed.
#[derive(Debug)]
pub(super) struct Arriving {
    move_id: MoveId,
    /// Where it listens, as far as this driver prepared it.
    endpoint: Option<Endpoint>,
    /// `IncomingCompleted` was said.
    pub(super) complete: bool,
    /// Where the copy is encrypted and was prepared by this driver.
    _handshakes: Option<Handshakes>,
}

impl Arriving {
    /// A copy of that move, not complete yet.
    pub(super) fn new(move_id: MoveId, endpoint: Option<Endpoint>) -> Arriving {
        Arriving { move_id, endpoint, complete: false, _handshakes: None }
    }

    /// A copy of that move that was found complete.
    pub(super) fn complete(move_id: MoveId) -> Arriving {
        Arriving { move_id, endpoint: None, complete: true, _handshakes: None }
    }
}

impl VmTask {
    pub(super) async fn prepare(
        &mut self,
        move_id: MoveId,
        wanted: &VmDefinition,
        copy: CopyParameters,
        share: Option<VmShare>,
    ) {
        if let Following::In(Arriving { move_id: prepared, endpoint: Some(endpoint), .. }) =
            &self.following
            && *prepared == move_id
        {
            self.report(move_id, HypervisorReport::Prepared(endpoint.clone())).await;
            return;
        }
        let report = match self.room_for(wanted).await {
            Err(why) => HypervisorReport::PrepareFailed(why),
            Ok(definition) => {
                match self.bring_up(&definition, wanted, copy, share, move_id.host).await {
                    Ok((endpoint, handshakes)) => {
                        let arriving = Arriving::new(move_id, Some(endpoint.clone()));
                        let arriving = Arriving { _handshakes: handshakes, ..arriving };
                        self.following = Following::In(arriving);
                        HypervisorReport::Prepared(endpoint)
                    }
                    Err(why) => {
                        let left = self
                            .kill_and_remove()
                            .await
                            .err()
                            .map(|left| format!("; {left}"))
                            .unwrap_or_default();
                        HypervisorReport::PrepareFailed(why + &left)
                    }
                }
            }
        };
        self.report(move_id, report).await;
    }

    /// Whether nothing here stands against this VM; changes nothing but the leftovers of a dead incoming side.
    async fn room_for(&mut self, wanted: &VmDefinition) -> Result<Definition, String> {
        let text = |error: std::io::Error| error.to_string();
        let definition = Definition::parse(&wanted.start)
            .map_err(|garbled| format!("its definition: {garbled}"))?;
        if wanted.vm != self.vm
            || definition.name != wanted.name
            || definition.memory != wanted.memory
        {
            return Err("its definition speaks of another VM".to_owned());
        }
        if self.paths.stage() == Stage::Own {
            return Err(format!("this VM is here already: {}", self.paths.definition.display()));
        }
        if self.process.is_some() || Process::find(&self.paths.socket).map_err(text)?.is_some() {
            return Err(format!(
                "a QEMU with socket {} runs here already",
                self.paths.socket.display()
            ));
        }
        if self.place.name_taken(self.vm, &definition.name) {
            return Err(format!("another VM here is named {:?}", definition.name));
        }
        if self.paths.stage() == Stage::Incoming {
            self.kill_and_remove().await?;
        }
        if let Some(link) = &definition.link {
            if tap::exists(&link.tap).map_err(text)? {
                return Err(format!("a link named {} is here already", link.tap));
            }
            if !tap::exists(&link.bridge).map_err(text)? {
                return Err(format!("there is no bridge {} here", link.bridge));
            }
        }
        Ok(definition)
    }

    async fn bring_up(
        &mut self,
        definition: &Definition,
        wanted: &VmDefinition,
        copy: CopyParameters,
        share: Option<VmShare>,
        source: HostId,
    ) -> Result<(Endpoint, Option<Handshakes>), String> {
        self.paths.write_incoming(&definition.text).map_err(|error| error.to_string())?;
        self.definition = Some(definition.clone());
        if let Some(link) = &definition.link {
            tap::create(link).await.map_err(|error| error.to_string())?;
        }
        let mut command_line = definition.command_line(self.vm, &self.paths);
        command_line.extend(["-S", "-incoming", "defer"].map(str::to_owned));
        let started = Process::start(&command_line, &self.paths.log);
        self.process = Some(
            started
                .map_err(|error| format!("{} could not be started: {error}", command_line[0]))?,
        );
        self.give_share(share).await;
        self.wait_for_socket().await?;
        let vm = self.vm;
        let qmp = self.reach().await.map_err(|unreached| unreached.to_string())?;
        let uuid = qmp.call(QueryUuid {}).await.map_err(|error| error.to_string())?.uuid;
        if uuid.parse() != Ok(vm) {
            return Err(format!("its `start` gives QEMU the UUID {uuid}: pass -uuid {{uuid}}"));
        }
        let here = needs(qmp, definition).await.map_err(|error| error.to_string())?;
        if (&here.machine, &here.accelerator) != (&wanted.needs.machine, &wanted.needs.accelerator)
        {
            let there = &wanted.needs;
            return Err(format!(
                "it needs {} on {}, its `start` makes {} on {} here",
                there.machine, there.accelerator, here.machine, here.accelerator
            ));
        }
        self.listen(copy, source).await
    }

    async fn wait_for_socket(&mut self) -> Result<(), String> {
        let give_up = Instant::now() + self.place.config.start_max;
        while let Err(unreached) = self.reach().await {
            if let Some(process) = &mut self.process
                && let Ok(how) = timeout(START_PAUSE, process.ended()).await
            {
                return Err(self.how_it_ended(&how));
            }
            if Instant::now() >= give_up {
                return Err(format!(
                    "QEMU did not come up within {:?}: {unreached}",
                    self.place.config.start_max
                ));
            }
        }
        Ok(())
    }

    async fn listen(
        &mut self,
        copy: CopyParameters,
        source: HostId,
    ) -> Result<(Endpoint, Option<Handshakes>), String> {
        self.begin_encryption(copy.encrypted, Peer::Is(source)).await?;
        let listen = self.place.config.listen;
        let address = if listen.is_ipv6() { format!("[{listen}]") } else { listen.to_string() };
        let (first, last) = self.place.config.ports.clone().into_inner();
        let uri = if first == last {
            format!("tcp:{address}:{first}")
        } else {
            format!("tcp:{address}:{first},to={last}")
        };
        // From before it listens: the first that comes may be a stranger.
        let ends = copy.encrypted.then_some(Ends::At(first, last));
        let handshakes = ends.and_then(|ends| self.look_after_handshakes(ends));
        let qmp = self.reach().await.map_err(|unreached| unreached.to_string())?;
        let multifd = copy::set_up(qmp, Side::Target, copy, copy.multifd)
            .await
            .map_err(|error| error.to_string())?;
        qmp.call(MigrateIncoming { uri }).await.map_err(|error| error.to_string())?;
        let migration = qmp.call(QueryMigrate {}).await.map_err(|error| error.to_string())?;
        let port = migration.socket_address.iter().find_map(|address| address.port.clone());
        let port = port.ok_or("QEMU does not say at which port it listens")?;
        let uri = format!("tcp:{address}:{port}");
        Ok((Endpoint { uri, multifd, certified: self.place.config.certified }, handshakes))
    }

    /// QEMU said something about the incoming copy, or it is time to look.
    pub(super) async fn on_arriving(&mut self) {
        let Following::In(Arriving { move_id, complete: false, .. }) = self.following else {
            return;
        };
        let Ok(migration) = self.migration().await else { return };
        match migration.status() {
            MigrationStatus::Completed => {
                let Ok(status) = self.status().await else { return };
                if status.executes() {
                    // Somebody else let it run: not ours to mend.
                    self.following = Following::Nothing;
                    self.report(move_id, HypervisorReport::Looked(Seen::Running)).await;
                } else if let Following::In(arriving) = &mut self.following
                    && status != Status::Inmigrate
                {
                    arriving.complete = true;
                    self.report(move_id, HypervisorReport::IncomingCompleted).await;
                }
            }
            MigrationStatus::Failed | MigrationStatus::Cancelled => {
                let why = migration.error_desc.unwrap_or_else(|| "QEMU gives no reason".to_owned());
                self.incoming_failed(move_id, why).await;
            }
            MigrationStatus::None
            | MigrationStatus::Setup
            | MigrationStatus::Active
            | MigrationStatus::PreSwitchover
            | MigrationStatus::Device
            | MigrationStatus::Cancelling
            | MigrationStatus::Other => {}
        }
    }

    /// The incoming QEMU ended before its copy was complete.
    pub(super) async fn ended_arriving(&mut self, arriving: &Arriving, how: String) {
        self.incoming_failed(arriving.move_id, how).await;
    }

    async fn incoming_failed(&mut self, move_id: MoveId, why: String) {
        match self.kill_and_remove().await {
            Ok(()) => self.report(move_id, HypervisorReport::IncomingFailed(why)).await,
            Err(left) => {
                self.say_problem(format!("{}: {left}", self.paths.incoming.display())).await;
                self.report(move_id, HypervisorReport::IncomingFailed(format!("{why}; {left}")))
                    .await;
            }
        }
    }

    pub(super) async fn resume(&mut self, move_id: MoveId, run_state: RunState) {
        let report = match self.try_resume(run_state).await {
            Ok(()) => {
                self.following = Following::Nothing;
                self.watch(run_state);
                HypervisorReport::Resumed
            }
            Err(why) => {
                let seen = self.look().await;
                // Its definition would have been made this host's own before `cont`.
                if seen == Seen::Gone && self.paths.stage() == Stage::Incoming {
                    return self.destroy_incoming(move_id).await;
                }
                HypervisorReport::ResumeFailed(why, seen)
            }
        };
        self.report(move_id, report).await;
        self.end_what_is_left().await;
    }

    async fn try_resume(&mut self, run_state: RunState) -> Result<(), String> {
        let migration = self.migration().await?;
        let status = self.status().await?;
        if migration.status() != MigrationStatus::Completed || status == Status::Inmigrate {
            return Err("the incoming copy is not complete".to_owned());
        }
        if [Status::Postmigrate, Status::FinishMigrate].contains(&status) {
            return Err("this copy was left behind by a move to elsewhere".to_owned());
        }
        // Read while the file has the name that says so.
        self.link()?;
        let own = self.paths.make_own();
        own.map_err(|error| {
            format!("{}: it could not be renamed: {error}", self.paths.incoming.display())
        })?;
        match (run_state, status) {
            (RunState::Running, Status::Paused | Status::Prelaunch) => self.let_run().await,
            (RunState::Running, status) if !status.executes() => {
                Err("the guest stopped by itself".to_owned())
            }
            _ => Ok(()),
        }
    }

    pub(super) async fn destroy_incoming(&mut self, move_id: MoveId) {
        let (seen, stage) = (self.look().await, self.paths.stage());
        let report = match (seen, stage) {
            // A definition of its own: the VM once ran here, and its file stays.
            (Seen::Gone, Stage::Own) => Ok(HypervisorReport::IncomingGone),
            (Seen::Gone, _)
            | (Seen::Incoming, Stage::Incoming | Stage::Absent)
            | (Seen::IncomingComplete | Seen::Paused | Seen::Unknown, Stage::Incoming) => {
                self.kill_and_remove().await.map(|()| HypervisorReport::IncomingGone)
            }
            (seen, _) => Ok(HypervisorReport::Looked(seen)),
        };
        match report {
            Ok(report) => self.report(move_id, report).await,
            Err(left) => {
                self.say_problem(format!("{}: {left}", self.paths.incoming.display())).await;
                self.report(move_id, HypervisorReport::Looked(Seen::Unknown)).await;
            }
        }
    }

    /// Ends the incoming side only if its copy is seen not to be complete.
    pub(super) async fn destroy_incomplete(&mut self, move_id: MoveId) {
        let seen = self.look().await;
        if matches!(seen, Seen::Gone | Seen::Incoming) {
            self.destroy_incoming(move_id).await;
        } else {
            self.report(move_id, HypervisorReport::Looked(seen)).await;
        }
    }

    /// Kills the incoming QEMU, proves it gone, and removes its tap and files.
    async fn kill_and_remove(&mut self) -> Result<(), String> {
        let max = self.place.config.answer_max;
        self.hang_up();
        let mut process = match self.process.take() {
            Some(process) => Some(process),
            None => Process::find(&self.paths.socket)
                .map_err(|error| format!("/proc cannot be read: {error}"))?,
        };
        if let Some(process) = &mut process {
            let killed = process.kill(max).await;
            killed.map_err(|error| {
                format!("QEMU's process {} could not be ended: {error}", process.pid())
            })?;
        }
        self.end_and_remove().await
    }
}
