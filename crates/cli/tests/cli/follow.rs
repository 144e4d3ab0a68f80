//! `events -f`: told as they come, until nobody reads.

use std::process::ExitStatus;
use std::time::Duration;

use api::{Event, Step};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout};
use tokio::time::timeout;

use crate::agent::{Agent, event};

/// Told later than this is not told as it came: the agent would hold its answer for 10 s.
const SOON: Duration = Duration::from_secs(8);

fn follow(agent: &Agent, arguments: &[&str]) -> (Child, Lines<BufReader<ChildStdout>>) {
    let mut child = agent.command(arguments).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    (child, lines)
}

async fn line(lines: &mut Lines<BufReader<ChildStdout>>) -> String {
    timeout(SOON, lines.next_line()).await.expect("told as it comes").unwrap().unwrap()
}

async fn ended(mut child: Child) -> ExitStatus {
    timeout(SOON, child.wait()).await.expect("the program ends").unwrap()
}

#[tokio::test]
async fn events_are_told_as_they_come() {
    let agent = Agent::start(vec![]);
    let (_child, mut lines) = follow(&agent, &["events", "-f"]);
    assert!(line(&mut lines).await.starts_with("TIME (UTC)"));
    assert!(line(&mut lines).await.contains("  request  "));
    assert!(line(&mut lines).await.contains("  acceptance  "));
    agent.note(event(3, Step::Choice));
    assert!(line(&mut lines).await.contains("  choice  "), "and no second header");
    agent.note(event(4, Step::Copy));
    assert!(line(&mut lines).await.contains("  copy  "));
}

#[tokio::test]
async fn what_is_watched_is_looked_at_again_until_it_is_ended() {
    let agent = Agent::start(vec![]);
    let (_child, mut lines) = follow(&agent, &["hosts", "--watch=1"]);
    let head = line(&mut lines).await;
    assert!(head.starts_with("HOST "), "{head}");
    let mut looks = 1;
    while looks < 3 {
        // Parted by empty lines, since this is no terminal.
        if line(&mut lines).await.is_empty() {
            assert_eq!(line(&mut lines).await, head);
            looks += 1;
        }
    }
}

#[tokio::test]
async fn what_does_more_than_look_is_not_watched() {
    let agent = Agent::start(vec![]);
    for command in [&["move", "web", "--watch"][..], &["balancer", "off", "--watch=5"]] {
        let ran = agent.run(command).await;
        assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""), "{ran:?}");
        assert!(ran.err.contains("--watch is for commands that only look"), "{ran:?}");
    }
    assert!(agent.asked().is_empty());
}

#[tokio::test]
async fn followed_in_json_each_is_a_line() {
    let agent = Agent::start(vec![]);
    let (_child, mut lines) = follow(&agent, &["events", "-f", "--after", "1", "-o", "json"]);
    let told = |line: String| serde_json::from_str::<Event>(&line).unwrap();
    assert_eq!(told(line(&mut lines).await), event(2, Step::Acceptance));
    let other = Event { move_id: None, ..event(3, Step::Alarm) };
    agent.note(other.clone());
    assert_eq!(told(line(&mut lines).await), other);
}

#[tokio::test]
async fn one_move_can_be_followed_alone() {
    let agent = Agent::start(vec![]);
    let arguments = ["events", "-f", "--move", crate::agent::MOVE, "--after", "2", "-o", "json"];
    let (_child, mut lines) = follow(&agent, &arguments);
    agent.note(Event { move_id: None, ..event(3, Step::Alarm) });
    agent.note(event(4, Step::Done));
    assert_eq!(
        serde_json::from_str::<Event>(&line(&mut lines).await).unwrap(),
        event(4, Step::Done)
    );
}

#[tokio::test]
async fn it_ends_quietly_when_nobody_reads() {
    let agent = Agent::start(vec![]);
    let (child, mut lines) = follow(&agent, &["events", "-f"]);
    line(&mut lines).await;
    drop(lines);
    // Again and again: a program that another test is just starting may hold the reading end for a moment.
    let writing = async {
        for seq in 3.. {
            agent.note(event(seq, Step::Choice));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        output = timeout(SOON, child.wait_with_output()) => {
            let output = output.expect("the program ends").unwrap();
            assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
        }
        () = writing => unreachable!("writes for ever"),
    }
}

#[tokio::test]
async fn it_ends_with_3_when_the_agent_goes() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("api.sock");
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_evenkeel"));
    let child = command
        .arg("--socket")
        .arg(&socket)
        .args(["events", "-f"])
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    // The agent takes the request and dies.
    drop(timeout(SOON, listener.accept()).await.expect("the program asks").unwrap());
    assert_eq!(ended(child).await.code(), Some(3));
}
