//! The source's side of a move: copy, as far as its completion.
//!
//! ```text
//!   StartCopy ─▶ autostart off ─▶ Begin3 ─▶ Perform3 … done, guest paused ─▶ PreSwitchover ─ SwitchOver ─▶ SourceCompleted
//!                                             │ failed, cancelled: libvirt lets the guest run on           │
//!                                             └▶ CopyFailed ◀── Confirm3, cancelled ◀─────────── CancelCopy ┘
//! ```
//!
//! libvirt does not stop before the last round as QEMU can: `PreSwitchover` is said when the copy is complete, and a cancel
//! then brings the guest back, since nothing was promised. From there on the connection is held: as long as it is, libvirt
//! lets nobody resume the guest or change its domain.
//!
//! **Invariant:** nothing here lets the guest run but libvirt itself, when a copy failed or was cancelled before `SwitchOver`.

use std::net::SocketAddr;
use std::time::Duration;

use decide::migrate::hypervisor::{
    CopyFigures, CopyParameters, CopyProgress, Endpoint, HypervisorReport, Seen,
};
use decide::units::{Bytes, MoveId};
use tokio::time::Instant;

use super::adopt::ANOTHER_JOB;
use super::calls::{Domain, Figures, Flags, Job, State};
use super::connections::To;
use super::definition::{Listens, Start, same_but_balloon};
use super::disks::{self, LocalDisk};
use super::files;
use super::fit::Wants;
use super::rpc::{Rpc, RpcError};
use super::vm::{Call, Following, VmTask};
use super::witness;
use super::xdr::Value;

/// A copy to elsewhere that is followed.
#[derive(Debug)]
pub(super) struct Leaving {
    move_id: MoveId,
    /// The call that ends with the copy; absent once it ended, or was lost with its connection.
    pub(super) call: Option<Call>,
    /// The connection that it was begun on.
    held: Option<Held>,
    /// Its guest was paused before: libvirt then does not say that the copy pauses it.
    was_paused: bool,
    /// The copy is complete, and the guest paused.
    done: bool,
    /// `SwitchOver` was heard, and libvirt could not be asked.
    switching: bool,
    cancelled: Option<String>,
    /// It is cancelled, and libvirt has not heard so.
    unheard: bool,
    figures: CopyFigures,
    /// When something was sent last.
    sent_at: Instant,
}

/// The connection by which libvirt holds a complete copy at the source.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) rpc: Rpc,
    pub(super) domain: Domain,
    pub(super) flags: Flags,
}

/// A copy that has just begun.
struct Begun {
    held: Held,
    call: Call,
    was_paused: bool,
}

impl Leaving {
    fn begun(move_id: MoveId, Begun { held, call, was_paused }: Begun) -> Leaving {
        Leaving { call: Some(call), held: Some(held), was_paused, ..Leaving::found(move_id) }
    }

    /// A copy of that move that was begun by another driver, nothing known of it yet.
    pub(super) fn found(move_id: MoveId) -> Leaving {
        let figures = CopyFigures::default();
        let (call, held, cancelled) = (None, None, None);
        let (was_paused, done, switching, unheard) = (false, false, false, false);
        let sent_at = Instant::now();
        Leaving {
            move_id,
            call,
            held,
            was_paused,
            done,
            switching,
            cancelled,
            unheard,
            figures,
            sent_at,
        }
    }

    /// By what libvirt holds it, once its copy is complete.
    pub(super) fn held_when_done(&self) -> Option<&Held> {
        self.held.as_ref().filter(|_| self.done)
    }

    /// libvirt holds it no more.
    pub(super) fn no_longer_held(&mut self) {
        self.held = None;
    }

    /// Whether its copy is complete.
    pub(super) fn is_done(&self) -> bool {
        self.done
    }
}

impl VmTask {
    pub(super) async fn start_copy(
        &mut self,
        move_id: MoveId,
        endpoint: Endpoint,
        copy: CopyParameters,
    ) {
        if self.answered_before(move_id).await {
            return;
        }
        match &self.following {
            Following::Out(leaving) if leaving.move_id == move_id => {
                if leaving.done {
                    self.report(move_id, HypervisorReport::PreSwitchover).await;
                }
                return;
            }
            Following::Nothing => {}
            Following::Out(_) | Following::In(_) => {
                let why = "another move of this VM is under way".to_owned();
                self.report(move_id, HypervisorReport::CopyFailed(why, Seen::Copying)).await;
                return;
            }
        }
        match self.begin_copy(move_id, &endpoint, copy).await {
            Ok(begun) => {
                (self.settled, self.taken_back, self.left_paused) = (None, false, false);
                self.ask_no_figures();
                self.following = Following::Out(Leaving::begun(move_id, begun));
            }
            Err(why) => {
                self.put_autostart_back().await;
                self.keep_disks(move_id);
                let report = HypervisorReport::CopyFailed(why, self.look().await);
                // A cancel that comes late must not find, and cancel, what somebody else has libvirt do. What another move has settled counts
                // on.
                if !matches!(self.settled, Some((_, HypervisorReport::SourceCompleted(_)))) {
                    self.settled = Some((move_id, report.clone()));
                }
                self.report(move_id, report).await;
            }
        }
    }

    async fn begin_copy(
        &mut self,
        move_id: MoveId,
        endpoint: &Endpoint,
        copy: CopyParameters,
    ) -> Result<Begun, String> {
        let text = |error: RpcError| error.to_string();
        if self.files.is_incoming() {
            return Err(
                "it is an incoming side here: only a VM that lives here can be copied".into()
            );
        }
        let listens = Listens::parse(&endpoint.uri)
            .map_err(|error| format!("the target's word is not understood: {error}"))?;
        let (shared, domain) = self.reach().await.map_err(text)?;
        if shared.job(&domain, false).await.map_err(text)?.active {
            return Err(ANOTHER_JOB.to_owned());
        }
        let left = shared.state(&domain).await.map_err(text)? == State::PausedByMigration;
        if left && !self.taken_back {
            return Err(
                "a migration that is none of ours left it paused: look first where it runs".into(),
            );
        }
        if copy.encrypted {
            self.link_keys()?;
        }
        self.take_autostart_off(&shared, &domain).await?;
        let goes_along = self.goes_along(&shared, &domain, &listens.disks, copy).await?;
        let named = disks::named(&listens.disks);
        let memory = socket(&listens.uri).ok_or("the target's word names no address and port")?;
        let port = disks::port(&listens.cookie).filter(|_| !goes_along.is_empty());
        let to = To { memory, disks: port.map(|port| SocketAddr::new(memory.ip(), port)) };
        self.mark_copied(move_id, &goes_along)?;
        let was_paused = shared.state(&domain).await.map_err(text)? == State::Paused;
        let rpc = self.place.connect(None).await?;
        let flags = Flags::new(copy.encrypted, endpoint.multifd)
            .slowing(copy.auto_converge)
            .with_disks(!named.is_empty());
        // Says why not, where libvirt would not move it.
        let (_, live) = rpc.begin(&domain, &named, flags).await.map_err(text)?;
        let kept = self.kept(&rpc, &domain).await.map_err(text)?;
        self.is_as_told(&witness::without(live), kept.as_deref())?;
        rpc.set_downtime(&domain, copy.downtime_max).await.map_err(text)?;
        // libvirt counts in MiB/s.
        let bandwidth = i128::from((copy.bandwidth.0 / 8 / (1 << 20)).max(1));
        let mut parameters = vec![
            ("migrate_uri", Value::Text(listens.uri.clone())),
            ("bandwidth", Value::Number(bandwidth)),
        ];
        if copy.encrypted {
            let certified = endpoint.certified.unwrap_or(memory.ip()).to_string();
            parameters.push(("tls.destination", Value::Text(certified)));
        }
        parameters.extend(named);
        let held = Held { rpc: rpc.clone(), domain: domain.clone(), flags };
        self.look_after(to)?;
        let call = Call::begin(async move {
            rpc.perform(&domain, &parameters, listens.cookie.as_bytes(), flags).await
        });
        Ok(Begun { held, call, was_paused })
    }

    /// Whether the domain still is what the target prepared for: of a snapshot, another disk, network or number of processors
    /// there may be no event, and the guest would go on with what it had before.
    fn is_as_told(&mut self, live: &str, kept: Option<&str>) -> Result<(), String> {
        let Some((told, _)) = &self.definition else { return Ok(()) };
        let told = Start::parse(told).map_err(|garbled| garbled.to_string())?;
        if same_but_balloon(&told.live, live) && told.kept.as_deref() == kept {
            return Ok(());
        }
        self.stale = true;
        Err("its definition has changed since the target was told of it: it has been read anew, ask again".to_owned())
    }

    /// Those of its disks that the target wants copied along, if that may be.
    async fn goes_along(
        &self,
        rpc: &Rpc,
        domain: &Domain,
        wanted: &[String],
        copy: CopyParameters,
    ) -> Result<Vec<LocalDisk>, String> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let live = rpc.live(domain).await.map_err(|error| error.to_string())?;
        let wants = Wants::parse(&live).map_err(|garbled| garbled.to_string())?;
        let found = wants.found_here(self.place.config.shared_storage.clone()).await;
        let (_, mut alone) = found.ok_or("the storage of its disks does not answer here")?;
        alone.retain(|disk| wanted.contains(&disk.target));
        if !copy.copy_disks || alone.len() != wanted.len() {
            return Err(format!("the target wants disks copied that may not be: {wanted:?}"));
        }
        Ok(alone)
    }

    /// Makes the folder of keys as libvirt's QEMU wants it.
    pub(super) fn link_keys(&self) -> Result<(), String> {
        let keys =
            self.place.config.keys.as_ref().ok_or("this host has no keys to encrypt a copy")?;
        keys.link().map_err(|error| format!("making {}: {error}", keys.dir.display()))
    }

    /// Whether the copy of that move is settled; if so its end is said again.
    async fn answered_before(&mut self, move_id: MoveId) -> bool {
        let Some((_, report)) = self.settled.clone().filter(|(settled, _)| *settled == move_id)
        else {
            return false;
        };
        self.report(move_id, report).await;
        true
    }

    /// The call that ends with the copy has ended.
    pub(super) async fn on_performed(&mut self, end: Result<(), RpcError>) {
        match end {
            Ok(()) => self.on_done().await,
            Err(RpcError::Refused { message, .. }) => self.failed(message).await,
            // What libvirt does meanwhile is seen by looking.
            Err(RpcError::Lost | RpcError::Silent(_) | RpcError::Odd(_)) => {
                if let Following::Out(leaving) = &mut self.following {
                    leaving.held = None;
                }
                self.find_out_leaving().await;
            }
        }
    }

    async fn on_done(&mut self) {
        if let Ok((rpc, domain)) = self.reach().await
            // Its job goes on until the last step; it is over where that was done without us.
            && let Ok(mut job) = rpc.job(&domain, false).await
        {
            if !job.active
                && let Ok(over) = rpc.job(&domain, true).await
            {
                job = over;
            }
            let Following::Out(leaving) = &mut self.following else { return };
            leaving.figures = figures(&job);
        }
        let Following::Out(leaving) = &mut self.following else { return };
        leaving.done = true;
        let move_id = leaving.move_id;
        if leaving.cancelled.is_some() {
            self.bring_back().await;
        } else {
            self.report(move_id, HypervisorReport::PreSwitchover).await;
        }
    }

    /// The copy failed: says so, with what the guest does now.
    async fn failed(&mut self, why: String) {
        let Following::Out(leaving) = std::mem::replace(&mut self.following, Following::Nothing)
        else {
            return;
        };
        self.no_copy();
        self.keep_disks(leaving.move_id);
        let seen = self.look().await;
        let report = HypervisorReport::CopyFailed(leaving.cancelled.unwrap_or(why), seen);
        self.settled = Some((leaving.move_id, report.clone()));
        self.report(leaving.move_id, report).await;
        // Of one that is gone nobody knows yet where it will be started.
        if seen != Seen::Gone {
            self.put_autostart_back().await;
        }
        self.look_at_domain().await;
    }

    /// Cancelled after the copy was complete, before anything was promised: the guest runs on here.
    async fn bring_back(&mut self) {
        let Following::Out(leaving) = &mut self.following else { return };
        if let Some(Held { rpc, domain, flags }) = leaving.held.take() {
            // Where it is refused the job has ended with a connection, and the guest stayed paused.
            if let Err(error) = rpc.confirm(&domain, flags, true).await {
                tracing::info!(vm = %self.vm, %error, "its copy could not be taken back in one step");
            }
        }
        if self.look().await == Seen::Unknown {
            // Nothing is settled while libvirt is away: the cancel comes again.
            return;
        }
        self.failed("cancelled".to_owned()).await;
    }

    /// Where a copy stands whose call was lost: libvirt was away, or its connection.
    pub(super) async fn find_out_leaving(&mut self) {
        let Following::Out(leaving) = &self.following else { return };
        if leaving.call.is_some() || leaving.done {
            return;
        }
        match self.look().await {
            Seen::PostMigrate => self.on_done().await,
            Seen::Running | Seen::Paused => {
                self.failed("libvirt was interrupted in mid-copy, and gave it up".to_owned()).await;
            }
            Seen::Gone => self.ended_leaving("QEMU ended".to_owned()).await,
            Seen::Copying | Seen::Unknown | Seen::Incoming | Seen::IncomingComplete => {}
        }
    }

    /// Asks how far the copy is.
    pub(super) async fn on_progress(&mut self) {
        self.find_out_leaving().await;
        let Following::Out(leaving @ Leaving { done: false, .. }) = &self.following else {
            return;
        };
        // By the copy's own connection, so that a QEMU that hangs holds up nobody else.
        let own = leaving.held.as_ref().map(|held| (held.rpc.clone(), held.domain.clone()));
        let asked = match own {
            Some((rpc, domain)) => rpc.job(&domain, false).await,
            None => match self.reach().await {
                Ok((rpc, domain)) => rpc.job(&domain, false).await,
                Err(error) => Err(error),
            },
        };
        let Following::Out(leaving) = &mut self.following else { return };
        let before = leaving.figures.progress;
        let heard = asked.is_ok();
        match asked {
            Ok(job) if job.active && job.leaves => {
                leaving.figures.progress = progress(&job.figures)
            }
            // It is over: the call says how.
            Ok(_) => return,
            // Unknown: it counts as nothing sent.
            Err(error) => tracing::debug!(vm = %self.vm, %error, "no progress of its copy"),
        }
        let (move_id, now) = (leaving.move_id, leaving.figures.progress);
        if now.transferred != before.transferred {
            leaving.sent_at = Instant::now();
        }
        self.cancel_what_stalls().await;
        if heard && now.total.0 > 0 {
            self.report(move_id, HypervisorReport::Progress(now)).await;
        }
    }

    /// Cancels a copy of which nothing was sent for too long; again, while libvirt does not hear of it.
    async fn cancel_what_stalls(&mut self) {
        let stall_max = self.place.config.stall_max;
        let Following::Out(leaving) = &mut self.following else { return };
        if leaving.cancelled.is_none() && leaving.sent_at.elapsed() >= stall_max {
            leaving.cancelled = Some(format!("cancelled: nothing was sent for {stall_max:?}"));
            leaving.unheard = true;
        }
        if !leaving.unheard {
            return;
        }
        if self.abort().await.is_ok()
            && let Following::Out(leaving) = &mut self.following
        {
            leaving.unheard = false;
        }
    }

    /// The source's QEMU ended in mid-copy.
    pub(super) async fn ended_leaving(&mut self, how: String) {
        if matches!(&self.following, Following::Out(leaving) if leaving.call.is_some()) {
            // libvirt's own words come with the end of the call.
            return;
        }
        let Following::Out(leaving) = std::mem::replace(&mut self.following, Following::Nothing)
        else {
            return;
        };
        self.no_copy();
        let held = leaving.held.as_ref().is_some_and(|held| held.rpc.is_open());
        let report = if leaving.done && held {
            // It was complete, and nobody could let it run since: the copy at the target is the only one.
            HypervisorReport::SourceCompleted(leaving.figures)
        } else {
            HypervisorReport::CopyFailed(how, Seen::Gone)
        };
        self.settled = Some((leaving.move_id, report.clone()));
        self.report(leaving.move_id, report).await;
    }

    /// A longer pause at the end, where the copy does not follow the guest.
    pub(super) async fn allow_pause(&mut self, move_id: MoveId, pause: Duration) {
        let Following::Out(Leaving { move_id: of, held: Some(held), done: false, .. }) =
            &self.following
        else {
            return;
        };
        if *of == move_id
            && let Err(error) = held.rpc.set_downtime(&held.domain, pause).await
        {
            // It goes on as before.
            tracing::warn!(%move_id, vm = %self.vm, %error, "a longer pause could not be allowed");
        }
    }

    pub(super) async fn switch_over(&mut self, move_id: MoveId) {
        if self.answered_before(move_id).await {
            return;
        }
        self.follow_copy_of(move_id);
        self.find_out_leaving().await;
        let Following::Out(leaving @ Leaving { done: true, .. }) = &mut self.following else {
            return;
        };
        leaving.switching = true;
        // Of one that was paused before, only as long as libvirt holds it is it known that nobody let it run.
        let stays = leaving.was_paused && leaving.held.as_ref().is_some_and(|it| it.rpc.is_open());
        // Without the connection that held it somebody may have let it run since.
        let state = match self.reach().await {
            Ok((rpc, domain)) => rpc.state(&domain).await,
            Err(error) => Err(error),
        };
        match state {
            Ok(State::PausedByMigration) => self.completed().await,
            Ok(State::Paused) if stays => self.completed().await,
            Ok(State::Running | State::Paused) => {
                self.failed("it completed, but somebody let the guest run here again".into()).await;
            }
            // A process that ended is reported by the loop; a daemon that is away comes back.
            Ok(State::Off) | Err(_) => {}
        }
    }

    /// Goes on with what could not be looked at while libvirt was away.
    pub(super) async fn switch_over_again(&mut self) {
        if let Following::Out(Leaving { switching: true, cancelled: None, move_id, .. }) =
            self.following
        {
            self.switch_over(move_id).await;
        }
    }

    async fn completed(&mut self) {
        let Following::Out(leaving) = std::mem::replace(&mut self.following, Following::Nothing)
        else {
            return;
        };
        self.no_copy();
        (self.held, self.left_paused) = (leaving.held, leaving.was_paused);
        let report = HypervisorReport::SourceCompleted(leaving.figures);
        self.settled = Some((leaving.move_id, report.clone()));
        self.report(leaving.move_id, report).await;
    }

    pub(super) async fn cancel_copy(&mut self, move_id: MoveId) {
        if self.answered_before(move_id).await {
            return;
        }
        self.follow_copy_of(move_id);
        let Following::Out(leaving) = &mut self.following else { return };
        leaving.cancelled.get_or_insert_with(|| "cancelled".to_owned());
        if leaving.done {
            return self.bring_back().await;
        }
        let running = leaving.call.is_some();
        match self.abort().await {
            Ok(()) => {}
            // It has ended, and the call says how; or has not begun yet, and is asked again.
            Err(error) => {
                tracing::debug!(%move_id, vm = %self.vm, %error, "nothing to cancel yet");
                if let Following::Out(leaving) = &mut self.following {
                    leaving.unheard = true;
                }
            }
        }
        if !running {
            self.find_out_leaving().await;
        }
    }

    /// Has libvirt end a copy, and nothing else that it does. The disks' connections first: QEMU, and its guest, would wait for what is
    /// under way there.
    async fn abort(&mut self) -> Result<(), String> {
        self.break_off_disks().await;
        let text = |error: RpcError| error.to_string();
        let (rpc, domain) = self.reach().await.map_err(text)?;
        let job = rpc.job(&domain, false).await.map_err(text)?;
        if !job.active || !job.leaves {
            return Err("no copy is under way".to_owned());
        }
        rpc.abort(&domain).await.map_err(text)
    }

    /// A driver that was restarted knows of no copy: libvirt does.
    fn follow_copy_of(&mut self, move_id: MoveId) {
        if matches!(self.following, Following::Nothing) {
            self.following = Following::Out(Leaving::found(move_id));
        }
    }

    /// Takes its autostart off, so that it does not start here with the host while it is elsewhere. It must be before the
    /// copy: libvirt changes nothing of a domain meanwhile.
    async fn take_autostart_off(&mut self, rpc: &Rpc, domain: &Domain) -> Result<(), String> {
        if !rpc.autostart(domain).await.map_err(|error| error.to_string())? {
            return Ok(());
        }
        let mark = &self.files.autostart;
        files::leave(mark, "").map_err(|error| format!("{}: {error}", mark.display()))?;
        rpc.set_autostart(domain, false)
            .await
            .map_err(|error| format!("its autostart cannot be taken off: {error}"))
    }

    /// Sets its autostart again, where it was taken off for a move.
    pub(super) async fn put_autostart_back(&mut self) {
        if !self.files.autostart.exists() {
            return;
        }
        let set = match self.reach().await {
            Ok((rpc, domain)) => rpc.set_autostart(&domain, true).await,
            Err(error) => Err(error),
        };
        let set = match set {
            // There is nothing to start any more.
            Err(error) if error.no_domain() => Ok(()),
            other => other.map_err(|error| error.to_string()),
        };
        let done = set
            .and_then(|()| files::remove(&self.files.autostart).map_err(|error| error.to_string()));
        if let Err(why) = done {
            tracing::warn!(vm = %self.vm, why, "its autostart is still off; it is tried again");
        }
    }
}

/// The address and port, if a copy goes there by TCP: there and nowhere else.
fn socket(uri: &str) -> Option<SocketAddr> {
    let to = uri.strip_prefix("tcp:")?.trim_start_matches('/').parse().ok();
    to.filter(|to: &SocketAddr| to.port() != 0)
}

fn number(figures: &Figures, name: &str) -> u64 {
    match figures.get(name) {
        Some(Value::Number(number)) => u64::try_from(*number).unwrap_or_default(),
        _ => 0,
    }
}

/// Disks that go along are copied before memory, and are followed to its end.
fn progress(figures: &Figures) -> CopyProgress {
    let of = |name: &str| number(figures, name);
    let rounds = u32::try_from(of("memory_iteration")).unwrap_or(u32::MAX);
    // What disks have left in a round of memory is no part of the round.
    let disks_left = if rounds == 0 { of("disk_remaining") } else { 0 };
    CopyProgress {
        transferred: Bytes(of("memory_processed").saturating_add(of("disk_processed"))),
        remaining: Bytes(of("memory_remaining").saturating_add(disks_left)),
        total: Bytes(of("memory_total").saturating_add(of("disk_total"))),
        rounds,
    }
}

fn figures(job: &Job) -> CopyFigures {
    let milliseconds = |name: &str| Duration::from_millis(number(&job.figures, name));
    CopyFigures {
        progress: progress(&job.figures),
        total: milliseconds("time_elapsed"),
        downtime: milliseconds("downtime"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_an_endpoint_is_what_its_certificate_must_name() {
        let host = |uri: &str| socket(uri).map(|to| to.ip());
        assert_eq!(host("tcp:198.18.0.2:49152"), "198.18.0.2".parse().ok());
        assert_eq!(host("tcp:[fd00::2]:49152"), "fd00::2".parse().ok());
        assert_eq!(host("tcp://[fd00::2]:49152"), "fd00::2".parse().ok());
        for none in ["unix:///x", "rdma:198.18.0.2:1", "tcp:198.18.0.2:0", "tcp:host2:49152", ""] {
            assert_eq!(host(none), None, "{none}");
        }
    }
}
