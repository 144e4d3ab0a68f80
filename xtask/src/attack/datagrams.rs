//! Datagrams: strangers', captured ones, changed ones, those of hosts that are shut out.

use std::time::Duration;

use agent::net::DATAGRAM_MAX;
use anyhow::ensure;
use decide::units::HostId;
use lab::capture::Capture;
use tokio::time::sleep;
use trust::keys::Keys;
use trust::seal::Sealer;
use trust::window::Life;

use super::bed::{Bed, PORT};
use super::stranger::{MALLORY, datagrams, now};

/// Where every sealed datagram's sender is (`trust::seal`).
const SENDER: std::ops::Range<usize> = 9..25;

pub(super) async fn run(bed: &mut Bed) -> anyhow::Result<()> {
    strange(bed).await?;
    captured_ones(bed).await
}

async fn strange(bed: &mut Bed) -> anyhow::Result<()> {
    bed.case("datagram: a stranger's, in the clear", async |bed| {
        refused(bed, &[b"EVKL\x01\x01hello".to_vec()], &["its agent has no keys"]).await
    })
    .await?;
    bed.case("datagram: noise", async |bed| {
        refused(bed, &[vec![0xa5; 600]], &["not of this protocol"]).await
    })
    .await?;
    bed.case("datagram: longer than any of ours", async |bed| {
        let long = [&b"EVKL\x02\0\0\0\x01"[..], &vec![7; DATAGRAM_MAX]].concat();
        refused(bed, &[long], &["a datagram of more than"]).await
    })
    .await?;
    bed.case("datagram: sealed under the key of another cluster", async |bed| {
        let keys = bed.of_another_ca(MALLORY)?;
        let sealed = sealed(&keys, MALLORY)?;
        refused(bed, &[sealed], &["whose seal is broken"]).await
    })
    .await?;
    bed.case("datagram: of a host that is revoked", async |bed| {
        let keys = bed.signed(&bed.ca(), MALLORY, now())?;
        let sealed = sealed(&keys, MALLORY)?;
        let words = bed.ran(0, &["ca", "revoke", &MALLORY.to_string()])?;
        ensure!(words.contains("is revoked"), "{words}");
        spread(bed, |keys| keys.revoked.version > 0).await?;
        refused(bed, &[sealed], &["which is revoked"]).await
    })
    .await
}

async fn captured_ones(bed: &mut Bed) -> anyhow::Result<()> {
    let captured = captured(bed).await?;
    bed.case("datagram: captured and replayed at once", async |bed| {
        refused(bed, &captured[captured.len() - 1..], &["it came before: repeated, or replayed"])
            .await
    })
    .await?;
    bed.case("datagram: captured, with each of its bits flipped in turn", async |bed| {
        let flipped = |bit: usize| {
            let mut datagram = captured[0].clone();
            datagram[bit / 8] ^= 1 << (bit % 8);
            datagram
        };
        let all: Vec<Vec<u8>> = (0..captured[0].len() * 8).rev().map(flipped).collect();
        let seen = refused(bed, &all, &["whose seal is broken"]).await?;
        Ok(format!("{} datagrams: {seen}", all.len()))
    })
    .await?;
    bed.case("datagram: captured, under the name of another host", async |bed| {
        let mut datagram = captured[0].clone();
        let ids: Vec<[u8; 16]> = [1, 2]
            .into_iter()
            .map(|host| Ok(Keys::load(&bed.keys(host))?.held().identity.host.0.to_be_bytes()))
            .collect::<anyhow::Result<_>>()?;
        let other = if datagram[SENDER] == ids[0] { ids[1] } else { ids[0] };
        datagram[SENDER].copy_from_slice(&other);
        refused(bed, &[datagram], &["whose seal is broken"]).await
    })
    .await?;
    bed.case("datagram: captured and cut short at each length", async |bed| {
        let all: Vec<Vec<u8>> =
            (0..captured[0].len()).map(|length| captured[0][..length].to_vec()).collect();
        refused(bed, &all, &["too short to be ours"]).await
    })
    .await?;
    bed.case("datagram: captured and replayed after a restart of its receiver", async |bed| {
        bed.cluster.stop_agent(0)?;
        bed.cluster.start_agent(0)?;
        bed.cluster.settled().await?;
        refused(bed, &captured[..1], &["delayed, or replayed"]).await
    })
    .await?;
    bed.case("datagram: captured and replayed after its receiver was killed", async |bed| {
        bed.cluster.kill_agent(0)?;
        bed.cluster.start_agent(0)?;
        bed.cluster.settled().await?;
        refused(bed, &captured[..1], &["replayed"]).await
    })
    .await?;
    bed.case("datagram: captured and replayed after a rotation of the cluster key", async |bed| {
        let before = Keys::load(&bed.keys(0))?.held().newest();
        bed.ran(1, &["keys", "rotate"])?;
        spread(bed, |keys| keys.newest() > before).await?;
        refused(bed, &captured[..1], &["replayed"]).await
    })
    .await
}

/// Sends these to the first host; gives what it told of one.
async fn refused(bed: &Bed, all: &[Vec<u8>], words: &[&str]) -> anyhow::Result<String> {
    let after = bed.newest(0).await?;
    // What was told lately is told again only after a while; so it is sent until it is.
    for _ in 0..10 {
        datagrams(bed, bed.agent(0), all)?;
        if let Ok(told) = bed.told_soon(0, after, words).await {
            return Ok(told);
        }
    }
    bed.told(0, after, words).await
}

/// What a host with those keys would send.
fn sealed(keys: &std::path::Path, host: HostId) -> anyhow::Result<Vec<u8>> {
    let held = Keys::load(keys)?.held();
    let mut sealer = Sealer::new(host, Life { incarnation: 1, lot: 9 });
    // By then every key is old enough to seal.
    let later = trust::identity::Unix(now().0 + 3600);
    Ok(sealer.seal(&held, (Duration::from_secs(5), later), 2, b"hello"))
}

/// Waits until all hosts hold keys like this.
pub(super) async fn spread(
    bed: &Bed,
    like: impl Fn(&trust::keys::Held) -> bool,
) -> anyhow::Result<Duration> {
    let began = tokio::time::Instant::now();
    loop {
        let mut all = true;
        for host in 0..3 {
            all &= like(&Keys::load(&bed.keys(host))?.held());
        }
        if all {
            // Agents read their folders every 5 s.
            sleep(Duration::from_secs(6)).await;
            return Ok(began.elapsed());
        }
        ensure!(
            began.elapsed() < Duration::from_secs(60),
            "keys took more than a minute to all hosts"
        );
        sleep(Duration::from_millis(200)).await;
    }
}

/// Sealed datagrams that came to the first host.
async fn captured(bed: &Bed) -> anyhow::Result<Vec<Vec<u8>>> {
    let capture = Capture::start(bed.cluster.host(0))?;
    sleep(Duration::from_secs(6)).await;
    let frames = capture.stop()?;
    let to: [u8; 4] = bed.cluster.host(0).address().octets();
    let mut found = Vec::new();
    for at in 0..frames.len().saturating_sub(28) {
        if let Some(datagram) = datagram_at(&frames[at..], to) {
            found.push(datagram.to_vec());
        }
    }
    ensure!(!found.is_empty(), "none was captured");
    Ok(found)
}

/// The payload of the IPv4 UDP packet to this host's agent that begins here, if one does.
fn datagram_at(bytes: &[u8], to: [u8; 4]) -> Option<&[u8]> {
    let (ip, udp) = (bytes.get(..20)?, bytes.get(20..28)?);
    let ours = ip[0] == 0x45 && ip[9] == 17 && ip[16..20] == to;
    let length = usize::from(u16::from_be_bytes([udp[4], udp[5]])).checked_sub(8)?;
    let payload = bytes.get(28..28 + length)?;
    (ours && udp[2..4] == PORT.to_be_bytes() && payload.starts_with(b"EVKL\x02")).then_some(payload)
}
