//! VMs that are left where they are by a person's word.

use api::{Exclusion, VmTags};

use super::table::{Table, cell, one_line};
use crate::screen::Look;

/// How a VM stands after it was excluded or included.
pub(crate) fn exclusion(one: &Exclusion) -> String {
    let Exclusion { vm, host, excluded, until, rule, .. } = one;
    one_line(match (excluded, rule) {
        (true, _) => {
            let until =
                until.as_ref().map_or("for good".to_owned(), |until| format!("until {until}"));
            format!(
                "{vm} is excluded on {host} {until}: balancing and rules leave it where it is; a person can move it."
            )
        }
        (false, None) => format!("{vm} is not excluded on {host}."),
        (false, Some(rule)) => {
            format!("{vm} is not excluded by hand on {host}, but by its [rules]: {rule}.")
        }
    })
}

/// The tags of a VM, one a line.
pub(crate) fn vm_tags(of: &VmTags) -> String {
    if of.tags.is_empty() {
        return one_line(format!("{} has no tags.", of.vm));
    }
    of.tags.iter().map(|tag| one_line(tag.clone())).collect::<Vec<_>>().join("\n")
}

/// What is excluded by hand on this host.
pub(crate) fn exclusions(all: &[Exclusion], look: Look) -> String {
    if all.is_empty() {
        return "No VM is excluded by hand on this host.".to_owned();
    }
    let mut table = Table::new(look).words("VM").words("UNTIL").words("WHERE");
    if look.wide {
        table = table.words("VM ID");
    }
    for one in all {
        let until = one.until.as_deref().unwrap_or("for good");
        let place = if one.here { "here" } else { "left this host" };
        let mut row = vec![cell(&one.vm), cell(until), cell(place)];
        if look.wide {
            row.push(cell(&one.vm_id));
        }
        table.row(row);
    }
    table.text()
}
