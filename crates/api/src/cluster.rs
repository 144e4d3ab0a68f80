//! The whole cluster as one agent knows it, and what several agents know made one description that `evenkeel lab simulate` reads.
//!
//! **Invariant:** whatever is left out, divided by reckoning or assumed is named beside the description.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// `GET /v1/cluster`: its own host as it measures it, the others as they last said of themselves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ClusterView {
    /// Name of the host that answers.
    pub host: String,
    /// Its id.
    pub host_id: String,
    /// All hosts, this one first.
    pub hosts: Vec<ClusterHost>,
    /// The VMs of all hosts that have told theirs.
    pub vms: Vec<ClusterVm>,
}

/// A host; what is absent it has not said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ClusterHost {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: String,
    /// `alive`, `suspect` or `gone`.
    pub state: String,
    /// All its processors.
    pub cpu_millicores: Option<u64>,
    /// All its memory.
    pub memory_mib: Option<u64>,
    /// What its network card carries, both directions together.
    pub nic_bits_per_second: Option<u64>,
    /// Processor time that its VMs ask together.
    pub cpu_asked_millicores: Option<u64>,
    /// Bits at all its taps, both directions.
    pub bits_per_second: Option<u64>,
    /// VMs there that are not listed; absent: none are, its list has not come yet.
    pub left_out: Option<u32>,
}

/// A VM, where it is listed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ClusterVm {
    /// Its name.
    pub name: String,
    /// Its UUID.
    pub id: String,
    /// The id of the host that lists it.
    pub host_id: String,
    /// `running`, `paused`, `released`, `down` or `doubtful`.
    pub state: String,
    /// How often ownership has passed.
    pub epoch: u64,
    /// Memory at full size.
    pub memory_mib: u64,
    /// Its processors; absent: only its own host knows.
    pub vcpus: Option<u32>,
    /// What it asks; absent: only its own host knows.
    pub load: Option<ClusterLoad>,
    /// Groups whose VMs it stays with.
    pub affinity: Vec<String>,
    /// Groups whose VMs it keeps away from.
    pub anti_affinity: Vec<String>,
    /// Ids of the hosts where pins let it be; absent: anywhere.
    pub pinned: Option<Vec<String>>,
}

/// What a VM asks of its host, as its agent goes by it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ClusterLoad {
    /// Processor time used and waited for.
    pub cpu_millicores: u64,
    /// Bits that it receives.
    pub received_bits_per_second: u64,
    /// Bits that it sends.
    pub sent_bits_per_second: u64,
    /// Memory that it writes to; absent: not measured.
    pub dirty_mib_per_second: Option<u64>,
}

/// What `evenkeel lab simulate` reads. Names and units are those of its form.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Dump {
    /// Hosts.
    pub nodes: Vec<DumpNode>,
    /// VMs.
    pub vms: Vec<DumpVm>,
    /// Rules.
    pub rules: Vec<DumpRule>,
}

/// A host: its name, processors, MiB, and Mbit/s each way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "said above")]
pub struct DumpNode {
    pub id: String,
    pub cores: u64,
    pub mem_mb: u64,
    pub net_mbps: u64,
}

/// A VM: its name, its host's, processors, MiB, cores used; received, sent and written to memory in Mbit/s.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "said above")]
pub struct DumpVm {
    pub id: String,
    pub host: String,
    pub vcpus: u32,
    pub mem_mb: u64,
    pub cpu: f64,
    pub net_rx: f64,
    pub net_tx: f64,
    pub dirty_mbps: f64,
}

/// A rule: `affinity`, `anti_affinity` or `pin`; the VMs that it is about, and the hosts of a pin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "said above")]
pub struct DumpRule {
    #[serde(rename = "type")]
    pub kind: String,
    pub vms: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
}

/// Where a card's speed is not told.
const NET_MBPS: u64 = 10_000;
const BITS_PER_MBIT: f64 = 1e6;
/// Mbit in a MiB, as the form has it.
const MBIT_PER_MIB: f64 = 8.0;

/// Makes one description of what agents answered; also what of it is left out, divided or assumed, a sentence each. The same
/// answers in any order give the same.
pub fn dump(answers: &[ClusterView]) -> (Dump, Vec<String>) {
    let mut notes = Vec::new();
    let hosts = hosts(answers, &mut notes);
    let vms = vms(answers, &hosts, &mut notes);
    let (host_names, vm_names) = (
        unique(hosts.iter().map(|(id, host)| (*id, &*host.name))),
        unique(vms.iter().map(|(id, vm)| (*id, &*vm.name))),
    );
    let nodes = hosts.values().map(|host| node(host, &host_names, &mut notes)).collect();
    let asked: BTreeSet<&str> = answers.iter().map(|answer| &*answer.host_id).collect();
    let divided = divided(&hosts, &vms, &asked, &mut notes);
    let dumped = vms.values().map(|vm| {
        let load = vm.load.or_else(|| divided.get(&*vm.id).copied());
        let load = load.unwrap_or(ClusterLoad {
            cpu_millicores: 0,
            received_bits_per_second: 0,
            sent_bits_per_second: 0,
            dirty_mib_per_second: Some(0),
        });
        if load.dirty_mib_per_second.is_none() {
            let name = &vm.name;
            notes.push(format!(
                "how fast VM {name} writes to its memory is not measured: 0 is written"
            ));
        }
        let of = |figure: u64, one: f64| rounded(figure) / one;
        DumpVm {
            id: vm_names[&*vm.id].clone(),
            host: host_names[&*vm.host_id].clone(),
            vcpus: vm.vcpus.unwrap_or(0),
            mem_mb: vm.memory_mib,
            cpu: of(load.cpu_millicores, 1000.0),
            net_rx: of(load.received_bits_per_second, BITS_PER_MBIT),
            net_tx: of(load.sent_bits_per_second, BITS_PER_MBIT),
            dirty_mbps: rounded(load.dirty_mib_per_second.unwrap_or(0)) * MBIT_PER_MIB,
        }
    });
    let dumped = dumped.collect();
    let rules = rules(&vms, &host_names, &vm_names, &mut notes);
    notes.sort();
    notes.dedup();
    (Dump { nodes, vms: dumped, rules }, notes)
}

/// By id: each by its own agent's word, else by that of the first who knows its figures.
fn hosts<'a>(
    answers: &'a [ClusterView],
    notes: &mut Vec<String>,
) -> BTreeMap<&'a str, &'a ClusterHost> {
    let mut all: BTreeMap<&str, (u8, &ClusterHost)> = BTreeMap::new();
    for answer in answers {
        for host in &answer.hosts {
            let own = host.id == answer.host_id;
            let known = host.cpu_millicores.is_some() && host.memory_mib.is_some();
            let weight = u8::from(own) * 4 + u8::from(host.state != "gone") * 2 + u8::from(known);
            let better = all.get(&*host.id).is_none_or(|(before, _)| weight > *before);
            if better {
                all.insert(&host.id, (weight, host));
            }
        }
    }
    let all = all.into_iter().map(|(id, (_, host))| (id, host));
    let (known, unknown): (BTreeMap<_, _>, BTreeMap<_, _>) = all.partition(|(_, host)| {
        let figures = host.cpu_millicores.is_some_and(|cpu| cpu > 0)
            && host.memory_mib.is_some_and(|memory| memory > 0);
        figures && host.state != "gone"
    });
    notes.extend(unknown.values().map(|host| match &*host.state {
        "gone" => format!("host {} is gone: it and its VMs are left out", host.name),
        _ => format!("host {} has not said what it has: it and its VMs are left out", host.name),
    }));
    known
}

/// By id: each where its highest epoch is listed, by its own host's agent if that answered.
fn vms<'a>(
    answers: &'a [ClusterView],
    hosts: &BTreeMap<&str, &ClusterHost>,
    notes: &mut Vec<String>,
) -> BTreeMap<&'a str, &'a ClusterVm> {
    let mut all: BTreeMap<&str, ((u64, bool), &ClusterVm)> = BTreeMap::new();
    for answer in answers {
        for vm in answer.vms.iter().filter(|vm| vm.state != "released") {
            let weight = (vm.epoch, vm.host_id == answer.host_id);
            if all.get(&*vm.id).is_none_or(|(before, _)| weight > *before) {
                all.insert(&vm.id, (weight, vm));
            }
        }
    }
    let runs = |vm: &ClusterVm| vm.state == "running" || vm.state == "paused";
    let here = |vm: &ClusterVm| hosts.contains_key(&*vm.host_id);
    for (_, vm) in all.values().filter(|(_, vm)| here(vm) && !runs(vm)) {
        notes.push(format!("VM {} is {}: it is left out", vm.name, vm.state));
    }
    for host in hosts.values() {
        match host.left_out {
            Some(0) => {}
            Some(n) => {
                notes.push(format!("{n} VMs of host {} are left out: it lists no more", host.name))
            }
            None => {
                notes.push(format!("host {} has not listed its VMs: they are left out", host.name))
            }
        }
    }
    let all = all.into_iter().map(|(id, (_, vm))| (id, vm));
    all.filter(|(_, vm)| here(vm) && runs(vm)).collect()
}

/// Names by id; where two are alike the id is added.
fn unique<'a>(all: impl Iterator<Item = (&'a str, &'a str)>) -> BTreeMap<&'a str, String> {
    let all: Vec<(&str, &str)> = all.collect();
    let mut often: BTreeMap<&str, usize> = BTreeMap::new();
    all.iter().for_each(|(_, name)| *often.entry(name).or_default() += 1);
    let told = |(id, name): (&'a str, &str)| match often[name] {
        1 => (id, name.to_owned()),
        _ => (id, format!("{name}.{id}")),
    };
    all.iter().copied().map(told).collect()
}

fn node(host: &ClusterHost, names: &BTreeMap<&str, String>, notes: &mut Vec<String>) -> DumpNode {
    let each_way = host.nic_bits_per_second.map_or(0, |bits| bits / 2 / 1_000_000);
    if each_way == 0 {
        notes.push(format!(
            "what the card of host {} carries is not known: {NET_MBPS} Mbit/s are written",
            host.name
        ));
    }
    DumpNode {
        id: names[&*host.id].clone(),
        cores: host.cpu_millicores.unwrap_or(0).div_ceil(1000),
        mem_mb: host.memory_mib.unwrap_or(0),
        net_mbps: if each_way == 0 { NET_MBPS } else { each_way },
    }
}

/// What the VMs ask of hosts whose agents were not asked: the host's own sum, by their memory.
fn divided<'a>(
    hosts: &BTreeMap<&str, &ClusterHost>,
    vms: &BTreeMap<&'a str, &ClusterVm>,
    asked: &BTreeSet<&str>,
    notes: &mut Vec<String>,
) -> BTreeMap<&'a str, ClusterLoad> {
    let mut loads = BTreeMap::new();
    for (host_id, host) in hosts.iter().filter(|(id, _)| !asked.contains(*id)) {
        let of_host = || vms.iter().filter(|(_, vm)| vm.host_id == *host_id && vm.load.is_none());
        let memory: u64 = of_host().map(|(_, vm)| vm.memory_mib).sum();
        let part = |sum: Option<u64>, of: u64| {
            let part = u128::from(sum.unwrap_or(0)) * u128::from(of) / u128::from(memory.max(1));
            u64::try_from(part).unwrap_or(u64::MAX)
        };
        for (id, vm) in of_host() {
            let bits = part(host.bits_per_second, vm.memory_mib) / 2;
            let load = ClusterLoad {
                cpu_millicores: part(host.cpu_asked_millicores, vm.memory_mib),
                received_bits_per_second: bits,
                sent_bits_per_second: bits,
                // It goes with the sentence below.
                dirty_mib_per_second: Some(0),
            };
            loads.insert(*id, load);
        }
        if of_host().next().is_some() {
            notes.push(format!(
                "the agent of host {} was not asked: what its VMs use is its own sum, divided by their memory; \
                 their processors, pins by tag and writes to memory are not known",
                host.name
            ));
        }
    }
    loads
}

fn rules(
    vms: &BTreeMap<&str, &ClusterVm>,
    host_names: &BTreeMap<&str, String>,
    vm_names: &BTreeMap<&str, String>,
    notes: &mut Vec<String>,
) -> Vec<DumpRule> {
    let mut groups: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
    let mut pins: BTreeMap<Vec<String>, Vec<String>> = BTreeMap::new();
    for (id, vm) in vms {
        let name = &vm_names[id];
        let both = [("affinity", &vm.affinity), ("anti_affinity", &vm.anti_affinity)];
        for (kind, group) in
            both.into_iter().flat_map(|(kind, all)| all.iter().map(move |it| (kind, it)))
        {
            groups.entry((kind, group)).or_default().push(name.clone());
        }
        let Some(pinned) = &vm.pinned else { continue };
        let mut at: Vec<String> =
            pinned.iter().filter_map(|host| host_names.get(&**host).cloned()).collect();
        at.sort();
        if at.is_empty() {
            notes.push(format!(
                "VM {name} is pinned to hosts that are not here: its pin is left out"
            ));
        } else {
            pins.entry(at).or_default().push(name.clone());
        }
    }
    let groups = groups
        .into_iter()
        .filter(|(_, vms)| vms.len() > 1)
        .map(|((kind, _), vms)| DumpRule { kind: kind.to_owned(), vms, hosts: Vec::new() });
    let pins = pins.into_iter().map(|(hosts, vms)| DumpRule { kind: "pin".to_owned(), vms, hosts });
    groups.chain(pins).collect()
}

#[expect(clippy::cast_precision_loss, reason = "no figure here has 16 digits that count")]
fn rounded(figure: u64) -> f64 {
    figure as f64
}
