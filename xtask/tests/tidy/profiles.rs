//! Which test binary belongs to which profile of nextest.
//!
//! Profile `default` takes all but a list, `real` that list: so none is left out and none runs twice, if both lists are
//! the same and hold just what needs root, QEMU, namespaces or a download.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::tree::File;

/// What only a test that needs root, QEMU, namespaces or a download says.
const MARKS: [&str; 5] = [
    concat!("sand", "box::test("),
    concat!("sand", "box::test_with("),
    concat!("Command::new(\"un", "share\")"),
    concat!("\"qemu-", "system-"),
    concat!("setup::prom", "tool("),
];

pub(crate) fn check(config: &str, metadata: &Value, files: &[File]) -> Vec<String> {
    let config: toml::Table = config.parse().expect("nextest's config is TOML");
    let filter = |profile: &str| {
        let found =
            config.get("profile").and_then(|p| p.get(profile)?.get("default-filter")?.as_str());
        found.unwrap_or_default().to_owned()
    };
    let real = filter("real");
    let named: BTreeSet<&str> = real.split(" | ").collect();
    let binaries = binaries(metadata);
    let mut complaints = Vec::new();
    if filter("default") != format!("not ({real})") {
        complaints
            .push("the default profile's filter is not `not (…)` of that of `real`".to_owned());
    }
    for name in &named {
        if !binaries.iter().any(|(binary, _)| format!("binary_id({binary})") == **name) {
            complaints.push(format!("{name}: no such test binary"));
        }
    }
    for (binary, source) in &binaries {
        let marked = files.iter().any(|file| belongs(&file.path, source) && marked(&file.text));
        match (marked, named.contains(format!("binary_id({binary})").as_str())) {
            (true, false) => complaints.push(format!("{binary}: belongs into profile `real`")),
            (false, true) => complaints.push(format!("{binary}: belongs into the default profile")),
            _ => {}
        }
    }
    complaints
}

/// Id and main source of each integration test.
fn binaries(metadata: &Value) -> Vec<(String, String)> {
    let root = metadata["workspace_root"].as_str().expect("cargo knows the root");
    let mut binaries = Vec::new();
    for package in metadata["packages"].as_array().expect("cargo lists packages") {
        for target in package["targets"].as_array().expect("cargo lists targets") {
            let text = |value: &Value| value.as_str().expect("cargo prints words").to_owned();
            if target["kind"] == serde_json::json!(["test"]) {
                let id = format!("{}::{}", text(&package["name"]), text(&target["name"]));
                let source = text(&target["src_path"]);
                let source = source.strip_prefix(root).unwrap_or(&source);
                binaries.push((id, source.trim_start_matches('/').to_owned()));
            }
        }
    }
    binaries
}

/// Whether a file is part of the test with this main source: the source itself, or in the folder of its own.
fn belongs(path: &str, source: &str) -> bool {
    let folder = source
        .strip_suffix("main.rs")
        .map_or_else(|| source.trim_end_matches(".rs").to_owned() + "/", str::to_owned);
    path == source || path.starts_with(&folder)
}

fn marked(text: &str) -> bool {
    MARKS.iter().any(|mark| text.contains(mark))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn workspace() -> Value {
        let target =
            |name: &str, path: &str| json!({ "name": name, "kind": ["test"], "src_path": path });
        let targets =
            [target("vms", "/r/a/tests/vms.rs"), target("pure", "/r/a/tests/pure/main.rs")];
        json!({ "workspace_root": "/r", "packages": [{ "name": "a", "targets": targets }] })
    }

    fn complaints(default: &str, real: &str, files: &[File]) -> Vec<String> {
        let config = format!(
            "[profile.default]\ndefault-filter = \"{default}\"\n[profile.real]\ndefault-filter = \"{real}\"\n"
        );
        check(&config, &workspace(), files)
    }

    fn vms() -> Vec<File> {
        vec![
            File::new("a/tests/vms/boot.rs", &format!("let x = [{}x86_64\"];", MARKS[2])),
            File::new("a/tests/pure/main.rs", "//! Pure."),
        ]
    }

    #[test]
    fn a_binary_in_the_right_profile_is_fine() {
        let none: [String; 0] = [];
        assert_eq!(complaints("not (binary_id(a::vms))", "binary_id(a::vms)", &vms()), none);
    }

    #[test]
    fn a_binary_in_the_wrong_profile_is_found() {
        let found = complaints("not (binary_id(a::pure))", "binary_id(a::pure)", &vms());
        assert_eq!(
            found,
            ["a::vms: belongs into profile `real`", "a::pure: belongs into the default profile"]
        );
    }

    #[test]
    fn filters_that_leave_a_gap_are_found() {
        assert_eq!(complaints("all()", "binary_id(a::vms)", &vms()).len(), 1);
    }

    #[test]
    fn a_binary_that_is_gone_is_found() {
        let real = "binary_id(a::vms) | binary_id(a::gone)";
        let found = complaints(&format!("not ({real})"), real, &vms());
        assert_eq!(found, ["binary_id(a::gone): no such test binary"]);
    }

    #[test]
    fn each_mark_is_seen() {
        for mark in MARKS {
            assert!(marked(&format!("let x = {mark};")), "{mark}");
        }
        assert!(!marked("a sandbox, an unshared thing, a qemu-system"));
    }
}
