//! The seal by itself: what opens, what does not, and what is kept.

use proptest::prelude::*;

use super::*;
use crate::authority::{Authority, LIFE};
use crate::grant;
use crate::keys::Keys;
use crate::request::{Wanted, make};
use crate::ring::{RETIRES, SPREADS};

const NOW: Unix = Unix(1_790_000_000);
/// By then a key that was made now seals.
const SPREAD: Unix = Unix(NOW.0 + SPREADS + 1);
const FIRST: Life = Life { incarnation: 5, lot: 1 };

/// A cluster's CA and the keys of host 1.
struct Bed {
    folder: tempfile::TempDir,
    authority: Authority,
    keys: Keys,
}

impl Bed {
    fn new() -> Bed {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::init(&folder.path().join("ca"), "c", None, NOW).unwrap();
        let own = folder.path().join("keys");
        let (name, addresses) = ("h1".to_owned(), vec!["127.0.0.1".parse().unwrap()]);
        let request = make(&own, &Wanted { host: HostId(1), name, addresses }).unwrap();
        authority.sign(&request, LIFE, NOW).unwrap().0.install(&own, NOW).unwrap();
        let keys = Keys::load(&own).unwrap();
        Bed { folder, authority, keys }
    }

    /// Brings the host what the CA's folder holds.
    fn update(&self) {
        let own = self.folder.path().join("keys");
        self.authority.update().unwrap().install(&own, NOW).unwrap();
        assert!(self.keys.reload().unwrap());
    }
}

/// At that millisecond of its life.
fn sealed(sealer: &mut Sealer, keys: &Keys, at: u64, content: &[u8]) -> Vec<u8> {
    sealer.seal(&keys.held(), (Duration::from_millis(at), SPREAD), 2, content)
}

#[test]
fn what_was_sealed_opens_once_with_its_sender_and_nothing_of_it_is_in_the_clear() {
    let bed = Bed::new();
    let (mut sealer, mut opener) = (Sealer::new(HostId(9), FIRST), Opener::default());
    let datagram = sealed(&mut sealer, &bed.keys, 10, b"the name of a VM");
    assert_eq!(datagram.len(), OVERHEAD + 16);
    assert!(!datagram.windows(4).any(|part| part == b"name"));
    let opened = opener.open(&bed.keys.held(), &datagram).unwrap();
    let expected = Opened { sender: HostId(9), kind: 2, content: b"the name of a VM".to_vec() };
    assert_eq!(opened, expected);
    let again = opener.open(&bed.keys.held(), &datagram);
    assert_eq!(again, Err(Refused::Stale(HostId(9), Stale::Again)));
    // Also those sealed within one and the same microsecond are told apart.
    for _ in 0..3 {
        let more = sealed(&mut sealer, &bed.keys, 10, b"more");
        assert_eq!(opener.open(&bed.keys.held(), &more).unwrap().content, b"more");
    }
}

#[test]
fn strangers_other_clusters_and_agents_without_keys_are_told_apart() {
    let (bed, other) = (Bed::new(), Bed::new());
    let (mut sealer, mut opener) = (Sealer::new(HostId(9), FIRST), Opener::default());
    let mut why = |datagram: &[u8]| opener.open(&bed.keys.held(), datagram).unwrap_err();
    assert_eq!(why(b""), Refused::Short(0));
    assert_eq!(why(b"EVKL"), Refused::Short(4));
    assert_eq!(why(b"EVKL\x02"), Refused::Short(5));
    assert_eq!(why(&[0; 300]), Refused::Foreign);
    assert_eq!(
        why(b"EVKL\x01\x02hello").to_string(),
        "a datagram of version 1, this agent speaks 2: its agent has no keys"
    );
    assert_eq!(why(&sealed(&mut sealer, &other.keys, 1, b"x")), Refused::Broken);
    let mut unknown = sealed(&mut sealer, &bed.keys, 1, b"x");
    unknown[8] = 7;
    assert_eq!(why(&unknown), Refused::Key { epoch: 7, newest: 1 });
}

#[test]
fn after_a_rotation_old_keys_open_until_they_have_retired() {
    let bed = Bed::new();
    let (mut sealer, mut opener) = (Sealer::new(HostId(9), FIRST), Opener::default());
    let early: Vec<Vec<u8>> =
        (1..=3).map(|at| sealed(&mut sealer, &bed.keys, at, b"early")).collect();
    assert_eq!(grant::rotate(&bed.folder.path().join("ca"), NOW).unwrap(), 2);
    bed.update();
    let at = (Duration::from_millis(4), Unix(NOW.0 + SPREADS - 1));
    let yet = sealer.seal(&bed.keys.held(), at, 2, b"not everywhere yet");
    assert_eq!(yet[5..9], 1_u32.to_be_bytes());
    let late = sealed(&mut sealer, &bed.keys, 5, b"late");
    assert_eq!(late[5..9], 2_u32.to_be_bytes());
    assert!(opener.open(&bed.keys.held(), &early[0]).is_ok());
    assert!(opener.open(&bed.keys.held(), &late).is_ok());
    for old in &early {
        let why = opener.open(&bed.keys.held(), old);
        assert_eq!(why, Err(Refused::Stale(HostId(9), Stale::Retired)));
    }
    // Nor does the sender go back to an earlier key, if its clock does.
    let back = sealer.seal(&bed.keys.held(), at, 2, b"set back");
    assert_eq!(back[5..9], 2_u32.to_be_bytes());
    assert!(opener.open(&bed.keys.held(), &back).is_ok());
    let update = bed.authority.update().unwrap();
    update.merge(bed.keys.folder(), Unix(NOW.0 + RETIRES)).unwrap();
    assert!(bed.keys.reload().unwrap());
    for old in early {
        let why = opener.open(&bed.keys.held(), &old);
        assert_eq!(why, Err(Refused::Key { epoch: 1, newest: 2 }));
    }
}

#[test]
fn a_revoked_host_is_not_heard_under_keys_from_before() {
    let bed = Bed::new();
    let (mut sealer, mut opener) = (Sealer::new(HostId(9), FIRST), Opener::default());
    let (one, two) =
        (sealed(&mut sealer, &bed.keys, 1, b"1"), sealed(&mut sealer, &bed.keys, 2, b"2"));
    assert!(opener.open(&bed.keys.held(), &one).is_ok());
    assert_eq!(bed.authority.revoke(HostId(9), NOW).unwrap(), 1);
    bed.update();
    assert_eq!(opener.open(&bed.keys.held(), &two), Err(Refused::Revoked(HostId(9))));
    // The key that was made with the revocation it has only if it was let in anew.
    let four = sealed(&mut sealer, &bed.keys, 4, b"4");
    assert_eq!(opener.open(&bed.keys.held(), &four).unwrap().content, b"4");
}

#[test]
fn a_receiver_that_starts_anew_opens_nothing_that_it_opened_before() {
    let bed = Bed::new();
    let (mut sealer, mut opener) = (Sealer::new(HostId(9), FIRST), Opener::default());
    let datagrams: Vec<Vec<u8>> =
        (1..=50).map(|at| sealed(&mut sealer, &bed.keys, 100 * at, b"x")).collect();
    for datagram in &datagrams {
        assert!(opener.open(&bed.keys.held(), datagram).is_ok());
    }
    for (ahead, deaf) in [(0, 0), (crate::window::AHEAD, 2000)] {
        let text = serde_json::to_string(&opener.marks(ahead)).unwrap();
        let mut again = Opener::resume(serde_json::from_str(&text).unwrap());
        for datagram in &datagrams {
            let why = again.open(&bed.keys.held(), datagram);
            assert_eq!(why, Err(Refused::Stale(HostId(9), Stale::Old)));
        }
        let mut later = Sealer::new(HostId(9), FIRST);
        let next = sealed(&mut later, &bed.keys, 5000 + deaf + 1, b"next");
        assert!(again.open(&bed.keys.held(), &next).is_ok(), "{ahead}");
    }
}

#[test]
fn a_sender_that_starts_anew_is_heard_and_its_life_before_is_not() {
    let bed = Bed::new();
    let (mut sealer, mut opener) = (Sealer::new(HostId(9), FIRST), Opener::default());
    assert!(opener.open(&bed.keys.held(), &sealed(&mut sealer, &bed.keys, 9000, b"a")).is_ok());
    let kept_back = sealed(&mut sealer, &bed.keys, 9001, b"b");
    // Its clock was set back meanwhile: what counts is how often it has started.
    let mut anew = Sealer::new(HostId(9), Life { incarnation: 6, lot: 2 });
    assert!(opener.open(&bed.keys.held(), &sealed(&mut anew, &bed.keys, 1, b"c")).is_ok());
    let why = opener.open(&bed.keys.held(), &kept_back);
    assert_eq!(why, Err(Refused::Stale(HostId(9), Stale::Outlived)));
}

#[test]
fn no_more_senders_are_kept_than_a_cluster_has_hosts() {
    let bed = Bed::new();
    let mut opener = Opener::default();
    let from = |sender: usize| {
        let sender = HostId(sender as u128 + 1);
        sealed(&mut Sealer::new(sender, FIRST), &bed.keys, 1, b"x")
    };
    for sender in 0..SENDERS_MAX {
        assert!(opener.open(&bed.keys.held(), &from(sender)).is_ok());
    }
    let why = opener.open(&bed.keys.held(), &from(SENDERS_MAX));
    assert_eq!(why, Err(Refused::Crowded));
    // Names that a thief made up are forgotten with the key that it had.
    grant::rotate(&bed.folder.path().join("ca"), NOW).unwrap();
    bed.update();
    let update = bed.authority.update().unwrap();
    update.merge(bed.keys.folder(), Unix(NOW.0 + RETIRES)).unwrap();
    assert!(bed.keys.reload().unwrap());
    assert!(opener.open(&bed.keys.held(), &from(SENDERS_MAX)).is_ok());
    assert_eq!(opener.marks(0).0.len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_content_of_any_sender_comes_as_it_was(
        content: Vec<u8>, kind: u8, host: u128, incarnation: u32, lot: u64, at in 0_u64..1 << 50,
    ) {
        let bed = Bed::new();
        let life = Life { incarnation, lot };
        let mut sealer = Sealer::new(HostId(host), life);
        let datagram = sealer.seal(&bed.keys.held(), (Duration::from_micros(at), SPREAD), kind, &content);
        let opened = Opener::default().open(&bed.keys.held(), &datagram);
        prop_assert_eq!(opened, Ok(Opened { sender: HostId(host), kind, content }));
    }

    #[test]
    fn one_flipped_bit_anywhere_is_refused_and_changes_nothing(
        content in proptest::collection::vec(any::<u8>(), 0..100), at: proptest::sample::Index,
    ) {
        let bed = Bed::new();
        let mut opener = Opener::default();
        let datagram = sealed(&mut Sealer::new(HostId(9), FIRST), &bed.keys, 1, &content);
        let bit = at.index(8 * datagram.len());
        let mut flipped = datagram.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(opener.open(&bed.keys.held(), &flipped).is_err());
        prop_assert!(opener.marks(0).0.is_empty());
        prop_assert!(opener.open(&bed.keys.held(), &datagram).is_ok());
    }

    #[test]
    fn no_bytes_open_by_chance(bytes in proptest::collection::vec(any::<u8>(), 0..1500)) {
        let bed = Bed::new();
        let mut opener = Opener::default();
        prop_assert!(opener.open(&bed.keys.held(), &bytes).is_err());
        let headed = [b"EVKL\x02\0\0\0\x01".as_slice(), &bytes].concat();
        prop_assert!(opener.open(&bed.keys.held(), &headed).is_err());
        prop_assert!(opener.marks(0).0.is_empty());
    }
}
