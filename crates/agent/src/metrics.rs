//! `GET /metrics` in Prometheus' text form: this host, its VMs, and what was counted since the agent started.
//!
//! What counts up is counted as events are told; everything else comes from the views that the API shows, at each scrape. Of other
//! hosts there is only how many are in which state: each agent is scraped for itself. Names begin with `evenkeel_`, units are base
//! units (bytes, seconds, ratios of one, cores).
//!
//! **Invariant:** the sets of labels are bounded: the VMs of this host, the steps, the states of a host, the outcomes of a delivery, two
//! certificates.

use anyhow::Context;
use api::{Event, HostView, MoveView, Status, Step, VmView};
use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, Opts, Registry,
    TextEncoder,
};

/// Seconds: from a guest without memory to speak of, to a copy of an hour.
const DURATIONS: &[f64] =
    &[0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0];
/// Seconds: what a guest does not notice, to what its clients do.
const DOWNTIMES: &[f64] = &[0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0];
const MIB: f64 = 1024.0 * 1024.0;
const STATES: [&str; 3] = ["alive", "suspect", "gone"];

/// What is counted while the agent runs.
#[derive(Clone, Debug)]
pub(crate) struct Totals {
    all: Registry,
    events: IntCounterVec,
    copied: IntCounter,
    duration: Histogram,
    downtime: Histogram,
    /// Of webhooks.
    pub(crate) deliveries: Deliveries,
    /// Of traces.
    pub(crate) traces: Deliveries,
}

/// What became of deliveries to receivers of one kind.
#[derive(Clone, Debug)]
pub(crate) struct Deliveries {
    /// The receiver took it.
    pub(crate) delivered: IntCounter,
    /// It did not, and is tried again.
    pub(crate) failed: IntCounter,
    /// An event that is not tried any more.
    pub(crate) dropped: IntCounter,
}

impl Totals {
    /// # Errors
    /// If a name is no metric's: never.
    pub(crate) fn new() -> anyhow::Result<Totals> {
        let events = "Events told since the agent started, by step.";
        let copied = "Memory sent by copies of VMs that left this host.";
        let duration = "From the start of the copy until the VM was seen running at its new host, of VMs that left.";
        let downtime = "From the pause of the guest until it was seen running at its new host, of VMs that left.";
        let histogram = |name: &str, help: &str, buckets: &[f64]| {
            Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))
        };
        let webhooks = "Deliveries to webhooks since the agent started; of failed ones each try.";
        let traces = "Deliveries of traces since the agent started; of failed ones each try.";
        let all = Registry::new();
        let deliveries = |name: &str, help: &str| -> anyhow::Result<Deliveries> {
            let by_outcome = IntCounterVec::new(Opts::new(name, help), &["outcome"])?;
            all.register(Box::new(by_outcome.clone()))?;
            let outcome = |word: &str| by_outcome.with_label_values(&[word]);
            let (delivered, failed) = (outcome("delivered"), outcome("failed"));
            Ok(Deliveries { delivered, failed, dropped: outcome("dropped") })
        };
        let totals = Totals {
            deliveries: deliveries("evenkeel_webhook_deliveries_total", webhooks)?,
            traces: deliveries("evenkeel_trace_deliveries_total", traces)?,
            all,
            events: IntCounterVec::new(Opts::new("evenkeel_events_total", events), &["step"])?,
            copied: IntCounter::new("evenkeel_move_copied_bytes_total", copied)?,
            duration: histogram("evenkeel_move_duration_seconds", duration, DURATIONS)?,
            downtime: histogram("evenkeel_move_downtime_seconds", downtime, DOWNTIMES)?,
        };
        totals.all.register(Box::new(totals.events.clone()))?;
        totals.all.register(Box::new(totals.copied.clone()))?;
        totals.all.register(Box::new(totals.duration.clone()))?;
        totals.all.register(Box::new(totals.downtime.clone()))?;
        // There from the start, so that the first of them is an increase.
        for step in [Step::Request, Step::Acceptance, Step::Refusal, Step::Done, Step::Abandoned] {
            totals.events.with_label_values(&[&*step.to_string()]);
        }
        Ok(totals)
    }

    /// Counts events that were told.
    pub(crate) fn told<'a>(&self, events: impl Iterator<Item = &'a Event>) {
        for event in events {
            self.events.with_label_values(&[&*event.step.to_string()]).inc();
        }
    }

    /// A VM has left this host.
    pub(crate) fn left(&self, moved: &MoveView) {
        self.copied.inc_by(moved.copied_bytes);
        for (figure, ms) in [(&self.duration, moved.total_ms), (&self.downtime, moved.downtime_ms)]
        {
            if let Some(ms) = ms {
                figure.observe(std::time::Duration::from_millis(ms).as_secs_f64());
            }
        }
    }
}

/// What is looked at for one scrape.
#[derive(Clone, Debug)]
pub(crate) struct Looked {
    pub(crate) totals: Totals,
    pub(crate) status: Status,
    pub(crate) hosts: Vec<HostView>,
    pub(crate) vms: Vec<VmView>,
    /// Whose certificates end when, seconds since 1970; none without keys.
    pub(crate) certificates: Vec<(&'static str, u64)>,
}

impl Looked {
    /// The text of an answer.
    ///
    /// # Errors
    /// If it cannot be written: never.
    pub(crate) fn text(&self) -> anyhow::Result<String> {
        let now = Registry::new();
        self.of_agent(&now)?;
        self.of_host(&now)?;
        self.of_vms(&now)?;
        let mut families = self.totals.all.gather();
        families.extend(now.gather());
        let mut text = Vec::new();
        TextEncoder::new().encode(&families, &mut text).context("writing metrics")?;
        String::from_utf8(text).context("writing metrics")
    }

    fn of_agent(&self, to: &Registry) -> anyhow::Result<()> {
        let Status { version, cluster, host, host_id, .. } = &self.status;
        let labels = ["version", "cluster", "host", "host_id"];
        let info = gauges(to, "evenkeel_build_info", "The agent that answers.", &labels)?;
        info.with_label_values(&[version, cluster, host, host_id]).set(1.0);
        let known = gauges(to, "evenkeel_hosts", "Hosts that this one knows.", &["state"])?;
        for state in STATES {
            let count = self.hosts.iter().filter(|host| host.state == state).count();
            known.with_label_values(&[state]).set(number(count as u64));
        }
        let alarms = number(self.status.alarms.len() as u64);
        gauge(to, "evenkeel_alarms", "What needs a person.", alarms)?;
        let under_way = f64::from(self.status.moves_under_way);
        gauge(to, "evenkeel_moves_under_way", "Moves from or to this host.", under_way)?;
        let on = f64::from(self.status.balancer_on);
        gauge(to, "evenkeel_balancer_on", "Whether a person lets this host begin moves.", on)?;
        let wrong = f64::from(self.status.config.is_some());
        let help = "Whether something in the configuration file is not in force.";
        gauge(to, "evenkeel_config_pending", help, wrong)?;
        let failing = number(self.status.webhooks_failing.len() as u64);
        let help = "Webhooks to which nothing could be delivered for five minutes or more.";
        gauge(to, "evenkeel_webhooks_failing", help, failing)?;
        let failing = f64::from(self.status.traces_failing.is_some());
        let help =
            "Whether no trace could be delivered for five minutes or more, or none is taken.";
        gauge(to, "evenkeel_traces_failing", help, failing)?;
        let name = "evenkeel_certificate_expiry_timestamp_seconds";
        let help =
            "When a certificate ends, in seconds since 1970: this host's own, the cluster's CA's.";
        let ends = gauges(to, name, help, &["certificate"])?;
        for (whose, second) in &self.certificates {
            ends.with_label_values(&[whose]).set(number(*second));
        }
        Ok(())
    }

    fn of_host(&self, to: &Registry) -> anyhow::Result<()> {
        let hot = f64::from(self.status.hot.is_some());
        gauge(to, "evenkeel_host_hot", "Whether this host is over one of its thresholds.", hot)?;
        gauge(to, "evenkeel_host_vms", "VMs on this host.", f64::from(self.status.vms))?;
        if let Some(uplink) = &self.status.uplink {
            if let Some(up) = uplink.up {
                gauge(to, "evenkeel_uplink_up", "Whether the uplink has a link.", f64::from(up))?;
            }
            if let Some(speed) = uplink.speed_bits_per_second {
                let help = "What the uplink carries in one direction, in bytes per second.";
                gauge(to, "evenkeel_uplink_speed_bytes", help, number(speed) / 8.0)?;
            }
        }
        let Some(host) = self.hosts.iter().find(|host| host.local) else { return Ok(()) };
        let help = "Processor time in use, of all cores.";
        gauge(to, "evenkeel_host_cpu_used_ratio", help, host.cpu_percent / 100.0)?;
        let help = "Memory that guests have at full size.";
        gauge(to, "evenkeel_host_memory_used_ratio", help, host.memory_percent / 100.0)?;
        let help = "Packets per second at all taps.";
        gauge(to, "evenkeel_host_packets_per_second", help, number(host.packets_per_second))?;
        let bytes = number(host.bits_per_second) / 8.0;
        let help = "Bytes per second at all taps.";
        gauge(to, "evenkeel_host_network_bytes_per_second", help, bytes)?;
        if let Some(room) = host.room_mib {
            let help = "Memory that this host could still give to guests.";
            gauge(to, "evenkeel_host_room_bytes", help, number(room) * MIB)?;
        }
        Ok(())
    }

    fn of_vms(&self, to: &Registry) -> anyhow::Result<()> {
        let labels = ["vm", "name", "state"];
        let info = gauges(to, "evenkeel_vm_info", "A VM on this host, by its UUID.", &labels)?;
        for vm in &self.vms {
            info.with_label_values(&[&vm.id, &vm.name, &vm.state]).set(1.0);
        }
        for Figure { name, help, of } in FIGURES {
            let figure = gauges(to, name, help, &["vm"])?;
            for vm in &self.vms {
                if let Some(value) = of(vm) {
                    figure.with_label_values(&[&vm.id]).set(value);
                }
            }
        }
        Ok(())
    }
}

/// A figure that each VM has, or some.
struct Figure {
    name: &'static str,
    help: &'static str,
    of: fn(&VmView) -> Option<f64>,
}

const FIGURES: &[Figure] = &[
    Figure {
        name: "evenkeel_vm_epoch",
        help: "How often ownership has passed.",
        of: |vm| Some(number(vm.epoch)),
    },
    Figure {
        name: "evenkeel_vm_memory_bytes",
        help: "Memory at full size.",
        of: |vm| Some(number(vm.memory_mib) * MIB),
    },
    Figure {
        name: "evenkeel_vm_guest_memory_bytes",
        help: "Memory in use inside the guest, page cache not counted, where its balloon tells.",
        of: |vm| Some(number(vm.guest_memory_mib?) * MIB),
    },
    Figure {
        name: "evenkeel_vm_dirty_bytes_per_second",
        help: "How fast it writes to its memory, as last measured.",
        of: |vm| Some(number(vm.dirty_mib_per_second?) * MIB),
    },
    Figure {
        name: "evenkeel_vm_cpu_used_cores",
        help: "Processor time in use, in cores.",
        of: |vm| Some(vm.cpu_percent / 100.0),
    },
    Figure {
        name: "evenkeel_vm_cpu_wait_cores",
        help: "Processor time that its vCPUs wanted and did not get, in cores.",
        of: |vm| Some(vm.cpu_wait_percent? / 100.0),
    },
    Figure {
        name: "evenkeel_vm_sent_packets_per_second",
        help: "Packets that it sends.",
        of: |vm| Some(number(vm.sent_packets_per_second)),
    },
    Figure {
        name: "evenkeel_vm_received_packets_per_second",
        help: "Packets that it receives.",
        of: |vm| Some(number(vm.received_packets_per_second)),
    },
    Figure {
        name: "evenkeel_vm_network_bytes_per_second",
        help: "Bytes that it sends and receives.",
        of: |vm| Some(number(vm.bits_per_second) / 8.0),
    },
    Figure {
        name: "evenkeel_vm_disk_bytes_per_second",
        help: "Bytes read from its disks and written to them.",
        of: |vm| Some(number(vm.disk_bytes_per_second?)),
    },
    Figure {
        name: "evenkeel_vm_history_seconds",
        help: "Seconds of usage history that are kept for it.",
        of: |vm| Some(number(vm.history_seconds)),
    },
];

fn gauge(to: &Registry, name: &str, help: &str, value: f64) -> anyhow::Result<()> {
    let one = Gauge::new(name, help)?;
    one.set(value);
    Ok(to.register(Box::new(one))?)
}

fn gauges(to: &Registry, name: &str, help: &str, labels: &[&str]) -> anyhow::Result<GaugeVec> {
    let all = GaugeVec::new(Opts::new(name, help), labels)?;
    to.register(Box::new(all.clone()))?;
    Ok(all)
}

#[expect(clippy::cast_precision_loss, reason = "whoever reads metrics reads them as f64")]
fn number(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests;
