//! Who a host is to the others: its peer, and which of its lives it is in.
//!
//! A life is one run of an agent until the others give it up. It begins at `incarnation << 32` and is raised by one each time the
//! host comes back from having been held for gone, so a restart (a higher incarnation) outlives whatever its predecessor
//! became. Of two identities of one host the later life counts; foca keeps one entry for each `HostId`.
//!
//! **Invariant:** of two different identities of one host exactly one wins, on every host alike.

use std::net::{SocketAddr, SocketAddrV6};

use super::Peer;
use crate::units::HostId;

/// The longest name that goes round, in bytes: Linux' own limit for host names.
pub(super) const NAME_BYTES_MAX: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) peer: Peer,
    pub(super) life: u64,
}

impl Identity {
    /// The identity that an agent starts with. Name and address become what the others will read.
    pub(super) fn first(mut peer: Peer) -> Identity {
        let end = (0..=NAME_BYTES_MAX.min(peer.name.len()))
            .rev()
            .find(|end| peer.name.is_char_boundary(*end));
        peer.name.truncate(end.unwrap_or(0));
        if let SocketAddr::V6(v6) = peer.address {
            peer.address = SocketAddrV6::new(*v6.ip(), v6.port(), 0, 0).into();
        }
        let life = u64::from(peer.incarnation) << 32;
        Identity { peer, life }
    }

    /// Whoever is at this address. No host has the id zero.
    pub(super) fn whoever_at(address: SocketAddr) -> Identity {
        Identity {
            peer: Peer { host: HostId(0), name: String::new(), address, incarnation: 0 },
            life: 0,
        }
    }

    /// The same host in a life that outlives `life`.
    pub(super) fn outliving(&self, life: u64) -> Identity {
        Identity { peer: self.peer.clone(), life: life.saturating_add(1) }
    }

    /// Whether this identity counts, and the other of the same host does not.
    pub(super) fn outlives(&self, other: &Identity) -> bool {
        is_later((self.life, &self.peer), (other.life, &other.peer))
    }
}

/// The same of parts.
pub(super) fn is_later((life, peer): (u64, &Peer), (than, other): (u64, &Peer)) -> bool {
    (life, peer.address, peer.incarnation, &peer.name)
        > (than, other.address, other.incarnation, &other.name)
}

impl foca::Identity for Identity {
    type Addr = HostId;

    fn renew(&self) -> Option<Identity> {
        Some(self.outliving(self.life))
    }

    fn addr(&self) -> HostId {
        self.peer.host
    }

    fn win_addr_conflict(&self, adversary: &Identity) -> bool {
        self.outlives(adversary)
    }
}
