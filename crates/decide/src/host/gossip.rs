//! The other hosts: who is alive, and what this one says of itself.

use std::net::SocketAddr;

use rand_chacha::rand_core::Rng;

use super::story::{Note, Step};
use super::{Action, Host};
use crate::membership::journals::Loss;
use crate::membership::news::is_news;
use crate::membership::{Digest, Driver, Headroom, HostState, Output, View};
use crate::negotiate::source as negotiate_source;
use crate::policy::hot::{committed, per_mille, used};
use crate::units::{HostId, Mib, MoveId, Share, Time};
use crate::usage::load::{Capacity, Load};
use crate::wire::message::JournalMark;

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

    /// Says what this host is like now, if that is news or its time has come: what all have heard already would cost them
    /// all again.
    pub(super) fn say_digest(&mut self, now: Time, actions: &mut Vec<Action>) {
        let digest = self.digest(now);
        let known = self.said.as_ref().is_some_and(|(until, said)| {
            now < *until && !is_news(said, &digest, self.usage.capacity())
        });
        if known {
            return;
        }
        // Hosts that started at one instant must not all speak at one instant for ever.
        let beat = self.membership.beat();
        let lot = u32::try_from(self.rng.next_u64() % 1024).unwrap_or(0);
        self.said = Some((now.plus(beat / 2 + beat * lot / 1024), digest.clone()));
        let mut out = Vec::new();
        self.membership.say(now, digest, &mut out);
        self.spread(now, out, actions);
    }

    /// What this host is like now, in figures.
    pub fn digest(&self, now: Time) -> Digest {
        let (load, capacity) = (self.load_of_vms(now), self.usage.capacity());
        Digest {
            cpu_used: share(used(self.usage.host().cpu.0, capacity.cpu.0)),
            memory_committed: share(committed(load.memory.0, capacity.memory.0)),
            packets: load.packets,
            bits: load.bits,
            vms: u32::try_from(self.vms.len()).unwrap_or(u32::MAX),
            hot: self.hot(now).is_some(),
            moves_under_way: u32::try_from(self.moves_under_way()).unwrap_or(u32::MAX),
            inventory: self.inventory_hash(),
            policy: self.settings.hash(),
            journal: self.journal,
            headroom: Some(self.headroom(load, capacity)),
        }
    }

    fn headroom(&self, load: Load, capacity: Capacity) -> Headroom {
        let pressure = self.usage.host().pressure.unwrap_or_default();
        let works = |accelerator: &str| self.offered.accelerators.iter().any(|a| a == accelerator);
        Headroom {
            // Whoever hears of no room does not ask.
            room: if self.takes_any().is_err() { Mib(0) } else { self.target.free() },
            cpu_asked: load.cpu,
            cpu: capacity.cpu,
            memory: capacity.memory,
            nic: capacity.bits.unwrap_or_default(),
            pressure: [pressure.cpu, pressure.memory, pressure.io].map(|p| share(per_mille(p))),
            driver: Driver::named(&self.offered.driver),
            kvm: works("kvm"),
            tcg: works("tcg"),
            program: self.program,
            doubt: self.doubted,
            stays: self.stays_awake().is_some(),
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
        self.lists_changed = true;
        if state == HostState::Gone {
            let asking: Vec<MoveId> = self.outgoing.keys().copied().collect();
            for id in asking {
                self.asking(now, id, negotiate_source::Event::Unreachable(host), actions);
            }
        }
    }

    pub(super) fn address_of(&self, host: HostId) -> Option<SocketAddr> {
        self.membership.view(host).map(|view| view.peer.address)
    }

    /// A host's name for people; its id where the name is not known.
    pub fn name_of(&self, host: HostId) -> String {
        if host == self.id {
            return self.name.clone();
        }
        let known = self.membership.view(host);
        known.map_or_else(|| host.to_string(), |view| view.peer.name.clone())
    }
}

fn share(thousandths: u64) -> Share {
    Share(u32::try_from(thousandths).unwrap_or(u32::MAX))
}
