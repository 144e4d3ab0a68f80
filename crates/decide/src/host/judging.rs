//! What this host says of a VM that would come: whether it can be here, and what it would cost; asked twice, at the request and
//! once its history was read.

use super::Host;
use super::exchange::Swap;
use super::groups::{demand_of, size_of_all};
use crate::negotiate::target::Stage;
use crate::placement::admission::{capable, fits, size_with_overhead};
use crate::policy::cost;
use crate::policy::rules::VmRules;
use crate::policy::settings::Settings;
use crate::units::{Cost, Mib, MoveId, Time, VmId};
use crate::usage::forecast::next_hour;
use crate::usage::history::History;
use crate::usage::load::Load;
use crate::wire::message::{Exchange, Request};

/// A VM's known peak is its highest mean over this many seconds.
pub(super) const PEAK_SECONDS: usize = 10;

/// What this host would say to a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Verdict {
    /// What the VM would cost here.
    pub(super) here: Cost,
    /// What the move would cost beside its copy: more, where another goes in return.
    pub(super) all: Cost,
    /// That other.
    pub(super) back: Option<VmId>,
}

impl Verdict {
    pub(super) fn alone(cost: Cost) -> Verdict {
        Verdict { here: cost, all: cost, back: None }
    }
}

impl Host {
    /// Rules, capability, room, load: this host looks at itself.
    pub(super) fn judge_request(
        &self,
        now: Time,
        id: MoveId,
        request: &Request,
        rules: &VmRules,
    ) -> Result<Verdict, String> {
        if request.policy_hash != self.settings.hash() {
            return Err("its settings differ from mine: [hot], [target], [worth_it], [vm_policy], [migration_policy], and groups and pins in [rules], must agree"
                .to_owned());
        }
        self.judge_vm(id, request, rules)?;
        self.judge_followers(id, request)?;
        self.not_busy(id)?;
        if let Some(crossed) = self.hot.hot(now, &self.settings.hot) {
            return Err(format!("is hot itself: {crossed}"));
        }
        let Request { name, memory, useful_max, followers, .. } = request;
        let demand = request.demand.plus(demand_of(followers));
        let size = size_of_all(*memory, followers);
        let alone = self.judge_load(now, id, demand, size, *useful_max);
        let better = |swap: &Swap| alone.as_ref().map_or(true, |alone| swap.all < *alone);
        let swap = self.swap(now, id, request).filter(|_| followers.is_empty());
        let verdict = match swap.filter(better) {
            Some(Swap { back, here, all }) => {
                self.keeps_reserve(size)?;
                Verdict { here, all, back: Some(back) }
            }
            None => Verdict::alone(alone?),
        };
        self.admit(now, name, request.demand, *memory)?;
        for it in followers {
            self.admit(now, &it.name, it.demand, it.demand.memory)?;
        }
        Ok(verdict)
    }

    /// The other half of an exchange: that its load fits was agreed.
    pub(super) fn judge_half(
        &self,
        now: Time,
        id: MoveId,
        request: &Request,
        rules: &VmRules,
    ) -> Result<Cost, String> {
        self.judge_vm(id, request, rules)?;
        self.keeps_reserve(size_with_overhead(request.memory))?;
        let highest = self.highest_load(now, Some(id));
        Ok(cost::of_arrival(highest, request.demand, self.usage.capacity()))
    }

    /// Whether the VM can be here at all.
    pub(super) fn judge_vm(
        &self,
        id: MoveId,
        request: &Request,
        rules: &VmRules,
    ) -> Result<(), String> {
        if self.usage.read().is_none() {
            return Err("nothing has been measured here yet".to_owned());
        }
        if self.vms.contains_key(&request.vm) {
            return Err(format!("a VM {} is here already", request.vm));
        }
        let other = self
            .incoming
            .iter()
            .find(|(other, i)| **other != id && i.vm == request.vm && self.holds(other));
        if let Some((other, _)) = other {
            return Err(format!("move {other} of the same VM is not over"));
        }
        if self.is_named(&request.name) {
            return Err(format!("another VM here is named {}", request.name));
        }
        capable(&request.needs, &self.offered)?;
        self.agree_on_copy(request.encryption)?;
        self.keeps_rules(id, request.vm, rules, request.forced)
    }

    pub(super) fn is_named(&self, name: &str) -> bool {
        self.vms.values().any(|vm| vm.definition.name == name)
    }

    pub(super) fn not_busy(&self, but: MoveId) -> Result<(), String> {
        let own = usize::from(
            self.target.offers().get(&but).is_some_and(|offer| offer.stage != Stage::Offered),
        );
        let busy = self.moves_under_way().saturating_sub(own);
        let max = self.settings.limits.moves_per_host;
        if busy < usize::try_from(max).unwrap_or(usize::MAX) {
            return Ok(());
        }
        Err(format!("moves_per_host: {busy} under way here, {max} allowed"))
    }

    pub(super) fn judge_load(
        &self,
        now: Time,
        id: MoveId,
        demand: Load,
        size: Mib,
        useful_max: Option<Cost>,
    ) -> Result<Cost, String> {
        self.judge_fit(now, id, demand)?;
        let capacity = self.usage.capacity();
        let highest = self.highest_load(now, Some(id));
        self.keeps_reserve(size)?;
        let cost = cost::of_arrival(highest, demand, capacity);
        is_useful(cost, useful_max, "here").map(|()| cost)
    }

    /// `size` with the hypervisors' overhead.
    pub(super) fn keeps_reserve(&self, size: Mib) -> Result<(), String> {
        let available = self.usage.capacity().memory.minus(self.usage.host().memory);
        let free = available.minus(self.settings.target.memory_reserve);
        if size <= free {
            return Ok(());
        }
        Err(format!("memory_reserve: {size} asked, {free} to give now"))
    }

    pub(super) fn judge_fit(&self, now: Time, id: MoveId, demand: Load) -> Result<(), String> {
        let highest = self.highest_load(now, Some(id));
        let Settings { target, hot, .. } = &self.settings;
        fits(demand, highest, self.usage.capacity(), target, hot)
    }

    /// The second judgement: by the highest of what the source asked for and what the history shows. Whether the VM fits is
    /// judged by its daily peak too; what it would cost is not, since the source reckons its relief by the load of now.
    pub(super) fn judge_history(
        &mut self,
        now: Time,
        id: MoveId,
        history: History,
    ) -> Result<Cost, String> {
        let incoming = self.incoming.get_mut(&id).ok_or("nothing was asked about this move")?;
        let (asked, memory, useful_max) = (incoming.demand, incoming.memory, incoming.useful_max);
        let recent = history.peak(PEAK_SECONDS, memory).map_or(asked, |p| p.highest(asked));
        let recent = next_hour(now, &history).map_or(recent, |next| recent.highest(next.mean));
        let daily = history.daily_peak(now, memory).map_or(recent, |(p, _)| p.highest(recent));
        (incoming.demand, incoming.history) = (recent, Some(history));
        let (vm, name, rules) = (incoming.vm, incoming.name.clone(), incoming.rules.clone());
        let forced = incoming.forced;
        let (back, half_of, encrypted) = (incoming.back, incoming.half_of, incoming.encrypted);
        let (others, size) =
            (demand_of(&incoming.followers), size_of_all(memory, &incoming.followers));
        self.target.has_room()?;
        self.keeps_encryption(encrypted)?;
        self.keeps_rules(id, vm, &rules, forced)?;
        if half_of.is_some() {
            self.keeps_reserve(size)?;
            let highest = self.highest_load(now, Some(id));
            return Ok(cost::of_arrival(highest, recent, self.usage.capacity()));
        }
        self.not_busy(id)?;
        self.judge_cost(now, id, asked.plus(others), size, useful_max, back)?;
        let all = recent.plus(others);
        let cost = self.judge_cost(now, id, all, size, useful_max, back).map_err(|why| {
            format!("its recent peak of {}, read in its history: {why}", peak_words(recent))
        })?;
        let fits = match back {
            None => self.judge_fit(now, id, daily.plus(others)),
            Some((back, _)) => self.fits_without(now, id, daily, self.expected(now, back)),
        };
        fits.map_err(|why| {
            format!("its daily peak of {}, read in its history: {why}", peak_words(daily))
        })?;
        self.admit(now, &name, recent, memory)?;
        Ok(cost)
    }

    /// What a VM would cost here, the one that goes in return counted.
    pub(super) fn judge_cost(
        &self,
        now: Time,
        id: MoveId,
        demand: Load,
        size: Mib,
        useful_max: Option<Cost>,
        back: Option<(VmId, Exchange)>,
    ) -> Result<Cost, String> {
        let Some(back) = back else {
            return self.judge_load(now, id, demand, size, useful_max);
        };
        self.keeps_reserve(size)?;
        let (here, all) = self.judge_swap(now, id, demand, back)?;
        is_useful(all, useful_max, "in exchange").map(|()| here)
    }
}

fn is_useful(cost: Cost, max: Option<Cost>, how: &str) -> Result<(), String> {
    match max {
        Some(max) if cost > max => {
            Err(format!("would cost {cost} {how}, more than the {max} that would be useful"))
        }
        Some(_) | None => Ok(()),
    }
}

pub(super) fn peak_words(peak: Load) -> String {
    format!("{} packets/s, {}", peak.packets.0, peak.cpu)
}
