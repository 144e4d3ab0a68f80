//! VMs that a person has this host leave where they are, beside those that `[rules]` exclude.
//!
//! **Invariant:** what a person says counts as an exclusion of the rules does: balancing and rules pass the VM over, a person may
//! move it all the same.

use std::collections::BTreeMap;

use super::story::{Note, Step};
use super::{Action, Host};
use crate::policy::rules::Excluded;
use crate::units::VmId;

/// VMs that a person may exclude on one host.
pub const EXCLUDED_MAX: usize = 1000;

impl Host {
    /// Does as a person says; it is noted if it changes something. What is under way goes on.
    pub(super) fn exclude(
        &mut self,
        vm: VmId,
        excluded: Option<Excluded>,
        actions: &mut Vec<Action>,
    ) {
        let full = self.excluded.len() >= EXCLUDED_MAX && !self.excluded.contains_key(&vm);
        let before = match excluded.filter(|_| !full) {
            Some(excluded) => self.excluded.insert(vm, excluded),
            None => self.excluded.remove(&vm),
        };
        if before == excluded {
            return;
        }
        let name = self.vm_name(vm);
        let words = match excluded {
            None => format!("{name} is excluded by hand no more"),
            Some(_) if full => format!("{name} is not excluded: {EXCLUDED_MAX} VMs are"),
            Some(excluded) => format!(
                "{name} is excluded by hand {excluded}: neither balancing nor rules move it from this host"
            ),
        };
        actions.push(Action::Note(Note::new(Step::VmPolicy, words).about(vm)));
    }

    /// Forgets what has ended.
    pub(super) fn end_exclusions(&mut self, actions: &mut Vec<Action>) {
        let now = self.local_times.as_ref();
        let over = self.excluded.iter().filter(|(_, excluded)| excluded.has_ended(now).is_ok());
        let over: Vec<VmId> = over.map(|(vm, _)| *vm).collect();
        for vm in over {
            self.excluded.remove(&vm);
            let words = format!("the time has come to which {} was excluded", self.vm_name(vm));
            actions.push(Action::Note(Note::new(Step::VmPolicy, words).about(vm)));
        }
    }

    /// What a person has excluded here, and what has not ended; also VMs that have left.
    pub fn exclusions(&self) -> &BTreeMap<VmId, Excluded> {
        &self.excluded
    }

    /// How long a VM here is left where it is, and by whom, in words; absent: it is not.
    pub fn exclusion(&self, vm: VmId) -> Option<String> {
        let now = self.local_times.as_ref();
        let holds = |excluded: &&Excluded| excluded.has_ended(now).is_err();
        if let Some(excluded) = self.excluded.get(&vm).filter(holds) {
            return Some(format!("{excluded}, by hand"));
        }
        let excluded = self.vms.get(&vm)?.rules.excluded.iter().find(holds)?;
        Some(format!("{excluded}, by a rule"))
    }

    /// Whether a VM here may leave, as far as exclusions go: a person's and those of the rules.
    ///
    /// # Errors
    /// What keeps it here, and until when.
    pub fn is_excluded(&self, vm: VmId) -> Result<(), String> {
        let now = self.local_times.as_ref();
        if let Some(Err(why)) = self.excluded.get(&vm).map(|excluded| excluded.has_ended(now)) {
            return Err(format!("{why}, by hand"));
        }
        self.vms.get(&vm).map_or(Ok(()), |here| here.rules.may_leave(now))
    }
}
