//! `evenkeel lab dump`: what it writes, and what it names.

use expect_test::expect;
use serde_json::{Value, json};

use crate::agent::Agent;

const DIVIDED: &str = "evenkeel: the agent of host host2 was not asked: what its VMs use is its own sum, divided by their memory; \
                       their processors, pins by tag and writes to memory are not known\n";

#[tokio::test]
async fn a_dump_is_what_simulate_reads_and_what_is_reckoned_is_named() {
    let agent = Agent::start(vec![]);
    let ran = agent.run(&["lab", "dump"]).await;
    assert_eq!((ran.code, &*ran.err), (Some(1), DIVIDED));
    let dump: Value = serde_json::from_str(&ran.out).unwrap();
    let node = |name: &str| json!({"id": name, "cores": 16, "mem_mb": 65_536, "net_mbps": 10_000});
    assert_eq!(dump["nodes"], json!([node("host1"), node("host2")]));
    let vm = |name: &str| {
        json!({
            "id": name, "host": "host1", "vcpus": 2, "mem_mb": 2048, "cpu": 1.25, "net_rx": 1.5, "net_tx": 0.5,
            "dirty_mbps": 24.0
        })
    };
    let divided = json!({
        "id": "web2", "host": "host2", "vcpus": 0, "mem_mb": 2048, "cpu": 2.5, "net_rx": 4.0, "net_tx": 4.0,
        "dirty_mbps": 0.0
    });
    assert_eq!(dump["vms"], json!([vm("db"), vm("web1"), divided]));
    let apart = json!({"type": "anti_affinity", "vms": ["web1", "web2"]});
    let pin = json!({"type": "pin", "vms": ["db"], "hosts": ["host1"]});
    assert_eq!(dump["rules"], json!([apart, pin]));
}

#[tokio::test]
async fn agents_that_do_not_answer_are_named_and_the_dump_is_made_of_the_others() {
    let agent = Agent::start(vec![]);
    let folder = tempfile::tempdir().unwrap();
    let (file, nobody) = (folder.path().join("cluster.json"), folder.path().join("nobody"));
    let (file, nobody) = (file.to_str().unwrap(), nobody.to_str().unwrap());
    let socket = agent.socket.to_str().unwrap();
    let ran = agent.run(&["lab", "dump", socket, nobody, "-o", file]).await;
    assert_eq!((ran.code, &*ran.out), (Some(1), ""));
    assert!(ran.err.contains("no agent can be reached at") && ran.err.contains(nobody), "{ran:?}");
    assert!(ran.err.ends_with(DIVIDED), "{ran:?}");
    let whole = agent.run(&["lab", "dump"]).await.out;
    assert_eq!(std::fs::read_to_string(file).unwrap(), whole);
    let ran = agent.run(&["lab", "dump", nobody]).await;
    assert_eq!((ran.code, &*ran.out), (Some(3), ""));
}

#[tokio::test]
async fn a_dump_has_its_own_help() {
    let ran = Agent::start(vec![]).run(&["lab", "dump", "--help"]).await;
    let usage = ran.out.lines().find(|line| line.starts_with("Usage"));
    expect!["Usage: evenkeel lab dump [OPTIONS] [SOCKET]..."].assert_eq(usage.unwrap());
    assert_eq!(ran.code, Some(0));
}
