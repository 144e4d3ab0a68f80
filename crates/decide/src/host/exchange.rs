//! Exchanges: a VM goes, and another comes back, agreed before the first copy begins.
//!
//! The source of a VM that would pay nowhere alone says in its request what it is itself; a target for which the VM is worth
//! having only without one of its own names that one in its acceptance. The asked one goes first, by a move like any other: the
//! target has room for it beside what is there. Once it has arrived, the target asks the source, and nobody else, about the
//! other one; the source has kept room for it and takes it as agreed.
//!
//! **Invariant:** each half is a move with its own epoch and its own room, and what is true after the first breaks neither a
//! rule nor a limit if the other never happens.
//! **Invariant:** what was agreed ends by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::outgoing::{Departure, Outgoing};
use super::story::{Note, Step};
use super::{Action, Host};
use crate::placement::admission::{capable, fits, size_with_overhead};
use crate::placement::exchange::{Candidate, Side, cheapest};
use crate::planted::{Bug, planted};
use crate::policy::rules::{VmRules, of_places};
use crate::units::{Cost, HostId, Mib, MoveId, Time, VmId};
use crate::usage::load::Load;
use crate::wire::message::{Companion, Exchange, Request};

/// From the first half's end on, the other is awaited for so long.
const OTHER_HALF_WITHIN: Duration = Duration::from_mins(5);
/// It is tried so often, and again after so long, then after twice as long each time.
const TRIES: u32 = 4;
const TRIED_AGAIN: Duration = Duration::from_secs(20);

/// What was agreed and has not happened yet, by the first half's move.
#[derive(Clone, Debug, Default)]
pub(super) struct Agreed {
    /// VMs that are to come.
    due: BTreeMap<(MoveId, VmId), Due>,
    /// VMs that are to go.
    owed: BTreeMap<(MoveId, VmId), Owed>,
}

/// A VM that is to come here.
#[derive(Clone, Debug)]
pub(super) struct Due {
    first: MoveId,
    from: HostId,
    vm: VmId,
    pub(super) name: String,
    pub(super) rules: VmRules,
    demand: Load,
    until: Time,
}

/// A VM that is to go from here.
#[derive(Clone, Debug)]
struct Owed {
    to: HostId,
    vm: VmId,
    why: Why,
    until: Time,
    tried: u32,
    again: Time,
}

/// Why a VM is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// It follows another of its affinity group.
    Follows,
    /// It goes in return for another, whose move a person may have applied.
    Returns { applied: bool },
}

impl Agreed {
    pub(super) fn is_empty(&self) -> bool {
        self.owed.is_empty() && self.due.is_empty()
    }

    /// Whether something that was agreed in this move is still to come, or to go.
    pub(super) fn is_open(&self, first: MoveId) -> bool {
        self.owed.keys().chain(self.due.keys()).any(|(id, _)| *id == first)
    }
}

/// What a target answers to a request for which it would give a VM back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Swap {
    /// That VM.
    pub(super) back: VmId,
    /// What the whole costs this host.
    pub(super) here: Cost,
    /// What it costs both, the other copy included.
    pub(super) all: Cost,
}

impl Host {
    /// Whether something that was agreed in a move is still to come or to go: others of its affinity group, or a VM in return.
    pub fn awaits_others(&self, first: MoveId) -> bool {
        let going = self.outgoing.values().any(|out| out.half_of == Some(first));
        let mut incoming = self.incoming.iter();
        let coming = incoming.any(|(id, it)| it.half_of == Some(first) && self.holds(id));
        going || coming || self.agreed.is_open(first)
    }

    /// What a target must know to choose a VM to give back for this one.
    pub(super) fn exchange_for(&self, now: Time, id: MoveId, out: &Outgoing) -> Exchange {
        let room = self.target.free().plus(size_with_overhead(out.memory));
        Exchange { side: self.side(now, Some(id)), room, applied: out.applied }
    }

    pub(super) fn side(&self, now: Time, but: Option<MoveId>) -> Side {
        let (lowest, highest) = (self.lowest_load(now, but), self.highest_load(now, but));
        Side { lowest, highest, capacity: self.usage.capacity() }
    }

    /// The VM that this host would give back for the one that is asked about, if the source wishes for one: the one by which both
    /// gain most.
    pub(super) fn swap(&self, now: Time, id: MoveId, request: &Request) -> Option<Swap> {
        let wish = request.exchange?;
        let source = self.membership.view(id.host)?;
        let may_go = |vm: &VmId| {
            let memory = self.vms[vm].definition.memory;
            size_with_overhead(memory) <= wish.room
                && self.copied(*vm) == memory
                && self.gives_back(*vm, wish.applied)
                && self.may_be_balanced(now, *vm).is_ok()
                && self.ruled_out(*vm, source).is_none()
        };
        let candidates = self.vms.keys().filter(|vm| may_go(vm)).filter_map(|vm| {
            let (demand, expected) = (self.demand(now, *vm), self.expected(now, *vm));
            self.fits_without(now, id, request.demand, expected).ok()?;
            Some(Candidate { vm: *vm, demand, expected, apart: self.apart(&BTreeSet::from([*vm])) })
        });
        let here = self.side(now, Some(id));
        let (found, cost, all) = cheapest(&wish.side, &here, request.demand, candidates)?;
        let useful = request.useful_max.is_none_or(|max| all <= max);
        useful.then_some(Swap { back: found.vm, here: cost, all })
    }

    /// Whether a load fits here once another has gone.
    pub(super) fn fits_without(
        &self,
        now: Time,
        id: MoveId,
        comes: Load,
        goes: Load,
    ) -> Result<(), String> {
        let highest = self.highest_load(now, Some(id)).minus(goes);
        let settings = &self.settings;
        fits(comes, highest, self.usage.capacity(), &settings.target, &settings.hot)
    }

    /// What an exchange costs this host once the asked VM's history was read, and what it costs both.
    pub(super) fn judge_swap(
        &self,
        now: Time,
        id: MoveId,
        comes: Load,
        (back, wish): (VmId, Exchange),
    ) -> Result<(Cost, Cost), String> {
        self.free_to_move(back)?;
        if !self.gives_back(back, wish.applied) {
            return Err(format!("{} is not given in return any more", self.vm_name(back)));
        }
        let (demand, expected) = (self.demand(now, back), self.expected(now, back));
        self.fits_without(now, id, comes, expected)?;
        let here = self.side(now, Some(id)).cost(comes, demand);
        let there =
            wish.side.cost_of_return(comes, expected).plus(self.apart(&BTreeSet::from([back])));
        Ok((here, here.plus(there)))
    }

    /// A VM of this host as another is told of it: one that is offered in return, or that follows.
    pub(super) fn companion(&self, now: Time, vm: VmId) -> Option<Companion> {
        let definition = &self.vms.get(&vm)?.definition;
        let (name, needs) = (definition.name.clone(), definition.needs.clone());
        let tags = of_places(&definition.tags);
        Some(Companion { vm, name, demand: self.expected(now, vm), needs, tags })
    }

    /// What it costs this host, besides what the target said, that a VM of the target's comes in return.
    ///
    /// # Errors
    /// Why it cannot come.
    pub(super) fn judge_return(
        &self,
        now: Time,
        id: MoveId,
        back: &Companion,
    ) -> Result<Cost, String> {
        let out = self.outgoing.get(&id).ok_or("the move is over")?;
        let memory = size_with_overhead(back.demand.memory);
        let room = self.target.free().plus(size_with_overhead(out.memory));
        let refused = |why: String| format!("{}, which would come in return: {why}", back.name);
        if memory > room {
            return Err(refused(format!("it takes {memory}, there will be {room}")));
        }
        self.judge_companion(id, back).map_err(refused)?;
        Ok(self.side(now, Some(id)).cost_of_return(out.demand, back.demand))
    }

    /// Whether a VM that would come with, or for, another can be here, its load left aside.
    pub(super) fn judge_companion(&self, id: MoveId, it: &Companion) -> Result<(), String> {
        let mut incoming = self.incoming.iter();
        if self.vms.contains_key(&it.vm) || self.is_named(&it.name) {
            return Err("a VM of that id or name is here already".to_owned());
        }
        if incoming.any(|(other, i)| *other != id && i.vm == it.vm && self.holds(other)) {
            return Err("it is on its way here by another move".to_owned());
        }
        capable(&it.needs, &self.offered)?;
        let rules = self.settings.rules.of(it.vm, &it.name, &it.tags);
        self.keeps_rules(id, it.vm, &rules, false)
    }

    /// The copy begins: room is kept for what comes in return.
    pub(super) fn agree(&mut self, id: MoveId, target: HostId) {
        if let Some(out) = self.outgoing.get_mut(&id) {
            out.back = out.returns.remove(&target);
            out.returns.clear();
        }
        self.count_room();
    }

    /// How many VMs are to come or to go by what was agreed, and are not on their way.
    pub(super) fn agreed_elsewhere(&self) -> usize {
        let going = |owed: &&Owed| self.outgoing.values().any(|it| it.vm == owed.vm);
        self.awaited().count() + self.agreed.owed.values().filter(|owed| !going(owed)).count()
    }

    /// VMs that are to come in return and of which nothing has come yet, no request either.
    fn awaited(&self) -> impl Iterator<Item = &Due> {
        let asked = |vm: VmId| {
            let mut incoming = self.incoming.iter();
            self.vms.contains_key(&vm) || incoming.any(|(id, it)| it.vm == vm && self.holds(id))
        };
        self.agreed.due.values().filter(move |due| !asked(due.vm))
    }

    /// The first move is over, where another VM is to come from the host that it named.
    pub(super) fn await_other(&mut self, now: Time, first: MoveId, from: HostId, it: &Companion) {
        let until = now.plus(OTHER_HALF_WITHIN);
        let rules = self.settings.rules.of(it.vm, &it.name, &it.tags);
        let (vm, name, demand) = (it.vm, it.name.clone(), it.demand);
        let due = Due { first, from, vm, name, rules, demand, until };
        self.agreed.due.insert((first, vm), due);
    }

    /// The first move is over, where another VM is to go.
    pub(super) fn owe(&mut self, now: Time, first: MoveId, vm: VmId, to: HostId, why: Why) {
        let until = now.plus(OTHER_HALF_WITHIN);
        let wrong = planted(Bug::ReturnNotJudged).then(|| {
            let mut others = self.vms.keys().filter(|other| **other != vm);
            others.find(|other| self.free_to_move(**other).is_ok()).copied()
        });
        let vm = wrong.flatten().unwrap_or(vm);
        let owed = Owed { to, vm, why, until, tried: 0, again: now };
        self.agreed.owed.insert((first, vm), owed);
    }

    /// VMs that are offered, or owed, in return for others, in any move but this, and to whom: until that is over they stay.
    pub(super) fn promised(&self, but: Option<MoveId>) -> impl Iterator<Item = (VmId, HostId)> {
        let owed = self.agreed.owed.values().map(|owed| (owed.vm, owed.to));
        let incoming = self.incoming.iter().filter(move |(id, _)| Some(**id) != but);
        let offered = incoming.filter_map(|(id, incoming)| {
            let (back, _) = incoming.back?;
            self.holds(id).then_some((back, id.host))
        });
        owed.chain(offered)
    }

    /// What VMs ask that are agreed to come in return, in any move but this, and of which no request has come yet.
    pub(super) fn coming_in_return(&self, but: Option<MoveId>) -> impl Iterator<Item = Load> {
        let agreed = self.outgoing.iter().filter(move |(id, _)| Some(**id) != but);
        let agreed = agreed.filter_map(|(_, out)| Some(out.back.as_ref()?.demand));
        self.awaited().map(|due| due.demand).chain(agreed)
    }

    /// Whether a request is the other half of an exchange, as agreed.
    pub(super) fn is_due(&self, id: MoveId, request: &Request) -> bool {
        let due = request.half_of.and_then(|first| self.agreed.due.get(&(first, request.vm)));
        due.is_some_and(|due| {
            (due.from, due.vm, due.demand.memory) == (id.host, request.vm, request.memory)
        })
    }

    /// Memory kept for VMs that are to come in return, in all agreements but that one, beyond what those that go for them leave.
    pub(super) fn kept_for_returns(&self, but: Option<(MoveId, VmId)>) -> Mib {
        let size = |due: &Due| size_with_overhead(due.demand.memory);
        let awaited = self.awaited().filter(|due| Some((due.first, due.vm)) != but);
        let due = awaited.map(size).fold(Mib(0), Mib::plus);
        let agreed = self.outgoing.values().filter_map(|out| {
            let back = size_with_overhead(out.back.as_ref()?.demand.memory);
            Some(back.minus(size_with_overhead(out.memory)))
        });
        agreed.fold(due, Mib::plus)
    }

    /// Does what was agreed, and lets go of what did not happen in time.
    pub(super) fn settle_exchanges(&mut self, now: Time, actions: &mut Vec<Action>) {
        for (key, owed) in self.agreed.owed.clone() {
            self.give(now, key, &owed, actions);
        }
        let Host { agreed, vms, .. } = self;
        agreed.due.retain(|_, due| !vms.contains_key(&due.vm));
        let coming = |first: MoveId| {
            let mut incoming = self.incoming.iter();
            incoming.any(|(id, it)| it.half_of == Some(first) && self.holds(id))
        };
        let ends = |due: &&Due| {
            due.until <= now && !coming(due.first) && !planted(Bug::ReturnAwaitedForEver)
        };
        let late = self.awaited().filter(ends);
        let late: Vec<(MoveId, VmId)> = late.map(|due| (due.first, due.vm)).collect();
        for key in late {
            let Some(due) = self.agreed.due.remove(&key) else { continue };
            let name = self.name_of(due.from);
            let why = format!("{}, which {name} was to give, has not come: that ends", due.name);
            let note = Note::new(Step::Abandoned, why).of(due.first, due.vm).with(due.from);
            actions.push(Action::Note(note));
        }
    }

    fn give(&mut self, now: Time, key: (MoveId, VmId), owed: &Owed, actions: &mut Vec<Action>) {
        let (first, vm) = key;
        // One after the other: each has its own room there, but they share the link.
        let under_way = |out: &Outgoing| out.vm == vm || out.half_of == Some(first);
        if self.outgoing.values().any(under_way) {
            return;
        }
        if !self.vms.contains_key(&vm) {
            self.agreed.owed.remove(&key);
            return;
        }
        if owed.tried >= TRIES || owed.until <= now {
            self.agreed.owed.remove(&key);
            let to = self.name_of(owed.to);
            let why = format!("it was to go to {to}, as agreed, and could not: it stays here");
            let note = Note::new(Step::Abandoned, why).of(first, vm).with(owed.to);
            return actions.push(Action::Note(note));
        }
        // A rule, a mode, or a person, may keep it here since it was promised.
        let goes = self.free_to_move(vm).is_ok()
            && match owed.why {
                Why::Follows => self.may_leave_with_its_group(&self.vms[&vm]).is_ok(),
                Why::Returns { applied } => {
                    self.gives_back(vm, applied) && self.may_leave(&self.vms[&vm]).is_ok()
                }
            };
        if now < owed.again || !goes {
            return;
        }
        if let Some(owed) = self.agreed.owed.get_mut(&key) {
            owed.again = now.plus(TRIED_AGAIN * 2_u32.pow(owed.tried));
            owed.tried += 1;
        }
        let to = self.name_of(owed.to);
        let why = match owed.why {
            Why::Follows => format!("it follows its affinity group to {to}"),
            Why::Returns { .. } => format!("it goes to {to} in return, as agreed"),
        };
        let departure = Departure {
            asked: Some(BTreeSet::from([owed.to])),
            half_of: Some(first),
            ..Departure::new(vm, why.clone(), Note::new(Step::VmPolicy, why))
        };
        self.begin_move(now, departure, actions);
    }

    /// A move that was agreed in another is over, at its target: those that were agreed with it have their time anew.
    pub(super) fn other_came(&mut self, now: Time, first: MoveId, vm: VmId) {
        self.agreed.due.remove(&(first, vm));
        let siblings = self.agreed.due.values_mut().filter(|due| due.first == first);
        siblings.for_each(|due| due.until = now.plus(OTHER_HALF_WITHIN));
    }

    /// The same at its source.
    pub(super) fn other_went(&mut self, now: Time, first: MoveId, vm: VmId) {
        self.agreed.owed.remove(&(first, vm));
        let siblings = self.agreed.owed.iter_mut().filter(|((id, _), _)| *id == first);
        siblings.for_each(|(_, owed)| owed.until = now.plus(OTHER_HALF_WITHIN));
    }

    /// Where a group is on its way to, by what was agreed: while it is, it belongs there.
    pub(super) fn heads_for(&self, group: &str) -> Option<HostId> {
        let due = self.agreed.due.values().find(|due| due.rules.affinity.contains(group));
        let of =
            |vm: &VmId| self.vms.get(vm).is_some_and(|here| here.rules.affinity.contains(group));
        let mut owed = self.agreed.owed.values();
        due.map(|_| self.id).or_else(|| owed.find(|owed| of(&owed.vm)).map(|owed| owed.to))
    }

    /// VMs that are to come by what was agreed: their names and rules.
    pub(super) fn due(&self) -> impl Iterator<Item = (&String, &VmRules)> {
        self.agreed.due.values().map(|due| (&due.name, &due.rules))
    }

    /// VMs that are to come here as agreed, but that one.
    pub(super) fn due_but(&self, vm: VmId) -> impl Iterator<Item = &Due> {
        self.agreed.due.values().filter(move |due| due.vm != vm)
    }
}
