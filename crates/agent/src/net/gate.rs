//! How many datagrams are looked at, and of how many bad ones the agent is told.
//!
//! An address whose datagrams were genuine has a measure of its own; all others share one. So a flood from strangers takes a
//! bounded part of the processor, and nothing from the hosts that are known already, unless their addresses are forged.
//!
//! **Invariant:** what is kept of addresses has a limit.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

/// Looked at per second from one address that is known: many times what a host says.
const KNOWN_MAX: u32 = 2_000;
/// Looked at per second from all other addresses together: opening so many in vain takes less than a tenth of a processor.
const OTHERS_MAX: u32 = 20_000;
/// Bad ones of which the agent is told per second.
const TOLD_MAX: u32 = 50;
/// Addresses that are known at once.
const ADDRESSES_MAX: usize = 4096;

/// So many in each second.
#[derive(Clone, Copy, Debug)]
struct Measure {
    second: Instant,
    count: u32,
}

impl Measure {
    fn new(now: Instant) -> Measure {
        Measure { second: now, count: 0 }
    }

    fn take(&mut self, now: Instant, most: u32) -> bool {
        if now.duration_since(self.second) >= Duration::from_secs(1) {
            *self = Measure::new(now);
        }
        let fits = self.count < most;
        self.count += u32::from(fits);
        fits
    }
}

/// The measures of one agent.
#[derive(Debug)]
pub(super) struct Gate {
    known: BTreeMap<IpAddr, Measure>,
    others: Measure,
    told: Measure,
    /// Since the last that was told.
    left_out: u64,
}

impl Gate {
    pub(super) fn new(now: Instant) -> Gate {
        let measure = Measure::new(now);
        Gate { known: BTreeMap::new(), others: measure, told: measure, left_out: 0 }
    }

    /// Whether to look at a datagram from this address.
    pub(super) fn admits(&mut self, from: IpAddr, now: Instant) -> bool {
        let fits = match self.known.get_mut(&from) {
            Some(measure) => measure.take(now, KNOWN_MAX),
            None => self.others.take(now, OTHERS_MAX),
        };
        self.left_out += u64::from(!fits);
        fits
    }

    /// A datagram from this address was genuine.
    pub(super) fn genuine(&mut self, from: IpAddr, now: Instant) {
        if self.known.len() < ADDRESSES_MAX {
            self.known.entry(from).or_insert_with(|| Measure::new(now));
        }
    }

    /// Whether to tell of a bad one; if so, how many before it were not told or not looked at.
    pub(super) fn tells(&mut self, now: Instant) -> Option<u64> {
        if self.told.take(now, TOLD_MAX) {
            return Some(std::mem::take(&mut self.left_out));
        }
        self.left_out += 1;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    fn stranger(n: u32) -> IpAddr {
        IpAddr::V4(n.to_be_bytes().into())
    }

    #[tokio::test]
    async fn a_flood_of_strangers_leaves_room_for_hosts_that_are_known() {
        let now = Instant::now();
        let mut gate = Gate::new(now);
        assert!(gate.admits(HOST, now));
        gate.genuine(HOST, now);
        let looked = (0..50_000).filter(|n| gate.admits(stranger(*n), now)).count();
        assert_eq!(looked, OTHERS_MAX as usize - 1);
        assert!(gate.admits(HOST, now));
        assert!(gate.admits(stranger(1), now + Duration::from_secs(1)));
    }

    #[tokio::test]
    async fn of_many_bad_ones_a_few_are_told_and_the_rest_counted() {
        let now = Instant::now();
        let mut gate = Gate::new(now);
        let told = (0..1000).filter(|_| gate.tells(now) == Some(0)).count();
        assert_eq!(told, TOLD_MAX as usize);
        assert_eq!(gate.tells(now + Duration::from_secs(1)), Some(1000 - u64::from(TOLD_MAX)));
    }

    #[tokio::test]
    async fn no_more_addresses_are_kept_than_a_cluster_has_hosts() {
        let now = Instant::now();
        let mut gate = Gate::new(now);
        (0..10_000).for_each(|n| gate.genuine(stranger(n), now));
        assert_eq!(gate.known.len(), ADDRESSES_MAX);
    }
}
