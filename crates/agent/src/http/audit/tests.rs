//! The files of the log: restarts, crashes, rotation, full disks.

use super::*;

const BIG: u64 = 16 << 20;

fn call(path: &str) -> Call {
    let who = Who { uid: Some(0), token: None, name: Some("root".to_owned()) };
    let (from, method) = ("unix pid 7".to_owned(), "POST".to_owned());
    Call { who, from, method, path: path.to_owned(), what: "{}".to_owned(), status: 202 }
}

fn open(folder: &tempfile::TempDir) -> Audit {
    Audit::open(folder.path(), BIG).unwrap()
}

fn seen(audit: &Audit) -> AuditView {
    audit.look(&AuditFilter::default(), unix_micros() / 1000).unwrap()
}

fn paths(view: &AuditView) -> Vec<&str> {
    view.lines.iter().map(|line| &*line.path).collect()
}

#[test]
fn lines_are_for_their_owner_alone_and_the_chain_goes_on_over_restarts() {
    let folder = tempfile::tempdir().unwrap();
    for path in ["/a", "/b", "/c"] {
        open(&folder).note(call(path)).unwrap();
    }
    let view = seen(&open(&folder));
    assert_eq!((paths(&view), view.newest_seq), (vec!["/a", "/b", "/c"], 3));
    assert_eq!((view.check.broken.clone(), view.lines[2].hash.clone()), (None, view.newest_hash));
    let mode = fs::metadata(folder.path().join(FILE)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let filter = AuditFilter { limit: Some(1), ..AuditFilter::default() };
    assert_eq!(paths(&open(&folder).look(&filter, 0).unwrap()), ["/c"]);
    let filter = AuditFilter { after: Some(1), limit: Some(1), ..AuditFilter::default() };
    assert_eq!(paths(&open(&folder).look(&filter, 0).unwrap()), ["/b"]);
    let filter = AuditFilter { after: Some(3), ..AuditFilter::default() };
    assert_eq!(open(&folder).look(&filter, 0).unwrap().lines, []);
    let filter = AuditFilter { since: Some(60), ..AuditFilter::default() };
    let later = unix_micros() / 1000 + 120_000;
    assert_eq!(open(&folder).look(&filter, later).unwrap().lines, []);
}

#[test]
fn a_line_that_a_crash_cut_off_is_taken_away_and_told() {
    let folder = tempfile::tempdir().unwrap();
    open(&folder).note(call("/a")).unwrap();
    let file = folder.path().join(FILE);
    let whole = fs::read(&file).unwrap();
    for cut in [1, whole.len() / 2, whole.len() - 2] {
        fs::write(&file, [&whole[..], &whole[..cut]].concat()).unwrap();
        let view = seen(&open(&folder));
        assert_eq!((view.lines.len(), view.check.broken.clone()), (2, None), "{cut}");
        assert!(view.lines[1].what.starts_with(&format!("{cut} bytes of a line")), "{view:?}");
        assert_eq!(view.lines[1].from, "agent");
    }
    // The first line of all may be cut off too, and a line that only lacks its end is whole.
    fs::write(&file, &whole[..9]).unwrap();
    let view = seen(&open(&folder));
    assert_eq!((view.lines.len(), view.lines[0].seq, view.check.broken.clone()), (1, 1, None));
    fs::write(&file, &whole[..whole.len() - 1]).unwrap();
    let view = seen(&open(&folder));
    assert_eq!((paths(&view), view.check.broken.clone()), (vec!["/a"], None));
}

#[test]
fn what_was_tampered_with_is_named_by_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    for path in ["/a", "/b", "/c"] {
        open(&folder).note(call(path)).unwrap();
    }
    let file = folder.path().join(FILE);
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("/b", "/x")).unwrap();
    let audit = open(&folder);
    let broken = seen(&audit).check.broken.unwrap();
    assert!(broken.starts_with("audit.log, line 2: its hash is not"), "{broken}");
    audit.note(call("/d")).unwrap();
    assert_eq!(paths(&seen(&audit)), ["/a", "/c", "/d"], "it goes on all the same");
    // A file that was taken away while the agent runs.
    fs::remove_file(&file).unwrap();
    audit.note(call("/e")).unwrap();
    let view = seen(&audit);
    assert_eq!((paths(&view), view.check.first_seq), (vec!["/e"], 5));
}

#[test]
fn it_is_rotated_once_it_is_full_and_the_chain_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let small = || Audit::open(folder.path(), 1000).unwrap();
    let audit = small();
    for number in 1..=9 {
        audit.note(call(&format!("/{number}"))).unwrap();
    }
    let size = |name: &str| fs::metadata(folder.path().join(name)).unwrap().len();
    assert!((1..=1000).contains(&size(FILE)) && (1..=1000).contains(&size(OLDER)));
    let view = seen(&audit);
    assert_eq!((view.check.broken.clone(), view.newest_seq), (None, 9));
    assert_eq!(
        view.check.first_seq,
        10 - view.check.lines,
        "what is older is gone, and it says so"
    );
    assert!(view.check.first_seq > 1 && view.check.lines > 2, "{view:?}");
    // A crash between the renaming and the new file.
    fs::rename(folder.path().join(FILE), folder.path().join(OLDER)).unwrap();
    let audit = small();
    audit.note(call("/10")).unwrap();
    let view = seen(&audit);
    assert_eq!((view.check.broken.clone(), view.newest_seq), (None, 10));
}

/// What the test below has done by a process that may write no file beyond 512 bytes, as on a full disk.
#[test]
fn a_full_disk_when_it_is_rotated_takes_no_line_away() {
    const HERE: &str = "EVENKEEL_TEST_AUDIT_FOLDER";
    const SIZE_MAX: u64 = 2000;
    let long = || Call { what: "x".repeat(900), ..call("/long") };
    if let Some(folder) = std::env::var_os(HERE) {
        let audit = Audit::open(Path::new(&folder), SIZE_MAX).unwrap();
        for _ in 0..3 {
            audit.note(long()).unwrap_err();
        }
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let audit = || Audit::open(folder.path(), SIZE_MAX).unwrap();
    for number in 1..=9 {
        audit().note(call(&format!("/{number}"))).unwrap();
    }
    let size = |name: &str| fs::metadata(folder.path().join(name)).unwrap().len();
    assert!(size(FILE) + 1300 > SIZE_MAX && size(OLDER) > 1000, "the next line begins a file");
    let before = seen(&audit());
    let limited = "trap '' XFSZ; ulimit -f 1; exec \"$0\" \"$@\"";
    let name = "http::audit::tests::a_full_disk_when_it_is_rotated_takes_no_line_away";
    let mut again = std::process::Command::new("sh");
    again.args(["-c", limited]).arg(std::env::current_exe().unwrap()).args([name, "--exact"]);
    let ended = again.env(HERE, folder.path()).output().unwrap();
    assert!(ended.status.success(), "{ended:?}");
    let after = audit();
    let view = seen(&after);
    assert_eq!(view.check.broken.clone(), None);
    assert_eq!((paths(&view), view.check.first_seq), (paths(&before), before.check.first_seq));
    after.note(long()).unwrap();
    let view = seen(&after);
    assert_eq!((view.newest_seq, view.check.broken.clone()), (10, None));
    assert!(!folder.path().join(NEXT).exists());
}

#[test]
fn a_rotation_that_a_crash_cut_off_is_taken_up() {
    let folder = tempfile::tempdir().unwrap();
    let [file, older, next] = [FILE, OLDER, NEXT].map(|name| folder.path().join(name));
    for path in ["/a", "/b"] {
        open(&folder).note(call(path)).unwrap();
    }
    let both = fs::read_to_string(&file).unwrap();
    let (first, second) = both.split_at(both.find('\n').unwrap() + 1);
    // Between the two renamings, the line on disk or torn; and before the first.
    for (torn, lines) in [(0, 2), (9, 2)] {
        let _ = fs::remove_file(&file);
        fs::write(&older, first).unwrap();
        fs::write(&next, &second[..second.len() - torn]).unwrap();
        let view = seen(&open(&folder));
        assert_eq!((view.lines.len(), view.check.broken.clone()), (lines, None), "{torn}");
        assert!(!next.exists());
    }
    fs::write(&file, first).unwrap();
    fs::remove_file(&older).unwrap();
    fs::write(&next, second).unwrap();
    let view = seen(&open(&folder));
    assert_eq!((paths(&view), view.check.broken.clone()), (vec!["/a"], None));
    assert!(!next.exists());
}

#[test]
fn a_log_that_cannot_be_written_lets_nothing_through_until_it_can() {
    let folder = tempfile::tempdir().unwrap();
    let audit = open(&folder);
    audit.note(call("/a")).unwrap();
    let (file, aside) = (folder.path().join(FILE), folder.path().join("aside"));
    fs::rename(&file, &aside).unwrap();
    fs::create_dir(&file).unwrap();
    audit.ready().unwrap();
    let why = format!("{:#}", audit.note(call("/b")).unwrap_err());
    assert!(why.starts_with("writing ") && why.contains("audit.log"), "{why}");
    audit.ready().unwrap_err();
    audit.note(call("/c")).unwrap_err();
    fs::remove_dir(&file).unwrap();
    fs::rename(&aside, &file).unwrap();
    audit.ready().unwrap();
    let view = seen(&audit);
    assert_eq!(view.lines[1].what, "2 calls before this line could not be noted");
    assert_eq!(view.check.broken.clone(), None);
}

#[test]
fn what_is_long_is_cut() {
    let folder = tempfile::tempdir().unwrap();
    let audit = open(&folder);
    let long = Call { what: "ü\u{1}".repeat(5000), ..call(&"/x".repeat(5000)) };
    audit.note(long).unwrap();
    let view = seen(&audit);
    assert_eq!(view.check.broken.clone(), None);
    let line = &view.lines[0];
    assert!(line.path.len() <= PATH_MAX + 3 && line.what.len() <= WHAT_MAX + 3);
    assert!(line.what.ends_with('…'));
    let size = fs::metadata(folder.path().join(FILE)).unwrap().len();
    assert!(size < LINE_MAX, "{size}");
}
