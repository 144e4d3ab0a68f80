//! Moves from here: what targets answer, and whether the move is still worth it by that.

use std::collections::BTreeSet;

use super::story::{Note, Step};
use super::{Action, Host};
use crate::migrate::hypervisor::Endpoint;
use crate::migrate::record::Ownership;
use crate::migrate::source as migrate_source;
use crate::negotiate::source::{self as negotiate_source, Answer, Phase};
use crate::placement::candidates::worth_it;
use crate::policy::cost;
use crate::units::{Cost, Epoch, HostId, Mib, MoveId, Time, VmId};
use crate::usage::load::Load;
use crate::wire::message::{Body, Companion, JournalMark, Message, Standing};

impl Host {
    pub(super) fn accepted(
        &mut self,
        now: Time,
        id: MoveId,
        from: HostId,
        (cost, in_return, encrypted): (Cost, Option<Companion>, bool),
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
        let kept = self.keeps_encryption(encrypted);
        let judged = kept.and_then(|()| self.with_return(now, id, cost, in_return.as_ref()));
        let judged = judged.and_then(|cost| {
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
        if let Some(out) = self.outgoing.get_mut(&id) {
            if encrypted {
                out.encrypted.insert(from)
            } else {
                out.encrypted.remove(&from)
            };
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
    pub(super) fn with_return(
        &self,
        now: Time,
        id: MoveId,
        there: Cost,
        in_return: Option<&Companion>,
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
    pub(super) fn is_new(&self, id: MoveId, from: HostId, answer: &Answer) -> bool {
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
    pub(super) fn outgrow_epoch(
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
        let kept = self.keeps_encryption(out.encrypted.contains(&from));
        let all = kept.and_then(|()| self.with_return(now, id, cost, back));
        let worth_it = all.and_then(|cost| self.still_worth_it(now, id, cost));
        let event = negotiate_source::Event::Readiness { from, cost, endpoint, journal, worth_it };
        self.asking(now, id, event, actions);
    }

    /// The test just before the copy, with the load as it is now.
    pub(super) fn still_worth_it(&self, now: Time, id: MoveId, there: Cost) -> Result<(), String> {
        let out = &self.outgoing[&id];
        match self.vms.get(&out.vm) {
            Some(vm) if vm.record.ownership == Ownership::Owner => {}
            Some(_) | None => return Err("the VM is not here any more".to_owned()),
        }
        if out.by_hand || out.by_rule || out.half_of.is_some() {
            return Ok(());
        }
        let followers = out.followers.iter().map(|it| it.vm);
        let demand = |vm| self.demand_by(out.basis, now, vm);
        let asked = followers.clone().map(demand).fold(out.demand, Load::plus);
        let lowest = self.lowest_load_by(out.basis, now, Some(id));
        let relief = cost::relief(lowest, asked, self.usage.capacity());
        let all: BTreeSet<VmId> = followers.chain([out.vm]).collect();
        let copied = all.iter().fold(Mib(0), |sum, vm| sum.plus(self.copied(*vm)));
        let price = cost::of_copy(copied).plus(self.apart(&all));
        worth_it(relief, there, price, out.margin)
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
}
