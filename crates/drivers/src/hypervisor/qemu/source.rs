//! The source's side of a move: copy, switch-over, as far as its completion.
//!
//! ```text
//!   StartCopy ─▶ setup ─▶ active ─▶ pre-switchover ─ SwitchOver ─▶ device ─▶ completed, postmigrate ─▶ SourceCompleted
//!                  └─────────┴────────────┴─────────────────────────┴─▶ failed, cancelled ─▶ CopyFailed
//! ```
//!
//! From `pre-switchover` to `completed` QEMU's events alone drive it: the guest is paused meanwhile.
//!
//! **Invariant:** a copy that is cancelled comes to an end, also when nothing that is sent arrives, or it is said that QEMU
//! does not end it.
//! **Invariant:** where a copy goes is the target's word: QEMU is told it only as a TCP address, since it would also run programs
//! (`exec:`) or write files (`file:`).
//! **Invariant:** nothing here sends `cont`: at a failure or cancel QEMU lets the guest run on by itself.

use std::time::Duration;

use decide::migrate::hypervisor::{
    CopyFigures, CopyParameters, CopyProgress, Endpoint, HypervisorReport, Seen,
};
use decide::units::MoveId;
use tokio::time::Instant;

use super::copy::{self, Side};
use super::definition::Stage;
use super::handshake::{Ends, Handshakes};
use super::messages::{
    Migrate, MigrateCancel, MigrateContinue, Migration, MigrationStatus, SetDowntime, Status,
};
use super::qmp::QmpError;
use super::tls::{self, Peer};
use super::vm::{Following, VmTask};

/// A cancel is settled within so long, unless connections hang.
const CANCEL_MAX: Duration = Duration::from_secs(2);

/// A copy to elsewhere that is followed.
#[derive(Debug)]
pub(super) struct Leaving {
    move_id: MoveId,
    /// `PreSwitchover` was said.
    paused: bool,
    /// QEMU said `completed`.
    completed: bool,
    /// Present once this driver cancelled it.
    cancelled: Option<Cancelled>,
    progress: CopyProgress,
    /// When something was sent last.
    sent_at: Instant,
    /// Where the copy is encrypted and was begun by this driver.
    _handshakes: Option<Handshakes>,
}

/// A cancel that was asked for.
#[derive(Debug)]
struct Cancelled {
    why: String,
    since: Instant,
    /// When something was last done about it.
    tried: Instant,
}

impl Cancelled {
    fn now(why: String) -> Cancelled {
        Cancelled { why, since: Instant::now(), tried: Instant::now() }
    }
}

impl Leaving {
    /// A copy of that move, nothing known of it yet.
    pub(super) fn new(move_id: MoveId) -> Leaving {
        let progress = CopyProgress::default();
        Leaving {
            move_id,
            paused: false,
            completed: false,
            cancelled: None,
            progress,
            sent_at: Instant::now(),
            _handshakes: None,
        }
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
                if leaving.paused {
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
        match self.begin_copy(endpoint, copy).await {
            Ok(handshakes) => {
                self.taken_back = false;
                self.following =
                    Following::Out(Leaving { _handshakes: handshakes, ..Leaving::new(move_id) });
                self.progress.reset();
            }
            Err(why) => {
                let seen = self.look().await;
                self.report(move_id, HypervisorReport::CopyFailed(why, seen)).await;
            }
        }
    }

    async fn begin_copy(
        &mut self,
        endpoint: Endpoint,
        copy: CopyParameters,
    ) -> Result<Option<Handshakes>, String> {
        // Before QEMU is told anything of it.
        let to = tls::socket(&endpoint.uri).ok_or_else(|| {
            format!(
                "{:?}, where the target waits, is no tcp:ADDRESS:PORT: nothing is sent there",
                endpoint.uri
            )
        })?;
        let (status, migration) = self.settle().await?;
        if self.taken_back && status == Status::Postmigrate {
            return Err(
                "it came back from a move, paused: QEMU moves it again only once it has run since"
                    .to_owned(),
            );
        }
        if self.paths.stage() == Stage::Incoming
            || [Status::Inmigrate, Status::Postmigrate].contains(&status)
        {
            return Err(format!(
                "its run state here is {status:?}: only a VM that lives here can be copied"
            ));
        }
        if !migration.status().settled() {
            return Err(
                "a copy that Evenkeel did not begin is under way: wait for it, or cancel it"
                    .to_owned(),
            );
        }
        let wants_multifd = endpoint.multifd && copy.multifd;
        let qmp = self.reach().await.map_err(|unreached| unreached.to_string())?;
        let multifd = copy::set_up(qmp, Side::Source, copy, wants_multifd)
            .await
            .map_err(|error| error.to_string())?;
        if endpoint.multifd && !multifd {
            return Err("the target waits for several connections, which this side cannot, or shall not, make".to_owned());
        }
        self.begin_encryption(copy.encrypted, Peer::At(endpoint.certified.unwrap_or(to.ip())))
            .await?;
        self.drop_old_events();
        let encrypted = copy.encrypted.then_some(Ends::To(to));
        let handshakes = encrypted.and_then(|ends| self.look_after_handshakes(ends));
        let begun = self.migrate(format!("tcp:{to}")).await;
        if begun.is_err() {
            self.end_what_is_left().await;
        }
        begun.map(|()| handshakes)
    }

    async fn migrate(&mut self, uri: String) -> Result<(), String> {
        let qmp = self.reach().await.map_err(|unreached| unreached.to_string())?;
        match qmp.call(Migrate { uri }).await {
            // It may have begun all the same: what it does is seen by following it.
            Ok(_) | Err(QmpError::Silent { .. } | QmpError::Odd { .. }) => Ok(()),
            // Seen in QEMU 10: a copy that was cancelled before it was connected goes on trying to connect.
            Err(QmpError::Refused { desc, .. }) if desc.contains("duplicate yank instance") => {
                Err("an earlier copy of it still tries to reach its target: QEMU gives that up within two minutes".to_owned())
            }
            Err(error @ (QmpError::Refused { .. } | QmpError::Lost { .. })) => {
                Err(error.to_string())
            }
        }
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

    /// QEMU says where the copy stands.
    pub(super) async fn on_leaving(&mut self, status: MigrationStatus) {
        let Following::Out(leaving) = &mut self.following else { return };
        if status == MigrationStatus::PreSwitchover && !leaving.paused {
            leaving.paused = true;
            leaving.sent_at = Instant::now();
            let move_id = leaving.move_id;
            self.report(move_id, HypervisorReport::PreSwitchover).await;
        } else if status.settled() {
            leaving.completed |= status == MigrationStatus::Completed;
            self.settle_copy().await;
        }
    }

    /// Asks how far the copy is; finds what an event should have told.
    pub(super) async fn on_progress(&mut self) {
        let Ok(migration) = self.migration().await else { return self.yank_if_it_hangs().await };
        let Following::Out(leaving) = &mut self.following else { return };
        let progress = copy::progress(&migration);
        match migration.status() {
            status if status == MigrationStatus::PreSwitchover || status.settled() => {
                self.on_leaving(status).await
            }
            status => {
                if progress.transferred != leaving.progress.transferred {
                    leaving.sent_at = Instant::now();
                }
                leaving.progress = progress;
                let move_id = leaving.move_id;
                self.cancel_if_stalled().await;
                self.yank_if_it_hangs().await;
                if status == MigrationStatus::Active {
                    self.report(move_id, HypervisorReport::Progress(progress)).await;
                    self.see_run_state().await;
                }
            }
        }
    }

    async fn cancel_if_stalled(&mut self) {
        let stall_max = self.place.config.stall_max;
        let Following::Out(leaving) = &mut self.following else { return };
        if leaving.cancelled.is_none() && leaving.sent_at.elapsed() >= stall_max {
            let why = format!("cancelled: nothing was sent for {stall_max:?}");
            leaving.cancelled = Some(Cancelled::now(why));
            // An error leaves it as it is: the end is settled by what QEMU says later.
            drop(self.ask(MigrateCancel {}).await);
        }
    }

    /// A cancelled copy whose bytes nobody acknowledges hangs in QEMU until TCP gives up, which takes a quarter of an hour:
    /// the threads that send wait in the kernel, in the last round with all of QEMU behind them. Closing their connections
    /// ends it. Where it does not, as seen with several connections, whose threads wait for each other, a person is told.
    async fn yank_if_it_hangs(&mut self) {
        let Following::Out(leaving) = &mut self.following else { return };
        let Some(cancelled) = &mut leaving.cancelled else { return };
        if cancelled.tried.elapsed() < CANCEL_MAX {
            return;
        }
        cancelled.tried = Instant::now();
        let hangs = cancelled.since.elapsed() >= self.place.config.stall_max;
        // An error means that there is nothing to close: its end is settled by what QEMU says later.
        if let Err(why) = self.yank().await {
            tracing::debug!(vm = %self.vm, why, "nothing to yank");
        }
        if hangs {
            let socket = self.paths.socket.display();
            self.say_problem(format!("{socket}: QEMU does not end a copy that was cancelled: the VM stays here, but cannot be moved until it is shut down and started anew")).await;
        }
    }

    /// The copy has ended: says how, once the run state agrees.
    async fn settle_copy(&mut self) {
        let Ok((status, migration)) = self.settle().await else { return };
        if !migration.status().settled() {
            return;
        }
        let Following::Out(leaving) = std::mem::replace(&mut self.following, Following::Nothing)
        else {
            return;
        };
        let report = match (migration.status(), status) {
            (MigrationStatus::Completed, Status::Postmigrate) => {
                HypervisorReport::SourceCompleted(copy::figures(&migration))
            }
            _ => HypervisorReport::CopyFailed(
                why_it_failed(&migration, &leaving),
                seen_after_failure(status),
            ),
        };
        self.settled = Some((leaving.move_id, report.clone()));
        let failed = matches!(report, HypervisorReport::CopyFailed(..));
        self.figures.released = !failed;
        self.report(leaving.move_id, report).await;
        if failed {
            self.end_what_is_left().await;
            self.see_run_state().await;
        }
    }

    /// The source's QEMU ended in mid-copy.
    pub(super) async fn ended_leaving(&mut self, leaving: Leaving, how: String) {
        let report = if leaving.completed {
            // It was complete: the copy at the target is the only one, and the guest will not run here again.
            HypervisorReport::SourceCompleted(CopyFigures {
                progress: leaving.progress,
                ..CopyFigures::default()
            })
        } else {
            HypervisorReport::CopyFailed(how, Seen::Gone)
        };
        self.settled = Some((leaving.move_id, report.clone()));
        self.report(leaving.move_id, report).await;
    }

    /// A longer pause at the end, where the copy does not follow the guest.
    pub(super) async fn allow_pause(&mut self, move_id: MoveId, pause: Duration) {
        if !matches!(&self.following, Following::Out(leaving) if leaving.move_id == move_id) {
            return;
        }
        let downtime_limit = copy::milliseconds(pause);
        if let Err(why) = self.ask(SetDowntime { downtime_limit }).await {
            // It goes on as before.
            tracing::warn!(%move_id, vm = %self.vm, why, "a longer pause could not be allowed");
        }
    }

    pub(super) async fn switch_over(&mut self, move_id: MoveId) {
        if self.answered_before(move_id).await {
            return;
        }
        self.follow_copy_of(move_id);
        if let Following::Out(leaving) = &mut self.following {
            leaving.sent_at = Instant::now();
        }
        if let Err(why) = self.ask(MigrateContinue { state: "pre-switchover" }).await {
            // It went on before, or has ended: what QEMU says of the copy settles it.
            tracing::debug!(%move_id, vm = %self.vm, why, "not at pre-switchover");
            self.on_progress().await;
        }
    }

    pub(super) async fn cancel_copy(&mut self, move_id: MoveId) {
        if self.answered_before(move_id).await {
            return;
        }
        self.follow_copy_of(move_id);
        if let Following::Out(leaving) = &mut self.following {
            let cancelled =
                leaving.cancelled.get_or_insert_with(|| Cancelled::now("cancelled".to_owned()));
            cancelled.tried = Instant::now();
        }
        if let Err(why) = self.ask(MigrateCancel {}).await {
            tracing::warn!(%move_id, vm = %self.vm, why, "the cancel brought no answer");
            self.yank_if_it_hangs().await;
            // A process that just ended is reported by the loop.
            if self.look().await == Seen::Gone && self.process.is_none() {
                self.settle_absent(move_id).await;
                return;
            }
        }
        self.on_progress().await;
    }

    /// There is nothing to follow: no process, hence no copy.
    async fn settle_absent(&mut self, move_id: MoveId) {
        self.following = Following::Nothing;
        self.report(
            move_id,
            HypervisorReport::CopyFailed("no QEMU runs for it".to_owned(), Seen::Gone),
        )
        .await;
    }

    /// A driver that was restarted knows of no copy: QEMU does.
    fn follow_copy_of(&mut self, move_id: MoveId) {
        if matches!(self.following, Following::Nothing) {
            self.following = Following::Out(Leaving::new(move_id));
        }
    }
}

fn why_it_failed(migration: &Migration, leaving: &Leaving) -> String {
    match (migration.status(), &migration.error_desc, &leaving.cancelled) {
        (MigrationStatus::Cancelled, _, Some(cancelled)) => cancelled.why.clone(),
        (MigrationStatus::Cancelled, ..) => "cancelled, not by Evenkeel".to_owned(),
        (MigrationStatus::Completed, ..) => {
            "it completed, but somebody let the guest run here again".to_owned()
        }
        (MigrationStatus::None, ..) => "it did not begin".to_owned(),
        (_, Some(why), _) => why.clone(),
        (_, None, _) => "QEMU gives no reason".to_owned(),
    }
}

fn seen_after_failure(status: Status) -> Seen {
    if status == Status::Postmigrate {
        Seen::PostMigrate
    } else if status.executes() {
        Seen::Running
    } else {
        Seen::Paused
    }
}
