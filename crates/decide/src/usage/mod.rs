//! From raw counters to what the policies judge: rates, histories, loads.
//!
//! **Invariant:** a reading never stops the host: what cannot be told from it is left out for that cycle.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::units::{BitsPerSec, Mib, MibPerSec, MilliCores, PacketsPerSec, Time, VmId};

pub mod forecast;
pub mod history;
pub mod load;
pub mod rates;
pub mod reading;
pub mod traffic;

use forecast::{NextHour, next_hour};
use history::levels::Closed;
use history::past::{Past, Stay};
use history::quarters::Quarters;
use history::{History, Kept, Sample, Whose};
use load::{Capacity, Load};
use rates::{CpuMeter, DiskMeter, DiskRates, LinkMeter, LinkRates, VcpuMeter, VcpuRates};
use reading::{Pressure, Reading, VmReading};
use traffic::Traffic;

/// Demand is a mean over this long at the most: short enough to see a flood.
pub const DEMAND_WINDOW: Duration = Duration::from_secs(10);
/// Demand is a mean over this long at the least: long enough not to see a blip.
const DEMAND_WINDOW_MIN: Duration = Duration::from_secs(3);
/// A forecast serves for so long: then the five minutes that it began with have passed.
pub const FORECAST_EVERY: Duration = Duration::from_mins(5);
/// A VM of which no sample came for so long is not foretold.
const MEASURED_WITHIN: Duration = Duration::from_mins(5);
/// Samples reach back so far.
const SECONDS_KEPT: Duration = Duration::from_mins(10);

/// One VM's meters and history.
#[derive(Clone, Debug, Default)]
struct VmUsage {
    link: LinkMeter,
    cpu: CpuMeter,
    vcpus: VcpuMeter,
    disk: DiskMeter,
    told: Told,
    history: History,
    next_hour: Option<NextHour>,
    /// In which [`FORECAST_EVERY`] that was reckoned.
    forecast_in: u64,
    tap_missing: bool,
}

/// The newest of what is told of some VMs only: by their vCPU threads and by their hypervisor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// What its vCPU threads do with their time; what else its process uses is emulation.
    pub vcpus: Option<VcpuRates>,
    /// Memory in use inside the guest.
    pub guest_memory: Option<Mib>,
    /// What its disks do.
    pub disk: Option<DiskRates>,
    /// How fast it writes to its memory, as last measured.
    pub dirty: Option<MibPerSec>,
}

impl VmUsage {
    fn tell(&mut self, now: Time, reading: &VmReading) {
        let start = reading.process_start;
        if reading.vcpus.is_none() {
            self.vcpus.lost();
        }
        if reading.disk.is_none() {
            self.disk.lost();
        }
        self.told = Told {
            vcpus: reading.vcpus.and_then(|vcpus| self.vcpus.observe(now, start, vcpus)),
            guest_memory: reading.guest_memory,
            disk: reading
                .disk
                .and_then(|disk| self.disk.observe(now.minus(reading.disk_age), start, disk)),
            // Not measured while it is being moved, but it does not stop then.
            dirty: reading.dirty.or(self.told.dirty),
        };
    }

    /// Forecasts the VM anew every five minutes: each at another second, so that no cycle has to do it for all.
    fn foresee(&mut self, now: Time, vm: VmId) {
        const SECOND: u64 = 1_000_000;
        let offset = u64::try_from(vm.0 % 300).unwrap_or(0) * SECOND;
        let within = (now.0 + offset) / (FORECAST_EVERY.as_secs() * SECOND);
        if self.forecast_in != within {
            self.forecast_in = within;
            self.next_hour = next_hour(now, &self.history);
        }
    }
}

/// What one cycle told of the host as a whole, resource by resource.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct HostUse {
    /// Processor time of everything on the host.
    pub cpu: MilliCores,
    /// Memory that is not available.
    pub memory: Mib,
    /// Traffic at the uplink, both directions.
    pub uplink: LinkRates,
    /// Packets that taps and uplink dropped, per second.
    pub dropped: u64,
    /// Pressure, where the kernel has it.
    pub pressure: Option<Pressure>,
    /// What its disks do, where the kernel tells.
    pub disk: Option<DiskRates>,
}

/// Usage of a host and of its VMs.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    vms: BTreeMap<VmId, VmUsage>,
    uplink: LinkMeter,
    cpu: CpuMeter,
    disk: DiskMeter,
    host: HostUse,
    /// The host's own.
    history: History,
    /// What is to be kept of all histories since it was last asked for.
    kept: Vec<Kept>,
    /// Empty between samples: its room is used again.
    closed: Vec<Closed>,
    capacity: Capacity,
    traffic: Traffic,
    read: Option<Time>,
    /// Which VMs were read last, and the first reading of these in a row.
    whose: Vec<VmId>,
    whose_since: Time,
    /// Processor use of the host beside its VMs, of the last [`DEMAND_WINDOW`].
    own: VecDeque<(Time, MilliCores)>,
}

impl Usage {
    /// Takes one cycle's reading. `packets_max` is the operator's word on what the network card can take.
    pub fn observe(&mut self, now: Time, reading: &Reading, packets_max: Option<PacketsPerSec>) {
        self.read = Some(now);
        if !self.whose.iter().eq(reading.vms.iter().map(|vm| &vm.vm)) {
            self.whose = reading.vms.iter().map(|vm| vm.vm).collect();
            self.whose_since = now;
        }
        self.traffic.observe(now, reading.flows.as_deref());
        self.capacity = Capacity {
            cpu: MilliCores(u64::from(reading.cores) * 1000),
            memory: reading.memory_total,
            bits: reading.uplink_speed.map(|one_way| BitsPerSec(one_way.0.saturating_mul(2))),
            packets: packets_max,
        };
        let cpu = self.cpu.observe(now, 0, reading.cpu_us).map(MilliCores);
        self.host.cpu = cpu.unwrap_or(self.host.cpu);
        self.host.memory = reading.memory_total.minus(reading.memory_available);
        self.host.pressure = reading.pressure;
        self.host.disk = reading.disk.and_then(|disk| self.disk.observe(now, 0, disk));
        match reading.uplink {
            Some(counters) => {
                self.host.uplink = self.uplink.observe(now, counters).unwrap_or(self.host.uplink)
            }
            None => self.uplink.lost(),
        }
        // Each closes a span, now and then two or three.
        self.kept.reserve(reading.vms.len() + 1);
        let dropped: u64 = reading.vms.iter().map(|vm| self.observe_vm(now, vm)).sum();
        self.host.dropped = dropped.saturating_add(self.host.uplink.dropped);
        if let Some(cpu) = cpu {
            let sample = self.host_sample();
            self.history.push(now, sample, &mut self.closed);
            self.kept.extend(self.closed.drain(..).map(|span| Kept::Span(Whose::Host, span)));
            let newest = reading.vms.iter().filter_map(|vm| self.vms.get(&vm.vm)?.history.newest());
            let guests = newest.fold(MilliCores(0), |sum, sample| sum.plus(sample.cpu));
            self.own.push_back((now, cpu.minus(guests)));
            self.own.retain(|(at, _)| now.since(*at) <= DEMAND_WINDOW);
        }
    }

    /// Takes one VM's part; gives the packets per second that its tap dropped.
    fn observe_vm(&mut self, now: Time, reading: &VmReading) -> u64 {
        let Usage { vms, kept, closed, .. } = self;
        let usage = vms.entry(reading.vm).or_default();
        usage.tap_missing = reading.link.is_none();
        let rates = match reading.link {
            Some(counters) => usage.link.observe(now, counters),
            None => {
                usage.link.lost();
                None
            }
        };
        let cpu = usage.cpu.observe(now, reading.process_start, reading.cpu_us);
        usage.tell(now, reading);
        let (Some(cpu), Some(rates)) = (cpu, rates.or(usage.tap_missing.then(LinkRates::default)))
        else {
            return 0;
        };
        let sample = Sample {
            cpu: MilliCores(cpu),
            cpu_wait: usage.told.vcpus.unwrap_or_default().waited,
            memory: usage.told.guest_memory.unwrap_or(reading.memory),
            sent_packets: PacketsPerSec(rates.sent_packets),
            received_packets: PacketsPerSec(rates.received_packets),
            sent_bits: BitsPerSec(rates.sent_bits),
            received_bits: BitsPerSec(rates.received_bits),
            dropped: PacketsPerSec(rates.dropped),
            disk: usage.told.disk.unwrap_or_default().bytes(),
            dirty: usage.told.dirty.unwrap_or_default(),
        };
        usage.history.push(now, sample, closed);
        kept.extend(closed.drain(..).map(|span| Kept::Span(Whose::Vm(reading.vm), span)));
        usage.foresee(now, reading.vm);
        rates.dropped
    }

    /// The host itself in one second.
    fn host_sample(&self) -> Sample {
        let HostUse { cpu, memory, uplink, dropped, pressure, disk } = &self.host;
        Sample {
            cpu: *cpu,
            cpu_wait: pressure.map_or(MilliCores(0), |p| waiting(p.cpu, self.capacity.cpu)),
            memory: *memory,
            sent_packets: PacketsPerSec(uplink.sent_packets),
            received_packets: PacketsPerSec(uplink.received_packets),
            sent_bits: BitsPerSec(uplink.sent_bits),
            received_bits: BitsPerSec(uplink.received_bits),
            dropped: PacketsPerSec(*dropped),
            disk: disk.unwrap_or_default().bytes(),
            ..Sample::default()
        }
    }

    fn history_mut(&mut self, whose: Whose) -> &mut History {
        match whose {
            Whose::Host => &mut self.history,
            Whose::Vm(vm) => &mut self.vms.entry(vm).or_default().history,
        }
    }

    /// The VM is not here any more.
    pub fn forget(&mut self, vm: VmId) {
        self.vms.remove(&vm);
    }

    /// Joins a history that travelled with the VM, whose stay before this one is over.
    pub fn import(&mut self, now: Time, vm: VmId, came: &History, before: Stay) {
        let usage = self.vms.entry(vm).or_default();
        let history = &mut usage.history;
        history.import(came);
        history.arrived(before);
        let past = history.past().clone();
        usage.next_hour = next_hour(now, history);
        self.kept.push(Kept::Past(vm, past));
    }

    /// Joins what was stored of a history.
    pub fn recall(&mut self, whose: Whose, quarters: &Quarters, past: &Past) {
        self.history_mut(whose).recall(quarters, past);
    }

    /// What is to be kept of all histories since this was last asked for.
    pub fn take_kept(&mut self) -> Vec<Kept> {
        std::mem::take(&mut self.kept)
    }

    /// What the VM asks of its host, `memory` being its full size: a mean over `window`, within limits. Without samples: nothing but its memory.
    pub fn demand(&self, now: Time, vm: VmId, memory: Mib, window: Duration) -> Load {
        let only_memory = Load { memory, ..Load::default() };
        self.vms
            .get(&vm)
            .and_then(|u| {
                u.history.mean(now, window.clamp(DEMAND_WINDOW_MIN, DEMAND_WINDOW), memory)
            })
            .unwrap_or(only_memory)
    }

    /// What the VM will ask in the next hour, as last forecast; `None` where less than a quarter of an hour is known of it.
    pub fn next_hour(&self, vm: VmId) -> Option<NextHour> {
        self.vms.get(&vm)?.next_hour
    }

    /// Whether the VM has been measured of late: of one that ended, or cannot be seen, nothing is foretold anew.
    pub fn is_measured(&self, now: Time, vm: VmId) -> bool {
        let newest = self.history(vm).and_then(|history| history.seconds().next_back());
        newest.is_some_and(|(at, _)| now.since(at) <= MEASURED_WITHIN)
    }

    /// What the VM has asked on average since then, `memory` being its full size: by its seconds, or where they do not reach back so
    /// far by its quarters of an hour.
    pub fn asked_since(&self, now: Time, vm: VmId, since: Time, memory: Mib) -> Option<Load> {
        let history = self.history(vm)?;
        if now.since(since) <= SECONDS_KEPT {
            return history.mean(now, now.since(since), memory);
        }
        let rows = history.quarters().iter().filter(|(from, _)| *from >= since);
        let (n, sum) = rows
            .filter_map(|(_, row)| row)
            .fold((0, Load::default()), |(n, sum), row| (n + 1, sum.plus(row.mean.load())));
        if n == 0 {
            return history.mean(now, SECONDS_KEPT, memory);
        }
        Some(Load { memory, ..sum.divided(n) })
    }

    /// The VM's history, if any reading or import has come.
    pub fn history(&self, vm: VmId) -> Option<&History> {
        self.vms.get(&vm).map(|u| &u.history)
    }

    /// What was told last of the VM beside its samples.
    pub fn told(&self, vm: VmId) -> Told {
        self.vms.get(&vm).map(|u| u.told).unwrap_or_default()
    }

    /// The host's own history.
    pub fn own_history(&self) -> &History {
        &self.history
    }

    /// Whether the last cycle found no tap for the VM.
    pub fn tap_missing(&self, vm: VmId) -> bool {
        self.vms.get(&vm).is_some_and(|u| u.tap_missing)
    }

    /// Who sends how much to whom.
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// What the last cycle told of the host.
    pub fn host(&self) -> &HostUse {
        &self.host
    }

    /// The least and the most processor time that the host itself used of late, beside its VMs. In the second in which a VM
    /// comes or goes its share cannot be told from the host's: only the least is sure.
    pub fn own_cpu(&self) -> (MilliCores, MilliCores) {
        let own = || self.own.iter().map(|(_, cpu)| *cpu);
        (own().min().unwrap_or_default(), own().max().unwrap_or_default())
    }

    /// What the host has to give; zero before the first reading.
    pub fn capacity(&self) -> Capacity {
        self.capacity
    }

    /// From when on all that is made of readings is of the VMs that the last one found: for a while after one came or went it is not.
    pub fn settled(&self) -> Time {
        self.whose_since.plus(DEMAND_WINDOW)
    }

    /// When the last reading came.
    pub fn read(&self) -> Option<Time> {
        self.read
    }
}

/// Processor time that was wanted on a host and not had, by the share of time in which something waited for it.
fn waiting(share: f64, all: MilliCores) -> MilliCores {
    // A share is a hundredth at the finest.
    const PARTS: f64 = 10_000.0;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped before")]
    let parts = (share.clamp(0.0, 1.0) * PARTS) as u64;
    MilliCores(all.0.saturating_mul(parts) / 10_000)
}

#[cfg(test)]
mod tests {
    use super::reading::{DiskCounters, VcpuCounters};
    use super::*;
    use crate::units::{Bytes, BytesPerSec};

    const VM: VmId = VmId(1);

    /// A VM that uses a fifth of a core, waits for seven tenths of one, and reads 1,000 bytes a second.
    fn starved(second: u64) -> Reading {
        let counters =
            VcpuCounters { threads: 1, ran_us: second * 150_000, waited_us: second * 700_000 };
        let vm = VmReading {
            vm: VM,
            cpu_us: second * 200_000,
            memory: Mib(300),
            vcpus: Some(counters),
            guest_memory: Some(Mib(70)),
            disk: Some(DiskCounters { read: Bytes(second * 1000), ..DiskCounters::default() }),
            dirty: (second < 3).then_some(MibPerSec(5)),
            ..VmReading::default()
        };
        Reading { cores: 1, cpu_us: second * 900_000, vms: vec![vm], ..Reading::default() }
    }

    #[test]
    fn what_was_wanted_and_not_had_counts_as_demand_and_not_as_use() {
        let mut usage = Usage::default();
        (0..5).for_each(|second| usage.observe(Time(second * 1_000_000), &starved(second), None));
        let now = Time(4_000_000);
        let demand = usage.demand(now, VM, Mib(512), DEMAND_WINDOW);
        assert_eq!((demand.cpu, demand.memory), (MilliCores(900), Mib(512)));
        assert_eq!(usage.history(VM).unwrap().peak(3, Mib(512)).unwrap().cpu, MilliCores(900));
        // The host's own: what the guest waited for nobody used.
        assert_eq!(usage.own_cpu(), (MilliCores(700), MilliCores(700)));

        let sample = usage.history(VM).unwrap().newest().unwrap();
        let expected = Sample {
            cpu: MilliCores(200),
            cpu_wait: MilliCores(700),
            memory: Mib(70),
            disk: BytesPerSec(1000),
            dirty: MibPerSec(5),
            ..Sample::default()
        };
        assert_eq!(sample, expected);
        assert_eq!(usage.told(VM).vcpus.unwrap().ran, MilliCores(150));
    }
}
