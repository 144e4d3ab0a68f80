//! Agents on the hosts of the lab: a cluster as an operator would run it, with the API of each agent.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use api::client::Client;
use api::{EventFilter, MoveView};
use rustix::process::{Pid, Signal, kill_process};

use crate::hosts::{Host, Network, UPLINK};

const CONFIG: &str = "/etc/evenkeel/evenkeel.toml";
const SOCKET: &str = "/run/evenkeel/api.sock";
/// How often a host that is to join tries again while the first one starts.
const LISTENS_EVERY: Duration = Duration::from_millis(20);
/// Hosts find each other within so long.
const SETTLED_MAX: Duration = Duration::from_secs(20);

/// The operator's sections where nothing is to be balanced: all hosts share the machine's processors and memory, so their use says
/// nothing about any of them.
pub const CALM: &str = r#"
[mode]
balance = "off"
[hot]
cpu_used = "100%"
cpu_pressure = "100%"
[target]
cpu_used_max = "1000%"
memory_reserve = "256MiB"
"#;

/// An agent on each host of a network.
#[derive(Debug)]
pub struct Cluster {
    /// The hosts.
    pub network: Arc<Network>,
    daemon: PathBuf,
    agents: Vec<Option<Child>>,
    variables: Vec<(&'static str, &'static str)>,
    /// Whether hosts have keys.
    keyed: bool,
}

impl Cluster {
    /// Configures and starts `daemon` (`evenkeeld`) on every host, with keys, as an operator makes them. `sections` is the
    /// operator's part of the configuration.
    ///
    /// # Errors
    /// If keys cannot be made, a configuration cannot be written or an agent cannot be started.
    pub async fn start(network: Network, daemon: &Path, sections: &str) -> anyhow::Result<Cluster> {
        Cluster::start_with(network, daemon, sections, &[]).await
    }

    /// Like [`Cluster::start`], with these environment variables for every agent.
    ///
    /// # Errors
    /// As there.
    pub async fn start_with(
        network: Network,
        daemon: &Path,
        sections: &str,
        variables: &[(&'static str, &'static str)],
    ) -> anyhow::Result<Cluster> {
        let mut cluster = Cluster::laid_out(network, daemon, variables);
        cluster.start_anew(sections).await?;
        Ok(cluster)
    }

    /// Gives the hosts keys and these sections, and starts their agents, of which none runs.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub async fn start_anew(&mut self, sections: &str) -> anyhow::Result<()> {
        self.keyed = true;
        for number in 0..self.agents.len() {
            self.configure(number, sections)?;
            if number == 0 {
                self.ran(0, &["ca", "init", "--own", "--cluster", "lab", "--config", CONFIG])?;
            } else {
                self.join(number).await?;
            }
            self.start_agent(number)?;
        }
        Ok(())
    }

    /// Like [`Cluster::start`], without keys: agents speak in the clear.
    ///
    /// # Errors
    /// As there.
    pub fn start_insecure(
        network: Network,
        daemon: &Path,
        sections: &str,
    ) -> anyhow::Result<Cluster> {
        let mut cluster = Cluster::laid_out(network, daemon, &[]);
        for number in 0..cluster.agents.len() {
            cluster.configure(number, sections)?;
            cluster.start_agent(number)?;
        }
        Ok(cluster)
    }

    fn laid_out(
        network: Network,
        daemon: &Path,
        variables: &[(&'static str, &'static str)],
    ) -> Cluster {
        let agents = network.hosts().iter().map(|_| None).collect();
        let (network, daemon, variables) =
            (Arc::new(network), daemon.to_owned(), variables.to_vec());
        Cluster { network, daemon, agents, variables, keyed: false }
    }

    /// Has a host join by the first one, whose agent runs, or is about to.
    ///
    /// # Errors
    /// If any step fails.
    pub async fn join(&self, number: usize) -> anyhow::Result<()> {
        let (first, own) = (self.host(0).address().to_string(), self.host(number).address());
        let token = self.ran(0, &["ca", "token", "--address", &own.to_string()])?;
        let file = "/etc/evenkeel/token";
        fs::write(self.host(number).path(file), token).context("carrying a token")?;
        let began = tokio::time::Instant::now();
        loop {
            let joined =
                self.ran(number, &["join", &first, "--token-file", file, "--config", CONFIG]);
            match joined {
                // Its agent does not listen yet.
                Err(why) if format!("{why:#}").contains("refused (os error") => {
                    ensure!(began.elapsed() < SETTLED_MAX, why);
                    tokio::time::sleep(LISTENS_EVERY).await;
                }
                other => return other.map(drop),
            }
        }
    }

    /// What a command of the daemon prints on a host.
    ///
    /// # Errors
    /// If it fails, with what it says.
    pub fn ran(&self, number: usize, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.host(number).command(&self.daemon).args(arguments).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{arguments:?}: {said}");
        String::from_utf8(output.stdout).context("what it prints is text")
    }

    /// Writes the configuration of one host's agent: where it is, and the operator's `sections`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn configure(&self, number: usize, sections: &str) -> anyhow::Result<()> {
        let hosts = self.network.hosts();
        let seeds: Vec<String> =
            hosts.iter().map(|host| format!("\"{}\"", host.address())).collect();
        let text = format!(
            "[cluster]\nname = \"lab\"\nseeds = [{}]\n[host]\naddress = \"{}\"\nuplink = \"{UPLINK}\"\n{sections}",
            seeds.join(", "),
            hosts[number].address(),
        );
        let text = text.replace("{address}", &hosts[number].address().to_string());
        let text = text.replace("{number}", &(number + 1).to_string());
        let path = hosts[number].path(CONFIG);
        fs::create_dir_all(path.parent().context("the configuration has a folder")?)?;
        fs::write(&path, text)
            .with_context(|| format!("writing {CONFIG} of {}", hosts[number].name()))
    }

    /// Starts one host's agent; its log goes to the host's folder of logs.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start_agent(&mut self, number: usize) -> anyhow::Result<()> {
        let host = &self.network.hosts()[number];
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log(number))
            .context("opening an agent's log")?;
        let agent = host
            .command(&self.daemon)
            .args(["--config", CONFIG])
            .args((!self.keyed).then_some("--insecure"))
            .envs(self.variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting the agent of {}", host.name()))?;
        self.agents[number] = Some(agent);
        Ok(())
    }

    /// Where one agent logs to.
    #[must_use]
    pub fn log(&self, number: usize) -> PathBuf {
        self.network.hosts()[number].logs().join("evenkeeld.log")
    }

    /// One host.
    #[must_use]
    pub fn host(&self, number: usize) -> &Host {
        &self.network.hosts()[number]
    }

    /// The API of one host's agent.
    #[must_use]
    pub fn api(&self, number: usize) -> Client {
        Client::new(self.host(number).path(SOCKET))
    }

    /// Kills one agent at once, as a crash would; its VMs go on.
    ///
    /// # Errors
    /// If it was not running.
    pub fn kill_agent(&mut self, number: usize) -> anyhow::Result<()> {
        self.end_agent(number, Signal::KILL).map(|_status| ())
    }

    /// The process of one agent, if it was started and not ended since.
    #[must_use]
    pub fn agent_pid(&self, number: usize) -> Option<u32> {
        self.agents[number].as_ref().map(Child::id)
    }

    /// Sends a signal to one agent.
    ///
    /// # Errors
    /// If it was not running.
    pub fn signal_agent(&self, number: usize, signal: Signal) -> anyhow::Result<()> {
        let agent = self.agents[number].as_ref().context("that agent does not run")?;
        kill_process(Pid::from_child(agent), signal).context("signalling an agent")
    }

    /// Stops one agent as systemd would, and waits for its end.
    ///
    /// # Errors
    /// If it was not running, or failed.
    pub fn stop_agent(&mut self, number: usize) -> anyhow::Result<()> {
        let status = self.end_agent(number, Signal::TERM)?;
        ensure!(status.success(), "the agent of {} ended with {status}", self.host(number).name());
        Ok(())
    }

    fn end_agent(
        &mut self,
        number: usize,
        signal: Signal,
    ) -> anyhow::Result<std::process::ExitStatus> {
        let mut agent = self.agents[number].take().context("that agent does not run")?;
        let pid = Pid::from_child(&agent);
        kill_process(pid, signal).context("signalling an agent")?;
        agent.wait().context("waiting for an agent's end")
    }

    /// Whether every agent that was started still runs.
    ///
    /// # Errors
    /// Naming the first that ended, and the end of its log.
    pub fn all_run(&mut self) -> anyhow::Result<()> {
        for number in 0..self.agents.len() {
            if let Some(agent) = self.agents[number].as_mut()
                && let Some(status) = agent.try_wait()?
            {
                let log = fs::read_to_string(self.log(number)).unwrap_or_default();
                let last: Vec<&str> = log.lines().rev().take(5).collect();
                anyhow::bail!(
                    "the agent of {} ended with {status}: {}",
                    self.host(number).name(),
                    last.join(" / ")
                );
            }
        }
        Ok(())
    }

    /// Waits until every agent sees every host alive, each with its figures.
    ///
    /// # Errors
    /// If they do not find each other in time.
    pub async fn settled(&mut self) -> anyhow::Result<()> {
        let deadline = tokio::time::Instant::now() + SETTLED_MAX;
        for number in 0..self.agents.len() {
            loop {
                self.all_run()?;
                let hosts = self.api(number).hosts().await.unwrap_or_default();
                let met = hosts
                    .iter()
                    .filter(|host| host.state == "alive" && host.age_seconds.is_some())
                    .count();
                if met == self.agents.len() {
                    break;
                }
                ensure!(
                    tokio::time::Instant::now() < deadline,
                    "{} sees {met} hosts only",
                    self.host(number).name()
                );
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    /// Waits until the agent of a host watches this VM.
    ///
    /// # Errors
    /// If it does not in time.
    pub async fn watches(&self, number: usize, vm: &str) -> anyhow::Result<()> {
        let deadline = tokio::time::Instant::now() + SETTLED_MAX;
        loop {
            let vms = self.api(number).vms().await.unwrap_or_default();
            if vms
                .iter()
                .any(|one| one.name == vm && one.trouble.is_none() && one.history_seconds >= 3)
            {
                return Ok(());
            }
            ensure!(
                tokio::time::Instant::now() < deadline,
                "{} does not watch {vm}: {vms:?}",
                self.host(number).name()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until a move from a host has ended.
    ///
    /// # Errors
    /// If it does not in time, or the agent does not answer.
    pub async fn ended(
        &self,
        number: usize,
        move_id: &str,
        within: Duration,
    ) -> anyhow::Result<MoveView> {
        let deadline = tokio::time::Instant::now() + within;
        let mut follow = self
            .api(number)
            .follow(EventFilter { move_id: Some(move_id.to_owned()), ..EventFilter::default() });
        loop {
            let view = self.api(number).one_move(move_id).await?;
            if view.ended {
                return Ok(view);
            }
            ensure!(
                tokio::time::Instant::now() < deadline,
                "move {move_id} is still {} after {within:?}",
                view.phase
            );
            // Each event may be the last; none for a while is no matter either.
            let _ = tokio::time::timeout(Duration::from_millis(200), follow.next()).await;
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for agent in self.agents.iter_mut().flatten() {
            // It may have ended by itself.
            let _ = agent.kill();
            let _ = agent.wait();
        }
    }
}
