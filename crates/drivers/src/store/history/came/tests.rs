//! What came with a VM is kept once, whole or not at all, and takes nothing away from what was there.

use decide::units::{HostId, MoveId};
use decide::usage::history::aged::{AgedHistory, WholeHistory};
use decide::usage::history::past::Stay;

use super::super::tests::{kept, numbers, open, span};
use super::*;

const ID: VmId = VmId(7);
const VM: Whose = Whose::Vm(ID);

fn past(counters: &[u32]) -> Past {
    let mut past = Past::default();
    for counter in counters {
        let host = HostId(3);
        let move_id = MoveId { host, incarnation: 1, counter: *counter };
        let ended = Level::Minute.at(u64::from(*counter));
        past.push(Stay { host, name: "host3".to_owned(), move_id, ended });
    }
    past
}

/// Minutes and quarters of that VM, as another host sends them at `now`.
fn sent(now: Time, minutes: std::ops::Range<u64>, past: &Past) -> Vec<u8> {
    let spans = |level, numbers: std::ops::Range<u64>| -> Vec<Closed> {
        numbers.map(|number| span(level, number)).collect()
    };
    let quarters = minutes.start / 15..minutes.end / 15;
    let levels = [(Level::Minute, minutes), (Level::Quarter, quarters)];
    let levels = levels
        .into_iter()
        .filter_map(|(level, numbers)| travel::packed(now, level, &spans(level, numbers)));
    let recent = AgedHistory { past: past.aged(now), ..AgedHistory::default() };
    wire::encode_history(&WholeHistory { recent, levels: levels.collect() })
}

fn minutes(histories: &mut Histories) -> Vec<u64> {
    numbers(&histories.read(VM, Level::Minute, Time(0)).unwrap())
}

#[test]
fn it_is_kept_once_however_often_it_came_and_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut histories = open(dir.path());
    let now = Level::Minute.at(100_000);
    let bytes = sent(now, 98_000..100_000, &past(&[1, 2]));
    histories.stage(ID, now, &bytes).unwrap();
    histories.stage(ID, now, &bytes).unwrap();
    assert!(minutes(&mut histories).is_empty(), "nothing is here before the VM is");
    drop(histories);
    let mut histories = open(dir.path());
    for _ in 0..2 {
        let (quarters, stays) = histories.recall(VM).unwrap().unwrap();
        assert_eq!(quarters.len(), 100_000 / 15 - 98_000 / 15);
        assert_eq!(stays, past(&[1, 2]));
        assert_eq!(minutes(&mut histories), (98_000..100_000).collect::<Vec<_>>());
        histories.stage(ID, now, &bytes).unwrap();
    }
    let read = histories.read(VM, Level::Minute, Level::Minute.at(99_999)).unwrap();
    assert_eq!(read, [span(Level::Minute, 99_999)]);
}

#[test]
fn a_vm_that_comes_back_loses_nothing_that_was_kept_here() {
    let dir = tempfile::tempdir().unwrap();
    let mut histories = open(dir.path());
    // Here until 1,010; what travelled had been read at 1,000; there until 1,100.
    histories.write(&kept(VM, Level::Minute, 900..1_010)).unwrap();
    histories.write(&[Kept::Past(ID, past(&[1]))]).unwrap();
    let now = Level::Minute.at(1_100);
    let there = [(800..1_000), (1_012..1_100)]
        .map(|numbers| numbers.map(|number| span(Level::Minute, number)).collect::<Vec<_>>());
    let level = travel::packed(now, Level::Minute, &there.concat());
    let recent = AgedHistory { past: past(&[1, 2]).aged(now), ..AgedHistory::default() };
    let whole = WholeHistory { recent, levels: level.into_iter().collect() };
    histories.stage(ID, now, &wire::encode_history(&whole)).unwrap();
    histories.recall(VM).unwrap();
    let all: Vec<u64> = (800..1_010).chain(1_012..1_100).collect();
    assert_eq!(minutes(&mut histories), all);
    // Said by one that did not hear of the stays before.
    histories.write(&[Kept::Past(ID, past(&[3]))]).unwrap();
    assert_eq!(histories.recall(VM).unwrap().unwrap().1, past(&[1, 2, 3]));
}

#[test]
fn of_a_move_that_was_undone_nothing_stays() {
    let dir = tempfile::tempdir().unwrap();
    let mut histories = open(dir.path());
    let now = Level::Minute.at(1_100);
    histories.stage(ID, now, &sent(now, 1_000..1_100, &past(&[1]))).unwrap();
    histories.unstage(ID).unwrap();
    assert_eq!(histories.recall(VM).unwrap(), None);
    assert!(minutes(&mut histories).is_empty());
}

#[test]
fn few_are_set_aside_and_none_for_longer_than_a_week() {
    let dir = tempfile::tempdir().unwrap();
    let mut histories = open(dir.path());
    let bytes = |now| sent(now, 1_000..1_100, &past(&[1]));
    for vm in 0..=STAGED_MAX as u64 {
        let now = Level::Minute.at(1_100 + vm);
        histories.stage(VmId(u128::from(vm)), now, &bytes(now)).unwrap();
    }
    let mut there = |vm| histories.recall(Whose::Vm(VmId(vm))).unwrap().is_some();
    assert!(!there(0) && there(1) && there(2));
    let late = Level::Minute.at(1_100).plus(GONE_MAX * 2);
    histories.stage(VmId(99), late, &bytes(Level::Minute.at(1_100))).unwrap();
    assert_eq!(histories.recall(Whose::Vm(VmId(3))).unwrap(), None);
}
