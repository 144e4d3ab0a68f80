//! A real agent by itself: it needs no root, for it has no VMs, and only loopback.
#![allow(dead_code, reason = "each test needs a part of it")]

use std::fs::{self, File};
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use api::EventFilter;
use api::client::Client;
use rustix::process::{Pid, Signal, kill_process};
use sim::replay::unpacked;
use tokio::time::{Instant, sleep};

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);
/// What its agents listen at.
pub(crate) const PORT: u16 = 7789;

/// An agent with a folder of its own.
pub(crate) struct Agent {
    pub(crate) folder: tempfile::TempDir,
    address: &'static str,
    child: Option<Child>,
}

impl Agent {
    /// At an address of its test alone.
    pub(crate) fn new(address: &'static str) -> Agent {
        let folder = tempfile::tempdir().expect("a folder");
        let agent = Agent { folder, address, child: None };
        agent.configure("");
        agent
    }

    /// Writes its configuration: what it needs, and these sections.
    pub(crate) fn configure(&self, sections: &str) {
        let at = |name: &str| self.folder.path().join(name).display().to_string();
        let address = self.address;
        let config = format!(
            "[cluster]\nname = \"c\"\nrequest = \"fan-out\"\nseeds = [\"127.78.0.9\"]\n\
             [host]\naddress = \"{address}\"\nport = {PORT}\nstate = \"{}\"\nqemu = \"{}\"\napi = \"{}\"\n\
             [record]\nfolder = \"{}\"\n{sections}",
            at("state"),
            at("qemu"),
            at("api"),
            at("record"),
        );
        fs::write(self.config(), config).expect("written");
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.folder.path().join("evenkeel.toml")
    }

    /// Its process.
    pub(crate) fn child(&self) -> &Child {
        self.child.as_ref().expect("it runs")
    }

    pub(crate) fn start(&mut self) {
        self.start_with(&["--insecure"]);
    }

    pub(crate) fn start_with(&mut self, arguments: &[&str]) {
        let log = File::create(self.folder.path().join("log")).expect("a file");
        let child = Command::new(env!("CARGO_BIN_EXE_evenkeeld"))
            .args(arguments)
            .arg("--config")
            .arg(self.config())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.child = Some(child.expect("it starts"));
    }

    pub(crate) fn api(&self) -> Client {
        Client::new(self.folder.path().join("api"))
    }

    /// Waits until the agent answers, and has told of so many things.
    pub(crate) async fn has_told(&self, count: usize) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let told = self.api().events(&EventFilter::default()).await;
            if told.as_ref().is_ok_and(|told| told.len() >= count) {
                return;
            }
            let log = || fs::read_to_string(self.folder.path().join("log"));
            assert!(Instant::now() < deadline, "{told:?}\n{}", log().expect("a log"));
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until so many readings are in the newest log.
    pub(crate) async fn has_read(&self, count: usize) {
        let deadline = Instant::now() + PATIENCE;
        let newest = self.logs().pop().expect("it records");
        let log = || {
            let mut text = String::new();
            let file = File::open(&newest).expect("it is there");
            // Its last block may be half written.
            let _ = unpacked(file).expect("read").read_to_string(&mut text);
            text
        };
        while log().matches("{\"Reading\":").count() < count {
            assert!(Instant::now() < deadline, "{}", log());
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// The logs, oldest first.
    pub(crate) fn logs(&self) -> Vec<PathBuf> {
        let all = fs::read_dir(self.folder.path().join("record")).expect("a folder");
        let mut logs: Vec<PathBuf> = all.map(|entry| entry.expect("an entry").path()).collect();
        logs.sort();
        logs
    }

    /// As systemd does.
    pub(crate) fn stop(&mut self) {
        let mut child = self.child.take().expect("it runs");
        kill_process(Pid::from_child(&child), Signal::TERM).expect("it runs");
        let ended = child.wait().expect("it ends");
        assert!(ended.success(), "{ended}");
    }

    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("killed");
        child.wait().expect("it ends");
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
