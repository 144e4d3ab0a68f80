//! What QEMU says, and definitions that come from other hosts, damaged.

use std::path::Path;
use std::time::Duration;

use ::fuzz::Samples;
use decide::units::VmId;
use serde_json::Value;

use super::definition::{Definition, Paths};
use super::figures::{Figures, Question};
use super::messages::{
    BlockStats, Command, CpuFast, Migration, OfferedCapability, QueryKvm, QueryMigrate,
    QueryMigrateParameters, QueryStatus, QueryUuid,
};
use super::qmp::Line;

const LINES: [&str; 16] = [
    r#"{"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 7}}, "capabilities": ["oob"]}}"#,
    r#"{"timestamp": {"seconds": 1700000000, "microseconds": 4}, "event": "STOP"}"#,
    r#"{"event": "MIGRATION", "data": {"status": "pre-switchover"}}"#,
    r#"{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-shutdown"}}"#,
    r#"{"return": {"status": "paused", "singlestep": false, "running": false}, "id": 1}"#,
    r#"{"return": {"status": "active", "total-time": 12, "ram": {"total": 5, "transferred": 3, "remaining": 2, "dirty-sync-count": 1}, "socket-address": [{"port": "49152", "host": "198.18.0.2", "type": "inet"}]}, "id": 2}"#,
    r#"{"return": {"status": "failed", "error-desc": "no", "downtime": 7}, "id": 3}"#,
    r#"{"error": {"class": "GenericError", "desc": "not now"}, "id": 4}"#,
    r#"{"return": {"UUID": "550e8400-e29b-41d4-a716-446655440000"}, "id": 5}"#,
    r#"{"return": {"enabled": true, "present": true}, "id": 6}"#,
    r#"{"return": [{"state": false, "capability": "multifd"}], "id": 7}"#,
    r#"{"return": [{"thread-id": 25185, "cpu-index": 0}, {"thread-id": 9}], "id": 8}"#,
    r#"{"return": [{"device": "a", "stats": {"rd_bytes": 1000, "wr_bytes": 20, "rd_operations": 3, "wr_operations": 2}}], "id": 9}"#,
    r#"{"return": [{"name": "device[0]", "type": "child<virtio-balloon-pci>"}], "id": 10}"#,
    r#"{"return": {"stats": {"stat-total-memory": 1000, "stat-available-memory": 9}, "last-update": 7}, "id": 11}"#,
    r#"{"return": {"dirty-rate": 12, "status": "measured", "calc-time": 1, "tls-creds": ""}, "id": 12}"#,
];
const DEFINITION: &str = r#"
name = "web1"
tap = "tap0"
bridge = "br0"
memory = "2GiB"
vcpus = 2
tags = ["evenkeel:group=a", "plb_pin_host1"]
start = ["qemu", "-M", "type=pc,usb=off", "-uuid", "{uuid}", "-qmp", "unix:{qmp},server=on", "ifname={tap}"]
"#;
const WORDS: [&str; 14] =
    ["{", "}", "[", "]", "\"", ":", ",", "null", "true", "\\u0000", "\\ud800", "=", "\n", "{tap}"];

const QUESTIONS: [Question; 8] = [
    Question::Threads,
    Question::Devices("/machine/peripheral"),
    Question::Polling,
    Question::GuestMemory,
    Question::Disks,
    Question::Copying,
    Question::Measure,
    Question::DirtyRate,
];

/// As it is read after a call.
fn answered<C: Command>(answer: &Value) {
    let _ = serde_json::from_value::<C::Answer>(answer.clone());
}

#[test]
fn damaged_answers_and_definitions_are_refused_or_used() {
    let genuine = LINES.into_iter().chain([DEFINITION]);
    let mut figures = Figures::new(VmId(0), Duration::from_secs(5));
    Samples::texts(genuine, &WORDS).damaged(|bytes| {
        if let Ok(Line::Answer(_, Ok(answer))) = Line::parse(bytes) {
            answered::<QueryStatus>(&answer);
            answered::<QueryMigrate>(&answer);
            answered::<QueryUuid>(&answer);
            answered::<QueryKvm>(&answer);
            answered::<QueryMigrateParameters>(&answer);
            let _ = serde_json::from_value::<Migration>(answer.clone()).map(|m| m.status());
            let _ = serde_json::from_value::<Vec<OfferedCapability>>(answer.clone());
            let _ = serde_json::from_value::<Vec<CpuFast>>(answer.clone());
            let _ = serde_json::from_value::<Vec<BlockStats>>(answer.clone());
            for question in QUESTIONS {
                figures.take(question, Some(&answer));
                figures.give_way();
            }
            figures.take(Question::GuestMemory, None);
            let _ = figures.told();
        }
        let Ok(text) = str::from_utf8(bytes) else { return };
        match Definition::parse(text) {
            Ok(definition) => {
                let vm = VmId(7);
                let line = definition.command_line(vm, &Paths::new(Path::new("/d"), vm));
                assert!(!line.is_empty());
                let _ = definition.machine_by_command_line();
                assert_eq!(Definition::parse(&definition.text).expect("it was read"), definition);
            }
            Err(why) => assert!(!why.to_string().contains('\n'), "{why}"),
        }
    });
}
