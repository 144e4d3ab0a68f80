//! Which queues of the uplink lose something, and how much per second.
//!
//! What is lost is in the uplink's sum (`LinkCounters::dropped`), by which a host is judged. This is for a person who wants to
//! know where: at one queue (its processor is busy) or at all of them (the link is full). So the rates are made here.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::MonitorError;
use super::netlink::netdev::Netdev;
use super::way::Way;

/// A queue of a network card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Queue {
    /// What passes it.
    pub direction: Direction,
    /// From 0, in each direction.
    pub number: u32,
}

/// What passes a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// What the host receives.
    Received,
    /// What it sends.
    Sent,
}

/// What a queue lost since its driver began to count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Lost {
    pub(super) drops: u64,
    pub(super) failed_allocations: u64,
}

/// A queue that loses something.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LosingQueue {
    /// Which.
    pub queue: Queue,
    /// Packets that its hardware dropped, per second.
    pub drops: f64,
    /// How often there was no memory for what came, per second; a packet may be lost by that, or not.
    pub failed_allocations: f64,
}

/// How often queues are asked for: less often than the rest, since there may be hundreds of them.
const EVERY: Duration = Duration::from_secs(10);

/// What the uplink's queues lost until they were asked for last, and then.
#[derive(Debug)]
pub(super) struct Queues {
    netdev: Way<Netdev>,
    last: Option<Last>,
    losing: Vec<LosingQueue>,
}

#[derive(Debug)]
struct Last {
    at: Instant,
    ifindex: u32,
    lost: BTreeMap<Queue, Lost>,
}

impl Queues {
    /// Nothing asked yet.
    pub(super) fn new() -> Queues {
        Queues { netdev: Way::new(), last: None, losing: Vec::new() }
    }

    /// Those that lost something between the last two times that they were asked for, received before sent; asks again if
    /// it is time.
    ///
    /// # Errors
    /// What went wrong is said once; until the next try nothing is told.
    pub(super) fn look(
        &mut self,
        now: Instant,
        ifindex: u32,
    ) -> Result<&[LosingQueue], MonitorError> {
        let asked = self.last.as_ref().filter(|last| last.ifindex == ifindex);
        if asked.is_some_and(|last| now.duration_since(last.at) < EVERY) {
            return Ok(&self.losing);
        }
        self.losing.clear();
        let before = self.last.take();
        let told = self.netdev.ask(now, Netdev::open, |netdev| netdev.queues(ifindex));
        let lost = told.transpose()?.unwrap_or_default();
        if let Some(before) = before.filter(|before| before.ifindex == ifindex) {
            self.losing = losing(&before.lost, &lost, now.duration_since(before.at));
        }
        self.last = Some(Last { at: now, ifindex, lost });
        Ok(&self.losing)
    }
}

/// A queue that is new, or whose driver began to count anew, has lost nothing yet.
fn losing(
    before: &BTreeMap<Queue, Lost>,
    now: &BTreeMap<Queue, Lost>,
    between: Duration,
) -> Vec<LosingQueue> {
    let per_second = |was: u64, is: u64| {
        let more = u32::try_from(is.saturating_sub(was)).unwrap_or(u32::MAX);
        f64::from(more) / between.as_secs_f64().max(f64::MIN_POSITIVE)
    };
    let both = now.iter().filter_map(|(queue, is)| Some((*queue, before.get(queue)?, is)));
    let rates = both.map(|(queue, was, is)| LosingQueue {
        queue,
        drops: per_second(was.drops, is.drops),
        failed_allocations: per_second(was.failed_allocations, is.failed_allocations),
    });
    rates.filter(|rate| rate.drops > 0.0 || rate.failed_allocations > 0.0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECEIVED: Queue = Queue { direction: Direction::Received, number: 3 };
    const SENT: Queue = Queue { direction: Direction::Sent, number: 0 };

    fn lost(queues: &[(Queue, u64, u64)]) -> BTreeMap<Queue, Lost> {
        let lost = |drops, failed_allocations| Lost { drops, failed_allocations };
        queues.iter().map(|(queue, drops, failed)| (*queue, lost(*drops, *failed))).collect()
    }

    #[test]
    fn only_queues_that_lost_something_meanwhile_are_told() {
        let quiet = Queue { direction: Direction::Received, number: 0 };
        let before = lost(&[(SENT, 5, 0), (RECEIVED, 100, 7), (quiet, 9, 9)]);
        let now = lost(&[(SENT, 5, 5), (RECEIVED, 125, 7), (quiet, 9, 9)]);
        let expected = [
            LosingQueue { queue: RECEIVED, drops: 2.5, failed_allocations: 0.0 },
            LosingQueue { queue: SENT, drops: 0.0, failed_allocations: 0.5 },
        ];
        assert_eq!(losing(&before, &now, EVERY), expected);
    }

    #[test]
    fn a_queue_that_is_new_or_counts_anew_has_lost_nothing() {
        let now = lost(&[(SENT, 5, 0), (RECEIVED, 3, 0)]);
        assert_eq!(losing(&lost(&[(RECEIVED, 100, 0)]), &now, EVERY), []);
        assert_eq!(losing(&BTreeMap::new(), &now, EVERY), []);
    }

    #[test]
    fn no_time_between_makes_no_rate_that_is_not_a_number() {
        let rates = losing(&lost(&[(SENT, 0, 0)]), &lost(&[(SENT, 1, 0)]), Duration::ZERO);
        assert!(rates[0].drops.is_finite() && rates[0].drops > 0.0, "{rates:?}");
    }
}
