//! A usage history as a stream: a head that says what comes, then its bytes in parts, then nothing.
//!
//! ```text
//!   head ─▶ part ─▶ part … ─▶ end ─▶ length and hash as the head says ─▶ levels, counts, ages, figures ─▶ heard
//! ```
//!
//! **Invariant:** no more than [`WHOLE_MAX`] bytes of one history are held, whatever its head claims, and no more than
//! [`AT_ONCE_MAX`] histories until they were acted upon.
//! **Invariant:** a history is heard whole and as it was sent, or not at all; whether what decides can be used the host judges.

use std::error::Error as _;
use std::sync::Arc;

use decide::units::{HostId, MoveId, VmId};
use decide::usage::history::aged::WholeHistory;
use decide::wire::limits::{PART_MAX, WHOLE_MAX};
use decide::wire::message::{Body, Message};
use decide::wire::{self, proto};
use drivers::store::history::travel;
use proto::history_part::Part;
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Status, Streaming};

use super::Heard;

/// Histories that are held at once; further senders wait.
pub(super) const AT_ONCE_MAX: usize = 4;
/// The form of the bytes.
const FORM: u32 = 1;

/// The places for histories that are being taken in.
#[derive(Clone, Debug)]
pub(super) struct Places(Arc<Semaphore>);

impl Default for Places {
    fn default() -> Places {
        Places(Arc::new(Semaphore::new(AT_ONCE_MAX)))
    }
}

#[cfg(test)]
impl Places {
    pub(super) fn free(&self) -> usize {
        self.0.available_permits()
    }
}

/// Its place, for as long as any of it is held.
#[derive(Clone, Debug, Default)]
pub struct Place(
    #[expect(dead_code, reason = "what counts is that it is there")]
    Option<Arc<OwnedSemaphorePermit>>,
);

impl PartialEq for Place {
    fn eq(&self, _other: &Place) -> bool {
        true
    }
}

impl Eq for Place {}

/// The parts of a history of that VM.
pub(super) fn of(message: &Message, vm: VmId, bytes: &[u8]) -> Vec<proto::HistoryPart> {
    let head = proto::HistoryHead {
        from: message.from.0.to_be_bytes().to_vec(),
        move_id: Some(message.move_id.into()),
        vm: vm.0.to_be_bytes().to_vec(),
        form: FORM,
        length: bytes.len() as u64,
        sha256: Sha256::digest(bytes).to_vec(),
    };
    let parts = bytes.chunks(PART_MAX).map(|part| Part::Bytes(part.to_vec()));
    let all = std::iter::once(Part::Head(head)).chain(parts);
    all.map(|part| proto::HistoryPart { part: Some(part) }).collect()
}

/// Takes a history in; what is to be heard of it, also if it is none.
///
/// # Errors
/// If the stream broke, or is not what its head says: sent again it may be.
pub(super) async fn taken_in(
    mut stream: Streaming<proto::HistoryPart>,
    places: &Places,
    may_say: impl Fn(HostId) -> Result<(), Status>,
) -> Result<Heard, Status> {
    // Whoever says nothing has no place.
    let head = Head::of(next(&mut stream).await?)?;
    may_say(head.from)?;
    if let Err(why) = head.acceptable() {
        return Ok(head.refused(why));
    }
    let place = Arc::clone(&places.0).acquire_owned().await;
    let place = place.map_err(|_closed| Status::unavailable("the agent is stopping"))?;
    let mut bytes = Vec::new();
    while let Some(part) = next(&mut stream).await? {
        head.add(&mut bytes, part)?;
    }
    head.check(&bytes)?;
    // It takes milliseconds: too long for those who wait for the network.
    let judged = tokio::task::spawn_blocking(move || judged(&bytes).map(|whole| (whole, bytes)));
    Ok(match judged.await {
        Ok(Ok((whole, bytes))) => {
            let body = Body::History(Box::new(whole.recent));
            let message = Message { from: head.from, move_id: head.move_id, body };
            Heard::History { message, vm: head.vm, bytes, place: Place(Some(Arc::new(place))) }
        }
        Ok(Err(why)) => head.refused(why),
        Err(_panicked) => head.refused("it cannot be unpacked".to_owned()),
    })
}

/// The next part. That the connection was lost is nobody's fault, and need not be told.
async fn next(
    stream: &mut Streaming<proto::HistoryPart>,
) -> Result<Option<proto::HistoryPart>, Status> {
    let lost = |status: Status| match status.source() {
        Some(_) => Status::unavailable(format!("the stream broke off: {}", status.message())),
        None => status,
    };
    stream.message().await.map_err(lost)
}

/// A whole history, all of which can be used.
fn judged(bytes: &[u8]) -> Result<WholeHistory, String> {
    let whole = wire::decode_history(bytes).map_err(|bad| bad.to_string())?;
    travel::check(&whole.levels).map_err(|bad| bad.to_string())?;
    Ok(whole)
}

/// What comes.
#[derive(Debug)]
struct Head {
    from: HostId,
    move_id: MoveId,
    vm: VmId,
    length: u64,
    sha256: Vec<u8>,
}

impl Head {
    fn of(first: Option<proto::HistoryPart>) -> Result<Head, Status> {
        let Some(Part::Head(head)) = first.and_then(|first| first.part) else {
            return Err(Status::invalid_argument("a usage history that begins without its head"));
        };
        let bad = |what: &str| Status::invalid_argument(format!("a usage history without {what}"));
        let id = |bytes: &[u8]| bytes.try_into().ok().map(u128::from_be_bytes);
        let move_id = head.move_id.and_then(|id| MoveId::try_from(id).ok());
        // As if there were no such streams here: then what decides comes as a message.
        if head.form != FORM {
            let form = head.form;
            let why = format!("a usage history of form {form}, this version knows {FORM}");
            return Err(Status::unimplemented(why));
        }
        Ok(Head {
            from: HostId(id(&head.from).ok_or_else(|| bad("the host that it is from"))?),
            move_id: move_id.ok_or_else(|| bad("its move"))?,
            vm: VmId(id(&head.vm).ok_or_else(|| bad("its VM"))?),
            length: head.length,
            sha256: head.sha256,
        })
    }

    /// Whether any bytes could be what is claimed.
    fn acceptable(&self) -> Result<(), String> {
        if self.length > WHOLE_MAX as u64 {
            return Err(format!("of {} bytes, at most {WHOLE_MAX} are taken", self.length));
        }
        Ok(())
    }

    fn add(&self, bytes: &mut Vec<u8>, part: proto::HistoryPart) -> Result<(), Status> {
        let Some(Part::Bytes(more)) = part.part else {
            return Err(Status::data_loss("a part of a usage history that holds no bytes of it"));
        };
        if more.len() > PART_MAX {
            let length = more.len();
            let why = format!("a part of a usage history of {length} bytes, at most {PART_MAX}");
            return Err(Status::data_loss(why));
        }
        if (bytes.len() + more.len()) as u64 > self.length {
            let why = format!("a usage history of more than the {} bytes announced", self.length);
            return Err(Status::data_loss(why));
        }
        bytes.extend(more);
        Ok(())
    }

    fn check(&self, bytes: &[u8]) -> Result<(), Status> {
        if (bytes.len() as u64) < self.length {
            let (came, length) = (bytes.len(), self.length);
            let why = format!("a usage history cut off after {came} of {length} bytes");
            return Err(Status::data_loss(why));
        }
        if Sha256::digest(bytes)[..] != self.sha256 {
            let why = "a usage history whose bytes are not those announced: their hash differs";
            return Err(Status::data_loss(why));
        }
        Ok(())
    }

    fn refused(&self, why: String) -> Heard {
        Heard::BadHistory { from: self.from, move_id: self.move_id, why }
    }
}
