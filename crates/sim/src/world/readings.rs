//! When hosts are read: each in its turn. One that waits may be spared that: guests do what they did, so it would do nothing then.
//! Before something else comes to it, it is read: what it answers, it answers by a reading no older than from one turn to the next.
//! Who was just read for that is not read again in the turn that follows.

use std::time::Duration;

use decide::host::Event;

use super::{Coming, World, scene};

impl World {
    /// A host's turn to be read.
    pub(super) fn turn(&mut self, at: u16) {
        let just_read = self.unread_for(at).is_some_and(|age| age < self.read_every / 2);
        if !self.spares_readings || !(just_read || self.waits(at)) {
            self.read(at);
        }
        let clock = &self.sites[&at].clock;
        let next = clock.when(clock.shown(self.now).plus(self.read_every));
        self.coming.put(next, Coming::Reading { at });
    }

    /// Something is about to come to a host.
    pub(super) fn read_before(&mut self, at: u16) {
        if self.spares_readings && self.unread_for(at).is_some_and(|age| age >= self.read_every) {
            self.read(at);
        }
    }

    fn read(&mut self, at: u16) {
        self.site(at).read = Some(self.now);
        if self.sites[&at].host.is_some() {
            let reading = scene::read(self, at);
            self.handle(at, Event::Reading(reading));
        }
    }

    fn unread_for(&self, at: u16) -> Option<Duration> {
        self.sites[&at].read.map(|read| self.now.since(read))
    }

    fn waits(&self, at: u16) -> bool {
        let site = &self.sites[&at];
        let shown = site.clock.shown(self.now);
        site.host.as_ref().is_some_and(|host| host.waits_until(shown).is_some())
    }
}

#[cfg(test)]
mod tests {
    use decide::policy::file::settings;
    use decide::policy::settings::Trigger;

    use super::super::World;
    use super::{Coming, Duration};
    use crate::simulate::{Form, Options, build, generate};

    /// Reads all hosts in each of their turns, those that wait too; how many of so many turns were theirs.
    fn spared(form: &Form, seed: u64, options: &Options, rounds: u32) -> (u32, u32) {
        let cluster = generate(form, seed);
        let mut world = build(&cluster, options);
        world.spares_readings = false;
        world.views_every = Some(Duration::from_secs(67));
        let end = world.now.plus(world.read_every * rounds);
        let (mut turns, mut waiting) = (0, 0);
        while let Some(next) = world.coming.next().filter(|next| *next <= end) {
            world.now = world.now.max(next);
            let coming = world.coming.take().expect("it was just looked at");
            let Coming::Reading { at } = coming else {
                world.arrive(coming);
                continue;
            };
            turns += 1;
            if !world.waits(at) {
                world.arrive(coming);
                continue;
            }
            waiting += 1;
            let before = done(&world);
            let was = doing(&world, at);
            world.arrive(coming);
            let noted = &world.notes[before.0..];
            assert_eq!(before, done(&world), "host{at}, {was}, waits, but: {noted:?}");
        }
        (waiting, turns)
    }

    fn doing(world: &World, at: u16) -> String {
        world.sites[&at].host.as_ref().map_or(String::new(), |host| host.doing().to_owned())
    }

    /// How much has been done so far, by anybody.
    fn done(world: &World) -> (usize, usize, usize, u64) {
        let journals = world.sites.values().map(|site| site.journal.under_way()).sum();
        (world.notes.len(), world.commands.len(), journals, world.net.sent.messages)
    }

    #[test]
    fn a_host_that_waits_does_nothing_when_it_is_read_all_the_same() {
        let form = Form { nodes: 40, vms_per_node: 15, ..Form::default() };
        for seed in 1..=4 {
            let (waiting, turns) = spared(&form, seed, &Options::of(Trigger::Spread, 1), 400);
            assert!(waiting > turns / 2, "{waiting} of {turns}");
        }
    }

    #[test]
    fn nor_where_rules_hold_memory_is_tight_or_a_host_is_to_be_emptied() {
        let form = Form { nodes: 12, vms_per_node: 10, ..Form::default() };
        for (form, trigger) in [
            (Form { rules: 0.3, ..form }, Trigger::Spread),
            (Form { fill: 0.93, ..form }, Trigger::Spread),
            (Form { hetero: true, ..form }, Trigger::Consolidate),
            (form, Trigger::Packets),
            (form, Trigger::Hot),
        ] {
            for seed in 1..=4 {
                let (waiting, turns) = spared(&form, seed, &Options::of(trigger, 1), 400);
                assert!(waiting > turns / 4, "{trigger:?}: {waiting} of {turns}");
            }
        }
    }

    #[test]
    fn nor_where_a_condition_goes_by_what_the_others_say() {
        let form = Form { nodes: 12, vms_per_node: 10, ..Form::default() };
        let policy =
            "vm_policy = { when = 'host.cpu_used > 1.2 * cluster.mean_cpu_used', for = '1s' }";
        for (trigger, seed) in [(Trigger::Hot, 1), (Trigger::Spread, 2), (Trigger::Hot, 3)] {
            let mut options = Options::of(trigger, 1);
            options.settings.vm_policy = settings(policy).expect("a policy").vm_policy;
            let (waiting, turns) = spared(&form, seed, &options, 400);
            assert!(waiting > turns / 4, "{trigger:?}: {waiting} of {turns}");
        }
    }
}
