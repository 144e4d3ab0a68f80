//! Draining: at a person's word all VMs leave this host, one after another, and none comes.
//!
//!   ─── Drain ──▶ draining: VMs leave; those that may not are named ─── `None` ──▶ as before
//!
//! Each VM goes by the usual negotiation, at any cost, but never against rules or where there is no room. The largest go first,
//! while there is the most room elsewhere; of an affinity group, once its first VM has left, the others follow it before all else,
//! to the same host, so that the group is parted for as short a time as can be. Who was refused is asked about again after a
//! wait of its own that doubles, while the others go on.
//!
//! **Invariant:** while this host is drained it accepts no VM, and begins no other move by itself.
//! **Invariant:** whatever left meanwhile is told to be kept, so that it can be asked back.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use rand_chacha::rand_core::Rng as _;
use serde::{Deserialize, Serialize};

use super::outgoing::Departure;
use super::story::{Note, Step};
use super::vms::SETTLING;
use super::{Action, Host, Vm};
use crate::membership::HostState;
use crate::migrate::record::Ownership;
use crate::policy::rules::Kind;
use crate::units::{HostId, MoveId, Time, VmId};

/// Wait after a VM was refused, at first.
const AGAIN: Duration = Duration::from_secs(5);
/// It doubles so often at the most: 5 s, 10 s, … 160 s.
const DOUBLINGS_MAX: u32 = 5;
/// VMs that left are kept up to so many.
const LEFT_MAX: usize = 10_000;

/// Why this host takes no VM.
pub(super) const DRAINED: &str = "it is being drained";

/// A VM that left a host that is drained.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Left {
    /// Its name.
    pub name: String,
    /// Where it went.
    pub to: HostId,
}

/// What is known while this host is drained.
#[derive(Debug, Default)]
pub(super) struct Drain {
    left: BTreeMap<VmId, Left>,
    refused: BTreeMap<VmId, Refused>,
    /// Where the first VM of an affinity group went.
    groups: BTreeMap<String, HostId>,
    /// What was said last of how it stands in the end.
    said: Option<String>,
}

#[derive(Debug)]
struct Refused {
    times: u32,
    until: Time,
    why: String,
}

/// How a VM stands that is to leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stand {
    /// It is on its way.
    Moving(MoveId),
    /// It is about to go: its turn comes when others are through.
    Next,
    /// It is tried again by itself, and this is why not now.
    Waits(String),
    /// Something keeps it here that a person must see to.
    Stays(String),
}

/// How a drain goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drained<'a> {
    /// The VMs that have left.
    pub left: &'a BTreeMap<VmId, Left>,
    /// Those that are here.
    pub here: Vec<(VmId, Stand)>,
    /// Those of which a copy is on its way here still: room was given before the drain began.
    pub coming: Vec<(VmId, &'a str)>,
    /// The agent has only just begun to look: more may be here.
    pub looking: bool,
}

impl Host {
    /// Begins to drain this host, or goes on with it where these have left before, or ends it. What is under way goes on.
    pub(super) fn set_drain(
        &mut self,
        drain: Option<BTreeMap<VmId, Left>>,
        actions: &mut Vec<Action>,
    ) {
        if drain.is_some() == self.drain.is_some() {
            return;
        }
        let words = match &drain {
            Some(left) if left.is_empty() => {
                let vms = self.vms.len();
                format!(
                    "this host is being drained: {vms} VMs are to leave, none may come (`evenkeel undrain` ends it)"
                )
            }
            Some(left) => format!("the drain of this host goes on: {} VMs have left", left.len()),
            None => "this host is drained no more".to_owned(),
        };
        self.recommended.forget_balancing();
        self.drain = drain.map(|left| Drain { left, ..Drain::default() });
        actions.push(Action::Note(Note::new(Step::VmPolicy, words)));
    }

    /// How the drain goes, if this host is being drained: the VMs in the order in which they would go.
    pub fn drain(&self, now: Time) -> Option<Drained<'_>> {
        let left = &self.drain.as_ref()?.left;
        let here = self.in_order_of_leaving();
        let here = here.into_iter().map(|vm| (vm, self.stand(now, vm))).collect();
        let coming = self.incoming.values().filter(|it| it.open());
        let coming = coming.filter(|it| !self.vms.contains_key(&it.vm));
        let coming = coming.map(|it| (it.vm, &*it.name)).collect();
        Some(Drained { left, here, coming, looking: now.since(self.started) <= SETTLING })
    }

    /// Whether a copy of this VM is on its way here.
    pub fn is_coming(&self, vm: VmId) -> bool {
        self.incoming.values().any(|it| it.vm == vm && it.open())
    }

    /// Has whatever may leave begin to; says how it stands. Nothing, if this host is not being drained.
    pub(super) fn drive_drain(&mut self, now: Time, actions: &mut Vec<Action>) -> Option<String> {
        let Host { drain, vms, .. } = self;
        // Who is here again has not left.
        drain.as_mut()?.left.retain(|vm, _| !vms.contains_key(vm));
        while self.has_a_turn() {
            let mut vms = self.in_order_of_leaving().into_iter();
            let Some(vm) = vms.find(|vm| self.stand(now, *vm) == Stand::Next) else { break };
            self.depart_for_drain(now, vm, actions);
        }
        let (words, end) = self.drain_in_words(now);
        let drain = self.drain.as_mut()?;
        if drain.said != end {
            drain.said.clone_from(&end);
            end.into_iter()
                .for_each(|end| actions.push(Action::Note(Note::new(Step::VmPolicy, end))));
        }
        Some(words)
    }

    fn has_a_turn(&self) -> bool {
        let max = self.settings.limits.moves_per_host;
        self.frozen.is_none() && self.moves_under_way() < usize::try_from(max).unwrap_or(usize::MAX)
    }

    /// How it stands, and that in the end, once nothing more can be done.
    fn drain_in_words(&self, now: Time) -> (String, Option<String>) {
        let Some(Drained { left, here, coming, looking }) = self.drain(now) else {
            return Default::default();
        };
        let (left, all) = (left.len(), left.len() + here.len());
        let moving = here.iter().filter(|(_, stand)| matches!(stand, Stand::Moving(_)));
        let moving: Vec<String> = moving.map(|(vm, _)| self.vm_name(*vm)).collect();
        let stays = here.iter().filter(|(_, stand)| matches!(stand, Stand::Stays(_)));
        let stays: Vec<String> = stays.map(|(vm, _)| self.vm_name(*vm)).collect();
        let mut words = format!("it is being drained: {left} of {all} VMs have left");
        if !moving.is_empty() {
            words += &format!("; moving {}", moving.join(", "));
        }
        if !stays.is_empty() {
            words += &format!("; kept here: {}", stays.join(", "));
        }
        if !coming.is_empty() {
            let names: Vec<&str> = coming.iter().map(|(_, name)| *name).collect();
            words += &format!("; on their way here still: {}", names.join(", "));
        }
        let end = match (here.len(), stays.len()) {
            _ if looking || !coming.is_empty() => None,
            (0, _) => Some(format!("drained: {left} VMs have left, none is here")),
            (here, stay) if here == stay => Some(format!(
                "drained as far as can be: {left} VMs have left, kept here: {}",
                stays.join(", ")
            )),
            (_, _) => None,
        };
        (words, end)
    }

    /// The largest first; but VMs that a group of theirs has gone without already before all others.
    fn in_order_of_leaving(&self) -> Vec<VmId> {
        let parted = |vm: &Vm| {
            let mut groups = vm.rules.affinity.iter();
            groups.any(|group| self.drain.as_ref().is_some_and(|d| d.groups.contains_key(group)))
        };
        let mut vms: Vec<(&VmId, &Vm)> = self.vms.iter().collect();
        vms.sort_by_key(|(id, vm)| (!parted(vm), Reverse(vm.definition.memory), **id));
        vms.into_iter().map(|(id, _)| *id).collect()
    }

    fn stand(&self, now: Time, vm: VmId) -> Stand {
        let here = &self.vms[&vm];
        let moving = self.outgoing.iter().find(|(_, out)| out.vm == vm);
        if let Some((id, _)) = moving {
            return Stand::Moving(*id);
        }
        if let Err(why) = self.kept_from_leaving(vm) {
            return Stand::Stays(why);
        }
        if let Err(why) = self.waits(now, vm, here) {
            return Stand::Waits(why);
        }
        Stand::Next
    }

    /// # Errors
    /// What keeps a VM here until a person sees to it.
    fn kept_from_leaving(&self, vm: VmId) -> Result<(), String> {
        self.sound(vm)?;
        if self.vms[&vm].record.ownership != Ownership::Owner {
            return Err("it is not this host's".to_owned());
        }
        self.is_excluded(vm)?;
        let alive = || self.membership.alive();
        if alive().next().is_none() || alive().any(|view| self.ruled_out(vm, view).is_none()) {
            return Ok(());
        }
        let first = alive().find_map(|view| self.ruled_out(vm, view)).unwrap_or_default();
        Err(format!("no host that answers may take it: {first}"))
    }

    /// # Errors
    /// What keeps it here for now.
    fn waits(&self, now: Time, vm: VmId, here: &Vm) -> Result<(), String> {
        if !here.recorded {
            return Err("it is not in the journal yet".to_owned());
        }
        here.rules.in_hours(self.local_times.as_ref())?;
        if self.membership.alive().next().is_none() {
            return Err("no other host answers".to_owned());
        }
        if let Some(Refused { until, why, .. }) = self.refusal(vm).filter(|r| now < r.until) {
            let wait = until.since(now).as_secs() + 1;
            return Err(format!("it was not moved ({why}); it is tried again in {wait} s"));
        }
        if self.foreseen(vm).is_none() {
            let writes = self.usage.told(vm).dirty.unwrap_or_default();
            return Err(format!("it writes {writes} of its memory: its copy would not end"));
        }
        // Where the first of a group goes, the others go too.
        let mut leaving = self.outgoing.values().filter_map(|out| self.vms.get(&out.vm));
        match leaving.find(|other| here.rules.shared(&other.rules, Kind::Affinity).is_some()) {
            None => Ok(()),
            Some(other) => Err(format!("it follows {}, which is moving", other.definition.name)),
        }
    }

    fn refusal(&self, vm: VmId) -> Option<&Refused> {
        self.drain.as_ref()?.refused.get(&vm)
    }

    fn depart_for_drain(&mut self, now: Time, vm: VmId, actions: &mut Vec<Action>) {
        let why = "this host is being drained".to_owned();
        let words = format!("{} should leave: {why}", self.vm_name(vm));
        let any = Departure::new(vm, why, Note::new(Step::VmPolicy, words));
        self.begin_move(now, Departure { by_rule: true, ..any }, actions);
    }

    /// A move that was not made while this host is drained: the VM waits, the others go on. Whether it was one.
    pub(super) fn refused_in_drain(&mut self, now: Time, vm: VmId, why: &str) -> bool {
        let Some(drain) = &mut self.drain else { return false };
        let lot = u32::try_from(self.rng.next_u64() % 512).unwrap_or(0);
        let times = drain.refused.get(&vm).map_or(0, |refused| refused.times);
        let wait = AGAIN * 2_u32.pow(times.min(DOUBLINGS_MAX)) * (768 + lot) / 1024;
        let (times, until) = (times.saturating_add(1), now.plus(wait));
        drain.refused.insert(vm, Refused { times, until, why: why.to_owned() });
        true
    }

    /// A VM has left for another host.
    pub(super) fn left_in_drain(&mut self, vm: &Vm, to: HostId, actions: &mut Vec<Action>) {
        let Some(drain) = &mut self.drain else { return };
        drain.refused.remove(&vm.definition.vm);
        for group in &vm.rules.affinity {
            drain.groups.entry(group.clone()).or_insert(to);
        }
        let left = Left { name: vm.definition.name.clone(), to };
        if drain.left.len() < LEFT_MAX {
            drain.left.insert(vm.definition.vm, left.clone());
            actions.push(Action::KeepLeft(vm.definition.vm, left));
        }
    }

    /// Where the VMs of an affinity group go while this host is drained: to the first of it that left.
    pub(super) fn home_in_drain(&self, group: &str) -> Option<HostId> {
        let to = *self.drain.as_ref()?.groups.get(group)?;
        let alive = self.membership.view(to).is_some_and(|view| view.state == HostState::Alive);
        alive.then_some(to)
    }

    /// Whether this host takes any VM at all.
    ///
    /// # Errors
    /// Why it takes none.
    pub(super) fn takes_any(&self) -> Result<(), String> {
        if self.drain.is_some() {
            return Err(DRAINED.to_owned());
        }
        if self.settings.host.maintenance {
            return Err("maintenance: this host takes no VM".to_owned());
        }
        Ok(())
    }
}
