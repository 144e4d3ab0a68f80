//! What happened while nobody looked, on all hosts: the moves, and why nothing moved at some time.

use std::collections::BTreeMap;
use std::io::{Write as _, stderr};
use std::time::Duration;

use api::client::{Client, ClientError};
use api::{MoveView, Overview, OverviewHost, Why};
use tokio::time::sleep;

use crate::screen::Screen;
use crate::show;

/// What hosts are that can be asked.
const ALIVE: &str = "alive";
/// How often hosts are asked that have not reported yet; and the time between.
const ASKED: usize = 10;
const AGAIN: Duration = Duration::from_millis(500);

/// All hosts with what each reports; names on standard error those that are alive and have not reported after some seconds.
pub(crate) async fn overview(client: &Client) -> anyhow::Result<Overview> {
    let mut seen = client.overview().await?;
    for _ in 1..ASKED {
        // Of one that cannot be asked it is said why.
        if silent(&seen).all(|host| host.problem.is_some()) {
            break;
        }
        sleep(AGAIN).await;
        seen = client.overview().await?;
    }
    for host in silent(&seen) {
        let why = host.problem.as_deref().unwrap_or("not yet");
        let name = &host.seen.name;
        writeln!(
            stderr(),
            "{name} has not reported ({why}): of its moves only what other hosts know is told"
        )?;
    }
    Ok(seen)
}

fn silent(seen: &Overview) -> impl Iterator<Item = &OverviewHost> {
    seen.hosts.iter().filter(|host| host.seen.state == ALIVE && host.report.is_none())
}

/// Of all hosts, newest first. Source and target both tell of a move: what the source says is the whole.
pub(crate) fn all_moves(seen: &Overview) -> Vec<MoveView> {
    let mut all: BTreeMap<&str, &MoveView> = BTreeMap::new();
    for host in &seen.hosts {
        for one in host.report.iter().flat_map(|report| &report.moves) {
            if one.from == host.seen.name || !all.contains_key(&*one.id) {
                all.insert(&one.id, one);
            }
        }
    }
    let mut all: Vec<MoveView> = all.into_values().cloned().collect();
    all.sort_by(|a, b| b.began.cmp(&a.began));
    all
}

/// Why nothing was moved then: all that is known of one host, if one is asked through another, else each host's reason.
pub(crate) async fn why(client: &Client, screen: &mut Screen, at: &str) -> anyhow::Result<()> {
    if client.is_through() {
        return screen.show(&client.why_at(at).await?, show::why);
    }
    let mut all = Vec::new();
    for host in client.hosts().await? {
        if host.state != ALIVE {
            let verdict = format!("not known: the host is {}", host.state);
            all.push((host.name.clone(), nothing_of(&host.name, verdict)));
            continue;
        }
        let asked = if host.local { client.clone() } else { client.on(&host.name) };
        all.push(match asked.why_at(at).await {
            Ok(why) => (host.name, why),
            // Said wrong is said wrong to all; the others are told of without a host that does not answer.
            Err(error) if host.local => return Err(error.into()),
            Err(ClientError::Refused(problem)) => {
                let why = nothing_of(&host.name, format!("not known: {}", problem.title));
                (host.name, why)
            }
            Err(error) => return Err(error.into()),
        });
    }
    let told: Vec<&Why> = all.iter().map(|(_, why)| why).collect();
    screen.show(&told, |_, look| show::why_then(&all, look))
}

fn nothing_of(host: &str, verdict: String) -> Why {
    Why { about: format!("host {host}"), verdict, because: Vec::new(), events: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_move_is_told_once_and_by_its_source() {
        let view = |id: &str, began: &str, paid: Option<bool>| {
            serde_json::json!({
                "id": id, "vm": "web", "vm_id": "1", "from": "host2", "to": "host1", "phase": "done",
                "reason": "hot", "overridden": [], "began": began, "ended": true, "outcome": null,
                "acceptances": 1, "refusals": 0, "copied_bytes": 1, "total_bytes": 1, "rounds": 1,
                "encrypted": null, "total_ms": 1, "downtime_ms": 1, "promised_percent": 30.0,
                "measured_percent": null, "paid": paid
            })
        };
        let host = |name: &str, moves: serde_json::Value| {
            serde_json::json!({
                "seen": {
                    "name": name, "id": name, "address": "", "state": "alive", "local": false,
                    "age_seconds": null, "cpu_percent": 0.0, "memory_percent": 0.0,
                    "packets_per_second": 0, "bits_per_second": 0, "vms": 0, "hot": false,
                    "room_mib": null, "able": []
                },
                "report": {
                    "status": {
                        "version": "", "cluster": "", "host": name, "host_id": "", "balance": "",
                        "balancer_on": true, "request": "", "hosts_alive": 2, "hosts_known": 2,
                        "vms": 0, "moves_under_way": 0, "hot": null,
                        "disk_bytes_per_second": null, "uplink": null, "doing": "",
                        "config": null, "alarms": []
                    },
                    "vms": [], "moves": moves, "newest_event": 1
                },
                "report_age_seconds": 0.0, "problem": null
            })
        };
        let at_target = view("a", "2026-03-01T01:00:00Z", None);
        let at_source = view("a", "2026-03-01T01:00:00Z", Some(true));
        let seen = serde_json::json!({
            "host": "host1", "host_id": "1", "cluster": "c",
            "hosts": [
                host("host1", serde_json::json!([at_target])),
                host("host2", serde_json::json!([view("b", "2026-03-01T02:00:00Z", None), at_source])),
            ]
        });
        let seen: Overview = serde_json::from_value(seen).unwrap();
        let all = all_moves(&seen);
        let told: Vec<(&str, Option<bool>)> = all.iter().map(|it| (&*it.id, it.paid)).collect();
        assert_eq!(told, [("b", None), ("a", Some(true))]);
    }
}
