//! Sealed datagrams: encrypted and authenticated under a cluster key, each by one host, each opened once.
//!
//! ```text
//!   "EVKL" 2 | epoch of the key (4) | sender (16) | incarnation (4) | lot (8) | number (8) | sealed: kind (1), content | tag (16)
//!   └──────────────────────── authenticated, in the clear ────────────────────────────┘
//! ```
//!
//! Each start of each sender has a key of its own, derived (HKDF-SHA256) from the cluster key and the three fields that name
//! it, and counts up under it: so no nonce (the number) is ever used twice, whatever happens to clocks and journals. The cipher
//! is ChaCha20-Poly1305.
//!
//! **Invariant:** before the seal has proven genuine only its length and fixed fields are read, and nothing is kept.
//! **Invariant:** what is kept of senders has a limit ([`SENDERS_MAX`]).

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use decide::units::HostId;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf::Prk;
use serde::{Deserialize, Serialize};

use crate::identity::Unix;
use crate::keys::Held;
use crate::window::{Life, Mark, Stale, Window};

/// What every datagram of this project begins with.
pub const MAGIC: [u8; 4] = *b"EVKL";
/// The version of a sealed one; 1 is in the clear.
pub const VERSION: u8 = 2;
/// Bytes before the sealed part.
const HEAD: usize = 4 + 1 + 4 + 16 + 4 + 8 + 8;
/// Bytes that sealing adds.
pub const OVERHEAD: usize = HEAD + 1 + 16;
/// Senders that are known at once.
pub const SENDERS_MAX: usize = 4096;

/// Why a datagram is not opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It cannot be one.
    #[error("a datagram of {0} bytes, too short to be ours")]
    Short(usize),
    /// Something else speaks here.
    #[error("a datagram that is not of this protocol")]
    Foreign,
    /// From an agent without keys, or from a later version.
    #[error("a datagram of version {0}, this agent speaks {VERSION}: {hint}", hint = hint(*.0))]
    Version(u8),
    /// Sealed under a key that is not held.
    #[error(
        "a datagram under cluster key {epoch}, held are those up to {newest}: replayed, or keys did not reach all hosts"
    )]
    Key {
        /// Its key.
        epoch: u32,
        /// The newest that is held.
        newest: u32,
    },
    /// Its sender was revoked.
    #[error("a datagram of host {0}, which is revoked")]
    Revoked(HostId),
    /// Its seal is not what a host of the cluster makes.
    #[error("a datagram whose seal is broken: forged, garbled, or of another cluster")]
    Broken,
    /// Genuine, but not new.
    #[error("a datagram of host {0}: {1}")]
    Stale(HostId, Stale),
    /// More senders than any cluster has hosts.
    #[error("a datagram of a further sender: {SENDERS_MAX} are known already")]
    Crowded,
    /// Genuine, of a kind that is not known here.
    #[error("a datagram of unknown kind {0}, from a newer version?")]
    Kind(u8),
}

fn hint(version: u8) -> &'static str {
    if version < VERSION { "its agent has no keys" } else { "its agent is of a newer version" }
}

/// What seals for one start of one host.
pub struct Sealer {
    host: HostId,
    life: Life,
    last: u64,
    epoch: u32,
    /// And which of that epoch's it is.
    key: Option<([u8; 8], LessSafeKey)>,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sealer { host, life, last, epoch, key: _ } = self;
        f.debug_struct("Sealer")
            .field("host", host)
            .field("life", life)
            .field("last", last)
            .field("epoch", epoch)
            .finish_non_exhaustive()
    }
}

impl Sealer {
    /// For this host's present start, of which there is one.
    #[must_use]
    pub fn new(host: HostId, life: Life) -> Sealer {
        Sealer { host, life, last: 0, epoch: 0, key: None }
    }

    /// Seals; `running` is how long this start has lasted, `now` which key is old enough to be on all hosts.
    pub fn seal(
        &mut self,
        held: &Held,
        (running, now): (Duration, Unix),
        kind: u8,
        content: &[u8],
    ) -> Vec<u8> {
        // Never with an earlier key again: whoever heard it under the later one would not.
        let epoch = held.seals(now).max(held.root(self.epoch).map_or(0, |_held| self.epoch));
        let micros = u64::try_from(running.as_micros()).unwrap_or(u64::MAX);
        self.last = micros.max(self.last + 1);
        let head = Head { epoch, sender: self.host, life: self.life, number: self.last };
        let bytes = head.bytes();
        let root = held.root(epoch).expect("a key that seals is held");
        let (_, key) = match &mut self.key {
            Some(key) if (self.epoch, key.0) == (epoch, root.lot) => key,
            other => {
                self.epoch = epoch;
                other.insert((root.lot, head.key(&root.prk)))
            }
        };
        let mut sealed = Vec::with_capacity(OVERHEAD + content.len());
        sealed.extend(bytes);
        sealed.push(kind);
        sealed.extend(content);
        let tag = key
            .seal_in_place_separate_tag(head.nonce(), Aad::from(bytes), &mut sealed[HEAD..])
            .expect("a datagram is far below the cipher's limit");
        sealed.extend(tag.as_ref());
        sealed
    }
}

/// What a datagram brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The host that sealed it.
    pub sender: HostId,
    /// What it is.
    pub kind: u8,
    /// What it carries.
    pub content: Vec<u8>,
}

/// What opens, each datagram once.
#[derive(Debug, Default)]
pub struct Opener {
    senders: BTreeMap<HostId, Sender>,
}

/// What a sender's key is derived from: the cluster key, by its epoch and lot, and the life.
type Of = (u32, [u8; 8], Life);

struct Sender {
    window: Window,
    /// Absent until the first datagram after a restart.
    key: Option<(Of, LessSafeKey)>,
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("window", &self.window).finish_non_exhaustive()
    }
}

/// What is kept of all senders over a restart (`heard`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Marks(pub BTreeMap<HostId, Mark>);

impl Opener {
    /// One that goes on where another was.
    #[must_use]
    pub fn resume(marks: Marks) -> Opener {
        let all = marks.0.into_iter().take(SENDERS_MAX);
        let sender = |mark| Sender { window: Window::from_mark(mark), key: None };
        Opener { senders: all.map(|(host, mark)| (host, sender(mark))).collect() }
    }

    /// What to keep, `ahead` microseconds ahead of what was taken: none at an orderly end.
    #[must_use]
    pub fn marks(&self, ahead: u64) -> Marks {
        let mark = |(host, sender): (&HostId, &Sender)| (*host, sender.window.mark(ahead));
        Marks(self.senders.iter().map(mark).collect())
    }

    /// Opens a datagram.
    ///
    /// # Errors
    /// If it is not a genuine one of a host of the cluster, or came before.
    pub fn open(&mut self, held: &Held, datagram: &[u8]) -> Result<Opened, Refused> {
        let head = Head::read(datagram)?;
        let newest = held.newest();
        let root = held.root(head.epoch);
        let root = root.ok_or(Refused::Key { epoch: head.epoch, newest })?;
        if held.revoked.shuts_out(head.sender, root.made) {
            return Err(Refused::Revoked(head.sender));
        }
        let of = (head.epoch, root.lot, head.life);
        let known = self.senders.get_mut(&head.sender);
        let mut content = datagram[HEAD..].to_vec();
        let cached = known.as_ref().and_then(|sender| sender.key.as_ref());
        let cached = cached.filter(|(cached, _)| *cached == of);
        let mut derived = None;
        let key = match cached {
            Some((_, key)) => key,
            None => derived.insert(head.key(&root.prk)),
        };
        let aad = Aad::from(&datagram[..HEAD]);
        let length = key
            .open_in_place(head.nonce(), aad, &mut content)
            .map_err(|_no_reason| Refused::Broken)?
            .len();
        content.truncate(length);
        // Genuine from here on.
        let stale = |why| Refused::Stale(head.sender, why);
        match known {
            Some(sender) => {
                sender.window.take(head.epoch, head.life, head.number).map_err(stale)?;
                if let Some(key) = derived {
                    sender.key = Some((of, key));
                }
            }
            None => {
                if self.senders.len() >= SENDERS_MAX {
                    // Nothing that these ever sealed can be opened any more.
                    self.senders.retain(|_, sender| held.root(sender.window.life().0).is_some());
                }
                if self.senders.len() >= SENDERS_MAX {
                    return Err(Refused::Crowded);
                }
                let mut window = Window::new(head.epoch, head.life);
                window.take(head.epoch, head.life, head.number).map_err(stale)?;
                let key = derived.map(|key| (of, key));
                self.senders.insert(head.sender, Sender { window, key });
            }
        }
        if content.is_empty() {
            return Err(Refused::Short(datagram.len()));
        }
        let kind = content.remove(0);
        Ok(Opened { sender: head.sender, kind, content })
    }
}

/// What stands before the sealed part.
struct Head {
    epoch: u32,
    sender: HostId,
    life: Life,
    number: u64,
}

impl Head {
    fn bytes(&self) -> [u8; HEAD] {
        let mut bytes = [0; HEAD];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = VERSION;
        bytes[5..9].copy_from_slice(&self.epoch.to_be_bytes());
        bytes[9..25].copy_from_slice(&self.sender.0.to_be_bytes());
        bytes[25..29].copy_from_slice(&self.life.incarnation.to_be_bytes());
        bytes[29..37].copy_from_slice(&self.life.lot.to_be_bytes());
        bytes[37..HEAD].copy_from_slice(&self.number.to_be_bytes());
        bytes
    }

    fn read(datagram: &[u8]) -> Result<Head, Refused> {
        let short = Refused::Short(datagram.len());
        let Some((magic, rest)) = datagram.split_first_chunk() else { return Err(short) };
        if *magic != MAGIC {
            return Err(Refused::Foreign);
        }
        let Some((version, rest)) = rest.split_first() else { return Err(short) };
        if *version != VERSION {
            return Err(Refused::Version(*version));
        }
        if datagram.len() < OVERHEAD {
            return Err(short);
        }
        let fields = (|| {
            let (epoch, rest) = rest.split_first_chunk()?;
            let (sender, rest) = rest.split_first_chunk()?;
            let (incarnation, rest) = rest.split_first_chunk()?;
            let (lot, rest) = rest.split_first_chunk()?;
            let (number, _sealed) = rest.split_first_chunk()?;
            let incarnation = u32::from_be_bytes(*incarnation);
            Some(Head {
                epoch: u32::from_be_bytes(*epoch),
                sender: HostId(u128::from_be_bytes(*sender)),
                life: Life { incarnation, lot: u64::from_be_bytes(*lot) },
                number: u64::from_be_bytes(*number),
            })
        })();
        fields.ok_or(short)
    }

    /// The key of this start of this sender.
    fn key(&self, root: &Prk) -> LessSafeKey {
        let sender = &self.bytes()[9..37];
        let info = [sender];
        let key = root.expand(&info, &CHACHA20_POLY1305).expect("the cipher's key is short");
        LessSafeKey::new(UnboundKey::from(key))
    }

    fn nonce(&self) -> Nonce {
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&self.number.to_be_bytes());
        Nonce::assume_unique_for_key(nonce)
    }
}

#[cfg(test)]
mod tests;
