//! When a host is hot: a threshold crossed without a break for as long as `[hot] for` says.
//!
//! **Invariant:** a blip never makes a host hot: every reading of the whole window was over the threshold.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::settings::Hot;
use crate::units::{Share, Time};
use crate::usage::HostUse;
use crate::usage::load::{Capacity, Load};

/// The thresholds of `[hot]`, in the order in which they are reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Threshold {
    /// `packets_per_second`
    Packets,
    /// `nic_used`
    Nic,
    /// `drops_per_second`
    Drops,
    /// `cpu_used`
    Cpu,
    /// `cpu_pressure`
    CpuPressure,
    /// `memory_used`
    Memory,
    /// `vm_policy.when`
    Policy,
}

/// A threshold that is crossed: what was read and what was allowed, in the operator's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crossed {
    /// Which.
    pub threshold: Threshold,
    /// `packets_per_second 2300 over 1500`
    pub words: String,
}

impl fmt::Display for Crossed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

/// Watches the thresholds over time.
#[derive(Clone, Debug, Default)]
pub struct HotWatch {
    since: BTreeMap<Threshold, Time>,
    crossed: Vec<Crossed>,
    /// How long `vm_policy.when` must hold.
    policy_window: Duration,
}

impl HotWatch {
    /// Takes what was read last; `vms` is the demand of all guests together.
    pub fn observe(&mut self, now: Time, hot: &Hot, host: &HostUse, vms: Load, capacity: Capacity) {
        self.crossed = crossed(hot, host, vms, capacity);
        let crossed = &self.crossed;
        self.since.retain(|threshold, _| {
            *threshold == Threshold::Policy || crossed.iter().any(|c| c.threshold == *threshold)
        });
        for threshold in crossed.iter().map(|c| c.threshold) {
            self.since.entry(threshold).or_insert(now);
        }
    }

    /// Takes what `vm_policy.when` says of the same reading, after `observe`.
    pub fn observe_policy(&mut self, now: Time, holds: Option<Crossed>, window: Duration) {
        self.policy_window = window;
        if holds.is_some() {
            self.since.entry(Threshold::Policy).or_insert(now);
        } else {
            self.since.remove(&Threshold::Policy);
        }
        self.crossed.extend(holds);
    }

    /// How long what is crossed must be so.
    pub fn window(&self, crossed: &Crossed, hot: &Hot) -> Duration {
        if crossed.threshold == Threshold::Policy { self.policy_window } else { hot.window }
    }

    /// The first threshold that has been crossed for the whole window, if any: the host is hot.
    pub fn hot(&self, now: Time, hot: &Hot) -> Option<&Crossed> {
        self.crossed.iter().find(|c| {
            let window = self.window(c, hot);
            self.since.get(&c.threshold).is_some_and(|since| now.since(*since) >= window)
        })
    }

    /// The same if the host's use and its VMs' demand were these instead of what was read last: of the thresholds that have been
    /// crossed for the whole window the first that still would be. Drops, pressure and `vm_policy.when` are none of them.
    pub fn still_hot(
        &self,
        now: Time,
        hot: &Hot,
        host: &HostUse,
        vms: Load,
        capacity: Capacity,
    ) -> Option<Crossed> {
        let lasted = |crossed: &Crossed| {
            let since = self.since.get(&crossed.threshold);
            since.is_some_and(|since| now.since(*since) >= hot.window)
        };
        let foretold = |crossed: &Crossed| {
            !matches!(crossed.threshold, Threshold::Drops | Threshold::CpuPressure)
        };
        crossed(hot, host, vms, capacity).into_iter().find(|it| foretold(it) && lasted(it))
    }

    /// Thresholds crossed by the last reading, hot or not yet.
    pub fn crossed(&self) -> &[Crossed] {
        &self.crossed
    }
}

fn crossed(hot: &Hot, host: &HostUse, vms: Load, capacity: Capacity) -> Vec<Crossed> {
    let uplink = &host.uplink;
    let packets = vms.packets.0.max(uplink.sent_packets.saturating_add(uplink.received_packets));
    let one_way = uplink.sent_bits.max(uplink.received_bits);
    let cpu_pressure = host.pressure.map_or(0, |p| per_mille(p.cpu));
    let mut found = Vec::new();
    // Words are made of what is crossed only: mostly nothing is.
    let mut over = |threshold, read: u64, allowed: u64, words: &dyn Fn() -> String| {
        if read > allowed {
            found.push(Crossed { threshold, words: words() });
        }
    };
    if let Some(max) = hot.packets_per_second {
        let words = || format!("packets_per_second {packets} over {}", max.0);
        over(Threshold::Packets, packets, max.0, &words);
    }
    if let Some(speed) = capacity.bits {
        let (used, allowed) = (used(one_way, speed.0 / 2), hot.nic_used);
        over(Threshold::Nic, used, u64::from(allowed.0), &|| words("nic_used", used, allowed));
    }
    let (dropped, allowed) = (host.dropped, hot.drops_per_second);
    let drops = || format!("drops_per_second {dropped} over {allowed}");
    over(Threshold::Drops, dropped, allowed, &drops);
    // The kernel counts in ticks: a full second can read as a little more than the whole, and 100 % is to mean never.
    let cpu = used(host.cpu.0, capacity.cpu.0).min(1000);
    let memory = used(host.memory.0, capacity.memory.0);
    for (threshold, key, read, allowed) in [
        (Threshold::Cpu, "cpu_used", cpu, hot.cpu_used),
        (Threshold::CpuPressure, "cpu_pressure", cpu_pressure, hot.cpu_pressure),
        (Threshold::Memory, "memory_used", memory, hot.memory_used),
    ] {
        over(threshold, read, u64::from(allowed.0), &|| words(key, read, allowed));
    }
    found
}

/// Use in thousandths of the capacity; 0 where the capacity is not known.
pub fn used(load: u64, capacity: u64) -> u64 {
    load.saturating_mul(1000).checked_div(capacity).unwrap_or(0)
}

fn words(key: &str, read: u64, allowed: Share) -> String {
    format!("{key} {} over {allowed}", Share(u32::try_from(read).unwrap_or(u32::MAX)))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of time lies between 0 and 1; `as` saturates"
)]
/// A share between 0 and 1 in thousandths.
pub(crate) fn per_mille(share: f64) -> u64 {
    (share * 1000.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::settings::Settings;
    use crate::units::{MilliCores, PacketsPerSec};

    fn setting() -> Hot {
        Hot {
            window: Duration::from_secs(5),
            packets_per_second: Some(PacketsPerSec(1000)),
            ..Settings::default().hot
        }
    }

    fn observe(watch: &mut HotWatch, second: u64, packets: u64) -> bool {
        let load = Load { packets: PacketsPerSec(packets), ..Load::default() };
        let now = Time(second * 1_000_000);
        watch.observe(now, &setting(), &HostUse::default(), load, Capacity::default());
        watch.hot(now, &setting()).is_some()
    }

    #[test]
    fn hot_only_after_the_whole_window() {
        let mut watch = HotWatch::default();
        let hot: Vec<bool> = (1..=7).map(|s| observe(&mut watch, s, 1500)).collect();
        assert_eq!(hot, [false, false, false, false, false, true, true]);
    }

    #[test]
    fn a_blip_does_not_make_hot() {
        let mut watch = HotWatch::default();
        for second in 1..100 {
            let packets = if second % 5 == 0 { 900 } else { 9000 };
            assert!(!observe(&mut watch, second, packets), "second {second}");
        }
    }

    #[test]
    fn the_words_name_key_figure_and_limit() {
        let mut watch = HotWatch::default();
        let host = HostUse { cpu: MilliCores(3500), ..HostUse::default() };
        let capacity = Capacity { cpu: MilliCores(4000), ..Capacity::default() };
        watch.observe(Time(1), &setting(), &host, Load::default(), capacity);
        assert_eq!(watch.crossed()[0].to_string(), "cpu_used 87.5 % over 80 %");
    }

    #[test]
    fn a_threshold_of_all_processors_is_never_crossed() {
        let mut watch = HotWatch::default();
        let hot = Hot { cpu_used: Share(1000), ..setting() };
        let host = HostUse { cpu: MilliCores(4020), ..HostUse::default() };
        let capacity = Capacity { cpu: MilliCores(4000), ..Capacity::default() };
        watch.observe(Time(1), &hot, &host, Load::default(), capacity);
        assert_eq!(watch.crossed(), []);
    }
}
