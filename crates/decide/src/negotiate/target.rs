//! The target's side: room kept free for VMs that may come, for all sources together.
//!
//! ```text
//!  (none) ─ Asked, fits ─▶ Offered ─ Confirmed ─▶ Confirmed ─ HistoryRead ─▶ Preparing ─ Prepared ─▶ Ready ─ Arrived ─▶ (used)
//!             │ refusal        └──────┴── Release, or the time ends ──┴───────────┴──▶ ended, what was prepared is undone
//! ```
//!
//! **Invariant:** a reservation is made only while room used + room reserved + the VM's size ≤ the room there is.
//! **Invariant:** a reservation that nobody confirms ends by itself.
//! **Invariant:** one move has at most one reservation and one incoming side, however often it is asked or confirmed.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Limits;
use crate::planted::{Bug, planted};
use crate::units::{Cost, Mib, MoveId, VmId};

/// Where a reservation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Room is kept, nothing else.
    Offered,
    /// The source chose us; its history is awaited.
    Confirmed,
    /// The history was read; the incoming side is being started.
    Preparing,
    /// The incoming side waits. From here `migrate` decides when it ends.
    Ready,
}

/// Room kept for one move.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Offer {
    /// The VM that may come.
    pub vm: VmId,
    /// Room that it takes here, overhead included.
    pub size: Mib,
    /// What it would cost here.
    pub cost: Cost,
    /// How much the source has to gain: the highest cost that would be useful to it.
    pub gain: Cost,
    /// Where it stands.
    pub stage: Stage,
    /// Whether the acceptance has been sent.
    answered: bool,
    /// Whether what was prepared is being undone: it is not wanted any more, but not gone yet.
    undone: bool,
}

/// What the machine waits for, for one move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer {
    /// The acceptance is sent when this ends: the cheaper, the sooner.
    Answer,
    /// The reservation, the wait for the history or for the incoming side ends.
    Offer,
}

/// What happens to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the words of the variant say what its fields are")]
pub enum Event {
    /// A request; `verdict` is the parent's judgement: the cost here, or why not.
    Asked { vm: VmId, size: Mib, gain: Cost, delay: Duration, verdict: Result<Cost, String> },
    /// The source confirms.
    Confirmed,
    /// The history is in; `verdict` is the parent's second judgement.
    HistoryRead { verdict: Result<Cost, String> },
    /// The incoming side listens.
    Prepared,
    /// It could not be started, and why; `Ended` follows once nothing of it is left.
    PrepareFailed(String),
    /// The source releases us.
    Release,
    /// The incoming side is gone, or the VM has arrived and is counted as used: the reservation ends.
    Ended,
    /// A timer ended.
    Timeout(Timer),
}

/// What it wants done, for the move of the event unless another is named.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the words of the variant say what its fields are")]
pub enum Action {
    /// Say yes to the move's source.
    Accept { cost: Cost, reserved: Duration },
    /// Say no to this move's source.
    Refuse(MoveId, String),
    /// Say that this move is unknown here: the source asked for something that was never offered or is over.
    Unknown,
    /// Start the incoming side.
    Prepare(VmId),
    /// Say that the VM may come.
    Ready { cost: Cost },
    /// Undo the incoming side that was, or is being, started.
    Undo(VmId),
    /// Wait for so long.
    Arm(MoveId, Timer, Duration),
    /// Do not wait any more.
    Disarm(MoveId, Timer),
}

/// Whether a host still heeds a confirmation: once an incoming side is, or was, there for the move, it came again, or late.
pub fn heeds_confirmation(incoming_side: bool) -> bool {
    !incoming_side || planted(Bug::ConfirmedTwice)
}

/// All reservations of one host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    limits: Limits,
    /// Room for guests there is.
    room: Mib,
    /// Room that guests here take.
    used: Mib,
    offers: BTreeMap<MoveId, Offer>,
}

impl Target {
    /// A host with no reservations and no room: tell it by [`Target::set_room`].
    pub fn new(limits: Limits) -> Target {
        Target { limits, room: Mib(0), used: Mib(0), offers: BTreeMap::new() }
    }

    /// How much room there is, and how much of it guests take. Reservations made before stay, also when it shrinks.
    pub fn set_room(&mut self, room: Mib, used: Mib) {
        (self.room, self.used) = (room, used);
    }

    /// Whether all reservations still fit beside the guests: VMs may have come by another way since.
    ///
    /// # Errors
    /// By how much they do not.
    pub fn has_room(&self) -> Result<(), String> {
        let taken = self.used.plus(self.reserved());
        if taken <= self.room {
            return Ok(());
        }
        Err(format!("no room any more: {taken} taken and reserved, there is {}", self.room))
    }

    /// Room that neither guests nor reservations take.
    pub fn free(&self) -> Mib {
        self.room.minus(self.used.plus(self.reserved()))
    }

    /// The reservations, by move.
    pub fn offers(&self) -> &BTreeMap<MoveId, Offer> {
        &self.offers
    }

    /// Room reserved in all.
    pub fn reserved(&self) -> Mib {
        self.offers.values().fold(Mib(0), |sum, offer| sum.plus(offer.size))
    }

    /// Takes one event about one move; late and repeated ones do no harm.
    pub fn handle(&mut self, move_id: MoveId, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::Asked { vm, size, gain, delay, verdict } => {
                self.asked(move_id, vm, size, gain, delay, verdict, actions)
            }
            Event::Confirmed => self.confirmed(move_id, actions),
            Event::HistoryRead { verdict } => self.history_read(move_id, verdict, actions),
            Event::Prepared => self.prepared(move_id, actions),
            Event::PrepareFailed(why) => self.prepare_failed(move_id, why, actions),
            Event::Release => self.release(move_id, actions),
            Event::Ended => self.forget(move_id, actions),
            Event::Timeout(Timer::Answer) => self.answer(move_id, actions),
            Event::Timeout(Timer::Offer) => self.expire(move_id, actions),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one event")]
    fn asked(
        &mut self,
        move_id: MoveId,
        vm: VmId,
        size: Mib,
        gain: Cost,
        delay: Duration,
        verdict: Result<Cost, String>,
        actions: &mut Vec<Action>,
    ) {
        if let Some(offer) = self.offers.get(&move_id) {
            // Asked again: the same answer, if it was given already; the reservation is not prolonged.
            if offer.answered && offer.stage == Stage::Offered {
                actions.push(Action::Accept { cost: offer.cost, reserved: self.limits.reserved });
            }
            return;
        }
        let cost = match verdict {
            Ok(cost) => cost,
            Err(why) => return actions.push(Action::Refuse(move_id, why)),
        };
        if let Err(why) = self.make_room(move_id, size, gain, actions) {
            return actions.push(Action::Refuse(move_id, why));
        }
        self.offers.insert(
            move_id,
            Offer { vm, size, cost, gain, stage: Stage::Offered, answered: false, undone: false },
        );
        assert!(self.used.plus(self.reserved()) <= self.room, "overcommitted: {self:?}");
        actions.push(Action::Arm(move_id, Timer::Offer, self.limits.reserved));
        if delay.is_zero() {
            self.answer(move_id, actions);
        } else {
            actions.push(Action::Arm(move_id, Timer::Answer, delay));
        }
    }

    /// Sees to it that `size` fits; unconfirmed reservations of sources with less to gain give way if they must.
    fn make_room(
        &mut self,
        asking: MoveId,
        size: Mib,
        gain: Cost,
        actions: &mut Vec<Action>,
    ) -> Result<(), String> {
        let of_source = self
            .offers
            .iter()
            .filter(|(id, o)| id.host == asking.host && o.stage == Stage::Offered)
            .count();
        if of_source >= self.limits.offers_per_source_max
            || self.offers.len() >= self.limits.offers_max
        {
            return Err(format!("{} reservations are open already", self.offers.len()));
        }
        let weaker = |o: &&Offer| o.stage == Stage::Offered && o.gain < gain;
        let yielding = self.offers.values().filter(weaker).fold(Mib(0), |sum, o| sum.plus(o.size));
        let kept = self.used.plus(self.reserved().minus(yielding));
        if kept.plus(size) > self.room {
            let free = self.room.minus(self.used).minus(self.reserved());
            return Err(format!("no room: {size} asked, {free} free of {}", self.room));
        }
        while self.used.plus(self.reserved()).plus(size) > self.room {
            let weakest =
                self.offers.iter().filter(|(_, o)| weaker(o)).min_by_key(|(id, o)| (o.gain, **id));
            let id = *weakest.expect("the sum above counted enough of them").0;
            self.forget(id, actions);
            actions.push(Action::Refuse(id, "its room went to a VM with more to gain".to_owned()));
        }
        Ok(())
    }

    fn answer(&mut self, move_id: MoveId, actions: &mut Vec<Action>) {
        if let Some(offer) = self.offers.get_mut(&move_id)
            && !offer.answered
        {
            offer.answered = true;
            actions.push(Action::Accept { cost: offer.cost, reserved: self.limits.reserved });
        }
    }

    fn confirmed(&mut self, move_id: MoveId, actions: &mut Vec<Action>) {
        let Some(offer) = self.offers.get_mut(&move_id) else {
            return actions.push(Action::Unknown);
        };
        if offer.stage == Stage::Offered {
            offer.stage = Stage::Confirmed;
            actions.push(Action::Disarm(move_id, Timer::Answer));
            actions.push(Action::Arm(move_id, Timer::Offer, self.limits.readiness_within));
        } else if planted(Bug::ConfirmedTwice) && offer.stage != Stage::Confirmed {
            actions.push(Action::Prepare(offer.vm));
        }
    }

    fn history_read(
        &mut self,
        move_id: MoveId,
        verdict: Result<Cost, String>,
        actions: &mut Vec<Action>,
    ) {
        let Some(offer) = self.offers.get_mut(&move_id) else {
            return actions.push(Action::Unknown);
        };
        if offer.stage != Stage::Confirmed {
            return;
        }
        match verdict {
            Ok(cost) => {
                (offer.cost, offer.stage) = (cost, Stage::Preparing);
                actions.push(Action::Arm(move_id, Timer::Offer, self.limits.readiness_within));
                actions.push(Action::Prepare(offer.vm));
            }
            Err(why) => {
                self.forget(move_id, actions);
                actions.push(Action::Refuse(move_id, why));
            }
        }
    }

    fn prepared(&mut self, move_id: MoveId, actions: &mut Vec<Action>) {
        let Some(offer) = self.offers.get_mut(&move_id) else { return };
        if offer.stage == Stage::Preparing && !offer.undone {
            offer.stage = Stage::Ready;
            actions.push(Action::Disarm(move_id, Timer::Offer));
            actions.push(Action::Ready { cost: offer.cost });
        }
    }

    fn prepare_failed(&mut self, move_id: MoveId, why: String, actions: &mut Vec<Action>) {
        let offer = self.offers.get(&move_id).filter(|offer| offer.stage == Stage::Preparing);
        if let Some((vm, undone)) = offer.map(|offer| (offer.vm, offer.undone)) {
            if !undone {
                actions.push(Action::Refuse(move_id, why));
            }
            self.undo(move_id, vm, actions);
        }
    }

    /// The source lets go. What `migrate` holds (stage `Ready`) is ended by it, not here.
    fn release(&mut self, move_id: MoveId, actions: &mut Vec<Action>) {
        match self.offers.get(&move_id).map(|offer| (offer.stage, offer.vm)) {
            Some((Stage::Offered | Stage::Confirmed, _)) => self.forget(move_id, actions),
            // The room stays taken until the incoming side is gone: `Ended` tells.
            Some((Stage::Preparing, vm)) => self.undo(move_id, vm, actions),
            Some((Stage::Ready, _)) | None => {}
        }
    }

    fn undo(&mut self, move_id: MoveId, vm: VmId, actions: &mut Vec<Action>) {
        self.offers.get_mut(&move_id).expect("its caller has just seen it").undone = true;
        actions.push(Action::Undo(vm));
        actions.push(Action::Arm(move_id, Timer::Offer, self.limits.readiness_within));
    }

    fn expire(&mut self, move_id: MoveId, actions: &mut Vec<Action>) {
        match self.offers.get(&move_id).map(|offer| (offer.stage, offer.vm)) {
            Some((Stage::Offered, _)) if planted(Bug::ReservationKept) => {}
            Some((Stage::Offered, _)) => self.forget(move_id, actions),
            Some((Stage::Confirmed, _)) => {
                self.forget(move_id, actions);
                actions.push(Action::Refuse(move_id, "no usage history came in time".to_owned()));
            }
            Some((Stage::Preparing, vm)) => {
                if !self.offers.get(&move_id).is_some_and(|offer| offer.undone) {
                    let why = "the incoming side was not up in time".to_owned();
                    actions.push(Action::Refuse(move_id, why));
                }
                self.undo(move_id, vm, actions);
            }
            Some((Stage::Ready, _)) | None => {}
        }
    }

    fn forget(&mut self, move_id: MoveId, actions: &mut Vec<Action>) {
        if self.offers.remove(&move_id).is_some() {
            actions
                .extend([Timer::Answer, Timer::Offer].map(|timer| Action::Disarm(move_id, timer)));
        }
    }
}
