//! Generic netlink: a family of commands that the kernel knows by name, asked by one request after the other.
//!
//! Formats: linux/genetlink.h.
//!
//! **Invariant:** a message is read within its own bytes only; a garbled one is an error, never a panic.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink::GENERIC;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use self::Many::{Dump, One};
use super::{
    HEADER, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, PART_MAX, attribute, open_socket,
    padded, split, u16_at, u32_at,
};
use crate::monitor::MonitorError;

/// `GENL_ID_CTRL`, which tells the numbers of the other families.
const CONTROL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
pub(super) const NESTED: u16 = 0x8000;
/// `struct genlmsghdr`.
const GENERIC_HEADER: usize = 4;

const WHAT: &str = "what the uplink's driver says";

/// The socket by which one family is asked.
#[derive(Debug)]
pub(super) struct Family {
    socket: OwnedFd,
    number: u16,
    sequence: u32,
    part: Vec<u8>,
}

/// What the kernel answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The attributes of each message.
    Told(Vec<Vec<u8>>),
    /// It does not know the command, or the driver does not tell, or the link is gone.
    Refused(Errno),
}

impl Family {
    /// A socket in the network namespace of the caller, where it stays; none if the kernel has no such family. The name ends
    /// with a zero byte.
    pub(super) fn open(name: &[u8]) -> Result<Option<Family>, MonitorError> {
        let socket = open_socket(Some(GENERIC)).map_err(failed)?;
        let part = vec![0; PART_MAX];
        let mut family = Family { socket, number: CONTROL, sequence: 0, part };
        let name = with_header(CTRL_ATTR_FAMILY_NAME, name);
        let told = match family.ask(CTRL_CMD_GETFAMILY, &name, One)? {
            Answer::Told(told) => told,
            Answer::Refused(Errno::NOENT) => return Ok(None),
            Answer::Refused(errno) => return Err(failed(errno)),
        };
        let id = told.first().map(|told| found(told, CTRL_ATTR_FAMILY_ID)).transpose()?;
        let id = id.flatten().and_then(|id| u16_at(id, 0));
        family.number = id.ok_or(garbled("the family has no number"))?;
        Ok(Some(family))
    }

    /// What is answered to one command. After an error the socket must not be used again.
    pub(super) fn ask(
        &mut self,
        command: u8,
        attributes: &[u8],
        many: Many,
    ) -> Result<Answer, MonitorError> {
        self.sequence = self.sequence.wrapping_add(1);
        let request = request(self.number, self.sequence, command, attributes, many);
        send(&self.socket, &request, SendFlags::empty()).map_err(failed)?;
        let mut told = Vec::new();
        loop {
            let received = recv(&self.socket, &mut self.part[..], RecvFlags::TRUNC);
            let (_, length) = match received {
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return Err(failed(Errno::TIMEDOUT)),
                other => other.map_err(failed)?,
            };
            let part = self.part.get(..length).ok_or(garbled("an answer is too long"))?;
            match read_part(part, self.sequence, many, &mut told)? {
                Heard::More => {}
                Heard::All => return Ok(Answer::Told(told)),
                Heard::Refused(errno) => return Ok(Answer::Refused(errno)),
            }
        }
    }
}

/// Whether one message is the whole answer, or as many as come until the kernel says that it was all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Many {
    /// One message.
    One,
    /// A dump.
    Dump,
}

/// What a part said of the whole answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    More,
    All,
    Refused(Errno),
}

/// Reads one part of an answer; messages of an earlier request are passed over.
pub(super) fn read_part(
    part: &[u8],
    sequence: u32,
    many: Many,
    told: &mut Vec<Vec<u8>>,
) -> Result<Heard, MonitorError> {
    let short = || garbled("an answer is cut short");
    for message in split(part, sequence).map_err(garbled)? {
        match u16_at(message, 4) {
            // Both carry a negative error number, or zero.
            Some(NLMSG_ERROR | NLMSG_DONE) => {
                let code = u32_at(message, HEADER).map(u32::cast_signed).ok_or_else(short)?;
                return match code {
                    0 => Ok(Heard::All),
                    // `MAX_ERRNO`; `Errno` panics at any other.
                    -4095..0 => Ok(Heard::Refused(Errno::from_raw_os_error(-code))),
                    _ => Err(garbled("an error has no number")),
                };
            }
            _ => told.push(message.get(HEADER + GENERIC_HEADER..).ok_or_else(short)?.to_vec()),
        }
        if many == One {
            return Ok(Heard::All);
        }
    }
    Ok(Heard::More)
}

pub(super) fn request(
    family: u16,
    sequence: u32,
    command: u8,
    attributes: &[u8],
    many: Many,
) -> Vec<u8> {
    let length = u32::try_from(HEADER + GENERIC_HEADER + attributes.len()).expect("it is short");
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(family.to_ne_bytes());
    let dump = if many == Dump { NLM_F_DUMP } else { 0 };
    message.extend((NLM_F_REQUEST | dump).to_ne_bytes());
    message.extend(sequence.to_ne_bytes());
    message.extend([0; 4]);
    // Version 1 of all families that are asked.
    message.extend([command, 1, 0, 0]);
    message.extend(attributes);
    message
}

pub(super) fn with_header(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = u16::try_from(4 + value.len()).expect("it is short").to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(padded(bytes.len()), 0);
    bytes
}

pub(super) fn found(attributes: &[u8], kind: u16) -> Result<Option<&[u8]>, MonitorError> {
    attribute(attributes, kind).map_err(garbled)
}

pub(super) fn failed(errno: Errno) -> MonitorError {
    MonitorError::unreadable(WHAT, errno)
}

pub(super) fn garbled(why: &'static str) -> MonitorError {
    MonitorError::Garbled { what: WHAT.to_owned(), why }
}
