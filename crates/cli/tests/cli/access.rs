//! Tokens, the audit log, and what another host's agent needs.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use api::{AuditCheck, AuditLine, TokenMade};
use expect_test::expect;

use crate::agent::{Agent, run};

#[tokio::test]
async fn a_token_is_shown_once_listed_and_revoked() {
    let agent = Agent::start(vec![]);
    let make = ["token", "create", "--role", "viewer", "--name", "graphs", "--days", "30"];
    let ran = agent.run(&make).await;
    assert_eq!((ran.code, &*ran.err), (Some(0), ""));
    expect![[r#"
        evk_1a2b3c4d_5ecret

        Token 1a2b3c4d of graphs, viewer until 2026-05-30T17:12:03Z. It is shown this once: keep it where only its user can read it.
    "#]].assert_eq(&ran.out);
    assert_eq!(agent.asked(), ["{\"name\":\"graphs\",\"role\":\"viewer\",\"days\":30}"]);
    let json = agent.run(&[&make[..], &["-o", "json"]].concat()).await.out;
    let made: TokenMade = serde_json::from_str(&json).unwrap();
    assert_eq!(made.token, "evk_1a2b3c4d_5ecret");
    expect![[r#"
        ID        NAME  ROLE      MADE (UTC)           UNTIL (UTC)          HOLDS
        1a2b3c4d  anna  operator  2026-03-01 17:12:03  2026-05-30 17:12:03  yes
        1a2b3c4d  anna  operator  2026-03-01 17:12:03  2026-05-30 17:12:03  expired
    "#]]
    .assert_eq(&agent.run(&["token", "list"]).await.out);
    expect![[r#"
        Token 1a2b3c4d of anna is revoked: nothing is let through by it any more.
    "#]]
    .assert_eq(&agent.run(&["token", "revoke", "1a2b3c4d"]).await.out);
    let ran = agent.run(&["token", "revoke", "none"]).await;
    assert_eq!((ran.code, &*ran.out), (Some(1), ""));
    for wrong in [
        &["token"][..],
        &["token", "create", "--role", "viewer"],
        &["token", "create", "--role", "root", "--name", "a"],
        &["token", "create", "--role", "viewer", "--name", "a", "--days", "0"],
        &["token", "create", "--role", "viewer", "--name", "a", "--days", "367"],
    ] {
        assert_eq!(agent.run(wrong).await.code, Some(2), "{wrong:?}");
    }
}

#[tokio::test]
async fn the_audit_log_is_shown_and_whether_it_fits_is_an_exit_code() {
    let agent = Agent::start(vec![]);
    let ran = agent.run(&["audit"]).await;
    assert_eq!((ran.code, &*ran.err), (Some(0), ""));
    expect![[r#"
        SEQ  TIME (UTC)           WHO                    FROM                  STATUS  REQUEST            WHAT
          7  2026-03-01 17:12:03  anna (token 1a2b3c4d)  tcp 198.18.0.7:40000     403  POST /v1/balancer  refused: role-too-low
    "#]].assert_eq(&ran.out);
    for json in [&["audit", "--json"][..], &["audit", "-o", "json"]] {
        let out = agent.run(json).await.out;
        assert_eq!(serde_json::from_str::<AuditLine>(&out).unwrap().seq, 7);
    }
    let ran = agent.run(&["audit", "--verify"]).await;
    assert_eq!(ran.code, Some(0));
    expect![[r#"
        All 4 lines of the audit log fit together, number 4 to 7. What was before was rotated away.
        Newest hash, to be kept elsewhere: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
    "#]].assert_eq(&ran.out);
    let json = agent.run(&["audit", "--verify", "--json"]).await.out;
    assert_eq!(serde_json::from_str::<AuditCheck>(&json).unwrap().lines, 4);
    let ran = agent.run(&["audit", "--kept", "there"]).await;
    assert!(
        ran.code == Some(0) && ran.out.contains("The hash that was kept is among them."),
        "{ran:?}"
    );
    let ran = agent.run(&["audit", "--kept", "gone"]).await;
    assert!(
        ran.code == Some(1) && ran.out.contains("no line of the audit log has the hash"),
        "{ran:?}"
    );
    let ran = agent.run(&["audit", "--since", "1min", "--verify"]).await;
    let broken = "the audit log does not fit together: audit.log, line 3: it was changed";
    assert!(ran.code == Some(1) && ran.out.contains(broken), "{ran:?}");
    let ran = agent.run(&["audit", "--since", "1min"]).await;
    assert!(ran.code == Some(0) && ran.err.contains(broken), "{ran:?}");
}

#[tokio::test]
async fn what_another_hosts_agent_needs_is_told_before_anything_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (token, ca) = (at("token"), at("ca.crt"));
    fs::write(&ca, "none").unwrap();
    fs::write(&token, "evk_1_2").unwrap();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o640)).unwrap();
    let host = ["--host", "https://127.0.0.1:9", "status"];
    let with = |more: &[&str]| -> Vec<String> {
        host.iter().chain(more).map(|word| (*word).to_owned()).collect()
    };
    for (arguments, told) in [
        (with(&[]), "--host needs --ca FILE (or EVENKEEL_CA)"),
        (with(&["--ca", &at("gone")]), "gone: No such file"),
        (with(&["--ca", &ca]), "--host needs a token: set EVENKEEL_TOKEN"),
        (
            with(&["--ca", &ca, "--token-file", &token]),
            "token can be read by others (mode 640): run chmod 600",
        ),
        (
            vec!["--token-file".to_owned(), token.clone(), "status".to_owned()],
            "--token-file is for --host",
        ),
    ] {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let ran = run(folder.path(), &arguments).await;
        assert_eq!((ran.code, &*ran.out), (Some(1), ""), "{arguments:?}");
        assert!(ran.err.contains(told), "{told} wanted: {}", ran.err);
    }
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    let arguments = with(&["--ca", &ca, "--token-file", &token]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let ran = run(folder.path(), &arguments).await;
    assert!(ran.err.contains("the file of the CA has no certificate in PEM"), "{}", ran.err);
}
