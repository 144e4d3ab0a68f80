//! The journal and the events on a disk with room: what was acknowledged is found again, whatever happened meanwhile.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test panics to fail, and prints its figures"
)]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use decide::units::{HostId, JournalId, MoveId, VmId};
use drivers::store::{Doubt, Entry, Events, Journal, Opened, Opening, StoreError};

mod writer;

use writer::{FOLDER, killed};

const TEST: &str = "a_killed_agent_loses_nothing_that_was_acknowledged";

const MACHINE: &str = "3d1219c7c4c5404aaa1f6d2a48adfda4\n";
const FRESH: JournalId = JournalId(77);

/// A directory of its own for each test, gone with it.
struct Dir(PathBuf);

impl Dir {
    fn new(test: &str) -> Dir {
        let path =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{test}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Dir(path)
    }

    fn open(&self) -> Opened {
        self.try_open(MACHINE, FRESH).unwrap()
    }

    fn try_open(&self, machine_id: &str, fresh_id: JournalId) -> Result<Opened, StoreError> {
        open(&self.0, machine_id, fresh_id)
    }

    fn journal(&self) -> PathBuf {
        self.0.join("journal.redb")
    }
}

fn open(dir: &Path, machine_id: &str, fresh_id: JournalId) -> Result<Opened, StoreError> {
    let witness = dir.with_extension("witness");
    Journal::open(Opening { dir, witness: &witness, machine_id, fresh_id, now: 0 })
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
        let _ = std::fs::remove_file(self.0.with_extension("witness"));
    }
}

fn id(counter: u32) -> MoveId {
    MoveId { host: HostId(1 << 100), incarnation: 3, counter }
}

#[test]
fn what_was_written_is_found_again() {
    let dir = Dir::new("found-again");
    let Opened { mut journal, id: which, fresh, incarnation, generation, vms, moves, .. } =
        dir.open();
    assert_eq!((which, fresh, incarnation, generation), (FRESH, true, 1, 1));
    assert!(vms.is_empty() && moves.is_empty());
    let first = [
        Entry::Vm(VmId(1), b"one".to_vec()),
        Entry::Vm(VmId(u128::MAX), Vec::new()),
        Entry::Move(id(1), Some(b"move".to_vec())),
        Entry::Move(id(2), Some(b"gone soon".to_vec())),
    ];
    assert_eq!(journal.write(&first).unwrap(), 2);
    let second = [Entry::Vm(VmId(1), b"one again".to_vec()), Entry::Move(id(2), None)];
    assert_eq!(journal.write(&second).unwrap(), 3);
    let reread = journal.reread().unwrap();
    assert_eq!(reread.generation, 3);
    assert_eq!(journal.write(&[]).unwrap(), 4, "after rereading it can be written");
    drop(journal);

    let again = dir.try_open(MACHINE, JournalId(78)).unwrap();
    assert_eq!((again.id, again.fresh), (FRESH, false), "the fresh id is for fresh journals");
    assert_eq!((again.incarnation, again.generation), (2, 5));
    assert_eq!((&again.vms, &again.moves), (&reread.vms, &reread.moves));
    let vms: Vec<_> = again.vms.into_iter().collect();
    assert_eq!(vms, [(VmId(1), b"one again".to_vec()), (VmId(u128::MAX), Vec::new())]);
    let moves: Vec<_> = again.moves.into_iter().collect();
    assert_eq!(moves, [(id(1), b"move".to_vec())]);
}

#[test]
fn a_journal_that_was_set_back_or_replaced_is_in_doubt_until_it_is_renewed() {
    let dir = Dir::new("set-back");
    drop(dir.open());
    let copy = std::fs::read(dir.journal()).unwrap();
    let mut first = dir.open();
    assert_eq!(first.doubt, None);
    first.journal.write(&[Entry::Move(id(1), Some(b"later".to_vec()))]).unwrap();
    drop(first);

    std::fs::write(dir.journal(), &copy).unwrap();
    for _ in 0..2 {
        let again = dir.open();
        assert!(matches!(again.doubt, Some(Doubt::SetBack { seen: 3, .. })), "{:?}", again.doubt);
    }
    let mut again = dir.open();
    again.journal.renew(JournalId(78), &[Entry::Vm(VmId(1), b"one".to_vec())]).unwrap();
    drop(again);
    let renewed = dir.open();
    assert_eq!((renewed.id, renewed.doubt), (JournalId(78), None));
    assert_eq!(renewed.vms.len(), 1);
    drop(renewed);

    std::fs::remove_file(dir.journal()).unwrap();
    let replaced = dir.open();
    assert!(replaced.fresh);
    assert_eq!(replaced.doubt, Some(Doubt::Replaced));
    drop(replaced);

    // After a boot nothing runs here whose owner it would have to name.
    std::fs::remove_file(dir.0.with_extension("witness")).unwrap();
    std::fs::write(dir.journal(), &copy).unwrap();
    assert_eq!(dir.open().doubt, None);
}

#[test]
fn an_incarnation_is_new_also_after_the_journal_was_set_back() {
    let dir = Dir::new("incarnation");
    let witness = dir.0.with_extension("witness");
    let open_at = |now| {
        let (machine_id, fresh_id) = (MACHINE, FRESH);
        let opening = Opening { dir: &dir.0, witness: &witness, machine_id, fresh_id, now };
        Journal::open(opening).unwrap().incarnation
    };
    assert_eq!(open_at(1000), 1000);
    let copy = std::fs::read(dir.journal()).unwrap();
    assert_eq!(open_at(1000), 1001);
    assert_eq!(open_at(500), 1002, "the clock was set back");
    std::fs::write(dir.journal(), &copy).unwrap();
    assert_eq!(open_at(2000), 2000);
}

#[test]
fn nobody_else_can_read_it() {
    let dir = Dir::new("modes");
    let _opened = dir.open();
    let _events = Events::open(&dir.0, 10).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir.0), 0o700);
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(&dir.0).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let names: Vec<_> = files.iter().map(|file| file.file_name().unwrap()).collect();
    assert_eq!(names, ["events.redb", "journal.redb", "lock"]);
    assert!(files.iter().all(|file| mode(file) == 0o600));
}

#[test]
fn the_journal_of_another_machine_is_refused_and_left_alone() {
    let dir = Dir::new("other-machine");
    drop(dir.open());
    let before = std::fs::read(dir.journal()).unwrap();
    let refused = dir.try_open("another", FRESH).unwrap_err();
    assert!(matches!(refused, StoreError::OtherMachine { .. }), "{refused}");
    assert!(refused.to_string().contains("journal.redb was written on another machine"));
    assert_eq!(std::fs::read(dir.journal()).unwrap(), before);
    assert_eq!(dir.open().incarnation, 2, "the refusal did not count as an opening");
}

#[test]
fn a_second_agent_is_refused() {
    let dir = Dir::new("second");
    let mut first = dir.open();
    let events = Events::open(&dir.0, 10).unwrap();
    let refused = dir.try_open(MACHINE, FRESH).unwrap_err();
    assert!(matches!(refused, StoreError::InUse { .. }), "{refused}");
    assert!(matches!(Events::open(&dir.0, 10), Err(StoreError::InUse { .. })));
    first.journal.write(&[]).unwrap();
    drop(first);
    drop(events);
    dir.open();
    Events::open(&dir.0, 10).unwrap();
}

#[test]
fn an_unfinished_creation_is_begun_anew() {
    let dir = Dir::new("unfinished");
    std::fs::create_dir(&dir.0).unwrap();
    std::fs::write(dir.0.join("journal.redb.new"), b"half a jour").unwrap();
    assert!(dir.open().fresh);
    assert!(!dir.0.join("journal.redb.new").exists());
}

#[test]
fn files_that_are_no_journal_are_refused_and_left_alone() {
    let dir = Dir::new("garbled");
    std::fs::create_dir(&dir.0).unwrap();
    for bytes in [&b""[..], b"redb", b"something else entirely, and long enough for a header"] {
        std::fs::write(dir.journal(), bytes).unwrap();
        let refused = dir.try_open(MACHINE, FRESH).unwrap_err();
        assert!(matches!(refused, StoreError::Garbled { .. }), "{refused}");
        assert!(refused.to_string().contains("journal.redb is damaged"), "{refused}");
        assert_eq!(std::fs::read(dir.journal()).unwrap(), bytes);
    }
}

#[test]
fn a_damaged_journal_is_refused_and_left_alone_or_read_as_it_was() {
    let dir = Dir::new("damaged");
    let mut opened = dir.open();
    for n in 0..50 {
        opened.journal.write(&[Entry::Vm(VmId(n), vec![7; 200])]).unwrap();
    }
    let expected = opened.journal.reread().unwrap().vms;
    drop(opened);
    let whole = std::fs::read(dir.journal()).unwrap();
    let (mut refused, mut read) = (0, 0);
    let used = whole.iter().rposition(|byte| *byte != 0).unwrap();
    for at in (0..used).step_by(used / 150) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0xff;
        std::fs::write(dir.journal(), &bytes).unwrap();
        match dir.try_open(MACHINE, FRESH) {
            Ok(opened) => {
                assert_eq!(opened.vms, expected, "byte {at}");
                read += 1;
            }
            Err(error) => {
                assert!(matches!(error, StoreError::Garbled { .. }), "byte {at}: {error}");
                assert_eq!(std::fs::read(dir.journal()).unwrap(), bytes, "byte {at}");
                refused += 1;
            }
        }
    }
    println!("{refused} refused, {read} read: the byte was not in use");
    assert!(refused > 0 && read > 0);
}

/// Puts one raw row into a table of the journal's file.
fn forge<K: redb::Key + 'static>(file: &Path, table: &str, key: K::SelfType<'_>, stored: &[u8]) {
    let database = redb::Database::open(file).unwrap();
    let transaction = database.begin_write().unwrap();
    let definition = redb::TableDefinition::<K, &[u8]>::new(table);
    transaction.open_table(definition).unwrap().insert(key, stored).unwrap();
    transaction.commit().unwrap();
}

#[test]
fn a_record_of_an_unknown_form_is_refused_by_name() {
    let dir = Dir::new("version");
    drop(dir.open());
    forge::<u128>(&dir.journal(), "vms", 0xabc, &[2, 1, 1]);
    let refused = dir.try_open(MACHINE, FRESH).unwrap_err();
    assert!(matches!(refused, StoreError::UnknownVersion { version: 2, .. }), "{refused}");
    assert!(refused.to_string().contains("VM 00000000-0000-0000-0000-000000000abc"), "{refused}");
    forge::<()>(&dir.journal(), "identity", (), &[9; 61]);
    let refused = dir.try_open(MACHINE, FRESH).unwrap_err();
    assert!(matches!(refused, StoreError::UnknownVersion { version: 9, .. }), "{refused}");
}

/// What the killed child does: writes one number after the other, and says each once it is acknowledged.
fn write_for_ever(dir: &Path) -> ! {
    let Opened { mut journal, vms, .. } = open(dir, MACHINE, FRESH).unwrap();
    let events = Events::open(dir, 1000).unwrap();
    let last = vms.get(&VmId(1)).map_or(0, |n| u64::from_le_bytes(n[..8].try_into().unwrap()));
    for n in last + 1.. {
        let mut record = n.to_le_bytes().to_vec();
        record.resize(300, 0);
        let number = Entry::Vm(VmId(1), record);
        let counter = u32::try_from(n).unwrap();
        let ended = Entry::Move(id(counter.saturating_sub(3)), None);
        journal.write(&[number, Entry::Move(id(counter), Some(vec![1; 500])), ended]).unwrap();
        events.note(&[n.to_le_bytes().to_vec()]).unwrap();
        println!("acknowledged {n}");
    }
    unreachable!("u64 does not end")
}

#[test]
fn a_killed_agent_loses_nothing_that_was_acknowledged() {
    if let Some(dir) = std::env::var_os(FOLDER) {
        write_for_ever(Path::new(&dir));
    }
    let dir = Dir::new("killed");
    let mut last = 0;
    for round in 1..=5u64 {
        last = killed(TEST, &dir.0, "acknowledged ", last + 7 * round);

        let opened = dir.open();
        let found = u64::from_le_bytes(opened.vms[&VmId(1)][..8].try_into().unwrap());
        assert!(found == last || found == last + 1, "{last} was acknowledged, {found} is there");
        assert!(opened.moves.contains_key(&id(u32::try_from(found).unwrap())), "all or nothing");
        assert!(opened.moves.len() <= 3, "{:?}", opened.moves.keys());
        last = found;
        // Events may lag behind, but what is there is in order and without gaps.
        let events = Events::open(&dir.0, 1000).unwrap().latest(1000).unwrap();
        assert!(events.windows(2).all(|pair| pair[0].seq + 1 == pair[1].seq));
    }
}

#[test]
fn events_are_in_order_bounded_and_durable_once_synced() {
    let dir = Dir::new("events");
    let events = Events::open(&dir.0, 100).unwrap();
    assert_eq!(events.latest(5).unwrap(), []);
    assert_eq!(events.note(&[b"a".to_vec(), b"b".to_vec()]).unwrap(), 1);
    assert_eq!(events.note(&[]).unwrap(), 3);
    for n in 3..=250u64 {
        assert_eq!(events.note(&[n.to_string().into_bytes()]).unwrap(), n);
    }
    let seqs = |noted: &[drivers::store::Noted]| noted.iter().map(|e| e.seq).collect::<Vec<_>>();
    let all = events.events(0, 1000).unwrap();
    assert_eq!(seqs(&all), (151..=250).collect::<Vec<_>>(), "the newest hundred");
    assert_eq!(all[0].record, b"151");
    assert_eq!(seqs(&events.events(200, 3).unwrap()), [200, 201, 202]);
    assert_eq!(seqs(&events.latest(2).unwrap()), [249, 250]);
    assert_eq!(events.events(251, 10).unwrap(), []);
    events.sync().unwrap();

    // What a killed agent leaves: the file as it is on disk, not closed.
    events.note(&[b"lost".to_vec()]).unwrap();
    let copy = Dir::new("events-copy");
    std::fs::create_dir(&copy.0).unwrap();
    std::fs::copy(dir.0.join("events.redb"), copy.0.join("events.redb")).unwrap();
    let after = Events::open(&copy.0, 100).unwrap();
    assert_eq!(after.events(0, 1000).unwrap(), all);
    assert_eq!(after.note(&[b"next".to_vec()]).unwrap(), 251);
}

#[test]
fn room_is_held_once_and_not_again_at_each_start() {
    let dir = Dir::new("room");
    let length = || std::fs::metadata(dir.journal()).unwrap().len();
    drop(dir.open());
    let fresh = length();
    let mut opened = dir.open();
    opened.journal.reserve(256 * 1024).unwrap();
    let reserved = length();
    assert!(reserved > fresh);
    for _ in 0..10 {
        drop(opened);
        opened = dir.open();
        opened.journal.reserve(256 * 1024).unwrap();
    }
    // Blocks, not a hole: as many as the length says.
    use std::os::unix::fs::MetadataExt;
    let blocks = std::fs::metadata(dir.journal()).unwrap().blocks() * 512;
    assert!(blocks >= length(), "{blocks} of {}", length());
    assert!(length() <= reserved + 256 * 1024, "{reserved} has grown to {}", length());
}
