//! What is shipped for Prometheus and Grafana, judged by Prometheus' own tool.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn packaging(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging").join(name)
}

fn promtool(arguments: &[&str]) -> Output {
    let program = lab::setup::promtool().expect("promtool");
    Command::new(program).args(arguments).output().expect("promtool runs")
}

fn accepted(file: &Path) {
    let said = promtool(&["check", "rules", file.to_str().expect("a path")]);
    let words = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.status.success(), "{}: {words}", file.display());
}

fn board() -> Value {
    let text = fs::read_to_string(packaging("grafana/evenkeel.json")).expect("the board");
    serde_json::from_str(&text).expect("JSON")
}

/// All queries of the board.
fn queries(board: &Value) -> Vec<String> {
    let panels = board["panels"].as_array().expect("panels");
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().expect("targets"));
    targets.map(|target| target["expr"].as_str().expect("a query").to_owned()).collect()
}

/// The metrics of ours that are named in a text.
fn named(text: &str) -> BTreeSet<String> {
    let word = |c: char| c.is_ascii_lowercase() || c == '_';
    let words = text.split(|c: char| !word(c)).filter(|word| word.starts_with("evenkeel_"));
    words.map(str::to_owned).collect()
}

#[test]
fn promtool_accepts_the_alerts() {
    accepted(&packaging("prometheus/evenkeel.rules.yml"));
}

/// The alerts over series that are written down, as Prometheus itself would tell them.
#[test]
fn alerts_are_told_when_they_should_be_and_not_before() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/alerts.yml");
    let said = promtool(&["test", "rules", cases.to_str().expect("a path")]);
    let words = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.status.success(), "{words}");
    // It can fail.
    let folder = tempfile::tempdir().expect("a folder");
    let text =
        fs::read_to_string(&cases).expect("the cases").replace("instance: old", "instance: new");
    let rules = packaging("prometheus/evenkeel.rules.yml");
    let text =
        text.replace("../../packaging/prometheus/evenkeel.rules.yml", &rules.display().to_string());
    let wrong = folder.path().join("alerts.yml");
    fs::write(&wrong, text).expect("written");
    assert!(!promtool(&["test", "rules", wrong.to_str().expect("a path")]).status.success());
}

#[test]
fn promtool_accepts_the_boards_queries() {
    let folder = tempfile::tempdir().expect("a folder");
    let all = queries(&board());
    assert!(all.len() > 10, "{all:?}");
    let rules = all.iter().enumerate().map(|(number, query)| {
        let query = query.replace("$cluster", ".*");
        serde_json::json!({ "record": format!("query:{number}"), "expr": query })
    });
    let groups =
        serde_json::json!({ "groups": [{ "name": "board", "rules": rules.collect::<Vec<_>>() }] });
    let file = folder.path().join("board.yml");
    // JSON is YAML.
    fs::write(&file, groups.to_string()).expect("written");
    accepted(&file);
    // It can fail.
    fs::write(&file, groups.to_string().replace("sum(", "sum((")).expect("written");
    assert!(!promtool(&["check", "rules", file.to_str().expect("a path")]).status.success());
}

#[test]
fn alerts_and_board_name_no_metric_that_no_agent_has() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/agent/src/metrics.rs");
    let there = named(&fs::read_to_string(source).expect("the source"));
    let rules = fs::read_to_string(packaging("prometheus/evenkeel.rules.yml")).expect("rules");
    let mut used = named(&rules.replace("_bucket[", "["));
    used.extend(queries(&board()).iter().flat_map(|query| named(&query.replace("_bucket[", "["))));
    let unknown: Vec<&String> = used.difference(&there).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    assert!(used.len() > 12, "{used:?}");
}
