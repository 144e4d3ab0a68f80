//! Events for people.

use api::{Event, Step};

use super::figures;
use super::table::{Color, Table, cell, coloured, one_line};
use crate::screen::Look;

/// Events as a table of their own.
pub(crate) fn events(events: &[Event], look: Look) -> String {
    if events.is_empty() {
        return "No events.".to_owned();
    }
    filled(columns(look), events, look).text()
}

/// Some of the events that are followed: the `first` with a header, the later ones in line with it.
pub(crate) fn events_as_they_come(events: &[Event], first: bool, look: Look) -> String {
    let table = filled(columns(look), events, look);
    if first { table.text() } else { table.text_without_header() }
}

/// One event of a move that is being watched.
pub(crate) fn step(event: &Event) -> String {
    let peer = event.peer.as_deref().unwrap_or("");
    let cost = event.cost_percent.map(figures::cost).unwrap_or_default();
    let name = event.step.to_string();
    one_line(format!("{name:<14} {peer:<10} {cost:>9}  {}", event.reason))
}

fn columns(look: Look) -> Table {
    let mut table = Table::new(look).words_at_least("TIME (UTC)", figures::TIME_WIDTH);
    if look.wide {
        table = table.figures_at_least("SEQ", 6).words_at_least("NOTED BY", 10);
    }
    table
        .words_at_least("STEP", 13)
        .words_at_least("VM", 10)
        .words_at_least("PEER", 10)
        .figures_at_least("COST", 8)
        .words_at_least("MOVE", 13)
        .words("WHY")
}

fn filled(mut table: Table, events: &[Event], look: Look) -> Table {
    for event in events {
        let mut row = vec![cell(figures::time(&event.time))];
        if look.wide {
            row.extend([cell(event.seq.to_string()), cell(&event.host)]);
        }
        row.push(coloured(event.step.to_string(), colour(event.step)));
        row.push(cell(event.vm.as_deref().unwrap_or("")));
        row.push(cell(event.peer.as_deref().unwrap_or("")));
        row.push(cell(event.cost_percent.map(figures::cost).unwrap_or_default()));
        row.push(cell(event.move_id.as_deref().unwrap_or("")));
        row.push(cell(&event.reason));
        table.row(row);
    }
    table
}

fn colour(step: Step) -> Option<Color> {
    match step {
        Step::Running | Step::Done => Some(Color::Green),
        Step::Refusal | Step::Stall | Step::Undo | Step::BadInput => Some(Color::Yellow),
        Step::Abandoned | Step::VmDown | Step::Alarm => Some(Color::Red),
        Step::Monitoring
        | Step::Doing
        | Step::Settings
        | Step::PayBack
        | Step::VmPolicy
        | Step::Request
        | Step::Acceptance
        | Step::Choice
        | Step::Confirmation
        | Step::Release
        | Step::UsageHistory
        | Step::Readiness
        | Step::Copy
        | Step::SwitchOver
        | Step::HandOver
        | Step::Adopted
        | Step::Membership => None,
    }
}
