//! A real agent with keys that serves its API over TCP too: tokens and the audit log outlive it.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;

use api::client::{Client, ClientError, Remote};
use api::{AuditFilter, BalancerRequest, Role, TokenRequest};
use trust::keys::Keys;

use alone::Agent;

mod alone;

const ADDRESS: &str = "127.78.0.7";
const LISTEN: &str = "127.78.0.7:7791";

/// Makes keys for the agent by hand, as an operator does.
fn make_keys(agent: &Agent) {
    let at = |name: &str| agent.folder.path().join(name).display().to_string();
    let config = agent.config().display().to_string();
    let gives = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_evenkeeld")).args(arguments).output();
        let output = output.expect("it runs");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        output.stdout
    };
    let (ca, request, grant) = (at("ca"), at("request"), at("grant"));
    gives(&["ca", "init", "--cluster", "c", "--folder", &ca]);
    fs::write(&request, gives(&["keys", "request", "--config", &config])).expect("written");
    gives(&["ca", "sign", &request, "--out", &grant, "--folder", &ca]);
    gives(&["keys", "install", &grant, "--config", &config]);
}

/// What Prometheus gets.
fn metrics(agent: &Agent) -> String {
    let mut stream = UnixStream::connect(agent.folder.path().join("api")).expect("it listens");
    let asked = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    stream.write_all(asked).expect("asked");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("answered");
    text
}

#[tokio::test]
async fn metrics_tell_when_the_certificates_end() {
    let mut agent = Agent::new("127.78.0.8");
    make_keys(&agent);
    agent.start_with(&[]);
    agent.has_told(0).await;
    let held = Keys::load(&agent.folder.path().join("state/keys")).expect("there").held();
    let text = metrics(&agent);
    for (whose, ends) in [("host", held.identity.ends), ("ca", held.ca_ends)] {
        let name = "evenkeel_certificate_expiry_timestamp_seconds";
        let line = format!("\n{name}{{certificate=\"{whose}\"}} {}\n", ends.0);
        assert!(text.contains(&line), "{line} is not in {text}");
    }
}

#[tokio::test]
async fn tokens_and_the_audit_log_outlive_an_agent_that_is_killed() {
    let mut agent = Agent::new(ADDRESS);
    agent.configure(&format!("[api]\nlisten = \"{LISTEN}\"\n"));
    make_keys(&agent);
    agent.start_with(&[]);
    agent.has_told(0).await;
    let wish = TokenRequest { name: "anna".to_owned(), role: Role::Admin, days: 1 };
    let token = agent.api().make_token(&wish).await.expect("made").token;
    let ca = fs::read(agent.folder.path().join("state/keys/ca.crt")).expect("read");
    let remote = |token: &str| {
        let remote = Remote::new(&format!("https://{LISTEN}"), &ca, token);
        Client::remote(remote.expect("usable"))
    };
    let there = remote(&token);
    // What it is doing, and what it measures, may be another thing a moment later.
    let there_is = there.status().await.expect("answered");
    let here_is = agent.api().status().await.expect("it answers");
    assert_eq!((there_is.host_id, there_is.cluster), (here_is.host_id, here_is.cluster));
    there.switch_balancer(BalancerRequest { on: false }).await.expect("switched");
    let wrong = remote("evk_1_2").status().await;
    assert!(matches!(&wrong, Err(ClientError::Refused(why)) if why.status == 401), "{wrong:?}");
    let newest = there.audit(&AuditFilter::default()).await.expect("told").newest_hash;

    agent.kill();
    let log = agent.folder.path().join("state/audit.log");
    let mut torn = fs::read(&log).expect("read");
    torn.extend_from_slice(b"{\"seq\":3,");
    fs::write(&log, torn).expect("written");
    agent.start_with(&[]);
    agent.has_told(0).await;
    assert!(!there.balancer().await.expect("the token holds").on);
    there.switch_balancer(BalancerRequest { on: true }).await.expect("switched");
    let filter = AuditFilter { kept: Some(newest), ..AuditFilter::default() };
    let view = there.audit(&filter).await.expect("told");
    let told: Vec<_> = view.lines.iter().map(|line| (line.who.to_string(), line.status)).collect();
    let anna = view.lines[1].who.to_string();
    assert!(anna.starts_with("anna (token "), "{anna}");
    assert_eq!(told[1..], [(anna.clone(), 200), ("evenkeeld".to_owned(), 0), (anna, 200)]);
    assert!(view.lines[2].what.starts_with("9 bytes of a line"), "{view:?}");
    assert_eq!((&view.check.broken, view.check.kept_found), (&None, Some(true)));
    let said = fs::read_to_string(agent.folder.path().join("log")).expect("a log");
    assert!(!said.contains(&token[13..]) && said.contains("were taken away"), "{said}");
}
