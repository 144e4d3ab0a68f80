//! `evenkeel-sim policy` as a program: what it prints, and its exit codes.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::{Path, PathBuf};
use std::process::Command;

fn shipped(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging").join(path)
}

/// Exit code and all output.
fn policy(what: &str, file: &Path) -> (i32, String) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_evenkeel-sim")).args(["policy", what]).arg(file).output();
    let output = output.unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

/// In a folder of the test's own, with a file beside it.
fn policy_of(what: &str, text: &str, cases: &str) -> (i32, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("own.toml");
    std::fs::write(&file, text).unwrap();
    std::fs::write(folder.path().join("own.cases.toml"), cases).unwrap();
    let (code, text) = policy(what, &file);
    (code, text.replace(&format!("{}/", folder.path().display()), ""))
}

#[test]
fn the_example_is_right_and_its_cases_hold() {
    let (code, text) = policy("check", &shipped("examples/policy.toml"));
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("vm_policy.when = host.vms > 40 && host.cpu_pressure > 0.1"), "{text}");
    let (code, text) = policy("test", &shipped("examples/policy.toml"));
    assert_eq!((code, text.as_str()), (0, "11 of 11 cases hold\n"));
}

#[test]
fn the_agents_own_config_is_right() {
    let (code, text) = policy("check", &shipped("evenkeel.toml"));
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("no expression is set"), "{text}");
}

#[test]
fn a_mistake_ends_with_2_and_its_place() {
    let (code, text) = policy_of("check", "[vm_policy]\nwhen = \"host.vm > 5\"\n", "");
    let told = "own.toml: line 2, column 9, key vm_policy.when: unknown variable host.vm; did you mean \"host.vms\"?\n";
    assert_eq!((code, text.as_str()), (2, told));
    let right = "vm_policy.when = 'host.vms > 5'";
    let wrong = "[[case]]\nname = 'c'\nof = 'vm_policy.when'\nexpect = 7\n";
    let (code, text) = policy_of("test", right, wrong);
    assert_eq!(code, 2, "{text}");
    assert!(text.starts_with("own.cases.toml: line 1, column 1, key case.expect: "), "{text}");
    let (code, text) = policy("check", Path::new("not-there.toml"));
    assert_eq!(code, 2, "{text}");
    assert!(text.starts_with("not-there.toml: "), "{text}");
}

#[test]
fn a_case_that_does_not_hold_ends_with_1() {
    let cases =
        "[[case]]\nname = 'six'\nof = 'vm_policy.when'\ngiven.host.vms = 5\nexpect = true\n";
    let (code, text) = policy_of("test", "vm_policy.when = 'host.vms > 5'", cases);
    let told = "six\n  vm_policy.when: expected true, got false\n    host.vms > 5 = false\n    host.vms = 5\n0 of 1 cases hold\n";
    assert_eq!((code, text.as_str()), (1, told));
}

#[test]
fn each_kind_of_mistake_ends_with_2_its_place_and_what_to_write() {
    let deep = format!("[vm_policy]\nwhen = '{}host.vms > 1{}'", "(".repeat(40), ")".repeat(40));
    let long = format!("[vm_policy]\nwhen = '{}'", ["host.vms > 1"; 400].join(" || "));
    let mistakes = [
        (
            "[hot]\ncpu_usd = '80%'",
            "line 2, column 1, key hot.cpu_usd",
            "did you mean \"cpu_used\"?",
        ),
        (
            "[vm_policy]\nwhen = 'host.vm > 5'",
            "line 2, column 9, key vm_policy.when",
            "did you mean \"host.vms\"?",
        ),
        ("[hot]\ncpu_used = 80", "line 2, column 12, key hot.cpu_used", "such as \"80%\""),
        (
            "[admission]\naccept = 'vm.name'",
            "line 2, column 11, key admission.accept",
            "true or false",
        ),
        (
            "[vm_policy]\nwhen = '[1, 2].all(x, host.vms > x)'",
            "line 2, column 19, key vm_policy.when",
            "say it with ==, in, && and ||",
        ),
        (&deep, "line 2, column 33, key vm_policy.when", "say it in fewer steps"),
        (&long, "line 2, column 9, key vm_policy.when", "say it in fewer words"),
        ("[mode]\nbalance = \"off", "line 2, column 15", "end the text with the quote"),
        (
            "[[rules.group]]\nname = 'web'\nkind = 'anti-affinity'\nvms = ['a', 'b']\n[[rules.pin]]\nvms = ['a', 'b']\nhosts = ['host1']",
            "line 1, column 1, key rules.group",
            "host1",
        ),
    ];
    for (text, place, hint) in mistakes {
        let (code, said) = policy_of("check", &format!("{text}\n"), "");
        assert_eq!(code, 2, "{text}: {said}");
        assert!(said.starts_with(&format!("own.toml: {place}")) && said.contains(hint), "{said}");
    }
}
