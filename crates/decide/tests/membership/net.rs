//! A network in memory: datagrams take a moment, may be lost, and do not cross a split. Seeded, so that a run can be repeated.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use decide::membership::{
    DATAGRAM_BYTES_MAX, Digest, Driver, Headroom, HostState, Membership, Output, Peer,
};
use decide::units::{BitsPerSec, HostId, JournalId, Mib, MilliCores, PacketsPerSec, Share, Time};
use decide::wire::message::JournalMark;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// A digest that is told from others by its generation.
pub(crate) fn digest(generation: u64) -> Digest {
    Digest {
        cpu_used: Share(123),
        memory_committed: Share(1200),
        packets: PacketsPerSec(50_000),
        bits: BitsPerSec(4_000_000_000),
        vms: 12,
        hot: generation.is_multiple_of(2),
        moves_under_way: 1,
        inventory: 0xfeed,
        policy: 0xbeef,
        journal: JournalMark { id: JournalId(7), generation, ..JournalMark::default() },
        headroom: Some(headroom()),
    }
}

pub(crate) fn headroom() -> Headroom {
    Headroom {
        room: Mib(5000),
        cpu_asked: MilliCores(2500),
        cpu: MilliCores(16_000),
        memory: Mib(65_536),
        nic: BitsPerSec(20_000_000_000),
        pressure: [Share(1), Share(20), Share(300)],
        driver: Driver::Qemu,
        kvm: true,
        tcg: false,
        program: true,
        doubt: false,
        stays: false,
    }
}

pub(crate) fn address(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, n], 7400))
}

pub(crate) fn peer(n: u8, incarnation: u32) -> Peer {
    Peer { host: HostId(u128::from(n)), name: format!("host{n}"), address: address(n), incarnation }
}

pub(crate) struct Net {
    pub(crate) now: Time,
    /// By address: what is not here is switched off.
    pub(crate) hosts: BTreeMap<SocketAddr, Membership>,
    /// Lost of a thousand.
    pub(crate) loss: u32,
    /// Those on the far side of a split.
    pub(crate) far: BTreeSet<SocketAddr>,
    /// Period at which every host says a digest whose generation is the second.
    pub(crate) say_every: Option<Duration>,
    /// What hosts noticed: when, where, what (datagrams not among it).
    pub(crate) noticed: Vec<(Time, SocketAddr, Output)>,
    /// Every output, as it came; only kept if wanted.
    pub(crate) trace: Option<Vec<(Time, SocketAddr, Output)>>,
    pub(crate) datagrams: u64,
    pub(crate) bytes: u64,
    flying: BTreeMap<(Time, u64), (SocketAddr, SocketAddr, Vec<u8>)>,
    sent: u64,
    next_say: Time,
    rng: ChaCha8Rng,
}

impl Net {
    pub(crate) fn new(seed: u64) -> Net {
        Net {
            now: Time(1_000_000),
            hosts: BTreeMap::new(),
            loss: 0,
            far: BTreeSet::new(),
            say_every: None,
            noticed: Vec::new(),
            trace: None,
            datagrams: 0,
            bytes: 0,
            flying: BTreeMap::new(),
            sent: 0,
            next_say: Time(0),
            rng: ChaCha8Rng::seed_from_u64(seed),
        }
    }

    /// Starts a host that knows these seeds.
    pub(crate) fn start(&mut self, me: Peer, seeds: &[SocketAddr]) {
        let at = me.address;
        let mut host = Membership::new(me, self.rng.next_u64(), self.now);
        let mut out = Vec::new();
        for seed in seeds {
            host.join(self.now, *seed, &mut out);
        }
        self.hosts.insert(at, host);
        self.take(at, out);
    }

    /// Hosts 1 to `n`, all with the first two as seeds.
    pub(crate) fn cluster(seed: u64, n: u8) -> Net {
        let mut net = Net::new(seed);
        for i in 1..=n {
            net.start(peer(i, 1), &[address(1), address(2)]);
        }
        net
    }

    pub(crate) fn say(&mut self, at: SocketAddr, generation: u64) {
        let mut out = Vec::new();
        self.hosts.get_mut(&at).expect("it is on").say(self.now, digest(generation), &mut out);
        self.take(at, out);
    }

    pub(crate) fn take(&mut self, at: SocketAddr, outputs: Vec<Output>) {
        for output in outputs {
            if let Some(trace) = &mut self.trace {
                trace.push((self.now, at, output.clone()));
            }
            match output {
                Output::Send { to, bytes } => self.send(at, to, bytes),
                Output::Changed { .. } | Output::SameHostTwice { .. } => {
                    self.noticed.push((self.now, at, output))
                }
            }
        }
    }

    pub(crate) fn send(&mut self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        assert!(bytes.len() <= DATAGRAM_BYTES_MAX, "a datagram of {} bytes", bytes.len());
        assert_ne!(from, to, "a host wrote to itself");
        self.datagrams += 1;
        self.bytes += bytes.len() as u64;
        self.sent += 1;
        let delay = Duration::from_micros(100 + u64::from(self.rng.next_u32() % 900));
        let lost = self.rng.next_u32() % 1000 < self.loss;
        if !lost {
            self.flying.insert((self.now.plus(delay), self.sent), (from, to, bytes));
        }
    }

    /// Lets time pass.
    pub(crate) fn run(&mut self, span: Duration) {
        self.until(span, |_| false);
    }

    /// Lets time pass until `reached`; how long it took, or `None` after `at_most`.
    pub(crate) fn until(
        &mut self,
        at_most: Duration,
        reached: impl Fn(&Net) -> bool,
    ) -> Option<Duration> {
        let (begin, end) = (self.now, self.now.plus(at_most));
        loop {
            if reached(self) {
                return Some(self.now.since(begin));
            }
            let say = self.say_every.map(|_| self.next_say);
            let arrival = self.flying.first_key_value().map(|((at, _), _)| *at);
            let tick = self.hosts.values().filter_map(Membership::deadline).min();
            let next = say.into_iter().chain(arrival).chain(tick).min().unwrap_or(end);
            if next > end {
                self.now = end;
                return None;
            }
            self.now = self.now.max(next);
            self.step();
        }
    }

    fn step(&mut self) {
        let now = self.now;
        if let Some(every) = self.say_every.filter(|_| self.next_say <= now) {
            self.next_say = now.plus(every);
            for at in self.hosts.keys().copied().collect::<Vec<_>>() {
                self.say(at, now.0 / 1_000_000);
            }
        }
        while let Some(first) = self.flying.first_entry().filter(|first| first.key().0 <= now) {
            let (from, to, bytes) = first.remove();
            let mut out = Vec::new();
            let split = self.far.contains(&from) != self.far.contains(&to);
            if let Some(host) = self.hosts.get_mut(&to).filter(|_| !split) {
                host.handle(now, from, &bytes, &mut out).expect("hosts write good datagrams");
                self.take(to, out);
            }
        }
        for at in self.hosts.keys().copied().collect::<Vec<_>>() {
            let host = self.hosts.get_mut(&at).expect("it is on");
            if host.deadline().is_some_and(|due| due <= now) {
                let mut out = Vec::new();
                host.tick(now, &mut out);
                assert!(host.deadline().is_none_or(|due| due > now), "a tick leaves nothing due");
                self.take(at, out);
            }
        }
    }

    /// How the host at `at` sees the host `n`.
    pub(crate) fn state(&self, at: SocketAddr, n: u8) -> Option<HostState> {
        self.hosts[&at]
            .hosts()
            .find(|view| view.peer.host == HostId(u128::from(n)))
            .map(|view| view.state)
    }

    /// Whether every host sees every other as alive, at the address where it is.
    pub(crate) fn agree(&self) -> bool {
        let all: BTreeSet<SocketAddr> = self.hosts.keys().copied().collect();
        self.hosts.iter().all(|(at, host)| {
            let mut seen: BTreeSet<SocketAddr> =
                host.alive().map(|view| view.peer.address).collect();
            seen.insert(*at);
            seen == all
        })
    }

    /// Whether every host has this or a newer digest of every other.
    pub(crate) fn told(&self, generation: u64) -> bool {
        let others = self.hosts.len() - 1;
        let fresh =
            |d: &Option<Digest>| d.as_ref().is_some_and(|d| d.journal.generation >= generation);
        self.hosts
            .values()
            .all(|host| host.hosts().filter(|view| fresh(&view.digest)).count() >= others)
    }
}
