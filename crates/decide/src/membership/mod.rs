//! Who is alive, and what each host last said. SWIM (Das, Gupta, Motivala 2002, with suspicion), by `foca`.
//!
//!   unknown ── heard of ──▶ Alive ◀── objects ── Suspect ── `suspect_for` passes ──▶ Gone
//!                             │ ── no answer, direct or by others ──▶ ┘                │
//!                             └ ◀────────── speaks again, in a later life ─────────────┘
//!
//! The machine takes datagrams and the time, and gives datagrams and changes. Seeds and hosts that are gone are called again and again
//! (`calls`), so that a cluster forms, and heals, in whatever order its hosts and links come back.
//!
//! **Invariant:** each `HostId` has one view, that of its latest life.
//! **Invariant:** the same seed and the same calls give the same outputs, bit for bit.
//! **Invariant:** no datagram, whatever its bytes, stops the machine, and none it sends exceeds `DATAGRAM_BYTES_MAX`.
//! **Invariant:** no more than [`HOSTS_MAX`] hosts are known, whatever datagrams tell of.
//! **Boundary:** foca stays inside; its hosts, states and timers are not seen outside.

mod calls;
mod codec;
mod digest;
pub mod doubles;
mod identity;
pub mod inventories;
pub mod inventory;
pub mod journals;
pub mod news;
mod spread;
mod suspects;
mod timers;
mod timings;
mod twice;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use foca::{Foca, Member, Notification, Runtime, State, Timer};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::units::{HostId, Time};
use calls::Calls;
use codec::{Codec, FOCA_BYTES_MAX, Frame};
use identity::{Identity, is_later};
use spread::Spread;
use suspects::Suspects;
use timers::Timers;
use twice::Twice;

pub use codec::DATAGRAM_BYTES_MAX;
pub use digest::{BadDigest, DIGEST_BYTES_MAX, Digest, Driver, Headroom};
pub use timings::Timings;

/// Hosts that are known at once, gone ones included: a flood of invented ones ends there. No cluster has as many.
pub const HOSTS_MAX: usize = 16_384;

/// A host as it presents itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its id; never zero.
    pub host: HostId,
    /// Its name, for people; what exceeds 64 bytes does not go round.
    pub name: String,
    /// Where it takes datagrams and gRPC: the same address and port for both.
    pub address: SocketAddr,
    /// How often its agent had started, this time included: higher at each start, or its digests count as old.
    pub incarnation: u32,
}

/// How a host stands, as seen from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostState {
    /// It answers.
    Alive,
    /// Somebody got no answer from it; it may object.
    Suspect,
    /// It has not objected in time, or took its leave.
    Gone,
}

/// What is known of another host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Who it is, in its latest life.
    pub peer: Peer,
    /// How it stands.
    pub state: HostState,
    /// What it last said; kept while it is gone.
    pub digest: Option<Digest>,
    /// When the digest came; without one, when the host was first heard of.
    pub heard: Time,
}

/// Views of all hosts, this one's own among them.
pub type Told = Arc<BTreeMap<HostId, View>>;

/// What the agent has to do, or to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this datagram.
    Send {
        /// To whom.
        to: SocketAddr,
        /// At most `DATAGRAM_BYTES_MAX` of them.
        bytes: Vec<u8>,
    },
    /// A host is new, or stands otherwise than before.
    Changed {
        /// Which.
        host: HostId,
        /// By name.
        name: String,
        /// As it stands now.
        state: HostState,
    },
    /// One id is used by two hosts: DESIGN.md §3, rule 5. Told again at most once a minute while it lasts.
    SameHostTwice {
        /// The id.
        host: HostId,
        /// Where the two are.
        addresses: [SocketAddr; 2],
    },
}

/// A datagram that could not be used, or only in part. The machine goes on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bad membership datagram from {from}: {why}")]
pub struct BadDatagram {
    /// Whose address it came from.
    pub from: SocketAddr,
    /// What is wrong with it.
    pub why: String,
}

/// This host's part in the cluster's membership.
pub struct Membership {
    me: HostId,
    foca: Foca<Identity, Codec, ChaCha8Rng, Spread>,
    timings: Timings,
    timers: Timers,
    calls: Calls,
    known: BTreeMap<HostId, Known>,
    /// What is told from outside instead of heard.
    told: Option<Told>,
    told_times: u64,
    /// Digests of hosts not heard of yet: news of one host may overtake each other.
    early: BTreeMap<HostId, (Digest, Time)>,
    heard: Receiver<(HostId, Digest)>,
    said: Option<Digest>,
    number: u64,
    twice: Twice,
    suspects: Suspects,
    /// Hosts that datagrams told of.
    read: Receiver<HostId>,
    link: Link,
    left: bool,
    now: Time,
}

#[derive(Debug)]
struct Known {
    view: View,
    life: u64,
}

/// What foca told of our own standing.
#[derive(Debug, Default)]
struct Link {
    /// Some other host talks to our present life.
    connected: bool,
    /// We were held for gone and begin a new life: say so to all.
    reborn: bool,
    /// A host came up that lacks our digest.
    newcomer: bool,
    /// Members that may stand otherwise than before.
    stirred: BTreeSet<HostId>,
    /// Whom foca probes: it is suspected when the next probe begins, without a word.
    probed: Option<HostId>,
}

impl fmt::Debug for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Membership { known, calls, link, left, .. } = self;
        f.debug_struct("Membership")
            .field("me", self.foca.identity())
            .field("known", known)
            .field("calls", calls)
            .field("link", link)
            .field("left", left)
            .finish_non_exhaustive()
    }
}

impl Membership {
    /// Alone at first; `seed` decides whom it probes, tells and calls when.
    pub fn new(me: Peer, seed: u64, now: Time) -> Membership {
        Membership::with_timings(me, seed, now, Timings::default())
    }

    /// The same with other timings.
    pub fn with_timings(me: Peer, seed: u64, now: Time, timings: Timings) -> Membership {
        assert!(me.host != HostId(0), "the id zero stands for a host that is not known yet");
        let id = me.host;
        let rng = ChaCha8Rng::seed_from_u64(seed);
        let mut jitter = rng.clone();
        jitter.set_stream(1);
        let (tell, heard) = channel();
        let config = timings.foca(1, FOCA_BYTES_MAX);
        let spread = Spread::new(id, tell);
        let (tell, read) = channel();
        let codec = Codec(id, tell);
        Membership {
            me: id,
            foca: Foca::with_custom_broadcast(Identity::first(me), config, rng, codec, spread),
            timers: Timers::default(),
            calls: Calls::new(&timings, jitter),
            suspects: Suspects::new(timings.suspect_for),
            read,
            timings,
            known: BTreeMap::new(),
            told: None,
            told_times: 0,
            early: BTreeMap::new(),
            heard,
            said: None,
            number: 0,
            twice: Twice::default(),
            link: Link::default(),
            left: false,
            now,
        }
    }

    /// Calls whoever is at `seed_address`, now and again with growing waits, whenever that host is not in touch.
    pub fn join(&mut self, now: Time, seed_address: SocketAddr, out: &mut Vec<Output>) {
        self.pass(now);
        if seed_address != self.address() {
            self.calls.add(self.now, seed_address, true);
            self.call(out);
        }
    }

    /// Takes a datagram. On an error the rest of the datagram was dropped, and nothing else has suffered.
    pub fn handle(
        &mut self,
        now: Time,
        from: SocketAddr,
        bytes: &[u8],
        out: &mut Vec<Output>,
    ) -> Result<(), BadDatagram> {
        if self.left {
            return Ok(());
        }
        self.pass(now);
        let bad = |why: String| BadDatagram { from, why };
        match Frame::read(bytes).map_err(|why| bad(why.to_string()))? {
            Frame::Foca(data) => {
                let sender = codec::sender(data).map_err(|why| bad(why.to_string()))?;
                self.has_room_for(data).map_err(bad)?;
                if self.admit(&sender, out) {
                    if !self.stands_well(&sender) {
                        self.link.stirred.insert(sender.peer.host);
                    }
                    let (foca, mut effects) = self.parts(out);
                    let result = foca.handle_data(data, &mut effects);
                    self.settle(out);
                    result.map_err(|why| bad(why.to_string()))?;
                }
            }
            Frame::Outlived { host, life, address } => {
                if host == self.me {
                    self.outlive(life, address, out);
                }
            }
        }
        Ok(())
    }

    /// Does what is due; nothing, if nothing is.
    pub fn tick(&mut self, now: Time, out: &mut Vec<Output>) {
        if self.left {
            return;
        }
        self.pass(now);
        while let Some(timer) = self.timers.pop_due(self.now) {
            self.link.stirred.extend(match &timer {
                Timer::ProbeRandomMember(_) => self.link.probed,
                Timer::ChangeSuspectToDown { member_id: who, .. } | Timer::RemoveDown(who) => {
                    Some(who.peer.host)
                }
                Timer::SendIndirectProbe { .. }
                | Timer::PeriodicAnnounce(_)
                | Timer::PeriodicAnnounceDown(_)
                | Timer::PeriodicGossip(_) => None,
            });
            let (foca, mut effects) = self.parts(out);
            // foca reports timers that came too late to complete a probe, and begins the next probe all the same.
            let _ = foca.handle_timer(timer, &mut effects);
        }
        while let Some((who, incarnation)) = self.suspects.due(self.now) {
            self.link.stirred.insert(who.peer.host);
            let gone = Member::new(who, incarnation, State::Down);
            let (foca, mut effects) = self.parts(out);
            foca.apply_many(std::iter::once(gone), true, &mut effects)
                .expect("what foca told of a host is encodable");
        }
        self.settle(out);
        self.call(out);
    }

    /// When `tick` has something to do next.
    pub fn deadline(&self) -> Option<Time> {
        if self.left {
            return None;
        }
        let own = self.calls.deadline().into_iter().chain(self.suspects.deadline());
        self.timers.deadline().into_iter().chain(own).min()
    }

    /// Spreads what this host says of itself; it replaces what it said before. Each time costs every host about 170 bytes,
    /// some times over: say it when it has changed, and now and then ([`Membership::beat`]).
    pub fn say(&mut self, now: Time, digest: Digest, out: &mut Vec<Output>) {
        if self.left {
            return;
        }
        self.pass(now);
        self.said = Some(digest);
        self.restate();
        let (foca, mut effects) = self.parts(out);
        foca.broadcast(&mut effects).expect("datagrams of digests are encodable");
    }

    /// After how long to say a digest again that has not changed.
    pub fn beat(&self) -> Duration {
        news::beat(self.foca.num_members() + 1)
    }

    /// All other hosts that are known, gone ones included, in the order of their ids.
    pub fn hosts(&self) -> impl Iterator<Item = &View> {
        let told = self.told.iter().flat_map(|told| told.values());
        let heard = self.known.values().map(|known| &known.view);
        told.filter(|view| view.peer.host != self.me).chain(heard)
    }

    /// What is known of one other host.
    pub fn view(&self, host: HostId) -> Option<&View> {
        let heard = || self.known.get(&host).map(|known| &known.view);
        self.told.as_ref().map_or_else(heard, |told| told.get(&host))
    }

    /// From now on these are the views, which all hosts may share, this one's own among them; nothing is said or heard any more.
    /// For simulated clusters, in which gossip would cost more than all else.
    pub fn tell(&mut self, views: Told) {
        self.told = Some(views);
        self.told_times += 1;
        self.known.clear();
        self.left = true;
    }

    /// Whether views are told from outside.
    pub fn is_told(&self) -> bool {
        self.told.is_some()
    }

    /// How often they were.
    pub fn told_times(&self) -> u64 {
        self.told_times
    }

    /// Those that answer; suspects are not among them.
    pub fn alive(&self) -> impl Iterator<Item = &View> {
        self.hosts().filter(|view| view.state == HostState::Alive)
    }

    /// Takes leave: the others hold this host for gone at once. It takes no part from then on.
    pub fn leave(&mut self, now: Time, out: &mut Vec<Output>) {
        if self.left {
            return;
        }
        self.pass(now);
        let (foca, mut effects) = self.parts(out);
        foca.leave_cluster(&mut effects).expect("a farewell is encodable");
        self.left = true;
    }

    /// Time does not go back, whatever the caller says.
    fn pass(&mut self, now: Time) {
        self.now = self.now.max(now);
    }

    fn address(&self) -> SocketAddr {
        self.foca.identity().peer.address
    }

    fn parts<'a>(
        &'a mut self,
        out: &'a mut Vec<Output>,
    ) -> (&'a mut Foca<Identity, Codec, ChaCha8Rng, Spread>, Effects<'a>) {
        let here = self.foca.identity().peer.address;
        let effects =
            Effects { here, now: self.now, timers: &mut self.timers, link: &mut self.link, out };
        (&mut self.foca, effects)
    }

    /// Whether a datagram tells of no more hosts than may be known.
    fn has_room_for(&self, data: &[u8]) -> Result<(), String> {
        // As many as one datagram can tell of.
        if self.known.len() < HOSTS_MAX - DATAGRAM_BYTES_MAX / codec::MEMBER_BYTES_MIN {
            return Ok(());
        }
        let all = codec::tells_of(data).map_err(|why| why.to_string())?;
        let known = |host: &HostId| *host == self.me || self.known.contains_key(host);
        match all.iter().find(|host| !known(host)) {
            Some(host) => {
                Err(format!("it tells of host {host}, and {HOSTS_MAX} are known or nearly"))
            }
            None => Ok(()),
        }
    }

    /// Whether foca shall have this sender's datagram: not our own, nor one of a life that is over.
    fn admit(&mut self, sender: &Identity, out: &mut Vec<Output>) -> bool {
        let address = sender.peer.address;
        if sender.peer.host == self.me {
            let here = self.address();
            if address != here {
                out.extend(self.twice.tell(self.now, self.me, [here, address]));
            }
            return false;
        }
        let Some(latest) = self.known.get(&sender.peer.host) else { return true };
        if is_later((latest.life, &latest.view.peer), (sender.life, &sender.peer)) {
            // It cannot know by itself: it may have started without its journal. foca would say that it is gone, not since which life.
            let host = sender.peer.host;
            let told =
                Frame::Outlived { host, life: latest.life, address: latest.view.peer.address };
            out.push(Output::Send { to: address, bytes: told.to_bytes() });
            return false;
        }
        true
    }

    /// Whether the sender is known as it presents itself, and alive: then no word of its own changes how it stands.
    fn stands_well(&self, sender: &Identity) -> bool {
        self.known.get(&sender.peer.host).is_some_and(|known| {
            known.view.state == HostState::Alive
                && known.life == sender.life
                && known.view.peer == sender.peer
        })
    }

    /// The others know a later life of ours: begin one that is later still.
    fn outlive(&mut self, life: u64, address: SocketAddr, out: &mut Vec<Output>) {
        let me = self.foca.identity().clone();
        let here = me.peer.address;
        if (life, address) <= (me.life, here) {
            return;
        }
        if address != here {
            out.extend(self.twice.rivalled(self.now, self.me, here, address));
        }
        let later = me.outliving(life);
        let (foca, mut effects) = self.parts(out);
        // It fails only if there is no later life: then we stay as we are.
        if foca.change_identity(later, &mut effects).is_ok() {
            self.link.connected = false;
            self.link.reborn = true;
        }
        self.settle(out);
    }

    /// Takes over what foca has learned.
    fn settle(&mut self, out: &mut Vec<Output>) {
        while let Ok((host, digest)) = self.heard.try_recv() {
            match self.known.get_mut(&host) {
                Some(known) => (known.view.digest, known.view.heard) = (Some(digest), self.now),
                None => drop(self.early.insert(host, (digest, self.now))),
            }
        }
        let mut stirred = std::mem::take(&mut self.link.stirred);
        stirred.extend(self.read.try_iter());
        if !stirred.is_empty() && self.compare(&stirred, out) {
            // Of hosts that never came.
            self.early.retain(|_, (_, at)| self.now.since(*at) < self.timings.list_period);
            let hosts = self.foca.num_members() + 1;
            let config = self.timings.foca(hosts, FOCA_BYTES_MAX);
            self.foca.set_config(config).expect("only what may change has changed");
        }
        if self.link.reborn {
            // Until one of them answers our new life, nobody probes it.
            for known in self.known.values() {
                self.calls.add(self.now, known.view.peer.address, false);
            }
        }
        if self.link.reborn || self.link.newcomer {
            self.restate();
        }
        (self.link.reborn, self.link.newcomer) = (false, false);
    }

    /// Brings the views of `these` up to foca's members; whether any differed, or one is forgotten.
    fn compare(&mut self, these: &BTreeSet<HostId>, out: &mut Vec<Output>) -> bool {
        let Membership { foca, known, early, calls, twice, suspects, me, now, .. } = self;
        let (mut changed, mut others) = (false, 0);
        for member in foca.iter_membership_state().filter(|member| member.id().peer.host != *me) {
            others += 1;
            let Identity { peer, life } = member.id();
            let host = peer.host;
            if !these.contains(&host) {
                continue;
            }
            let state = standing(member);
            match state {
                HostState::Suspect => suspects.suspect(*now, member.id(), member.incarnation()),
                HostState::Alive | HostState::Gone => suspects.clear(host),
            }
            let before = known.get(&host).map(|known| known.view.state);
            let known = known.entry(host).or_insert_with(|| {
                let (digest, heard) =
                    early.remove(&host).map_or((None, *now), |(digest, at)| (Some(digest), at));
                Known { view: View { peer: peer.clone(), state, digest, heard }, life: *life }
            });
            if before == Some(state) && known.life == *life && known.view.peer == *peer {
                continue;
            }
            changed = true;
            let left = known.view.peer.address;
            if left != peer.address {
                out.extend(twice.moved(*now, host, left, peer.address));
                calls.remove(left);
            }
            (known.view.peer, known.life, known.view.state) = (peer.clone(), *life, state);
            if before != Some(state) {
                out.push(Output::Changed { host, name: peer.name.clone(), state });
                if state == HostState::Gone {
                    calls.add(*now, peer.address, false);
                }
            }
        }
        if others < known.len() {
            self.forget();
            changed = true;
        }
        debug_assert!(self.agrees_with_foca(), "a member changed that nothing told of");
        changed
    }

    fn agrees_with_foca(&self) -> bool {
        let mut others =
            self.foca.iter_membership_state().filter(|member| member.id().peer.host != self.me);
        others.all(|member| {
            let Identity { peer, life } = member.id();
            let known = self.known.get(&peer.host);
            known.is_some_and(|known| {
                known.life == *life
                    && known.view.peer == *peer
                    && known.view.state == standing(member)
            })
        })
    }

    /// Drops what foca has forgotten.
    fn forget(&mut self) {
        let members: BTreeSet<HostId> =
            self.foca.iter_membership_state().map(|m| m.id().peer.host).collect();
        let Membership { known, calls, twice, suspects, .. } = self;
        known.retain(|host, known| {
            let kept = members.contains(host);
            if !kept {
                calls.remove(known.view.peer.address);
                twice.forget(*host);
                suspects.clear(*host);
            }
            kept
        });
    }

    /// Gives the digest a new number and lets it go round.
    fn restate(&mut self) {
        let Some(digest) = &self.said else { return };
        self.number += 1;
        let record = spread::record(self.foca.identity(), self.number, digest);
        self.foca.add_broadcast(&record).expect("a digest of ours is well formed and small");
    }

    /// Calls those who should be in touch and are not.
    fn call(&mut self, out: &mut Vec<Output>) {
        if self.left {
            return;
        }
        let Membership { calls, known, link, now, .. } = self;
        let in_touch = |address: SocketAddr| {
            link.connected
                && known.values().any(|known| {
                    known.view.peer.address == address && known.view.state != HostState::Gone
                })
        };
        for address in calls.due(*now, in_touch) {
            let (foca, mut effects) = self.parts(out);
            foca.announce(Identity::whoever_at(address), &mut effects)
                .expect("a call is encodable");
        }
    }
}

fn standing(member: &Member<Identity>) -> HostState {
    match member.state() {
        State::Alive => HostState::Alive,
        State::Suspect => HostState::Suspect,
        State::Down => HostState::Gone,
    }
}

/// Where foca's wishes go.
struct Effects<'a> {
    here: SocketAddr,
    now: Time,
    timers: &'a mut Timers,
    link: &'a mut Link,
    out: &'a mut Vec<Output>,
}

impl Runtime<Identity> for Effects<'_> {
    fn notify(&mut self, notification: Notification<'_, Identity>) {
        match notification {
            Notification::MemberUp(_) => self.link.newcomer = true,
            Notification::Active => self.link.connected = true,
            Notification::Idle | Notification::Defunct => self.link.connected = false,
            Notification::Rejoin(_) => (self.link.connected, self.link.reborn) = (false, true),
            // The views are compared with foca's members, which says more.
            Notification::MemberDown(_) | Notification::Rename(..) => {}
        }
    }

    fn send_to(&mut self, to: Identity, data: &[u8]) {
        // foca may hold our own former life for a host.
        if to.peer.address != self.here {
            self.out
                .push(Output::Send { to: to.peer.address, bytes: Frame::Foca(data).to_bytes() });
        }
    }

    fn submit_after(&mut self, timer: Timer<Identity>, after: Duration) {
        if let Timer::SendIndirectProbe { probed_id, .. } = &timer {
            self.link.probed = Some(probed_id.peer.host);
        }
        self.timers.set(self.now.plus(after), timer);
    }
}
