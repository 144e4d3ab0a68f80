//! Moves to here, up to readiness: admission, reservation, history.

use std::time::Duration;

use super::groups::{RefusedToJoin, size_of_all};
use super::judging::{PEAK_SECONDS, Verdict, peak_words};
use super::migrating_in::NEVER_HERE;
use super::story::{Note, Step};
use super::{Action, Host, TimerKey};
use crate::migrate::hypervisor::Endpoint;
use crate::migrate::record::VmRecord;
use crate::migrate::target as migrate_target;
use crate::negotiate::target::{self as negotiate_target, Stage};
use crate::policy::rules::VmRules;
use crate::units::{Cost, Mib, MoveId, Time, VmId};
use crate::usage::history::History;
use crate::usage::history::aged::AgedHistory;
use crate::usage::load::Load;
use crate::wire::message::{Body, Companion, Confirmation, Exchange, Request};

/// The dearest useful acceptance is delayed by this much, cheaper ones by less: the cheapest arrives first.
const ANSWER_SPREAD: Duration = Duration::from_millis(100);
/// Moves that ended here and are still answered for.
const ENDED_MAX: usize = 64;

/// One move to here.
#[derive(Clone, Debug)]
pub(super) struct Incoming {
    pub(super) vm: VmId,
    pub(super) name: String,
    pub(super) memory: Mib,
    /// What the VM would ask here: the source's word, raised by what its history shows.
    pub(super) demand: Load,
    pub(super) useful_max: Option<Cost>,
    pub(super) confirmation: Option<Confirmation>,
    /// A history that overtook the confirmation.
    early: Option<Result<AgedHistory, String>>,
    /// The history, once it was read.
    pub(super) history: Option<History>,
    pub(super) endpoint: Option<Endpoint>,
    pub(super) migrate: Option<migrate_target::Target>,
    /// Void; kept to be answered for.
    pub(super) ended: bool,
    /// Its process ended, and how: told by the hypervisor beside the move's own reports.
    pub(super) process_gone: Option<String>,
    /// Those of the VM's tags that say where it may be.
    pub(super) tags: Vec<String>,
    /// What must hold of where it is.
    pub(super) rules: VmRules,
    /// The VM that goes in return, and what its source is.
    pub(super) back: Option<(VmId, Exchange)>,
    /// It comes in return, as agreed in that move.
    pub(super) half_of: Option<MoveId>,
    /// The others of its affinity group, which follow it.
    pub(super) followers: Vec<Companion>,
    /// A person overrides that.
    pub(super) forced: bool,
    /// The copy will be encrypted, as was agreed with its source.
    pub(super) encrypted: bool,
}

impl Incoming {
    pub(super) fn new(
        vm: VmId,
        name: String,
        memory: Mib,
        demand: Load,
        useful_max: Option<Cost>,
    ) -> Incoming {
        let (confirmation, early, history, endpoint, migrate) = (None, None, None, None, None);
        Incoming {
            vm,
            name,
            memory,
            demand,
            useful_max,
            confirmation,
            early,
            history,
            endpoint,
            migrate,
            ended: false,
            process_gone: None,
            tags: Vec::new(),
            rules: VmRules::default(),
            back: None,
            half_of: None,
            followers: Vec::new(),
            forced: false,
            encrypted: false,
        }
    }

    /// Whether an incoming side is, or may be, here.
    pub(super) fn open(&self) -> bool {
        self.migrate.is_some() && !self.ended
    }
}

impl Host {
    pub(super) fn requested(
        &mut self,
        now: Time,
        id: MoveId,
        request: Request,
        actions: &mut Vec<Action>,
    ) {
        // Whoever knows of a later epoch says so, asked or not: such a VM must not go anywhere under this one.
        if let Some(known) = self.later_epoch(id, &request, actions) {
            let why = format!("epoch {known} of the VM is known here, not {}", request.epoch);
            self.hear_of(request.vm, &request.name);
            return self.refuse_knowing(id, why, Some(known), actions);
        }
        let asked = request.asked.is_empty() || request.asked.contains(&self.id);
        // A move that has come further, or is over, is not asked about any more: the request was late.
        let late = self.incoming.get(&id).is_some_and(|incoming| incoming.migrate.is_some());
        if !asked || late || self.address_of(id.host).is_none() {
            return;
        }
        self.hear_of(request.vm, &request.name);
        self.let_go_of_earlier(now, id, request.vm, actions);
        let rules = self.settings.rules.of(request.vm, &request.name, &request.tags);
        let half_of = request.half_of.filter(|_| self.is_due(id, &request));
        // What is kept for it is what it asks for.
        self.count_room_but(half_of.map(|first| (first, request.vm)));
        let verdict = match half_of {
            None => self.judge_request(now, id, &request, &rules),
            Some(_) => self.judge_half(now, id, &request, &rules).map(Verdict::alone),
        };
        let all = verdict.as_ref().map_or(Cost(0), |verdict| verdict.all);
        // A host that is only busy takes it when it is asked again: then nobody else need move.
        if verdict.is_err() && request.joins && !self.holds(&id) && self.not_busy(id).is_ok() {
            let name = request.name.clone();
            self.refused_to_join = Some(RefusedToJoin { name, at: id.host, rules: rules.clone() });
        }
        let back = verdict.as_ref().ok().and_then(|verdict| verdict.back).zip(request.exchange);
        let forced = request.forced.then(|| self.breaks_none(id, request.vm, &rules).err());
        let forced = forced.flatten().filter(|_| verdict.is_ok());
        let event = negotiate_target::Event::Asked {
            vm: request.vm,
            size: size_of_all(request.memory, &request.followers),
            gain: request.useful_max.unwrap_or(Cost(i64::MAX)),
            delay: delay(all, request.useful_max),
            verdict: verdict.map(|verdict| verdict.here),
        };
        let first = !self.incoming.contains_key(&id);
        let Request { vm, name, memory, demand, useful_max, tags, .. } = request;
        let encrypted = self.agree_on_copy(request.encryption).unwrap_or(false);
        let (force, followers) = (request.forced, request.followers);
        let incoming = Incoming::new(vm, name, memory, demand, useful_max);
        self.incoming.entry(id).or_insert(Incoming {
            tags,
            rules,
            forced: force,
            back,
            half_of,
            followers,
            encrypted,
            ..incoming
        });
        if let Some(rule) = forced.filter(|_| first) {
            let words = format!("a person overrides {rule}");
            self.note_move(id, Step::Acceptance, &words, |n| n.with(id.host), actions);
        }
        self.offering(now, id, event, actions);
        self.count_room();
    }

    /// A source moves a VM in one move at a time: with a later one it lets go of what it asked before, also if its agent was
    /// killed meanwhile and has forgotten that. An incoming side that is, or was, there is `migrate`'s to settle.
    fn let_go_of_earlier(&mut self, now: Time, id: MoveId, vm: VmId, actions: &mut Vec<Action>) {
        let earlier = self.incoming.iter().filter(|(other, incoming)| {
            let same = incoming.vm == vm && other.host == id.host;
            same && **other < id && incoming.migrate.is_none()
        });
        let earlier: Vec<MoveId> = earlier.map(|(other, _)| *other).collect();
        earlier.into_iter().for_each(|other| self.released(now, other, actions));
    }

    /// The VM's epoch as this journal has it, where that is above the one that the source asks under.
    fn later_epoch(
        &mut self,
        id: MoveId,
        request: &Request,
        actions: &mut Vec<Action>,
    ) -> Option<u64> {
        let known = *self.records.get(&request.vm)?;
        // Zero: a source of the version before does not tell.
        if request.epoch == 0 || known.floor <= request.epoch || self.holds(&id) {
            return None;
        }
        self.note_later_run(id, request.vm, known, request.epoch, actions);
        Some(known.floor)
    }

    /// A promise made in a move that the source's agent did not survive lifts the floor too. That the VM ran here under a
    /// later epoch than its source's is another matter.
    fn note_later_run(
        &mut self,
        id: MoveId,
        vm: VmId,
        known: VmRecord,
        claimed: u64,
        actions: &mut Vec<Action>,
    ) {
        if known.ran > claimed {
            let why = format!(
                "epoch {} of the VM is known here, the source claims {claimed}: its journal was lost or set back",
                known.floor
            );
            self.alarm_once(Note::new(Step::Alarm, why).of(id, vm).with(id.host), actions);
        }
    }

    /// Whether anything is kept here for the move.
    pub(super) fn holds(&self, id: &MoveId) -> bool {
        self.target.offers().contains_key(id) || self.incoming.get(id).is_some_and(Incoming::open)
    }

    /// Drives the reservations, and does what they want.
    pub(super) fn offering(
        &mut self,
        now: Time,
        id: MoveId,
        event: negotiate_target::Event,
        actions: &mut Vec<Action>,
    ) {
        let mut wanted = Vec::new();
        self.target.handle(id, event, &mut wanted);
        for action in wanted {
            match action {
                negotiate_target::Action::Accept { cost, reserved } => {
                    self.accept(now, id, cost, reserved, actions)
                }
                negotiate_target::Action::Refuse(other, why) => self.refuse(other, why, actions),
                negotiate_target::Action::Unknown => {
                    self.refuse(
                        id,
                        "nothing was offered for this move, or the offer has ended".to_owned(),
                        actions,
                    );
                }
                negotiate_target::Action::Prepare(_) => self.record_incoming(now, id, actions),
                negotiate_target::Action::Ready { cost } => self.say_ready(id, cost, actions),
                negotiate_target::Action::Undo(_) => {
                    self.inward(now, id, migrate_target::Event::Release, actions)
                }
                negotiate_target::Action::Arm(other, timer, after) => {
                    self.arm(now, TimerKey::Offering(other, timer), after)
                }
                negotiate_target::Action::Disarm(other, timer) => {
                    self.timers.remove(&TimerKey::Offering(other, timer));
                }
            }
        }
        self.forget_what_is_over(actions);
    }

    fn accept(
        &mut self,
        now: Time,
        id: MoveId,
        cost: Cost,
        reserved: Duration,
        actions: &mut Vec<Action>,
    ) {
        let incoming = self.incoming.get(&id);
        let encrypted = incoming.is_some_and(|incoming| incoming.encrypted);
        let back = incoming.and_then(|incoming| incoming.back);
        let in_return = back.and_then(|(vm, _)| self.companion(now, vm));
        if back.is_some() && in_return.is_none() {
            // It has gone since: without it the cost is another. Silent, the offer ends by itself.
            return;
        }
        let mut words = format!("room is kept for {} s", reserved.as_secs());
        if let Some(back) = &in_return {
            words += &format!(", and {} would go in return", back.name);
        }
        self.note_move(id, Step::Acceptance, &words, |n| n.with(id.host).at(cost), actions);
        let in_return = in_return.map(Box::new);
        let body = Body::Acceptance { cost, reserved, in_return, encrypted };
        self.send(id.host, id, body, actions);
    }

    fn refuse(&mut self, id: MoveId, why: String, actions: &mut Vec<Action>) {
        self.refuse_knowing(id, why, None, actions);
    }

    fn refuse_knowing(
        &mut self,
        id: MoveId,
        why: String,
        known_epoch: Option<u64>,
        actions: &mut Vec<Action>,
    ) {
        self.note_move(id, Step::Refusal, &why, |n| n.with(id.host), actions);
        self.send(id.host, id, Body::Refusal { why, known_epoch }, actions);
    }

    fn forget_what_is_over(&mut self, actions: &mut Vec<Action>) {
        let target = &self.target;
        self.incoming.retain(|id, incoming| {
            let kept = incoming.migrate.is_some() || target.offers().contains_key(id);
            // What came of its history may have been set aside from then on.
            if !kept && incoming.confirmation.is_some() {
                actions.push(Action::DropHistory(incoming.vm));
            }
            kept
        });
        while self.incoming.values().filter(|i| i.ended).count() > ENDED_MAX {
            let oldest = self.incoming.iter().find(|(_, i)| i.ended).map(|(id, _)| *id);
            oldest.map(|id| self.incoming.remove(&id));
        }
    }

    pub(super) fn say_ready(&mut self, id: MoveId, cost: Cost, actions: &mut Vec<Action>) {
        let Some(endpoint) = self.incoming.get(&id).and_then(|incoming| incoming.endpoint.clone())
        else {
            return;
        };
        self.note_move(
            id,
            Step::Readiness,
            "the incoming side listens, paused",
            |n| n.with(id.host).at(cost),
            actions,
        );
        self.send(id.host, id, Body::Readiness { cost, endpoint, journal: self.journal }, actions);
    }

    pub(super) fn confirmed(
        &mut self,
        now: Time,
        id: MoveId,
        confirmation: Confirmation,
        actions: &mut Vec<Action>,
    ) {
        let stage = self.target.offers().get(&id).map(|offer| offer.stage);
        let side = self.incoming.get(&id).is_some_and(|incoming| incoming.migrate.is_some());
        if !negotiate_target::heeds_confirmation(side) {
            return;
        }
        if stage == Some(Stage::Offered)
            && let Err(why) = self.judge_confirmation(id, &confirmation, actions)
        {
            self.offering(now, id, negotiate_target::Event::Release, actions);
            return self.refuse(id, why, actions);
        }
        if let Some(incoming) = self.incoming.get_mut(&id)
            && incoming.confirmation.is_none()
        {
            incoming.confirmation = Some(confirmation);
            let why = "this host was chosen";
            self.note_move(id, Step::Confirmation, why, |n| n.with(id.host), actions);
        }
        self.offering(now, id, negotiate_target::Event::Confirmed, actions);
        if let Some(early) = self.incoming.get_mut(&id).and_then(|i| i.early.take()) {
            self.history_came(now, id, early, actions);
        }
    }

    /// Whether the VM that is to come is the one that was asked about, under an epoch that can be handed over.
    fn judge_confirmation(
        &mut self,
        id: MoveId,
        confirmation: &Confirmation,
        actions: &mut Vec<Action>,
    ) -> Result<(), String> {
        let (vm, claimed) = (confirmation.definition.vm, confirmation.epoch.number);
        let asked_about = self.incoming.get(&id).map(|i| (i.vm, i.memory));
        if asked_about != Some((vm, confirmation.definition.memory)) {
            return Err("the VM confirmed is not the one that was asked about".to_owned());
        }
        if self.incoming.get(&id).is_some_and(|it| it.encrypted != confirmation.copy.encrypted) {
            let why = "the copy confirmed is not as agreed: encrypted at one side, in the clear at the other";
            return Err(why.to_owned());
        }
        let known = self.records.get(&vm).copied().unwrap_or(NEVER_HERE);
        if known.floor <= claimed && claimed < u64::MAX {
            return Ok(());
        }
        let why =
            format!("epoch {} of the VM is known here, the source claims {claimed}", known.floor);
        self.note_later_run(id, vm, known, claimed, actions);
        Err(why)
    }

    /// Whether a history of this VM is awaited in that move: after the confirmation, and once.
    ///
    /// # Errors
    /// If it is another VM's.
    pub fn awaits_history(&self, id: MoveId, vm: VmId) -> Result<bool, String> {
        match self.incoming.get(&id) {
            Some(incoming) if incoming.vm != vm => {
                Err(format!("it is of VM {vm}, but {} is to come", incoming.vm))
            }
            Some(_) => {
                let offer = self.target.offers().get(&id);
                Ok(offer.is_some_and(|offer| offer.stage == Stage::Confirmed))
            }
            None => Ok(false),
        }
    }

    /// Reads the history, and judges once more with what it shows.
    pub(super) fn history_came(
        &mut self,
        now: Time,
        id: MoveId,
        sent: Result<AgedHistory, String>,
        actions: &mut Vec<Action>,
    ) {
        let stage = self.target.offers().get(&id).map(|offer| offer.stage);
        let incoming = self.incoming.get_mut(&id);
        let Some(incoming) = incoming.filter(|incoming| incoming.migrate.is_none()) else { return };
        if stage == Some(Stage::Offered) {
            // It has overtaken the confirmation.
            incoming.early = Some(sent);
            return;
        }
        if stage != Some(Stage::Confirmed) {
            return;
        }
        let read = sent
            .and_then(|sent| History::of_aged(now, &sent).map_err(|bad| bad.to_string()))
            .map_err(|why| format!("the usage history cannot be used: {why}"));
        let words = read.as_ref().map_or_else(String::clone, |history| {
            told(now, history, incoming.demand, incoming.memory)
        });
        self.count_room();
        let verdict = read.and_then(|history| self.judge_history(now, id, history));
        self.note_move(id, Step::UsageHistory, &words, |n| n.with(id.host), actions);
        self.offering(now, id, negotiate_target::Event::HistoryRead { verdict }, actions);
    }

    pub(super) fn released(&mut self, now: Time, id: MoveId, actions: &mut Vec<Action>) {
        let preparing =
            self.target.offers().get(&id).is_some_and(|offer| offer.stage == Stage::Preparing);
        if !preparing && self.incoming.get(&id).is_some_and(|i| i.migrate.is_some()) {
            self.inward(now, id, migrate_target::Event::Release, actions);
        } else {
            if self.target.offers().contains_key(&id) {
                self.note_move(
                    id,
                    Step::Release,
                    "the source let go; the room is free",
                    |n| n.with(id.host),
                    actions,
                );
            }
            self.offering(now, id, negotiate_target::Event::Release, actions);
        }
    }

    /// Whose move to here it is, by name, for people.
    pub(super) fn incoming_name(&self, vm: VmId) -> Option<&str> {
        self.incoming
            .values()
            .find(|incoming| incoming.vm == vm)
            .map(|incoming| incoming.name.as_str())
    }
}

/// What was read in a history, for people.
fn told(now: Time, history: &History, asked: Load, memory: Mib) -> String {
    let recent = history.peak(PEAK_SECONDS, memory).map_or(asked, |peak| peak.highest(asked));
    let words = format!("{} samples read; at its peak {}", history.len(), peak_words(recent));
    match history.daily_peak(now, memory) {
        None => words,
        Some((peak, covered)) => {
            let minutes = covered.as_secs() / 60;
            format!("{words}; daily peak {} ({minutes} min of a day known)", peak_words(peak))
        }
    }
}

/// The share of the spread that the cost is of the highest useful one.
fn delay(cost: Cost, useful_max: Option<Cost>) -> Duration {
    let Some(max) = useful_max.filter(|max| max.0 > 0) else { return Duration::ZERO };
    let spread = i64::try_from(ANSWER_SPREAD.as_micros()).unwrap_or(0);
    let micros = i128::from(cost.0.clamp(0, max.0)) * i128::from(spread) / i128::from(max.0);
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}
