//! Whom to call until they answer: seeds, and hosts that are gone, since a network that parted them may heal.
//!
//!   waiting ── due ──▶ called, and waiting twice as long
//!      ◀── found in touch when due ── (a seed waits on, a host is struck off)
//!
//! **Invariant:** each address is called at most once in its wait, which never exceeds `call_wait_max` by more than a quarter.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;

use super::timings::Timings;
use crate::units::Time;

#[derive(Debug)]
pub(super) struct Calls {
    calls: BTreeMap<SocketAddr, Call>,
    wait: Duration,
    wait_max: Duration,
    rng: ChaCha8Rng,
}

#[derive(Debug)]
struct Call {
    seed: bool,
    next: Time,
    wait: Duration,
}

impl Calls {
    pub(super) fn new(timings: &Timings, rng: ChaCha8Rng) -> Calls {
        Calls {
            calls: BTreeMap::new(),
            wait: timings.call_wait,
            wait_max: timings.call_wait_max,
            rng,
        }
    }

    /// Calls `address` from now on; a seed stays for good.
    pub(super) fn add(&mut self, now: Time, address: SocketAddr, seed: bool) {
        let wait = self.wait;
        let call = self.calls.entry(address).or_insert(Call { seed, next: now, wait });
        call.seed |= seed;
        (call.next, call.wait) = (now, wait);
    }

    /// Strikes off what is no longer the address of any host, unless it is a seed.
    pub(super) fn remove(&mut self, address: SocketAddr) {
        self.calls.retain(|known, call| call.seed || *known != address);
    }

    /// The addresses to call now. `in_touch` are those that need none.
    pub(super) fn due(
        &mut self,
        now: Time,
        in_touch: impl Fn(SocketAddr) -> bool,
    ) -> Vec<SocketAddr> {
        let mut due = Vec::new();
        self.calls.retain(|address, call| {
            if call.next > now {
                return true;
            }
            if in_touch(*address) {
                (call.wait, call.next) = (self.wait, now.plus(self.wait_max));
                return call.seed;
            }
            due.push(*address);
            // Hosts that lost each other at one instant must not call each other at one instant for ever.
            let jitter = call.wait / 4 * (self.rng.next_u32() >> 16) / (1 << 16);
            call.next = now.plus(call.wait + jitter);
            call.wait = (call.wait * 2).min(self.wait_max);
            true
        });
        due
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        self.calls.values().map(|call| call.next).min()
    }
}
