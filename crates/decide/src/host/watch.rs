//! Each reading: measure, judge, and let the VM policy speak.
//!
//! Nothing moves while this host is not hot. Whatever keeps a hot host from moving a VM is said once, in words.

use std::time::Duration;

use super::outgoing::Departure;
use super::story::{Note, Step};
use super::{Action, Host};
use crate::placement::candidates::{Candidate, Offer, ranked};
use crate::policy::settings::Balance;
use crate::units::{Time, VmId};
use crate::usage::reading::Reading;

/// A VM's demand is not known before it has been watched for so long.
const WATCHED_MIN: Duration = Duration::from_secs(3);
/// Balancing moves are counted over this long.
const DAY: Duration = Duration::from_secs(24 * 3600);

impl Host {
    pub(super) fn reading(&mut self, now: Time, mut reading: Reading, actions: &mut Vec<Action>) {
        // An incoming side does nothing yet: seconds of idleness would hide what its VM asks once it has arrived.
        reading.vms.retain(|vm| self.vms.contains_key(&vm.vm));
        self.program = reading.vms.iter().any(|vm| vm.frames.is_some());
        self.usage.observe(now, &reading, self.settings.hot.packets_per_second);
        let kept = self.usage.take_kept();
        if !kept.is_empty() {
            actions.push(Action::Keep(kept));
        }
        let load = self.demand_of_vms(now);
        self.hot.observe(now, &self.settings.hot, self.usage.host(), load, self.usage.capacity());
        self.forget_expected(now);
        self.count_room();
        self.record_vms(actions);
        self.note_missing_taps(actions);
        self.hear_journals(actions);
        self.say_digest(now, actions);
        self.look_at_inventories(now, actions);
        self.doing = self.balance(now, actions);
    }

    fn note_missing_taps(&mut self, actions: &mut Vec<Action>) {
        let missing: Vec<VmId> =
            self.vms.keys().copied().filter(|vm| self.usage.tap_missing(*vm)).collect();
        for (id, vm) in &mut self.vms {
            let words = "its tap is missing: its traffic cannot be seen and it is not moved";
            match (missing.contains(id), vm.trouble.as_deref()) {
                (true, None) => {
                    vm.trouble = Some(words.to_owned());
                    let why = format!(
                        "{}: {words}; create the tap, or mend its name in the VM's definition",
                        vm.definition.name
                    );
                    actions.push(Action::Note(Note::bad_input(why).about(*id)));
                }
                (false, Some(trouble)) if trouble == words => vm.trouble = None,
                _ => {}
            }
        }
    }

    /// Lets the VM policy speak; gives why nothing is being done, or what is.
    fn balance(&mut self, now: Time, actions: &mut Vec<Action>) -> String {
        let Some(crossed) =
            self.hot.hot(now, &self.settings.hot).map(|crossed| crossed.words.clone())
        else {
            self.noted_hot = None;
            self.recommended.clear();
            return match self.hot.crossed().first() {
                Some(crossed) => {
                    format!("{crossed}, not for {} s yet", self.settings.hot.window.as_secs())
                }
                None => "this host is not hot".to_owned(),
            };
        };
        if self.noted_hot.is_none() {
            let words =
                format!("{crossed} for {} s: this host is hot", self.settings.hot.window.as_secs());
            actions.push(Action::Note(Note::new(Step::Monitoring, words)));
            self.noted_hot = Some(crossed.clone());
        }
        match self.policy(now) {
            Err(why) => format!("hot ({crossed}), but {why}"),
            Ok(offer) => self.speak(now, &crossed, offer, actions),
        }
    }

    /// The VM policy's verdict for a hot host: the VM to ask about, or why none.
    fn policy(&mut self, now: Time) -> Result<Offer, String> {
        if let Some(frozen) = &self.frozen {
            return Err(frozen.clone());
        }
        if self.settings.mode.balance == Balance::Off {
            return Err("balance is off".to_owned());
        }
        let limits = &self.settings.limits;
        let (open, max) = (self.moves_under_way(), limits.moves_per_host);
        if open >= usize::try_from(max).unwrap_or(usize::MAX) {
            return Err(format!("moves_per_host: {open} under way here, {max} allowed"));
        }
        if now < self.rest_until {
            let wait = self.rest_until.since(now).as_secs() + 1;
            return Err(format!("this host rests for {wait} s: {}", self.rest_reason));
        }
        self.recent.retain(|began| now.since(*began) < DAY);
        if self.recent.len() >= usize::try_from(limits.moves_per_day).unwrap_or(usize::MAX) {
            return Err(format!("moves_per_day: {} were made", self.recent.len()));
        }
        let margin = self.settings.worth_it.gain_min;
        let candidates: Vec<Candidate> =
            self.vms.keys().filter_map(|vm| self.candidate(now, *vm)).collect();
        let ranked =
            ranked(&candidates, self.lowest_load(now, None), self.usage.capacity(), margin);
        let best = ranked.first().copied();
        best.ok_or_else(|| format!("none of {} VMs that may leave would relieve it by more than {margin} beyond the copy", candidates.len()))
    }

    fn candidate(&self, now: Time, vm: VmId) -> Option<Candidate> {
        let here = &self.vms[&vm];
        let watched = self.usage.history(vm).is_some_and(|history| history.span() >= WATCHED_MIN);
        if now < here.rest_until || !watched || self.movable(vm).is_err() {
            return None;
        }
        Some(Candidate { vm, demand: self.demand(now, vm), memory: here.definition.memory })
    }

    fn speak(
        &mut self,
        now: Time,
        crossed: &str,
        offer: Offer,
        actions: &mut Vec<Action>,
    ) -> String {
        let Offer { candidate: Candidate { vm, demand, memory }, relief, copy } = offer;
        let name = self.vm_name(vm);
        let words = format!(
            "{name} should leave: {crossed}; without it {relief} less ({} packets/s, {}), most relief per GiB copied ({memory}, copy cost {copy})",
            demand.packets.0, demand.cpu
        );
        if self.settings.mode.balance == Balance::Recommend {
            if self.recommended.insert(vm) {
                let words = format!(
                    "{words}; balance is \"recommend\", so it stays until somebody moves it"
                );
                actions.push(Action::Note(Note::new(Step::VmPolicy, words).about(vm).at(relief)));
            }
            return format!("hot ({crossed}); recommended: move {name}");
        }
        let policy = Note::new(Step::VmPolicy, words).at(relief);
        let useful_max = Some(offer.useful_max(self.settings.worth_it.gain_min));
        let departure = Departure { vm, why: crossed.to_owned(), policy, only: None, useful_max };
        self.begin_move(now, departure, actions);
        format!("hot ({crossed}); moving {name}")
    }
}
