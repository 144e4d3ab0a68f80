//! This host's VMs as it lists them, and what is made of the others' lists.

use std::collections::BTreeMap;

use super::story::{Note, Step};
use super::{Action, Host, TimerKey, Vm};
use crate::membership::doubles::Wish;
use crate::membership::inventories::Came;
use crate::membership::inventory::{self, Inventory, Line, Listed, ListedState};
use crate::membership::{HostState, View};
use crate::migrate::hypervisor::{RunState, VmDefinition};
use crate::migrate::record::Ownership;
use crate::policy::rules::of_groups;
use crate::units::{HostId, Time, VmId};
use crate::wire::limits::{LISTED_MAX, LISTED_TAGS_BYTES_MAX, NAME_MAX, cut};

/// How the alarm begins that two copies of a VM run.
pub const TWO_COPIES: &str = "two copies run at once";
/// Fetches that failed in a row before it is said: one alone is a host that was just restarted.
const FAILED_TOLD: u32 = 3;

impl Host {
    /// The VMs here, for the other hosts.
    pub fn inventory(&self) -> Inventory {
        let mut left = LISTED_TAGS_BYTES_MAX;
        let mut told = |tags: Vec<&str>| {
            let fit = tags.into_iter().take_while(|tag| {
                let enough = tag.len() <= left;
                left = if enough { left - tag.len() } else { 0 };
                enough
            });
            fit.map(str::to_owned).collect()
        };
        let listed = self.listed().take(LISTED_MAX);
        let vms: Vec<Listed> = listed
            .map(|(vm, name, epoch, state, memory, tags)| {
                let (name, tags) = (name.to_owned(), told(tags));
                Listed { vm, name, epoch, state, memory, tags }
            })
            .collect();
        let left_out = u32::try_from(self.vms.len() - vms.len()).unwrap_or(u32::MAX);
        let labels = self.settings.host.labels.clone();
        Inventory { hash: self.inventory_hash(), vms, left_out, labels }
    }

    /// A hash of it, and of what it leaves out: another hash, another inventory.
    pub fn inventory_hash(&self) -> u64 {
        inventory::hash(&self.settings.host.labels, self.listed())
    }

    /// What is held of the other hosts' VMs.
    pub fn inventories(&self) -> impl Iterator<Item = (&View, Time, &Inventory)> {
        self.membership.hosts().filter_map(|view| {
            let held = self.inventories.held().get(&view.peer.host)?;
            Some((view, held.asked, &held.inventory))
        })
    }

    /// The VMs of one other host as it listed them last.
    pub fn list_of(&self, host: HostId) -> Option<&Inventory> {
        self.inventories.held().get(&host).map(|held| &held.inventory)
    }

    /// Whether two copies of this VM run, as far as this host can tell.
    pub fn runs_twice(&self, vm: VmId) -> bool {
        self.doubles.told(vm)
    }

    fn listed(&self) -> impl Iterator<Item = Line<'_>> {
        self.vms.iter().map(|(id, vm)| {
            let VmDefinition { name, memory, tags, .. } = &vm.definition;
            let (name, state) = (cut(name, NAME_MAX), self.listed_state(*id, vm));
            (*id, name, vm.record.floor, state, *memory, of_groups(tags))
        })
    }

    fn listed_state(&self, id: VmId, vm: &Vm) -> ListedState {
        let out = self.outgoing.values().filter(|out| out.vm == id);
        let mut records = out.filter_map(|out| out.migrate.as_ref()).map(|m| m.record());
        match (vm.record.ownership, vm.run) {
            (Ownership::Owner, _) if records.any(|record| record.doubtful) => ListedState::Doubtful,
            (Ownership::Owner, RunState::Running) => ListedState::Running,
            (Ownership::Owner, RunState::Paused) => ListedState::Paused,
            (Ownership::Down, _) => ListedState::Down,
            (Ownership::Released(..) | Ownership::Away, _) => ListedState::Released,
        }
    }

    /// Looks, once a second, whose inventory has changed, and whether any VM runs twice.
    pub(super) fn look_at_inventories(&mut self, now: Time, actions: &mut Vec<Action>) {
        self.inventories.look(now, self.membership.hosts());
        let hash = self.inventory_hash();
        if std::mem::replace(&mut self.listed_hash, hash) != hash {
            self.lists_changed = true;
        }
        let changed = std::mem::take(&mut self.lists_changed);
        if changed {
            self.find_members();
        }
        if changed || self.doubles.any() {
            let doubled = self.doubled();
            let over = self.doubles.seen(now, &doubled);
            self.wish(now, over, actions);
            let due = self.doubles.due(now);
            self.wish(now, due, actions);
        }
        self.fetch(now, actions);
    }

    /// Asks for what is due, and sees to it that the next is not missed.
    pub(super) fn fetch(&mut self, now: Time, actions: &mut Vec<Action>) {
        let Host { inventories, membership, .. } = self;
        let view = |host| membership.view(host);
        let hash =
            |host| view(host).and_then(|view| view.digest.as_ref()).map_or(0, |d| d.inventory);
        for from in inventories.due(now, hash) {
            if let Some(view) = view(from) {
                actions.push(Action::Fetch { from, address: view.peer.address });
            }
        }
        match self.inventories.deadline() {
            Some(at) => drop(self.timers.insert(TimerKey::Fetch, at)),
            None => drop(self.timers.remove(&TimerKey::Fetch)),
        }
    }

    pub(super) fn inventory_came(
        &mut self,
        now: Time,
        host: HostId,
        fetched: Result<Inventory, String>,
        actions: &mut Vec<Action>,
    ) {
        let why = fetched.as_ref().err().cloned();
        match self.inventories.came(now, host, fetched.ok()) {
            Came::Held(asked) => {
                self.lists_changed = true;
                self.was_listed(now, host, asked, actions);
            }
            Came::Failed(times) => {
                self.doubles.silent(now, host);
                if times == FAILED_TOLD {
                    let (name, why) = (self.name_of(host), why.unwrap_or_default());
                    let words = format!("the VMs of {name} cannot be listed: {why}");
                    actions.push(Action::Note(Note::bad_input(words).with(host)));
                }
            }
            Came::Late => {}
        }
        self.fetch(now, actions);
    }

    fn was_listed(&mut self, now: Time, host: HostId, asked: Time, actions: &mut Vec<Action>) {
        let running = self.running_at(host);
        let wishes = self.doubles.listed(now, host, asked, |vm| running.get(&vm).copied());
        self.wish(now, wishes, actions);
    }

    /// The VMs that a host, or this one, lists as running, and their epochs.
    fn running_at(&self, host: HostId) -> BTreeMap<VmId, u64> {
        if host == self.id {
            let own = self.listed().filter(|(.., state, _, _)| *state == ListedState::Running);
            return own.map(|(vm, _, epoch, ..)| (vm, epoch)).collect();
        }
        let held = self.inventories.held().get(&host);
        let listed = held.into_iter().flat_map(|held| &held.inventory.vms);
        let running = listed.filter(|listed| listed.state == ListedState::Running);
        running.map(|listed| (listed.vm, listed.epoch)).collect()
    }

    /// VMs that two hosts list as running, of this one and those that answer.
    fn doubled(&self) -> BTreeMap<VmId, [HostId; 2]> {
        let alive = self.inventories().filter(|(view, ..)| view.state == HostState::Alive);
        let listed = alive.flat_map(|(view, _, inventory)| {
            let running = inventory.vms.iter().filter(|vm| vm.state == ListedState::Running);
            running.map(|listed| (listed.vm, view.peer.host))
        });
        let own = self.running_at(self.id).into_keys().map(|vm| (vm, self.id));
        let mut all: Vec<(VmId, HostId)> = own.chain(listed).collect();
        all.sort_by_key(|(vm, _)| *vm);
        let twice = all.windows(2).filter(|pair| pair[0].0 == pair[1].0);
        twice.map(|pair| (pair[0].0, [pair[0].1, pair[1].1])).collect()
    }

    /// Carries out what the watch over doubles wants.
    fn wish(&mut self, now: Time, wishes: Vec<Wish>, actions: &mut Vec<Action>) {
        for wish in wishes {
            match wish {
                // What is here is known without asking.
                Wish::Ask(host) if host == self.id => self.was_listed(now, host, now, actions),
                Wish::Ask(host) => self.inventories.want(now, host),
                Wish::Tell(vm, [(a, under), (b, and_under)]) => {
                    let why = format!(
                        "{TWO_COPIES}: at {} under epoch {under}, and at {} under epoch {and_under}; both hosts were asked more than once. End one of them by hand, and look at its disk: Evenkeel touches neither",
                        self.name_of(a),
                        self.name_of(b)
                    );
                    let other = if b == self.id { a } else { b };
                    self.alarm(Note::new(Step::Alarm, why).about(vm).with(other), actions);
                }
                Wish::Over(vm) => {
                    let of_it =
                        |note: &Note| note.vm == Some(vm) && note.reason.starts_with(TWO_COPIES);
                    self.alarms.retain(|note| !of_it(note));
                    let words = "only one copy runs, as far as the hosts that answer know";
                    actions.push(Action::Note(Note::new(Step::Monitoring, words).about(vm)));
                }
            }
        }
    }
}
