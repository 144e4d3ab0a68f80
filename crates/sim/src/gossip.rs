//! What the hosts' views of each other cost: membership, digests and inventories, by the number of hosts.
//!
//! A cluster starts, finds itself and fetches all inventories; then its guests' loads tremble and sometimes change (steady);
//! then VMs are moved as well (churn). Counted is what hosts give to the network, without what UDP, TCP and HTTP add.
//!
//! **Invariant:** the same seed and hosts give the same figures.

use std::time::Duration;

use decide::host::Ask;
use decide::policy::settings::{Balance, Settings};
use decide::units::{Mib, PacketsPerSec, VmId};
use serde::Serialize;

use crate::hypervisor::Memory;
use crate::world::{Sent, World};

/// VMs of each host.
const VMS: u32 = 10;
/// Memory of a guest, and of a host, in MiB: there is room for a few more.
const GUEST: u64 = 1024;
const HOST: u64 = 24 * GUEST;
/// Packets in a second that a host can take.
const PACKETS: u64 = 100_000;
/// Of so many guests, one has another load from this second on.
const CHANGES_ONE_OF: u32 = 600;
/// In the churn each host sends a VM away once in so many seconds.
const MOVES_EVERY: u32 = 600;
/// A cluster that has not found itself by then never will.
const START_MAX: u32 = 900;

/// Bytes per host and second are at most `a + b * hosts`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bound {
    /// Bytes per second.
    pub a: f64,
    /// Bytes per second for each host.
    pub b: f64,
}

/// As published in docs/benchmarks.md, for the churn; a test holds it.
pub const PUBLISHED: Bound = Bound { a: 6000.0, b: 38.0 };

/// What one size of cluster costs.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Row {
    /// Hosts.
    pub hosts: u16,
    /// Simulated seconds until every host knew every other, its figures and its VMs.
    pub start_s: u32,
    /// While nothing moves.
    pub steady: Cost,
    /// While VMs are moved.
    pub churn: Cost,
    /// Moves made in that time.
    pub moves: u64,
}

/// Per host and second, and how old views are.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Cost {
    /// Datagrams.
    pub datagrams: f64,
    /// Their bytes.
    pub datagram_bytes: f64,
    /// Inventories sent.
    pub inventories: f64,
    /// Their bytes.
    pub inventory_bytes: f64,
    /// Mean age of what a host knows of another, in seconds.
    pub age_mean_s: f64,
    /// The oldest.
    pub age_max_s: f64,
}

impl Cost {
    /// All bytes.
    pub fn bytes(&self) -> f64 {
        self.datagram_bytes + self.inventory_bytes
    }
}

impl Bound {
    /// What it allows for so many hosts, in bytes per host and second.
    pub fn at(&self, hosts: u16) -> f64 {
        self.a + self.b * f64::from(hosts)
    }

    /// The line through the smallest and the largest cluster, raised until it is above all.
    pub fn over(rows: &[(u16, f64)]) -> Bound {
        let (Some(first), Some(last)) =
            (rows.iter().min_by_key(|row| row.0), rows.iter().max_by_key(|row| row.0))
        else {
            return Bound { a: 0.0, b: 0.0 };
        };
        let apart = f64::from(last.0 - first.0);
        let b = if apart > 0.0 { ((last.1 - first.1) / apart).max(0.0) } else { 0.0 };
        let a = rows.iter().map(|(hosts, bytes)| bytes - b * f64::from(*hosts)).fold(0.0, f64::max);
        Bound { a, b }
    }
}

/// Measures a cluster of so many hosts over so many seconds each of steadiness and of churn.
///
/// # Errors
/// If it has not found itself after a quarter of an hour.
pub fn measure(seed: u64, hosts: u16, seconds: u32) -> Result<Row, String> {
    let mut world = cluster(seed, hosts);
    let mut base = loads(&mut world);
    let mut start_s = 0;
    while !found(&world) {
        if start_s >= START_MAX {
            return Err(format!("{hosts} hosts have not found each other in {START_MAX} s"));
        }
        second(&mut world, &mut base);
        start_s += 1;
    }
    // Until beats are no longer those of a common start.
    (0..seconds).for_each(|_| second(&mut world, &mut base));
    let steady = cost(&mut world, hosts, seconds, |world| second(world, &mut base));
    let before = world.checks.passed.len();
    let churn = cost(&mut world, hosts, seconds, |world| {
        moves(world, hosts);
        second(world, &mut base);
    });
    let moves = (world.checks.passed.len() - before) as u64;
    Ok(Row { hosts, start_s, steady, churn, moves })
}

fn cluster(seed: u64, hosts: u16) -> World {
    let mut settings = Settings::default();
    settings.mode.balance = Balance::Off;
    settings.hot.packets_per_second = Some(PacketsPerSec(PACKETS));
    settings.limits.moves_per_host = 4;
    let mut world = World::new(seed, settings);
    world.add_alike(hosts, HOST);
    for at in 1..=hosts {
        for n in 0..VMS {
            let memory = Memory { size: Mib(GUEST), ..Memory::default() };
            world.boot_with(at, u32::from(at) * VMS + n, memory, 0, 0);
        }
    }
    world
}

/// What each guest does in the mean: thousandths of a core, and packets.
fn loads(world: &mut World) -> Vec<(VmId, u32, u32)> {
    let vms: Vec<VmId> = world.guests.keys().collect();
    vms.into_iter().map(|vm| (vm, 100 + world.draw(1200), world.draw(8000))).collect()
}

/// One second in which every guest's load trembles by a fifth, and that of a few changes.
fn second(world: &mut World, base: &mut [(VmId, u32, u32)]) {
    for (vm, cpu, packets) in base {
        if world.draw(CHANGES_ONE_OF) == 0 {
            (*cpu, *packets) = (100 + world.draw(1200), world.draw(8000));
        }
        let tremble = 80 + world.draw(41);
        let guest = world.guests.get_mut(vm).expect("no guest goes away");
        guest.cpu = u64::from(*cpu * tremble / 100);
        guest.packets = u64::from(*packets * tremble / 100);
    }
    world.run(Duration::from_secs(1));
    // Of a thousand hosts a million notes tell that one knows another.
    world.notes.clear();
}

/// Whether every host knows every other, its figures and its VMs.
fn found(world: &World) -> bool {
    let others = world.sites.len() - 1;
    world.sites.values().filter_map(|site| site.host.as_ref()).all(|host| {
        let known = host.membership().alive().filter(|view| view.digest.is_some()).count();
        known == others && host.inventories().count() == others
    })
}

/// Moves by hand: as many as there are to be in one second.
fn moves(world: &mut World, hosts: u16) {
    for at in 1..=hosts {
        if world.draw(MOVES_EVERY) > 0 {
            continue;
        }
        let vm = world.sites[&at].host.as_ref().and_then(|host| host.vms().keys().next().copied());
        if let Some(vm) = vm {
            // That it is refused is an answer too.
            let _ = world.ask(at, Ask::Move { vm, to: None });
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn cost(world: &mut World, hosts: u16, seconds: u32, mut pass: impl FnMut(&mut World)) -> Cost {
    world.net.sent = Sent::default();
    (0..seconds).for_each(|_| pass(world));
    let sent = world.net.sent;
    let each = |sum: u64| sum as f64 / f64::from(hosts) / f64::from(seconds);
    let mut ages = Vec::new();
    for site in world.sites.values() {
        let now = site.clock.shown(world.now);
        let views = site.host.as_ref().map(|host| host.membership().hosts());
        ages.extend(views.into_iter().flatten().map(|view| now.since(view.heard).as_secs_f64()));
    }
    Cost {
        datagrams: each(sent.datagrams),
        datagram_bytes: each(sent.datagram_bytes),
        inventories: each(sent.inventories),
        inventory_bytes: each(sent.inventory_bytes),
        age_mean_s: ages.iter().sum::<f64>() / ages.len().max(1) as f64,
        age_max_s: ages.iter().copied().fold(0.0, f64::max),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_above_every_row() {
        let rows = [(10, 1000.0), (100, 6000.0), (1000, 10_900.0)];
        let bound = Bound::over(&rows);
        assert_eq!(bound, Bound { a: 5000.0, b: 10.0 });
        assert!(rows.iter().all(|(hosts, bytes)| bound.at(*hosts) >= *bytes));
    }
}
