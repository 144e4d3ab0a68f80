//! What would be moved now: the policy's verdict without its consequences, and a person's word to carry it out.
//!
//! **Invariant:** a plan changes nothing, not even what is drawn by lot next.
//! **Invariant:** a move that is applied must pay as one that the policy begins by itself, by the load at that time.

use super::balance::{Cause, Leaves};
use super::rules::Broken;
use super::{Action, Host};
use crate::migrate::precopy::{self, Foreseen};
use crate::placement::candidates::Offer;
use crate::policy::cost;
use crate::policy::settings::Balance;
use crate::units::{Cost, HostId, Mib, MoveId, Time, VmId};

/// What a move that a person has applied is marked with.
const APPLIED: &str = ", applied by hand";

/// What would be moved now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What would be moved, if anything. One VM at a time: the next is judged once hosts have been asked about this one.
    pub moves: Vec<Planned>,
    /// Why nothing is moved, or not without a person; absent: it is about to be moved.
    pub held: Option<String>,
}

/// One move that would be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// The VM.
    pub vm: VmId,
    /// What asks for it: a threshold, in figures, or a rule.
    pub reason: String,
    /// Why this VM; absent: the rule names it.
    pub choice: Option<String>,
    /// Whom it would be asked of.
    pub asked: Asked,
    /// What this host would be rid of; absent: a rule asks, at any cost.
    pub relief: Option<Cost>,
    /// What the copy would cost.
    pub copy_cost: Cost,
    /// The size of its memory.
    pub memory: Mib,
    /// What the copy would take; absent: it would not end.
    pub foreseen: Option<Foreseen>,
    /// Since when it is recommended.
    pub recommended: Option<Time>,
}

/// Whom a planned move would be asked of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// These, the best first by what they last said of themselves.
    Best(Vec<HostId>),
    /// These, all alike until they have answered.
    All(Vec<HostId>),
    /// So many, drawn by lot.
    Drawn {
        /// How many.
        hosts: usize,
        /// Of how many.
        of: usize,
    },
}

impl Host {
    /// What would be moved now, whether or not this host may do so by itself.
    pub fn plan(&self, now: Time) -> Plan {
        if self.drain.is_some() {
            let held = Some("this host is being drained (`evenkeel drain`)".to_owned());
            return Plan { moves: Vec::new(), held };
        }
        let broken = self.broken_ones();
        let mut why = Vec::new();
        match self.mended(now, &broken) {
            Some(Ok(broken)) => return self.plan_for_rule(now, broken),
            Some(Err(words)) => why.push(words),
            None => {}
        }
        let Some(cause) = self.cause(now) else {
            why.push(self.nothing_asks());
            return Plan { moves: Vec::new(), held: Some(why.join("; ")) };
        };
        match self.leaves(now, &cause, &mut self.chance()) {
            Ok(leaves) => {
                let mode = by_itself("balance", self.settings.mode.balance);
                let held = mode.and_then(|()| self.by_itself()).err();
                Plan { moves: vec![self.planned(now, &cause, leaves)], held }
            }
            Err(words) => {
                why.push(cause.but(&words));
                Plan { moves: Vec::new(), held: Some(why.join("; ")) }
            }
        }
    }

    fn planned(&self, now: Time, cause: &Cause, leaves: Leaves) -> Planned {
        let Leaves { offer, asked, words, .. } = leaves;
        let Offer { candidate, relief, copy } = offer;
        let (vm, memory) = (candidate.vm, candidate.memory);
        Planned {
            vm,
            reason: format!("{} ({})", cause.adjective(), cause.words),
            choice: Some(words),
            asked: asked.map_or_else(|| self.would_ask(now, vm), Asked::Best),
            relief: Some(relief),
            copy_cost: copy,
            memory,
            foreseen: self.foreseen(vm, memory),
            recommended: self.recommended.get(&vm).copied(),
        }
    }

    fn plan_for_rule(&self, now: Time, broken: &Broken) -> Plan {
        let vm = broken.vm;
        let memory = self.vms[&vm].definition.memory;
        let asked = self.preferring(broken).map(|hosts| Asked::All(hosts.into_iter().collect()));
        let planned = Planned {
            vm,
            reason: broken.words.clone(),
            choice: None,
            asked: asked.unwrap_or_else(|| self.would_ask(now, vm)),
            relief: None,
            copy_cost: cost::of_copy(memory),
            memory,
            foreseen: self.foreseen(vm, memory),
            recommended: self.recommended_by_rule.get(&vm).copied(),
        };
        let held = by_itself("rules", self.settings.mode.rules).and_then(|()| self.switched_on());
        Plan { moves: vec![planned], held: held.err() }
    }

    /// What a copy of it takes; absent: it would not end.
    pub(super) fn foreseen(&self, vm: VmId, memory: Mib) -> Option<Foreseen> {
        precopy::foreseen(
            memory,
            self.usage.told(vm).dirty,
            self.copy_parameters(&self.vms[&vm].rules),
        )
    }

    /// Whether a copy of the VM would come to an end, as far as is known what it writes.
    ///
    /// # Errors
    /// What it writes, if it would not.
    pub(super) fn copy_would_end(&self, vm: VmId) -> Result<(), String> {
        if self.foreseen(vm, self.vms[&vm].definition.memory).is_some() {
            return Ok(());
        }
        let writes = self.usage.told(vm).dirty.unwrap_or_default();
        Err(format!("it writes {writes} of its memory: its copy would not end"))
    }

    /// Begins the move of a VM if it still should leave: as the policy would, for which it needs no more than a person's word.
    ///
    /// # Errors
    /// What does not hold, or not any more.
    pub(super) fn apply(
        &mut self,
        now: Time,
        vm: VmId,
        actions: &mut Vec<Action>,
    ) -> Result<MoveId, String> {
        if let Some(broken) = self.broken_ones().into_iter().find(|broken| broken.vm == vm) {
            self.may_begin(now)?;
            self.may_leave_for_rule(now, &broken)?;
            return Ok(self.depart_for_rule(now, &broken, APPLIED, actions));
        }
        self.movable(vm)?;
        let cause = self.cause(now).ok_or_else(|| self.nothing_asks())?;
        self.may_balance(now)?;
        self.may_be_balanced(now, vm)?;
        let candidate = self.as_candidate(now, vm);
        let mut chance = self.chance();
        let leaves = self.best(now, &cause, &[candidate], &mut chance);
        self.keep(chance);
        Ok(self.depart(now, &cause, leaves?, APPLIED, actions))
    }
}

/// Whether what the setting of this name is about is done without a person.
fn by_itself(name: &str, mode: Balance) -> Result<(), String> {
    match mode {
        Balance::Off => Err(format!("{name} is \"off\"")),
        Balance::Recommend => Err(format!("{name} is \"recommend\"")),
        Balance::Automatic => Ok(()),
    }
}
