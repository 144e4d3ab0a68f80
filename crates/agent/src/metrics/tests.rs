//! The text as a whole: what is there, and what is not said where it is not known.

use serde_json::json;

use super::*;

fn of<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> T {
    serde_json::from_value(value).expect("a view")
}

fn vm(name: &str, guest_memory_mib: Option<u64>) -> VmView {
    of(json!({
        "name": name, "id": format!("id-of-{name}"), "host": "host1", "state": "running", "epoch": 3,
        "memory_mib": 2048, "cpu_percent": 150.0, "vcpu_percent": null, "cpu_wait_percent": 2.5,
        "guest_memory_mib": guest_memory_mib, "dirty_mib_per_second": null, "disk_bytes_per_second": 7,
        "disk_requests_per_second": 1, "share": null, "sent_packets_per_second": 10,
        "received_packets_per_second": 20, "bits_per_second": 8000, "history_seconds": 60,
        "next_hour": null, "excluded": null, "rules": [], "trouble": null,
    }))
}

fn looked() -> Looked {
    let host = |name: &str, state: &str, local: bool| {
        of(json!({
            "name": name, "id": name, "address": "198.18.0.1:7946", "state": state, "local": local,
            "age_seconds": 0.1, "cpu_percent": 25.0, "memory_percent": 50.0, "packets_per_second": 30,
            "bits_per_second": 16000, "vms": 2, "hot": false, "room_mib": 1, "able": [],
        }))
    };
    let status = of(json!({
        "version": "0.1.0", "cluster": "prod", "host": "host1", "host_id": "1", "balance": "recommend",
        "balancer_on": true, "request": "multicast", "hosts_alive": 2, "hosts_known": 3, "vms": 2,
        "moves_under_way": 1, "hot": "cpu_used", "disk_bytes_per_second": null,
        "uplink": {
            "name": "eno1", "driver": "ice", "speed_bits_per_second": 10_000_000_000_u64, "duplex": "full",
            "up": true, "losing_queues": [],
        },
        "doing": "nothing", "config": null, "alarms": ["a VM is down"],
        "webhooks_failing": ["https://example.org/…: nothing delivered"],
        "traces_failing": "https://example.org/…: nothing delivered",
    }));
    let hosts = vec![
        host("host1", "alive", true),
        host("host2", "alive", false),
        host("host3", "gone", false),
    ];
    let vms = vec![vm("web", Some(512)), vm("a \"name\"\n", None)];
    let certificates = vec![("host", 1_800_000_000), ("ca", 2_100_000_000)];
    Looked { totals: Totals::new().unwrap(), status, hosts, vms, certificates }
}

fn event(step: Step) -> Event {
    of(json!({
        "seq": 1, "time": "2026-01-01T00:00:00Z", "host": "host1", "move_id": null, "vm": null,
        "step": step, "reason": "", "peer": null, "cost_percent": null,
    }))
}

#[test]
fn every_figure_is_there_in_base_units_and_none_that_is_not_known() {
    let text = looked().text().unwrap();
    for line in [
        "evenkeel_build_info{cluster=\"prod\",host=\"host1\",host_id=\"1\",version=\"0.1.0\"} 1",
        "evenkeel_hosts{state=\"alive\"} 2",
        "evenkeel_hosts{state=\"suspect\"} 0",
        "evenkeel_hosts{state=\"gone\"} 1",
        "evenkeel_alarms 1",
        "evenkeel_host_hot 1",
        "evenkeel_host_cpu_used_ratio 0.25",
        "evenkeel_host_room_bytes 1048576",
        "evenkeel_uplink_speed_bytes 1250000000",
        "evenkeel_vm_info{name=\"web\",state=\"running\",vm=\"id-of-web\"} 1",
        "evenkeel_vm_cpu_used_cores{vm=\"id-of-web\"} 1.5",
        "evenkeel_vm_network_bytes_per_second{vm=\"id-of-web\"} 1000",
        "evenkeel_vm_guest_memory_bytes{vm=\"id-of-web\"} 536870912",
        // What a VM is called must not break the text.
        "evenkeel_vm_info{name=\"a \\\"name\\\"\\n\",state=\"running\",vm=\"id-of-a \\\"name\\\"\\n\"} 1",
        "evenkeel_events_total{step=\"done\"} 0",
        "evenkeel_webhooks_failing 1",
        "evenkeel_traces_failing 1",
        "evenkeel_trace_deliveries_total{outcome=\"failed\"} 0",
        "evenkeel_webhook_deliveries_total{outcome=\"dropped\"} 0",
        "evenkeel_move_downtime_seconds_count 0",
        "evenkeel_certificate_expiry_timestamp_seconds{certificate=\"host\"} 1800000000",
        "evenkeel_certificate_expiry_timestamp_seconds{certificate=\"ca\"} 2100000000",
    ] {
        assert!(text.lines().any(|there| there == line), "{line} is not in\n{text}");
    }
    assert_eq!(text.matches("\nevenkeel_vm_guest_memory_bytes{").count(), 1);
    assert!(!text.contains("evenkeel_vm_dirty_bytes_per_second"), "{text}");
}

#[test]
fn what_counts_up_is_counted_by_step_and_by_what_left() {
    let looked = looked();
    looked.totals.told([Step::Done, Step::Refusal, Step::Refusal].map(event).iter());
    let moved: MoveView = of(json!({
        "id": "1", "vm": "web", "vm_id": "1", "from": "host1", "to": "host2", "phase": "done",
        "reason": "", "began": "", "ended": true, "outcome": null, "acceptances": 2, "refusals": 0,
        "copied_bytes": 1000, "total_bytes": 1000, "rounds": 2, "total_ms": 1500, "downtime_ms": 40,
        "promised_percent": null, "measured_percent": null, "paid": null,
    }));
    looked.totals.left(&moved);
    let text = looked.text().unwrap();
    for line in [
        "evenkeel_events_total{step=\"refusal\"} 2",
        "evenkeel_events_total{step=\"done\"} 1",
        "evenkeel_move_copied_bytes_total 1000",
        "evenkeel_move_duration_seconds_sum 1.5",
        "evenkeel_move_downtime_seconds_bucket{le=\"0.05\"} 1",
        "evenkeel_move_downtime_seconds_bucket{le=\"0.02\"} 0",
    ] {
        assert!(text.lines().any(|there| there == line), "{line} is not in\n{text}");
    }
}
