//! What must come of each case: phase × fault → outcome. Written down before any case is run.
//!
//! Under libvirt the copy is complete before the switch-over, the guest paused: libvirt stops after the last round, not before it.
//! So what comes then is as after the switch-over, but for what is not yet on disk.

use super::case::{Driver, Fault, Outcome, Phase};

/// What must come of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// While the fault lasts; absent where it is over at once.
    pub meanwhile: Option<Outcome>,
    /// In the end: agents are back, cables in, disks free.
    pub end: Outcome,
}

/// One cell of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    /// A case.
    Case(Expected),
    /// There is no such case, and why.
    Absent(&'static str),
}

/// Why a case may end with no running copy.
const OUT_OF_REACH: &str = "the target cannot be reached after `released`: the VM stays paused, with an alarm, until it can (who \
    resumed the source's copy could make two)";
const IN_DOUBT: &str = "a journal that was set back neither resumes nor voids: the VM stays paused, with an alarm, until a person \
    says on which side it is (`evenkeel move resolve`)";
const ONLY_COPY_DIED: &str = "the only complete copy died: the VM is down, reported at once, its definition kept, nothing \
    started elsewhere";

/// The cell of a phase and a fault.
#[must_use]
pub fn cell(driver: Driver, phase: Phase, fault: Fault) -> Cell {
    let own = if driver == Driver::Libvirt { under_libvirt(phase, fault) } else { None };
    own.unwrap_or_else(|| under_qemu(phase, fault))
}

/// The cells in which libvirt differs.
fn under_libvirt(phase: Phase, fault: Fault) -> Option<Cell> {
    use Outcome::{GoesOn, Moved, Paused, Stays, Waits};
    use Phase::{AfterSwitchOver, BeforeSwitchOver, Copying, Done, Ready};
    let lasting = |meanwhile, end| Cell::Case(Expected { meanwhile: Some(meanwhile), end });
    let at_once = |end| Cell::Case(Expected { meanwhile: None, end });
    Some(match (fault, phase) {
        // The copy is complete, and whoever comes back goes on with it.
        (Fault::SourceAgent | Fault::BothAgents, BeforeSwitchOver) => lasting(Waits, Moved),
        // libvirt held it until it ended: nobody let it run since, so the target's copy is the newest.
        (Fault::SourceQemu, BeforeSwitchOver) => at_once(Moved),
        (Fault::TargetUnheard, BeforeSwitchOver) => lasting(Moved, Moved),
        (Fault::TargetDeaf | Fault::TargetCut, BeforeSwitchOver) => lasting(Paused, Moved),
        (Fault::ReturnPath, BeforeSwitchOver) => Cell::Absent("the copy is complete"),
        // Both sides hold a complete copy; a person ends the one that no journal knows of.
        (Fault::SourceJournal, BeforeSwitchOver) => lasting(Paused, Moved),
        // It waits for libvirt's job, and then there is nothing to resume.
        (Fault::Cont, BeforeSwitchOver) => at_once(Moved),
        // QEMU goes on by itself; the daemon, when it is back, cancels a copy, and keeps a complete one paused.
        (Fault::SourceLibvirt, Copying) => lasting(GoesOn, Stays),
        (Fault::SourceLibvirt, BeforeSwitchOver) => lasting(Waits, Moved),
        (Fault::SourceLibvirt, AfterSwitchOver | Done) => lasting(Moved, Moved),
        (Fault::SourceLibvirt, _) => lasting(Stays, Stays),
        // The copy goes to QEMU itself. The daemon, when it is back, ends an incoming side that it had not finished.
        (Fault::TargetLibvirt, Ready) => lasting(Paused, Stays),
        (Fault::TargetLibvirt, Copying) => lasting(GoesOn, Stays),
        (Fault::TargetLibvirt, BeforeSwitchOver | AfterSwitchOver) => lasting(Paused, Moved),
        (Fault::TargetLibvirt, Done) => lasting(Moved, Moved),
        (Fault::TargetLibvirt, _) => lasting(Stays, Stays),
        _ => return None,
    })
}

#[expect(clippy::wildcard_enum_match_arm, reason = "most phases come out alike")]
fn under_qemu(phase: Phase, fault: Fault) -> Cell {
    use Outcome::{Down, GoesOn, Moved, Paused, Stays, Waits};
    use Phase::{AfterSwitchOver, BeforeSwitchOver, Copying, Done, Ready, Request};
    let lasting = |meanwhile, end| Cell::Case(Expected { meanwhile: Some(meanwhile), end });
    let at_once = |end| Cell::Case(Expected { meanwhile: None, end });
    let released = phase >= AfterSwitchOver;
    match fault {
        // Nothing promised: the VM stays. Once `released` is on disk the hand-over goes on when the agent is back.
        Fault::SourceAgent | Fault::BothAgents => match phase {
            BeforeSwitchOver => lasting(Waits, Stays),
            AfterSwitchOver => lasting(Waits, Moved),
            Done => lasting(Moved, Moved),
            _ => lasting(Stays, Stays),
        },
        // A copy needs no agent at the target; the hand-over waits for it.
        Fault::TargetAgent => match phase {
            Copying => lasting(GoesOn, Moved),
            Ready | BeforeSwitchOver | AfterSwitchOver => lasting(Paused, Moved),
            Done => lasting(Moved, Moved),
            _ => lasting(Stays, Stays),
        },
        Fault::SourceQemu if released => at_once(Moved),
        Fault::SourceQemu => at_once(Down),
        Fault::TargetQemu if phase < Ready => Cell::Absent("there is no QEMU at the target yet"),
        Fault::TargetQemu if phase == Done => at_once(Down),
        // Void once its side is proven gone; after `released` the source takes the VM back under the epoch after next.
        Fault::TargetQemu => at_once(Stays),
        Fault::TargetUnheard | Fault::TargetDeaf | Fault::TargetCut => match phase {
            Done => lasting(Moved, Moved),
            // The hand-over is heard, only the answer is not.
            AfterSwitchOver if fault == Fault::TargetUnheard => lasting(Moved, Moved),
            AfterSwitchOver => lasting(Paused, Moved),
            _ => lasting(Stays, Stays),
        },
        // Room for all records of a move was made on disk before.
        Fault::SourceDisk | Fault::TargetDisk => lasting(Moved, Moved),
        Fault::ReturnPath => match phase {
            Copying | BeforeSwitchOver => lasting(Stays, Stays),
            _ => Cell::Absent("no copy is under way"),
        },
        Fault::Replies => match phase {
            Ready | Copying | BeforeSwitchOver | AfterSwitchOver | Done => lasting(Moved, Moved),
            _ => lasting(Stays, Stays),
        },
        // In doubt nothing is resumed, voided or discarded: a person decides, by `move resolve`.
        Fault::SourceJournal => match phase {
            // Nobody knows of the copy any more: a person cancels it.
            Copying => lasting(Stays, Stays),
            BeforeSwitchOver => lasting(Paused, Stays),
            AfterSwitchOver => lasting(Paused, Moved),
            Done => lasting(Moved, Moved),
            _ => Cell::Absent("nothing of the move is in that journal yet"),
        },
        Fault::TargetJournal => match phase {
            Ready | Copying | BeforeSwitchOver | AfterSwitchOver => lasting(Paused, Stays),
            Done => lasting(Moved, Moved),
            _ => Cell::Absent("nothing of the move is in that journal yet"),
        },
        Fault::Cont if released => at_once(Moved),
        Fault::Cont if phase == Request => Cell::Absent("the guest runs already"),
        Fault::Cont => Cell::Absent("the guest runs already, or QEMU itself refuses"),
        Fault::SourceLibvirt | Fault::TargetLibvirt => Cell::Absent("there is no libvirt"),
    }
}

/// Why a case with this outcome has no running copy; none if it must have one.
#[must_use]
pub fn rule(fault: Fault, outcome: Outcome) -> Option<&'static str> {
    match outcome {
        Outcome::Paused if [Fault::SourceJournal, Fault::TargetJournal].contains(&fault) => {
            Some(IN_DOUBT)
        }
        Outcome::Paused => Some(OUT_OF_REACH),
        Outcome::Down => Some(ONLY_COPY_DIED),
        Outcome::Moved | Outcome::Stays | Outcome::GoesOn | Outcome::Waits | Outcome::Other => None,
    }
}

/// All cases, phase by phase, and the cells that are none.
#[must_use]
pub fn all(driver: Driver) -> Vec<(Phase, Fault, Cell)> {
    let of_phase = |phase: &Phase| {
        let phase = *phase;
        Fault::of(driver).map(move |fault| (phase, fault, cell(driver, phase, fault)))
    };
    Phase::ALL.iter().flat_map(of_phase).collect()
}

/// The table as docs/faults.md shows it: while the fault lasts, and what then comes of it where that is something else.
#[must_use]
pub fn markdown(driver: Driver) -> String {
    let head: Vec<String> = Phase::ALL.iter().map(ToString::to_string).collect();
    let mut lines = vec![
        format!("| fault | {} |", head.join(" | ")),
        format!("|---|{}", "---|".repeat(head.len())),
    ];
    for fault in Fault::of(driver) {
        let of = |phase: &Phase| match cell(driver, *phase, fault) {
            Cell::Absent(_) => "–".to_owned(),
            Cell::Case(Expected { meanwhile: Some(first), end }) if first != end => {
                format!("{first} → {end}")
            }
            Cell::Case(Expected { end, .. }) => end.to_string(),
        };
        let cells: Vec<String> = Phase::ALL.iter().map(of).collect();
        lines.push(format!("| {fault} | {} |", cells.join(" | ")));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRIVERS: [Driver; 2] = [Driver::Qemu, Driver::Libvirt];

    #[test]
    fn the_documentation_has_these_tables() {
        let docs = include_str!("../../../../docs/faults.md");
        for table in DRIVERS.map(markdown) {
            assert!(docs.contains(&table), "docs/faults.md should have:\n{table}");
        }
    }

    #[test]
    fn there_are_more_than_forty_cases_and_each_phase_has_some() {
        let cases = |phase: Phase| {
            let all = all(Driver::Qemu);
            all.iter().filter(|(p, _, c)| *p == phase && matches!(c, Cell::Case(_))).count()
        };
        let counts: Vec<usize> = Phase::ALL.iter().map(|phase| cases(*phase)).collect();
        assert!(counts.iter().sum::<usize>() >= 75 && counts.iter().all(|n| *n >= 9), "{counts:?}");
    }

    #[test]
    fn in_the_end_a_vm_runs_or_is_down() {
        for (phase, fault, cell) in DRIVERS.map(all).concat() {
            if let Cell::Case(Expected { end, .. }) = cell {
                let good = [Outcome::Moved, Outcome::Stays, Outcome::Down].contains(&end);
                assert!(good, "{phase}, {fault}: {end}");
            }
        }
    }
}
