//! Rules at work: what this host, as a target, holds; which hosts it does not ask as a source; and what it does where a rule
//! is broken already.
//!
//! **Invariant:** a VM is accepted only if no VM of its anti-affinity groups is here, has room reserved here or is on its way
//! here, and only where its pins allow it: so no two moves side by side break such a rule together.
//! **Invariant:** a VM does not leave the VMs of its affinity groups that are here with it, by whomever it is asked to, unless
//! more of them are elsewhere: then it may go there, and nowhere else.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::outgoing::{Departure, may_take};
use super::plan::marked;
use super::policies::Failures;
use super::recommended::Recommended;
use super::story::{Note, Step};
use super::{Action, Host, Vm};
use crate::membership::inventory::ListedState;
use crate::membership::{HostState, View};
use crate::migrate::record::Ownership;
use crate::placement::admission::size_with_overhead;
use crate::planted::{Bug, planted};
use crate::policy::rules::hours::{Hours, LocalTimes};
use crate::policy::rules::{HostIs, Kind, VmRules, of_places};
use crate::policy::settings::{Balance, Settings};
use crate::units::{HostId, MoveId, Time, VmId};
use crate::wire::limits::RULE_TAGS_BYTES_MAX;
use crate::wire::message::Companion;

/// After nobody took a VM where it had rather be, others are asked for so long.
const PREFERENCE_RETRIED: Duration = Duration::from_hours(1);

/// VMs of a group at one host.
#[derive(Clone, Copy, Debug)]
struct Part {
    vms: usize,
    lowest: VmId,
}

/// Where else VMs are of the groups of VMs here, by what those hosts list.
#[derive(Debug, Default)]
pub(super) struct Members(BTreeMap<(Kind, String), BTreeMap<HostId, Part>>);

impl Members {
    fn at(&self, kind: Kind, group: &str, host: HostId) -> bool {
        self.parts(kind, group).is_some_and(|parts| parts.contains_key(&host))
    }

    fn parts(&self, kind: Kind, group: &str) -> Option<&BTreeMap<HostId, Part>> {
        self.0.get(&(kind, group.to_owned()))
    }
}

/// A rule that a VM breaks where it is, in words.
pub(super) struct Broken {
    pub(super) vm: VmId,
    pub(super) words: String,
    /// It only had rather be elsewhere.
    preference: bool,
}

/// What comes of the rules that are broken.
pub(super) enum Enforcing {
    /// None is, or nothing is done about it.
    Nothing,
    /// One is, and this keeps it so for now.
    Waits(String),
    /// A VM is being moved for it.
    Moves(String),
}

impl Host {
    /// Takes new settings: from now on they decide, and rules are read anew. What is under way goes on.
    pub(super) fn set(&mut self, settings: Settings, actions: &mut Vec<Action>) {
        let changed = settings.changed(&self.settings);
        if changed.is_empty() {
            return;
        }
        let words = format!("in force from now on: [{}]", changed.join("], ["));
        actions.push(Action::Note(Note::new(Step::Settings, words)));
        let rules = &settings.rules;
        for (id, vm) in &mut self.vms {
            vm.rules = rules.of(*id, &vm.definition.name, &vm.definition.tags);
        }
        for incoming in self.incoming.values_mut() {
            incoming.rules = rules.of(incoming.vm, &incoming.name, &incoming.tags);
        }
        self.settings = settings;
        self.lists_changed = true;
        // By other settings something else may be found, recommended, or said.
        (self.others, self.looked_in_vain) = (None, None);
        self.recommended = Recommended::default();
        self.failures_of_policy = Failures::default();
    }

    /// What the calendar says, as it was last told.
    pub fn local_times(&self) -> Option<&LocalTimes> {
        self.local_times.as_ref()
    }

    /// The time zones that it takes to tell whether VMs may be moved now.
    pub fn time_zones(&self) -> BTreeSet<&str> {
        let of_vms = self.vms.values().flat_map(|vm| &vm.rules.hours);
        of_vms.chain([&self.settings.limits.hours]).filter_map(Hours::zone).collect()
    }

    /// Whether the VM may come here, as far as rules go: also where a person overrides them, if this host takes none at all.
    ///
    /// # Errors
    /// The rule that says no.
    pub(super) fn keeps_rules(
        &self,
        id: MoveId,
        vm: VmId,
        rules: &VmRules,
        forced: bool,
    ) -> Result<(), String> {
        self.takes_any()?;
        if forced { Ok(()) } else { self.breaks_none(id, vm, rules) }
    }

    /// Whether the VM would break no rule by coming here.
    ///
    /// # Errors
    /// The rule that it would break.
    pub(super) fn breaks_none(&self, id: MoveId, vm: VmId, rules: &VmRules) -> Result<(), String> {
        rules.allows(self.as_rules_see_it())?;
        let here = self.vms.iter().filter(|(other, _)| **other != vm);
        let here = here.map(|(_, vm)| (&vm.definition.name, &vm.rules, "is here already"));
        let coming = self.incoming.iter().filter(|(other, i)| **other != id && i.vm != vm);
        let coming = coming.filter(|(id, _)| self.holds(id) && !planted(Bug::RulesWithoutArrivals));
        let coming = coming.map(|(_, i)| (&i.name, &i.rules, "is on its way here"));
        let due = self.due_but(vm).map(|due| (&due.name, &due.rules, "is to come here"));
        for (name, others, words) in here.chain(coming).chain(due) {
            if let Some(group) = rules.shared(others, Kind::AntiAffinity) {
                return Err(format!("anti-affinity {group}: {name} of it {words}"));
            }
        }
        for (it, others) in self.followers_coming(id, vm) {
            if let Some(group) = rules.shared(&others, Kind::AntiAffinity) {
                return Err(format!("anti-affinity {group}: {} of it is to follow here", it.name));
            }
        }
        Ok(())
    }

    /// VMs that are to follow others here, in any move but this, and what must hold of where they are.
    fn followers_coming(
        &self,
        but: MoveId,
        vm: VmId,
    ) -> impl Iterator<Item = (&Companion, VmRules)> {
        let coming = self.incoming.iter().filter(move |(id, _)| **id != but && self.holds(id));
        let followers = coming.flat_map(|(_, incoming)| &incoming.followers);
        let others = followers.filter(move |it| it.vm != vm);
        others.map(|it| (it, self.settings.rules.of(it.vm, &it.name, &it.tags)))
    }

    /// Whether a VM may be moved by itself now, as far as its own rules go.
    ///
    /// # Errors
    /// What keeps it here.
    pub(super) fn may_leave(&self, vm: &Vm) -> Result<(), String> {
        self.may_leave_with_its_group(vm)?;
        self.leaves_nobody(vm.definition.vm)
    }

    pub(super) fn may_leave_with_its_group(&self, vm: &Vm) -> Result<(), String> {
        self.is_excluded(vm.definition.vm)?;
        vm.rules.in_hours(self.local_times.as_ref())
    }

    /// The rules against a move of the VM that a person asks for, to that host if one is named, as far as they are known here. As
    /// exclusions and hours are for what Evenkeel does by itself, they do not count.
    pub(super) fn rules_against(&self, vm: VmId, to: Option<HostId>) -> Vec<String> {
        let named = to.and_then(|to| self.membership.view(to));
        let there = named.and_then(|view| self.ruled_out(vm, view));
        self.leaves_nobody(vm).err().into_iter().chain(there).collect()
    }

    pub(super) fn leaves_nobody(&self, vm: VmId) -> Result<(), String> {
        let rules = &self.vms[&vm].rules;
        if rules.affinity.is_empty() {
            return Ok(());
        }
        let here = self.vms.iter().filter(|(other, _)| **other != vm && !self.ahead.has(**other));
        let here = here.map(|(_, vm)| (&vm.definition.name, &vm.rules));
        let coming = self.incoming.iter().filter(|(id, i)| i.vm != vm && self.holds(id));
        let coming = coming.map(|(_, i)| (&i.name, &i.rules)).chain(self.due());
        let mut all = here.chain(coming);
        let at_home = |group: &&String| self.home(group) == Some(self.id);
        let groups: Vec<&String> = rules.affinity.iter().filter(at_home).collect();
        let with = |(name, others): (&String, &VmRules)| {
            let group = groups.iter().find(|group| others.affinity.contains(**group))?;
            Some(format!("affinity {group}: it stays with {name}, which is here"))
        };
        all.find_map(with).map_or(Ok(()), Err)
    }

    /// Whether a request can carry what its target must know of a VM's tags.
    pub(super) fn tags_fit(vm: &Vm) -> Result<(), String> {
        let bytes: usize = of_places(&vm.definition.tags).iter().map(String::len).sum();
        if bytes <= RULE_TAGS_BYTES_MAX {
            return Ok(());
        }
        Err(format!(
            "its tags that are groups and pins take {bytes} bytes, {RULE_TAGS_BYTES_MAX} at most: put them into [rules]"
        ))
    }

    /// The rule by which a VM from here must not go to that host, as far as it is known here.
    pub(super) fn ruled_out(&self, vm: VmId, view: &View) -> Option<String> {
        let (rules, host) = (&self.vms[&vm].rules, view.peer.host);
        if let Err(why) = self.rule_of_place(vm, view) {
            return Some(why);
        }
        let elsewhere = |group: &&String| self.home(group).is_some_and(|home| home != host);
        let group = rules.affinity.iter().find(elsewhere)?;
        let home = self.home(group).map(|home| self.name_of(home)).unwrap_or_default();
        Some(format!("affinity {group}: its VMs belong at {home}"))
    }

    /// What keeps a VM from that host, wherever the rest of its groups is.
    fn rule_of_place(&self, vm: VmId, view: &View) -> Result<(), String> {
        let (rules, host) = (&self.vms[&vm].rules, view.peer.host);
        rules.allows(self.as_told(view))?;
        let mut apart = rules.anti_affinity.iter();
        match apart.find(|group| self.members.at(Kind::AntiAffinity, group, host)) {
            None => {}
            Some(group) => return Err(format!("anti-affinity {group}: a VM of it is there")),
        }
        let mut ahead = self.ahead.at(host).filter_map(|(other, _)| self.vms.get(&other));
        match ahead.find_map(|vm| rules.shared(&vm.rules, Kind::AntiAffinity)) {
            None => Ok(()),
            Some(group) => Err(format!("anti-affinity {group}: a VM of it would be there")),
        }
    }

    /// Whether that host is one where a VM from here had rather be.
    pub(super) fn preferred(&self, vm: VmId, view: &View) -> bool {
        self.vms[&vm].rules.prefers(self.as_told(view))
    }

    /// Whether a VM had rather be at some hosts than at others, and these have not refused it of late.
    pub(super) fn has_preference(&self, now: Time, vm: VmId) -> bool {
        let here = &self.vms[&vm];
        let never = here.refused_until == Time::default();
        !here.rules.should.is_empty()
            && (never || now.since(here.refused_until) > PREFERENCE_RETRIED)
    }

    /// Whether a VM may be evened out to that host.
    pub(super) fn may_even_out(&self, vm: VmId, host: HostId) -> bool {
        let rules = &self.vms[&vm].rules;
        if rules.is_empty() {
            return true;
        }
        let Some(view) = self.membership.view(host) else { return false };
        let gives_up = rules.prefers(self.as_rules_see_it()) && !self.preferred(vm, view);
        !gives_up && self.all_allowed(vm, view)
    }

    /// Whether no rule that is known here keeps a VM and its group from going to that host.
    pub(super) fn all_allowed(&self, vm: VmId, view: &View) -> bool {
        let group = self.group_of(vm);
        let at_home = |name: &String| self.home(name) == Some(self.id);
        if group.len() == 1 || !self.vms[&vm].rules.affinity.iter().all(at_home) {
            return self.ruled_out(vm, view).is_none();
        }
        group.into_iter().all(|vm| self.rule_of_place(vm, view).is_ok())
    }

    fn as_rules_see_it(&self) -> HostIs<'_> {
        HostIs { name: &self.name, labels: Some(&self.settings.host.labels) }
    }

    pub(super) fn as_told<'a>(&'a self, view: &'a View) -> HostIs<'a> {
        let held = self.inventories.held().get(&view.peer.host);
        HostIs { name: &view.peer.name, labels: held.map(|held| &*held.inventory.labels) }
    }

    /// The host where an affinity group belongs: where most of its VMs are, of such hosts the one with the lowest VM.
    pub(super) fn home(&self, group: &str) -> Option<HostId> {
        if let Some(to) = self.heads_for(group).or_else(|| self.home_in_drain(group)) {
            return Some(to);
        }
        let here = self
            .vms
            .iter()
            .filter(|(id, vm)| vm.rules.affinity.contains(group) && !self.ahead.has(**id));
        let mut here = here.map(|(vm, _)| *vm);
        let own = here.next().map(|lowest| Part { vms: 1 + here.count(), lowest });
        // All are to leave a host that is drained: nobody's home is here.
        let own = own.filter(|_| self.drain.is_none());
        let others = self.members.parts(Kind::Affinity, group);
        let others = others.into_iter().flatten().map(|(host, part)| (*host, *part));
        let all = others.chain(own.map(|part| (self.id, part)));
        all.max_by_key(|(_, part)| (part.vms, Reverse(part.lowest))).map(|(host, _)| host)
    }

    /// Looks up where else VMs are of the groups of VMs here.
    pub(super) fn find_members(&mut self) {
        let mut members = Members::default();
        for vm in self.vms.values() {
            for kind in [Kind::Affinity, Kind::AntiAffinity] {
                for group in vm.rules.groups(kind) {
                    members.0.entry((kind, group.clone())).or_default();
                }
            }
        }
        let rules = &self.settings.rules;
        for (view, _, inventory) in self.inventories() {
            if view.state != HostState::Alive || members.0.is_empty() {
                continue;
            }
            let there = inventory.vms.iter().filter(|listed| {
                listed.state != ListedState::Released && !self.vms.contains_key(&listed.vm)
            });
            for listed in there {
                for ((kind, group), parts) in &mut members.0 {
                    if rules.in_group(*kind, group, listed.vm, &listed.name, &listed.tags) {
                        let part = Part { vms: 0, lowest: listed.vm };
                        let part = parts.entry(view.peer.host).or_insert(part);
                        part.vms += 1;
                        part.lowest = part.lowest.min(listed.vm);
                    }
                }
            }
        }
        self.members = members;
    }

    /// Does what `[mode] rules` says about rules that are broken.
    pub(super) fn enforce(&mut self, now: Time, actions: &mut Vec<Action>) -> Enforcing {
        self.recommended.forget_mended(now);
        let (broken, waiting) = self.broken_by_mode();
        waiting.iter().for_each(|broken| self.recommend_by_rule(now, broken, actions));
        let refused = self.refused_to_join.take();
        if let Some(doing) = refused.and_then(|refused| self.go_to(now, &refused, actions)) {
            return Enforcing::Moves(doing);
        }
        let Some(first) = broken.first() else {
            return Enforcing::Nothing;
        };
        if let Err(why) = self.switched_on() {
            return Enforcing::Waits(format!("{}, but {why}", self.told(first)));
        }
        let broken = match self.mended(now, &broken) {
            None => return Enforcing::Nothing,
            Some(Err(why)) => return Enforcing::Waits(why),
            Some(Ok(broken)) => broken,
        };
        let doing = format!("{}; moving it", self.told(broken));
        self.depart_for_rule(now, broken, false, actions);
        Enforcing::Moves(doing)
    }

    fn told(&self, broken: &Broken) -> String {
        format!("{}: {}", self.vm_name(broken.vm), broken.words)
    }

    /// The rules that are broken, unless nothing shall be done about any.
    pub(super) fn broken_ones(&self) -> Vec<Broken> {
        if self.settings.mode.rules == Balance::Off {
            return Vec::new();
        }
        let mut broken = self.broken();
        broken.retain(|broken| self.enforcing_of(broken.vm) != Balance::Off);
        broken
    }

    /// The same: of VMs that are moved for it, and of those that wait for a person.
    pub(super) fn broken_by_mode(&self) -> (Vec<Broken>, Vec<Broken>) {
        let goes = |broken: &Broken| self.enforcing_of(broken.vm) == Balance::Automatic;
        self.broken_ones().into_iter().partition(goes)
    }

    /// Of the rules that are broken the one to be mended now, or what keeps all of them so; absent: none is.
    pub(super) fn mended<'a>(
        &self,
        now: Time,
        broken: &'a [Broken],
    ) -> Option<Result<&'a Broken, String>> {
        let first = broken.first()?;
        let mended = self.may_begin(now).and_then(|()| {
            let found = broken.iter().find(|broken| self.may_leave_for_rule(now, broken).is_ok());
            let why = || self.may_leave_for_rule(now, first).err().unwrap_or_default();
            found.ok_or_else(why)
        });
        Some(mended.map_err(|why| format!("{}, but {why}", self.told(first))))
    }

    /// Hosts to ask for a VM that had rather be elsewhere.
    pub(super) fn preferring(&self, broken: &Broken) -> Option<BTreeSet<HostId>> {
        let Broken { vm, preference, .. } = broken;
        preference.then(|| {
            let preferred = self
                .membership
                .alive()
                .filter(|view| self.preferred(*vm, view) && self.ruled_out(*vm, view).is_none());
            // Those last that cannot take it by their own word.
            let (able, unable): (Vec<&View>, Vec<&View>) =
                preferred.partition(|view| self.could_take(*vm, view));
            let hosts = able.into_iter().chain(unable).map(|view| view.peer.host);
            self.in_turn(*vm, hosts.collect()).into_iter().collect()
        })
    }

    /// Begins to ask about a VM that breaks a rule; `applied`: at a person's word.
    pub(super) fn depart_for_rule(
        &mut self,
        now: Time,
        broken: &Broken,
        applied: bool,
        actions: &mut Vec<Action>,
    ) -> MoveId {
        let asked = self.preferring(broken);
        let Broken { vm, words, .. } = broken;
        let words = format!("{words}{}", marked(applied));
        let policy =
            Note::new(Step::VmPolicy, format!("{} should leave: {words}", self.vm_name(*vm)));
        let any = Departure::new(*vm, words, policy);
        let departure = Departure { asked, by_rule: true, ..any };
        self.begin_move(now, departure, actions)
    }

    fn recommend_by_rule(&mut self, now: Time, broken: &Broken, actions: &mut Vec<Action>) {
        let Broken { vm, words, preference } = broken;
        let Err(mode) = self.enforces(*vm) else { return };
        if self.recommended.by_rule(now, *vm, *preference) {
            let name = self.vm_name(*vm);
            let words = format!(
                "{name} should leave: {words}; {mode}, so it stays until somebody moves it"
            );
            actions.push(Action::Note(Note::new(Step::VmPolicy, words).about(*vm)));
        }
    }

    pub(super) fn may_leave_for_rule(&self, now: Time, broken: &Broken) -> Result<(), String> {
        self.may_go_for_rule(now, broken.vm)?;
        self.leaves_nobody(broken.vm)?;
        // Where it had rather be may be where it was taken from because that host was hot: not to and fro.
        let rest_until = self.vms[&broken.vm].rest_until;
        if broken.preference && now < rest_until {
            return Err(format!("it rests for {} s more", rest_until.since(now).as_secs() + 1));
        }
        if self.may_go_somewhere(broken) {
            return Ok(());
        }
        Err("no host that answers may take it".to_owned())
    }

    /// Whether a VM may be moved for a rule now, if those go with it that stay with it.
    pub(super) fn may_go_for_rule(&self, now: Time, vm: VmId) -> Result<(), String> {
        self.movable(vm)?;
        let here = &self.vms[&vm];
        self.may_leave_with_its_group(here)?;
        self.copy_would_end(vm)?;
        if now < here.refused_until {
            let wait = here.refused_until.since(now).as_secs() + 1;
            return Err(format!("nobody took it; it is asked about again in {wait} s"));
        }
        if now < here.insisted_until {
            let wait = here.insisted_until.since(now).as_secs() + 1;
            return Err(format!("it was moved here against the rule: it stays for {wait} s"));
        }
        Ok(())
    }

    fn may_go_somewhere(&self, broken: &Broken) -> bool {
        self.membership.alive().any(|view| {
            let better = || self.could_take(broken.vm, view) && self.preferred(broken.vm, view);
            (!broken.preference || better()) && self.ruled_out(broken.vm, view).is_none()
        })
    }

    /// Whether a host could take a VM, by what it said last.
    fn could_take(&self, vm: VmId, view: &View) -> bool {
        let size = size_with_overhead(self.vms[&vm].definition.memory);
        view.digest.as_ref().is_some_and(|digest| may_take(digest, size))
    }

    /// The rules that VMs here break, those that only prefer last.
    fn broken(&self) -> Vec<Broken> {
        let stays = |vm: &VmId| {
            let goes = self.outgoing.values().map(|out| out.vm).chain(self.following(None));
            let promised = self.promised(None).map(|(vm, _)| vm);
            !goes.chain(promised).any(|going| going == *vm) && !self.ahead.has(*vm)
        };
        let owned = self.vms.iter().filter(|(vm, here)| {
            !here.rules.is_empty() && here.record.ownership == Ownership::Owner && stays(vm)
        });
        let mut all: Vec<(&VmId, &Vm)> = owned.collect();
        // Of VMs that keep each other away, one stays: one that may not leave, one that would not by itself, else the lowest.
        all.sort_by_key(|(id, vm)| (self.may_leave(vm).is_ok(), self.enforcing_of(**id), **id));
        let mut first: BTreeMap<&str, &str> = BTreeMap::new();
        let mut broken: Vec<Broken> = Vec::new();
        for (id, vm) in all {
            let words = self.breaks(vm, &first);
            for group in &vm.rules.anti_affinity {
                first.entry(group).or_insert(&vm.definition.name);
            }
            let preference = words.is_none();
            let rather = || {
                (!vm.rules.prefers(self.as_rules_see_it())).then(|| {
                    let places: Vec<String> =
                        vm.rules.should.iter().map(ToString::to_string).collect();
                    format!("pin: it should be at {}", places.join(" and "))
                })
            };
            if let Some(words) = words.or_else(rather) {
                broken.push(Broken { vm: *id, words, preference });
            }
        }
        broken.sort_by_key(|broken| (broken.preference, broken.vm));
        broken
    }

    /// The rule that a VM breaks by being here, VMs that came before it in `first` by their anti-affinity groups.
    fn breaks(&self, vm: &Vm, first: &BTreeMap<&str, &str>) -> Option<String> {
        let Vm { rules, .. } = vm;
        if let Err(why) = rules.allows(self.as_rules_see_it()) {
            return Some(why);
        }
        let apart = rules.anti_affinity.iter();
        let shared = apart.into_iter().find_map(|group| Some((group, first.get(group.as_str())?)));
        if let Some((group, other)) = shared {
            return Some(format!("anti-affinity {group}: {other} of it is here too"));
        }
        rules.affinity.iter().find_map(|group| {
            let home = self.home(group).filter(|home| *home != self.id)?;
            Some(format!("affinity {group}: its VMs belong at {}", self.name_of(home)))
        })
    }
}
