//! `evenkeel lab` hands over to `evenkeel-sim`, and `evenkeel config check`, `ca` and `keys` to `evenkeeld`, wherever they are. Here a script stands in for that: what it gets and gives
//! is looked at, not what it does.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const SCRIPT: &str = "#!/bin/sh\nprintf '<%s>' \"$0\" \"$@\"\nexit 7\n";

/// The program in a folder of its own, so that what lies beside it is known.
fn installed(folder: &Path) -> PathBuf {
    let program = folder.join("evenkeel");
    fs::copy(env!("CARGO_BIN_EXE_evenkeel"), &program).unwrap();
    program
}

fn script(folder: &Path) -> String {
    script_named(folder, "evenkeel-sim")
}

fn script_named(folder: &Path, name: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, SCRIPT).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}

fn run(program: &Path, path: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.env("PATH", format!("{}:/usr/bin:/bin", path.display()));
    command.args(arguments).output().unwrap()
}

#[test]
fn all_arguments_and_the_exit_code_pass_through() {
    let folder = tempfile::tempdir().unwrap();
    let (program, beside) = (installed(folder.path()), script(folder.path()));
    for arguments in [
        &["replay", "a log", "--json", "-o", "json", "--socket"][..],
        &["--help"],
        &["-h"],
        &["swarm", "--", "--seeds", "1", "*"],
    ] {
        let ran = run(&program, Path::new("/nowhere"), &[&["lab"], arguments].concat());
        let all: String = arguments.iter().map(|argument| format!("<{argument}>")).collect();
        assert_eq!(String::from_utf8_lossy(&ran.stdout), format!("<{beside}>{all}"));
        assert_eq!((ran.status.code(), ran.stderr.len()), (Some(7), 0), "{ran:?}");
    }
}

#[test]
fn what_is_not_beside_it_is_looked_for_in_path() {
    let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (program, found) = (installed(folder.path()), script(elsewhere.path()));
    let ran = run(&program, elsewhere.path(), &["lab", "replay"]);
    assert_eq!(String::from_utf8_lossy(&ran.stdout), format!("<{found}><replay>"));
    assert_eq!(ran.status.code(), Some(7));
}

#[test]
fn where_it_is_not_installed_that_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let ran = run(&installed(folder.path()), Path::new("/nowhere"), &["lab", "replay", "LOG"]);
    let words = String::from_utf8_lossy(&ran.stderr);
    let expected = format!(
        "evenkeel: evenkeel-sim is not installed: it is neither in {} nor in PATH\n",
        folder.path().display()
    );
    assert!(words.starts_with(&expected) && words.contains("cargo build"), "{words}");
    assert_eq!((ran.status.code(), ran.stdout.len()), (Some(127), 0));
}

#[test]
fn a_config_is_checked_by_the_agent() {
    let folder = tempfile::tempdir().unwrap();
    let (program, beside) = (installed(folder.path()), script_named(folder.path(), "evenkeeld"));
    for (file, said) in
        [(&["/etc/my.toml"][..], "/etc/my.toml"), (&[], "/etc/evenkeel/evenkeel.toml")]
    {
        let ran = run(&program, Path::new("/nowhere"), &[&["config", "check"], file].concat());
        let told = format!("<{beside}><--check><--config><{said}>");
        assert_eq!(String::from_utf8_lossy(&ran.stdout), told);
        assert_eq!(ran.status.code(), Some(7));
    }
}

#[test]
fn keys_and_the_ca_are_the_agents_matter() {
    let folder = tempfile::tempdir().unwrap();
    let (program, beside) = (installed(folder.path()), script_named(folder.path(), "evenkeeld"));
    for arguments in [
        &["ca", "sign", "a request", "--out", "x"][..],
        &["ca", "--help"],
        &["join", "198.18.0.1", "--token-file", "-"],
        &["keys", "show", "--config", "y"],
    ] {
        let ran = run(&program, Path::new("/nowhere"), arguments);
        let all: String = arguments.iter().map(|argument| format!("<{argument}>")).collect();
        assert_eq!(String::from_utf8_lossy(&ran.stdout), format!("<{beside}>{all}"));
        assert_eq!(ran.status.code(), Some(7));
    }
}
