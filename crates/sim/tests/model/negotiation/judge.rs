//! What must hold, and what must be able to happen.

use std::collections::BTreeSet;

use decide::negotiate::source::{Phase, Source};
use decide::negotiate::target::{Stage, Timer};
use decide::units::MoveId;
use stateright::Property;

use super::{Body, Buyer, Letter, Negotiation, ROOM, World, buyer_of};

impl Buyer {
    /// Room taken: by what has come, is coming, or is kept.
    fn taken(&self) -> u64 {
        let offers = self.machine.iter().flat_map(|machine| machine.offers().keys());
        let all: BTreeSet<&MoveId> =
            self.arrived.iter().chain(self.sides.keys()).chain(offers).collect();
        ROOM.0 * u64::try_from(all.len()).unwrap_or(u64::MAX)
    }

    /// Whether each reservation will end, whatever others do.
    fn ends(&self) -> bool {
        self.machine.iter().flat_map(|machine| machine.offers()).all(|(id, offer)| {
            self.timers.contains(&(*id, Timer::Offer))
                || (offer.stage == Stage::Ready && self.sides.contains_key(id))
        })
    }
}

impl World {
    fn said(&self, seller: u8, buyer: u8, body: Body) -> bool {
        self.net.contains(&Letter { seller, buyer, body })
    }

    /// An offer that nobody has spoken of since.
    fn expired(&self, letter: &Letter) -> bool {
        let Letter { seller, buyer, .. } = *letter;
        let spoken = [Body::Confirmation, Body::Release, Body::Refusal];
        let holds = self.buyers[usize::from(buyer)]
            .machine
            .as_ref()
            .is_some_and(|machine| !machine.offers().contains_key(&super::move_of(seller)));
        holds && !spoken.iter().any(|body| self.said(seller, buyer, *body))
    }

    /// A target is ready after another had been confirmed, and had said, or was told, this but not that.
    fn fell_to_next(&self, this: Body, not_that: Body) -> bool {
        (0..2).any(|s| {
            let machine = self.sellers[usize::from(s)].machine.as_ref();
            let Some(Phase::Ready(host)) = machine.map(Source::phase) else { return false };
            let other = 1 - buyer_of(host);
            self.said(s, other, Body::Confirmation)
                && self.said(s, other, this)
                && !self.said(s, other, not_that)
        })
    }

    fn waits_for_ever(&self) -> bool {
        self.sellers.iter().any(|seller| {
            let phase = seller.machine.as_ref().map(Source::phase);
            matches!(phase, Some(Phase::Asking | Phase::Confirmed(_))) && seller.timers.is_empty()
        })
    }
}

/// The names are what a violation is told by.
pub(crate) fn properties(model: &Negotiation) -> Vec<Property<Negotiation>> {
    let mut all = vec![
        Property::always("room is never overcommitted", |_, w: &World| {
            w.buyers.iter().all(|buyer| buyer.taken() <= ROOM.0)
        }),
        Property::always("a move has at most one incoming side at a target", |_, w: &World| {
            !w.twice
        }),
        Property::always("a source confirms one target at a time", |_, w: &World| !w.two_confirmed),
        Property::always("a reservation ends by itself", |_, w: &World| {
            w.buyers.iter().all(Buyer::ends)
        }),
        Property::always("no source waits for ever", |_, w: &World| !w.waits_for_ever()),
        Property::sometimes("a reservation that nobody confirms ends", |_, w: &World| {
            w.net.iter().any(|letter| letter.body == Body::Acceptance && w.expired(letter))
        }),
        Property::sometimes("a reservation yields to a VM with more to gain", |_, w: &World| {
            w.yielded
        }),
    ];
    if model.asked.iter().any(|asked| asked.len() > 1) {
        all.extend([
            Property::sometimes("both VMs find a place", |_, w: &World| {
                w.sellers.iter().all(|seller| seller.left)
            }),
            Property::sometimes("a silent target is followed by the next best", |_, w: &World| {
                w.fell_to_next(Body::Release, Body::Refusal)
            }),
            Property::sometimes(
                "a late refusal falls to the next-best acceptor",
                |_, w: &World| w.fell_to_next(Body::Refusal, Body::Release),
            ),
        ]);
    }
    all
}
