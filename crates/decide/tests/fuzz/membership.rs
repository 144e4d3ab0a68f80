//! Datagrams of the membership: a machine that hears damaged ones goes on, and what it keeps of them has a limit.

use std::collections::BTreeSet;
use std::time::Duration;

use decide::membership::{DATAGRAM_BYTES_MAX, HOSTS_MAX, Membership, Output};
use decide::units::Time;
use fuzz::Samples;

use crate::net::{Net, address, digest, peer};

/// Datagrams that one machine hears before it is replaced by another.
const LIFE: u64 = 20_000;
/// Datagrams that are tried of those that were heard.
const KEPT: usize = 200;

/// What four hosts said to each other while they came together, one of them died and came back: of each length a few.
fn genuine() -> Vec<Vec<u8>> {
    let mut net = Net::cluster(1, 4);
    net.trace = Some(Vec::new());
    net.say_every = Some(Duration::from_secs(1));
    net.run(Duration::from_secs(5));
    net.hosts.remove(&address(4));
    net.run(Duration::from_secs(10));
    net.start(peer(4, 1), &[address(1)]);
    net.run(Duration::from_secs(10));
    let mut found: BTreeSet<Vec<u8>> = BTreeSet::new();
    let mut seen: Vec<(usize, Vec<u8>)> = Vec::new();
    for (_, _, output) in net.trace.unwrap() {
        let Output::Send { bytes, .. } = output else { continue };
        let like = (bytes.len(), bytes[..2].to_vec());
        if seen.iter().filter(|one| **one == like).count() < 2 && found.len() < KEPT {
            seen.push(like);
            found.insert(bytes);
        }
    }
    assert!(found.len() > 20, "{}", found.len());
    found.into_iter().collect()
}

#[test]
fn damaged_datagrams_neither_stop_the_machine_nor_make_it_keep_or_say_too_much() {
    let begin = |now| {
        let mut host = Membership::new(peer(1, 1), 1, now);
        let mut out = Vec::new();
        host.say(now, digest(1), &mut out);
        host
    };
    let mut now = Time(1_000_000);
    let (mut host, mut heard) = (begin(now), 0);
    Samples { length_max: DATAGRAM_BYTES_MAX + 1, ..Samples::bytes(genuine()) }.damaged(|bytes| {
        heard += 1;
        if heard % LIFE == 0 {
            assert!(host.hosts().count() <= HOSTS_MAX);
            host = begin(now);
        }
        let mut out = Vec::new();
        now = now.plus(Duration::from_millis(1));
        let _ = host.handle(now, address(2), bytes, &mut out);
        if host.deadline().is_some_and(|due| due <= now) {
            host.tick(now, &mut out);
        }
        for output in &out {
            if let Output::Send { bytes, .. } = output {
                assert!(bytes.len() <= DATAGRAM_BYTES_MAX, "{} bytes", bytes.len());
            }
        }
        assert!(out.len() < 20_000, "{} outputs for one datagram", out.len());
    });
}
