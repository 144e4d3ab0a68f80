//! A process that stands for a QEMU where a hundred real ones would be too many: it answers at a QMP socket what an agent asks of
//! a VM that it watches, and does nothing else. It has no guest, and cannot be moved.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use anyhow::Context;
use decide::units::VmId;
use serde_json::{Value, json};

const GREETING: &str =
    r#"{"QMP":{"version":{"qemu":{"micro":0,"minor":2,"major":7}},"capabilities":[]}}"#;

/// Serves the socket for ever, one client at a time as QEMU does.
///
/// # Errors
/// If the socket cannot be made.
pub fn serve(socket: &Path, vm: VmId) -> anyhow::Result<()> {
    let listener =
        UnixListener::bind(socket).with_context(|| format!("listening at {}", socket.display()))?;
    for client in listener.incoming() {
        // A client that goes away is followed by the next.
        let _ = client.and_then(|client| speak(&client, vm));
    }
    Ok(())
}

fn speak(mut client: &UnixStream, vm: VmId) -> std::io::Result<()> {
    writeln!(client, "{GREETING}")?;
    for line in BufReader::new(client).lines() {
        let asked: Value = serde_json::from_str(&line?).unwrap_or_default();
        let command = asked.get("execute").and_then(Value::as_str).unwrap_or_default();
        let mut said = match answer(command, vm) {
            Some(answer) => json!({ "return": answer }),
            None => json!({ "error": { "class": "CommandNotFound", "desc": "a stand-in" } }),
        };
        if let Some(id) = asked.get("id") {
            said["id"] = id.clone();
        }
        writeln!(client, "{said}")?;
    }
    Ok(())
}

fn answer(command: &str, vm: VmId) -> Option<Value> {
    Some(match command {
        "qmp_capabilities" => json!({}),
        "query-uuid" => json!({ "UUID": vm.to_string() }),
        "query-status" => json!({ "status": "running", "running": true }),
        "query-kvm" => json!({ "enabled": false, "present": false }),
        "qom-get" => json!("pc-i440fx-7.2-machine"),
        "query-cpus-fast" => {
            json!([{ "cpu-index": 0, "qom-path": "/machine/unattached/device[0]", "target": "x86_64", "thread-id": std::process::id() }])
        }
        "query-blockstats" => json!([]),
        _ => return None,
    })
}
