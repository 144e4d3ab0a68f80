//! The VMs here: found, adopted, gone.

use std::time::Duration;

use super::inventory::TWO_COPIES;
use super::story::{Note, Step};
use super::witness::{CONTRADICTED, beyond, credible};
use super::{Action, Host, Writer};
use crate::migrate::hypervisor::{HypervisorReport, RunState, Sighting, VmDefinition, Witness};
use crate::migrate::record::{Ownership, Record, VmRecord};
use crate::migrate::target as migrate_target;
use crate::negotiate::source as negotiate_source;
use crate::policy::rules::{Rules, VmRules};
use crate::units::{Time, VmId};
use crate::usage::history::Whose;
use crate::usage::history::past::Past;
use crate::usage::history::quarters::Quarters;

/// VMs found in the agent's first seconds were here before it; later ones came without it and are left alone for a while.
pub(super) const SETTLING: Duration = Duration::from_secs(10);

/// Names kept of VMs that others asked about.
const HEARD_OF_MAX: usize = 1000;

/// Of a guest that stood still when an agent with a doubtful journal found it.
const DOUBTFUL: &str = "it stands still, and the journal was set back: it may run elsewhere; look at the other hosts, then let it run or end it by hand";

const NOT_WRITTEN: &str = "the journal cannot be written";

/// A VM that this host owns or has just released.
#[derive(Clone, Debug, PartialEq)]
pub struct Vm {
    /// What it is.
    pub definition: VmDefinition,
    /// What the guest does.
    pub run: RunState,
    /// What the journal has of it.
    pub record: VmRecord,
    /// Whether that record is on disk: before, the VM is not moved.
    pub recorded: bool,
    /// Not moved by itself before.
    pub rest_until: Time,
    /// What is wrong with it, if anything.
    pub trouble: Option<String>,
    /// What must hold of where it is, by the settings and its tags.
    pub rules: VmRules,
    /// Not moved by itself before, a broken rule or not: nobody took it.
    pub refused_until: Time,
    /// Moves of it that a policy or a rule wanted and that were not made, since one was made from here.
    pub in_vain: u32,
    /// A rule that it breaks here is not mended by moving it before: a person, or others again and again, have moved it here.
    pub insisted_until: Time,
    /// Who owns it by its own definition: as read last, or as was told to be written since.
    pub witness: Option<Witness>,
}

impl Vm {
    /// A VM of which nothing is wrong.
    pub(super) fn new(
        definition: VmDefinition,
        run: RunState,
        record: VmRecord,
        rules: &Rules,
    ) -> Vm {
        let VmDefinition { vm, name, tags, .. } = &definition;
        let rules = rules.of(*vm, name, tags);
        let (recorded, trouble) = (true, None);
        let (rest_until, refused_until, in_vain, insisted_until) = Default::default();
        Vm {
            definition,
            run,
            record,
            recorded,
            rest_until,
            trouble,
            rules,
            refused_until,
            in_vain,
            insisted_until,
            witness: None,
        }
    }
}

impl Host {
    pub(super) fn sighting(&mut self, now: Time, sighting: Sighting, actions: &mut Vec<Action>) {
        match sighting {
            Sighting::Found(definition, run) => self.found(now, *definition, run, actions),
            Sighting::Unusable(vm, why) => {
                if let Some(here) = vm.and_then(|vm| self.vms.get_mut(&vm)) {
                    here.trouble = Some(why.clone());
                }
                actions.push(Action::Note(Note { vm, ..Note::bad_input(why) }));
            }
            Sighting::Gone(vm, how) => self.gone(now, vm, &how, actions),
            Sighting::RunStateChanged(vm, run) => {
                let copying = self.copies(vm);
                if let Some(here) = self.vms.get_mut(&vm).filter(|_| !copying) {
                    here.run = run;
                    here.trouble = here.trouble.take().filter(|why| why != DOUBTFUL);
                }
            }
        }
    }

    /// Whether a copy of the VM to elsewhere is, or is about to be, under way: then what its process does is the move's.
    pub(super) fn copies(&self, vm: VmId) -> bool {
        self.outgoing.values().any(|out| out.vm == vm && out.migrate.is_some())
    }

    fn found(
        &mut self,
        now: Time,
        mut definition: VmDefinition,
        run: RunState,
        actions: &mut Vec<Action>,
    ) {
        let vm = definition.vm;
        // It is evidence for this host alone, of now.
        let witness = definition.witness.take().filter(credible);
        if self.incoming.values().any(|incoming| incoming.vm == vm && !incoming.ended) {
            return;
        }
        // Somebody has started it again before its move was over.
        let moving = self.outgoing.values_mut().filter(|out| out.vm == vm);
        moving.for_each(|out| out.process_gone = None);
        let copying = self.copies(vm);
        let known_here = self.vms.get_mut(&vm);
        if let Some(here) = known_here.filter(|here| here.record.ownership != Ownership::Down) {
            here.rules = self.settings.rules.of(vm, &definition.name, &definition.tags);
            here.definition = definition;
            here.trouble =
                here.trouble.take().filter(|why| why == DOUBTFUL && run == RunState::Paused);
            if !copying {
                here.run = run;
            }
            return self.confront(now, vm, witness, actions);
        }
        let here_before = now.since(self.started) <= SETTLING;
        let known = self.records.get(&vm).copied();
        let (mut record, why) = adopted(known);
        let mut words = format!("{} found here; {why}", definition.name);
        let beyond = beyond(record, known, witness.as_ref()).cloned();
        if let Some(witness) = &beyond {
            record.floor = witness.epoch.number + 1;
            record.ran = record.floor;
        }
        let (mut rest_until, mut insisted_until) = (now, Time::default());
        if !here_before {
            let told;
            (rest_until, insisted_until, told) =
                self.rest_of_found(now, &definition, known, actions);
            words += &format!("; {told}");
        }
        actions.push(Action::Note(Note::new(Step::Adopted, words).about(vm)));
        let recorded = known == Some(record) && !self.unwritten.contains(&vm);
        if !recorded {
            // One that is being written is older.
            self.writers.retain(|_, writer| *writer != Writer::Adoption(vm));
        }
        let doubtful = self.doubted && run == RunState::Paused;
        let trouble = doubtful.then(|| DOUBTFUL.to_owned());
        let new = Vm::new(definition, run, record, &self.settings.rules);
        self.vms.insert(vm, Vm { recorded, rest_until, insisted_until, trouble, witness, ..new });
        self.lasting.changed |= rest_until > now;
        self.rest_as_before(now, vm);
        actions.push(Action::Recall(Whose::Vm(vm)));
        if let Some(witness) = beyond {
            self.note_beyond(vm, known.map_or(0, |known| known.floor), &witness, actions);
        }
        self.record_vms(actions);
        self.testify(vm, actions);
    }

    /// What was stored of a history goes on where it was.
    pub(super) fn recalled(
        &mut self,
        now: Time,
        whose: Whose,
        mut quarters: Quarters,
        past: &Past,
    ) {
        if let Whose::Vm(vm) = whose
            && !self.vms.contains_key(&vm)
        {
            return;
        }
        quarters.forget_after(now);
        self.usage.recall(whose, &quarters, past);
    }

    /// Writes down each VM that is not, unless that is under way: also again, after a write that failed.
    pub(super) fn record_vms(&mut self, actions: &mut Vec<Action>) {
        let lacking = self.vms.iter().filter(|(_, here)| !here.recorded);
        let lacking: Vec<(VmId, VmRecord)> = lacking.map(|(vm, here)| (*vm, here.record)).collect();
        for (vm, record) in lacking {
            self.records.insert(vm, record);
            self.unwritten.insert(vm);
            if !self.writers.values().any(|writer| *writer == Writer::Adoption(vm)) {
                self.persist(Writer::Adoption(vm), vec![Record::Vm(vm, record)], actions);
            }
        }
    }

    pub(super) fn gone(&mut self, now: Time, vm: VmId, how: &str, actions: &mut Vec<Action>) {
        let coming = self.incoming.iter_mut().find(|(_, i)| i.vm == vm && i.open());
        if let Some((id, incoming)) = coming {
            let id = *id;
            incoming.process_gone = Some(how.to_owned());
            let report = HypervisorReport::IncomingFailed(how.to_owned());
            return self.inward(now, id, migrate_target::Event::Report(report), actions);
        }
        let moving = self.outgoing.iter_mut().find(|(_, out)| out.vm == vm);
        if let Some((_, out)) = moving.filter(|(_, out)| out.migrate.is_some()) {
            // The move hears of it by its own reports; what is left is settled when it is over.
            out.process_gone = Some(how.to_owned());
            return;
        }
        let asking = self.outgoing.iter().find(|(_, out)| out.vm == vm).map(|(id, _)| *id);
        if let Some(id) = asking {
            let why = format!("the VM ended: {how}");
            self.asking(now, id, negotiate_source::Event::Cancel(why), actions);
        }
        let Some(here) = self.vms.remove(&vm) else { return };
        self.lasting.changed = true;
        self.usage.forget(vm);
        self.end_contradiction(vm);
        let words = format!(
            "{} ended: {how}; its definition is kept, nothing is started elsewhere",
            here.definition.name
        );
        actions.push(Action::Note(Note::new(Step::VmDown, words).about(vm)));
    }

    pub(super) fn adoption_stored(&mut self, vm: VmId, actions: &mut Vec<Action>) {
        self.unwritten.remove(&vm);
        if let Some(here) = self.vms.get_mut(&vm) {
            here.recorded = true;
            here.trouble = here.trouble.take().filter(|why| !why.starts_with(NOT_WRITTEN));
        }
        self.testify(vm, actions);
    }

    pub(super) fn adoption_failed(&mut self, vm: VmId, why: &str, actions: &mut Vec<Action>) {
        let words = format!("{NOT_WRITTEN}, so the VM is watched but not moved: {why}");
        if let Some(here) = self.vms.get_mut(&vm) {
            here.trouble = Some(words.clone());
        }
        self.alarm_once(Note::new(Step::Alarm, words).about(vm), actions);
    }

    /// Whether a VM may be moved at all, by whomever.
    ///
    /// # Errors
    /// What stands in the way.
    pub fn movable(&self, vm: VmId) -> Result<(), String> {
        self.free_to_move(vm)?;
        let (open, max) = (self.moves_under_way(), self.settings.limits.moves_per_host);
        if open >= usize::try_from(max).unwrap_or(usize::MAX) {
            return Err(format!("moves_per_host: {open} under way here, {max} allowed"));
        }
        Ok(())
    }

    /// The same, whatever else is under way.
    pub(super) fn free_to_move(&self, vm: VmId) -> Result<(), String> {
        self.sound(vm)?;
        let here = &self.vms[&vm];
        if self.outgoing.values().any(|out| out.vm == vm) {
            return Err("it is being moved already".to_owned());
        }
        if self.ahead.has(vm) {
            return Err("it is planned already".to_owned());
        }
        if here.record.ownership != Ownership::Owner {
            return Err("it is not this host's".to_owned());
        }
        if !here.recorded {
            return Err("it is not in the journal yet".to_owned());
        }
        Ok(())
    }

    /// Whether nothing is wrong with a VM that keeps it from being moved.
    ///
    /// # Errors
    /// What is.
    pub(super) fn sound(&self, vm: VmId) -> Result<(), String> {
        let Some(here) = self.vms.get(&vm) else { return Err(format!("no VM {vm} on this host")) };
        if let Some(frozen) = &self.frozen {
            return Err(frozen.clone());
        }
        if let Some(trouble) = &here.trouble {
            return Err(trouble.clone());
        }
        Host::tags_fit(here)?;
        if self.runs_twice(vm) {
            return Err(format!("{TWO_COPIES}, by what two hosts say: see the alarm"));
        }
        if here.is_contradicted(self.id) {
            return Err(format!("{CONTRADICTED}: see the alarm"));
        }
        Ok(())
    }

    /// A VM's name for people; its id where the name is not known.
    pub fn vm_name(&self, vm: VmId) -> String {
        let here = self.vms.get(&vm).map(|here| here.definition.name.clone());
        let coming = || self.incoming_name(vm).map(str::to_owned);
        let told =
            || self.stories().rev().find(|story| story.vm == vm).map(|story| story.name.clone());
        let heard = || self.heard_of.get(&vm).cloned();
        let elsewhere = || {
            let mut listed = self.inventories().flat_map(|(_, _, inventory)| &inventory.vms);
            listed.find(|listed| listed.vm == vm).map(|listed| listed.name.clone())
        };
        here.or_else(coming)
            .or_else(told)
            .or_else(heard)
            .or_else(elsewhere)
            .unwrap_or_else(|| vm.to_string())
    }

    /// Keeps the name that another host gave a VM.
    pub(super) fn hear_of(&mut self, vm: VmId, name: &str) {
        if self.heard_of.len() >= HEARD_OF_MAX && !self.heard_of.contains_key(&vm) {
            self.heard_of.pop_first();
        }
        self.heard_of.insert(vm, name.to_owned());
    }
}

/// What a VM found here is to this host, by what the journal knows of it.
fn adopted(known: Option<VmRecord>) -> (VmRecord, &'static str) {
    match known {
        None => (VmRecord { floor: 1, ran: 1, ownership: Ownership::Owner }, "adopted"),
        Some(record) => match record.ownership {
            Ownership::Owner => (record, "it is this host's, as the journal says"),
            // It ran under its epoch, whoever asks about an old hand-over: never void.
            Ownership::Down => {
                let record = VmRecord { ran: record.floor, ownership: Ownership::Owner, ..record };
                (record, "it was down and is back")
            }
            // Its move is open and its machine decides; it is shown, not touched.
            Ownership::Released(..) => (record, "released; its move is not over"),
            Ownership::Away => {
                let floor = record.floor + 1;
                let record = VmRecord { floor, ran: floor, ownership: Ownership::Owner };
                (record, "it came here without Evenkeel: adopted under the next epoch")
            }
        },
    }
}
