//! The drop-in that is shipped for libvirt's hosts: an agent with no more rights than it gives does all of its work.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context, ensure};

use crate::{DAEMON, Set, with_guest_and};

const UNIT: &str = include_str!("../../../../packaging/evenkeeld.service");
const DROP_IN: &str = include_str!("../../../../packaging/libvirt/evenkeeld.conf");

/// The capabilities that are left, in the words of setpriv: those of the unit, and those that the drop-in adds.
fn capabilities() -> anyhow::Result<String> {
    let key = "CapabilityBoundingSet=";
    let sets = [UNIT, DROP_IN].map(|text| text.lines().find_map(|line| line.strip_prefix(key)));
    let mut words = String::from("-all");
    for name in sets.iter().flatten().flat_map(|set| set.split_whitespace()) {
        let name = name.strip_prefix("CAP_").context("they are named CAP_…")?;
        words += &format!(",+{}", name.to_ascii_lowercase());
    }
    Ok(words)
}

/// Also its agents that were killed: what one alone does not see the next one takes up.
#[test]
fn an_agent_with_the_rights_of_the_drop_in_alone_does_its_work() {
    let test = "least::an_agent_with_the_rights_of_the_drop_in_alone_does_its_work";
    ensure_root_is_asked_for();
    let agent = |network: &lab::hosts::Network| {
        let (path, left) = (network.folder().join("evenkeeld"), capabilities()?);
        let rights =
            format!("--no-new-privs --inh-caps=-all --ambient-caps=-all --bounding-set={left}");
        fs::write(&path, format!("#!/bin/sh\nexec setpriv {rights} {DAEMON} \"$@\"\n"))?;
        fs::set_permissions(&path, Permissions::from_mode(0o755))?;
        Ok(path)
    };
    with_guest_and(test, &Set::default(), agent, async |bed| {
        bed.goes_there_and_back().await?;
        // A source that was killed in mid-copy stops the copy that it finds complete, by a signal.
        let id = bed.copying().await?;
        bed.cluster.kill_agent(0)?;
        bed.cluster.host(1).limit_uplink(None)?;
        bed.cluster.start_agent(0)?;
        bed.cluster.settled().await?;
        let view = bed.ended(&id).await?;
        bed.runs_only(usize::from(view.phase == "done")).await?;
        for number in 0..2 {
            let log = fs::read_to_string(bed.cluster.log(number))?;
            ensure!(!log.contains("this process lacks"), "{log}");
        }
        Ok(())
    });
}

/// The drop-in runs the agent as root, as the tests here do.
fn ensure_root_is_asked_for() {
    assert!(DROP_IN.lines().any(|line| line == "User=root"), "{DROP_IN}");
}
