//! Messages between hosts: their meaning in [`message`], their protobuf form in [`proto`], the way between the two in
//! `convert`, `history`, `inventory` and `journal`.
//!
//! **Invariant:** no bytes, whatever they are, make anything here panic.
//! **Invariant:** version N speaks with N−1: fields that are not known are passed over; a kind of message that is not
//! known is an error that says so.
//! **Boundary:** a message that decodes keeps every limit of [`limits`], so the rest of `decide` need not ask again.

use prost::Message as _;

use crate::membership::inventory::Inventory;
use crate::usage::history::aged::WholeHistory;

mod convert;
mod error;
mod history;
mod inventory;
mod journal;
pub mod limits;
pub mod message;

pub use error::BadMessage;
pub use journal::{
    BadRecord, decode_move_record, decode_vm_record, encode_move_record, encode_vm_record,
};

/// The protobuf form, as generated from `evenkeel.proto`.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    reason = "generated; evenkeel.proto and `message` say what each field is"
)]
pub mod proto {
    include!(concat!(env!("OUT_DIR"), "/evenkeel.v1.rs"));
}

/// The bytes of a message. A message beyond the limits is encoded as it is; [`limits::check`] tells before.
pub fn encode(message: &message::Message) -> Vec<u8> {
    proto::Message::from(message).encode_to_vec()
}

/// The bytes of all of a usage history: at most [`limits::WHOLE_MAX`], if what is in it keeps its limits.
pub fn encode_history(whole: &WholeHistory) -> Vec<u8> {
    history::encode_whole(whole)
}

/// All of a usage history, of these bytes; what is packed in its blocks is not looked at.
///
/// # Errors
/// As [`decode`].
pub fn decode_history(bytes: &[u8]) -> Result<WholeHistory, BadMessage> {
    history::decode_whole(bytes)
}

/// The bytes of an inventory.
pub fn encode_inventory(inventory: &Inventory) -> Vec<u8> {
    proto::Inventory::from(inventory).encode_to_vec()
}

/// The inventory in these bytes.
///
/// # Errors
/// As [`decode`].
pub fn decode_inventory(bytes: &[u8]) -> Result<Inventory, BadMessage> {
    proto::Inventory::decode(bytes).map_err(BadMessage::Garbled)?.try_into()
}

/// The message in these bytes.
///
/// # Errors
/// If they are not a message, lack a field, or hold one that is unknown or beyond its limit; the error names it.
pub fn decode(bytes: &[u8]) -> Result<message::Message, BadMessage> {
    proto::Message::decode(bytes).map_err(BadMessage::Garbled)?.try_into()
}
