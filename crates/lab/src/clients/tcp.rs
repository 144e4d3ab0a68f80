//! One TCP connection to a guest's echo port, kept open, with a line each 100 ms.
//!
//! **Invariant:** it never connects anew: a connection that broke stays broken.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream as StdTcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::locked;
use crate::hosts::Namespace;

const ECHO_PORT: u16 = 7;
const PACE: Duration = Duration::from_millis(100);
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// How long the last line may take: several of TCP's own repeats.
const LAST_LINE: Duration = Duration::from_secs(15);

/// How the connection stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TcpLine {
    /// Lines sent.
    pub sent: u64,
    /// Lines that came back, each as it was sent and in order.
    pub echoed: u64,
    /// What broke it, or what came back wrong.
    pub broken: Option<String>,
}

impl TcpLine {
    /// Whether every line came back: asked after the end.
    pub fn alive(&self) -> bool {
        self.broken.is_none() && self.echoed == self.sent && self.sent > 0
    }
}

/// Keeps the connection busy until stopped.
#[derive(Debug)]
pub struct TcpProbe {
    line: Arc<Mutex<TcpLine>>,
    stop: Arc<Notify>,
    task: JoinHandle<()>,
}

impl TcpProbe {
    /// Connects from `client` to the guest at `to`. Blocks until connected, five seconds at most.
    pub fn start(client: &Namespace, to: Ipv4Addr) -> anyhow::Result<TcpProbe> {
        let open = || -> io::Result<StdTcpStream> {
            let stream = StdTcpStream::connect_timeout(
                &SocketAddrV4::new(to, ECHO_PORT).into(),
                CONNECT_MAX,
            )?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            Ok(stream)
        };
        let stream = client.inside(open)?.and_then(TcpStream::from_std);
        let (read, write) =
            stream.with_context(|| format!("connecting to {to} port {ECHO_PORT}"))?.into_split();
        let (line, stop): (Arc<Mutex<TcpLine>>, _) = (Arc::default(), Arc::new(Notify::new()));
        let (told, stopped) = (Arc::clone(&line), Arc::clone(&stop));
        let task = tokio::spawn(async move {
            if let Err(error) = run(BufReader::new(read).lines(), write, &told, &stopped).await {
                locked(&told).broken = Some(format!("{error:#}"));
            }
        });
        Ok(TcpProbe { line, stop, task })
    }

    /// How it stands.
    pub fn so_far(&self) -> TcpLine {
        locked(&self.line).clone()
    }

    /// Sends no more, waits for what is under way, and gives the figures.
    pub async fn stop(self) -> anyhow::Result<TcpLine> {
        self.stop.notify_one();
        self.task.await.context("talking to a guest's echo port")?;
        Ok(self
            .line
            .lock()
            .map_or_else(|poisoned| poisoned.into_inner().clone(), |line| line.clone()))
    }
}

async fn run(
    mut lines: Lines<BufReader<OwnedReadHalf>>,
    mut write: OwnedWriteHalf,
    line: &Mutex<TcpLine>,
    stop: &Notify,
) -> anyhow::Result<()> {
    let mut ticks = interval(PACE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.notified() => break,
            _ = ticks.tick() => {
                let number = locked(line).sent + 1;
                write.write_all(format!("line {number}\n").as_bytes()).await?;
                locked(line).sent = number;
            }
            got = lines.next_line() => check(got?, line)?,
        }
    }
    let all_back = async {
        while {
            let now = locked(line).clone();
            now.echoed < now.sent
        } {
            check(lines.next_line().await?, line)?;
        }
        anyhow::Ok(())
    };
    timeout(LAST_LINE, all_back).await.context("lines did not come back")?
}

fn check(got: Option<String>, line: &Mutex<TcpLine>) -> anyhow::Result<()> {
    let got = got.context("closed by the guest")?;
    let mut line = locked(line);
    let expected = format!("line {}", line.echoed + 1);
    anyhow::ensure!(got == expected, "{got:?} came back instead of {expected:?}");
    line.echoed += 1;
    Ok(())
}
