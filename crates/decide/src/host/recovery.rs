//! What the journal had open when the agent started is taken up again: each move by its own machine.
//!
//! VMs never depend on the agent: whatever happened meanwhile, the machines look first.

use super::incoming::Incoming;
use super::migrating_in::{NEVER_HERE, arrival_max};
use super::outgoing::Outgoing;
use super::story::{Note, Step, Story};
use super::{Action, Host, Vm, Writer};
use crate::migrate::record::{MoveRecord, MoveStage, Ownership, Record, VmRecord};
use crate::migrate::{source, target};
use crate::units::{Mib, MoveId, Time};
use crate::usage::history::Whose;
use crate::usage::load::Load;

use std::collections::BTreeMap;

impl Host {
    pub(super) fn recover(
        &mut self,
        now: Time,
        moves: BTreeMap<MoveId, MoveRecord>,
        doubt: Option<&str>,
        actions: &mut Vec<Action>,
    ) {
        if let Some(doubt) = doubt {
            self.alarm(Note::new(Step::Alarm, doubt), actions);
        }
        for (id, record) in moves {
            let known = self.records.get(&record.vm).copied().unwrap_or(NEVER_HERE);
            if !fits(id, &record, known) {
                self.persist(Writer::Leftover(id), vec![Record::Move(id, None)], actions);
                continue;
            }
            match record.stage {
                MoveStage::Copying | MoveStage::HandingOver | MoveStage::TakingBack => {
                    self.recover_out(now, id, record, actions)
                }
                MoveStage::Prepared | MoveStage::Owning | MoveStage::Voiding => {
                    self.recover_in(now, id, record, actions)
                }
            }
        }
    }

    fn recover_out(
        &mut self,
        now: Time,
        id: MoveId,
        record: MoveRecord,
        actions: &mut Vec<Action>,
    ) {
        let known = self.records.get(&record.vm).copied().unwrap_or(NEVER_HERE);
        let (vm, memory) = (record.vm, record.definition.as_ref().map_or(Mib(0), |d| d.memory));
        let name = record.definition.as_ref().map(|d| d.name.clone()).unwrap_or_default();
        if let Some(definition) = record.definition.clone() {
            let new = Vm::new(definition, record.run, known, &self.settings.rules);
            self.vms.insert(vm, Vm { rest_until: now, ..new });
            actions.push(Action::Recall(Whose::Vm(vm)));
        }
        let mut story =
            Story::new(id, vm, name, "found open when the agent started".to_owned(), now);
        (story.to, story.phase) = (Some(record.peer), "recovering");
        self.tales.begin(story);
        let migrate = Some(source::Source::recovered(id, record, known));
        let out = Outgoing::new(vm, memory, Load { memory, ..Load::default() });
        self.outgoing.insert(id, Outgoing { confirmed: true, by_hand: true, migrate, ..out });
        self.out(now, id, source::Event::Begin, actions);
    }

    fn recover_in(&mut self, now: Time, id: MoveId, record: MoveRecord, actions: &mut Vec<Action>) {
        let known = self.records.get(&record.vm).copied().unwrap_or(NEVER_HERE);
        let definition = record.definition.as_ref();
        let (vm, memory) = (record.vm, definition.map_or(Mib(0), |d| d.memory));
        let name = definition.map(|d| d.name.clone()).unwrap_or_default();
        let demand = Load { memory, ..Load::default() };
        let tags = definition.map(|d| &*d.tags).unwrap_or_default();
        let rules = self.settings.rules.of(vm, &name, tags);
        let mut incoming = Incoming::new(vm, name, memory, demand, None);
        (incoming.tags, incoming.rules) = (tags.to_vec(), rules);
        let copy = self.copy_parameters(&incoming.rules, incoming.encrypted);
        // What was agreed is not on record: the most.
        let copied = record.definition.as_ref().map_or(memory, |it| it.copied(true));
        let longest = arrival_max(copied, copy);
        incoming.migrate = Some(target::Target::recovered(id, record, known, longest));
        self.incoming.insert(id, incoming);
        self.inward(now, id, target::Event::Begin, actions);
    }
}

/// Whether an open move still is what the VM is about. One whose end could not be written is not: the VM's own record has
/// gone on since, and nothing of the move may be taken up again.
fn fits(id: MoveId, record: &MoveRecord, vm: VmRecord) -> bool {
    let next = record.epoch.saturating_add(1);
    match record.stage {
        MoveStage::Copying => vm.ownership == Ownership::Owner && vm.floor == record.epoch,
        MoveStage::HandingOver => vm.ownership == Ownership::Released(record.peer, id),
        MoveStage::TakingBack => vm.ownership == Ownership::Owner && vm.floor > record.epoch,
        MoveStage::Prepared => vm.floor <= record.epoch && vm.ownership != Ownership::Owner,
        MoveStage::Owning => vm.ownership == Ownership::Owner && vm.floor == next,
        MoveStage::Voiding => vm.ownership == Ownership::Away && vm.floor >= next,
    }
}
