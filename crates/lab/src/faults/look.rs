//! What is really there: every copy of the guest, looked at past the agents, and its heartbeats.
//!
//! A copy runs if its QEMU says so on a socket that no agent uses. A process that is stopped (state T) runs nothing,
//! whatever it would say. Beside that the guest's own heartbeats tell: no two copies ever print the same one.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::ensure;
use decide::units::VmId;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::guests;
use crate::hosts::{Host, Network};
use crate::qmp::Qmp;

/// A QEMU that does not answer for so long is mute.
const ANSWER_MAX: Duration = Duration::from_secs(2);
const WATCH_EVERY: Duration = Duration::from_millis(50);

/// What one copy of a guest does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Doing {
    /// The guest executes.
    Runs,
    /// QEMU answers, the guest does not execute; QEMU's word for it.
    Waits(String),
    /// The process is stopped by a signal.
    Frozen,
    /// The process is there and does not answer.
    Mute,
}

/// One copy of a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Copy {
    pub(crate) host: usize,
    pub(crate) doing: Doing,
}

/// All copies of a guest.
pub(crate) async fn copies(hosts: &[Host], vm: VmId) -> anyhow::Result<Vec<Copy>> {
    let mut found = Vec::new();
    for (number, host) in hosts.iter().enumerate() {
        for pid in guests::qemus(host, vm)? {
            let doing = doing(pid, &guests::operator_socket(host, vm)).await;
            found.push(Copy { host: number, doing });
        }
    }
    Ok(found)
}

/// The hosts on which a copy runs.
pub(crate) fn running(copies: &[Copy]) -> Vec<usize> {
    copies.iter().filter(|copy| copy.doing == Doing::Runs).map(|copy| copy.host).collect()
}

async fn doing(pid: u32, socket: &Path) -> Doing {
    if stopped(pid) {
        return Doing::Frozen;
    }
    let asked = async {
        let mut qmp = Qmp::connect(socket).await?;
        qmp.command("query-status", json!({})).await
    };
    match timeout(ANSWER_MAX, asked).await {
        Ok(Ok(answer)) if answer["running"] == true => Doing::Runs,
        Ok(Ok(answer)) => Doing::Waits(answer["status"].as_str().unwrap_or_default().to_owned()),
        // It may have been stopped while it was asked.
        Ok(Err(_)) | Err(_) if stopped(pid) => Doing::Frozen,
        Ok(Err(_)) | Err(_) => Doing::Mute,
    }
}

/// Whether a process is stopped by a signal.
pub(crate) fn stopped(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
}

/// Watches from beside how many copies run at once, from its start to its end.
#[derive(Debug)]
pub(crate) struct Watcher {
    most: Arc<Mutex<usize>>,
    task: JoinHandle<()>,
}

impl Watcher {
    pub(crate) fn start(network: &Arc<Network>, vm: VmId) -> Watcher {
        let most = Arc::new(Mutex::new(0));
        let (network, seen) = (Arc::clone(network), Arc::clone(&most));
        let task = tokio::spawn(async move {
            loop {
                if let Ok(at_once) = at_once(&network, vm).await {
                    let mut most = seen.lock().unwrap_or_else(PoisonError::into_inner);
                    *most = at_once.max(*most);
                }
                tokio::time::sleep(WATCH_EVERY).await;
            }
        });
        Watcher { most, task }
    }

    /// The most that were seen to run at once.
    pub(crate) fn stop(self) -> usize {
        self.task.abort();
        *self.most.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many copies ran at one moment: those that ran both before and after all the others were looked at.
async fn at_once(network: &Network, vm: VmId) -> anyhow::Result<usize> {
    let before = running(&copies(network.hosts(), vm).await?);
    if before.len() < 2 {
        return Ok(before.len());
    }
    let after = running(&copies(network.hosts(), vm).await?);
    Ok(before.iter().filter(|host| after.contains(host)).count())
}

/// How far each host's console had come: what was printed before does not count.
#[derive(Clone, Debug)]
pub(crate) struct Beats {
    vm: VmId,
    before: Vec<usize>,
}

impl Beats {
    pub(crate) fn from_now(hosts: &[Host], vm: VmId) -> Beats {
        let before = hosts.iter().map(|host| guests::heartbeats(host, vm).len()).collect();
        Beats { vm, before }
    }

    /// The heartbeats since, by host.
    pub(crate) fn since(&self, hosts: &[Host]) -> Vec<Vec<u64>> {
        let all = hosts.iter().map(|host| guests::heartbeats(host, self.vm));
        all.zip(&self.before).map(|(beats, before)| beats[*before..].to_vec()).collect()
    }
}

/// Whether heartbeats tell of one life: on each host they rise, and no host goes on after another has gone further.
///
/// # Errors
/// In words, what does not fit.
pub(crate) fn one_life(beats: &[Vec<u64>]) -> anyhow::Result<()> {
    let mut been = Vec::new();
    for host in guests::each_once(beats)?.into_values() {
        if been.last() != Some(&host) {
            ensure!(!been.contains(&host), "two copies took turns: {beats:?}");
            been.push(host);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_that_goes_on_elsewhere_is_one_life() {
        assert!(one_life(&[vec![1, 2, 4], vec![5, 6], vec![]]).is_ok());
        assert!(one_life(&[vec![5, 6], vec![1, 2, 4]]).is_ok());
    }

    #[test]
    fn a_fork_is_seen() {
        for forked in [
            [vec![1, 2, 3], vec![3, 4]],
            [vec![1, 2, 5], vec![3, 4]],
            [vec![1, 2, 2], vec![3]],
            [vec![3, 1], vec![4]],
        ] {
            assert!(one_life(&forked).is_err(), "{forked:?}");
        }
    }
}
