//! When a host is hot: a threshold crossed without a break for as long as `[hot] for` says.
//!
//! Processors are held against what is wanted, use and wait: a VM that waits looks idle. And what its VMs are expected to ask in
//! the next hour counts as what they ask now, for processors, the card and packets: the rest is not foretold.
//!
//! **Invariant:** a blip never makes a host hot: every reading of the whole window was over the threshold, or every forecast.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::settings::Hot;
use crate::units::{MilliCores, Share, Time};
use crate::usage::HostUse;
use crate::usage::forecast::differs;
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
    /// It is what is expected in the next hour.
    pub foreseen: bool,
}

impl fmt::Display for Crossed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

/// What thresholds are held against.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// The last reading.
    pub host: HostUse,
    /// Processor time of the host itself beside its VMs, at the least.
    pub own: MilliCores,
    /// What its VMs ask together: use and wait.
    pub vms: Load,
    /// What they are expected to ask in the next hour, on average.
    pub next_hour: Load,
}

impl Seen {
    /// As it would be if the VMs did now what is expected of them.
    fn foreseen(&self) -> Seen {
        let Seen { mut host, own, vms, next_hour } = *self;
        // As much of it as now will be had.
        let had = host.cpu.minus(own).0.min(vms.cpu.0);
        let will = next_hour.cpu.0.saturating_mul(had).checked_div(vms.cpu.0);
        host.cpu = own.plus(MilliCores(will.unwrap_or(next_hour.cpu.0)));
        let uplink = &mut host.uplink;
        // Directions are not told apart in what VMs ask.
        let (more, less) = (next_hour.minus(vms), vms.minus(next_hour));
        for way in [&mut uplink.sent_bits, &mut uplink.received_bits] {
            *way = way.saturating_add(more.bits.0 / 2).saturating_sub(less.bits.0 / 2);
        }
        (uplink.sent_packets, uplink.received_packets) = (0, 0);
        Seen { host, own, vms: next_hour, next_hour }
    }

    /// Processor time that is used, or waited for and not had. What waits counts for half of what is idle at the most: where much is, VMs wait
    /// for limits of their own (a quota, a set of processors), which no other host would lift.
    fn wanted(&self, all: MilliCores) -> MilliCores {
        let used = self.host.cpu;
        let waits = self.own.plus(self.vms.cpu).minus(used);
        used.plus(MilliCores(waits.0.min(all.minus(used).0 / 2)))
    }

    /// The same without VMs that ask so much.
    pub fn without(&self, gone: Load) -> Seen {
        let mut seen = *self;
        let host = &mut seen.host;
        host.cpu = host.cpu.minus(gone.cpu);
        host.memory = host.memory.minus(gone.memory);
        let uplink = &mut host.uplink;
        for way in [&mut uplink.sent_bits, &mut uplink.received_bits] {
            *way = way.saturating_sub(gone.bits.0 / 2);
        }
        for way in [&mut uplink.sent_packets, &mut uplink.received_packets] {
            *way = way.saturating_sub(gone.packets.0 / 2);
        }
        seen
    }
}

/// What is expected makes a host hot only if it has been so for this long: VMs have then been forecast three times, each time from
/// other five minutes, so that a jump that comes back does not.
const FORESEEN_FOR: Duration = Duration::from_mins(15);
/// After a host was hot for what was so, nothing is foreseen for so long: forecasts lag behind a load that has gone.
const LAGS_FOR: Duration = Duration::from_hours(1);

/// Watches the thresholds over time.
#[derive(Clone, Debug, Default)]
pub struct HotWatch {
    /// By threshold, and whether it is what is expected that crosses it.
    since: BTreeMap<(Threshold, bool), Time>,
    /// When a threshold was last found to have been crossed for the whole window, not by what is expected.
    lasted: BTreeMap<Threshold, Time>,
    crossed: Vec<Crossed>,
    /// How long `vm_policy.when` must hold.
    policy_window: Duration,
}

impl HotWatch {
    /// Takes what was read last.
    pub fn observe(&mut self, now: Time, hot: &Hot, seen: &Seen, capacity: Capacity) {
        let all = self.all(now, hot, seen, capacity);
        let key = |it: &Crossed| (it.threshold, it.foreseen);
        self.since
            .retain(|kept, _| kept.0 == Threshold::Policy || all.iter().any(|it| key(it) == *kept));
        for it in &all {
            self.since.entry(key(it)).or_insert(now);
        }
        let lasted = |it: &&Crossed| !it.foreseen && self.has_lasted(now, it, hot);
        let lasted: Vec<Threshold> = all.iter().filter(lasted).map(|it| it.threshold).collect();
        self.lasted.extend(lasted.into_iter().map(|threshold| (threshold, now)));
        self.crossed = all;
    }

    /// What is crossed, then what would be in the next hour.
    fn all(&self, now: Time, hot: &Hot, seen: &Seen, capacity: Capacity) -> Vec<Crossed> {
        let lags = |it: &Crossed| {
            let lasted = self.lasted.get(&it.threshold);
            lasted.is_some_and(|at| now.since(*at) < LAGS_FOR)
        };
        let next_hour = foreseen(hot, seen, capacity).into_iter().filter(|it| !lags(it));
        crossed(hot, seen, capacity).into_iter().chain(next_hour).collect()
    }

    /// Takes what `vm_policy.when` says of the same reading, after `observe`.
    pub fn observe_policy(&mut self, now: Time, holds: Option<Crossed>, window: Duration) {
        self.policy_window = window;
        let key = (Threshold::Policy, false);
        if holds.is_some() {
            self.since.entry(key).or_insert(now);
        } else {
            self.since.remove(&key);
        }
        self.crossed.extend(holds);
    }

    /// How long what is crossed must be so.
    pub fn window(&self, crossed: &Crossed, hot: &Hot) -> Duration {
        match crossed {
            Crossed { threshold: Threshold::Policy, .. } => self.policy_window,
            Crossed { foreseen: true, .. } => hot.window.max(FORESEEN_FOR),
            Crossed { foreseen: false, .. } => hot.window,
        }
    }

    fn has_lasted(&self, now: Time, crossed: &Crossed, hot: &Hot) -> bool {
        let since = self.since.get(&(crossed.threshold, crossed.foreseen));
        since.is_some_and(|since| now.since(*since) >= self.window(crossed, hot))
    }

    /// The first threshold that has been crossed for the whole window, if any: the host is hot.
    pub fn hot(&self, now: Time, hot: &Hot) -> Option<&Crossed> {
        self.crossed.iter().find(|crossed| self.has_lasted(now, crossed, hot))
    }

    /// The same if this were instead of what was read last: of the thresholds that have been crossed for the whole window the
    /// first that still would be. Drops, pressure and `vm_policy.when` are none of them.
    pub fn still_hot(
        &self,
        now: Time,
        hot: &Hot,
        seen: &Seen,
        capacity: Capacity,
    ) -> Option<Crossed> {
        let foretold = |crossed: &Crossed| {
            !matches!(crossed.threshold, Threshold::Drops | Threshold::CpuPressure)
        };
        let mut all = self.all(now, hot, seen, capacity).into_iter();
        all.find(|crossed| foretold(crossed) && self.has_lasted(now, crossed, hot))
    }

    /// Thresholds crossed by the last reading, hot or not yet; what is so already is not told as expected too.
    pub fn crossed(&self) -> impl Iterator<Item = &Crossed> {
        let at_once =
            |threshold| self.crossed.iter().any(|it| it.threshold == threshold && !it.foreseen);
        self.crossed.iter().filter(move |it| !it.foreseen || !at_once(it.threshold))
    }
}

/// What would be crossed in the next hour.
fn foreseen(hot: &Hot, seen: &Seen, capacity: Capacity) -> Vec<Crossed> {
    let Seen { vms, next_hour, .. } = seen;
    let foretold = |it: &Crossed| match it.threshold {
        Threshold::Cpu => differs(next_hour.cpu.0, vms.cpu.0),
        Threshold::Nic => differs(next_hour.bits.0, vms.bits.0),
        Threshold::Packets => differs(next_hour.packets.0, vms.packets.0),
        Threshold::Drops | Threshold::CpuPressure | Threshold::Memory | Threshold::Policy => false,
    };
    let all = crossed(hot, &seen.foreseen(), capacity).into_iter().filter(foretold);
    let told = all.map(|Crossed { threshold, words, .. }| Crossed {
        threshold,
        words: words + " (expected in the next hour)",
        foreseen: true,
    });
    told.collect()
}

fn crossed(hot: &Hot, seen: &Seen, capacity: Capacity) -> Vec<Crossed> {
    let Seen { host, vms, .. } = seen;
    let uplink = &host.uplink;
    let packets = vms.packets.0.max(uplink.sent_packets.saturating_add(uplink.received_packets));
    let one_way = uplink.sent_bits.max(uplink.received_bits);
    let cpu_pressure = host.pressure.map_or(0, |p| per_mille(p.cpu));
    let mut found = Vec::new();
    // Words are made of what is crossed only: mostly nothing is.
    let mut over = |threshold, read: u64, allowed: u64, words: &dyn Fn() -> String| {
        if read > allowed {
            found.push(Crossed { threshold, words: words(), foreseen: false });
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
    let of_all = |cpu: MilliCores| used(cpu.0, capacity.cpu.0).min(1000);
    let (in_use, wanted) = (of_all(host.cpu), of_all(seen.wanted(capacity.cpu)));
    let allowed = u64::from(hot.cpu_used.0);
    let waiting = || {
        let wanted = words("cpu_used", wanted, hot.cpu_used);
        if in_use > allowed { wanted } else { format!("{wanted}, {} of it had", share(in_use)) }
    };
    over(Threshold::Cpu, wanted, allowed, &waiting);
    let memory = used(host.memory.0, capacity.memory.0);
    for (threshold, key, read, allowed) in [
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

/// The same rounded up: who goes by it takes a host for no emptier than it is.
pub fn committed(load: u64, capacity: u64) -> u64 {
    if capacity == 0 { 0 } else { load.saturating_mul(1000).div_ceil(capacity) }
}

fn words(key: &str, read: u64, allowed: Share) -> String {
    format!("{key} {} over {allowed}", share(read))
}

fn share(thousandths: u64) -> Share {
    Share(u32::try_from(thousandths).unwrap_or(u32::MAX))
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
    use crate::units::PacketsPerSec;

    fn setting() -> Hot {
        Hot {
            window: Duration::from_secs(5),
            packets_per_second: Some(PacketsPerSec(1000)),
            ..Settings::default().hot
        }
    }

    fn observe(watch: &mut HotWatch, second: u64, packets: u64) -> bool {
        let vms = Load { packets: PacketsPerSec(packets), ..Load::default() };
        let now = Time(second * 1_000_000);
        let seen = Seen { vms, next_hour: vms, ..Seen::default() };
        watch.observe(now, &setting(), &seen, Capacity::default());
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

    fn words_of(hot: &Hot, seen: Seen) -> Vec<String> {
        let mut watch = HotWatch::default();
        let capacity = Capacity { cpu: MilliCores(4000), ..Capacity::default() };
        watch.observe(Time(1), hot, &seen, capacity);
        watch.crossed().map(ToString::to_string).collect()
    }

    fn cpu(cores: u64) -> Load {
        Load { cpu: MilliCores(cores), ..Load::default() }
    }

    #[test]
    fn the_words_name_key_figure_and_limit() {
        let host = HostUse { cpu: MilliCores(3500), ..HostUse::default() };
        assert_eq!(
            words_of(&setting(), Seen { host, ..Seen::default() }),
            ["cpu_used 87.5 % over 80 %"]
        );
    }

    #[test]
    fn what_hardly_changes_is_not_expected() {
        let host = HostUse { cpu: MilliCores(3200), ..HostUse::default() };
        let words = |next: u64| {
            let seen = Seen { host, vms: cpu(3200), next_hour: cpu(next), ..Seen::default() };
            words_of(&setting(), seen)
        };
        assert_eq!(words(3208), [""; 0], "80 % now, and 80.2 % by a forecast");
        assert_eq!(words(3264), [""; 0]);
        assert_eq!(words(3265), ["cpu_used 81.6 % over 80 % (expected in the next hour)"]);
    }

    #[test]
    fn what_waits_is_wanted_too() {
        let host = HostUse { cpu: MilliCores(2800), ..HostUse::default() };
        let (vms, next_hour) = (cpu(3200), cpu(3200));
        let seen = Seen { host, own: MilliCores(300), vms, next_hour };
        assert_eq!(words_of(&setting(), seen), ["cpu_used 85 % over 80 %, 70 % of it had"]);
        let less = Seen { vms: cpu(2700), next_hour: cpu(2700), ..seen };
        assert_eq!(words_of(&setting(), less), [""; 0]);
    }

    #[test]
    fn what_is_expected_in_the_next_hour_counts_and_says_so() {
        let host = HostUse { cpu: MilliCores(1500), ..HostUse::default() };
        let seen = Seen { host, own: MilliCores(200), vms: cpu(1300), next_hour: cpu(3240) };
        assert_eq!(
            words_of(&setting(), seen),
            ["cpu_used 86 % over 80 % (expected in the next hour)"]
        );
        // What is so already is said as it is.
        let host = HostUse { cpu: MilliCores(3400), ..HostUse::default() };
        assert_eq!(words_of(&setting(), Seen { host, ..seen }), ["cpu_used 85 % over 80 %"]);
    }

    #[test]
    fn where_much_is_idle_what_waits_waits_for_a_limit_of_its_own() {
        let host = HostUse { cpu: MilliCores(1800), ..HostUse::default() };
        let seen = Seen { host, vms: cpu(8000), next_hour: cpu(8000), ..Seen::default() };
        assert_eq!(words_of(&setting(), seen), [""; 0]);
    }

    fn minute(minute: u64) -> Time {
        Time(minute * 60_000_000)
    }

    const FOUR: Capacity =
        Capacity { cpu: MilliCores(4000), memory: crate::units::Mib(0), bits: None, packets: None };

    fn used(used: u64, next_hour: u64) -> Seen {
        let host = HostUse { cpu: MilliCores(used), ..HostUse::default() };
        Seen { host, vms: cpu(used), next_hour: cpu(next_hour), ..Seen::default() }
    }

    #[test]
    fn what_is_committed_is_rounded_up_and_nothing_of_nothing_is_known() {
        assert_eq!([0, 1, 500, 501].map(|load| committed(load, 1000)), [0, 1, 500, 501]);
        assert_eq!((committed(1, 64_000), committed(32_000, 64_000)), (1, 500));
        assert_eq!((committed(32_001, 64_000), committed(7, 0)), (501, 0));
    }

    #[test]
    fn a_load_that_has_gone_is_not_expected_though_forecasts_lag_behind() {
        let mut watch = HotWatch::default();
        let mut hot_at = |m: u64, seen: Seen| {
            watch.observe(minute(m), &setting(), &seen, FOUR);
            watch.hot(minute(m), &setting()).is_some()
        };
        let busy: Vec<bool> = (1..=30).map(|m| hot_at(m, used(3600, 3600))).collect();
        assert!(!busy[0] && busy[1..].iter().all(|hot| *hot), "{busy:?}");
        assert!((31..=75).all(|m| !hot_at(m, used(400, 3600))));
    }

    #[test]
    fn a_blip_does_not_change_what_a_host_is_hot_by() {
        let mut watch = HotWatch::default();
        (1..=20).for_each(|m| watch.observe(minute(m), &setting(), &used(2000, 3600), FOUR));
        watch.observe(minute(21), &setting(), &used(3900, 3600), FOUR);
        assert!(watch.hot(minute(21), &setting()).is_some_and(|crossed| crossed.foreseen));
        let told: Vec<bool> = watch.crossed().map(|crossed| crossed.foreseen).collect();
        assert_eq!(told, [false], "what is so is not told as expected too");
    }

    #[test]
    fn without_the_vms_that_bring_it_the_next_hour_is_calm() {
        let mut watch = HotWatch::default();
        let seen = used(2000, 3600);
        (1..=16).for_each(|m| watch.observe(minute(m), &setting(), &seen, FOUR));
        assert_eq!(watch.hot(minute(15), &setting()), None);
        let now = minute(16);
        assert!(watch.still_hot(now, &setting(), &seen, FOUR).is_some());
        let left = Seen { vms: cpu(1500), next_hour: cpu(1500), ..seen.without(cpu(500)) };
        assert_eq!(watch.still_hot(now, &setting(), &left, FOUR), None);
    }

    #[test]
    fn a_threshold_of_all_processors_is_never_crossed() {
        let hot = Hot { cpu_used: Share(1000), ..setting() };
        let host = HostUse { cpu: MilliCores(4020), ..HostUse::default() };
        let seen = Seen { host, vms: cpu(6000), next_hour: cpu(7000), ..Seen::default() };
        assert_eq!(words_of(&hot, seen), [""; 0]);
    }
}
