//! What is recommended where nothing moves unless a person says so: one move at a time for balancing, and one of each VM that breaks
//! a rule.
//!
//! **Invariant:** while what asks for a move lasts it is told once, and never more of them than a host would begin.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::policy::settings::Trigger;
use crate::units::{Time, VmId};

/// A recommendation holds for so long, then it is judged anew: if it still would pay it goes on, untold.
const GOOD_FOR: Duration = Duration::from_mins(10);
/// While it stands, others that need no person are looked at so often.
const LOOKS_EVERY: Duration = Duration::from_secs(30);

/// All of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Recommended {
    balancing: Option<Balancing>,
    by_rule: BTreeMap<VmId, ByRule>,
    looks_again: Time,
}

#[derive(Clone, Copy, Debug)]
struct Balancing {
    vm: VmId,
    trigger: Trigger,
    since: Time,
    until: Time,
}

#[derive(Clone, Copy, Debug)]
struct ByRule {
    since: Time,
    /// When the rule was seen to be broken last.
    seen: Time,
    /// It only says where the VM should be.
    preference: bool,
}

impl Recommended {
    /// The VM whose move was recommended last on such account, and whether that still holds without looking again.
    pub(super) fn standing(&self, now: Time, trigger: Trigger) -> Option<(VmId, bool)> {
        let balancing = self.balancing.filter(|it| it.trigger == trigger)?;
        Some((balancing.vm, now < balancing.until))
    }

    /// While one stands: whether it is time to look whether another VM would go by itself by now.
    pub(super) fn look_again(&mut self, now: Time) -> bool {
        let due = now >= self.looks_again;
        if due {
            self.looks_again = now.plus(LOOKS_EVERY);
        }
        due
    }

    /// Recommends to move a VM so that load is balanced; whether that is new.
    pub(super) fn balance(&mut self, now: Time, vm: VmId, trigger: Trigger) -> bool {
        let same = self.balancing.filter(|it| (it.vm, it.trigger) == (vm, trigger));
        let since = same.map_or(now, |it| it.since);
        let until = now.plus(GOOD_FOR);
        self.balancing = Some(Balancing { vm, trigger, since, until });
        same.is_none()
    }

    /// Nothing asks for a balancing move: what was told is void. Where no window keeps trembling loads from asking anew it is for a while.
    pub(super) fn nothing_asks(&mut self, now: Time) {
        self.balancing = self.balancing.filter(|it| it.trigger != Trigger::Hot && now < it.until);
    }

    /// What was recommended is void.
    pub(super) fn forget_balancing(&mut self) {
        self.balancing = None;
    }

    /// Recommends to move a VM that breaks a rule; whether that is new. One that must be kept is news after one that should.
    pub(super) fn by_rule(&mut self, now: Time, vm: VmId, preference: bool) -> bool {
        let same = self.by_rule.get(&vm).filter(|it| preference || !it.preference).copied();
        let told = same.unwrap_or(ByRule { since: now, seen: now, preference });
        self.by_rule.insert(vm, ByRule { seen: now, ..told });
        same.is_none()
    }

    /// Forgets VMs that have broken no rule for a while.
    pub(super) fn forget_mended(&mut self, now: Time) {
        self.by_rule.retain(|_, it| now.since(it.seen) < GOOD_FOR);
    }

    /// Since when a balancing move of the VM is recommended.
    pub(super) fn since(&self, vm: VmId) -> Option<Time> {
        self.balancing.filter(|it| it.vm == vm).map(|it| it.since)
    }

    /// Since when one for a rule is.
    pub(super) fn since_by_rule(&self, vm: VmId) -> Option<Time> {
        self.by_rule.get(&vm).map(|it| it.since)
    }
}
