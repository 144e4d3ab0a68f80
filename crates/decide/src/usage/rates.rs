//! Counters to rates: what to do when a counter wraps, starts again, or its link goes and comes back.
//!
//! **Invariant:** a rate is made only of two counters of the same life of the same link; where that is in doubt there is
//! no rate for this cycle, never a wrong one.

use std::time::Duration;

use super::reading::{DiskCounters, LinkCounters, VcpuCounters};
use crate::units::{Bytes, BytesPerSec, MilliCores, Time};

/// Two readings closer together than this are taken as one: the division would only magnify noise.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// Rates of one link, per second, in the direction of [`LinkCounters`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkRates {
    /// Packets sent per second.
    pub sent_packets: u64,
    /// Packets received per second.
    pub received_packets: u64,
    /// Bits sent per second.
    pub sent_bits: u64,
    /// Bits received per second.
    pub received_bits: u64,
    /// Packets dropped per second.
    pub dropped: u64,
}

/// Makes rates of one link's counters.
#[derive(Clone, Debug, Default)]
pub struct LinkMeter {
    last: Option<(Time, LinkCounters)>,
}

impl LinkMeter {
    /// Takes one reading; gives the rates since the one before, if both belong to the same life of the link.
    pub fn observe(&mut self, now: Time, counters: LinkCounters) -> Option<LinkRates> {
        let (then, before) = match self.last {
            Some(last) if last.1.ifindex == counters.ifindex => last,
            Some(_) | None => {
                self.last = Some((now, counters));
                return None;
            }
        };
        let elapsed = now.since(then);
        if elapsed < INTERVAL_MIN {
            return None;
        }
        self.last = Some((now, counters));
        let rate = |a: u64, b: u64| grown(a, b).map(|n| per_second(n, elapsed));
        let bits =
            |a: Bytes, b: Bytes| grown(a.0, b.0).map(|n| per_second(n.saturating_mul(8), elapsed));
        Some(LinkRates {
            sent_packets: rate(before.sent_packets, counters.sent_packets)?,
            received_packets: rate(before.received_packets, counters.received_packets)?,
            sent_bits: bits(before.sent_bytes, counters.sent_bytes)?,
            received_bits: bits(before.received_bytes, counters.received_bytes)?,
            dropped: rate(before.dropped, counters.dropped)?,
        })
    }

    /// The link is not there: what comes next begins anew.
    pub fn lost(&mut self) {
        self.last = None;
    }
}

/// Makes processor use of one process' or host's ever-growing time.
#[derive(Clone, Debug, Default)]
pub struct CpuMeter {
    last: Option<(Time, u64, u64)>,
}

impl CpuMeter {
    /// Takes processor time (µs) of the life that began at `start`; gives thousandths of a core since the reading before.
    pub fn observe(&mut self, now: Time, start: u64, cpu_us: u64) -> Option<u64> {
        let before = self.last;
        if let Some((then, _, _)) = before
            && now.since(then) < INTERVAL_MIN
        {
            return None;
        }
        self.last = Some((now, start, cpu_us));
        let (then, begun, used) = before?;
        let grown = cpu_us.checked_sub(used).filter(|_| begun == start)?;
        Some(per_second(grown.saturating_mul(1000) / 1_000_000, now.since(then)))
    }
}

/// What vCPU threads do with their time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VcpuRates {
    /// Time in which they ran.
    pub ran: MilliCores,
    /// Time in which they wanted to run and waited for a processor.
    pub waited: MilliCores,
}

/// Makes rates of a VM's vCPU threads.
#[derive(Clone, Debug, Default)]
pub struct VcpuMeter {
    last: Option<(Time, u64, VcpuCounters)>,
}

impl VcpuMeter {
    /// Takes the counters of the life that began at `start`. A thread cannot run and wait for longer than has passed; the
    /// kernel counts a wait only once it is over, so what is beyond that was before, and is left out.
    pub fn observe(&mut self, now: Time, start: u64, counters: VcpuCounters) -> Option<VcpuRates> {
        let before = self.last;
        if let Some((then, _, _)) = before
            && now.since(then) < INTERVAL_MIN
        {
            return None;
        }
        self.last = Some((now, start, counters));
        let (then, begun, old) = before?;
        if begun != start || old.threads != counters.threads {
            return None;
        }
        let millicores =
            |grown: u64| per_second(grown.saturating_mul(1000) / 1_000_000, now.since(then));
        let max = u64::from(counters.threads) * 1000;
        let ran = millicores(counters.ran_us.checked_sub(old.ran_us)?).min(max);
        let waited = millicores(counters.waited_us.checked_sub(old.waited_us)?).min(max - ran);
        Some(VcpuRates { ran: MilliCores(ran), waited: MilliCores(waited) })
    }

    /// They cannot be told now: what comes next begins anew.
    pub fn lost(&mut self) {
        self.last = None;
    }
}

/// What disks did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskRates {
    /// Bytes read per second.
    pub read: BytesPerSec,
    /// Bytes written per second.
    pub written: BytesPerSec,
    /// Requests per second, both ways.
    pub requests: u64,
}

impl DiskRates {
    /// Bytes per second, both ways.
    pub fn bytes(&self) -> BytesPerSec {
        self.read.plus(self.written)
    }
}

/// Makes rates of disks' counters, which may come less often than readings: between two the last rates hold.
#[derive(Clone, Debug, Default)]
pub struct DiskMeter {
    last: Option<(Time, u64, DiskCounters)>,
    rates: Option<DiskRates>,
}

impl DiskMeter {
    /// Takes counters that were read at `read`, of the life that began at `start`.
    pub fn observe(&mut self, read: Time, start: u64, counters: DiskCounters) -> Option<DiskRates> {
        let before = self.last;
        if let Some((then, begun, _)) = before
            && begun == start
            && read.since(then) < INTERVAL_MIN
        {
            return self.rates;
        }
        self.last = Some((read, start, counters));
        self.rates = before
            .filter(|(_, begun, _)| *begun == start)
            .and_then(|(then, _, old)| disk_rates(old, counters, read.since(then)));
        self.rates
    }

    /// They cannot be told now: what comes next begins anew.
    pub fn lost(&mut self) {
        *self = DiskMeter::default();
    }
}

fn disk_rates(old: DiskCounters, new: DiskCounters, elapsed: Duration) -> Option<DiskRates> {
    let rate = |a: u64, b: u64| grown(a, b).map(|n| per_second(n, elapsed));
    Some(DiskRates {
        read: BytesPerSec(rate(old.read.0, new.read.0)?),
        written: BytesPerSec(rate(old.written.0, new.written.0)?),
        requests: rate(old.requests, new.requests)?,
    })
}

/// How much a counter has grown, or nothing if it was set back. A counter that went down from the upper half of 32 or 64
/// bits to the lower half has wrapped (some drivers still count in 32 bits); any other fall is a reset.
fn grown(before: u64, after: u64) -> Option<u64> {
    const HALF_32: u64 = 1 << 31;
    const HALF_64: u64 = 1 << 63;
    match after.checked_sub(before) {
        Some(grown) => Some(grown),
        None if before >= HALF_64 && after < HALF_64 => Some(after.wrapping_sub(before)),
        None if before > u64::from(u32::MAX) => None,
        None if before >= HALF_32 && after < HALF_32 => Some(after + (1 << 32) - before),
        None => None,
    }
}

/// `count` over `elapsed`, rounded to the nearest whole number per second.
pub(super) fn per_second(count: u64, elapsed: Duration) -> u64 {
    let micros = elapsed.as_micros().max(1);
    let rate = (u128::from(count) * 1_000_000 + micros / 2) / micros;
    u64::try_from(rate).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(ifindex: u32, sent_packets: u64) -> LinkCounters {
        LinkCounters { ifindex, sent_packets, ..LinkCounters::default() }
    }

    fn second(meter: &mut LinkMeter, at: u64, counters: LinkCounters) -> Option<u64> {
        meter.observe(Time(at * 1_000_000), counters).map(|r| r.sent_packets)
    }

    #[test]
    fn a_steady_counter_gives_its_rate() {
        let mut meter = LinkMeter::default();
        assert_eq!(second(&mut meter, 1, link(3, 1000)), None);
        assert_eq!(second(&mut meter, 2, link(3, 1500)), Some(500));
        assert_eq!(second(&mut meter, 4, link(3, 1600)), Some(50));
    }

    #[test]
    fn a_counter_of_32_bits_that_wraps_goes_on() {
        let mut meter = LinkMeter::default();
        second(&mut meter, 1, link(3, u64::from(u32::MAX) - 9));
        assert_eq!(second(&mut meter, 2, link(3, 90)), Some(100));
    }

    #[test]
    fn a_counter_of_64_bits_that_wraps_goes_on() {
        let mut meter = LinkMeter::default();
        second(&mut meter, 1, link(3, u64::MAX - 9));
        assert_eq!(second(&mut meter, 2, link(3, 90)), Some(100));
    }

    #[test]
    fn a_counter_that_is_set_back_gives_no_rate_once() {
        let mut meter = LinkMeter::default();
        second(&mut meter, 1, link(3, 1_000_000));
        assert_eq!(second(&mut meter, 2, link(3, 10)), None);
        assert_eq!(second(&mut meter, 3, link(3, 30)), Some(20));
    }

    #[test]
    fn a_tap_that_goes_and_comes_back_begins_anew() {
        let mut meter = LinkMeter::default();
        second(&mut meter, 1, link(3, 100));
        assert_eq!(second(&mut meter, 2, link(9, 400)), None);
        assert_eq!(second(&mut meter, 3, link(9, 500)), Some(100));
        meter.lost();
        assert_eq!(second(&mut meter, 4, link(9, 9_000)), None);
    }

    #[test]
    fn two_readings_at_once_are_one() {
        let mut meter = LinkMeter::default();
        second(&mut meter, 1, link(3, 100));
        assert_eq!(meter.observe(Time(1_000_500), link(3, 400)), None);
        assert_eq!(second(&mut meter, 2, link(3, 600)), Some(500));
    }

    #[test]
    fn a_process_that_began_anew_gives_no_processor_time_once() {
        let mut meter = CpuMeter::default();
        assert_eq!(meter.observe(Time(0), 7, 5_000_000), None);
        assert_eq!(meter.observe(Time(1_000_000), 7, 5_500_000), Some(500));
        assert_eq!(meter.observe(Time(2_000_000), 8, 6_000_000), None);
        assert_eq!(meter.observe(Time(3_000_000), 8, 6_250_000), Some(250));
    }
    fn vcpus(threads: u32, ran_us: u64, waited_us: u64) -> VcpuCounters {
        VcpuCounters { threads, ran_us, waited_us }
    }

    #[test]
    fn threads_neither_run_nor_wait_for_longer_than_has_passed() {
        let mut meter = VcpuMeter::default();
        let mut second = |at: u64, counters| {
            meter.observe(Time(at * 1_000_000), 7, counters).map(|r| (r.ran.0, r.waited.0))
        };
        assert_eq!(second(0, vcpus(2, 0, 0)), None);
        assert_eq!(second(1, vcpus(2, 500_000, 250_000)), Some((500, 250)));
        // A wait of nine seconds that has just ended.
        assert_eq!(second(2, vcpus(2, 700_000, 9_250_000)), Some((200, 1800)));
        assert_eq!(second(3, vcpus(3, 800_000, 9_250_000)), None, "a thread has come");
        assert_eq!(second(4, vcpus(3, 900_000, 9_250_000)), Some((100, 0)));
        assert_eq!(second(5, vcpus(3, 100_000, 9_250_000)), None, "set back");
    }

    #[test]
    fn disks_that_are_read_seldom_keep_their_rates_until_they_are_read_again() {
        let mut meter = DiskMeter::default();
        let mut second = |at: u64, age_ms: u64, bytes: u64| {
            let age = Duration::from_millis(age_ms);
            let counters = DiskCounters {
                read: Bytes(bytes),
                requests: bytes / 100,
                ..DiskCounters::default()
            };
            meter
                .observe(Time(at * 1_000_000).minus(age), 7, counters)
                .map(|r| (r.bytes().0, r.requests))
        };
        assert_eq!(second(10, 200, 1000), None);
        assert_eq!(second(11, 1200, 1000), None, "the same reading");
        assert_eq!(second(15, 200, 6000), Some((1000, 10)));
        assert_eq!(second(16, 1200, 6000), Some((1000, 10)));
        assert_eq!(second(20, 200, 6000), Some((0, 0)), "read again: idle");
    }
}
