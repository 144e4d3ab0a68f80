//! A night: hosts become hot in the evening, one after another, and move VMs; then hours in which nothing has to be moved.

use std::time::Duration;

use decide::units::{Time, VmId};

use super::stage::{Running, Stage, now_micros};

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;
/// From nine in the evening until half past three.
const SPAN: u64 = 6 * HOUR + HOUR / 2;
const ENDS: u64 = 3 * HOUR + HOUR / 2;
/// Ten past three, of which people ask.
const ASKED: u64 = 3 * HOUR + HOUR / 6;
const MINUTE: Duration = Duration::from_secs(60);
/// Minutes after nine, and the host that becomes hot then, counted over all.
const HOT: [(u64, u16); 3] = [(20, 3), (50, 8), (95, 5)];
/// By then the evening's load has gone down.
const CALM: u64 = 180;
/// Thousandths of a core that a busy VM takes, and a host at which so many are busy.
const BUSY: u64 = 4000;
const HOST_BUSY: u64 = 27_500;

/// When it begins, microseconds since 1970: so that ten past three, UTC, in it is the last one that is over outside.
pub(crate) fn begins() -> u64 {
    let now = now_micros() / 1_000_000;
    let today = now / DAY * DAY + ASKED;
    let asked = if today > now { today - DAY } else { today };
    (asked + ENDS - ASKED - SPAN) * 1_000_000
}

/// Ten past three in a night that began then.
pub(crate) fn asked_about(begins: u64) -> Time {
    Time(begins + (SPAN - (ENDS - ASKED)) * 1_000_000)
}

/// Lives it; `each` is called after each minute.
pub(crate) fn live(
    running: &mut Running,
    mut each: impl FnMut(&Stage) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let began = running.stage.world.now;
    let base: Vec<(VmId, u64)> =
        running.stage.world.guests.iter().map(|(vm, guest)| (vm, guest.cpu)).collect();
    let mut busy: Vec<VmId> = Vec::new();
    for minute in 0..SPAN / 60 {
        let hosts = u16::try_from(running.stage.world.sites.len()).unwrap_or(u16::MAX);
        for (_, host) in HOT.iter().filter(|(at, _)| *at == minute) {
            busy.extend(become_busy(running, 1 + (host - 1) % hosts));
        }
        let world = &mut running.stage.world;
        for (vm, cpu) in &base {
            let wobble = 95 + u64::from(world.draw(11));
            let cpu = if busy.contains(vm) { BUSY } else { *cpu };
            let cpu = if minute < CALM { cpu } else { cpu * 6 / 10 };
            if let Some(guest) = world.guests.get_mut(vm) {
                guest.cpu = cpu * wobble / 100;
            }
        }
        running.stage.live(began.plus(MINUTE * u32::try_from(minute + 1).unwrap_or(u32::MAX)))?;
        each(&running.stage)?;
    }
    Ok(())
}

/// The VMs of a host that become busy, as many as make it hot.
fn become_busy(running: &Running, at: u16) -> Vec<VmId> {
    let world = &running.stage.world;
    let here: Vec<(VmId, u64)> = world
        .fleet
        .processes(at)
        .filter_map(|(vm, _)| Some((vm, world.guests.get(vm)?.cpu)))
        .collect();
    let mut used: u64 = here.iter().map(|(_, cpu)| cpu).sum();
    let mut busy = Vec::new();
    for (vm, cpu) in here {
        if used >= HOST_BUSY {
            break;
        }
        used += BUSY.saturating_sub(cpu);
        busy.push(vm);
    }
    busy
}
