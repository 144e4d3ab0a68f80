//! Whatever ends the outer process, nothing of the sandbox is left.

#![expect(clippy::print_stdout, reason = "the victim tells its parent what it has")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use lab::hosts::Network;
use lab::{folder, sandbox, wait};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

const VICTIM: &str = "LAB_TEST_VICTIM";
const KINDS: [&str; 5] = ["net", "mnt", "pid", "uts", "ipc"];

/// The namespaces of a process, such as `net:[4026532567]`.
fn namespaces(process: &str) -> BTreeSet<String> {
    let links = KINDS.map(|kind| fs::read_link(format!("/proc/{process}/ns/{kind}")));
    links.into_iter().flatten().map(|link| link.to_string_lossy().into_owned()).collect()
}

/// A zombie has given up all that it had, and waits only for whoever inherited it; on some machines for long.
fn is_zombie(process: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'))
}

/// Processes that live in one of `namespaces`, and namespaces that a mount keeps.
fn left_of(namespaces_of_victim: &BTreeSet<String>) -> anyhow::Result<Vec<String>> {
    let mut left = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.bytes().all(|byte| byte.is_ascii_digit())
            && !namespaces(&name).is_disjoint(namespaces_of_victim)
            && !is_zombie(&name)
        {
            left.push(format!("process {name}"));
        }
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    left.extend(
        namespaces_of_victim
            .iter()
            .filter(|name| mounts.contains(*name))
            .map(|name| format!("mount {name}")),
    );
    Ok(left)
}

/// Whether somebody holds the lock of a run's folder, if it is still there.
fn is_locked(folder: &str) -> bool {
    fs::File::open(Path::new(folder).join("lock")).is_ok_and(|lock| lock.try_lock().is_err())
}

/// The victim: makes hosts, says what it has, and waits to be killed.
async fn be_victim() -> anyhow::Result<()> {
    let network = Network::new(2)?;
    let mut all = namespaces("self");
    for host in network.hosts() {
        all.extend(namespaces(&host.namespace().pid().to_string()));
        // An orphan that nobody but the sandbox can end.
        let orphan = host.command("setsid").args(["--fork", "sleep", "1000"]).status()?;
        ensure!(orphan.success(), "setsid failed");
    }
    for namespace in &all {
        println!("victim namespace {namespace}");
    }
    println!("victim folder {}", network.folder().display());
    println!("victim ready");
    std::future::pending().await
}

/// The victim's outer process: ended with the test, however the test ends.
struct Victim(Child);

impl Drop for Victim {
    fn drop(&mut self) {
        let _ended_already = self.0.kill();
        let _reaped_already = self.0.wait();
    }
}

/// Starts the victim in a process group of its own; gives it, its namespaces and its folder.
fn start_victim(test: &str) -> anyhow::Result<(Victim, BTreeSet<String>, String)> {
    let victim = Command::new(std::env::current_exe()?)
        .args([test, "--exact", "--nocapture"])
        .env(VICTIM, "1")
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()?;
    let mut victim = Victim(victim);
    let (mut own, mut folder) = (BTreeSet::new(), String::new());
    for line in BufReader::new(victim.0.stdout.take().context("no pipe")?).lines() {
        let line = line?;
        // The test runner may have begun the line.
        let Some((_, said)) = line.split_once("victim ") else { continue };
        match said.split_once(' ') {
            Some(("namespace", name)) => {
                own.insert(name.to_owned());
            }
            Some(("folder", path)) => path.clone_into(&mut folder),
            Some(_) | None => break,
        }
    }
    let outside = namespaces("self");
    ensure!(own.is_disjoint(&outside), "the sandbox shares a namespace with the machine");
    ensure!(own.len() >= KINDS.len() + 2 * 3, "hosts share namespaces: {own:?}");
    ensure!(left_of(&own)?.len() >= 6, "the victim's processes are not seen");
    Ok((victim, own, folder))
}

fn nothing_is_left_after(
    test: &str,
    kill: impl FnOnce(Pid) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    if std::env::var_os(VICTIM).is_some() {
        sandbox::test(test, be_victim);
        return Ok(());
    }
    lab::setup::ensure(&mut |_step| {})?;
    let (mut victim, own, folder) = start_victim(test)?;
    let _run_beside = folder::RunFolder::new()?;
    ensure!(Path::new(&folder).is_dir(), "another run removed {folder} of a living one");
    kill(Pid::from_child(&victim.0))?;
    victim.0.wait()?;
    // A process that ends loses its namespaces first, and closes its files, and with them the lock, a moment later.
    let gone = wait::until(Duration::from_secs(5), "the sandbox gone", || {
        Ok((left_of(&own)?.is_empty() && !is_locked(&folder)).then_some(()))
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(gone).with_context(|| format!("left are {:?}", left_of(&own)))?;
    // Any run may remove it from here on, one beside this test too; after the next one it is gone for sure.
    let _next_run = folder::RunFolder::new()?;
    ensure!(!Path::new(&folder).exists(), "the next run left {folder}");
    Ok(())
}

#[test]
fn nothing_is_left_after_sigkill() -> anyhow::Result<()> {
    nothing_is_left_after("nothing_is_left_after_sigkill", |pid| {
        Ok(kill_process(pid, Signal::KILL)?)
    })
}

#[test]
fn nothing_is_left_after_ctrl_c() -> anyhow::Result<()> {
    nothing_is_left_after("nothing_is_left_after_ctrl_c", |group| {
        Ok(kill_process_group(group, Signal::INT)?)
    })
}

#[test]
fn the_exit_code_comes_through_and_orphans_are_reaped() {
    sandbox::test("the_exit_code_comes_through_and_orphans_are_reaped", async || {
        let orphan = Command::new("setsid").args(["--fork", "true"]).status()?;
        ensure!(orphan.success(), "setsid failed");
        wait::until(Duration::from_secs(5), "no process but init and this one", || {
            let numbered = fs::read_dir("/proc")?
                .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
            Ok((numbered.count() == 2).then_some(()))
        })
        .await?;
        Ok(())
    });
}
