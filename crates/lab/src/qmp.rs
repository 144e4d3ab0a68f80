//! A small QMP client for the lab: one command after the other, events kept for whoever waits for them.
//!
//! QEMU serves one client per socket: connect only to what no agent watches.

use std::collections::VecDeque;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

/// The longest that QEMU may take for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// A connection to one QEMU.
#[derive(Debug)]
pub struct Qmp {
    lines: Lines<BufReader<OwnedReadHalf>>,
    write: OwnedWriteHalf,
    events: VecDeque<Value>,
}

impl Qmp {
    /// Connects and leaves QEMU's greeting behind.
    pub async fn connect(path: &Path) -> anyhow::Result<Qmp> {
        let stream = UnixStream::connect(path)
            .await
            .with_context(|| format!("connecting to {}", path.display()))?;
        let (read, write) = stream.into_split();
        let mut qmp = Qmp { lines: BufReader::new(read).lines(), write, events: VecDeque::new() };
        qmp.line().await.context("waiting for QEMU's greeting")?;
        qmp.command("qmp_capabilities", json!({})).await?;
        Ok(qmp)
    }

    /// Asks and waits for the answer.
    pub async fn command(&mut self, name: &str, arguments: Value) -> anyhow::Result<Value> {
        let line = format!("{}\n", json!({ "execute": name, "arguments": arguments }));
        self.write.write_all(line.as_bytes()).await.with_context(|| format!("sending {name}"))?;
        loop {
            let mut answer =
                self.line().await.with_context(|| format!("waiting for the answer to {name}"))?;
            if answer.get("event").is_some() {
                self.events.push_back(answer);
            } else if let Some(error) = answer.get("error") {
                bail!("{name}: {error}");
            } else {
                return Ok(answer["return"].take());
            }
        }
    }

    /// The next event, heard or still to come.
    pub async fn event(&mut self) -> anyhow::Result<Value> {
        match self.events.pop_front() {
            Some(event) => Ok(event),
            None => self.line().await.context("waiting for an event"),
        }
    }

    async fn line(&mut self) -> anyhow::Result<Value> {
        let line =
            timeout(ANSWER_MAX, self.lines.next_line()).await.context("QEMU is silent")??;
        Ok(serde_json::from_str(&line.context("QEMU closed its QMP socket")?)?)
    }
}
