//! What a seed's cluster is: its hosts, their clocks, its VMs, and what operators and guests do to it.

use std::time::Duration;

use decide::host::Ask;
use decide::migrate::Resolution;
use decide::migrate::hypervisor::Seen;
use decide::migrate::record::{MoveStage, Ownership};
use decide::placement::admission::{room, size_with_overhead};
use decide::policy::settings::{Settings, Trigger};
use decide::units::{BitsPerSec, Cost, Mib, MoveId, Share, Time, VmId};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

use super::rules;
use crate::checks::taken;
use crate::hypervisor::Memory;
use crate::world::scene::{Machine, settings};
use crate::world::{Clock, World, host_id, number};

/// VMs for each host.
const VMS_PER_HOST: u16 = 10;
/// Packets in a second at which a host is hot, in hundreds.
const PACKETS_MAX: u64 = 1000;

/// A guest that dirties no more than this in a second can be moved over any link here.
const QUIET: Mib = Mib(30);

/// A cluster of so many hosts, its agents about to start.
pub(super) fn cluster(seed: u64, hosts: u16) -> World {
    let mut world = World::new(seed, Settings::default());
    world.checks.kept = true;
    let Special { ruled, tight } = Special::of(seed);
    world.settings = drawn_settings(&mut world);
    if tight {
        evens_out(&mut world.settings);
    }
    let memories: Vec<Memory> = (0..hosts * VMS_PER_HOST).map(|_| memory(&mut world)).collect();
    let all = memories.iter().fold(Mib(0), |sum, m| sum.plus(size_with_overhead(m.size)));
    // Guests take between a half and three quarters of the room there is; where it is tight, most of it.
    let taken = u64::from(if tight { 84 + world.draw(9) } else { 50 + world.draw(26) });
    let each = all.0 * 100 / taken / u64::from(hosts) * 1000
        / u64::from(world.settings.target.memory_used_max.0);
    for at in 1..=hosts {
        let uneven = each * u64::from(85 + world.draw(40)) / 100 + 1024;
        let mut machine = Machine::new(16 + 8 * world.draw(3), uneven, PACKETS_MAX);
        machine.link = BitsPerSec([1, 10, 10, 25][world.draw(4) as usize] * 1_000_000_000);
        let drift = world.faults.drift();
        let shown = Time(1_000_000 + u64::from(world.draw(1 << 30)));
        let clock = Clock::new(world.now, shown, drift);
        world.add(at, machine, clock);
        let after = Duration::from_millis(u64::from(world.draw(2000)));
        world.start_agent(at, after);
    }
    for (n, memory) in (1..).zip(memories) {
        place(&mut world, n, memory);
    }
    if tight {
        heat(&mut world);
    }
    if ruled {
        rules::lay_down(&mut world);
    }
    world
}

/// What some clusters are beside. It is drawn apart from all else, so that a cluster without it is what it would be anyway.
struct Special {
    /// There are rules about where VMs are.
    ruled: bool,
    /// Memory is tight everywhere and loads are evened out: so hosts swap VMs.
    tight: bool,
}

impl Special {
    fn of(seed: u64) -> Special {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(2);
        Special { ruled: rng.next_u32().is_multiple_of(3), tight: rng.next_u32().is_multiple_of(4) }
    }
}

fn evens_out(settings: &mut Settings) {
    settings.mode.trigger = Trigger::Spread;
    settings.spread.gain_min = Cost::percent(1);
    settings.target.memory_used_max = Share(960);
}

/// VMs of every second host have much more to do, but do not make it hot.
fn heat(world: &mut World) {
    for at in world.sites.keys().copied().filter(|at| at.is_multiple_of(2)) {
        let enough = u64::from(world.sites[&at].machine.cores) * 600;
        let all: Vec<VmId> = world.fleet.processes(at).map(|(vm, _)| vm).collect();
        let mut sum: u64 = all.iter().map(|vm| world.guests[vm].cpu).sum();
        for vm in all {
            let guest = world.guests.get_mut(&vm).expect("it runs here");
            if sum + 2 * guest.cpu <= enough {
                sum += 2 * guest.cpu;
                guest.cpu *= 3;
            }
        }
    }
}

fn drawn_settings(world: &mut World) -> Settings {
    let mut settings = settings();
    settings.target.memory_reserve = Mib(512);
    settings.limits.moves_per_host = 1 + world.draw(3);
    settings.limits.moves_per_day = 10_000;
    settings.worth_it.vm_rest = Duration::from_secs(1 + u64::from(world.draw(40)));
    settings.worth_it.host_rest = Duration::from_secs(1 + u64::from(world.draw(4)));
    settings
}

/// A guest's memory: most are small and quiet, some are large, some dirty faster than links carry.
fn memory(world: &mut World) -> Memory {
    let size = [256, 512, 512, 1024, 1024, 2048, 2048, 4096][world.draw(8) as usize];
    let (share, rate) = match world.draw(20) {
        0 => (2, 4000),
        1..4 => (3, 300),
        4..10 => (8, 40),
        _ => (20, 5),
    };
    let rate: u32 = rate / 2 + world.draw(rate);
    Memory { size: Mib(size), working_set: Mib(size / share), dirty_rate: Mib(u64::from(rate)) }
}

/// Puts a VM where there is room, on the first hosts rather than the last.
fn place(world: &mut World, n: u32, memory: Memory) {
    let hosts = u32::try_from(world.sites.len()).unwrap_or(1);
    let size = size_with_overhead(memory.size);
    let first = world.draw(hosts).min(world.draw(hosts));
    let fits = |world: &World, at: u16| {
        let room = room(&world.settings.target, world.sites[&at].machine.memory);
        let used = world.fleet.processes(at).fold(Mib(0), |sum, (vm, _)| {
            sum.plus(size_with_overhead(world.guests[&vm].definition.memory))
        });
        used.plus(size) <= room
    };
    let order = (0..hosts).map(|i| 1 + u16::try_from((first + i) % hosts).unwrap_or(0));
    let at = order.into_iter().find(|at| fits(world, *at));
    // A cluster that is too full for a VM does without it.
    if let Some(at) = at {
        let (cpu, packets) = (100 + world.draw(700), 5 + world.draw(50));
        world.boot_with(at, n, memory, u64::from(cpu), u64::from(packets));
    }
}

/// Somebody, or some guest, does something.
pub(super) fn turn(world: &mut World) {
    if world.checks.ruled.any() && world.draw(3) == 0 {
        return rules::turn(world);
    }
    match world.draw(12) {
        0..6 => move_by_hand(world),
        6 => cancel_by_hand(world),
        7 => start_one_again(world),
        8 => pause_one(world, true),
        9 => pause_one(world, false),
        10 => spot(world, |_, _| true),
        _ => quiet(world),
    }
}

pub(super) fn one_guest(world: &mut World) -> VmId {
    let n = world.draw(u32::try_from(world.guests.len()).unwrap_or(1)) as usize;
    world.guests.keys().nth(n).expect("one of the guests was drawn")
}

fn move_by_hand(world: &mut World) {
    let vm = one_guest(world);
    let hosts = u32::try_from(world.sites.len()).unwrap_or(1);
    let to =
        (world.draw(3) == 0).then(|| host_id(1 + u16::try_from(world.draw(hosts)).unwrap_or(0)));
    let at = world.fleet.of(vm).find(|(_, process)| process.is_complete()).map(|(at, _)| at);
    if let Some(at) = at.filter(|at| world.sites[at].host.is_some()) {
        // That it is refused is an answer too.
        let _ = world.ask(at, Ask::Move { vm, to });
    }
}

fn cancel_by_hand(world: &mut World) {
    let open = world.sites.values().filter_map(|site| site.host.as_ref()).flat_map(|host| {
        let id = host.id();
        host.stories().filter(move |s| s.ended.is_none() && s.move_id.host == id)
    });
    let open: Vec<MoveId> = open.map(|story| story.move_id).collect();
    if open.is_empty() {
        return;
    }
    let n = world.draw(u32::try_from(open.len()).unwrap_or(1)) as usize;
    let _ = world.ask(number(open[n].host), Ask::Cancel(open[n]));
}

/// An operator looks which VM is down and starts it again at its owner, if that is beyond doubt.
fn start_one_again(world: &mut World) {
    let down: Vec<VmId> = world.checks.down().iter().copied().collect();
    for vm in down {
        if let Some(at) = may_start(world, vm) {
            return world.start_again(at, vm);
        }
    }
}

/// Every VM that is down and has an owner is started again, and every guest that an operator paused goes on; whether any did.
pub(super) fn all_run_again(world: &mut World) -> bool {
    end_leftovers(world);
    let mut any = resolve_all(world) | restart_forgetful(world);
    for vm in world.checks.down().iter().copied().collect::<Vec<_>>() {
        if let Some(at) = may_start(world, vm) {
            world.start_again(at, vm);
            any = true;
        }
    }
    for vm in world.guests.keys().collect::<Vec<_>>() {
        let at = world.fleet.of(vm).find(|(_, p)| p.seen == Seen::Paused).map(|(at, _)| at);
        if let Some(at) = at.filter(|at| owns(world, *at, vm)) {
            world.pause(at, vm, false);
            any = true;
        }
    }
    any
}

/// That a VM's only copy died at its new owner is written once; if that fails, its move stays open in the journal until the
/// agent starts again. Whether any was started again.
fn restart_forgetful(world: &mut World) -> bool {
    let forgetful = world.sites.iter().filter(|(at, site)| {
        let owning = site.journal.moves.values().filter(|open| open.stage == MoveStage::Owning);
        site.host.is_some()
            && owning.clone().any(|open| world.fleet.process(**at, open.vm).is_none())
    });
    let forgetful: Vec<u16> = forgetful.map(|(at, _)| *at).collect();
    forgetful.iter().for_each(|at| world.crash_for(*at, Duration::from_secs(1)));
    !forgetful.is_empty()
}

/// A source that died in the last round leaves a complete copy at its target, which waits for a person: whether the guest ran
/// on before, no agent can know. This one does know. Whether there was any.
fn resolve_all(world: &mut World) -> bool {
    let mut stranded = Vec::new();
    for vm in world.guests.keys() {
        let all: Vec<_> = world.fleet.of(vm).collect();
        let [(at, process)] = all[..] else { continue };
        let open = process.move_id().filter(|id| world.sites[&at].journal.moves.contains_key(id));
        if let Some(id) = open.filter(|_| process.seen == Seen::IncomingComplete) {
            stranded.push((at, id, process.stale));
        }
    }
    for (at, move_id, stale) in &stranded {
        let resolution = if *stale { Resolution::GiveUp } else { Resolution::KeepHere };
        let fenced = Some(move_id.host);
        // If it may not be resolved, it goes on by itself, and is looked at again.
        let _ = world.ask(*at, Ask::Resolve { move_id: *move_id, resolution, fenced });
    }
    !stranded.is_empty()
}

/// A VM that died at its new owner, perhaps before it ran there, leaves its stopped copy at the source: nobody may know better
/// than a person. This one ends it.
fn end_leftovers(world: &mut World) {
    let all: Vec<(u16, VmId)> = world
        .sites
        .keys()
        .flat_map(|at| world.fleet.processes(*at).map(|(vm, process)| (*at, vm, process.seen)))
        .filter(|(.., seen)| *seen == Seen::PostMigrate)
        .map(|(at, vm, _)| (at, vm))
        .collect();
    for (at, vm) in all {
        let open = world.sites[&at].journal.moves.values().any(|open| open.vm == vm);
        if !open && world.fleet.of(vm).count() == 1 {
            world.kill(at, vm);
        }
    }
}

fn may_start(world: &World, vm: VmId) -> Option<u16> {
    if world.fleet.of(vm).next().is_some() {
        return None;
    }
    let mut owners = Vec::new();
    for (at, site) in &world.sites {
        if site.host.is_none() || site.journal.moves.values().any(|open| open.vm == vm) {
            return None;
        }
        let record = site.journal.vms.get(&vm);
        if record.is_some_and(|r| matches!(r.ownership, Ownership::Owner | Ownership::Down)) {
            owners.push(*at);
        }
    }
    let [at] = owners[..] else { return None };
    let host = world.sites[&at].host.as_ref()?;
    let size = size_with_overhead(world.guests[&vm].definition.memory);
    let known = host.vms().contains_key(&vm);
    let free = room(&world.settings.target, world.sites[&at].machine.memory).minus(taken(host));
    (known || size <= free).then_some(at)
}

fn pause_one(world: &mut World, paused: bool) {
    let vm = one_guest(world);
    let wanted = if paused { Seen::Running } else { Seen::Paused };
    let at = world.fleet.of(vm).find(|(_, process)| process.seen == wanted).map(|(at, _)| at);
    if let Some(at) = at.filter(|at| owns(world, *at, vm)) {
        world.pause(at, vm, paused);
    }
}

fn owns(world: &World, at: u16, vm: VmId) -> bool {
    let journal = &world.sites[&at].journal;
    let owner = journal.vms.get(&vm).is_some_and(|record| record.ownership == Ownership::Owner);
    owner && !journal.moves.values().any(|open| open.vm == vm)
}

/// Some guests of one host become busy, of those that may.
fn spot(world: &mut World, may: impl Fn(&World, VmId) -> bool) {
    let hosts = u32::try_from(world.sites.len()).unwrap_or(1);
    let at = 1 + u16::try_from(world.draw(hosts)).unwrap_or(0);
    let all: Vec<VmId> = world.fleet.processes(at).map(|(vm, _)| vm).collect();
    let mut sum: u64 = all.iter().map(|vm| world.guests[vm].packets).sum();
    // Little above the limit: then few departures are enough, and one too many does harm.
    let enough = PACKETS_MAX * u64::from(101 + world.draw(25)) / 100;
    for vm in all {
        if sum > enough {
            return;
        }
        if !may(world, vm) {
            continue;
        }
        let more = 150 + u64::from(world.draw(200));
        let guest = world.guests.get_mut(&vm).expect("it runs here");
        sum += more.saturating_sub(guest.packets);
        guest.packets = guest.packets.max(more);
    }
}

/// A guest has less to do.
fn quiet(world: &mut World) {
    let vm = one_guest(world);
    let packets = u64::from(5 + world.draw(50));
    world.guests.get_mut(&vm).expect("it was drawn").packets = packets;
}

/// Loads for the end: all hosts busy to some degree, some hot, and room for what is too much. A guest that dirties faster than
/// links carry cannot be helped, so it has nothing to do with this.
pub(super) fn last_loads(world: &mut World) {
    let busy = 20 + world.draw(80);
    for vm in world.guests.keys().collect::<Vec<_>>() {
        let quiet = world.fleet.memory(vm).dirty_rate <= QUIET;
        let packets = if quiet { u64::from(10 + world.draw(busy)) } else { 1 };
        world.guests.get_mut(&vm).expect("it was listed").packets = packets;
    }
    for _ in 0..1 + world.sites.len() / 3 {
        spot(world, |world, vm| world.fleet.memory(vm).dirty_rate <= QUIET);
    }
}
