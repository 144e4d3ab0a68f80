//! The target's side of a move: an incoming side prepared, completed, let run, or destroyed.
//!
//! ```text
//!   Prepare ─▶ mark `.incoming` ─▶ Prepare3 ─▶ Prepared;  Finish3 … ends when the copy is complete ─▶ IncomingCompleted
//!      Resume ─▶ mark `.arrived` ─▶ resume ─▶ seen running ─▶ Resumed;  later its definition is kept, its autostart set
//!      failed, died, DestroyIncoming ─▶ destroyed, its process proven gone ─▶ IncomingFailed | IncomingGone
//! ```
//!
//! Finish3 is called before the copy begins: libvirt waits in it for the end of the copy, which it tells in no other way.
//!
//! **Invariant:** what may have run here is never destroyed.

use std::time::Duration;

use decide::migrate::hypervisor::{
    CopyParameters, Endpoint, HypervisorReport, RunState, Seen, Sighting, VmDefinition, VmShare,
};
use decide::units::MoveId;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::calls::{Flags, State};
use super::definition::{Definition, Listens, Start};
use super::disks::{self, LocalDisk};
use super::files;
use super::fit::Wants;
use super::rpc::{Rpc, RpcError};
use super::vm::{Call, Following, VmTask};
use super::xdr::Value;

/// How long a process that libvirt was asked to end may take to be gone.
const GONE_MAX: Duration = Duration::from_secs(5);
/// Events of migrations that may wait to be read.
const EVENTS_MAX: usize = 256;
/// The pause between two looks whether a guest that was let run does.
const RUN_PAUSE: Duration = Duration::from_millis(1);
/// The pause between two looks whether libvirt has forgotten a domain whose QEMU ended.
const FORGET_PAUSE: Duration = Duration::from_millis(5);
/// Looks in which a VM that has come is told anew: as long as its move is not over, that is passed over.
const TOLD_AGAIN: u32 = 5;

/// A copy from elsewhere that is followed.
#[derive(Debug)]
pub(super) struct Arriving {
    move_id: MoveId,
    /// Where it listens, as far as this driver prepared it.
    endpoint: Option<Endpoint>,
    /// `IncomingCompleted` was said.
    complete: bool,
    /// The call that ends with the copy; absent once it ended, or was lost with its connection.
    pub(super) call: Option<Call>,
}

impl Arriving {
    /// A copy of that move that was prepared by another driver.
    pub(super) fn found(move_id: MoveId, complete: bool) -> Arriving {
        Arriving { move_id, endpoint: None, complete, call: None }
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
        if share.is_some() {
            tracing::warn!(vm = %self.vm, "a share cannot be given to a VM of libvirt's yet");
        }
        let report = match self.room_for(wanted, copy.copy_disks).await {
            Err(why) => {
                // Whoever heard of it while this was asked passed it over.
                (self.never_begun, self.told_again) = (Some(move_id), TOLD_AGAIN);
                HypervisorReport::PrepareFailed(why)
            }
            Ok((start, goes_along)) => {
                match self.bring_up(move_id, &wanted.name, &start, goes_along, copy).await {
                    Ok((endpoint, call)) => {
                        self.never_begun = None;
                        let call = Some(call);
                        let endpoint_too = Some(endpoint.clone());
                        self.following = Following::In(Arriving {
                            endpoint: endpoint_too,
                            call,
                            ..Arriving::found(move_id, false)
                        });
                        HypervisorReport::Prepared(endpoint)
                    }
                    Err(why) => {
                        let left = self.end_incoming().await.err();
                        let left = left.map(|left| format!("; {left}")).unwrap_or_default();
                        HypervisorReport::PrepareFailed(why + &left)
                    }
                }
            }
        };
        self.report(move_id, report).await;
    }

    /// Whether nothing here stands against this VM; changes nothing but the leftovers of a dead incoming side.
    async fn room_for(
        &mut self,
        wanted: &VmDefinition,
        copy_disks: bool,
    ) -> Result<(Start, Vec<LocalDisk>), String> {
        let start = Start::parse(&wanted.start).map_err(|garbled| garbled.to_string())?;
        let definition = Definition::parse(&start.live).map_err(|garbled| garbled.to_string())?;
        if definition.name != wanted.name || definition.memory != wanted.memory {
            return Err("its definition speaks of another VM".to_owned());
        }
        let runs = self.find_process().map_err(|error| format!("/proc cannot be read: {error}"))?;
        match (self.files.is_incoming(), runs) {
            (true, true) => return Err("it is coming here by another move already".to_owned()),
            (true, false) => self.end_incoming().await?,
            (false, _) => {}
        }
        let rpc = self.place.connected_soon().await.ok_or("libvirt cannot be reached here")?;
        let domains = rpc.domains().await.map_err(|error| error.to_string())?;
        if let Some(same) = domains.iter().find(|domain| domain.vm == self.vm) {
            let name = &same.name;
            if same.is_active() {
                return Err(format!(
                    "this VM is here already, as {name}: it runs, or somebody migrates it here"
                ));
            }
            return Err(format!(
                "this VM is defined here already, as {name}: `virsh undefine {name}` if it is shut off and its definition is an old one"
            ));
        }
        if domains.iter().any(|domain| domain.name == wanted.name) {
            return Err(format!("another domain here is named {:?}", wanted.name));
        }
        if runs {
            return Err("a QEMU with its UUID runs here already".to_owned());
        }
        let wants = Wants::parse(&start.live).map_err(|garbled| garbled.to_string())?;
        let shared = self.place.config.shared_storage.clone();
        let goes_along = wants.missing(&start, &rpc, copy_disks, shared).await?;
        start.movable()?;
        Ok((start, goes_along))
    }

    async fn bring_up(
        &mut self,
        move_id: MoveId,
        name: &str,
        start: &Start,
        goes_along: Vec<LocalDisk>,
        copy: CopyParameters,
    ) -> Result<(Endpoint, Call), String> {
        if copy.encrypted {
            self.link_keys()?;
        }
        let text = start.format().map_err(|garbled| garbled.to_string())?;
        self.forget_disks()?;
        let mark = &self.files.incoming;
        files::leave(mark, &text).map_err(|error| format!("{}: {error}", mark.display()))?;
        let (tell, events) = mpsc::channel(EVENTS_MAX);
        let rpc = self.place.connect(Some(tell)).await?;
        let disks: Vec<String> = goes_along.iter().map(|disk| disk.target.clone()).collect();
        if !goes_along.is_empty() {
            rpc.register_migrations().await.map_err(|error| error.to_string())?;
            self.make_volumes(&rpc, move_id, &goes_along).await?;
        }
        let listen = self.place.config.listen;
        let address = if listen.is_ipv6() { format!("[{listen}]") } else { listen.to_string() };
        let mut parameters = vec![
            ("destination_name", Value::Text(name.to_owned())),
            ("destination_xml", Value::Text(start.live.clone())),
            ("migrate_uri", Value::Text(format!("tcp:{address}"))),
            ("listen_address", Value::Text(listen.to_string())),
        ];
        parameters.extend(disks::named(&disks));
        let flags = Flags::new(copy.encrypted, copy.multifd).with_disks(!disks.is_empty());
        let start_max = self.place.config.start_max;
        let (cookie, uri) = rpc
            .prepare(start_max, &parameters, start.cookie.as_bytes(), flags)
            .await
            .map_err(|error| error.to_string())?;
        self.domain = rpc.lookup(self.vm).await.ok();
        if !matches!(self.find_process(), Ok(true)) {
            return Err("libvirt says that it started, but its QEMU is not in /proc".to_owned());
        }
        let uri = uri.unwrap_or_else(|| format!("tcp:{address}"));
        let cookie = String::from_utf8_lossy(&cookie).into_owned();
        let (name, vm) = (name.to_owned(), self.vm);
        let call = if disks.is_empty() {
            Call::begin(async move { rpc.finish(&name, &[], flags).await })
        } else {
            let last = disks::last_cookie(&start.cookie)?;
            Call::begin(disks::finish(rpc, events, (vm, name), last, flags))
        };
        let uri = Listens { uri, disks, cookie }.format();
        let certified = self.place.config.certified;
        Ok((Endpoint { uri, multifd: copy.multifd, certified }, call))
    }

    /// The call that ends with the copy has ended.
    pub(super) async fn on_finished(&mut self, end: Result<(), RpcError>) {
        match end {
            Ok(()) => self.on_complete().await,
            Err(RpcError::Refused { message, .. }) => self.incoming_failed(message).await,
            // What libvirt does meanwhile is seen by looking.
            Err(RpcError::Lost | RpcError::Silent(_) | RpcError::Odd(_)) => {
                self.find_out_arriving().await;
            }
        }
    }

    async fn on_complete(&mut self) {
        if let Following::In(arriving) = &mut self.following
            && !arriving.complete
        {
            arriving.complete = true;
            let move_id = arriving.move_id;
            self.report(move_id, HypervisorReport::IncomingCompleted).await;
        }
    }

    /// Where a copy stands whose call was lost.
    pub(super) async fn find_out_arriving(&mut self) {
        let Following::In(Arriving { move_id, complete: false, call: None, .. }) = self.following
        else {
            return;
        };
        match self.look().await {
            Seen::IncomingComplete => self.on_complete().await,
            Seen::Gone => {
                self.incoming_failed("libvirt was interrupted, and ended it".to_owned()).await;
            }
            Seen::Running => {
                // Somebody else let it run: not ours to mend.
                self.following = Following::Nothing;
                self.report(move_id, HypervisorReport::Looked(Seen::Running)).await;
            }
            Seen::Incoming | Seen::Paused | Seen::Copying | Seen::PostMigrate | Seen::Unknown => {}
        }
    }

    /// The incoming QEMU ended.
    pub(super) async fn ended_arriving(&mut self, how: String) {
        match &self.following {
            // libvirt's own words come with the end of the call.
            Following::In(Arriving { call: Some(_), .. }) => {}
            Following::In(Arriving { complete: true, .. }) => {
                self.following = Following::Nothing;
                self.sight(Sighting::Gone(self.vm, how)).await;
            }
            Following::In(_) => self.incoming_failed(how).await,
            Following::Out(_) | Following::Nothing => {}
        }
    }

    async fn incoming_failed(&mut self, why: String) {
        let Following::In(Arriving { move_id, .. }) = self.following else { return };
        let report = match self.end_incoming().await {
            Ok(()) => HypervisorReport::IncomingFailed(why),
            Err(left) => HypervisorReport::IncomingFailed(format!("{why}; {left}")),
        };
        self.report(move_id, report).await;
    }

    pub(super) async fn resume(&mut self, move_id: MoveId, run_state: RunState) {
        let report = match self.try_resume(run_state).await {
            Ok(()) => {
                self.following = Following::Nothing;
                self.run_state = None;
                self.told_again = TOLD_AGAIN;
                HypervisorReport::Resumed
            }
            Err(why) => {
                let seen = self.look().await;
                // Its mark would have been taken away before it was let run.
                if seen == Seen::Gone && self.files.is_incoming() {
                    return self.destroy_incoming(move_id).await;
                }
                HypervisorReport::ResumeFailed(why, seen)
            }
        };
        self.report(move_id, report).await;
        self.look_at_domain().await;
    }

    async fn try_resume(&mut self, run_state: RunState) -> Result<(), String> {
        // libvirt may not have seen yet that it died; its mark still proves that it never ran.
        if let Some(process) = &mut self.process
            && process.is_ending()
            && process.gone_within(GONE_MAX).await
        {
            self.process = None;
        }
        let seen = self.look().await;
        if !matches!(seen, Seen::IncomingComplete | Seen::Paused | Seen::Running) {
            return Err(format!("what is here is no complete copy that waits: {seen:?}"));
        }
        let (rpc, domain) = self.reach().await.map_err(|error| error.to_string())?;
        let mark = &self.files.incoming;
        self.files.arrive().map_err(|error| format!("{}: {error}", mark.display()))?;
        // What was made for it is its own from here on.
        self.forget_disks()?;
        match (run_state, seen) {
            (RunState::Paused, _) | (RunState::Running, Seen::Running) => {}
            (RunState::Running, _) => {
                rpc.resume(&domain).await.map_err(|error| error.to_string())?;
                self.seen_running(&rpc).await?;
            }
        }
        // Once the guest runs, since it takes time; before the source hears so, and gives its own up.
        if let Err(error) = self.files.make_lasting() {
            let file = self.files.lasting.display();
            tracing::warn!(vm = %self.vm, %error, %file, "what came with it would not outlive this machine's end");
        }
        Ok(())
    }

    /// Waits until the guest is seen running.
    pub(super) async fn seen_running(&mut self, rpc: &Rpc) -> Result<(), String> {
        let domain = self.domain.clone().ok_or("libvirt does not know it any more")?;
        let runs = async {
            loop {
                match rpc.state(&domain).await.map_err(|error| error.to_string())? {
                    State::Running => return Ok(()),
                    State::Off => return Err("its QEMU ended".to_owned()),
                    State::Paused | State::PausedByMigration => {
                        tokio::time::sleep(RUN_PAUSE).await;
                    }
                }
            }
        };
        timeout(self.place.config.answer_max, runs)
            .await
            .unwrap_or_else(|_late| Err("it was not seen to run".to_owned()))
    }

    /// Keeps the definition of a VM that has come, and sets its autostart, as they were where it came from.
    pub(super) async fn keep_what_arrived(&mut self, rpc: &Rpc) {
        let Some(text) = self.files.came_with() else { return };
        let kept = async {
            let start = Start::parse(&text).map_err(|garbled| garbled.to_string())?;
            if let Some(kept) = &start.kept {
                files::can_be_saved(&self.place.config.definitions)?;
                let domain = rpc.define(kept).await.map_err(|error| error.to_string())?;
                if start.autostart {
                    let set = rpc.set_autostart(&domain, true).await;
                    set.map_err(|error| error.to_string())?;
                }
            }
            self.files.kept().map_err(|error| error.to_string())
        };
        let Err(why) = kept.await else {
            self.not_kept = None;
            return;
        };
        let words = format!(
            "its definition is not kept here for the next start: {why}: it is tried again; until then it is in {}",
            self.files.lasting.display()
        );
        // Once: the VM is adopted all the same, so it is none of the problems that keep it from that.
        if self.not_kept.as_ref() != Some(&words) {
            self.sight(Sighting::Unusable(Some(self.vm), words.clone())).await;
            self.not_kept = Some(words);
        }
    }

    /// What came with a VM and is not kept here yet.
    pub(super) fn came_with(&self) -> Option<Start> {
        Start::parse(&self.files.came_with()?).ok()
    }

    pub(super) async fn destroy_incoming(&mut self, move_id: MoveId) {
        let seen = self.look().await;
        let incoming = self.files.is_incoming();
        if self.never_begun == Some(move_id) && !incoming {
            // What is here is none of that move's.
            return self.report(move_id, HypervisorReport::IncomingGone).await;
        }
        let ends = matches!(seen, Seen::Gone)
            || incoming && matches!(seen, Seen::Incoming | Seen::IncomingComplete | Seen::Unknown);
        if !ends {
            self.report(move_id, HypervisorReport::Looked(seen)).await;
            return;
        }
        match self.end_incoming().await {
            Ok(()) => self.report(move_id, HypervisorReport::IncomingGone).await,
            Err(left) => {
                self.say_problem(left).await;
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

    /// Ends the incoming side, proves its process gone, and takes its mark away.
    async fn end_incoming(&mut self) -> Result<(), String> {
        self.following = Following::Nothing;
        let there =
            self.find_process().map_err(|error| format!("/proc cannot be read: {error}"))?;
        if there {
            let (rpc, domain) = self.reach().await.map_err(|error| error.to_string())?;
            let ended = rpc.destroy(&domain).await;
            let gone = match &mut self.process {
                Some(process) => process.gone_within(GONE_MAX).await,
                None => true,
            };
            if !gone {
                let why = ended.err().map_or_else(String::new, |error| format!(": {error}"));
                return Err(format!("its incoming QEMU could not be ended{why}"));
            }
            self.process = None;
        }
        if self.files.is_incoming() {
            self.forgotten_by_libvirt().await;
        }
        self.remove_made().await?;
        let mark = &self.files.incoming;
        files::remove(mark).map_err(|error| format!("{}: {error}", mark.display()))
    }

    /// Waits until libvirt knows its domain no more, which it still does for a moment after QEMU ended by itself: the next incoming side would be
    /// refused for it. That its process is gone is proven without libvirt, so one that is away or slow is not waited for.
    async fn forgotten_by_libvirt(&mut self) {
        let Some(rpc) = self.place.shared() else { return };
        let forgets = async {
            while rpc.lookup(self.vm).await.is_ok() {
                tokio::time::sleep(FORGET_PAUSE).await;
            }
        };
        if timeout(GONE_MAX, forgets).await.is_err() {
            tracing::warn!(vm = %self.vm, "libvirt still knows of an incoming side whose QEMU has ended");
        }
    }
}
