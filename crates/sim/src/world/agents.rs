//! Agents that start and die, hosts that lose power, processes that are killed.

use std::sync::Arc;
use std::time::Duration;

use decide::host::rests::Rests;
use decide::host::{Event, Host, Start};
use decide::log::{Begin, FORM, Gave, Line};
use decide::membership::{HostState, Peer, Told, View};
use decide::migrate::hypervisor::{RunState, Seen, Sighting};
use decide::placement::admission::Offered;
use decide::policy::rules::Excluded;
use decide::policy::settings::{Encryption, Migration, Settings};
use decide::units::{JournalId, VmId};
use decide::wire::message::JournalMark;

use super::{Coming, Site, World, address, host_id, host_name};

/// How many hosts each agent knows from its configuration.
const SEEDS: usize = 3;

impl World {
    /// The agent is killed: of its writes under way some were on disk. Its VMs know nothing of it.
    pub fn crash(&mut self, at: u16) {
        let under_way = self.sites[&at].journal.under_way();
        let kept = self.draw(u32::try_from(under_way + 1).unwrap_or(1)) as usize;
        let site = self.site(at);
        site.host = None;
        site.read = None;
        site.life += 1;
        site.journal.crash(kept);
    }

    /// The agent is killed, and is back after so long.
    pub fn crash_for(&mut self, at: u16, down: Duration) {
        if self.sites[&at].host.is_some() {
            self.crash(at);
            self.later(down, Coming::Restart { at });
        }
    }

    /// The host loses power, and with it all VMs; its agent is back after so long.
    pub fn lose_power(&mut self, at: u16, down: Duration) {
        if self.net.dark.contains(&at) {
            return;
        }
        if self.sites[&at].host.is_some() {
            self.crash(at);
        }
        self.net.dark.insert(at);
        let all: Vec<VmId> = self.fleet.processes(at).map(|(vm, _)| vm).collect();
        all.into_iter().for_each(|vm| self.kill(at, vm));
        self.later(down, Coming::Restart { at });
    }

    /// A VM's process is killed.
    pub fn kill(&mut self, at: u16, vm: VmId) {
        let mut checks = std::mem::take(&mut self.checks);
        checks.dies(&self.fleet, at, vm);
        self.checks = checks;
        self.fleet_does(|fleet, now, reaches, out| fleet.kill(now, reaches, at, vm, out));
    }

    /// A copy from this host breaks off.
    pub fn fail_copy(&mut self, at: u16, vm: VmId, why: &str) {
        self.fleet_does(|fleet, now, reaches, out| fleet.fail(now, reaches, at, vm, why, out));
    }

    /// A VM that was down is started again where it belongs.
    pub fn start_again(&mut self, at: u16, vm: VmId) {
        self.checks.starts_again(self.now, at, vm);
        self.checks.place(self.now, vm, at);
        self.fleet.start(self.now, at, vm, Seen::Running);
        let definition = self.guests[&vm].definition.clone();
        self.handle(at, Event::Sighting(Sighting::Found(definition, RunState::Running)));
        crate::checks::fleet(self);
    }

    /// Somebody else moves a VM between hosts, past Evenkeel.
    pub fn move_past(&mut self, from: u16, to: u16, vm: VmId) {
        self.kill(from, vm);
        self.start_again(to, vm);
    }

    /// An operator pauses a guest, or lets it run again.
    pub fn pause(&mut self, at: u16, vm: VmId, paused: bool) {
        if self.fleet.pause(self.now, at, vm, paused) {
            let run = if paused { RunState::Paused } else { RunState::Running };
            let event = Event::Sighting(Sighting::RunStateChanged(vm, run));
            self.tell(at, Duration::from_millis(1), event);
        }
        crate::checks::fleet(self);
    }

    /// What an agent goes by.
    fn settings_of(&self, at: u16) -> Settings {
        let Site { here, encryption, .. } = &self.sites[&at];
        let migration = Migration { encryption: *encryption };
        Settings { host: here.clone(), migration, ..self.settings.clone() }
    }

    /// A person has a host take no VM, or take some again.
    pub fn maintain(&mut self, at: u16, maintenance: bool) {
        self.site(at).here.maintenance = maintenance;
        let settings = self.settings_of(at);
        self.handle(at, Event::Settings(Box::new(settings)));
    }

    /// Gives a host keys, or takes them, and has its agent begin anew with this setting.
    pub fn enrol(&mut self, at: u16, keyed: bool, encryption: Option<Encryption>) {
        let site = self.site(at);
        (site.keyed, site.encryption) = (keyed, encryption);
        if site.host.is_some() {
            self.crash(at);
        }
        self.restart(at);
    }

    /// A person has a host's agent, if it is up, leave a VM where it is, or not any more; it keeps that.
    pub fn exclude(&mut self, at: u16, vm: VmId, excluded: bool) {
        let site = self.site(at);
        if site.host.is_none() {
            return;
        }
        if excluded {
            site.excluded.insert(vm);
        } else {
            site.excluded.remove(&vm);
        }
        let excluded = excluded.then_some(Excluded::Always);
        self.handle(at, Event::Excluded { vm, excluded });
    }

    /// The agent starts after so long.
    pub fn start_agent(&mut self, at: u16, after: Duration) {
        self.later(after, Coming::Restart { at });
    }

    /// The agent starts, from what its journal has and what it finds.
    pub fn restart(&mut self, at: u16) {
        if self.sites[&at].host.is_some() {
            return;
        }
        self.net.dark.remove(&at);
        let (now, settings) = (self.now, self.settings_of(at));
        let site = self.site(at);
        site.life += 1;
        site.starts += 1;
        site.tick = None;
        site.written = now;
        let journal = JournalMark {
            id: JournalId(u128::from(at)),
            generation: site.journal.generation,
            opened: site.journal.generation,
            life: u64::from(site.starts),
        };
        let start = Start {
            id: host_id(at),
            name: host_name(at),
            address: address(at),
            journal,
            doubt: None,
            incarnation: site.starts,
            first_incarnation: 1,
            vms: site.journal.vms.clone(),
            moves: site.journal.moves.clone(),
            offered: offered(site.keyed),
            settings,
            seed: u64::from(at) + 1000 * u64::from(site.starts),
        };
        let shown = site.clock.shown(now);
        let mut actions = Vec::new();
        let begin = self.logs.is_some().then(|| Begin {
            form: FORM,
            version: "simulated".to_owned(),
            unix_us: 0,
            now: shown,
            start: start.clone(),
        });
        let site = self.sites.get_mut(&at).expect("a host of this world");
        let host = site.host.insert(Host::new(start, shown, &mut actions));
        self.checks.agent_starts(self.now, at);
        if let Some((logs, begin)) = self.logs.as_mut().zip(begin) {
            let gave = Gave::of(&actions, host.deadline());
            logs.insert(at, vec![Line::Begin(Box::new(begin)), Line::Gave(gave)]);
        }
        self.perform(at, &mut actions);
        let rests = self.sites[&at].rests.clone();
        if rests != Rests::default() {
            self.handle(at, Event::Rests(rests));
        }
        for vm in self.sites[&at].excluded.clone() {
            self.handle(at, Event::Excluded { vm, excluded: Some(Excluded::Always) });
        }
        let found: Vec<(VmId, Seen)> =
            self.fleet.processes(at).map(|(vm, p)| (vm, p.seen)).collect();
        for (vm, seen) in found {
            let run = match seen {
                Seen::Gone | Seen::Incoming | Seen::IncomingComplete => continue,
                Seen::Running | Seen::Copying => RunState::Running,
                Seen::Paused | Seen::PostMigrate | Seen::Unknown => RunState::Paused,
            };
            let definition = self.guests[&vm].definition.clone();
            self.handle(at, Event::Sighting(Sighting::Found(definition, run)));
        }
        if self.views_every.is_none() {
            self.join(at);
        }
        self.arm(at);
    }

    fn join(&mut self, at: u16) {
        let seeds: Vec<u16> = self.sites.keys().copied().filter(|seed| *seed != at).collect();
        for seed in seeds.into_iter().take(SEEDS) {
            self.handle(at, Event::Join(address(seed)));
        }
    }

    /// All hosts see from now on what all are like now; they are told anew after so long at the most.
    pub(crate) fn tell_views(&mut self, again: Duration) {
        let Some(every) = self.views_every else { return };
        let all: Vec<u16> = self.sites.keys().copied().collect();
        all.into_iter().for_each(|at| self.read_before(at));
        let view = |(at, site): (&u16, &Site)| {
            let (host, heard) = (site.host.as_ref()?, site.clock.shown(self.now));
            let peer = Peer {
                host: host.id(),
                name: host.name().to_owned(),
                address: address(*at),
                incarnation: site.starts,
            };
            let digest = Some(host.digest(heard));
            Some((host.id(), View { peer, state: HostState::Alive, digest, heard }))
        };
        let views: Told = Arc::new(self.sites.iter().filter_map(view).collect());
        let hosts = self.sites.values_mut().filter_map(|site| site.host.as_mut());
        hosts.for_each(|host| host.tell_views(Arc::clone(&views)));
        self.later(every.min(again), Coming::Views);
    }
}

fn offered(encrypts: bool) -> Offered {
    Offered { driver: "sim".to_owned(), encrypts, ..Offered::default() }
}
