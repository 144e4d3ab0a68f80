//! The usage histories when their writer is killed: each transaction is there as a whole or not at all.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test panics to fail, and prints what its parent waits for"
)]

use std::path::Path;

use decide::units::{Time, VmId};
use decide::usage::history::bucket::Bucket;
use decide::usage::history::levels::{Closed, Level};
use decide::usage::history::sample::{METRICS, Sample};
use decide::usage::history::{Kept, Whose};
use drivers::store::history::{Histories, Spans};

mod writer;

use writer::{FOLDER, killed};

const TEST: &str = "a_killed_agent_loses_no_history_that_was_committed";
/// In one transaction, so that a write takes a while, and is packed into blocks now and then.
const VMS: u128 = 40;

fn open(dir: &Path) -> Histories {
    let (histories, set_aside) = Histories::open(dir, Spans::default()).unwrap();
    assert!(set_aside.is_none(), "{set_aside:?}");
    histories
}

/// Of another load in each minute and VM.
fn minute(vm: u128, number: u64) -> Closed {
    let value = number * 1000 + u64::try_from(vm).unwrap();
    let mut bucket = Bucket::default();
    bucket.add(&Sample::of([value; METRICS]), 1);
    let stats = bucket.stats().unwrap();
    Closed { level: Level::Minute, start: Level::Minute.at(number), stats }
}

fn read(histories: &mut Histories, vm: u128) -> Vec<Closed> {
    histories.read(Whose::Vm(VmId(vm)), Level::Minute, Time(0)).unwrap()
}

/// What the killed child does: a minute of all VMs, one after the other, and says each once it is committed.
fn write_for_ever(dir: &Path) -> ! {
    let mut histories = open(dir);
    let before = u64::try_from(read(&mut histories, 1).len()).unwrap();
    for number in before.. {
        let kept: Vec<Kept> =
            (1..=VMS).map(|vm| Kept::Span(Whose::Vm(VmId(vm)), minute(vm, number))).collect();
        histories.write(&kept).unwrap();
        println!("committed {number}");
    }
    unreachable!("u64 does not end")
}

#[test]
fn a_killed_agent_loses_no_history_that_was_committed() {
    if let Some(dir) = std::env::var_os(FOLDER) {
        write_for_ever(Path::new(&dir));
    }
    let dir = tempfile::tempdir().unwrap();
    let mut minutes = 0;
    for round in 1..=6 {
        let last = killed(TEST, dir.path(), "committed ", minutes + 5 * round);
        let mut histories = open(dir.path());
        minutes = u64::try_from(read(&mut histories, 1).len()).unwrap();
        assert!(minutes == last + 1 || minutes == last + 2, "{last} committed, {minutes} there");
        for vm in 1..=VMS {
            let expected: Vec<Closed> = (0..minutes).map(|number| minute(vm, number)).collect();
            assert_eq!(read(&mut histories, vm), expected, "all or nothing: VM {vm}");
        }
    }
}
