//! One case from its move to its end.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use api::{MoveRequest, Step};
use rustix::process::Signal;
use serde_json::json;
use tokio::time::{Instant, timeout};

use super::bed::Bed;
use super::case::{Case, Driver, Fault, Outcome, Phase, State};
use super::look::{Beats, Copy, Watcher, copies, one_life, running, stopped};
use super::phase::{PhaseRead, Side, last_event, stage};
use super::table::{Expected, rule};
use crate::guests;
use crate::hosts::{Cut, Way};
use crate::qmp::Qmp;
use crate::wait;

/// A move comes to a phase within so long, or is refused.
const PHASE_MAX: Duration = Duration::from_secs(40);
/// What is to come of a case comes within so long: the slowest wait is that for a copy that stalls, half a minute.
const SETTLED_MAX: Duration = Duration::from_secs(100);
/// Under libvirt: it makes the connection of a copy itself, and hears of no cancel before TCP gives up, after two minutes.
const CONNECTED_MAX: Duration = Duration::from_secs(160);
/// A VM that is down is reported within so long.
const REPORTED_MAX: Duration = Duration::from_secs(10);
const BEATS_MAX: Duration = Duration::from_secs(30);
/// An agent, or QEMU, that does not answer for so long may have been stopped meanwhile.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// How long an agent is asked for its moves while it may stop itself.
const GLANCE_MAX: Duration = Duration::from_millis(100);
/// The source waits a second for answers; held for much of it, it hears none.
const HELD_MAX: Duration = Duration::from_millis(600);
const HOLDS_MAX: u32 = 5;
const LOOK_EVERY: Duration = Duration::from_millis(30);
const AGENT_PORT: u16 = 7946;
/// The first port of incoming copies; one move at a time takes no other.
const COPY_PORT: u16 = 49_152;

/// A move under way.
pub(crate) struct Run {
    pub(crate) phase: Phase,
    pub(crate) source: usize,
    pub(crate) target: usize,
    held: usize,
    pub(crate) move_id: String,
    /// The source's newest move before this one.
    before: Option<String>,
    /// The newest event of each agent before the move.
    newest: Vec<u64>,
}

impl Run {
    /// Who owns the VM where it died.
    fn owner(&self) -> usize {
        if self.phase == Phase::Done { self.target } else { self.source }
    }
}

impl Fault {
    /// Whether hosts remember it afterwards.
    fn sets_a_journal_back(self) -> bool {
        matches!(self, Fault::SourceJournal | Fault::TargetJournal)
    }

    /// Whether the fault goes on until it is mended; else an agent or a libvirt is started again, as by systemd, or
    /// nothing can be.
    fn lasts(self) -> bool {
        match self {
            Fault::TargetUnheard
            | Fault::TargetDeaf
            | Fault::TargetCut
            | Fault::SourceDisk
            | Fault::TargetDisk
            | Fault::ReturnPath
            | Fault::Replies
            | Fault::SourceJournal
            | Fault::TargetJournal => true,
            Fault::SourceAgent
            | Fault::TargetAgent
            | Fault::BothAgents
            | Fault::SourceQemu
            | Fault::TargetQemu
            | Fault::SourceLibvirt
            | Fault::TargetLibvirt
            | Fault::Cont => false,
        }
    }
}

impl Bed {
    /// Runs one case and makes the bed again for the next.
    ///
    /// # Errors
    /// If the bed cannot be made again. A case that went wrong is no error: it says so.
    pub async fn run(
        &mut self,
        phase: Phase,
        fault: Fault,
        expected: Expected,
    ) -> anyhow::Result<Case> {
        let began = Instant::now();
        let mut case = Case::new(phase, fault);
        let done = self.go(&mut case, expected).await;
        case.problem = match done {
            Ok(()) => case.flaw(),
            Err(error) => Some(format!("{error:#}")),
        };
        case.ok = case.problem.is_none();
        case.seconds = (began.elapsed().as_secs_f64() * 10.0).round() / 10.0;
        if !case.ok {
            case.problem = case.problem.map(|problem| format!("{problem}\n{}", self.logs(40)));
            self.reset().await.context("making the bed anew")?;
        } else if fault.sets_a_journal_back() {
            self.reset().await.context("making the bed anew")?;
        } else if expected.end == Outcome::Down {
            self.boot().await.context("starting the guest anew")?;
        } else if phase == Phase::Ready && case.outcome == Outcome::Stays {
            // A QEMU whose copy was cancelled before it was connected refuses another one for up to two minutes.
            self.renew().await.context("starting the guest anew")?;
        }
        Ok(case)
    }

    async fn go(&mut self, case: &mut Case, expected: Expected) -> anyhow::Result<()> {
        let vm = self.plan.vm();
        if case.fault.sets_a_journal_back() {
            self.keep_journals()?;
        }
        let beats = Beats::from_now(self.hosts(), vm);
        let watcher = Watcher::start(&self.cluster.network, vm);
        let done = self.go_watched(case, expected).await;
        let most = watcher.stop();
        case.running_copies = if most > 1 { most } else { case.running_copies };
        let life = one_life(&beats.since(self.hosts()));
        case.heartbeat_forked = life.is_err();
        done.and(life)
    }

    async fn go_watched(&mut self, case: &mut Case, expected: Expected) -> anyhow::Result<()> {
        let (run, broken) = self.break_in_phase(case, expected).await?;
        if let Some(outcome) = expected.meanwhile {
            let state = self.until(outcome, &run, false, case).await.context("while it lasts")?;
            case.keep(state, case.fault.lasts());
            self.mend_all(&run).await.context("ending the fault")?;
            self.resolve(case.fault, &run).await.context("resolving the move")?;
        }
        let state = self.until(expected.end, &run, true, case).await.context("in the end")?;
        if expected.end == Outcome::Down {
            let took = broken.elapsed();
            case.reported_ms = Some(u64::try_from(took.as_millis())?);
            ensure!(took <= REPORTED_MAX, "it was reported after {took:?} only");
            self.at = run.owner();
        } else {
            self.at = if expected.end == Outcome::Moved { run.target } else { run.source };
            if !case.fault.sets_a_journal_back() {
                self.quiet().await?;
            }
            self.beats_on(self.at).await?;
        }
        case.keep(state, !case.fault.lasts());
        self.mend_all(&run).await
    }

    /// Holds a move in the phase, breaks what is to break, and lets it go on; gives when.
    async fn break_in_phase(
        &mut self,
        case: &mut Case,
        expected: Expected,
    ) -> anyhow::Result<(Run, Instant)> {
        for _ in 0..HOLDS_MAX {
            let run = self.begin(case.phase).await.context("beginning the move")?;
            let held = Instant::now();
            let read = self.read_phase(&run)?;
            case.phase_read = Some(read.clone());
            ensure!(read == case.phase.read_as(), "the phase was read as {read:?}");
            self.break_it(case.fault, &run).await.with_context(|| case.fault.to_string())?;
            if [Some(Outcome::Moved), Some(Outcome::Paused)].contains(&expected.meanwhile) {
                self.cluster.host(run.target).limit_uplink(None)?;
            }
            let took = held.elapsed();
            let broken = Instant::now();
            if self.cluster.agent_pid(run.held).is_some() {
                self.cluster.signal_agent(run.held, Signal::CONT)?;
            }
            // A source that was stopped for longer than it waits for answers gives up, whatever is broken.
            let gives_up = case.phase == Phase::Request && took > HELD_MAX;
            if !(gives_up && expected.meanwhile == Some(Outcome::Moved)) {
                return Ok((run, broken));
            }
            self.mend_all(&run).await?;
            self.quiet().await?;
        }
        bail!("held for more than {HELD_MAX:?} each time")
    }

    /// Begins a move, and waits until it is held in the phase. Where one host cannot take the VM yet, another is asked.
    async fn begin(&mut self, phase: Phase) -> anyhow::Result<Run> {
        let (side, step) = phase.held();
        let others = self.others().await?;
        for target in &others {
            let (source, target) = (self.at, *target);
            let held = if side == Side::Source { source } else { target };
            let newest = self.newest_events().await?;
            let before = self.cluster.api(source).moves().await?.first().map(|one| one.id.clone());
            match step {
                Some(step) => self.hold_at(held, step)?,
                None => self.slow(target)?,
            }
            let to = Some(self.cluster.host(target).name());
            let (api, vm) = (self.cluster.api(source), self.plan.name.clone());
            // An agent that stops itself, or is killed, gives no answer.
            let asked =
                tokio::spawn(
                    async move { api.start_move(&MoveRequest { vm, to, force: false }).await },
                );
            let mut run =
                Run { phase, source, target, held, move_id: String::new(), before, newest };
            if self.comes_to(&mut run).await? {
                return Ok(run);
            }
            self.hold_nowhere();
            self.mend(target)?;
            if others.last() == Some(&target) {
                let answer = asked.await.map(|answer| format!("{answer:?}")).unwrap_or_default();
                bail!("no host takes the VM: {answer}");
            }
        }
        bail!("there is no other host")
    }

    /// Waits until the held agent has stopped; not, if the move ended before.
    async fn comes_to(&self, run: &mut Run) -> anyhow::Result<bool> {
        let deadline = Instant::now() + PHASE_MAX;
        let pid = self.cluster.agent_pid(run.held).context("the agent to hold does not run")?;
        let host = self.cluster.host(run.held);
        let mut copying = None;
        loop {
            if stopped(pid) {
                let event = last_event(host, &self.scratch)?;
                // Stopped from here, its last events may not be on disk yet, and the last that is there be of an earlier move,
                // whose agent was killed: let it go on a little.
                let told = event.step == Step::Copy && event.move_id == copying;
                if run.phase != Phase::Copying || told {
                    run.move_id = event.move_id.context("an event of a move")?;
                    return Ok(true);
                }
                self.cluster.signal_agent(run.held, Signal::CONT)?;
            }
            // It may stop itself while it is asked.
            let api = self.cluster.api(run.source);
            if self.answers(run.source)
                && let Ok(Ok(moves)) = timeout(GLANCE_MAX, api.moves()).await
                && let Some(newest) = moves.first()
                && Some(&newest.id) != run.before.as_ref()
            {
                if newest.ended {
                    return Ok(false);
                }
                if run.phase == Phase::Copying
                    && newest.phase == "copying"
                    && newest.copied_bytes > 0
                {
                    copying = Some(newest.id.clone());
                    self.cluster.signal_agent(run.held, Signal::STOP)?;
                }
            }
            ensure!(Instant::now() < deadline, "the move never came to: {}", run.phase);
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn read_phase(&self, run: &Run) -> anyhow::Result<PhaseRead> {
        let event = last_event(self.cluster.host(run.held), &self.scratch)?;
        let stage = |number| stage(self.cluster.host(number), &self.scratch, &run.move_id);
        Ok(PhaseRead {
            stopped: run.phase.held().0,
            event: event.step.to_string(),
            source_journal: stage(run.source)?,
            target_journal: stage(run.target)?,
        })
    }

    async fn break_it(&mut self, fault: Fault, run: &Run) -> anyhow::Result<()> {
        let vm = self.plan.vm();
        let target = self.cluster.host(run.target);
        match fault {
            Fault::SourceAgent => self.cluster.kill_agent(run.source),
            Fault::TargetAgent => self.cluster.kill_agent(run.target),
            Fault::BothAgents => {
                self.cluster.kill_agent(run.source)?;
                self.cluster.kill_agent(run.target)
            }
            Fault::SourceQemu => guests::kill_qemu(self.cluster.host(run.source), vm),
            Fault::TargetQemu => guests::kill_qemu(target, vm),
            Fault::TargetUnheard => target.cut(Way::Out, Cut::All),
            Fault::TargetDeaf => target.cut(Way::In, Cut::All),
            Fault::TargetCut => target.link_down(),
            Fault::SourceDisk => self.fill_disk(run.source),
            Fault::TargetDisk => self.fill_disk(run.target),
            Fault::ReturnPath => target.cut(Way::Out, Cut::Tcp(COPY_PORT)),
            Fault::Replies => target.cut(Way::Out, Cut::Tcp(AGENT_PORT)),
            Fault::Cont if self.driver == Driver::Libvirt => self.resume_by_hand(run.source),
            Fault::Cont => self.cont(run.source).await,
            Fault::SourceLibvirt => self.kill_daemon(run.source),
            Fault::TargetLibvirt => self.kill_daemon(run.target),
            Fault::SourceJournal => self.set_journal_back(run.source),
            Fault::TargetJournal => self.set_journal_back(run.target),
        }
    }

    /// Tells a QEMU to let its guest run, as an operator could. One that is stopped never answers.
    async fn cont(&self, number: usize) -> anyhow::Result<()> {
        let socket = guests::operator_socket(self.cluster.host(number), self.plan.vm());
        let told = async {
            let mut qmp = Qmp::connect(&socket).await?;
            qmp.command("cont", json!({})).await
        };
        // Whether it obeys is seen by what runs.
        let _answer = timeout(ANSWER_MAX, told).await;
        Ok(())
    }

    /// Ends the fault: cables in, disks free, agents and daemons back.
    async fn mend_all(&mut self, run: &Run) -> anyhow::Result<()> {
        for number in [run.target, run.source] {
            self.mend(number)?;
            if self.cluster.agent_pid(number).is_none() {
                self.cluster.start_agent(number)?;
            }
        }
        self.start_daemons().await
    }

    /// Waits until that has become of the VM; `settled`: for good, with nothing left open.
    async fn until(
        &self,
        outcome: Outcome,
        run: &Run,
        settled: bool,
        case: &mut Case,
    ) -> anyhow::Result<State> {
        let within = match self.driver {
            Driver::Qemu => SETTLED_MAX,
            Driver::Libvirt => CONNECTED_MAX,
        };
        let deadline = Instant::now() + within;
        loop {
            let seen = copies(self.hosts(), self.plan.vm()).await?;
            let running = running(&seen);
            if self.is(outcome, run, settled, &seen).await? {
                return Ok(State { outcome, running_copies: running.len() });
            }
            if Instant::now() >= deadline {
                (case.outcome, case.running_copies) = (by_sight(run, &seen), running.len());
                case.lost = seen.is_empty() && !self.is(Outcome::Down, run, true, &seen).await?;
                bail!("not {outcome} within {within:?}, but {}: {seen:?}", case.outcome);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn is(
        &self,
        outcome: Outcome,
        run: &Run,
        settled: bool,
        seen: &[Copy],
    ) -> anyhow::Result<bool> {
        let running = running(seen);
        Ok(match outcome {
            Outcome::Moved => {
                running == [run.target] && (!settled || self.is_over(run, true).await)
            }
            Outcome::Stays => running == [run.source] && self.is_over(run, settled).await,
            Outcome::GoesOn => running == [run.source] && !self.is_over(run, true).await,
            Outcome::Paused => running.is_empty() && !seen.is_empty() && self.alarmed(run).await,
            Outcome::Waits => running.is_empty() && !seen.is_empty(),
            Outcome::Down => seen.is_empty() && self.reported_down(run).await,
            Outcome::Other => false,
        })
    }

    /// Whether the move is over at its source; not settled, also if only the target is still to hear of it.
    async fn is_over(&self, run: &Run, settled: bool) -> bool {
        if !self.answers(run.source) {
            return !settled;
        }
        let Ok(moves) = self.cluster.api(run.source).moves().await else { return false };
        let found = moves.iter().find(|one| one.id == run.move_id);
        found.is_none_or(|one| one.ended || (!settled && one.phase == "undoing"))
    }

    async fn alarmed(&self, run: &Run) -> bool {
        for number in [run.source, run.target] {
            if !self.told_since(number, run.newest[number], Step::Alarm).await.is_empty() {
                return true;
            }
        }
        false
    }

    /// Whether the owner of the VM says that it is down, and has kept its definition.
    async fn reported_down(&self, run: &Run) -> bool {
        let owner = run.owner();
        let told = self.told_since(owner, run.newest[owner], Step::VmDown).await;
        !told.is_empty()
            && match self.driver {
                Driver::Qemu => {
                    guests::definition(self.cluster.host(owner), self.plan.vm()).exists()
                }
                Driver::Libvirt => self.keeps_domain(owner),
            }
    }

    /// Sees the guest's heart beat on a host.
    async fn beats_on(&self, number: usize) -> anyhow::Result<()> {
        let (host, vm) = (self.cluster.host(number), self.plan.vm());
        let before = guests::heartbeats(host, vm).len();
        let more = || Ok((guests::heartbeats(host, vm).len() >= before + 2).then_some(()));
        wait::until(BEATS_MAX, &format!("two more heartbeats on {}", host.name()), more).await
    }
}

/// What became of the VM, by nothing but where it runs.
fn by_sight(run: &Run, seen: &[Copy]) -> Outcome {
    match running(seen)[..] {
        [at] if at == run.target => Outcome::Moved,
        [at] if at == run.source => Outcome::Stays,
        [] if seen.is_empty() => Outcome::Down,
        [] => Outcome::Waits,
        _ => Outcome::Other,
    }
}

impl Case {
    fn new(phase: Phase, fault: Fault) -> Case {
        Case {
            phase,
            fault,
            outcome: Outcome::Other,
            running_copies: 0,
            heartbeat_forked: false,
            lost: false,
            phase_read: None,
            while_it_lasts: None,
            healed: None,
            reported_ms: None,
            rule: None,
            seconds: 0.0,
            ok: false,
            problem: None,
        }
    }

    /// Keeps a state: as the one that counts, or beside it.
    fn keep(&mut self, state: State, counts: bool) {
        if counts {
            (self.outcome, self.running_copies) = (state.outcome, state.running_copies);
            self.rule = rule(self.fault, state.outcome);
        } else if self.fault.lasts() {
            self.healed = Some(state);
        } else {
            self.while_it_lasts = Some(state);
        }
    }

    /// What must hold of every case, whatever the table says.
    fn flaw(&self) -> Option<String> {
        if self.running_copies > 1 {
            return Some(format!("{} copies ran at once", self.running_copies));
        }
        if self.heartbeat_forked || self.lost {
            return Some("the VM forked or was lost".to_owned());
        }
        let wanted = usize::from(self.rule.is_none());
        let wrong = self.running_copies != wanted;
        wrong.then(|| format!("{} copies run, {wanted} wanted", self.running_copies))
    }
}
