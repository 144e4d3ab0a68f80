//! What a world is made of: machines, guests and their loads, and what monitors read of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use decide::host::Event;
use decide::host::rests::Rests;
use decide::migrate::hypervisor::{Needs, RunState, Seen, Sighting, VmDefinition};
use decide::policy::settings::{Balance, Settings};
use decide::units::{BitsPerSec, Bytes, Cost, Mib, MilliCores, PacketsPerSec, VmId};
use decide::usage::load::{Capacity, Load};
use decide::usage::reading::{LinkCounters, Reading, VmReading};

use super::{Clock, Coming, Journal, Site, World};
use crate::checks::{Passed, transactions};
use crate::hypervisor::{Memory, Process};

/// Bits in one of a guest's packets.
const PACKET_BITS: u64 = 800;

/// A host's hardware.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// Processors.
    pub cores: u32,
    /// All its memory.
    pub memory: Mib,
    /// Packets that it can take in a second.
    pub packets_max: u64,
    /// Speed of its uplink, each way.
    pub link: BitsPerSec,
    /// Processor time that guests used here, those that have left included.
    cpu_us: u64,
}

impl Machine {
    /// One with an uplink of 1 Gbit/s; `memory` in MiB.
    pub fn new(cores: u32, memory: u64, packets_max: u64) -> Machine {
        let link = BitsPerSec(1_000_000_000);
        Machine { cores, memory: Mib(memory), packets_max, link, cpu_us: 0 }
    }

    /// What it has to give.
    pub fn capacity(&self) -> Capacity {
        Capacity {
            cpu: MilliCores(u64::from(self.cores) * 1000),
            memory: self.memory,
            bits: Some(BitsPerSec(self.link.0 * 2)),
            packets: Some(PacketsPerSec(self.packets_max)),
        }
    }
}

/// A VM and what it does, steadily, wherever it runs.
#[derive(Clone, Debug)]
pub struct Guest {
    /// What it is. Boxed, since figures of thousands of guests are looked up all the time.
    pub definition: Box<VmDefinition>,
    /// Thousandths of a core.
    pub cpu: u64,
    /// Packets in a second.
    pub packets: u64,
    /// Whether it has a tap.
    pub has_tap: bool,
}

impl Guest {
    /// What it asks of its host.
    pub fn load(&self) -> Load {
        Load {
            cpu: MilliCores(self.cpu),
            memory: self.definition.memory,
            bits: BitsPerSec(self.packets * PACKET_BITS),
            packets: PacketsPerSec(self.packets),
        }
    }
}

/// The id of a VM.
pub fn vm_id(n: u32) -> VmId {
    VmId(u128::from(n))
}

/// `automatic`, hot at more than 1,000 packets/s for 5 s, hosts of 16 cores and 64 GiB in mind.
pub fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.mode.balance = Balance::Automatic;
    settings.hot.window = Duration::from_secs(5);
    settings.hot.packets_per_second = Some(PacketsPerSec(1000));
    settings.worth_it.gain_min = Cost::percent(5);
    settings
}

/// The same with several moves at once, and hardly any rest.
pub fn restless() -> Settings {
    let mut settings = settings();
    settings.target.memory_reserve = Mib(0);
    settings.limits.moves_per_host = 3;
    settings.limits.moves_per_day = 10_000;
    settings.worth_it.vm_rest = Duration::from_secs(1);
    settings.worth_it.host_rest = Duration::from_secs(1);
    settings
}

/// Host 1 has vm1, which is flooded, and vm2; host 2 has vm3; host 3, with vm4, has least to do.
pub fn flooded(settings: Settings) -> World {
    let mut world = World::of(1, 3, settings);
    world.boot(1, 1, 1024, 2000, 800);
    world.boot(1, 2, 1024, 500, 300);
    world.boot(2, 3, 512, 500, 200);
    world.boot(3, 4, 512, 500, 100);
    world
}

impl World {
    /// Hosts 1 to `n`, alike, in touch with each other.
    pub fn of(seed: u64, n: u16, settings: Settings) -> World {
        World::of_size(seed, n, settings, 65_536)
    }

    /// The same with so much memory each.
    pub fn of_size(seed: u64, n: u16, settings: Settings, memory: u64) -> World {
        let mut world = World::new(seed, settings);
        world.add_alike(n, memory);
        world.run(Duration::from_secs(5));
        world
    }

    /// Hosts 1 to `n`, alike, with so much memory each, whose agents start.
    pub fn add_alike(&mut self, n: u16, memory: u64) {
        let packets = self.settings.hot.packets_per_second.map_or(1000, |max| max.0);
        (1..=n).for_each(|at| self.add(at, Machine::new(16, memory, packets), Clock::default()));
        (1..=n).for_each(|at| self.restart(at));
    }

    /// A host whose agent does not run yet.
    pub fn add(&mut self, at: u16, machine: Machine, clock: Clock) {
        self.fleet.add(at, machine.link);
        let site = Site {
            host: None,
            machine,
            here: self.settings.host.clone(),
            keyed: false,
            encryption: None,
            excluded: BTreeSet::new(),
            rests: Rests::default(),
            journal: Journal::default(),
            write_takes: Duration::from_millis(2),
            written: self.now,
            clock,
            life: 0,
            starts: 0,
            tick: None,
            read: None,
        };
        self.sites.insert(at, site);
        let first = Duration::from_millis(u64::from(at) * 7);
        self.later(first, Coming::Reading { at });
    }

    /// A VM that runs at a host and asks for so much, and whose memory is never written to.
    pub fn boot(&mut self, at: u16, n: u32, memory: u64, cpu: u64, packets: u64) {
        let memory = Memory { size: Mib(memory), ..Memory::default() };
        self.boot_with(at, n, memory, cpu, packets);
    }

    /// The same with such a memory.
    pub fn boot_with(&mut self, at: u16, n: u32, memory: Memory, cpu: u64, packets: u64) {
        let needs = Needs { driver: "sim".to_owned(), ..Needs::default() };
        let (vm, name, start) = (vm_id(n), vm_name(n), String::new());
        let definition = VmDefinition {
            vm,
            name,
            memory: memory.size,
            vcpus: 1,
            needs,
            start,
            tags: Vec::new(),
            local_disks: Mib(0),
            witness: None,
        };
        let guest = Guest { definition: Box::new(definition.clone()), cpu, packets, has_tap: true };
        self.guests.insert(vm, guest);
        self.checks.place(self.now, vm, at);
        self.fleet.know(vm, memory);
        self.fleet.start(self.now, at, vm, Seen::Running);
        self.handle(at, Event::Sighting(Sighting::Found(Box::new(definition), RunState::Running)));
    }

    /// An operator gives a VM these tags, and its host's agent finds them.
    pub fn retag(&mut self, at: u16, vm: VmId, tags: &[&str]) {
        let guest = self.guests.get_mut(&vm).expect("a guest of this world");
        guest.definition.tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
        let found = Sighting::Found(guest.definition.clone(), RunState::Running);
        self.handle(at, Event::Sighting(found));
    }

    /// What all hosts' loads cost together, each VM counted where `at` says.
    pub fn sum_of_costs(&self, at: &BTreeMap<VmId, u16>) -> Cost {
        costs_of(self, at, |_| true)
    }

    /// What has passed, each agreement as one and in the order in which it was judged; whether it was broken, and by how much
    /// it lowered the sum of costs. `at`: where VMs were at first.
    pub fn lowered(&self, mut at: BTreeMap<VmId, u16>) -> Vec<(Vec<Passed>, bool, Cost)> {
        let order = self.checks.as_judged(0);
        let all = transactions(&order).map(|(parts, broken)| {
            let before = self.sum_of_costs(&at);
            at.extend(parts.iter().map(|passed| (passed.vm, passed.to)));
            let lower = before.minus(self.sum_of_costs(&at));
            (parts.into_iter().cloned().collect(), broken, lower)
        });
        all.collect()
    }

    /// Whether nothing is open any more, everywhere.
    ///
    /// # Errors
    /// What is still open, or not as it must be in the end.
    pub fn settled(&self) -> Result<(), crate::checks::NotYet> {
        crate::checks::settled(self)
    }
}

/// The name of the nth VM.
pub(crate) fn vm_name(n: u32) -> String {
    format!("vm{n}")
}

/// One cycle of a monitor: counters have grown by what each guest that executes here did since.
pub(super) fn read(world: &mut World, at: u16) -> Reading {
    let now = world.now;
    let machine = &mut world.sites.get_mut(&at).expect("a host of this world").machine;
    let processes = world.fleet.processes_mut(at);
    let mut vms = Vec::with_capacity(processes.size_hint().0);
    for (vm, process) in processes {
        let guest = &world.guests[&vm];
        machine.cpu_us += count(now, process, guest);
        let packets = u64::try_from(process.used.micropackets / 1_000_000).unwrap_or(u64::MAX);
        let link = LinkCounters {
            ifindex: u32::try_from(process.number).unwrap_or(u32::MAX),
            received_packets: packets,
            received_bytes: Bytes(packets * (PACKET_BITS / 8)),
            ..LinkCounters::default()
        };
        vms.push(VmReading {
            vm,
            link: guest.has_tap.then_some(link),
            cpu_us: process.used.cpu_us,
            process_start: process.number,
            ..VmReading::default()
        });
    }
    for vm in &mut vms {
        let memory = world.fleet.memory(vm.vm);
        (vm.memory, vm.dirty) = (memory.size, Some(memory.written()));
    }
    let here = |vm: VmId| vms.iter().any(|reading| reading.vm == vm);
    let flows = world.talks.count(at, here, world.read_every);
    let used = vms.iter().fold(Mib(0), |sum, vm| sum.plus(vm.memory));
    Reading {
        cpu_us: machine.cpu_us,
        cores: machine.cores,
        memory_total: machine.memory,
        memory_available: machine.memory.minus(used),
        uplink_speed: Some(machine.link),
        flows,
        vms,
        ..Reading::default()
    }
}

/// Counts what a guest did since it was last counted; gives the processor time.
fn count(now: decide::units::Time, process: &mut Process, guest: &Guest) -> u64 {
    let since = std::mem::replace(&mut process.used.until, now);
    if !process.executes() {
        return 0;
    }
    let micros = now.since(since).as_micros();
    process.used.micropackets += u128::from(guest.packets) * micros;
    let cpu_us = u64::try_from(u128::from(guest.cpu) * micros / 1000).unwrap_or(u64::MAX);
    process.used.cpu_us += cpu_us;
    cpu_us
}

/// What the loads of the hosts `of` cost together, each VM counted where `at` says.
pub(crate) fn costs_of(world: &World, at: &BTreeMap<VmId, u16>, of: impl Fn(u16) -> bool) -> Cost {
    let mut loads: BTreeMap<u16, Load> = BTreeMap::new();
    for (vm, at) in at.iter().filter(|(_, at)| of(**at)) {
        let load = loads.entry(*at).or_default();
        *load = load.plus(world.guests[vm].load());
    }
    loads.iter().fold(Cost(0), |sum, (at, load)| {
        let capacity = world.sites[at].machine.capacity();
        sum.plus(decide::policy::cost::of_load(*load, capacity))
    })
}
