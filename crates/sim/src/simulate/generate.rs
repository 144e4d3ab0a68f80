//! Clusters that are unevenly used, drawn from a seed: VMs as many clouds have them, on hosts that by lot got many or few of them,
//! busy or idle ones.
//!
//! **Invariant:** the same form and seed give the same cluster, at first every rule holds, and no node has more than 92 % of
//! its memory in use.

use super::cluster::{Cluster, Node, Rule, RuleKind, Vm};
use super::draws::Draws;

/// How wide the weights are by which nodes get VMs: log-normal. At 0.8 one node in ten gets more than 2.8 times the median.
const SKEW: f64 = 0.8;
/// No node weighs more: it would be full long before.
const WEIGHT_MAX: f64 = 8.0;
/// Of a node's memory.
const FULL: f64 = 0.92;
/// Places drawn for a VM before it goes to the emptiest node.
const TRIES: u32 = 200;
/// VMs that are drawn and find no room before a cluster counts as full.
const MISSES_MAX: u32 = 10_000;
/// VMs of a group that keeps apart.
const APART: usize = 5;
const VCPUS: [u32; 4] = [1, 2, 4, 8];
/// Sums of the weights .30, .35, .25, .10.
const VCPUS_WEIGHTS: [f64; 4] = [0.30, 0.65, 0.90, 1.0];
/// Those that fill up, .4, .4, .2: small ones.
const FILLING_WEIGHTS: [f64; 3] = [0.4, 0.8, 1.0];
const MIB_PER_VCPU: [u64; 2] = [2048, 4096];
const NET_MBPS_MAX: f64 = 2000.0;

/// What kind of cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Form {
    /// Hosts.
    pub nodes: usize,
    /// VMs, by the number of hosts.
    pub vms_per_node: usize,
    /// Every second node has half as many processors and half as much memory again, and two and a half times the network.
    pub hetero: bool,
    /// Share of the VMs that are under rules.
    pub rules: f64,
    /// VMs are added until so much of all memory is in use, or no node has room.
    pub fill: f64,
}

/// A node, and what it gets.
struct Site {
    node: Node,
    /// Of what it has, guests have this, MiB.
    used: u64,
    /// Its VMs are busier the higher this is: 0 to 1.
    heat: f64,
}

impl Site {
    fn free(&self) -> f64 {
        FULL * self.node.mem_mb as f64 - self.used as f64
    }
}

/// Such a cluster.
///
/// # Panics
/// Without nodes.
pub fn generate(form: &Form, seed: u64) -> Cluster {
    let mut draws = Draws::new(seed);
    let mut weights: Vec<f64> = Vec::new();
    let mut sites: Vec<Site> = Vec::new();
    for n in 0..form.nodes {
        let before = weights.last().copied().unwrap_or(0.0);
        weights.push(before + draws.log_normal(SKEW).min(WEIGHT_MAX));
        sites.push(Site { node: node(n, form.hetero), used: 0, heat: draws.even() });
    }
    let mut vms = Vec::new();
    for n in 0..form.nodes * form.vms_per_node {
        let vcpus = VCPUS[draws.weighted(&VCPUS_WEIGHTS)];
        let mem_mb = u64::from(vcpus) * draws.one_of(&MIB_PER_VCPU);
        let at = place(&mut draws, &sites, &weights, mem_mb);
        sites[at].used += mem_mb;
        vms.push(vm(&mut draws, n, &sites[at], vcpus, mem_mb));
    }
    fill(&mut draws, form.fill, &mut sites, &mut vms);
    let nodes = sites.into_iter().map(|site| site.node).collect();
    let mut cluster = Cluster { nodes, vms, rules: Vec::new() };
    cluster.rules = rules(&mut draws, form.rules, &cluster);
    cluster
}

fn node(n: usize, hetero: bool) -> Node {
    let (cores, mem_mb, net_mbps) =
        if hetero && n % 2 == 1 { (48, 393_216, 25_000) } else { (32, 262_144, 10_000) };
    Node { id: format!("node{n:04}"), cores, mem_mb, net_mbps }
}

/// By weight, where there is room.
fn place(draws: &mut Draws, sites: &[Site], weights: &[f64], mem_mb: u64) -> usize {
    let drawn = (0..TRIES).map(|_| draws.weighted(weights));
    let fits = drawn.into_iter().find(|at| sites[*at].free() >= mem_mb as f64);
    let emptiest = || {
        let all = sites.iter().enumerate();
        all.max_by(|a, b| a.1.free().total_cmp(&b.1.free())).map(|(at, _)| at)
    };
    fits.or_else(emptiest).expect("a cluster has nodes")
}

fn vm(draws: &mut Draws, n: usize, site: &Site, vcpus: u32, mem_mb: u64) -> Vm {
    // A fraction of its processors, by the node's heat.
    let used = (draws.beta(1.2, 3.6) * (0.6 + 0.9 * site.heat)).min(1.0);
    let net = (draws.pareto(1.3) * 2.0).min(NET_MBPS_MAX);
    Vm {
        id: format!("vm{n:05}"),
        host: site.node.id.clone(),
        vcpus,
        mem_mb,
        cpu: rounded(f64::from(vcpus) * used, 1000.0),
        net_rx: rounded(net * draws.between(0.3, 0.7), 100.0),
        net_tx: rounded(net * draws.between(0.3, 0.7), 100.0),
        dirty_mbps: rounded(20.0 + 400.0 * used * draws.even(), 10.0),
    }
}

fn rounded(figure: f64, parts: f64) -> f64 {
    (figure * parts).round() / parts
}

/// Adds small VMs, each at any node that has room.
fn fill(draws: &mut Draws, share: f64, sites: &mut [Site], vms: &mut Vec<Vm>) {
    let all: u64 = sites.iter().map(|site| site.node.mem_mb).sum();
    let mut used: u64 = sites.iter().map(|site| site.used).sum();
    let order: Vec<usize> = (0..sites.len()).collect();
    let mut misses = 0;
    while (used as f64) < share * all as f64 && misses < MISSES_MAX {
        let vcpus = VCPUS[draws.weighted(&FILLING_WEIGHTS)];
        let mem_mb = u64::from(vcpus) * draws.one_of(&MIB_PER_VCPU);
        let site = &mut sites[*draws.one_of(&order)];
        if site.free() < mem_mb as f64 {
            misses += 1;
            continue;
        }
        site.used += mem_mb;
        used += mem_mb;
        vms.push(vm(draws, vms.len(), site, vcpus, mem_mb));
    }
}

/// Rules of all kinds, until this share of the VMs is under one; each VM is under one at the most.
fn rules(draws: &mut Draws, share: f64, cluster: &Cluster) -> Vec<Rule> {
    let mut loose: Vec<&Vm> = cluster.vms.iter().collect();
    draws.shuffle(&mut loose);
    let wanted = share * loose.len() as f64;
    let (mut rules, mut bound) = (Vec::new(), 0);
    while (bound as f64) < wanted
        && let Some(first) = loose.pop()
    {
        // .5, .2, .3.
        let kinds = [RuleKind::AntiAffinity, RuleKind::Affinity, RuleKind::Pin];
        let kind = kinds[draws.weighted(&[0.5, 0.7, 1.0])];
        let mut group = vec![first];
        let mut hosts = Vec::new();
        match kind {
            RuleKind::AntiAffinity => {
                join(&mut group, &mut loose, APART, |vm, group| {
                    group.iter().all(|other| other.host != vm.host)
                });
            }
            RuleKind::Affinity => join(&mut group, &mut loose, 2, |vm, _| vm.host == first.host),
            RuleKind::Pin => hosts = pinned(draws, cluster, &first.host),
        }
        if kind != RuleKind::Pin && group.len() < 2 {
            continue;
        }
        bound += group.len();
        rules.push(Rule { kind, vms: group.iter().map(|vm| vm.id.clone()).collect(), hosts });
    }
    rules
}

/// Takes VMs out of `loose` that may join, until the group is of this size.
fn join<'a>(
    group: &mut Vec<&'a Vm>,
    loose: &mut Vec<&'a Vm>,
    size: usize,
    may: impl Fn(&Vm, &[&Vm]) -> bool,
) {
    loose.retain(|vm| {
        let joins = group.len() < size && may(vm, group);
        if joins {
            group.push(vm);
        }
        !joins
    });
}

/// A quarter of the nodes, two at the least, and the one where the VM is.
fn pinned(draws: &mut Draws, cluster: &Cluster, here: &str) -> Vec<String> {
    let mut hosts: Vec<&str> = cluster.nodes.iter().map(|node| &*node.id).collect();
    draws.shuffle(&mut hosts);
    hosts.truncate((cluster.nodes.len() / 4).max(2));
    hosts.push(here);
    hosts.sort_unstable();
    hosts.dedup();
    hosts.into_iter().map(str::to_owned).collect()
}
