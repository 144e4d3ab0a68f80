//! What the driver of a link says of it, by generic netlink: speed, duplex, and whether the link is up.
//!
//! LINKMODES_GET tells speed and duplex, LINKSTATE_GET the carrier. Netlink has no message for the name of the driver; that
//! is read from /sys, as is the speed where the kernel has no such family (before 5.6).
//!
//! Drops of a link with several queues stay the sum that its driver gives to RTM_GETSTATS: what it counts by queue has
//! names of each driver's own.
//!
//! Formats: linux/genetlink.h, linux/ethtool_netlink.h, Documentation/networking/ethtool-netlink.rst.
//!
//! **Invariant:** a message is read within its own bytes only; a garbled one is an error, never a panic.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink::GENERIC;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::{HEADER, NLM_F_REQUEST, NLMSG_ERROR, attribute, open_socket, padded, u16_at, u32_at};
use crate::monitor::{Duplex, LinkModes, MonitorError};

const WHAT: &str = "what the uplink's driver says";

/// One answer: a few hundred bytes with compact bit sets.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// `GENL_ID_CTRL`, which tells the numbers of the other families.
const CONTROL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const ETHTOOL_MSG_LINKMODES_GET: u8 = 4;
const ETHTOOL_MSG_LINKSTATE_GET: u8 = 6;
/// The same in both requests.
const ETHTOOL_A_HEADER: u16 = 1;
const ETHTOOL_A_HEADER_DEV_INDEX: u16 = 1;
const ETHTOOL_A_HEADER_FLAGS: u16 = 3;
const ETHTOOL_FLAG_COMPACT_BITSETS: u32 = 1;
const ETHTOOL_A_LINKMODES_SPEED: u16 = 5;
const ETHTOOL_A_LINKMODES_DUPLEX: u16 = 6;
const ETHTOOL_A_LINKSTATE_LINK: u16 = 2;
const NESTED: u16 = 0x8000;
/// `struct genlmsghdr`.
const GENERIC_HEADER: usize = 4;

/// The socket by which drivers are asked.
#[derive(Debug)]
pub(in crate::monitor) struct Ethtool {
    socket: OwnedFd,
    family: u16,
    sequence: u32,
    answer: Vec<u8>,
}

impl Ethtool {
    /// A socket in the network namespace of the caller, where it stays.
    pub(in crate::monitor) fn open() -> Result<Ethtool, MonitorError> {
        let socket = open_socket(Some(GENERIC)).map_err(failed)?;
        let answer = vec![0; ANSWER_BYTES_MAX];
        let mut ethtool = Ethtool { socket, family: CONTROL, sequence: 0, answer };
        let name = with_header(CTRL_ATTR_FAMILY_NAME, b"ethtool\0");
        let told = ethtool.ask(CTRL_CMD_GETFAMILY, &name)?;
        let told = told.ok_or(garbled("the kernel does not know the family ethtool"))?;
        let id = found(&told, CTRL_ATTR_FAMILY_ID)?.and_then(|id| u16_at(id, 0));
        ethtool.family = id.ok_or(garbled("the family ethtool has no number"))?;
        Ok(ethtool)
    }

    /// What the driver of the link with this index says. After an error the socket must not be used again.
    pub(in crate::monitor) fn modes(&mut self, ifindex: u32) -> Result<LinkModes, MonitorError> {
        let mut modes = LinkModes::default();
        if let Some(told) = self.ask(ETHTOOL_MSG_LINKMODES_GET, &of_link(ifindex))? {
            let speed = found(&told, ETHTOOL_A_LINKMODES_SPEED)?.and_then(|speed| u32_at(speed, 0));
            let duplex = found(&told, ETHTOOL_A_LINKMODES_DUPLEX)?;
            modes.speed = speed.and_then(|megabits| crate::monitor::speed(megabits.into()));
            modes.duplex = match duplex.and_then(|duplex| duplex.first()) {
                Some(0) => Some(Duplex::Half),
                Some(1) => Some(Duplex::Full),
                Some(_) | None => None,
            };
        }
        if let Some(told) = self.ask(ETHTOOL_MSG_LINKSTATE_GET, &of_link(ifindex))? {
            let up = found(&told, ETHTOOL_A_LINKSTATE_LINK)?;
            modes.up = up.and_then(|up| up.first()).map(|up| *up != 0);
        }
        Ok(modes)
    }

    /// The attributes of the answer; None if the driver does not tell this, or the link is gone.
    fn ask(&mut self, command: u8, attributes: &[u8]) -> Result<Option<Vec<u8>>, MonitorError> {
        self.sequence = self.sequence.wrapping_add(1);
        let request = request(self.family, self.sequence, command, attributes);
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

fn read_answer(message: &[u8]) -> Result<Option<Vec<u8>>, MonitorError> {
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

fn request(family: u16, sequence: u32, command: u8, attributes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER + GENERIC_HEADER + attributes.len()).expect("it is short");
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(family.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    message.extend(sequence.to_ne_bytes());
    message.extend([0; 4]);
    // Version 1 of both families.
    message.extend([command, 1, 0, 0]);
    message.extend(attributes);
    message
}

fn of_link(ifindex: u32) -> Vec<u8> {
    let index = with_header(ETHTOOL_A_HEADER_DEV_INDEX, &ifindex.to_ne_bytes());
    let flags = with_header(ETHTOOL_A_HEADER_FLAGS, &ETHTOOL_FLAG_COMPACT_BITSETS.to_ne_bytes());
    with_header(ETHTOOL_A_HEADER | NESTED, &[index, flags].concat())
}

fn with_header(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = u16::try_from(4 + value.len()).expect("it is short").to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(padded(bytes.len()), 0);
    bytes
}

fn found(attributes: &[u8], kind: u16) -> Result<Option<&[u8]>, MonitorError> {
    attribute(attributes, kind).map_err(garbled)
}

fn failed(errno: Errno) -> MonitorError {
    MonitorError::unreadable(WHAT, errno)
}

fn garbled(why: &'static str) -> MonitorError {
    MonitorError::Garbled { what: WHAT.to_owned(), why }
}

#[cfg(test)]
mod tests {
    use decide::units::BitsPerSec;

    use super::*;

    /// An answer to request 7 with a nest, a speed of 10 Gbit/s and a duplex.
    fn answer() -> Vec<u8> {
        let speed = with_header(ETHTOOL_A_LINKMODES_SPEED, &10_000_u32.to_ne_bytes());
        let duplex = with_header(ETHTOOL_A_LINKMODES_DUPLEX, &[1]);
        request(0x17, 7, ETHTOOL_MSG_LINKMODES_GET, &[of_link(3), speed, duplex].concat())
    }

    fn speed_in(message: &[u8]) -> Result<Option<u32>, MonitorError> {
        let told = read_answer(message)?.expect("no refusal");
        Ok(found(&told, ETHTOOL_A_LINKMODES_SPEED)?.and_then(|speed| u32_at(speed, 0)))
    }

    #[test]
    fn attributes_are_found_behind_others() {
        assert_eq!(speed_in(&answer()).unwrap(), Some(10_000));
        let told = read_answer(&answer()).unwrap().unwrap();
        assert_eq!(found(&told, ETHTOOL_A_LINKMODES_DUPLEX).unwrap(), Some(&[1][..]));
        assert_eq!(found(&told, 99).unwrap(), None);
    }

    #[test]
    fn an_unknown_speed_is_none() {
        assert_eq!(crate::monitor::speed(10_000), Some(BitsPerSec(10_000_000_000)));
        for unknown in [0, u64::from(u32::MAX)] {
            assert_eq!(crate::monitor::speed(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn no_cut_and_no_wrong_byte_makes_it_panic() {
        let whole = answer();
        for end in 0..whole.len() {
            assert!(read_answer(&whole[..end]).is_err(), "cut at {end}");
        }
        for at in (0..whole.len()).filter(|at| !(4..6).contains(at)) {
            for wrong in [0, 1, 0x7f, 0x80, 0xff] {
                let mut message = whole.clone();
                message[at] = wrong;
                let _ = speed_in(&message);
            }
        }
    }

    #[test]
    fn a_driver_that_does_not_tell_is_no_error_and_a_refusal_is_one() {
        let refusal = |code: i32| {
            let mut message = request(NLMSG_ERROR, 7, 0, &[]);
            message[HEADER..HEADER + 4].copy_from_slice(&code.to_ne_bytes());
            read_answer(&message)
        };
        for silent in [Errno::OPNOTSUPP, Errno::NODEV] {
            assert_eq!(refusal(-silent.raw_os_error()).unwrap(), None);
        }
        assert!(refusal(-Errno::PERM.raw_os_error()).is_err());
    }
}
