//! The VM policy: whether a VM should leave, and which.
//!
//! Nothing moves while nothing asks for it: a host that is hot, or, where the trigger is `spread`, one whose use is above the
//! mean of the cluster. Whatever keeps it from moving a VM is said once, in words.

use std::collections::BTreeMap;
use std::time::Duration;

use rand_chacha::ChaCha8Rng;

use super::loads::Basis;
use super::outgoing::Departure;
use super::plan::marked;
use super::policies::Failures;
use super::story::{Note, Step};
use super::waits::{Doing, InVain};
use super::{Action, Host};
use crate::placement::candidates::{Candidate, Offer};
use crate::placement::pairs::Above;
use crate::policy::hot::Crossed;
use crate::policy::settings::{Balance, Trigger};
use crate::units::{Cost, HostId, Mib, MoveId, Share, Time, VmId};

/// A VM's demand is not known before it has been watched for so long.
const WATCHED_MIN: Duration = Duration::from_secs(3);
/// Balancing moves are counted over this long.
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Of the hosts that were looked at so many are asked, the best by what they said last.
pub(super) const ASKED: usize = 8;
/// What a person who has switched it off is told of it.
const BALANCER_OFF: &str = "the balancer is off on this host (`evenkeel balancer on`)";

/// What asks for a move.
#[derive(Debug)]
pub(super) struct Cause {
    pub(super) trigger: Trigger,
    /// In figures.
    pub(super) words: String,
    /// Relief beyond cost there and copy that a move must bring.
    pub(super) margin: Cost,
    /// By what that relief is reckoned.
    pub(super) basis: Basis,
}

/// A VM that should leave.
#[derive(Debug)]
pub(super) struct Leaves {
    pub(super) offer: Offer,
    /// Whom to ask, best first; absent: the usual sample.
    pub(super) asked: Option<Vec<HostId>>,
    /// Why this one.
    pub(super) words: String,
    /// It seems to pay somewhere, by what others said of themselves last.
    pub(super) pays: bool,
    /// It pays nowhere alone: one of the target's may come in return.
    pub(super) exchange: bool,
}

/// What a verdict draws by lot, and what fails on the way to it: kept by whoever acts on it, dropped by whoever only looks.
#[derive(Debug)]
pub(super) struct Chance {
    pub(super) rng: ChaCha8Rng,
    pub(super) failures: Failures,
}

impl Leaves {
    pub(super) fn vm(&self) -> VmId {
        self.offer.candidate.vm
    }
}

impl Cause {
    pub(super) fn adjective(&self) -> &'static str {
        match self.trigger {
            Trigger::Hot => "hot",
            Trigger::Spread => "above the mean",
            Trigger::Packets => "the busiest card",
            Trigger::Consolidate => "to be emptied",
        }
    }

    /// What asks, and why nothing comes of it.
    pub(super) fn but(&self, why: &str) -> String {
        format!("{} ({}), but {why}", self.adjective(), self.words)
    }
}

impl Host {
    /// Lets the VM policy speak; gives why nothing is being done, or what is.
    pub(super) fn balance(&mut self, now: Time, actions: &mut Vec<Action>) -> Doing {
        self.note_heat(now, actions);
        self.recent.retain(|began| now.since(*began) < DAY);
        let Some(cause) = self.cause(now) else {
            self.recommended.nothing_asks(now);
            return Doing::calm(self.nothing_asks(), self.membership.told_times());
        };
        if let Some(in_vain) = &self.looked_in_vain
            && let Some(why) = in_vain.holds(now)
            && cause.trigger != Trigger::Hot
        {
            return Doing::until(in_vain.until, cause.but(why));
        }
        let told = self.stands_recommended(now, &cause);
        if let Some(vm) = told
            && !(self.some_go_by_themselves() && self.recommended.look_again(now))
        {
            return Doing::now(self.recommends(&cause, vm));
        }
        if let Err(why) = self.by_itself() {
            return Doing::now(cause.but(&why));
        }
        let mut chance = self.chance();
        let verdict = self.leaves(now, &cause, &mut chance);
        self.keep(chance);
        if verdict.is_ok() {
            self.looked_in_vain = None;
        }
        match (verdict, told) {
            (Err(why), _) => self.found_none(now, &cause, why),
            (Ok(leaves), Some(vm)) if self.balances(leaves.vm()).is_err() => {
                Doing::now(self.recommends(&cause, vm))
            }
            (Ok(leaves), _) => Doing::now(self.speak(now, &cause, leaves, actions)),
        }
    }

    /// No VM is to leave, for this reason: until this host has rested, or until it looks again.
    fn found_none(&mut self, now: Time, cause: &Cause, why: String) -> Doing {
        let words = cause.but(&why);
        if now < self.rest_until {
            return Doing::until(self.rest_until, words);
        }
        if cause.trigger == Trigger::Hot || self.may_balance(now).is_err() {
            return Doing::now(words);
        }
        let before = self.looked_in_vain.take();
        if self.hot(now).is_some() {
            // It is relieved by what does not even out, if anything does, from the next reading on.
            self.looked_in_vain = Some(InVain::first(now, why));
            return Doing::now(words);
        }
        let in_vain = InVain::again(before, now, why);
        let until = in_vain.until;
        self.looked_in_vain = Some(in_vain);
        Doing::until(until, words)
    }

    pub(super) fn chance(&self) -> Chance {
        Chance { rng: self.rng.clone(), failures: self.failures_of_policy.clone() }
    }

    pub(super) fn keep(&mut self, chance: Chance) {
        (self.rng, self.failures_of_policy) = (chance.rng, chance.failures);
    }

    /// Does as a person says; it is noted if it changes something. What is under way goes on.
    pub(super) fn switch_balancer(&mut self, on: bool, actions: &mut Vec<Action>) {
        if on != self.balancer_off {
            return;
        }
        self.balancer_off = !on;
        self.recommended.forget_balancing();
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
            // What was not worth it before may be now.
            self.looked_in_vain = None;
        }
    }

    pub(super) fn nothing_asks(&self) -> String {
        match self.hot.crossed().next() {
            Some(crossed) => {
                let window = self.hot.window(crossed, &self.settings.hot);
                format!("{crossed}, not for {} s yet", window.as_secs())
            }
            None => match self.settings.mode.trigger {
                Trigger::Hot => "this host is not hot".to_owned(),
                Trigger::Spread => "this host is not hot, nor above the mean".to_owned(),
                Trigger::Packets => "this host is not hot, nor is its card the busiest".to_owned(),
                Trigger::Consolidate if self.vms.is_empty() => {
                    "this host has no VM: it could sleep".to_owned()
                }
                Trigger::Consolidate => match self.stays_awake() {
                    Some(why) => format!("this host is not hot, and is not emptied: {why}"),
                    None => "this host is not hot, nor to be emptied now".to_owned(),
                },
            },
        }
    }

    /// What asks for a move, if anything.
    pub(super) fn cause(&self, now: Time) -> Option<Cause> {
        match self.settings.mode.trigger {
            Trigger::Hot => self.heat(now),
            // Evening out relieves a hot host as well, by smaller steps; where it found nothing, heat is reason enough to ask.
            Trigger::Spread => {
                let in_vain = self.looked_in_vain.as_ref().and_then(|in_vain| in_vain.holds(now));
                let heat = self.heat(now).filter(|_| in_vain.is_some());
                heat.or_else(|| self.above_the_mean(now)).or_else(|| self.heat(now))
            }
            Trigger::Packets => self.heat(now).or_else(|| self.busiest_card(now)),
            Trigger::Consolidate => self.heat(now).or_else(|| self.empties(now)),
        }
    }

    fn heat(&self, now: Time) -> Option<Cause> {
        let Crossed { words, foreseen, .. } = self.still_hot(now)?;
        let basis = if foreseen { Basis::NextHour } else { Basis::Now };
        let margin = self.settings.worth_it.gain_min;
        Some(Cause { trigger: Trigger::Hot, words, margin, basis })
    }

    fn above_the_mean(&self, now: Time) -> Option<Cause> {
        let mean = self.others.as_ref().filter(|_| self.membership.alive().next().is_some())?.mean;
        let spread = &self.settings.spread;
        let own = self.lowest_load(now, None);
        let above = Above::furthest(mean.above(own, self.usage.capacity()));
        let share = |thousandths: u64| Share(u32::try_from(thousandths).unwrap_or(u32::MAX));
        let over = above.by() > u64::from(spread.threshold.0);
        over.then(|| {
            let words = format!(
                "{} used {}, {} in the mean of the cluster, {} above it allowed",
                above.name,
                share(above.own),
                share(above.mean),
                spread.threshold
            );
            Cause { trigger: Trigger::Spread, words, margin: spread.gain_min, basis: Basis::Now }
        })
    }

    /// What VMs send and receive here, if that is more than at any other host, and more than in the mean by what is allowed.
    fn busiest_card(&self, now: Time) -> Option<Cause> {
        let mean = self.others.as_ref()?.mean;
        let Share(allowed) = self.settings.spread.threshold;
        let own = self.lowest_load(now, None).packets;
        let (most, in_mean) = (mean.most_packets().max(self.most_packets_ahead()), mean.packets());
        let over = in_mean.0.saturating_mul(1000 + u64::from(allowed)) / 1000;
        let margin = self.settings.spread.gain_min;
        let busiest = own > most && own.0 > over;
        busiest.then(|| {
            let words = format!(
                "{} packets/s, {} at the next busiest card, {} in the mean of the cluster",
                own.0, most.0, in_mean.0
            );
            Cause { trigger: Trigger::Packets, words, margin, basis: Basis::Now }
        })
    }

    /// The VM policy's verdict: the VM to ask about, or why none. One that waits for a person only where no other may be asked about;
    /// then the one of which that person has been told before, as long as its move would pay.
    pub(super) fn leaves(
        &self,
        now: Time,
        cause: &Cause,
        chance: &mut Chance,
    ) -> Result<Leaves, String> {
        self.may_balance(now)?;
        let candidates = self.vms.keys().filter_map(|vm| self.led_by(now, *vm).ok());
        let (by_itself, waiting): (Vec<Candidate>, Vec<Candidate>) =
            candidates.partition(|it| self.balance_of(it.vm) == Balance::Automatic);
        let goes = self.first_by_priority(now, cause, by_itself, chance);
        if waiting.is_empty() || goes.is_ok() {
            return goes;
        }
        match self.still_pays(now, cause, chance) {
            Some(leaves) => Ok(leaves),
            None => self.first_by_priority(now, cause, waiting, chance),
        }
    }

    /// Of these VMs the one to ask about, or why none: who has more priority only where nobody with less would help.
    fn first_by_priority(
        &self,
        now: Time,
        cause: &Cause,
        candidates: Vec<Candidate>,
        chance: &mut Chance,
    ) -> Result<Leaves, String> {
        let priority = |candidate: &Candidate| self.vms[&candidate.vm].rules.priority;
        let mut priorities: BTreeMap<i32, Vec<Candidate>> = BTreeMap::new();
        for candidate in candidates {
            priorities.entry(priority(&candidate)).or_default().push(candidate);
        }
        let mut none = Err("no VM here may leave".to_owned());
        for candidates in priorities.into_values() {
            match self.best(now, cause, &candidates, chance) {
                Ok(leaves) if leaves.pays => return Ok(leaves),
                // It seems to pay nowhere alone: another of more priority may.
                Ok(leaves) => none = none.or(Ok(leaves)),
                Err(why) => none = none.or(Err(why)),
            }
        }
        none
    }

    /// What keeps a VM here that others of this host may leave, that a person is waited for included: absent where nothing asks for
    /// a move, or nothing of its own keeps it.
    pub fn keeps(&self, now: Time, vm: VmId) -> Option<String> {
        self.by_itself().ok()?;
        self.cause(now)?;
        self.led_by(now, vm).and_then(|_| self.balances(vm)).err()
    }

    /// Of these VMs the one to ask about, or why none.
    pub(super) fn best(
        &self,
        now: Time,
        cause: &Cause,
        candidates: &[Candidate],
        chance: &mut Chance,
    ) -> Result<Leaves, String> {
        match cause.trigger {
            Trigger::Hot => self.relieves_most(now, candidates, cause, chance),
            Trigger::Spread => self.evens_most(now, candidates, cause.margin, chance),
            Trigger::Packets => self.busiest_at_the_card(now, candidates, cause.margin),
            Trigger::Consolidate => self.leaves_first(now, candidates),
        }
    }

    /// Whether this host may speak of balancing moves by itself, as persons have set it.
    pub(super) fn by_itself(&self) -> Result<(), String> {
        if self.settings.mode.balance == Balance::Off {
            return Err("balance is off".to_owned());
        }
        self.switched_on()
    }

    /// Whether a person lets this host begin moves by itself, and it sees enough of the cluster.
    pub(super) fn switched_on(&self) -> Result<(), String> {
        if self.balancer_off {
            return Err(BALANCER_OFF.to_owned());
        }
        self.sees_enough()
    }

    /// Whether this host may begin a balancing move now, as far as its limits go.
    pub(super) fn may_balance(&self, now: Time) -> Result<(), String> {
        self.may_begin(now)?;
        self.moves_of_the_day(now)
    }

    pub(super) fn moves_of_the_day(&self, now: Time) -> Result<(), String> {
        let made = self.recent.iter().filter(|began| now.since(**began) < DAY).count();
        let planned = self.ahead.balancing();
        if made + planned
            >= usize::try_from(self.settings.limits.moves_per_day).unwrap_or(usize::MAX)
        {
            let planned = if planned > 0 { format!(", {planned} planned") } else { String::new() };
            return Err(format!("moves_per_day: {made} were made{planned}"));
        }
        Ok(())
    }

    /// Whether this host may begin a move by itself now.
    pub(super) fn may_begin(&self, now: Time) -> Result<(), String> {
        self.may_begin_at_all()?;
        if now < self.rest_until {
            let wait = self.rest_until.since(now).as_secs() + 1;
            return Err(format!("this host rests for {wait} s: {}", self.rest_reason));
        }
        self.limits_allow()
    }

    /// The same at a person's word, who need not wait until this host has rested.
    pub(super) fn may_apply(&self) -> Result<(), String> {
        self.may_begin_at_all()?;
        self.limits_allow()
    }

    fn may_begin_at_all(&self) -> Result<(), String> {
        if let Some(frozen) = &self.frozen {
            return Err(frozen.clone());
        }
        if self.drain.is_some() {
            return Err("this host is being drained (`evenkeel undrain`)".to_owned());
        }
        let (open, max) = (self.moves_under_way(), self.settings.limits.moves_per_host);
        if open >= usize::try_from(max).unwrap_or(usize::MAX) {
            return Err(format!("moves_per_host: {open} under way here, {max} allowed"));
        }
        Ok(())
    }

    fn limits_allow(&self) -> Result<(), String> {
        let limits = &self.settings.limits;
        limits.hours.allow(self.local_times.as_ref())?;
        // All that is known is looked through only where it is limited.
        let open = |max: u32| (self.moves_in_cluster(), max);
        match limits.moves_per_cluster.map(open) {
            Some((all, max)) if all >= u64::from(max) => {
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

    pub(super) fn as_candidate(&self, now: Time, vm: VmId) -> Candidate {
        let memory = self.vms[&vm].definition.memory;
        let (demand, copied) = (self.demand(now, vm), self.copied(vm));
        Candidate { vm, demand, memory, copied, apart: Cost(0) }
    }

    /// The most that a copy of the VM sends in its first round.
    pub(super) fn copied(&self, vm: VmId) -> Mib {
        self.vms.get(&vm).map_or(Mib(0), |it| it.definition.copied(it.rules.copy_disks))
    }

    /// Whether the VM policy may have a VM leave.
    ///
    /// # Errors
    /// What keeps it here.
    pub fn may_be_balanced(&self, now: Time, vm: VmId) -> Result<(), String> {
        self.may_be_balanced_with_its_group(now, vm)?;
        self.leaves_nobody(vm)
    }

    pub(super) fn may_be_balanced_with_its_group(&self, now: Time, vm: VmId) -> Result<(), String> {
        self.movable(vm)?;
        let here = &self.vms[&vm];
        self.is_balanced(vm)?;
        self.may_leave_with_its_group(here)?;
        let seconds = |until: Time| until.since(now).as_secs() + 1;
        if now < here.rest_until {
            return Err(format!("it rests for {} s more", seconds(here.rest_until)));
        }
        if let Some((_, to)) = self.promised(None).find(|(promised, _)| *promised == vm) {
            let to = self.name_of(to);
            return Err(format!("it is to go to {to} in return for another"));
        }
        if self.following(None).any(|follows| follows == vm) {
            return Err("it is to follow another of its affinity group".to_owned());
        }
        if now < here.refused_until {
            let wait = seconds(here.refused_until);
            return Err(format!("nobody took it; it is asked about again in {wait} s"));
        }
        if self.usage.history(vm).is_none_or(|history| history.span() < WATCHED_MIN) {
            return Err(format!("it was not watched for {} s yet", WATCHED_MIN.as_secs()));
        }
        self.copy_would_end(vm)
    }

    fn speak(
        &mut self,
        now: Time,
        cause: &Cause,
        leaves: Leaves,
        actions: &mut Vec<Action>,
    ) -> String {
        let vm = leaves.vm();
        if let Err(mode) = self.balances(vm) {
            if self.recommended.balance(now, vm, cause.trigger) {
                let words = self.words(cause, &leaves);
                let words = format!("{words}; {mode}, so it stays until somebody moves it");
                let note = Note::new(Step::VmPolicy, words).about(vm).at(leaves.offer.relief);
                actions.push(Action::Note(note));
            }
            return self.recommends(cause, vm);
        }
        self.depart(now, cause, leaves, false, actions);
        format!("{} ({}); moving {}", cause.adjective(), cause.words, self.vm_name(vm))
    }

    /// The VM of which a person has been told that it should leave, while that holds and it may.
    fn stands_recommended(&self, now: Time, cause: &Cause) -> Option<VmId> {
        let (vm, _) = self.recommended.standing(now, cause.trigger).filter(|(_, holds)| *holds)?;
        let may = self.by_itself().is_ok() && self.may_balance(now).is_ok();
        (may && self.balances(vm).is_err() && self.led_by(now, vm).is_ok()).then_some(vm)
    }

    /// What a person has been told before, if it would pay still. A plan comes to it once.
    fn still_pays(&self, now: Time, cause: &Cause, chance: &mut Chance) -> Option<Leaves> {
        let (vm, _) = self.recommended.standing(now, cause.trigger)?;
        if !self.ahead.is_empty() || self.balances(vm).is_ok() {
            return None;
        }
        let candidate = self.led_by(now, vm).ok()?;
        self.best(now, cause, &[candidate], chance).ok().filter(|leaves| leaves.pays)
    }

    fn recommends(&self, cause: &Cause, vm: VmId) -> String {
        format!("{} ({}); recommended: move {}", cause.adjective(), cause.words, self.vm_name(vm))
    }

    fn words(&self, cause: &Cause, leaves: &Leaves) -> String {
        let Leaves { offer, words: why, .. } = leaves;
        let Offer { candidate: Candidate { vm, demand, memory, apart, .. }, relief, copy } = offer;
        let apart = if *apart > Cost(0) {
            format!(", its traffic with VMs here {apart}")
        } else {
            String::new()
        };
        let others = match self.group_of(*vm).len() {
            1 => String::new(),
            all => format!(" and {} more of its affinity group", all - 1),
        };
        format!(
            "{}{others} should leave: {}; without it {relief} less ({} packets/s, {}), {why} ({memory}, copy cost {copy}{apart})",
            self.vm_name(*vm),
            cause.words,
            demand.packets.0,
            demand.cpu
        )
    }

    /// Begins to ask about a VM that should leave; `applied`: at a person's word.
    pub(super) fn depart(
        &mut self,
        now: Time,
        cause: &Cause,
        leaves: Leaves,
        applied: bool,
        actions: &mut Vec<Action>,
    ) -> MoveId {
        let more = marked(applied);
        let words = self.words(cause, &leaves) + more;
        let followers = self.followers(now, leaves.vm());
        let Leaves { offer, asked, exchange, .. } = leaves;
        let (vm, asked) = (offer.candidate.vm, asked.map(|hosts| hosts.into_iter().collect()));
        let policy = Note::new(Step::VmPolicy, words).at(offer.relief);
        // Emptying a host costs the others what it costs: it is not for their relief.
        let any_cost = cause.trigger == Trigger::Consolidate;
        let alone = followers.is_empty();
        let useful_max = (!any_cost).then(|| offer.useful_max(cause.margin));
        let (why, margin, basis) = (cause.words.clone() + more, cause.margin, cause.basis);
        let departure = Departure {
            asked,
            useful_max,
            by_rule: any_cost,
            empties: any_cost,
            followers,
            margin,
            basis,
            exchange: exchange && alone,
            applied,
            ..Departure::new(vm, why, policy)
        };
        self.begin_move(now, departure, actions)
    }
}
