//! The source's side of a move, from readiness to the end.
//!
//! ```text
//!  Recording ─▶ Copying ─PreSwitchover▶ SwitchingOver ─completed▶ Releasing ─on disk▶ Fencing ─▶ HandingOver ─running▶ Discarding ─▶ Done
//!                  │ time, cancel            │                        ▲                             │ void
//!                  ▼                         ▼      `completed` wins  │                             ▼
//!               Cancelling ◀─────────────────┴────────────────────────┘      Reclaiming ─on disk▶ Resuming ─▶ Undone
//!                  │ failed: the guest runs here
//!                  ▼
//!               Undoing ── the target is void, or enough tries ──▶ Undone
//!
//!  our process ended in the last round, `completed` not seen ─▶ Stranded ── the target is void ──▶ Down
//! ```
//!
//! A move that is found in a journal in doubt only looks, then waits in `Doubtful` for a person.
//!
//! **Invariant:** nothing is promised before the hypervisor's copy is complete and the guest stopped for good.
//! **Invariant:** the hand-over is sent only after `released` is on disk and the tap is off the bridge.
//! **Invariant:** after `released` the guest is let run here only under a void from the journal named in readiness,
//! and only after a higher epoch is on disk. In doubt it stays paused.
//! **Invariant:** the stopped copy is discarded only after the guest was seen running at the target.
//! **Invariant:** a process that ended without having said `completed` is no proof: the guest may have run on here after a
//! copy that failed, so the target's copy, complete or not, may be stale. It is never handed over by itself.

#![expect(clippy::wildcard_enum_match_arm, reason = "what does not fit the phase is passed over")]

use std::time::Duration;

use super::convergence::Convergence;
use super::hypervisor::{
    CopyFigures, CopyParameters, CopyProgress, Endpoint, HypervisorCommand, HypervisorReport,
    RunState, Seen,
};
use super::record::{MoveRecord, MoveStage, Ownership, Record, VmRecord};
use super::{Resolution, in_doubt};
use crate::planted::{Bug, planted};
use crate::units::{MoveId, VmId};
use crate::wire::message::{JournalMark, Standing};

/// How long the last round may take before it is cancelled.
const SWITCH_MAX: Duration = Duration::from_secs(10);
/// How long a copy that does not follow goes on when the longest pause is allowed already: guests also write in bursts.
const STALL_MAX: Duration = Duration::from_secs(10);
/// After this long without an answer the hypervisor is asked once more.
const COMMAND_AGAIN: Duration = Duration::from_secs(20);
/// How often the hand-over or the release is repeated until the target answers.
const REPEAT: Duration = Duration::from_millis(500);
/// Repetitions of the hand-over after which a person is called.
const REPEATS_BEFORE_ALARM: u32 = 10;
/// Repetitions of the release after which the target is left to find out by itself.
const RELEASES_MAX: u32 = 20;

/// Where the move stands at the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// That a copy may be under way is being written.
    Recording,
    /// The memory is being copied; the guest runs here.
    Copying,
    /// The guest is paused for the last round.
    SwitchingOver,
    /// The copy is being cancelled; only a terminal state settles it.
    Cancelling,
    /// The copy is complete; `released` is being written.
    Releasing,
    /// The tap is being taken off the bridge.
    Fencing,
    /// The target has been told that it is the owner; its word is awaited.
    HandingOver,
    /// The guest runs at the target; the stopped copy is being ended.
    Discarding,
    /// The end of the move, whatever it was, is being written.
    Closing,
    /// The target is void; the higher epoch is being written.
    Reclaiming,
    /// The guest is being let run here again.
    Resuming,
    /// The guest runs here; the target is being told to undo.
    Undoing,
    /// Our process ended when the target's copy may have been complete, but it may have run on before: the target is asked
    /// what it has. If that is a complete copy, a person must decide.
    Stranded,
    /// The agent started anew and looks what is here.
    Looking,
    /// Found in a journal in doubt: nothing is done until a person says what.
    Doubtful,
    /// Over.
    Over,
}

impl Phase {
    /// Whether a cancel would still be heeded: nothing has been promised.
    pub fn can_be_cancelled(self) -> bool {
        matches!(self, Phase::Recording | Phase::Copying | Phase::SwitchingOver)
    }
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The VM runs at the target.
    Done,
    /// The VM stays here, and why.
    Undone(String),
    /// A person gave the VM up here, and why.
    GivenUp(String),
    /// The only complete copy died, and how.
    Down(String),
}

/// What the machine waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer {
    /// The copy may not take longer.
    Copy,
    /// A copy that does not follow, and for which nothing is left to do, is not waited for any longer.
    Stall,
    /// The last round may not take longer.
    Switch,
    /// Say it again.
    Repeat,
}

/// What happens to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The move begins.
    Begin,
    /// The records last asked for are on disk.
    Stored,
    /// They are not: the journal was reopened and reread to make sure.
    StoreFailed(String),
    /// The hypervisor reports.
    Report(HypervisorReport),
    /// The target says what has become of the VM under the epoch of this move.
    Standing(Standing),
    /// A timer ended.
    Timeout(Timer),
    /// A person or the parent wants it undone.
    Cancel(String),
    /// A person ends what cannot be settled otherwise. The parent has asked [`Source::may_resolve`].
    Resolve(Resolution),
}

/// What it wants done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Write these, together; `Stored` or `StoreFailed` follows.
    Persist(Vec<Record>),
    /// Ask the hypervisor.
    Hypervisor(HypervisorCommand),
    /// Tell the target that it owns the VM under the next epoch.
    HandOver,
    /// Ask the target what has become of the VM; promises nothing.
    Inquire,
    /// Tell the target to undo what it prepared.
    Release,
    /// Wait for so long.
    Arm(Timer, Duration),
    /// Do not wait any more.
    Disarm(Timer),
    /// A person is needed.
    Alarm(String),
    /// The move is over.
    Over(Outcome),
}

/// What a target's word counts for, said with the journal that it has `now`, where `named` is the one that readiness named.
///
/// What it has seen it has seen; but a promise, or that nothing has happened yet, it may only have forgotten to break.
pub fn taken_for(
    standing: Standing,
    now: Option<JournalMark>,
    named: &JournalMark,
    set_back: bool,
) -> Standing {
    let forgetful = set_back || now.is_some_and(|now| !now.continues(named));
    match standing {
        Standing::Void | Standing::OwnerNotResumed | Standing::NotComplete if forgetful => {
            Standing::Unknown
        }
        standing => standing,
    }
}

/// Whether a host may say of a move of its own that it does not know that it is over: only if the journal that it has, whose
/// first incarnation this is, was there at the time. Another may have forgotten that the only copy waits at the target.
pub fn may_let_go(id: MoveId, first_incarnation: u32) -> bool {
    id.incarnation >= first_incarnation
}

/// The source's side of one move.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Source {
    move_id: MoveId,
    record: MoveRecord,
    /// What the journal says of the VM, and will say once the records under way are on disk.
    vm: VmRecord,
    phase: Phase,
    to: Option<(Endpoint, CopyParameters)>,
    copy_max: Duration,
    /// How the copy's rounds go; absent where it was found under way.
    rounds: Option<Convergence>,
    /// Whether `Timer::Stall` is waited for.
    stalls: bool,
    figures: Option<CopyFigures>,
    why: String,
    repeats: u32,
    /// How it will have ended, once that is on disk.
    outcome: Option<Outcome>,
    /// What the last look found.
    found: Option<Seen>,
}

impl Source {
    /// A copy about to begin. `vm` is the journal's record of it, `copy_max` the longest that the copy may take, `pause_max` the longest
    /// pause that may be allowed at its end.
    pub fn new(
        move_id: MoveId,
        record: MoveRecord,
        vm: VmRecord,
        to: (Endpoint, CopyParameters),
        copy_max: Duration,
        pause_max: Duration,
    ) -> Source {
        let rounds = Convergence::new(to.1.downtime_max, pause_max, to.1.auto_converge);
        Source {
            move_id,
            record,
            vm,
            phase: Phase::Recording,
            to: Some(to),
            copy_max,
            rounds: Some(rounds),
            stalls: false,
            figures: None,
            why: String::new(),
            repeats: 0,
            outcome: None,
            found: None,
        }
    }

    /// A move found open in the journal when the agent started; `Begin` makes it look.
    pub fn recovered(move_id: MoveId, record: MoveRecord, vm: VmRecord) -> Source {
        let why = "the agent was restarted".to_owned();
        let phase = Phase::Looking;
        Source {
            move_id,
            record,
            vm,
            phase,
            to: None,
            copy_max: Duration::ZERO,
            rounds: None,
            stalls: false,
            figures: None,
            why,
            repeats: 0,
            outcome: None,
            found: None,
        }
    }

    /// Where it stands.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The VM.
    pub fn vm(&self) -> VmId {
        self.record.vm
    }

    /// The open move as the journal has it.
    pub fn record(&self) -> &MoveRecord {
        &self.record
    }

    /// The VM as the journal has it, or is about to.
    pub fn vm_record(&self) -> VmRecord {
        self.vm
    }

    /// What the hypervisor said of the complete copy.
    pub fn figures(&self) -> Option<CopyFigures> {
        self.figures
    }

    /// Takes one event; what does not fit the phase is passed over.
    pub fn handle(&mut self, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::Begin => self.begin(actions),
            Event::Stored => self.stored(actions),
            Event::StoreFailed(why) => self.store_failed(&why, actions),
            Event::Report(report) => self.report(report, actions),
            Event::Standing(standing) => self.standing(standing, actions),
            Event::Timeout(timer) => self.timeout(timer, actions),
            Event::Cancel(why) => self.cancel(why, actions),
            Event::Resolve(resolution) => self.resolve(resolution, actions),
        }
    }

    fn begin(&mut self, actions: &mut Vec<Action>) {
        match self.phase {
            Phase::Recording => self.persist(actions),
            Phase::Looking if self.record.doubtful => self.look(actions),
            Phase::Looking if self.record.stage == MoveStage::HandingOver => self.fence(actions),
            Phase::Looking => self.look(actions),
            _ => {}
        }
    }

    fn stored(&mut self, actions: &mut Vec<Action>) {
        match self.phase {
            Phase::Recording => {
                let (endpoint, copy) = self.to.clone().expect("a new move has an endpoint");
                self.phase = Phase::Copying;
                actions.push(Action::Hypervisor(HypervisorCommand::StartCopy(endpoint, copy)));
                actions.push(Action::Arm(Timer::Copy, self.copy_max));
            }
            Phase::Releasing => self.fence(actions),
            Phase::Reclaiming => self.take_back(actions),
            Phase::Closing => {
                let outcome = self.outcome.clone().expect("`close` has set it");
                self.over(outcome, actions);
            }
            _ => {}
        }
    }

    /// Nothing that depended on the record has been done. What was promised before stays so.
    fn store_failed(&mut self, why: &str, actions: &mut Vec<Action>) {
        match self.phase {
            Phase::Recording => {
                self.why = format!("the journal cannot be written: {why}");
                self.undo(actions);
            }
            // `Released` is proven not to be on disk, so nothing is promised and the VM is still ours: it goes on here.
            Phase::Releasing => {
                self.why = format!("the journal cannot be written: {why}");
                self.record.stage = MoveStage::Copying;
                self.vm =
                    VmRecord { floor: self.record.epoch, ownership: Ownership::Owner, ..self.vm };
                self.take_back(actions);
            }
            Phase::Reclaiming | Phase::Closing => {
                actions.push(Action::Alarm(format!("the journal cannot be written: {why}")));
                actions.push(Action::Arm(Timer::Repeat, REPEAT));
            }
            _ => {}
        }
    }

    fn report(&mut self, report: HypervisorReport, actions: &mut Vec<Action>) {
        match (report, self.phase) {
            (HypervisorReport::Progress(progress), Phase::Copying) => {
                self.progressed(progress, actions);
            }
            (HypervisorReport::PreSwitchover, Phase::Copying) => {
                self.phase = Phase::SwitchingOver;
                actions.push(Action::Hypervisor(HypervisorCommand::SwitchOver));
                actions.push(Action::Disarm(Timer::Copy));
                actions.push(Action::Arm(Timer::Switch, SWITCH_MAX));
                if planted(Bug::ReleasedBeforeCompleted) {
                    self.release(actions);
                }
            }
            (
                HypervisorReport::SourceCompleted(figures),
                Phase::Copying | Phase::SwitchingOver | Phase::Cancelling,
            ) => {
                self.figures = Some(figures);
                self.release(actions);
            }
            (
                HypervisorReport::CopyFailed(why, seen),
                Phase::Copying | Phase::SwitchingOver | Phase::Cancelling,
            ) => {
                self.copy_failed(why, seen, actions);
            }
            (HypervisorReport::Looked(seen), Phase::Looking) => self.looked(seen, actions),
            (HypervisorReport::Fenced, Phase::Fencing) => {
                self.phase = Phase::HandingOver;
                self.repeats = 0;
                actions.push(Action::HandOver);
                actions.push(Action::Arm(Timer::Repeat, REPEAT));
            }
            (HypervisorReport::Discarded, Phase::Discarding) => {
                self.vm.ownership = Ownership::Away;
                let outcome = self.outcome.take().unwrap_or(Outcome::Done);
                self.close(outcome, actions);
            }
            (HypervisorReport::Resumed, Phase::Resuming) => self.undo(actions),
            (HypervisorReport::ResumeFailed(why, seen), Phase::Resuming) => {
                let why = format!("taken back, but it does not come up: {why}");
                actions.push(Action::Alarm(why.clone()));
                match (seen, self.record.stage) {
                    (Seen::Gone, MoveStage::TakingBack) => self.down(why, actions),
                    (Seen::Gone, _) => self.strand(why, actions),
                    _ => {}
                }
            }
            _ => {}
        }
    }

    /// Where rounds stall a longer pause is allowed; where that does not help, the copy is given up after a while.
    fn progressed(&mut self, progress: CopyProgress, actions: &mut Vec<Action>) {
        let Some(rounds) = &mut self.rounds else { return };
        if let Some(pause) = rounds.heard(progress) {
            actions.push(Action::Hypervisor(HypervisorCommand::AllowPause(pause)));
        }
        let stalls = rounds.is_hopeless();
        if stalls && !self.stalls {
            actions.push(Action::Arm(Timer::Stall, STALL_MAX));
        } else if self.stalls && !stalls {
            actions.push(Action::Disarm(Timer::Stall));
        }
        self.stalls = stalls;
    }

    /// A terminal state without a complete copy. Nothing was promised: the guest may run here, as it does by itself.
    fn copy_failed(&mut self, why: String, seen: Seen, actions: &mut Vec<Action>) {
        if self.phase != Phase::Cancelling {
            self.why = why;
        }
        match (seen, self.phase) {
            // The target's copy may be complete, and ours may have failed and run on before it ended.
            (Seen::Gone, Phase::SwitchingOver | Phase::Cancelling) => {
                self.strand("its process ended in the last round".to_owned(), actions);
            }
            (Seen::Gone, _) => {
                self.down(format!("its process ended during the copy: {}", self.why), actions)
            }
            // The last round had ended after all: the target's copy may be complete. It says void if not.
            (Seen::PostMigrate, _) => self.release(actions),
            // QEMU lets it run by itself as a rule, but not always (a target killed at `pre-switchover`).
            (Seen::Paused, _) if self.record.run == RunState::Running => self.take_back(actions),
            _ => self.undo(actions),
        }
    }

    fn take_back(&mut self, actions: &mut Vec<Action>) {
        self.phase = Phase::Resuming;
        actions.push(Action::Hypervisor(HypervisorCommand::TakeBack(self.record.run)));
        actions.push(Action::Arm(Timer::Repeat, COMMAND_AGAIN));
    }

    /// What was found after a restart, with nothing promised on disk (`Copying`) or the VM taken back (`TakingBack`).
    fn looked(&mut self, seen: Seen, actions: &mut Vec<Action>) {
        if self.record.doubtful {
            return self.doubt(seen, actions);
        }
        if self.record.stage == MoveStage::TakingBack {
            return self.take_back(actions);
        }
        match seen {
            Seen::Copying => {
                self.phase = Phase::Copying;
                self.cancel(self.why.clone(), actions);
            }
            // Complete: hand it over; a void brings it back.
            Seen::PostMigrate => self.release(actions),
            // Nobody watched: it may have run on for long before it ended.
            Seen::Gone => {
                self.strand("its process was gone when the agent came back".to_owned(), actions);
            }
            Seen::Paused if self.record.run == RunState::Running => self.take_back(actions),
            Seen::Running | Seen::Paused => self.undo(actions),
            Seen::Incoming | Seen::IncomingComplete | Seen::Unknown => {
                self.found = Some(seen);
                actions.push(Action::Alarm(format!(
                    "found {seen:?} where a source was expected; left alone"
                )));
                actions.push(Action::Arm(Timer::Repeat, REPEAT * 10));
            }
        }
    }

    /// What the journal says may be long past: it is neither taken back nor handed over nor ended.
    fn doubt(&mut self, seen: Seen, actions: &mut Vec<Action>) {
        self.phase = Phase::Doubtful;
        self.found = Some(seen);
        actions.push(Action::Disarm(Timer::Repeat));
        actions.push(Action::Alarm(in_doubt(self.record.stage, seen)));
    }

    /// Whether a person may end it so.
    ///
    /// # Errors
    /// What speaks against it.
    pub fn may_resolve(&self, resolution: Resolution) -> Result<(), String> {
        match (self.phase, resolution) {
            (Phase::Doubtful, Resolution::GiveUp) if self.found == Some(Seen::Running) => {
                Err("the guest runs here: keep it, or end it by hand first".to_owned())
            }
            (Phase::Stranded, Resolution::KeepHere) => {
                Err("no copy is left here: a complete one may wait at the target".to_owned())
            }
            (Phase::Stranded, Resolution::GiveUp)
            | (Phase::HandingOver | Phase::Fencing | Phase::Looking | Phase::Doubtful, _) => Ok(()),
            (phase, _) => Err(format!("it is {phase:?} and goes on by itself")),
        }
    }

    fn resolve(&mut self, resolution: Resolution, actions: &mut Vec<Action>) {
        if self.may_resolve(resolution).is_err() {
            return;
        }
        self.record.doubtful = false;
        match resolution {
            Resolution::KeepHere => self.reclaim("kept here by hand", actions),
            Resolution::GiveUp => {
                self.outcome = Some(Outcome::GivenUp("given up here by hand".to_owned()));
                self.discard(actions);
            }
        }
    }

    fn release(&mut self, actions: &mut Vec<Action>) {
        self.phase = Phase::Releasing;
        self.record.stage = MoveStage::HandingOver;
        self.vm.floor = self.vm.floor.max(self.record.epoch + 1);
        self.vm.ownership = Ownership::Released(self.record.peer, self.move_id);
        actions.extend([Timer::Copy, Timer::Switch, Timer::Repeat].map(Action::Disarm));
        self.persist(actions);
    }

    fn fence(&mut self, actions: &mut Vec<Action>) {
        self.phase = Phase::Fencing;
        if planted(Bug::TapLeftOn) {
            return self.report(HypervisorReport::Fenced, actions);
        }
        actions.push(Action::Hypervisor(HypervisorCommand::Fence));
        actions.push(Action::Arm(Timer::Repeat, COMMAND_AGAIN));
    }

    fn discard(&mut self, actions: &mut Vec<Action>) {
        self.phase = Phase::Discarding;
        actions.push(Action::Hypervisor(HypervisorCommand::Discard));
        actions.push(Action::Arm(Timer::Repeat, COMMAND_AGAIN));
    }

    fn look(&mut self, actions: &mut Vec<Action>) {
        actions.push(Action::Hypervisor(HypervisorCommand::Look));
        actions.push(Action::Arm(Timer::Repeat, COMMAND_AGAIN));
    }

    fn cancel_copy(&mut self, actions: &mut Vec<Action>) {
        actions.push(Action::Hypervisor(HypervisorCommand::CancelCopy));
        actions.push(Action::Arm(Timer::Repeat, COMMAND_AGAIN));
    }

    /// The target's word counts only after we have released, and only once.
    fn standing(&mut self, standing: Standing, actions: &mut Vec<Action>) {
        match (self.phase, standing) {
            (Phase::Undoing, Standing::Void) => self.undone(actions),
            // The copy has no one to go to. Should it be complete all the same, the hand-over will hear of it.
            (Phase::Copying | Phase::SwitchingOver, Standing::Void) => {
                self.cancel("the target gave up".to_owned(), actions);
            }
            (Phase::HandingOver | Phase::Stranded, Standing::Running) => self.discard(actions),
            (Phase::Stranded, Standing::Void | Standing::OwnerCopyGone) => {
                let why = format!("{}, and the target has no copy of it", self.why);
                self.down(why, actions);
            }
            (Phase::HandingOver, Standing::OwnerNotResumed) if planted(Bug::DiscardOnOwner) => {
                self.discard(actions);
            }
            (Phase::HandingOver, Standing::Void) => {
                self.reclaim("the target gave it back", actions)
            }
            (Phase::HandingOver, Standing::OwnerCopyGone) => {
                actions.push(Action::Alarm(format!(
                    "the VM is down: its copy died at {}, its owner",
                    self.record.peer
                )));
                self.down("its copy died at the target after the hand-over".to_owned(), actions);
            }
            // It will say more later; the repetition asks again.
            _ => {}
        }
    }

    /// The target promised, in the journal that readiness named, never to own it under this epoch, or a person answers for
    /// it: one above is ours.
    fn reclaim(&mut self, why: &str, actions: &mut Vec<Action>) {
        self.phase = Phase::Reclaiming;
        self.why = why.to_owned();
        self.record.stage = MoveStage::TakingBack;
        self.vm.floor = self.vm.floor.max(self.record.epoch + 1) + 1;
        self.vm.ran = self.vm.floor;
        self.vm.ownership = Ownership::Owner;
        actions.push(Action::Disarm(Timer::Repeat));
        self.persist(actions);
    }

    fn timeout(&mut self, timer: Timer, actions: &mut Vec<Action>) {
        match (timer, self.phase) {
            (Timer::Copy, Phase::Copying) => {
                let late = "the copy took too long".to_owned();
                let rounds = self.rounds.as_ref().filter(|rounds| rounds.all_is_allowed());
                let why = rounds.map(|rounds| format!("{late}: {}", rounds.why_hopeless()));
                self.cancel(why.unwrap_or(late), actions);
            }
            (Timer::Stall, Phase::Copying) if self.stalls => {
                let why = self.rounds.as_ref().map(Convergence::why_hopeless);
                self.cancel(why.unwrap_or_default(), actions);
            }
            (Timer::Switch, Phase::SwitchingOver) => {
                self.cancel("the last round took too long".to_owned(), actions)
            }
            (Timer::Repeat, Phase::HandingOver) => self.repeat_hand_over(actions),
            (Timer::Repeat, Phase::Stranded) => self.ask_again(actions),
            (Timer::Repeat, Phase::Undoing) if self.repeats < RELEASES_MAX => {
                self.repeats += 1;
                actions.push(Action::Release);
                actions.push(Action::Arm(Timer::Repeat, REPEAT));
            }
            (Timer::Repeat, Phase::Undoing) => self.undone(actions),
            (Timer::Repeat, Phase::Releasing | Phase::Reclaiming) => self.persist(actions),
            (Timer::Repeat, Phase::Closing) => self.persist_end(actions),
            (Timer::Repeat, Phase::Looking) => self.look(actions),
            (Timer::Repeat, Phase::Cancelling) => self.cancel_copy(actions),
            (Timer::Repeat, Phase::Fencing) => self.fence(actions),
            (Timer::Repeat, Phase::Discarding) => self.discard(actions),
            (Timer::Repeat, Phase::Resuming) => self.take_back(actions),
            _ => {}
        }
    }

    fn repeat_hand_over(&mut self, actions: &mut Vec<Action>) {
        self.repeats = self.repeats.saturating_add(1);
        if self.repeats == REPEATS_BEFORE_ALARM {
            let why = "no word from the target since the hand-over: the VM stays paused here until it answers";
            actions.push(Action::Alarm(why.to_owned()));
            if planted(Bug::ResumeOnLostAnswer) {
                return self.take_back(actions);
            }
        }
        actions.push(Action::HandOver);
        actions.push(Action::Arm(Timer::Repeat, REPEAT));
    }

    /// Nothing is left here, and nothing is known for certain. The target is asked; it promises nothing either.
    fn strand(&mut self, why: String, actions: &mut Vec<Action>) {
        if planted(Bug::ReleasedWhenGone) {
            return self.release(actions);
        }
        self.phase = Phase::Stranded;
        self.why = why;
        self.repeats = 0;
        actions.extend([Timer::Copy, Timer::Switch].map(Action::Disarm));
        actions.push(Action::Inquire);
        actions.push(Action::Arm(Timer::Repeat, REPEAT));
    }

    fn ask_again(&mut self, actions: &mut Vec<Action>) {
        self.repeats = self.repeats.saturating_add(1);
        if self.repeats == REPEATS_BEFORE_ALARM {
            actions.push(Action::Alarm(format!(
                "{}: whether the guest ran on before cannot be known, so the copy at the target, if complete, is not let run \
                 without a person's word: `evenkeel move resolve` there",
                self.why
            )));
        }
        actions.push(Action::Inquire);
        actions.push(Action::Arm(Timer::Repeat, REPEAT));
    }

    fn cancel(&mut self, why: String, actions: &mut Vec<Action>) {
        match self.phase {
            Phase::Recording => {
                self.why = why;
                self.undo(actions);
            }
            Phase::Copying | Phase::SwitchingOver => {
                self.phase = Phase::Cancelling;
                self.why = why;
                actions.extend([Timer::Copy, Timer::Switch].map(Action::Disarm));
                self.cancel_copy(actions);
            }
            // After `released` there is no cancel.
            _ => {}
        }
    }

    /// The guest runs here and will go on to; the target must undo.
    fn undo(&mut self, actions: &mut Vec<Action>) {
        self.phase = Phase::Undoing;
        self.repeats = 0;
        actions.extend([Timer::Copy, Timer::Switch].map(Action::Disarm));
        actions.push(Action::Release);
        actions.push(Action::Arm(Timer::Repeat, REPEAT));
    }

    fn undone(&mut self, actions: &mut Vec<Action>) {
        let why = self.why.clone();
        // The target has promised, or will, never to own the VM under the next epoch: nobody ever shall. The number is used
        // up, so that the same target can take the VM in another move.
        self.vm.floor = self.vm.floor.max(self.record.epoch + 1);
        self.vm.ran = self.vm.floor;
        self.close(Outcome::Undone(why), actions);
    }

    /// The VM is lost: what the target may hold of it is not complete, or void, or was the last.
    fn down(&mut self, why: String, actions: &mut Vec<Action>) {
        if self.vm.ownership == Ownership::Owner {
            self.vm.ownership = Ownership::Down;
        }
        actions.push(Action::Release);
        self.close(Outcome::Down(why), actions);
    }

    /// A move is over once its end is on disk: before, another of the same VM could be written down beside it.
    fn close(&mut self, outcome: Outcome, actions: &mut Vec<Action>) {
        self.phase = Phase::Closing;
        self.outcome = Some(outcome);
        actions.extend([Timer::Copy, Timer::Switch, Timer::Repeat].map(Action::Disarm));
        self.persist_end(actions);
    }

    fn over(&mut self, outcome: Outcome, actions: &mut Vec<Action>) {
        self.phase = Phase::Over;
        if self.stalls {
            actions.push(Action::Disarm(Timer::Stall));
        }
        actions.extend([Timer::Copy, Timer::Switch, Timer::Repeat].map(Action::Disarm));
        actions.push(Action::Over(outcome));
    }

    fn persist(&self, actions: &mut Vec<Action>) {
        let vm = Record::Vm(self.record.vm, self.vm);
        actions
            .push(Action::Persist(vec![vm, Record::Move(self.move_id, Some(self.record.clone()))]));
    }

    fn persist_end(&self, actions: &mut Vec<Action>) {
        actions.push(Action::Persist(vec![
            Record::Vm(self.record.vm, self.vm),
            Record::Move(self.move_id, None),
        ]));
    }
}
