//! One connection to a libvirt daemon of this host, by the protocol that its own library speaks to it.
//!
//! ```text
//!   message = length, program, version, procedure, type, serial, status (a word each), then what the procedure says
//!   call ──▶ reply with the same serial, in any order         event: comes unasked, serial 0
//! ```
//!
//! Why not the library: a move must be taken in its single steps, with the source's copy kept until our hand-over, and the
//! library offers only the whole (see `mod`). The steps are calls of the protocol, which only grows: a library of any age speaks with a
//! daemon of any age. It has numbers for procedures that never change, and nothing needs to be installed to build against it.
//!
//! **Invariant:** every call ends: by its reply, by its time, or with the connection.
//!
//! Source: libvirt's `docs/kbase/internals/rpc.rst` and its protocol's files `virnetprotocol.x`, `remote_protocol.x`.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use super::xdr::{Garbled, Reader, Writer};

const PROGRAM: u32 = 0x2000_8086;
/// What there is for domains of QEMU alone.
const QEMU_PROGRAM: u32 = 0x2000_8087;
const VERSION: u32 = 1;
const CALL: u32 = 0;
const REPLY: u32 = 1;
const EVENT: u32 = 2;
const OK: u32 = 0;
const HEAD: usize = 28;
/// What the library takes at most.
const MESSAGE_MAX: usize = 32 << 20;
/// Messages that wait to be sent. A VM's task waits for most answers.
const WAITING_MAX: usize = 64;

const CONNECT_OPEN: u32 = 1;
const AUTH_LIST: u32 = 66;
const AUTH_POLKIT: u32 = 70;
const BY_NONE: u32 = 0;
const BY_POLKIT: u32 = 2;

/// A call brought no result.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum RpcError {
    /// The daemon said no; nothing was done, or what was begun was undone.
    #[error("{message}")]
    Refused {
        /// The daemon's number for the reason (`virErrorNumber`).
        code: u32,
        /// Its words.
        message: String,
    },
    /// No answer in time: it may have been done.
    #[error("libvirt did not answer within {0:?}")]
    Silent(Duration),
    /// The connection ended before the answer: it may have been done.
    #[error("the connection to libvirt ended")]
    Lost,
    /// The answer is not understood: it was done.
    #[error("libvirt's answer is {0}")]
    Odd(#[from] Garbled),
}

impl RpcError {
    /// Whether a processor was compared and is not enough (`VIR_ERR_CPU_INCOMPATIBLE`).
    pub(super) fn incompatible_cpu(&self) -> bool {
        matches!(self, RpcError::Refused { code: 91, .. })
    }

    /// Whether there is no such thing, or not now (`VIR_ERR_OPERATION_UNSUPPORTED`).
    pub(super) fn unsupported(&self) -> bool {
        matches!(self, RpcError::Refused { code: 84, .. })
    }

    /// Whether there is no such domain.
    pub(super) fn no_domain(&self) -> bool {
        matches!(self, RpcError::Refused { code: 42, .. })
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    /// Nobody listens there.
    #[error("{0}")]
    Absent(#[from] io::Error),
    /// It wants a password.
    #[error(
        "it asks for a password (SASL): let root in by its socket, with auth_unix_rw = \"none\" or \"polkit\""
    )]
    Password,
    /// It is older than what this driver was made for.
    #[error("it is of version {version}, and {needed} is needed")]
    Old {
        /// What it is.
        version: String,
        /// What it must be.
        needed: String,
    },
    /// It did not let this process in.
    #[error(transparent)]
    Rpc(#[from] RpcError),
}

/// An event: its procedure and what it says.
pub(super) type Event = (u32, Vec<u8>);
type Answer = Result<Vec<u8>, RpcError>;

#[derive(Debug, Default)]
struct Waiting {
    last: u32,
    /// Absent once the connection has ended.
    open: Option<BTreeMap<u32, oneshot::Sender<Answer>>>,
    /// Calls that nobody waits for any more, and that the daemon has not answered: each takes one of the few that it takes of a connection
    /// at a time (`max_client_requests`).
    left: BTreeSet<u32>,
}

/// A connection. It ends with its last handle.
#[derive(Clone, Debug)]
pub(super) struct Rpc {
    outgoing: mpsc::Sender<Vec<u8>>,
    waiting: Arc<Mutex<Waiting>>,
    answer_max: Duration,
    /// Its other end is dropped with the connection.
    alive: watch::Receiver<()>,
}

impl Rpc {
    /// Connects by a unix socket and opens the driver of QEMU. Events go into `events`; its end is seen by `events` closing.
    pub(super) async fn connect(
        socket: &Path,
        answer_max: Duration,
        events: Option<mpsc::Sender<Event>>,
    ) -> Result<Rpc, ConnectError> {
        let (reading, writing) = UnixStream::connect(socket).await?.into_split();
        let (outgoing, queue) = mpsc::channel(WAITING_MAX);
        let waiting =
            Arc::new(Mutex::new(Waiting { open: Some(BTreeMap::new()), ..Waiting::default() }));
        let (ends, alive) = watch::channel(());
        let rpc = Rpc { outgoing, waiting: Arc::clone(&waiting), answer_max, alive };
        tokio::spawn(write(writing, queue));
        tokio::spawn(async move {
            read(reading, waiting, events).await;
            drop(ends);
        });
        let answer = rpc.call(AUTH_LIST, Writer::default()).await?;
        let mut reader = Reader(&answer);
        let mut ways = Vec::new();
        for _ in 0..reader.count().map_err(RpcError::from)? {
            ways.push(reader.word().map_err(RpcError::from)?);
        }
        if !ways.is_empty() && !ways.contains(&BY_NONE) {
            if !ways.contains(&BY_POLKIT) {
                return Err(ConnectError::Password);
            }
            rpc.call(AUTH_POLKIT, Writer::default()).await?;
        }
        rpc.call(CONNECT_OPEN, Writer::default().maybe(Some("qemu:///system")).word(0)).await?;
        Ok(rpc)
    }

    /// Whether it has not ended.
    pub(super) fn is_open(&self) -> bool {
        self.waiting().open.is_some()
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many calls the daemon has not answered for which nobody waits any more.
    pub(super) fn left(&self) -> usize {
        self.waiting().left.len()
    }

    /// Ends with the connection; keeps it not open.
    pub(super) fn closed(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut alive = self.alive.clone();
        async move { while alive.changed().await.is_ok() {} }
    }

    /// Calls a procedure and waits for its result, `answer_max` at most.
    pub(super) async fn call(&self, procedure: u32, arguments: Writer) -> Answer {
        self.call_within(self.answer_max, procedure, arguments).await
    }

    /// Calls a procedure that may take that long.
    pub(super) async fn call_within(
        &self,
        max: Duration,
        procedure: u32,
        arguments: Writer,
    ) -> Answer {
        let answer = timeout(max, self.call_for_ever(procedure, arguments)).await;
        answer.unwrap_or(Err(RpcError::Silent(max)))
    }

    /// Calls a procedure that takes as long as it takes.
    pub(super) async fn call_for_ever(&self, procedure: u32, arguments: Writer) -> Answer {
        self.call_of(PROGRAM, procedure, arguments).await
    }

    /// Calls a procedure that there is for domains of QEMU alone.
    pub(super) async fn call_qemu(&self, procedure: u32, arguments: Writer) -> Answer {
        let max = self.answer_max;
        let answer = timeout(max, self.call_of(QEMU_PROGRAM, procedure, arguments)).await;
        answer.unwrap_or(Err(RpcError::Silent(max)))
    }

    async fn call_of(&self, program: u32, procedure: u32, arguments: Writer) -> Answer {
        let (tell, answer) = oneshot::channel();
        let serial = {
            let mut waiting = self.waiting();
            waiting.last = waiting.last.wrapping_add(1).max(1);
            let serial = waiting.last;
            waiting.open.as_mut().ok_or(RpcError::Lost)?.insert(serial, tell);
            serial
        };
        let _asked = Asked { rpc: self, serial };
        let message = message((program, procedure), serial, &arguments.bytes());
        self.outgoing.send(message).await.map_err(|_closed| RpcError::Lost)?;
        answer.await.unwrap_or(Err(RpcError::Lost))
    }
}

/// A call that waits for its answer. With this value nobody does any more.
struct Asked<'a> {
    rpc: &'a Rpc,
    serial: u32,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        let mut waiting = self.rpc.waiting();
        if waiting.open.as_mut().is_some_and(|open| open.remove(&self.serial).is_some()) {
            waiting.left.insert(self.serial);
        }
    }
}

fn message((program, procedure): (u32, u32), serial: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEAD + body.len()).expect("far below 32 MiB");
    let head = [length, program, VERSION, procedure, CALL, serial, OK];
    let head = head.into_iter().fold(Writer::default(), Writer::word);
    head.fixed(body).bytes()
}

async fn write(mut writing: OwnedWriteHalf, mut queue: mpsc::Receiver<Vec<u8>>) {
    while let Some(message) = queue.recv().await {
        // An error is the end of the connection, which the reader sees.
        if writing.write_all(&message).await.is_err() {
            return;
        }
    }
}

/// Gives each reply to who waits for it; at the end of the connection tells all others so.
async fn read(
    mut reading: OwnedReadHalf,
    waiting: Arc<Mutex<Waiting>>,
    events: Option<mpsc::Sender<Event>>,
) {
    let open = || waiting.lock().unwrap_or_else(PoisonError::into_inner);
    while let Ok(message) = next(&mut reading).await {
        let Ok(Head { program, procedure, kind, serial, status }) = head(&message) else { break };
        let body = &message[HEAD - 4..];
        match kind {
            REPLY => {
                let teller = {
                    let mut waiting = open();
                    waiting.left.remove(&serial);
                    waiting.open.as_mut().and_then(|open| open.remove(&serial))
                };
                let answer = if status == OK { Ok(body.to_vec()) } else { Err(refusal(body)) };
                // Who asked may not have waited so long.
                let _ = teller.map(|teller| teller.send(answer));
            }
            // The numbers of their events differ.
            EVENT if [PROGRAM, QEMU_PROGRAM].contains(&program) => {
                // One that does not fit is dropped: what it told of is found when all is listed. Waiting here would hold
                // up the answers, and whoever reads the events may be waiting for one.
                if let Some(events) = &events
                    && let Err(TrySendError::Closed(_)) =
                        events.try_send((procedure, body.to_vec()))
                {
                    break;
                }
            }
            _ => {}
        }
    }
    // Dropped, each says that the connection is lost.
    open().open = None;
}

async fn next(reading: &mut OwnedReadHalf) -> io::Result<Vec<u8>> {
    let length = usize::try_from(reading.read_u32().await?).unwrap_or(usize::MAX);
    if !(HEAD..=MESSAGE_MAX).contains(&length) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = Vec::new();
    let left = u64::try_from(length - 4).unwrap_or(u64::MAX);
    // What is announced is not believed: room is made as it comes.
    reading.take(left).read_to_end(&mut message).await?;
    if message.len() == length - 4 { Ok(message) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

struct Head {
    program: u32,
    procedure: u32,
    kind: u32,
    serial: u32,
    status: u32,
}

fn head(message: &[u8]) -> Result<Head, Garbled> {
    let mut reader = Reader(message);
    let (program, _version) = (reader.word()?, reader.word()?);
    let (procedure, kind) = (reader.word()?, reader.word()?);
    Ok(Head { program, procedure, kind, serial: reader.word()?, status: reader.word()? })
}

/// The error in a reply (`remote_error`): code, domain, message, and more that is not read.
fn refusal(body: &[u8]) -> RpcError {
    let mut reader = Reader(body);
    let read = |reader: &mut Reader<'_>| -> Result<(u32, Option<String>), Garbled> {
        let (code, _domain) = (reader.word()?, reader.word()?);
        Ok((code, reader.maybe()?))
    };
    match read(&mut reader) {
        Ok((code, message)) => {
            let message = message.unwrap_or_else(|| format!("error {code}")).replace('\n', " ");
            RpcError::Refused { code, message }
        }
        Err(garbled) => garbled.into(),
    }
}
