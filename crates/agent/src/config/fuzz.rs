//! Configurations, damaged: each is gone by, or its mistake is told by line and column.

use ::fuzz::Samples;
use decide::policy::file;

use super::Config;

const LONG: &str = r#"
[cluster]
name = "c"
seeds = ["198.18.0.1", "198.18.0.3:1"]
request = "fan-out"
group = "239.255.79.46:7947"
[host]
address = "198.18.0.1"
labels = ["rack-a"]
[hot]
cpu_used = "80%"
for = "30s"
[limits]
hours = "20:00-06:00 UTC"
[vm_policy]
when = '''
host.vms > 20 // é
'''
[admission]
accept = "vm.memory_gib <= 64 && !vm.name.startsWith(\"db\")"
[[rules.group]]
name = "web"
kind = "anti-affinity"
vms = ["a", "b*"]
[[rules.pin]]
vms = ["db"]
labels = ["rack-a"]
[[rules.vm]]
name = "a"
hours = "Mo-Fr 08:00-18:00 Europe/Berlin"
[record]
size_max = "2GiB"
[api]
listen = "198.18.0.1:8443"
"#;
const LEAST: &str = "cluster.name = 'c'\nhost = { address = '::1', port = 1 }\n";
const WORDS: [&str; 24] = [
    "[",
    "]",
    "[[",
    "]]",
    "{",
    "}",
    "=",
    "\"",
    "'",
    "'''",
    "\"\"\"",
    "\n",
    "\r\n",
    ".",
    ",",
    "#",
    "\\u00e9",
    "é",
    "%",
    "GiB",
    "min",
    "inf",
    "1979-05-27T07:32:00Z",
    "host.vms",
];

/// The example with all of its settings at work.
fn example() -> String {
    let example = include_str!("../../../../packaging/evenkeel.toml");
    let line = |line: &str| match line.strip_prefix("# ") {
        Some(setting) if setting.contains(" = ") => format!("{setting}\n"),
        _ => format!("{line}\n"),
    };
    example.lines().map(line).collect()
}

fn understood(text: &str) {
    let Err(mistakes) = Config::understood(text) else { return };
    assert!(!mistakes.is_empty());
    for mistake in mistakes {
        let lines = text.matches('\n').count() + 1;
        assert!((1..=lines).contains(&mistake.line), "{mistake} of {lines} lines");
        let line = text.split('\n').nth(mistake.line - 1).unwrap();
        let columns = line.chars().count() + 1;
        assert!((1..=columns).contains(&mistake.column), "{mistake}: {columns} columns");
        assert!(!mistake.wrong.is_empty() && !mistake.to_string().contains('\n'), "{mistake}");
    }
}

#[test]
fn damaged_configurations_are_refused_by_line_and_column_or_used() {
    Samples::texts([LONG, LEAST, &example()], &WORDS).damaged(|bytes| {
        let text = String::from_utf8_lossy(bytes);
        understood(&text);
        let _ = file::settings_beside(&text, &["cluster", "host", "api"]);
    });
}
