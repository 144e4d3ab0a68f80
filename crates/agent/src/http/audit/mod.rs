//! The audit log: what was asked of this agent that could change something, by whom, and what came of it.
//!
//! ```text
//!   audit.log    newest lines ──▶ 16 MiB ──▶ audit.log.1 (replaces the one before)
//!       ▲                                      once the next line is on disk
//!   audit.log.new    that line
//! ```
//!
//! The chain of lines (`chain`) goes on over both, and over restarts. A line that a crash cut off was never answered for: it is
//! taken away at the next start, and a line says so.
//!
//! **Invariant:** a line that cannot be written takes no other with it, also where it would have been the first of the next file.
//! **Invariant:** a call is answered only when its line is on disk; where that fails the answer says so, and no other call that
//! changes something is carried out before the log can be written again.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use api::{AUDIT, AuditFilter, AuditLine, AuditView, Who};

use crate::clock::{date, unix_micros};

pub(super) mod chain;

const FILE: &str = "audit.log";
const OLDER: &str = "audit.log.1";
/// The next file, until it takes its place.
const NEXT: &str = "audit.log.new";
/// No line is longer: its parts are cut before.
const LINE_MAX: u64 = 32 * 1024;
/// Of a path.
const PATH_MAX: usize = 512;
/// Of a body.
const WHAT_MAX: usize = 1024;

/// The log of one agent.
#[derive(Debug)]
pub(super) struct Audit {
    folder: PathBuf,
    size_max: u64,
    end: Mutex<End>,
}

/// Where the chain goes on.
#[derive(Debug)]
struct End {
    seq: u64,
    hash: String,
    /// Bytes of the newest file that are whole lines.
    size: u64,
    /// Calls whose lines could not be written.
    lost: u64,
}

/// What is noted of a call.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) who: Who,
    pub(super) from: String,
    pub(super) method: String,
    pub(super) path: String,
    pub(super) what: String,
    pub(super) status: u16,
}

impl Audit {
    /// The log in this folder, which is there; goes on where it ended.
    ///
    /// # Errors
    /// It cannot be read or written.
    pub(super) fn open(folder: &Path, size_max: u64) -> anyhow::Result<Audit> {
        let file = folder.join(FILE);
        take_up(folder).with_context(|| format!("reading {}", folder.display()))?;
        let (mended, torn) = mend(&file).with_context(|| format!("reading {}", file.display()))?;
        let end = match mended {
            Some(end) => end,
            None => {
                let older = folder.join(OLDER);
                let found = tail(&older).with_context(|| format!("reading {}", older.display()))?;
                let last = found.and_then(|tail| tail.last);
                let (seq, hash) = last.unwrap_or_else(|| (0, chain::beginning()));
                End { seq, hash, size: 0, lost: 0 }
            }
        };
        let audit = Audit { folder: folder.to_owned(), size_max, end: Mutex::new(end) };
        if torn > 0 {
            let what = format!(
                "{torn} bytes of a line that was cut off, by a crash or a full disk, were taken away: no answer was given for it"
            );
            tracing::warn!("{}: {what}", file.display());
            audit.write(&mut audit.locked(), remark(what))?;
        }
        Ok(audit)
    }

    /// Appends a call; it is on disk when this returns.
    ///
    /// # Errors
    /// It is not, and is counted as lost.
    pub(super) fn note(&self, call: Call) -> anyhow::Result<()> {
        let mut end = self.locked();
        let noted = self.make_up(&mut end).and_then(|()| self.write(&mut end, call));
        if noted.is_err() {
            end.lost += 1;
        }
        noted
    }

    /// Appends a line of the agent's own.
    ///
    /// # Errors
    /// As `note`.
    pub(super) fn remark(&self, what: String) -> anyhow::Result<()> {
        self.note(remark(what))
    }

    /// Whether the next call can be noted, as far as is known.
    ///
    /// # Errors
    /// The last could not, and it still cannot.
    pub(super) fn ready(&self) -> anyhow::Result<()> {
        self.make_up(&mut self.locked())
    }

    /// Says how many are missing, once it can be said.
    fn make_up(&self, end: &mut End) -> anyhow::Result<()> {
        if end.lost == 0 {
            return Ok(());
        }
        let what = format!("{} calls before this line could not be noted", end.lost);
        self.write(end, remark(what))?;
        end.lost = 0;
        Ok(())
    }

    fn write(&self, end: &mut End, call: Call) -> anyhow::Result<()> {
        let file = self.folder.join(FILE);
        let Call { who, from, method, path, what, status } = call;
        let at = unix_micros() / 1000;
        let line = AuditLine {
            seq: end.seq + 1,
            at,
            time: date(at / 1000),
            who,
            from,
            method: cut(method, 32),
            path: cut(path, PATH_MAX),
            what: cut(what, WHAT_MAX),
            status,
            before: end.hash.clone(),
            hash: String::new(),
        };
        let (mut text, hash) = chain::sealed(&line);
        text.push('\n');
        let size = self
            .append(text.as_bytes(), end.size)
            .with_context(|| format!("writing {}", file.display()))?;
        *end = End { seq: line.seq, hash, size, lost: end.lost };
        Ok(())
    }

    /// Gives the size of the file now.
    fn append(&self, line: &[u8], size: u64) -> std::io::Result<u64> {
        let path = self.folder.join(FILE);
        let length = u64::try_from(line.len()).unwrap_or(u64::MAX);
        if size > 0 && size.saturating_add(length) > self.size_max {
            self.rotate(line)?;
            return Ok(length);
        }
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
        let found = file.metadata()?.len();
        // Somebody took the file away, or a write before this one was cut off.
        let begins = size.min(found);
        if found > begins {
            file.set_len(begins)?;
        }
        file.write_all(line)?;
        file.sync_all()?;
        if begins == 0 {
            File::open(&self.folder)?.sync_all()?;
        }
        Ok(begins + length)
    }

    /// Begins the next file with this line. On a full disk that is where it ends: nothing was renamed yet.
    fn rotate(&self, line: &[u8]) -> std::io::Result<()> {
        let [path, older, next] = [FILE, OLDER, NEXT].map(|name| self.folder.join(name));
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&next)?;
        file.write_all(line)?;
        file.sync_all()?;
        match fs::rename(&path, older) {
            // Somebody took it away, or an attempt before this one came as far as here.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            renamed => renamed?,
        }
        fs::rename(&next, &path)?;
        File::open(&self.folder)?.sync_all()
    }

    /// Lines that `filter` picks, and whether all of them fit together. `now` in milliseconds since 1970.
    ///
    /// # Errors
    /// A file cannot be read.
    pub(super) fn look(&self, filter: &AuditFilter, now: u64) -> anyhow::Result<AuditView> {
        let limit = filter.limit.unwrap_or(AUDIT) as usize;
        let after = filter.after.unwrap_or(0);
        let from = filter.since.map_or(0, |since| now.saturating_sub(since.saturating_mul(1000)));
        let (files, newest_seq, newest_hash) = {
            let end = self.locked();
            // Opened while nothing is written, so that they belong together; read afterwards.
            let files = [(OLDER, u64::MAX), (FILE, end.size)]
                .map(|(name, size)| (name, size, opened(&self.folder.join(name))));
            (files, end.seq, end.hash.clone())
        };
        let mut walk = chain::Walk::new(filter.kept.clone());
        let mut lines: VecDeque<AuditLine> = VecDeque::new();
        for (name, size, file) in files {
            let place = || format!("reading {}", self.folder.join(name).display());
            let Some(file) = file.with_context(place)? else { continue };
            let mut reader = BufReader::new(file.take(size));
            let (mut bytes, mut number) = (Vec::new(), 0_u64);
            while next(&mut reader, &mut bytes).with_context(place)? {
                number += 1;
                let line = walk.line(&format!("{name}, line {number}"), &bytes);
                lines.extend(line.filter(|line| line.at >= from && line.seq > after));
                if lines.len() > limit {
                    // The oldest where it goes on after one, else the newest.
                    let _one_too_many = match filter.after {
                        Some(_) => lines.pop_back(),
                        None => lines.pop_front(),
                    };
                }
            }
        }
        Ok(AuditView { lines: lines.into(), newest_seq, newest_hash, check: walk.check() })
    }

    fn locked(&self) -> MutexGuard<'_, End> {
        // A panic of another thread leaves it whole: it is replaced as one.
        self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the agent says itself.
fn remark(what: String) -> Call {
    let who = Who { name: Some("evenkeeld".to_owned()), ..Who::default() };
    Call {
        who,
        from: "agent".to_owned(),
        method: String::new(),
        path: String::new(),
        what,
        status: 0,
    }
}

fn cut(mut text: String, max: usize) -> String {
    if text.len() > max {
        text.truncate(text.floor_char_boundary(max));
        text.push('…');
    }
    text
}

/// Goes on with a rotation that a crash cut off between its two renamings, and ends one that did not come as far.
fn take_up(folder: &Path) -> std::io::Result<()> {
    let [path, next] = [FILE, NEXT].map(|name| folder.join(name));
    let taken_up = if path.exists() { fs::remove_file(next) } else { fs::rename(next, path) };
    match taken_up {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// How a file ends.
struct Tail {
    /// Number and hash of the last line that can be read.
    last: Option<(u64, String)>,
    /// Bytes that are whole lines.
    whole: u64,
    /// What follows them.
    rest: Vec<u8>,
}

/// None: there is no such file, or nothing is in it.
fn tail(path: &Path) -> std::io::Result<Option<Tail>> {
    let Some(mut file) = opened(path)? else { return Ok(None) };
    let size = file.metadata()?.len();
    if size == 0 {
        return Ok(None);
    }
    let from = size.saturating_sub(2 * LINE_MAX);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let ends = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let rest = bytes.split_off(ends);
    let lines = bytes.split(|byte| *byte == b'\n').rev();
    let last = lines.filter_map(|line| chain::read(line).ok()).next();
    let whole = from + u64::try_from(ends).unwrap_or(u64::MAX);
    Ok(Some(Tail { last: last.map(|line| (line.seq, line.hash)), whole, rest }))
}

/// Takes away what was cut off; gives how long that was.
fn mend(path: &Path) -> std::io::Result<(Option<End>, usize)> {
    let Some(Tail { mut last, mut whole, rest }) = tail(path)? else { return Ok((None, 0)) };
    let file = OpenOptions::new().append(true).open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    let mut torn = 0;
    if let Ok(line) = chain::read(&rest) {
        // Only its end of line is missing.
        (&file).write_all(b"\n")?;
        whole += u64::try_from(rest.len() + 1).unwrap_or(u64::MAX);
        last = Some((line.seq, line.hash));
    } else if !rest.is_empty() {
        file.set_len(whole)?;
        torn = rest.len();
    }
    file.sync_all()?;
    let end = last.map(|(seq, hash)| End { seq, hash, size: whole, lost: 0 });
    // Lines of which none can be read stay, and what is written next does not fit them, which a look will tell.
    let unreadable = || End { seq: 0, hash: chain::beginning(), size: whole, lost: 0 };
    let end = end.or_else(|| (whole > 0).then(unreadable));
    Ok((end, torn))
}

/// None: there is no such file.
fn opened(path: &Path) -> std::io::Result<Option<File>> {
    match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        opened => opened.map(Some),
    }
}

/// The next line without its end; a line that is longer than any of ours comes in parts, none of which fits.
fn next(reader: &mut impl BufRead, line: &mut Vec<u8>) -> std::io::Result<bool> {
    line.clear();
    reader.by_ref().take(LINE_MAX).read_until(b'\n', line)?;
    let some = !line.is_empty();
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    Ok(some)
}

#[cfg(test)]
mod tests;
