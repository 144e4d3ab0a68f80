//! One life of a cluster whose guests follow a trace, slot by slot.

use std::time::Duration;

use decide::host::story::Step;
use decide::policy::settings::{Balance, Settings};
use decide::units::{BitsPerSec, Mib};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use serde::Serialize;

use crate::hypervisor::Memory;
use crate::traces::Guest;
use crate::world::scene::{Machine, vm_id};
use crate::world::{Clock, World};

/// Cores of each host.
const CORES: u32 = 16;
/// Guests take so much of the memory that may be given to them, percent.
const MEMORY_TAKEN: u64 = 70;
/// Minutes in a slot of a trace.
const SLOT_MINUTES: usize = 5;
/// Monitors read every five seconds here, which is enough for loads that change every five minutes.
const READ_EVERY: Duration = Duration::from_secs(5);
/// Thousandths of a core that a guest may ask for: half a host.
const GUEST_MAX: f64 = 8000.0;

/// What every cluster is.
#[derive(Clone, Debug)]
pub struct Options {
    /// Hosts of 16 cores.
    pub hosts: u16,
    /// Guests, drawn by the seed from those of the trace.
    pub vms: usize,
    /// Loads are scaled, all alike, until their mean is so much of all processors, percent.
    pub load: u32,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Figures {
    /// Moves that were made.
    pub moves: u64,
    /// Memory of the VMs that moved.
    pub gib_moved: f64,
    /// Minutes, summed over hosts, in which guests asked for more processor than their host has.
    pub overload_minutes: u64,
    /// The same for more than the hot threshold of processor use.
    pub hot_minutes: u64,
    /// Targets that had accepted, read the history, and refused.
    pub refused_at_readiness: u64,
    /// Refusals of any kind.
    pub refusals: u64,
}

/// Lives a seed's cluster through the whole trace.
///
/// # Panics
/// If something that must hold in every world does not.
pub fn live(seed: u64, guests: &[Guest], options: &Options, travels: bool) -> Figures {
    let drawn = drawn(seed, guests, options.vms);
    let scale = scale(&drawn, options);
    let mut world = cluster(seed, &drawn, options);
    world.histories_travel = travels;
    let mut figures = Figures::default();
    let slots = drawn.first().map_or(0, |guest| guest.cpu.len());
    for slot in 0..slots {
        follow(&mut world, &drawn, slot, scale);
        for _ in 0..SLOT_MINUTES {
            world.run(Duration::from_secs(60));
            count_minute(&world, &mut figures);
        }
    }
    count_moves(&world, &mut figures);
    figures
}

/// The seed's guests, in its order.
fn drawn(seed: u64, guests: &[Guest], n: usize) -> Vec<Guest> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut all: Vec<&Guest> = guests.iter().collect();
    for at in (1..all.len()).rev() {
        all.swap(at, rng.next_u32() as usize % (at + 1));
    }
    all.into_iter().take(n).cloned().collect()
}

/// Thousandths of a core that a guest asks for in a slot, before scaling; where nothing was measured, nothing.
fn asks(guest: &Guest, slot: usize) -> f64 {
    guest.cpu[slot].unwrap_or(0.0) * f64::from(guest.cores) * 10.0
}

/// What makes the mean of all loads what it is to be.
fn scale(guests: &[Guest], options: &Options) -> f64 {
    let slots = guests.first().map_or(1, |guest| guest.cpu.len());
    let all = |guest: &Guest| (0..slots).map(|slot| asks(guest, slot)).sum::<f64>();
    let mean = guests.iter().map(all).sum::<f64>() / slots as f64;
    let wanted = f64::from(options.load) / 100.0 * f64::from(CORES) * 1000.0;
    wanted * f64::from(options.hosts) / mean.max(1.0)
}

/// Guests of traces that do not tell their memory: 1, 2 or 4 GiB by their number.
fn memory(guest: &Guest) -> u64 {
    let untold = 1024 << (guest.vm % 3);
    if guest.memory_mib == 0 { untold } else { guest.memory_mib.clamp(512, 8192) }
}

/// Hosts alike, guests dealt to them in turn, default settings but `automatic`.
fn cluster(seed: u64, guests: &[Guest], options: &Options) -> World {
    let mut settings = Settings::default();
    settings.mode.balance = Balance::Automatic;
    let share = u64::from(settings.target.memory_used_max.0);
    let mut world = World::new(seed, settings);
    world.read_every = READ_EVERY;
    let hosts = u64::from(options.hosts);
    let sizes: u64 = guests.iter().map(|guest| memory(guest) + memory(guest) / 20 + 64).sum();
    let each = sizes * 100 / MEMORY_TAKEN / hosts * 1000 / share + 8192;
    for at in 1..=options.hosts {
        let mut machine = Machine::new(CORES, each, u64::from(u32::MAX));
        machine.link = BitsPerSec(10_000_000_000);
        world.add(at, machine, Clock::default());
    }
    for (n, guest) in guests.iter().enumerate() {
        let size = Mib(memory(guest));
        let memory = Memory { size, working_set: Mib(size.0 / 10), dirty_rate: Mib(20) };
        let at = 1 + u16::try_from(n % usize::from(options.hosts)).unwrap_or(0);
        world.boot_with(at, number(n), memory, 0, 0);
    }
    // Who starts finds them: one that comes later would be left alone for `vm_rest`.
    (1..=options.hosts).for_each(|at| world.restart(at));
    world
}

fn number(n: usize) -> u32 {
    u32::try_from(n + 1).unwrap_or(u32::MAX)
}

/// All guests do what the trace says of this slot.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "loads are not negative, and `as` saturates"
)]
fn follow(world: &mut World, guests: &[Guest], slot: usize, scale: f64) {
    for (n, follows) in guests.iter().enumerate() {
        let guest = world.guests.get_mut(&vm_id(number(n))).expect("it was booted");
        guest.cpu = (asks(follows, slot) * scale).min(GUEST_MAX) as u64;
        // A KB/s is ten of the world's packets.
        let traffic = follows.network.get(slot).copied().flatten().unwrap_or(0.0);
        guest.packets = (traffic * 10.0) as u64;
    }
}

fn count_minute(world: &World, figures: &mut Figures) {
    let hot = u64::from(world.settings.hot.cpu_used.0);
    for at in world.sites.keys() {
        let here = world.fleet.processes(*at).filter(|(_, process)| process.executes());
        let asked: u64 = here.map(|(vm, _)| world.guests[&vm].cpu).sum();
        let all = u64::from(CORES) * 1000;
        figures.overload_minutes += u64::from(asked > all);
        figures.hot_minutes += u64::from(asked * 1000 > all * hot);
    }
}

fn count_moves(world: &World, figures: &mut Figures) {
    for passed in &world.checks.passed {
        figures.moves += 1;
        let size = world.guests[&passed.vm].definition.memory.0;
        figures.gib_moved += size as f64 / 1024.0;
    }
    // A refusal is noted by the target; what was read in a history is named in it.
    let refusals = world.notes.iter().filter(|(_, _, note)| note.step == Step::Refusal);
    let own = refusals.filter(|(_, at, note)| {
        note.move_id.is_some_and(|id| id.host != crate::world::host_id(*at))
    });
    for (_, _, note) in own {
        figures.refusals += 1;
        figures.refused_at_readiness += u64::from(note.reason.contains("read in its history"));
    }
}
