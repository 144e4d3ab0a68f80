//! How often hosts look after each other. `Default` suits a LAN; all hosts of a cluster should have the same.

use std::num::{NonZeroU8, NonZeroUsize};
use std::time::Duration;

/// When to probe, to suspect and to give up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timings {
    /// One random host is probed in each period. Short notices a death sooner and costs packets: with N hosts each is probed
    /// about once a period, whatever N. 500 ms to 5 s; at least three times `round_trip`.
    pub probe_period: Duration,
    /// Wait for the answer before others are asked to try. 50 ms to 1 s; above the slowest usual round trip, a busy agent included.
    pub round_trip: Duration,
    /// From suspicion to gone: time for the suspected to hear of it and to object. Short takes a stall for a death, long keeps
    /// asking a dead host for room. Two to ten probe periods.
    pub suspect_for: Duration,
    /// How often news, digests among them, go to a few others while there is any. This times `gossip_to` times 1200 bytes bounds
    /// what a host sends. 100 ms to 1 s.
    pub gossip_period: Duration,
    /// Hosts told each time. 2 to 4; more makes digests younger and costs as much more.
    pub gossip_to: NonZeroUsize,
    /// How often one other is asked for its whole list, which mends what lost datagrams left out. 10 s to 2 min.
    pub list_period: Duration,
    /// First wait between two calls to a seed or to a host that is gone; it doubles up to `call_wait_max`. 200 ms to 5 s.
    pub call_wait: Duration,
    /// Longest wait between such calls, hence how long after a network's healing its halves may stay apart. 10 s to 2 min.
    pub call_wait_max: Duration,
    /// How long a host that is gone is remembered and called. Hours to days.
    pub forget_after: Duration,
}

impl Default for Timings {
    fn default() -> Timings {
        Timings {
            probe_period: Duration::from_secs(1),
            round_trip: Duration::from_millis(300),
            suspect_for: Duration::from_secs(3),
            gossip_period: Duration::from_millis(250),
            gossip_to: NonZeroUsize::new(3).expect("three is not zero"),
            list_period: Duration::from_secs(30),
            call_wait: Duration::from_secs(1),
            call_wait_max: Duration::from_secs(30),
            forget_after: Duration::from_hours(24),
        }
    }
}

impl Timings {
    /// The same in foca's words, for a cluster of so many hosts and datagrams of so many bytes.
    pub(super) fn foca(&self, hosts: usize, datagram: NonZeroUsize) -> foca::Config {
        assert!(
            self.round_trip < self.probe_period && !self.gossip_period.is_zero(),
            "unfit timings: {self:?}"
        );
        foca::Config {
            probe_period: self.probe_period,
            probe_rtt: self.round_trip,
            num_indirect_probes: self.gossip_to,
            max_transmissions: transmissions(hosts),
            suspect_to_down_after: self.suspect_for,
            remove_down_after: Some(self.forget_after),
            max_packet_size: datagram,
            // A host that is wrongly held for gone hears of it and comes back.
            notify_down_members: true,
            periodic_announce: Some(foca::PeriodicParams {
                frequency: self.list_period,
                num_members: NonZeroUsize::MIN,
            }),
            // `Calls` does this, also while no host at all is alive.
            periodic_announce_to_down_members: None,
            periodic_gossip: Some(foca::PeriodicParams {
                frequency: self.gossip_period,
                num_members: self.gossip_to,
            }),
        }
    }
}

/// How often each host passes a piece of news on: it must grow with the logarithm of their number (SWIM, Das et al. 2002, §4.1).
fn transmissions(hosts: usize) -> NonZeroU8 {
    let log2 = u8::try_from(hosts.saturating_add(1).ilog2()).expect("at most 64");
    NonZeroU8::MIN.saturating_add(2 + log2)
}
