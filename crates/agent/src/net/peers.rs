//! Messages to one peer each, by gRPC: a queue and a connection per peer.
//!
//! ```text
//!  send ─▶ queue ─▶ Deliver ─ answered ─▶ next
//!            │ full     │ refused, broken, or too late ─▶ Heard::Undelivered, next
//!            ▼          └─ broken although it had worked before: once more on a new connection
//!      Heard::Undelivered
//! ```
//!
//! A usage history is a stream in place of one call. One that broke, or did not come as it was sent, is sent again from its
//! beginning, a few times. Where its peer does not know such streams, what decides of it goes as a message.
//!
//! **Invariant:** the time of a message runs from when it was sent, so those behind a dead peer's first do not wait for
//! one another.
//! **Invariant:** a peer to which nothing was sent for a while costs nothing.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use decide::units::VmId;
use decide::usage::history::aged::{AgedLevel, WholeHistory};
use decide::wire::message::{Body, Message};
use decide::wire::{self, limits, proto};
use tokio::runtime::Handle;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::guard::{self, Guard};
use super::services::peer::peer_client::PeerClient;
use super::{DELIVERY_MAX, Heard, To, parts, undelivered};

/// Messages that may wait for one peer: several times what all moves of a host say at once.
const QUEUE_MAX: usize = 64;
/// Peers that may have a connection at once.
const PEERS_MAX: usize = 1024;
/// How long an idle connection is kept.
const IDLE_MAX: Duration = Duration::from_secs(300);

/// A history that did not arrive is sent again so often.
const REPEATS_MAX: u32 = 3;
/// What is stored of a history must have been read within so long, else what is in memory goes alone.
const READ_MAX: Duration = Duration::from_secs(1);

/// A message and until when it must have arrived.
#[derive(Debug)]
struct Queued {
    message: Message,
    /// What is sent along with a usage history, and whose that is.
    stored: Option<(VmId, Vec<AgedLevel>)>,
    deadline: Instant,
}

/// As it goes out.
#[derive(Debug)]
enum Form {
    Message(Box<proto::Message>),
    History(Vec<proto::HistoryPart>),
}

impl Queued {
    fn form(&mut self) -> Form {
        let (Body::History(recent), Some((vm, levels))) = (&self.message.body, self.stored.take())
        else {
            return self.as_message();
        };
        let mut whole = WholeHistory { recent: (**recent).clone(), levels };
        let mut bytes = wire::encode_history(&whole);
        if bytes.len() > limits::WHOLE_MAX {
            tracing::warn!(
                length = bytes.len(),
                "a usage history too long to be sent: what is in memory goes alone"
            );
            whole.levels.clear();
            bytes = wire::encode_history(&whole);
        }
        Form::History(parts::of(&self.message, vm, &bytes))
    }

    fn as_message(&self) -> Form {
        Form::Message(Box::new(proto::Message::from(&self.message)))
    }
}

impl Form {
    async fn sent(
        &self,
        mut client: PeerClient<Channel>,
    ) -> Result<tonic::Response<proto::Received>, Status> {
        match self {
            Form::Message(message) => client.deliver((**message).clone()).await,
            Form::History(parts) => client.history(tokio_stream::iter(parts.clone())).await,
        }
    }

    /// A stream that broke, or came otherwise than it was sent, may come right the next time.
    fn repeats(&self, status: &Status) -> bool {
        matches!(self, Form::History(_))
            && (status.source().is_some() || status.code() == Code::DataLoss)
    }

    /// A peer of the version before knows no such streams.
    fn unknown(&self, status: &Status) -> bool {
        matches!(self, Form::History(_)) && status.code() == Code::Unimplemented
    }
}

type Queues = Mutex<BTreeMap<To, mpsc::Sender<Queued>>>;

/// All peers that were spoken to lately.
#[derive(Clone, Debug)]
pub(super) struct Peers {
    from: IpAddr,
    guard: Guard,
    heard: mpsc::Sender<Heard>,
    queues: Arc<Queues>,
    runtime: Handle,
}

impl Peers {
    /// Must be called inside the runtime that will do the sending.
    pub(super) fn new(from: IpAddr, guard: Guard, heard: mpsc::Sender<Heard>) -> Peers {
        Peers { from, guard, heard, queues: Arc::default(), runtime: Handle::current() }
    }

    pub(super) fn send(&self, to: To, message: Message) {
        self.queue(to, message, None);
    }

    pub(super) fn send_history(
        &self,
        to: To,
        message: Message,
        vm: VmId,
        stored: oneshot::Receiver<Vec<AgedLevel>>,
    ) {
        let peers = self.clone();
        // Beside the queue: what else there is to say must not wait for a disk.
        self.runtime.spawn(async move {
            let levels = match timeout(READ_MAX, stored).await {
                Ok(Ok(levels)) => levels,
                // Why it was not read its reader has said.
                Ok(Err(_unread)) => Vec::new(),
                Err(_elapsed) => {
                    let move_id = message.move_id;
                    tracing::warn!(%move_id, "what is stored of a usage history is not read in time: what is in memory goes alone");
                    Vec::new()
                }
            };
            peers.queue(to, message, Some((vm, levels)));
        });
    }

    fn queue(&self, to: To, message: Message, stored: Option<(VmId, Vec<AgedLevel>)>) {
        if let Err(bad) = limits::check(&message) {
            return undelivered(&self.heard, to.at, message, bad.to_string());
        }
        let queued = Queued { message, stored, deadline: Instant::now() + DELIVERY_MAX };
        let mut queues = lock(&self.queues);
        if !queues.contains_key(&to) && queues.len() >= PEERS_MAX {
            let why = format!("{PEERS_MAX} peers are being spoken to already");
            return undelivered(&self.heard, to.at, queued.message, why);
        }
        let queue = queues.entry(to).or_insert_with(|| self.open(to));
        let (queued, why) = match queue.try_send(queued) {
            Ok(()) => return,
            Err(TrySendError::Full(queued)) => {
                (queued, format!("{QUEUE_MAX} messages to it are waiting already"))
            }
            Err(TrySendError::Closed(queued)) => {
                queues.remove(&to);
                (queued, "the agent is stopping".to_owned())
            }
        };
        undelivered(&self.heard, to.at, queued.message, why);
    }

    fn open(&self, to: To) -> mpsc::Sender<Queued> {
        let (queue, waiting) = mpsc::channel(QUEUE_MAX);
        let guard = self.guard.clone();
        let line = Line { from: self.from, guard, to, client: None, revocations: 0, worked: false };
        // Weak, so that the queues end with `Peers` and the lines with their queues.
        let queues = Arc::downgrade(&self.queues);
        self.runtime.spawn(speak(line, waiting, self.heard.clone(), queues));
        queue
    }
}

/// Sends what waits for one peer, in order, until there has been nothing for long.
async fn speak(
    mut line: Line,
    mut waiting: mpsc::Receiver<Queued>,
    heard: mpsc::Sender<Heard>,
    queues: Weak<Queues>,
) {
    loop {
        let mut queued = match timeout(IDLE_MAX, waiting.recv()).await {
            Ok(Some(queued)) => queued,
            Ok(None) => return,
            Err(_idle) => {
                let Some(queues) = queues.upgrade() else { return };
                let mut queues = lock(&queues);
                if waiting.is_empty() {
                    queues.remove(&line.to);
                    return;
                }
                continue;
            }
        };
        if let Err(why) = line.deliver(&mut queued).await {
            let Queued { message, .. } = queued;
            tracing::debug!(to = %line.to.at, move_id = %message.move_id, body = message.body.name(), why, "undelivered");
            if heard.send(Heard::Undelivered { to: line.to.at, message, why }).await.is_err() {
                return;
            }
        }
    }
}

/// The connection to one peer.
struct Line {
    from: IpAddr,
    guard: Guard,
    to: To,
    /// The list of revocations by which that was connected.
    revocations: u64,
    client: Option<PeerClient<Channel>>,
    /// Whether something was delivered on this connection.
    worked: bool,
}

impl Line {
    async fn deliver(&mut self, queued: &mut Queued) -> Result<(), String> {
        let (mut form, mut repeats) = (queued.form(), 0);
        loop {
            if queued.deadline <= Instant::now() {
                return Err(too_late());
            }
            let client = self.connection()?;
            match timeout_at(queued.deadline, form.sent(client)).await {
                Ok(Ok(_received)) => {
                    self.worked = true;
                    return Ok(());
                }
                Ok(Err(status)) if form.unknown(&status) => form = queued.as_message(),
                Ok(Err(status)) if repeats < REPEATS_MAX && form.repeats(&status) => {
                    repeats += 1;
                    self.hang_up();
                }
                // The peer itself says no: another connection would not change its mind.
                Ok(Err(status)) if status.source().is_none() => {
                    return Err(format!("refused: {}", status.message()));
                }
                // The peer may have been started anew since the last message: a new connection may do.
                Ok(Err(_broken)) if self.worked => self.hang_up(),
                Ok(Err(broken)) => {
                    self.hang_up();
                    return Err(cause(&broken));
                }
                // What got no answer in time may be stuck for long: the next message gets a new connection.
                Err(_elapsed) => {
                    self.hang_up();
                    return Err(too_late());
                }
            }
        }
    }

    fn connection(&mut self) -> Result<PeerClient<Channel>, String> {
        let revocations = self.guard.revocations();
        if revocations != self.revocations {
            // Who answers is looked at when a connection is made: whoever is revoked since then is called anew, and refused.
            (self.client, self.revocations) = (None, revocations);
        }
        if let Some(client) = &self.client {
            return Ok(client.clone());
        }
        let channel = self.guard.dial(self.from, self.to.at, Some(self.to.host));
        let channel = channel.map_err(|error| format!("{error:#}"))?;
        Ok(self.client.insert(PeerClient::new(channel)).clone())
    }

    fn hang_up(&mut self) {
        (self.client, self.worked) = (None, false);
    }
}

pub(super) fn too_late() -> String {
    format!("no answer within {} s", DELIVERY_MAX.as_secs())
}

/// The innermost reason, which is the one that says something: "Connection refused".
pub(super) fn cause(status: &Status) -> String {
    let mut innermost: &dyn std::error::Error = status;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    match innermost.downcast_ref::<std::io::Error>() {
        Some(error) => guard::explained(error).to_string(),
        None => innermost.to_string(),
    }
}

fn lock(queues: &Queues) -> MutexGuard<'_, BTreeMap<To, mpsc::Sender<Queued>>> {
    // A panic of another thread leaves the map whole: each change is one call.
    queues.lock().unwrap_or_else(PoisonError::into_inner)
}
