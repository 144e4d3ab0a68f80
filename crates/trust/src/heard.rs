//! The file that keeps over restarts what was heard of each sender of datagrams.
//!
//! **Invariant:** the file is replaced as a whole and is on disk when that is done; one writes at a time, and none after the last.
//! **Invariant:** it is not written anew while it says the same, and what is read of it has a limit.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, ensure};

use crate::folder;
use crate::seal::Marks;

/// Bytes of the file: several times what as many senders take as may be known at once.
const FILE_MAX: u64 = 2 * 1024 * 1024;

/// The file, for one run of an agent.
#[derive(Debug)]
pub struct Heard {
    file: PathBuf,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// What the file says, as far as is known.
    marks: Option<Marks>,
    /// The last was written.
    closed: bool,
}

impl Heard {
    /// The file, of which nothing is known yet.
    #[must_use]
    pub fn new(file: PathBuf) -> Heard {
        Heard { file, kept: Mutex::default() }
    }

    /// What was kept; nothing where there is no file.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read(&self) -> anyhow::Result<Marks> {
        let place = || {
            let file = self.file.display();
            format!("reading {file}: datagrams from before this start could be replayed once")
        };
        let file = match File::open(&self.file) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Marks::default()),
            opened => opened.with_context(place)?,
        };
        let mut text = Vec::new();
        let length = file.take(FILE_MAX + 1).read_to_end(&mut text).with_context(place)?;
        ensure!(length as u64 <= FILE_MAX, "{}: more than {FILE_MAX} bytes", place());
        let marks: Marks = serde_json::from_slice(&text).with_context(place)?;
        self.kept().marks = Some(marks.clone());
        Ok(marks)
    }

    /// Keeps this, unless it is what the file says already; says whether the file was written.
    ///
    /// # Errors
    /// If it cannot be written; what was kept before stays.
    pub fn keep(&self, marks: Marks) -> anyhow::Result<bool> {
        self.write(marks, false)
    }

    /// The same for the last time: whoever writes later changes nothing.
    ///
    /// # Errors
    /// As `keep`.
    pub fn close(&self, marks: Marks) -> anyhow::Result<bool> {
        self.write(marks, true)
    }

    fn write(&self, marks: Marks, last: bool) -> anyhow::Result<bool> {
        let mut kept = self.kept();
        let closed = kept.closed;
        kept.closed |= last;
        if closed || kept.marks.as_ref() == Some(&marks) {
            return Ok(false);
        }
        let name = self.file.file_name().and_then(|name| name.to_str());
        let name = name.with_context(|| format!("{} is no file's name", self.file.display()))?;
        let folder = self.file.parent().filter(|folder| !folder.as_os_str().is_empty());
        let text = serde_json::to_vec(&marks).context("writing JSON")?;
        folder::write(folder.unwrap_or(Path::new(".")), name, &text)?;
        kept.marks = Some(marks);
        Ok(true)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // A panic of another writer leaves the file whole.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use decide::units::HostId;

    use super::*;
    use crate::seal::SENDERS_MAX;
    use crate::window::{Life, Mark};

    /// Of so many senders, all of which were heard up to there.
    fn marks(senders: usize, floor: u64) -> Marks {
        let life = Life { incarnation: u32::MAX, lot: u64::MAX };
        let host = |number: usize| HostId(u128::MAX - number as u128);
        Marks((0..senders).map(|number| (host(number), Mark { epoch: 1, life, floor })).collect())
    }

    #[test]
    fn it_is_replaced_whole_for_its_owner_alone_and_only_if_something_changed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("heard.json");
        let heard = || Heard::new(file.clone());
        assert_eq!(heard().read().unwrap(), Marks::default());
        let one = heard();
        assert!(one.keep(marks(2, 7)).unwrap());
        let inode = fs::metadata(&file).unwrap().ino();
        assert!(!one.keep(marks(2, 7)).unwrap());
        assert_eq!(fs::metadata(&file).unwrap().ino(), inode, "it was written anew");
        assert!(one.keep(marks(2, 8)).unwrap());
        assert_ne!(fs::metadata(&file).unwrap().ino(), inode, "it was written over");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let next = heard();
        assert_eq!(next.read().unwrap(), marks(2, 8));
        assert!(!next.keep(marks(2, 8)).unwrap(), "nothing was heard since");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn who_writes_after_the_last_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let heard = Heard::new(folder.path().join("heard.json"));
        heard.close(marks(1, 7)).unwrap();
        assert!(!heard.keep(marks(1, 2_000_007)).unwrap());
        assert_eq!(heard.read().unwrap(), marks(1, 7));
    }

    #[test]
    fn several_that_write_at_once_leave_it_whole() {
        let folder = tempfile::tempdir().unwrap();
        let heard = Heard::new(folder.path().join("heard.json"));
        let write = |writer: u64| {
            let heard = &heard;
            move || (0..50).try_for_each(|turn| heard.keep(marks(3, writer + turn)).map(drop))
        };
        let written = std::thread::scope(|scope| {
            [0, 1000, 2000].map(|writer| scope.spawn(write(writer))).map(|one| one.join().unwrap())
        });
        for one in written {
            one.unwrap();
        }
        assert_eq!(heard.read().unwrap().0.len(), 3);
    }

    #[test]
    fn as_many_senders_as_may_be_known_fit_and_a_larger_file_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let heard = Heard::new(folder.path().join("heard.json"));
        heard.keep(marks(SENDERS_MAX, u64::MAX)).unwrap();
        assert_eq!(heard.read().unwrap().0.len(), SENDERS_MAX);
        let length = usize::try_from(FILE_MAX).unwrap() + 1;
        fs::write(folder.path().join("heard.json"), vec![b' '; length]).unwrap();
        let why = format!("{:#}", heard.read().unwrap_err());
        assert!(why.contains("heard.json") && why.ends_with("more than 2097152 bytes"), "{why}");
    }
}
