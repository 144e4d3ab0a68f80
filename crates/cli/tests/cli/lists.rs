//! What can be looked at, in each form.

use api::{Event, MoveView, Plan, Status, Step, VmView};
use expect_test::{Expect, expect};

use crate::agent::{Agent, abandoned, copying, done, event, status, vm};

async fn check(arguments: &[&str], expected: Expect) {
    let ran = Agent::start(vec![]).run(arguments).await;
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{arguments:?}: {ran:?}");
    expected.assert_eq(&ran.out);
}

#[tokio::test]
async fn a_plan_has_a_table_and_json() {
    check(&["plan"], expect![[r#"
        N  VM   FROM   TO      RELIEF    COST  COPY COST   MEMORY           COPY  DOWNTIME  WHY
        1  web  host1  host3  31.50 %  4.25 %     0.03 %  2.0 GiB        17.17 s     80 ms  above the mean (cpu used 75 %, 50 % in the mean of the cluster, 10 % above it allowed); most gain for what is copied, 12.00 % at best
        2  db   host1  ?                          0.03 %  2.0 GiB  would not end         ?  anti-affinity db: db2 of it is here too

        Nothing of it is done without a person: balance is "recommend". `evenkeel apply` carries it out. No more follow: nothing asks for more, as far as it can be foretold.
    "#]]).await;
    check(&["plan", "-o", "wide"], expect![[r#"
        N  VM   FROM   TO      RELIEF    COST  COPY COST   MEMORY           COPY  DOWNTIME  ASKED                                             RECOMMENDED (UTC)    VM ID                                 WHY
        1  web  host1  host3  31.50 %  4.25 %     0.03 %  2.0 GiB        17.17 s     80 ms  2, the best by what they said last: host3, host2  2026-03-01 17:12:03  00000000-0000-0000-0000-0000000000aa  above the mean (cpu used 75 %, 50 % in the mean of the cluster, 10 % above it allowed); most gain for what is copied, 12.00 % at best
        2  db   host1  ?                          0.03 %  2.0 GiB  would not end         ?  8 of 40, by lot                                                        00000000-0000-0000-0000-0000000000bb  anti-affinity db: db2 of it is here too

        Nothing of it is done without a person: balance is "recommend". `evenkeel apply` carries it out. No more follow: nothing asks for more, as far as it can be foretold.
    "#]]).await;
    let json = Agent::start(vec![]).run(&["plan", "-o", "json"]).await.out;
    let plan: Plan = serde_json::from_str(&json).unwrap();
    assert_eq!((plan.moves.len(), plan.moves[1].copy_ms), (2, None));
}

#[tokio::test]
async fn what_is_applied_without_waiting_is_told_of_each_vm_and_a_refusal_is_an_exit_code() {
    let agent = Agent::start(vec![]);
    let ran = agent.run(&["apply", "web", "--no-wait"]).await;
    let began = "Move 1a2b3c4d.1.3 of web has begun. Follow it with `evenkeel events -f --move 1a2b3c4d.1.3`.\n";
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), began));
    let ran = agent.run(&["apply", "web", "nobody", "--no-wait"]).await;
    let refused = "nobody is not moved: no VM or move \"nobody\" on this host\n";
    assert_eq!((ran.code, ran.out), (Some(1), format!("{began}{refused}")));
}

#[tokio::test]
async fn what_is_applied_is_carried_out_one_after_another_and_what_does_not_hold_is_skipped() {
    let moved = "web moved from host1 to host2: 131 MiB in 3 rounds, took 2.31 s, paused 158 ms.\n";
    let (web, db) =
        ("00000000-0000-0000-0000-0000000000aa", "00000000-0000-0000-0000-0000000000bb");
    let agent = Agent::start(vec![copying(), done()]);
    let ran = agent.run(&["apply", "2", "nobody", "2"]).await;
    assert_eq!(agent.asked(), [db, "nobody"]);
    let skipped = "nobody was skipped: no VM or move \"nobody\" on this host.\n";
    assert_eq!((ran.code, ran.out), (Some(1), format!("{moved}{skipped}")));
    let agent = Agent::start(vec![copying(), done()]);
    let ran = agent.run(&["apply"]).await;
    assert_eq!(agent.asked(), [web, db], "all that is planned");
    assert_eq!((ran.code, ran.out), (Some(0), format!("{moved}{moved}")));
    // Others of its group follow: the next begins once they have.
    let agreed = MoveView { others_to_come: true, ..done() };
    let agent = Agent::start(vec![copying(), agreed.clone(), agreed, done()]);
    let ran = agent.run(&["apply"]).await;
    assert_eq!((ran.code, ran.out), (Some(0), format!("{moved}{moved}")));
    assert!(ran.err.contains("what was agreed with it is under way"), "{}", ran.err);
    let ran = Agent::start(vec![abandoned()]).run(&["apply", "1"]).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
}

#[tokio::test]
async fn a_number_that_the_plan_does_not_have_begins_nothing() {
    let agent = Agent::start(vec![done()]);
    let ran = agent.run(&["apply", "1", "3"]).await;
    let why = "evenkeel: the plan that was shown last has no number 3, but numbers 1 to 2; nothing was begun: look at `evenkeel plan` anew\n";
    assert_eq!((ran.code, &*ran.out, &*ran.err), (Some(1), "", why));
    assert_eq!(agent.asked(), [""; 0]);
}

#[tokio::test]
async fn the_balancer_is_shown_and_switched() {
    let on = "The balancer of host1 is on; balance is \"automatic\".\n";
    let off = "The balancer of host1 is off: it begins no balancing move.\n";
    for (arguments, told) in
        [(&["balancer"][..], on), (&["balancer", "on"], on), (&["balancer", "off"], off)]
    {
        let ran = Agent::start(vec![]).run(arguments).await;
        assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (Some(0), told, ""));
    }
    let json = Agent::start(vec![]).run(&["balancer", "off", "-o", "json"]).await.out;
    assert!(json.contains("\"on\": false"), "{json}");
    let wrong = Agent::start(vec![]).run(&["balancer", "of"]).await;
    assert_eq!(wrong.code, Some(2));
}

#[tokio::test]
async fn a_vm_is_excluded_for_a_time_or_for_good_and_included_again() {
    let told = "balancing and rules leave it where it is; a person can move it.";
    for (arguments, sentence) in [
        (&["exclude", "web", "--for", "2h"][..], format!("web is excluded on host1 until in 7200 s: {told}")),
        (&["exclude", "web"], format!("web is excluded on host1 for good: {told}")),
        (&["include", "web"], "web is not excluded on host1.".to_owned()),
        (&["include", "db"], "db is not excluded by hand on host1, but by its [rules]: exclude: it is left where it is.".to_owned()),
    ] {
        let ran = Agent::start(vec![]).run(arguments).await;
        assert_eq!((ran.code, ran.out, ran.err), (Some(0), sentence + "\n", String::new()));
    }
    check(
        &["exclude"],
        expect![[r#"
        VM   UNTIL                 WHERE
        web  for good              here
        db   2026-03-01T17:12:03Z  left this host
    "#]],
    )
    .await;
    let json = Agent::start(vec![]).run(&["exclude", "web", "-o", "json"]).await.out;
    assert!(json.contains("\"excluded\": true") && json.contains("\"until\": null"), "{json}");
    for wrong in
        [&["exclude", "--for", "2h"][..], &["exclude", "web", "--for", "long"], &["include"]]
    {
        assert_eq!(Agent::start(vec![]).run(wrong).await.code, Some(2), "{wrong:?}");
    }
}

#[tokio::test]
async fn the_best_host_comes_first_and_what_is_against_the_others_is_told() {
    let agent = Agent::start(vec![]);
    let ran = agent
        .run(&["best-host", "--memory", "4GiB", "--cpu", "0.5", "--tag", "a", "--tag", "b"])
        .await;
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    expect![[r#"
        HOST     COST  AGE  AGAINST IT
        host3  1.25 %  4 s
        host1  3.50 %
        host2          1 s  anti-affinity db: db1 of it is there

        host3 would take it at the least cost, by what is known here. It is no reservation.
    "#]]
    .assert_eq(&ran.out);
    assert_eq!(
        agent.asked(),
        [r#"{"name":"","tags":["a","b"],"memory_mib":4096,"cpu_millicores":500}"#]
    );
    let ran = agent.run(&["best-host", "--memory", "512GiB"]).await;
    assert_eq!(ran.code, Some(1));
    assert!(ran.out.contains("No host would take it, by what is known here."), "{ran:?}");
    for wrong in [
        &["best-host", "--memory", "4"][..],
        &["best-host", "--cpu", "1.2345"],
        &["best-host", "--cpu", "-1"],
        &["best-host", "--memory", "0GiB"],
    ] {
        assert_eq!(agent.run(wrong).await.code, Some(2), "{wrong:?}");
    }
}

#[tokio::test]
async fn every_list_has_a_table() {
    check(
        &["status"],
        expect![[r#"
        host        host1
        cluster     prod
        hosts       3 of 3 alive
        VMs here    1
        balance     recommend
        request by  multicast
        hot         no
        moves       0 under way
        doing       nothing: no host is hot
    "#]],
    )
    .await;
    check(
        &["hosts"],
        expect![[r#"
        HOST          STATE     CPU  MEMORY  PACKETS/s      TRAFFIC  VMS  HOT
        host1 (here)  alive  12.5 %  41.0 %      52.0k  94.1 Mbit/s    1  no
    "#]],
    )
    .await;
    check(
        &["vms"],
        expect![[r#"
        VM   STATE    CPU (1 core)   MEMORY  SENT PKT/s  RCVD PKT/s      TRAFFIC  TROUBLE
        web  running         4.5 %  128 MiB          10          20  30.0 kbit/s
    "#]],
    )
    .await;
    check(
        &["traffic"],
        expect![[r#"
        FROM  TO       PACKETS/s     TRAFFIC
        web   outside       1.2k  9.6 Mbit/s
    "#]],
    )
    .await;
    check(&["moves"], expect![[r#"
        MOVE          BEGAN (UTC)          VM   FROM   TO     PHASE   COPIED    TOOK  DOWNTIME  OUTCOME
        1a2b3c4d.1.3  2026-03-01 17:12:00  web  host1  host2  done   131 MiB  2.31 s    158 ms  relief 31 %
    "#]]).await;
    check(&["events"], expect![[r#"
        TIME (UTC)           STEP           VM          PEER            COST  MOVE           WHY
        2026-03-01 17:12:03  request        web                               1a2b3c4d.1.3   as the test says
        2026-03-01 17:12:03  acceptance     web                               1a2b3c4d.1.3   as the test says
    "#]]).await;
    check(
        &["why"],
        expect![[r#"
        host1: no host is hot
    "#]],
    )
    .await;
    check(
        &["why", "a name/with ?odd& characters"],
        expect![[r#"
        a name/with ?odd& characters: no host is hot
    "#]],
    )
    .await;
    check(
        &["why", "web", "a host/with ?odd& characters"],
        expect![[r#"
        web to a host/with ?odd& characters: no host is hot
    "#]],
    )
    .await;
}

#[tokio::test]
async fn all_of_one_vm() {
    check(
        &["vms", "web"],
        expect![[r#"
        VM           web
        id           00000000-0000-0000-0000-0000000000aa
        host         host1
        state        running
        epoch        1
        CPU          4.5 % of a core
        its vCPUs    4.0 % of a core
        they waited  0.0 % of a core
        memory       128 MiB
        guest uses   71.0 MiB
        dirties      48.0 MiB/s
        sent         10 packets/s
        received     20 packets/s
        traffic      30.0 kbit/s
        disk         1.1 MiB/s
        history      45 s
    "#]],
    )
    .await;
}

#[tokio::test]
async fn the_vms_of_all_hosts_have_a_table_with_the_age_of_each_list() {
    check(
        &["vms", "--all"],
        expect![[r#"
        VM    HOST          STATE     MEMORY  EPOCH   AGE
        mail  host3 (gone)  paused   128 MiB      4  61 s
        web   host1         running  128 MiB      1   0 s
    "#]],
    )
    .await;
}

#[tokio::test]
async fn json_is_one_document() {
    let agent = Agent::start(vec![]);
    let ran = agent.run(&["status", "-o", "json"]).await;
    assert_eq!(serde_json::from_str::<Status>(&ran.out).unwrap(), status());
    let ran = agent.run(&["-o", "json", "vms"]).await;
    assert_eq!(serde_json::from_str::<Vec<VmView>>(&ran.out).unwrap(), vec![vm()]);
}

#[tokio::test]
async fn events_in_json_are_one_object_per_line() {
    let ran = Agent::start(vec![]).run(&["events", "-o", "json"]).await;
    let lines: Vec<Event> =
        ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines, [event(1, Step::Request), event(2, Step::Acceptance)]);
}

#[tokio::test]
async fn yaml_is_one_document() {
    check(
        &["vms", "-o", "yaml"],
        expect![[r#"
            - name: web
              id: 00000000-0000-0000-0000-0000000000aa
              host: host1
              state: running
              epoch: 1
              memory_mib: 128
              cpu_percent: 4.5
              vcpu_percent: 4.0
              cpu_wait_percent: 0.0
              guest_memory_mib: 71
              dirty_mib_per_second: 48
              disk_bytes_per_second: 1250000
              disk_requests_per_second: 310
              share: null
              sent_packets_per_second: 10
              received_packets_per_second: 20
              bits_per_second: 30000
              history_seconds: 45
              next_hour: null
              excluded: null
              rules: []
              trouble: null
        "#]],
    )
    .await;
    check(
        &["events", "--after", "1", "-o", "yaml"],
        expect![[r#"
        - seq: 2
          time: "2026-03-01T17:12:03.250Z"
          host: host1
          move_id: 1a2b3c4d.1.3
          vm: web
          step: acceptance
          reason: as the test says
          peer: null
          cost_percent: null
    "#]],
    )
    .await;
}

#[tokio::test]
async fn the_environment_names_the_socket_and_the_option_wins() {
    let agent = Agent::start(vec![]);
    let with_environment = |socket: &std::path::Path, option: Option<&std::path::Path>| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_evenkeel"));
        command.env("EVENKEEL_SOCKET", socket).arg("hosts");
        if let Some(path) = option {
            command.arg("--socket").arg(path);
        }
        command
    };
    let nowhere = std::path::Path::new("/nowhere/api.sock");
    assert_eq!(crate::agent::ran(with_environment(&agent.socket, None)).await.code, Some(0));
    assert_eq!(crate::agent::ran(with_environment(nowhere, None)).await.code, Some(3));
    assert_eq!(
        crate::agent::ran(with_environment(nowhere, Some(&agent.socket))).await.code,
        Some(0)
    );
}

#[tokio::test]
async fn every_command_explains_itself_with_an_example() {
    let agent = Agent::start(vec![]);
    for command in ["status", "hosts", "vms", "moves", "events", "why", "move"] {
        let ran = agent.run(&[command, "--help"]).await;
        assert_eq!(ran.code, Some(0), "{command}: {ran:?}");
        assert!(
            ran.out.contains("Example") && ran.out.contains(&format!("  evenkeel {command}")),
            "{}",
            ran.out
        );
    }
    let ran = agent.run(&["move", "cancel", "--help"]).await;
    assert!(ran.out.contains("  evenkeel move cancel 1a2b3c4d.1.3"), "{}", ran.out);
    let ran = agent.run(&["--help"]).await;
    assert!(ran.out.contains("Exit codes:\n  0  done"), "{}", ran.out);
}
