//! A described cluster in the words of Ganeti's `hbal`, to compare with: `hbal -t CLUSTER.ganeti -U CLUSTER.util -C`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::cluster::Cluster;

/// Use is given in shares of a node of this size, whatever nodes there are: 32 processors, 256 GiB, 10 Gbit/s.
const CORES: f64 = 32.0;
const MEM_MB: f64 = 262_144.0;
const NET_MBPS: f64 = 10_000.0;
/// Instances between these sizes: memory, processors, disks and so on; no limit that matters here.
const POLICY: &str = "128,1,1024,1,1,1|1,1,1,0,0,1;1048576,64,1048576,16,8,1000|\
     diskless,file,sharedfile,plain,blockdev,drbd,rbd,ext|16.0|1024.0\n";

/// What `hbal -t` reads: groups, nodes, instances, cluster tags, policies, each section ended by an empty line.
pub fn state(cluster: &Cluster) -> String {
    let mut used: BTreeMap<&str, u64> = BTreeMap::new();
    for vm in &cluster.vms {
        *used.entry(&*vm.host).or_default() += vm.mem_mb;
    }
    let mut text = "group-01|uuid-01|preferred||\n\n".to_owned();
    for (n, node) in cluster.nodes.iter().enumerate() {
        let free = node.mem_mb.saturating_sub(used.get(&*node.id).copied().unwrap_or(0));
        let role = if n == 0 { 'M' } else { 'N' };
        // Name, memory in all, the host's own, free; disk in all, free; processors; role, group, spindles.
        let (id, all, cores) = (&node.id, node.mem_mb, node.cores);
        // Writing to a string does not fail, here and below.
        let _ = writeln!(text, "{id}|{all}|0|{free}|1000000|1000000|{cores}|{role}|uuid-01|1");
    }
    text.push('\n');
    for vm in &cluster.vms {
        // Name, memory, disk, processors, status, whether it is balanced, node, second node, disks, tags, spindles.
        let (id, mem, vcpus, host) = (&vm.id, vm.mem_mb, vm.vcpus, &vm.host);
        let _ = writeln!(text, "{id}|{mem}|0|{vcpus}|running|Y|{host}||ext||1");
    }
    let _ = write!(text, "\n\n|{POLICY}group-01|{POLICY}");
    text
}

/// What `hbal -U` reads: of each instance its use of processors, memory, disk and network.
pub fn usage(cluster: &Cluster) -> String {
    cluster.vms.iter().fold(String::new(), |mut text, vm| {
        let (cpu, mem) = (vm.cpu / CORES, vm.mem_mb as f64 / MEM_MB);
        let net = (vm.net_rx + vm.net_tx) / NET_MBPS;
        let _ = writeln!(text, "{} {cpu:.6} {mem:.6} 0 {net:.6}", vm.id);
        text
    })
}

/// Where each VM is by a state that `hbal -S` wrote, which has more fields.
pub fn placement(state: &str) -> BTreeMap<&str, &str> {
    let instances = state.split("\n\n").nth(2).unwrap_or_default();
    let name_and_node = |line| {
        let mut fields = str::split(line, '|');
        Some((fields.next()?, fields.nth(5)?))
    };
    instances.lines().filter_map(name_and_node).collect()
}
