//! The lines of a log, read with doubt: it may be cut off, damaged, or no log at all.

use std::fmt::{self, Display};
use std::io::{self, BufRead, BufReader, Read};

use decide::host::Event;
use decide::log::{Begin, FORM, Gave, Line};
use decide::units::Time;
use lz4_flex::frame::FrameDecoder;
use serde::Deserialize;

use super::Ending;

/// Bytes of one line. A reading of a thousand VMs has a quarter of a mebibyte.
const LINE_MAX: u64 = 64 << 20;

/// How an LZ4 frame begins (LZ4 Frame Format 1.6.4).
const LZ4: [u8; 4] = 0x184d_2204_u32.to_le_bytes();

/// The lines of a file, which agents pack; one that was unpacked serves as well.
///
/// # Errors
/// If its beginning cannot be read.
pub fn unpacked<'a>(file: impl Read + 'a) -> io::Result<Box<dyn BufRead + 'a>> {
    let mut file = BufReader::new(file);
    if file.fill_buf()?.starts_with(&LZ4) {
        Ok(Box::new(BufReader::new(FrameDecoder::new(file))))
    } else {
        Ok(Box::new(file))
    }
}

/// It cannot be gone through at all.
#[derive(Debug)]
pub enum NotALog {
    /// It cannot be read.
    Unreadable(io::Error),
    /// It does not begin as a log does.
    Foreign(String),
    /// Written by a version of another form.
    Form(u32),
    /// The host panics at its beginning.
    HostPanics,
}

impl Display for NotALog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotALog::Unreadable(error) => write!(f, "it cannot be read: {error}"),
            NotALog::Foreign(why) => write!(f, "no event log of Evenkeel: {why}"),
            NotALog::Form(form) => write!(
                f,
                "its form is {form}, this version reads {FORM}: replay it with the version that recorded it"
            ),
            NotALog::HostPanics => {
                f.write_str("the host panics at its beginning, before the first event")
            }
        }
    }
}

impl std::error::Error for NotALog {}

/// One event, when it was, and what it gave; nothing, if the log ends before that.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) now: Time,
    pub(super) event: Event,
    pub(super) gave: Option<Gave>,
}

/// What follows the first line.
#[derive(Debug)]
pub(super) struct Lines<R> {
    log: R,
    number: u64,
    ending: Option<Ending>,
}

/// Of the first line only what must be known before the rest can be understood.
#[derive(Deserialize)]
struct First {
    begin: FormOnly,
}

#[derive(Deserialize)]
struct FormOnly {
    form: u32,
}

impl<R: BufRead> Lines<R> {
    /// Reads how the host began, and what that gave.
    pub(super) fn open(log: R) -> Result<(Begin, Option<Gave>, Lines<R>), NotALog> {
        let mut lines = Lines { log, number: 0, ending: None };
        let first = lines.bytes().map_err(NotALog::Unreadable)?;
        let cut = || NotALog::Foreign("its first line is not whole".to_owned());
        let first = first.ok_or_else(cut)?;
        let foreign = |error: serde_json::Error| NotALog::Foreign(format!("line 1: {error}"));
        let First { begin: FormOnly { form } } = serde_json::from_slice(&first).map_err(foreign)?;
        if form != FORM {
            return Err(NotALog::Form(form));
        }
        match serde_json::from_slice(&first).map_err(foreign)? {
            Line::Begin(begin) => {
                let gave = lines.gave();
                Ok((*begin, gave, lines))
            }
            Line::Event { .. } | Line::Gave(_) | Line::End { .. } => {
                Err(NotALog::Foreign("line 1 is not a beginning".to_owned()))
            }
        }
    }

    /// The next event.
    ///
    /// # Errors
    /// How the log ends, if there is none.
    pub(super) fn step(&mut self) -> Result<Step, Ending> {
        match self.line()? {
            Line::Event { now, event } => Ok(Step { now, event, gave: self.gave() }),
            Line::End { why } => Err(Ending::Ended(why)),
            Line::Begin(_) | Line::Gave(_) => Err(self.out_of_place()),
        }
    }

    /// What was given; nothing, if the log ends here, as the next step will tell.
    fn gave(&mut self) -> Option<Gave> {
        let ending = match self.line() {
            Ok(Line::Gave(gave)) => return Some(gave),
            Ok(Line::End { why }) => Ending::Ended(why),
            Ok(Line::Begin(_) | Line::Event { .. }) => self.out_of_place(),
            Err(ending) => ending,
        };
        self.ending = Some(ending);
        None
    }

    fn line(&mut self) -> Result<Line, Ending> {
        if let Some(ending) = self.ending.take() {
            return Err(ending);
        }
        match self.bytes() {
            Ok(None) => Err(Ending::CutOff),
            Ok(Some(bytes)) => serde_json::from_slice(&bytes).map_err(|e| self.damaged(&e)),
            Err(error) => Err(self.damaged(&error)),
        }
    }

    /// One whole line; nothing at the end, where half a line may be.
    fn bytes(&mut self) -> io::Result<Option<Vec<u8>>> {
        self.number += 1;
        let mut bytes = Vec::new();
        match self.log.by_ref().take(LINE_MAX).read_until(b'\n', &mut bytes) {
            // Half a packed block is half a line.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        };
        if bytes.len() as u64 == LINE_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the line has no end"));
        }
        Ok((bytes.pop() == Some(b'\n')).then_some(bytes))
    }

    fn out_of_place(&self) -> Ending {
        self.damaged(&"it is out of place: a line is missing before it")
    }

    fn damaged(&self, why: &dyn Display) -> Ending {
        Ending::Damaged { line: self.number, why: why.to_string() }
    }
}
