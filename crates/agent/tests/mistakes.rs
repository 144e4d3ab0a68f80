//! A configuration with a mistake: `evenkeeld --check`, which `evenkeel config check` becomes, and `evenkeeld` itself end with 2,
//! say where and what to write, and touch nothing.

use std::path::Path;
use std::process::Command;

/// The last lines of a file, where its mistake is, and what is said of it.
const MISTAKES: [(&str, &str, &str); 19] = [
    ("[hot]\ncpu_usd = '80%'", "line 7, column 1, key hot.cpu_usd", "did you mean \"cpu_used\"?"),
    ("[mod]\nbalance = 'off'", "line 6, column 2, key mod", "did you mean \"mode\"?"),
    (
        "[vm_policy]\nwhen = 'host.vms > 4 || host.cpu_presure > 0.1'",
        "line 7, column 25, key vm_policy.when",
        "did you mean \"host.cpu_pressure\"?",
    ),
    ("[hot]\ncpu_used = 80", "line 7, column 12, key hot.cpu_used", "such as \"80%\""),
    ("[hot]\ncpu_used = true", "line 7, column 12, key hot.cpu_used", "such as \"80%\""),
    (
        "[admission]\naccept = 'host.cpu_used < 80'",
        "line 7, column 11, key admission.accept",
        "write 0.8 for 80 %",
    ),
    (
        "[vm_policy]\nwhen = '[1, 2].all(x, host.vms > x)'",
        "line 7, column 19, key vm_policy.when",
        "say it with ==, in, && and ||",
    ),
    ("[mode]\nbalance = \"off", "line 7, column 15", "end the text with the quote"),
    ("[mode]\nbalance = off", "line 7, column 11", "put it between quotes"),
    ("[mode\nbalance = 'off'", "line 6, column 6", "close the section's name"),
    ("[host]\nport = 7946", "line 6, column 2", "a section or key may stand once"),
    (
        "[[rules.group]]\nname = 'web'\nkind = 'anti-affinity'\nvms = ['a', 'b']\n[[rules.pin]]\nvms = ['a', 'b']\nhosts = ['host1']",
        "line 6, column 1, key rules.group",
        "host1",
    ),
    (
        "[limits]\nhours = '20:00-06:00 Europe/Nowhere'",
        "line 7, column 1, key limits.hours",
        "write \"Europe/Berlin\"",
    ),
    (
        "[api]\nlisten = 'host1:8443'",
        "line 7, column 10, key api.listen",
        "write \"198.18.0.1:8443\"",
    ),
    (
        "[api]\nlisten = '127.78.0.5:0'",
        "line 7, column 10, key api.listen",
        "no address with a port",
    ),
    ("[api]\nlisten = '0.0.0.0:7946'", "line 7, column 1, key api.listen", "write another port"),
    ("[api]\ngroup = 'two words'", "line 7, column 1, key api.group", "write \"evenkeel\""),
    ("[api]\ntls = true", "line 7, column 1, key api.tls", "unknown key"),
    ("[mode]\nbalance = 'on'", "line 7, column 11, key mode.balance", "automatic"),
];

/// Exit code, and what was said.
fn told(arguments: &[&str], file: &Path) -> (Option<i32>, String) {
    let mut command = Command::new("timeout");
    command.args(["20", env!("CARGO_BIN_EXE_evenkeeld")]).args(arguments).arg(file);
    let output = command.env("NO_COLOR", "1").output().expect("it runs");
    (
        output.status.code(),
        String::from_utf8([output.stdout, output.stderr].concat()).expect("text"),
    )
}

fn all_are_told(arguments: &[&str]) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("own.toml");
    let state = folder.path().join("state");
    let deep = format!("[vm_policy]\nwhen = '{}host.vms > 1{}'", "(".repeat(40), ")".repeat(40));
    let long = format!("[vm_policy]\nwhen = '{}'", ["host.vms > 1"; 400].join(" || "));
    let costly = [
        (&*deep, "line 7, column 33, key vm_policy.when", "say it in fewer steps"),
        (&*long, "line 7, column 9, key vm_policy.when", "say it in fewer words"),
    ];
    for (text, place, hint) in MISTAKES.into_iter().chain(costly) {
        let before = format!(
            "[cluster]\nname = 'c'\n[host]\naddress = '127.78.0.5'\nstate = '{}'\n",
            state.display()
        );
        std::fs::write(&file, before + text + "\n").expect("written");
        let (code, said) = told(arguments, &file);
        assert_eq!(code, Some(2), "{text}: {said}");
        let place = format!("{}: {place}", file.display());
        assert!(said.contains(&place) && said.contains(hint), "{place}, {hint} wanted: {said}");
        assert!(!state.exists(), "{text}: a refused start left something behind");
    }
    let (code, said) = told(arguments, &folder.path().join("not-there.toml"));
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("not-there.toml: No such file"), "{said}");
}

#[test]
fn a_check_tells_each_mistake_with_its_place_and_what_to_write() {
    all_are_told(&["--check", "--config"]);
}

#[test]
fn an_agent_does_not_start_with_any() {
    all_are_told(&["--insecure", "--config"]);
}

#[test]
fn an_agent_without_keys_does_not_start_where_copies_must_be_encrypted() {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, state) = (folder.path().join("own.toml"), folder.path().join("state"));
    let text = format!(
        "[cluster]\nname = 'c'\n[host]\naddress = '127.78.0.5'\nstate = '{}'\n[migration]\nencryption = 'required'\n",
        state.display()
    );
    std::fs::write(&file, text).expect("written");
    let (code, said) = told(&["--insecure", "--config"], &file);
    assert_eq!(code, Some(2), "{said}");
    let words = [
        "own.toml, key migration.encryption: copies cannot be encrypted without keys",
        "write \"off\"",
    ];
    assert!(words.iter().all(|words| said.contains(words)), "{said}");
    assert!(!state.exists(), "a refused start left something behind");
    // What the file says is no mistake on a host with keys.
    assert_eq!(told(&["--check", "--config"], &file).0, Some(0));
}

#[test]
fn an_agent_without_keys_does_not_serve_over_tcp() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("own.toml");
    let state = folder.path().join("state");
    let text = format!(
        "[cluster]\nname = 'c'\n[host]\naddress = '127.78.0.5'\nstate = '{}'\n[api]\nlisten = '127.78.0.5:8443'\n",
        state.display()
    );
    std::fs::write(&file, text).expect("written");
    let (code, said) = told(&["--insecure", "--config"], &file);
    assert_eq!(code, Some(2), "{said}");
    assert!(
        said.contains("own.toml, key api.listen: the API is served over TCP only with keys"),
        "{said}"
    );
    let (code, said) = told(&["--config"], &file);
    assert!(code == Some(2) && said.contains("there are no keys in"), "{said}");
    assert!(!state.exists(), "a refused start left something behind");
}
