//! Which steps there are, and what each does.

use decide::migrate::hypervisor::{
    CopyFigures, HypervisorCommand as Command, HypervisorReport as Report, RunState, Seen,
};
use decide::units::MoveId;

use super::agent::Agent;
use super::disk::Disk;
use super::qemu::{Copied, Qemu, State};
use super::{Fate, Host, Step, Turn, World, in_state};

impl World {
    /// All that can happen at that host, but for letters.
    pub(crate) fn steps_at(&self, site: u8, steps: &mut Vec<Step>) {
        let host = self.host(site);
        match &host.agent {
            Some(agent) => self.steps_of_agent(site, agent, steps),
            None => {
                steps.push(Step::Start(site));
                if self.budget.journals > 0 {
                    steps.push(Step::StartDoubtful(site, Fate::Lost));
                    if host.backup.as_ref().is_some_and(|backup| *backup != host.disk) {
                        steps.push(Step::StartDoubtful(site, Fate::SetBack));
                    }
                }
            }
        }
        // Before a move began a copy of the journal is as good as none.
        if self.budget.journals > 0 && host.backup.is_none() && !self.net.is_empty() {
            steps.push(Step::Backup(site));
        }
        self.turns(site, steps);
    }

    fn steps_of_agent(&self, site: u8, agent: &Agent, steps: &mut Vec<Step>) {
        if !agent.reports.is_empty() {
            steps.push(Step::Hear(site));
        }
        if !agent.writes.is_empty() {
            steps.push(Step::Write(site));
            if self.budget.writes > 0 {
                steps.push(Step::WriteFails(site));
            }
        }
        let waits = agent.reports.len() >= usize::from(self.budget.line);
        let timers = agent.timers.iter().filter(|key| !(waits && key.repeats()));
        steps.extend(timers.map(|key| Step::Timeout(site, *key)));
        if self.budget.cancels > 0 {
            steps.extend(agent.cancellable().map(|id| Step::Cancel(site, id)));
        }
        if self.budget.moves > 0 && agent.movable() {
            let others = self.sites().filter(|to| *to != site);
            let able = others.filter(|to| self.would_offer(*to));
            steps.extend(able.map(|to| Step::Begin { from: site, to }));
        }
        if self.host(site).qemu.is_some_and(|qemu| qemu.own) && agent.would_find() {
            steps.push(Step::Find(site));
        }
        let kept = 0..=agent.writes.len();
        if self.budget.crashes > 0 {
            steps.extend(kept.clone().map(|kept| Step::Crash(site, kept)));
        }
        if self.budget.power > 0 {
            steps.extend(kept.map(|kept| Step::PowerLoss(site, kept)));
        }
    }

    /// What its QEMU may do by itself.
    fn turns(&self, site: u8, steps: &mut Vec<Step>) {
        let Some(qemu) = self.host(site).qemu else { return };
        if self.budget.deaths > 0 {
            steps.push(Step::Qemu(site, Turn::Dies));
        }
        let Some(copy) = qemu.copy else { return };
        let peer = self.host(copy.peer).qemu.filter(|peer| {
            peer.copy.is_some_and(|theirs| theirs.id == copy.id && theirs.peer == site)
        });
        let mut turn = |turn| steps.push(Step::Qemu(site, turn));
        match qemu.state {
            State::Active if in_state(peer, State::Incoming) => turn(Turn::PreSwitchover),
            State::Device if in_state(peer, State::Incoming) => turn(Turn::TargetCompletes),
            State::Device if copy.heard => turn(Turn::SourceCompletes),
            State::Incoming if copy.heard && !peer.is_some_and(|peer| peer.copying()) => {
                turn(Turn::IncomingExits)
            }
            _ => {}
        }
        if qemu.copying() && (copy.cancelled || peer.is_none() || self.budget.copies > 0) {
            turn(Turn::FailsRunning);
            if qemu.state != State::Active && !copy.cancelled {
                turn(Turn::FailsPaused);
            }
        }
    }

    /// Does one step.
    pub(crate) fn take(&mut self, step: Step) {
        match step {
            Step::Begin { from, to } => self.begin(from, to),
            Step::Deliver(letter) => self.deliver(letter),
            Step::Hear(site) => self.hear(site),
            Step::Write(site) => self.write_ends(site, true),
            Step::WriteFails(site) => {
                self.budget.writes -= 1;
                self.write_ends(site, false);
            }
            Step::Timeout(site, key) => self.timeout(site, key),
            Step::Cancel(site, id) => {
                self.budget.cancels -= 1;
                self.cancel(site, id);
            }
            Step::Find(site) => self.find(site),
            Step::Crash(site, kept) => {
                self.budget.crashes -= 1;
                self.crash(site, kept);
            }
            Step::PowerLoss(site, kept) => {
                self.budget.power -= 1;
                self.crash(site, kept);
                self.qemu_ends(site);
            }
            Step::Start(site) => self.start(site),
            Step::StartDoubtful(site, fate) => {
                self.budget.journals -= 1;
                self.replace(site, fate);
                self.start(site);
            }
            Step::Backup(site) => {
                let host = self.at(site);
                host.backup = Some(host.disk.clone());
            }
            Step::Qemu(site, turn) => self.turn(site, turn),
        }
    }

    fn crash(&mut self, site: u8, kept: usize) {
        let host = self.at(site);
        let agent = host.agent.take().expect("only who lives is killed");
        agent.writes.iter().take(kept).for_each(|(_, records, _)| host.disk.write(records));
        host.died_between = kept > 0;
    }

    fn replace(&mut self, site: u8, fate: Fate) {
        self.ghost.replaced.insert(site);
        let host = self.at(site);
        let first = host.disk.incarnation + 10;
        match fate {
            Fate::Lost => host.disk = Disk::new(site, first),
            Fate::SetBack => {
                host.disk = host.backup.clone().expect("offered only where there is one");
                host.disk.put_in_doubt(site, first);
            }
        }
    }

    fn turn(&mut self, site: u8, turn: Turn) {
        let qemu = self.host(site).qemu.expect("only a process has turns");
        if turn == Turn::Dies {
            self.budget.deaths -= 1;
            return self.dies(site, qemu);
        }
        let copy = qemu.copy.expect("only copies go on");
        let report = match turn {
            Turn::PreSwitchover => {
                self.set(site, |qemu| qemu.state = State::PreSwitchover);
                Report::PreSwitchover
            }
            Turn::TargetCompletes => {
                self.set(site, |qemu| qemu.copy.as_mut().expect("it is copying").heard = true);
                self.set(copy.peer, |theirs| {
                    (theirs.state, theirs.fresh) = (State::IncomingComplete, qemu.fresh);
                });
                self.report(copy.peer, copy.id, Report::IncomingCompleted);
                if self.host(copy.peer).qemu.is_some_and(|qemu| qemu.armed) {
                    self.runs(copy.peer);
                }
                return;
            }
            Turn::SourceCompletes => {
                self.set(site, |qemu| qemu.state = State::PostMigrate);
                Report::SourceCompleted(CopyFigures::default())
            }
            Turn::FailsRunning | Turn::FailsPaused => {
                let by_itself = !copy.cancelled && self.peer_of(site, copy).is_some();
                self.budget.copies -= u8::from(by_itself);
                if turn == Turn::FailsRunning {
                    self.runs(site);
                    Report::CopyFailed(String::new(), Seen::Running)
                } else {
                    self.set(site, |qemu| qemu.state = State::Paused);
                    Report::CopyFailed(String::new(), Seen::Paused)
                }
            }
            Turn::IncomingExits => {
                self.at(site).qemu = None;
                Report::IncomingFailed(String::new())
            }
            Turn::Dies => unreachable!("it has been dealt with"),
        };
        self.report(site, copy.id, report);
    }

    fn peer_of(&self, site: u8, copy: Copied) -> Option<Qemu> {
        let theirs = |qemu: &Qemu| qemu.copy.is_some_and(|c| c.id == copy.id && c.peer == site);
        self.host(copy.peer).qemu.filter(theirs)
    }

    fn dies(&mut self, site: u8, qemu: Qemu) {
        self.qemu_ends(site);
        self.at(site).unrun = qemu.state == State::IncomingComplete;
        let copy = qemu.copy;
        match (qemu.state, copy) {
            (State::Active | State::PreSwitchover | State::Device, Some(copy)) => {
                self.report(site, copy.id, Report::CopyFailed(String::new(), Seen::Gone));
            }
            (State::Incoming | State::IncomingComplete, Some(copy)) => {
                self.report(site, copy.id, Report::IncomingFailed(String::new()));
            }
            _ => self.vm_gone(site),
        }
    }

    /// A process ends by a fault. If it was the only good copy, nobody can save the VM.
    fn qemu_ends(&mut self, site: u8) {
        let had = self.fresh_copies() > 0;
        self.at(site).qemu = None;
        if had && self.fresh_copies() == 0 {
            self.ghost.excused = true;
        }
    }

    pub(crate) fn fresh_copies(&self) -> usize {
        self.hosts.iter().filter(|host| host.qemu.is_some_and(|qemu| qemu.fresh)).count()
    }

    pub(crate) fn set(&mut self, site: u8, change: impl FnOnce(&mut Qemu)) {
        if let Some(qemu) = self.at(site).qemu.as_mut() {
            change(qemu);
        }
    }

    /// The guest begins to execute there: what every other copy holds is stale against the disk from now on.
    fn runs(&mut self, site: u8) {
        let fresh = self.host(site).qemu.is_some_and(|qemu| qemu.fresh);
        self.ghost.stale_ran |= !fresh;
        for other in self.sites().filter(|other| *other != site) {
            if self.host(other).qemu.is_some() {
                self.set(other, |qemu| qemu.fresh = false);
            }
        }
        self.set(site, |qemu| (qemu.state, qemu.armed) = (State::Running, false));
    }

    /// The driver carries out an order; its answer waits in line.
    pub(crate) fn order(&mut self, site: u8, id: MoveId, command: &Command) {
        let seen = self.host(site).qemu.map_or(Seen::Gone, |qemu| qemu.seen());
        let own = self.host(site).qemu.is_some_and(|qemu| qemu.own);
        let report = match command {
            Command::Prepare(..) => return self.prepare(site, id, seen),
            Command::StartCopy(..) => return self.start_copy(site, id, seen),
            // How long a pause may be changes nothing here.
            Command::AllowPause(_) => return,
            Command::SwitchOver => {
                if in_state(self.host(site).qemu, State::PreSwitchover) {
                    self.set(site, |qemu| qemu.state = State::Device);
                }
                return;
            }
            Command::CancelCopy => match seen {
                Seen::Copying => {
                    return self
                        .set(site, |q| q.copy.as_mut().expect("it copies").cancelled = true);
                }
                Seen::PostMigrate => Report::SourceCompleted(CopyFigures::default()),
                _ => Report::CopyFailed(String::new(), seen),
            },
            Command::Fence => {
                self.set(site, |qemu| qemu.tap = false);
                Report::Fenced
            }
            Command::Discard if matches!(seen, Seen::PostMigrate | Seen::Gone) => {
                self.ghost.discarded |= self.host(site).qemu.is_some_and(|qemu| qemu.fresh);
                self.at(site).qemu = None;
                Report::Discarded
            }
            Command::DestroyIncoming => match seen {
                Seen::Gone => {
                    self.at(site).unrun = false;
                    Report::IncomingGone
                }
                Seen::Incoming | Seen::IncomingComplete => {
                    self.at(site).qemu = None;
                    Report::IncomingGone
                }
                _ => Report::Looked(seen),
            },
            Command::DestroyIncomplete if matches!(seen, Seen::Gone | Seen::Incoming) => {
                self.at(site).qemu = None;
                Report::IncomingGone
            }
            Command::Discard | Command::DestroyIncomplete | Command::Look => Report::Looked(seen),
            Command::TakeBack(_) => match seen {
                Seen::PostMigrate | Seen::Paused | Seen::Running if own => self.let_run(site, seen),
                _ => Report::ResumeFailed(String::new(), seen),
            },
            Command::Resume(_) => match seen {
                Seen::Gone if self.host(site).unrun => {
                    self.at(site).unrun = false;
                    Report::IncomingGone
                }
                Seen::IncomingComplete | Seen::Paused | Seen::Running => self.let_run(site, seen),
                Seen::Incoming => {
                    self.set(site, |qemu| qemu.armed = true);
                    Report::ResumeFailed(String::new(), seen)
                }
                _ => Report::ResumeFailed(String::new(), seen),
            },
        };
        self.report(site, id, report);
    }

    fn let_run(&mut self, site: u8, seen: Seen) -> Report {
        if seen != Seen::Running {
            self.runs(site);
        }
        self.set(site, |qemu| (qemu.tap, qemu.own) = (true, true));
        Report::Resumed
    }

    fn prepare(&mut self, site: u8, id: MoveId, seen: Seen) {
        if seen != Seen::Gone {
            return self.hear_prepare_failed(site, id);
        }
        let peer = super::site_of(id.host);
        let host = self.at(site);
        (host.qemu, host.unrun) = (Some(Qemu::incoming(id, peer)), false);
        self.report(site, id, Report::Prepared(Default::default()));
    }

    fn hear_prepare_failed(&mut self, site: u8, id: MoveId) {
        self.report(site, id, Report::PrepareFailed(String::new()));
    }

    fn start_copy(&mut self, site: u8, id: MoveId, seen: Seen) {
        let peer = self.host(site).agent.as_ref().and_then(|agent| agent.peer(id));
        let peer = peer.expect("a move has a target");
        let listens = self
            .host(peer)
            .qemu
            .filter(|q| q.state == State::Incoming && q.copy.is_some_and(|c| c.id == id));
        if seen != Seen::Running || listens.is_none() {
            return self.report(site, id, Report::CopyFailed(String::new(), seen));
        }
        let copy = Copied { id, peer, cancelled: false, heard: false };
        self.set(site, |qemu| (qemu.state, qemu.copy) = (State::Active, Some(copy)));
        self.set(peer, |qemu| qemu.copy.as_mut().expect("it is incoming").heard = true);
    }
}

/// What the guest does: it runs.
pub(crate) const RUNS: RunState = RunState::Running;

impl Host {
    /// Whether the journal says that this host owns the VM.
    pub(crate) fn owns(&self) -> bool {
        use decide::migrate::record::Ownership;
        self.disk.vm.is_some_and(|vm| vm.ownership == Ownership::Owner)
    }
}
