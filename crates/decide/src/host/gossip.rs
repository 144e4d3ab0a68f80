//! The other hosts: who is alive, and what this one says of itself.

use std::net::SocketAddr;
use std::time::Duration;

use super::story::{Note, Step};
use super::{Action, Host};
use crate::membership::journals::Loss;
use crate::membership::{Digest, HostState, Output, View};
use crate::negotiate::source as negotiate_source;
use crate::policy::hot::used;
use crate::units::{HostId, MoveId, Share, Time};
use crate::wire::message::JournalMark;

/// What has not changed is said again after this long, so that others can tell it from what was lost.
const SAID_ANEW_AFTER: Duration = Duration::from_secs(5);
/// Figures that differ by less than this part of them are the same to people.
const LITTLE: u64 = 32;

impl Host {
    pub(super) fn join(&mut self, now: Time, address: SocketAddr, actions: &mut Vec<Action>) {
        let mut out = Vec::new();
        self.membership.join(now, address, &mut out);
        self.spread(now, out, actions);
    }

    pub(super) fn gossip(
        &mut self,
        now: Time,
        from: SocketAddr,
        bytes: &[u8],
        actions: &mut Vec<Action>,
    ) {
        let mut out = Vec::new();
        if let Err(bad) = self.membership.handle(now, from, bytes, &mut out) {
            actions.push(Action::Note(Note::bad_input(bad.to_string())));
        }
        self.spread(now, out, actions);
    }

    pub(super) fn tick_membership(&mut self, now: Time, actions: &mut Vec<Action>) {
        let mut out = Vec::new();
        self.membership.tick(now, &mut out);
        self.spread(now, out, actions);
    }

    /// Says what this host is like now, if that is news: what all have heard already would cost them all again.
    pub(super) fn say_digest(&mut self, now: Time, actions: &mut Vec<Action>) {
        let digest = self.digest(now);
        let fresh = |(when, _): &(Time, Digest)| now.since(*when) < SAID_ANEW_AFTER;
        if self
            .said
            .as_ref()
            .filter(|said| fresh(said))
            .is_some_and(|(_, said)| same(said, &digest))
        {
            return;
        }
        self.said = Some((now, digest.clone()));
        let mut out = Vec::new();
        self.membership.say(now, digest, &mut out);
        self.spread(now, out, actions);
    }

    /// What this host is like now, in figures.
    pub fn digest(&self, now: Time) -> Digest {
        let (load, capacity) = (self.demand_of_vms(now), self.usage.capacity());
        let share = |thousandths: u64| Share(u32::try_from(thousandths).unwrap_or(u32::MAX));
        Digest {
            cpu_used: share(used(self.usage.host().cpu.0, capacity.cpu.0)),
            memory_committed: share(used(load.memory.0, capacity.memory.0)),
            packets: load.packets,
            bits: load.bits,
            vms: u32::try_from(self.vms.len()).unwrap_or(u32::MAX),
            hot: self.hot(now).is_some(),
            moves_under_way: u32::try_from(self.moves_under_way()).unwrap_or(u32::MAX),
            inventory: self.inventory_hash(),
            policy: self.settings.hash(),
            journal: self.journal,
        }
    }

    /// Takes in what the others say of their journals.
    pub(super) fn hear_journals(&mut self, actions: &mut Vec<Action>) {
        let heard = |view: &View| Some((view.peer.host, view.digest.as_ref()?.journal));
        let said: Vec<(HostId, JournalMark)> = self.membership.hosts().filter_map(heard).collect();
        for (host, mark) in said {
            self.hear_journal(host, mark, actions);
        }
    }

    pub(super) fn hear_journal(
        &mut self,
        host: HostId,
        mark: JournalMark,
        actions: &mut Vec<Action>,
    ) {
        let Some(loss) = self.journals.hear(host, mark) else { return };
        let name = self.name_of(host);
        let why = match loss {
            Loss::SetBack { from, to } => format!(
                "the journal of {name} went back from write {from} to {to}: it was restored from a copy, and no longer knows who owns its VMs"
            ),
            Loss::Replaced => format!(
                "the journal of {name} is a new one: the former was lost, and with it who owns the VMs there"
            ),
        };
        self.alarm_once(Note::new(Step::Alarm, why).with(host), actions);
    }

    fn spread(&mut self, now: Time, out: Vec<Output>, actions: &mut Vec<Action>) {
        for output in out {
            match output {
                Output::Send { to, bytes } => actions.push(Action::Gossip { to, bytes }),
                Output::Changed { host, name, state } => {
                    self.host_changed(now, host, &name, state, actions)
                }
                Output::SameHostTwice { host, addresses: [a, b] } => {
                    let why = format!(
                        "host id {host} is used at {a} and at {b}: one of them is a clone; give it its own machine-id, then start both agents anew: until then neither moves a VM"
                    );
                    if host == self.id {
                        self.frozen = Some(why.clone());
                    }
                    self.alarm(Note::new(Step::Alarm, why).with(host), actions);
                }
            }
        }
    }

    fn host_changed(
        &mut self,
        now: Time,
        host: HostId,
        name: &str,
        state: HostState,
        actions: &mut Vec<Action>,
    ) {
        let words = match state {
            HostState::Alive => "is alive",
            HostState::Suspect => "does not answer",
            HostState::Gone => "is gone",
        };
        actions
            .push(Action::Note(Note::new(Step::Membership, format!("{name} {words}")).with(host)));
        if state == HostState::Gone {
            let asking: Vec<MoveId> = self.outgoing.keys().copied().collect();
            for id in asking {
                self.asking(now, id, negotiate_source::Event::Unreachable(host), actions);
            }
        }
    }

    pub(super) fn address_of(&self, host: HostId) -> Option<SocketAddr> {
        self.membership.hosts().find(|view| view.peer.host == host).map(|view| view.peer.address)
    }

    /// A host's name for people; its id where the name is not known.
    pub fn name_of(&self, host: HostId) -> String {
        if host == self.id {
            return self.name.clone();
        }
        let known = self.membership.hosts().find(|view| view.peer.host == host);
        known.map_or_else(|| host.to_string(), |view| view.peer.name.clone())
    }

    /// FNV-1a over the VMs here and their epochs: another hash, another inventory.
    fn inventory_hash(&self) -> u64 {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for (id, vm) in &self.vms {
            for byte in id.0.to_be_bytes().into_iter().chain(vm.record.floor.to_be_bytes()) {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
        }
        hash
    }
}

/// Whether two digests say the same: figures may differ a little, everything else not at all.
fn same(said: &Digest, now: &Digest) -> bool {
    let near = |a: u64, b: u64| a.abs_diff(b) <= a.max(b) / LITTLE;
    let figures = near(said.cpu_used.0.into(), now.cpu_used.0.into())
        && near(said.memory_committed.0.into(), now.memory_committed.0.into())
        && near(said.packets.0, now.packets.0)
        && near(said.bits.0, now.bits.0);
    let Digest { cpu_used, memory_committed, packets, bits, .. } = said.clone();
    figures && said == &Digest { cpu_used, memory_committed, packets, bits, ..now.clone() }
}
