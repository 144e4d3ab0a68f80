//! The VM policy: whether a VM should leave, and which.
//!
//! Nothing moves while nothing asks for it: a host that is hot, or, where the trigger is `spread`, one whose use is above the
//! mean of the cluster. Whatever keeps it from moving a VM is said once, in words.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand_chacha::rand_core::Rng as _;

use super::outgoing::{Departure, may_take};
use super::story::{Note, Step};
use super::{Action, Host};
use crate::membership::View;
use crate::placement::candidates::{Candidate, Offer, ranked};
use crate::placement::pairs::{self, Above, Mean, Place};
use crate::policy::settings::{Balance, Trigger};
use crate::units::{Cost, HostId, Mib, Share, Time, VmId};
use crate::usage::load::{Capacity, Load};

/// A VM's demand is not known before it has been watched for so long.
const WATCHED_MIN: Duration = Duration::from_secs(3);
/// Balancing moves are counted over this long.
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Where a VM might go is looked up for so many hosts at the most, drawn by lot: hosts that look at the same few best ones
/// would all ask the same.
const LOOKED_AT: usize = 32;
/// Of those so many are asked, the best by what they said last.
const ASKED: usize = 8;

/// The mean of the cluster is reckoned so often, and where nothing was found to gain it is looked again after as long.
const MEAN_EVERY: Duration = Duration::from_secs(30);
/// What a person who has switched it off is told of it.
pub(super) const BALANCER_OFF: &str = "the balancer is off on this host (`evenkeel balancer on`)";

/// What asks for a move.
#[derive(Debug)]
struct Cause {
    trigger: Trigger,
    /// In figures.
    words: String,
    /// Relief beyond cost there and copy that a move must bring.
    margin: Cost,
}

/// A VM that should leave.
#[derive(Debug)]
struct Leaves {
    offer: Offer,
    /// Whom to ask; absent: the usual sample.
    asked: Option<BTreeSet<HostId>>,
    /// Why this one.
    words: String,
}

impl Cause {
    fn adjective(&self) -> &'static str {
        match self.trigger {
            Trigger::Hot => "hot",
            Trigger::Spread => "above the mean",
        }
    }
}

impl Host {
    /// Lets the VM policy speak; gives why nothing is being done, or what is.
    pub(super) fn balance(&mut self, now: Time, actions: &mut Vec<Action>) -> String {
        self.note_heat(now, actions);
        let Some(cause) = self.cause(now) else {
            self.recommended.clear();
            return self.nothing_asks();
        };
        match self.leaves(now, &cause) {
            Err(why) => format!("{} ({}), but {why}", cause.adjective(), cause.words),
            Ok(leaves) => self.speak(now, &cause, leaves, actions),
        }
    }

    /// Does as a person says; it is noted if it changes something. What is under way goes on.
    pub(super) fn switch_balancer(&mut self, on: bool, actions: &mut Vec<Action>) {
        if on != self.balancer_off {
            return;
        }
        self.balancer_off = !on;
        self.recommended.clear();
        let words = if on {
            "the balancer is on again on this host"
        } else {
            "the balancer is off on this host: it begins no balancing move until `evenkeel balancer on`"
        };
        actions.push(Action::Note(Note::new(Step::VmPolicy, words)));
    }

    /// Says once that this host has become hot.
    fn note_heat(&mut self, now: Time, actions: &mut Vec<Action>) {
        let hot = &self.settings.hot;
        let Some(crossed) = self.hot.hot(now, hot) else {
            self.noted_hot = None;
            return;
        };
        if self.noted_hot.is_none() {
            let window = self.hot.window(crossed, hot).as_secs();
            let words = format!("{crossed} for {window} s: this host is hot");
            actions.push(Action::Note(Note::new(Step::Monitoring, words)));
            self.noted_hot = Some(crossed.words.clone());
        }
    }

    fn nothing_asks(&self) -> String {
        match self.hot.crossed().first() {
            Some(crossed) => {
                let window = self.hot.window(crossed, &self.settings.hot);
                format!("{crossed}, not for {} s yet", window.as_secs())
            }
            None => match self.settings.mode.trigger {
                Trigger::Hot => "this host is not hot".to_owned(),
                Trigger::Spread => "this host is not hot, nor above the mean".to_owned(),
            },
        }
    }

    /// What asks for a move, if anything.
    fn cause(&mut self, now: Time) -> Option<Cause> {
        match self.settings.mode.trigger {
            Trigger::Hot => self.heat(now),
            // Evening out relieves a hot host as well, by smaller steps.
            Trigger::Spread => self.above_the_mean(now).or_else(|| self.heat(now)),
        }
    }

    fn heat(&self, now: Time) -> Option<Cause> {
        let crossed = self.hot.hot(now, &self.settings.hot)?;
        let (words, margin) = (crossed.words.clone(), self.settings.worth_it.gain_min);
        Some(Cause { trigger: Trigger::Hot, words, margin })
    }

    fn above_the_mean(&mut self, now: Time) -> Option<Cause> {
        let mean = self.mean(now)?;
        let spread = &self.settings.spread;
        let own = self.lowest_load(now, None);
        let above = Above::furthest(mean.above(own, self.usage.capacity()));
        let share = |thousandths: u64| Share(u32::try_from(thousandths).unwrap_or(u32::MAX));
        let words = format!(
            "{} used {}, {} in the mean of the cluster, {} above it allowed",
            above.name,
            share(above.own),
            share(above.mean),
            spread.threshold
        );
        let over = above.by() > u64::from(spread.threshold.0);
        over.then_some(Cause { trigger: Trigger::Spread, words, margin: spread.gain_min })
    }

    /// What hosts use in the mean, by what they said last; reckoned now and then, since there may be thousands.
    fn mean(&mut self, now: Time) -> Option<Mean> {
        let (mean, since) = self.mean;
        if since.is_some_and(|since| now.since(since) < MEAN_EVERY) {
            return Some(mean);
        }
        let others = self.membership.alive().filter_map(place);
        let own = (self.load_of_vms(now), self.usage.capacity());
        let mut all = others.map(|place| (place.load, place.capacity)).peekable();
        all.peek()?;
        self.mean = (Mean::of(all.chain([own])), Some(now));
        Some(self.mean.0)
    }

    /// The VM policy's verdict: the VM to ask about, or why none.
    fn leaves(&mut self, now: Time, cause: &Cause) -> Result<Leaves, String> {
        self.may_balance(now)?;
        if cause.trigger == Trigger::Spread && now < self.look_again {
            return Err("nothing was found to gain a moment ago".to_owned());
        }
        let candidates: Vec<Candidate> =
            self.vms.keys().filter_map(|vm| self.candidate(now, *vm)).collect();
        let priority = |candidate: &Candidate| self.vms[&candidate.vm].rules.priority;
        let mut priorities: BTreeMap<i32, Vec<Candidate>> = BTreeMap::new();
        for candidate in &candidates {
            priorities.entry(priority(candidate)).or_default().push(*candidate);
        }
        // Who has more is asked only where nobody with less would help.
        let mut why = "no VM here may leave".to_owned();
        for candidates in priorities.into_values() {
            let found = match cause.trigger {
                Trigger::Hot => self.relieves_most(now, &candidates, cause.margin),
                Trigger::Spread => self.evens_most(now, &candidates, cause.margin),
            };
            match found {
                Ok(leaves) => return Ok(leaves),
                Err(none) => why = none,
            }
        }
        self.look_again = now.plus(MEAN_EVERY);
        Err(why)
    }

    /// Whether this host may begin a balancing move now.
    fn may_balance(&mut self, now: Time) -> Result<(), String> {
        if self.settings.mode.balance == Balance::Off {
            return Err("balance is off".to_owned());
        }
        if self.balancer_off {
            return Err(BALANCER_OFF.to_owned());
        }
        self.may_begin(now)?;
        self.recent.retain(|began| now.since(*began) < DAY);
        let max = self.settings.limits.moves_per_day;
        if self.recent.len() >= usize::try_from(max).unwrap_or(usize::MAX) {
            return Err(format!("moves_per_day: {} were made", self.recent.len()));
        }
        Ok(())
    }

    /// Whether this host may begin a move by itself now.
    pub(super) fn may_begin(&self, now: Time) -> Result<(), String> {
        if let Some(frozen) = &self.frozen {
            return Err(frozen.clone());
        }
        let limits = &self.settings.limits;
        let (open, max) = (self.moves_under_way(), limits.moves_per_host);
        if open >= usize::try_from(max).unwrap_or(usize::MAX) {
            return Err(format!("moves_per_host: {open} under way here, {max} allowed"));
        }
        if now < self.rest_until {
            let wait = self.rest_until.since(now).as_secs() + 1;
            return Err(format!("this host rests for {wait} s: {}", self.rest_reason));
        }
        limits.hours.allow(self.local_times.as_ref())?;
        let all = self.moves_in_cluster();
        match limits.moves_per_cluster {
            Some(max) if all >= u64::from(max) => {
                Err(format!("moves_per_cluster: about {all} under way, {max} allowed"))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Moves under way in the cluster, as hosts said last: each is counted by its source, and by its target once that was chosen.
    fn moves_in_cluster(&self) -> u64 {
        let digests = self.membership.alive().filter_map(|view| view.digest.as_ref());
        let others: u64 = digests.map(|digest| u64::from(digest.moves_under_way)).sum();
        others.saturating_add(u64::try_from(self.moves_under_way()).unwrap_or(u64::MAX)).div_ceil(2)
    }

    /// Of a hot host: the VM whose departure helps most for the least copying.
    fn relieves_most(
        &mut self,
        now: Time,
        candidates: &[Candidate],
        margin: Cost,
    ) -> Result<Leaves, String> {
        let ranked = ranked(candidates, self.lowest_load(now, None), self.usage.capacity(), margin);
        let ranked = self.in_order_of_policy(now, ranked);
        let offer = ranked.first().copied().ok_or_else(|| {
            format!("none of {} VMs that may leave would relieve it by more than {margin} beyond the copy", candidates.len())
        })?;
        let words = self.first_by().to_owned();
        Ok(Leaves { offer, asked: None, words })
    }

    /// Of a host above the mean: the VM that gains most where it would go, by what some of the others said of themselves.
    fn evens_most(
        &mut self,
        now: Time,
        candidates: &[Candidate],
        margin: Cost,
    ) -> Result<Leaves, String> {
        let places = self.some_places();
        let own = (self.lowest_load(now, None), self.usage.capacity());
        let may = |vm, host| self.may_even_out(vm, host);
        let places = (&*places, &may as &dyn Fn(VmId, HostId) -> bool);
        let mut pairs = pairs::ranked(candidates, own, margin, self.mean.0, places);
        let places = places.0;
        let offers = pairs.iter().map(|pair| pair.offer).collect();
        let first = self.in_order_of_policy(now, offers).first().map(|offer| offer.candidate.vm);
        let Some(at) = pairs.iter().position(|pair| Some(pair.offer.candidate.vm) == first) else {
            let (vms, hosts) = (candidates.len(), places.len());
            return Err(format!(
                "none of {vms} VMs that may leave would gain more than {margin} beyond the copy at any of {hosts} hosts"
            ));
        };
        let pair = pairs.swap_remove(at);
        let by = match self.settings.vm_policy.order {
            Some(_) => self.first_by(),
            None => "most gain for what is copied",
        };
        let words = format!("{by}, {} at best", pair.gain.plus(margin));
        let asked = pair.hosts.into_iter().take(ASKED).collect();
        Ok(Leaves { offer: pair.offer, asked: Some(asked), words })
    }

    /// Hosts that could take a VM by what they said last, a few of many.
    fn some_places(&mut self) -> Vec<Place> {
        let policy = self.settings.hash();
        let max = self.settings.limits.moves_per_host;
        let may = |view: &&View| {
            view.digest.as_ref().is_some_and(|digest| {
                may_take(digest, Mib(0)) && digest.policy == policy && digest.moves_under_way < max
            }) && !self.journals.set_back(view.peer.host)
        };
        let mut places: Vec<Place> =
            self.membership.alive().filter(may).filter_map(place).collect();
        for drawn in 0..places.len().min(LOOKED_AT) {
            let left = u64::try_from(places.len() - drawn).unwrap_or(1);
            let index = usize::try_from(self.rng.next_u64() % left).unwrap_or(0);
            places.swap(drawn, drawn + index);
        }
        places.truncate(LOOKED_AT);
        places
    }

    fn candidate(&self, now: Time, vm: VmId) -> Option<Candidate> {
        let here = &self.vms[&vm];
        let watched = self.usage.history(vm).is_some_and(|history| history.span() >= WATCHED_MIN);
        let rests = now < here.rest_until || now < here.refused_until;
        if rests || !watched || self.movable(vm).is_err() || self.may_leave(here).is_err() {
            return None;
        }
        Some(Candidate { vm, demand: self.demand(now, vm), memory: here.definition.memory })
    }

    fn speak(
        &mut self,
        now: Time,
        cause: &Cause,
        leaves: Leaves,
        actions: &mut Vec<Action>,
    ) -> String {
        let Leaves { offer, asked, words: why } = leaves;
        let Offer { candidate: Candidate { vm, demand, memory }, relief, copy } = offer;
        let (name, adjective) = (self.vm_name(vm), cause.adjective());
        let words = format!(
            "{name} should leave: {}; without it {relief} less ({} packets/s, {}), {why} ({memory}, copy cost {copy})",
            cause.words, demand.packets.0, demand.cpu
        );
        if self.settings.mode.balance == Balance::Recommend {
            if self.recommended.insert(vm) {
                let words = format!(
                    "{words}; balance is \"recommend\", so it stays until somebody moves it"
                );
                actions.push(Action::Note(Note::new(Step::VmPolicy, words).about(vm).at(relief)));
            }
            return format!("{adjective} ({}); recommended: move {name}", cause.words);
        }
        let policy = Note::new(Step::VmPolicy, words).at(relief);
        let useful_max = Some(offer.useful_max(cause.margin));
        let (why, margin) = (cause.words.clone(), cause.margin);
        let by_rule = false;
        let departure = Departure { vm, why, policy, asked, useful_max, by_rule, margin };
        self.begin_move(now, departure, actions);
        format!("{adjective} ({}); moving {name}", cause.words)
    }
}

/// A host as it said of itself, if it said enough.
fn place(view: &View) -> Option<Place> {
    let digest = view.digest.as_ref()?;
    let headroom = digest.headroom.filter(|headroom| headroom.memory > Mib(0))?;
    let committed = headroom.memory.0.saturating_mul(u64::from(digest.memory_committed.0)) / 1000;
    let load = Load {
        cpu: headroom.cpu_asked,
        memory: Mib(committed),
        bits: digest.bits,
        packets: digest.packets,
    };
    let bits = Some(headroom.nic).filter(|nic| nic.0 > 0);
    let capacity = Capacity { cpu: headroom.cpu, memory: headroom.memory, bits, packets: None };
    Some(Place { host: view.peer.host, load, capacity, room: headroom.room })
}
