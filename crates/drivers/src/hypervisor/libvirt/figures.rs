//! What libvirt is asked of all VMs now and then, in one question: their disks and what their balloons tell.
//!
//! **Invariant:** nothing is asked of a VM in a move: its QEMU may be stopped, and libvirt would wait for it.

use std::collections::BTreeMap;

use decide::migrate::hypervisor::HypervisorReport;
use decide::units::{Bytes, Mib};
use decide::usage::reading::DiskCounters;
use tokio::time::Instant;

use super::Place;
use super::calls::{Domain, Figures};
use super::rpc::Rpc;
use super::vm::{Following, Mail, VmTask};
use super::xdr::Value;

/// More vCPUs than any guest has.
const THREADS_MAX: usize = 1024;
/// More disks than any guest has.
const DISKS_MAX: u64 = 1024;

impl Place {
    /// Asks for the figures of all VMs that are adopted, and gives them to their tasks.
    pub(super) async fn ask_figures(self: &std::sync::Arc<Place>, rpc: &Rpc) {
        let of: Vec<Domain> =
            self.roster().values().filter_map(|entry| entry.asked.clone()).collect();
        if of.is_empty() {
            return;
        }
        let all = match rpc.figures(&of).await {
            Ok(all) => all,
            Err(error) => {
                tracing::debug!(%error, "no figures of the VMs");
                BTreeMap::new()
            }
        };
        let roster = self.roster();
        for (vm, figures) in all {
            if let Some(entry) = roster.get(&vm) {
                // The next ones come soon.
                drop(entry.mailbox.try_send(Mail::Told(figures)));
            }
        }
    }
}

impl VmTask {
    pub(super) fn on_figures(&mut self, figures: &Figures) {
        let moves = !matches!(self.following, Following::Nothing)
            || matches!(self.settled, Some((_, HypervisorReport::SourceCompleted(_))));
        let Some(run_state) = self.run_state.filter(|_| !moves) else { return };
        self.told.guest_memory = guest_memory(figures);
        self.told.disk = disk(figures).map(|counters| (Instant::now().into_std(), counters));
        if self.told.vcpu_threads.is_empty()
            && let Some(process) = &self.process
        {
            self.told.vcpu_threads = vcpu_threads(process.pid());
        }
        self.watch(run_state);
    }

    /// Has figures asked for only while it is in no move.
    pub(super) fn ask_no_figures(&self) {
        if let Some(entry) = self.place.roster().get_mut(&self.vm) {
            entry.asked = None;
        }
    }
}

fn number(figures: &Figures, name: &str) -> Option<u64> {
    match figures.get(name) {
        Some(Value::Number(number)) => u64::try_from(*number).ok(),
        Some(Value::Fraction(_) | Value::Text(_)) | None => None,
    }
}

/// What the guest itself told its balloon, in KiB.
fn guest_memory(figures: &Figures) -> Option<Mib> {
    let available = number(figures, "balloon.available")?;
    let usable = number(figures, "balloon.usable").or(number(figures, "balloon.unused"))?;
    Some(Mib(available.saturating_sub(usable) / 1024))
}

fn disk(figures: &Figures) -> Option<DiskCounters> {
    let count = number(figures, "block.count")?.min(DISKS_MAX);
    let sum = |what: &[&str]| {
        let each = (0..count).flat_map(|disk| what.iter().map(move |what| (disk, what)));
        let each = each.filter_map(|(disk, what)| number(figures, &format!("block.{disk}.{what}")));
        each.fold(0, u64::saturating_add)
    };
    Some(DiskCounters {
        read: Bytes(sum(&["rd.bytes"])),
        written: Bytes(sum(&["wr.bytes"])),
        requests: sum(&["rd.reqs", "wr.reqs"]),
    })
}

/// The threads that run vCPUs: libvirt has QEMU name them, `CPU 0/KVM`.
fn vcpu_threads(pid: i32) -> Vec<u32> {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let is_vcpu = |thread: &u32| {
        let name = std::fs::read_to_string(format!("/proc/{pid}/task/{thread}/comm"));
        name.unwrap_or_default().starts_with("CPU ")
    };
    let threads = threads.filter_map(|thread| thread.ok()?.file_name().to_str()?.parse().ok());
    threads.filter(is_vcpu).take(THREADS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_are_added_up_and_the_guests_memory_is_what_it_told() {
        let all = [
            ("block.count", 2),
            ("block.0.rd.bytes", 10),
            ("block.0.rd.reqs", 1),
            ("block.1.rd.bytes", 5),
            ("block.1.wr.bytes", 7),
            ("block.1.wr.reqs", 2),
            ("balloon.available", 150 << 10),
            ("balloon.usable", 100 << 10),
        ];
        let figures: Figures =
            all.map(|(name, value)| (name.to_owned(), Value::Number(value))).into();
        let expected = DiskCounters { read: Bytes(15), written: Bytes(7), requests: 3 };
        assert_eq!(disk(&figures), Some(expected));
        assert_eq!(guest_memory(&figures), Some(Mib(50)));
        assert_eq!((disk(&Figures::new()), guest_memory(&Figures::new())), (None, None));
    }
}
