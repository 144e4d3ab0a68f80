//! Journals that were set back or lost, and what a person may say of moves that were open in them.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use decide::host::story::Step;
use decide::host::{Action, Ask, Event, Host, Start};
use decide::migrate::Resolution;
use decide::migrate::hypervisor::{
    HypervisorCommand as Command, HypervisorReport as Report, Needs, RunState, Seen, Sighting,
    VmDefinition,
};
use decide::migrate::record::{MoveRecord, MoveStage, Ownership, Record, VmRecord};
use decide::placement::admission::Offered;
use decide::policy::settings::Settings;
use decide::units::{Epoch, HostId, JournalId, Mib, MoveId, Time, VmId};
use decide::wire::message::{Body, JournalMark, Message, Request, Standing};
use expect_test::expect;

const VM: VmId = VmId(7);
const ID: MoveId = MoveId { host: HostId(1), incarnation: 1, counter: 1 };
const EPOCH: u64 = 5;

fn address(n: u8) -> SocketAddr {
    SocketAddr::from(([198, 18, 0, n], 7946))
}

fn mark(id: u128, opened: u64, generation: u64, life: u64) -> JournalMark {
    JournalMark { id: JournalId(id), generation, opened, life }
}

fn definition() -> VmDefinition {
    let needs = Needs { driver: "sim".to_owned(), ..Needs::default() };
    let (name, start) = ("web".to_owned(), String::new());
    VmDefinition {
        vm: VM,
        name,
        memory: Mib(128),
        vcpus: 1,
        needs,
        start,
        tags: Vec::new(),
        local_disks: Mib(0),
        witness: None,
    }
}

/// Source 1, target 2; the target's journal, when it was ready, was this.
fn open(stage: MoveStage, doubtful: bool) -> MoveRecord {
    let peer = match stage {
        MoveStage::Copying | MoveStage::HandingOver | MoveStage::TakingBack => HostId(2),
        MoveStage::Prepared | MoveStage::Owning | MoveStage::Voiding => HostId(1),
    };
    let (journal, definition) = (mark(2, 0, 10, 20), Some(definition()));
    let (vm, epoch, run) = (VM, EPOCH, RunState::Running);
    MoveRecord { vm, peer, epoch, run, journal, stage, definition, doubtful }
}

fn start(n: u8, journal: JournalMark, doubt: Option<&str>) -> Start {
    Start {
        id: HostId(u128::from(n)),
        name: format!("host{n}"),
        address: address(n),
        journal,
        doubt: doubt.map(str::to_owned),
        incarnation: 1,
        first_incarnation: 1,
        vms: BTreeMap::new(),
        moves: BTreeMap::new(),
        offered: Offered { driver: "sim".to_owned(), ..Offered::default() },
        settings: Settings::default(),
        seed: u64::from(n),
    }
}

fn with(mut start: Start, vm: VmRecord, record: Option<MoveRecord>) -> Start {
    start.vms.insert(VM, vm);
    start.moves.extend(record.map(|record| (ID, record)));
    start
}

/// Two hosts in touch with each other: gossip passes between them, all else is kept for the test.
struct Pair {
    now: Time,
    hosts: BTreeMap<u8, Host>,
    done: Vec<(u8, Action)>,
}

impl Pair {
    fn of(starts: [Start; 2]) -> Pair {
        let now = Time(1_000_000);
        let mut pair = Pair { now, hosts: BTreeMap::new(), done: Vec::new() };
        for (n, start) in [1, 2].into_iter().zip(starts) {
            pair.boot(n, start);
        }
        pair.run(5);
        pair
    }

    fn boot(&mut self, n: u8, start: Start) {
        let mut actions = Vec::new();
        self.hosts.insert(n, Host::new(start, self.now, &mut actions));
        self.done.extend(actions.into_iter().map(|action| (n, action)));
        self.tell(n, Event::Join(address(3 - n)));
    }

    fn tell(&mut self, n: u8, event: Event) {
        let mut waiting = vec![(n, event)];
        while let Some((n, event)) = waiting.pop() {
            let Some(host) = self.hosts.get_mut(&n) else { continue };
            let mut actions = Vec::new();
            host.handle(self.now, event, &mut actions);
            for action in actions {
                match action {
                    Action::Gossip { bytes, .. } => {
                        waiting.push((3 - n, Event::Gossip { from: address(n), bytes }));
                    }
                    action => self.done.push((n, action)),
                }
            }
        }
    }

    fn run(&mut self, seconds: u64) {
        for _ in 0..seconds * 10 {
            self.now = self.now.plus(Duration::from_millis(100));
            for n in [1, 2] {
                self.tell(n, Event::Tick);
            }
        }
    }

    fn say(&mut self, from: u8, to: u8, body: Body) {
        let message = Message { from: HostId(u128::from(from)), move_id: ID, body };
        self.tell(to, Event::Message(message));
    }

    fn report(&mut self, n: u8, report: Report) {
        self.tell(n, Event::Report(ID, VM, report));
    }

    /// The last write that a host asked for is on disk.
    fn stored(&mut self, n: u8) -> Vec<Record> {
        let (number, records) = self.last(n, |action| match action {
            Action::Persist { number, records } => Some((*number, records.clone())),
            _ => None,
        });
        self.tell(n, Event::Stored { number, generation: 99 });
        records
    }

    fn last<T>(&self, n: u8, wanted: impl Fn(&Action) -> Option<T>) -> T {
        let of_host = self.done.iter().rev().filter(|(at, _)| *at == n);
        of_host.filter_map(|(_, action)| wanted(action)).next().expect("it did so")
    }

    fn commands(&self, n: u8) -> Vec<&Command> {
        let of_host = self.done.iter().filter(|(at, _)| *at == n);
        let commands = of_host.filter_map(|(_, action)| match action {
            Action::Hypervisor(_, _, command) => Some(command),
            _ => None,
        });
        commands.collect()
    }

    fn answer(&self, n: u8) -> Standing {
        self.last(n, |action| match action {
            Action::Send {
                message: Message { body: Body::Standing { standing, .. }, .. }, ..
            } => Some(*standing),
            _ => None,
        })
    }

    fn alarms(&self, n: u8) -> Vec<String> {
        self.hosts[&n].alarms().iter().map(|alarm| alarm.reason.clone()).collect()
    }

    fn resolve(&mut self, n: u8, resolution: Resolution, fenced: Option<u8>) -> Result<(), String> {
        let fenced = fenced.map(|host| HostId(u128::from(host)));
        let what = Ask::Resolve { move_id: ID, resolution, fenced };
        self.tell(n, Event::Asked { number: 1, what });
        self.last(n, |action| match action {
            Action::Reply { answer, .. } => Some(answer.clone().map(drop)),
            _ => None,
        })
    }
}

fn vm(floor: u64, ownership: Ownership) -> VmRecord {
    VmRecord { floor, ran: if ownership == Ownership::Owner { floor } else { 0 }, ownership }
}

fn hand_over(journal: JournalMark) -> Body {
    let epoch = Epoch { number: EPOCH + 1, owner: HostId(2) };
    Body::HandOver { vm: VM, epoch, run: RunState::Running, journal }
}

fn standing(standing: Standing, journal: JournalMark) -> Body {
    let epoch = Epoch { number: EPOCH + 1, owner: HostId(2) };
    Body::Standing { vm: VM, epoch, standing, journal: Some(journal) }
}

/// A target that found its journal set back, with a complete copy.
fn doubting_target() -> Pair {
    let target = start(2, mark(2, 10, 11, 21), Some("the journal was set back"));
    let target = with(target, vm(0, Ownership::Away), Some(open(MoveStage::Prepared, true)));
    let mut pair = Pair::of([start(1, mark(1, 0, 5, 10), None), target]);
    pair.report(2, Report::Looked(Seen::IncomingComplete));
    pair
}

/// A source that has released the VM and told so.
fn handing_over() -> Pair {
    let released = vm(EPOCH + 1, Ownership::Released(HostId(2), ID));
    let source = with(
        start(1, mark(1, 0, 5, 10), None),
        released,
        Some(open(MoveStage::HandingOver, false)),
    );
    let mut pair = Pair::of([source, start(2, mark(2, 0, 10, 20), None)]);
    pair.report(1, Report::Fenced);
    pair
}

#[test]
fn a_target_in_doubt_neither_resumes_nor_promises_nor_ends_anything() {
    let mut pair = doubting_target();
    pair.say(1, 2, hand_over(mark(2, 0, 10, 20)));
    assert_eq!(pair.answer(2), Standing::Unknown);
    pair.say(1, 2, Body::Release);
    pair.report(2, Report::IncomingCompleted);
    pair.run(1000);
    assert_eq!(pair.commands(2), [&Command::Look]);
    expect![[r#"
        [
            "the journal was set back",
            "the journal was set back while this move was open (Prepared); found IncomingComplete here; nothing is done until it is resolved",
        ]
    "#]]
    .assert_debug_eq(&pair.alarms(2));
}

#[test]
fn a_person_may_keep_a_complete_copy_but_must_answer_for_the_other_side() {
    let mut pair = doubting_target();
    let refused = pair.resolve(2, Resolution::KeepHere, None).unwrap_err();
    expect!["the VM may run on host1: switch host1 off, or end the VM there, then say so with --fenced host1"]
        .assert_eq(&refused);
    assert_eq!(pair.commands(2), [&Command::Look]);
    pair.resolve(2, Resolution::KeepHere, Some(1)).unwrap();
    assert_eq!(pair.commands(2), [&Command::Look], "not before it is on disk");
    let owner = VmRecord { floor: EPOCH + 1, ran: 0, ownership: Ownership::Owner };
    assert_eq!(pair.stored(2)[0], Record::Vm(VM, owner));
    assert_eq!(pair.commands(2), [&Command::Look, &Command::Resume(RunState::Running)]);
    pair.report(2, Report::Resumed);
    assert!(matches!(pair.stored(2)[1], Record::Move(ID, None)));
    assert_eq!(pair.answer(2), Standing::Running);
    assert_eq!(pair.alarms(2).len(), 1, "the alarm of the move is over with it");
}

#[test]
fn a_person_may_give_a_copy_up() {
    let mut pair = doubting_target();
    pair.resolve(2, Resolution::GiveUp, None).unwrap();
    pair.stored(2);
    assert_eq!(pair.commands(2), [&Command::Look, &Command::DestroyIncoming]);
    pair.report(2, Report::IncomingGone);
    pair.stored(2);
    assert_eq!(pair.answer(2), Standing::Void);
}

#[test]
fn a_copy_that_is_not_complete_or_runs_is_not_resolved_into_another() {
    for (seen, resolution) in [
        (Seen::Gone, Resolution::KeepHere),
        (Seen::Incoming, Resolution::KeepHere),
        (Seen::Running, Resolution::GiveUp),
    ] {
        let target = start(2, mark(2, 10, 11, 21), Some("set back"));
        let target = with(target, vm(0, Ownership::Away), Some(open(MoveStage::Prepared, true)));
        let mut pair = Pair::of([start(1, mark(1, 0, 5, 10), None), target]);
        pair.report(2, Report::Looked(seen));
        pair.resolve(2, resolution, Some(1)).unwrap_err();
        assert_eq!(pair.commands(2), [&Command::Look]);
    }
}

#[test]
fn a_hand_over_that_no_intact_journal_can_have_forgotten_is_not_answered_by_void() {
    let source = start(1, mark(1, 0, 5, 10), None);
    let mut pair = Pair::of([source, start(2, mark(2, 9, 30, 21), None)]);
    pair.say(1, 2, hand_over(mark(2, 0, 10, 20)));
    assert_eq!(pair.answer(2), Standing::Unknown);
    assert_eq!(pair.alarms(2).len(), 1);
    assert!(pair.commands(2).is_empty());
}

#[test]
fn a_void_from_a_journal_that_was_set_back_or_replaced_does_not_bring_the_vm_back() {
    // The same journal, opened at a generation below what was heard of it: that it has come further since says nothing.
    for journal in [mark(2, 4, 50, 21), mark(3, 0, 50, 21)] {
        let mut pair = handing_over();
        pair.say(2, 1, standing(Standing::NotComplete, mark(2, 0, 12, 20)));
        pair.say(2, 1, standing(Standing::Void, journal));
        pair.run(10);
        assert_eq!(pair.commands(1), [&Command::Fence], "{journal:?}");
        let known = pair.hosts[&1].unsettled(pair.now, ID).unwrap();
        assert!(known.choices.iter().all(|(_, may)| may.is_ok()), "{known:?}");
    }
    let mut pair = handing_over();
    pair.say(2, 1, standing(Standing::Void, mark(2, 12, 13, 21)));
    let back = VmRecord { floor: EPOCH + 2, ran: EPOCH + 2, ownership: Ownership::Owner };
    assert_eq!(pair.stored(1)[0], Record::Vm(VM, back), "a journal that goes on keeps its word");
}

#[test]
fn a_person_may_keep_or_give_up_what_was_released() {
    let mut pair = handing_over();
    pair.resolve(1, Resolution::KeepHere, None).unwrap_err();
    pair.resolve(1, Resolution::KeepHere, Some(2)).unwrap();
    let back = VmRecord { floor: EPOCH + 2, ran: EPOCH + 2, ownership: Ownership::Owner };
    assert_eq!(pair.stored(1)[0], Record::Vm(VM, back));
    assert_eq!(pair.commands(1), [&Command::Fence, &Command::TakeBack(RunState::Running)]);

    let mut pair = handing_over();
    pair.resolve(1, Resolution::GiveUp, None).unwrap();
    assert_eq!(pair.commands(1), [&Command::Fence, &Command::Discard]);
    pair.report(1, Report::Discarded);
    assert_eq!(pair.stored(1)[0], Record::Vm(VM, vm(EPOCH + 1, Ownership::Away)));
    let story = pair.hosts[&1].stories().last().unwrap();
    assert_eq!((story.phase, story.ended.is_some()), ("given-up", true));
}

#[test]
fn a_source_in_doubt_does_nothing_by_itself_whatever_it_is_told() {
    for stage in [MoveStage::Copying, MoveStage::HandingOver, MoveStage::TakingBack] {
        let ownership = match stage {
            MoveStage::HandingOver => Ownership::Released(HostId(2), ID),
            _ => Ownership::Owner,
        };
        let floor = if stage == MoveStage::Copying { EPOCH } else { EPOCH + 2 };
        let source = start(1, mark(1, 3, 5, 10), Some("set back"));
        let source = with(source, vm(floor, ownership), Some(open(stage, true)));
        let mut pair = Pair::of([source, start(2, mark(2, 0, 10, 20), None)]);
        pair.report(1, Report::Looked(Seen::PostMigrate));
        for told in [Standing::Void, Standing::Running, Standing::OwnerCopyGone] {
            pair.say(2, 1, standing(told, mark(2, 0, 12, 20)));
        }
        pair.run(100);
        assert_eq!(pair.commands(1), [&Command::Look], "{stage:?}");
    }
}

#[test]
fn a_guest_that_stands_still_under_a_journal_in_doubt_is_not_moved_until_it_runs() {
    let doubting = start(1, mark(1, 3, 5, 10), Some("set back"));
    let doubting = with(doubting, vm(4, Ownership::Owner), None);
    let mut pair = Pair::of([doubting, start(2, mark(2, 0, 40, 20), None)]);
    pair.tell(1, Event::Sighting(Sighting::Found(Box::new(definition()), RunState::Paused)));
    let movable = |pair: &Pair| pair.hosts[&1].movable(VM);
    assert!(movable(&pair).unwrap_err().contains("it may run elsewhere"));
    pair.tell(1, Event::Sighting(Sighting::RunStateChanged(VM, RunState::Running)));
    assert_eq!(movable(&pair), Ok(()));
}

#[test]
fn a_journal_that_was_set_back_is_heard_of_by_the_others() {
    let mut pair =
        Pair::of([start(1, mark(1, 0, 5, 10), None), start(2, mark(2, 0, 40, 20), None)]);
    pair.hosts.remove(&2);
    let again = Start { incarnation: 2, ..start(2, mark(2, 9, 60, 21), None) };
    pair.boot(2, again);
    pair.run(30);
    let heard = |pair: &mut Pair| {
        pair.tell(1, Event::Reading(reading()));
        pair.tell(2, Event::Reading(reading()));
        pair.run(2);
    };
    (0..3).for_each(|_| heard(&mut pair));
    // What it had said before it was never said here: a digest goes round with each reading only.
    assert_eq!(pair.alarms(1), Vec::<String>::new());
    pair.hosts.remove(&2);
    let once_more = Start { incarnation: 3, ..start(2, mark(2, 9, 10, 22), None) };
    pair.boot(2, once_more);
    pair.run(30);
    (0..3).for_each(|_| heard(&mut pair));
    expect![[r#"
        [
            "the journal of host2 went back from write 60 to 9: it was restored from a copy, and no longer knows who owns its VMs",
        ]
    "#]]
    .assert_debug_eq(&pair.alarms(1));
}

fn reading() -> decide::usage::reading::Reading {
    decide::usage::reading::Reading {
        cores: 4,
        memory_total: Mib(4096),
        memory_available: Mib(4096),
        ..Default::default()
    }
}

#[test]
fn whoever_knows_a_later_epoch_says_so_and_the_source_takes_one_above_it() {
    let known = with(start(2, mark(2, 0, 10, 20), None), vm(9, Ownership::Away), None);
    let mut pair = Pair::of([start(1, mark(1, 0, 5, 10), None), known]);
    pair.tell(1, Event::Sighting(Sighting::Found(Box::new(definition()), RunState::Running)));
    pair.stored(1);
    pair.tell(1, Event::Reading(reading()));
    pair.tell(1, Event::Asked { number: 1, what: Ask::Move { vm: VM, to: None } });
    let request: Request = pair.last(1, |action| match action {
        Action::Cast { message: Message { body: Body::Request(request), .. }, .. } => {
            Some(request.as_ref().clone())
        }
        _ => None,
    });
    assert_eq!(request.epoch, 1);
    pair.say(1, 2, Body::Request(Box::new(request)));
    let refusal = pair.last(2, |action| match action {
        Action::Send { message, .. } => Some(message.body.clone()),
        _ => None,
    });
    assert!(matches!(refusal, Body::Refusal { known_epoch: Some(9), .. }), "{refusal:?}");
    pair.say(2, 1, refusal);
    let later = VmRecord { floor: 10, ran: 10, ownership: Ownership::Owner };
    assert_eq!(pair.stored(1), [Record::Vm(VM, later)]);
    let over = pair
        .done
        .iter()
        .any(|(_, action)| matches!(action, Action::Note(note) if note.step == Step::Abandoned));
    assert!(over, "nothing goes anywhere under an epoch that is past");
}
