//! What the driver of a link says of it, by generic netlink: speed, duplex, and whether the link is up.
//!
//! LINKMODES_GET tells speed and duplex, LINKSTATE_GET the carrier. Where the kernel has no such family (before 5.6) the speed
//! is read from /sys.
//!
//! Formats: linux/genetlink.h, linux/ethtool_netlink.h, Documentation/networking/ethtool-netlink.rst.
//!
//! **Invariant:** a message is read within its own bytes only; a garbled one is an error, never a panic.

use rustix::io::Errno;

use super::generic::{Answer, Family, Many, NESTED, failed, found, with_header};
use super::u32_at;
use crate::monitor::{Duplex, LinkModes, MonitorError};

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

/// By which drivers are asked.
#[derive(Debug)]
pub(in crate::monitor) struct Ethtool {
    family: Family,
}

impl Ethtool {
    /// A socket in the network namespace of the caller, where it stays; none before Linux 5.6.
    pub(in crate::monitor) fn open() -> Result<Option<Ethtool>, MonitorError> {
        Ok(Family::open(b"ethtool\0")?.map(|family| Ethtool { family }))
    }

    /// What the driver of the link with this index says. After an error the socket must not be used again.
    pub(in crate::monitor) fn modes(&mut self, ifindex: u32) -> Result<LinkModes, MonitorError> {
        let mut modes = LinkModes::default();
        if let Some(told) = self.ask(ETHTOOL_MSG_LINKMODES_GET, &of_link(ifindex))? {
            let speed = found(&told, ETHTOOL_A_LINKMODES_SPEED)?.and_then(|speed| u32_at(speed, 0));
            let duplex = found(&told, ETHTOOL_A_LINKMODES_DUPLEX)?;
            modes.speed = speed.and_then(|megabits| crate::monitor::uplink::speed(megabits.into()));
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
        match self.family.ask(command, attributes, Many::One)? {
            Answer::Told(told) => Ok(told.into_iter().next()),
            Answer::Refused(Errno::OPNOTSUPP | Errno::NODEV) => Ok(None),
            Answer::Refused(errno) => Err(failed(errno)),
        }
    }
}

fn of_link(ifindex: u32) -> Vec<u8> {
    let index = with_header(ETHTOOL_A_HEADER_DEV_INDEX, &ifindex.to_ne_bytes());
    let flags = with_header(ETHTOOL_A_HEADER_FLAGS, &ETHTOOL_FLAG_COMPACT_BITSETS.to_ne_bytes());
    with_header(ETHTOOL_A_HEADER | NESTED, &[index, flags].concat())
}

#[cfg(test)]
mod tests {
    use decide::units::BitsPerSec;

    use super::super::generic::{Heard, read_part, request};
    use super::*;
    use crate::monitor::uplink::speed;

    /// An answer to request 7 with a nest, a speed of 10 Gbit/s and a duplex.
    fn answer() -> Vec<u8> {
        let speed = with_header(ETHTOOL_A_LINKMODES_SPEED, &10_000_u32.to_ne_bytes());
        let duplex = with_header(ETHTOOL_A_LINKMODES_DUPLEX, &[1]);
        let attributes = [of_link(3), speed, duplex].concat();
        request(0x17, 7, ETHTOOL_MSG_LINKMODES_GET, &attributes, Many::One)
    }

    fn told(part: &[u8]) -> Result<Vec<u8>, MonitorError> {
        let mut told = Vec::new();
        read_part(part, 7, Many::One, &mut told)?;
        Ok(told.pop().unwrap_or_default())
    }

    fn speed_in(message: &[u8]) -> Result<Option<u32>, MonitorError> {
        let told = told(message)?;
        Ok(found(&told, ETHTOOL_A_LINKMODES_SPEED)?.and_then(|speed| u32_at(speed, 0)))
    }

    #[test]
    fn attributes_are_found_behind_others() {
        assert_eq!(speed_in(&answer()).unwrap(), Some(10_000));
        let told = told(&answer()).unwrap();
        assert_eq!(found(&told, ETHTOOL_A_LINKMODES_DUPLEX).unwrap(), Some(&[1][..]));
        assert_eq!(found(&told, 99).unwrap(), None);
    }

    #[test]
    fn an_unknown_speed_is_none() {
        assert_eq!(speed(10_000), Some(BitsPerSec(10_000_000_000)));
        for unknown in [0, u64::from(u32::MAX)] {
            assert_eq!(speed(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn no_cut_and_no_wrong_byte_makes_it_panic() {
        let whole = answer();
        for end in 1..whole.len() {
            assert!(told(&whole[..end]).is_err(), "cut at {end}");
        }
        for at in 0..whole.len() {
            for wrong in [0, 1, 0x7f, 0x80, 0xff] {
                let mut message = whole.clone();
                message[at] = wrong;
                let _ = speed_in(&message);
            }
        }
    }

    #[test]
    fn an_answer_to_another_request_is_not_taken() {
        let mut told = Vec::new();
        assert_eq!(read_part(&answer(), 8, Many::One, &mut told).unwrap(), Heard::More);
        assert_eq!(told, Vec::<Vec<u8>>::new());
    }
}
