//! How even a placement is, and whether the way there kept to what must hold: neutral figures, of no balancer's own score.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::cluster::{Cluster, Node, Rule, RuleKind, Vm};
use super::life::Move;

/// One placement: use of each resource in percent of the node's own, over nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "mean, standard deviation, highest less lowest, and highest")]
pub struct Figures {
    /// VMs that are not where they were at first.
    pub displaced: usize,
    /// Their memory.
    pub displaced_gib: f64,
    pub cpu_mean: f64,
    pub cpu_std: f64,
    pub cpu_spread: f64,
    pub cpu_max: f64,
    pub mem_mean: f64,
    pub mem_std: f64,
    pub mem_spread: f64,
    pub mem_max: f64,
    pub net_mean: f64,
    pub net_std: f64,
    pub net_spread: f64,
    pub net_max: f64,
    /// Nodes whose VMs have more memory than the node.
    pub over: usize,
}

/// The way there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Steps {
    /// Migrations made.
    pub moves: usize,
    /// Memory of the VMs migrated, each time.
    pub moved_gib: f64,
    /// Reservations that took a node above its memory, a moving VM counted on both nodes.
    pub over_at_some_instant: usize,
    /// The highest use of a node's memory at any instant, percent.
    pub memory_peak: f64,
    /// Rules that did not hold after a move; a group may be apart while one of it moves.
    pub rules_broken: usize,
}

impl Figures {
    /// The means of several; counts are whole.
    pub fn mean<'a>(all: impl ExactSizeIterator<Item = &'a Figures>) -> Figures {
        let n = all.len().max(1);
        let sum = all.fold(Figures::default(), |a, b| Figures {
            displaced: a.displaced + b.displaced,
            displaced_gib: a.displaced_gib + b.displaced_gib,
            cpu_mean: a.cpu_mean + b.cpu_mean,
            cpu_std: a.cpu_std + b.cpu_std,
            cpu_spread: a.cpu_spread + b.cpu_spread,
            cpu_max: a.cpu_max + b.cpu_max,
            mem_mean: a.mem_mean + b.mem_mean,
            mem_std: a.mem_std + b.mem_std,
            mem_spread: a.mem_spread + b.mem_spread,
            mem_max: a.mem_max + b.mem_max,
            net_mean: a.net_mean + b.net_mean,
            net_std: a.net_std + b.net_std,
            net_spread: a.net_spread + b.net_spread,
            net_max: a.net_max + b.net_max,
            over: a.over + b.over,
        });
        let of = |sum: f64| sum / n as f64;
        Figures {
            displaced: sum.displaced / n,
            displaced_gib: of(sum.displaced_gib),
            cpu_mean: of(sum.cpu_mean),
            cpu_std: of(sum.cpu_std),
            cpu_spread: of(sum.cpu_spread),
            cpu_max: of(sum.cpu_max),
            mem_mean: of(sum.mem_mean),
            mem_std: of(sum.mem_std),
            mem_spread: of(sum.mem_spread),
            mem_max: of(sum.mem_max),
            net_mean: of(sum.net_mean),
            net_std: of(sum.net_std),
            net_spread: of(sum.net_spread),
            net_max: of(sum.net_max),
            over: sum.over / n,
        }
    }
}

/// Figures of a placement.
pub fn figures(cluster: &Cluster, placement: &BTreeMap<&str, &str>) -> Figures {
    let at =
        |vm: &Vm| placement.get(&*vm.id).map_or_else(|| vm.host.clone(), |host| (*host).to_owned());
    let mut used: BTreeMap<String, [f64; 3]> =
        cluster.nodes.iter().map(|node| (node.id.clone(), [0.0; 3])).collect();
    let mut figures = Figures::default();
    for vm in &cluster.vms {
        let host = at(vm);
        if host != vm.host {
            figures.displaced += 1;
            figures.displaced_gib += vm.mem_mb as f64 / 1024.0;
        }
        let sums = used.entry(host).or_default();
        for (sum, more) in sums.iter_mut().zip([vm.cpu, vm.mem_mb as f64, vm.net_rx + vm.net_tx]) {
            *sum += more;
        }
    }
    let percent = |of: fn(&Node) -> f64, n: usize| -> Vec<f64> {
        cluster.nodes.iter().map(|node| 100.0 * used[&node.id][n] / of(node)).collect()
    };
    let cpu = Over::new(&percent(|node| f64::from(node.cores), 0));
    let mem = Over::new(&percent(|node| node.mem_mb as f64, 1));
    let net = Over::new(&percent(|node| node.net_mbps as f64, 2));
    let over = cluster.nodes.iter().filter(|node| used[&node.id][1] > node.mem_mb as f64).count();
    Figures {
        cpu_mean: cpu.mean,
        cpu_std: cpu.std,
        cpu_spread: cpu.spread,
        cpu_max: cpu.max,
        mem_mean: mem.mean,
        mem_std: mem.std,
        mem_spread: mem.spread,
        mem_max: mem.max,
        net_mean: net.mean,
        net_std: net.std,
        net_spread: net.spread,
        net_max: net.max,
        over,
        ..figures
    }
}

/// One resource over all nodes.
struct Over {
    mean: f64,
    std: f64,
    spread: f64,
    max: f64,
}

impl Over {
    fn new(all: &[f64]) -> Over {
        let n = all.len() as f64;
        let mean = all.iter().sum::<f64>() / n;
        let std = (all.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n).sqrt();
        let max = all.iter().copied().fold(f64::MIN, f64::max);
        let min = all.iter().copied().fold(f64::MAX, f64::min);
        Over { mean, std, spread: max - min, max }
    }
}

/// Replays the moves in the order of their reservations and ends.
pub fn steps(cluster: &Cluster, moves: &[Move]) -> Steps {
    let nodes: BTreeMap<&str, &Node> = cluster.nodes.iter().map(|n| (&*n.id, n)).collect();
    let vms: BTreeMap<&str, &Vm> = cluster.vms.iter().map(|vm| (&*vm.id, vm)).collect();
    let mut at = cluster.placement();
    let mut memory: BTreeMap<&str, u64> = nodes.keys().map(|node| (*node, 0)).collect();
    for vm in &cluster.vms {
        *memory.entry(&*vm.host).or_default() += vm.mem_mb;
    }
    let ends = moves.iter().map(|m| (m.t_end, false, m));
    let mut order: Vec<(f64, bool, &Move)> =
        ends.chain(moves.iter().map(|m| (m.t_reserve, true, m))).collect();
    order.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let mut found = Steps { moves: moves.len(), ..Steps::default() };
    let mut moving: BTreeSet<&str> = BTreeSet::new();
    for (_, reserved, step) in order {
        let size = vms[&*step.vm].mem_mb;
        if reserved {
            moving.insert(&step.vm);
            let there = memory.entry(&*step.to).or_default();
            *there += size;
            let all = nodes[&*step.to].mem_mb;
            found.memory_peak = found.memory_peak.max(100.0 * *there as f64 / all as f64);
            found.over_at_some_instant += usize::from(*there > all);
        } else {
            moving.remove(&*step.vm);
            let left = memory.entry(&*step.from).or_default();
            *left = left.saturating_sub(size);
            at.insert(&step.vm, &step.to);
            found.moved_gib += size as f64 / 1024.0;
            found.rules_broken +=
                cluster.rules.iter().filter(|rule| !holds(rule, step, &at, &moving)).count();
        }
    }
    found
}

/// Whether the rule holds, as far as the VM that has just moved is concerned.
fn holds(rule: &Rule, moved: &Move, at: &BTreeMap<&str, &str>, moving: &BTreeSet<&str>) -> bool {
    if !rule.vms.contains(&moved.vm) {
        return true;
    }
    let hosts: BTreeSet<&str> = rule.vms.iter().map(|vm| at[&**vm]).collect();
    match rule.kind {
        RuleKind::AntiAffinity => hosts.len() == rule.vms.len(),
        RuleKind::Affinity => hosts.len() == 1 || rule.vms.iter().any(|vm| moving.contains(&**vm)),
        RuleKind::Pin => rule.hosts.contains(&moved.to),
    }
}
