//! Moves from here, up to readiness: request, answers, choice, confirmation, history.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand_chacha::rand_core::Rng;

use super::balance::ASKED;
use super::loads::Basis;
use super::plan::Asked;
use super::story::{Note, Step, Story};
use super::{Action, Host, TimerKey, Writer};
use crate::membership::{Digest, View};
use crate::migrate::hypervisor::CopyParameters;
use crate::migrate::source as migrate_source;
use crate::negotiate::source::{self as negotiate_source};
use crate::placement::admission::size_with_overhead;
use crate::policy::rules::{VmRules, of_places};
use crate::units::{BitsPerSec, Cost, Epoch, HostId, Mib, MoveId, Time, VmId};
use crate::usage::load::Load;
use crate::wire::message::{Body, Companion, Confirmation, Message, Request};

/// All are asked below this number of hosts.
pub(super) const ASK_ALL_BELOW: usize = 16;
/// As many are asked, drawn by lot, from that number on.
const SAMPLE: usize = 8;
/// No pause is allowed for longer: half of what a last round may take before it is cancelled.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Where the uplink's driver does not tell its speed, it is taken to be this.
const SPEED_UNKNOWN: BitsPerSec = BitsPerSec(1_000_000_000);
/// First rest after a move that was not made.
const BACKOFF: Duration = Duration::from_secs(5);
/// Doublings of the back-off at the most: 5 s, 10 s, … 640 s.
const BACKOFF_DOUBLINGS_MAX: u32 = 7;

/// Whom to ask about a VM.
#[derive(Debug)]
pub(super) struct Askable {
    /// Who may take it by their own word, as far as it is known.
    able: Vec<HostId>,
    /// Who may not, where of the others there are fewer than answers are wanted.
    others: Vec<HostId>,
}

impl Askable {
    pub(super) fn all(self) -> Vec<HostId> {
        self.able.into_iter().chain(self.others).collect()
    }
}

/// One move from here.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    pub(super) vm: VmId,
    /// What the VM asks, now or in the next hour as `basis` says, frozen for this move.
    pub(super) demand: Load,
    /// By what its relief is reckoned.
    pub(super) basis: Basis,
    /// What it was expected to ask when the move began: what targets judge.
    pub(super) expected: Load,
    pub(super) memory: Mib,
    /// The targets that have agreed to an encrypted copy.
    pub(super) encrypted: BTreeSet<HostId>,
    /// Some target was told that it was chosen.
    pub(super) confirmed: bool,
    /// A person asked for it: any cost will do.
    pub(super) by_hand: bool,
    /// A rule asked for it, or that this host is drained: any cost will do.
    pub(super) by_rule: bool,
    /// It is to empty this host: of those that take it the first by name is chosen.
    pub(super) empties: bool,
    /// A person overrides rules.
    pub(super) forced: bool,
    /// Relief beyond cost there and copy that it must bring, unless a person asked for it.
    pub(super) margin: Cost,
    /// A VM of the target's may come in return.
    pub(super) exchange: bool,
    /// A person has applied what the policy would do.
    pub(super) applied: bool,
    /// What those that accepted would give in return.
    pub(super) returns: BTreeMap<HostId, Companion>,
    /// What the chosen target gives in return.
    pub(super) back: Option<Companion>,
    /// The move whose other half this is: it was agreed there.
    pub(super) half_of: Option<MoveId>,
    /// The others of its affinity group, which follow it.
    pub(super) followers: Vec<Companion>,
    /// Absent for a move that was found open when the agent started.
    pub(super) negotiation: Option<negotiate_source::Source>,
    pub(super) migrate: Option<migrate_source::Source>,
    /// The VM's process was seen to end during the copy, and how.
    pub(super) process_gone: Option<String>,
}

impl Outgoing {
    /// A move that balances, of which nobody has been asked or told.
    pub(super) fn new(vm: VmId, memory: Mib, demand: Load) -> Outgoing {
        Outgoing {
            vm,
            demand,
            basis: Basis::Now,
            expected: demand,
            memory,
            encrypted: BTreeSet::new(),
            confirmed: false,
            by_hand: false,
            by_rule: false,
            empties: false,
            forced: false,
            margin: Cost(0),
            exchange: false,
            applied: false,
            returns: BTreeMap::new(),
            back: None,
            half_of: None,
            followers: Vec::new(),
            negotiation: None,
            migrate: None,
            process_gone: None,
        }
    }
}

impl Outgoing {
    /// Whether it is made for what it relieves, so that it may fail to pay. What follows, or comes in return, counts with the first.
    pub(super) fn is_to_pay(&self) -> bool {
        !self.by_hand && !self.by_rule && self.half_of.is_none()
    }

    /// How long its VM must have been at its target, at the least, before what it asks there tells whether it paid.
    pub(super) fn pays_after(&self) -> Duration {
        match self.basis {
            Basis::Now => Duration::ZERO,
            Basis::NextHour => Duration::from_hours(1),
        }
    }
}

/// That a VM should leave, and why.
#[derive(Debug)]
pub(super) struct Departure {
    pub(super) vm: VmId,
    /// In a few words, for the move's story.
    pub(super) why: String,
    /// The verdict as it is noted.
    pub(super) policy: Note,
    /// Whom to ask; absent: all, or a few of very many.
    pub(super) asked: Option<BTreeSet<HostId>>,
    /// The highest cost at a target that would be useful; absent: any, since a person or a rule asks.
    pub(super) useful_max: Option<Cost>,
    /// A rule asks, or that this host is drained.
    pub(super) by_rule: bool,
    /// It is to empty this host: of those that take it the first by name is chosen.
    pub(super) empties: bool,
    /// Relief beyond cost there and copy that it must bring.
    pub(super) margin: Cost,
    /// By what its relief is reckoned.
    pub(super) basis: Basis,
    /// A VM of the target's may come in return.
    pub(super) exchange: bool,
    /// A person has applied what the policy would do.
    pub(super) applied: bool,
    /// The move whose other half this is.
    pub(super) half_of: Option<MoveId>,
    /// The others of its affinity group, which follow it.
    pub(super) followers: Vec<Companion>,
    /// A person overrides rules.
    pub(super) forced: bool,
    /// What is overridden, in words.
    pub(super) overridden: Vec<String>,
}

impl Departure {
    /// One that nobody but a person asks for: whoever takes it will do, at any cost.
    pub(super) fn new(vm: VmId, why: String, policy: Note) -> Departure {
        Departure {
            vm,
            why,
            policy,
            asked: None,
            useful_max: None,
            by_rule: false,
            empties: false,
            margin: Cost(0),
            basis: Basis::Now,
            exchange: false,
            applied: false,
            half_of: None,
            followers: Vec::new(),
            forced: false,
            overridden: Vec::new(),
        }
    }
}

impl Host {
    /// Begins to ask the others about a VM.
    pub(super) fn begin_move(
        &mut self,
        now: Time,
        departure: Departure,
        actions: &mut Vec<Action>,
    ) -> MoveId {
        let Departure {
            vm,
            why,
            policy,
            asked,
            useful_max,
            by_rule,
            empties,
            margin,
            basis,
            exchange,
            applied,
            half_of,
            followers,
            forced,
            overridden,
        } = departure;
        self.moves += 1;
        let move_id = MoveId { host: self.id, incarnation: self.incarnation, counter: self.moves };
        let definition = &self.vms[&vm].definition;
        let (name, memory) = (definition.name.clone(), definition.memory);
        let asked = asked.unwrap_or_else(|| self.sample(now, vm));
        let negotiation = negotiate_source::Source::new(self.limits, useful_max, asked);
        let by_hand = useful_max.is_none() && !by_rule && half_of.is_none();
        let (demand, expected) = (self.demand_by(basis, now, vm), self.expected(now, vm));
        self.note_readings(now, move_id, vm, actions);
        actions.push(Action::Note(policy.of(move_id, vm)));
        let story = Story::new(move_id, vm, name, why, now);
        self.tales.begin(Story { overridden, ..story });
        let out = Outgoing::new(vm, memory, demand);
        let negotiation = Some(negotiation);
        let out = Outgoing { expected, by_hand, by_rule, forced, margin, negotiation, ..out };
        let out = Outgoing { empties, basis, exchange, applied, half_of, followers, ..out };
        self.outgoing.insert(move_id, out);
        self.asking(now, move_id, negotiate_source::Event::Begin, actions);
        move_id
    }

    /// What the monitor had read when the move began.
    fn note_readings(&self, now: Time, id: MoveId, vm: VmId, actions: &mut Vec<Action>) {
        let (all, own) = (self.demand_of_vms(now), self.demand(now, vm));
        let crossed: Vec<&str> = self.crossed().map(|crossed| &*crossed.words).collect();
        let over =
            if crossed.is_empty() { "no threshold crossed".to_owned() } else { crossed.join(", ") };
        let words = format!(
            "{over}; {} packets/s at the taps here, {} of them at the tap of this VM; it uses {}",
            all.packets.0, own.packets.0, own.cpu
        );
        actions.push(Action::Note(Note::new(Step::Monitoring, words).of(id, vm)));
    }

    /// The hosts to ask for this VM: all that answer and are not ruled out, or a few of very many, by lot. Those whose own word
    /// is that they cannot take it (hot, no room, journal in doubt) are left out while as many others may as there are answers
    /// wanted, as are those where it had rather not be, unless nobody took it where it had.
    fn sample(&mut self, now: Time, vm: VmId) -> BTreeSet<HostId> {
        let Askable { mut able, mut others } = self.askable(now, vm);
        if able.len() + others.len() < ASK_ALL_BELOW {
            return able.into_iter().chain(others).collect();
        }
        let mut drawn = BTreeSet::new();
        while drawn.len() < SAMPLE {
            let from = if able.is_empty() { &mut others } else { &mut able };
            let n = u64::try_from(from.len()).unwrap_or(u64::MAX);
            let index = usize::try_from(self.rng.next_u64() % n).unwrap_or(0);
            drawn.insert(from.swap_remove(index));
        }
        drawn
    }

    /// Whom `sample` would give, without drawing lots.
    pub(super) fn would_ask(&self, now: Time, vm: VmId) -> Asked {
        let asked = self.askable(now, vm).all();
        if asked.len() < ASK_ALL_BELOW {
            return Asked::All(asked);
        }
        Asked::Drawn { hosts: SAMPLE, of: asked.len() }
    }

    /// Of hosts in their order as many as are asked at once: the first ones at first, and those after them where these took the VM not.
    pub(super) fn in_turn(&self, vm: VmId, hosts: Vec<HostId>) -> Vec<HostId> {
        let tried = self.vms.get(&vm).map_or(0, |vm| usize::try_from(vm.in_vain).unwrap_or(0));
        let turns = hosts.len().div_ceil(ASKED).max(1);
        hosts.into_iter().skip(tried % turns * ASKED).take(ASKED).collect()
    }

    pub(super) fn askable(&self, now: Time, vm: VmId) -> Askable {
        let size = size_with_overhead(self.vms[&vm].definition.memory);
        let may = |view: &&View| {
            let digest = view.digest.as_ref();
            let size = size.plus(self.ahead.size_at(view.peer.host));
            !self.journals.set_back(view.peer.host) && digest.is_none_or(|d| may_take(d, size))
        };
        let right = self.membership.alive().filter(|view| self.all_allowed(vm, view));
        let (able, unable): (Vec<&View>, Vec<&View>) = right.partition(may);
        let hosts = |views: Vec<&View>| views.into_iter().map(|view| view.peer.host).collect();
        let preferred: Vec<&View> =
            able.iter().copied().filter(|view| self.preferred(vm, view)).collect();
        if self.has_preference(now, vm) && !preferred.is_empty() {
            return Askable { able: hosts(preferred), others: Vec::new() };
        }
        let enough = able.len() >= self.limits.answers_wanted as usize;
        let others = if enough { Vec::new() } else { hosts(unable) };
        Askable { able: hosts(able), others }
    }

    /// Drives a move's negotiation, and does what it wants.
    pub(super) fn asking(
        &mut self,
        now: Time,
        id: MoveId,
        event: negotiate_source::Event,
        actions: &mut Vec<Action>,
    ) {
        let Some(negotiation) = self.outgoing.get_mut(&id).and_then(|out| out.negotiation.as_mut())
        else {
            return;
        };
        let mut wanted = Vec::new();
        negotiation.handle(event, &mut wanted);
        for action in wanted {
            match action {
                negotiate_source::Action::Request(attempt) => {
                    self.request(now, id, attempt, actions)
                }
                negotiate_source::Action::Confirm { target, cost, why } => {
                    self.confirm(now, id, target, cost, &why, actions)
                }
                negotiate_source::Action::Release(host) => {
                    self.note_move(
                        id,
                        Step::Release,
                        "its room is not needed",
                        |n| n.with(host),
                        actions,
                    );
                    self.send(host, id, Body::Release, actions);
                }
                negotiate_source::Action::Ready { target, cost, endpoint, journal } => {
                    self.note_move(
                        id,
                        Step::Readiness,
                        "it has read the history, the VM may come",
                        |n| n.with(target).at(cost),
                        actions,
                    );
                    self.start_copy(now, id, target, endpoint, journal, actions);
                }
                negotiate_source::Action::Abandon(why) => self.abandon(now, id, &why, actions),
                negotiate_source::Action::Arm(timer, after) => {
                    self.arm(now, TimerKey::Asking(id, timer), after)
                }
                negotiate_source::Action::Disarm(timer) => {
                    self.timers.remove(&TimerKey::Asking(id, timer));
                }
            }
        }
    }

    fn request(&mut self, now: Time, id: MoveId, attempt: u32, actions: &mut Vec<Action>) {
        let out = &self.outgoing[&id];
        let definition = &self.vms[&out.vm].definition;
        let negotiation = out.negotiation.as_ref().expect("the request is the negotiation's");
        let asked: Vec<HostId> = negotiation.asked().iter().copied().collect();
        let request = Request {
            attempt,
            vm: out.vm,
            name: definition.name.clone(),
            demand: out.expected,
            memory: out.memory,
            needs: definition.needs.clone(),
            useful_max: negotiation.useful_max(),
            policy_hash: self.settings.hash(),
            asked: asked.clone(),
            answer_within: self.limits.answer_within,
            epoch: self.vms[&out.vm].record.floor,
            tags: of_places(&definition.tags),
            exchange: out.exchange.then(|| self.exchange_for(now, id, out)),
            half_of: out.half_of,
            followers: out.followers.clone(),
            forced: out.forced,
            joins: out.by_rule && self.belongs_elsewhere(out.vm),
            encryption: self.encryption(),
        };
        let useful =
            request.useful_max.map_or("any cost".to_owned(), |max| format!("a cost up to {max}"));
        let exchange = if out.exchange { ", alone or in exchange" } else { "" };
        let group = match out.followers.len() {
            0 => String::new(),
            n => format!("; {n} more of its affinity group would follow"),
        };
        let known = asked.iter().filter_map(|host| self.address_of(*host)).collect();
        let message =
            Message { from: self.id, move_id: id, body: Body::Request(Box::new(request)) };
        actions.push(Action::Cast { message, known });
        let why = if attempt == 1 {
            format!("{} hosts asked, {useful} will do{exchange}{group}", asked.len())
        } else {
            "asked again".to_owned()
        };
        self.note_move(id, Step::Request, &why, |n| n, actions);
    }

    fn confirm(
        &mut self,
        now: Time,
        id: MoveId,
        target: HostId,
        cost: Cost,
        why: &str,
        actions: &mut Vec<Action>,
    ) {
        let out = self.outgoing.get_mut(&id).expect("its negotiation has just spoken");
        out.confirmed = true;
        let (vm, encrypted) = (out.vm, out.encrypted.contains(&target));
        let here = &self.vms[&vm];
        let epoch = Epoch { number: here.record.floor, owner: self.id };
        let confirmation = Confirmation {
            epoch,
            definition: here.definition.clone(),
            copy: self.copy_parameters(&here.rules, encrypted),
            unpaid: self.pay_backs.unpaid(vm),
            measured: self.outgoing[&id].is_to_pay(),
            measured_after: self.outgoing[&id].pays_after(),
        };
        let history = self.usage.history(vm).map(|history| history.aged(now)).unwrap_or_default();
        self.tales.tell(id, |story| (story.phase, story.to) = ("confirmed", Some(target)));
        self.note_move(id, Step::Choice, why, |n| n.with(target).at(cost), actions);
        self.note_move(id, Step::Confirmation, "chosen; told so", |n| n.with(target), actions);
        let mut words = format!(
            "{} samples of packets, bytes, processor and memory sent",
            history.samples.len()
        );
        if !history.quarters.rows.is_empty() {
            let hours = history.quarters_span().as_secs() / 360;
            words += &format!(", and the load of {}.{} h before", hours / 10, hours % 10);
        }
        self.note_move(id, Step::UsageHistory, &words, |n| n.with(target), actions);
        self.send(target, id, Body::Confirmation(Box::new(confirmation)), actions);
        self.send(target, id, Body::History(Box::new(history)), actions);
    }

    /// How memory is copied from here: the operator's share of the uplink, the pause to begin with, what the VM consents to.
    pub(super) fn copy_parameters(&self, rules: &VmRules, encrypted: bool) -> CopyParameters {
        let copy = &self.settings.copy;
        let speed = self
            .usage
            .capacity()
            .bits
            .map_or(SPEED_UNKNOWN, |both_ways| BitsPerSec(both_ways.0 / 2));
        let bandwidth = BitsPerSec(speed.0 / 1000 * u64::from(copy.bandwidth.0));
        CopyParameters {
            bandwidth,
            downtime_max: copy.downtime.min(self.pause_max(rules)),
            multifd: copy.multifd,
            encrypted,
            auto_converge: rules.auto_converge,
            copy_disks: rules.copy_disks,
        }
    }

    /// The longest pause at the end of a copy, where it stalls with a shorter one.
    pub(super) fn pause_max(&self, rules: &VmRules) -> Duration {
        let copy = &self.settings.copy;
        rules.downtime.unwrap_or(copy.downtime_max.max(copy.downtime)).min(PAUSE_MAX)
    }

    /// The VM of a move from here.
    pub fn leaving(&self, id: MoveId) -> Option<VmId> {
        self.outgoing.get(&id).map(|out| out.vm)
    }

    /// The move ends before a copy was begun: the VM stays.
    fn abandon(&mut self, now: Time, id: MoveId, why: &str, actions: &mut Vec<Action>) {
        self.note_move(id, Step::Abandoned, why, |n| n, actions);
        self.tales.end(now, id, "abandoned", why);
        let Some(out) = self.outgoing.remove(&id) else { return };
        if out.confirmed {
            self.use_up_epoch(out.vm, actions);
        }
        if !out.by_hand && out.half_of.is_none() {
            self.back_off_from_asking(now, &out, why);
        }
    }

    /// Nobody took a VM. A host that is hot soon asks about the next one that seems to pay somewhere, and waits longer in each
    /// turn; so it does where a rule asks. Else it waits longer each time.
    fn back_off_from_asking(&mut self, now: Time, out: &Outgoing, why: &str) {
        let in_vain = self.vms.get(&out.vm).map_or(0, |vm| vm.in_vain);
        let urgent = !out.exchange && self.still_hot(now).is_some();
        let failures = if urgent || out.by_rule { in_vain } else { self.count_failure() };
        self.back_off_from(now, out.vm, failures, why, out.by_rule);
    }

    /// A copy was begun and came to nothing: whatever ails it may ail those of other VMs too, so this host waits longer each time.
    pub(super) fn back_off_from_copy(&mut self, now: Time, vm: VmId, why: &str, by_rule: bool) {
        let failures = self.count_failure();
        self.back_off_from(now, vm, failures, why, by_rule);
    }

    /// How many there were before.
    fn count_failure(&mut self) -> u32 {
        let before = self.failures;
        self.failures = before.saturating_add(1);
        before
    }

    /// After a move that was not made. The VM rests for longer than its host, and comes after those that were asked about in
    /// vain less often, so that one that nobody takes, or whose copy never ends, does not keep the others from being asked
    /// about.
    fn back_off_from(&mut self, now: Time, vm: VmId, failures: u32, why: &str, by_rule: bool) {
        if self.refused_in_drain(now, vm, why) {
            return;
        }
        let wait = self.back_off(failures);
        // A rule that cannot be mended now must not keep the host from relieving itself.
        let of_host = if by_rule { wait.min(BACKOFF) } else { wait };
        self.rest_at_least(now.plus(of_host), format!("the last move was not made ({why})"));
        let rest = wait * 2;
        if let Some(vm) = self.vms.get_mut(&vm) {
            vm.refused_until = now.plus(rest);
            vm.in_vain = vm.in_vain.saturating_add(1);
        }
    }

    /// A target that was confirmed may have promised never to own the VM under the next epoch: that number is left out, so
    /// that it can take the VM another time.
    pub(super) fn use_up_epoch(&mut self, vm: VmId, actions: &mut Vec<Action>) {
        let Some(here) = self.vms.get_mut(&vm) else { return };
        here.record.floor += 1;
        here.record.ran = here.record.floor;
        here.recorded = false;
        // One that is being written is older.
        self.writers.retain(|_, writer| *writer != Writer::Adoption(vm));
        self.record_vms(actions);
    }

    /// How long to wait after a failure: by lot, so that hosts do not step on each other for ever.
    fn back_off(&mut self, failures: u32) -> Duration {
        let base = BACKOFF * 2_u32.pow(failures.min(BACKOFF_DOUBLINGS_MAX));
        let jitter = u32::try_from(self.rng.next_u64() % 512).unwrap_or(0);
        base * (768 + jitter) / 1024
    }

    pub(super) fn note_move(
        &self,
        id: MoveId,
        step: Step,
        why: &str,
        more: impl FnOnce(Note) -> Note,
        actions: &mut Vec<Action>,
    ) {
        let note = Note::new(step, why);
        let vm = self
            .outgoing
            .get(&id)
            .map(|out| out.vm)
            .or_else(|| self.incoming.get(&id).map(|incoming| incoming.vm));
        let note = Note { move_id: Some(id), vm, ..note };
        actions.push(Action::Note(more(note)));
    }

    /// An alarm that is repeated by its cause but told once: of each move and VM.
    pub(super) fn alarm_once(&mut self, note: Note, actions: &mut Vec<Action>) {
        if !self.alarms.contains(&note) {
            self.alarm(note, actions);
        }
    }
}

/// Whether a host could take a guest of this size, by what it last said.
pub(super) fn may_take(digest: &Digest, size: Mib) -> bool {
    !digest.hot && digest.headroom.is_none_or(|headroom| headroom.room >= size && !headroom.doubt)
}
