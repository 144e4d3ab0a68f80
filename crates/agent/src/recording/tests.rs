//! The recorder by itself: what ends it, what it says then, and what is left on disk.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;

use decide::policy::settings::Settings;
use decide::units::{HostId, JournalId, Mib};
use decide::wire::message::JournalMark;
use lz4_flex::frame::FrameDecoder;

use super::*;

fn start(incarnation: u32) -> Start {
    Start {
        id: HostId(0x83a6_8107 << 96),
        name: "host1".to_owned(),
        address: "127.0.0.1:7946".parse().unwrap(),
        journal: JournalMark { id: JournalId(1), generation: 1, ..JournalMark::default() },
        doubt: None,
        incarnation,
        first_incarnation: 1,
        vms: [].into(),
        moves: [].into(),
        offered: decide::placement::admission::Offered::default(),
        settings: Settings::default(),
        seed: 1,
    }
}

fn wanted(folder: &Path, size_max: u64) -> Record {
    Record { folder: Some(folder.to_owned()), size_max: Mib(size_max) }
}

/// An event that no packing makes smaller.
fn noise(rng: &mut u64, bytes: usize) -> Event {
    let digits = std::iter::repeat_with(|| {
        *rng = rng.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from_digit(u32::try_from(*rng >> 60).unwrap(), 16).unwrap()
    });
    Event::BadInput(digits.take(bytes).collect())
}

fn lines(path: &Path) -> Vec<Line> {
    let mut text = String::new();
    FrameDecoder::new(File::open(path).unwrap()).read_to_string(&mut text).unwrap();
    assert!(text.ends_with('\n'), "its last line is whole");
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn what_was_said_is_in_a_file_that_only_its_owner_reads() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("a/b");
    let (mut recording, recorder) = Recording::start(&wanted(&folder, 1), Time(5), &start(7));
    recording.gave(&[], Some(Time(6)));
    recording.event(Time(8), &Event::Tick);
    drop(recording);
    recorder.unwrap().join().unwrap();
    let path = folder.join("83a68107.7.jsonl.lz4");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(&folder)), (0o600, 0o700));
    let found = lines(&path);
    assert!(matches!(&found[0], Line::Begin(begin) if begin.now == Time(5)), "{found:?}");
    let gave = Gave { actions: vec![], deadline: Some(Time(6)) };
    let end = Line::End { why: "the agent ended".to_owned() };
    let tick = Line::Event { now: Time(8), event: Event::Tick };
    assert_eq!(found[1..], [Line::Gave(gave), tick, end]);
}

#[test]
fn at_its_limit_the_log_ends_in_order_and_that_is_said_once() {
    let dir = tempfile::tempdir().unwrap();
    let (mut recording, recorder) = Recording::start(&wanted(dir.path(), 1), Time(5), &start(7));
    let mut rng = 1;
    for _ in 0..100 {
        recording.event(Time(8), &noise(&mut rng, 100_000));
    }
    recorder.unwrap().join().unwrap();
    let why = recording.ended().unwrap();
    assert!(
        why.contains("83a68107.7.jsonl.lz4 ends: the limit is reached (key record.size_max)"),
        "{why}"
    );
    assert_eq!(recording.ended(), None);
    recording.event(Time(9), &Event::Tick);
    let path = dir.path().join("83a68107.7.jsonl.lz4");
    let size = fs::metadata(&path).unwrap().len();
    assert!((400_000..=1 << 20).contains(&size), "{size}");
    let found = lines(&path);
    assert!(found.len() > 10, "more than none of it packed");
    assert_eq!(found.last(), Some(&Line::End { why }));
}

#[test]
fn a_disk_that_falls_behind_ends_the_recording_and_never_stops_the_loop() {
    let (said, heard) = sync_channel(2);
    let why = Arc::new(OnceLock::new());
    let mut recording = Recording { said: Some(said), why: Arc::clone(&why), told: false };
    for _ in 0..5 {
        recording.event(Time(8), &Event::Tick);
    }
    assert_eq!(recording.ended().as_deref(), Some("the recording ends: its disk falls behind"));
    // What the queue held is written, and the end says why it is one.
    let dir = tempfile::tempdir().unwrap();
    let log = Log::begin(dir.path(), 1 << 20, &start(7)).unwrap();
    let path = log.path.clone();
    record(log, &heard, &why);
    let found = lines(&path);
    let end = Line::End { why: "the recording ends: its disk falls behind".to_owned() };
    assert_eq!((found.len(), &found[2]), (3, &end));
}

#[test]
fn a_file_that_cannot_be_written_ends_the_recording_with_its_name() {
    let (said, heard) = sync_channel(2);
    let path = PathBuf::from("/dev/full");
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    let why = OnceLock::new();
    said.send(Said::Line(Line::Event { now: Time(1), event: Event::Tick })).unwrap();
    record(Log::of(path, file, 1 << 20), &heard, &why);
    let why = why.get().unwrap();
    assert!(why.starts_with("the recording /dev/full ends: No space left"), "{why}");
}

#[test]
fn an_agent_that_cannot_record_says_so_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("file/folder");
    fs::write(dir.path().join("file"), "").unwrap();
    let (mut recording, recorder) = Recording::start(&wanted(&folder, 1), Time(5), &start(7));
    assert!(recorder.is_none());
    recording.event(Time(8), &Event::Tick);
    let why = recording.ended().unwrap();
    assert!(why.starts_with("nothing is recorded: the folder"), "{why}");
    assert!(why.contains("key record.folder"), "{why}");
}

#[test]
fn the_oldest_logs_make_room_and_nothing_else_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, kib: usize, age: u64| {
        let path = dir.path().join(name);
        fs::write(&path, vec![b'\n'; kib << 10]).unwrap();
        let then = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000 - age);
        File::options().append(true).open(&path).unwrap().set_modified(then).unwrap();
    };
    file("83a68107.1.jsonl.lz4", 300, 30);
    file("83a68107.2.jsonl.lz4", 300, 20);
    file("83a68107.3.jsonl.lz4", 300, 10);
    file("notes.jsonl.lz4", 300, 40);
    let log = Log::begin(dir.path(), 1 << 20, &start(4)).unwrap();
    assert_eq!(log.room, (1 << 20) - (300 << 10));
    let mut left: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["83a68107.3.jsonl.lz4", "83a68107.4.jsonl.lz4", "notes.jsonl.lz4"]);
}
