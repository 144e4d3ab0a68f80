//! A real agent records and is killed: what it wrote, gone through again, gives the same, bit for bit.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use api::client::Client;
use api::{EventFilter, MoveRequest};
use sim::replay::{Ending, Replayed, replay, unpacked};
use tokio::time::{Instant, sleep};

/// Of this test alone.
const ADDRESS: &str = "127.78.0.1";
/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// An agent with a folder of its own. It needs no root: it has no VMs, and only loopback.
struct Agent {
    folder: tempfile::TempDir,
    child: Option<Child>,
}

impl Agent {
    fn new() -> Agent {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name).display().to_string();
        let config = format!(
            "[cluster]\nname = \"c\"\nrequest = \"fan-out\"\nseeds = [\"127.78.0.9\"]\n\
             [host]\naddress = \"{ADDRESS}\"\nport = 7789\nstate = \"{}\"\nqemu = \"{}\"\napi = \"{}\"\n\
             [record]\nfolder = \"{}\"\n",
            at("state"),
            at("qemu"),
            at("api"),
            at("record"),
        );
        fs::write(folder.path().join("evenkeel.toml"), config).expect("written");
        Agent { folder, child: None }
    }

    fn start(&mut self) {
        let log = File::create(self.folder.path().join("log")).expect("a file");
        let child = Command::new(env!("CARGO_BIN_EXE_evenkeeld"))
            .args(["--insecure", "--config"])
            .arg(self.folder.path().join("evenkeel.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.child = Some(child.expect("it starts"));
    }

    fn api(&self) -> Client {
        Client::new(self.folder.path().join("api"))
    }

    /// Waits until the agent answers, and has told of so many things.
    async fn has_told(&self, count: usize) {
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
    async fn has_read(&self, count: usize) {
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
    fn logs(&self) -> Vec<PathBuf> {
        let all = fs::read_dir(self.folder.path().join("record")).expect("a folder");
        let mut logs: Vec<PathBuf> = all.map(|entry| entry.expect("an entry").path()).collect();
        logs.sort();
        logs
    }

    fn kill(&mut self) {
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

fn replayed(log: &Path) -> Replayed {
    replay(unpacked(File::open(log).expect("it is there")).expect("read")).expect("a log")
}

/// What comes by network, by the monitor, by the clock, and by hand.
async fn busy(agent: &Agent, told: usize) {
    agent.has_told(told).await;
    let socket = UdpSocket::bind((ADDRESS, 0)).expect("a socket");
    for noise in [&b"no gossip"[..], &[1, 0, 255, 3], &[7; 900]] {
        socket.send_to(noise, (ADDRESS, 7789)).expect("sent");
    }
    let wanted = MoveRequest {
        vm: "00000000-0000-0000-0000-000000000001".to_owned(),
        to: None,
        force: false,
    };
    agent.api().start_move(&wanted).await.expect_err("there is no such VM");
    agent.has_told(told + 2).await;
    agent.has_read(3).await;
}

#[tokio::test]
async fn what_a_killed_agent_recorded_gives_the_same_again() {
    let mut agent = Agent::new();
    agent.start();
    busy(&agent, 0).await;
    agent.kill();
    let logs = agent.logs();
    assert_eq!(logs.len(), 1, "{logs:?}");
    let first = replayed(&logs[0]);
    assert!(first.same() && first.ending == Some(Ending::CutOff), "{first:?}");
    assert!(first.events > 5 && first.actions > 2, "{first:?}");

    // It starts again, with another log.
    agent.start();
    busy(&agent, 1).await;
    agent.kill();
    let logs = agent.logs();
    assert_eq!(logs.len(), 2, "{logs:?}");
    assert_eq!(replayed(&logs[0]).events, first.events);
    let second = replayed(&logs[1]);
    assert!(second.same() && second.events > 5, "{second:?}");

    // Cut anywhere, what is before the cut is still the same.
    let whole = fs::read(&logs[1]).expect("a log");
    let mut events = BTreeSet::new();
    for length in (0..whole.len()).step_by(whole.len() / 100) {
        let Ok(cut) = replay(unpacked(&whole[..length]).expect("read")) else { continue };
        assert!(cut.same() && cut.ending == Some(Ending::CutOff), "at {length}: {cut:?}");
        events.insert(cut.events);
    }
    assert!(events.len() >= 4 && events.last() <= Some(&second.events), "{events:?}");

    // A changed byte is found, unless it is one of a block's length: then the log seems cut off there.
    let tried: Vec<usize> = (0..whole.len()).step_by(whole.len() / 100).collect();
    let found = tried.iter().filter(|at| {
        let mut changed = whole.clone();
        changed[**at] ^= 0x10;
        let again = unpacked(&changed[..]).map_err(drop).and_then(|log| replay(log).map_err(drop));
        !again.is_ok_and(|again| {
            assert!(again.events <= second.events, "at {at}: {again:?}");
            again.same()
        })
    });
    let found = found.count();
    assert!(found * 10 > tried.len() * 8, "{found} of {}", tried.len());
}
