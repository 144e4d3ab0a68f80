//! A cluster as described in a file: nodes, VMs and where they are, rules.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// All of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cluster {
    /// Hosts.
    pub nodes: Vec<Node>,
    /// VMs.
    pub vms: Vec<Vm>,
    /// Rules about VMs.
    #[serde(default)]
    pub rules: Vec<Rule>,
}

/// A host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Its name.
    pub id: String,
    /// Processors.
    pub cores: u32,
    /// Memory in MiB.
    pub mem_mb: u64,
    /// What its network card carries each way, in Mbit/s.
    pub net_mbps: u64,
}

/// A VM.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Vm {
    /// Its name.
    pub id: String,
    /// The node it is on at first.
    pub host: String,
    /// Its processors.
    #[serde(default)]
    pub vcpus: u32,
    /// Memory in MiB, all of it given.
    pub mem_mb: u64,
    /// Cores that it uses, in the mean.
    pub cpu: f64,
    /// What it receives, in Mbit/s.
    #[serde(default)]
    pub net_rx: f64,
    /// What it sends, in Mbit/s.
    #[serde(default)]
    pub net_tx: f64,
    /// Memory that it writes to, in Mbit/s.
    #[serde(default)]
    pub dirty_mbps: f64,
}

/// A rule about VMs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// What it demands.
    #[serde(rename = "type")]
    pub kind: RuleKind,
    /// Of which VMs.
    pub vms: Vec<String>,
    /// The nodes that a pin allows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
}

/// What a rule demands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleKind {
    /// No two on one node.
    AntiAffinity,
    /// All on one node.
    Affinity,
    /// Each on one of these nodes.
    Pin,
}

/// The text describes no cluster that could be.
#[derive(Debug, thiserror::Error)]
pub enum BadCluster {
    /// It is not of this form.
    #[error(
        "{0}; the form is nodes[] {{id, cores, mem_mb, net_mbps}}, vms[] {{id, host, mem_mb, cpu, …}}"
    )]
    Form(#[from] serde_json::Error),
    /// A figure or name in it makes no sense.
    #[error("{0}")]
    Sense(String),
}

/// More nodes than addresses in the simulator.
const NODES_MAX: usize = 60_000;
const VMS_MAX: usize = 4_000_000;

impl Cluster {
    /// From its JSON.
    pub fn read(text: &str) -> Result<Cluster, BadCluster> {
        let cluster: Cluster = serde_json::from_str(text)?;
        cluster.makes_sense().map_err(BadCluster::Sense)?;
        Ok(cluster)
    }

    fn makes_sense(&self) -> Result<(), String> {
        let Cluster { nodes, vms, rules } = self;
        if nodes.is_empty() || nodes.len() > NODES_MAX || vms.len() > VMS_MAX {
            let (nodes, vms) = (nodes.len(), vms.len());
            return Err(format!(
                "{nodes} nodes and {vms} VMs: 1 to {NODES_MAX} and up to {VMS_MAX} can be simulated"
            ));
        }
        let names = unique("node", nodes.iter().map(|node| &*node.id))?;
        let known = unique("VM", vms.iter().map(|vm| &*vm.id))?;
        for node in nodes {
            if node.cores == 0 || node.mem_mb == 0 || node.net_mbps == 0 {
                return Err(format!(
                    "node {}: cores, mem_mb and net_mbps must be above 0",
                    node.id
                ));
            }
        }
        for vm in vms {
            if !names.contains(&*vm.host) {
                return Err(format!("VM {}: there is no node {:?}", vm.id, vm.host));
            }
            let figures = [vm.cpu, vm.net_rx, vm.net_tx, vm.dirty_mbps];
            if vm.mem_mb == 0 || figures.iter().any(|f| !f.is_finite() || *f < 0.0 || *f > 1e6) {
                return Err(format!(
                    "VM {}: mem_mb must be above 0, cpu, net_rx, net_tx and dirty_mbps between 0 and 10^6",
                    vm.id
                ));
            }
        }
        for (n, rule) in rules.iter().enumerate() {
            if let Some(vm) = rule.vms.iter().find(|vm| !known.contains(&***vm)) {
                return Err(format!("rule {}: there is no VM {vm:?}", n + 1));
            }
            if let Some(host) = rule.hosts.iter().find(|host| !names.contains(&***host)) {
                return Err(format!("rule {}: there is no node {host:?}", n + 1));
            }
        }
        Ok(())
    }

    /// Where each VM is at first.
    pub fn placement(&self) -> BTreeMap<&str, &str> {
        self.vms.iter().map(|vm| (&*vm.id, &*vm.host)).collect()
    }
}

fn unique<'a>(
    what: &str,
    names: impl Iterator<Item = &'a str>,
) -> Result<BTreeSet<&'a str>, String> {
    let mut all = BTreeSet::new();
    for name in names {
        if !all.insert(name) {
            return Err(format!("two {what}s are named {name:?}"));
        }
    }
    Ok(all)
}
