//! How faults strike a world, and how they end.

use std::time::Duration;

use decide::host::Action;
use decide::migrate::hypervisor::Seen;
use decide::migrate::record::Record;
use decide::units::VmId;

use super::{Due, Kind, Lasting};
use crate::world::{Coming, World, number};

/// An ambush strikes one of these many milliseconds after what woke it.
const AMBUSH_AFTER: [u64; 8] = [0, 0, 1, 3, 10, 60, 400, 2500];
/// Clocks gain or lose at most so many millionths.
pub(crate) const DRIFT_MAX: u32 = 50_000;
/// Writes take this long on a disk that is well.
const WRITE_TAKES: Duration = Duration::from_millis(2);

impl World {
    /// From now on things go wrong.
    pub fn faults_begin(&mut self) {
        self.faults.active = true;
        self.next_fault();
    }

    fn next_fault(&mut self) {
        let every = u32::try_from(self.faults.every.as_millis()).unwrap_or(u32::MAX / 2);
        let after = self.faults.millis(0, every * 2);
        self.later(after, Coming::Fault(Due::Next));
    }

    /// Everything is whole again, but for what is down.
    pub fn heal(&mut self) {
        self.faults.active = false;
        let now = self.now;
        self.net.cuts.clear();
        self.end(&Lasting::Lossy);
        for at in self.sites.keys().copied().collect::<Vec<_>>() {
            self.end(&Lasting::Refusing(at));
            self.end(&Lasting::SlowHypervisor(at));
            self.end(&Lasting::SlowDisk(at));
            let site = self.sites.get_mut(&at).expect("a host of this world");
            site.journal.fails = 0;
            site.clock.drift(now, 0);
        }
    }

    pub(crate) fn suffer(&mut self, due: Due) {
        match due {
            Due::End(lasting) => self.end(&lasting),
            Due::Next | Due::Strike { .. } if !self.faults.active => {}
            Due::Next => {
                let kind = self.faults.kind(|kind| kind.weights().0);
                let hosts = u32::try_from(self.sites.len()).unwrap_or(u32::MAX);
                let n = self.faults.draw(hosts) as usize;
                let at = self.sites.keys().nth(n).copied().expect("one of the hosts was drawn");
                self.strike(kind, at, None, None);
                self.next_fault();
            }
            Due::Strike { kind, at, vm, peer } => self.strike(kind, at, vm, peer),
        }
    }

    /// An agent does something; if it is about a move it may wake an ambush.
    pub(crate) fn strike_at(&mut self, at: u16, action: &Action) {
        if !self.faults.active {
            return;
        }
        let (vm, peer) = match action {
            Action::Persist { records, .. } => {
                let open = records.iter().find_map(|record| match record {
                    Record::Move(_, Some(open)) => Some(open),
                    Record::Move(_, None) | Record::Vm(..) => None,
                });
                let Some(open) = open else { return };
                (Some(open.vm), number(open.peer))
            }
            Action::Hypervisor(id, vm, _) => {
                let open = self.sites[&at].journal.moves.get(id);
                (Some(*vm), open.map_or(number(id.host), |open| number(open.peer)))
            }
            Action::Send { to, message, .. } => {
                let open = self.sites[&at].journal.moves.get(&message.move_id);
                (open.map(|open| open.vm), number(*to))
            }
            Action::Cast { .. }
            | Action::Gossip { .. }
            | Action::Keep(_)
            | Action::Recall(_)
            | Action::DropHistory(_)
            | Action::KeepLeft(..)
            | Action::KeepRests(_)
            | Action::Testify(..)
            | Action::Fetch { .. }
            | Action::Note(_)
            | Action::Reply { .. } => {
                return;
            }
        };
        if self.faults.draw(1000) >= self.faults.ambushes {
            return;
        }
        let kind = self.faults.kind(|kind| kind.weights().1);
        let (at, peer) = if self.faults.draw(2) == 0 { (at, peer) } else { (peer, at) };
        let n = self.faults.draw(8) as usize;
        let after = Duration::from_millis(AMBUSH_AFTER[n]);
        let due = Due::Strike { kind, at, vm, peer: Some(peer) };
        self.later(after, Coming::Fault(due));
    }

    fn strike(&mut self, kind: Kind, at: u16, vm: Option<VmId>, peer: Option<u16>) {
        if !self.sites.contains_key(&at) || !self.struck(kind, at, vm, peer) {
            return;
        }
        *self.faults.counts.entry(kind).or_default() += 1;
        let beside = peer.map_or(String::new(), |peer| format!(" (with host{peer})"));
        let what = format!("{} at host{at}{beside}", kind.name());
        self.faults.told.push((self.now, at, what));
        for at in [Some(at), peer].into_iter().flatten() {
            let Some(host) = self.sites.get(&at).and_then(|site| site.host.as_ref()) else {
                continue;
            };
            let open = host.stories().filter(|story| story.ended.is_none());
            for story in open.filter(|story| vm.is_none_or(|vm| story.vm == vm)) {
                *self.faults.phases.entry(story.phase).or_default() += 1;
            }
        }
    }

    /// Whether there was anything to strike.
    fn struck(&mut self, kind: Kind, at: u16, vm: Option<VmId>, peer: Option<u16>) -> bool {
        match kind {
            Kind::AgentKilled => {
                let up = self.sites[&at].host.is_some();
                let down = self.faults.millis(100, 12_000);
                self.crash_for(at, down);
                up
            }
            Kind::PowerLost => {
                if self.faults.deaths_max.0 == 0 || self.net.dark.contains(&at) {
                    return false;
                }
                self.faults.deaths_max.0 -= 1;
                let down = self.faults.millis(5_000, 40_000);
                self.lose_power(at, down);
                true
            }
            Kind::ProcessKilled => self.kill_one(at, vm),
            Kind::CopyBroken => {
                let copies: Vec<VmId> = self.processes(at, |seen| seen == Seen::Copying);
                let chosen = vm.filter(|vm| copies.contains(vm)).or(copies.first().copied());
                chosen.into_iter().for_each(|vm| self.fail_copy(at, vm, "connection reset"));
                chosen.is_some()
            }
            Kind::IncomingRefused => {
                self.fleet.refuse(at, true);
                self.lasts(1_000, 30_000, Lasting::Refusing(at))
            }
            Kind::HypervisorSlow => {
                let by = self.faults.millis(10, 8_000);
                self.fleet.slow_down(at, by);
                self.lasts(1_000, 40_000, Lasting::SlowHypervisor(at))
            }
            Kind::WritesFail => {
                let fails = 1 + self.faults.draw(4);
                self.sites.get_mut(&at).expect("it was just seen").journal.fails += fails;
                true
            }
            Kind::DiskSlow => {
                let takes = self.faults.millis(50, 4_000);
                self.sites.get_mut(&at).expect("it was just seen").write_takes = takes;
                self.lasts(1_000, 20_000, Lasting::SlowDisk(at))
            }
            Kind::CutBothWays | Kind::CutOneWay => self.cut(kind, at, peer),
            Kind::Lossy => {
                self.net.lost = 20 + self.faults.draw(150);
                self.net.twice = self.faults.draw(200);
                self.net.delay_max = self.faults.millis(2, 400);
                self.lasts(2_000, 20_000, Lasting::Lossy)
            }
            Kind::ClockDrifts => {
                let drift = self.faults.drift();
                let now = self.now;
                self.sites.get_mut(&at).expect("it was just seen").clock.drift(now, drift);
                // Its agent's deadline comes sooner or later than was thought.
                self.look_at_deadline(at);
                true
            }
        }
    }

    fn lasts(&mut self, from: u32, to: u32, lasting: Lasting) -> bool {
        let after = self.faults.millis(from, to);
        self.later(after, Coming::Fault(Due::End(lasting)));
        true
    }

    fn processes(&self, at: u16, wanted: impl Fn(Seen) -> bool) -> Vec<VmId> {
        let all = self.fleet.processes(at).filter(|(_, process)| wanted(process.seen));
        all.map(|(vm, _)| vm).collect()
    }

    fn kill_one(&mut self, at: u16, vm: Option<VmId>) -> bool {
        if self.faults.deaths_max.1 == 0 {
            return false;
        }
        let all = self.processes(at, |_| true);
        let n = self.faults.draw(u32::try_from(all.len()).unwrap_or(1)) as usize;
        let Some(vm) = vm.filter(|vm| all.contains(vm)).or(all.get(n).copied()) else {
            return false;
        };
        self.faults.deaths_max.1 -= 1;
        self.kill(at, vm);
        true
    }

    fn cut(&mut self, kind: Kind, at: u16, peer: Option<u16>) -> bool {
        let whole = self.faults.draw(3) == 0;
        let others: Vec<u16> = match peer.filter(|_| !whole) {
            Some(peer) => vec![peer],
            None => self.sites.keys().copied().filter(|other| *other != at).collect(),
        };
        let outward = self.faults.draw(2) == 0;
        let both = kind == Kind::CutBothWays;
        let mut cut = Vec::new();
        for other in others {
            if both || outward {
                cut.push((at, other));
            }
            if both || !outward {
                cut.push((other, at));
            }
        }
        self.net.cuts.extend(cut.iter().copied());
        self.lasts(200, 30_000, Lasting::Cut(cut))
    }

    fn end(&mut self, lasting: &Lasting) {
        match lasting {
            Lasting::Refusing(at) => self.fleet.refuse(*at, false),
            Lasting::SlowHypervisor(at) => self.fleet.slow_down(*at, Duration::ZERO),
            Lasting::SlowDisk(at) => {
                self.sites.get_mut(at).expect("a host of this world").write_takes = WRITE_TAKES;
            }
            Lasting::Cut(cut) => self.net.cuts.retain(|pair| !cut.contains(pair)),
            Lasting::Lossy => {
                (self.net.lost, self.net.twice) = (0, 0);
                self.net.delay_max = Duration::from_millis(1);
            }
        }
    }
}

impl super::Faults {
    /// How much a clock gains or loses.
    pub(crate) fn drift(&mut self) -> i32 {
        let drawn = i32::try_from(self.draw(2 * DRIFT_MAX)).unwrap_or(0);
        drawn - i32::try_from(DRIFT_MAX).unwrap_or(0)
    }
}
