//! Rules about where VMs are, as they were laid down, and limits on moves: held against what hosts do.
//!
//! A target judges by what it sees: the VMs that are at it, and those that it has let in. What comes there by another way after
//! it has judged (a VM that a person starts there, or forces there) it cannot know, and that alone is allowed for. Whatever was
//! there or had been let in before, it must have seen, however the network and the other agents fared meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use decide::migrate::record::{MoveStage, Record};
use decide::units::{MoveId, Time, VmId};

use super::{Checks, Property};
use crate::hypervisor::Passed;
use crate::world::{World, number};

/// What was laid down of VMs. It is the truth that is checked, told to agents as settings and as tags.
#[derive(Clone, Debug, Default)]
pub struct Ruled {
    /// Groups of which no two are to be at one host.
    pub apart: Vec<BTreeSet<VmId>>,
    /// Groups that are to be at one host.
    pub together: Vec<BTreeSet<VmId>>,
    /// Each VM must be at one of these hosts, of each set.
    pub pins: BTreeMap<VmId, Vec<BTreeSet<u16>>>,
    /// Left where they are.
    pub excluded: BTreeSet<VmId>,
}

/// What is remembered to judge moves by them.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Moves that a person asked for.
    by_hand: BTreeSet<MoveId>,
    /// Moves in which a person overrides rules.
    forced: BTreeSet<MoveId>,
    /// When a target judged for the last time, and let the VM in.
    let_in: BTreeMap<(MoveId, u16), Time>,
    /// Since when a VM that has not come by a move that keeps rules is where it is, or was let in there.
    insisted: BTreeMap<VmId, Time>,
    /// Groups that are to be together and once were not, by their place in the list.
    strayed: BTreeSet<usize>,
    /// Those of them that are apart only since they are on their way: by which move.
    on_its_way: BTreeMap<usize, MoveId>,
    /// What has begun in the event that is being handled: where, the move, and its VM if its source begins it by itself.
    begun: Vec<(u16, MoveId, Option<VmId>)>,
}

impl Ruled {
    /// Whether anything was laid down.
    pub fn any(&self) -> bool {
        let Ruled { apart, together, pins, excluded } = self;
        !(apart.is_empty() && together.is_empty() && pins.is_empty() && excluded.is_empty())
    }

    /// Whether some rule is about this VM.
    pub fn about(&self, vm: VmId) -> bool {
        let mut groups = self.apart.iter().chain(&self.together);
        let placed = self.pins.contains_key(&vm) || self.excluded.contains(&vm);
        placed || groups.any(|group| group.contains(&vm))
    }

    /// Whether balancing may have the VM leave alone, whatever other VMs do.
    pub(super) fn may_leave(&self, vm: VmId) -> bool {
        !self.excluded.contains(&vm) && !self.together.iter().any(|group| group.contains(&vm))
    }

    /// Whether the VM's pins allow this host.
    pub(super) fn pinned(&self, vm: VmId, to: u16) -> bool {
        self.pins.get(&vm).into_iter().flatten().all(|hosts| hosts.contains(&to))
    }

    /// The VMs that it keeps away from.
    pub(super) fn apart_from(&self, vm: VmId) -> impl Iterator<Item = VmId> {
        let groups = self.apart.iter().filter(move |group| group.contains(&vm));
        groups.flatten().copied().filter(move |other| *other != vm)
    }
}

impl Checks {
    /// These rules hold from now on. Those that are broken now are so by whoever started the VMs.
    pub fn lay_down(&mut self, ruled: Ruled) {
        self.ruled = ruled;
        let all: Vec<VmId> = self.ruled.together.iter().flatten().copied().collect();
        all.into_iter().for_each(|vm| self.strays(vm));
    }

    /// A person speaks to an agent, or has spoken: what begins meanwhile is by hand.
    pub(crate) fn person_asks(&mut self, asks: bool) {
        self.person_asks = asks;
    }

    /// A VM is somewhere by a person's doing.
    pub(super) fn insists(&mut self, vm: VmId, since: Time) {
        self.rules.insisted.insert(vm, since);
        self.strays(vm);
    }

    fn strays(&mut self, vm: VmId) {
        let at = &self.at;
        let groups = self.ruled.together.iter().enumerate();
        for (n, group) in groups.filter(|(_, group)| group.contains(&vm)) {
            let hosts: BTreeSet<u16> = group.iter().filter_map(|vm| at.get(vm)).copied().collect();
            if hosts.len() > 1 {
                self.rules.strayed.insert(n);
            }
        }
    }

    /// A source asks about a VM for the first time in this move.
    pub(super) fn begins(&mut self, id: MoveId, vm: VmId, forced: bool) {
        if self.person_asks {
            self.rules.by_hand.insert(id);
        }
        if forced {
            self.rules.forced.insert(id);
        }
        self.rules.begun.push((number(id.host), id, (!self.person_asks).then_some(vm)));
    }

    /// An agent writes something down: that an incoming side may be at it, it does once it has judged for the last time.
    pub(crate) fn writes(&mut self, now: Time, at: u16, records: &[Record]) {
        for record in records {
            if let Record::Move(id, Some(open)) = record
                && open.stage == MoveStage::Prepared
                && !self.rules.let_in.contains_key(&(*id, at))
            {
                self.rules.let_in.insert((*id, at), now);
                self.rules.begun.push((at, *id, None));
            }
        }
    }
}

/// Judges what agents have begun in the event that has just been handled.
pub(super) fn begun(checks: &mut Checks, world: &World) {
    for (at, id, vm) in std::mem::take(&mut checks.rules.begun) {
        let site = &world.sites[&at];
        let Some(host) = &site.host else { continue };
        let open = host.stories().filter(|story| story.ended.is_none()).count();
        let max = usize::try_from(world.settings.limits.moves_per_host).unwrap_or(usize::MAX);
        if open > max {
            let what = format!("{id} began as host{at} had {open} moves under way, {max} allowed");
            checks.fails(Property::MovesLimited, world.now, vm, what);
        }
        if checks.rules.let_in.contains_key(&(id, at)) && site.here.maintenance {
            let what = format!("{id} was let in by host{at}, which is in maintenance");
            checks.fails(Property::RulesKept, world.now, vm, what);
        }
        let Some(vm) = vm else { continue };
        if checks.ruled.excluded.contains(&vm) || site.excluded.contains(&vm) {
            let what = format!("{id} was begun by host{at} itself, although {vm} is excluded");
            checks.fails(Property::RulesKept, world.now, vm, what);
        }
        if let Some(other) = parted(checks, id, vm, at) {
            let what = format!("{id} was begun by host{at} itself, and parts {vm} from {other}");
            checks.fails(Property::RulesKept, world.now, vm, what);
        }
    }
}

/// A VM of a group that is whole, which stays where this one leaves: it does not follow in this move, nor in that of which this
/// is a part.
fn parted(checks: &Checks, id: MoveId, vm: VmId, at: u16) -> Option<VmId> {
    let groups = checks.ruled.together.iter().enumerate();
    let whole = groups.filter(|(n, _)| !checks.rules.strayed.contains(n)).map(|(_, group)| group);
    let mut others = whole.filter(|group| group.contains(&vm)).flatten().copied();
    let follows = |other: &VmId| checks.followers.get(&id).is_some_and(|all| all.contains(other));
    let stays = |other: &VmId| {
        !checks.down.contains(other) && checks.at.get(other) == Some(&at) && !follows(other)
    };
    others.find(|other| *other != vm && stays(other))
}

/// A VM has been let run at its new owner.
pub(super) fn passed(checks: &mut Checks, world: &World, passed: &Passed) {
    let Passed { id, vm, to } = *passed;
    let let_in = checks.rules.let_in.get(&(id, to)).copied().unwrap_or(world.now);
    if checks.rules.forced.contains(&id) {
        return checks.insists(vm, let_in);
    }
    checks.rules.insisted.remove(&vm);
    if !checks.ruled.about(vm) {
        return;
    }
    checks.judged_by_rules += 1;
    if !checks.ruled.pinned(vm, to) {
        let what = format!("{id} brought {vm} to host{to}, where no pin of it allows it");
        checks.fails(Property::RulesKept, world.now, vm, what);
    }
    let came_later = |other: &VmId| checks.rules.insisted.get(other).is_some_and(|t| *t >= let_in);
    let there = |other: &VmId| checks.at.get(other) == Some(&to) && !checks.down.contains(other);
    let both = checks.ruled.apart_from(vm).find(|other| there(other) && !came_later(other));
    if let Some(other) = both {
        let what =
            format!("{id} brought {vm} to host{to}, where {other} is that it keeps away from");
        checks.fails(Property::RulesKept, world.now, vm, what);
    }
}

/// The VM counts where it has gone. A group whose last has followed is whole again.
pub(super) fn has_gone(checks: &mut Checks, id: MoveId, vm: VmId) {
    let was = checks.rules.strayed.clone();
    checks.strays(vm);
    let first = checks.halves.get(&id).copied().unwrap_or(id);
    if !checks.followers.contains_key(&first) {
        return;
    }
    let parted = checks.rules.strayed.difference(&was).copied();
    checks.rules.on_its_way.extend(parted.map(|group| (group, first)));
    let Checks { ruled, rules, at, .. } = checks;
    rules.on_its_way.retain(|n, by| {
        let hosts: BTreeSet<&u16> = ruled.together[*n].iter().filter_map(|vm| at.get(vm)).collect();
        let whole = *by == first && hosts.len() == 1;
        if whole {
            rules.strayed.remove(n);
        }
        !whole
    });
}
