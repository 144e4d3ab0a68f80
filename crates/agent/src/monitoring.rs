//! The monitor's thread: one reading each second, of whatever VMs there are then.

use std::sync::Arc;

use anyhow::Context;
use decide::usage::reading::Reading;
use drivers::hypervisor::Hypervisor;
use drivers::monitor::{Counting, Monitor, Uplink, Watched};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use crate::clock::CYCLE;

/// One cycle's reading and what the uplink's driver says, or why there is none.
pub(crate) type Read = Result<(Reading, Option<Uplink>), String>;

/// Starts to read. It ends when nobody listens any more.
pub(crate) fn start(
    uplink: Option<String>,
    hypervisor: Arc<dyn Hypervisor>,
) -> anyhow::Result<mpsc::Receiver<Read>> {
    let mut monitor = Monitor::new(uplink).context("opening what the monitor reads")?;
    if let Err(why) = monitor.count_frames(&Counting::default()) {
        tracing::warn!(
            "frames are not counted at taps, packets are all the same, by link statistics: {why}"
        );
    }
    let (said, heard) = mpsc::channel(2);
    tokio::spawn(async move {
        let mut cycle = tokio::time::interval(CYCLE);
        cycle.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            cycle.tick().await;
            let watched: Vec<Watched> = hypervisor.watched().into_iter().map(watched).collect();
            // Its calls block for a millisecond or so, and for seconds if the kernel stays silent.
            let read = tokio::task::spawn_blocking(move || {
                let read = monitor
                    .read(&watched)
                    .map(|reading| (reading, monitor.uplink().cloned()))
                    .map_err(|error| format!("the monitor: {:#}", anyhow::Error::from(error)));
                (monitor, read)
            });
            let Ok((back, read)) = read.await else { return };
            monitor = back;
            if said.send(read).await.is_err() {
                return;
            }
        }
    });
    Ok(heard)
}

fn watched(vm: drivers::hypervisor::Watched) -> Watched {
    let drivers::hypervisor::Watched { vm, name: _, pid, process_start, tap, told, share: _ } = vm;
    Watched { vm, pid, process_start, tap, told }
}
