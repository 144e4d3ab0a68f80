//! A last round that goes wrong: what may be let run, and what may not be ended. Each of these was found by a model check
//! (`crates/sim/tests/model`).
#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use decide::migrate::hypervisor::{
    CopyFigures, CopyParameters, Endpoint, HypervisorCommand as Command,
    HypervisorReport as Report, RunState, Seen,
};
use decide::migrate::record::{MoveRecord, MoveStage, Ownership, VmRecord};
use decide::migrate::{source, target};
use decide::units::{BitsPerSec, HostId, JournalId, MoveId, VmId};
use decide::wire::message::{JournalMark, Standing};

const ID: MoveId = MoveId { host: HostId(1), incarnation: 1, counter: 1 };
const EPOCH: u64 = 5;
const OWNER: VmRecord = VmRecord { floor: EPOCH, ran: EPOCH, ownership: Ownership::Owner };
const AWAY: VmRecord = VmRecord { floor: 0, ran: 0, ownership: Ownership::Away };

fn record(stage: MoveStage) -> MoveRecord {
    let (vm, peer, epoch, run) = (VmId(1), HostId(2), EPOCH, RunState::Running);
    let journal = JournalMark { id: JournalId(1), generation: 1, ..JournalMark::default() };
    MoveRecord { vm, peer, epoch, run, journal, stage, definition: None, doubtful: false }
}

fn source_after(events: impl IntoIterator<Item = source::Event>) -> source::Source {
    let bandwidth = BitsPerSec(1);
    let copy = CopyParameters {
        bandwidth,
        downtime_max: Duration::ZERO,
        multifd: false,
        encrypted: false,
        auto_converge: false,
        copy_disks: false,
    };
    let (open, to) = (record(MoveStage::Copying), (Endpoint::default(), copy));
    let mut machine =
        source::Source::new(ID, open, OWNER, to, Duration::from_secs(1), Duration::ZERO);
    for event in std::iter::once(source::Event::Begin).chain(events) {
        machine.handle(event, &mut Vec::new());
    }
    machine
}

fn target_after(events: impl IntoIterator<Item = target::Event>) -> target::Target {
    let open = record(MoveStage::Prepared);
    let mut machine = target::Target::new(ID, open, AWAY, Duration::from_secs(1));
    for event in [target::Event::Begin, target::Event::Stored].into_iter().chain(events) {
        machine.handle(event, &mut Vec::new());
    }
    machine
}

fn tell(machine: &mut source::Source, event: source::Event) -> Vec<source::Action> {
    let mut actions = Vec::new();
    machine.handle(event, &mut actions);
    actions
}

fn hear(machine: &mut target::Target, event: target::Event) -> Vec<target::Action> {
    let mut actions = Vec::new();
    machine.handle(event, &mut actions);
    actions
}

/// It asks, and neither promises nor discards.
fn only_asks(actions: &[source::Action]) -> bool {
    actions.contains(&source::Action::Inquire)
        && !actions.iter().any(|action| {
            use source::Action::{HandOver, Hypervisor, Persist, Release};
            matches!(action, HandOver | Release | Persist(_) | Hypervisor(_))
        })
}

fn gone() -> source::Event {
    source::Event::Report(Report::CopyFailed("killed".to_owned(), Seen::Gone))
}

#[test]
fn a_source_that_died_in_the_last_round_hands_nothing_over_for_it_may_have_run_on() {
    use source::{Event, Timer};
    let last_round = [Event::Stored, Event::Report(Report::PreSwitchover)];
    let mut machine = source_after(last_round.clone());
    assert!(only_asks(&tell(&mut machine, gone())));
    let mut cancelled = source_after(last_round);
    tell(&mut cancelled, Event::Timeout(Timer::Switch));
    assert!(only_asks(&tell(&mut cancelled, gone())));
    assert!(
        only_asks(&tell(&mut cancelled, Event::Timeout(Timer::Repeat))),
        "until it is answered"
    );
}

#[test]
fn a_source_whose_process_is_gone_after_a_restart_hands_nothing_over() {
    let mut machine = source::Source::recovered(ID, record(MoveStage::Copying), OWNER);
    tell(&mut machine, source::Event::Begin);
    let found = source::Event::Report(Report::Looked(Seen::Gone));
    assert!(only_asks(&tell(&mut machine, found)));
    assert_eq!(machine.phase(), source::Phase::Stranded);
}

#[test]
fn a_stranded_source_says_that_the_vm_is_down_once_its_target_is_void() {
    use source::{Action, Event, Outcome};
    let mut machine = source_after([Event::Stored, Event::Report(Report::PreSwitchover), gone()]);
    tell(&mut machine, Event::Standing(Standing::NotComplete));
    assert_eq!(machine.phase(), source::Phase::Stranded);
    tell(&mut machine, Event::Standing(Standing::Void));
    let actions = tell(&mut machine, Event::Stored);
    assert!(actions.iter().any(|action| matches!(action, Action::Over(Outcome::Down(_)))));
}

#[test]
fn a_copy_that_died_while_it_was_taken_back_does_not_cost_the_targets() {
    use source::Event;
    let complete = Report::SourceCompleted(CopyFigures::default());
    let mut machine = source_after([
        Event::Stored,
        Event::Report(Report::PreSwitchover),
        Event::Report(complete),
    ]);
    let actions = tell(&mut machine, Event::StoreFailed("disk full".to_owned()));
    let taken = Command::TakeBack(RunState::Running);
    assert!(actions.contains(&source::Action::Hypervisor(taken)));
    let failed = Report::ResumeFailed("killed".to_owned(), Seen::Gone);
    assert!(only_asks(&tell(&mut machine, Event::Report(failed))));
}

#[test]
fn a_guest_found_paused_after_a_restart_is_let_run_again() {
    let mut machine = source::Source::recovered(ID, record(MoveStage::Copying), OWNER);
    tell(&mut machine, source::Event::Begin);
    let actions = tell(&mut machine, source::Event::Report(Report::Looked(Seen::Paused)));
    let taken = Command::TakeBack(RunState::Running);
    assert!(actions.contains(&source::Action::Hypervisor(taken)));
}

#[test]
fn a_copy_that_is_late_is_ended_only_if_it_is_not_complete() {
    use target::{Action, Event, Phase, Timer};
    let mut machine = target_after([Event::HandOver(RunState::Running)]);
    let actions = hear(&mut machine, Event::Timeout(Timer::Arrival));
    assert!(actions.contains(&Action::Hypervisor(Command::DestroyIncomplete)));
    assert!(!actions.iter().any(|action| matches!(action, Action::Persist(_))), "nothing is void");
    hear(&mut machine, Event::Report(Report::Looked(Seen::IncomingComplete)));
    assert_eq!(machine.phase(), Phase::Owning, "the hand-over had come");
    let mut machine = target_after([Event::Timeout(Timer::Arrival)]);
    hear(&mut machine, Event::Report(Report::IncomingGone));
    assert_eq!(machine.phase(), Phase::Voiding);
}

#[test]
fn a_copy_that_died_before_it_was_let_run_is_void_and_one_that_may_have_run_is_not() {
    use target::{Action, Event, Outcome, Phase};
    let complete = Event::Report(Report::IncomingCompleted);
    let owner = [complete, Event::HandOver(RunState::Running), Event::Stored];
    let mut machine = target_after(owner.clone());
    assert_eq!(machine.phase(), Phase::Resuming);
    hear(&mut machine, Event::Report(Report::IncomingGone));
    assert_eq!(machine.phase(), Phase::Voiding);
    hear(&mut machine, Event::Stored);
    let actions = hear(&mut machine, Event::Report(Report::IncomingGone));
    assert!(actions.contains(&Action::Standing(Standing::Void)), "the source may take it back");
    let mut machine = target_after(owner);
    let failed = Report::ResumeFailed("killed".to_owned(), Seen::Gone);
    let actions = hear(&mut machine, Event::Report(failed));
    assert!(actions.iter().any(|action| matches!(action, Action::Over(Outcome::Down(_)))));
}

#[test]
fn an_inquiry_is_no_hand_over() {
    use target::{Action, Event, Phase};
    let mut machine = target_after([Event::Inquiry]);
    assert_eq!(hear(&mut machine, Event::Inquiry), [Action::Standing(Standing::NotComplete)]);
    hear(&mut machine, Event::Report(Report::IncomingCompleted));
    assert_eq!(hear(&mut machine, Event::Inquiry), [Action::Remind]);
    assert_eq!(machine.phase(), Phase::Complete);
}

#[test]
fn a_source_whose_journal_is_younger_than_the_move_does_not_let_go_of_it() {
    let first_incarnation = 2;
    assert!(!source::may_let_go(ID, first_incarnation), "the only copy may wait at the target");
    assert!(source::may_let_go(MoveId { incarnation: 2, ..ID }, first_incarnation));
}
