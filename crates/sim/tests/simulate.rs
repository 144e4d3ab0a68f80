//! Described clusters, lived until nothing moves.

use decide::policy::settings::Trigger;
use sim::simulate::{BadCluster, Cluster, HotNodes, Node, Options, Report, Vm, simulate};

/// Six nodes of 16 cores and 64 GiB; VMs of one core and 2 GiB, so many on each.
fn cluster(vms: [usize; 6]) -> Cluster {
    let node = |n: usize| Node { id: format!("n{n}"), cores: 16, mem_mb: 65_536, net_mbps: 10_000 };
    let places = vms.iter().enumerate().flat_map(|(n, many)| std::iter::repeat_n(n, *many));
    let vm = |(k, n): (usize, usize)| Vm {
        id: format!("v{k}"),
        host: format!("n{n}"),
        vcpus: 2,
        mem_mb: 2048,
        cpu: 1.0,
        net_rx: 10.0,
        net_tx: 10.0,
        dirty_mbps: 40.0,
    };
    let vms = places.enumerate().map(vm).collect();
    Cluster { nodes: (0..6).map(node).collect(), vms, rules: Vec::new() }
}

fn lived(cluster: &Cluster, trigger: Trigger, seed: u64) -> Report {
    let report = simulate(cluster, &Options::of(trigger, seed), &|_, _| ());
    assert!(report.quiet, "it ends");
    assert_eq!((report.steps.over_at_some_instant, report.after.over), (0, 0));
    report
}

#[test]
fn an_uneven_cluster_is_evened_out_and_the_moves_end() {
    let report = lived(&cluster([14, 2, 2, 2, 2, 2]), Trigger::Spread, 1);
    assert_eq!(report.steps.moves, 10, "one for each VM too many");
    assert!(report.after.cpu_spread < 0.01, "{:?}", report.after);
    let first = &report.moves[0];
    assert!(first.t_reserve < first.t_start && first.t_start < first.t_end, "{first:?}");
    assert!(first.why.contains("in the mean of the cluster"), "{}", first.why);
}

#[test]
fn an_even_cluster_makes_no_move() {
    assert_eq!(lived(&cluster([4; 6]), Trigger::Spread, 1).moves, []);
}

#[test]
fn a_fleet_that_is_not_hot_makes_no_move_by_the_trigger_hot() {
    let report = lived(&cluster([11, 2, 2, 2, 2, 2]), Trigger::Hot, 1);
    assert_eq!((report.hot, report.moves), (HotNodes::default(), Vec::new()));
}

#[test]
fn a_hot_host_is_relieved_and_nobody_made_hot() {
    let mut cluster = cluster([8, 1, 1, 1, 1, 1]);
    cluster.vms.iter_mut().for_each(|vm| vm.cpu = 2.0);
    let report = lived(&cluster, Trigger::Hot, 1);
    assert_eq!(report.hot, HotNodes { before: 1, made: 0, after: 0 });
    // From 100 % to below 80 %.
    assert_eq!(report.moves.len(), 2, "no more than needed: {:?}", report.moves);
}

#[test]
fn a_lone_vm_stays() {
    assert_eq!(lived(&cluster([1, 0, 0, 0, 0, 0]), Trigger::Spread, 1).moves, []);
}

#[test]
fn the_same_seed_gives_the_same_moves_and_another_others() {
    let of = |seed| lived(&cluster([9, 7, 2, 2, 1, 1]), Trigger::Spread, seed).moves;
    assert_eq!(of(1), of(1));
    assert_ne!(of(1), of(2));
}

#[test]
fn a_cluster_that_cannot_be_is_refused_by_name() {
    let bad = |change: fn(&mut Cluster)| {
        let mut cluster = cluster([1; 6]);
        change(&mut cluster);
        Cluster::read(&serde_json::to_string(&cluster).unwrap()).unwrap_err().to_string()
    };
    assert_eq!(bad(|c| c.vms[2].host = "n9".into()), "VM v2: there is no node \"n9\"");
    assert_eq!(bad(|c| c.vms[1].id = "v0".into()), "two VMs are named \"v0\"");
    assert_eq!(
        bad(|c| c.nodes[3].cores = 0),
        "node n3: cores, mem_mb and net_mbps must be above 0"
    );
    assert!(matches!(Cluster::read("{\"nodes\": [{}]}"), Err(BadCluster::Form(_))));
}
