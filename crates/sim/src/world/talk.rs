//! What VMs send each other, and what the programs at the taps of a host count of it: VMs on two hosts do so unseen.

use std::collections::BTreeMap;
use std::time::Duration;

use decide::units::{BitsPerSec, Bytes, VmId};
use decide::usage::reading::{End, Flow};

/// Bytes in one of their frames.
const FRAME_BYTES: u64 = 1000;

/// Who talks with whom, steadily.
#[derive(Clone, Debug, Default)]
pub struct Talks {
    rates: BTreeMap<(VmId, VmId), BitsPerSec>,
    /// Bytes so far, by host, while both are there.
    counted: BTreeMap<(u16, VmId, VmId), u64>,
}

impl Talks {
    /// From now on one sends so much to the other.
    pub fn set(&mut self, from: VmId, to: VmId, rate: BitsPerSec) {
        self.rates.insert((from, to), rate);
    }

    /// The traffic matrix of a host with these VMs, so long after the last; none if nobody talks anywhere.
    pub(super) fn count(
        &mut self,
        at: u16,
        vms: impl Fn(VmId) -> bool,
        since: Duration,
    ) -> Option<Vec<Flow>> {
        if self.rates.is_empty() {
            return None;
        }
        let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        let mut flows = Vec::new();
        for ((from, to), rate) in &self.rates {
            let cell = (at, *from, *to);
            if !(vms(*from) && vms(*to)) {
                self.counted.remove(&cell);
                continue;
            }
            let bytes = self.counted.entry(cell).or_default();
            *bytes += rate.0 / 8 * millis / 1000;
            let frames = *bytes / FRAME_BYTES;
            let (from, to) = (End::Vm(*from), End::Vm(*to));
            flows.push(Flow { from, to, frames, bytes: Bytes(*bytes) });
        }
        Some(flows)
    }
}
