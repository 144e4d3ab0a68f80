//! What the world is made of: machines, guests and their loads, agents that start and die.

use std::collections::BTreeMap;
use std::time::Duration;

use decide::host::{Event, Host, Start};
use decide::log::{Begin, FORM, Gave, Line};
use decide::migrate::hypervisor::{Needs, RunState, Seen, Sighting, VmDefinition};
use decide::placement::admission::Offered;
use decide::policy::settings::{Balance, Settings};
use decide::units::{BitsPerSec, Bytes, Cost, JournalId, Mib, MilliCores, PacketsPerSec, VmId};
use decide::usage::load::{Capacity, Load};
use decide::usage::reading::{LinkCounters, Reading, VmReading};
use decide::wire::message::JournalMark;

use super::{Coming, Journal, Site, World, address, check, host_id};
use crate::world::hypervisor::Hypervisor;

/// A host's hardware.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Machine {
    pub(crate) cores: u32,
    pub(crate) memory: Mib,
    pub(crate) packets_max: u64,
    cpu_us: u64,
}

impl Machine {
    pub(crate) fn new(cores: u32, memory: u64, packets_max: u64) -> Machine {
        Machine { cores, memory: Mib(memory), packets_max, cpu_us: 0 }
    }

    pub(crate) fn capacity(&self) -> Capacity {
        Capacity {
            cpu: MilliCores(u64::from(self.cores) * 1000),
            memory: self.memory,
            bits: Some(BitsPerSec(2_000_000_000)),
            packets: Some(PacketsPerSec(self.packets_max)),
        }
    }
}

/// A VM and what it does, steadily, wherever it runs.
#[derive(Clone, Debug)]
pub(crate) struct Guest {
    pub(crate) definition: VmDefinition,
    pub(crate) cpu: u64,
    pub(crate) packets: u64,
    pub(crate) has_tap: bool,
    link: LinkCounters,
    cpu_us: u64,
}

impl Guest {
    pub(crate) fn load(&self) -> Load {
        Load {
            cpu: MilliCores(self.cpu),
            memory: self.definition.memory,
            bits: BitsPerSec(self.packets * 800),
            packets: PacketsPerSec(self.packets),
        }
    }
}

pub(crate) fn vm_id(n: u8) -> VmId {
    VmId(u128::from(n))
}

/// `automatic`, hot at more than 1,000 packets/s for 5 s, hosts of 16 cores and 64 GiB in mind.
pub(crate) fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.mode.balance = Balance::Automatic;
    settings.hot.window = Duration::from_secs(5);
    settings.hot.packets_per_second = Some(PacketsPerSec(1000));
    settings.worth_it.gain_min = Cost::percent(5);
    settings
}

impl World {
    /// Hosts 1 to `n`, alike, in touch with each other.
    pub(crate) fn of(seed: u64, n: u8, settings: Settings) -> World {
        World::of_size(seed, n, settings, 65_536)
    }

    /// The same with so much memory each.
    pub(crate) fn of_size(seed: u64, n: u8, settings: Settings, memory: u64) -> World {
        let mut world = World::new(seed, settings);
        let packets = world.settings.hot.packets_per_second.map_or(1000, |max| max.0);
        (1..=n).for_each(|at| world.add(at, Machine::new(16, memory, packets)));
        world.run(Duration::from_secs(5));
        world
    }

    pub(crate) fn add(&mut self, at: u8, machine: Machine) {
        let (hypervisor, journal) = (Hypervisor::default(), Journal::default());
        self.sites.insert(at, Site { host: None, machine, hypervisor, journal, life: 0 });
        self.restart(at);
        let first = Duration::from_millis(u64::from(at) * 7);
        self.later(first, Coming::Reading { at });
    }

    /// A VM that runs at a host and asks for so much.
    pub(crate) fn boot(&mut self, at: u8, n: u8, memory: u64, cpu: u64, packets: u64) {
        let needs = Needs { driver: "sim".to_owned(), ..Needs::default() };
        let (vm, name, start) = (vm_id(n), format!("vm{n}"), String::new());
        let definition = VmDefinition { vm, name, memory: Mib(memory), vcpus: 1, needs, start };
        let link = LinkCounters { ifindex: 1, ..LinkCounters::default() };
        let guest =
            Guest { definition: definition.clone(), cpu, packets, has_tap: true, link, cpu_us: 0 };
        self.guests.insert(vm, guest);
        self.checks.place(vm, at);
        self.sites.get_mut(&at).unwrap().hypervisor.start(vm, Seen::Running, None);
        self.handle(at, Event::Sighting(Sighting::Found(definition, RunState::Running)));
    }

    /// The agent is killed: of its writes under way some were on disk. Its VMs know nothing of it.
    pub(crate) fn crash(&mut self, at: u8) {
        let kept = self.draw(3) as usize;
        let site = self.sites.get_mut(&at).unwrap();
        site.host = None;
        site.life += 1;
        site.journal.crash(kept);
    }

    pub(crate) fn crash_for(&mut self, at: u8, down: Duration) {
        if self.sites[&at].host.is_some() {
            self.crash(at);
            self.later(down, Coming::Restart { at });
        }
    }

    /// The agent starts, from what its journal has and what it finds.
    pub(crate) fn restart(&mut self, at: u8) {
        let site = self.sites.get_mut(&at).unwrap();
        site.life += 1;
        let journal = JournalMark {
            id: JournalId(u128::from(at)),
            generation: site.journal.generation,
            opened: site.journal.generation,
            life: u64::from(site.life),
        };
        let start = Start {
            id: host_id(at),
            name: format!("host{at}"),
            address: address(at),
            journal,
            doubt: None,
            incarnation: site.life,
            first_incarnation: 1,
            vms: site.journal.vms.clone(),
            moves: site.journal.moves.clone(),
            offered: Offered { driver: "sim".to_owned(), ..Offered::default() },
            settings: self.settings.clone(),
            seed: u64::from(at) + 100 * u64::from(site.life),
        };
        let (now, version) = (self.now, "simulated".to_owned());
        let begin = Begin { form: FORM, version, unix_us: 0, now, start: start.clone() };
        let mut actions = Vec::new();
        let host = site.host.insert(Host::new(start, self.now, &mut actions));
        let gave = Gave::of(&actions, host.deadline());
        if let Some(logs) = &mut self.logs {
            logs.insert(at, vec![Line::Begin(Box::new(begin)), Line::Gave(gave)]);
        }
        let found: Vec<_> = site
            .hypervisor
            .processes
            .iter()
            .filter(|(_, p)| !matches!(p.seen, Seen::Incoming | Seen::IncomingComplete))
            .map(|(vm, p)| (*vm, p.seen))
            .collect();
        self.perform(at, actions);
        for (vm, seen) in found {
            let run = match seen {
                Seen::Running | Seen::Copying => RunState::Running,
                _ => RunState::Paused,
            };
            let definition = self.guests[&vm].definition.clone();
            self.handle(at, Event::Sighting(Sighting::Found(definition, run)));
        }
        for seed in self.sites.keys().copied().filter(|seed| *seed != at).collect::<Vec<_>>() {
            self.handle(at, Event::Join(address(seed)));
        }
    }

    /// Whether nothing is open any more, everywhere.
    pub(crate) fn settled(&self) -> Result<(), String> {
        check::settled(self)
    }
}

/// One cycle of a monitor: counters have grown by a second of each guest that executes here.
pub(crate) fn read(world: &mut World, at: u8) -> Reading {
    let site = world.sites.get_mut(&at).unwrap();
    let mut vms = BTreeMap::new();
    for vm in site.hypervisor.processes.keys() {
        let guest = world.guests.get_mut(vm).unwrap();
        if site.hypervisor.executes(*vm) {
            guest.link.received_packets += guest.packets;
            guest.link.received_bytes = Bytes(guest.link.received_bytes.0 + guest.packets * 100);
            guest.cpu_us += guest.cpu * 1000;
            site.machine.cpu_us += guest.cpu * 1000;
        }
        let link = guest.has_tap.then_some(guest.link);
        let memory = guest.definition.memory;
        let (cpu_us, process_start) = (guest.cpu_us, u64::from(at));
        vms.insert(*vm, VmReading { vm: *vm, link, cpu_us, process_start, memory });
    }
    let used = vms.values().fold(Mib(0), |sum, vm| sum.plus(vm.memory));
    Reading {
        cpu_us: site.machine.cpu_us,
        cores: site.machine.cores,
        memory_total: site.machine.memory,
        memory_available: site.machine.memory.minus(used),
        pressure: None,
        uplink: None,
        uplink_speed: Some(BitsPerSec(1_000_000_000)),
        vms: vms.into_values().collect(),
    }
}
