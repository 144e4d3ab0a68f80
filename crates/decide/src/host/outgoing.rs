//! Moves from here, up to readiness: request, answers, choice, confirmation, history.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand_chacha::rand_core::Rng;

use super::plan::Asked;
use super::story::{Note, Step, Story};
use super::{Action, Host, TimerKey};
use crate::membership::{Digest, HostState, View};
use crate::migrate::hypervisor::{CopyParameters, Endpoint};
use crate::migrate::record::Ownership;
use crate::migrate::source as migrate_source;
use crate::negotiate::source::{self as negotiate_source, Answer, Phase};
use crate::placement::admission::size_with_overhead;
use crate::placement::candidates::worth_it;
use crate::policy::cost;
use crate::policy::rules::{VmRules, of_places};
use crate::units::{BitsPerSec, Cost, Epoch, HostId, Mib, MoveId, Time, VmId};
use crate::usage::load::Load;
use crate::wire::message::{Body, Confirmation, InReturn, JournalMark, Message, Request, Standing};

/// All are asked below this number of hosts.
const ASK_ALL_BELOW: usize = 16;
/// As many are asked, drawn by lot, from that number on.
const SAMPLE: usize = 8;
/// Where the uplink's driver does not tell its speed, it is taken to be this.
const SPEED_UNKNOWN: BitsPerSec = BitsPerSec(1_000_000_000);
/// First rest after a move that was not made.
const BACKOFF: Duration = Duration::from_secs(5);
/// Doublings of the back-off at the most: 5 s, 10 s, … 640 s.
const BACKOFF_DOUBLINGS_MAX: u32 = 7;

/// One move from here.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    pub(super) vm: VmId,
    /// What the VM asks, frozen for this move.
    pub(super) demand: Load,
    /// What it was expected to ask when the move began: what targets judge.
    pub(super) expected: Load,
    pub(super) memory: Mib,
    /// Some target was told that it was chosen.
    pub(super) confirmed: bool,
    /// A person asked for it: any cost will do.
    pub(super) by_hand: bool,
    /// A rule asked for it, or that this host is drained: any cost will do.
    pub(super) by_rule: bool,
    /// A person overrides rules.
    pub(super) forced: bool,
    /// Relief beyond cost there and copy that it must bring, unless a person asked for it.
    pub(super) margin: Cost,
    /// A VM of the target's may come in return.
    pub(super) exchange: bool,
    /// What those that accepted would give in return.
    pub(super) returns: BTreeMap<HostId, InReturn>,
    /// What the chosen target gives in return.
    pub(super) back: Option<InReturn>,
    /// The move whose other half this is: it was agreed there.
    pub(super) half_of: Option<MoveId>,
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
            expected: demand,
            memory,
            confirmed: false,
            by_hand: false,
            by_rule: false,
            forced: false,
            margin: Cost(0),
            exchange: false,
            returns: BTreeMap::new(),
            back: None,
            half_of: None,
            negotiation: None,
            migrate: None,
            process_gone: None,
        }
    }
}

impl Outgoing {
    /// Whether it would be made to that host for what this VM alone relieves, so that it may fail to pay.
    pub(super) fn is_to_pay(&self, target: HostId) -> bool {
        let exchanged = self.half_of.is_some() || self.returns.contains_key(&target);
        !self.by_hand && !self.by_rule && !exchanged
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
    /// Relief beyond cost there and copy that it must bring.
    pub(super) margin: Cost,
    /// A VM of the target's may come in return.
    pub(super) exchange: bool,
    /// The move whose other half this is.
    pub(super) half_of: Option<MoveId>,
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
            margin: Cost(0),
            exchange: false,
            half_of: None,
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
            margin,
            exchange,
            half_of,
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
        let (demand, expected) = (self.demand(now, vm), self.expected(now, vm));
        self.note_readings(now, move_id, vm, actions);
        actions.push(Action::Note(policy.of(move_id, vm)));
        let story = Story::new(move_id, vm, name, why, now);
        self.tales.begin(Story { overridden, ..story });
        let out = Outgoing::new(vm, memory, demand);
        let negotiation = Some(negotiation);
        let out = Outgoing { expected, by_hand, by_rule, forced, margin, negotiation, ..out };
        let out = Outgoing { exchange, half_of, ..out };
        self.outgoing.insert(move_id, out);
        self.asking(now, move_id, negotiate_source::Event::Begin, actions);
        move_id
    }

    /// What the monitor had read when the move began.
    fn note_readings(&self, now: Time, id: MoveId, vm: VmId, actions: &mut Vec<Action>) {
        let (all, own) = (self.demand_of_vms(now), self.demand(now, vm));
        let crossed: Vec<&str> = self.crossed().iter().map(|crossed| &*crossed.words).collect();
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
        let mut asked = self.askable(now, vm);
        if asked.len() < ASK_ALL_BELOW {
            return asked.into_iter().collect();
        }
        let mut drawn = BTreeSet::new();
        while drawn.len() < SAMPLE {
            let n = u64::try_from(asked.len()).unwrap_or(u64::MAX);
            let index = usize::try_from(self.rng.next_u64() % n).unwrap_or(0);
            drawn.insert(asked.swap_remove(index));
        }
        drawn
    }

    /// Whom `sample` would give, without drawing lots.
    pub(super) fn would_ask(&self, now: Time, vm: VmId) -> Asked {
        let asked = self.askable(now, vm);
        if asked.len() < ASK_ALL_BELOW {
            return Asked::All(asked);
        }
        Asked::Drawn { hosts: SAMPLE, of: asked.len() }
    }

    fn askable(&self, now: Time, vm: VmId) -> Vec<HostId> {
        let size = size_with_overhead(self.vms[&vm].definition.memory);
        let may = |view: &&View| {
            let digest = view.digest.as_ref();
            !self.journals.set_back(view.peer.host) && digest.is_none_or(|d| may_take(d, size))
        };
        let host = |view: &View| view.peer.host;
        let right: Vec<&View> =
            self.membership.alive().filter(|view| self.ruled_out(vm, view).is_none()).collect();
        let able: Vec<&View> = right.iter().copied().filter(may).collect();
        let preferred: Vec<&View> =
            able.iter().copied().filter(|view| self.preferred(vm, view)).collect();
        if self.has_preference(now, vm) && !preferred.is_empty() {
            preferred.into_iter().map(host).collect()
        } else if able.len() < self.limits.answers_wanted as usize {
            right.into_iter().map(host).collect()
        } else {
            able.into_iter().map(host).collect()
        }
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
            exchange: out.exchange.then(|| self.exchange_for(now, id, out.vm)),
            half_of: out.half_of,
            forced: out.forced,
        };
        let useful =
            request.useful_max.map_or("any cost".to_owned(), |max| format!("a cost up to {max}"));
        let exchange = if out.exchange { ", alone or in exchange" } else { "" };
        let known = asked.iter().filter_map(|host| self.address_of(*host)).collect();
        let message =
            Message { from: self.id, move_id: id, body: Body::Request(Box::new(request)) };
        actions.push(Action::Cast { message, known });
        let why = if attempt == 1 {
            format!("{} hosts asked, {useful} will do{exchange}", asked.len())
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
        let vm = out.vm;
        let here = &self.vms[&vm];
        let epoch = Epoch { number: here.record.floor, owner: self.id };
        let confirmation = Confirmation {
            epoch,
            definition: here.definition.clone(),
            copy: self.copy_parameters(&here.rules),
            unpaid: self.pay_backs.unpaid(vm),
            measured: self.outgoing[&id].is_to_pay(target),
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

    /// How memory is copied from here: the operator's share of the uplink, and the pause that the VM can bear.
    pub(super) fn copy_parameters(&self, rules: &VmRules) -> CopyParameters {
        let copy = &self.settings.copy;
        let speed = self
            .usage
            .capacity()
            .bits
            .map_or(SPEED_UNKNOWN, |both_ways| BitsPerSec(both_ways.0 / 2));
        let bandwidth = BitsPerSec(speed.0 / 1000 * u64::from(copy.bandwidth.0));
        let downtime_max = rules.downtime.unwrap_or(copy.downtime);
        CopyParameters { bandwidth, downtime_max, multifd: copy.multifd }
    }

    pub(super) fn accepted(
        &mut self,
        now: Time,
        id: MoveId,
        from: HostId,
        (cost, in_return): (Cost, Option<InReturn>),
        actions: &mut Vec<Action>,
    ) {
        let Some(out) = self.outgoing.get(&id) else {
            // Its move is over: its room is free again.
            if migrate_source::may_let_go(id, self.first_incarnation) {
                self.send(from, id, Body::Release, actions);
            }
            return;
        };
        if !out.negotiation.as_ref().is_some_and(|n| n.asked().contains(&from)) {
            return;
        }
        if self.journals.set_back(from) {
            let why = "its journal was set back: it may forget what it promises";
            return self.refused(now, id, from, why, None, actions);
        }
        let judged = self.with_return(now, id, cost, in_return.as_ref()).and_then(|cost| {
            self.judge_acceptance(now, id, from, cost).map(|(rank, ordered)| (cost, rank, ordered))
        });
        let (cost, rank, ordered) = match judged {
            Ok(ranked) => ranked,
            Err(why) => {
                // It need not keep room any longer.
                self.send(from, id, Body::Release, actions);
                return self.refused(now, id, from, &why, None, actions);
            }
        };
        let answer = Answer::Acceptance { cost, rank };
        if self.is_new(id, from, &answer) {
            self.tales.tell(id, |story| story.answered(from, now, Ok(cost)));
            let words = match &in_return {
                None => format!("it would cost {cost} there{ordered}"),
                Some(back) => {
                    format!("it would cost {cost} with {} in return{ordered}", back.name)
                }
            };
            self.note_move(id, Step::Acceptance, &words, |n| n.with(from).at(cost), actions);
        }
        if let Some(out) = self.outgoing.get_mut(&id)
            && out.exchange
        {
            match in_return {
                Some(back) => out.returns.insert(from, back),
                None => out.returns.remove(&from),
            };
        }
        self.asking(now, id, negotiate_source::Event::Answered(from, answer), actions);
    }

    /// What a move costs in all where a VM would come in return.
    fn with_return(
        &self,
        now: Time,
        id: MoveId,
        there: Cost,
        in_return: Option<&InReturn>,
    ) -> Result<Cost, String> {
        match in_return {
            None => Ok(there),
            Some(_) if !self.outgoing.get(&id).is_some_and(|out| out.exchange) => {
                Err("it offers a VM in return, for which nobody asked".to_owned())
            }
            Some(back) => self.judge_return(now, id, back).map(|own| there.plus(own)),
        }
    }

    /// Whether this answer is of use to the move, and not the same again.
    fn is_new(&self, id: MoveId, from: HostId, answer: &Answer) -> bool {
        let negotiation = self.outgoing.get(&id).and_then(|out| out.negotiation.as_ref());
        negotiation.is_some_and(|n| {
            matches!(n.phase(), Phase::Asking | Phase::Confirmed(_))
                && n.asked().contains(&from)
                && n.answers().get(&from) != Some(answer)
        })
    }

    pub(super) fn refused(
        &mut self,
        now: Time,
        id: MoveId,
        from: HostId,
        why: &str,
        known_epoch: Option<u64>,
        actions: &mut Vec<Action>,
    ) {
        let Some(out) = self.outgoing.get(&id) else { return };
        let vm = out.vm;
        if out.migrate.as_ref().is_some_and(|m| m.record().peer == from) {
            return self.out(
                now,
                id,
                migrate_source::Event::Cancel(format!("the target fell away: {why}")),
                actions,
            );
        }
        let answer = Answer::Refusal(why.to_owned());
        if self.is_new(id, from, &answer) {
            self.tales.tell(id, |story| story.answered(from, now, Err(why.to_owned())));
            self.note_move(id, Step::Refusal, why, |n| n.with(from), actions);
        }
        self.asking(now, id, negotiate_source::Event::Answered(from, answer), actions);
        if let Some(known) = known_epoch {
            self.outgrow_epoch(now, id, vm, known, actions);
        }
    }

    /// Another host knows the VM under a later epoch than this journal: it has forgotten some, or that host has promised never
    /// to take the VM under one that this agent did not live to use up. The VM is here, so the next one is this host's.
    fn outgrow_epoch(
        &mut self,
        now: Time,
        id: MoveId,
        vm: VmId,
        known: u64,
        actions: &mut Vec<Action>,
    ) {
        let migrating = self.outgoing.get(&id).is_some_and(|out| out.migrate.is_some());
        let Some(here) = self.vms.get_mut(&vm).filter(|here| {
            !migrating && here.record.ownership == Ownership::Owner && here.record.floor < known
        }) else {
            return;
        };
        here.record.floor = known;
        let why = format!("the VM is known elsewhere under epoch {known}: it takes a later one");
        self.use_up_epoch(vm, actions);
        self.asking(now, id, negotiate_source::Event::Cancel(why), actions);
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one message")]
    pub(super) fn ready(
        &mut self,
        now: Time,
        id: MoveId,
        from: HostId,
        cost: Cost,
        endpoint: Endpoint,
        journal: JournalMark,
        actions: &mut Vec<Action>,
    ) {
        let Some(out) = self.outgoing.get(&id) else {
            // A target reminds us of a move that we do not know. If this journal was there at the time, it is over.
            if migrate_source::may_let_go(id, self.first_incarnation) {
                self.send(from, id, Body::Release, actions);
            }
            return;
        };
        let Some(negotiation) = &out.negotiation else { return };
        // Reminded by a target whose agent was restarted, or whose incoming side is not up yet: it cannot say where.
        if endpoint.uri.is_empty() && negotiation.phase() == Phase::Confirmed(from) {
            return;
        }
        let back = out.returns.get(&from);
        let all = self.with_return(now, id, cost, back);
        let worth_it = all.and_then(|cost| self.still_worth_it(now, id, cost));
        let event = negotiate_source::Event::Readiness { from, cost, endpoint, journal, worth_it };
        self.asking(now, id, event, actions);
    }

    /// The VM of a move from here.
    pub fn leaving(&self, id: MoveId) -> Option<VmId> {
        self.outgoing.get(&id).map(|out| out.vm)
    }

    /// The test just before the copy, with the load as it is now.
    fn still_worth_it(&self, now: Time, id: MoveId, there: Cost) -> Result<(), String> {
        let out = &self.outgoing[&id];
        match self.vms.get(&out.vm) {
            Some(vm) if vm.record.ownership == Ownership::Owner => {}
            Some(_) | None => return Err("the VM is not here any more".to_owned()),
        }
        if out.by_hand || out.by_rule || out.half_of.is_some() {
            return Ok(());
        }
        let relief =
            cost::relief(self.lowest_load(now, Some(id)), out.demand, self.usage.capacity());
        worth_it(relief, there, cost::of_copy(out.memory), out.margin)
    }

    /// The target's word on what has become of the VM.
    #[expect(clippy::too_many_arguments, reason = "the parts of one message")]
    pub(super) fn stands(
        &mut self,
        now: Time,
        id: MoveId,
        from: HostId,
        (vm, epoch): (VmId, Epoch),
        standing: Standing,
        journal: Option<JournalMark>,
        actions: &mut Vec<Action>,
    ) {
        if let Some(journal) = journal {
            self.hear_journal(from, journal, actions);
        }
        let Some(migrate) = self.outgoing.get(&id).and_then(|out| out.migrate.as_ref()) else {
            return;
        };
        let asked_about = migrate.record().epoch + 1;
        let about = (migrate.vm(), Epoch { number: asked_about, owner: from });
        if migrate.record().peer != from || (vm, epoch) != about {
            return;
        }
        let named = migrate.record().journal;
        let set_back = self.journals.set_back(from);
        let standing = migrate_source::taken_for(standing, journal, &named, set_back);
        if standing == Standing::Unknown {
            let why = format!(
                "the journal of {} is not what it was when the VM was to come: look at both hosts, then `evenkeel move resolve`",
                self.name_of(from)
            );
            self.alarm_once(
                Note::new(Step::Alarm, why).of(id, self.outgoing[&id].vm).with(from),
                actions,
            );
        }
        self.out(now, id, migrate_source::Event::Standing(standing), actions);
    }

    pub(super) fn undelivered(
        &mut self,
        now: Time,
        to: HostId,
        message: &Message,
        why: &str,
        actions: &mut Vec<Action>,
    ) {
        if matches!(message.body, Body::Confirmation(_) | Body::History(_)) {
            let words = format!("{} could not be delivered: {why}", message.body.name());
            self.note_move(message.move_id, Step::Refusal, &words, |n| n.with(to), actions);
            self.asking(now, message.move_id, negotiate_source::Event::Unreachable(to), actions);
        }
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
            self.back_off_from(now, out.vm, why);
        }
    }

    /// After a move that was not made. The VM rests for longer than its host, so that one that nobody takes, or whose copy
    /// never ends, does not keep the others from being asked about.
    pub(super) fn back_off_from(&mut self, now: Time, vm: VmId, why: &str) {
        if self.refused_in_drain(now, vm, why) {
            return;
        }
        self.back_off(now, why);
        let rest = self.rest_until.since(now) * 2;
        if let Some(vm) = self.vms.get_mut(&vm) {
            vm.refused_until = now.plus(rest);
        }
    }

    /// A target that was confirmed may have promised never to own the VM under the next epoch: that number is left out, so
    /// that it can take the VM another time.
    fn use_up_epoch(&mut self, vm: VmId, actions: &mut Vec<Action>) {
        let Some(here) = self.vms.get_mut(&vm) else { return };
        here.record.floor += 1;
        here.record.ran = here.record.floor;
        here.recorded = false;
        self.record_vms(actions);
    }

    /// After a failure: wait longer each time, by lot, so that hosts do not step on each other for ever.
    fn back_off(&mut self, now: Time, why: &str) {
        let base = BACKOFF * 2_u32.pow(self.failures.min(BACKOFF_DOUBLINGS_MAX));
        self.failures = self.failures.saturating_add(1);
        let jitter = u32::try_from(self.rng.next_u64() % 512).unwrap_or(0);
        let wait = base * (768 + jitter) / 1024;
        self.rest_at_least(now.plus(wait), format!("the last move was not made ({why})"));
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

    /// `force`: whatever rules say of where VMs are.
    pub(super) fn move_by_hand(
        &mut self,
        now: Time,
        vm: VmId,
        to: Option<HostId>,
        force: bool,
        actions: &mut Vec<Action>,
    ) -> Result<MoveId, String> {
        self.movable(vm)?;
        let mut overridden = self.rules_against(vm, to);
        if let (Some(why), false) = (overridden.first(), force) {
            return Err(why.clone());
        }
        if let Some(host) = to {
            let alive = self.membership.view(host).is_some_and(|v| v.state == HostState::Alive);
            if !alive {
                return Err(format!("{} is not alive", self.name_of(host)));
            }
        }
        let mut asked = to.map(|host| BTreeSet::from([host]));
        if force && to.is_none() && self.askable(now, vm).is_empty() {
            // Rules forbid each host: then any will do.
            let alive = || self.membership.alive();
            overridden.extend(alive().find_map(|view| self.ruled_out(vm, view)));
            asked = Some(alive().map(|view| view.peer.host).take(ASK_ALL_BELOW).collect());
        }
        overridden.extend(self.is_excluded(vm).err());
        let words =
            to.map_or("by hand".to_owned(), |host| format!("by hand, to {}", self.name_of(host)));
        let words = match &overridden[..] {
            [] => words,
            rules => format!("{words}, although {}", rules.join("; ")),
        };
        let policy = Note::new(Step::VmPolicy, format!("asked for {words}"));
        let any = Departure::new(vm, words, policy);
        Ok(self.begin_move(now, Departure { asked, forced: force, overridden, ..any }, actions))
    }

    pub(super) fn cancel_by_hand(
        &mut self,
        now: Time,
        id: MoveId,
        actions: &mut Vec<Action>,
    ) -> Result<MoveId, String> {
        let Some(out) = self.outgoing.get(&id) else {
            return Err(format!("no move {id} from this host is under way"));
        };
        let why = "cancelled by hand".to_owned();
        match out.migrate.as_ref().map(migrate_source::Source::phase) {
            None => self.asking(now, id, negotiate_source::Event::Cancel(why), actions),
            Some(phase) if phase.can_be_cancelled() => {
                self.out(now, id, migrate_source::Event::Cancel(why), actions)
            }
            Some(_) => {
                return Err(format!(
                    "move {id} is past the point of return: its target owns the VM or is about to"
                ));
            }
        }
        Ok(id)
    }
}

/// Whether a host could take a guest of this size, by what it last said.
pub(super) fn may_take(digest: &Digest, size: Mib) -> bool {
    !digest.hot && digest.headroom.is_none_or(|headroom| headroom.room >= size && !headroom.doubt)
}
