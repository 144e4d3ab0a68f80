//! The target's side of a move, from the incoming side to the end.
//!
//! ```text
//!  Recording ─▶ Waiting ─complete▶ Complete ─HandOver▶ Owning ─on disk▶ Resuming ─seen running▶ Confirming ─on disk▶ Arrived
//!     │            │                  │                                    │ it died
//!     ▼ release,   ▼ time, death      ▼ release by the source, death       ▼ never let run: Voiding; else
//!  Voiding ─floor on disk▶ Destroying ─proven gone▶ Void                 Lost
//! ```
//!
//! A move that is found in a journal in doubt only looks, then waits in `Doubtful` for a person.
//!
//! **Invariant:** the guest is resumed only after `owner` is on disk, and only a copy that is complete and paused.
//! **Invariant:** void is answered only after the floor is on disk and the incoming side is proven gone; it is kept for ever.
//! **Invariant:** a complete copy is never discarded but on the source's word.

#![expect(clippy::wildcard_enum_match_arm, reason = "what does not fit the phase is passed over")]

use std::time::Duration;

use super::hypervisor::{HypervisorCommand, HypervisorReport, RunState, Seen};
use super::record::{MoveRecord, MoveStage, Ownership, Record, VmRecord};
use super::{Resolution, in_doubt};
use crate::planted::{Bug, planted};
use crate::units::{MoveId, VmId};
use crate::wire::message::{JournalMark, Standing};

/// How often a complete copy without a hand-over, or a guest that does not come up, is asked about again.
const REPEAT: Duration = Duration::from_secs(2);
/// After this long without an answer the hypervisor is asked to resume, or to look, once more.
const RESUME_AGAIN: Duration = Duration::from_secs(20);
/// Repetitions after which a person is called.
const REPEATS_BEFORE_ALARM: u32 = 5;

/// Where the move stands at the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// That an incoming side is here is being written.
    Recording,
    /// The memory is coming in.
    Waiting,
    /// The copy is complete and paused; the source's hand-over is awaited, for ever if need be.
    Complete,
    /// `Owner` is being written.
    Owning,
    /// The guest is being resumed.
    Resuming,
    /// The guest was seen running; that is being written.
    Confirming,
    /// The promise never to own it is being written.
    Voiding,
    /// The incoming side is being ended.
    Destroying,
    /// The agent started anew and looks what is here.
    Looking,
    /// Found in a journal in doubt: nothing is done until a person says what.
    Doubtful,
    /// Over: the VM runs here.
    Arrived,
    /// Over: void.
    Void,
    /// Over: the owner, and the copy is gone.
    Lost,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The VM runs here.
    Arrived,
    /// It never will under this move, and why.
    Void(String),
    /// It was ours, and its only copy died, and how.
    Down(String),
}

/// What the machine waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer {
    /// The copy should have been complete by now.
    Arrival,
    /// Ask, or try, again.
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
    /// The source hands over under the next epoch. The parent has checked that it names this journal.
    HandOver(RunState),
    /// The source lets go.
    Release,
    /// A person ends what cannot be settled otherwise. The parent has asked [`Target::may_resolve`].
    Resolve(Resolution),
    /// The source asks what has become of the VM; it promises nothing.
    Inquiry,
    /// A timer ended.
    Timeout(Timer),
}

/// What it wants done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Write these, together; `Stored` or `StoreFailed` follows.
    Persist(Vec<Record>),
    /// Ask the hypervisor.
    Hypervisor(HypervisorCommand),
    /// That an incoming side may be here is on record: it may be started.
    Recorded,
    /// Remind the source that a complete copy waits here.
    Remind,
    /// Tell the source what has become of the VM.
    Standing(Standing),
    /// Wait for so long.
    Arm(Timer, Duration),
    /// Do not wait any more.
    Disarm(Timer),
    /// A person is needed.
    Alarm(String),
    /// The move is over.
    Over(Outcome),
}

/// What a host answers to a hand-over of a move that it has no machine for, by what its journal has of the VM alone.
///
/// An incoming side is on record before readiness is said, and is so until the VM has arrived, was voided, or is down: each
/// of which leaves its mark on the VM's own record. Where none is found the journal has forgotten something: it cannot say.
pub fn standing_without_move(vm: VmRecord, epoch: u64) -> Standing {
    match vm.ownership {
        _ if vm.ran >= epoch => Standing::Running,
        Ownership::Down if vm.floor >= epoch => Standing::OwnerCopyGone,
        Ownership::Away if vm.floor >= epoch => Standing::Void,
        Ownership::Away if planted(Bug::FreshJournalVoids) => Standing::Void,
        Ownership::Owner | Ownership::Released(..) | Ownership::Away | Ownership::Down => {
            Standing::Unknown
        }
    }
}

/// Whether the journal that a host has may answer for the one that its readiness named.
pub fn answers_for(now: &JournalMark, named: &JournalMark) -> bool {
    now.continues(named) || planted(Bug::FreshJournalVoids)
}

/// The target's side of one move.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    move_id: MoveId,
    record: MoveRecord,
    vm: VmRecord,
    phase: Phase,
    arrival_max: Duration,
    /// The hand-over came before the copy was seen complete: its word overtook the hypervisor's.
    handed_over: bool,
    why: String,
    repeats: u32,
    /// What the last look found.
    found: Option<Seen>,
}

impl Target {
    /// An incoming side that is about to be started. `arrival_max` is the longest that the copy may take to come in.
    pub fn new(move_id: MoveId, record: MoveRecord, vm: VmRecord, arrival_max: Duration) -> Target {
        let (phase, handed_over, why) = (Phase::Recording, false, String::new());
        let (repeats, found) = (0, None);
        Target { move_id, record, vm, phase, arrival_max, handed_over, why, repeats, found }
    }

    /// A move found open in the journal when the agent started; `Begin` makes it look.
    pub fn recovered(
        move_id: MoveId,
        record: MoveRecord,
        vm: VmRecord,
        arrival_max: Duration,
    ) -> Target {
        Target { phase: Phase::Looking, ..Target::new(move_id, record, vm, arrival_max) }
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

    /// Takes one event; what does not fit the phase is passed over.
    pub fn handle(&mut self, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::Begin => self.begin(actions),
            Event::Stored => self.stored(actions),
            Event::StoreFailed(why) => self.store_failed(&why, actions),
            Event::Report(report) => self.report(report, actions),
            Event::HandOver(run) => self.hand_over(run, actions),
            Event::Release => self.release(actions),
            Event::Resolve(resolution) => self.resolve(resolution, actions),
            Event::Inquiry => self.inquiry(actions),
            Event::Timeout(timer) => self.timeout(timer, actions),
        }
    }

    fn begin(&mut self, actions: &mut Vec<Action>) {
        match (self.phase, self.record.stage) {
            (Phase::Recording, _) => self.persist(actions),
            (Phase::Looking, _) if self.record.doubtful => self.look(actions),
            (Phase::Looking, MoveStage::Voiding) => self.destroy(actions),
            (Phase::Looking, _) => self.look(actions),
            _ => {}
        }
    }

    fn stored(&mut self, actions: &mut Vec<Action>) {
        match self.phase {
            Phase::Recording => {
                self.wait(actions);
                actions.push(Action::Recorded);
            }
            Phase::Owning => self.resume(actions),
            Phase::Confirming => {
                self.phase = Phase::Arrived;
                actions.push(Action::Standing(Standing::Running));
                self.over(Outcome::Arrived, actions);
            }
            Phase::Voiding => {
                if planted(Bug::VoidBeforeGone) {
                    actions.push(Action::Standing(Standing::Void));
                }
                self.destroy(actions);
            }
            _ => {}
        }
    }

    /// Nothing that depended on the record has been done.
    fn store_failed(&mut self, why: &str, actions: &mut Vec<Action>) {
        match self.phase {
            Phase::Recording => {
                self.why = format!("the journal cannot be written: {why}");
                self.void(actions);
            }
            Phase::Owning | Phase::Confirming | Phase::Voiding => {
                actions.push(Action::Alarm(format!("the journal cannot be written: {why}")));
                actions.push(Action::Arm(Timer::Repeat, REPEAT));
            }
            Phase::Void => actions.push(Action::Arm(Timer::Repeat, REPEAT)),
            _ => {}
        }
    }

    fn report(&mut self, report: HypervisorReport, actions: &mut Vec<Action>) {
        match (report, self.phase) {
            (HypervisorReport::IncomingCompleted, Phase::Waiting | Phase::Recording) => {
                self.complete(actions)
            }
            (HypervisorReport::Looked(Seen::IncomingComplete), Phase::Waiting) => {
                self.complete(actions)
            }
            (HypervisorReport::Looked(Seen::Unknown), Phase::Waiting) => {
                actions.push(Action::Alarm(
                    "the copy did not come in time, and its process does not answer: left alone"
                        .to_owned(),
                ));
            }
            // Nobody has resumed it and nobody will: the source's stopped copy is as good as ever.
            (
                HypervisorReport::IncomingFailed(why),
                Phase::Recording | Phase::Waiting | Phase::Complete | Phase::Owning,
            ) => {
                self.why = why;
                self.void(actions);
            }
            (
                HypervisorReport::IncomingGone,
                Phase::Recording | Phase::Waiting | Phase::Complete | Phase::Owning,
            ) => {
                if self.why.is_empty() {
                    self.why = "its incoming side is gone".to_owned();
                }
                self.void(actions);
            }
            (HypervisorReport::Resumed, Phase::Resuming) => {
                self.phase = Phase::Confirming;
                self.vm.ran = self.vm.floor;
                actions.push(Action::Disarm(Timer::Repeat));
                self.persist_end(actions);
            }
            (HypervisorReport::ResumeFailed(why, seen), Phase::Resuming) => {
                self.resume_failed(why, seen, actions)
            }
            // It died between the hypervisor's word that it was complete and ours to let it run, so it never ran.
            (HypervisorReport::IncomingGone, Phase::Resuming) => {
                self.why = "its complete copy died before it was let run".to_owned();
                self.void(actions);
            }
            (HypervisorReport::IncomingGone, Phase::Destroying) => {
                self.phase = Phase::Void;
                self.forget(actions);
                actions.push(Action::Standing(Standing::Void));
                self.over(Outcome::Void(self.why.clone()), actions);
            }
            (HypervisorReport::Looked(seen), Phase::Looking) => self.looked(seen, actions),
            _ => {}
        }
    }

    fn look(&self, actions: &mut Vec<Action>) {
        actions.push(Action::Hypervisor(HypervisorCommand::Look));
        actions.push(Action::Arm(Timer::Repeat, RESUME_AGAIN));
    }

    /// What was found after a restart.
    fn looked(&mut self, seen: Seen, actions: &mut Vec<Action>) {
        if self.record.doubtful {
            return self.doubt(seen, actions);
        }
        let owner = self.record.stage == MoveStage::Owning;
        match seen {
            Seen::Incoming if !owner => self.wait(actions),
            Seen::IncomingComplete | Seen::Paused if !owner => {
                self.phase = Phase::Waiting;
                self.complete(actions);
            }
            Seen::Gone if !owner => {
                self.why = "its incoming side was gone when the agent came back".to_owned();
                self.void(actions);
            }
            // Somebody let it run past us, and the source's copy may run too. Nothing is started, resumed or ended to mend it.
            Seen::Running if !owner => {
                self.found = Some(seen);
                actions.push(Action::Alarm(
                    "the guest runs here though it was never handed over: two copies may be running"
                        .to_owned(),
                ));
                actions.push(Action::Arm(Timer::Repeat, REPEAT));
            }
            // `Owner` is on disk: to resume a complete copy is what the record is for.
            Seen::IncomingComplete | Seen::Paused | Seen::Running => self.resume(actions),
            Seen::Gone => {
                self.lost("its process was gone when the agent came back".to_owned(), actions)
            }
            Seen::Incoming | Seen::Copying | Seen::PostMigrate | Seen::Unknown => {
                self.found = Some(seen);
                actions.push(Action::Alarm(format!(
                    "found {seen:?} where an incoming side was expected; left alone"
                )));
                actions.push(Action::Arm(Timer::Repeat, REPEAT));
            }
        }
    }

    /// What the journal says may be long past: nothing is resumed, promised or ended by it.
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
        let whole =
            matches!(self.found, Some(Seen::IncomingComplete | Seen::Paused | Seen::Running));
        match (self.phase, resolution) {
            (Phase::Doubtful, Resolution::KeepHere) if !whole => {
                Err(format!("there is no complete copy here to keep: found {:?}", self.found))
            }
            (Phase::Doubtful | Phase::Looking, Resolution::GiveUp)
                if self.found == Some(Seen::Running) =>
            {
                Err("the guest runs here: keep it, or end it by hand first".to_owned())
            }
            (Phase::Complete | Phase::Doubtful, _) | (Phase::Looking, Resolution::GiveUp) => Ok(()),
            (phase, _) => Err(format!("it is {phase:?} and goes on by itself")),
        }
    }

    fn resolve(&mut self, resolution: Resolution, actions: &mut Vec<Action>) {
        if self.may_resolve(resolution).is_err() {
            return;
        }
        self.record.doubtful = false;
        match resolution {
            Resolution::KeepHere => self.take_over(actions),
            Resolution::GiveUp => {
                self.why = "given up here by hand".to_owned();
                self.void(actions);
            }
        }
    }

    fn wait(&mut self, actions: &mut Vec<Action>) {
        self.phase = Phase::Waiting;
        if planted(Bug::EarlyCont) {
            actions.push(Action::Hypervisor(HypervisorCommand::Resume(self.record.run)));
        }
        actions.push(Action::Arm(Timer::Arrival, self.arrival_max));
    }

    fn complete(&mut self, actions: &mut Vec<Action>) {
        if self.phase == Phase::Recording {
            return;
        }
        self.phase = Phase::Complete;
        self.why = String::new();
        self.repeats = 0;
        actions.push(Action::Disarm(Timer::Arrival));
        if self.handed_over {
            self.own(actions);
        } else {
            actions.push(Action::Arm(Timer::Repeat, REPEAT));
        }
    }

    fn hand_over(&mut self, run: RunState, actions: &mut Vec<Action>) {
        self.record.run = run;
        match self.phase {
            Phase::Recording | Phase::Waiting | Phase::Looking
                if self.record.stage == MoveStage::Prepared =>
            {
                self.handed_over = true;
                actions.push(Action::Standing(Standing::NotComplete));
            }
            Phase::Complete => self.own(actions),
            _ => self.say_where_it_stands(actions),
        }
    }

    /// The source does not know whether its guest ran on: its word is no hand-over, and a complete copy here goes on waiting.
    fn inquiry(&mut self, actions: &mut Vec<Action>) {
        match self.phase {
            Phase::Recording | Phase::Waiting | Phase::Looking
                if self.record.stage == MoveStage::Prepared =>
            {
                actions.push(Action::Standing(Standing::NotComplete));
            }
            Phase::Complete => actions.push(Action::Remind),
            _ => self.say_where_it_stands(actions),
        }
    }

    fn say_where_it_stands(&self, actions: &mut Vec<Action>) {
        let standing = match self.phase {
            Phase::Owning | Phase::Resuming | Phase::Confirming | Phase::Looking => {
                Standing::OwnerNotResumed
            }
            Phase::Arrived => Standing::Running,
            Phase::Void => Standing::Void,
            Phase::Lost => Standing::OwnerCopyGone,
            Phase::Doubtful => Standing::Unknown,
            Phase::Recording
            | Phase::Waiting
            | Phase::Complete
            | Phase::Voiding
            | Phase::Destroying => return,
        };
        actions.push(Action::Standing(standing));
    }

    fn own(&mut self, actions: &mut Vec<Action>) {
        if self.vm.floor > self.record.epoch {
            self.why = format!(
                "it was handed over under epoch {}, but {} is known here",
                self.record.epoch + 1,
                self.vm.floor
            );
            actions.push(Action::Alarm(self.why.clone()));
            return self.void(actions);
        }
        self.take_over(actions);
    }

    fn take_over(&mut self, actions: &mut Vec<Action>) {
        self.phase = Phase::Owning;
        self.record.stage = MoveStage::Owning;
        let next = self.record.epoch + u64::from(!planted(Bug::EpochNotRaised));
        self.vm.floor = self.vm.floor.max(next);
        self.vm.ownership = Ownership::Owner;
        actions.push(Action::Disarm(Timer::Repeat));
        self.persist(actions);
        if planted(Bug::ResumeBeforeRecord) {
            self.resume(actions);
        }
    }

    fn resume(&mut self, actions: &mut Vec<Action>) {
        self.phase = Phase::Resuming;
        actions.push(Action::Hypervisor(HypervisorCommand::Resume(self.record.run)));
        actions.push(Action::Arm(Timer::Repeat, RESUME_AGAIN));
    }

    fn resume_failed(&mut self, why: String, seen: Seen, actions: &mut Vec<Action>) {
        if seen == Seen::Gone {
            return self.lost(why, actions);
        }
        self.repeats = self.repeats.saturating_add(1);
        if self.repeats == REPEATS_BEFORE_ALARM {
            actions.push(Action::Alarm(format!("the VM is ours but does not come up: {why}")));
        }
        actions.push(Action::Arm(Timer::Repeat, REPEAT));
    }

    /// The source's word: it did not release, so nobody needs this copy.
    fn release(&mut self, actions: &mut Vec<Action>) {
        match self.phase {
            Phase::Recording | Phase::Waiting | Phase::Complete => {
                self.why = "the source let go".to_owned();
                self.void(actions);
            }
            Phase::Void => actions.push(Action::Standing(Standing::Void)),
            _ => {}
        }
    }

    fn timeout(&mut self, timer: Timer, actions: &mut Vec<Action>) {
        match (timer, self.phase) {
            // It may be complete all the same: that is for the hypervisor to say, and then it stays.
            (Timer::Arrival | Timer::Repeat, Phase::Waiting) => {
                self.why = "the copy did not come in time".to_owned();
                if planted(Bug::LateCopyEnded) {
                    return self.void(actions);
                }
                actions.push(Action::Hypervisor(HypervisorCommand::DestroyIncomplete));
                actions.push(Action::Arm(Timer::Repeat, RESUME_AGAIN));
            }
            (Timer::Repeat, Phase::Complete) => {
                self.repeats = self.repeats.saturating_add(1);
                if self.repeats == REPEATS_BEFORE_ALARM {
                    if planted(Bug::DiscardCompleteOnTimeout) {
                        return self.void(actions);
                    }
                    actions.push(Action::Alarm(
                        "a complete copy waits here for its source's word".to_owned(),
                    ));
                }
                actions.push(Action::Remind);
                actions.push(Action::Arm(Timer::Repeat, REPEAT));
            }
            (Timer::Repeat, Phase::Resuming) => self.resume(actions),
            (Timer::Repeat, Phase::Destroying) => self.destroy(actions),
            (Timer::Repeat, Phase::Looking) => self.look(actions),
            (Timer::Repeat, Phase::Owning | Phase::Voiding) => self.persist(actions),
            (Timer::Repeat, Phase::Confirming) => self.persist_end(actions),
            (Timer::Repeat, Phase::Void) => self.forget(actions),
            _ => {}
        }
    }

    /// In this order: the floor on disk, the incoming side proven gone, then the answer.
    fn void(&mut self, actions: &mut Vec<Action>) {
        self.phase = Phase::Voiding;
        self.record.stage = MoveStage::Voiding;
        self.vm.floor = self.vm.floor.max(self.record.epoch + 1);
        // It may have been about to become ours; nothing was resumed since.
        self.vm.ownership = Ownership::Away;
        actions.extend([Timer::Arrival, Timer::Repeat].map(Action::Disarm));
        self.persist(actions);
    }

    fn destroy(&mut self, actions: &mut Vec<Action>) {
        self.phase = Phase::Destroying;
        actions.push(Action::Hypervisor(HypervisorCommand::DestroyIncoming));
        actions.push(Action::Arm(Timer::Repeat, REPEAT));
    }

    fn lost(&mut self, why: String, actions: &mut Vec<Action>) {
        self.phase = Phase::Lost;
        self.vm.ownership = Ownership::Down;
        self.persist_end(actions);
        actions.push(Action::Alarm(format!("the VM is down: {why}")));
        actions.push(Action::Standing(Standing::OwnerCopyGone));
        self.over(Outcome::Down(why), actions);
    }

    fn over(&mut self, outcome: Outcome, actions: &mut Vec<Action>) {
        actions.extend([Timer::Arrival, Timer::Repeat].map(Action::Disarm));
        actions.push(Action::Over(outcome));
    }

    fn persist(&self, actions: &mut Vec<Action>) {
        let vm = Record::Vm(self.record.vm, self.vm);
        actions
            .push(Action::Persist(vec![vm, Record::Move(self.move_id, Some(self.record.clone()))]));
    }

    /// The promise stays on disk for ever; what it was about need not. The VM's record is not touched: it may have moved on.
    fn forget(&self, actions: &mut Vec<Action>) {
        actions.push(Action::Persist(vec![Record::Move(self.move_id, None)]));
    }

    fn persist_end(&self, actions: &mut Vec<Action>) {
        actions.push(Action::Persist(vec![
            Record::Vm(self.record.vm, self.vm),
            Record::Move(self.move_id, None),
        ]));
    }
}
