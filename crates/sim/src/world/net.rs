//! The network: messages and datagrams are delayed, lost, repeated and overtaken; it is cut, in one direction or both.

use std::collections::BTreeSet;
use std::time::Duration;

use decide::host::Event;
use decide::usage::history::aged::AgedHistory;
use decide::wire::message::{Body, Message};
use decide::wire::{decode_inventory, encode_inventory};

use super::{Coming, World, host_id};

/// Even next door takes this long.
const DELAY_MIN: Duration = Duration::from_micros(100);
/// A sender hears after this long that there is no answer, or no way.
const NO_ANSWER: Duration = Duration::from_millis(500);
/// Or that nobody listens.
const REFUSED: Duration = Duration::from_millis(1);

/// What the network does.
#[derive(Clone, Debug, Default)]
pub struct Net {
    /// Of a thousand messages so many are lost.
    pub lost: u32,
    /// Of a thousand messages so many come twice.
    pub twice: u32,
    /// Messages take up to this long: what was sent later may come sooner.
    pub delay_max: Duration,
    /// What the first of these hosts sends does not reach the second.
    pub cuts: BTreeSet<(u16, u16)>,
    /// Hosts without power.
    pub dark: BTreeSet<u16>,
    /// What was sent so far.
    pub sent: Sent,
}

/// Counts of what was sent, lost or not, in bytes as hosts give them to the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Messages of moves, each time to one host.
    pub messages: u64,
    /// Datagrams about membership, digests among it.
    pub datagrams: u64,
    /// Their bytes.
    pub datagram_bytes: u64,
    /// Inventories.
    pub inventories: u64,
    /// Their bytes.
    pub inventory_bytes: u64,
}

impl Net {
    /// Whether what one host sends reaches the other.
    pub fn reaches(&self, from: u16, to: u16) -> bool {
        !self.cuts.contains(&(from, to)) && !self.dark.contains(&from) && !self.dark.contains(&to)
    }
}

impl World {
    fn delay(&mut self, at_most: Duration) -> Duration {
        let micros = u32::try_from(at_most.as_micros()).unwrap_or(u32::MAX);
        DELAY_MIN + Duration::from_micros(u64::from(self.draw(micros)))
    }

    /// A datagram about membership.
    pub(super) fn send_gossip(&mut self, from: u16, to: u16, bytes: Vec<u8>) {
        self.net.sent.datagrams += 1;
        self.net.sent.datagram_bytes += bytes.len() as u64;
        if !self.net.reaches(from, to) {
            return;
        }
        let again = (self.copies() == 2).then(|| bytes.clone());
        for bytes in again.into_iter().chain([bytes]) {
            if !self.is_lost() {
                let delay = self.delay(self.net.delay_max);
                self.later(delay, Coming::Gossip { to, from: super::address(from), bytes });
            }
        }
    }

    /// A host asks another for its inventory.
    pub(super) fn fetch(&mut self, by: u16, from: u16) {
        let reaches = self.net.reaches(by, from) && self.net.reaches(from, by);
        if !reaches || self.is_lost() {
            return self.not_fetched(by, from);
        }
        let delay = self.delay(self.net.delay_max);
        self.later(delay, Coming::Fetch { from: by, to: from });
    }

    /// The asked answers with what it has now.
    pub(super) fn fetched(&mut self, by: u16, from: u16) {
        let Some(host) = self.sites[&from].host.as_ref() else {
            return self.not_fetched(by, from);
        };
        // As agents do: in its form on the wire, and read with the same doubt.
        let bytes = encode_inventory(&host.inventory());
        self.net.sent.inventories += 1;
        self.net.sent.inventory_bytes += bytes.len() as u64;
        if self.is_lost() {
            return self.not_fetched(by, from);
        }
        let fetched = decode_inventory(&bytes).map_err(|bad| bad.to_string());
        let delay = self.delay(self.net.delay_max);
        self.tell(by, delay, Event::Inventory { host: host_id(from), fetched });
    }

    fn not_fetched(&mut self, by: u16, from: u16) {
        let fetched = Err("no answer".to_owned());
        self.tell(by, NO_ANSWER, Event::Inventory { host: host_id(from), fetched });
    }

    /// A request by datagram: if it is lost, nobody hears of it.
    pub(super) fn cast(&mut self, from: u16, to: u16, message: &Message) {
        if !self.passes_filter(from, to, message) {
            return;
        }
        for _ in 0..self.copies() {
            if self.net.reaches(from, to) && !self.is_lost() {
                self.deliver(from, to, message, false);
            }
        }
    }

    /// A message over a connection: if it is lost the sender may hear of it, and may also hear that it was lost when only its
    /// answer was.
    pub(super) fn send(&mut self, from: u16, to: u16, message: &Message) {
        if !self.passes_filter(from, to, message) {
            return;
        }
        let (there, back) = (self.net.reaches(from, to), self.net.reaches(to, from));
        if !there || !back {
            if there && self.draw(2) == 0 {
                self.deliver(from, to, message, false);
            }
            return self.undelivered(from, to, message, NO_ANSWER);
        }
        for _ in 0..self.copies() {
            if !self.is_lost() {
                self.deliver(from, to, message, true);
            } else if self.draw(2) == 0 {
                self.undelivered(from, to, message, NO_ANSWER);
            }
        }
    }

    fn passes_filter(&mut self, from: u16, to: u16, message: &Message) -> bool {
        self.filter.as_mut().is_none_or(|filter| filter(from, to, message))
    }

    fn copies(&mut self) -> u32 {
        if self.net.twice > 0 && self.draw(1000) < self.net.twice { 2 } else { 1 }
    }

    fn is_lost(&mut self) -> bool {
        self.net.lost > 0 && self.draw(1000) < self.net.lost
    }

    fn deliver(&mut self, from: u16, to: u16, message: &Message, connected: bool) {
        self.net.sent.messages += 1;
        let delay = self.delay(self.net.delay_max);
        let mut message = Box::new(message.clone());
        if let Body::History(history) = &mut message.body
            && !self.histories_travel
        {
            **history = AgedHistory::default();
        }
        self.later(delay, Coming::Message { from, to, message, connected });
    }

    /// It has come; if no agent is there the sender is told so.
    pub(super) fn come(&mut self, from: u16, to: u16, message: Message, connected: bool) {
        if self.sites[&to].host.is_some() {
            self.handle(to, Event::Message(message));
        } else if connected {
            let after = if self.net.reaches(to, from) { REFUSED } else { NO_ANSWER };
            self.undelivered(from, to, &message, after);
        }
    }

    fn undelivered(&mut self, from: u16, to: u16, message: &Message, after: Duration) {
        let why = "no answer".to_owned();
        let event = Event::Undelivered { to: host_id(to), message: message.clone(), why };
        self.tell(from, after, event);
    }
}
