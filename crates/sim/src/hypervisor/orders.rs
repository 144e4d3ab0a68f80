//! What agents order of hypervisors, as the drivers take it.
//!
//! What no agent may order is refused as by a driver, and noted too: no agent may rely on that it is.

use std::time::Duration;

use decide::migrate::hypervisor::{
    CopyFigures, CopyParameters, Endpoint, HypervisorCommand as Command,
    HypervisorReport as Report, RunState, Seen,
};
use decide::units::{MoveId, Time, VmId};

use super::precopy::Precopy;
use super::{
    Copy, Fleet, LAST_ROUND, Next, Passed, Process, REPORTED, Reaches, STARTS, Said, Stage,
};

impl Fleet {
    /// An agent orders something.
    #[expect(clippy::too_many_arguments, reason = "the parts of one order")]
    pub fn command(
        &mut self,
        now: Time,
        reaches: Reaches<'_>,
        at: u16,
        id: MoveId,
        vm: VmId,
        command: Command,
        out: &mut Vec<Said>,
    ) {
        let seen = self.seen(at, vm);
        let report = match command {
            Command::Prepare(..) => return self.prepare(now, at, id, vm, out),
            Command::StartCopy(endpoint, copy) => {
                return self.start_copy(now, reaches, at, id, vm, &endpoint, copy, out);
            }
            Command::AllowPause(pause) => {
                let copy = self.at(at, vm).and_then(|process| process.copy.as_mut());
                copy.into_iter().for_each(|copy| copy.rounds.allow(pause));
                return;
            }
            Command::SwitchOver => return self.switch_over(at, id, vm, out),
            Command::CancelCopy => return self.cancel(now, reaches, at, id, vm, out),
            Command::Fence => {
                self.at(at, vm).into_iter().for_each(|process| process.tap = false);
                Report::Fenced
            }
            Command::Discard if !matches!(seen, Seen::PostMigrate | Seen::Gone) => {
                self.forbidden.push((vm, format!("{seen:?} at host{at} is discarded")));
                Report::Looked(seen)
            }
            Command::Discard => {
                self.forget(at, vm);
                Report::Discarded
            }
            Command::TakeBack(_) if seen == Seen::IncomingComplete => {
                self.forbidden.push((vm, format!("an incoming side at host{at} is taken back")));
                Report::ResumeFailed("it is not this host's".to_owned(), seen)
            }
            Command::Resume(_) if seen == Seen::PostMigrate => {
                self.forbidden.push((vm, format!("what left host{at} is resumed as if it came")));
                Report::ResumeFailed("it was left behind by a move".to_owned(), seen)
            }
            Command::TakeBack(run) | Command::Resume(run) => self.resume(now, at, id, vm, run),
            Command::DestroyIncomplete if seen == Seen::IncomingComplete => Report::Looked(seen),
            Command::DestroyIncoming | Command::DestroyIncomplete => {
                return self.destroy(now, reaches, at, id, vm, out);
            }
            Command::Look => Report::Looked(seen),
        };
        self.say(at, id, vm, report, out);
    }

    fn prepare(&mut self, now: Time, at: u16, id: MoveId, vm: VmId, out: &mut Vec<Said>) {
        let here = self.process(at, vm).map(|process| (process.seen, process.move_id()));
        match here {
            None if self.host(at).refuses => {
                let report = Report::PrepareFailed("no port free".to_owned());
                return self.say(at, id, vm, report, out);
            }
            None => self.begin(now, at, vm, Seen::Incoming, Some(id)),
            Some((Seen::Incoming, of)) if of == Some(id) => {}
            Some((seen, _)) => {
                let report = Report::PrepareFailed(format!("{seen:?} is here"));
                return self.say(at, id, vm, report, out);
            }
        }
        let endpoint = Endpoint { uri: format!("sim:{at}"), ..Endpoint::default() };
        self.say_after(STARTS, at, id, vm, Report::Prepared(endpoint), out);
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one command")]
    fn start_copy(
        &mut self,
        now: Time,
        reaches: Reaches<'_>,
        at: u16,
        id: MoveId,
        vm: VmId,
        to: &Endpoint,
        copy: CopyParameters,
        out: &mut Vec<Said>,
    ) {
        let seen = self.seen(at, vm);
        let of = self.process(at, vm).and_then(Process::move_id);
        if seen == Seen::Copying || seen == Seen::PostMigrate && of == Some(id) {
            return self.asked_again(at, id, vm, out);
        }
        let to: Option<u16> = to.uri.strip_prefix("sim:").and_then(|to| to.parse().ok());
        let to = to.filter(|to| self.hosts.contains_key(to));
        let listening = to.and_then(|to| {
            let there = self.process(to, vm)?;
            (there.seen == Seen::Incoming && there.move_id() == Some(id))
                .then_some((to, there.number))
        });
        let can = matches!(seen, Seen::Running | Seen::Paused);
        let cut = to.is_some_and(|to| !reaches(at, to) || !reaches(to, at));
        let Some((to, peer)) = listening.filter(|_| can && !cut) else {
            let why = if cut { "connection timed out" } else { "connection refused" };
            let report = Report::CopyFailed(why.to_owned(), seen);
            let after = if cut { Duration::from_secs(5) } else { REPORTED };
            return self.say_after(after, at, id, vm, report, out);
        };
        let link = self.hosts[&at].link.min(self.hosts[&to].link);
        let rounds = Precopy::new(now, self.memory(vm), copy, link);
        let takes = rounds.rest();
        self.at(to, vm).expect("it listens").moving = Some((id, Some(at)));
        let process = self.at(at, vm).expect("it runs, or is paused");
        process.seen = Seen::Copying;
        process.moving = Some((id, Some(to)));
        process.copy = Some(Box::new(Copy { stage: Stage::Rounds, rounds, peer }));
        self.later(takes, at, vm, peer, Next::RoundEnds, out);
    }

    /// A copy is asked for once more, or for another move while one is under way.
    fn asked_again(&self, at: u16, id: MoveId, vm: VmId, out: &mut Vec<Said>) {
        let Some(process) = self.process(at, vm) else { return };
        let report = if process.seen == Seen::PostMigrate {
            Report::SourceCompleted(CopyFigures::default())
        } else if process.move_id() != Some(id) {
            Report::CopyFailed("another move of this VM is under way".to_owned(), Seen::Copying)
        } else if process.copying(Stage::PreSwitchover) {
            Report::PreSwitchover
        } else {
            return;
        };
        self.say(at, id, vm, report, out);
    }

    fn switch_over(&mut self, at: u16, id: MoveId, vm: VmId, out: &mut Vec<Said>) {
        let seen = self.seen(at, vm);
        let copy = self.at(at, vm).and_then(|process| process.copy.as_mut());
        match copy {
            Some(copy) if copy.stage == Stage::PreSwitchover => {
                copy.stage = Stage::Sending;
                let (takes, peer) = (copy.rounds.rest().max(LAST_ROUND), copy.peer);
                self.later(takes, at, vm, peer, Next::Sent, out);
            }
            Some(_) => {}
            None => self.say(at, id, vm, without_copy(seen), out),
        }
    }

    fn cancel(
        &mut self,
        now: Time,
        reaches: Reaches<'_>,
        at: u16,
        id: MoveId,
        vm: VmId,
        out: &mut Vec<Said>,
    ) {
        let seen = self.seen(at, vm);
        let Some(process) = self.process(at, vm).filter(|p| p.seen == Seen::Copying) else {
            return self.say(at, id, vm, without_copy(seen), out);
        };
        let to = process.moving.and_then(|(_, to)| to);
        let free = to.is_some_and(|to| reaches(at, to) && reaches(to, at));
        // `completed` may win.
        let wins = process.copying(Stage::Sending) && free && process.number.is_multiple_of(2);
        if !wins {
            self.fail(now, reaches, at, vm, "cancelled", out);
        }
    }

    fn resume(&mut self, now: Time, at: u16, id: MoveId, vm: VmId, run: RunState) -> Report {
        let seen = self.seen(at, vm);
        match seen {
            Seen::Gone if self.host(at).unrun.remove(&vm) => Report::IncomingGone,
            Seen::Gone | Seen::Incoming | Seen::Copying => {
                Report::ResumeFailed(format!("{seen:?}"), seen)
            }
            Seen::Running
            | Seen::Paused
            | Seen::IncomingComplete
            | Seen::PostMigrate
            | Seen::Unknown => {
                let process = self.at(at, vm).expect("it was just seen");
                process.paused = run == RunState::Paused;
                process.seen = if process.paused { Seen::Paused } else { Seen::Running };
                (process.tap, process.copy, process.used.until) = (true, None, now);
                self.executed(at, vm);
                if seen == Seen::IncomingComplete {
                    // Also if it stays paused: it is in place, and is owned here.
                    self.supersede(at, vm);
                    self.passed.push(Passed { id, vm, to: at });
                }
                Report::Resumed
            }
        }
    }

    fn destroy(
        &mut self,
        now: Time,
        reaches: Reaches<'_>,
        at: u16,
        id: MoveId,
        vm: VmId,
        out: &mut Vec<Said>,
    ) {
        match self.seen(at, vm) {
            Seen::Gone => {}
            Seen::Incoming | Seen::IncomingComplete => {
                let process = self.forget(at, vm).expect("it was just seen");
                self.tell_peer(now, reaches, vm, &process, out);
            }
            seen @ (Seen::Running
            | Seen::Paused
            | Seen::Copying
            | Seen::PostMigrate
            | Seen::Unknown) => {
                let what = format!("{seen:?} at host{at} is to be ended as an incoming side");
                self.forbidden.push((vm, what));
                return self.say(at, id, vm, Report::Looked(seen), out);
            }
        }
        self.say(at, id, vm, Report::IncomingGone, out);
    }
}

/// What is said to whoever goes on with a copy that is none: it has ended, or never was.
fn without_copy(seen: Seen) -> Report {
    match seen {
        Seen::PostMigrate => Report::SourceCompleted(CopyFigures::default()),
        Seen::Gone
        | Seen::Running
        | Seen::Paused
        | Seen::Incoming
        | Seen::IncomingComplete
        | Seen::Copying
        | Seen::Unknown => Report::CopyFailed("no copy".to_owned(), seen),
    }
}
