//! The keys of datagrams, by epoch: the newest seals, older ones still open until they are taken out.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, ensure};
use ring::digest::{SHA256, digest};
use ring::hkdf::{HKDF_SHA256, Prk, Salt};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::identity::Unix;

/// Bytes of a key.
const KEY: usize = 32;
/// Keys that may be held at once: the newest, the one before, and room for a host that was away.
pub const KEYS_MAX: usize = 8;
/// A new key seals only so many seconds after it was made: until then it has come to all hosts.
pub const SPREADS: u64 = 60;
/// So many seconds after a key was made those before it open nothing any more.
pub const RETIRES: u64 = 600;
/// A key that was made further ahead is not taken from others: their clock is wrong, or they lie. In seconds.
const AHEAD: u64 = 300;
/// Nor one of an epoch that many beyond the newest: there must be epochs left.
const EPOCHS_AHEAD: u32 = 10_000;
/// Makes keys of this use differ from those of any other.
const USE: &[u8] = b"evenkeel datagrams, version 2";

/// One cluster key.
#[derive(Clone, PartialEq, Eq)]
struct Key([u8; KEY]);

/// What the keys of single senders are derived from.
#[derive(Clone)]
pub(crate) struct Root {
    /// When its cluster key was made.
    pub(crate) made: Unix,
    /// Tells two keys of one epoch apart, and nothing else of them.
    pub(crate) lot: [u8; 8],
    /// Itself.
    pub(crate) prk: Prk,
}

/// One cluster key, and since when there is it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    made: Unix,
    key: Key,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let hex: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
        to.serialize_str(&hex)
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Key, D::Error> {
        // Not shown in the error: it is a secret.
        let bad = || serde::de::Error::custom("a cluster key is 64 hexadecimal digits");
        let text = String::deserialize(from)?;
        if text.len() != 2 * KEY || !text.is_ascii() {
            return Err(bad());
        }
        let mut key = [0; KEY];
        for (byte, digits) in key.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digits = str::from_utf8(digits).map_err(|_not_text| bad())?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_not_hex| bad())?;
        }
        Ok(Key(key))
    }
}

/// All keys that are held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ring {
    keys: BTreeMap<u32, Kept>,
}

impl Ring {
    /// The first key of a cluster.
    ///
    /// # Errors
    /// If the system gives no random numbers.
    pub fn first(now: Unix) -> anyhow::Result<Ring> {
        Ok(Ring { keys: BTreeMap::from([(1, Kept { made: now, key: drawn()? })]) })
    }

    /// The next key beside the newest of those before.
    ///
    /// # Errors
    /// As [`Ring::first`].
    pub fn next(&self, now: Unix) -> anyhow::Result<Ring> {
        let mut keys = self.keys.clone();
        while keys.len() >= KEYS_MAX {
            keys.pop_first();
        }
        let epoch = self.newest().checked_add(1).context("there is no epoch after this one")?;
        keys.insert(epoch, Kept { made: now, key: drawn()? });
        Ok(Ring { keys })
    }

    /// What two hosts hold together, without what has retired. Where two keys were made for one epoch, at once on two hosts,
    /// both hosts keep the same one of them.
    #[must_use]
    pub fn merged(&self, other: &Ring, now: Unix) -> Ring {
        let mut keys = self.keys.clone();
        let most = self.newest().saturating_add(EPOCHS_AHEAD);
        let soon = now.0.saturating_add(AHEAD);
        let fit = other.keys.iter().filter(|(epoch, key)| **epoch <= most && key.made.0 <= soon);
        for (epoch, came) in fit {
            let held = keys.entry(*epoch).or_insert_with(|| came.clone());
            if came.key.0 < held.key.0 {
                *held = came.clone();
            }
        }
        while keys.len() > KEYS_MAX || has_retired(&keys, now) {
            keys.pop_first();
        }
        Ring { keys }
    }

    /// What the newest key may be known by, without being known.
    pub(crate) fn mark(&self) -> Vec<u8> {
        let newest = self.keys.last_key_value();
        let hashed = newest.map(|(epoch, kept)| {
            [&epoch.to_be_bytes()[..], digest(&SHA256, &kept.key.0).as_ref()].concat()
        });
        hashed.unwrap_or_default()
    }

    /// The epoch that seals.
    #[must_use]
    pub fn newest(&self) -> u32 {
        self.keys.last_key_value().map_or(0, |(epoch, _)| *epoch)
    }

    /// Whether it can be used.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let count = self.keys.len();
        ensure!((1..=KEYS_MAX).contains(&count), "{count} cluster keys: 1 to {KEYS_MAX} are held");
        ensure!(!self.keys.contains_key(&0), "epochs of cluster keys begin with 1");
        Ok(())
    }

    /// What the keys of single senders are derived from, by epoch.
    pub(crate) fn roots(&self) -> BTreeMap<u32, Root> {
        let root = |kept: &Kept| {
            let mut lot = [0; 8];
            lot.copy_from_slice(&digest(&SHA256, &kept.key.0).as_ref()[..8]);
            let prk = Salt::new(HKDF_SHA256, USE).extract(&kept.key.0);
            Root { made: kept.made, lot, prk }
        };
        self.keys.iter().map(|(epoch, kept)| (*epoch, root(kept))).collect()
    }
}

/// Whether the oldest key has: one after it was made long ago.
fn has_retired(keys: &BTreeMap<u32, Kept>, now: Unix) -> bool {
    keys.values().skip(1).any(|next| next.made.0.saturating_add(RETIRES) <= now.0)
}

fn drawn() -> anyhow::Result<Key> {
    let mut key = [0; KEY];
    let drawn = SystemRandom::new().fill(&mut key);
    drawn.map_err(|_no_reason| anyhow::anyhow!("the system gives no random numbers"))?;
    Ok(Key(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_follow_one_another_and_the_oldest_go() {
        let mut ring = Ring::first(Unix(1)).unwrap();
        assert_eq!(ring.roots().into_keys().collect::<Vec<_>>(), [1]);
        for epoch in 2..=20 {
            ring = ring.next(Unix(u64::from(epoch))).unwrap();
            assert_eq!(ring.newest(), epoch);
            ring.check().unwrap();
        }
        let roots = ring.roots();
        assert_eq!(roots.keys().copied().collect::<Vec<_>>(), (13..=20).collect::<Vec<_>>());
        assert_eq!(roots[&13].made, Unix(13));
        assert_ne!(roots[&13].lot, roots[&14].lot);
        let text = serde_json::to_string(&ring).unwrap();
        assert_eq!(serde_json::from_str::<Ring>(&text).unwrap(), ring);
    }

    #[test]
    fn two_hosts_come_to_hold_the_same_and_forget_what_has_retired() {
        let first = Ring::first(Unix(1)).unwrap();
        let (a, b) = (first.next(Unix(100)).unwrap(), first.next(Unix(101)).unwrap());
        assert_ne!(a, b);
        let both = a.merged(&b, Unix(102));
        assert_eq!(both, b.merged(&a, Unix(102)));
        assert_eq!((both.keys.len(), both.newest()), (2, 2));
        assert_eq!(both.mark(), b.merged(&a, Unix(102)).mark());
        let further = both.next(Unix(200)).unwrap();
        assert_ne!(further.mark(), both.mark());
        let kept = |now| first.merged(&further, Unix(now)).keys.into_keys().collect::<Vec<_>>();
        assert_eq!(kept(201), [1, 2, 3]);
        assert_eq!(kept(200 + RETIRES), [3]);
        assert_eq!(first.merged(&first, Unix(1 << 40)), first, "the only key never goes");
        // Of a host that lies, or whose clock is far ahead, nothing is taken.
        let ahead = first.next(Unix(10_000)).unwrap();
        assert_eq!(first.merged(&ahead, Unix(5)), first);
        let mut last = first.clone();
        last.keys.insert(u32::MAX, Kept { made: Unix(2), key: drawn().unwrap() });
        assert_eq!(first.merged(&last, Unix(5)), first);
    }

    #[test]
    fn a_key_is_not_shown_and_a_bad_one_neither() {
        let ring = Ring::first(Unix(1)).unwrap();
        let text = serde_json::to_string(&ring).unwrap();
        let key = text.split('"').find(|part| part.len() == 2 * KEY).unwrap();
        assert!(!format!("{ring:?}").contains(&key[..8]));
        let bad = text.replace(key, "5ec5e7");
        let why = serde_json::from_str::<Ring>(&bad).unwrap_err().to_string();
        assert!(!why.contains("5ec5e7") && why.contains("64 hexadecimal digits"), "{why}");
        assert!(serde_json::from_str::<Ring>("{}").unwrap().check().is_err());
    }
}
