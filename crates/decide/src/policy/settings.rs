//! What the operator decides: thresholds, limits and margins, as plain values in the units that the code reckons with.
//!
//! `Default` is what an empty file means. Each struct is one section of the file; `policy::file` reads them from text.
//!
//! **Invariant:** two hosts whose `Settings::hash` agree judge relief and cost alike.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::policy::expression::sections::{Admission, MigrationPolicy, VmPolicy};
use crate::policy::quantity;
use crate::policy::rules::hours::Hours;
use crate::policy::rules::{self, Rules};
use crate::units::{Cost, Mib, PacketsPerSec, Share};

/// Everything that an operator sets about balancing; sections and keys that the file leaves out keep their default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Who acts: nobody, the operator, or Evenkeel.
    pub mode: Mode,
    /// When a host is short of something.
    pub hot: Hot,
    /// How even the cluster is to be, where the trigger is `spread`.
    pub spread: Spread,
    /// What a host may reach by taking a VM.
    pub target: Target,
    /// Which moves pay.
    pub worth_it: WorthIt,
    /// How many moves at most.
    pub limits: Limits,
    /// How memory is copied.
    pub copy: Copy,
    /// Whether copies are encrypted.
    pub migration: Migration,
    /// What a VM that arrives gets of this host.
    pub share: Shares,
    /// When a VM should leave, and which, beside `hot`.
    pub vm_policy: VmPolicy,
    /// Which VMs this host takes, beside `target`.
    pub admission: Admission,
    /// Where a VM goes.
    pub migration_policy: MigrationPolicy,
    /// What must hold of where VMs are.
    pub rules: Rules,
    /// What this host is to rules.
    pub host: Here,
}

/// What is done about a hot host, or about a rule that is broken; the more is done without a person, the greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Balance {
    /// Nothing: it is watched, and that is all.
    Off,
    /// A move is proposed, and an operator applies it.
    #[default]
    Recommend,
    /// The move is made.
    Automatic,
}

impl Balance {
    /// As the file has it.
    pub fn name(self) -> &'static str {
        match self {
            Balance::Off => "off",
            Balance::Recommend => "recommend",
            Balance::Automatic => "automatic",
        }
    }
}

/// What makes a VM leave its host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trigger {
    /// A host that is hot, by `[hot]`, is relieved; nothing else moves.
    #[default]
    Hot,
    /// Besides, load is evened out beyond what `[spread]` lets be.
    Spread,
    /// Besides, the VM busiest at the network card leaves the busiest card, beyond what `[spread]` lets be.
    Packets,
    /// Besides, hosts empty in the order of their names, the last first, where what they have fits at those before them: they
    /// could sleep. Nothing is switched off.
    Consolidate,
}

/// Section `[mode]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mode {
    /// `off`, `recommend` or `automatic`. Recommending costs an operator's time, acting costs trust: begin with
    /// `recommend`, and go on to `automatic` once its proposals are those you would have made. Where it is not `off` a VM may
    /// have its own, in `[[rules.vm]]` or by its tag.
    pub balance: Balance,
    /// `hot` or `spread`. `hot` moves little and only where something is short; `spread` also evens out hosts that are
    /// not short of anything, which takes many moves at first and leaves room everywhere for what comes.
    pub trigger: Trigger,
    /// `off`, `recommend` or `automatic`: what is done where a rule is broken already. Rules are kept by every move, whatever
    /// is set here; this is about VMs that were started, or rules that were written, so that one does not hold. A VM may have its
    /// own, as for `balance`.
    pub rules: Balance,
}

/// Section `[host]`, as far as rules go by it; the agent's file has more there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Here {
    /// What pins may name this host by besides its name: racks, pools.
    #[serde(deserialize_with = "rules::labels")]
    pub labels: Vec<String>,
    /// Takes no VM. Those that are here stay.
    pub maintenance: bool,
}

/// Section `[hot]`: nothing is balanced unless one of these holds for as long as `for`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Hot {
    /// Key `for`: how long a threshold must hold. Short reacts before users notice, and also moves VMs for peaks that would
    /// have passed; long lets a shortage last. 30 s to 10 min; longer than your batch jobs' start, shorter than `worth_it.vm_rest`.
    #[serde(rename = "for", deserialize_with = "quantity::positive_duration")]
    pub window: Duration,
    /// Use of all processors. Low moves before anything waits, high leaves it to `cpu_pressure`. 60 % to 95 %, and above
    /// `target.cpu_used_max`, or a host that has just taken a VM is hot itself.
    #[serde(deserialize_with = "quantity::share")]
    pub cpu_used: Share,
    /// Share of time in which some task waits for a processor (the kernel's pressure stall information). It sees what use
    /// cannot: a full host where nobody waits is fine. 10 % to 40 %; ignored where the kernel does not tell.
    #[serde(deserialize_with = "quantity::share")]
    pub cpu_pressure: Share,
    /// Memory in use, page cache not counted. Beyond it the host soon swaps or kills. 80 % to 95 %; above `target.memory_used_max`:
    /// where this is raised beyond it, halfway from there to the whole counts.
    #[serde(deserialize_with = "quantity::share")]
    pub memory_used: Share,
    /// Use of the uplink's speed, either direction. 60 % to 90 %: a copy needs some of what is left. Ignored where the speed is unknown.
    #[serde(deserialize_with = "quantity::share")]
    pub nic_used: Share,
    /// Packets to or from VMs that are dropped each second. Low notices overrun guests early, but a few drops are normal
    /// for TCP. 10 to 10 000.
    #[serde(deserialize_with = "quantity::positive_count")]
    pub drops_per_second: u64,
    /// Packets each second at all taps together; for NICs or switches whose limit is packets, not bits. Absent: not judged.
    /// Set it to about 80 % of what the host was measured to forward.
    #[serde(deserialize_with = "quantity::packets")]
    pub packets_per_second: Option<PacketsPerSec>,
}

impl Default for Hot {
    fn default() -> Hot {
        Hot {
            window: Duration::from_secs(120),
            cpu_used: Share(800),
            cpu_pressure: Share(200),
            memory_used: Share(900),
            nic_used: Share(800),
            drops_per_second: 100,
            packets_per_second: None,
        }
    }
}

/// Section `[spread]`: how uneven hosts may be, where the trigger is `spread`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Spread {
    /// How far a host's use of its processors or memory may be above the mean of the cluster. Small evens finely with many
    /// moves, large moves little. 1 % to 20 %.
    #[serde(deserialize_with = "quantity::positive_share")]
    pub threshold: Share,
    /// Relief beyond cost there and copy, in percent of pressure, of a move that evens out: `worth_it.gain_min` is for hosts
    /// that are hot. Low moves small VMs too, high only those that make a difference. 0.02 % to 5 %.
    #[serde(deserialize_with = "quantity::cost")]
    pub gain_min: Cost,
}

impl Default for Spread {
    fn default() -> Spread {
        Spread { threshold: Share(5), gain_min: Cost(70_000) }
    }
}

/// Section `[target]`: what a host may reach by taking a VM.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Target {
    /// Use of all processors with the VM there. High finds room more often, low leaves the target room for its own peaks.
    /// 50 % to 90 %, at least 5 % below `hot.cpu_used`; above 100 % only where
    /// processors are meant to be overcommitted.
    #[serde(deserialize_with = "quantity::overcommit")]
    pub cpu_used_max: Share,
    /// Memory of all guests at full size, with the VM there. 70 % to 95 %; lower where hypervisors' own overhead is large.
    #[serde(deserialize_with = "quantity::share")]
    pub memory_used_max: Share,
    /// Memory left to the host itself, whatever `memory_used_max` says: it protects small hosts, where a percent is little.
    /// 1 GiB to 16 GiB; 0MiB trusts the percentage alone.
    #[serde(deserialize_with = "quantity::memory")]
    pub memory_reserve: Mib,
}

impl Default for Target {
    fn default() -> Target {
        Target { cpu_used_max: Share(700), memory_used_max: Share(850), memory_reserve: Mib(4096) }
    }
}

/// Section `[worth_it]`: which moves pay, and how long one who has just moved is left alone.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WorthIt {
    /// Relief beyond cost there and copy, in percent of pressure. It is what ends the moving: low balances finely with
    /// many moves, high moves little. 2 % to 30 %; it must exceed the noise of your load.
    #[serde(deserialize_with = "quantity::cost")]
    pub gain_min: Cost,
    /// What each Gbit/s costs, in percent of pressure, that a VM sends to and receives from the other VMs of its host, if it
    /// leaves: VMs that talk much with each other stay together unless leaving relieves by more. 0 % ignores it; 2 % to 50 %. It
    /// is known only where packets are counted by eBPF.
    #[serde(deserialize_with = "quantity::weight")]
    pub traffic_apart: Cost,
    /// Rest of a VM after it has moved. Short lets a VM wander, long leaves it on a host that has become hot since.
    /// 30 min to 24 h, many times `hot.for`.
    #[serde(deserialize_with = "quantity::positive_duration")]
    pub vm_rest: Duration,
    /// Rest of a host after a move from or to it, so that its load is measured anew before the next.
    /// 1 min to 30 min, at least `hot.for`.
    #[serde(deserialize_with = "quantity::positive_duration")]
    pub host_rest: Duration,
    /// How long after its arrival a VM is measured, to tell whether its move paid. Short judges by the restless minutes after a
    /// move, long by what has changed since for other reasons. 2 min to 1 h, at least `hot.for`, and well below `vm_rest`.
    #[serde(deserialize_with = "quantity::positive_duration")]
    pub measure_after: Duration,
}

impl Default for WorthIt {
    fn default() -> WorthIt {
        WorthIt {
            gain_min: Cost::percent(10),
            traffic_apart: Cost::percent(10),
            vm_rest: Duration::from_hours(6),
            host_rest: Duration::from_mins(5),
            measure_after: Duration::from_mins(5),
        }
    }
}

/// Section `[limits]`: how many moves at most.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Moves under way from and to one host, together. Copies share the link: two at once each take longer and their
    /// guests dirty more meanwhile. 1 to 4.
    #[serde(deserialize_with = "quantity::positive_small_count")]
    pub moves_per_host: u32,
    /// Balancing moves that a host begins in any 24 hours; after that it recommends only. It bounds the harm of settings
    /// that do not suit the load. 5 to 200.
    #[serde(deserialize_with = "quantity::positive_small_count")]
    pub moves_per_day: u32,
    /// Moves under way in all of the cluster, as far as a host has heard: it begins none while there are as many, and hosts that
    /// begin in the same seconds may go over it. Absent: only `moves_per_host` holds. A tenth of the hosts, where they share
    /// links or storage.
    #[serde(deserialize_with = "quantity::optional_small_count")]
    pub moves_per_cluster: Option<u32>,
    /// When VMs may be moved by themselves: `any`, or days, times and a time zone. What is under way then is not broken off.
    pub hours: Hours,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { moves_per_host: 1, moves_per_day: 20, moves_per_cluster: None, hours: Hours::Any }
    }
}

/// Section `[copy]`: how memory is copied.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Copy {
    /// Share of the link that a copy may use. More ends it sooner, and takes it from the guests while it lasts.
    /// 20 % to 90 %; a guest that dirties memory faster than this never comes to an end.
    #[serde(deserialize_with = "quantity::positive_share")]
    pub bandwidth: Share,
    /// The longest pause of the guest at the end, to begin with. Short is kind to it but needs more rounds. 50 ms to 1 s.
    #[serde(deserialize_with = "quantity::positive_duration")]
    pub downtime: Duration,
    /// Up to this it grows, in steps, while the guest writes as fast as the copy follows; one that does not fit into this is given up.
    /// Up to 1 s; `downtime` or less: it never grows.
    #[serde(deserialize_with = "quantity::positive_duration")]
    pub downtime_max: Duration,
    /// Whether several connections carry a copy: faster beyond 10 Gbit/s. Off, since a QEMU (seen in 10.0) may hang with such
    /// a copy when it is cancelled or breaks: the guest runs on, but cannot be moved until its QEMU is started anew.
    pub multifd: bool,
}

impl Default for Copy {
    fn default() -> Copy {
        Copy {
            bandwidth: Share(500),
            downtime: Duration::from_millis(100),
            downtime_max: Duration::from_millis(500),
            multifd: false,
        }
    }
}

/// Whether copies are encrypted.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Encryption {
    /// None is.
    #[default]
    Off,
    /// Those are where the other host can, and does not have it off.
    Preferred,
    /// All are: no VM goes to, or comes from, a host that cannot or will not.
    Required,
}

/// Section `[migration]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Migration {
    /// `required`, `preferred` or `off`. Encrypted, nobody on the wire reads or changes a guest's memory, and a copy takes
    /// processor time on both hosts; `preferred` is for the time in which not all hosts can yet, and protects against nobody
    /// who may choose. Absent: `required` on a host with keys, `off` on one without.
    pub encryption: Option<Encryption>,
}

/// Section `[share]`: what a VM that arrives by a move gets of this host, by its usage history (see `placement::share`).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Shares {
    /// Whether its QEMU gets a weight (cgroup): who asks more gets more where there is not enough for all.
    pub cpu: bool,
    /// Whether its tap gets a rate (tc), which what it receives never exceeds. Protects the others from a flood; a VM that
    /// grows beyond its past is held back.
    pub network: bool,
    /// Over the highest that it is known to have asked. Little holds back who grows, much protects nobody. 20 % to 100 %.
    #[serde(deserialize_with = "quantity::overcommit")]
    pub headroom: Share,
    /// The least that it gets, of all this host's processors and of its uplink's speed. 0 % to 20 %; with many VMs, less than
    /// one's even part.
    #[serde(deserialize_with = "quantity::share")]
    pub floor: Share,
}

impl Default for Shares {
    fn default() -> Shares {
        Shares { cpu: false, network: false, headroom: Share(500), floor: Share(50) }
    }
}

/// Raised whenever the same settings would be judged otherwise: hosts of both versions then do not trade.
const MEANING: u64 = 4;

impl Settings {
    /// The sections that are not as they were, by name.
    pub fn changed(&self, before: &Settings) -> Vec<&'static str> {
        let Settings {
            mode,
            hot,
            spread,
            target,
            worth_it,
            limits,
            copy,
            migration,
            share,
            vm_policy,
            admission,
            migration_policy,
            rules,
            host,
        } = self;
        let sections = [
            ("mode", *mode != before.mode),
            ("hot", *hot != before.hot),
            ("spread", *spread != before.spread),
            ("target", *target != before.target),
            ("worth_it", *worth_it != before.worth_it),
            ("limits", *limits != before.limits),
            ("copy", *copy != before.copy),
            ("migration", *migration != before.migration),
            ("share", *share != before.share),
            ("vm_policy", *vm_policy != before.vm_policy),
            ("admission", *admission != before.admission),
            ("migration_policy", *migration_policy != before.migration_policy),
            ("rules", *rules != before.rules),
            ("host", *host != before.host),
        ];
        sections.into_iter().filter(|(_, changed)| *changed).map(|(name, _)| name).collect()
    }

    /// `[hot]` as it counts: a host is not hot by memory that it may reach by taking VMs.
    pub fn hot_as_it_counts(&self) -> Hot {
        let Share(max) = self.target.memory_used_max;
        let memory_used = if self.hot.memory_used.0 > max {
            self.hot.memory_used
        } else {
            Share(max + 1000_u32.saturating_sub(max) / 2)
        };
        Hot { memory_used, ..self.hot.clone() }
    }

    /// A number that two hosts share if, and almost only if, they judge relief and cost alike: a target refuses a
    /// request with another one.
    ///
    /// FNV-1a, 64 bits, over (name, 0, value as 8 bytes, big-endian) of: `meaning`, every key of `[hot]` and `[target]`,
    /// `worth_it.gain_min`, `worth_it.traffic_apart` and `spread.gain_min`; then (key, 0, text, 0) of each expression of `[vm_policy]` and `[migration_policy]` that is set, and of
    /// `vm_policy.for`; then (text, 0) of each text of `[[rules.group]]` and of each `[[rules.pin]]` that must hold.
    ///
    /// Expressions change no cost, and each move would still lower the sum over all hosts without them. But where half of the
    /// hosts have a new policy, one would drive away what another draws, so they wait for each other as they do for thresholds.
    /// `[admission]` is a host's word on itself alone: a stricter one only makes fewer moves. What a host may decide for itself
    /// (`[mode]`, rests, `[limits]`, `[copy]`, `[migration]`, `[share]`, `[admission]`, exclusions, preferences) is left out.
    pub fn hash(&self) -> u64 {
        let micros = |d: Duration| u64::try_from(d.as_micros()).unwrap_or(u64::MAX);
        let share = |s: Share| u64::from(s.0);
        let Hot {
            window,
            cpu_used,
            cpu_pressure,
            memory_used,
            nic_used,
            drops_per_second,
            packets_per_second,
        } = &self.hot;
        let Target { cpu_used_max, memory_used_max, memory_reserve } = &self.target;
        // The reader lets no zero through, so it can stand for "not judged".
        let packets = packets_per_second.map_or(0, |p| p.0);
        let canonical = [
            ("meaning", MEANING),
            ("hot.for", micros(*window)),
            ("hot.cpu_used", share(*cpu_used)),
            ("hot.cpu_pressure", share(*cpu_pressure)),
            ("hot.memory_used", share(*memory_used)),
            ("hot.nic_used", share(*nic_used)),
            ("hot.drops_per_second", *drops_per_second),
            ("hot.packets_per_second", packets),
            ("target.cpu_used_max", share(*cpu_used_max)),
            ("target.memory_used_max", share(*memory_used_max)),
            ("target.memory_reserve", memory_reserve.0),
            ("worth_it.gain_min", self.worth_it.gain_min.0.cast_unsigned()),
            ("worth_it.traffic_apart", self.worth_it.traffic_apart.0.cast_unsigned()),
            ("spread.gain_min", self.spread.gain_min.0.cast_unsigned()),
        ];
        let hash = canonical.iter().fold(FNV_START, |hash, (name, value)| {
            fnv(fnv(fnv(hash, name.as_bytes()), &[0]), &value.to_be_bytes())
        });
        let expressions = self.vm_policy.agreed().chain(self.migration_policy.agreed());
        let hash = expressions.fold(hash, |hash, (key, text)| {
            fnv(fnv(fnv(fnv(hash, key.as_bytes()), &[0]), &text), &[0])
        });
        let rules = self.rules.canonical();
        rules.iter().fold(hash, |hash, text| fnv(fnv(hash, text.as_bytes()), &[0]))
    }
}

/// Constants of FNV-1a for 64 bits: RFC 9923.
const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME))
}
