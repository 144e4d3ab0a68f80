//! An event on its way to a receiver.

use api::{Delivery, Event, Step};
use data_encoding::HEXLOWER;
use drivers::store::Noted;
use hyper::body::Bytes;
use sha2::{Digest, Sha256};

use super::Teller;
use crate::config::Told;

/// What is told of this step, and to whom; absent: to nobody.
pub(super) fn kind(step: Step) -> Option<(Told, &'static str)> {
    match step {
        Step::Alarm => Some((Told::Alarms, "alarm.raised")),
        Step::VmDown => Some((Told::Alarms, "vm.down")),
        // These steps are told by a move's source alone.
        Step::Copy => Some((Told::Moves, "move.begun")),
        Step::Done => Some((Told::Moves, "move.done")),
        Step::Abandoned => Some((Told::Moves, "move.failed")),
        Step::Monitoring
        | Step::VmPolicy
        | Step::Request
        | Step::Acceptance
        | Step::Refusal
        | Step::Choice
        | Step::Confirmation
        | Step::Release
        | Step::UsageHistory
        | Step::Readiness
        | Step::Stall
        | Step::SwitchOver
        | Step::HandOver
        | Step::Running
        | Step::PayBack
        | Step::Undo
        | Step::Adopted
        | Step::Membership
        | Step::Settings
        | Step::Doing
        | Step::BadInput => None,
    }
}

/// The event, if it can be read and a hook that is told these wants it.
pub(super) fn wanted(noted: &Noted, told: &[Told]) -> Option<(Event, &'static str)> {
    let event: Event = serde_json::from_slice(&noted.record).ok()?;
    let (whom, kind) = kind(event.step)?;
    told.contains(&whom).then_some((Event { seq: noted.seq, ..event }, kind))
}

/// Its id and body. The id is that of the event as it was noted: after a log lost its end its numbers come again, and a
/// receiver must not take another event for one that it has.
pub(super) fn message(
    teller: &Teller,
    noted: &Noted,
    event: Event,
    kind: &str,
) -> Option<(String, Bytes)> {
    let mark = HEXLOWER.encode(&Sha256::digest(&noted.record)[..8]);
    let id = format!("{}-{}-{mark}", teller.host_id, noted.seq);
    let delivery = Delivery {
        id: id.clone(),
        kind: kind.to_owned(),
        timestamp: event.time.clone(),
        cluster: teller.cluster.clone(),
        host: event.host.clone(),
        host_id: teller.host_id.clone(),
        data: event,
    };
    Some((id, serde_json::to_vec(&delivery).ok()?.into()))
}
