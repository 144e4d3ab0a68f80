//! Pay-back: what was promised of a balancing move is held against what it has brought.
//!
//! ```text
//!   source                              target
//!   promise, just before the copy
//!      │ … the VM runs there …             │ `worth_it.measure_after` passes
//!      │ ◀────────── measured: its load ───┤ (a few times, until answered)
//!   relief by that load: note              │
//!      ├── pay-back: whether it paid ────▶ its rest
//! ```
//!
//! A move that was made for what the next hour was expected to bring is measured when that hour is over.
//! An affinity group is measured as a whole, once all of it has arrived; an exchange once the other half is over. What came in return the source
//! measures itself.
//! The measured relief is what the source would have been rid of if the VM had asked then what it asks now. All else is taken as
//! it was just before the copy: what other VMs have done since is neither to this move's credit nor to its blame.
//!
//! **Invariant:** what is kept here is for people and for rests; no ownership follows from a word of it.
//! **Invariant:** it has a limit, by number and by time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::story::{Note, Step};
use super::{Action, Host};
use crate::policy::cost;
use crate::units::{Cost, HostId, Mib, MoveId, Time, VmId};
use crate::usage::load::{Capacity, Load};
use crate::wire::message::{Body, Confirmation};

/// A rest is doubled at the most so often: 16 times as long.
pub(super) const DOUBLINGS_MAX: u32 = 4;
/// A target tells its figures so often at the most, and so long apart.
const TOLD_MAX: u32 = 5;
const TOLD_EVERY: Duration = Duration::from_mins(1);
/// Whatever a source wishes, a VM is measured before so long has passed.
const MEASURED_WITHIN: Duration = Duration::from_hours(2);
/// Promises kept, each for no longer than this.
const PROMISES_MAX: usize = 200;
const PROMISED_FOR: Duration = Duration::from_hours(24);

/// What moves from and to here have brought, or are still to bring.
#[derive(Clone, Debug, Default)]
pub(super) struct PayBacks {
    /// Of moves from here.
    promises: BTreeMap<MoveId, Promise>,
    /// VMs here that are to be measured.
    due: BTreeMap<VmId, Due>,
    /// Of VMs here: how many moves in a row did not pay.
    unpaid: BTreeMap<VmId, u32>,
}

/// What was promised of a move, and what it was reckoned from.
#[derive(Clone, Debug)]
struct Promise {
    vm: VmId,
    to: HostId,
    since: Time,
    relief: Cost,
    /// This host's lowest load without the VM and its group.
    without: Load,
    /// What was to come in return.
    back: Option<VmId>,
    capacity: Capacity,
    /// It is not judged before it has left for so long.
    after: Duration,
    /// This host was hot when it was promised.
    hot: bool,
    /// The VM has left.
    left: bool,
    /// Since then this host was seen not to be hot.
    cooled: bool,
    verdict: Option<bool>,
}

/// A VM that has arrived and is to be measured.
#[derive(Clone, Debug)]
struct Due {
    move_id: MoveId,
    arrived: Time,
    /// The others of its affinity group, which follow it.
    group: Vec<VmId>,
    /// Since when nothing is to come or to go that was agreed in its move: what each has asked since was asked here.
    whole: Time,
    next: Time,
    told: u32,
}

impl PayBacks {
    pub(super) fn unpaid(&self, vm: VmId) -> u32 {
        self.unpaid.get(&vm).copied().unwrap_or(0)
    }

    /// When the next VM here is to be measured.
    pub(super) fn next(&self) -> Option<Time> {
        self.due.values().map(|due| due.next).min()
    }

    /// The VM of a move has left.
    pub(super) fn departed(&mut self, id: MoveId, now: Time) {
        if let Some(promise) = self.promises.get_mut(&id) {
            (promise.left, promise.since) = (true, now);
        }
    }

    /// So many moves of a VM here in a row did not pay.
    pub(super) fn count_unpaid(&mut self, vm: VmId, count: u32) {
        self.unpaid.insert(vm, count);
    }

    fn promise(&mut self, id: MoveId, promise: Promise) {
        if self.promises.len() >= PROMISES_MAX {
            let oldest = self.promises.iter().min_by_key(|(_, promise)| promise.since);
            let oldest = oldest.map(|(id, _)| *id);
            oldest.map(|id| self.promises.remove(&id));
        }
        self.promises.insert(id, promise);
    }
}

impl Host {
    /// Keeps what is promised of a move, of which the copy is about to begin.
    pub(super) fn promise(&mut self, now: Time, id: MoveId, to: HostId) {
        let out = &self.outgoing[&id];
        let lowest = self.lowest_load_by(out.basis, now, Some(id));
        let capacity = self.usage.capacity();
        let followers = out.followers.iter().map(|it| self.demand_by(out.basis, now, it.vm));
        let asked = followers.fold(out.demand, Load::plus);
        let without = lowest.minus(asked);
        let back = out.back.as_ref();
        let relief = relief(without, asked, back.map(|back| back.demand), capacity);
        let promise = Promise {
            vm: out.vm,
            to,
            since: now,
            relief,
            without,
            back: back.map(|back| back.vm),
            capacity,
            after: out.pays_after(),
            hot: self.hot(now).is_some(),
            left: false,
            cooled: false,
            verdict: None,
        };
        self.pay_backs.promise(id, promise);
        self.tales.tell(id, |story| story.promised = Some(relief));
    }

    /// How long a VM that has just arrived is left alone, and when it is measured.
    pub(super) fn rest_of_arrival(
        &mut self,
        now: Time,
        move_id: MoveId,
        (vm, group): (VmId, Vec<VmId>),
        confirmation: Option<&Confirmation>,
    ) {
        let Some(here) = self.vms.get(&vm) else { return };
        let worth_it = &self.settings.worth_it;
        let rest = here.rules.rest.unwrap_or(worth_it.vm_rest);
        if let Some(confirmation) = confirmation {
            let after = worth_it.measure_after.max(confirmation.measured_after);
            let next = now.plus(after.min(MEASURED_WITHIN));
            self.pay_backs.count_unpaid(vm, confirmation.unpaid.min(DOUBLINGS_MAX));
            if confirmation.measured {
                let due = Due { move_id, arrived: now, group, whole: now, next, told: 0 };
                self.pay_backs.due.insert(vm, due);
            }
        }
        self.rest_after(now, vm, rest);
    }

    /// A VM that arrived then rests for this long, doubled for each move in a row that did not pay; gives until when.
    fn rest_after(&mut self, arrived: Time, vm: VmId, rest: Duration) -> Duration {
        let rest = rest.saturating_mul(2_u32.pow(self.pay_backs.unpaid(vm).min(DOUBLINGS_MAX)));
        if let Some(here) = self.vms.get_mut(&vm) {
            here.rest_until = arrived.plus(rest);
        }
        self.lasting.changed = true;
        rest
    }

    /// Tells sources what VMs that have come from them ask here; and notices whether this host has cooled off.
    pub(super) fn measure_arrivals(&mut self, now: Time, actions: &mut Vec<Action>) {
        let hot = self.hot(now).is_some();
        self.pay_backs.promises.retain(|_, promise| now.since(promise.since) < PROMISED_FOR);
        for promise in self.pay_backs.promises.values_mut().filter(|promise| promise.left) {
            promise.cooled |= !hot;
        }
        let here: BTreeSet<VmId> = self.vms.keys().copied().collect();
        self.pay_backs.unpaid.retain(|vm, _| here.contains(vm));
        self.pay_backs.due.retain(|vm, due| {
            let awaited = now.since(due.arrived) < PROMISED_FOR;
            here.contains(vm) && due.told < TOLD_MAX && awaited
        });
        let later = now.plus(self.settings.worth_it.measure_after);
        for due in self.pay_backs.due.values_mut().filter(|due| self.agreed.is_open(due.move_id)) {
            (due.whole, due.next) = (now, due.next.max(later));
        }
        let ready = self
            .pay_backs
            .due
            .iter_mut()
            .filter(|(_, due)| due.next <= now && due.group.iter().all(|vm| here.contains(vm)));
        let ready: Vec<(VmId, Due)> = ready
            .map(|(vm, due)| {
                (due.told, due.next) = (due.told + 1, now.plus(TOLD_EVERY));
                (*vm, due.clone())
            })
            .collect();
        for (vm, Due { move_id, group, whole, .. }) in ready {
            let all = group.iter().chain([&vm]).map(|vm| self.asked_since(now, *vm, whole));
            let load = all.fold(Load::default(), Load::plus);
            self.send(move_id.host, move_id, Body::Measured { vm, load }, actions);
        }
    }

    /// What a VM here has asked since then: what its history brought along was asked elsewhere.
    fn asked_since(&self, now: Time, vm: VmId, since: Time) -> Load {
        let memory = self.vms.get(&vm).map_or(Mib(0), |vm| vm.definition.memory);
        let mean = self.usage.asked_since(now, vm, since, memory);
        mean.unwrap_or(Load { memory, ..Load::default() })
    }

    /// The target says what the VM asks there. Said again, it is answered as before.
    pub(super) fn measured(
        &mut self,
        now: Time,
        id: MoveId,
        from: HostId,
        vm: VmId,
        load: Load,
        actions: &mut Vec<Action>,
    ) {
        let hot_now = self.hot(now).map(|crossed| crossed.words.clone());
        let back = self.pay_backs.promises.get(&id).and_then(|promise| promise.back);
        // It counts only if it came, and has not left since. The target has waited for so long since its half was over.
        let back = back.filter(|vm| self.vms.contains_key(vm));
        let over = now.minus(self.settings.worth_it.measure_after);
        let came = back.map(|vm| self.asked_since(now, vm, over));
        let Some(promise) = self.pay_backs.promises.get_mut(&id) else { return };
        if promise.to != from || promise.vm != vm || !promise.left {
            return;
        }
        // A host of the version before does not know that it is to wait. The VM arrived there a moment before it was known here.
        if now.since(promise.since) + TOLD_EVERY < promise.after {
            return;
        }
        if let Some(paid) = promise.verdict {
            return self.send(from, id, Body::PayBack { vm, paid }, actions);
        }
        let relief = relief(promise.without, load, came, promise.capacity);
        let since = promise.since;
        let promised = promise.relief;
        let again = hot_now.filter(|_| promise.hot);
        let enough = relief.0.saturating_mul(2) >= promised.0;
        let paid = enough && !(promise.cooled && again.is_some());
        promise.verdict = Some(paid);
        let mut words = format!("promised {promised} less, measured {relief}");
        words += match (enough, &again, promise.cooled) {
            (false, _, _) => ": it did not pay, less than half of it came",
            (true, Some(_), true) => ": it did not pay, this host is hot again",
            (true, Some(_), false) => ": it paid, though it was not enough: this host is still hot",
            (true, None, _) => ": it paid",
        };
        if let Some(crossed) = again {
            words += &format!(" ({crossed})");
        }
        self.tales.tell(id, |story| (story.measured, story.paid) = (Some(relief), Some(paid)));
        let note = Note::new(Step::PayBack, words).of(id, vm).with(from).at(relief);
        actions.push(Action::Note(note));
        self.send(from, id, Body::PayBack { vm, paid }, actions);
        if let Some(back) = back {
            self.rest_as_it_paid(since, back, paid);
        }
    }

    /// A VM that arrived then rests longer if its move did not pay, and no longer than others if it did; gives how many in a row did not,
    /// and its rest.
    fn rest_as_it_paid(&mut self, arrived: Time, vm: VmId, paid: bool) -> (u32, Duration) {
        let count = if paid { 0 } else { (self.pay_backs.unpaid(vm) + 1).min(DOUBLINGS_MAX) };
        self.pay_backs.count_unpaid(vm, count);
        let own = self.vms.get(&vm).and_then(|vm| vm.rules.rest);
        let rest = own.unwrap_or(self.settings.worth_it.vm_rest);
        (count, self.rest_after(arrived, vm, rest))
    }

    /// The source says whether a move to here paid: if not, the VM rests longer each time; if so, no longer than others.
    pub(super) fn paid_back(
        &mut self,
        now: Time,
        id: MoveId,
        vm: VmId,
        paid: bool,
        actions: &mut Vec<Action>,
    ) {
        if self.pay_backs.due.get(&vm).is_none_or(|due| due.move_id != id || due.told == 0) {
            return;
        }
        let Some(due) = self.pay_backs.due.remove(&vm) else { return };
        for follower in &due.group {
            self.rest_as_it_paid(due.arrived, *follower, paid);
        }
        let (count, rest) = self.rest_as_it_paid(due.arrived, vm, paid);
        self.tales.tell(id, |story| story.paid = Some(paid));
        let words = match count {
            0 => "the move to here paid".to_owned(),
            count => format!(
                "the move to here did not pay, {count} in a row: the VM rests for {} s in all, {} s more",
                rest.as_secs(),
                due.arrived.plus(rest).since(now).as_secs()
            ),
        };
        let note = Note::new(Step::PayBack, words).of(id, vm).with(id.host);
        actions.push(Action::Note(note));
    }
}

/// What a host with so much to do is rid of without VMs that ask `goes`, where another that asks `comes` is there in return.
fn relief(without: Load, goes: Load, comes: Option<Load>, capacity: Capacity) -> Cost {
    let after = without.plus(comes.unwrap_or_default());
    cost::of_load(without.plus(goes), capacity).minus(cost::of_load(after, capacity))
}
