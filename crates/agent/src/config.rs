//! The agent's configuration file: the operator's settings, and where this host is in the cluster.

use std::net::{IpAddr, SocketAddr, SocketAddrV4};
#[cfg(feature = "libvirt")]
use std::path::Component;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use decide::policy::expression::sections::{Admission, MigrationPolicy, VmPolicy};
use decide::policy::file::Mistake;
use decide::policy::rules::contradictions::contradictions;
use decide::policy::rules::{Rules, labels};
use decide::policy::settings::{
    Copy, Encryption, Here, Hot, Limits, Migration, Mode, Settings, Shares, Spread, Target, WorthIt,
};
use decide::policy::{file, quantity};
use decide::units::Mib;
use drivers::store::history::Spans;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::clock::know_zone;

pub use self::traces::Traces;
pub use self::webhook::{Told, Url, Webhook};

mod traces;
mod webhook;

/// The port of the agents where none is given.
const PORT: u16 = 7946;

/// The whole file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The cluster.
    pub cluster: Cluster,
    /// This host.
    pub host: Host,
    /// What runs this host's VMs.
    #[serde(default)]
    pub hypervisor: Hypervisor,
    /// Whether the agent moves VMs by itself.
    #[serde(default)]
    pub mode: Mode,
    /// When a host is hot.
    #[serde(default)]
    pub hot: Hot,
    /// How even hosts are to be.
    #[serde(default)]
    pub spread: Spread,
    /// What a host may reach by taking a VM.
    #[serde(default)]
    pub target: Target,
    /// When a move is worth it.
    #[serde(default)]
    pub worth_it: WorthIt,
    /// How many moves.
    #[serde(default)]
    pub limits: Limits,
    /// How memory is copied.
    #[serde(default)]
    pub copy: Copy,
    /// Whether copies are encrypted.
    #[serde(default)]
    pub migration: Migration,
    /// What a VM that arrives gets of this host.
    #[serde(default)]
    pub share: Shares,
    /// When a VM should leave, and which, in CEL.
    #[serde(default)]
    pub vm_policy: VmPolicy,
    /// Which VMs this host takes, in CEL.
    #[serde(default)]
    pub admission: Admission,
    /// Where a VM goes, in CEL.
    #[serde(default)]
    pub migration_policy: MigrationPolicy,
    /// What must hold of where VMs are.
    #[serde(default)]
    pub rules: Rules,
    /// How long usage histories are kept.
    #[serde(default)]
    pub history: History,
    /// What is recorded.
    #[serde(default)]
    pub record: Record,
    /// Who may use the HTTP API.
    #[serde(default)]
    pub api: Api,
    /// Who is told of alarms and moves.
    #[serde(default, deserialize_with = "webhook::all")]
    pub webhook: Vec<Webhook>,
    /// Who gets moves as traces.
    #[serde(default, deserialize_with = "traces::some")]
    pub traces: Option<Traces>,
}

/// `[cluster]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// Its name, the same on all hosts.
    pub name: String,
    /// Agents to join through: addresses, with a port if it is not this host's. One that is up suffices; this host's own is passed over.
    #[serde(default)]
    pub seeds: Vec<String>,
    /// How requests go out.
    #[serde(default)]
    pub request: RequestMode,
    /// The multicast group and port of requests, the same on all hosts.
    #[serde(default = "default_group")]
    pub group: SocketAddrV4,
}

/// How requests go out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RequestMode {
    /// One datagram to the group. The network must carry multicast between the hosts.
    #[default]
    Multicast,
    /// One datagram to all on the segment.
    Broadcast,
    /// One datagram to each host that is asked: works everywhere, costs one per host.
    FanOut,
}

/// `[host]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// Its name; the machine's own where absent.
    pub name: Option<String>,
    /// The address that the other hosts reach this agent at.
    pub address: IpAddr,
    /// The address of this host at which copies of VMs arrive, and to which the other hosts have a way; `address` where absent. One on a
    /// network of its own keeps copies off that of the agents.
    pub copy_address: Option<IpAddr>,
    /// UDP and TCP port of the agents.
    #[serde(default = "default_port")]
    pub port: u16,
    /// The network card that the VMs' bridge goes out by.
    pub uplink: Option<String>,
    /// The folder of the journal and the events: on a disk that survives a restart.
    #[serde(default = "default_state")]
    pub state: PathBuf,
    /// The folder of this host's keys; `keys` in that of the journal where absent.
    pub keys: Option<PathBuf>,
    /// The folder of the cluster's CA, if it is on this host: then hosts may join through it, and have certificates renewed.
    #[serde(default = "default_ca")]
    pub ca: PathBuf,
    /// The folder of QEMU's sockets and definitions.
    #[serde(default = "default_qemu")]
    pub qemu: PathBuf,
    /// The cgroup under which VMs that get a share have one each.
    #[serde(default = "default_cgroup")]
    pub cgroup: PathBuf,
    /// The socket of the HTTP API.
    #[serde(default = "default_api")]
    pub api: PathBuf,
    /// What pins may name this host by besides its name: racks, pools.
    #[serde(default, deserialize_with = "labels")]
    pub labels: Vec<String>,
    /// Takes no VM. Those that are here stay.
    #[serde(default)]
    pub maintenance: bool,
}

/// `[hypervisor]`: what runs this host's VMs. The same on all hosts: a VM moves only between hosts of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Hypervisor {
    /// Bare QEMU processes in the folder `host.qemu`, or domains of libvirt.
    pub driver: Driver,
    /// For libvirt: which daemon, one of this host. `qemu:///system`, or `qemu+unix:///system?socket=PATH`.
    pub uri: String,
    /// For libvirt: paths below which a disk is the same on all hosts, where that cannot be told from what it is.
    pub shared_storage: Vec<PathBuf>,
}

impl Default for Hypervisor {
    fn default() -> Hypervisor {
        let uri = "qemu:///system".to_owned();
        Hypervisor { driver: Driver::default(), uri, shared_storage: Vec::new() }
    }
}

/// What runs this host's VMs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// QEMU processes, by QMP.
    #[default]
    Qemu,
    /// Domains of libvirt.
    Libvirt,
}

impl Hypervisor {
    /// Whether this agent can drive it; else the key that is wrong, why, and what to write.
    #[cfg(feature = "libvirt")]
    fn check(&self) -> Result<(), (&'static str, String, &'static str)> {
        if let Some(path) = self.shared_storage.iter().find(|path| !is_whole(path)) {
            let wrong = format!("{} is no path from the root on without `..`", path.display());
            let instead = "write it whole, such as \"/dev/drbd0\"";
            return Err(("hypervisor.shared_storage", wrong, instead));
        }
        let instead =
            "write \"qemu:///system\", or \"qemu+unix:///system?socket=/run/libvirt/libvirt-sock\"";
        let checked = drivers::hypervisor::libvirt::check_uri(&self.uri);
        let wrong = format!("{:?} names no libvirt of this host", self.uri);
        checked.map_err(|_wrong| ("hypervisor.uri", wrong, instead))
    }

    /// Whether this agent can drive it; else the key that is wrong, why, and what to write.
    #[cfg(not(feature = "libvirt"))]
    fn check(&self) -> Result<(), (&'static str, String, &'static str)> {
        if self.driver == Driver::Qemu {
            return Ok(());
        }
        let wrong = "this evenkeeld was built without the driver of libvirt".to_owned();
        let instead =
            "that of the package has it; build with `--features libvirt`, or write \"qemu\"";
        Err(("hypervisor.driver", wrong, instead))
    }
}

/// From the root on, and with no way back.
#[cfg(feature = "libvirt")]
fn is_whole(path: &Path) -> bool {
    path.is_absolute() && path.components().all(|part| part != Component::ParentDir)
}

/// `[api]`: who may use the HTTP API, besides root over the unix socket `host.api`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Api {
    /// The group whose members may do all over the unix socket.
    pub group: String,
    /// Where it is served over TCP too, with TLS and tokens; absent: nowhere.
    #[serde(deserialize_with = "listen")]
    pub listen: Option<SocketAddr>,
}

impl Default for Api {
    fn default() -> Api {
        Api { group: "evenkeel".to_owned(), listen: None }
    }
}

fn listen<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(from)?;
    let address = text.parse::<SocketAddr>().ok().filter(|address| address.port() != 0);
    let wrong = || format!("{text:?} is no address with a port; write \"198.18.0.1:8443\"");
    address.map(Some).ok_or_else(|| D::Error::custom(wrong()))
}

/// `[history]`: how long usage histories are kept on disk, in the folder `host.state`, each as its least, mean, most and
/// 95th percentile. A VM takes about 100 KiB there; the newest ten minutes, by seconds, are in memory whatever is set here.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct History {
    /// Whether any are kept on disk. Without, an agent that is started anew knows nothing of the days before.
    pub keep: bool,
    /// Spans of ten seconds. 1 h to 2 d.
    #[serde(deserialize_with = "quantity::positive_duration")]
    pub ten_seconds: Duration,
    /// Minutes. 6 h to 14 d.
    #[serde(deserialize_with = "quantity::positive_duration")]
    pub minutes: Duration,
    /// Quarters of an hour. 2 d to 400 d; of these the newest 30 d are in memory too, for forecasts and the daily peak.
    #[serde(deserialize_with = "quantity::positive_duration")]
    pub quarters: Duration,
}

impl Default for History {
    fn default() -> History {
        let Spans { ten_seconds, minutes, quarters } = Spans::default();
        History { keep: true, ten_seconds, minutes, quarters }
    }
}

impl History {
    /// How long each level is kept.
    #[must_use]
    pub fn spans(&self) -> Spans {
        let History { ten_seconds, minutes, quarters, .. } = *self;
        Spans { ten_seconds, minutes, quarters }
    }
}

/// `[record]`: whether all that this host hears and does is written down, to be gone through again by `evenkeel lab replay`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Record {
    /// The folder of the logs, one for each start of the agent; absent: nothing is recorded. On a disk with more room than
    /// `size_max`, not the journal's if that is small.
    pub folder: Option<PathBuf>,
    /// The most that all logs there take. The oldest go at a start until half of it is free; a log that reaches the end of
    /// it ends. A small host takes some ten MiB a day, one with many VMs or neighbours hundreds.
    #[serde(deserialize_with = "some_memory")]
    pub size_max: Mib,
}

impl Default for Record {
    fn default() -> Record {
        Record { folder: None, size_max: Mib(256) }
    }
}

fn some_memory<'de, D: Deserializer<'de>>(from: D) -> Result<Mib, D::Error> {
    let text = String::deserialize(from)?;
    let memory = quantity::parse_memory(&text).map_err(D::Error::custom)?;
    let least = "\"0MiB\" is too little; write 1MiB or more";
    if memory.0 == 0 { Err(D::Error::custom(least)) } else { Ok(memory) }
}

fn default_group() -> SocketAddrV4 {
    SocketAddrV4::new([239, 255, 79, 46].into(), PORT + 1)
}

fn default_port() -> u16 {
    PORT
}

fn default_state() -> PathBuf {
    "/var/lib/evenkeel".into()
}

fn default_ca() -> PathBuf {
    "/etc/evenkeel/ca".into()
}

fn default_qemu() -> PathBuf {
    "/run/evenkeel/qemu".into()
}

fn default_cgroup() -> PathBuf {
    "/sys/fs/cgroup/evenkeel".into()
}

fn default_api() -> PathBuf {
    "/run/evenkeel/api.sock".into()
}

impl Config {
    /// Reads the file; gives what it says, and what of it excludes each other but can be gone by.
    ///
    /// # Errors
    /// What is wrong, with file, line, column and key: the first mistake, or all rules that contradict each other.
    pub fn read(path: &Path) -> Result<(Config, Option<String>), Vec<String>> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| vec![format!("reading {}: {error}", path.display())])?;
        let place = |mistake: &Mistake| format!("{}: {mistake}", path.display());
        let read = Config::understood(&text);
        read.map(|(config, doubtful)| (config, doubtful.as_ref().map(place)))
            .map_err(|mistakes| mistakes.iter().map(place).collect())
    }

    /// The folder of the journal, also where something else in the file is wrong; the usual one where it cannot be told.
    pub fn state(path: &Path) -> PathBuf {
        /// What there is beside it is not looked at.
        #[derive(Deserialize)]
        struct Alone {
            host: Folder,
        }
        #[derive(Deserialize)]
        struct Folder {
            #[serde(default = "default_state")]
            state: PathBuf,
        }
        let text = std::fs::read_to_string(path).unwrap_or_default();
        file::read::<Alone>(&text).map_or_else(|_| default_state(), |alone| alone.host.state)
    }

    fn understood(text: &str) -> Result<(Config, Option<Mistake>), Vec<Mistake>> {
        let config: Config = file::read(text).map_err(|mistake| vec![mistake])?;
        config.beyond_toml(text).map_err(|mistake| vec![mistake])?;
        let found = contradictions(text, &config.rules);
        if !found.is_empty() {
            return Err(found);
        }
        let doubtful = file::contradiction(text, &config.settings());
        Ok((config, doubtful))
    }

    /// What each value is on its own, but not by its form.
    fn beyond_toml(&self, text: &str) -> Result<(), Mistake> {
        let zones = "write \"Europe/Berlin\" or \"UTC\"; the package tzdata has them";
        let zone = |key: &str, zone: Option<&str>| match zone.map(know_zone) {
            Some(Err(wrong)) => Err(file::mistake_at(text, key, wrong.to_string(), zones)),
            Some(Ok(())) | None => Ok(()),
        };
        zone("limits.hours", self.limits.hours.zone())?;
        let mut of_vms = self.rules.vm.iter().filter_map(|own| own.hours.as_ref()?.zone());
        of_vms.try_for_each(|it| zone("rules.vm", Some(it)))?;
        self.seeds().map_err(|wrong| {
            let instead = "write \"198.18.0.2\" or \"198.18.0.2:7946\"";
            file::mistake_at(text, "cluster.seeds", wrong.to_string(), instead)
        })?;
        self.hypervisor
            .check()
            .map_err(|(key, wrong, instead)| file::mistake_at(text, key, wrong, instead))?;
        let named = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        let of_api = &self.api.group;
        if of_api.is_empty() || of_api.len() > 32 || !of_api.chars().all(named) {
            let wrong = format!("{of_api:?} is no name of a group");
            return Err(file::mistake_at(text, "api.group", wrong, "write \"evenkeel\""));
        }
        let agents = self.address();
        let same = |listen: SocketAddr| {
            let all = listen.ip().is_unspecified();
            listen.port() == agents.port() && (all || listen.ip() == agents.ip())
        };
        if self.api.listen.is_some_and(same) {
            let wrong = format!("the agents speak at {agents} already");
            return Err(file::mistake_at(
                text,
                "api.listen",
                wrong,
                "write another port, such as 8443",
            ));
        }
        let unreachable = |it: &IpAddr| {
            it.is_unspecified()
                || it.is_multicast()
                || it.is_loopback() && !self.host.address.is_loopback()
        };
        if let Some(copies) = self.host.copy_address.filter(unreachable) {
            let wrong = format!("{copies} is no address that other hosts can send to");
            let instead = "write one of this host's addresses: ip address";
            return Err(file::mistake_at(text, "host.copy_address", wrong, instead));
        }
        let group = self.cluster.group;
        if group.ip().is_multicast() {
            return Ok(());
        }
        let wrong = format!("{group} is no multicast address");
        Err(file::mistake_at(text, "cluster.group", wrong, "write one of 239.0.0.0/8"))
    }

    /// The operator's settings.
    #[must_use]
    pub fn settings(&self) -> Settings {
        Settings {
            mode: self.mode.clone(),
            hot: self.hot.clone(),
            spread: self.spread.clone(),
            target: self.target.clone(),
            worth_it: self.worth_it.clone(),
            limits: self.limits.clone(),
            copy: self.copy.clone(),
            migration: self.migration.clone(),
            share: self.share.clone(),
            vm_policy: self.vm_policy.clone(),
            admission: self.admission.clone(),
            migration_policy: self.migration_policy.clone(),
            rules: self.rules.clone(),
            host: Here { labels: self.host.labels.clone(), maintenance: self.host.maintenance },
        }
    }

    /// Whether an agent with keys, or without, can go by it.
    ///
    /// # Errors
    /// If copies are to be encrypted, and there is nothing to do it by.
    pub fn suits(&self, keyed: bool) -> Result<(), String> {
        if keyed || self.migration.encryption != Some(Encryption::Required) {
            return Ok(());
        }
        Err("key migration.encryption: copies cannot be encrypted without keys (--insecure); make keys (docs/security.md) and start without \
             --insecure, or write \"off\""
            .to_owned())
    }

    /// Where this agent is reached.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.host.address, self.host.port)
    }

    /// Where copies of VMs arrive.
    #[must_use]
    pub fn copy_address(&self) -> IpAddr {
        self.host.copy_address.unwrap_or(self.host.address)
    }

    /// The folder of this host's keys.
    #[must_use]
    pub fn keys(&self) -> PathBuf {
        self.host.keys.clone().unwrap_or_else(|| self.host.state.join("keys"))
    }

    /// The agents to join through, without this one.
    ///
    /// # Errors
    /// If one is no address.
    pub fn seeds(&self) -> anyhow::Result<Vec<SocketAddr>> {
        let parsed = self.cluster.seeds.iter().map(|seed| self.at(seed));
        let all: Vec<SocketAddr> = parsed.collect::<anyhow::Result<_>>()?;
        Ok(all.into_iter().filter(|seed| *seed != self.address()).collect())
    }

    /// The agent at this address, by this host's port if the text has none.
    ///
    /// # Errors
    /// If it is no address.
    pub fn at(&self, text: &str) -> anyhow::Result<SocketAddr> {
        let with_port = text.parse::<SocketAddr>().ok();
        let alone = || text.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, self.host.port));
        with_port.or_else(alone).with_context(|| format!("{text:?} is no address"))
    }
}

#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("evenkeel.toml");
        std::fs::write(&path, text).unwrap();
        let read = Config::read(&path).map(|(config, _)| config);
        read.map_err(|wrong| wrong.join("\n").replace(&*dir.path().to_string_lossy(), "DIR"))
    }

    #[test]
    fn the_journals_folder_is_known_whatever_else_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("evenkeel.toml");
        let state = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Config::state(&path).display().to_string()
        };
        assert_eq!(state("[host]\nstate = \"/s\"\naddress = 5\n[hots]\n"), "/s");
        assert_eq!(state("[host]\naddress = \"198.18.0.1\"\n"), "/var/lib/evenkeel");
        assert_eq!(state("[host"), "/var/lib/evenkeel");
    }

    const LEAST: &str = "[cluster]\nname = \"c\"\n[host]\naddress = \"198.18.0.1\"\n";

    #[test]
    fn a_hypervisor_that_this_agent_cannot_drive_is_named_with_what_to_write() {
        assert_eq!(read(LEAST).unwrap().hypervisor.driver, Driver::Qemu);
        let of = |uri: &str| {
            read(&format!("{LEAST}[hypervisor]\ndriver = \"libvirt\"\nuri = \"{uri}\"\n"))
        };
        if cfg!(feature = "libvirt") {
            assert_eq!(of("qemu:///system").unwrap().hypervisor.driver, Driver::Libvirt);
            let why = of("qemu+ssh://host2/system").unwrap_err();
            assert!(why.contains("hypervisor.uri") && why.contains("qemu:///system"), "{why}");
            let shared = "driver = \"libvirt\"\nshared_storage = [\"/dev/drbd0\", \"srv\"]\n";
            let why = read(&format!("{LEAST}[hypervisor]\n{shared}")).unwrap_err();
            assert!(why.contains("hypervisor.shared_storage") && why.contains("srv"), "{why}");
            let back = shared.replace("\"srv\"", "\"/srv/../x\"");
            let why = read(&format!("{LEAST}[hypervisor]\n{back}")).unwrap_err();
            assert!(why.contains("/srv/../x") && why.contains("`..`"), "{why}");
        } else {
            let why = of("qemu:///system").unwrap_err();
            assert!(why.contains("built without the driver of libvirt"), "{why}");
        }
        let why = read(&format!("{LEAST}[hypervisor]\ndriver = \"xen\"\n")).unwrap_err();
        assert!(why.contains("xen") && why.contains("libvirt"), "{why}");
    }

    #[test]
    fn the_least_that_must_be_said() {
        let config = read(LEAST).unwrap();
        assert_eq!(config.settings(), Settings::default());
        assert_eq!(config.address().to_string(), "198.18.0.1:7946");
        assert_eq!(config.cluster.request, RequestMode::Multicast);
    }

    #[test]
    fn copies_arrive_at_the_hosts_address_or_at_another_of_its_own() {
        let with = |address: &str| {
            read(&LEAST.replace("[host]", &format!("[host]\ncopy_address = \"{address}\"")))
        };
        assert_eq!(read(LEAST).unwrap().copy_address().to_string(), "198.18.0.1");
        let config = with("198.19.0.1").unwrap();
        assert_eq!(config.copy_address().to_string(), "198.19.0.1");
        assert_eq!(config.address().to_string(), "198.18.0.1:7946");
        for nowhere in ["0.0.0.0", "::", "239.0.0.1"] {
            let wrong = with(nowhere).unwrap_err();
            assert!(
                wrong.contains("key host.copy_address") && wrong.contains("ip address"),
                "{wrong}"
            );
        }
    }

    #[test]
    fn seeds_take_a_port_or_this_hosts_and_leave_out_itself() {
        let text = LEAST.replace(
            "name = \"c\"",
            "name = \"c\"\nseeds = [\"198.18.0.1\", \"198.18.0.2\", \"198.18.0.3:1\"]",
        );
        let seeds: Vec<String> =
            read(&text).unwrap().seeds().unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(seeds, ["198.18.0.2:7946", "198.18.0.3:1"]);
    }

    #[test]
    fn copies_are_encrypted_only_by_a_host_with_keys() {
        let with = |word: &str| read(&format!("{LEAST}[migration]\nencryption = \"{word}\"\n"));
        for (word, without_keys) in [("off", true), ("preferred", true), ("required", false)] {
            let config = with(word).unwrap();
            assert_eq!(
                (config.suits(true).is_ok(), config.suits(false).is_ok()),
                (true, without_keys)
            );
        }
        assert_eq!(read(LEAST).unwrap().suits(false), Ok(()));
        let why = with("required").unwrap().suits(false).unwrap_err();
        assert!(why.contains("migration.encryption") && why.contains("write \"off\""), "{why}");
        let wrong = with("on").unwrap_err();
        assert!(wrong.contains("line 6, column 14, key migration.encryption"), "{wrong}");
    }

    #[test]
    fn a_log_must_have_room() {
        let wrong = read(&format!("{LEAST}[record]\nsize_max = \"0GiB\"\n")).unwrap_err();
        assert!(wrong.contains("line 6") && wrong.contains("record.size_max"), "{wrong}");
        assert!(wrong.contains("write 1MiB or more"), "{wrong}");
        let record = read(&format!("{LEAST}[record]\nsize_max = \"2GiB\"\n")).unwrap().record;
        assert_eq!((record.size_max, record.folder), (Mib(2048), None));
    }

    #[test]
    fn labels_maintenance_and_rules_are_taken() {
        let text = LEAST.replace("[host]", "[host]\nlabels = [\"rack-a\"]\nmaintenance = true");
        let text = format!("{text}[[rules.pin]]\nvms = [\"db\"]\nlabels = [\"rack-a\"]\n");
        let settings = read(&text).unwrap().settings();
        assert_eq!(
            (settings.host.labels, settings.host.maintenance),
            (vec!["rack-a".to_owned()], true)
        );
        assert_eq!(settings.rules.pin.len(), 1);
        let long = LEAST.replace("[host]", &format!("[host]\nlabels = [\"{}\"]", "l".repeat(64)));
        assert!(read(&long).unwrap_err().contains("each of 1 to 63 bytes"));
    }

    #[test]
    fn a_time_zone_that_is_not_there_is_told() {
        let hours = |zone: &str| format!("{LEAST}[limits]\nhours = \"20:00-06:00 {zone}\"\n");
        assert_eq!(read(&hours("UTC")).map(|_| ()), Ok(()));
        let wrong = read(&hours("Europe/Nowhere")).unwrap_err();
        assert!(
            wrong.contains(
                "line 6, column 1, key limits.hours: there is no time zone \"Europe/Nowhere\""
            ),
            "{wrong}"
        );
    }

    #[test]
    fn a_webhook_that_cannot_be_gone_by_is_told_with_its_line_and_without_its_url() {
        let hook = |lines: &str| format!("{LEAST}[[webhook]]\n{lines}\n");
        let whole = "url = \"https://example.org/s3cret\"\nsecret_file = \"/k\"";
        let read_whole = read(&hook(whole)).unwrap().webhook;
        assert_eq!(read_whole[0].events, [Told::Alarms, Told::Moves]);
        assert!(read(LEAST).unwrap().webhook.is_empty());
        for (lines, words) in [
            (whole.replace("https", "http"), "line 6, column 7: http is taken at loopback"),
            (format!("{whole}\nsecret = \"s3cret\""), "line 8, column 1: unknown key \"secret\""),
            (
                format!("{whole}\nevents = []"),
                "nothing would be told; write [\"alarms\", \"moves\"]",
            ),
            (
                format!("{whole}\nevents = [\"move\"]"),
                "line 8, column 11: unknown value \"move\"; did you mean \"moves\"?",
            ),
            ("url = \"https://example.org/s3cret\"".to_owned(), "missing field \"secret_file\""),
            (format!("{whole}\n[[webhook]]\n{whole}"), "the same URL at https://example.org/…"),
        ] {
            let wrong = read(&hook(&lines)).unwrap_err();
            assert!(wrong.contains(words) && !wrong.contains("s3cret"), "{words}: {wrong}");
        }
        let many: Vec<String> = (0..9)
            .map(|n| hook(&whole.replace("s3cret", &n.to_string())).replace(LEAST, ""))
            .collect();
        let wrong = read(&format!("{LEAST}{}", many.concat())).unwrap_err();
        assert!(wrong.contains("9 webhooks, 8 at most"), "{wrong}");
    }

    #[test]
    fn traces_that_cannot_be_gone_by_are_told_with_their_line() {
        assert_eq!(read(LEAST).unwrap().traces, None);
        let of = |lines: &str| read(&format!("{LEAST}[traces]\n{lines}\n"));
        let url = |url: &str| format!("url = \"{url}/v1/traces\"");
        let header = "header_file = \"/etc/h\"";
        let plain = of(&url("http://collector:4318")).unwrap().traces.unwrap();
        assert_eq!((&*plain.url.path, plain.header_file), ("/v1/traces", None));
        for private in ["https://collector:4318", "http://127.0.0.1:4318"] {
            assert!(of(&format!("{}\n{header}", url(private))).is_ok(), "{private}");
        }
        for (lines, words) in [
            (String::new(), "missing field \"url\""),
            ("url = \"http://collector:4318\"".to_owned(), "4318/v1/traces\""),
            (format!("{}\n{header}", url("http://collector:4318")), "sent in the clear"),
            (format!("{}\nheader = \"s3cret\"", url("https://c")), "unknown key \"header\""),
            (url("https://me:s3cret@c"), "the file of a secret instead"),
        ] {
            let wrong = of(&lines).unwrap_err();
            assert!(wrong.contains(words) && !wrong.contains("s3cret"), "{words}: {wrong}");
            assert!(wrong.contains("line "), "{wrong}");
        }
    }

    #[test]
    fn contradictions_are_told_besides_what_cannot_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("evenkeel.toml");
        let check = |text: &str| {
            std::fs::write(&path, text).unwrap();
            crate::run::check(&path)
        };
        assert_eq!(check(LEAST), [""; 0]);
        let group =
            "[[rules.group]]\nname = \"web\"\nkind = \"anti-affinity\"\nvms = [\"a\", \"b\"]\n";
        let pin = "[[rules.pin]]\nvms = [\"a\", \"b\"]\nhosts = [\"host1\"]\n";
        let found = check(&format!("{LEAST}{group}{pin}"));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("evenkeel.toml: line 5, column 1, key rules.group"), "{found:?}");
        assert_eq!(check("[cluster]\n").len(), 1);
        // Nor does an agent start without the files that it needs.
        let hook =
            "[[webhook]]\nurl = \"https://example.org/s3cret\"\nsecret_file = \"/nowhere/k\"\n";
        let found = check(&format!("{LEAST}{hook}"));
        assert_eq!(found.len(), 1, "{found:?}");
        let words =
            "key webhook.secret_file (of https://example.org/…): reading /nowhere/k: No such file";
        assert!(found[0].contains(words) && found[0].contains("head -c 32"), "{found:?}");
    }

    #[test]
    fn mistakes_name_file_line_and_key() {
        let wrong = read(&format!("{LEAST}[hot]\ncpu_usd = \"80%\"\n")).unwrap_err();
        assert_eq!(
            wrong,
            "DIR/evenkeel.toml: line 6, column 1, key hot.cpu_usd: unknown key \"cpu_usd\"; did you mean \"cpu_used\"?"
        );
        let wrong =
            read(&LEAST.replace("name = \"c\"", "name = \"c\"\nseeds = [\"host2\"]")).unwrap_err();
        assert_eq!(
            wrong,
            "DIR/evenkeel.toml: line 3, column 1, key cluster.seeds: \"host2\" is no address; write \"198.18.0.2\" or \"198.18.0.2:7946\""
        );
        let wrong = read(&LEAST.replace("name = \"c\"", "name = \"c\"\ngroup = \"10.0.0.1:7\""))
            .unwrap_err();
        assert_eq!(
            wrong,
            "DIR/evenkeel.toml: line 3, column 1, key cluster.group: 10.0.0.1:7 is no multicast address; write one of 239.0.0.0/8"
        );
    }
}
