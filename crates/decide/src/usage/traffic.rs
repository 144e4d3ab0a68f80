//! Who sends how much to whom on a host: the traffic matrix as rates over the last ten seconds.
//!
//! **Invariant:** at most [`CELLS_MAX`] cells are kept, each with the points of one window.
//! **Invariant:** a rate is made only of counters of the same life of a cell; one that fell begins anew.

use std::collections::{BTreeMap, VecDeque};

use super::DEMAND_WINDOW;
use super::rates::per_second;
use super::reading::{End, Flow};
use crate::units::{BitsPerSec, PacketsPerSec, Time, VmId};

/// Cells that are kept; what a reading has beyond them is passed over.
pub const CELLS_MAX: usize = 16_384;
/// Points of one cell: a reading a second, and the one that the window begins with.
const POINTS_MAX: usize = 11;

/// One cell of the matrix as a mean over the last ten seconds, or since the cell is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowRate {
    /// Who sends.
    pub from: End,
    /// To whom.
    pub to: End,
    /// Frames on the wire.
    pub packets: PacketsPerSec,
    /// What they carry, headers counted.
    pub bits: BitsPerSec,
}

/// Frames and bytes of a cell at one time.
#[derive(Clone, Copy, Debug)]
struct Point {
    at: Time,
    frames: u64,
    bytes: u64,
}

/// The matrix of one host.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    cells: BTreeMap<(End, End), VecDeque<Point>>,
    /// When the matrix was last read; none while it is not counted.
    read: Option<Time>,
    /// What VMs of this host send each other, both directions: each pair is there twice, once for either end.
    pairs: BTreeMap<VmId, BTreeMap<VmId, BitsPerSec>>,
}

impl Traffic {
    /// Takes one cycle's matrix; none if it is not counted.
    pub fn observe(&mut self, now: Time, flows: Option<&[Flow]>) {
        let Some(flows) = flows else {
            *self = Traffic::default();
            return;
        };
        let before = self.read.replace(now);
        let mut cells = std::mem::take(&mut self.cells);
        for flow in flows.iter().take(CELLS_MAX) {
            let ends = (flow.from, flow.to);
            let mut points = cells.remove(&ends).unwrap_or_else(|| {
                // It was not there a cycle ago, so it began at zero since.
                before.map(|at| Point { at, frames: 0, bytes: 0 }).into_iter().collect()
            });
            if points.back().is_some_and(|p| flow.frames < p.frames || flow.bytes.0 < p.bytes) {
                points.clear();
            }
            points.push_back(Point { at: now, frames: flow.frames, bytes: flow.bytes.0 });
            while points.len() > POINTS_MAX
                || points.front().is_some_and(|p| now.since(p.at) > DEMAND_WINDOW)
            {
                points.pop_front();
            }
            self.cells.insert(ends, points);
        }
        self.pair();
    }

    /// The other VMs of this host with which a VM talks, with what both directions carry together; nothing while the matrix is
    /// not counted.
    pub fn between(&self, vm: VmId) -> impl Iterator<Item = (VmId, BitsPerSec)> {
        self.pairs.get(&vm).into_iter().flatten().map(|(other, bits)| (*other, *bits))
    }

    fn pair(&mut self) {
        let mut pairs: BTreeMap<VmId, BTreeMap<VmId, BitsPerSec>> = BTreeMap::new();
        for flow in self.rates().into_iter().flatten() {
            let (End::Vm(from), End::Vm(to)) = (flow.from, flow.to) else { continue };
            for (one, other) in [(from, to), (to, from)] {
                let bits = pairs.entry(one).or_default().entry(other).or_default();
                bits.0 = bits.0.saturating_add(flow.bits.0);
            }
        }
        self.pairs = pairs;
    }

    /// The cells in which something was sent of late, in the order of their ends; none if the matrix is not counted.
    pub fn rates(&self) -> Option<Vec<FlowRate>> {
        self.read?;
        let rate = |(ends, points): (&(End, End), &VecDeque<Point>)| {
            let (first, last) = (points.front()?, points.back()?);
            let (frames, elapsed) = (last.frames - first.frames, last.at.since(first.at));
            (frames > 0 && !elapsed.is_zero()).then(|| FlowRate {
                from: ends.0,
                to: ends.1,
                packets: PacketsPerSec(per_second(frames, elapsed)),
                bits: BitsPerSec(per_second((last.bytes - first.bytes).saturating_mul(8), elapsed)),
            })
        };
        Some(self.cells.iter().filter_map(rate).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{Bytes, VmId};

    fn flow(to: u128, frames: u64) -> Flow {
        let (from, to) = (End::Vm(VmId(1)), End::Vm(VmId(to)));
        Flow { from, to, frames, bytes: Bytes(frames * 100) }
    }

    fn second(traffic: &mut Traffic, at: u64, flows: &[Flow]) -> Vec<(u64, u64)> {
        traffic.observe(Time(at * 1_000_000), Some(flows));
        let rates = traffic.rates().expect("it is counted");
        rates.iter().map(|rate| (rate.packets.0, rate.bits.0)).collect()
    }

    #[test]
    fn a_rate_is_a_mean_over_ten_seconds() {
        let mut traffic = Traffic::default();
        assert_eq!(second(&mut traffic, 1, &[flow(2, 1000)]), []);
        assert_eq!(second(&mut traffic, 2, &[flow(2, 1600)]), [(600, 480_000)]);
        assert_eq!(second(&mut traffic, 3, &[flow(2, 1600)]), [(300, 240_000)]);
        for at in 4..12 {
            assert_eq!(second(&mut traffic, at, &[flow(2, 1600)]).len(), 1);
        }
        assert_eq!(second(&mut traffic, 12, &[flow(2, 1600)]), [], "nothing was sent of late");
    }

    #[test]
    fn a_cell_that_came_between_two_readings_began_at_zero() {
        let mut traffic = Traffic::default();
        second(&mut traffic, 1, &[]);
        assert_eq!(second(&mut traffic, 2, &[flow(2, 50)]), [(50, 40_000)]);
    }

    #[test]
    fn a_cell_that_fell_begins_anew_and_one_that_is_gone_is_forgotten() {
        let mut traffic = Traffic::default();
        second(&mut traffic, 1, &[flow(2, 1000), flow(3, 1000)]);
        assert_eq!(second(&mut traffic, 2, &[flow(2, 10), flow(3, 1001)]), [(1, 800)]);
        assert_eq!(second(&mut traffic, 3, &[flow(2, 30)]), [(20, 16_000)]);
    }

    #[test]
    fn cells_and_points_are_bounded() {
        let mut traffic = Traffic::default();
        let many: Vec<Flow> = (0..20_000).map(|to| flow(to, 1)).collect();
        (0..100).for_each(|cycle| traffic.observe(Time(cycle * 200_000), Some(&many)));
        assert_eq!(traffic.cells.len(), CELLS_MAX);
        assert!(traffic.cells.values().all(|points| points.len() <= POINTS_MAX));
    }

    #[test]
    fn what_is_not_counted_has_no_rates() {
        let mut traffic = Traffic::default();
        assert_eq!(traffic.rates(), None);
        second(&mut traffic, 1, &[flow(2, 1)]);
        traffic.observe(Time(2_000_000), None);
        assert_eq!(traffic.rates(), None);
    }
}
