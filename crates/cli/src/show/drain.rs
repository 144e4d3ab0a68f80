//! How a host is drained: what stands in the way, what has left, what comes back.

use api::{DrainView, LeavingVm, LeftVm};

use super::table::one_line;

/// What is to come, before the first VM has left.
pub(crate) fn drain_begins(drain: &DrainView) -> String {
    let DrainView { host, here, left, stopped, .. } = drain;
    let mut lines = vec![match left.len() {
        0 => format!("{host} is being drained: {} VMs are to leave, none may come.", here.len()),
        left => {
            format!("The drain of {host} goes on: {left} VMs have left, {} are here.", here.len())
        }
    }];
    lines.extend(stopped.iter().map(|vm| {
        format!("  {} is stopped: it stays defined here, and is not started elsewhere", vm.vm)
    }));
    lines.extend(kept(here).map(|vm| format!("  {}", leaving(vm))));
    all(lines)
}

fn kept(here: &[LeavingVm]) -> impl Iterator<Item = &LeavingVm> {
    here.iter().filter(|vm| vm.state == "stays")
}

/// One VM that is still here.
pub(crate) fn leaving(vm: &LeavingVm) -> String {
    let LeavingVm { vm, state, why, move_id, .. } = vm;
    let why = why.as_deref().unwrap_or_default();
    one_line(match (state.as_str(), move_id) {
        ("moving", Some(id)) => format!("{vm} is leaving, by move {id}"),
        ("stays", _) => format!("{vm} may not leave: {why}"),
        ("waits", _) => format!("{vm} waits: {why}"),
        _ => format!("{vm} is about to leave"),
    })
}

/// One VM that has left.
pub(crate) fn has_left(vm: &LeftVm) -> String {
    one_line(format!("{} has left for {}", vm.vm, vm.to))
}

/// What becomes of a drain that nobody follows any more.
pub(crate) fn drain_goes_on(host: &str) -> String {
    one_line(format!(
        "The drain of {host} goes on. `evenkeel drain` follows it again, `evenkeel undrain` ends it."
    ))
}

/// How it stands.
pub(crate) fn drain(drain: &DrainView) -> String {
    let DrainView { host, draining, left, here, .. } = drain;
    if !draining {
        return one_line(format!("{host} is not being drained."));
    }
    let count = left.len();
    if here.is_empty() && drain.looking {
        return one_line(format!(
            "{host} is being drained: {count} VMs have left; its agent has only just begun to look for VMs."
        ));
    }
    if here.is_empty() {
        return one_line(format!("{host} is drained: {count} VMs have left, none is here."));
    }
    let mut lines = vec![if here.iter().all(|vm| vm.state == "stays") {
        format!("{host} is drained as far as can be: {count} VMs have left, {} stay:", here.len())
    } else {
        format!("{host} is being drained: {count} VMs have left, {} are here:", here.len())
    }];
    lines.extend(here.iter().map(|vm| format!("  {}", leaving(vm))));
    all(lines)
}

/// That it was ended, and how what has left comes back.
pub(crate) fn undrained(drain: &DrainView, bring_back: bool) -> String {
    let DrainView { host, left, .. } = drain;
    let mut lines = vec![format!("{host} is drained no more.")];
    let away: Vec<&LeftVm> = left.iter().filter(|vm| vm.at != *host).collect();
    match (away.len(), bring_back) {
        (0, _) => {}
        (count, false) => lines.push(format!(
            "{count} VMs left while it was drained; `evenkeel undrain --bring-back` says how they come back."
        )),
        (_, true) => {
            lines.push("Each VM is moved by the agent of the host that it is on. To bring them back, run".to_owned());
            lines.extend(away.iter().map(|vm| format!("  on {}: evenkeel move {} --to {host}", vm.at, vm.vm)));
        }
    }
    all(lines)
}

fn all(lines: Vec<String>) -> String {
    lines.into_iter().map(one_line).collect::<Vec<_>>().join("\n")
}
