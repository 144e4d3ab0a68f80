//! A real agent that posts an alarm of its own, and is told by SIGHUP whom to post to; what docs/ shows takes it for genuine.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use api::{Delivery, EventFilter, Step};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;

use alone::Agent;

mod alone;

const PATIENCE: Duration = Duration::from_secs(30);
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const PAGE: &str = include_str!("../../../docs/operations.md");

/// Whether a receiver that goes by docs/operations.md takes it for genuine, so many seconds later.
fn genuine(secret: &str, head: &str, body: &str, later: u32) -> bool {
    let shown = PAGE.split("```python\n").skip(1).map(|rest| rest.split("```").next());
    let shown: Vec<&str> = shown.map(|block| block.expect("it ends")).collect();
    assert_eq!(shown.len(), 1, "the page shows one program");
    let headers: BTreeMap<&str, &str> =
        head.lines().filter_map(|line| line.split_once(": ")).collect();
    let asks = "import json, sys\n\
                secret, headers, body, later = sys.argv[1:]\n\
                arrives = time.time() + int(later)\n\
                time.time = lambda: arrives\n\
                print(genuine(secret, json.loads(headers), body.encode()))";
    let headers = serde_json::to_string(&headers).expect("JSON");
    let program = format!("{}\n{asks}", shown[0]);
    let later = later.to_string();
    let asked = ["-c", &program, secret, &headers, body, &later];
    let output = Command::new("python3")
        .args(asked)
        .output()
        .expect("python3 (`cargo xtask setup` installs it)");
    match String::from_utf8_lossy(&output.stdout).trim() {
        "True" => true,
        "False" => false,
        _ => panic!("{program}: {output:?}"),
    }
}

/// The next request's head and body, and what that says; it is answered with this status.
async fn got(listener: &TcpListener, status: &str) -> (String, String, Delivery) {
    let posted = async {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let (mut text, answer) =
            (Vec::new(), format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n"));
        // The body is one JSON document, the last of a request.
        loop {
            assert!(stream.read_buf(&mut text).await.expect("read") > 0, "{text:?}");
            let whole = String::from_utf8_lossy(&text).into_owned();
            let Some((head, body)) = whole.split_once("\r\n\r\n") else { continue };
            let Ok(delivery) = serde_json::from_str(body) else { continue };
            stream.write_all(answer.as_bytes()).await.expect("answered");
            return (head.to_owned(), body.to_owned(), delivery);
        }
    };
    timeout(PATIENCE, posted).await.expect("it posts")
}

fn secret(agent: &Agent, mode: u32) -> String {
    let file = agent.folder.path().join("hook.key");
    fs::write(&file, format!("{SECRET}\n")).expect("written");
    fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("set");
    file.display().to_string()
}

/// Tells it to read its configuration anew; gives what it says.
async fn reload(agent: &Agent, step: Step) -> String {
    let newest = agent.api().events(&EventFilter::default()).await.expect("it answers");
    let after = Some(newest.last().map_or(0, |event| event.seq));
    let mut follow = agent.api().follow(EventFilter { after, ..EventFilter::default() });
    kill_process(Pid::from_child(agent.child()), Signal::HUP).expect("it runs");
    let told = async {
        loop {
            let news = follow.next().await.expect("it answers");
            if let Some(event) = news.into_iter().find(|event| event.step == step) {
                return event.reason;
            }
        }
    };
    timeout(PATIENCE, told).await.expect("it tells")
}

#[tokio::test]
async fn an_alarm_is_posted_over_a_restart_and_a_hook_comes_and_goes_by_sighup() {
    let receiver = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = receiver.local_addr().expect("an address");
    let mut agent = Agent::new("127.78.0.20");
    agent.start();
    agent.has_told(0).await;

    // A secret that others can read is not gone by.
    let hook = |file: &str| {
        format!("[[webhook]]\nurl = \"http://{address}/s3cret\"\nsecret_file = \"{file}\"\n")
    };
    agent.configure(&hook(&secret(&agent, 0o644)));
    let told = reload(&agent, Step::BadInput).await;
    for words in [
        "evenkeel.toml, key webhook.secret_file (of http://127.0.0.1:",
        "hook.key can be read or written by others (mode 644)",
    ] {
        assert!(told.contains(words) && !told.contains("s3cret"), "{told}");
    }
    secret(&agent, 0o600);
    assert_eq!(reload(&agent, Step::Settings).await, "in force from now on: [[webhook]]");
    assert_eq!(reload(&agent, Step::Settings).await, "read anew, and as before");

    // A journal that is not the one that was here is an alarm, noted while the agent starts.
    agent.kill();
    fs::remove_file(agent.folder.path().join("state/journal.redb")).expect("there was one");
    agent.start();
    let (head, body, delivery) = got(&receiver, "500 no").await;
    assert!(head.starts_with("POST /s3cret HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("\r\nwebhook-signature: v1,"), "{head}");
    assert_eq!((&*delivery.kind, &*delivery.cluster), ("alarm.raised", "c"));
    assert!(genuine(SECRET, &head, &body, 0));
    let forged = body.replace("alarm.raised", "alarm.undone");
    assert!(forged.len() == body.len() && !genuine(SECRET, &head, &forged, 0));
    assert!(!genuine(&SECRET.replace('K', "k"), &head, &body, 0), "of another secret");
    assert!(genuine(SECRET, &head, &body, 290));
    assert!(!genuine(SECRET, &head, &body, 301), "captured, and sent again later");
    // However early in its life: it ends in its order.
    agent.stop();
    agent.start();
    let (_, _, again) = got(&receiver, "204 taken").await;
    assert_eq!(again, delivery);
    agent.has_told(1).await;
    assert!(agent.api().status().await.expect("it answers").webhooks_failing.is_empty());

    agent.configure("[traces]\nurl = \"http://127.0.0.1:9/v1/traces\"\n");
    assert_eq!(reload(&agent, Step::Settings).await, "in force from now on: [[webhook]], [traces]");
    agent.configure("");
    assert_eq!(reload(&agent, Step::Settings).await, "in force from now on: [traces]");
    let log = fs::read_to_string(agent.folder.path().join("log")).expect("a log");
    assert!(!log.contains("s3cret") && !log.contains("MfKQ"), "{log}");
}
