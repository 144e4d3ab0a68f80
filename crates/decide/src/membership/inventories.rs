//! What is held of the other hosts' VMs, and when to fetch it anew.
//!
//! ```text
//!   held ── its digest names another hash ──▶ wanted ── drawn wait over ──▶ asked ── answer ──▶ held
//!                                               ▲ ◀── no answer, or none in time: waits twice as long ──┘
//! ```
//!
//! Digests reach all hosts at about the same time, so each waits by lot before it asks, the longer the more hosts there are.
//!
//! **Invariant:** one host is asked by at most one fetch at a time, and `AT_ONCE_MAX` are under way at the most.
//! **Invariant:** only hosts that answer are asked; what is held of the others stays, and says its age.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::inventory::Inventory;
use super::{HostState, View};
use crate::units::{HostId, Time};

/// Fetches under way at once.
const AT_ONCE_MAX: usize = 4;
/// The wait is drawn up to this long for each host of the cluster: a host is asked by fifty others in a second.
const SPREAD: Duration = Duration::from_millis(20);
/// Changes that follow each other within a second are fetched together.
const SPREAD_MIN: Duration = Duration::from_secs(1);
/// The wait after a fetch that failed; it doubles.
const RETRY: Duration = Duration::from_secs(2);
/// Doublings at the most: 2 s, 4 s, … 256 s.
const DOUBLINGS_MAX: u32 = 7;
/// Whoever fetches gives up sooner; this is for an answer that never comes.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// What is held of one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its VMs.
    pub inventory: Inventory,
    /// When it was asked for them: they are at least as new.
    pub asked: Time,
    /// The hash in its digest at that time: it may have been overtaken.
    for_hash: u64,
}

/// The inventories of all other hosts.
#[derive(Debug)]
pub struct Inventories {
    held: BTreeMap<HostId, Held>,
    wanted: BTreeMap<HostId, Wanted>,
    asked: BTreeMap<HostId, Asked>,
    rng: ChaCha8Rng,
}

#[derive(Clone, Copy, Debug)]
struct Wanted {
    due: Time,
    /// Fetches that have failed in a row.
    failed: u32,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    when: Time,
    for_hash: u64,
    failed: u32,
}

/// What came of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// It is held; it was asked for at this time.
    Held(Time),
    /// None, so many times in a row.
    Failed(u32),
    /// It was not asked for, or not any more.
    Late,
}

impl Inventories {
    /// None held; `seed` draws the waits.
    pub fn new(seed: u64) -> Inventories {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(2);
        Inventories { held: BTreeMap::new(), wanted: BTreeMap::new(), asked: BTreeMap::new(), rng }
    }

    /// What is held, by host.
    pub fn held(&self) -> &BTreeMap<HostId, Held> {
        &self.held
    }

    /// Looks which digests name another inventory than the one held.
    pub fn look<'a>(&mut self, now: Time, views: impl Iterator<Item = &'a View>) {
        let views: Vec<&View> = views.collect();
        if views.len() < self.held.len() {
            // What membership has forgotten.
            let known: BTreeSet<HostId> = views.iter().map(|view| view.peer.host).collect();
            self.held.retain(|host, _| known.contains(host));
        }
        let hosts = u32::try_from(views.len()).unwrap_or(u32::MAX);
        for view in views {
            let host = view.peer.host;
            if view.state != HostState::Alive {
                self.wanted.remove(&host);
                continue;
            }
            // A host of a version before has nothing to fetch.
            let Some(digest) = view.digest.as_ref().filter(|d| d.headroom.is_some()) else {
                continue;
            };
            if self.is_news(host, digest.inventory) && !self.wanted.contains_key(&host) {
                let due = now.plus(self.lot(SPREAD_MIN.max(SPREAD.saturating_mul(hosts))));
                self.wanted.insert(host, Wanted { due, failed: 0 });
            }
        }
    }

    /// Wants this host's inventory now, whatever is held of it.
    pub fn want(&mut self, now: Time, host: HostId) {
        let wanted = self.wanted.entry(host).or_insert(Wanted { due: now, failed: 0 });
        wanted.due = wanted.due.min(now);
    }

    /// Takes the hosts to be asked now; `hash` is what a host's digest says.
    pub fn due(&mut self, now: Time, hash: impl Fn(HostId) -> u64) -> Vec<HostId> {
        let overdue = |asked: &Asked| now.since(asked.when) >= ANSWER_MAX;
        let lost: Vec<HostId> =
            self.asked.iter().filter(|(_, asked)| overdue(asked)).map(|(host, _)| *host).collect();
        for host in lost {
            self.came(now, host, None);
        }
        let mut due = Vec::new();
        while self.asked.len() < AT_ONCE_MAX {
            let next = self
                .wanted
                .iter()
                .filter(|(host, wanted)| wanted.due <= now && !self.asked.contains_key(host));
            let Some((host, wanted)) = next.min_by_key(|(_, wanted)| wanted.due) else { break };
            let (host, failed) = (*host, wanted.failed);
            self.wanted.remove(&host);
            self.asked.insert(host, Asked { when: now, for_hash: hash(host), failed });
            due.push(host);
        }
        due
    }

    /// The answer of a host, or that there is none.
    pub fn came(&mut self, now: Time, host: HostId, inventory: Option<Inventory>) -> Came {
        let Some(Asked { when, for_hash, failed }) = self.asked.remove(&host) else {
            return Came::Late;
        };
        let Some(inventory) = inventory else {
            let wait = RETRY * 2_u32.pow(failed.min(DOUBLINGS_MAX));
            let due = now.plus(wait + self.lot(wait / 2));
            let failed = failed + 1;
            self.wanted.entry(host).or_insert(Wanted { due, failed }).failed = failed;
            return Came::Failed(failed);
        };
        self.held.insert(host, Held { inventory, asked: when, for_hash });
        Came::Held(when)
    }

    /// When [`Inventories::due`] has something to do next.
    pub fn deadline(&self) -> Option<Time> {
        let free = self.asked.len() < AT_ONCE_MAX;
        let waiting = self.wanted.iter().filter(|(host, _)| free && !self.asked.contains_key(host));
        let answers = self.asked.values().map(|asked| asked.when.plus(ANSWER_MAX));
        waiting.map(|(_, wanted)| wanted.due).chain(answers).min()
    }

    /// Whether a digest's hash says that what is held is not what there is.
    fn is_news(&mut self, host: HostId, hash: u64) -> bool {
        if self.asked.get(&host).is_some_and(|asked| asked.for_hash == hash) {
            return false;
        }
        let Some(held) = self.held.get_mut(&host) else { return true };
        if held.inventory.hash == hash {
            held.for_hash = hash;
        }
        held.for_hash != hash
    }

    fn lot(&mut self, at_most: Duration) -> Duration {
        at_most * (self.rng.next_u32() >> 16) / (1 << 16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::{Digest, Driver, Headroom, Peer};
    use crate::units::{BitsPerSec, Mib, MilliCores, PacketsPerSec, Share};
    use crate::wire::message::JournalMark;

    const SECOND: u64 = 1_000_000;

    fn view(n: u16, inventory: u64, state: HostState) -> View {
        let headroom = Headroom {
            room: Mib(1),
            cpu_asked: MilliCores(0),
            cpu: MilliCores(1000),
            memory: Mib(1),
            nic: BitsPerSec(0),
            pressure: [Share(0); 3],
            driver: Driver::Qemu,
            kvm: false,
            tcg: true,
            program: false,
            doubt: false,
            stays: false,
        };
        let digest = Digest {
            cpu_used: Share(0),
            memory_committed: Share(0),
            packets: PacketsPerSec(0),
            bits: BitsPerSec(0),
            vms: 1,
            hot: false,
            moves_under_way: 0,
            inventory,
            policy: 0,
            journal: JournalMark::default(),
            headroom: Some(headroom),
        };
        let address = ([10, 0, 0, 1], n).into();
        let host = HostId(n.into());
        let peer = Peer { host, name: format!("host{n}"), address, incarnation: 1 };
        View { peer, state, digest: Some(digest), heard: Time(0) }
    }

    fn inventory(hash: u64) -> Inventory {
        Inventory { hash, vms: Vec::new(), left_out: 0, labels: Vec::new() }
    }

    /// What is asked within twenty seconds, second by second, nobody answering.
    fn asked(inventories: &mut Inventories, from: u64) -> Vec<(u64, HostId)> {
        let seconds = from..from + 20;
        let asked = seconds.map(|s| (s, inventories.due(Time(s * SECOND), |_| 7)));
        asked.flat_map(|(s, hosts)| hosts.into_iter().map(move |host| (s, host))).collect()
    }

    #[test]
    fn a_change_is_fetched_once_and_what_is_the_same_never() {
        let mut inventories = Inventories::new(1);
        let views = [view(2, 7, HostState::Alive)];
        inventories.look(Time(0), views.iter());
        assert_eq!(asked(&mut inventories, 1).len(), 1);
        let came = inventories.came(Time(22 * SECOND), HostId(2), Some(inventory(7)));
        assert!(matches!(came, Came::Held(_)), "{came:?}");
        inventories.look(Time(62 * SECOND), views.iter());
        assert_eq!(inventories.deadline(), None);
        // Overtaken: the list is newer than the digest, which says so soon.
        inventories.look(Time(63 * SECOND), [view(2, 8, HostState::Alive)].iter());
        let due = inventories.due(Time(65 * SECOND), |_| 8);
        assert_eq!(due, [HostId(2)]);
        inventories.came(Time(65 * SECOND), HostId(2), Some(inventory(9)));
        for hash in [8, 9, 9] {
            inventories.look(Time(66 * SECOND), [view(2, hash, HostState::Alive)].iter());
            assert_eq!(inventories.deadline(), None, "{hash}");
        }
        // Back to what it was before: that is another change.
        inventories.look(Time(67 * SECOND), [view(2, 8, HostState::Alive)].iter());
        assert!(inventories.deadline().is_some());
    }

    #[test]
    fn suspects_are_not_asked_and_what_is_held_of_the_gone_stays() {
        let mut inventories = Inventories::new(2);
        inventories.look(Time(0), [view(2, 7, HostState::Suspect)].iter());
        assert_eq!(inventories.deadline(), None);
        inventories.look(Time(0), [view(2, 7, HostState::Alive)].iter());
        inventories.due(Time(2 * SECOND), |_| 7);
        inventories.came(Time(2 * SECOND), HostId(2), Some(inventory(7)));
        inventories.look(Time(3 * SECOND), [view(2, 8, HostState::Gone)].iter());
        assert_eq!(inventories.deadline(), None);
        assert!(inventories.held().contains_key(&HostId(2)));
        inventories.look(Time(4 * SECOND), [].iter());
        assert!(inventories.held().is_empty(), "forgotten with its host");
    }

    #[test]
    fn who_does_not_answer_is_asked_at_growing_intervals() {
        let mut inventories = Inventories::new(3);
        inventories.look(Time(0), [view(2, 7, HostState::Alive)].iter());
        let mut times = Vec::new();
        for second in 1..600 {
            let now = Time(second * SECOND);
            for host in inventories.due(now, |_| 7) {
                times.push(second);
                assert!(matches!(inventories.came(now, host, None), Came::Failed(_)));
            }
        }
        let waits: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(waits.len() < 9 && waits.is_sorted(), "{waits:?}");
    }

    #[test]
    fn the_more_hosts_the_longer_they_wait_and_few_are_asked_at_once() {
        let views: Vec<View> = (2..1002).map(|n| view(n, 7, HostState::Alive)).collect();
        let mut inventories = Inventories::new(4);
        inventories.look(Time(0), views.iter());
        let dues: Vec<Time> = inventories.wanted.values().map(|wanted| wanted.due).collect();
        let late = dues.iter().filter(|due| **due > Time(10 * SECOND)).count();
        assert!((400..600).contains(&late), "half of twenty seconds: {late}");
        assert_eq!(inventories.due(Time(30 * SECOND), |_| 7).len(), AT_ONCE_MAX);
        assert_eq!(inventories.due(Time(31 * SECOND), |_| 7), [], "until one has answered");
    }
}
