//! How a VM's QEMU is reached, and what is seen of it.
//!
//! **Invariant:** `Gone` is said only when it is proven: no process listens on the VM's socket.

use decide::migrate::hypervisor::Seen;
use tokio::sync::mpsc;

use super::definition::Stage;
use super::messages::{
    Command, Event, Migration, MigrationStatus, QueryMigrate, QueryStatus, Status, Yank,
};
use super::process::Process;
use super::qmp::{ConnectError, Qmp};
use super::vm::{SETTLE_PAUSE, VmTask};

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
pub(super) struct Connection {
    pub(super) qmp: Qmp,
    pub(super) events: mpsc::Receiver<Event>,
}

impl VmTask {
    /// The connection, made where there is none; without one, whether there is a process all the same.
    pub(super) async fn reach(&mut self) -> Result<&mut Qmp, Unreached> {
        match self.connect().await {
            Ok(()) => {}
            Err(ConnectError::Mute(why)) => return Err(Unreached::Mute(why)),
            Err(ConnectError::Absent) => return Err(self.prove_gone().await),
        }
        self.link.as_mut().map(|link| &mut link.qmp).ok_or(Unreached::Gone)
    }

    pub(super) async fn connect(&mut self) -> Result<(), ConnectError> {
        if self.link.is_none() {
            let (qmp, events) =
                Qmp::connect(&self.paths.socket, self.place.config.answer_max).await?;
            self.take_process(qmp.peer()).map_err(|error| ConnectError::Mute(error.to_string()))?;
            if self.process.is_none() {
                return Err(ConnectError::Absent);
            }
            self.link = Some(Connection { qmp, events });
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

    /// Looks for its process where none is known.
    pub(super) fn find_process(&mut self) -> std::io::Result<()> {
        if self.process.is_none() {
            self.process = Process::find(&self.paths.socket)?;
        }
        Ok(())
    }

    /// Nobody listens: is there a process all the same?
    async fn prove_gone(&mut self) -> Unreached {
        if let Err(error) = self.find_process() {
            return Unreached::Mute(format!("/proc cannot be read: {error}"));
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
    pub(super) async fn ask<C: Command>(&mut self, command: C) -> Result<C::Answer, String> {
        let qmp = self.reach().await.map_err(|unreached| unreached.to_string())?;
        qmp.call(command).await.map_err(|error| error.to_string())
    }

    /// Closes the connections of a migration, also while QEMU hangs with them.
    pub(super) async fn yank(&mut self) -> Result<(), String> {
        let qmp = self.reach().await.map_err(|unreached| unreached.to_string())?;
        let yanked = qmp.call_out_of_band(Yank::MIGRATION).await;
        yanked.map(|_| ()).map_err(|error| error.to_string())
    }

    /// What is there.
    pub(super) async fn look(&mut self) -> Seen {
        // Fenced: its copy was complete, and it has executed nothing since.
        if self.is_fenced() {
            return Seen::PostMigrate;
        }
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
            (Status::Postmigrate, _) if self.taken_back => Seen::Paused,
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
}
