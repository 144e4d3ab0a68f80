//! Which steps there are, and what each does.

use std::time::Duration;

use decide::migrate::hypervisor::Endpoint;
use decide::negotiate::Limits;
use decide::negotiate::source::{self, Answer, Phase, Source};
use decide::negotiate::target::{self, Stage, Target};
use decide::units::{JournalId, Mib, MoveId, VmId};
use decide::wire::message::JournalMark;

use super::{
    Body, Letter, ROOM, Side, Step, World, buyer_of, cost_at, gain_of, host_of, move_of, seller_of,
};

impl World {
    pub(crate) fn steps_of_seller(&self, s: u8, steps: &mut Vec<Step>) {
        let seller = &self.sellers[usize::from(s)];
        if !seller.alive {
            return steps.push(Step::StartSource(s));
        }
        if !seller.begun {
            return steps.push(Step::Begin(s));
        }
        // To ask again adds nothing: the first request is still in the net.
        let timers = seller.timers.iter().filter(|timer| **timer != source::Timer::Repeat);
        steps.extend(timers.map(|timer| Step::SourceTimer(s, *timer)));
        if self.budget.crashes > 0 {
            steps.push(Step::CrashSource(s));
        }
        match seller.machine.as_ref().map(Source::phase) {
            Some(Phase::Asking | Phase::Confirmed(_)) if self.budget.cancels > 0 => {
                steps.push(Step::Cancel(s));
            }
            Some(Phase::Ready(host)) => {
                let t = buyer_of(host);
                let side = self.buyers[usize::from(t)].sides.get(&move_of(s));
                let up = side == Some(&Side::Up);
                if up && self.buyers[usize::from(t)].machine.is_some() {
                    steps.push(Step::Arrives(s, t));
                }
                if !up || self.budget.failures > 0 {
                    steps.push(Step::CopyFails(s, t));
                }
            }
            _ => {}
        }
        if let Some(Phase::Confirmed(_)) = seller.machine.as_ref().map(Source::phase)
            && self.budget.undelivered > 0
        {
            steps.push(Step::Undelivered(s));
        }
    }

    pub(crate) fn steps_of_buyer(&self, t: u8, steps: &mut Vec<Step>) {
        let buyer = &self.buyers[usize::from(t)];
        if buyer.machine.is_none() {
            return steps.push(Step::StartTarget(t));
        }
        steps.extend(buyer.timers.iter().map(|(id, timer)| Step::TargetTimer(t, *id, *timer)));
        if self.budget.crashes > 0 {
            steps.push(Step::CrashTarget(t));
        }
        for (id, side) in &buyer.sides {
            match side {
                Side::Starting => steps.push(Step::SideUp(t, *id)),
                Side::Undoing => steps.push(Step::SideGone(t, *id)),
                Side::Up => {}
            }
            if self.budget.failures > 0 && *side != Side::Undoing {
                steps.push(Step::SideFails(t, *id));
            }
        }
    }

    pub(crate) fn steps_of_letter(&self, letter: Letter, steps: &mut Vec<Step>) {
        let Letter { seller, buyer, body } = letter;
        let to_seller = matches!(body, Body::Acceptance | Body::Refusal | Body::Readiness);
        let awake = if to_seller {
            self.sellers[usize::from(seller)].alive
        } else {
            self.buyers[usize::from(buyer)].machine.is_some()
        };
        if !awake {
            return;
        }
        steps.push(Step::Deliver(letter));
        match body {
            Body::Request | Body::History if self.budget.refusals > 0 => {
                steps.push(Step::DeliverRefused(letter));
            }
            Body::Readiness if self.budget.cancels > 0 => {
                steps.push(Step::DeliverWorthless(letter))
            }
            _ => {}
        }
    }

    pub(crate) fn take(&mut self, step: Step) {
        match step {
            Step::Begin(s) => {
                let asked = self.asked[usize::from(s)].iter().map(|t| host_of(*t)).collect();
                let machine = Source::new(Limits::default(), Some(gain_of(s)), asked);
                let seller = self.seller(s);
                (seller.machine, seller.begun) = (Some(machine), true);
                self.ask(s, source::Event::Begin);
            }
            Step::Deliver(letter) => self.deliver(letter, true),
            Step::DeliverRefused(letter) => {
                self.budget.refusals -= 1;
                self.deliver(letter, false);
            }
            Step::DeliverWorthless(letter) => {
                self.budget.cancels -= 1;
                self.deliver(letter, false);
            }
            Step::Undelivered(s) => {
                self.budget.undelivered -= 1;
                let confirmed = self.seller(s).confirmed.expect("offered only while one is");
                self.ask(s, source::Event::Unreachable(host_of(confirmed)));
            }
            Step::Cancel(s) => {
                self.budget.cancels -= 1;
                self.ask(s, source::Event::Cancel(String::new()));
            }
            Step::SourceTimer(s, timer) => {
                self.seller(s).timers.remove(&timer);
                self.ask(s, source::Event::Timeout(timer));
            }
            Step::TargetTimer(t, id, timer) => {
                self.buyer(t).timers.remove(&(id, timer));
                self.offer(t, id, target::Event::Timeout(timer));
            }
            Step::SideUp(t, id) => {
                self.buyer(t).sides.insert(id, Side::Up);
                self.offer(t, id, target::Event::Prepared);
            }
            Step::SideFails(t, id) => {
                self.budget.failures -= 1;
                self.buyer(t).sides.insert(id, Side::Undoing);
                self.offer(t, id, target::Event::PrepareFailed(String::new()));
            }
            Step::SideGone(t, id) => self.side_ends(t, id),
            Step::Arrives(s, t) => {
                self.buyer(t).arrived.insert(move_of(s));
                self.side_ends(t, move_of(s));
                let seller = self.seller(s);
                (seller.machine, seller.left) = (None, true);
                seller.timers.clear();
            }
            Step::CopyFails(s, t) => {
                let up = self.buyer(t).sides.get(&move_of(s)) == Some(&Side::Up);
                self.budget.failures -= u8::from(up);
                self.seller(s).machine = None;
                self.post(s, t, Body::Release);
            }
            Step::CrashSource(_)
            | Step::StartSource(_)
            | Step::CrashTarget(_)
            | Step::StartTarget(_) => self.die_or_start(step),
        }
    }

    fn die_or_start(&mut self, step: Step) {
        match step {
            Step::CrashSource(s) => {
                self.budget.crashes -= 1;
                let seller = self.seller(s);
                (seller.machine, seller.alive, seller.confirmed) = (None, false, None);
                seller.timers.clear();
            }
            Step::StartSource(s) => self.seller(s).alive = true,
            Step::CrashTarget(t) => {
                self.budget.crashes -= 1;
                let buyer = self.buyer(t);
                buyer.machine = None;
                buyer.timers.clear();
                buyer.early.clear();
            }
            Step::StartTarget(t) => {
                let buyer = self.buyer(t);
                buyer.machine = Some(Target::new(Limits::default()));
                // What was on record is looked for, and found.
                buyer.sides.values_mut().filter(|side| **side == Side::Starting).for_each(|side| {
                    *side = Side::Up;
                });
            }
            _ => unreachable!("its caller has chosen"),
        }
    }

    /// The incoming side is gone, or the VM has arrived in it.
    fn side_ends(&mut self, t: u8, id: MoveId) {
        self.buyer(t).sides.remove(&id);
        self.offer(t, id, target::Event::Ended);
    }

    fn post(&mut self, seller: u8, buyer: u8, body: Body) {
        self.net.insert(Letter { seller, buyer, body });
    }

    fn deliver(&mut self, letter: Letter, liked: bool) {
        let Letter { seller: s, buyer: t, body } = letter;
        let id = move_of(s);
        match body {
            Body::Request => self.requested(t, s, liked),
            Body::Confirmation => {
                if !target::heeds_confirmation(self.buyer(t).sides.contains_key(&id)) {
                    return;
                }
                self.offer(t, id, target::Event::Confirmed);
                if self.buyer(t).early.remove(&id) {
                    self.history_came(t, id, liked);
                }
            }
            Body::History => self.history_came(t, id, liked),
            Body::Release => self.released(t, id),
            Body::Acceptance | Body::Refusal | Body::Readiness => self.answered(letter, liked),
        }
    }

    fn requested(&mut self, t: u8, s: u8, liked: bool) {
        let id = move_of(s);
        if self.buyer(t).sides.contains_key(&id) || self.buyer(t).arrived.contains(&id) {
            return;
        }
        self.count_room(t);
        let verdict = if liked { Ok(cost_at(t)) } else { Err(String::new()) };
        let (vm, size, gain) = (VmId(u128::from(s)), ROOM, gain_of(s));
        let delay = Duration::from_millis(u64::from(t == 1 && self.delay));
        self.offer(t, id, target::Event::Asked { vm, size, gain, delay, verdict });
    }

    /// As `Host::count_room`: guests here, and incoming sides without a reservation.
    fn count_room(&mut self, t: u8) {
        let buyer = self.buyer(t);
        let machine = buyer.machine.as_mut().expect("only who lives counts");
        let bare = buyer.sides.keys().filter(|id| !machine.offers().contains_key(id)).count();
        let used = Mib(ROOM.0 * u64::try_from(buyer.arrived.len() + bare).unwrap_or(0));
        machine.set_room(ROOM, used);
    }

    fn stage(&self, t: u8, id: MoveId) -> Option<Stage> {
        let machine = self.buyers[usize::from(t)].machine.as_ref();
        machine.and_then(|machine| machine.offers().get(&id)).map(|offer| offer.stage)
    }

    fn history_came(&mut self, t: u8, id: MoveId, liked: bool) {
        match self.stage(t, id) {
            _ if self.buyer(t).sides.contains_key(&id) => {}
            Some(Stage::Offered) => drop(self.buyer(t).early.insert(id)),
            Some(Stage::Confirmed) => {
                self.count_room(t);
                let room = self.buyer(t).machine.as_ref().map_or(Ok(()), Target::has_room);
                let verdict = if liked { room.map(|()| cost_at(t)) } else { Err(String::new()) };
                self.offer(t, id, target::Event::HistoryRead { verdict });
            }
            _ => {}
        }
    }

    fn released(&mut self, t: u8, id: MoveId) {
        let preparing = self.stage(t, id) == Some(Stage::Preparing);
        if !preparing && let Some(side) = self.buyer(t).sides.get_mut(&id) {
            *side = Side::Undoing;
        } else {
            self.offer(t, id, target::Event::Release);
        }
    }

    fn answered(&mut self, letter: Letter, liked: bool) {
        let Letter { seller: s, buyer: t, body } = letter;
        let from = host_of(t);
        let seller = self.seller(s);
        if seller.machine.is_none() {
            // Its move is over: whoever still offers, or waits, is told so.
            if body != Body::Refusal {
                self.post(s, t, Body::Release);
            }
            return;
        }
        match body {
            Body::Acceptance => {
                let answer = Answer::acceptance(cost_at(t));
                self.ask(s, source::Event::Answered(from, answer));
            }
            Body::Refusal => {
                self.ask(s, source::Event::Answered(from, Answer::Refusal(String::new())));
            }
            _ => {
                let (cost, endpoint) = (cost_at(t), Endpoint::default());
                let journal = JournalMark { id: JournalId(1), ..JournalMark::default() };
                let worth_it = if liked { Ok(()) } else { Err(String::new()) };
                let event = source::Event::Readiness { from, cost, endpoint, journal, worth_it };
                self.ask(s, event);
            }
        }
    }

    /// Drives a source's negotiation, and does what it wants.
    fn ask(&mut self, s: u8, event: source::Event) {
        let Some(machine) = self.seller(s).machine.as_mut() else { return };
        let mut wanted = Vec::new();
        machine.handle(event, &mut wanted);
        for action in wanted {
            match action {
                source::Action::Request(_) => {
                    let asked = self.asked[usize::from(s)];
                    asked.iter().for_each(|t| self.post(s, *t, Body::Request));
                }
                source::Action::Confirm { target, .. } => self.confirm(s, buyer_of(target)),
                source::Action::Release(host) => self.post(s, buyer_of(host), Body::Release),
                source::Action::Ready { .. } => {}
                source::Action::Abandon(_) => {
                    self.seller(s).machine = None;
                    self.seller(s).confirmed = None;
                }
                source::Action::Arm(timer, _) => drop(self.seller(s).timers.insert(timer)),
                source::Action::Disarm(timer) => drop(self.seller(s).timers.remove(&timer)),
            }
        }
    }

    fn confirm(&mut self, s: u8, t: u8) {
        if let Some(before) = self.seller(s).confirmed {
            let said = |body| self.net.contains(&Letter { seller: s, buyer: before, body });
            self.two_confirmed |= !said(Body::Release) && !said(Body::Refusal);
        }
        self.seller(s).confirmed = Some(t);
        self.post(s, t, Body::Confirmation);
        self.post(s, t, Body::History);
    }

    /// Drives a target's reservations, and does what they want.
    fn offer(&mut self, t: u8, id: MoveId, event: target::Event) {
        let Some(machine) = self.buyer(t).machine.as_mut() else { return };
        let mut wanted = Vec::new();
        machine.handle(id, event, &mut wanted);
        let s = seller_of(id);
        for action in wanted {
            match action {
                target::Action::Accept { .. } => self.post(s, t, Body::Acceptance),
                target::Action::Refuse(other, _) => {
                    self.yielded |= other != id;
                    self.post(seller_of(other), t, Body::Refusal);
                }
                target::Action::Unknown => self.post(s, t, Body::Refusal),
                target::Action::Prepare(_) => {
                    self.twice |= self.buyer(t).sides.insert(id, Side::Starting).is_some();
                }
                target::Action::Ready { .. } => self.post(s, t, Body::Readiness),
                target::Action::Undo(_) => {
                    if let Some(side) = self.buyer(t).sides.get_mut(&id) {
                        *side = Side::Undoing;
                    }
                }
                target::Action::Arm(id, timer, _) => {
                    self.buyer(t).timers.insert((id, timer));
                }
                target::Action::Disarm(id, timer) => {
                    self.buyer(t).timers.remove(&(id, timer));
                }
            }
        }
    }
}
