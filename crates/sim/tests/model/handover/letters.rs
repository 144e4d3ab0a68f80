//! What travels between the hosts. A letter once sent stays in the net for ever and may be delivered at any time, any
//! number of times, or never: loss, repetition, delay and reordering in one.

use std::fmt;

use decide::migrate::hypervisor::RunState;
use decide::units::{Epoch, JournalId, MoveId};
use decide::wire::message::{JournalMark, Standing};

/// One message.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Letter {
    pub(crate) from: u8,
    pub(crate) to: u8,
    pub(crate) id: MoveId,
    pub(crate) body: Body,
}

/// What it says: the bodies of `wire::message` that matter from the confirmation on, without what people read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Body {
    Acceptance,
    Confirmation(u64),
    Readiness(Journal),
    Release,
    Inquiry { epoch: Epoch, journal: Journal },
    HandOver { epoch: Epoch, run: RunState, journal: Journal },
    Standing { epoch: Epoch, standing: Standing, journal: Option<Journal> },
}

/// A `JournalMark` with an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Journal {
    id: u128,
    generation: u64,
    opened: u64,
    life: u64,
}

impl From<JournalMark> for Journal {
    fn from(mark: JournalMark) -> Journal {
        let JournalMark { id, generation, opened, life } = mark;
        Journal { id: id.0, generation, opened, life }
    }
}

impl From<Journal> for JournalMark {
    fn from(journal: Journal) -> JournalMark {
        let Journal { id, generation, opened, life } = journal;
        JournalMark { id: JournalId(id), generation, opened, life }
    }
}

impl fmt::Debug for Letter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Letter { from, to, id, body } = self;
        write!(f, "{} → {} of move {}: ", name(*from), name(*to), short(*id))?;
        match body {
            Body::Acceptance => write!(f, "Acceptance"),
            Body::Confirmation(epoch) => write!(f, "Confirmation, epoch {epoch}"),
            Body::Readiness(Journal { id, generation, .. }) => {
                write!(f, "Readiness, journal {id} at {generation}")
            }
            Body::Release => write!(f, "Release"),
            Body::HandOver { epoch, .. } => write!(f, "HandOver, epoch {}", epoch.number),
            Body::Inquiry { epoch, .. } => write!(f, "Inquiry about epoch {}", epoch.number),
            Body::Standing { epoch, standing, .. } => {
                write!(f, "Standing {standing:?} under epoch {}", epoch.number)
            }
        }
    }
}

/// A move's id in a path.
pub(crate) fn short(id: MoveId) -> String {
    let host = u8::try_from(id.host.0).unwrap_or(0);
    format!("{}{}.{}", name(host.wrapping_sub(1)), id.incarnation, id.counter)
}

/// A host's name in a path.
pub(crate) fn name(site: u8) -> char {
    char::from(b'A' + site)
}
