//! Model checks of the production machines of `decide::negotiate` and `decide::migrate`: every order of messages, losses,
//! repeats and crashes, within the budgets given here. `cargo xtask model` runs them and prints what was checked.
//!
//! The counts are pinned: fewer states mean that something cannot happen any more, more that something new can.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test")]

mod check;
mod handover;
mod negotiation;

use check::{check, deep};
use handover::{Budget, HandOver};
use negotiation::Negotiation;

/// One move, no faults, no repeated orders.
const CALM: Budget = Budget {
    moves: 1,
    crashes: 0,
    power: 0,
    deaths: 0,
    writes: 0,
    copies: 0,
    cancels: 0,
    journals: 0,
    line: 1,
};

#[test]
fn a_hand_over_survives_agents_that_crash_disks_that_fail_and_copies_that_end_early() {
    let line = 1 + u8::from(deep());
    let budget = Budget { crashes: 2, writes: 1, copies: 1, cancels: 1, line, ..CALM };
    check("hand-over, crashes", HandOver { sites: 2, budget }, 242_906);
}

#[test]
fn a_hand_over_survives_hypervisors_and_hosts_that_die() {
    let budget = Budget { crashes: 1, power: 1, deaths: 1, writes: 1, ..CALM };
    check("hand-over, deaths", HandOver { sites: 2, budget }, 489_312);
}

#[test]
fn a_vm_may_move_on_while_messages_of_its_first_move_are_still_under_way() {
    let crashes = u8::from(deep());
    let budget = Budget { moves: 2, crashes, ..CALM };
    check("hand-over, third host", HandOver { sites: 3, budget }, 175_391);
}

/// Nothing out of the ordinary but what the net and the timers do.
const PLAIN: negotiation::Budget =
    negotiation::Budget { crashes: 0, refusals: 0, undelivered: 0, failures: 0, cancels: 0 };

#[test]
fn two_sources_find_their_places_at_two_targets_within_the_room_there_is() {
    let (budget, asked) = (PLAIN, [&[0, 1][..], &[1]]);
    check("negotiation", Negotiation { budget, asked, delay: false }, 370_592);
}

#[test]
fn two_sources_that_want_the_same_room_and_agents_that_crash_leave_nothing_reserved_or_begun_twice()
{
    let budget =
        negotiation::Budget { crashes: 1, refusals: 1, undelivered: 1, failures: 1, cancels: 1 };
    check("negotiation, faults", Negotiation { budget, asked: [&[0], &[0]], delay: true }, 457_303);
}

#[test]
fn a_journal_that_is_lost_or_set_back_neither_resumes_nor_discards_nor_promises() {
    let deaths = u8::from(deep());
    let budget = Budget { crashes: 1, deaths, journals: 1, ..CALM };
    check("hand-over, journals", HandOver { sites: 2, budget }, 481_624);
}
