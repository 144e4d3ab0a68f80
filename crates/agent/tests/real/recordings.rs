//! What agents recorded of a move on real QEMU gives the same again, and tells of it what they told.

use std::fs::{self, File};

use anyhow::{Context, ensure};
use api::{EVENTS_MAX, Event, EventFilter, Step};
use lab::cluster::Cluster;
use sim::replay::{Decision, Ending, Replayed, replay, unpacked};

use crate::bed::{idle, moved, roomy, with_cluster};

const FOLDER: &str = "/var/lib/evenkeel/record";

/// The only log of a host.
fn replayed(cluster: &Cluster, host: usize) -> anyhow::Result<Replayed> {
    let mut logs = fs::read_dir(cluster.host(host).path(FOLDER))?;
    let log = logs.next().context("a log")??.path();
    ensure!(logs.next().is_none(), "one start, one log");
    println!("host{}: {} KiB", host + 1, fs::metadata(&log)?.len() >> 10);
    replay(unpacked(File::open(&log)?)?).with_context(|| log.display().to_string())
}

/// What the agent's own event says, but for time and number.
fn as_event(
    decision: &Decision,
) -> (String, String, Option<String>, Option<String>, Option<String>) {
    let note = &decision.note;
    let id = note.move_id.map(|id| id.to_string());
    (note.step.to_string(), note.reason.clone(), decision.vm.clone(), decision.peer.clone(), id)
}

fn as_told(event: &Event) -> (String, String, Option<String>, Option<String>, Option<String>) {
    let Event { step, reason, vm, peer, move_id, .. } = event.clone();
    (step.to_string(), reason, vm, peer, move_id)
}

#[test]
fn what_agents_recorded_of_a_move_gives_the_same_again() {
    with_cluster(
        "recordings::what_agents_recorded_of_a_move_gives_the_same_again",
        &format!("{}[record]\nfolder = \"{FOLDER}\"\n", roomy("off")),
        &[(idle("web1", 1), 0)],
        async |cluster, _guests| {
            let there = moved(cluster, "web1", 0, 1).await?;
            for host in 0..3 {
                let all = EventFilter { limit: Some(EVENTS_MAX), ..EventFilter::default() };
                let told = cluster.api(host).events(&all).await?;
                // One agent is killed, the others are stopped.
                let ending = if host == 1 {
                    cluster.kill_agent(host)?;
                    Ending::CutOff
                } else {
                    cluster.stop_agent(host)?;
                    Ending::Ended("the agent ended".to_owned())
                };
                let again = replayed(cluster, host)?;
                println!("{} events, {} actions", again.events, again.actions);
                ensure!(again.same(), "host{}: {:?}", host + 1, again.difference);
                ensure!(again.ending == Some(ending), "{:?}", again.ending);
                let decided: Vec<_> = again.decisions.iter().map(as_event).collect();
                // What the agent itself notes is no decision.
                let told = told.iter().filter(|event| event.step != Step::Doing);
                let told: Vec<_> = told.map(as_told).collect();
                ensure!(decided.starts_with(&told), "told {told:#?}\nreplayed {decided:#?}");
                let of_move = told.iter().filter(|told| told.4.as_ref() == Some(&there.id)).count();
                // Of a move to one host by hand the third hears nothing.
                ensure!(of_move >= [12, 5, 0][host], "{of_move} of the move: {told:#?}");
            }
            for host in 0..3 {
                cluster.start_agent(host)?;
            }
            Ok(())
        },
    );
}
