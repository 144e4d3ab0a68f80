//! The phases of the gate, in order.

use std::env;
use std::io::{BufRead, BufReader, stderr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};
use lab::setup;

use super::summary::Summary;
use crate::say;

/// One phase. Test runs leave what they ended with.
pub(super) struct Phase {
    pub(super) name: &'static str,
    /// What it does, for people.
    pub(super) what: &'static str,
    pub(super) run: fn(&mut Vec<Summary>) -> anyhow::Result<()>,
}

/// Known to build with this toolchain; another one that is there already will do.
const NEXTEST: &str = "cargo-nextest@0.9.151";

/// What everything is measured by.
pub(super) const GATE: &[Phase] = FULL.split_at(8).0;

/// The gate, then the demo, attacks, the dashboard, a night, the benchmarks of dashboard and move, all faults, what needs a release build, the model checks,
/// the planted bugs and more hostile input.
pub(super) const FULL: &[Phase] = &[
    Phase {
        name: "setup",
        what: "installing what is missing",
        run: |_| install_nextest().and(setup::ensure(&mut |step| say(step))),
    },
    Phase {
        name: "bpf",
        what: "the program at the taps is what its source gives",
        run: |_| crate::bpf::check(),
    },
    Phase {
        name: "fmt",
        what: "formatting",
        run: |_| finish(cargo(&["fmt", "--all", "--", "--check"])),
    },
    Phase {
        name: "clippy",
        what: "lints",
        run: |_| finish(cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])),
    },
    Phase {
        name: "tests",
        what: "tests that need nothing but a processor",
        run: |summaries| nextest(&["--workspace", "--profile", "default"], &[], summaries),
    },
    Phase { name: "swarm", what: "fresh seeds of the simulator, for a minute", run: |_| swarm() },
    Phase {
        name: "doc",
        what: "documentation",
        run: |_| {
            let mut doc = cargo(&["doc", "--workspace", "--no-deps"]);
            doc.env("RUSTDOCFLAGS", "-D warnings");
            finish(doc)
        },
    },
    Phase { name: "real", what: "tests on namespaces and real VMs", run: real },
    Phase {
        name: "demo",
        what: "a VM that moves by itself",
        run: |_| finish(cargo(&["xtask", "demo", "--json"])),
    },
    Phase {
        name: "libvirt",
        what: "tests on libvirt, and demo, benchmark and faults on it",
        run: on_libvirt,
    },
    Phase {
        name: "attack",
        what: "what strangers and thieves try",
        run: |_| finish(cargo(&["xtask", "attack", "--json"])),
    },
    Phase {
        name: "web",
        what: "the dashboard in a browser, on three hosts with real VMs",
        run: |_| finish(cargo(&["xtask", "web", "--test", "--json"])),
    },
    Phase {
        name: "night",
        what: "what a person asks after a simulated night, on terminal and in browser",
        run: |_| finish(cargo(&["xtask", "night", "--json"])),
    },
    Phase {
        name: "dashboard",
        what: "a dashboard of 50 hosts, 1,000 VMs and 10 viewers",
        run: |_| finish(cargo(&["xtask", "bench", "dashboard", "--json"])),
    },
    Phase {
        name: "bench",
        what: "a move against the same by hand",
        run: |_| finish(cargo(&["xtask", "bench", "move", "--json"])),
    },
    Phase {
        name: "faults",
        what: "something breaks in each phase of a move",
        run: |_| finish(cargo(&["xtask", "faults", "--json"])),
    },
    Phase {
        name: "builds",
        what: "the same seeds give the same in debug and release builds",
        run: |_| same_in_both_builds(),
    },
    Phase {
        name: "dist",
        what: "the package in a clean Debian folder",
        run: |_| finish(cargo(&["xtask", "dist", "--check", "--json"])),
    },
    Phase {
        name: "newcomer",
        what: "from the package to a recommendation, as docs/install.md says",
        run: |_| finish(cargo(&["xtask", "newcomer", "--json"])),
    },
    Phase {
        name: "model",
        what: "the machines of a move under every order of events",
        run: |_| finish(cargo(&["xtask", "model", "--json"])),
    },
    Phase {
        name: "mutants",
        what: "planted bugs that the checks must find",
        run: |_| finish(cargo(&["xtask", "mutants", "--json"])),
    },
    Phase {
        name: "fuzz",
        what: "hostile input that nobody has seen before, a minute for each reader",
        run: crate::fuzz::for_a_minute,
    },
];

/// Seeds that nobody has seen before: the clock draws the first. A failure names its seed and the command that lives it again.
fn swarm() -> anyhow::Result<()> {
    let first = jiff::Timestamp::now().as_millisecond().to_string();
    say(&format!("first seed {first}"));
    finish(cargo(&["run", "-p", "sim", "--", "swarm", "--seconds", "60", "--first-seed", &first]))
}

fn same_in_both_builds() -> anyhow::Result<()> {
    let hash = |build: &[&str]| -> anyhow::Result<serde_json::Value> {
        let run =
            [&["run", "-p", "sim"], build, &["--", "swarm", "--seeds", "4", "--json"]].concat();
        let output = cargo(&run).stdout(Stdio::piped()).output().context("running cargo")?;
        ensure!(output.status.success(), "cargo {} ended with {}", run.join(" "), output.status);
        let report: serde_json::Value =
            serde_json::from_slice(&output.stdout).context("reading the swarm's report")?;
        report.get("hash").cloned().context("a swarm's report has a hash")
    };
    let (debug, release) = (hash(&[])?, hash(&["--release"])?);
    ensure!(debug == release, "the debug build gives {debug}, the release build {release}");
    Ok(())
}

/// What only a build with the driver of libvirt has.
fn on_libvirt(summaries: &mut Vec<Summary>) -> anyhow::Result<()> {
    setup::ensure_with(true, &mut |step| say(step))?;
    let features = ["--features", "agent/libvirt,lab/libvirt"];
    let of = [&["-p", "agent", "-p", "drivers", "-p", "lab"], &features[..]].concat();
    finish(cargo(&[&["clippy"], &of[..], &["--all-targets", "--", "-D", "warnings"]].concat()))?;
    nextest(&[&["--profile", "default"], &of[..], &["--lib"]].concat(), &[], summaries)?;
    // One of them types what a page says.
    finish(cargo(&["build", "-p", "cli"]))?;
    nextest(&[&["--profile", "real"], &of[..], &["--test", "libvirt"]].concat(), &[], summaries)?;
    for task in [&["demo"][..], &["bench", "move"], &["faults"]] {
        finish(cargo(&[&["xtask"], task, &["--driver", "libvirt", "--json"]].concat()))?;
    }
    Ok(())
}

fn install_nextest() -> anyhow::Result<()> {
    let mut version = cargo(&["nextest", "--version"]);
    let there = version.stderr(Stdio::null()).stdout(Stdio::null()).status();
    if there.context("running cargo")?.success() {
        return Ok(());
    }
    say("installing cargo-nextest");
    // Unoptimised: built in a fraction of the time, and its own work is little.
    finish(cargo(&["install", NEXTEST, "--locked", "--debug"]))
}

fn real(summaries: &mut Vec<Summary>) -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        let config = std::fs::read_to_string(root().join(".config/nextest.toml"))
            .context("reading .config/nextest.toml")?;
        let binaries = real_binaries(&config).join(", ");
        bail!("making network namespaces and taps needs root; not run: {binaries}. Use sudo");
    }
    nextest(&["--workspace", "--profile", "real"], &[], summaries)
}

/// The test binaries of profile `real`, as its filter names them.
fn real_binaries(config: &str) -> Vec<&str> {
    let of_real = config.split_once("[profile.real]").map_or("", |(_, section)| section);
    let filter = of_real.lines().find(|line| line.starts_with("default-filter")).unwrap_or("");
    filter.split("binary_id(").skip(1).filter_map(|rest| rest.split(')').next()).collect()
}

/// Runs tests, chosen by these arguments and told these variables, and keeps the closing line.
pub(crate) fn nextest(
    arguments: &[&str],
    variables: &[(&str, u64)],
    summaries: &mut Vec<Summary>,
) -> anyhow::Result<()> {
    let mut command = cargo(&["nextest", "run", "--color", "never"]);
    command.args(arguments);
    command.envs(variables.iter().map(|(name, value)| (name, value.to_string())));
    let mut running = command.stderr(Stdio::piped()).spawn().context("running cargo nextest")?;
    let lines = running.stderr.take().context("its standard error is a pipe")?;
    let mut closing = None;
    for line in BufReader::new(lines).split(b'\n') {
        let line =
            String::from_utf8_lossy(&line.context("reading what nextest says")?).into_owned();
        closing = Summary::read(&line).or(closing);
        say(&line);
    }
    let status = running.wait().context("waiting for nextest")?;
    let closing =
        closing.with_context(|| format!("no tests were run: nextest ended with {status}"))?;
    let good = closing.good();
    summaries.push(closing);
    ensure!(status.success() && good, "nextest ended with {status}");
    Ok(())
}

/// Cargo in this repository, as all phases call it: so that none builds again what another has built.
/// What it prints goes to standard error.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args(arguments)
        .current_dir(root())
        .env("CARGO_INCREMENTAL", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::from(stderr()));
    cargo
}

fn finish(mut command: Command) -> anyhow::Result<()> {
    let status = command.status().context("running cargo")?;
    let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
    ensure!(status.success(), "cargo {} ended with {status}", words.join(" "));
    Ok(())
}

pub(crate) fn root() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().expect("xtask lies in the repository's folder").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gate_ends_with_the_real_tests() {
        let names: Vec<&str> = GATE.iter().map(|phase| phase.name).collect();
        assert_eq!(names, ["setup", "bpf", "fmt", "clippy", "tests", "swarm", "doc", "real"]);
    }

    #[test]
    fn binaries_of_the_real_profile_are_read_from_its_filter() {
        let config = "[profile.default]\ndefault-filter = \"not binary_id(a::b)\"\n\
                      [profile.real]\ndefault-filter = \"binary_id(a::b) | binary_id(c::d)\"\n";
        assert_eq!(real_binaries(config), ["a::b", "c::d"]);
    }

    #[test]
    fn a_command_that_fails_is_named() {
        let error = finish(cargo(&["no-such-task"])).unwrap_err().to_string();
        assert!(error.starts_with("cargo no-such-task ended with exit status"), "{error}");
    }
}
