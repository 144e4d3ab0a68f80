//! A client of QEMU's machine protocol (QMP) on a unix socket.
//!
//! ```text
//! connect ─▶ greeting ─▶ qmp_capabilities ─▶ calls and events ─▶ Event::Lost
//! ```
//!
//! QEMU serves one client per socket: a second one hangs in `connect`, without a greeting, until its deadline.
//!
//! **Invariant:** every wait has a deadline.
//! **Invariant:** events that came before an answer are in the channel before the call returns.
//! **Invariant:** nothing that QEMU says ends the stream, except its end.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::messages::{AcceptCapabilities, Command, Event, MigrationStatus};
use super::process;

/// The longest line that is read; QEMU's own limit for what it takes is 64 MiB, its answers to us are a few KiB.
const LINE_MAX: u64 = 4 << 20;
/// Events that may wait. More means that their reader hangs; what is lost shows in the next `query-migrate`.
const EVENTS_MAX: usize = 256;

/// Why a call brought no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum QmpError {
    /// QEMU said no; nothing was changed.
    #[error("QEMU refused {command}: {desc}")]
    Refused { command: &'static str, desc: String },
    /// No answer in time: it may or may not happen yet. Look before acting again.
    #[error("QEMU did not answer {command} within {waited:?}")]
    Silent { command: &'static str, waited: Duration },
    /// The connection is lost: it may or may not have happened. Look before acting again.
    #[error("the connection to QEMU was lost during {command}")]
    Lost { command: &'static str },
    /// It was done, but the answer is not of the form known.
    #[error("QEMU's answer to {command} has an unknown form")]
    Odd { command: &'static str, source: serde_json::Error },
}

/// What comes of a question: the answer, or QEMU's refusal; an error if the connection ended.
pub(super) type Answer = oneshot::Receiver<Result<Value, String>>;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    /// Nobody listens there.
    #[error("nobody listens")]
    Absent,
    /// Somebody listens but does not speak QMP with us.
    #[error("it does not answer ({0})")]
    Mute(String),
}

/// One connection. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Qmp {
    write: OwnedWriteHalf,
    waiting: Arc<Mutex<Waiting>>,
    next_id: u64,
    answer_max: Duration,
    reader: AbortHandle,
    peer: i32,
    /// Whether QEMU takes commands past those that wait.
    out_of_band: bool,
}

#[derive(Debug)]
struct Waiting {
    open: bool,
    calls: BTreeMap<u64, oneshot::Sender<Result<Value, String>>>,
}

impl Qmp {
    /// Connects and negotiates; each step may take `answer_max`. Events come through the channel, the last is `Lost`.
    pub(super) async fn connect(
        socket: &Path,
        answer_max: Duration,
    ) -> Result<(Qmp, mpsc::Receiver<Event>), ConnectError> {
        let mute = |why: &dyn ToString| ConnectError::Mute(why.to_string());
        let stream = match timeout(answer_max, UnixStream::connect(socket)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                let absent = [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused]
                    .contains(&error.kind());
                return Err(if absent { ConnectError::Absent } else { mute(&error) });
            }
            Err(late) => return Err(mute(&late)),
        };
        let peer = stream
            .peer_cred()
            .ok()
            .and_then(|peer| peer.pid())
            .ok_or_else(|| mute(&"its process is unknown"))?;
        // It takes connections, but would let us wait.
        if process::is_stopped(peer) {
            let why =
                format!("process {peer} is stopped by a signal; `kill -CONT {peer}` lets it go on");
            return Err(ConnectError::Mute(why));
        }
        let (read, write) = stream.into_split();
        let mut read = BufReader::new(read);
        let out_of_band = match timeout(answer_max, greeting(&mut read)).await {
            Ok(Ok(out_of_band)) => out_of_band,
            Ok(Err(error)) => return Err(mute(&error)),
            Err(_late) => return Err(mute(&"no greeting: is another client connected?")),
        };
        let waiting = Arc::new(Mutex::new(Waiting { open: true, calls: BTreeMap::new() }));
        let (events, heard) = mpsc::channel(EVENTS_MAX);
        let reader = tokio::spawn(read_all(read, Arc::clone(&waiting), events)).abort_handle();
        let mut qmp = Qmp { write, waiting, next_id: 1, answer_max, reader, peer, out_of_band };
        let enable = if out_of_band { vec!["oob"] } else { Vec::new() };
        qmp.call(AcceptCapabilities { enable }).await.map_err(|error| mute(&error))?;
        Ok((qmp, heard))
    }

    /// The process at the other end: the one that made the socket listen.
    pub(super) fn peer(&self) -> i32 {
        self.peer
    }

    /// Sends a command and waits for its answer.
    pub(super) async fn call<C: Command>(&mut self, arguments: C) -> Result<C::Answer, QmpError> {
        self.exchange("execute", arguments).await
    }

    /// The same past all commands that wait, also while QEMU hangs, where it can.
    pub(super) async fn call_out_of_band<C: Command>(
        &mut self,
        arguments: C,
    ) -> Result<C::Answer, QmpError> {
        self.exchange(if self.out_of_band { "exec-oob" } else { "execute" }, arguments).await
    }

    /// Sends a question and does not wait: the answer is heard whenever it comes, an error if the connection ends before.
    /// A question that was not answered keeps its place until then, so whoever asks has one open at a time.
    pub(super) async fn begin<C: Command>(&mut self, arguments: C) -> Result<Answer, QmpError> {
        let (id, line) = self.line("execute", &arguments)?;
        let answered = self.expect_answer(id, C::NAME)?;
        let write = self.write.write_all(&line);
        match timeout(self.answer_max, write).await {
            Ok(Ok(())) => Ok(answered),
            Ok(Err(_broken)) => Err(QmpError::Lost { command: C::NAME }),
            Err(_late) => Err(QmpError::Silent { command: C::NAME, waited: self.answer_max }),
        }
    }

    async fn exchange<C: Command>(
        &mut self,
        verb: &'static str,
        arguments: C,
    ) -> Result<C::Answer, QmpError> {
        let (command, waited) = (C::NAME, self.answer_max);
        let (id, line) = self.line(verb, &arguments)?;
        let answered = self.expect_answer(id, command)?;
        let exchange = async {
            self.write.write_all(&line).await.map_err(|_broken| QmpError::Lost { command })?;
            answered.await.map_err(|_reader_ended| QmpError::Lost { command })
        };
        let outcome = timeout(waited, exchange).await;
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).calls.remove(&id);
        match outcome {
            Err(_late) => Err(QmpError::Silent { command, waited }),
            Ok(Err(lost)) => Err(lost),
            Ok(Ok(Err(desc))) => Err(QmpError::Refused { command, desc }),
            Ok(Ok(Ok(value))) => {
                serde_json::from_value(value).map_err(|source| QmpError::Odd { command, source })
            }
        }
    }

    /// A command as it is sent, and its number.
    fn line<C: Command>(
        &mut self,
        verb: &'static str,
        arguments: &C,
    ) -> Result<(u64, Vec<u8>), QmpError> {
        let (command, id) = (C::NAME, self.next_id);
        self.next_id += 1;
        let mut line = serde_json::to_value(arguments)
            .and_then(|arguments| {
                serde_json::to_vec(&json!({ verb: command, "arguments": arguments, "id": id }))
            })
            .map_err(|source| QmpError::Odd { command, source })?;
        line.push(b'\n');
        Ok((id, line))
    }

    fn expect_answer(&self, id: u64, command: &'static str) -> Result<Answer, QmpError> {
        let (answer, answered) = oneshot::channel();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if !waiting.open {
            return Err(QmpError::Lost { command });
        }
        waiting.calls.insert(id, answer);
        Ok(answered)
    }
}

impl Drop for Qmp {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// Waits for QEMU's first word; whether it takes commands out of band.
async fn greeting(read: &mut BufReader<OwnedReadHalf>) -> io::Result<bool> {
    let mut line = Vec::new();
    loop {
        if !next_line(read, &mut line).await? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Ok(Line::Greeting { out_of_band }) = Line::parse(&line) {
            return Ok(out_of_band);
        }
    }
}

/// Reads until the stream ends, then fails every call that waits and says `Lost`.
async fn read_all(
    mut read: BufReader<OwnedReadHalf>,
    waiting: Arc<Mutex<Waiting>>,
    events: mpsc::Sender<Event>,
) {
    let mut line = Vec::new();
    let why = loop {
        match next_line(&mut read, &mut line).await {
            Ok(true) => dispatch(&line, &waiting, &events),
            Ok(false) => break "QEMU closed the connection".to_owned(),
            Err(error) => break error.to_string(),
        }
    };
    {
        let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.open = false;
        waiting.calls.clear();
    }
    drop(events.send(Event::Lost(why)).await);
}

async fn next_line(read: &mut BufReader<OwnedReadHalf>, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    (&mut *read).take(LINE_MAX).read_until(b'\n', line).await?;
    match line.last() {
        None => Ok(false),
        Some(b'\n') => Ok(true),
        Some(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "a line without an end")),
    }
}

fn dispatch(line: &[u8], waiting: &Mutex<Waiting>, events: &mpsc::Sender<Event>) {
    match Line::parse(line) {
        Ok(Line::Event(event)) => {
            if events.try_send(event).is_err() {
                tracing::warn!("an event of QEMU was dropped: too many wait");
            }
        }
        Ok(Line::Answer(id, answer)) => {
            let call = waiting.lock().unwrap_or_else(PoisonError::into_inner).calls.remove(&id);
            if let Some(call) = call {
                // A caller past its deadline has gone away: nobody to tell.
                drop(call.send(answer));
            }
        }
        Ok(Line::Greeting { .. } | Line::Unknown) => {}
        Err(error) => tracing::warn!(%error, "a line from QEMU is not JSON"),
    }
}

/// One line from QEMU.
#[derive(Debug, PartialEq)]
pub(super) enum Line {
    Greeting { out_of_band: bool },
    Event(Event),
    Answer(u64, Result<Value, String>),
    Unknown,
}

impl Line {
    pub(super) fn parse(line: &[u8]) -> Result<Line, serde_json::Error> {
        #[derive(Deserialize)]
        struct Raw {
            #[serde(rename = "QMP")]
            greeting: Option<Value>,
            event: Option<String>,
            #[serde(default)]
            data: Value,
            #[serde(rename = "return")]
            answer: Option<Value>,
            error: Option<Value>,
            id: Option<Value>,
        }
        let raw: Raw = serde_json::from_slice(line)?;
        let id = raw.id.as_ref().and_then(Value::as_u64);
        Ok(match (raw.greeting, raw.event, id, raw.answer, raw.error) {
            (Some(greeting), ..) => {
                let offered = greeting.get("capabilities").and_then(Value::as_array);
                let out_of_band = offered.is_some_and(|all| all.iter().any(|one| one == "oob"));
                Line::Greeting { out_of_band }
            }
            (_, Some(name), ..) => event(&name, &raw.data).map_or(Line::Unknown, Line::Event),
            (_, _, Some(id), Some(answer), _) => Line::Answer(id, Ok(answer)),
            (_, _, Some(id), _, Some(error)) => {
                let desc = error.get("desc").and_then(Value::as_str).unwrap_or("no reason given");
                Line::Answer(id, Err(desc.to_owned()))
            }
            _ => Line::Unknown,
        })
    }
}

fn event(name: &str, data: &Value) -> Option<Event> {
    match name {
        "MIGRATION" => MigrationStatus::deserialize(data.get("status")?).ok().map(Event::Migration),
        "STOP" => Some(Event::Stop),
        "RESUME" => Some(Event::Resume),
        "SHUTDOWN" => {
            let reason = data.get("reason").and_then(Value::as_str).unwrap_or("no reason given");
            Some(Event::Shutdown(reason.to_owned()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
