//! How a domain is adopted, and what is said of one that cannot be: once, naming it and what to do.

use std::sync::Arc;

use decide::migrate::hypervisor::{Needs, RunState, Sighting, VmDefinition};
use decide::units::{Mib, VmId};

use super::calls::{Domain, Flags, State};
use super::definition::{Definition, Garbled, Start};
use super::disks::{self, LocalDisk};
use super::files;
use super::fit::Wants;
use super::rpc::{Rpc, RpcError};
use super::vm::{Following, VmTask};
use super::witness;
use crate::hypervisor::Watched;

/// How often an incoming side, or a fenced copy, that no move speaks of is looked at before it is reported.
const FORGOTTEN_AFTER: u32 = 30;
/// Looks, of two seconds each, before a QEMU that did not answer is asked again.
const MUTE_LOOKS: u32 = 15;
/// Looks before one that libvirt would not move is asked about again.
const REFUSED_LOOKS: u32 = 5;
/// Why one is not moved for now.
pub(super) const ANOTHER_JOB: &str =
    "libvirt has another job for it (a migration, a save, a backup): wait for it, or cancel it";

impl VmTask {
    /// Looks at the domain: when libvirt says that it changed, and every two seconds.
    pub(super) async fn look_at_domain(&mut self) {
        let Some(rpc) = self.place.shared() else { return };
        self.stay_fenced().await;
        let state = match &self.domain {
            Some(domain) => match rpc.state(domain).await {
                Ok(state) => Some(state),
                Err(error) if error.no_domain() => None,
                Err(_) => return,
            },
            None => None,
        };
        self.note(state);
        match &self.following {
            Following::In(_) => return self.find_out_arriving().await,
            Following::Out(_) => return,
            Following::Nothing => {}
        }
        // Whatever pauses it from now on is none of ours.
        self.taken_back &= state != Some(State::Running);
        match state {
            None | Some(State::Off) => self.look_at_idle(&rpc).await,
            Some(_) if self.files.is_incoming() => self.look_at_forgotten("an incoming side").await,
            Some(_) if self.is_fenced() => self.look_at_forgotten("a copy that was left").await,
            Some(state) if self.is_left_paused(state) => {
                self.look_at_forgotten("a copy that was left").await
            }
            // A migration that is not ours; or one whose move has not asked yet since we started.
            Some(State::PausedByMigration) if !self.taken_back => {
                self.look_at_forgotten("paused by a migration").await
            }
            Some(state) => self.look_at_active(&rpc, state).await,
        }
    }

    fn note(&mut self, state: Option<State>) {
        let known = self.domain.as_ref().zip(state);
        let known = known.map(|(domain, state)| (domain.name.clone(), state != State::Off));
        if let Some(entry) = self.place.roster().get_mut(&self.vm) {
            entry.known = known;
        }
    }

    /// No guest is there; what an earlier one left is cleared away.
    async fn look_at_idle(&mut self, rpc: &Rpc) {
        if !matches!(self.find_process(), Ok(false)) {
            return;
        }
        self.no_copy();
        // One that died just after it had come was defined nowhere else any more.
        self.keep_what_arrived(rpc).await;
        if self.forget() || self.gone {
            self.gone = false;
            let how = self.ended.take().unwrap_or("it ended, and libvirt has not said how");
            self.sight(Sighting::Gone(self.vm, how.to_owned())).await;
        }
        if let Err(error) = files::remove(&self.files.fenced) {
            self.say_problem(format!("{}: {error}", self.files.fenced.display())).await;
        }
        // Its autostart stays off: it may be another host's by now, and would be started here as well.
    }

    async fn look_at_forgotten(&mut self, what: &str) {
        if self.held.is_some() {
            return;
        }
        self.unasked = self.unasked.saturating_add(1);
        if self.unasked == FORGOTTEN_AFTER {
            let name = self.domain.as_ref().map_or("", |domain| &domain.name).to_owned();
            let dir = self.place.config.dir.display();
            self.say_problem(format!("domain {name}: {what}, and no move asks for it: look first whether it runs elsewhere. Only if it does, `virsh destroy {name}`, and remove its files in {dir}; if not, this may be the only copy: `evenkeel move resolve`")).await;
        }
    }

    async fn look_at_active(&mut self, rpc: &Rpc, state: State) {
        let Some(domain) = self.domain.clone() else { return };
        let run = if state == State::Running { RunState::Running } else { RunState::Paused };
        self.keep_what_arrived(rpc).await;
        // Of this there is no event.
        if self.run_state.is_some()
            && let Ok(autostart) = rpc.autostart(&domain).await
        {
            self.stale |= autostart != self.autostart;
        }
        if self.ask_again > 0 {
            self.ask_again -= 1;
            self.stale |= self.ask_again == 0;
        }
        self.gone = false;
        self.told_again = self.told_again.saturating_sub(1);
        match self.run_state {
            Some(before) if !self.stale && self.problem.is_none() && self.told_again == 0 => {
                if before != run {
                    self.run_state = Some(run);
                    self.sight(Sighting::RunStateChanged(self.vm, run)).await;
                }
            }
            _ if self.mute > 0 => {}
            _ => match self.adopt(&domain, run).await {
                Ok(found) => {
                    self.problem = None;
                    self.stale = false;
                    if let Some(found) = found {
                        self.sight(found).await;
                    }
                }
                // The daemon went away meanwhile: it is looked at again.
                Err(None) => {}
                Err(Some(why)) => self.say_problem(format!("domain {}: {why}", domain.name)).await,
            },
        }
        self.write_witness().await;
    }

    /// Adopts the domain if it is not, or says what has changed in it. An error says why not and what to do; none if libvirt was
    /// lost meanwhile.
    async fn adopt(
        &mut self,
        domain: &Domain,
        run: RunState,
    ) -> Result<Option<Sighting>, Option<String>> {
        let place = Arc::clone(&self.place);
        let (rpc, _turn) = place.question(self.doubted).await.map_err(|_gone| None)?;
        let adopted = self.adopt_by(&rpc, domain, run).await;
        self.doubted = matches!(adopted, Err(Unread::Rpc(RpcError::Silent(_))));
        // One that ended meanwhile, or left, refuses all questions: it is looked at again.
        if matches!(adopted, Err(Unread::Rpc(RpcError::Refused { .. })))
            && !rpc.state(domain).await.is_ok_and(|state| state != State::Off)
        {
            return Err(None);
        }
        adopted.map_err(|error| match error {
            Unread::Rpc(RpcError::Refused { message, .. }) => Some(message),
            Unread::Rpc(RpcError::Silent(_)) => {
                // What libvirt knows of it before is still told to the others.
                self.mute = MUTE_LOOKS;
                tracing::warn!(vm = %self.vm, "libvirt waits for its QEMU, which does not answer");
                None
            }
            Unread::Rpc(RpcError::Lost) | Unread::Leaves => None,
            Unread::Rpc(error @ RpcError::Odd(_)) => Some(error.to_string()),
            Unread::Why(why) => Some(why),
        })
    }

    async fn adopt_by(
        &mut self,
        rpc: &Rpc,
        domain: &Domain,
        run: RunState,
    ) -> Result<Option<Sighting>, Unread> {
        let job = match rpc.job(domain, false).await {
            // It runs, and the migration that brought it here is not quite over.
            Err(error) if error.unsupported() => return Err(Unread::Leaves),
            other => other?,
        };
        if job.active && job.leaves {
            return Err(Unread::Leaves);
        }
        if !job.active {
            self.no_copy();
        }
        let live = rpc.live(domain).await?;
        let definition = Definition::parse(&live).map_err(Unread::why)?;
        if !self
            .find_process()
            .map_err(|error| Unread::Why(format!("/proc cannot be read: {error}")))?
        {
            return Err(Unread::Why("libvirt says that it runs, but its QEMU is not in /proc: run the agent where libvirt runs".to_owned()));
        }
        let kept = rpc.kept(domain).await?;
        let says = kept.as_deref().map(witness::of_text);
        let judged = self.testimony.read(definition.witness.clone(), says);
        let kept = self.or_came_with(kept);
        self.put_autostart_back().await;
        self.autostart = rpc.autostart(domain).await?;
        let autostart = self.autostart || self.came_with().is_some_and(|came| came.autostart);
        // What cannot be moved is watched all the same: the first step of a move says again why not.
        let wants = Wants::parse(&live).map_err(Unread::why)?;
        let processor = wants.processor_here(rpc).await?;
        let found = wants.found_here(self.place.config.shared_storage.clone()).await;
        let silent = found.is_none();
        let (disks, alone) = found.unwrap_or_default();
        // Another job (a snapshot, a backup) would have it wait for half a minute: it is asked when that is over.
        let begun = if job.active {
            Err(ANOTHER_JOB.to_owned())
        } else if silent {
            Err("the storage of its disks does not answer where it runs".to_owned())
        } else {
            self.first_step(rpc, domain, alone).await?
        };
        let (live, cookie, local, refused) = match begun {
            Ok((live, cookie, local)) => (live, cookie, local, None),
            Err(why) => (witness::without(live), String::new(), Vec::new(), Some(why)),
        };
        // Of what stands in the way there is no event when it is gone.
        self.ask_again = match (&refused, job.active) {
            (None, _) => 0,
            (Some(_), true) => 1,
            (Some(_), false) => REFUSED_LOOKS,
        };
        let local_disks = disks::allocated(&local);
        let qemu = Some(rpc.hypervisor().await?);
        let start = Start { live, cookie, kept, autostart, qemu, disks, local, processor, refused };
        let text = start.format().map_err(Unread::why)?;
        let same = self.run_state.is_some()
            && !judged
            && self.problem.is_none()
            && self.told_again == 0
            && self.definition.as_ref().is_some_and(|(before, _)| *before == text);
        let before = self.run_state;
        self.definition = Some((text.clone(), definition.clone()));
        self.watch(run);
        if same {
            let changed = before != Some(run);
            return Ok(changed.then_some(Sighting::RunStateChanged(self.vm, run)));
        }
        let mut found = vm_definition(self.vm, &definition, text, local_disks);
        found.witness = self.testimony.tell();
        Ok(Some(Sighting::Found(Box::new(found), run)))
    }

    /// The definition for its next start; if that could not be kept here, the one that it came with, which goes on with it.
    pub(super) async fn kept(
        &self,
        rpc: &Rpc,
        domain: &Domain,
    ) -> Result<Option<String>, RpcError> {
        Ok(self.or_came_with(rpc.kept(domain).await?))
    }

    fn or_came_with(&self, kept: Option<String>) -> Option<String> {
        kept.or_else(|| self.came_with()?.kept).map(witness::without)
    }

    /// What libvirt's first step of a move says, of a move that takes these disks along if it can: the definition, the cookie, and the
    /// disks with their sizes; or why it would not move the VM at all.
    async fn first_step(
        &self,
        rpc: &Rpc,
        domain: &Domain,
        alone: Vec<LocalDisk>,
    ) -> Result<Result<(String, String, Vec<LocalDisk>), String>, RpcError> {
        let flags = Flags::new(false, false);
        let mut begun = None;
        if !alone.is_empty() {
            let targets: Vec<String> = alone.iter().map(|disk| disk.target.clone()).collect();
            match rpc.begin(domain, &disks::named(&targets), flags.with_disks(true)).await {
                Err(RpcError::Refused { message, .. }) => {
                    tracing::debug!(vm = %self.vm, message, "libvirt would not copy its disks");
                }
                answer => begun = Some(answer?),
            }
        }
        let begun = match begun {
            Some(begun) => Ok(begun),
            None => rpc.begin(domain, &[], flags).await,
        };
        match begun {
            Ok((cookie, live)) => {
                let cookie = String::from_utf8_lossy(&cookie).into_owned();
                let local = disks::with_sizes(alone, &cookie);
                Ok(Ok((witness::without(live), cookie, local)))
            }
            Err(RpcError::Refused { message, .. }) => {
                tracing::debug!(vm = %self.vm, message, "libvirt would not move it");
                Ok(Err(message))
            }
            Err(error) => Err(error),
        }
    }

    /// Counts the VM as adopted.
    pub(super) fn watch(&mut self, run_state: RunState) {
        self.run_state = Some(run_state);
        let (Some((_, definition)), Some(process)) = (&self.definition, &self.process) else {
            return;
        };
        if let Some(entry) = self.place.roster().get_mut(&self.vm) {
            entry.asked = self.domain.clone();
            entry.watched = Some(Watched {
                vm: self.vm,
                name: definition.name.clone(),
                pid: process.pid().unsigned_abs(),
                process_start: process.start_time(),
                tap: definition.links.first().map(|link| link.tap.clone()),
                told: self.told.clone(),
                share: None,
            });
        }
    }

    /// No longer counts it as adopted; whether it was.
    pub(super) fn forget(&mut self) -> bool {
        if let Some(entry) = self.place.roster().get_mut(&self.vm) {
            (entry.watched, entry.asked) = (None, None);
        }
        (self.told, self.testimony) = Default::default();
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

/// Why a domain could not be read.
enum Unread {
    /// libvirt's word, or none.
    Rpc(RpcError),
    /// libvirt is just moving it, away or here, and answers no question about it before that is over.
    Leaves,
    /// In words, with what to do.
    Why(String),
}

impl Unread {
    fn why(garbled: Garbled) -> Unread {
        Unread::Why(garbled.into())
    }
}

impl From<RpcError> for Unread {
    fn from(error: RpcError) -> Unread {
        Unread::Rpc(error)
    }
}

fn vm_definition(
    vm: VmId,
    definition: &Definition,
    start: String,
    local_disks: Mib,
) -> VmDefinition {
    let bridge = definition.links.first().map(|link| link.bridge.clone()).unwrap_or_default();
    VmDefinition {
        vm,
        name: definition.name.clone(),
        memory: definition.memory,
        vcpus: definition.vcpus,
        needs: Needs {
            driver: "libvirt".to_owned(),
            machine: definition.machine.clone(),
            accelerator: definition.accelerator.clone(),
            bridge,
        },
        start,
        tags: definition.tags.clone(),
        local_disks,
        witness: None,
    }
}
