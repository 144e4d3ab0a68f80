//! Hosts under suspicion, whoever suspected them first.
//!
//! foca ends a suspicion only where it began: at the host that got no answer. Should that one die, all others would suspect for
//! ever, since the suspected hears of it by luck alone. SWIM has every host end it (Das et al. 2002, §4.2), and so does this: later
//! than foca does, so that the first to suspect has the word.
//!
//!   not there ── suspected ──▶ waiting ── twice `suspect_for` passes ──▶ due: held for gone, and so called again
//!       ◀── objects, comes in a later life, is gone ──┘
//!
//! **Invariant:** a suspicion that nobody ends is due, once, at a time that only grows with new suspicions.

use std::collections::BTreeMap;
use std::time::Duration;

use foca::Incarnation;

use super::identity::Identity;
use crate::units::{HostId, Time};

#[derive(Debug)]
pub(super) struct Suspects {
    since: BTreeMap<HostId, (Identity, Incarnation, Time)>,
    wait: Duration,
}

impl Suspects {
    pub(super) fn new(suspect_for: Duration) -> Suspects {
        Suspects { since: BTreeMap::new(), wait: suspect_for * 2 }
    }

    /// The host is suspected; anew if it has objected to what was held against it before.
    pub(super) fn suspect(&mut self, now: Time, who: &Identity, incarnation: Incarnation) {
        let host = who.peer.host;
        let known = self.since.get(&host);
        if known.is_none_or(|(life, number, _)| (life, *number) != (who, incarnation)) {
            self.since.insert(host, (who.clone(), incarnation, now));
        }
    }

    /// It is not, or not any more.
    pub(super) fn clear(&mut self, host: HostId) {
        self.since.remove(&host);
    }

    /// Takes one whose time is over.
    pub(super) fn due(&mut self, now: Time) -> Option<(Identity, Incarnation)> {
        let over = self.since.iter().find(|(_, (.., since))| now.since(*since) >= self.wait);
        let host = *over?.0;
        self.since.remove(&host).map(|(who, incarnation, _)| (who, incarnation))
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        self.since.values().map(|(.., since)| since.plus(self.wait)).min()
    }
}
