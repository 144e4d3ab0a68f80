//! Digests on their way round: each host passes on what is newer than all it has heard of its author.
//!
//! A digest travels as: author (16 bytes), life, number (8 bytes each, big-endian), digest. Of one author the later life counts, and
//! within a life the higher number.
//!
//! **Invariant:** a digest is passed on, and reported, at most once; older ones never replace newer ones.

use std::collections::BTreeMap;
use std::sync::mpsc::Sender;

use bytes::{Buf, BufMut};
use foca::{BroadcastHandler, Invalidates};

use super::digest::{BadDigest, Digest};
use super::identity::Identity;
use crate::units::HostId;

/// Authors remembered at most, so that a flood of invented ones ends somewhere.
const AUTHORS_MAX: usize = super::HOSTS_MAX;

/// The bytes to spread.
pub(super) fn record(me: &Identity, number: u64, digest: &Digest) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(128);
    bytes.put_u128(me.peer.host.0);
    bytes.put_u64(me.life);
    bytes.put_u64(number);
    bytes.put_slice(&digest.to_bytes());
    bytes
}

/// Sorts new from known; foca owns it, so what is new leaves through a channel.
#[derive(Debug)]
pub(super) struct Spread {
    me: HostId,
    newest: BTreeMap<HostId, (u64, u64)>,
    heard: Sender<(HostId, Digest)>,
}

impl Spread {
    pub(super) fn new(me: HostId, heard: Sender<(HostId, Digest)>) -> Spread {
        Spread { me, newest: BTreeMap::new(), heard }
    }
}

/// Whose digest it is.
#[derive(Debug)]
pub(super) struct Author(HostId);

impl Invalidates for Author {
    fn invalidates(&self, other: &Author) -> bool {
        self.0 == other.0
    }
}

/// Not a digest on its way round.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadRecord {
    #[error("a digest without author")]
    Short(#[from] bytes::TryGetError),
    #[error(transparent)]
    Digest(#[from] BadDigest),
}

impl BroadcastHandler<Identity> for Spread {
    type Key = Author;
    type Error = BadRecord;

    fn receive_item(
        &mut self,
        mut data: &[u8],
        sender: Option<&Identity>,
    ) -> Result<Option<Author>, BadRecord> {
        let author = HostId(data.try_get_u128()?);
        let age = (data.try_get_u64()?, data.try_get_u64()?);
        let digest = Digest::try_from(data)?;
        if sender.is_none() {
            return Ok(Some(Author(author)));
        }
        let known = self.newest.get(&author);
        let full = known.is_none() && self.newest.len() >= AUTHORS_MAX;
        if author == self.me || full || known.is_some_and(|known| *known >= age) {
            return Ok(None);
        }
        self.newest.insert(author, age);
        // The other end lives as long as the membership that owns both.
        let _ = self.heard.send((author, digest));
        Ok(Some(Author(author)))
    }
}
