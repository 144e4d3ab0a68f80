//! The whole cluster, by asking every host's agent for its report: at most once in [`EVERY`], however many look.
//!
//! **Invariant:** a host that does not answer holds up nobody for longer than [`WAIT`]; what it reported last is kept with its age.
//! **Invariant:** of each host one report is kept, and one question is under way; hosts that are not known any more are forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::{
    HostView, MADE_REPORTED, MoveView, Overview, OverviewHost, Problem, Report, UNMADE_REPORTED,
    VmTile,
};
use tokio::sync::Mutex as OneAtATime;
use tokio::time::{Instant, sleep};

use crate::net::{Looks, To};
use crate::steering::Steering;
use crate::views;

/// The least time between two questions to a host.
const EVERY: Duration = Duration::from_secs(1);
/// For so long an overview waits for reports; those that come later are in the next.
const WAIT: Duration = Duration::from_millis(500);
/// A host that has not answered is asked again after so long: longer than any answer takes.
const ASKED_AGAIN: Duration = Duration::from_secs(10);
const REPORT: &str = "/v1/report";
/// The phase of a move that was made.
const MADE: &str = "done";

/// What hosts have reported, and the way to ask them.
#[derive(Clone, Debug)]
pub(crate) struct Reports {
    pub(crate) looks: Looks,
    kept: Arc<Mutex<BTreeMap<String, Kept>>>,
    asked: Arc<OneAtATime<Option<Instant>>>,
}

#[derive(Debug, Default)]
struct Kept {
    report: Option<(Instant, Report)>,
    problem: Option<String>,
    /// Since when it is being asked.
    asking: Option<Instant>,
}

impl Reports {
    pub(crate) fn new(looks: Looks) -> Reports {
        Reports { looks, kept: Arc::default(), asked: Arc::default() }
    }

    /// All hosts, the one that answers first; `own` is its own report, and `seen` whom it knows.
    pub(crate) async fn overview(&self, own: Report, seen: Vec<HostView>) -> Overview {
        self.refresh(&seen).await;
        let (host, host_id) = (own.status.host.clone(), own.status.host_id.clone());
        let cluster = own.status.cluster.clone();
        let (kept, now, mut own) = (self.kept(), Instant::now(), Some(own));
        let one = |seen: HostView| {
            if seen.local {
                let report_age_seconds = Some(0.0);
                return OverviewHost {
                    seen,
                    report: own.take(),
                    report_age_seconds,
                    problem: None,
                };
            }
            let kept = kept.get(&seen.id);
            let report = kept.and_then(|kept| kept.report.clone());
            OverviewHost {
                seen,
                report_age_seconds: report.as_ref().map(|(came, _)| (now - *came).as_secs_f64()),
                report: report.map(|(_, report)| report),
                problem: kept.and_then(|kept| kept.problem.clone()),
            }
        };
        Overview { host, host_id, cluster, hosts: seen.into_iter().map(one).collect() }
    }

    async fn refresh(&self, seen: &[HostView]) {
        // Whoever comes meanwhile waits for the same answers.
        let mut asked = self.asked.lock().await;
        if asked.is_some_and(|asked| asked.elapsed() < EVERY) {
            return;
        }
        *asked = Some(Instant::now());
        let mut under_way = Vec::new();
        {
            let known: BTreeSet<&String> = seen.iter().map(|host| &host.id).collect();
            let mut kept = self.kept();
            kept.retain(|id, _| known.contains(id));
            for host in seen.iter().filter(|host| !host.local) {
                let kept = kept.entry(host.id.clone()).or_default();
                let (Ok(host_id), Ok(at)) = (host.id.parse(), host.address.parse()) else {
                    continue;
                };
                // One that never came back, whatever happened to it, must not be the last.
                if kept.asking.is_none_or(|since| since.elapsed() > ASKED_AGAIN) {
                    kept.asking = Some(Instant::now());
                    let to = To { host: host_id, at };
                    under_way.push(tokio::spawn(self.clone().ask(host.id.clone(), to)));
                }
            }
        }
        tokio::select! {
            () = async {
                for one in under_way {
                    // What came of it is kept.
                    let _ = one.await;
                }
            } => {}
            // They go on by themselves, as they do if whoever looks goes away.
            () = sleep(WAIT) => {}
        }
    }

    async fn ask(self, id: String, to: To) {
        let came = self.looks.ask(to, REPORT).await.and_then(|looked| {
            if looked.status != 200 {
                let problem: Option<Problem> = serde_json::from_slice(&looked.body).ok();
                return Err(problem.map_or_else(
                    || format!("its agent answers with status {}", looked.status),
                    |problem| problem.title,
                ));
            }
            let report: Result<Report, _> = serde_json::from_slice(&looked.body);
            report.map_err(|error| format!("its agent is of another version: {error}"))
        });
        let mut kept = self.kept();
        // It may not be known any more.
        let Some(kept) = kept.get_mut(&id) else { return };
        kept.asking = None;
        match came {
            Ok(report) => {
                kept.report = Some((Instant::now(), report));
                kept.problem = None;
            }
            Err(why) => kept.problem = Some(why),
        }
    }

    fn kept(&self) -> MutexGuard<'_, BTreeMap<String, Kept>> {
        // Each change is one step; a panic of another thread leaves them usable.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// This host in short. `newest_event` is the number of its newest event.
pub(crate) fn report(at_work: &Steering, newest_event: u64) -> Report {
    let mut moves = views::moves(at_work);
    reported(&mut moves);
    let vms = views::vms(at_work).into_iter().map(|vm| VmTile {
        name: vm.name,
        id: vm.id,
        state: vm.state,
        memory_mib: vm.memory_mib,
        cpu_percent: vm.cpu_percent,
        sent_packets_per_second: vm.sent_packets_per_second,
        received_packets_per_second: vm.received_packets_per_second,
        bits_per_second: vm.bits_per_second,
        excluded: vm.excluded.is_some(),
        trouble: vm.trouble,
    });
    Report { status: views::status(at_work), vms: vms.collect(), moves, newest_event }
}

/// Leaves those that a report has, of these, newest first.
fn reported(moves: &mut Vec<MoveView>) {
    let (mut made, mut unmade) = (0, 0);
    moves.retain(|one| {
        let (count, max) = match one.phase == MADE {
            true => (&mut made, MADE_REPORTED),
            false => (&mut unmade, UNMADE_REPORTED),
        };
        *count += usize::from(one.ended);
        !one.ended || *count <= max
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_do_not_hide_what_was_made() {
        let one = |n: usize, ended: bool, phase: &str| -> MoveView {
            serde_json::from_value(serde_json::json!({
                "id": format!("m.{n}"), "vm": "web", "vm_id": "1", "from": "host1", "to": null, "phase": phase,
                "reason": "", "began": "", "ended": ended, "outcome": null, "acceptances": 0, "refusals": 0,
                "copied_bytes": 0, "total_bytes": 0, "rounds": 0, "total_ms": null, "downtime_ms": null,
                "promised_percent": null, "measured_percent": null, "paid": null,
            }))
            .unwrap()
        };
        let mut moves: Vec<MoveView> = (0..40).map(|n| one(n, true, "abandoned")).collect();
        moves.push(one(40, false, "copying"));
        moves.extend((41..60).map(|n| one(n, true, MADE)));
        reported(&mut moves);
        let left = |phase: &str| moves.iter().filter(|one| one.phase == phase).count();
        assert_eq!((left("abandoned"), left("copying"), left(MADE)), (5, 1, 10));
        assert_eq!((&*moves[0].id, &*moves[6].id), ("m.0", "m.41"), "the newest of each");
    }
}
