//! Where a span or a block is kept: whose it is, of which level, and the number of its first span. In this order, so that
//! one history's are one range.

use std::ops::RangeInclusive;

use decide::units::VmId;
use decide::usage::history::Whose;
use decide::usage::history::levels::Level;

/// Whose, in bytes.
pub(super) type Owner = [u8; 17];
/// A whole key.
pub(super) type Key = [u8; 26];

pub(super) fn owner(whose: Whose) -> Owner {
    let mut bytes = [0; 17];
    if let Whose::Vm(VmId(id)) = whose {
        bytes[0] = 1;
        bytes[1..].copy_from_slice(&id.to_be_bytes());
    }
    bytes
}

pub(super) fn key(whose: Whose, level: Level, number: u64) -> Key {
    let mut bytes = [0; 26];
    bytes[..17].copy_from_slice(&owner(whose));
    bytes[17] = level as u8;
    bytes[18..].copy_from_slice(&number.to_be_bytes());
    bytes
}

/// All keys of one level of a history.
pub(super) fn of_level(whose: Whose, level: Level) -> RangeInclusive<Key> {
    key(whose, level, 0)..=key(whose, level, u64::MAX)
}

/// All keys of a history.
pub(super) fn of_owner(owner: &Owner) -> RangeInclusive<Key> {
    let (mut from, mut to) = ([0; 26], [u8::MAX; 26]);
    from[..17].copy_from_slice(owner);
    to[..17].copy_from_slice(owner);
    from..=to
}

pub(super) fn number(key: &Key) -> u64 {
    let bytes = key.last_chunk().expect("the last eight of 26");
    u64::from_be_bytes(*bytes)
}
