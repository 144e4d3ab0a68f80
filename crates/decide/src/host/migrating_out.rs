//! Moves from here, from readiness to the end.

use super::exchange::Why;
use super::story::{Note, Step};
use super::{Action, Host, TimerKey, Vm, Writer};
use crate::migrate::hypervisor::{Endpoint, HypervisorCommand, HypervisorReport};
use crate::migrate::precopy;
use crate::migrate::record::{MoveRecord, MoveStage, Ownership, Record};
use crate::migrate::source::{Action as Wanted, Event, Outcome, Phase, Source};
use crate::policy::quantity::duration_text;
use crate::units::{Epoch, HostId, MoveId, Time};
use crate::wire::message::{Body, JournalMark, Standing};

impl Host {
    pub(super) fn start_copy(
        &mut self,
        now: Time,
        id: MoveId,
        target: HostId,
        endpoint: Endpoint,
        journal: JournalMark,
        actions: &mut Vec<Action>,
    ) {
        let out = &self.outgoing[&id];
        let encrypted = out.encrypted.contains(&target);
        let rules = &self.vms[&out.vm].rules;
        let (copy, pause_max) = (self.copy_parameters(rules, encrypted), self.pause_max(rules));
        let out = self.outgoing.get_mut(&id).expect("its negotiation has just said so");
        let vm = &self.vms[&out.vm];
        let record = MoveRecord {
            vm: out.vm,
            peer: target,
            epoch: vm.record.floor,
            run: vm.run,
            journal,
            stage: MoveStage::Copying,
            definition: Some(vm.definition.clone()),
            doubtful: false,
        };
        let copied = vm.definition.copied(copy.copy_disks);
        let copy_max = precopy::allowed(copied, copy);
        let balances = !out.by_rule || out.empties;
        if balances && !out.by_hand && out.half_of.is_none() {
            self.recent.push(now);
            self.lasting.changed = true;
        }
        let promised = out.is_to_pay();
        let to = (endpoint, copy);
        out.migrate = Some(Source::new(id, record, vm.record, to, copy_max, pause_max));
        self.agree(id, target);
        if promised {
            self.promise(now, id, target);
        }
        self.out(now, id, Event::Begin, actions);
    }

    /// Drives a move's copy and hand-over, and does what it wants.
    pub(super) fn out(&mut self, now: Time, id: MoveId, event: Event, actions: &mut Vec<Action>) {
        let Some(out) = self.outgoing.get_mut(&id) else { return };
        let Some(migrate) = out.migrate.as_mut() else { return };
        if matches!(
            (&event, migrate.phase()),
            (Event::Standing(Standing::Running), Phase::HandingOver)
        ) {
            self.tales.tell(id, |story| story.running = Some(now));
            actions.push(Action::Note(
                Note::new(Step::Running, "it was seen running there")
                    .of(id, out.vm)
                    .with(migrate.record().peer),
            ));
        }
        let mut wanted = Vec::new();
        migrate.handle(event, &mut wanted);
        let (vm, phase) = (out.vm, migrate.phase());
        for action in wanted {
            match action {
                Wanted::Persist(records) => {
                    self.remember(&records);
                    self.persist(Writer::Out(id), records, actions);
                }
                Wanted::Hypervisor(command) => {
                    self.note_command(now, id, &command, actions);
                    actions.push(Action::Hypervisor(id, vm, command));
                }
                Wanted::HandOver => self.hand_over(id, actions),
                Wanted::Inquire => self.inquire(id, actions),
                Wanted::Release => {
                    let peer = self.outgoing[&id].migrate.as_ref().map(|m| m.record().peer);
                    peer.into_iter().for_each(|peer| self.send(peer, id, Body::Release, actions));
                }
                Wanted::Arm(timer, after) => self.arm(now, TimerKey::Out(id, timer), after),
                Wanted::Disarm(timer) => {
                    self.timers.remove(&TimerKey::Out(id, timer));
                }
                Wanted::Alarm(why) => {
                    self.alarm_once(Note::new(Step::Alarm, why).of(id, vm), actions)
                }
                Wanted::Over(outcome) => return self.out_over(now, id, outcome, actions),
            }
        }
        self.tales.tell(id, |story| story.phase = word(phase));
    }

    /// What the journal has, or is about to have, is what this host goes by.
    pub(super) fn remember(&mut self, records: &[Record]) {
        for record in records {
            if let Record::Vm(vm, record) = record {
                self.records.insert(*vm, *record);
                if let Some(here) = self.vms.get_mut(vm) {
                    here.record = *record;
                }
            }
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "few commands are worth a note")]
    fn note_command(
        &mut self,
        now: Time,
        id: MoveId,
        command: &HypervisorCommand,
        actions: &mut Vec<Action>,
    ) {
        match command {
            HypervisorCommand::StartCopy(endpoint, copy) => {
                let encrypted = copy.encrypted;
                self.tales.tell(id, |story| {
                    (story.copy_began, story.encrypted) = (Some(now), Some(encrypted));
                });
                let mbit = copy.bandwidth.0 / 1_000_000;
                let how = if encrypted { "memory, encrypted," } else { "memory" };
                let words = format!("copying {how} to {}, at most {mbit} Mbit/s", endpoint.shown());
                self.note_move(id, Step::Copy, &words, |n| n, actions);
            }
            HypervisorCommand::AllowPause(pause) => {
                let pause = duration_text(*pause);
                let words = format!(
                    "the guest writes as fast as the copy follows: a pause of {pause} at its end is allowed now"
                );
                self.note_move(id, Step::Stall, &words, |n| n, actions);
            }
            HypervisorCommand::CancelCopy => {
                self.note_move(id, Step::Undo, "cancelling the copy", |n| n, actions)
            }
            HypervisorCommand::TakeBack(_) => {
                self.note_move(id, Step::Undo, "taking the VM back", |n| n, actions)
            }
            _ => {}
        }
    }

    fn hand_over(&mut self, id: MoveId, actions: &mut Vec<Action>) {
        let Some(migrate) = self.outgoing.get(&id).and_then(|out| out.migrate.as_ref()) else {
            return;
        };
        let record = migrate.record();
        let (vm, peer, run, journal) = (record.vm, record.peer, record.run, record.journal);
        let epoch = Epoch { number: record.epoch + 1, owner: peer };
        let mut first = false;
        self.tales.tell(id, |story| {
            first = std::mem::replace(&mut story.phase, "handing-over") != "handing-over"
        });
        if first {
            let words =
                format!("released on disk, the tap is off; epoch {} is the target's", epoch.number);
            self.note_move(id, Step::HandOver, &words, |n| n.with(peer), actions);
        }
        self.send(peer, id, Body::HandOver { vm, epoch, run, journal }, actions);
    }

    fn inquire(&mut self, id: MoveId, actions: &mut Vec<Action>) {
        let record =
            self.outgoing.get(&id).and_then(|out| out.migrate.as_ref()).map(Source::record);
        let Some(record) = record else { return };
        let (vm, peer, journal) = (record.vm, record.peer, record.journal);
        let epoch = Epoch { number: record.epoch + 1, owner: peer };
        self.send(peer, id, Body::Inquiry { vm, epoch, journal }, actions);
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "few reports change the story")]
    pub(super) fn out_report(
        &mut self,
        now: Time,
        id: MoveId,
        report: HypervisorReport,
        actions: &mut Vec<Action>,
    ) {
        match &report {
            HypervisorReport::Progress(progress) => {
                self.tales.tell(id, |story| story.progress = *progress)
            }
            HypervisorReport::PreSwitchover => {
                self.tales.tell(id, |story| story.paused = Some(now));
                self.note_move(id, Step::SwitchOver, "paused for the last round", |n| n, actions);
            }
            HypervisorReport::SourceCompleted(figures) => {
                // A hypervisor may say only after the last round that the guest was paused for it.
                let at = now.minus(figures.downtime);
                self.tales.tell(id, |story| {
                    story.progress = figures.progress;
                    story.paused = story.paused.map(|heard| heard.min(at));
                });
            }
            _ => {}
        }
        self.out(now, id, Event::Report(report), actions);
    }

    fn out_over(&mut self, now: Time, id: MoveId, outcome: Outcome, actions: &mut Vec<Action>) {
        let out = self.outgoing.remove(&id).expect("its machine has just spoken");
        let peer = out.migrate.as_ref().map_or(self.id, |m| m.record().peer);
        self.end_alarms(id);
        let note = |step, why: String| Note::new(step, why).of(id, out.vm).with(peer);
        match outcome {
            Outcome::Done => {
                if let Some(left) = self.vms.remove(&out.vm) {
                    self.left_in_drain(&left, peer, actions);
                }
                self.end_contradiction(out.vm);
                self.usage.forget(out.vm);
                self.failures = 0;
                self.vms.values_mut().for_each(|vm| vm.in_vain = 0);
                self.pay_backs.departed(id, now);
                self.lasting.changed = true;
                self.rest(now, "a VM has just left");
                if let Some(back) = &out.back {
                    self.await_other(now, id, peer, back);
                }
                if let Some(first) = out.half_of {
                    self.other_went(now, first, out.vm);
                }
                out.followers.iter().for_each(|it| self.owe(now, id, it.vm, peer, Why::Follows));
                let words = format!("the VM runs at {}", self.name_of(peer));
                self.tales.end(now, id, "done", &words);
                actions.push(Action::Note(note(Step::Done, words)));
            }
            Outcome::Undone(why) => {
                self.tales.end(now, id, "abandoned", &why);
                actions
                    .push(Action::Note(note(Step::Abandoned, format!("{why}; the VM stays here"))));
                if !out.by_hand && out.half_of.is_none() {
                    self.back_off_from_copy(now, out.vm, &why, out.by_rule);
                }
                self.testify(out.vm, actions);
                if let Some(how) = out.process_gone {
                    self.gone(now, out.vm, &how, actions);
                }
            }
            Outcome::GivenUp(why) => {
                self.vms.remove(&out.vm);
                self.usage.forget(out.vm);
                self.tales.end(now, id, "given-up", &why);
                actions.push(Action::Note(note(
                    Step::Abandoned,
                    format!("{why}; its copy here is gone"),
                )));
            }
            Outcome::Down(why) => {
                self.tales.end(now, id, "down", &why);
                let elsewhere = |vm: &Vm| matches!(vm.record.ownership, Ownership::Released(..));
                if out.process_gone.is_some() && self.vms.get(&out.vm).is_some_and(elsewhere) {
                    // It is another host's, and nothing of it is left here.
                    self.vms.remove(&out.vm);
                    self.usage.forget(out.vm);
                } else if let Some(vm) = self.vms.get_mut(&out.vm) {
                    vm.trouble = Some(format!("down: {why}"));
                }
                self.alarm_once(note(Step::VmDown, why), actions);
            }
        }
    }

    /// After a move that was made, no other by itself for a while.
    pub(super) fn rest(&mut self, now: Time, why: &str) {
        let until = now.plus(self.settings.worth_it.host_rest);
        self.rest_at_least(until, why.to_owned());
    }

    /// A shorter rest never ends a longer one.
    pub(super) fn rest_at_least(&mut self, until: Time, why: String) {
        if until > self.rest_until {
            (self.rest_until, self.rest_reason) = (until, why);
            // Something has happened here: what was looked for in vain may be there now.
            self.looked_in_vain = None;
        }
    }
}

fn word(phase: Phase) -> &'static str {
    match phase {
        Phase::Recording => "ready",
        Phase::Copying => "copying",
        Phase::SwitchingOver => "switching-over",
        Phase::Cancelling => "cancelling",
        Phase::Releasing | Phase::Fencing => "releasing",
        Phase::HandingOver => "handing-over",
        Phase::Discarding | Phase::Closing => "discarding",
        Phase::Reclaiming | Phase::Resuming => "taking-back",
        Phase::Undoing => "undoing",
        Phase::Stranded => "stranded",
        Phase::Looking => "recovering",
        Phase::Doubtful => "doubtful",
        Phase::Over => "over",
    }
}
