//! What outlives a restart of the agent, so that nothing moves sooner for it: rests of VMs, moves in a row that did not pay, and the
//! balancing moves of the day.
//!
//! **Invariant:** it only keeps VMs from being moved by themselves; no ownership follows from a word of it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::foreign;
use super::pay_back::DOUBLINGS_MAX;
use super::{Action, Host};
use crate::migrate::record::Ownership;
use crate::units::{Time, VmId};

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rests {
    /// When the balancing moves of the last day began.
    pub made: Vec<Time>,
    /// VMs here of which there is something to keep.
    pub vms: BTreeMap<VmId, Rest>,
}

/// How long one VM is left alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rest {
    /// Not moved by itself before.
    pub until: Time,
    /// A rule that it breaks here is not mended before.
    pub insisted_until: Time,
    /// Moves of it in a row that did not pay.
    pub unpaid: u32,
}

/// Rests as they were before the agent started, of VMs that it has not found yet; and whether something is to be kept anew.
#[derive(Clone, Debug, Default)]
pub(super) struct Lasting {
    before: BTreeMap<VmId, Rest>,
    pub(super) changed: bool,
}

impl Lasting {
    /// A VM has come by a move: what was before is over.
    pub(super) fn forget(&mut self, vm: VmId) {
        self.before.remove(&vm);
    }
}

impl Host {
    /// What was kept before the agent started. It may have been by a clock that was ahead of this one.
    pub(super) fn recall_rests(&mut self, now: Time, rests: Rests) {
        self.recent.extend(rests.made.into_iter().map(|began| began.min(now)));
        self.lasting.before = rests.vms;
        let here: Vec<VmId> = self.vms.keys().copied().collect();
        here.into_iter().for_each(|vm| self.rest_as_before(now, vm));
    }

    /// A VM that was found rests on as before.
    pub(super) fn rest_as_before(&mut self, now: Time, vm: VmId) {
        let Some(rest) = self.lasting.before.remove(&vm) else { return };
        let unpaid = rest.unpaid.min(DOUBLINGS_MAX);
        self.pay_backs.count_unpaid(vm, unpaid);
        let usual = self.settings.worth_it.vm_rest;
        if let Some(here) = self.vms.get_mut(&vm) {
            let doubled = 2_u32.pow(DOUBLINGS_MAX.max(foreign::DOUBLINGS_MAX));
            let longest = here.rules.rest.unwrap_or(usual).saturating_mul(doubled);
            let within = |until: Time| until.min(now.plus(longest));
            here.rest_until = here.rest_until.max(within(rest.until));
            here.insisted_until = here.insisted_until.max(within(rest.insisted_until));
        }
    }

    /// Has it kept as a whole, if something of it has changed.
    pub(super) fn keep_rests(&mut self, now: Time, actions: &mut Vec<Action>) {
        if !std::mem::take(&mut self.lasting.changed) {
            return;
        }
        let here = self.vms.iter().map(|(vm, here)| {
            let unpaid = self.pay_backs.unpaid(*vm);
            let (until, insisted_until) = (here.rest_until, here.insisted_until);
            (*vm, Rest { until, insisted_until, unpaid })
        });
        // Those that were not found yet may be still, where this host owns them.
        let owned = |vm: &VmId| {
            let of = self.records.get(vm).map(|record| record.ownership);
            matches!(of, Some(Ownership::Owner | Ownership::Down))
        };
        let before = self.lasting.before.iter().filter(|(vm, _)| owned(vm));
        let all = before.map(|(vm, rest)| (*vm, *rest)).chain(here);
        let lasts = |rest: &Rest| {
            rest.unpaid > 0 || rest.until.max(rest.insisted_until).since(now) > Duration::ZERO
        };
        let vms = all.filter(|(_, rest)| lasts(rest)).collect();
        actions.push(Action::KeepRests(Rests { made: self.recent.clone(), vms }));
    }
}
