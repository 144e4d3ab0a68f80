//! What would be moved, and what came of a plan that was applied.

use api::{Applied, Plan, PlannedMove};

use super::figures;
use super::table::{Color, Table, cell, coloured, one_line};
use crate::applying::Carried;
use crate::screen::Look;

/// What would be moved now, or why nothing.
pub(crate) fn plan(plan: &Plan, look: Look) -> String {
    let held = plan.held.as_deref();
    if plan.moves.is_empty() {
        return nothing(&plan.host, held);
    }
    let table = Table::new(look).figures("N").words("VM").words("FROM").words("TO");
    let table = table.figures("RELIEF").figures("COST").figures("COPY COST").figures("MEMORY");
    let mut table = table.figures("COPY").figures("DOWNTIME");
    if look.wide {
        table = table.words("ASKED").words("RECOMMENDED (UTC)").words("VM ID");
    }
    table = table.words("WHY");
    plan.moves.iter().for_each(|planned| table.row(row(planned, look)));
    let begin = match held {
        Some(why) => format!(
            "Nothing of it is done without a person: {why}. `evenkeel apply` carries it out."
        ),
        None => "The first is about to be moved.".to_owned(),
    };
    let end = format!("{begin} No more follow: {}.", plan.end);
    format!("{}\n\n{}", table.text(), one_line(end))
}

fn row(planned: &PlannedMove, look: Look) -> Vec<comfy_table::Cell> {
    let to = planned.likely.clone().unwrap_or_else(|| "?".to_owned());
    let copy = match planned.copy_ms {
        Some(span) => cell(figures::milliseconds(span)),
        None => coloured("would not end", Some(Color::Red)),
    };
    let choice = planned.choice.as_ref().map(|choice| format!("; {choice}")).unwrap_or_default();
    let mut row = vec![
        cell(planned.number.to_string()),
        cell(&planned.vm),
        cell(&planned.from),
        cell(to),
        cell(planned.relief_percent.map(figures::cost).unwrap_or_default()),
        cell(planned.cost_percent.map(figures::cost).unwrap_or_default()),
        cell(figures::cost(planned.copy_cost_percent)),
        cell(figures::mib(planned.memory_mib)),
        copy,
        cell(planned.downtime_ms.map_or_else(|| "?".to_owned(), figures::milliseconds)),
    ];
    if look.wide {
        let best = || format!("{}: {}", planned.asked, planned.to.join(", "));
        let asked = if planned.to.is_empty() { planned.asked.clone() } else { best() };
        row.extend([
            cell(asked),
            cell(planned.recommended.as_deref().map(figures::time).unwrap_or_default()),
            cell(&planned.vm_id),
        ]);
    }
    row.push(cell(format!("{}{choice}", planned.reason)));
    row
}

fn nothing(host: &str, why: Option<&str>) -> String {
    one_line(format!(
        "Nothing would be moved from {host}: {}.",
        why.unwrap_or("nothing is planned")
    ))
}

/// What came of each VM once all are over.
pub(crate) fn carried(carried: &Carried) -> String {
    if let Some(why) = &carried.nothing {
        return one_line(format!("Nothing was moved: {why}."));
    }
    let lines = carried.vms.iter().map(|one| match &one.ended {
        Some(ended) => super::move_ended(ended),
        None => {
            let why = one.skipped.as_deref().unwrap_or("the agent does not say why");
            one_line(format!("{} was skipped: {why}.", one.vm))
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// What came of each VM.
pub(crate) fn applied(applied: &Applied) -> String {
    if applied.vms.is_empty() {
        return nothing(&applied.host, applied.nothing.as_deref());
    }
    let lines = applied.vms.iter().map(|one| {
        let vm = &one.vm;
        one_line(match (&one.move_id, &one.refused) {
            (Some(id), _) => format!(
                "Move {id} of {vm} has begun. Follow it with `evenkeel events -f --move {id}`."
            ),
            (None, refused) => format!(
                "{vm} is not moved: {}",
                refused.as_deref().unwrap_or("the agent does not say why")
            ),
        })
    });
    lines.collect::<Vec<_>>().join("\n")
}
