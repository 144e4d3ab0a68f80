//! What docs/libvirt.md has people type about a VM's rules. How a host is set up is typed by `cargo xtask dist --check`.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::{DAEMON, with_guest};

const PAGE: &str = include_str!("../../../../docs/libvirt.md");
const PROMPT: &str = "host1# ";
const READ_MAX: Duration = Duration::from_secs(10);

/// What is typed on host1, in order; two spaces begin what is not typed.
fn typed() -> Vec<&'static str> {
    let (_, rules) = PAGE.split_once("## Rules of a VM").expect("the page has that section");
    let lines = rules.lines().filter_map(|line| line.strip_prefix(PROMPT));
    lines.map(|line| line.split_once("  ").map_or(line, |(typed, _)| typed)).collect()
}

#[test]
fn tags_are_set_as_the_page_says() {
    with_guest("docs::tags_are_set_as_the_page_says", async |bed| {
        let programs = Path::new(DAEMON).parent().context("a program lies in a folder")?;
        let command = programs.join("evenkeel");
        ensure!(command.is_file(), "{} is not there: cargo build -p cli", command.display());
        let host = bed.cluster.host(0);
        let grouped = "evenkeel:anti-affinity=web";
        for line in typed() {
            let mut shell = host.command("bash");
            let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", programs.display());
            shell.args(["-c", line]).env("PATH", path).env("LIBVIRT_DEFAULT_URI", "qemu:///system");
            let output = shell.output()?;
            let said =
                String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            ensure!(output.status.success(), "{line}: {said}");
            let wanted = match line.split_whitespace().next() {
                Some("virsh") => vec![grouped],
                _ if line.contains("copy-disks") => vec![grouped, "evenkeel:copy-disks=yes"],
                _ => vec![grouped, "evenkeel:pin=host1", "evenkeel:pin=host2"],
            };
            let deadline = tokio::time::Instant::now() + READ_MAX;
            loop {
                let mut tags = bed.cluster.api(0).vm_tags("web1").await?.tags;
                tags.sort();
                if tags == wanted {
                    break;
                }
                ensure!(tokio::time::Instant::now() < deadline, "{line}: {said}: {tags:?}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    });
}
