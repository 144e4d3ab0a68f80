//! What stands between a VM here and one other host, and the least that would have to change.
//!
//! By what is known here: this host's own limits, the VM's rules, and what the other said of itself last. That one has the last
//! word when it is asked; what it said of this VM last time it was, is told too.
//!
//! **Invariant:** looking changes nothing.

use super::Host;
use super::others::place;
use crate::membership::{Driver, Headroom, HostState, View};
use crate::migrate::hypervisor::Needs;
use crate::placement::admission::{fits, room, size_with_overhead};
use crate::placement::pairs::Place;
use crate::policy::cost;
use crate::policy::hot::used;
use crate::policy::rules::Kind;
use crate::policy::settings::{Balance, Target};
use crate::units::{Cost, HostId, Mib, Share, Time, VmId};
use crate::usage::load::{Capacity, Load};

/// One thing that stands in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// What, in figures.
    pub words: String,
    /// The least that would have to change, or be waited for.
    pub change: String,
    /// It stands in the way of a move by hand too.
    pub by_hand: bool,
}

/// What was found so far.
#[derive(Debug, Default)]
struct Found(Vec<Obstacle>);

impl Found {
    /// It stands in the way of whoever moves the VM.
    fn always(&mut self, words: impl Into<String>, change: impl Into<String>) {
        self.0.push(Obstacle { words: words.into(), change: change.into(), by_hand: true });
    }

    /// A person who moves the VM by hand may pass it over.
    fn by_itself(&mut self, words: impl Into<String>, change: impl Into<String>) {
        self.0.push(Obstacle { words: words.into(), change: change.into(), by_hand: false });
    }
}

impl Host {
    /// What keeps a VM that is here from going to that host, in the order in which a move would meet it.
    pub fn obstacles(&self, now: Time, vm: VmId, to: HostId) -> Vec<Obstacle> {
        let mut found = Found::default();
        let Some(view) = self.membership.view(to) else {
            found.always("that host is not known", "see `evenkeel hosts`");
            return found.0;
        };
        if let Err(why) = self.movable(vm) {
            found.always(why, "wait for it, or put it right");
        }
        if !self.vms.contains_key(&vm) {
            return found.0;
        }
        self.rules_between(vm, view, &mut found);
        self.ability_there(vm, view, &mut found);
        self.room_there(now, vm, view, &mut found);
        self.limits_here(now, vm, &mut found);
        self.rests(now, vm, &mut found);
        self.worth(now, vm, view, &mut found);
        // What no word of a person passes over comes first.
        found.0.sort_by_key(|obstacle| !obstacle.by_hand);
        found.0
    }

    /// What that host said last when it was asked about the VM, if it refused, and when.
    pub fn last_refusal(&self, vm: VmId, from: HostId) -> Option<(Time, &str)> {
        let of_vm = self.stories().rev().filter(|story| story.vm == vm);
        let answers = of_vm.flat_map(|story| story.answers.iter().rev());
        let (_, at, answer) = answers.into_iter().find(|(host, ..)| *host == from)?;
        Some((*at, answer.as_ref().err()?))
    }

    fn rules_between(&self, vm: VmId, view: &View, found: &mut Found) {
        let rules = &self.vms[&vm].rules;
        if let Err(why) = self.leaves_nobody(vm) {
            let change = match self.group_of(vm).first() {
                Some(lead) if self.group_of(vm).len() > 1 => format!(
                    "wait: balancing moves the group as one, {} first; or take it out of the group",
                    self.vm_name(*lead)
                ),
                _ => "take it out of the group, or move the group".to_owned(),
            };
            found.always(format!("rule {why}"), change);
        }
        let Some(why) = self.ruled_out(vm, view) else { return };
        let there = self.together_there(vm, view);
        let words = there
            .map_or(why.clone(), |(group, name)| format!("anti-affinity {group}: {name} is there"));
        let change = if rules.allows(self.as_told(view)).is_err() {
            "pin it to that host too, by its name or one of its labels"
        } else if why.starts_with(Kind::AntiAffinity.name()) {
            "move that VM away, or take one of the two out of the group"
        } else {
            "take it out of the group, or move the group"
        };
        found.always(format!("rule {words}"), change);
    }

    /// A VM at that host from which this one is to keep apart: the group, and its name.
    fn together_there(&self, vm: VmId, view: &View) -> Option<(String, String)> {
        let apart = &self.vms[&vm].rules.anti_affinity;
        let rules = &self.settings.rules;
        let (_, _, inventory) =
            self.inventories().find(|(other, ..)| other.peer.host == view.peer.host)?;
        apart.iter().find_map(|group| {
            let kind = Kind::AntiAffinity;
            let in_group = inventory.vms.iter().find(|listed| {
                listed.vm != vm
                    && rules.in_group(kind, group, listed.vm, &listed.name, &listed.tags)
            })?;
            Some((group.clone(), in_group.name.clone()))
        })
    }

    fn ability_there(&self, vm: VmId, view: &View, found: &mut Found) {
        if view.state != HostState::Alive {
            found.always("it does not answer", "bring its agent back");
        }
        if self.journals.set_back(view.peer.host) {
            let words = "its journal was set back: it may forget what it promises";
            found.always(words, "see the alarm, then `evenkeel move resolve` there");
        }
        let Some(digest) = &view.digest else {
            return found.always("it has not said anything of itself yet", "wait some seconds");
        };
        if digest.policy != self.settings.hash() {
            found.always(
                "its settings differ from those here",
                "make [hot], [target], gain_min, expressions, groups and pins the same on both",
            );
        }
        if let Some(headroom) = &digest.headroom {
            let needs = &self.vms[&vm].definition.needs;
            if headroom.doubt {
                let words = "its journal is in doubt";
                found.always(words, "settle its open moves there: `evenkeel move resolve`");
            }
            if let Some(lacking) = lacking(needs, headroom) {
                found.always(lacking, "none: the VM would not run there");
            }
        }
        if digest.hot {
            found.always("it is hot itself", "wait until it is not, or relieve it");
        }
        let max = self.settings.limits.moves_per_host;
        if digest.moves_under_way >= max {
            let words = format!(
                "moves_per_host: {} under way there, {max} allowed",
                digest.moves_under_way
            );
            found.always(words, "wait until they are over");
        }
    }

    fn room_there(&self, now: Time, vm: VmId, view: &View, found: &mut Found) {
        let Some(digest) = &view.digest else { return };
        let size = size_with_overhead(self.vms[&vm].definition.memory);
        if let Some(headroom) = digest.headroom.filter(|headroom| headroom.room < size) {
            let lacks = size.minus(headroom.room);
            let words = format!("room: {size} asked, {} to give there", headroom.room);
            found.always(words, self.more_room(lacks, &headroom));
        }
        let Some((place, capacity)) = self.place_there(view) else { return };
        let (demand, settings) = (self.expected(now, vm), &self.settings);
        if let Err(why) = fits(demand, place.load, capacity, &settings.target, &settings.hot) {
            let after = demand.plus(place.load).cpu.0;
            found.always(why.clone(), more_load(&why, after, capacity, settings.hot.cpu_used));
        }
    }

    fn more_room(&self, lacks: Mib, headroom: &Headroom) -> String {
        if headroom.room == Mib(0) {
            return format!(
                "end its maintenance or its drain (`evenkeel undrain` there) if it is in one, or free {lacks} there"
            );
        }
        let (target, all) = (&self.settings.target, headroom.memory);
        let needed = room(target, all).plus(lacks);
        let by_share = room(&Target { memory_reserve: Mib(0), ..target.clone() }, all);
        let by_reserve = all.minus(target.memory_reserve);
        let more = if all == Mib(0) || needed > all {
            String::new()
        } else if needed <= by_reserve {
            // Rounded up to a whole percent.
            let raised = needed.0.saturating_mul(100).div_ceil(all.0);
            format!(", or raise target.memory_used_max to {raised}% on all hosts")
        } else if needed <= by_share {
            format!(", or lower target.memory_reserve to {} on all hosts", all.minus(needed))
        } else {
            String::new()
        };
        format!("free {lacks} there{more}")
    }

    /// That host as it said of itself, and its capacity as this host would judge it.
    fn place_there(&self, view: &View) -> Option<(Place, Capacity)> {
        let place = place(view)?;
        let capacity = Capacity { packets: self.usage.capacity().packets, ..place.capacity };
        Some((place, capacity))
    }

    fn limits_here(&self, now: Time, vm: VmId, found: &mut Found) {
        if let Err(mode) = self.balances(vm) {
            let applied = match self.balance_of(vm) {
                Balance::Recommend => "`evenkeel apply` where it is planned, or ",
                Balance::Off | Balance::Automatic => "",
            };
            found.by_itself(mode, applied.to_owned() + &self.to_have_balanced(vm));
        }
        if let Err(why) = self.switched_on() {
            found.by_itself(why, "`evenkeel balancer on`");
        }
        if let Err(why) = self.may_balance(now) {
            found.by_itself(why, "wait, or change [limits] or worth_it.host_rest");
        }
        if self.cause(now).is_none() {
            let words = format!("nothing asks for a move: {}", self.nothing_asks());
            found.by_itself(words, "none is needed; by hand: `evenkeel move VM --to HOST`");
        }
    }

    fn rests(&self, now: Time, vm: VmId, found: &mut Found) {
        let here = &self.vms[&vm];
        let times = self.local_times();
        if let Err(why) = self.is_excluded(vm) {
            found.by_itself(why, "end the exclusion");
        }
        if let Err(why) = here.rules.in_hours(times) {
            found.by_itself(why, "wait for its hours, or widen them");
        }
        let seconds = |until: Time| until.since(now).as_secs() + 1;
        if now < here.rest_until {
            let words = match self.pay_backs.unpaid(vm) {
                0 => String::new(),
                1 => ", longer since its last move did not pay".to_owned(),
                unpaid => format!(", longer since {unpaid} moves in a row did not pay"),
            };
            let words = format!("it rests for {} s more{words}", seconds(here.rest_until));
            found.by_itself(words, "wait; worth_it.vm_rest says how long the next rest is");
        }
        if let Some((_, host)) = self.promised(None).find(|(owed, _)| *owed == vm) {
            let words = format!("it is to go to {} in return for another", self.name_of(host));
            found.by_itself(words, "wait until that is over");
        }
        if now < here.refused_until {
            let wait = seconds(here.refused_until);
            found.by_itself(format!("nobody took it; it is asked about again in {wait} s"), "wait");
        }
        for other in self.group_of(vm).into_iter().filter(|other| *other != vm) {
            // That one is off was told of the group.
            let why = self.is_balanced(other).is_ok();
            let why = why.then(|| self.may_be_balanced_with_its_group(now, other));
            if let Some(Err(why)) = why {
                let name = self.vm_name(other);
                found.by_itself(
                    format!("{name}, which goes with it: {why}"),
                    "see `evenkeel why` of that VM",
                );
            }
        }
        if self.foreseen(vm).is_none() {
            let writes = self.usage.told(vm).dirty.unwrap_or_default();
            let words = format!("it writes {writes} of its memory: its copy would not end");
            found.by_itself(words, "raise copy.bandwidth, or wait until it writes less");
        }
    }

    /// What it would cost there against what it relieves here, its affinity group counted, as it goes too.
    fn worth(&self, now: Time, vm: VmId, view: &View, found: &mut Found) {
        let Some((place, capacity)) = self.place_there(view) else { return };
        let group = self.group_of(vm);
        let sum = |load: &dyn Fn(VmId) -> Load| {
            group.iter().map(|vm| load(*vm)).fold(Load::default(), Load::plus)
        };
        let cause = self.cause(now);
        let basis = cause.as_ref().map(|cause| cause.basis).unwrap_or_default();
        let demand = sum(&|vm| self.demand_by(basis, now, vm));
        let moving = self.outgoing.iter().find(|(_, out)| out.vm == vm).map(|(id, _)| *id);
        let lowest = self.lowest_load_by(basis, now, moving);
        let relief = cost::relief(lowest, demand, self.usage.capacity());
        let there = cost::of_arrival(place.load, sum(&|vm| self.expected(now, vm)), capacity);
        let copied = group.iter().map(|vm| self.copied(*vm)).fold(Mib(0), Mib::plus);
        let copy = cost::of_copy(copied);
        let gain_min = self.settings.worth_it.gain_min;
        let margin = cause.map_or(gain_min, |cause| cause.margin);
        let apart = self.apart(&group);
        let talk = if apart > Cost(0) {
            format!(", its traffic with VMs here {apart}")
        } else {
            String::new()
        };
        let useful = relief.minus(copy).minus(apart).minus(margin);
        if there <= useful {
            return;
        }
        let it = if group.len() > 1 { "it and its affinity group" } else { "it" };
        let words = format!(
            "{it} would cost {there} there by what that host said last, useful is {} at the most: {relief} less here, copy {copy}{talk}, gain_min {margin}",
            useful.max(Cost(0))
        );
        let gain = relief.minus(copy).minus(apart).minus(there);
        let change = if gain > Cost(0) {
            format!("lower gain_min to less than {gain} on all hosts")
        } else {
            format!(
                "relieve that host first: all hosts together would be {} worse off",
                Cost(0).minus(gain)
            )
        };
        found.by_itself(words, change);
    }
}

/// What the VM needs and that host says it has not.
fn lacking(needs: &Needs, there: &Headroom) -> Option<String> {
    let driver = Driver::named(&needs.driver);
    if driver != there.driver {
        let (needed, there) = (&needs.driver, there.driver.name());
        return Some(format!("capability: it needs hypervisor {needed}, there is {there}"));
    }
    let works = match needs.accelerator.as_str() {
        "kvm" => there.kvm,
        "tcg" => there.tcg,
        _ => true,
    };
    (!works).then(|| format!("capability: no accelerator {} there", needs.accelerator))
}

fn more_load(why: &str, cpu: u64, capacity: Capacity, hot: Share) -> String {
    let reached = used(cpu, capacity.cpu.0).div_ceil(10);
    // Beyond that it would be hot with the VM there.
    if why.starts_with("cpu_used_max") && reached * 10 < u64::from(hot.0) {
        return format!(
            "relieve it, or raise target.cpu_used_max to {reached}% on all hosts, below hot.cpu_used"
        );
    }
    "relieve it".to_owned()
}
