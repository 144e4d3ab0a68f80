//! gRPC: without TLS, without certificates, with wrong ones, and too much or too little said.

use std::time::Duration;

use agent::net::DELIVERY_MAX;
use anyhow::ensure;
use decide::units::{HostId, MoveId};
use decide::wire::message::{Body, Message};
use rustls::version::TLS13;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use trust::authority::LIFE;
use trust::identity::Unix;
use trust::keys::Keys;
use trust::tls;

use super::bed::Bed;
use super::stranger::{MALLORY, now, said, shaken};

/// What every connection of HTTP/2 begins with, and empty settings.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// Connections that say nothing.
const SILENT: usize = 500;

pub(super) async fn run(bed: &mut Bed) -> anyhow::Result<()> {
    without_certificates(bed).await?;
    wrong_certificates(bed).await?;
    too_much(bed).await?;
    too_long(bed).await
}

async fn without_certificates(bed: &mut Bed) -> anyhow::Result<()> {
    bed.case("gRPC: without TLS", async |bed| {
        let (to, after) = (bed.agent(0), bed.newest(0).await?);
        let heard =
            bed.outside(async || said(&mut TcpStream::connect(to).await?, PREFACE).await)?;
        ensure!(heard.len() < 32, "it answered: {heard:?}");
        bed.told(0, after, &["it does not speak TLS"]).await
    })
    .await?;
    bed.case("gRPC: TLS without a certificate", async |bed| {
        let (to, roots, after) = (bed.agent(0), bed.roots()?, bed.newest(0).await?);
        bed.outside(async || {
            // In TLS 1.3 a client hears only afterwards that it was not let in.
            let mut stream = shaken(to, roots, &TLS13, b"h2").await?;
            let heard = said(&mut stream, PREFACE).await?;
            ensure!(heard.is_empty(), "it answered: {heard:?}");
            Ok(())
        })?;
        bed.told(0, after, &["it shows no certificate"]).await
    })
    .await?;
    bed.case("gRPC: TLS 1.2", async |bed| {
        let (to, after) = (bed.agent(0), bed.newest(0).await?);
        let hello = [
            // A handshake record, a client's hello, version 1.2, 32 random bytes, no session, one cipher, no compression.
            &[0x16, 3, 1, 0, 45, 1, 0, 0, 41, 3, 3][..],
            &[7; 32],
            &[0, 0, 2, 0xc0, 0x2b, 1, 0],
        ]
        .concat();
        let heard = bed.outside(async || said(&mut TcpStream::connect(to).await?, &hello).await)?;
        // An alert, and nothing else.
        ensure!(heard.first() == Some(&0x15) && heard.len() < 16, "it answered {heard:?}");
        bed.told(0, after, &["a connection:"]).await
    })
    .await
}

async fn wrong_certificates(bed: &mut Bed) -> anyhow::Result<()> {
    bed.case("gRPC: a certificate of another CA of the same name", async |bed| {
        let keys = bed.of_another_ca(MALLORY)?;
        let after = bed.newest(0).await?;
        bed.sent(&keys, 0, release(MALLORY))?;
        bed.told(0, after, &["a connection:"]).await
    })
    .await?;
    bed.case("gRPC: a certificate that has expired", async |bed| {
        let keys = bed.signed(&bed.ca(), HostId(77), Unix(now().0 - LIFE.as_secs() - 10))?;
        let after = bed.newest(0).await?;
        bed.sent(&keys, 0, release(HostId(77)))?;
        bed.told(0, after, &["its certificate has expired"]).await
    })
    .await?;
    bed.case("gRPC: a certificate that is revoked", async |bed| {
        let keys = bed.signed(&bed.ca(), HostId(78), now())?;
        bed.ran(0, &["ca", "revoke", &HostId(78).to_string()])?;
        let took = super::datagrams::spread(bed, |keys| {
            keys.revoked.hosts().any(|(host, _)| host == HostId(78))
        })
        .await?;
        let mut seen = format!("on all hosts after {} s", took.as_secs());
        for host in 0..3 {
            let after = bed.newest(host).await?;
            bed.sent(&keys, host, release(HostId(78)))?;
            seen = format!(
                "{seen}; {}",
                bed.told(host, after, &["its certificate is revoked"]).await?
            );
        }
        Ok(seen)
    })
    .await?;
    bed.case("gRPC: one host's certificate, in the name of another", async |bed| {
        let (keys, other) = (bed.stolen(2)?, Keys::load(&bed.keys(1))?.held().identity.host);
        let after = bed.newest(0).await?;
        bed.sent(&keys, 0, release(other))?;
        bed.told(0, after, &["in the name of host", "not taken"]).await
    })
    .await
}

async fn too_much(bed: &mut Bed) -> anyhow::Result<()> {
    bed.case("gRPC: a message that is far too long", async |bed| {
        let (to, config) = (bed.agent(0), tls::client(&Keys::load(&bed.stolen(2)?)?.into())?);
        let path = b"/evenkeel.v1.Peer/Deliver";
        let heard = bed.outside(async || {
            let stream = TcpStream::connect(to).await?;
            let connector = tokio_rustls::TlsConnector::from(config);
            let mut stream = connector.connect(tls::name(to.ip()), stream).await?;
            // A frame of data beyond what HTTP/2 lets anyone send at once.
            let giant =
                [PREFACE, &[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1], path, &[7; 1 << 20]].concat();
            said(&mut stream, &giant).await
        })?;
        ensure!(heard.len() < 4096, "{} bytes came", heard.len());
        Ok(format!("closed after {} bytes", heard.len()))
    })
    .await?;
    bed.case("gRPC: a usage history that never ends", async |bed| {
        let (to, config) = (bed.agent(0), tls::client(&Keys::load(&bed.stolen(2)?)?.into())?);
        let took = bed.outside(async || {
            let stream = TcpStream::connect(to).await?;
            let connector = tokio_rustls::TlsConnector::from(config);
            let mut stream = connector.connect(tls::name(to.ip()), stream).await?;
            stream.write_all(&[PREFACE, &call("/evenkeel.v1.Peer/History")].concat()).await?;
            let began = Instant::now();
            let mut heard = Vec::new();
            // A few bytes at a time of one message, until the call is ended.
            while !ended(&heard) {
                ensure!(began.elapsed() < Duration::from_secs(20), "it is still listened to");
                let drip = [&[0, 0, 5, 0, 0, 0, 0, 0, 1][..], &[0, 0, 1, 0, 0]].concat();
                stream.write_all(&drip).await?;
                let mut some = [0; 4096];
                if let Ok(length) =
                    timeout(Duration::from_millis(200), stream.read(&mut some)).await
                {
                    let length = length?;
                    heard.extend_from_slice(&some[..length]);
                    if length == 0 {
                        break;
                    }
                }
            }
            Ok(began.elapsed())
        })?;
        Ok(format!("ended after {:.1} s", took.as_secs_f64()))
    })
    .await
}

async fn too_long(bed: &mut Bed) -> anyhow::Result<()> {
    bed.case("gRPC: endless settings and pings", async |bed| {
        let (to, config) = (bed.agent(0), tls::client(&Keys::load(&bed.stolen(2)?)?.into())?);
        let pid = bed.cluster.agent_pid(0).unwrap_or_default();
        let before = super::bed::resident(pid)?;
        let sent = bed.outside(async || {
            let stream = TcpStream::connect(to).await?;
            let connector = tokio_rustls::TlsConnector::from(config);
            let mut stream = connector.connect(tls::name(to.ip()), stream).await?;
            stream.write_all(PREFACE).await?;
            let ping = [&[0, 0, 8, 6, 0, 0, 0, 0, 0][..], &[1; 8]].concat().repeat(1000);
            let mut sent = 0;
            let until = Instant::now() + Duration::from_secs(5);
            // Answers are not read: they must not pile up there.
            while Instant::now() < until {
                match timeout(Duration::from_secs(1), stream.write_all(&ping)).await {
                    Ok(Ok(())) => sent += ping.len(),
                    Ok(Err(_closed)) => break,
                    Err(_held_back) => break,
                }
            }
            Ok(sent)
        })?;
        let more = super::bed::resident(pid)?.saturating_sub(before);
        ensure!(more < 20 << 20, "{} MiB more in memory", more >> 20);
        Ok(format!("closed or held back after {sent} bytes, {} KiB more in memory", more >> 10))
    })
    .await?;
    bed.case("gRPC: slow-loris, connections that say nothing or half a handshake", async |bed| {
        let to = bed.agent(0);
        let took = bed.outside(async || {
            let mut all = Vec::new();
            for number in 0..SILENT {
                let mut stream = TcpStream::connect(to).await?;
                if number % 2 == 0 {
                    stream.write_all(b"\x16\x03\x01\x02\x00\x01").await?;
                }
                all.push(stream);
            }
            let began = Instant::now();
            for stream in &mut all {
                let mut byte = [0];
                // An error is an end too.
                let _ = timeout(DELIVERY_MAX * 3, stream.read(&mut byte)).await?;
            }
            Ok(began.elapsed())
        })?;
        Ok(format!("{SILENT} connections were closed within {:.1} s", took.as_secs_f64()))
    })
    .await
}

/// The head of a call by HTTP/2: each field is literal, and none is indexed (RFC 7541, section 6.2.2).
fn call(path: &str) -> Vec<u8> {
    let mut fields = Vec::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "x"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ] {
        fields.push(0);
        for text in [name, value] {
            fields.push(u8::try_from(text.len()).unwrap_or(0));
            fields.extend(text.bytes());
        }
    }
    let length = u8::try_from(fields.len()).unwrap_or(0);
    // The end of the head, not of the stream.
    [&[0, 0, length, 1, 4, 0, 0, 0, 1][..], &fields].concat()
}

/// Whether frames that came end the call: its head or its trailers, or a reset.
fn ended(mut frames: &[u8]) -> bool {
    while let Some((head, rest)) = frames.split_first_chunk::<9>() {
        let length = usize::from(head[2]) | usize::from(head[1]) << 8 | usize::from(head[0]) << 16;
        // HEADERS, RST_STREAM, GOAWAY.
        if [1, 3, 7].contains(&head[3]) {
            return true;
        }
        let Some(after) = rest.get(length..) else { return false };
        frames = after;
    }
    false
}

pub(super) fn release(from: HostId) -> Message {
    Message {
        from,
        move_id: MoveId { host: from, incarnation: 1, counter: 1 },
        body: Body::Release,
    }
}
