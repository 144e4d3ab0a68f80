//! A copy that does not follow its guest: a longer pause is allowed step by step, then the move is undone, with the VM where it was.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use decide::migrate::hypervisor::{
    CopyParameters, CopyProgress, Endpoint, HypervisorCommand as Command,
    HypervisorReport as Report, RunState, Seen,
};
use decide::migrate::record::{MoveRecord, MoveStage, Ownership, VmRecord};
use decide::migrate::source::{Action, Event, Outcome, Phase, Source, Timer};
use decide::units::{BitsPerSec, Bytes, HostId, MoveId, VmId};
use decide::wire::message::{JournalMark, Standing};

const ID: MoveId = MoveId { host: HostId(1), incarnation: 1, counter: 1 };

/// In the midst of a copy with a pause of 100 ms, of which half a second may become.
fn copying(auto_converge: bool) -> Source {
    let copy = CopyParameters {
        bandwidth: BitsPerSec(1),
        downtime_max: Duration::from_millis(100),
        multifd: false,
        encrypted: false,
        auto_converge,
        copy_disks: false,
    };
    let record = MoveRecord {
        vm: VmId(1),
        peer: HostId(2),
        epoch: 5,
        run: RunState::Running,
        journal: JournalMark::default(),
        stage: MoveStage::Copying,
        definition: None,
        doubtful: false,
    };
    let owner = VmRecord { floor: 5, ran: 5, ownership: Ownership::Owner };
    let (to, pause_max) = ((Endpoint::default(), copy), Duration::from_millis(500));
    let mut source = Source::new(ID, record, owner, to, Duration::from_secs(60), pause_max);
    for event in [Event::Begin, Event::Stored] {
        source.handle(event, &mut Vec::new());
    }
    assert_eq!(source.phase(), Phase::Copying);
    source
}

fn tell(source: &mut Source, event: Event) -> Vec<Action> {
    let mut actions = Vec::new();
    source.handle(event, &mut actions);
    actions
}

/// A round begins with so many MiB left.
fn round(source: &mut Source, rounds: u32, mib: u64) -> Vec<Action> {
    let remaining = Bytes(mib << 20);
    let progress = CopyProgress { rounds, remaining, ..CopyProgress::default() };
    tell(source, Event::Report(Report::Progress(progress)))
}

fn pause(milliseconds: u64) -> Vec<Action> {
    vec![Action::Hypervisor(Command::AllowPause(Duration::from_millis(milliseconds)))]
}

/// Up to where nothing is left to do.
fn stalled(source: &mut Source) {
    assert_eq!((round(source, 1, 1000), round(source, 2, 300)), (vec![], vec![]));
    assert_eq!(round(source, 3, 300), []);
    for (rounds, allowed) in [(4, 200), (5, 300), (6, 400), (7, 500)] {
        assert_eq!(round(source, rounds, 300), pause(allowed));
    }
}

#[test]
fn a_copy_that_stalls_is_allowed_a_longer_pause_and_is_given_up_when_that_does_not_help() {
    let mut source = copying(false);
    stalled(&mut source);
    assert_eq!((round(&mut source, 8, 300), round(&mut source, 9, 300)), (vec![], vec![]));
    let [Action::Arm(Timer::Stall, after)] = round(&mut source, 10, 300)[..] else {
        panic!("it is given some time")
    };
    assert!(after >= Duration::from_secs(5), "guests write in bursts");
    assert_eq!(round(&mut source, 11, 300), [], "once");
    let actions = tell(&mut source, Event::Timeout(Timer::Stall));
    assert!(actions.contains(&Action::Hypervisor(Command::CancelCopy)), "{actions:?}");
    let failed = Report::CopyFailed("cancelled".to_owned(), Seen::Running);
    tell(&mut source, Event::Report(failed));
    tell(&mut source, Event::Standing(Standing::Void));
    let actions = tell(&mut source, Event::Stored);
    let over = actions.iter().find_map(|action| {
        let Action::Over(Outcome::Undone(why)) = action else { return None };
        Some(why.clone())
    });
    let why = over.unwrap_or_else(|| panic!("{actions:?}"));
    assert!(why.contains("faster than the copy follows") && why.contains("500ms"), "{why}");
}

#[test]
fn one_that_follows_again_goes_on() {
    let mut source = copying(false);
    stalled(&mut source);
    for rounds in 8..11 {
        round(&mut source, rounds, 300);
    }
    assert_eq!(round(&mut source, 11, 100), []);
    assert_eq!(round(&mut source, 12, 50), [Action::Disarm(Timer::Stall)]);
    // The timer's last word may have been on its way.
    assert_eq!(tell(&mut source, Event::Timeout(Timer::Stall)), []);
    assert_eq!(source.phase(), Phase::Copying);
}

#[test]
fn one_whose_guest_is_slowed_down_has_all_of_its_time() {
    let mut source = copying(true);
    stalled(&mut source);
    for rounds in 8..30 {
        assert_eq!(round(&mut source, rounds, 300), []);
    }
    tell(&mut source, Event::Timeout(Timer::Copy));
    assert_eq!(source.phase(), Phase::Cancelling);
}

#[test]
fn nothing_is_allowed_once_the_guest_is_paused() {
    let mut source = copying(false);
    for rounds in 1..4 {
        round(&mut source, rounds, 300);
    }
    tell(&mut source, Event::Report(Report::PreSwitchover));
    assert_eq!(round(&mut source, 5, 300), []);
}
