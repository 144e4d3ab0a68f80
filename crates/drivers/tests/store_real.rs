//! The journal and the usage histories on a disk that is full: a tmpfs of the test's own, in a mount namespace of its own. Needs root and
//! `unshare`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test panics to fail, and prints its figures"
)]

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use decide::units::{JournalId, Time, VmId};
use decide::usage::history::bucket::Bucket;
use decide::usage::history::levels::{Closed, Level};
use decide::usage::history::sample::{METRICS, Sample};
use decide::usage::history::{Kept, Whose};
use drivers::store::history::{Histories, Spans};
use drivers::store::{Entry, Events, Journal, Opened, Opening, Records, StoreError};

const MACHINE: &str = "3d1219c7c4c5404aaa1f6d2a48adfda4";
const DISK: &str = "EVENKEEL_TEST_DISK";

/// The small disk inside the namespace; outside, runs the named test there, passes on its verdict and gives None.
fn small_disk(test: &str) -> Option<PathBuf> {
    if let Some(disk) = std::env::var_os(DISK) {
        return Some(PathBuf::from(disk));
    }
    let disk =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{test}-{}", std::process::id()));
    std::fs::create_dir_all(&disk).unwrap();
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c"])
        .arg(format!("mount -t tmpfs -o size=24m none \"${DISK}\" && exec \"$0\" \"$@\""))
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(DISK, &disk)
        .output()
        .expect("unshare is part of util-linux");
    std::fs::remove_dir(&disk).unwrap();
    print!("{}", String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    None
}

/// Takes all room that is left.
fn fill(disk: &Path) {
    let mut filler = std::fs::File::create(disk.join("filler")).unwrap();
    for piece in [64 * 1024, 4096, 1] {
        while filler.write_all(&vec![1; piece]).is_ok() {}
    }
    let mut probe = std::fs::File::create(disk.join("probe")).unwrap();
    assert!(probe.write_all(b"x").is_err(), "the disk is full");
}

fn try_open(disk: &Path) -> Result<Opened, StoreError> {
    // Elsewhere than on the disk that is filled, as in life.
    let witness = disk.with_extension("witness");
    let (machine_id, fresh_id) = (MACHINE, JournalId(1));
    let dir = &disk.join("state");
    Journal::open(Opening { dir, witness: &witness, machine_id, fresh_id, now: 0 })
}

fn open(disk: &Path) -> Opened {
    try_open(disk).unwrap()
}

#[test]
fn reserved_room_is_there_when_the_disk_is_full() {
    let Some(disk) = small_disk("reserved_room_is_there_when_the_disk_is_full") else { return };
    let Opened { mut journal, .. } = open(&disk);
    let refused = journal.reserve(100 << 20).unwrap_err();
    let StoreError::NoRoom { path, needed, free } = &refused else { panic!("{refused}") };
    assert_eq!(path, &disk.join("state/journal.redb"));
    assert!(*needed > 100 << 20 && free < needed, "{refused}");
    journal.write(&[]).unwrap();

    for n in 0..100 {
        journal.write(&[Entry::Vm(VmId(n), vec![7; 1000])]).unwrap();
    }
    journal.reserve(1 << 20).unwrap();
    fill(&disk);

    // 1 MiB of new records, one by one, and those that are there over and over. Without the reservation a journal on
    // a full disk takes less than that: the next test shows it.
    for n in 1000..2024 {
        journal.write(&[Entry::Vm(VmId(n), vec![8; 1024])]).unwrap();
    }
    for round in 0..5 {
        for n in 0..100 {
            journal.write(&[Entry::Vm(VmId(n), vec![round; 1000])]).unwrap();
        }
    }
    let all = journal.reread().unwrap();
    assert_eq!(all.vms.len(), 1124);
    assert!(all.vms.iter().take(100).all(|(_, record)| *record == [4; 1000]));
    drop(journal);
    let again = open(&disk);
    assert_eq!(again.vms, all.vms, "the agent starts on a full disk");
}

#[test]
fn a_write_that_failed_is_told_and_nothing_acknowledged_is_lost() {
    let Some(disk) = small_disk("a_write_that_failed_is_told_and_nothing_acknowledged_is_lost")
    else {
        return;
    };
    let Opened { mut journal, generation, .. } = open(&disk);
    let events = Events::open(&disk.join("state"), 1000).unwrap();
    fill(&disk);
    let (mut acknowledged, mut last) = (BTreeMap::new(), generation);
    let failed = (0..).find_map(|n| {
        let vm = VmId(n);
        match journal.write(&[Entry::Vm(vm, vec![3; 3000])]) {
            Ok(generation) => {
                acknowledged.insert(vm, vec![3; 3000]);
                last = generation;
                None
            }
            Err(error) => Some((vm, error)),
        }
    });
    let (vm, error) = failed.unwrap();
    println!("{} acknowledged before: {error}", acknowledged.len());
    assert!(matches!(error, StoreError::Failed { .. }), "{error}");
    assert!(format!("{error:?}").contains("StorageFull"), "{error:?}");
    assert!(acknowledged.len() * 3000 < 1 << 20, "{} were acknowledged", acknowledged.len());

    let doubtful = journal.write(&[Entry::Vm(VmId(1), Vec::new())]).unwrap_err();
    assert!(matches!(doubtful, StoreError::Doubtful { .. }), "{doubtful}");
    assert!(matches!(journal.reserve(1), Err(StoreError::Doubtful { .. })));

    let Records { vms, generation, .. } = journal.reread().unwrap();
    if vms.contains_key(&vm) {
        acknowledged.insert(vm, vec![3; 3000]);
        last += 1;
    }
    assert_eq!((vms, generation), (acknowledged.clone(), last));

    // Events fail by themselves, without harm to the journal.
    while events.note(&[vec![5; 3000]]).and_then(|_| events.sync()).is_ok() {}
    assert_eq!(journal.reread().unwrap().vms, acknowledged);

    // With room again all goes on.
    std::fs::remove_file(disk.join("filler")).unwrap();
    assert_eq!(journal.write(&[Entry::Vm(vm, b"now".to_vec())]).unwrap(), last + 1);
    events.note(&[b"now".to_vec()]).unwrap();
    events.sync().unwrap();
    acknowledged.insert(vm, b"now".to_vec());
    drop(journal);
    assert_eq!(open(&disk).vms, acknowledged);
}

#[test]
fn without_room_for_a_journal_there_is_none() {
    let Some(disk) = small_disk("without_room_for_a_journal_there_is_none") else { return };
    std::fs::create_dir(disk.join("state")).unwrap();
    fill(&disk);
    let refused = try_open(&disk).unwrap_err();
    assert!(matches!(refused, StoreError::NoRoom { .. }), "{refused}");
    std::fs::remove_file(disk.join("filler")).unwrap();
    assert!(open(&disk).fresh, "nothing half done was left behind");
}

/// A minute of fifty VMs, of another load in each.
fn minute(number: u64) -> Vec<Kept> {
    let mut bucket = Bucket::default();
    bucket.add(&Sample::of([number * 997; METRICS]), 1);
    let stats = bucket.stats().unwrap();
    let span = Closed { level: Level::Minute, start: Level::Minute.at(number), stats };
    (1..=50).map(|vm| Kept::Span(Whose::Vm(VmId(vm)), span)).collect()
}

fn histories(disk: &Path) -> Histories {
    let (histories, set_aside) = Histories::open(&disk.join("state"), Spans::default()).unwrap();
    assert!(set_aside.is_none(), "{set_aside:?}");
    histories
}

/// Holds that each VM has just these minutes.
fn assert_whole(histories: &mut Histories, minutes: &[u64]) {
    for vm in 1..=50 {
        let read = histories.read(Whose::Vm(VmId(vm)), Level::Minute, Time(0)).unwrap();
        let expected: Vec<Kept> = minutes
            .iter()
            .map(|number| minute(*number).swap_remove(usize::try_from(vm).unwrap() - 1))
            .collect();
        let read: Vec<Kept> =
            read.into_iter().map(|span| Kept::Span(Whose::Vm(VmId(vm)), span)).collect();
        assert_eq!(read, expected, "VM {vm}");
    }
}

#[test]
fn histories_on_a_full_disk_fail_aloud_stay_whole_and_go_on_with_room() {
    let Some(disk) =
        small_disk("histories_on_a_full_disk_fail_aloud_stay_whole_and_go_on_with_room")
    else {
        return;
    };
    let mut kept = histories(&disk);
    let mut committed: Vec<u64> = (0..20).collect();
    for number in &committed {
        kept.write(&minute(*number)).unwrap();
    }
    fill(&disk);
    let refused = (20..3000).find_map(|number| match kept.write(&minute(number)) {
        Ok(()) => {
            committed.push(number);
            None
        }
        Err(error) => Some((number, error)),
    });
    let (failed, error) = refused.expect("the file cannot grow");
    println!("{} minutes committed before: {error}", committed.len());
    assert!(matches!(error, StoreError::Failed { .. }), "{error}");
    assert!(format!("{error:?}").contains("StorageFull"), "{error:?}");

    // Opened anew by the next call, on the disk that is still full: nothing that was committed is lost, nor half of the failed.
    assert_whole(&mut kept, &committed);
    // What the failed write took is free again, so one more may find room; how it ends is what counts.
    let mut next = failed;
    if kept.write(&minute(next)).is_ok() {
        committed.push(next);
        next += 1;
    }
    assert_whole(&mut kept, &committed);
    drop(kept);
    let mut kept = histories(&disk);
    assert_whole(&mut kept, &committed);

    std::fs::remove_file(disk.join("filler")).unwrap();
    for number in next..next + 20 {
        kept.write(&minute(number)).unwrap();
        committed.push(number);
    }
    assert_whole(&mut kept, &committed);
}
