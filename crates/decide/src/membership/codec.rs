//! The bytes of a datagram.
//!
//! A datagram is: version (1 byte, now 1), kind (1 byte), then for kind 0 what foca lays out (header, count, members, digests with
//! their lengths), and for kind 1 ("you were outlived") host, life and address. Numbers are big-endian; an address is 4 or
//! 6, its bytes, its port; a name is its length and its bytes.
//!
//! **Invariant:** no bytes, whatever they are, make a reader panic or reserve room that the bytes do not fill.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::sync::mpsc::Sender;

use bytes::{Buf, BufMut, TryGetError};
use foca::{Header, Member, Message, State};

use super::Peer;
use super::identity::{Identity, NAME_BYTES_MAX};
use crate::units::HostId;

/// The longest datagram: within the least MTU of IPv6 (1280 bytes), with room for headers and a seal.
pub const DATAGRAM_BYTES_MAX: usize = 1200;
/// What of it is foca's.
pub(super) const FOCA_BYTES_MAX: NonZeroUsize =
    NonZeroUsize::new(DATAGRAM_BYTES_MAX - 2).expect("a datagram is longer than two bytes");

/// The least that a member takes of it.
pub(super) const MEMBER_BYTES_MIN: usize = 16 + 7 + 4 + 8 + 1 + 2 + 1;

const VERSION: u8 = 1;
const KIND_FOCA: u8 = 0;
const KIND_OUTLIVED: u8 = 1;

/// The bytes are not ours, or garbled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    #[error("it was cut off")]
    Short,
    #[error("it is longer than {DATAGRAM_BYTES_MAX} bytes")]
    Long,
    #[error("its version is {0}, known is {VERSION}")]
    Version(u8),
    #[error("its {0} is unknown")]
    Unknown(&'static str),
    #[error("its address cannot be answered")]
    Address,
    #[error("a host name in it is too long or no text")]
    Name,
    #[error("there is no room left in the datagram")]
    Full,
}

impl From<TryGetError> for Malformed {
    fn from(_cut_off: TryGetError) -> Malformed {
        Malformed::Short
    }
}

/// A datagram without its first two bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame<'a> {
    /// For foca.
    Foca(&'a [u8]),
    /// Some host knows a later life of the receiver, at this address.
    Outlived { host: HostId, life: u64, address: SocketAddr },
}

impl Frame<'_> {
    pub(super) fn read(mut bytes: &[u8]) -> Result<Frame<'_>, Malformed> {
        if bytes.len() > DATAGRAM_BYTES_MAX {
            return Err(Malformed::Long);
        }
        let version = bytes.try_get_u8()?;
        if version != VERSION {
            return Err(Malformed::Version(version));
        }
        match bytes.try_get_u8()? {
            KIND_FOCA => Ok(Frame::Foca(bytes)),
            KIND_OUTLIVED => {
                let host = HostId(bytes.try_get_u128()?);
                Ok(Frame::Outlived {
                    host,
                    life: bytes.try_get_u64()?,
                    address: get_address(&mut bytes)?,
                })
            }
            _ => Err(Malformed::Unknown("kind")),
        }
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        match self {
            Frame::Foca(data) => {
                bytes.put_u8(KIND_FOCA);
                bytes.put_slice(data);
            }
            Frame::Outlived { host, life, address } => {
                bytes.put_u8(KIND_OUTLIVED);
                bytes.put_u128(host.0);
                bytes.put_u64(*life);
                put_address(&mut bytes, *address);
            }
        }
        bytes
    }
}

/// Whose datagram this is; foca's header begins with it.
pub(super) fn sender(mut foca_data: &[u8]) -> Result<Identity, Malformed> {
    let sender = get_identity(&mut foca_data)?;
    if sender.peer.host == HostId(0) { Err(Malformed::Unknown("sender")) } else { Ok(sender) }
}

/// Whom a datagram tells of, its sender first; as foca lays it out.
pub(super) fn tells_of(mut foca_data: &[u8]) -> Result<Vec<HostId>, Malformed> {
    let data = &mut foca_data;
    let mut all = vec![get_identity(data)?.peer.host];
    data.try_get_u16()?;
    get_identity(data)?;
    if get_message(data)? != Message::Broadcast && data.remaining() >= 2 {
        for _ in 0..data.get_u16() {
            all.push(get_identity(data)?.peer.host);
            data.try_get_u16()?;
            data.try_get_u8()?;
        }
    }
    Ok(all)
}

/// foca's view of the above, for the host with this id; says which hosts it has read of. Most datagrams bring digests only.
#[derive(Debug)]
pub(super) struct Codec(pub(super) HostId, pub(super) Sender<HostId>);

impl foca::Codec<Identity> for Codec {
    type Error = Malformed;

    fn encode_header(
        &mut self,
        header: &Header<Identity>,
        mut buf: impl BufMut,
    ) -> Result<(), Malformed> {
        let mut bytes = Vec::with_capacity(256);
        put_identity(&mut bytes, &header.src);
        bytes.put_u16(header.src_incarnation);
        put_identity(&mut bytes, &header.dst);
        put_message(&mut bytes, &header.message);
        put_whole(&mut buf, &bytes)
    }

    fn decode_header(&mut self, mut buf: impl Buf) -> Result<Header<Identity>, Malformed> {
        let src = get_identity(&mut buf)?;
        let src_incarnation = buf.try_get_u16()?;
        let mut dst = get_identity(&mut buf)?;
        let message = get_message(&mut buf)?;
        if message == Message::Announce && dst.peer.host == HostId(0) {
            // The caller has only an address of us; whoever reads it is meant.
            dst.peer.host = self.0;
        }
        Ok(Header { src, src_incarnation, dst, message })
    }

    fn encode_member(
        &mut self,
        member: &Member<Identity>,
        mut buf: impl BufMut,
    ) -> Result<(), Malformed> {
        let mut bytes = Vec::with_capacity(128);
        put_identity(&mut bytes, member.id());
        bytes.put_u16(member.incarnation());
        bytes.put_u8(match member.state() {
            State::Alive => 0,
            State::Suspect => 1,
            State::Down => 2,
        });
        put_whole(&mut buf, &bytes)
    }

    fn decode_member(&mut self, mut buf: impl Buf) -> Result<Member<Identity>, Malformed> {
        let id = get_identity(&mut buf)?;
        let incarnation = buf.try_get_u16()?;
        let state = match buf.try_get_u8()? {
            0 => State::Alive,
            1 => State::Suspect,
            2 => State::Down,
            _ => return Err(Malformed::Unknown("member's state")),
        };
        if id.peer.host == HostId(0) {
            Err(Malformed::Unknown("member"))
        } else {
            // The other end lives as long as the membership that owns both.
            let _ = self.1.send(id.peer.host);
            Ok(Member::new(id, incarnation, state))
        }
    }
}

fn put_whole(buf: &mut impl BufMut, bytes: &[u8]) -> Result<(), Malformed> {
    if buf.remaining_mut() < bytes.len() {
        return Err(Malformed::Full);
    }
    buf.put_slice(bytes);
    Ok(())
}

fn put_message(bytes: &mut Vec<u8>, message: &Message<Identity>) {
    let plain = |bytes: &mut Vec<u8>, tag: u8, number: u8| bytes.put_slice(&[tag, number]);
    let with = |bytes: &mut Vec<u8>, tag: u8, number: u8, id: &Identity| {
        bytes.put_slice(&[tag, number]);
        put_identity(bytes, id);
    };
    match message {
        Message::Ping(number) => plain(bytes, 0, *number),
        Message::Ack(number) => plain(bytes, 1, *number),
        Message::PingReq { target, probe_number } => with(bytes, 2, *probe_number, target),
        Message::IndirectPing { origin, probe_number } => with(bytes, 3, *probe_number, origin),
        Message::IndirectAck { target, probe_number } => with(bytes, 4, *probe_number, target),
        Message::ForwardedAck { origin, probe_number } => with(bytes, 5, *probe_number, origin),
        Message::Announce => bytes.put_u8(6),
        Message::Feed => bytes.put_u8(7),
        Message::Gossip => bytes.put_u8(8),
        Message::Broadcast => bytes.put_u8(9),
        Message::TurnUndead => bytes.put_u8(10),
    }
}

fn get_message(buf: &mut impl Buf) -> Result<Message<Identity>, Malformed> {
    let tag = buf.try_get_u8()?;
    let probe_number = if tag <= 5 { buf.try_get_u8()? } else { 0 };
    Ok(match tag {
        0 => Message::Ping(probe_number),
        1 => Message::Ack(probe_number),
        2 => Message::PingReq { target: get_identity(buf)?, probe_number },
        3 => Message::IndirectPing { origin: get_identity(buf)?, probe_number },
        4 => Message::IndirectAck { target: get_identity(buf)?, probe_number },
        5 => Message::ForwardedAck { origin: get_identity(buf)?, probe_number },
        6 => Message::Announce,
        7 => Message::Feed,
        8 => Message::Gossip,
        9 => Message::Broadcast,
        10 => Message::TurnUndead,
        _ => return Err(Malformed::Unknown("message")),
    })
}

fn put_identity(bytes: &mut Vec<u8>, id: &Identity) {
    let Peer { host, name, address, incarnation } = &id.peer;
    bytes.put_u128(host.0);
    put_address(bytes, *address);
    bytes.put_u32(*incarnation);
    bytes.put_u64(id.life);
    bytes.put_u8(u8::try_from(name.len()).expect("names are cut to NAME_BYTES_MAX"));
    bytes.put_slice(name.as_bytes());
}

fn get_identity(buf: &mut impl Buf) -> Result<Identity, Malformed> {
    let host = HostId(buf.try_get_u128()?);
    let address = get_address(buf)?;
    let incarnation = buf.try_get_u32()?;
    let life = buf.try_get_u64()?;
    let length = usize::from(buf.try_get_u8()?);
    if length > NAME_BYTES_MAX {
        return Err(Malformed::Name);
    }
    let mut name = vec![0; length];
    buf.try_copy_to_slice(&mut name)?;
    let name = String::from_utf8(name).map_err(|_no_text| Malformed::Name)?;
    Ok(Identity { peer: Peer { host, name, address, incarnation }, life })
}

fn put_address(bytes: &mut Vec<u8>, address: SocketAddr) {
    match address {
        SocketAddr::V4(v4) => {
            bytes.put_u8(4);
            bytes.put_u32(v4.ip().to_bits());
        }
        SocketAddr::V6(v6) => {
            bytes.put_u8(6);
            bytes.put_u128(v6.ip().to_bits());
        }
    }
    bytes.put_u16(address.port());
}

fn get_address(buf: &mut impl Buf) -> Result<SocketAddr, Malformed> {
    let ip = match buf.try_get_u8()? {
        4 => Ipv4Addr::from_bits(buf.try_get_u32()?).into(),
        6 => Ipv6Addr::from_bits(buf.try_get_u128()?).into(),
        _ => return Err(Malformed::Unknown("kind of address")),
    };
    let address = SocketAddr::new(ip, buf.try_get_u16()?);
    if address.port() == 0 || address.ip().is_unspecified() || address.ip().is_multicast() {
        return Err(Malformed::Address);
    }
    Ok(address)
}
