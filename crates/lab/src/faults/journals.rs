//! Journals that are replaced by an old copy in the middle of a move, and what a person does about it afterwards.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use api::{Decision, Resolve};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::time::Instant;

use super::bed::Bed;
use super::case::{Driver, Fault, Phase};
use super::phase::STATE;
use super::row::Run;
use crate::guests;
use crate::qmp::Qmp;
use crate::wait;

const ANSWER_MAX: Duration = Duration::from_secs(20);

impl Bed {
    fn old_journal(&self, number: usize) -> PathBuf {
        self.scratch.join(format!("{}-old-journal", self.cluster.host(number).name()))
    }

    /// Keeps a copy of every journal as it is before a move.
    pub(crate) fn keep_journals(&self) -> anyhow::Result<()> {
        for (number, host) in self.hosts().iter().enumerate() {
            fs::copy(host.path(&format!("{STATE}/journal.redb")), self.old_journal(number))
                .with_context(|| format!("copying the journal of {}", host.name()))?;
        }
        Ok(())
    }

    /// Ends an agent, puts the old copy in its journal's place, and starts it again.
    pub(crate) fn set_journal_back(&mut self, number: usize) -> anyhow::Result<()> {
        self.cluster.kill_agent(number)?;
        let journal = self.cluster.host(number).path(&format!("{STATE}/journal.redb"));
        fs::copy(self.old_journal(number), journal).context("putting an old journal in place")?;
        self.cluster.start_agent(number)
    }

    /// What a person does after a journal was set back: makes sure that the VM cannot run on one side, and says so on the other.
    pub(crate) async fn resolve(&self, fault: Fault, run: &Run) -> anyhow::Result<()> {
        let (source, target) = (run.source, run.target);
        match (fault, run.phase) {
            // The source no longer knows that it gave the VM away; the target's copy is complete.
            (Fault::SourceJournal, Phase::AfterSwitchOver) => {
                self.end_by_hand(source).await?;
                self.decide(target, run, Decision::KeepHere, Some(source)).await
            }
            (Fault::SourceJournal, Phase::BeforeSwitchOver) if self.driver == Driver::Libvirt => {
                self.end_by_hand(source).await?;
                self.decide(target, run, Decision::KeepHere, Some(source)).await
            }
            (Fault::SourceJournal, Phase::Done) => self.end_by_hand(source).await,
            // Nor of the copy under way: QEMU lets the guest run on when it is cancelled.
            (Fault::SourceJournal, _) => self.cancel_by_hand(source).await,
            (Fault::TargetJournal, Phase::Done) => {
                self.decide(source, run, Decision::GiveUp, None).await
            }
            // The target no longer knows of the copy that it holds.
            (Fault::TargetJournal, _) => {
                self.end_by_hand(target).await?;
                self.decide(source, run, Decision::KeepHere, Some(target)).await
            }
            _ => Ok(()),
        }
    }

    /// Ends the VM on a host as a person would, past the agent, with its tap and files.
    async fn end_by_hand(&self, number: usize) -> anyhow::Result<()> {
        let (host, vm) = (self.cluster.host(number), self.plan.vm());
        for pid in guests::qemus(host, vm)? {
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
            kill_process(pid.context("a process has a number")?, Signal::KILL)?;
        }
        let gone = || Ok(guests::qemus(host, vm)?.is_empty().then_some(()));
        wait::until(ANSWER_MAX, "QEMU gone", gone).await?;
        guests::remove_files(host, vm)?;
        if self.driver == Driver::Libvirt {
            self.undefine_by_hand(number).await?;
        }
        if host.path("/sys/class/net").join(self.plan.tap()).exists() {
            host.ip(&format!("link delete {}\n", self.plan.tap()))?;
        }
        Ok(())
    }

    /// Cancels a copy as a person would, past the agent.
    async fn cancel_by_hand(&self, number: usize) -> anyhow::Result<()> {
        if self.driver == Driver::Libvirt {
            return self.abort_by_hand(number);
        }
        let socket = guests::operator_socket(self.cluster.host(number), self.plan.vm());
        Qmp::connect(&socket).await?.command("migrate_cancel", json!({})).await.map(|_done| ())
    }

    async fn decide(
        &self,
        number: usize,
        run: &Run,
        decision: Decision,
        fenced: Option<usize>,
    ) -> anyhow::Result<()> {
        let api = self.cluster.api(number);
        let fenced = fenced.map(|host| self.cluster.host(host).name());
        let resolve = Resolve { decision, fenced };
        let deadline = Instant::now() + ANSWER_MAX;
        loop {
            let refused = match api.resolve(&run.move_id, &resolve).await {
                Ok(_) => return Ok(()),
                Err(refused) => refused,
            };
            ensure!(Instant::now() < deadline, "{decision:?} is not taken: {refused}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}
