//! What goes wrong before an agent could answer, and how it is told.

use std::os::unix::net::UnixListener;
use std::path::Path;

use expect_test::expect;

use crate::agent::{Agent, run};

#[tokio::test]
async fn an_absent_agent_is_exit_code_3_and_names_the_socket() {
    let nowhere = Path::new("/nowhere/api.sock");
    for arguments in
        [&["status"][..], &["events", "-f"], &["move", "web"], &["why", "web", "-o", "json"]]
    {
        let ran = run(nowhere, arguments).await;
        assert_eq!((ran.code, ran.out.as_str()), (Some(3), ""), "{arguments:?}");
        assert!(ran.err.contains("/nowhere/api.sock"), "{ran:?}");
    }
    expect![[r#"
        evenkeel: no agent can be reached at /nowhere/api.sock: No such file or directory (os error 2)
          Is evenkeeld running on this host (`systemctl status evenkeeld`)? If it listens elsewhere, name its socket with --socket or EVENKEEL_SOCKET
    "#]].assert_eq(&run(nowhere, &["hosts"]).await.err);
}

#[tokio::test]
async fn an_agent_that_was_killed_is_exit_code_3() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("api.sock");
    drop(UnixListener::bind(&socket).unwrap());
    let ran = run(&socket, &["vms"]).await;
    assert_eq!(ran.code, Some(3));
    assert!(ran.err.contains("nobody listens"), "{ran:?}");
}

#[tokio::test]
async fn a_vm_that_is_not_here_is_exit_code_1_and_says_where_to_look() {
    let ran = Agent::start(vec![]).run(&["vms", "nosuch"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""));
    assert!(ran.err.contains("no VM \"nosuch\" on this host; `evenkeel vms`"), "{ran:?}");
}

#[tokio::test]
async fn a_wrong_command_line_is_exit_code_2() {
    let agent = Agent::start(vec![]);
    for arguments in [
        &[][..],
        &["wander"],
        &["move"],
        &["move", "cancel"],
        &["move", "web", "cancel", "1.1.1"],
        &["hosts", "-o", "xml"],
        &["events", "-n", "0"],
        &["events", "-n", "1001"],
        &["events", "--after", "yesterday"],
        &["why", "a", "b", "c"],
    ] {
        let ran = agent.run(arguments).await;
        assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""), "{arguments:?}: {ran:?}");
        assert!(ran.err.contains("--help"), "{ran:?}");
    }
    assert!(agent.asked().is_empty());
}
