//! How many connections may be open before it is known who opened them.
//!
//! As with datagrams (`gate`): addresses from which a host of the cluster has connected are apart from all others, which share a
//! few. So strangers that connect and say nothing keep out no host that was here before.
//!
//! **Invariant:** what is kept of addresses has a limit.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::connections::{Connections, Open};

/// Of one address: a host opens two or three at once.
const PER_ADDRESS: usize = 8;
/// Of all addresses that are not known. A handshake takes milliseconds, and one that says nothing is over after two seconds.
const OTHERS_MAX: usize = 64;
/// Of all that are known.
const KNOWN_MAX: usize = 1024;
/// Addresses that are known at once.
const ADDRESSES_MAX: usize = 4096;

#[derive(Clone, Debug)]
pub(super) struct Handshakes {
    proven: Arc<Mutex<BTreeSet<IpAddr>>>,
    known: Connections,
    others: Connections,
}

impl Handshakes {
    pub(super) fn new() -> Handshakes {
        Handshakes {
            proven: Arc::default(),
            known: Connections::new(KNOWN_MAX, PER_ADDRESS),
            others: Connections::new(OTHERS_MAX, PER_ADDRESS),
        }
    }

    /// None: too many are open already, so this one is to be closed.
    pub(super) fn begin(&self, from: IpAddr) -> Option<Open> {
        let known = self.proven.lock().unwrap_or_else(PoisonError::into_inner).contains(&from);
        if known { self.known.try_open(from) } else { self.others.try_open(from) }
    }

    /// A host of the cluster has connected from this address.
    pub(super) fn proven(&self, from: IpAddr) {
        let mut proven = self.proven.lock().unwrap_or_else(PoisonError::into_inner);
        if proven.len() < ADDRESSES_MAX {
            proven.insert(from);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u32) -> IpAddr {
        IpAddr::V4(n.to_be_bytes().into())
    }

    #[test]
    fn silent_strangers_keep_out_each_other_but_no_host_that_was_here_before() {
        let (handshakes, host) = (Handshakes::new(), address(1));
        handshakes.proven(host);
        let mut open: Vec<Open> = (0..20).filter_map(|_| handshakes.begin(address(2))).collect();
        assert_eq!(open.len(), PER_ADDRESS);
        open.extend((3..200).filter_map(|n| handshakes.begin(address(n))));
        assert_eq!(open.len(), OTHERS_MAX);
        assert!(handshakes.begin(address(500)).is_none());
        assert!(handshakes.begin(host).is_some());
        open.clear();
        assert!(handshakes.begin(address(500)).is_some());
    }

    #[test]
    fn no_more_addresses_are_kept_than_a_cluster_has_hosts() {
        let handshakes = Handshakes::new();
        (0..10_000).for_each(|n| handshakes.proven(address(n)));
        assert_eq!(handshakes.proven.lock().unwrap().len(), ADDRESSES_MAX);
    }
}
