//! What stands on the screen, and what keys do to it.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use expect_test::expect;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use serde_json::{Value, json};

use super::view::Order;
use super::*;

fn of<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("a view")
}

fn host(name: &str, state: &str, cpu: f64, hot: bool) -> Value {
    json!({
        "name": name, "id": name, "address": "198.18.0.1:7946", "state": state, "local": name == "host1",
        "age_seconds": if state == "gone" { None } else { Some(0.5) }, "cpu_percent": cpu, "memory_percent": 42.0,
        "packets_per_second": 12000, "bits_per_second": 96_000_000, "vms": 2, "hot": hot, "room_mib": 1,
        "able": [],
    })
}

fn place(name: &str, host: &str, state: &str, memory: u64) -> Value {
    json!({
        "name": name, "id": name, "host": host, "host_state": "alive", "age_seconds": 0.1, "state": state,
        "epoch": 1, "memory_mib": memory,
    })
}

fn vm(name: &str, cpu: f64, packets: u64) -> Value {
    json!({
        "name": name, "id": name, "host": "host1", "state": "running", "epoch": 1, "memory_mib": 2048,
        "cpu_percent": cpu, "vcpu_percent": null, "cpu_wait_percent": null, "guest_memory_mib": null,
        "dirty_mib_per_second": null, "disk_bytes_per_second": null, "disk_requests_per_second": null,
        "share": null, "sent_packets_per_second": packets, "received_packets_per_second": 0,
        "bits_per_second": 8000, "history_seconds": 60, "next_hour": null, "excluded": null, "rules": [],
        "trouble": null,
    })
}

fn seen() -> Seen {
    let status = of(json!({
        "version": "0.1.0", "cluster": "prod", "host": "host1", "host_id": "1", "balance": "recommend",
        "balancer_on": true, "request": "multicast", "hosts_alive": 2, "hosts_known": 3, "vms": 2,
        "moves_under_way": 1, "hot": "cpu_used", "disk_bytes_per_second": null, "uplink": null,
        "doing": "hot (cpu_used 93 % over 80 %); moving web1", "config": null, "alarms": [],
    }));
    let one_move = json!({
        "id": "1", "vm": "web1", "vm_id": "web1", "from": "host1", "to": "host2", "phase": "copying",
        "reason": "cpu_used 93 % over 80 %", "began": "", "ended": false, "outcome": null, "acceptances": 2,
        "refusals": 0, "copied_bytes": 700, "total_bytes": 1000, "rounds": 2, "total_ms": null,
        "downtime_ms": null, "promised_percent": null, "measured_percent": null, "paid": null,
    });
    Seen {
        status,
        hosts: of(json!([
            host("host1", "alive", 93.0, true),
            host("host2", "alive", 20.0, false),
            host("host3", "gone", 0.0, false)
        ])),
        places: of(json!([
            place("db1", "host1", "running", 8192),
            place("web1", "host1", "running", 2048),
            place("mail", "host2", "paused", 4096)
        ])),
        vms: of(json!([vm("db1", 20.0, 900), vm("web1", 150.0, 10)])),
        moves: of(json!([one_move])),
        trouble: None,
    }
}

fn screen(view: &View, seen: &Seen) -> String {
    let mut terminal = Terminal::new(TestBackend::new(100, 20)).expect("a terminal");
    terminal.draw(|frame| draw::draw(frame, view, seen)).expect("drawn");
    let text = terminal.backend().to_string();
    let lines = text.lines().map(|line| line.trim_matches('"').trim_end());
    lines.collect::<Vec<_>>().join("\n")
}

fn press(view: &mut View, seen: &Seen, codes: &[KeyCode]) -> Next {
    let keys = codes.iter().map(|code| KeyEvent::new(*code, KeyModifiers::NONE));
    keys.map(|key| view.key(key, seen)).last().expect("a key")
}

#[test]
fn one_look_tells_who_is_hot_what_moves_and_who_is_gone() {
    expect![[r#"
        prod at host1   2 of 3 hosts alive   moves under way 1   balance recommend
        hot (cpu_used 93 % over 80 %); moving web1

        HOST               STATE    CPU                MEMORY             PACKETS/S   NETWORK     VMS
        host1*             alive    █████████░ 93.0 %  ████░░░░░░ 42.0 %  12.0k       96.0 Mbit/s 2     HOT
        host2              alive    ██░░░░░░░░ 20.0 %  ████░░░░░░ 42.0 %  12.0k       96.0 Mbit/s 2
        host3              gone     -                  -                  -           -           2

        MOVE                 FROM AND TO          PHASE         COPY                     WHY
        web1                 host1 → host2        copying       ███████░░░ 70.0 %        cpu_used 93 % over

        VM                    HOST                 STATE      CPU        MEMORY     PACKETS/S   NETWORK
        web1                  host1                running    150.0 %    2.0 GiB    10          8.0 kbit/s
        db1                   host1                running    20.0 %     8.0 GiB    900         8.0 kbit/s
        mail                  host2                paused     -          4.0 GiB    -           -




        q end   s sort (by CPU)   / filter   h this host   ↑↓ scroll"#]].assert_eq(&screen(&View::new(false), &seen()));
}

#[test]
fn keys_sort_filter_and_end() {
    let (seen, mut view) = (seen(), View::new(true));
    let names =
        |view: &View| view.vms(&seen).iter().map(|vm| vm.place.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&view), ["web1", "db1", "mail"]);
    press(&mut view, &seen, &[KeyCode::Char('s')]);
    assert_eq!(
        (view.order, names(&view)),
        (Order::Packets, vec!["db1".into(), "web1".into(), "mail".into()])
    );
    press(&mut view, &seen, &[KeyCode::Char('s')]);
    assert_eq!(names(&view), ["db1", "mail", "web1"]);
    press(&mut view, &seen, &[KeyCode::Char('h')]);
    assert_eq!(names(&view), ["db1", "web1"]);
    // While a filter is typed, keys are letters.
    let typed = ['/', 'q', 'W'].map(KeyCode::Char);
    assert_eq!(press(&mut view, &seen, &typed), Next::Go);
    press(
        &mut view,
        &seen,
        &[KeyCode::Backspace, KeyCode::Backspace, KeyCode::Char('W'), KeyCode::Enter],
    );
    assert_eq!(names(&view), ["web1"]);
    press(&mut view, &seen, &[KeyCode::Char('/'), KeyCode::Esc]);
    assert_eq!(names(&view), ["db1", "web1"]);
    press(&mut view, &seen, &[KeyCode::Down; 5]);
    assert_eq!(view.scrolled, 1, "no further than the last");
    assert_eq!(press(&mut view, &seen, &[KeyCode::Char('q')]), Next::End);
}

#[test]
fn an_agent_that_went_away_and_an_alarm_stand_on_the_screen() {
    let mut seen = seen();
    seen.status.alarms = vec!["web1 is down".to_owned()];
    assert!(screen(&View::new(false), &seen).contains("ALARM (1 of 1) web1 is down"));
    seen.trouble = Some("no agent".to_owned());
    assert!(screen(&View::new(false), &seen).contains("NO ANSWER, this is from before: no agent"));
}

#[test]
fn more_hosts_than_fit_are_counted_and_no_size_of_terminal_is_too_small() {
    let mut seen = seen();
    seen.hosts = (0..300).map(|n| of(host(&format!("host{n}"), "alive", 5.0, false))).collect();
    assert!(screen(&View::new(true), &seen).contains("and 294 more"));
    for (width, height) in [(1, 1), (10, 3), (40, 8), (300, 100)] {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
        terminal.draw(|frame| draw::draw(frame, &View::new(true), &seen)).expect("drawn");
    }
}
