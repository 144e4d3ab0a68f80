//! The parser against messages as the kernel writes them, whole, cut short and garbled.

use super::*;

fn message(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER + body.len()).unwrap();
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend(4711u32.to_ne_bytes());
    bytes.extend(body);
    bytes.resize(padded(bytes.len()), 0);
    bytes
}

/// As Linux 6.18 sends it: 25 counters, of which the n-th is `first + n`.
fn statistics(sequence: u32, ifindex: u32, first: u64) -> Vec<u8> {
    let mut body = vec![0; 4];
    body.extend(ifindex.to_ne_bytes());
    body.extend(LINK_64_ONLY.to_ne_bytes());
    body.extend(204u16.to_ne_bytes());
    body.extend(IFLA_STATS_LINK_64.to_ne_bytes());
    body.extend((0..25).flat_map(|n| (first + n).to_ne_bytes()));
    message(RTM_NEWSTATS, 2, sequence, &body)
}

fn done(sequence: u32, flags: u16, code: i32) -> Vec<u8> {
    message(NLMSG_DONE, 2 | flags, sequence, &code.to_ne_bytes())
}

fn read(part: &[u8], sequence: u32) -> Result<(Vec<LinkStatistics>, Heard), MonitorError> {
    let (mut found, mut heard) = (Vec::new(), Heard::default());
    parse(part, sequence, &mut found, &mut heard)?;
    Ok((found, heard))
}

#[test]
fn counters_are_taken_from_their_places() {
    let part = [statistics(7, 3, 100), statistics(7, 9, 200), done(7, 0, 0)].concat();
    let (found, heard) = read(&part, 7).unwrap();
    assert_eq!(heard, Heard { done: true, interrupted: false });
    assert_eq!(found.iter().map(|link| link.ifindex).collect::<Vec<_>>(), [3, 9]);
    let expected = LinkStatistics {
        ifindex: 3,
        rx_packets: 100,
        tx_packets: 101,
        rx_bytes: 102,
        tx_bytes: 103,
        rx_dropped: 106,
        tx_dropped: 107,
        rx_missed: 115,
    };
    assert_eq!(found[0], expected);
}

#[test]
fn answers_to_an_earlier_request_are_passed_over() {
    let part = [statistics(6, 3, 100), done(6, 0, 0), statistics(7, 9, 200)].concat();
    let (found, heard) = read(&part, 7).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].ifindex, 9);
    assert!(!heard.done);
}

#[test]
fn an_interrupted_dump_is_noticed() {
    let part = [statistics(7, 3, 100), done(7, NLM_F_DUMP_INTR, 0)].concat();
    assert_eq!(read(&part, 7).unwrap().1, Heard { done: true, interrupted: true });
}

#[test]
fn the_kernels_refusal_is_an_error_with_its_number() {
    let refusal = message(NLMSG_ERROR, 0, 7, &(-95i32).to_ne_bytes());
    for part in [refusal, done(7, 0, -95)] {
        match read(&part, 7) {
            Err(MonitorError::Unreadable { source, .. }) => {
                assert_eq!(source.raw_os_error(), Some(95));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn no_cut_and_no_wrong_byte_makes_it_panic() {
    let whole = [statistics(7, 3, 100), statistics(7, 9, 200), done(7, 0, 0)].concat();
    for end in 0..whole.len() {
        // Cut between two messages it is a part like any other; cut within one it is an error.
        let at_boundary = [0, 232, 464].contains(&end);
        assert_eq!(read(&whole[..end], 7).is_ok(), at_boundary, "cut at {end}");
    }
    for at in 0..whole.len() {
        for wrong in [0, 1, 0x7f, 0x80, 0xff] {
            let mut part = whole.clone();
            part[at] = wrong;
            let _ = read(&part, 7);
        }
    }
}

#[test]
fn an_attribute_that_is_too_short_for_its_counters_is_an_error() {
    let mut body = vec![0; 4];
    body.extend(3u32.to_ne_bytes());
    body.extend(LINK_64_ONLY.to_ne_bytes());
    body.extend(20u16.to_ne_bytes());
    body.extend(IFLA_STATS_LINK_64.to_ne_bytes());
    body.extend([0; 16]);
    assert!(matches!(
        read(&message(RTM_NEWSTATS, 2, 7, &body), 7),
        Err(MonitorError::Garbled { .. })
    ));
}
