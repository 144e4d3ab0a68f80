//! A host that invents others: what is known has a limit, and whoever is known already is heard all the same.

use bytes::BufMut;
use decide::membership::{HOSTS_MAX, HostState, Membership};
use decide::units::{HostId, Time};

use crate::net::{address, digest, peer};

/// An identity in its first life; invented hosts have no name.
fn put(bytes: &mut Vec<u8>, host: u128, name: &str) {
    bytes.put_u128(host);
    bytes.put_u8(4);
    bytes.put_u32(0x0a00_0000 | u32::try_from(host).expect("of few bits"));
    bytes.put_u16(7400);
    bytes.put_u32(1);
    bytes.put_u64(1 << 32);
    bytes.put_u8(u8::try_from(name.len()).expect("short"));
    bytes.put_slice(name.as_bytes());
}

/// Gossip of host 2 to host 1 that these are alive.
fn gossip(of: impl ExactSizeIterator<Item = u32>) -> Vec<u8> {
    let mut bytes = vec![1, 0];
    put(&mut bytes, 2, "host2");
    bytes.put_u16(0);
    put(&mut bytes, 1, "host1");
    bytes.put_u8(8);
    bytes.put_u16(u16::try_from(of.len()).expect("few"));
    for host in of {
        put(&mut bytes, host.into(), "");
        bytes.put_u16(0);
        bytes.put_u8(0);
    }
    bytes
}

#[test]
fn a_flood_of_invented_hosts_ends_somewhere() {
    let now = Time(1_000_000);
    let mut host = Membership::new(peer(1, 1), 1, now);
    let mut out = Vec::new();
    host.say(now, digest(1), &mut out);
    let mut refused = None;
    for first in (3..40_000).step_by(25) {
        out.clear();
        let heard = host.handle(now, address(2), &gossip(first..first + 25), &mut out);
        refused = refused.or(heard.err());
    }
    let known = host.hosts().count();
    assert!((HOSTS_MAX - 100..=HOSTS_MAX).contains(&known), "{known}");
    let why = refused.expect("some were too many").to_string();
    assert!(why.contains("16384 are known or nearly"), "{why}");
    assert_eq!(host.handle(now, address(2), &gossip(3..4), &mut out), Ok(()));
    assert_eq!(host.view(HostId(3)).map(|view| view.state), Some(HostState::Alive));
}
