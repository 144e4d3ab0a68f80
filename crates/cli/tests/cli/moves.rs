//! Starting a move, staying with it, cancelling it.

use api::{MoveStarted, MoveView, Step};
use expect_test::expect;

use crate::agent::{Agent, MOVE, abandoned, copying, done, event};

#[tokio::test]
async fn a_move_is_followed_to_its_end() {
    let agent = Agent::start(vec![copying(), copying(), done()]);
    agent.note(event(3, Step::Done));
    let ran = agent.run(&["move", "web", "--to", "host2"]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(agent.asked(), [r#"{"vm":"web","to":"host2"}"#]);
    expect![[r#"
        web moved from host1 to host2: 131 MiB in 3 rounds, took 2.31 s, paused 158 ms.
    "#]]
    .assert_eq(&ran.out);
    expect![[r#"
        request                              as the test says
        acceptance                           as the test says
        done                                 as the test says
    "#]]
    .assert_eq(&ran.err);
}

#[tokio::test]
async fn a_move_that_is_not_made_is_exit_code_1() {
    let agent = Agent::start(vec![copying(), abandoned()]);
    let ran = agent.run(&["move", "web"]).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    expect![[r#"
        web was not moved from host1: cancelled by hand. See `evenkeel why 1a2b3c4d.1.3`.
    "#]]
    .assert_eq(&ran.out);
}

#[tokio::test]
async fn programs_get_the_ended_move_as_one_document() {
    let agent = Agent::start(vec![copying(), done()]);
    let ran = agent.run(&["move", "web", "-o", "json"]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(serde_json::from_str::<MoveView>(&ran.out).unwrap(), done());
}

#[tokio::test]
async fn who_does_not_wait_gets_the_move_id() {
    let agent = Agent::start(vec![]);
    let ran = agent.run(&["move", "web", "--no-wait"]).await;
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    expect![[r#"
        Move 1a2b3c4d.1.3 of web has begun. Follow it with `evenkeel events -f --move 1a2b3c4d.1.3`.
    "#]]
    .assert_eq(&ran.out);
    let ran = agent.run(&["move", "web", "--no-wait", "-o", "json"]).await;
    let started: MoveStarted = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((ran.code, started.move_id.as_str()), (Some(0), MOVE));
}

#[tokio::test]
async fn what_a_forced_move_overrides_is_named() {
    let agent = Agent::start(vec![]);
    let ran = agent.run(&["move", "web", "--to", "host2", "--force", "--no-wait"]).await;
    assert_eq!(agent.asked(), [r#"{"vm":"web","to":"host2","force":true}"#]);
    expect![[r#"
        Move 1a2b3c4d.1.3 of web has begun. Overridden: anti-affinity db: a VM of it is there. Follow it with `evenkeel events -f --move 1a2b3c4d.1.3`.
    "#]]
    .assert_eq(&ran.out);
    let rule = "anti-affinity db: a VM of it is there".to_owned();
    let ended = MoveView { overridden: vec![rule], ..done() };
    let ran = Agent::start(vec![ended]).run(&["move", "web", "--force"]).await;
    expect![[r#"
        web moved from host1 to host2: 131 MiB in 3 rounds, took 2.31 s, paused 158 ms. Overridden: anti-affinity db: a VM of it is there.
    "#]]
    .assert_eq(&ran.out);
}

#[tokio::test]
async fn a_cancelled_move_is_followed_to_its_end() {
    let agent = Agent::start(vec![copying(), abandoned()]);
    let ran = agent.run(&["move", "cancel", MOVE]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(agent.asked(), [format!("cancel {MOVE}")]);
    expect![[r#"
        web was not moved from host1: cancelled by hand. See `evenkeel why 1a2b3c4d.1.3`.
    "#]]
    .assert_eq(&ran.out);
}

#[tokio::test]
async fn a_cancel_that_comes_too_late_is_exit_code_1() {
    let ran = Agent::start(vec![copying(), done()]).run(&["move", "cancel", MOVE]).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.out.contains("web moved from host1 to host2"), "{ran:?}");
}

#[tokio::test]
async fn who_does_not_wait_for_a_cancel_is_told_how_to_look() {
    let ran = Agent::start(vec![]).run(&["move", "cancel", MOVE, "--no-wait"]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    expect![[r#"
        Move 1a2b3c4d.1.3 of web (copying) is being cancelled. See `evenkeel moves` for how it ends.
    "#]]
    .assert_eq(&ran.out);
}

#[tokio::test]
async fn a_vm_may_be_called_cancel() {
    let agent = Agent::start(vec![done()]);
    for arguments in [&["move", "--", "cancel"][..], &["move", "--to", "host2", "--", "cancel"]] {
        let ran = agent.run(arguments).await;
        assert_eq!(ran.code, Some(0), "{ran:?}");
    }
    assert_eq!(agent.asked(), [r#"{"vm":"cancel","to":null}"#, r#"{"vm":"cancel","to":"host2"}"#]);
}

#[tokio::test]
async fn what_is_known_of_a_stuck_move_is_printed_before_anything_is_decided() {
    let agent = Agent::start(vec![]);
    let ran = agent.run(&["move", "resolve", MOVE]).await;
    assert_eq!((ran.code, agent.asked().len()), (Some(0), 0), "{ran:?}");
    expect![[r#"
        Move 1a2b3c4d.1.3 of web is open. What is known:
          - this host is the source of the move of web
          - the other side, host2, does not answer any more; last heard 93 s ago
        What you may say:
          --keep-here --fenced host2: web is this host's; it does not run on host2 and will not
          --give-up: not now: the guest runs here: keep it, or end it by hand first
    "#]]
    .assert_eq(&ran.out);
}

#[tokio::test]
async fn a_decision_is_taken_with_what_is_known_on_standard_error() {
    let agent = Agent::start(vec![copying(), abandoned()]);
    let ran = agent.run(&["move", "resolve", MOVE, "--keep-here", "--fenced", "host2"]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.err.contains("host2, does not answer any more"), "{ran:?}");
    let decided = r#"{"decision":"keep-here","fenced":"host2"}"#;
    assert_eq!(agent.asked(), [format!("resolve {MOVE} {decided}")]);

    let agent = Agent::start(vec![]);
    let ran = agent.run(&["move", "resolve", MOVE, "--keep-here"]).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.err.contains("say so with --fenced host2"), "{ran:?}");
    let both = ["move", "resolve", MOVE, "--keep-here", "--give-up"];
    assert_eq!(agent.run(&both).await.code, Some(2));
}

#[tokio::test]
async fn a_refused_move_says_why_and_what_to_do() {
    let agent = Agent::start(vec![]);
    let ran = agent.run(&["move", "nobody"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""));
    expect![[r#"
        evenkeel: no VM nobody on host1 (no-such-vm)
          `evenkeel vms` lists them
    "#]]
    .assert_eq(&ran.err);
    assert_eq!(agent.run(&["move", "cancel", "9.9.9"]).await.code, Some(1));
}
