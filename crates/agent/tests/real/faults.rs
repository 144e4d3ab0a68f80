//! One fault in each phase of a move; `cargo xtask faults` runs the whole table.

use std::path::Path;

use anyhow::{bail, ensure};
use lab::faults::table::{Cell, cell};
use lab::faults::{Bed, Driver, Fault, Phase};
use lab::sandbox;

use crate::bed::DAEMON;

const CASES: [(Phase, Fault); 10] = [
    (Phase::Request, Fault::SourceAgent),
    (Phase::Confirmed, Fault::TargetAgent),
    (Phase::History, Fault::BothAgents),
    (Phase::Ready, Fault::TargetDisk),
    (Phase::Copying, Fault::TargetAgent),
    (Phase::BeforeSwitchOver, Fault::SourceAgent),
    (Phase::AfterSwitchOver, Fault::TargetCut),
    (Phase::AfterSwitchOver, Fault::Cont),
    (Phase::AfterSwitchOver, Fault::SourceJournal),
    (Phase::Done, Fault::TargetQemu),
];

#[test]
fn what_breaks_in_any_phase_of_a_move_leaves_one_copy_or_says_why_none() {
    let test = "faults::what_breaks_in_any_phase_of_a_move_leaves_one_copy_or_says_why_none";
    sandbox::test(test, async || {
        for phase in Phase::ALL {
            ensure!(CASES.iter().any(|(of, _)| of == phase), "no case in phase {phase}");
        }
        let mut bed = Bed::make(Path::new(DAEMON), Driver::Qemu).await?;
        for (phase, fault) in CASES {
            let Cell::Case(expected) = cell(Driver::Qemu, phase, fault) else {
                bail!("{phase}, {fault}: no such case")
            };
            let case = bed.run(phase, fault, expected).await?;
            println!("{phase}, {fault}: {}, {} s", case.outcome, case.seconds);
            ensure!(case.ok, "{phase}, {fault}: {}", case.problem.unwrap_or_default());
        }
        Ok(())
    });
}
