//! `evenkeel apply`: carries out what is planned, one move after another, each as far as it still holds when its turn comes.
//!
//! The moves are the agent's. If this command ends, the one that is under way goes on, and no other begins.

use std::process::ExitCode;

use api::client::Client;
use api::{ApplyRequest, MoveView};
use serde::Serialize;

use crate::moving::{until_whole, was_made};
use crate::screen::Screen;
use crate::{REFUSED, show};

/// What came of all.
#[derive(Debug, Serialize)]
pub(crate) struct Carried {
    /// What came of each VM, in its order.
    pub(crate) vms: Vec<CarriedVm>,
    /// Why there was nothing to do.
    pub(crate) nothing: Option<String>,
}

/// What came of one.
#[derive(Debug, Serialize)]
pub(crate) struct CarriedVm {
    /// Its name, or as it was named.
    pub(crate) vm: String,
    /// Why no move of it was begun.
    pub(crate) skipped: Option<String>,
    /// Its move, over.
    pub(crate) ended: Option<MoveView>,
}

/// Carries out what was `wanted`: numbers of the plan shown last, names or UUIDs; nothing: all that is planned now.
///
/// # Errors
///
/// When a number means nothing, the agent cannot be asked, or standard output cannot be written.
pub(crate) async fn run(
    client: &Client,
    screen: &mut Screen,
    wanted: Vec<String>,
    no_wait: bool,
) -> anyhow::Result<ExitCode> {
    let mut nothing = None;
    let wanted = if wanted.is_empty() {
        let plan = client.plan().await?;
        nothing = plan.moves.is_empty().then_some(plan.held.unwrap_or(plan.end));
        plan.moves.into_iter().map(|planned| planned.vm_id).collect()
    } else {
        meant(client, wanted).await?
    };
    if no_wait && nothing.is_none() {
        let applied = client.apply(&ApplyRequest { vms: wanted }).await?;
        screen.show(&applied, |applied, _| show::applied(applied))?;
        let refused = applied.vms.iter().any(|vm| vm.refused.is_some());
        return Ok(if refused { ExitCode::from(REFUSED) } else { ExitCode::SUCCESS });
    }
    let mut carried = Carried { vms: Vec::new(), nothing };
    for vm in wanted {
        let applied = client.apply(&ApplyRequest { vms: vec![vm] }).await?;
        for one in applied.vms {
            let ended = match &one.move_id {
                Some(id) => Some(until_whole(client, id).await?),
                None => None,
            };
            carried.vms.push(CarriedVm { vm: one.vm, skipped: one.refused, ended });
        }
    }
    screen.show(&carried, |carried, _| show::carried(carried))?;
    let made = |vm: &CarriedVm| vm.ended.as_ref().is_some_and(was_made);
    Ok(if carried.vms.iter().all(made) { ExitCode::SUCCESS } else { ExitCode::from(REFUSED) })
}

/// UUIDs in place of numbers; each VM once.
async fn meant(client: &Client, wanted: Vec<String>) -> anyhow::Result<Vec<String>> {
    if wanted.iter().all(|text| number(text).is_none()) {
        return resolved(wanted, &[], &[]).map_err(anyhow::Error::msg);
    }
    let (plan, vms) = (client.shown_plan().await?, client.vms().await?);
    let planned: Vec<(u32, &str)> = plan.moves.iter().map(|it| (it.number, &*it.vm_id)).collect();
    let vms: Vec<(&str, &str)> = vms.iter().map(|vm| (&*vm.name, &*vm.id)).collect();
    resolved(wanted, &planned, &vms).map_err(anyhow::Error::msg)
}

/// By the numbers that are `planned`, and the names and UUIDs of the VMs here: a number that is a name too must not move a VM that
/// nobody meant.
fn resolved(
    wanted: Vec<String>,
    planned: &[(u32, &str)],
    vms: &[(&str, &str)],
) -> Result<Vec<String>, String> {
    let mut all: Vec<String> = Vec::new();
    for text in wanted {
        let vm = match number(&text) {
            None => text,
            Some(n) => {
                if let Some((_, id)) = vms.iter().find(|(name, _)| *name == text) {
                    return Err(format!(
                        "{text} could be a number of the plan or the VM of that name; nothing was begun: write {id} for the VM"
                    ));
                }
                let found = planned.iter().find(|(planned, _)| *planned == n);
                found.map(|(_, id)| (*id).to_owned()).ok_or_else(|| unknown(n, planned.len()))?
            }
        };
        if !all.contains(&vm) {
            all.push(vm);
        }
    }
    Ok(all)
}

fn number(text: &str) -> Option<u32> {
    text.parse().ok()
}

fn unknown(number: u32, planned: usize) -> String {
    let has = match planned {
        0 => "no move".to_owned(),
        1 => "number 1 only".to_owned(),
        n => format!("numbers 1 to {n}"),
    };
    format!(
        "the plan that was shown last has no number {number}, but {has}; nothing was begun: look at `evenkeel plan` anew"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_a_vm_of_the_plan_unless_a_vm_here_is_named_so() {
        let meant = |wanted: &[&str]| {
            let wanted = wanted.iter().map(|text| (*text).to_owned()).collect();
            resolved(wanted, &[(1, "id-a"), (2, "id-b")], &[("2", "id-c"), ("a", "id-a")])
        };
        assert_eq!(meant(&["web", "1", "web"]).unwrap(), ["web", "id-a"]);
        let why = meant(&["1", "2"]).unwrap_err();
        assert!(why.ends_with("nothing was begun: write id-c for the VM"), "{why}");
        assert!(meant(&["3"]).unwrap_err().contains("no number 3, but numbers 1 to 2"));
    }
}
