//! VMs that come here without Evenkeel: by an operator's own migration, an HA manager, another balancer.
//!
//! Each is adopted and left alone for its rest. One that comes again so is wanted here by somebody: each time it is left alone for
//! twice as long, by rules too, since two movers that undo each other's moves would go on for ever. At the third time an alarm
//! names it.
//!
//! **Invariant:** what is remembered is limited: in number, and to a day or twice the rest after a VM came last.

use std::time::Duration;

use super::story::{Note, Step};
use super::{Action, Host};
use crate::membership::HostState;
use crate::membership::inventory::{Listed, ListedState};
use crate::migrate::hypervisor::VmDefinition;
use crate::migrate::record::{Ownership, VmRecord};
use crate::units::{Time, VmId};

/// So often in a row is no accident.
const DUEL: u32 = 3;
/// Doublings of the rest at the most: of 6 h up to 8 days.
pub(super) const DOUBLINGS_MAX: u32 = 5;
/// A VM that came so is remembered for so long at least.
const REMEMBERED: Duration = Duration::from_hours(24);
/// VMs that are remembered.
const VMS_MAX: usize = 1000;

/// How the alarm begins.
pub const DUELLING: &str = "somebody else moves it too";

/// How often a VM has come here without Evenkeel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Comings {
    times: u32,
    last: Time,
    rest: Duration,
}

impl Host {
    /// A VM was found that was not here before: how long balancing leaves it alone, and, where somebody insists that it is here,
    /// rules too. Told in words as well.
    pub(super) fn rest_of_found(
        &mut self,
        now: Time,
        definition: &VmDefinition,
        known: Option<VmRecord>,
        actions: &mut Vec<Action>,
    ) -> (Time, Time, String) {
        let vm = definition.vm;
        let own = self.settings.rules.of(vm, &definition.name, &definition.tags).rest;
        let base = own.unwrap_or(self.settings.worth_it.vm_rest);
        let Some(from) = self.came_from(vm, known) else {
            let words = format!("it is left alone for {}", span(base));
            return (now.plus(base), Time::default(), words);
        };
        let times = self.foreign.get(&vm).map_or(1, |comings| comings.times.saturating_add(1));
        let rest = base.saturating_mul(2_u32.pow((times - 1).min(DOUBLINGS_MAX)));
        if self.foreign.len() >= VMS_MAX && !self.foreign.contains_key(&vm) {
            let oldest = self.foreign.iter().min_by_key(|(_, comings)| comings.last);
            oldest.map(|(vm, _)| *vm).map(|vm| self.foreign.remove(&vm));
        }
        self.foreign.insert(vm, Comings { times, last: now, rest });
        if times == DUEL {
            let words = format!(
                "{DUELLING}: it came here without Evenkeel {times} times in a row, after it had been moved away; from now on it is left alone longer each time. End one of the two: exclude it (`evenkeel exclude`), or have the other leave it"
            );
            self.alarm_once(Note::new(Step::Alarm, words).about(vm), actions);
        }
        let again =
            if times == 1 { String::new() } else { format!(", the {} time in a row", nth(times)) };
        let words = format!("{from}{again}; it is left alone for {}", span(rest));
        let until = now.plus(rest);
        (until, if times == 1 { Time::default() } else { until }, words)
    }

    /// Where a VM was that came here without Evenkeel, in words; nothing, if it was only started.
    fn came_from(&self, vm: VmId, known: Option<VmRecord>) -> Option<String> {
        // What a host that is gone listed last says nothing: its VMs are started elsewhere, and that is no move.
        let alive = self.inventories().filter(|(view, ..)| view.state == HostState::Alive);
        // Nor does a list that is older than what this journal knows.
        let owned = known.filter(|known| known.ownership == Ownership::Owner);
        let after = owned.map_or(0, |known| known.floor);
        let mut at = alive.filter_map(|(view, _, inventory)| {
            let there = |it: &Listed| {
                let runs = matches!(it.state, ListedState::Running | ListedState::Paused);
                it.vm == vm && runs && it.epoch >= after
            };
            inventory.vms.iter().any(there).then(|| view.peer.name.clone())
        });

        match at.next() {
            Some(host) => Some(format!("somebody has moved it from {host}")),
            None if known.is_some_and(|known| known.ownership == Ownership::Away) => {
                Some("somebody has moved it back".to_owned())
            }
            None => None,
        }
    }

    /// Forgets VMs that have not come so for a long time; their alarm is over.
    pub(super) fn forget_foreign(&mut self, now: Time, actions: &mut Vec<Action>) {
        let over = |comings: &Comings| {
            now.since(comings.last) > REMEMBERED.max(comings.rest.saturating_mul(2))
        };
        let vms = self.foreign.iter().filter(|(_, comings)| over(comings));
        let vms: Vec<(VmId, u32)> = vms.map(|(vm, comings)| (*vm, comings.times)).collect();
        for (vm, times) in vms {
            self.foreign.remove(&vm);
            if times >= DUEL {
                let of_it = |note: &Note| note.vm == Some(vm) && note.reason.starts_with(DUELLING);
                self.alarms.retain(|note| !of_it(note));
                let words = "nobody else has moved it for a long time";
                actions.push(Action::Note(Note::new(Step::Monitoring, words).about(vm)));
            }
        }
    }
}

fn nth(times: u32) -> String {
    let ending = match (times % 10, times % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        (_, _) => "th",
    };
    format!("{times}{ending}")
}

/// In the greatest unit that leaves a whole number.
fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0 => "0 s".to_owned(),
        s if s.is_multiple_of(86_400) => format!("{} d", s / 86_400),
        s if s.is_multiple_of(3600) => format!("{} h", s / 3600),
        s if s.is_multiple_of(60) => format!("{} min", s / 60),
        s => format!("{s} s"),
    }
}
