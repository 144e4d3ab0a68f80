//! The copy of a guest's memory: what the wire shows, and who may send or take it.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::ensure;
use decide::units::BitsPerSec;
use lab::capture::{Capture, holds};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use super::bed::{Bed, VM};
use super::stranger::said;

/// Words that stand in the memory of every guest of the lab: its kernel's own command line.
const MARKER: &[u8] = b"lab.address=";
/// The first of the ports at which incoming copies listen.
const COPIES: u16 = 49_152;

pub(super) async fn run(bed: &mut Bed) -> anyhow::Result<()> {
    bed.case("wire: a whole move, looked through", async |bed| {
        let capture = Capture::start(bed.cluster.host(bed.at))?;
        let view = bed.moved().await?;
        let frames = capture.stop()?;
        ensure!(u64::try_from(frames.len())? > view.copied_bytes, "not all was captured");
        for (what, words) in [
            ("the VM's name", VM.as_bytes()),
            ("its memory", MARKER),
            ("QEMU's stream", b"QEVM\0\0\0\x03"),
        ] {
            ensure!(!holds(&frames, words), "{what} can be read");
        }
        for metric in ["cpu", "memory", "packets"] {
            ensure!(!holds(&frames, format!("\"{metric}\"").as_bytes()), "{metric} can be read");
        }
        Ok(format!("of {} MiB nothing can be read", frames.len() >> 20))
    })
    .await?;
    bed.case("copy: a stranger at the migration port", async |bed| {
        let to = (bed.at + 1) % 3;
        let port = SocketAddr::from((bed.cluster.host(to).address(), COPIES));
        bed.cluster.host(to).limit_uplink(Some(BitsPerSec(60_000_000)))?;
        let id = bed.begin_move(to).await?;
        let stranger = bed.outside(async || {
            let (mut times, mut heard) = (0, Vec::new());
            let until = Instant::now() + Duration::from_secs(3);
            while Instant::now() < until {
                match TcpStream::connect(port).await {
                    Ok(mut stream) => {
                        times += 1;
                        heard.extend(said(&mut stream, b"QEVM\0\0\0\x03").await?);
                    }
                    Err(_nobody_listens) => sleep(Duration::from_millis(2)).await,
                }
            }
            Ok((times, heard))
        });
        bed.cluster.host(to).limit_uplink(None)?;
        let (times, heard) = stranger?;
        bed.arrived(&id, to).await?;
        ensure!(!holds(&heard, MARKER) && heard.len() <= times * 64, "{} bytes heard", heard.len());
        Ok(format!("connected {times} times, heard {} bytes, and the move was made", heard.len()))
    })
    .await
}
