//! Each reading: measure, tell the others, and let the VM policy speak.

use super::rules::Enforcing;
use super::story::Note;
use super::waits::Doing;
use super::{Action, Host};
use crate::units::{Time, VmId};
use crate::usage::reading::Reading;

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
        self.reckon_demands(now);
        let seen = self.seen(now, |_| true);
        let hot = self.settings.hot_as_it_counts();
        self.hot.observe(now, &hot, &seen, self.usage.capacity());
        self.observe_policy(now, actions);
        self.forget_expected(now);
        self.measure_arrivals(now, actions);
        self.count_room();
        self.record_vms(actions);
        self.note_missing_taps(actions);
        if !self.membership.is_told() {
            self.hear_journals(actions);
            self.say_digest(now, actions);
            self.look_at_inventories(now, actions);
        }
        self.reckon_others(now);
        self.settle_exchanges(now, actions);
        self.look_around(now, actions);
        self.forget_foreign(now, actions);
        self.doing = match self.drive_drain(now, actions) {
            Some(words) => Doing::now(words),
            None => self.by_itself_now(now, actions),
        };
    }

    /// Does what rules and balancing ask for; says what, or why nothing.
    fn by_itself_now(&mut self, now: Time, actions: &mut Vec<Action>) -> Doing {
        let doing = match self.enforce(now, actions) {
            Enforcing::Nothing => self.balance(now, actions),
            Enforcing::Moves(words) => Doing::now(words),
            Enforcing::Waits(words) => {
                Doing::now(format!("{words}; {}", self.balance(now, actions).words))
            }
        };
        match self.sees_enough() {
            Err(few) if !doing.words.contains(&few) => {
                doing.said(|words| format!("{few}; {words}"))
            }
            Ok(()) | Err(_) => doing,
        }
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
}
