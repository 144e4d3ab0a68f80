//! What each queue of a link lost, by generic netlink: the family `netdev`, its command QSTATS_GET, of one link.
//!
//! Few drivers tell (virtio_net, mlx5, bnxt, gve and a few more), each of them some of the figures; and the kernel lets
//! one link be asked for since 6.10. Whoever does not tell refuses, and that is no error.
//!
//! **Invariant:** these drops are never added to those of [`super::Links`]. A driver's sum has most of what its queues lost
//! already, and nobody can tell how much: the sum says that something was lost, the queues say where.
//!
//! Formats: linux/netdev.h; Documentation/netlink/specs/netdev.yaml, which says what each figure counts.

use std::collections::BTreeMap;

use rustix::io::Errno;

use super::generic::{Answer, Family, Many, failed, found, garbled, with_header};
use super::{u32_at, u64_at};
use crate::monitor::MonitorError;
use crate::monitor::queues::{Direction, Lost, Queue};

const NETDEV_CMD_QSTATS_GET: u8 = 12;
const NETDEV_QSTATS_SCOPE_QUEUE: u32 = 1;
const NETDEV_QUEUE_TYPE_RX: u32 = 0;
const NETDEV_QUEUE_TYPE_TX: u32 = 1;
const NETDEV_A_QSTATS_IFINDEX: u16 = 1;
const NETDEV_A_QSTATS_QUEUE_TYPE: u16 = 2;
const NETDEV_A_QSTATS_QUEUE_ID: u16 = 3;
const NETDEV_A_QSTATS_SCOPE: u16 = 4;
const NETDEV_A_QSTATS_RX_ALLOC_FAIL: u16 = 12;
const NETDEV_A_QSTATS_RX_HW_DROPS: u16 = 13;
const NETDEV_A_QSTATS_RX_HW_DROP_OVERRUNS: u16 = 14;
const NETDEV_A_QSTATS_TX_HW_DROPS: u16 = 24;
const NETDEV_A_QSTATS_TX_HW_DROP_ERRORS: u16 = 25;

/// By which queues are asked for.
#[derive(Debug)]
pub(in crate::monitor) struct Netdev {
    family: Family,
}

impl Netdev {
    /// A socket in the network namespace of the caller, where it stays; none before Linux 6.3.
    pub(in crate::monitor) fn open() -> Result<Option<Netdev>, MonitorError> {
        Ok(Family::open(b"netdev\0")?.map(|family| Netdev { family }))
    }

    /// The queues of the link with this index and what they lost since their driver began to count; none where it does not
    /// tell. After an error the socket must not be used again.
    pub(in crate::monitor) fn queues(
        &mut self,
        ifindex: u32,
    ) -> Result<BTreeMap<Queue, Lost>, MonitorError> {
        match self.family.ask(NETDEV_CMD_QSTATS_GET, &of_link(ifindex), Many::Dump)? {
            Answer::Told(told) => {
                let queues = told.iter().map(|told| read_queue(told));
                Ok(queues.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
            }
            // The kernel knows no such command, or not of one link alone; the driver does not tell; the link is gone.
            Answer::Refused(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOENT | Errno::NODEV) => {
                Ok(BTreeMap::new())
            }
            Answer::Refused(errno) => Err(failed(errno)),
        }
    }
}

fn of_link(ifindex: u32) -> Vec<u8> {
    let scope = with_header(NETDEV_A_QSTATS_SCOPE, &NETDEV_QSTATS_SCOPE_QUEUE.to_ne_bytes());
    [with_header(NETDEV_A_QSTATS_IFINDEX, &ifindex.to_ne_bytes()), scope].concat()
}

/// None if it is neither received nor sent by.
fn read_queue(attributes: &[u8]) -> Result<Option<(Queue, Lost)>, MonitorError> {
    let figure = |kind| figure(attributes, kind);
    let number = |kind| {
        let value = found(attributes, kind)?.and_then(|value| u32_at(value, 0));
        value.ok_or(garbled("a queue has no number or no direction"))
    };
    let (kind, number) = (number(NETDEV_A_QSTATS_QUEUE_TYPE)?, number(NETDEV_A_QSTATS_QUEUE_ID)?);
    let (direction, drops, some_drops, failed_allocations) = match kind {
        NETDEV_QUEUE_TYPE_RX => (
            Direction::Received,
            figure(NETDEV_A_QSTATS_RX_HW_DROPS)?,
            figure(NETDEV_A_QSTATS_RX_HW_DROP_OVERRUNS)?,
            figure(NETDEV_A_QSTATS_RX_ALLOC_FAIL)?,
        ),
        NETDEV_QUEUE_TYPE_TX => (
            Direction::Sent,
            figure(NETDEV_A_QSTATS_TX_HW_DROPS)?,
            figure(NETDEV_A_QSTATS_TX_HW_DROP_ERRORS)?,
            None,
        ),
        _ => return Ok(None),
    };
    let lost = Lost {
        // Drops count those for want of room, and those of packets that were not well formed, as well.
        drops: drops.or(some_drops).unwrap_or(0),
        failed_allocations: failed_allocations.unwrap_or(0),
    };
    Ok(Some((Queue { direction, number }, lost)))
}

/// A figure of as many bytes as it needs: four or eight (`nla_put_uint`).
fn figure(attributes: &[u8], kind: u16) -> Result<Option<u64>, MonitorError> {
    let Some(value) = found(attributes, kind)? else { return Ok(None) };
    let figure = match value.len() {
        4 => u32_at(value, 0).map(u64::from),
        8 => u64_at(value, 0),
        _ => None,
    };
    figure.map(Some).ok_or(garbled("a queue's figure has neither four nor eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::super::generic::{Heard, read_part, request};
    use super::super::{HEADER, NLM_F_DUMP_INTR, NLMSG_DONE};
    use super::*;

    /// One queue as Linux 6.18 tells it, in answer to request 7.
    fn message(kind: u32, number: u32, figures: &[Vec<u8>]) -> Vec<u8> {
        let of_queue = [
            with_header(NETDEV_A_QSTATS_IFINDEX, &4_u32.to_ne_bytes()),
            with_header(NETDEV_A_QSTATS_QUEUE_TYPE, &kind.to_ne_bytes()),
            with_header(NETDEV_A_QSTATS_QUEUE_ID, &number.to_ne_bytes()),
        ];
        let attributes = [of_queue.concat(), figures.concat()].concat();
        request(0x14, 7, NETDEV_CMD_QSTATS_GET, &attributes, Many::One)
    }

    fn four(kind: u16, figure: u32) -> Vec<u8> {
        with_header(kind, &figure.to_ne_bytes())
    }

    fn eight(kind: u16, figure: u64) -> Vec<u8> {
        with_header(kind, &figure.to_ne_bytes())
    }

    fn done() -> Vec<u8> {
        let mut message = request(NLMSG_DONE, 7, 0, &[], Many::One);
        message[HEADER..].copy_from_slice(&0_u32.to_ne_bytes());
        message
    }

    /// Two queues that receive, two that send, and one of a kind that is not known.
    fn answer() -> Vec<u8> {
        [
            message(0, 0, &[four(8, 1914), four(9, 47_964_736)]),
            message(
                0,
                3,
                &[
                    four(NETDEV_A_QSTATS_RX_ALLOC_FAIL, 5),
                    eight(NETDEV_A_QSTATS_RX_HW_DROPS, 1 << 40),
                    four(NETDEV_A_QSTATS_RX_HW_DROP_OVERRUNS, 7),
                    // Appended by a later kernel.
                    with_header(4000, b"whatever it may be"),
                ],
            ),
            message(1, 0, &[four(NETDEV_A_QSTATS_TX_HW_DROP_ERRORS, 11)]),
            message(1, 1, &[four(NETDEV_A_QSTATS_TX_HW_DROPS, 12)]),
            message(9, 1, &[four(NETDEV_A_QSTATS_TX_HW_DROPS, 13)]),
            done(),
        ]
        .concat()
    }

    fn read(part: &[u8]) -> Result<(Vec<(Queue, Lost)>, Heard), MonitorError> {
        let mut told = Vec::new();
        let heard = read_part(part, 7, Many::Dump, &mut told)?;
        let queues = told.iter().map(|told| read_queue(told)).collect::<Result<Vec<_>, _>>()?;
        Ok((queues.into_iter().flatten().collect(), heard))
    }

    #[test]
    fn each_queue_is_told_with_what_it_lost() {
        let (queues, heard) = read(&answer()).unwrap();
        let received = |number| Queue { direction: Direction::Received, number };
        let sent = |number| Queue { direction: Direction::Sent, number };
        let lost = |drops, failed_allocations| Lost { drops, failed_allocations };
        assert_eq!(heard, Heard::All);
        let expected = [
            (received(0), lost(0, 0)),
            (received(3), lost(1 << 40, 5)),
            (sent(0), lost(11, 0)),
            (sent(1), lost(12, 0)),
        ];
        assert_eq!(queues, expected);
    }

    /// What virtio_net told on Linux 6.18 (little-endian) of its only queue in each direction: packets and bytes, and how often
    /// the sending one was stopped and woken (33, 34).
    #[cfg(target_endian = "little")]
    #[test]
    fn an_answer_as_it_was_recorded_is_understood() {
        const RECEIVED: [u8; 40] = [
            8, 0, 1, 0, 4, 0, 0, 0, 8, 0, 2, 0, 0, 0, 0, 0, 8, 0, 3, 0, 0, 0, 0, 0, 8, 0, 8, 0, 41,
            16, 0, 0, 8, 0, 9, 0, 220, 65, 37, 8,
        ];
        const SENT: [u8; 56] = [
            8, 0, 1, 0, 4, 0, 0, 0, 8, 0, 2, 0, 1, 0, 0, 0, 8, 0, 3, 0, 0, 0, 0, 0, 8, 0, 10, 0,
            17, 9, 0, 0, 8, 0, 11, 0, 46, 124, 3, 0, 8, 0, 33, 0, 0, 0, 0, 0, 8, 0, 34, 0, 0, 0, 0,
            0,
        ];
        let queue = |direction| Queue { direction, number: 0 };
        for (told, direction) in
            [(&RECEIVED[..], Direction::Received), (&SENT[..], Direction::Sent)]
        {
            assert_eq!(read_queue(told).unwrap(), Some((queue(direction), Lost::default())));
        }
    }

    #[test]
    fn a_refusal_is_told_with_its_number_and_an_end_without_one_is_none() {
        let mut refusal = done();
        refusal[HEADER..].copy_from_slice(&(-95_i32).to_ne_bytes());
        assert_eq!(read(&refusal).unwrap(), (vec![], Heard::Refused(Errno::OPNOTSUPP)));
        for no_error in [i32::MIN, -4096, 1, i32::MAX] {
            refusal[HEADER..].copy_from_slice(&no_error.to_ne_bytes());
            assert!(matches!(read(&refusal), Err(MonitorError::Garbled { .. })), "{no_error}");
        }
        let mut interrupted = done();
        interrupted[6..8].copy_from_slice(&NLM_F_DUMP_INTR.to_ne_bytes());
        assert_eq!(read(&interrupted).unwrap(), (vec![], Heard::All));
    }

    #[test]
    fn what_is_cut_short_is_an_error_that_says_so_and_no_wrong_byte_makes_it_panic() {
        let whole = answer();
        let mut boundaries = vec![];
        for end in 1..whole.len() {
            match read(&whole[..end]) {
                Ok((_, heard)) => {
                    assert_eq!(heard, Heard::More, "cut at {end}");
                    boundaries.push(end);
                }
                Err(MonitorError::Garbled { why, .. }) => assert_ne!(why, ""),
                Err(other) => panic!("{other:?}"),
            }
        }
        assert_eq!(boundaries.len(), 5, "cut between two messages it is a part like any other");
        for at in 0..whole.len() {
            for wrong in [0, 1, 0x7f, 0x80, 0xff] {
                let mut part = whole.clone();
                part[at] = wrong;
                let _ = read(&part);
            }
        }
    }

    #[test]
    fn a_queue_without_number_and_a_figure_of_three_bytes_are_errors() {
        let without = request(0x14, 7, NETDEV_CMD_QSTATS_GET, &four(2, 0), Many::One);
        let odd = message(0, 0, &[with_header(NETDEV_A_QSTATS_RX_HW_DROPS, &[1, 2, 3])]);
        for wrong in [without, odd] {
            assert!(matches!(read(&wrong), Err(MonitorError::Garbled { .. })));
        }
    }
}
