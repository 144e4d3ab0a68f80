//! How much a message may hold. The receiver refuses what is beyond; the sender can [`check`] before.
//!
//! **Invariant:** a message within the limits, encoded, is well below [`MESSAGE_MAX`].

use super::error::BadMessage;
use super::message::{Body, Companion, Confirmation, Message, Request};
use crate::migrate::hypervisor::{Needs, VmDefinition};
use crate::units::Epoch;
use crate::usage::history::SAMPLES_MAX;
use crate::usage::history::aged::AgedHistory;
use crate::usage::history::past::PAST_MAX;
use crate::usage::history::quarters::QUARTERS_MAX;

/// Bytes of a whole message. The longest that the limits below allow, a full usage history, is under two thirds of it.
pub const MESSAGE_MAX: usize = 256 * 1024;
/// Bytes of all of a usage history: two thirds of a message for what decides; 2,160 + 2,880 + 2,880 stored spans of 41 columns,
/// two bytes each if nothing can be packed, make 634 KiB; 17 blocks with what their columns need besides, some 25 KiB.
pub const WHOLE_MAX: usize = 1024 * 1024;
/// Bytes of one part of it on its way.
pub const PART_MAX: usize = 64 * 1024;
/// Blocks of one stored level: several times what its spans fill.
pub const BLOCKS_MAX: usize = 32;
/// Bytes of a VM's name.
pub const NAME_MAX: usize = 255;
/// Bytes of each word in which a VM says what it needs.
pub const NEED_MAX: usize = 63;
/// Bytes of the text that starts a VM. A domain of libvirt's goes as its definition twice, for now and for the next start.
pub const START_MAX: usize = 64 * 1024;
/// Bytes of a hypervisor's endpoint. That of libvirt holds what the one libvirt has to say to the other.
pub const URI_MAX: usize = 8 * 1024;
/// Tags of a VM, and labels of a host.
pub const TAGS_MAX: usize = 32;
/// Bytes of each.
pub const TAG_MAX: usize = 63;
/// Bytes of those of a VM's tags that say where it may be: a request must fit a datagram.
pub const RULE_TAGS_BYTES_MAX: usize = 240;
/// Bytes of all tags that one inventory lists.
pub const LISTED_TAGS_BYTES_MAX: usize = 48 * 1024;
/// Bytes of a reason, for people. A longer one is cut by the sender rather than refused: the refusal must arrive.
pub const WHY_MAX: usize = 1024;
/// VMs that one inventory may list.
pub const LISTED_MAX: usize = 512;
/// Hosts that one request may ask by name.
pub const ASKED_MAX: usize = 64;
/// VMs that may follow another.
pub const FOLLOWERS_MAX: usize = 8;
/// Bytes that they may take together in a request, which must fit a datagram.
pub const FOLLOWERS_BYTES_MAX: usize = 700;
/// The highest number of an epoch: far from where the next one would overflow.
pub const EPOCH_MAX: u64 = u64::MAX / 2;

/// Whether every part of a message is within its limit.
///
/// # Errors
/// The first part that is not.
pub fn check(message: &Message) -> Result<(), BadMessage> {
    match &message.body {
        Body::Request(request) => check_request(request),
        Body::Refusal { known_epoch: Some(number), .. } if *number > EPOCH_MAX => {
            Err(too_high(*number))
        }
        Body::Acceptance { in_return: Some(it), .. } => check_companion(it),
        Body::Refusal { .. }
        | Body::Acceptance { .. }
        | Body::Release
        | Body::Measured { .. }
        | Body::PayBack { .. } => Ok(()),
        Body::Confirmation(confirmation) => check_confirmation(confirmation),
        Body::History(history) => check_history(history),
        Body::Readiness { endpoint, .. } => {
            at_most("readiness.endpoint.uri", endpoint.uri.len(), URI_MAX)
        }
        Body::HandOver { epoch, .. }
        | Body::Inquiry { epoch, .. }
        | Body::Standing { epoch, .. } => check_epoch(*epoch),
    }
}

/// The text, cut after the last whole character that fits.
pub(crate) fn cut(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

fn check_request(request: &Request) -> Result<(), BadMessage> {
    at_most("request.name", request.name.len(), NAME_MAX)?;
    at_most("request.asked", request.asked.len(), ASKED_MAX)?;
    if request.epoch > EPOCH_MAX {
        return Err(too_high(request.epoch));
    }
    check_rule_tags("request.tags", &request.tags)?;
    at_most("request.followers", request.followers.len(), FOLLOWERS_MAX)?;
    request.followers.iter().try_for_each(check_companion)?;
    check_needs(&request.needs)
}

fn check_companion(it: &Companion) -> Result<(), BadMessage> {
    at_most("companion.name", it.name.len(), NAME_MAX)?;
    check_rule_tags("companion.tags", &it.tags)?;
    check_needs(&it.needs)
}

fn check_confirmation(confirmation: &Confirmation) -> Result<(), BadMessage> {
    check_epoch(confirmation.epoch)?;
    let VmDefinition { name, needs, start, tags, .. } = &confirmation.definition;
    at_most("definition.name", name.len(), NAME_MAX)?;
    at_most("definition.start", start.len(), START_MAX)?;
    check_tags("definition.tags", tags)?;
    check_needs(needs)
}

pub(super) fn check_history(history: &AgedHistory) -> Result<(), BadMessage> {
    at_most("history.samples", history.samples.len(), SAMPLES_MAX)?;
    check_quarters(history.quarters.rows.len())?;
    at_most("history.past", history.past.len(), PAST_MAX)?;
    history.past.iter().try_for_each(|stay| at_most("history.past.name", stay.name.len(), NAME_MAX))
}

pub(super) fn check_quarters(count: usize) -> Result<(), BadMessage> {
    at_most("history.quarters.rows", count, QUARTERS_MAX)
}

fn check_rule_tags(field: &'static str, tags: &[String]) -> Result<(), BadMessage> {
    check_tags(field, tags)?;
    at_most(field, tags.iter().map(String::len).sum(), RULE_TAGS_BYTES_MAX)
}

pub(super) fn check_tags(field: &'static str, tags: &[String]) -> Result<(), BadMessage> {
    at_most(field, tags.len(), TAGS_MAX)?;
    tags.iter().try_for_each(|tag| at_most(field, tag.len(), TAG_MAX))
}

fn check_needs(needs: &Needs) -> Result<(), BadMessage> {
    at_most("needs.driver", needs.driver.len(), NEED_MAX)?;
    at_most("needs.machine", needs.machine.len(), NEED_MAX)?;
    at_most("needs.accelerator", needs.accelerator.len(), NEED_MAX)?;
    at_most("needs.bridge", needs.bridge.len(), NEED_MAX)
}

fn check_epoch(epoch: Epoch) -> Result<(), BadMessage> {
    if epoch.number > EPOCH_MAX { Err(too_high(epoch.number)) } else { Ok(()) }
}

pub(super) fn too_high(number: u64) -> BadMessage {
    BadMessage::TooMuch { field: "epoch.number", size: number, max: EPOCH_MAX }
}

pub(super) fn at_most(field: &'static str, size: usize, max: usize) -> Result<(), BadMessage> {
    if size > max {
        return Err(BadMessage::TooMuch { field, size: size as u64, max: max as u64 });
    }
    Ok(())
}
