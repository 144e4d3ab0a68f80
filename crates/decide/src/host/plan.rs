//! What would be moved now: the policy's verdict without its consequences, and a person's word to carry it out.
//!
//! A plan goes on as if each of its moves had been made where it would cost least, by what hosts said of themselves last. That
//! is no more than likely: targets answer for themselves, and what VMs ask changes.
//!
//! **Invariant:** a plan changes nothing, not even what is drawn by lot next: what it takes for made is forgotten at its end.
//! **Invariant:** a move that is applied must pay as one that the policy begins by itself, by the load at that time.

use std::collections::BTreeSet;

use super::ahead::{Ahead, Left};
use super::balance::{Cause, Chance, Leaves};
use super::rules::Broken;
use super::{Action, Host, Vm};
use crate::migrate::precopy::{self, Foreseen};
use crate::placement::admission::{fits, size_with_overhead};
use crate::placement::candidates::{Candidate, Offer};
use crate::policy::cost;
use crate::units::{Cost, HostId, Mib, MoveId, Time, VmId};
use crate::usage::load::{Capacity, Load};

/// Moves in a plan at the most: the further it looks ahead, the less of it will hold.
pub const PLANNED_MAX: usize = 32;

/// What would be moved now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What would be moved, one after another: each is judged as if those before it had been made.
    pub moves: Vec<Planned>,
    /// Why nothing is moved, or the first not without a person; absent: that one is about to be moved.
    pub held: Option<String>,
    /// Why no more follow.
    pub end: String,
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
    /// Who would take it at the least cost, and at which, by what hosts said of themselves last; absent: nobody has the room, or everybody would
    /// be over a limit with it.
    pub likely: Option<(HostId, Cost)>,
    /// One of the target's may come in return.
    pub exchange: bool,
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
    pub fn plan(&mut self, now: Time) -> Plan {
        if self.drain.is_some() {
            let why = "this host is being drained (`evenkeel drain`)".to_owned();
            return Plan { moves: Vec::new(), held: Some(why.clone()), end: why };
        }
        let (mut moves, mut held) = (Vec::<Planned>::new(), None);
        let mut chance = self.chance();
        let end = loop {
            if moves.len() == PLANNED_MAX {
                break format!("a plan has {PLANNED_MAX} moves at the most");
            }
            if moves.last().is_some_and(|last| last.exchange) {
                break "what follows depends on what comes in return".to_owned();
            }
            match self.next_planned(now, &mut chance) {
                Ok((planned, why)) => {
                    held = if moves.is_empty() { why } else { held };
                    self.take_for_made(now, &planned);
                    moves.push(planned);
                }
                Err(why) => break why,
            }
        };
        self.ahead = Ahead::default();
        if moves.is_empty() {
            held = Some(end.clone());
        }
        Plan { moves, held, end }
    }

    fn take_for_made(&mut self, now: Time, planned: &Planned) {
        let to = planned.likely.map(|(host, _)| host);
        let group = match planned.relief {
            Some(_) => self.group_of(planned.vm),
            None => BTreeSet::from([planned.vm]),
        };
        for vm in group {
            let (demand, memory) = (self.demand(now, vm), self.vms[&vm].definition.memory);
            let balances = planned.relief.is_some() && vm == planned.vm;
            let expected = self.expected(now, vm);
            self.ahead.add(vm, Left { to, demand, expected, memory, balances });
        }
    }

    /// The next that would be moved, and what keeps this host from doing so by itself; or why none is.
    fn next_planned(
        &self,
        now: Time,
        chance: &mut Chance,
    ) -> Result<(Planned, Option<String>), String> {
        let (broken, waiting) = self.broken_by_mode();
        let mut why = Vec::new();
        match self.mended(now, &broken) {
            Some(Ok(broken)) => return Ok(self.planned_for_rule(now, broken)),
            Some(Err(words)) => why.push(words),
            None => {}
        }
        let cause = self.cause(now);
        let leaves = cause.as_ref().map(|cause| self.leaves(now, cause, chance));
        // What waits for a person comes after what does not, and rules before balancing.
        let goes = leaves.as_ref().is_some_and(|leaves| {
            leaves.as_ref().is_ok_and(|leaves| self.balances(leaves.vm()).is_ok())
        });
        match self.mended(now, &waiting).filter(|_| !goes) {
            Some(Ok(broken)) => return Ok(self.planned_for_rule(now, broken)),
            Some(Err(words)) => why.push(words),
            None => {}
        }
        match cause.zip(leaves) {
            Some((cause, Ok(leaves))) => {
                let held = self.balances(leaves.vm()).and_then(|()| self.by_itself()).err();
                return Ok((self.planned(now, &cause, leaves), held));
            }
            Some((cause, Err(words))) => why.push(cause.but(&words)),
            None => why.push(self.nothing_asks_ahead()),
        }
        Err(why.join("; "))
    }

    fn nothing_asks_ahead(&self) -> String {
        if self.ahead.is_empty() {
            return self.nothing_asks();
        }
        "nothing asks for more, as far as it can be foretold".to_owned()
    }

    fn planned(&self, now: Time, cause: &Cause, leaves: Leaves) -> Planned {
        let Leaves { offer, asked, words, exchange, .. } = leaves;
        let Offer { candidate, relief, copy } = offer;
        let (vm, memory) = (candidate.vm, candidate.memory);
        let asked = asked.map_or_else(|| self.would_ask(now, vm), Asked::Best);
        // What they judge by.
        let each = self.group_of(vm).into_iter().map(|vm| self.expected(now, vm));
        let expected = Candidate { demand: each.fold(Load::default(), Load::plus), ..candidate };
        Planned {
            vm,
            reason: format!("{} ({})", cause.adjective(), cause.words),
            choice: Some(words),
            likely: self.likely(now, &expected, &asked, exchange),
            asked,
            exchange,
            relief: Some(relief),
            copy_cost: copy,
            memory,
            foreseen: self.foreseen(vm),
            recommended: self.recommended.since(vm),
        }
    }

    fn planned_for_rule(&self, now: Time, broken: &Broken) -> (Planned, Option<String>) {
        let vm = broken.vm;
        let memory = self.vms[&vm].definition.memory;
        let asked = self.preferring(broken).map(|hosts| Asked::All(hosts.into_iter().collect()));
        let asked = asked.unwrap_or_else(|| self.would_ask(now, vm));
        let planned = Planned {
            vm,
            reason: broken.words.clone(),
            choice: None,
            likely: self.likely(now, &self.as_candidate(now, vm), &asked, false),
            asked,
            exchange: false,
            relief: None,
            copy_cost: cost::of_copy(self.copied(vm)),
            memory,
            foreseen: self.foreseen(vm),
            recommended: self.recommended.since_by_rule(vm),
        };
        let held = self.enforces(vm).and_then(|()| self.switched_on());
        (planned, held.err())
    }

    /// Who of those would take it at the least cost. In an `exchange` what comes in return makes the room, and is not known yet.
    fn likely(
        &self,
        now: Time,
        it: &Candidate,
        asked: &Asked,
        exchange: bool,
    ) -> Option<(HostId, Cost)> {
        let hosts = match asked {
            Asked::Best(hosts) | Asked::All(hosts) => hosts.clone(),
            Asked::Drawn { .. } => self.askable(now, it.vm).all(),
        };
        let (demand, packets) = (it.demand, self.usage.capacity().packets);
        let size = size_with_overhead(it.memory);
        let places = hosts.into_iter().filter_map(|host| self.place(self.membership.view(host)?));
        let (target, hot) = (&self.settings.target, &self.settings.hot);
        let mut able = places.filter_map(|place| {
            let capacity = Capacity { packets, ..place.capacity };
            let fits = fits(demand, place.load, capacity, target, hot).is_ok();
            let able = place.room >= size && (exchange || fits);
            able.then(|| (cost::of_arrival(place.load, demand, capacity), place.host))
        });
        let likely = match asked {
            Asked::Best(_) => able.next(),
            Asked::All(_) | Asked::Drawn { .. } => able.min(),
        };
        likely.map(|(cost, host)| (host, cost))
    }

    /// What a copy of it takes; absent: it would not end.
    pub(super) fn foreseen(&self, vm: VmId) -> Option<Foreseen> {
        let Vm { definition, rules, .. } = &self.vms[&vm];
        precopy::foreseen(
            definition.memory,
            if rules.copy_disks { definition.local_disks } else { Mib(0) },
            self.usage.told(vm).dirty,
            self.copy_parameters(rules, false),
            self.pause_max(rules),
        )
    }

    /// Whether a copy of the VM would come to an end, as far as is known what it writes.
    ///
    /// # Errors
    /// What it writes, if it would not.
    pub(super) fn copy_would_end(&self, vm: VmId) -> Result<(), String> {
        if self.foreseen(vm).is_some() {
            return Ok(());
        }
        let writes = self.usage.told(vm).dirty.unwrap_or_default();
        Err(format!("it writes {writes} of its memory: its copy would not end"))
    }

    /// Begins the move of a VM if it still should leave: as the policy would, for which it needs no more than a person's word. A
    /// person may apply one after another: that this host rests between its own moves does not count.
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
            self.may_apply()?;
            self.may_leave_for_rule(now, &broken)?;
            return Ok(self.depart_for_rule(now, &broken, true, actions));
        }
        self.movable(vm)?;
        let cause = self.cause(now).ok_or_else(|| self.nothing_asks())?;
        self.may_apply()?;
        self.moves_of_the_day(now)?;
        let candidate = self.led_by(now, vm)?;
        let mut chance = self.chance();
        let leaves = self.best(now, &cause, &[candidate], &mut chance);
        self.keep(chance);
        Ok(self.depart(now, &cause, leaves?, true, actions))
    }
}

/// What follows the reason of a move, if a person has applied it.
pub(super) fn marked(applied: bool) -> &'static str {
    if applied { ", applied by hand" } else { "" }
}
