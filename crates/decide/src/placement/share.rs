//! What a VM that arrives gets of its new host, by what it is known to have asked.
//!
//! ```text
//!   wanted = max(peak × (1 + headroom), floor × what the host has)
//!   weight = wanted processor time, in hundredths of a core      1 to 10,000
//!   rate   = wanted bits per second, of both directions          at least 1 Mbit/s
//! ```
//!
//! `peak` is the VM's demand as it was judged at readiness: the highest that its usage history shows, or what its source
//! forecast if that is more. A weight of 100, the kernel's own for who has none, is one core: VMs that have one get
//! processor time in proportion to what they ask, and only when there is not enough for all. A rate holds always, so
//! headroom must cover what the history has not seen.

use crate::migrate::hypervisor::VmShare;
use crate::policy::quantity::share_text;
use crate::policy::settings::Shares;
use crate::units::{BitsPerSec, Share};
use crate::usage::load::{Capacity, Load};

/// What the kernel takes as `cpu.weight`.
const WEIGHTS: (u64, u64) = (1, 10_000);
/// Below this a guest can hardly be reached.
const RATE_MIN: u64 = 1_000_000;

/// The share of a VM that arrives; none where the operator allows none.
pub fn of_arrival(allowed: &Shares, peak: Load, capacity: Capacity) -> Option<VmShare> {
    if !allowed.cpu && !allowed.network {
        return None;
    }
    let headroom = Share(allowed.headroom.0.saturating_add(1000));
    let wanted = |peak: u64, all: u64| part(peak, headroom).max(part(all, allowed.floor));
    let weight = wanted(peak.cpu.0, capacity.cpu.0) / 10;
    // A link's capacity is both directions, a rate is one's.
    let rate = wanted(peak.bits.0, capacity.bits.map_or(0, |bits| bits.0 / 2));
    let (headroom, floor) = (share_text(allowed.headroom), share_text(allowed.floor));
    Some(VmShare {
        weight: allowed.cpu.then(|| {
            let weight = weight.clamp(WEIGHTS.0, WEIGHTS.1);
            u32::try_from(weight).expect("clamped to 10,000")
        }),
        rate: allowed.network.then(|| BitsPerSec(rate.max(RATE_MIN))),
        why: format!(
            "at its peak it asked {} and {}; headroom {headroom}, floor {floor} of the host",
            peak.cpu, peak.bits
        ),
    })
}

fn part(of: u64, share: Share) -> u64 {
    let part = u128::from(of) * u128::from(share.0) / 1000;
    u64::try_from(part).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::MilliCores;

    const ALL: Shares = Shares { cpu: true, network: true, headroom: Share(500), floor: Share(50) };

    fn share(allowed: &Shares, cpu: u64, bits: u64) -> (Option<u32>, Option<u64>) {
        let peak = Load { cpu: MilliCores(cpu), bits: BitsPerSec(bits), ..Load::default() };
        let capacity = Capacity {
            cpu: MilliCores(4000),
            bits: Some(BitsPerSec(2_000_000_000)),
            ..Capacity::default()
        };
        let share = of_arrival(allowed, peak, capacity).expect("something is allowed");
        (share.weight, share.rate.map(|rate| rate.0))
    }

    #[test]
    fn nothing_is_set_unless_the_operator_allows_it() {
        assert_eq!(of_arrival(&Shares::default(), Load::default(), Capacity::default()), None);
        assert_eq!(share(&Shares { network: false, ..ALL }, 1000, 9), (Some(150), None));
        assert_eq!(share(&Shares { cpu: false, ..ALL }, 1000, 9).0, None);
    }

    #[test]
    fn the_peak_and_its_headroom_but_no_less_than_the_floor() {
        assert_eq!(share(&ALL, 2000, 400_000_000), (Some(300), Some(600_000_000)));
        assert_eq!(
            share(&ALL, 10, 10),
            (Some(20), Some(50_000_000)),
            "5 % of four cores, of 1 Gbit/s"
        );
        assert_eq!(share(&ALL, u64::MAX, u64::MAX), (Some(10_000), Some(u64::MAX)));
        let no_floor = Shares { floor: Share(0), ..ALL };
        assert_eq!(share(&no_floor, 0, 0), (Some(1), Some(RATE_MIN)));
    }

    #[test]
    fn what_it_was_reckoned_from_is_said() {
        let share = of_arrival(&ALL, Load::default(), Capacity::default()).unwrap();
        assert_eq!(
            share.why,
            "at its peak it asked 0 mcores and 0 bit/s; headroom 50%, floor 5% of the host"
        );
    }
}
