//! What the operator's expressions say of this host, its VMs, and those that would take one.
//!
//! **Invariant:** an expression that fails decides "no": not hot, last in the order, not accepted, passed over. It is said, once
//! for each way in which it fails.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use super::story::{Note, Step};
use super::{Action, Host};
use crate::membership::View;
use crate::negotiate::source::{Answer, Phase};
use crate::placement::candidates::Offer;
use crate::policy::expression::{Expression, Failure, Known, Value};
use crate::policy::hot::{Crossed, Threshold, committed, per_mille, used};
use crate::units::{BitsPerSec, Cost, HostId, Mib, MilliCores, MoveId, PacketsPerSec, Rank, Time};
use crate::usage::load::Load;

/// Ways to fail that were said; beyond them the oldest may be said again.
const SAID_MAX: usize = 100;
/// An expression is quoted up to this many letters.
const QUOTED_MAX: usize = 200;

/// Failures of expressions: said already, or to be said.
#[derive(Clone, Debug, Default)]
pub(super) struct Failures {
    said: BTreeSet<(&'static str, Failure)>,
    open: Vec<Note>,
}

impl Failures {
    fn add(&mut self, expression: &Expression, failure: Failure, so: &str) {
        let key = expression.place().key();
        let words = format!("{key} fails: {failure}; {so}");
        if self.said.len() >= SAID_MAX {
            self.said.clear();
        }
        if self.said.insert((key, failure)) {
            self.open.push(Note::new(Step::VmPolicy, words));
        }
    }
}

impl Host {
    /// Hears what `vm_policy.when` says of the last reading.
    pub(super) fn observe_policy(&mut self, now: Time, actions: &mut Vec<Action>) {
        let crossed =
            self.settings.vm_policy.when.clone().and_then(|when| self.when_holds(now, &when));
        let window = self.settings.vm_policy.window.unwrap_or(self.settings.hot.window);
        self.hot.observe_policy(now, crossed, window);
        actions.extend(self.failures_of_policy.open.drain(..).map(Action::Note));
    }

    fn when_holds(&mut self, now: Time, when: &Expression) -> Option<Crossed> {
        let mut known = Known::default();
        self.know_host(now, &mut known);
        self.know_cluster(now, &mut known);
        match when.holds(&known) {
            Ok(true) => {
                let words = format!("vm_policy.when {} ({})", quoted(when), when.figures(&known));
                Some(Crossed { threshold: Threshold::Policy, words, foreseen: false })
            }
            Ok(false) => None,
            Err(failure) => {
                self.failures_of_policy.add(when, failure, "it makes no host hot");
                None
            }
        }
    }

    /// Orders what is worth it as `vm_policy.order` says, if it is set; what it fails of comes last, and of equals the first.
    pub(super) fn in_order_of_policy(
        &self,
        now: Time,
        mut offers: Vec<Offer>,
        failures: &mut Failures,
    ) -> Vec<Offer> {
        let Some(order) = self.settings.vm_policy.order.clone() else { return offers };
        let mut host = Known::default();
        self.know_host(now, &mut host);
        let mut rank = |offer: &Offer| {
            let candidate = &offer.candidate;
            let mut known = host.clone();
            let name = self.vms[&candidate.vm].definition.name.clone();
            self.know_vm(&mut known, &name, candidate.demand, candidate.memory);
            let next = self.usage.next_hour(candidate.vm);
            known.number("vm.next_hour_cpu", next.map(|next| cores(next.mean.cpu)));
            known.number("vm.relief", percent(offer.relief));
            known.number("vm.copy_cost", percent(offer.copy));
            match order.rank(&known) {
                // No number is the least of all.
                Ok(rank) => Some(rank),
                Err(failure) => {
                    failures.add(&order, failure, "such a VM comes last");
                    None
                }
            }
        };
        let mut ranked: Vec<(Option<Rank>, Offer)> =
            offers.drain(..).map(|offer| (rank(&offer), offer)).collect();
        ranked.sort_by_key(|(rank, _)| Reverse(*rank));
        ranked.into_iter().map(|(_, offer)| offer).collect()
    }

    /// Why the first of the VMs that are worth it is the first.
    pub(super) fn first_by(&self) -> &'static str {
        if self.settings.vm_policy.order.is_some() {
            "first by vm_policy.order"
        } else {
            "most relief per GiB copied"
        }
    }

    /// Whether `admission.accept` takes a VM.
    ///
    /// # Errors
    /// What it says, and the figures that it names.
    pub(super) fn admit(
        &self,
        now: Time,
        name: &str,
        demand: Load,
        memory: Mib,
    ) -> Result<(), String> {
        let Some(accept) = &self.settings.admission.accept else { return Ok(()) };
        let mut known = Known::default();
        self.know_host(now, &mut known);
        self.know_cluster(now, &mut known);
        self.know_vm(&mut known, name, demand, memory);
        let figures = || format!("{} with {}", quoted(accept), accept.figures(&known));
        match accept.holds(&known) {
            Ok(true) => Ok(()),
            Ok(false) => Err(format!("admission.accept does not hold: {}", figures())),
            Err(failure) => Err(format!("admission.accept fails: {failure}: {}", figures())),
        }
    }

    /// What the migration policy makes of an acceptance: its rank among the others, and what to add to its note. It is judged
    /// once, so that figures which change meanwhile do not undo a choice.
    ///
    /// # Errors
    /// Why the acceptor is passed over.
    pub(super) fn judge_acceptance(
        &self,
        now: Time,
        id: MoveId,
        from: HostId,
        cost: Cost,
    ) -> Result<(Rank, String), String> {
        let out = &self.outgoing[&id];
        let rank = if out.empties { self.place_in_order(id, from) } else { Rank::by_cost(cost) };
        let by_default = (rank, String::new());
        let Some(negotiation) = &out.negotiation else { return Ok(by_default) };
        match negotiation.answers().get(&from) {
            Some(Answer::Acceptance { cost: before, rank }) if *before == cost => {
                return Ok((*rank, String::new()));
            }
            Some(_) | None => {}
        }
        let chosen =
            matches!(negotiation.phase(), Phase::Confirmed(to) | Phase::Ready(to) if to == from);
        // A person who names a host has chosen.
        let named = out.by_hand && negotiation.asked().len() == 1;
        let policy = &self.settings.migration_policy;
        if chosen || named || (policy.reject.is_none() && policy.order.is_none()) {
            return Ok(by_default);
        }
        let known = self.known_of_answer(now, id, from, cost);
        if let Some(reject) = &policy.reject {
            let figures = || format!("{} with {}", quoted(reject), reject.figures(&known));
            match reject.holds(&known) {
                Ok(false) => {}
                Ok(true) => return Err(format!("migration_policy.reject holds: {}", figures())),
                Err(failure) => {
                    return Err(format!("migration_policy.reject fails: {failure}: {}", figures()));
                }
            }
        }
        let Some(order) = &policy.order else { return Ok(by_default) };
        Ok(match order.value(&known).and_then(|value| Ok((value, order.rank(&known)?))) {
            Ok((value, rank)) => (rank, format!(", migration_policy.order {value}")),
            Err(failure) => {
                (Rank::LAST, format!(", the last choice: migration_policy.order fails: {failure}"))
            }
        })
    }

    fn known_of_answer(&self, now: Time, id: MoveId, from: HostId, cost: Cost) -> Known {
        let out = &self.outgoing[&id];
        let mut known = Known::default();
        self.know_cluster(now, &mut known);
        let name = self.vm_name(out.vm);
        self.know_vm(&mut known, &name, out.expected, out.memory);
        let next = self.usage.next_hour(out.vm);
        known.number("vm.next_hour_cpu", next.map(|next| cores(next.mean.cpu)));
        known.set("answer.host", Value::Text(self.name_of(from)));
        known.number("answer.cost", percent(cost));
        let view = self.membership.view(from);
        let Some(said) = view.and_then(|view| view.digest.as_ref()) else { return known };
        known.number("answer.cpu_used", said.cpu_used.fraction().min(1.0));
        known.number("answer.memory_committed", said.memory_committed.fraction());
        known.number("answer.packets", packets(said.packets));
        known.number("answer.bits", bits(said.bits));
        known.number("answer.vms", f64::from(said.vms));
        known.number("answer.moves", f64::from(said.moves_under_way));
        let Some(headroom) = said.headroom else { return known };
        known.number("answer.room_gib", gib(headroom.room));
        known.number("answer.cores", cores(headroom.cpu));
        known.number("answer.cpu_pressure", headroom.pressure[0].fraction().min(1.0));
        let after = headroom.cpu_asked.plus(out.expected.cpu);
        known.number("answer.cpu_used_after", share_of(after.0, headroom.cpu.0));
        known
    }

    fn know_host(&self, now: Time, known: &mut Known) {
        let (host, capacity) = (self.usage.host(), self.usage.capacity());
        let load = self.demand_of_vms(now);
        known.set("host.name", Value::Text(self.name.clone()));
        known.number("host.cpu_used", share_of(host.cpu.0, capacity.cpu.0).map(|s| s.min(1.0)));
        let pressure = host.pressure.map(|pressure| thousandths(per_mille(pressure.cpu).min(1000)));
        known.number("host.cpu_pressure", pressure);
        let memory = share_of(host.memory.0, capacity.memory.0).map(|s| s.min(1.0));
        known.number("host.memory_used", memory);
        known.number("host.memory_committed", share_of(load.memory.0, capacity.memory.0));
        let busier = host.uplink.sent_bits.max(host.uplink.received_bits);
        let nic = capacity.bits.and_then(|both_ways| share_of(busier, both_ways.0 / 2));
        known.number("host.nic_used", nic.map(|s| s.min(1.0)));
        known.number("host.packets", packets(load.packets));
        known.number("host.bits", bits(load.bits));
        known.number("host.drops", count(host.dropped));
        known.number("host.vms", count(u64::try_from(self.vms.len()).unwrap_or(u64::MAX)));
    }

    fn know_vm(&self, known: &mut Known, name: &str, demand: Load, memory: Mib) {
        known.set("vm.name", Value::Text(name.to_owned()));
        known.number("vm.cpu", cores(demand.cpu));
        known.number("vm.cpu_share", share_of(demand.cpu.0, self.usage.capacity().cpu.0));
        known.number("vm.memory_gib", gib(memory));
        known.number("vm.packets", packets(demand.packets));
        known.number("vm.bits", bits(demand.bits));
    }

    fn know_cluster(&self, now: Time, known: &mut Known) {
        let capacity = self.usage.capacity();
        let own_cpu = used(self.usage.host().cpu.0, capacity.cpu.0).min(1000);
        let own_memory = committed(self.demand_of_vms(now).memory.0, capacity.memory.0);
        let said = |view: &View| {
            let digest = view.digest.as_ref()?;
            Some((u64::from(digest.cpu_used.0).min(1000), u64::from(digest.memory_committed.0)))
        };
        let others = self.membership.alive().filter_map(said);
        let (hosts, cpu, memory) = others
            .fold((1_u64, own_cpu, own_memory), |(n, cpu, memory), (c, m)| {
                (n + 1, cpu.saturating_add(c), memory.saturating_add(m))
            });
        let counted = |n: usize| count(u64::try_from(n).unwrap_or(u64::MAX));
        known.number("cluster.hosts", counted(self.membership.hosts().count() + 1));
        known.number("cluster.alive", counted(self.membership.alive().count() + 1));
        known.number("cluster.mean_cpu_used", thousandths(cpu) / count(hosts));
        known.number("cluster.mean_memory_committed", thousandths(memory) / count(hosts));
    }
}

/// On one line, as it was understood, cut where it is long.
fn quoted(expression: &Expression) -> String {
    let text = expression.understood();
    match text.char_indices().nth(QUOTED_MAX) {
        None => format!("`{text}`"),
        Some((end, _)) => format!("`{}…`", &text[..end]),
    }
}

#[expect(clippy::cast_precision_loss, reason = "no figure here has 16 digits that count")]
fn count(n: u64) -> f64 {
    n as f64
}

fn thousandths(n: u64) -> f64 {
    count(n) / 1000.0
}

fn share_of(load: u64, capacity: u64) -> Option<f64> {
    (capacity > 0).then(|| count(load) / count(capacity))
}

fn cores(cpu: MilliCores) -> f64 {
    thousandths(cpu.0)
}

fn gib(memory: Mib) -> f64 {
    count(memory.0) / 1024.0
}

fn packets(packets: PacketsPerSec) -> f64 {
    count(packets.0)
}

fn bits(bits: BitsPerSec) -> f64 {
    count(bits.0)
}

fn percent(cost: Cost) -> f64 {
    let magnitude = count(cost.0.unsigned_abs()) / 1e6;
    if cost.0 < 0 { -magnitude } else { magnitude }
}
