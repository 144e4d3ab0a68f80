//! The whole cluster in figures, as this host knows it: what `evenkeel lab dump` asks for.

use api::{ClusterHost, ClusterLoad, ClusterView, ClusterVm};
use decide::host::Host;
use decide::membership::inventory::{Inventory, Listed};
use decide::membership::{Digest, HostState};
use decide::policy::rules::{HostIs, VmRules};
use decide::units::{HostId, Time};

/// This host exactly, the others by what they said and listed last.
pub(crate) fn known(host: &Host, now: Time) -> ClusterView {
    let own = host.inventory();
    let me = ClusterHost {
        name: host.name().to_owned(),
        id: host.id().to_string(),
        left_out: Some(own.left_out),
        ..figures("alive", Some(&host.digest(now)))
    };
    let others = host.membership().hosts().map(|view| {
        let state = match view.state {
            HostState::Alive => "alive",
            HostState::Suspect => "suspect",
            HostState::Gone => "gone",
        };
        ClusterHost {
            name: view.peer.name.clone(),
            id: view.peer.host.to_string(),
            left_out: list_of(host, view.peer.host).map(|list| list.left_out),
            ..figures(state, view.digest.as_ref())
        }
    });
    let hosts = std::iter::once(me).chain(others).collect();
    let mut vms: Vec<ClusterVm> = own.vms.iter().map(|vm| here(host, now, vm)).collect();
    for (view, _, list) in host.inventories() {
        let rules = &host.settings().rules;
        let of = |vm: &Listed| rules.of(vm.vm, &vm.name, &vm.tags);
        vms.extend(list.vms.iter().map(|vm| listed(host, view.peer.host, vm, &of(vm))));
    }
    ClusterView { host: host.name().to_owned(), host_id: host.id().to_string(), hosts, vms }
}

fn list_of(host: &Host, of: HostId) -> Option<&Inventory> {
    host.list_of(of)
}

fn figures(state: &str, digest: Option<&Digest>) -> ClusterHost {
    let headroom = digest.and_then(|digest| digest.headroom);
    let told = |figure: u64| (figure > 0).then_some(figure);
    ClusterHost {
        name: String::new(),
        id: String::new(),
        state: state.to_owned(),
        cpu_millicores: headroom.and_then(|it| told(it.cpu.0)),
        memory_mib: headroom.and_then(|it| told(it.memory.0)),
        nic_bits_per_second: headroom.and_then(|it| told(it.nic.0)),
        cpu_asked_millicores: headroom.map(|it| it.cpu_asked.0),
        bits_per_second: digest.map(|digest| digest.bits.0),
        left_out: None,
    }
}

/// A VM on this host.
fn here(host: &Host, now: Time, vm: &Listed) -> ClusterVm {
    let (demand, newest) = (host.demand(now, vm.vm), host.usage().history(vm.vm));
    let newest = newest.and_then(|history| history.newest()).unwrap_or_default();
    // Demand knows both directions together only: they are divided as in the newest second.
    let (received, both) = (u128::from(newest.received_bits.0), u128::from(newest.bits().0));
    let received = (u128::from(demand.bits.0) * received).checked_div(both);
    let received = received.and_then(|bits| u64::try_from(bits).ok()).unwrap_or(demand.bits.0 / 2);
    let of = &host.vms()[&vm.vm];
    ClusterVm {
        vcpus: Some(of.definition.vcpus),
        load: Some(ClusterLoad {
            cpu_millicores: demand.cpu.0,
            received_bits_per_second: received,
            sent_bits_per_second: demand.bits.0.saturating_sub(received),
            dirty_mib_per_second: host.usage().told(vm.vm).dirty.map(|rate| rate.0),
        }),
        ..listed(host, host.id(), vm, &of.rules)
    }
}

/// A VM as its host lists it.
fn listed(host: &Host, at: HostId, vm: &Listed, rules: &VmRules) -> ClusterVm {
    ClusterVm {
        name: vm.name.clone(),
        id: vm.vm.to_string(),
        host_id: at.to_string(),
        state: vm.state.name().to_owned(),
        epoch: vm.epoch,
        memory_mib: vm.memory.0,
        vcpus: None,
        load: None,
        affinity: rules.affinity.iter().cloned().collect(),
        anti_affinity: rules.anti_affinity.iter().cloned().collect(),
        pinned: (!rules.must.is_empty()).then(|| allowed(host, rules)),
    }
}

fn allowed(host: &Host, rules: &VmRules) -> Vec<String> {
    let me = HostIs { name: host.name(), labels: Some(&host.settings().host.labels) };
    let me = rules.allows(me).is_ok().then(|| host.id());
    let others = host.membership().hosts().filter(|view| {
        let labels = list_of(host, view.peer.host).map(|list| &*list.labels);
        rules.allows(HostIs { name: &view.peer.name, labels }).is_ok()
    });
    me.into_iter().chain(others.map(|view| view.peer.host)).map(|id| id.to_string()).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use api::cluster::dump;
    use decide::policy::file;
    use sim::simulate::Cluster;
    use sim::world::World;
    use sim::world::scene::{flooded, settings};

    use super::*;

    const RULES: &str = "[[rules.group]]\nname = \"web\"\nkind = \"anti-affinity\"\nvms = [\"vm1\", \"vm3\"]\n\
                         [[rules.pin]]\nvms = [\"vm4\"]\nhosts = [\"host3\", \"host2\"]\n";

    fn world() -> World {
        let mut settings = settings();
        settings.mode.balance = decide::policy::settings::Balance::Off;
        settings.rules = file::settings(RULES).unwrap().rules;
        let mut world = flooded(settings);
        world.run(Duration::from_secs(30));
        world
    }

    fn asked(world: &World, at: u16) -> ClusterView {
        let site = &world.sites[&at];
        known(site.host.as_ref().unwrap(), site.clock.shown(world.now))
    }

    #[test]
    fn what_all_hosts_of_a_living_cluster_tell_is_read_back_as_it_is() {
        let world = world();
        let answers: Vec<ClusterView> = [3, 1, 2].map(|at| asked(&world, at)).into();
        let (dumped, notes) = dump(&answers);
        let text = serde_json::to_string(&dumped).unwrap();
        let read = Cluster::read(&text).unwrap();
        let (again, it): (serde_json::Value, serde_json::Value) =
            (serde_json::to_value(&read).unwrap(), serde_json::from_str(&text).unwrap());
        assert_eq!(again["nodes"], it["nodes"]);
        assert_eq!(again["vms"], it["vms"]);
        assert_eq!(again["rules"], it["rules"]);
        let places: Vec<(&str, &str, u64)> =
            read.vms.iter().map(|vm| (&*vm.id, &*vm.host, vm.mem_mb)).collect();
        let expected = [
            ("vm1", "host1", 1024),
            ("vm2", "host1", 1024),
            ("vm3", "host2", 512),
            ("vm4", "host3", 512),
        ];
        assert_eq!(places, expected);
        let cores: Vec<f64> = read.vms.iter().map(|vm| vm.cpu).collect();
        assert_eq!(cores, [2.0, 0.5, 0.5, 0.5]);
        let net: Vec<f64> = read.vms.iter().map(|vm| vm.net_rx + vm.net_tx).collect();
        assert!((net[0] - 0.64).abs() < 0.01, "800 packets of 800 bits: {net:?}");
        let node = &read.nodes[0];
        assert_eq!(
            (&*node.id, node.cores, node.mem_mb, node.net_mbps),
            ("host1", 16, 65_536, 1000)
        );
        assert_eq!((read.nodes.len(), read.rules.len()), (3, 2), "{text}");
        assert_eq!(read.rules[0].vms, ["vm1", "vm3"]);
        assert_eq!(read.rules[1].hosts, ["host2", "host3"]);
        assert_eq!(notes, [""; 0]);
        let shuffled: Vec<ClusterView> = [2, 3, 1].map(|at| asked(&world, at)).into();
        assert_eq!(dump(&shuffled), (dumped, notes));
    }

    #[test]
    fn hosts_that_were_not_asked_are_there_by_their_own_sums_and_named() {
        let world = world();
        let (dumped, notes) = dump(&[asked(&world, 3)]);
        let read = Cluster::read(&serde_json::to_string(&dumped).unwrap()).unwrap();
        assert_eq!((read.nodes.len(), read.vms.len()), (3, 4));
        // 2.5 cores of host 1, divided by memory.
        let cpu: Vec<f64> = read.vms.iter().map(|vm| vm.cpu).collect();
        assert_eq!(cpu, [1.25, 1.25, 0.5, 0.5]);
        assert_eq!(notes.len(), 2, "{notes:?}");
        for (note, host) in notes.iter().zip(["host1", "host2"]) {
            assert!(note.starts_with(&format!("the agent of host {host} was not asked")), "{note}");
        }
    }
}
