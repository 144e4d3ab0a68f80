//! The bare machines of a move under any order of events: their `**Invariant:**` lines hold.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test")]

use std::time::Duration;

use decide::migrate::hypervisor::{
    CopyFigures, CopyParameters, CopyProgress, Endpoint, HypervisorCommand as Command,
    HypervisorReport as Report, RunState, Seen,
};
use decide::migrate::record::{MoveRecord, MoveStage, Ownership, Record, VmRecord};
use decide::migrate::{source, target};
use decide::negotiate::{self, target as offers};
use decide::units::{BitsPerSec, Bytes, Cost, HostId, JournalId, Mib, MoveId, VmId};
use decide::wire::message::{JournalMark, Standing};
use proptest::collection::vec;
use proptest::prelude::*;

const ID: MoveId = MoveId { host: HostId(1), incarnation: 1, counter: 1 };
const EPOCH: u64 = 5;

fn record(stage: MoveStage) -> MoveRecord {
    let (vm, peer, epoch, run) = (VmId(1), HostId(2), EPOCH, RunState::Running);
    let journal = JournalMark { id: JournalId(1), generation: 1, opened: 0, life: 0 };
    MoveRecord { vm, peer, epoch, run, journal, stage, definition: None, doubtful: false }
}

/// The journal as the machine's writes make it: the last one asked for ends when the test says so.
#[derive(Default)]
struct Disk {
    vm: Option<VmRecord>,
    asked: Option<Vec<Record>>,
}

impl Disk {
    fn write(&mut self) -> bool {
        let Some(records) = self.asked.take() else { return false };
        for record in records {
            if let Record::Vm(_, vm) = record {
                assert!(self.vm.is_none_or(|before| before.floor <= vm.floor), "the floor falls");
                self.vm = Some(vm);
            }
        }
        true
    }

    fn ownership(&self) -> Option<Ownership> {
        self.vm.map(|vm| vm.ownership)
    }
}

fn seen() -> impl Strategy<Value = Seen> {
    prop::sample::select(vec![
        Seen::Gone,
        Seen::Running,
        Seen::Paused,
        Seen::Incoming,
        Seen::IncomingComplete,
        Seen::Copying,
        Seen::PostMigrate,
        Seen::Unknown,
    ])
}

fn report() -> impl Strategy<Value = Report> {
    let why = String::new;
    prop_oneof![
        prop::sample::select(vec![
            Report::PreSwitchover,
            Report::SourceCompleted(CopyFigures::default()),
            Report::IncomingCompleted,
            Report::IncomingFailed(why()),
            Report::Fenced,
            Report::Discarded,
            Report::Resumed,
            Report::IncomingGone,
        ]),
        seen().prop_map(move |seen| Report::CopyFailed(why(), seen)),
        seen().prop_map(move |seen| Report::ResumeFailed(why(), seen)),
        seen().prop_map(Report::Looked),
    ]
}

/// Of a copy whose rounds stall, as a rule.
fn progress() -> impl Strategy<Value = Report> {
    (1..20_u32, prop::sample::select(vec![300_u64, 300, 300, 100])).prop_map(|(rounds, mib)| {
        let remaining = Bytes(mib << 20);
        Report::Progress(CopyProgress { rounds, remaining, ..CopyProgress::default() })
    })
}

fn standing() -> impl Strategy<Value = Standing> {
    prop::sample::select(vec![
        Standing::Running,
        Standing::OwnerNotResumed,
        Standing::OwnerCopyGone,
        Standing::Void,
        Standing::NotComplete,
        Standing::Unknown,
    ])
}

fn source_event() -> impl Strategy<Value = source::Event> {
    use source::{Event, Timer};
    prop_oneof![
        6 => Just(Event::Stored),
        1 => Just(Event::StoreFailed(String::new())),
        8 => report().prop_map(Event::Report),
        8 => progress().prop_map(Event::Report),
        3 => standing().prop_map(Event::Standing),
        2 => prop::sample::select(vec![Timer::Copy, Timer::Stall, Timer::Switch, Timer::Repeat])
            .prop_map(Event::Timeout),
        1 => Just(Event::Cancel(String::new())),
    ]
}

fn target_event() -> impl Strategy<Value = target::Event> {
    use target::{Event, Timer};
    prop_oneof![
        6 => Just(Event::Stored),
        1 => Just(Event::StoreFailed(String::new())),
        8 => report().prop_map(Event::Report),
        4 => Just(Event::HandOver(RunState::Running)),
        1 => Just(Event::Release),
        2 => prop::sample::select(vec![Timer::Arrival, Timer::Repeat]).prop_map(Event::Timeout),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_source_hands_over_only_what_is_released_and_fenced_and_discards_only_what_runs_elsewhere(
        events in vec(source_event(), 1..40), restarted in any::<bool>()
    ) {
        let owner = VmRecord { floor: EPOCH, ran: EPOCH, ownership: Ownership::Owner };
        let copy = CopyParameters { bandwidth: BitsPerSec(1), downtime_max: Duration::ZERO, multifd: false, encrypted: false, auto_converge: false, copy_disks: false };
        let to = (Endpoint::default(), copy);
        let open = record(MoveStage::Copying);
        let mut machine = if restarted {
            source::Source::recovered(ID, open, owner)
        } else {
            source::Source::new(ID, open, owner, to, Duration::from_secs(1), Duration::from_secs(1))
        };
        let mut disk = Disk { vm: Some(owner), asked: None };
        let (mut fenced, mut runs_there, mut void) = (false, false, false);
        for event in std::iter::once(source::Event::Begin).chain(events) {
            match &event {
                source::Event::Stored if !disk.write() => continue,
                source::Event::StoreFailed(_) if disk.asked.take().is_none() => continue,
                source::Event::Report(Report::Fenced) => fenced = true,
                source::Event::Standing(Standing::Running) => runs_there = true,
                source::Event::Standing(Standing::Void) => void = true,
                _ => {}
            }
            let mut actions = Vec::new();
            machine.handle(event, &mut actions);
            for action in actions {
                match action {
                    source::Action::Persist(records) => disk.asked = Some(records),
                    source::Action::HandOver => {
                        let released = matches!(disk.ownership(), Some(Ownership::Released(..)));
                        prop_assert!(released && fenced);
                    }
                    source::Action::Hypervisor(Command::Discard) => prop_assert!(runs_there),
                    source::Action::Hypervisor(Command::TakeBack(_)) => {
                        prop_assert_eq!(disk.ownership(), Some(Ownership::Owner));
                        // Once released it comes back by a void only, under a higher epoch.
                        let floor = disk.vm.unwrap().floor;
                        prop_assert!(floor == EPOCH || (void && floor > EPOCH + 1));
                    }
                    _ => {}
                }
            }
        }
    }

    #[test]
    fn a_target_resumes_only_what_it_owns_on_disk_and_says_void_only_with_the_floor_there_and_the_copy_gone(
        events in vec(target_event(), 1..40), restarted in any::<bool>()
    ) {
        let away = VmRecord { floor: 0, ran: 0, ownership: Ownership::Away };
        let open = record(MoveStage::Prepared);
        let longest = Duration::from_secs(1);
        let mut machine = if restarted {
            target::Target::recovered(ID, open, away, longest)
        } else {
            target::Target::new(ID, open, away, longest)
        };
        let mut disk = Disk { vm: Some(away), asked: None };
        let (mut gone, mut resumed, mut said) = (false, false, None);
        for event in std::iter::once(target::Event::Begin).chain(events) {
            match &event {
                target::Event::Stored if !disk.write() => continue,
                target::Event::StoreFailed(_) if disk.asked.take().is_none() => continue,
                target::Event::Report(Report::IncomingGone) => gone = true,
                target::Event::Report(Report::Resumed) => resumed = true,
                _ => {}
            }
            let mut actions = Vec::new();
            machine.handle(event, &mut actions);
            for action in actions {
                match action {
                    target::Action::Persist(records) => disk.asked = Some(records),
                    target::Action::Hypervisor(Command::Resume(_)) => {
                        prop_assert_eq!(disk.ownership(), Some(Ownership::Owner));
                        prop_assert!(disk.vm.unwrap().floor == EPOCH + 1);
                    }
                    target::Action::Standing(Standing::Void) => {
                        prop_assert!(disk.vm.unwrap().floor > EPOCH && gone);
                        prop_assert!(disk.ownership() != Some(Ownership::Owner));
                        prop_assert!(said != Some(Standing::Running));
                        said = Some(Standing::Void);
                    }
                    target::Action::Standing(Standing::Running) => {
                        prop_assert!(resumed && disk.vm.unwrap().ran == EPOCH + 1);
                        prop_assert!(said != Some(Standing::Void));
                        said = Some(Standing::Running);
                    }
                    _ => {}
                }
            }
        }
    }

    #[test]
    fn room_is_never_overcommitted_and_a_move_has_one_incoming_side(
        turns in vec((1..6u32, 0..9u8, 0..600u64, 0..50i64), 1..80)
    ) {
        let mut machine = offers::Target::new(negotiate::Limits::default());
        machine.set_room(Mib(1000), Mib(300));
        let mut prepared = std::collections::BTreeSet::new();
        for (counter, what, size, gain) in turns {
            let id = MoveId { host: HostId(u128::from(counter % 2)), counter, ..ID };
            let event = match what {
                0..=2 => offers::Event::Asked {
                    vm: VmId(u128::from(counter)),
                    size: Mib(size),
                    gain: Cost(gain),
                    delay: Duration::ZERO,
                    verdict: Ok(Cost(1)),
                },
                3 => offers::Event::Confirmed,
                4 => offers::Event::HistoryRead { verdict: Ok(Cost(1)) },
                5 => offers::Event::Prepared,
                6 => offers::Event::Release,
                7 => offers::Event::Ended,
                _ => offers::Event::Timeout(offers::Timer::Offer),
            };
            if what == 7 {
                prepared.remove(&id);
            }
            let mut actions = Vec::new();
            machine.handle(id, event, &mut actions);
            for action in actions {
                if matches!(action, offers::Action::Prepare(_)) {
                    prop_assert!(prepared.insert(id), "a second incoming side");
                }
            }
            prop_assert!(Mib(300).plus(machine.reserved()) <= Mib(1000));
        }
    }
}
