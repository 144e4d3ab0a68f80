//! How a VM is adopted, and what is said of one that cannot be: once, naming the file and what to do.

use decide::migrate::hypervisor::{Needs, RunState, Sighting, VmDefinition};
use decide::units::{Mib, VmId};

use super::definition::{Definition, Stage};
use super::messages::{QomGet, QueryKvm, QueryStatus, QueryUuid};
use super::process::Process;
use super::qmp::{ConnectError, Qmp, QmpError};
use super::tap;
use super::vm::{Following, VmTask};
use crate::hypervisor::Watched;

/// How often an incoming side, or a fenced copy, that no move speaks of is looked at before it is reported.
const FORGOTTEN_AFTER: u32 = 60;

impl VmTask {
    /// Looks at the VM's files, once a second; true if there is nothing left to do for this VM.
    pub(super) async fn look_at_files(&mut self) -> bool {
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
            Following::Nothing => self.unasked = self.unasked.saturating_add(1),
            Following::In(_) | Following::Out(_) => {}
        }
        if self.unasked == FORGOTTEN_AFTER {
            let file = self.paths.incoming.display();
            self.say_problem(format!("{file}: the incoming side of a move that nobody asks for: if no host holds that move, end its QEMU and remove this file")).await;
        }
    }

    async fn adopt_or_say_why(&mut self) {
        match self.adopt().await {
            Ok(None) => {}
            Ok(Some(found)) => {
                self.problem = None;
                self.sight(found).await;
            }
            Err(why) => self.say_problem(why).await,
        }
    }

    /// Adopts the VM if it is not, or if something was wrong with it until now; an error names the file and what to do.
    async fn adopt(&mut self) -> Result<Option<Sighting>, String> {
        let file = self.paths.definition.display().to_string();
        if self.is_fenced() {
            self.unasked = self.unasked.saturating_add(1);
            if self.unasked < FORGOTTEN_AFTER {
                return Ok(None);
            }
            let (pid, mark) =
                (self.process.as_ref().map_or(0, Process::pid), self.paths.fenced.display());
            return Err(format!(
                "{mark}: QEMU's process {pid} was stopped when the VM was released, and no move asks for it: if the VM runs elsewhere, kill it and remove its files"
            ));
        }
        if self.run_state.is_none() {
            let text = std::fs::read_to_string(&self.paths.definition)
                .map_err(|error| format!("{file}: it cannot be read: {error}"))?;
            self.definition =
                Some(Definition::parse(&text).map_err(|garbled| format!("{file}: {garbled}"))?);
        }
        let Some(definition) = self.definition.clone() else { return Ok(None) };
        let socket = self.paths.socket.display().to_string();
        if let Err(error) = self.connect().await {
            return Err(match error {
                ConnectError::Absent if self.paths.socket.exists() => {
                    format!(
                        "{socket}: nobody listens: start VM {}, or remove {file}",
                        definition.name
                    )
                }
                ConnectError::Absent => {
                    format!(
                        "{socket}: the QMP socket beside {file} is absent: start VM {}, or remove it",
                        definition.name
                    )
                }
                ConnectError::Mute(why) => {
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
        if self.run_state.is_some() && !self.is_mended() {
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
        self.renew_share().await;
        self.end_what_is_left().await;
        self.watch(run_state);
        Ok(Some(Sighting::Found(Box::new(vm_definition(self.vm, &definition, needs)), run_state)))
    }

    /// Whether what was said to be wrong is over, so that the VM is to be found anew. Not in mid-copy, when what the
    /// guest does is the copy's doing.
    fn is_mended(&self) -> bool {
        self.problem.is_some() && matches!(self.following, Following::Nothing)
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
        self.figures.released = false;
        if let (Some(definition), Some(process)) = (&self.definition, &self.process)
            && let Some(entry) = self.place.roster().get_mut(&self.vm)
        {
            entry.watched = Some(Watched {
                vm: self.vm,
                name: definition.name.clone(),
                pid: process.pid().unsigned_abs(),
                process_start: process.start_time(),
                tap: definition.link.as_ref().map(|link| link.tap.clone()),
                told: self.figures.told(),
                share: self.share.clone(),
            });
        }
    }

    /// No longer counts it as adopted; whether it was.
    pub(super) fn forget(&mut self) -> bool {
        if let Some(entry) = self.place.roster().get_mut(&self.vm) {
            entry.watched = None;
        }
        self.figures.forget();
        self.run_state.take().is_some()
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
        tags: definition.tags.clone(),
        local_disks: Mib(0),
        witness: None,
    }
}
