//! Affinity groups on their way: where one VM of a group goes, the others go too.
//!
//! Balancing asks about a group as about one VM: what all ask and take together, by the lowest of them, which goes first. A target
//! that accepts has room for all; once the first has arrived, the others follow one after another, as agreed. What does not
//! arrive is brought together again as any group that is parted (`[mode] rules`).
//!
//! **Invariant:** a group is apart only while some of it are on their way, or until that was given up.

use std::collections::BTreeSet;

use super::outgoing::Departure;
use super::story::{Note, Step};
use super::vms::Vm;
use super::{Action, Host};
use crate::placement::admission::size_with_overhead;
use crate::placement::candidates::Candidate;
use crate::policy::cost;
use crate::policy::rules::{Kind, VmRules};
use crate::units::{BitsPerSec, Cost, HostId, Mib, MoveId, Time, VmId};
use crate::usage::load::Load;
use crate::wire::limits::{FOLLOWERS_BYTES_MAX, FOLLOWERS_MAX};
use crate::wire::message::{Companion, Request};

/// A VM that was to join its group here, and that this host did not take.
#[derive(Clone, Debug)]
pub(super) struct RefusedToJoin {
    pub(super) name: String,
    pub(super) at: HostId,
    pub(super) rules: VmRules,
}

/// Bytes of one that follows in a request, beside its name, its words of need and its tags.
const FOLLOWER_BYTES: usize = 64;

impl Host {
    /// A VM and all others here that are of its affinity groups, or of theirs, and so on.
    pub(super) fn group_of(&self, vm: VmId) -> BTreeSet<VmId> {
        let mut group = BTreeSet::from([vm]);
        let affinity = |vm: &VmId| self.vms.get(vm).map(|here| &here.rules.affinity);
        let Some(mut names) = affinity(&vm).filter(|names| !names.is_empty()).cloned() else {
            return group;
        };
        loop {
            let joined = self.vms.iter().filter(|(vm, here)| {
                !group.contains(*vm) && !here.rules.affinity.is_disjoint(&names)
            });
            let joined: Vec<VmId> = joined.map(|(vm, _)| *vm).collect();
            if joined.is_empty() {
                return group;
            }
            for vm in joined {
                names.extend(affinity(&vm).into_iter().flatten().cloned());
                group.insert(vm);
            }
        }
    }

    /// The VMs that leave if this one leads: itself alone if it is of no group. Nobody leads a group but its lowest.
    ///
    /// # Errors
    /// What keeps one of them here.
    pub(super) fn led_by(&self, now: Time, vm: VmId) -> Result<Candidate, String> {
        let group = self.group_of(vm);
        if group.len() > 1 {
            self.may_go_together(now, vm, |vm| self.may_be_balanced_with_its_group(now, vm))?;
        } else {
            self.may_be_balanced(now, vm)?;
        }
        let sum = group.iter().map(|vm| self.as_candidate(now, *vm)).reduce(|sum, it| Candidate {
            demand: sum.demand.plus(it.demand),
            memory: sum.memory.plus(it.memory),
            copied: sum.copied.plus(it.copied),
            ..sum
        });
        let apart = self.apart(&group);
        sum.map(|sum| Candidate { vm, apart, ..sum }).ok_or_else(|| "it is not here".to_owned())
    }

    /// Whether a VM and its group may leave together, this one first, if each may by itself.
    fn may_go_together(
        &self,
        now: Time,
        vm: VmId,
        may: impl Fn(VmId) -> Result<(), String>,
    ) -> Result<(), String> {
        let group = self.group_of(vm);
        let lead = group.first().copied().unwrap_or(vm);
        if lead != vm {
            return Err(format!("affinity: it goes with {}, or not at all", self.vm_name(lead)));
        }
        for other in &group {
            let with = |why: String| format!("{}, which goes with it: {why}", self.vm_name(*other));
            may(*other).map_err(|why| if *other == vm { why } else { with(why) })?;
        }
        let names: BTreeSet<&String> =
            group.iter().flat_map(|vm| &self.vms[vm].rules.affinity).collect();
        if names.iter().any(|name| self.home(name) != Some(self.id)) {
            return Err("affinity: some of its group are elsewhere".to_owned());
        }
        let coming = self.incoming.iter().filter(|(id, it)| {
            self.holds(id) && it.rules.affinity.iter().any(|name| names.contains(name))
        });
        if let Some((_, it)) = coming.into_iter().next() {
            return Err(format!("affinity: {} of its group is on its way here", it.name));
        }
        let followers: Vec<Companion> = self.followers(now, vm);
        let bytes = |it: &Companion| {
            let needs = &it.needs;
            let needs = [&needs.driver, &needs.machine, &needs.accelerator, &needs.bridge];
            let words = needs.into_iter().chain(&it.tags).map(|word| word.len() + 2);
            FOLLOWER_BYTES + it.name.len() + words.sum::<usize>()
        };
        let bytes: usize = followers.iter().map(bytes).sum();
        if followers.len() > FOLLOWERS_MAX || bytes > FOLLOWERS_BYTES_MAX {
            return Err(format!(
                "affinity: its group has {} other VMs here, of which a request cannot tell",
                followers.len()
            ));
        }
        Ok(())
    }

    /// Whether a VM belongs elsewhere, since the rest of its affinity group is there.
    pub(super) fn belongs_elsewhere(&self, vm: VmId) -> bool {
        let Some(here) = self.vms.get(&vm).filter(|_| self.drain.is_none()) else { return false };
        here.rules.affinity.iter().filter_map(|name| self.home(name)).any(|home| home != self.id)
    }

    /// Asks a host that has a VM which was to join its group here, and was refused, to take the group instead; gives what is
    /// being done, if anything.
    pub(super) fn go_to(
        &mut self,
        now: Time,
        refused: &RefusedToJoin,
        actions: &mut Vec<Action>,
    ) -> Option<String> {
        let joined = |here: &Vm| refused.rules.shared(&here.rules, Kind::Affinity).is_some();
        let (lead, _) = self.vms.iter().find(|(_, here)| joined(here))?;
        let lead = self.group_of(*lead).first().copied()?;
        let view = self.membership.view(refused.at)?;
        self.switched_on().and_then(|()| self.may_begin(now)).ok()?;
        let may = |vm| self.enforces(vm).and_then(|()| self.may_go_for_rule(now, vm));
        self.may_go_together(now, lead, may).ok()?;
        if !self.all_allowed(lead, view) {
            return None;
        }
        let (name, to) = (&refused.name, self.name_of(refused.at));
        let words = format!("affinity: {name} at {to} cannot come here, so its group may go there");
        let doing = format!("{words}; moving {}", self.vm_name(lead));
        let departure = Departure {
            asked: Some(BTreeSet::from([refused.at])),
            by_rule: true,
            followers: self.followers(now, lead),
            ..Departure::new(lead, words.clone(), Note::new(Step::VmPolicy, words))
        };
        self.begin_move(now, departure, actions);
        Some(doing)
    }

    /// The others of a VM's group, as a target is told of them.
    pub(super) fn followers(&self, now: Time, vm: VmId) -> Vec<Companion> {
        let group = self.group_of(vm).into_iter().filter(|other| *other != vm);
        group.filter_map(|other| self.companion(now, other)).collect()
    }

    /// What it costs that the traffic of these VMs with the others here crosses the wire once they have left. Others that are
    /// leaving too, by moves of their own, count: they may go elsewhere.
    pub(super) fn apart(&self, leaving: &BTreeSet<VmId>) -> Cost {
        let traffic = self.usage.traffic();
        let between = leaving.iter().flat_map(|vm| traffic.between(*vm));
        let staying = between
            .filter(|(other, _)| self.vms.contains_key(other) && !self.ahead.has(*other))
            .filter(|(other, _)| !leaving.contains(other));
        let bits = staying.fold(0_u64, |sum, (_, bits)| sum.saturating_add(bits.0));
        cost::of_traffic(BitsPerSec(bits), self.settings.worth_it.traffic_apart)
    }

    /// VMs that are to follow others whose move is under way, in any move but this.
    pub(super) fn following(&self, but: Option<MoveId>) -> impl Iterator<Item = VmId> {
        let moves = self.outgoing.iter().filter(move |(id, _)| Some(**id) != but);
        moves.flat_map(|(_, out)| out.followers.iter().map(|it| it.vm))
    }

    /// Whether all that would come can be here, their load left aside.
    pub(super) fn judge_followers(&self, id: MoveId, request: &Request) -> Result<(), String> {
        request.followers.iter().try_for_each(|it| {
            let why = |why: String| format!("{}, which follows it: {why}", it.name);
            self.judge_companion(id, it).map_err(why)
        })
    }
}

/// Room that these take, the hypervisors' overhead included.
pub(super) fn size_of_all(memory: Mib, followers: &[Companion]) -> Mib {
    let sizes = followers.iter().map(|it| size_with_overhead(it.demand.memory));
    sizes.fold(size_with_overhead(memory), Mib::plus)
}

/// What these ask together.
pub(super) fn demand_of(followers: &[Companion]) -> Load {
    followers.iter().fold(Load::default(), |sum, it| sum.plus(it.demand))
}
