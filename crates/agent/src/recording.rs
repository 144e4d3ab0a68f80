//! Writes down what goes into the host and what comes of it, for `evenkeel lab replay`: a thread with a short queue.
//!
//! ```text
//!   steering ──(never waits)──▶ queue ──▶ recorder ──▶ FOLDER/HOST.INCARNATION.jsonl.lz4
//! ```
//!
//! **Invariant:** recording never stops or slows the agent: if the disk falls behind, is full, or the log has reached its
//! limit, the recording ends instead, and that is said once.
//! **Invariant:** what is in the file is whole up to its end: every event, in order, from the agent's start.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::SystemTime;

use anyhow::{Context, ensure};
use decide::host::{Action, Event, Start};
use decide::log::{Begin, FORM, Gave, Line};
use decide::units::Time;
use lz4_flex::frame::{BlockMode, FrameEncoder, FrameInfo};

use crate::clock::unix_micros;
use crate::config::Record;

/// What may wait to be written. Usually a few hundred bytes each.
const WAITING_MAX: usize = 1024;
/// Room for the line that ends a log, and the marks of the packed form.
const END: u64 = 4096;
const ENDING: &str = "jsonl.lz4";

/// What the loop says to the recorder.
enum Said {
    Line(Line),
    /// Digests are made by the recorder, not by the loop.
    Gave(Vec<Action>, Option<Time>),
}

/// The loop's side of the recorder.
#[derive(Debug)]
pub(crate) struct Recording {
    said: Option<SyncSender<Said>>,
    /// Why it ended before the agent; set once, by whoever ended it.
    why: Arc<OnceLock<String>>,
    told: bool,
}

impl std::fmt::Debug for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Said")
    }
}

impl Recording {
    /// Begins a log, if one is wanted. If that fails the agent goes on without, and says so.
    pub(crate) fn start(
        wanted: &Record,
        now: Time,
        start: &Start,
    ) -> (Recording, Option<JoinHandle<()>>) {
        let why = Arc::new(OnceLock::new());
        let mut recording = Recording { said: None, why: Arc::clone(&why), told: false };
        let Some(folder) = &wanted.folder else { return (recording, None) };
        let begun = Log::begin(folder, wanted.size_max.0 << 20, start).and_then(|log| {
            tracing::info!(file = %log.path.display(), room = log.room, "recording");
            let (said, heard) = sync_channel(WAITING_MAX);
            let recorder = std::thread::Builder::new()
                .name("recorder".to_owned())
                .spawn(move || record(log, &heard, &why))
                .context("starting the recorder's thread")?;
            Ok((said, recorder))
        });
        match begun {
            Ok((said, recorder)) => {
                recording.said = Some(said);
                recording.say(Said::Line(Line::Begin(Box::new(Begin {
                    form: FORM,
                    version: env!("CARGO_PKG_VERSION").to_owned(),
                    unix_us: unix_micros(),
                    now,
                    start: start.clone(),
                }))));
                (recording, Some(recorder))
            }
            Err(error) => {
                let _ = recording.why.set(format!("nothing is recorded: {error:#}"));
                (recording, None)
            }
        }
    }

    /// An event, before the host takes it: one that brings the host down is in the log.
    pub(crate) fn event(&mut self, now: Time, event: &Event) {
        if self.said.is_some() {
            self.say(Said::Line(Line::Event { now, event: event.clone() }));
        }
    }

    /// What the host gave.
    pub(crate) fn gave(&mut self, actions: &[Action], deadline: Option<Time>) {
        if self.said.is_some() {
            self.say(Said::Gave(actions.to_vec(), deadline));
        }
    }

    /// Why nothing is recorded any more, if that has not been said.
    pub(crate) fn ended(&mut self) -> Option<String> {
        if self.told || self.why.get().is_none() {
            return None;
        }
        (self.told, self.said) = (true, None);
        self.why.get().cloned()
    }

    fn say(&mut self, said: Said) {
        let Some(recorder) = &self.said else { return };
        let why = match recorder.try_send(said) {
            Ok(()) => return,
            Err(TrySendError::Full(_)) => "the recording ends: its disk falls behind",
            // It has said why, unless it panicked.
            Err(TrySendError::Disconnected(_)) => "the recording ends: its thread is gone",
        };
        let _ = self.why.set(why.to_owned());
        self.said = None;
    }
}

/// A log's file: lines of JSON, packed as one LZ4 frame. Gossip repeats itself, so that it takes a tenth of the room.
struct Log {
    path: PathBuf,
    file: FrameEncoder<Counted>,
    /// Bytes that the file may have.
    room: u64,
    /// Bytes of lines since the last flush, not packed yet.
    waiting: u64,
}

/// A file, and how many bytes were written to it.
struct Counted {
    file: BufWriter<File>,
    bytes: u64,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

impl Log {
    /// Makes room in the folder, and a new file there that only its owner may read.
    fn begin(folder: &Path, size_max: u64, start: &Start) -> anyhow::Result<Log> {
        let within = || format!("the folder {} (key record.folder)", folder.display());
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).with_context(within)?;
        let room = size_max - make_room(folder, size_max / 2).with_context(within)?;
        let name = format!("{:08x}.{}.{ENDING}", start.id.0 >> 96, start.incarnation);
        let path = folder.join(name);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("making {}", path.display()))?;
        Ok(Log::of(path, file, room))
    }

    fn of(path: PathBuf, file: File, room: u64) -> Log {
        // Each block refers to those before it; a checksum tells a damaged one.
        let form = FrameInfo::new().block_mode(BlockMode::Linked).block_checksums(true);
        let file = Counted { file: BufWriter::new(file), bytes: 0 };
        Log { path, file: FrameEncoder::with_frame_info(form, file), room, waiting: 0 }
    }

    fn write(&mut self, line: &Line) -> anyhow::Result<()> {
        let mut bytes = serde_json::to_vec(line).context("an event has no JSON form")?;
        bytes.push(b'\n');
        let length = bytes.len() as u64;
        if self.size_with(length) > self.room {
            // How small what waits becomes is known once it is packed.
            self.flush()?;
        }
        let size = self.size_with(length);
        ensure!(size <= self.room, "the limit is reached (key record.size_max)");
        self.waiting += length;
        self.file.write_all(&bytes)?;
        Ok(())
    }

    /// Bytes of the file if neither what waits nor `length` more became smaller.
    fn size_with(&self, length: u64) -> u64 {
        self.file.get_ref().bytes + self.waiting + length + END
    }

    /// Hands all lines so far to the system: they are in the file, whatever becomes of the agent.
    fn flush(&mut self) -> anyhow::Result<()> {
        self.file.flush()?;
        self.file.get_mut().flush()?;
        self.waiting = 0;
        Ok(())
    }

    /// The last line. Where even that cannot be written, the log is cut off, which its reader takes as well.
    fn end(mut self, why: &str) {
        self.room = self.room.saturating_add(END);
        self.waiting = 0;
        let _ = self.write(&Line::End { why: why.to_owned() });
        let _ = self.file.try_finish();
        let _ = self.file.get_mut().flush();
    }
}

/// Removes the oldest logs until the rest take at most so many bytes; how many they take.
fn make_room(folder: &Path, bytes_max: u64) -> std::io::Result<u64> {
    let mut logs: Vec<(SystemTime, PathBuf, u64)> = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let about = entry.metadata()?;
        if about.is_file() && is_log(&entry.path()) {
            logs.push((about.modified()?, entry.path(), about.len()));
        }
    }
    logs.sort();
    let mut bytes = logs.iter().map(|(_, _, bytes)| bytes).sum();
    for (_, path, length) in logs {
        if bytes <= bytes_max {
            break;
        }
        fs::remove_file(path)?;
        bytes -= length;
    }
    Ok(bytes)
}

/// Whether a file is named as logs are: whatever else lies there is left alone.
fn is_log(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let parts: Vec<&str> = name.splitn(3, '.').collect();
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit());
    matches!(parts[..], [host, incarnation, ENDING] if digits(host) && digits(incarnation))
}

/// Writes what it hears until nothing more can come, or nothing more can be written.
fn record(mut log: Log, heard: &Receiver<Said>, why: &OnceLock<String>) {
    let path = log.path.display().to_string();
    while let Ok(first) = heard.recv() {
        // What has come meanwhile is written along.
        let written = std::iter::once(first)
            .chain(heard.try_iter())
            .try_for_each(|said| log.write(&line(said)))
            .and_then(|()| log.flush());
        if let Err(error) = written {
            let words = format!("the recording {path} ends: {error:#}");
            log.end(&words);
            let _ = why.set(words);
            return;
        }
    }
    log.end(why.get().map_or("the agent ended", |why| why));
}

fn line(said: Said) -> Line {
    match said {
        Said::Line(line) => line,
        Said::Gave(actions, deadline) => Line::Gave(Gave::of(&actions, deadline)),
    }
}

#[cfg(test)]
mod tests;
