//! Generic netlink: a family of commands that the kernel knows by name, asked by one request after the other.
//!
//! Formats: linux/genetlink.h.
//!
//! **Invariant:** a message is read within its own bytes only; a garbled one is an error, never a panic.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink::GENERIC;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::{HEADER, NLM_F_REQUEST, NLMSG_ERROR, attribute, open_socket, padded, u16_at, u32_at};
use crate::monitor::MonitorError;

/// One answer: a few hundred bytes with compact bit sets.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

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
    answer: Vec<u8>,
}

impl Family {
    /// A socket in the network namespace of the caller, where it stays. The name ends with a zero byte.
    pub(super) fn open(name: &[u8]) -> Result<Family, MonitorError> {
        let socket = open_socket(Some(GENERIC)).map_err(failed)?;
        let answer = vec![0; ANSWER_BYTES_MAX];
        let mut family = Family { socket, number: CONTROL, sequence: 0, answer };
        let told = family.ask(CTRL_CMD_GETFAMILY, &with_header(CTRL_ATTR_FAMILY_NAME, name))?;
        let told = told.ok_or(garbled("the kernel does not know the family"))?;
        let id = found(&told, CTRL_ATTR_FAMILY_ID)?.and_then(|id| u16_at(id, 0));
        family.number = id.ok_or(garbled("the family has no number"))?;
        Ok(family)
    }

    /// The attributes of the answer; None if the driver does not tell this, or the link is gone. After an error the socket
    /// must not be used again.
    pub(super) fn ask(
        &mut self,
        command: u8,
        attributes: &[u8],
    ) -> Result<Option<Vec<u8>>, MonitorError> {
        self.sequence = self.sequence.wrapping_add(1);
        let request = request(self.number, self.sequence, command, attributes);
        send(&self.socket, &request, SendFlags::empty()).map_err(failed)?;
        loop {
            let received = recv(&self.socket, &mut self.answer[..], RecvFlags::TRUNC);
            let (_, length) = match received {
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return Err(failed(Errno::TIMEDOUT)),
                other => other.map_err(failed)?,
            };
            let message = self.answer.get(..length).ok_or(garbled("an answer is too long"))?;
            if u32_at(message, 8) == Some(self.sequence) {
                return read_answer(message);
            }
        }
    }
}

pub(super) fn read_answer(message: &[u8]) -> Result<Option<Vec<u8>>, MonitorError> {
    let short = || garbled("an answer is cut short");
    let length = u32_at(message, 0).and_then(|length| usize::try_from(length).ok());
    let message = length.and_then(|length| message.get(..length)).ok_or_else(short)?;
    if u16_at(message, 4) != Some(NLMSG_ERROR) {
        return Ok(Some(message.get(HEADER + GENERIC_HEADER..).ok_or_else(short)?.to_vec()));
    }
    let code = u32_at(message, HEADER).map(u32::cast_signed).ok_or_else(short)?;
    match Errno::from_raw_os_error(code.wrapping_neg()) {
        Errno::OPNOTSUPP | Errno::NODEV => Ok(None),
        errno => Err(failed(errno)),
    }
}

pub(super) fn request(family: u16, sequence: u32, command: u8, attributes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER + GENERIC_HEADER + attributes.len()).expect("it is short");
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(family.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
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
