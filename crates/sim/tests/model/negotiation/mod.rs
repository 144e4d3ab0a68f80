//! Two sources that each want to be rid of a VM, and two targets with room for one: request to readiness, and as much of the
//! copy as room depends on.
//!
//! The machines of `decide::negotiate` decide; `steps.rs` joins them as `decide::host` does. Letters stay in the net, so that
//! each may be lost, repeated, delayed and reordered; a timer that is armed may end at once or never. The judgements of
//! policy and load come from outside in the product too: here a target likes each VM, or refuses it while the budget lasts.
//! Reasons in words are left out: no machine decides by them.

mod judge;
mod steps;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use decide::negotiate::source::Source;
use decide::negotiate::target::Target;
use decide::negotiate::{Limits, source, target};
use decide::units::{Cost, HostId, Mib, MoveId};
use stateright::{Model, Property};

/// Room at each target, and what each VM takes.
pub(crate) const ROOM: Mib = Mib(1);

/// How often each thing out of the ordinary may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Budget {
    /// Agents killed; they come back.
    pub(crate) crashes: u8,
    /// Refusals for reasons of policy or load, at the request or after the history was read.
    pub(crate) refusals: u8,
    /// Messages said to be undelivered, whether they arrive or not.
    pub(crate) undelivered: u8,
    /// Incoming sides that do not start, or end without the source's word.
    pub(crate) failures: u8,
    /// Moves that are no longer worth it when the target is ready, or are cancelled by hand.
    pub(crate) cancels: u8,
}

/// What is checked.
#[derive(Clone, Debug)]
pub(crate) struct Negotiation {
    pub(crate) budget: Budget,
    /// Which targets each source asks: fewer keep the space small.
    pub(crate) asked: [&'static [u8]; 2],
    /// Whether the dearer target takes its time to answer.
    pub(crate) delay: bool,
}

/// A source: its one move.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Seller {
    /// Absent: its agent knows of no open move.
    pub(crate) machine: Option<Source>,
    pub(crate) timers: BTreeSet<source::Timer>,
    pub(crate) begun: bool,
    pub(crate) alive: bool,
    /// Whom it last confirmed.
    pub(crate) confirmed: Option<u8>,
    /// The VM has left.
    pub(crate) left: bool,
}

/// What a target has of one move beside its reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Side {
    Starting,
    Up,
    Undoing,
}

/// A target.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Buyer {
    /// Absent while its agent is down.
    pub(crate) machine: Option<Target>,
    pub(crate) timers: BTreeSet<(MoveId, target::Timer)>,
    /// Histories that overtook their confirmation.
    pub(crate) early: BTreeSet<MoveId>,
    /// Incoming sides: on disk, so they outlive the agent.
    pub(crate) sides: BTreeMap<MoveId, Side>,
    /// VMs that have come.
    pub(crate) arrived: BTreeSet<MoveId>,
}

/// All there is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub(crate) sellers: [Seller; 2],
    pub(crate) buyers: [Buyer; 2],
    pub(crate) net: BTreeSet<Letter>,
    pub(crate) budget: Budget,
    pub(crate) delay: bool,
    pub(crate) asked: [&'static [u8]; 2],
    /// An incoming side was begun for a move that has one.
    pub(crate) twice: bool,
    /// A target was confirmed while another was.
    pub(crate) two_confirmed: bool,
    /// A reservation gave way.
    pub(crate) yielded: bool,
}

/// A message between a source and a target, about the source's one move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Letter {
    pub(crate) seller: u8,
    pub(crate) buyer: u8,
    pub(crate) body: Body,
}

/// What it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Body {
    Request,
    Confirmation,
    History,
    Release,
    Acceptance,
    Refusal,
    Readiness,
}

/// One thing that happens.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Begin(u8),
    Deliver(Letter),
    /// A request or history that the target judges unfavourably.
    DeliverRefused(Letter),
    /// A readiness that is no longer worth it.
    DeliverWorthless(Letter),
    Undelivered(u8),
    Cancel(u8),
    SourceTimer(u8, source::Timer),
    TargetTimer(u8, MoveId, target::Timer),
    SideUp(u8, MoveId),
    SideFails(u8, MoveId),
    SideGone(u8, MoveId),
    /// The copy is complete and handed over.
    Arrives(u8, u8),
    /// The copy failed: the source lets go.
    CopyFails(u8, u8),
    CrashSource(u8),
    StartSource(u8),
    CrashTarget(u8),
    StartTarget(u8),
}

impl Model for Negotiation {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        let seller = Seller {
            machine: None,
            timers: BTreeSet::new(),
            begun: false,
            alive: true,
            confirmed: None,
            left: false,
        };
        let buyer = Buyer {
            machine: Some(Target::new(Limits::default())),
            timers: BTreeSet::new(),
            early: BTreeSet::new(),
            sides: BTreeMap::new(),
            arrived: BTreeSet::new(),
        };
        vec![World {
            sellers: [seller.clone(), seller],
            buyers: [buyer.clone(), buyer],
            net: BTreeSet::new(),
            budget: self.budget,
            delay: self.delay,
            asked: self.asked,
            twice: false,
            two_confirmed: false,
            yielded: false,
        }]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        if world.twice || world.two_confirmed {
            return;
        }
        (0..2).for_each(|seller| world.steps_of_seller(seller, steps));
        (0..2).for_each(|buyer| world.steps_of_buyer(buyer, steps));
        world.net.iter().for_each(|letter| world.steps_of_letter(*letter, steps));
    }

    fn next_state(&self, before: &World, step: Step) -> Option<World> {
        let mut world = before.clone();
        world.take(step);
        (world != *before).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Negotiation>> {
        judge::properties(self)
    }

    fn format_action(&self, step: &Step) -> String {
        format!("{step:?}")
    }
}

impl World {
    pub(crate) fn seller(&mut self, seller: u8) -> &mut Seller {
        &mut self.sellers[usize::from(seller)]
    }

    pub(crate) fn buyer(&mut self, buyer: u8) -> &mut Buyer {
        &mut self.buyers[usize::from(buyer)]
    }
}

/// The move of that source.
pub(crate) fn move_of(seller: u8) -> MoveId {
    MoveId { host: HostId(u128::from(seller)), incarnation: 1, counter: 1 }
}

/// The source of that move.
pub(crate) fn seller_of(id: MoveId) -> u8 {
    u8::try_from(id.host.0).expect("sources are numbered from 0")
}

/// A target's host id, and back.
pub(crate) fn host_of(buyer: u8) -> HostId {
    HostId(10 + u128::from(buyer))
}

pub(crate) fn buyer_of(host: HostId) -> u8 {
    u8::try_from(host.0 - 10).expect("targets are numbered from 10")
}

/// The second target is dearer.
pub(crate) fn cost_at(buyer: u8) -> Cost {
    Cost(i64::from(buyer) + 1)
}

/// The second source has more to gain.
pub(crate) fn gain_of(seller: u8) -> Cost {
    Cost(10 + i64::from(seller))
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = |letter: &Letter| {
            let Letter { seller, buyer, body } = letter;
            match body {
                Body::Acceptance | Body::Refusal | Body::Readiness => {
                    format!("T{buyer} → S{seller}: {body:?}")
                }
                _ => format!("S{seller} → T{buyer}: {body:?}"),
            }
        };
        match self {
            Step::Begin(s) => write!(f, "S{s}: begins to ask"),
            Step::Deliver(letter) => write!(f, "{}", way(letter)),
            Step::DeliverRefused(letter) => write!(f, "{}, not liked", way(letter)),
            Step::DeliverWorthless(letter) => write!(f, "{}, not worth it any more", way(letter)),
            Step::Undelivered(s) => write!(f, "S{s}: its confirmation is said to be undelivered"),
            Step::Cancel(s) => write!(f, "S{s}: cancelled by hand"),
            Step::SourceTimer(s, timer) => write!(f, "S{s}: timer {timer:?}"),
            Step::TargetTimer(t, id, timer) => {
                write!(f, "T{t}: timer {timer:?} of S{}", seller_of(*id))
            }
            Step::SideUp(t, id) => write!(f, "T{t}: incoming side of S{} is up", seller_of(*id)),
            Step::SideFails(t, id) => write!(f, "T{t}: incoming side of S{} fails", seller_of(*id)),
            Step::SideGone(t, id) => {
                write!(f, "T{t}: incoming side of S{} is gone", seller_of(*id))
            }
            Step::Arrives(s, t) => write!(f, "S{s}'s VM runs at T{t}"),
            Step::CopyFails(s, t) => write!(f, "S{s}'s copy to T{t} fails"),
            Step::CrashSource(s) => write!(f, "S{s}: agent killed"),
            Step::StartSource(s) => write!(f, "S{s}: agent starts"),
            Step::CrashTarget(t) => write!(f, "T{t}: agent killed"),
            Step::StartTarget(t) => write!(f, "T{t}: agent starts"),
        }
    }
}
