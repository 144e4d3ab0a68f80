//! What a load costs a host, and what a copy costs: one unit, percent of pressure.
//!
//! The cost of a host is Σ over its resources of scale · g(load / capacity) · 100 %, where g is convex and steep near the
//! limit (g(1) = 1) and scale is the host's capacity over that of a reference host. Weighting by capacity is what makes
//! unequal hosts come out level: a host of twice the size at the same use costs twice as much and gains as much from
//! an absolute load as two hosts would. So 1 % is one hundredth of what a reference host's resource costs when it is full.
//!
//! **Invariant:** only + − × ÷, in a fixed order, so that every build and processor gives the same integer.
//! **Invariant:** a further load never costs less on a fuller host (g is convex), which is what makes moves end.

use crate::units::{BitsPerSec, Cost, Mib};
use crate::usage::load::{Capacity, Load};

/// The reference host: 16 cores.
const REFERENCE_MILLICORES: f64 = 16_000.0;
/// The reference host: 96 GiB, six for each core.
const REFERENCE_MIB: f64 = 98_304.0;
/// The reference host: 10 Gbit/s each way.
const REFERENCE_BITS: f64 = 20e9;
/// Above this use a resource is near its limit and g grows steeper.
const STEEP_FROM: f64 = 0.8;
/// g(u) = 0.64 u² + 9 max(0, u − 0.8)²: g(1) = 1, its slope 1.28 u below the knee, 4.88 at the limit.
const FLAT: f64 = 0.64;
const STEEP: f64 = 9.0;
/// Millionths of a percent in the whole.
const WHOLE: f64 = 100e6;
/// Copying one GiB costs 0.03 % of pressure: half of a 10 Gbit/s link, some processor time and a slower guest for about two
/// seconds, spread over the hours for which a move is made.
const PER_GIB: i64 = 30_000;

/// What `load` costs a host of `capacity`. A resource whose capacity is not known costs nothing.
pub fn of_load(load: Load, capacity: Capacity) -> Cost {
    let [cpu, memory, bits, packets] = of_resources(load, capacity);
    rounded((cpu + memory + bits + packets) * WHOLE)
}

/// The same, each resource for itself: processors, memory, bits, packets.
pub fn of_each(load: Load, capacity: Capacity) -> [Cost; 4] {
    of_resources(load, capacity).map(|cost| rounded(cost * WHOLE))
}

/// Relief: what a host with `lowest` load would be rid of without `vm`.
pub fn relief(lowest: Load, vm: Load, capacity: Capacity) -> Cost {
    of_load(lowest, capacity).minus(of_load(lowest.minus(vm), capacity))
}

/// What `vm` would cost a host that already has `highest`.
pub fn of_arrival(highest: Load, vm: Load, capacity: Capacity) -> Cost {
    of_load(highest.plus(vm), capacity).minus(of_load(highest, capacity))
}

/// What it costs to copy a guest of this size.
pub fn of_copy(memory: Mib) -> Cost {
    Cost(i64::try_from(memory.0).unwrap_or(i64::MAX / PER_GIB).saturating_mul(PER_GIB) / 1024)
}

/// What it costs that two VMs which talk on one host do so across the wire: so much for each Gbit/s, whatever else there is. It
/// is linear, since a pair knows nothing of what else the two cards do.
pub fn of_traffic(bits: BitsPerSec, per_gbit: Cost) -> Cost {
    let cost = i128::from(bits.0) * i128::from(per_gbit.0) / 1_000_000_000;
    Cost(i64::try_from(cost).unwrap_or(i64::MAX))
}

fn of_resources(load: Load, capacity: Capacity) -> [f64; 4] {
    let cpu = resource(load.cpu.0, capacity.cpu.0, REFERENCE_MILLICORES);
    let memory = resource(load.memory.0, capacity.memory.0, REFERENCE_MIB);
    let bits = capacity.bits.map_or(0.0, |c| resource(load.bits.0, c.0, REFERENCE_BITS));
    // A network card is one card, whatever it can take.
    let packets = capacity.packets.map_or(0.0, |c| resource(load.packets.0, c.0, as_f64(c.0)));
    [cpu, memory, bits, packets]
}

fn resource(load: u64, capacity: u64, reference: f64) -> f64 {
    if capacity == 0 {
        return 0.0;
    }
    let capacity = as_f64(capacity);
    let used = as_f64(load) / capacity;
    let over = if used > STEEP_FROM { used - STEEP_FROM } else { 0.0 };
    (capacity / reference) * (FLAT * used * used + STEEP * over * over)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "loads beyond 2^53 do not occur, and rounding there is the same everywhere"
)]
fn as_f64(value: u64) -> f64 {
    value as f64
}

#[expect(clippy::cast_possible_truncation, reason = "`as` saturates, which is what is wanted")]
fn rounded(cost: f64) -> Cost {
    Cost((cost + 0.5) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{MilliCores, PacketsPerSec};
    use proptest::prelude::*;

    fn load(cpu: u64, memory: u64, packets: u64) -> Load {
        Load {
            cpu: MilliCores(cpu),
            memory: Mib(memory),
            packets: PacketsPerSec(packets),
            ..Load::default()
        }
    }

    fn capacity(cpu: u64, memory: u64, packets: u64) -> Capacity {
        Capacity {
            cpu: MilliCores(cpu),
            memory: Mib(memory),
            bits: None,
            packets: Some(PacketsPerSec(packets)),
        }
    }

    #[test]
    fn a_full_resource_of_the_reference_host_costs_a_hundred_percent() {
        let full = of_load(load(16_000, 0, 0), capacity(16_000, 65_536, 1000));
        assert!((full.0 - Cost::percent(100).0).abs() <= 1, "{full}");
        assert_eq!(of_load(load(0, 0, 1000), capacity(16_000, 65_536, 1000)), Cost::percent(100));
    }

    proptest! {
        #[test]
        fn a_load_never_costs_less_on_a_fuller_host(
            (a, b, v) in ((0u64..40_000, 0u64..90_000, 0u64..3000), (0u64..40_000, 0u64..90_000, 0u64..3000), (0u64..9000, 0u64..9000, 0u64..900))
        ) {
            let (low, more, vm) = (load(a.0, a.1, a.2), load(b.0, b.1, b.2), load(v.0, v.1, v.2));
            let host = capacity(16_000, 65_536, 1000);
            let rounding = Cost(2);
            prop_assert!(of_arrival(low, vm, host) <= of_arrival(low.plus(more), vm, host).plus(rounding));
            prop_assert!(relief(low, vm, host) <= relief(low.plus(more), vm, host).plus(rounding));
        }
    }
}
