//! `evenkeeld ca` and `evenkeeld keys`, by hand from a new CA to keys on a host.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

struct Bed(tempfile::TempDir);

impl Bed {
    fn new() -> Bed {
        let bed = Bed(tempfile::tempdir().expect("a folder"));
        let config = format!(
            "[cluster]\nname = 'c'\n[host]\nname = 'host1'\naddress = '127.78.0.6'\nstate = '{}'\n",
            bed.at("state").display()
        );
        fs::write(bed.at("own.toml"), config).expect("written");
        bed
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Exit code, standard output and standard error.
    fn ran(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeeld"));
        let output = command.args(arguments).current_dir(self.0.path()).output().expect("it runs");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        (output.status.code(), text(output.stdout), text(output.stderr))
    }

    fn gives(&self, arguments: &[&str]) -> String {
        let (code, given, said) = self.ran(arguments);
        assert_eq!((code, &*said), (Some(0), ""), "{arguments:?}: {given}");
        given
    }

    fn refuses(&self, arguments: &[&str]) -> String {
        let (code, given, said) = self.ran(arguments);
        assert_eq!((code, &*given), (Some(1), ""), "{arguments:?}: {said}");
        assert!(said.starts_with("evenkeel: "), "{said}");
        said
    }
}

fn all<'a>(first: &'a str, arguments: &[&'a str], last: &[&'a str]) -> Vec<&'a str> {
    [&[first], arguments, last].concat()
}

fn word<'a>(shown: &'a str, label: &str) -> &'a str {
    let line = shown.lines().find_map(|line| line.strip_prefix(label));
    line.unwrap_or_else(|| panic!("no {label} in {shown}")).trim()
}

#[test]
fn from_a_new_ca_to_keys_on_a_host_and_its_revocation() {
    let bed = Bed::new();
    let place = ["--folder", "ca"];
    macro_rules! ca {
        ($($argument:expr),*) => { &all("ca", &[$($argument),*], &place) };
    }
    macro_rules! own {
        ($($argument:expr),*) => { &all("keys", &[$($argument),*], &["--config", "own.toml"]) };
    }

    let why = bed.refuses(own!("show"));
    assert!(why.contains("/state/keys/ca.crt: No such file"), "{why}");
    let why = bed.refuses(ca!("update", "--out", "x"));
    assert!(why.contains("run `evenkeel ca init`"), "{why}");
    assert!(bed.gives(ca!("init", "--cluster", "prod")).contains("(not encrypted)"));
    assert!(bed.refuses(ca!("init", "--cluster", "prod")).contains("is there already"));

    fs::write(bed.at("host1.request"), bed.gives(own!("request"))).expect("written");
    let signed = bed.gives(ca!("sign", "host1.request", "--out", "host1.grant"));
    assert!(
        signed.contains("signed for host1, host ") && signed.contains("at 127.78.0.6, for 30 days")
    );
    let shown = bed.gives(own!("install", "host1.grant"));
    assert_eq!((word(&shown, "cluster key"), word(&shown, "revocations")), ("1", "list 0"));

    let host = word(&shown, "host ").to_owned();
    let why = bed.refuses(ca!("revoke", "host2"));
    assert!(why.contains("has given no certificate to a host \"host2\""), "{why}");
    // Without its configuration this machine is no host: what was revoked is carried.
    assert!(
        bed.gives(ca!("revoke", "host1")).contains(&format!("host {host} is revoked, by list 1"))
    );
    bed.gives(ca!("update", "--out", "cluster.grant"));
    bed.gives(own!("install", "cluster.grant"));
    let shown = bed.gives(own!("show"));
    assert_eq!((word(&shown, "cluster key"), word(&shown, "revocations")), ("2", "list 1"));
    assert!(shown.contains(&format!("host {host}, what was issued until 20")), "{shown}");
    assert!(bed.gives(own!("rotate")).contains("there is cluster key 3"));
    // On a host with keys it is in force there at once, and begins with what other hosts rotated.
    let revoked =
        bed.gives(&all("ca", &["revoke", &host], &["--folder", "ca", "--config", "own.toml"]));
    assert!(
        revoked.contains("by list 2") && revoked.contains("in force here in seconds"),
        "{revoked}"
    );
    let shown = bed.gives(own!("show"));
    assert_eq!((word(&shown, "cluster key"), word(&shown, "revocations")), ("4", "list 2"));
    no_secrets(&shown, &bed.at("state/keys"));

    let token = bed.gives(ca!("token", "--minutes", "5"));
    assert!(token.starts_with("evkj_") && token.trim().len() == 4 + 3 + 8 + 32 + 64, "{token}");
    fs::write(bed.at("token"), &token).expect("written");
    let join = all("join", &["127.0.0.1", "--token-file", "token"], &["--config", "own.toml"]);
    let why = bed.refuses(&join);
    assert!(why.contains("this host has keys already"), "{why}");
    assert!(bed.refuses(ca!("token", "--minutes", "2000")).contains("24 hours at most"));
    let first = all(
        "ca",
        &["init", "--own", "--cluster", "c3"],
        &["--folder", "ca3", "--config", "own3.toml"],
    );
    assert!(bed.refuses(&first).contains("own3.toml"));
    assert!(!bed.at("ca3").exists(), "nothing was made");

    fs::write(bed.at("pass"), "short\n").expect("written");
    let why = bed.refuses(&all(
        "ca",
        &["init", "--cluster", "x"],
        &["--folder", "ca2", "--passphrase-file", "pass"],
    ));
    assert!(why.contains("a passphrase of 5 bytes is too short"), "{why}");
}

#[test]
fn a_revocation_is_in_force_also_where_no_cluster_key_can_be_made_and_it_is_said_what_is_not_done()
{
    let bed = Bed::new();
    let own = ["--config", "own.toml"];
    let both = ["--folder", "ca", "--config", "own.toml"];
    bed.gives(&["ca", "init", "--cluster", "prod", "--folder", "ca"]);
    fs::write(bed.at("request"), bed.gives(&all("keys", &["request"], &own))).expect("written");
    bed.gives(&all("ca", &["sign", "request", "--out", "grant"], &both));
    let shown = bed.gives(&all("keys", &["install", "grant"], &own));
    let host = word(&shown, "host ").to_owned();
    let revoke = all("ca", &["revoke", &host], &both);
    let in_force = || {
        let shown = bed.gives(&all("keys", &["show"], &own));
        (word(&shown, "cluster key").to_owned(), word(&shown, "revocations").to_owned())
    };
    let keys = bed.at("ca/cluster.keys");
    let mode = |mode| {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        fs::set_permissions(&keys, mode).expect("it is there");
    };
    mode(0o644);
    let why = bed.refuses(&revoke);
    assert!(why.contains("is revoked, by list 1\nin force here in seconds"), "{why}");
    assert!(why.contains("there is no new cluster key") && why.contains("(mode 644)"), "{why}");
    assert!(why.contains(&format!("run `evenkeel ca revoke {host}` again")), "{why}");
    assert_eq!(in_force(), ("1".to_owned(), "list 1".to_owned()));
    mode(0o600);
    bed.gives(&revoke);
    assert_eq!(in_force(), ("2".to_owned(), "list 2".to_owned()));
}

fn no_secrets(shown: &str, keys: &Path) {
    let held = fs::read_to_string(keys.join("cluster.keys")).expect("read");
    let key = held.split('"').find(|part| part.len() == 64).expect("a key");
    assert!(!shown.contains(&key[..16]), "{shown}");
}
