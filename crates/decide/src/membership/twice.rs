//! One id at two addresses at once: a copied machine-id, or a copied machine. Neither may go on as if it were alone.
//!
//! A host may change its address once, by a restart. It is two hosts if it goes back to an address that it has just left, since each
//! of the two outlives the other in turn, or if it is heard from an address while we are that host.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::Output;
use crate::units::{HostId, Time};

/// Going back sooner than this is not a restart; and one case is told no more often than this.
const WINDOW: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct Twice {
    left: BTreeMap<HostId, (SocketAddr, Time)>,
    told: BTreeMap<HostId, Time>,
}

impl Twice {
    /// The newest life of `host` left one address for another.
    pub(super) fn moved(
        &mut self,
        now: Time,
        host: HostId,
        left: SocketAddr,
        to: SocketAddr,
    ) -> Option<Output> {
        let before = self.left.insert(host, (left, now));
        let back = before.is_some_and(|(address, when)| address == to && now.since(when) < WINDOW);
        if back { self.tell(now, host, [left, to]) } else { None }
    }

    /// We, `me` at `here`, had to outlive ourselves at another address. Once is a lost journal, twice is another host.
    pub(super) fn rivalled(
        &mut self,
        now: Time,
        me: HostId,
        here: SocketAddr,
        other: SocketAddr,
    ) -> Option<Output> {
        let before = self.left.insert(me, (other, now));
        let again =
            before.is_some_and(|(address, when)| address == other && now.since(when) < WINDOW);
        if again { self.tell(now, me, [here, other]) } else { None }
    }

    /// Both are there beyond doubt.
    pub(super) fn tell(
        &mut self,
        now: Time,
        host: HostId,
        addresses: [SocketAddr; 2],
    ) -> Option<Output> {
        if self.told.get(&host).is_some_and(|told| now.since(*told) < WINDOW) {
            return None;
        }
        self.told.insert(host, now);
        Some(Output::SameHostTwice { host, addresses })
    }

    /// Nothing more is kept of `host`.
    pub(super) fn forget(&mut self, host: HostId) {
        self.left.remove(&host);
        self.told.remove(&host);
    }
}
