//! Completion and pages for `man`: every command is in them.

use std::collections::BTreeSet;
use std::process::Command;

fn evenkeel(arguments: &[&str]) -> String {
    let said = Command::new(env!("CARGO_BIN_EXE_evenkeel")).args(arguments).output().expect("run");
    assert!(said.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&said.stderr));
    String::from_utf8(said.stdout).expect("text")
}

/// The commands of a page of help, without `help` itself.
fn commands(of: &[&str]) -> Vec<String> {
    let help = evenkeel(&[of, &["--help"]].concat());
    let Some((_, listed)) = help.split_once("\nCommands:\n") else { return Vec::new() };
    let listed = listed.split_once("\n\n").map_or(listed, |(listed, _)| listed);
    let names = listed.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = names.filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

#[test]
fn every_command_has_a_page() {
    let folder = tempfile::tempdir().expect("a folder");
    evenkeel(&["man", folder.path().to_str().expect("text")]);
    let pages = std::fs::read_dir(folder.path()).expect("listed");
    let pages: BTreeSet<String> =
        pages.map(|page| page.expect("a page").file_name().into_string().expect("text")).collect();
    let all = commands(&[]);
    assert!(all.len() > 20, "{all:?}");
    for name in &all {
        let page = format!("evenkeel-{name}.1");
        assert!(pages.contains(&page), "{page} is not among {pages:?}");
        let text = std::fs::read_to_string(folder.path().join(&page)).expect("read");
        assert!(text.contains("SYNOPSIS") && text.contains(".TH"), "{page}: {text}");
    }
    for name in commands(&["token"]) {
        let page = format!("evenkeel-token-{name}.1");
        assert!(pages.contains(&page), "{page} is not among {pages:?}");
    }
    assert!(!pages.contains("evenkeel-man.1"), "what only packages need");
}

#[test]
fn shells_complete_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let text = evenkeel(&["completion", shell]);
        for name in commands(&[]) {
            assert!(text.contains(&name), "{shell} does not complete {name}");
        }
    }
}

#[test]
fn bash_takes_the_completion() {
    let text = evenkeel(&["completion", "bash"]);
    let script = format!(
        "{text}\nCOMP_WORDS=(evenkeel bal) COMP_CWORD=1; _evenkeel evenkeel bal evenkeel; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    );
    let said = Command::new("bash").args(["--norc", "-c", &script]).output().expect("bash runs");
    assert_eq!(String::from_utf8_lossy(&said.stdout).trim(), "balancer");
}
