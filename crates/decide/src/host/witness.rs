//! What a VM's own definition says of who owns it, held against the journal.
//!
//! ```text
//!   the journal's epoch is on disk ──▶ Testify: the definition is to name this host and that epoch
//!   a VM is found, and its definition names …
//!     nobody, or a lower epoch    a write that failed, or none yet: Testify
//!     a higher epoch              the journal was lost or set back, or another host wrote it: the VM goes on one above; told once
//!     the same, of another host   one of the two is wrong: an alarm, and the VM is not moved until a person has looked
//! ```
//!
//! **Invariant:** the journal decides: no witness lowers an epoch, or has a guest resumed or ended.
//! **Invariant:** what the definition is told to say is on disk before.

use super::outgoing::Outgoing;
use super::story::{Note, Step};
use super::{Action, Host, Vm};
use crate::migrate::hypervisor::Witness;
use crate::migrate::record::{Ownership, VmRecord};
use crate::negotiate::source as negotiate_source;
use crate::units::{Epoch, HostId, Time, VmId};
use crate::wire::limits::{NAME_MAX, cut};

/// In each note of what a definition says.
pub const DEFINITION_NAMES: &str = "its definition names";
/// How the alarm begins.
pub(super) const CONTRADICTED: &str = "its definition names another owner than the journal";

/// No VM is ever handed over so often. One number that somebody wrote by hand must not use up those that are left.
const CREDIBLE_MAX: u64 = 1 << 48;

/// Whether a witness can be one.
pub(super) fn credible(witness: &Witness) -> bool {
    (1..=CREDIBLE_MAX).contains(&witness.epoch.number)
}

/// The witness of a VM that was found, where it knows of a later epoch than the journal. While the move that released it is open, that decides.
pub(super) fn beyond(
    adopted: VmRecord,
    known: Option<VmRecord>,
    witness: Option<&Witness>,
) -> Option<&Witness> {
    let floor = known.map_or(0, |known| known.floor);
    witness.filter(|it| adopted.ownership == Ownership::Owner && it.epoch.number > floor)
}

impl Vm {
    fn epoch_told(&self) -> Option<Epoch> {
        self.witness.as_ref().map(|witness| witness.epoch)
    }

    /// Whether its definition names another host under the epoch that is this host's.
    pub(super) fn is_contradicted(&self, here: HostId) -> bool {
        self.record.ownership == Ownership::Owner
            && self
                .epoch_told()
                .is_some_and(|it| it.number == self.record.floor && it.owner != here)
    }
}

impl Host {
    /// Has the VM's definition say what the journal says, unless it does.
    pub(super) fn testify(&mut self, vm: VmId, actions: &mut Vec<Action>) {
        let (owner, moving) = (self.id, self.is_in_move(vm) || self.frozen.is_some());
        let Some(here) = self.vms.get_mut(&vm).filter(|here| !moving && here.recorded) else {
            return;
        };
        if here.record.ownership != Ownership::Owner {
            return;
        }
        let known = here.record;
        if let Some(witness) = beyond(known, Some(known), here.witness.as_ref()).cloned() {
            return self.rise_above(vm, &witness, actions);
        }
        if here.is_contradicted(owner) {
            // What a person is to look at stays as it is.
            return self.tell_contradiction(vm, actions);
        }
        let epoch = Epoch { number: here.record.floor, owner };
        if here.epoch_told() != Some(epoch) {
            let witness = Witness { epoch, name: self.name.clone() };
            here.witness = Some(witness.clone());
            actions.push(Action::Testify(vm, witness));
        }
        self.end_contradiction(vm);
    }

    /// A VM that is known here was found again: what its definition says now. In a move that is judged when the move is over.
    pub(super) fn confront(
        &mut self,
        now: Time,
        vm: VmId,
        witness: Option<Witness>,
        actions: &mut Vec<Action>,
    ) {
        let Some(here) = self.vms.get_mut(&vm) else { return };
        let before = here.record.floor;
        here.witness = witness;
        self.testify(vm, actions);
        let here = &self.vms[&vm];
        let why = if here.record.floor > before {
            "its definition knows of a later epoch: it takes one above"
        } else if here.is_contradicted(self.id) {
            CONTRADICTED
        } else {
            return;
        };
        let asking = |out: &Outgoing| out.vm == vm && out.migrate.is_none();
        let asking = self.outgoing.iter().find(|(_, out)| asking(out)).map(|(id, _)| *id);
        if let Some(id) = asking {
            self.asking(now, id, negotiate_source::Event::Cancel(why.to_owned()), actions);
        }
    }

    /// Goes on above an epoch that the journal does not know.
    fn rise_above(&mut self, vm: VmId, witness: &Witness, actions: &mut Vec<Action>) {
        let Some(here) = self.vms.get_mut(&vm) else { return };
        let known = std::mem::replace(&mut here.record.floor, witness.epoch.number);
        self.note_beyond(vm, known, witness, actions);
        self.use_up_epoch(vm, actions);
    }

    /// Whether its copy to elsewhere, or its arrival, is not over.
    fn is_in_move(&self, vm: VmId) -> bool {
        self.copies(vm) || self.incoming.values().any(|it| it.vm == vm && it.open())
    }

    pub(super) fn note_beyond(
        &self,
        vm: VmId,
        known: u64,
        witness: &Witness,
        actions: &mut Vec<Action>,
    ) {
        let (name, Epoch { number, owner }) = (self.vm_name(vm), witness.epoch);
        let ours = if known == 0 {
            "this host's journal does not know it".to_owned()
        } else {
            format!("this host's journal has epoch {known}")
        };
        let (host, next) = (self.named(witness), number + 1);
        let look = if owner == self.id {
            "the journal was lost or set back".to_owned()
        } else {
            format!(
                "it came here without Evenkeel, or the journal was lost or set back: look whether it runs at {host} too"
            )
        };
        let words = format!(
            "{name}: {DEFINITION_NAMES} {host} as its owner under epoch {number}, {ours}; it goes on here under epoch {next}; {look}"
        );
        let note = Note::new(Step::Adopted, words).about(vm);
        actions.push(Action::Note(note.with(owner)));
    }

    /// The host that a witness names, for people: the other hosts have mostly not been heard of when an agent finds its VMs.
    fn named(&self, witness: &Witness) -> String {
        let owner = witness.epoch.owner;
        if owner == self.id || self.membership.view(owner).is_some() || witness.name.is_empty() {
            return self.name_of(owner);
        }
        cut(&witness.name, NAME_MAX).to_owned()
    }

    fn tell_contradiction(&mut self, vm: VmId, actions: &mut Vec<Action>) {
        let Some(witness) = self.vms.get(&vm).and_then(|here| here.witness.as_ref()) else {
            return;
        };
        let (host, Epoch { number, owner }) = (self.named(witness), witness.epoch);
        let words = format!(
            "{CONTRADICTED}: {host}, under epoch {number}, which is this host's by its journal; the VM is watched but not moved. Look whether it runs at {host} too; if not, take what its definition says away: `virsh metadata {} --uri urn:evenkeel:owner --live --config --remove`",
            self.vm_name(vm)
        );
        self.alarm_once(Note::new(Step::Alarm, words).about(vm).with(owner), actions);
    }

    /// It is over where the definition says something else, or the VM is not here any more.
    pub(super) fn end_contradiction(&mut self, vm: VmId) {
        let of_it = |note: &Note| note.vm == Some(vm) && note.reason.starts_with(CONTRADICTED);
        self.alarms.retain(|note| !of_it(note));
    }
}
