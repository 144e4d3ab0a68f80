//! The kind of a link that is no device of its own (`bond`, `bridge`, `vlan`, `veth`, `tun`): by which driver the kernel made
//! it. One RTM_GETLINK.
//!
//! Formats: linux/rtnetlink.h (`ifinfomsg`), linux/if_link.h (IFLA_LINKINFO, IFLA_INFO_KIND).

use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::{HEADER, NLM_F_REQUEST, PART_MAX, attribute, open_socket, split, u16_at};

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
/// `struct ifinfomsg`.
const LINK_HEADER: usize = 16;
const SEQUENCE: u32 = 1;

/// None if it has none, as an Ethernet card or the loopback; or if it is gone, or nothing is answered.
pub(in crate::monitor) fn link_kind(ifindex: u32) -> Option<String> {
    let socket = open_socket(None).ok()?;
    send(&socket, &request(ifindex), SendFlags::empty()).ok()?;
    let mut part = vec![0; PART_MAX];
    let received =
        rustix::io::retry_on_intr(|| recv(&socket, &mut part[..], RecvFlags::TRUNC)).ok();
    let (_, length): (_, usize) = received?;
    read(part.get(..length)?)
}

fn request(ifindex: u32) -> [u8; HEADER + LINK_HEADER] {
    let mut message = [0; HEADER + LINK_HEADER];
    message[0..4].copy_from_slice(&32_u32.to_ne_bytes());
    message[4..6].copy_from_slice(&RTM_GETLINK.to_ne_bytes());
    message[6..8].copy_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    message[8..12].copy_from_slice(&SEQUENCE.to_ne_bytes());
    message[20..24].copy_from_slice(&ifindex.to_ne_bytes());
    message
}

fn read(part: &[u8]) -> Option<String> {
    let message = split(part, SEQUENCE).ok()?.into_iter().next()?;
    let attributes = message.get(HEADER + LINK_HEADER..)?;
    if u16_at(message, 4) != Some(RTM_NEWLINK) {
        return None;
    }
    let info = attribute(attributes, IFLA_LINKINFO).ok()??;
    let kind = attribute(info, IFLA_INFO_KIND).ok()??;
    let kind = kind.split(|byte| *byte == 0).next()?;
    Some(std::str::from_utf8(kind).ok()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_read_and_no_cut_makes_it_panic() {
        let kind = [&[10, 0, 1, 0][..], b"bond\0\0", &[0, 0]].concat();
        let info = [&[16, 0, 18, 0x80][..], &kind].concat();
        let mut message = request(7).to_vec();
        message.extend(&info);
        message[0] = 48;
        message[4..6].copy_from_slice(&RTM_NEWLINK.to_ne_bytes());
        assert_eq!(read(&message).as_deref(), Some("bond"));
        for end in 0..message.len() {
            assert_eq!(read(&message[..end]), None, "cut at {end}");
        }
        assert_eq!(read(&request(7)), None, "no attribute");
    }

    #[test]
    fn the_loopback_has_no_kind_and_a_link_that_is_not_there_has_none() {
        assert_eq!(link_kind(1), None);
        assert_eq!(link_kind(u32::MAX >> 1), None);
    }
}
