//! Draining a host: what stands in the way, staying with it, ending it.

use std::process::Stdio;

use api::{DrainView, LeavingVm, LeftVm, StoppedVm};
use expect_test::expect;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::agent::Agent;

fn leaving(vm: &str, state: &str, why: Option<&str>) -> LeavingVm {
    LeavingVm {
        vm: vm.to_owned(),
        vm_id: format!("id of {vm}"),
        memory_mib: 128,
        state: state.to_owned(),
        move_id: (state == "moving").then(|| "1a2b3c4d.1.3".to_owned()),
        why: why.map(str::to_owned),
    }
}

fn left(vm: &str, to: &str, at: &str) -> LeftVm {
    let vm_id = format!("id of {vm}");
    LeftVm { vm: vm.to_owned(), vm_id, to: to.to_owned(), at: at.to_owned() }
}

fn view(left: Vec<LeftVm>, here: Vec<LeavingVm>) -> DrainView {
    let stopped = vec![StoppedVm { vm: "old".to_owned(), vm_id: "id of old".to_owned() }];
    DrainView { host: "host1".to_owned(), looking: false, draining: true, left, here, stopped }
}

const KEPT: Option<&str> = Some("exclude: it is left where it is, by hand");

/// Two VMs leave, of which one is refused at first.
fn two() -> Vec<DrainView> {
    let refused = |seconds: u32| {
        format!("it was not moved (2 answered, 0 accepted); it is tried again in {seconds} s")
    };
    vec![
        view(vec![], vec![leaving("web", "next", None), leaving("db", "next", None)]),
        view(vec![], vec![leaving("web", "moving", None), leaving("db", "next", None)]),
        view(vec![left("web", "host2", "host2")], vec![leaving("db", "waits", Some(&refused(9)))]),
        view(vec![left("web", "host2", "host2")], vec![leaving("db", "waits", Some(&refused(8)))]),
        view(vec![left("web", "host2", "host2")], vec![leaving("db", "moving", None)]),
        view(vec![left("web", "host2", "host2"), left("db", "host3", "host3")], vec![]),
    ]
}

#[tokio::test]
async fn a_drain_is_followed_until_none_is_left() {
    let agent = Agent::draining(two());
    let ran = agent.run(&["drain"]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(agent.asked(), [r#"{"on":true,"host":null}"#]);
    expect![[r#"
        host1 is drained: 2 VMs have left, none is here.
    "#]]
    .assert_eq(&ran.out);
    expect![[r#"
        host1 is being drained: 2 VMs are to leave, none may come.
          old is stopped: it stays defined here, and is not started elsewhere
        web is leaving, by move 1a2b3c4d.1.3
        web has left for host2
        db waits: it was not moved (2 answered, 0 accepted); it is tried again in 9 s
        db is leaving, by move 1a2b3c4d.1.3
        db has left for host3
    "#]]
    .assert_eq(&ran.err);
}

#[tokio::test]
async fn vms_that_may_not_leave_are_named_first_and_are_exit_code_1() {
    let agent = Agent::draining(vec![
        view(vec![], vec![leaving("web", "next", None), leaving("db", "stays", KEPT)]),
        view(vec![left("web", "host2", "host2")], vec![leaving("db", "stays", KEPT)]),
    ]);
    let ran = agent.run(&["drain", "host1"]).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(
        ran.err.contains("\n  db may not leave: exclude: it is left where it is, by hand\n"),
        "{ran:?}"
    );
    expect![[r#"
        host1 is drained as far as can be: 1 VMs have left, 1 stay:
          db may not leave: exclude: it is left where it is, by hand
    "#]]
    .assert_eq(&ran.out);
}

#[tokio::test]
async fn another_host_is_refused_and_programs_get_one_document() {
    let ran = Agent::draining(two()).run(&["drain", "host2"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""));
    assert!(ran.err.contains("drains its own host alone, which is host1, not host2"), "{ran:?}");
    let ran = Agent::draining(two()).run(&["drain", "-o", "json"]).await;
    assert_eq!(serde_json::from_str::<DrainView>(&ran.out).unwrap(), two().pop().unwrap());
    let ran = Agent::draining(two()).run(&["drain", "--no-wait"]).await;
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    assert!(
        ran.out.starts_with("host1 is being drained: 0 VMs have left, 2 are here:\n"),
        "{ran:?}"
    );
}

#[tokio::test]
async fn an_interrupted_drain_goes_on_and_says_how_it_ends() {
    let moving = || view(vec![], vec![leaving("web", "moving", None)]);
    let agent = Agent::draining(vec![moving(), moving()]);
    let mut command = agent.command(&["drain"]);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        if line.starts_with("web is leaving") {
            break;
        }
    }
    let id = child.id().unwrap().to_string();
    std::process::Command::new("kill").args(["-INT", &id]).status().unwrap();
    let mut told = String::new();
    while let Some(line) = lines.next_line().await.unwrap() {
        told += &line;
    }
    assert_eq!(child.wait().await.unwrap().code(), Some(130));
    let says = "The drain of host1 goes on. `evenkeel drain` follows it again, `evenkeel undrain` ends it.";
    assert_eq!(told, says);
}

#[tokio::test]
async fn the_end_of_a_drain_says_how_what_has_left_comes_back() {
    let away = || {
        let all = vec![left("web", "host2", "host3"), left("db", "host2", "host1")];
        vec![view(all, vec![])]
    };
    let agent = Agent::draining(away());
    let ran = agent.run(&["undrain"]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(agent.asked(), [r#"{"on":false,"host":null}"#]);
    expect![[r#"
        host1 is drained no more.
        1 VMs left while it was drained; `evenkeel undrain --bring-back` says how they come back.
    "#]]
    .assert_eq(&ran.out);
    let ran = Agent::draining(away()).run(&["undrain", "--bring-back"]).await;
    expect![[r#"
        host1 is drained no more.
        Each VM is moved by the agent of the host that it is on. To bring them back, run
          on host3: evenkeel move web --to host1
    "#]]
    .assert_eq(&ran.out);
    let ran = Agent::draining(vec![view(vec![], vec![])]).run(&["undrain"]).await;
    assert_eq!(ran.out, "host1 is drained no more.\n");
}
