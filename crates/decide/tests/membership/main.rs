//! Membership as a cluster lives through it: joining, dying, coming back, splitting, losing datagrams, being written to by strangers.

mod flood;
mod net;

use std::net::SocketAddr;
use std::time::Duration;

use decide::membership::{
    BadDigest, DIGEST_BYTES_MAX, Digest, Driver, Headroom, HostState, Membership, Output,
};
use decide::units::{BitsPerSec, HostId, JournalId, Mib, MilliCores, PacketsPerSec, Share, Time};
use decide::wire::message::JournalMark;
use expect_test::expect;
use net::{Net, address, digest, peer};
use proptest::prelude::*;

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// When `at` first noticed `state` of host `n` after `since`.
fn when(net: &Net, at: SocketAddr, n: u8, state: HostState, since: Time) -> Option<Duration> {
    net.noticed
        .iter()
        .find(|(time, here, output)| {
            *time >= since
                && *here == at
                && matches!(output, Output::Changed { host, state: s, .. } if *host == HostId(u128::from(n)) && *s == state)
        })
        .map(|(time, ..)| time.since(since))
}

fn twice(net: &Net) -> Vec<&(Time, SocketAddr, Output)> {
    net.noticed.iter().filter(|(_, _, o)| matches!(o, Output::SameHostTwice { .. })).collect()
}

#[test]
fn three_hosts_find_each_other_by_seeds_and_agree() {
    let mut net = Net::new(1);
    net.start(peer(1, 1), &[address(2)]);
    net.start(peer(2, 1), &[address(3)]);
    net.start(peer(3, 1), &[]);
    let took = net.until(secs(10), Net::agree).expect("they agree");
    assert!(took < secs(3), "{took:?}");
    let names: Vec<String> = net.hosts[&address(2)].hosts().map(|v| v.peer.name.clone()).collect();
    assert_eq!(names, ["host1", "host3"], "in the order of their ids, without me");
    net.run(secs(120));
    assert!(
        net.agree()
            && net
                .noticed
                .iter()
                .all(|(_, _, o)| matches!(o, Output::Changed { state: HostState::Alive, .. }))
    );
}

#[test]
fn a_seed_that_comes_up_late_is_found() {
    let mut net = Net::new(2);
    net.start(peer(1, 1), &[address(2)]);
    net.run(secs(600));
    assert!(net.datagrams < 40, "calls back off: {}", net.datagrams);
    net.start(peer(2, 1), &[]);
    assert!(net.until(secs(40), Net::agree).is_some());
}

#[test]
fn a_dead_host_is_suspected_then_gone() {
    for seed in 0..10 {
        let mut net = Net::cluster(seed, 3);
        net.run(secs(10));
        net.hosts.remove(&address(3));
        let died = net.now;
        net.run(secs(10));
        for at in [address(1), address(2)] {
            let suspect = when(&net, at, 3, HostState::Suspect, died).expect("suspected");
            let gone = when(&net, at, 3, HostState::Gone, died).expect("gone");
            assert!(
                suspect <= Duration::from_millis(3500),
                "seed {seed}: suspected after {suspect:?}"
            );
            assert!(gone >= secs(3) && gone <= secs(7), "seed {seed}: gone after {gone:?}");
            assert!(suspect < gone);
            assert_eq!(net.hosts[&at].alive().count(), 1);
        }
    }
}

#[test]
fn a_suspicion_ends_though_whoever_had_it_first_has_died() {
    let mut heard = 0;
    for seed in 0..60 {
        let mut net = Net::new(seed);
        (1..=4).for_each(|n| net.start(peer(n, 1), &[address(1), address(2)]));
        net.run(secs(20));
        let cut = net.now;
        net.far.insert(address(4));
        let suspected = |net: &Net| {
            let by = |n| when(net, address(n), 4, HostState::Suspect, cut).map(|after| (after, n));
            (1..=3).filter_map(by).min()
        };
        net.until(secs(30), |net| suspected(net).is_some()).expect("who is cut off is suspected");
        // All are told of it, until it is no news any more; then whoever would end the suspicion dies, and the network heals.
        let (_, first) = suspected(&net).unwrap();
        net.run(Duration::from_millis(1200));
        net.hosts.remove(&address(first));
        net.far.clear();
        heard += usize::from(
            (1..=3).any(|n| n != first && net.state(address(n), 4) == Some(HostState::Suspect)),
        );
        net.run(secs(60));
        for n in (1..=3).filter(|n| *n != first) {
            assert_eq!(net.state(address(n), 4), Some(HostState::Alive), "seed {seed}, host{n}");
        }
    }
    assert!(heard > 0, "in no run had anybody else heard of it");
}

#[test]
fn who_takes_leave_is_gone_at_once() {
    let mut net = Net::cluster(3, 3);
    net.run(secs(10));
    let (left, mut out) = (net.now, Vec::new());
    let mut leaver = net.hosts.remove(&address(3)).unwrap();
    leaver.leave(net.now, &mut out);
    assert_eq!(leaver.deadline(), None);
    net.take(address(3), out);
    net.run(secs(2));
    for at in [address(1), address(2)] {
        assert!(when(&net, at, 3, HostState::Gone, left).expect("gone") < secs(1));
        assert_eq!(when(&net, at, 3, HostState::Suspect, left), None);
    }
}

#[test]
fn a_restarted_host_rejoins_at_once_whatever_was_thought_of_it() {
    for (down_for, incarnation) in [(0, 2), (2, 2), (30, 2), (30, 1)] {
        let mut net = Net::cluster(4, 3);
        net.run(secs(10));
        net.hosts.remove(&address(3));
        net.run(secs(down_for));
        net.start(peer(3, incarnation), &[address(1), address(2)]);
        let took = net.until(secs(10), |net| {
            net.agree()
                && net.hosts[&address(1)]
                    .hosts()
                    .last()
                    .is_some_and(|v| v.peer.incarnation == incarnation)
        });
        assert!(took.is_some_and(|took| took < secs(2)), "down for {down_for} s: {took:?}");
        assert_eq!(twice(&net), Vec::<&_>::new());
    }
}

#[test]
fn a_host_rejoins_at_another_address() {
    let mut net = Net::cluster(5, 3);
    net.run(secs(10));
    net.hosts.remove(&address(3));
    let mut moved = peer(3, 2);
    moved.address = address(33);
    net.start(moved, &[address(1)]);
    assert!(net.until(secs(10), Net::agree).is_some_and(|took| took < secs(2)));
    net.run(secs(180));
    assert!(net.agree());
    assert_eq!(twice(&net), Vec::<&_>::new(), "a move is no double");
}

#[test]
fn a_host_that_lost_its_journal_rejoins_though_it_counts_from_one_again() {
    for at in [3, 33] {
        let mut net = Net::new(6);
        net.start(peer(1, 1), &[]);
        net.start(peer(2, 1), &[address(1)]);
        net.start(peer(3, 70), &[address(1)]);
        net.run(secs(10));
        net.say(address(3), 700);
        net.run(secs(2));
        net.hosts.remove(&address(3));
        net.run(secs(1));
        let mut fresh = peer(3, 1);
        fresh.address = address(at);
        net.start(fresh, &[address(1)]);
        net.say(address(at), 8);
        net.run(secs(5));
        assert!(net.agree());
        let view = net.hosts[&address(2)].hosts().last().unwrap().clone();
        assert_eq!(
            (view.peer.incarnation, view.digest.unwrap().journal.generation),
            (1, 8),
            "its word is heard again"
        );
        assert_eq!(twice(&net), Vec::<&_>::new());
    }
}

#[test]
fn the_newest_digest_of_each_reaches_all() {
    let mut net = Net::cluster(7, 10);
    net.run(secs(10));
    for generation in 1..=5 {
        for n in 1..=10 {
            net.say(address(n), generation);
        }
    }
    let took = net.until(secs(10), |net| net.told(5)).expect("all told");
    assert!(took < secs(2), "{took:?}");
    let said = net.now;
    net.run(secs(5));
    for host in net.hosts.values() {
        assert!(
            host.hosts().all(|v| v.digest == Some(digest(5)) && v.heard <= said),
            "nothing older came after it"
        );
    }
    net.start(peer(11, 1), &[address(4)]);
    net.say(address(11), 9);
    net.run(secs(3));
    assert!(net.told(5), "a newcomer learns what was said before it came");
}

#[test]
fn a_split_cluster_heals() {
    for seed in 0..5 {
        let mut net = Net::cluster(seed, 8);
        net.run(secs(10));
        net.far = [5, 6, 7, 8].map(address).into();
        net.run(secs(60));
        assert!(net.hosts.iter().all(|(_, host)| host.alive().count() == 3), "each half is whole");
        assert_eq!(net.state(address(1), 5), Some(HostState::Gone));
        net.far.clear();
        let took = net.until(secs(120), Net::agree).expect("heals");
        assert!(took < secs(45), "seed {seed}: {took:?}");
        net.say(address(1), 40);
        net.run(secs(3));
        let heard = |at: u8| net.hosts[&address(at)].hosts().next().unwrap().digest.clone();
        assert_eq!(heard(8), Some(digest(40)), "seed {seed}");
        assert_eq!(twice(&net), Vec::<&_>::new());
    }
}

#[test]
fn a_split_cluster_heals_though_its_only_seed_is_dead() {
    let mut net = Net::new(14);
    for n in [9, 1, 2, 3, 4] {
        net.start(peer(n, 1), &[address(9)]);
    }
    net.run(secs(10));
    net.hosts.remove(&address(9));
    net.far = [1, 2].map(address).into();
    net.run(secs(60));
    assert_eq!(net.state(address(1), 3), Some(HostState::Gone));
    net.far.clear();
    let took = net.until(secs(120), Net::agree).expect("heals");
    assert!(took < secs(45), "{took:?}");
}

#[test]
fn a_host_whose_word_of_its_new_life_was_lost_calls_again() {
    let mut net = Net::new(15);
    net.start(peer(1, 1), &[]);
    net.start(peer(2, 1), &[address(1)]);
    net.run(secs(40));
    // "You were outlived", in life 9 at your own address.
    let mut outlived = vec![1, 1];
    outlived.extend(2_u128.to_be_bytes());
    outlived.extend((9_u64 << 32).to_be_bytes());
    outlived.extend([4, 10, 0, 0, 2]);
    outlived.extend(7400_u16.to_be_bytes());
    let host = net.hosts.get_mut(&address(2)).unwrap();
    host.handle(net.now, address(1), &outlived, &mut Vec::new()).unwrap();
    let since = net.now;
    net.run(secs(20));
    assert_eq!(when(&net, address(1), 2, HostState::Gone, since), None);
    assert!(net.agree());
}

#[test]
fn a_host_cut_off_alone_comes_back_by_itself() {
    for seed in 0..5 {
        let mut net = Net::new(seed);
        net.start(peer(1, 1), &[]);
        net.start(peer(2, 1), &[address(1)]);
        net.start(peer(3, 1), &[address(1)]);
        net.run(secs(10));
        // The one whom the others have as their seed, and who has none.
        net.far = [address(1)].into();
        net.run(secs(300));
        assert_eq!(net.hosts[&address(1)].alive().count(), 0);
        net.far.clear();
        let took = net.until(secs(120), Net::agree).expect("comes back");
        assert!(took < secs(45), "seed {seed}: {took:?}");
    }
}

#[test]
fn with_a_third_of_the_datagrams_lost_all_agree_and_are_told() {
    for seed in 0..5 {
        let mut net = Net::new(seed);
        net.loss = 300;
        for n in 1..=10 {
            net.start(peer(n, 1), &[address(1), address(2)]);
        }
        net.say_every = Some(secs(1));
        assert!(net.until(secs(60), Net::agree).is_some(), "seed {seed}: they agree");
        net.run(secs(60));
        let second = net.now.0 / 1_000_000;
        assert!(
            net.until(secs(10), |net| net.told(second)).is_some(),
            "seed {seed}: digests arrive"
        );
        // Wrong suspicions happen; hosts come back from them.
        net.loss = 0;
        assert!(net.until(secs(60), Net::agree).is_some(), "seed {seed}: they agree in the end");
    }
}

#[test]
fn one_id_at_two_addresses_is_noticed_by_both_and_by_others() {
    let mut net = Net::cluster(8, 3);
    net.run(secs(10));
    let mut copy = peer(3, 1);
    copy.address = address(33);
    net.start(copy, &[address(1)]);
    net.run(secs(20));
    let told = twice(&net);
    for at in [1, 2, 3, 33] {
        let of: Vec<_> = told.iter().filter(|(_, here, _)| *here == address(at)).collect();
        assert_eq!(of.len(), 1, "host at {at} tells it once: {of:?}");
        let Output::SameHostTwice { host, mut addresses } = of[0].2 else { unreachable!() };
        addresses.sort();
        assert_eq!((host, addresses), (HostId(3), [address(3), address(33)]));
    }
    assert!(net.datagrams < 4 * 20 * 40, "their quarrel stays bounded: {}", net.datagrams);
    net.hosts.remove(&address(33));
    net.run(secs(70));
    assert!(net.agree(), "it ends with one of them");
}

#[test]
fn two_of_one_id_that_know_nobody_else_notice() {
    let mut net = Net::new(9);
    net.start(peer(3, 1), &[]);
    let mut copy = peer(3, 1);
    copy.address = address(33);
    net.start(copy, &[address(3)]);
    net.run(secs(5));
    assert_eq!(twice(&net).len(), 1);
}

#[test]
fn garbage_is_refused_with_the_senders_name_and_harms_nobody() {
    let mut net = Net::cluster(10, 3);
    net.trace = Some(Vec::new());
    net.say_every = Some(secs(1));
    net.run(secs(10));
    let stranger = address(99);
    let mut refuse = |bytes: &[u8]| {
        let mut out = Vec::new();
        let now = net.now;
        net.hosts
            .get_mut(&address(1))
            .unwrap()
            .handle(now, stranger, bytes, &mut out)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(refuse(b""), "bad membership datagram from 10.0.0.99:7400: it was cut off");
    assert_eq!(
        refuse(b"GET / HTTP/1.1"),
        "bad membership datagram from 10.0.0.99:7400: its version is 71, known is 1"
    );
    assert_eq!(refuse(&[1, 9]), "bad membership datagram from 10.0.0.99:7400: its kind is unknown");
    assert_eq!(
        refuse(&[1; 1201]),
        "bad membership datagram from 10.0.0.99:7400: it is longer than 1200 bytes"
    );
    // Real datagrams, cut off anywhere or with a byte changed, are refused or at least harm nobody.
    let real: Vec<Vec<u8>> = net
        .trace
        .take()
        .unwrap()
        .into_iter()
        .filter_map(|(_, _, output)| match output {
            Output::Send { bytes, .. } => Some(bytes),
            Output::Changed { .. } | Output::SameHostTwice { .. } => None,
        })
        .collect();
    assert!(real.len() > 40, "{}", real.len());
    for bytes in &real {
        for cut in 0..bytes.len() {
            let _ = net.hosts.get_mut(&address(1)).unwrap().handle(
                net.now,
                stranger,
                &bytes[..cut],
                &mut Vec::new(),
            );
        }
    }
    net.run(secs(20));
    assert!(net.agree());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_bytes_make_a_host_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), start in prop::sample::select(vec![&[][..], &[1, 0], &[1, 1]])) {
        let mut host = Membership::new(peer(1, 1), 1, Time(0));
        let all = [start, &bytes].concat();
        let _ = host.handle(Time(5), address(9), &all, &mut Vec::new());
        host.tick(Time(10_000_000), &mut Vec::new());
    }

    #[test]
    fn a_changed_byte_makes_no_host_panic(seed in 0_u64..8, at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let mut net = Net::cluster(seed, 2);
        net.trace = Some(Vec::new());
        net.say_every = Some(secs(1));
        net.run(secs(2));
        for (_, _, output) in net.trace.take().unwrap() {
            if let Output::Send { to: there, mut bytes } = output {
                let at = at.index(bytes.len());
                bytes[at] = to;
                let now = net.now;
                let _ = net.hosts.get_mut(&there).unwrap().handle(now, address(9), &bytes, &mut Vec::new());
            }
        }
        let host = net.hosts.get_mut(&address(1)).unwrap();
        host.tick(net.now.plus(secs(60)), &mut Vec::new());
    }

    #[test]
    fn digests_are_read_as_written(
        shares in any::<(u32, u32)>(), rates in any::<(u64, u64)>(), counts in any::<(u32, u32)>(), hot in any::<bool>(),
        hashes in any::<(u64, u64)>(), journal in any::<(u128, u64, u64, u64)>(), headroom in headroom(),
    ) {
        let (id, generation, opened, life) = journal;
        let journal = JournalMark { id: JournalId(id), generation, opened, life };
        let digest = Digest {
            cpu_used: Share(shares.0), memory_committed: Share(shares.1),
            packets: PacketsPerSec(rates.0), bits: BitsPerSec(rates.1),
            vms: counts.0, hot, moves_under_way: counts.1,
            inventory: hashes.0, policy: hashes.1, journal, headroom: Some(headroom),
        };
        let mut bytes = digest.to_bytes();
        prop_assert!(bytes.len() <= DIGEST_BYTES_MAX);
        prop_assert_eq!(Digest::try_from(&bytes[..]), Ok(digest.clone()));
        for cut in 0..bytes.len() {
            let short = matches!(Digest::try_from(&bytes[..cut]), Err(BadDigest::Short { .. }));
            prop_assert!(short);
        }
        bytes.push(0);
        let long = matches!(Digest::try_from(&bytes[..]), Err(BadDigest::Long { .. }));
        prop_assert!(long);
        bytes[0] = 6;
        prop_assert_eq!(Digest::try_from(&bytes[..]), Ok(digest.clone()), "a later version may append");
        bytes.truncate(bytes.len() - 33);
        bytes[0] = 2;
        let before = Digest { headroom: None, ..digest };
        prop_assert_eq!(Digest::try_from(&bytes[..]), Ok(before.clone()), "version 2 is read");
        prop_assert_eq!(&before.to_bytes(), &bytes, "and written where there is nothing to add");
        bytes.truncate(bytes.len() - 16);
        bytes[0] = 1;
        let journal = JournalMark { opened: 0, life: 0, ..journal };
        let before = Digest { journal, ..before };
        prop_assert_eq!(Digest::try_from(&bytes[..]), Ok(before), "version 1 is read");
    }

    #[test]
    fn no_bytes_make_a_digest_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Digest::try_from(&bytes[..]);
    }
}

fn headroom() -> impl Strategy<Value = Headroom> {
    let driver = prop_oneof![Just(Driver::Other), Just(Driver::Qemu), Just(Driver::Libvirt)];
    (any::<[u32; 4]>(), any::<u64>(), any::<[u16; 3]>(), driver, any::<[bool; 5]>()).prop_map(
        |(
            [room, cpu_asked, cpu, memory],
            nic,
            pressure,
            driver,
            [kvm, tcg, program, doubt, stays],
        )| {
            Headroom {
                room: Mib(room.into()),
                cpu_asked: MilliCores(cpu_asked.into()),
                cpu: MilliCores(cpu.into()),
                memory: Mib(memory.into()),
                nic: BitsPerSec(nic),
                pressure: pressure.map(|share| Share(share.into())),
                driver,
                kvm,
                tcg,
                program,
                doubt,
                stays,
            }
        },
    )
}

/// The bytes of all versions, which every later version must read to the same meaning.
#[test]
fn digests_of_all_versions_are_read() {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let unhex = |text: &str| -> Vec<u8> {
        let pairs = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
        pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
    };
    let five = digest(4);
    let headroom = five.headroom.map(|headroom| Headroom { memory: Mib(0), ..headroom });
    let three = Digest { headroom, ..five.clone() };
    let two = Digest { headroom: None, ..five.clone() };
    let golden = expect![
        "050000007b000004b0000000000000c35000000000ee6b28000000000c0100000001000000000000feed000000000000beef0000000000000000000000000000000700000000000000040000000000000000000000000000000000001388000009c400003e8000000004a817c80000010014012c010500010000"
    ];
    golden.assert_eq(&hex(&five.to_bytes()));
    assert_eq!(Digest::try_from(&unhex(golden.data())[..]), Ok(five.clone()));
    let bytes = format!("04{}", &golden.data()[2..]);
    assert_eq!(Digest::try_from(&unhex(&bytes)[..]), Ok(five), "it only lacks a flag");
    let bytes = format!("03{}", &golden.data()[2..golden.data().len() - 8]);
    assert_eq!(Digest::try_from(&unhex(&bytes)[..]), Ok(three));
    let golden = expect![
        "020000007b000004b0000000000000c35000000000ee6b28000000000c0100000001000000000000feed000000000000beef00000000000000000000000000000007000000000000000400000000000000000000000000000000"
    ];
    golden.assert_eq(&hex(&two.to_bytes()));
    assert_eq!(Digest::try_from(&unhex(golden.data())[..]), Ok(two.clone()));
    let one = format!("01{}", &golden.data()[2..golden.data().len() - 32]);
    assert_eq!(Digest::try_from(&unhex(&one)[..]), Ok(two));
}

#[test]
fn early_late_and_repeated_ticks_do_no_harm() {
    let mut net = Net::cluster(11, 3);
    net.run(secs(10));
    let before = net.noticed.len();
    for _ in 0..1000 {
        net.run(Duration::from_millis(7));
        let (now, mut out) = (net.now, Vec::new());
        for host in net.hosts.values_mut() {
            host.tick(now, &mut out);
            host.tick(now, &mut out);
            host.tick(Time(now.0 - 5_000_000), &mut out);
        }
        assert_eq!(out, [], "nothing was due");
    }
    // A stall of a minute: all tick late, once.
    net.now = net.now.plus(secs(60));
    net.run(secs(20));
    assert!(net.agree(), "{:?}", &net.noticed[before..]);
}

#[test]
fn the_same_seed_gives_the_same_outputs() {
    let run = |seed| {
        let mut net = Net::new(seed);
        net.trace = Some(Vec::new());
        net.loss = 100;
        net.say_every = Some(secs(1));
        for n in 1..=6 {
            net.start(peer(n, 1), &[address(1)]);
        }
        net.run(secs(20));
        net.hosts.remove(&address(4));
        net.run(secs(20));
        net.trace.unwrap()
    };
    let (first, second, other) = (run(42), run(42), run(43));
    assert!(first.len() > 1000);
    assert!(first == second, "two runs differ");
    assert!(first != other, "the seed decides");
}

/// What each host sends while each says a digest each second, and how old digests get; and what it sends while nobody says anything.
#[test]
fn the_cost_is_bounded() {
    let mut table = String::new();
    for n in [3, 10, 50] {
        let mut net = Net::cluster(12, n);
        net.say_every = Some(secs(1));
        net.run(secs(15));
        assert!(net.agree(), "{n} hosts agree in 15 s");
        let rates = |net: &mut Net| {
            (net.datagrams, net.bytes) = (0, 0);
            net.run(secs(20));
            let each = |sum: u64| sum / 20 / u64::from(n);
            (each(net.bytes), each(net.datagrams))
        };
        let saying = rates(&mut net);
        // Three datagrams each 250 ms and three with each digest, all full, bound the rest.
        assert!(saying.0 < 24_000, "{n} hosts: {} B/s", saying.0);
        let second = net.now.0 / 1_000_000;
        let ages = |host: &Membership| -> Vec<u64> {
            host.hosts()
                .map(|v| second - v.digest.as_ref().map_or(0, |d| d.journal.generation))
                .collect()
        };
        let mut ages: Vec<u64> = net.hosts.values().flat_map(ages).collect();
        ages.sort_unstable();
        let (median, oldest) = (ages[ages.len() / 2], ages[ages.len() - 1]);
        net.say_every = None;
        net.run(secs(20));
        let silent = rates(&mut net);
        table += &format!(
            "{n} hosts: {} B/s, {} datagrams/s, digests {median} s old (median), {oldest} s at most; silent {} B/s, {} datagrams/s\n",
            saying.0, saying.1, silent.0, silent.1
        );
    }
    expect![[r#"
        3 hosts: 3215 B/s, 9 datagrams/s, digests 1 s old (median), 1 s at most; silent 191 B/s, 2 datagrams/s
        10 hosts: 10765 B/s, 15 datagrams/s, digests 1 s old (median), 1 s at most; silent 206 B/s, 2 datagrams/s
        50 hosts: 20163 B/s, 17 datagrams/s, digests 1 s old (median), 5 s at most; silent 246 B/s, 2 datagrams/s
    "#]].assert_eq(&table);
}
