//! Which host would take a VM that is yet to be started.

use api::BestHost;

use super::figures;
use super::table::{Table, cell, one_line};
use crate::screen::Look;

/// The best first, and what is against the others.
pub(crate) fn best_hosts(hosts: &[BestHost], look: Look) -> String {
    let mut table = Table::new(look).words("HOST").figures("COST").figures("AGE");
    if look.wide {
        table = table.words("HOST ID");
    }
    table = table.words("AGAINST IT");
    for host in hosts {
        let mut row = vec![
            cell(&host.host),
            cell(host.cost_percent.map(figures::cost).unwrap_or_default()),
            cell(host.age_seconds.map(|age| format!("{age:.0} s")).unwrap_or_default()),
        ];
        if look.wide {
            row.push(cell(&host.host_id));
        }
        row.push(cell(host.against.as_deref().unwrap_or("")));
        table.row(row);
    }
    let best = hosts.first().filter(|host| host.cost_percent.is_some());
    let verdict = best.map_or("No host would take it".to_owned(), |best| {
        format!("{} would take it at the least cost", best.host)
    });
    let end = format!("{verdict}, by what is known here. It is no reservation.");
    format!("{}\n\n{}", table.text(), one_line(end))
}
