//! Moves to here, from the incoming side to the end.

use std::time::Duration;

use super::exchange::Why;
use super::incoming::Incoming;
use super::story::{Note, Step, Story};
use super::{Action, Host, TimerKey, Vm, Writer};
use crate::migrate::hypervisor::{CopyParameters, HypervisorCommand, HypervisorReport, RunState};
use crate::migrate::precopy;
use crate::migrate::record::{MoveRecord, MoveStage, Ownership, VmRecord};
use crate::migrate::target::{
    Action as Wanted, Event, Outcome, Phase, Target, answers_for, standing_without_move,
};
use crate::negotiate::target as negotiate_target;
use crate::placement::share;
use crate::units::{Cost, Epoch, Mib, MoveId, Time, VmId};
use crate::usage::history::Whose;
use crate::usage::history::past::Stay;
use crate::wire::message::{Body, JournalMark, Standing};

/// How often a source is reminded of an incoming side that waits for its copy.
const REMIND: Duration = Duration::from_secs(5);

impl Host {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the machine takes all other reports")]
    pub(super) fn in_report(
        &mut self,
        now: Time,
        id: MoveId,
        report: HypervisorReport,
        actions: &mut Vec<Action>,
    ) {
        match report {
            HypervisorReport::Prepared(endpoint) => {
                if let Some(incoming) = self.incoming.get_mut(&id) {
                    incoming.endpoint = Some(endpoint);
                }
                self.offering(now, id, negotiate_target::Event::Prepared, actions);
            }
            HypervisorReport::PrepareFailed(why) => {
                let failed = HypervisorReport::IncomingFailed(why.clone());
                self.inward(now, id, Event::Report(failed), actions);
                self.offering(now, id, negotiate_target::Event::PrepareFailed(why), actions);
            }
            report => self.inward(now, id, Event::Report(report), actions),
        }
    }

    /// That an incoming side may be here goes on record before it is started: an agent that is killed in between
    /// would leave a process behind that nobody knows.
    pub(super) fn record_incoming(&mut self, now: Time, id: MoveId, actions: &mut Vec<Action>) {
        let Some(incoming) = self.incoming.get_mut(&id) else { return };
        let Some(confirmation) = incoming.confirmation.as_ref() else { return };
        let record = MoveRecord {
            vm: incoming.vm,
            peer: id.host,
            epoch: confirmation.epoch.number,
            run: RunState::Running,
            journal: self.journal,
            stage: MoveStage::Prepared,
            definition: Some(confirmation.definition.clone()),
            doubtful: false,
        };
        let vm = self.records.get(&incoming.vm).copied().unwrap_or(NEVER_HERE);
        let copied = confirmation.definition.copied(confirmation.copy.copy_disks);
        let arrival_max = arrival_max(copied, confirmation.copy);
        incoming.migrate = Some(Target::new(id, record, vm, arrival_max));
        self.inward(now, id, Event::Begin, actions);
    }

    /// It is on record: the incoming side may be started.
    fn prepare(&self, id: MoveId, actions: &mut Vec<Action>) {
        let Some(incoming) = self.incoming.get(&id) else { return };
        if let Some(confirmation) = incoming.confirmation.as_ref() {
            let (allowed, capacity) = (&self.settings.share, self.usage.capacity());
            let share = share::of_arrival(allowed, incoming.demand, capacity).map(Box::new);
            let definition = confirmation.definition.clone();
            let command =
                HypervisorCommand::Prepare(Box::new(definition), confirmation.copy, share);
            actions.push(Action::Hypervisor(id, incoming.vm, command));
        }
    }

    /// Drives the incoming side, and does what it wants.
    pub(super) fn inward(
        &mut self,
        now: Time,
        id: MoveId,
        event: Event,
        actions: &mut Vec<Action>,
    ) {
        let Some(incoming) = self.incoming.get_mut(&id) else { return };
        let Some(migrate) = incoming.migrate.as_mut() else { return };
        let (vm, epoch) = (incoming.vm, migrate.record().epoch + 1);
        if event == Event::Begin {
            let why = "to here: see its source for why".to_owned();
            self.tales.begin(Story::new(id, vm, incoming.name.clone(), why, now));
            let encrypted = Some(incoming.encrypted);
            self.tales.tell(id, |story| (story.to, story.encrypted) = (Some(self.id), encrypted));
        }
        let mut wanted = Vec::new();
        migrate.handle(event, &mut wanted);
        let waits = migrate.phase() == Phase::Waiting;
        let phase = word(migrate.phase());
        self.tales.tell(id, |story| story.phase = phase);
        if waits && !self.timers.contains_key(&TimerKey::Remind(id)) {
            self.arm(now, TimerKey::Remind(id), REMIND);
        }
        for action in wanted {
            match action {
                Wanted::Persist(records) => {
                    self.remember(&records);
                    self.persist(Writer::In(id), records, actions);
                }
                Wanted::Hypervisor(command) => actions.push(Action::Hypervisor(id, vm, command)),
                Wanted::Recorded => self.prepare(id, actions),
                Wanted::Remind => self.remind(id, actions),
                Wanted::Standing(standing) => self.say_standing(id, vm, epoch, standing, actions),
                Wanted::Arm(timer, after) => self.arm(now, TimerKey::In(id, timer), after),
                Wanted::Disarm(timer) => {
                    self.timers.remove(&TimerKey::In(id, timer));
                }
                Wanted::Alarm(why) => {
                    self.alarm_once(Note::new(Step::Alarm, why).of(id, vm).with(id.host), actions)
                }
                Wanted::Over(outcome) => self.in_over(now, id, outcome, actions),
            }
        }
    }

    /// A source that was restarted, or could not be heard, may have forgotten the move, or have let go: then it says so.
    pub(super) fn remind_again(&mut self, now: Time, id: MoveId, actions: &mut Vec<Action>) {
        let incoming = self.incoming.get(&id).and_then(|incoming| incoming.migrate.as_ref());
        if incoming.is_some_and(|migrate| migrate.phase() == Phase::Waiting) {
            self.remind(id, actions);
            self.arm(now, TimerKey::Remind(id), REMIND);
        }
    }

    fn remind(&mut self, id: MoveId, actions: &mut Vec<Action>) {
        let cost = self.target.offers().get(&id).map_or(Cost(0), |offer| offer.cost);
        let endpoint = self
            .incoming
            .get(&id)
            .and_then(|incoming| incoming.endpoint.clone())
            .unwrap_or_default();
        self.send(id.host, id, Body::Readiness { cost, endpoint, journal: self.journal }, actions);
    }

    fn say_standing(
        &self,
        id: MoveId,
        vm: VmId,
        epoch: u64,
        standing: Standing,
        actions: &mut Vec<Action>,
    ) {
        let epoch = Epoch { number: epoch, owner: self.id };
        let journal = Some(self.journal);
        self.send(id.host, id, Body::Standing { vm, epoch, standing, journal }, actions);
    }

    fn in_over(&mut self, now: Time, id: MoveId, outcome: Outcome, actions: &mut Vec<Action>) {
        self.end_alarms(id);
        self.offering(now, id, negotiate_target::Event::Ended, actions);
        let Some(incoming) = self.incoming.get_mut(&id) else { return };
        let vm = incoming.vm;
        let note = |step, why: String| Action::Note(Note::new(step, why).of(id, vm).with(id.host));
        match outcome {
            Outcome::Void(why) => {
                self.tales.end(now, id, "abandoned", &why);
                incoming.ended = true;
                actions.push(Action::DropHistory(vm));
                actions.push(note(
                    Step::Undo,
                    format!("{why}; the incoming side is gone, the VM stays at its source"),
                ));
            }
            Outcome::Arrived => {
                let incoming = self.incoming.remove(&id).expect("it was there a line before");
                let process_gone = incoming.process_gone.clone();
                self.tales.end(now, id, "done", "the VM runs here");
                self.arrive(now, id, incoming, actions);
                actions.push(note(Step::Running, "the VM runs here".to_owned()));
                self.testify(vm, actions);
                if let Some(how) = process_gone {
                    self.gone(now, vm, &how, actions);
                }
            }
            Outcome::Down(why) => {
                self.tales.end(now, id, "down", &why);
                let incoming = self.incoming.remove(&id).expect("it was there a line before");
                self.arrive(now, id, incoming, actions);
                if let Some(here) = self.vms.get_mut(&vm) {
                    here.trouble = Some(format!("down: {why}"));
                }
                let note = Note::new(Step::VmDown, why).of(id, vm).with(id.host);
                self.alarm_once(note, actions);
            }
        }
    }

    /// The VM is one of ours, with its history as if it had always been here.
    fn arrive(
        &mut self,
        now: Time,
        move_id: MoveId,
        incoming: Incoming,
        actions: &mut Vec<Action>,
    ) {
        let Incoming { vm, history, migrate, demand, confirmation, forced, .. } = incoming;
        let Incoming { back, half_of, followers, .. } = incoming;
        let Some(migrate) = migrate else { return };
        self.arrived.insert(vm, (demand, now));
        self.lasting.forget(vm);
        let record = migrate.record();
        if let Some(definition) = record.definition.clone() {
            let new = Vm::new(definition, record.run, migrate.vm_record(), &self.settings.rules);
            self.vms.insert(vm, new);
            let group = followers.iter().map(|it| it.vm).collect();
            self.rest_of_arrival(now, move_id, (vm, group), confirmation.as_ref());
            if forced && let Some(here) = self.vms.get_mut(&vm) {
                here.insisted_until = here.rest_until;
            }
        }
        let name = self.name_of(move_id.host);
        let before = Stay { host: move_id.host, name, move_id, ended: now };
        self.usage.import(now, vm, &history.unwrap_or_default(), before);
        // Where it was is kept at once; what came of its history goes into the store too, from where an agent that was started
        // anew since learns what the one before had heard.
        actions.push(Action::Keep(self.usage.take_kept()));
        actions.push(Action::Recall(Whose::Vm(vm)));
        self.rest(now, "a VM has just arrived");
        if let Some((back, wish)) = back {
            let applied = wish.applied;
            self.owe(now, move_id, back, move_id.host, Why::Returns { applied });
        }
        if let Some(first) = half_of {
            self.other_came(now, first, vm);
        }
        followers.iter().for_each(|it| self.await_other(now, move_id, move_id.host, it));
    }

    /// The source says that the VM is ours, and what its guest did; or, without that, asks what has become of it.
    #[expect(clippy::too_many_arguments, reason = "the parts of one message")]
    pub(super) fn handed_over(
        &mut self,
        now: Time,
        id: MoveId,
        vm: VmId,
        epoch: Epoch,
        run: Option<RunState>,
        journal: JournalMark,
        actions: &mut Vec<Action>,
    ) {
        if !answers_for(&self.journal, &journal) || epoch.owner != self.id || epoch.number == 0 {
            let why = "a hand-over names another journal than this host's: it was replaced or set back; look at both hosts";
            self.alarm_once(Note::new(Step::Alarm, why).of(id, vm).with(id.host), actions);
            return self.say_standing(id, vm, epoch.number, Standing::Unknown, actions);
        }
        let machine = self.incoming.get(&id).and_then(|incoming| incoming.migrate.as_ref());
        if machine.is_some_and(|m| m.vm() == vm && m.record().epoch + 1 == epoch.number) {
            let event = run.map_or(Event::Inquiry, Event::HandOver);
            return self.inward(now, id, event, actions);
        }
        let record = self.records.get(&vm).copied().unwrap_or(NEVER_HERE);
        let standing = standing_without_move(record, epoch.number);
        if standing == Standing::Unknown {
            let why = "a hand-over names a move that this journal does not know: it was replaced or set back, or the VM came here by another way; look at both hosts";
            self.alarm_once(Note::new(Step::Alarm, why).of(id, vm).with(id.host), actions);
        }
        self.say_standing(id, vm, epoch.number, standing, actions);
    }
}

/// What the journal has of a VM that it has never heard of.
pub(super) const NEVER_HERE: VmRecord = VmRecord { floor: 0, ran: 0, ownership: Ownership::Away };

/// The target gives up later than the source does, so that the source's word comes first.
pub(super) fn arrival_max(copied: Mib, copy: CopyParameters) -> Duration {
    precopy::longest(copied, copy.bandwidth)
        .saturating_mul(2)
        .saturating_add(Duration::from_secs(60))
}

fn word(phase: Phase) -> &'static str {
    match phase {
        Phase::Recording => "confirmed",
        Phase::Waiting => "copying",
        Phase::Complete | Phase::Owning | Phase::Resuming | Phase::Confirming => "handing-over",
        Phase::Voiding | Phase::Destroying | Phase::Void => "undoing",
        Phase::Looking => "recovering",
        Phase::Doubtful => "doubtful",
        Phase::Arrived => "done",
        Phase::Lost => "down",
    }
}
