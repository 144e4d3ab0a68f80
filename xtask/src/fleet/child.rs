//! A fleet in a process of its own: built anew, so that it has the dashboard as it is now.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child as Process, ChildStdin, Command, Stdio};

use anyhow::Context;

use super::Ways;

/// Lives as long as this.
#[derive(Debug)]
pub(crate) struct Child {
    process: Process,
    orders: Option<ChildStdin>,
    pub(crate) ways: Ways,
}

impl Child {
    /// Starts `program`, this one as it was built last, and waits until its fleet is served.
    pub(crate) fn start(program: &Path, arguments: &[&str]) -> anyhow::Result<Child> {
        let mut command = Command::new(program);
        command.arg("fleet").args(arguments).arg("--json");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().context("starting a fleet")?;
        let orders = process.stdin.take();
        let mut said = String::new();
        let output = process.stdout.take().context("its output is a pipe")?;
        BufReader::new(output).read_line(&mut said).context("waiting for the fleet")?;
        let ways =
            serde_json::from_str(&said).with_context(|| format!("the fleet said {said:?}"))?;
        Ok(Child { process, orders, ways })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Has the first host note so many events.
    pub(crate) fn burst(&mut self, count: u32) -> anyhow::Result<()> {
        let orders = self.orders.as_mut().context("its input is a pipe")?;
        writeln!(orders, "burst {count}").context("telling the fleet")
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It ends when it can be told nothing more.
        drop(self.orders.take());
        let _ = self.process.wait();
    }
}
