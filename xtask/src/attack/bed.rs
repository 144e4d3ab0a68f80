//! Three hosts with keys, one guest, and what is looked at after each attack.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use api::{EventFilter, MoveRequest, MoveView, Role, Step, TokenRequest};
use lab::cluster::{CALM, Cluster};
use lab::guests::{self, Guest, GuestPlan};
use lab::hosts::Network;
use lab::setup::Parts;
use serde::Serialize;
use tokio::time::{Instant, sleep, timeout};

use crate::demo::prepare;

/// The guest's name: nobody on the wire may read it.
pub(super) const VM: &str = "payroll-hr";
/// Where each agent serves its API over TCP.
pub(super) const API: u16 = 8443;
/// Where agents listen to each other.
pub(super) const PORT: u16 = 7946;
/// Where each agent stops itself.
const HOLD: &str = "/run/evenkeel/hold";
/// Far longer than any case takes.
const CASE_MAX: Duration = Duration::from_secs(90);
const SOON: Duration = Duration::from_secs(20);
const MOVE_MAX: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Where each agent serves its API over TCP.
const API_SECTION: &str = "[api]\nlisten = \"{address}:8443\"\n";

/// What `--json` has of a case.
#[derive(Serialize)]
pub(super) struct Row {
    name: String,
    /// Whether it was refused in the way that it must be.
    pub(super) refused: bool,
    /// By what that was seen, or what went wrong.
    seen: String,
    agents_alive: bool,
    vm_touched: bool,
    pub(super) ok: bool,
    seconds: f64,
}

impl Row {
    pub(super) fn line(&self) -> String {
        let Row { name, seen, seconds, ok, .. } = self;
        let verdict = if *ok { "refused" } else { "WRONG" };
        let short: String = seen.chars().take(if *ok { 90 } else { 2000 }).collect();
        format!("{verdict:<8} {name:<64} {seconds:>5.1} s  {short}")
    }
}

/// Tokens of the first host's API.
pub(super) struct Tokens {
    pub(super) viewer: String,
    pub(super) operator: String,
    pub(super) revoked: String,
    pub(super) over: String,
}

/// Hosts, agents, a guest, and the rows so far.
pub(super) struct Bed {
    pub(super) cluster: Cluster,
    pub(super) guest: Guest,
    /// The host that the guest is on.
    pub(super) at: usize,
    /// The guest's epoch.
    epoch: u64,
    pub(super) tokens: Tokens,
    pub(super) scratch: PathBuf,
    pub(super) rows: Vec<Row>,
    only: Option<String>,
}

impl Bed {
    pub(super) async fn make(only: Option<String>) -> anyhow::Result<Bed> {
        let network = Network::new(3)?;
        let scratch = network.folder().join("scratch");
        std::fs::create_dir_all(&scratch)?;
        let variables = [("EVENKEEL_HOLD_FILE", HOLD)];
        let mut cluster = Cluster::start_with(
            network,
            &prepare::daemon()?,
            &[CALM, API_SECTION].concat(),
            &variables,
        )
        .await?;
        let plan = GuestPlan { operator: true, ..GuestPlan::new(VM, 1) };
        let guest = guests::start(cluster.host(0), &plan, &Parts::load()?)?;
        guest.ready(cluster.host(0), Duration::from_secs(120)).await?;
        cluster.watches(0, VM).await?;
        cluster.settled().await?;
        let (over, over_token) = token(&cluster, Role::Admin).await?;
        let tokens = Tokens {
            over: over_token,
            viewer: token(&cluster, Role::Viewer).await?.1,
            operator: token(&cluster, Role::Operator).await?.1,
            revoked: {
                let (id, token) = token(&cluster, Role::Admin).await?;
                cluster.api(0).revoke_token(&id).await?;
                token
            },
        };
        make_over(&mut cluster, &over).await?;
        Ok(Bed { cluster, guest, at: 0, epoch: 1, tokens, scratch, rows: Vec::new(), only })
    }

    /// Runs a case: it gives by what it was seen to be refused, or fails. Then all is looked at.
    pub(super) async fn case(
        &mut self,
        name: &str,
        attack: impl AsyncFnOnce(&mut Bed) -> anyhow::Result<String>,
    ) -> anyhow::Result<()> {
        if self.only.as_deref().is_some_and(|only| !name.contains(only)) {
            return Ok(());
        }
        let began = Instant::now();
        let done = timeout(CASE_MAX, attack(self)).await;
        let done = done.unwrap_or_else(|_late| bail!("it took more than {CASE_MAX:?}"));
        let (alive, untouched) = (self.alive().await, self.untouched().await);
        let mut seen = match &done {
            Ok(seen) => seen.clone(),
            Err(error) => format!("{error:#}"),
        };
        for wrong in [alive.as_ref().err(), untouched.as_ref().err()].into_iter().flatten() {
            seen += &format!("; {wrong:#}");
        }
        let row = Row {
            name: name.to_owned(),
            refused: done.is_ok(),
            seen,
            agents_alive: alive.is_ok(),
            vm_touched: untouched.is_err(),
            ok: done.is_ok() && alive.is_ok() && untouched.is_ok(),
            seconds: (began.elapsed().as_secs_f64() * 10.0).round() / 10.0,
        };
        super::told(&row);
        self.rows.push(row);
        Ok(())
    }

    /// Every agent runs, answers, and sees the others.
    async fn alive(&mut self) -> anyhow::Result<()> {
        self.cluster.all_run()?;
        self.cluster.settled().await
    }

    /// The guest runs where it was, once, under the epoch that it had, and nobody moves it.
    async fn untouched(&self) -> anyhow::Result<()> {
        for number in 0..3 {
            let (api, host) = (self.cluster.api(number), self.cluster.host(number));
            let vms = api.vms().await.with_context(|| host.name())?;
            let here = vms.iter().find(|vm| vm.name == VM);
            match here {
                Some(vm) => ensure!(
                    number == self.at && vm.state == "running" && vm.epoch == self.epoch,
                    "on {}: {} at epoch {}, {} at epoch {} wanted",
                    host.name(),
                    vm.state,
                    vm.epoch,
                    self.cluster.host(self.at).name(),
                    self.epoch
                ),
                None => ensure!(number != self.at, "it is no longer on {}", host.name()),
            }
            let copies = guests::qemus(host, self.guest.plan.vm())?.len();
            ensure!(copies == usize::from(number == self.at), "{copies} copies on {}", host.name());
            let moving = api.status().await?.moves_under_way;
            ensure!(moving == 0, "{moving} moves under way on {}", host.name());
        }
        Ok(())
    }

    /// Moves the guest, as an operator would; whatever happens meanwhile, it arrives.
    pub(super) async fn moved(&mut self) -> anyhow::Result<MoveView> {
        let to = (self.at + 1) % 3;
        let id = self.begin_move(to).await?;
        self.arrived(&id, to).await
    }

    pub(super) async fn begin_move(&self, to: usize) -> anyhow::Result<String> {
        let to = Some(self.cluster.host(to).name());
        let request = MoveRequest { vm: VM.to_owned(), to, force: false };
        Ok(self.cluster.api(self.at).start_move(&request).await?.move_id)
    }

    pub(super) async fn arrived(&mut self, id: &str, to: usize) -> anyhow::Result<MoveView> {
        let view = self.cluster.ended(self.at, id, MOVE_MAX).await?;
        ensure!(view.phase == "done", "{view:?}");
        self.at = to;
        self.epoch += 1;
        self.cluster.watches(to, VM).await?;
        Ok(view)
    }

    /// Has the agent of a host stop itself at a step of the move that `begin` begins; gives that move.
    pub(super) async fn held(&self, host: usize, step: &str, to: usize) -> anyhow::Result<String> {
        std::fs::write(self.cluster.host(host).path(HOLD), step)?;
        let id = self.begin_move(to).await?;
        let pid = self.cluster.agent_pid(host).context("an agent")?;
        let deadline = Instant::now() + SOON;
        loop {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
            if stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T')) {
                return Ok(id);
            }
            ensure!(Instant::now() < deadline, "the agent was not held at {step}");
            sleep(LOOK_EVERY).await;
        }
    }

    /// The newest event of a host.
    pub(super) async fn newest(&self, host: usize) -> anyhow::Result<u64> {
        let all = self.cluster.api(host).events(&EventFilter::default()).await?;
        Ok(all.last().map_or(0, |event| event.seq))
    }

    /// As [`Bed::told`], for a short while.
    pub(super) async fn told_soon(
        &self,
        host: usize,
        after: u64,
        words: &[&str],
    ) -> anyhow::Result<String> {
        timeout(Duration::from_secs(2), self.told(host, after, words)).await?
    }

    /// Waits until a host has told after `after` of bad input with all of these words; gives that event's reason.
    pub(super) async fn told(
        &self,
        host: usize,
        after: u64,
        words: &[&str],
    ) -> anyhow::Result<String> {
        let deadline = Instant::now() + SOON;
        loop {
            let filter =
                EventFilter { after: Some(after), limit: Some(1000), ..EventFilter::default() };
            let all = self.cluster.api(host).events(&filter).await?;
            let found = all.iter().find(|event| {
                event.step == Step::BadInput && words.iter().all(|w| event.reason.contains(w))
            });
            if let Some(event) = found {
                return Ok(event.reason.clone());
            }
            let said: Vec<&str> = all.iter().map(|event| &*event.reason).collect();
            ensure!(Instant::now() < deadline, "never told {words:?}, but {said:?}");
            sleep(LOOK_EVERY).await;
        }
    }

    /// Runs a command of the daemon on a host.
    pub(super) fn ran(&self, host: usize, arguments: &[&str]) -> anyhow::Result<String> {
        self.cluster.ran(host, arguments)
    }

    /// The folder of a host's keys.
    pub(super) fn keys(&self, host: usize) -> PathBuf {
        self.cluster.host(host).path("/var/lib/evenkeel/keys")
    }

    /// The folder of the CA.
    pub(super) fn ca(&self) -> PathBuf {
        self.cluster.host(0).path("/etc/evenkeel/ca")
    }

    /// An empty folder.
    pub(super) fn folder(&self, name: &str) -> anyhow::Result<PathBuf> {
        let folder = self.scratch.join(format!("{}-{name}", self.rows.len()));
        std::fs::create_dir_all(&folder)?;
        Ok(folder)
    }
}

/// Makes a token of the first host's API: its id, and itself.
async fn token(cluster: &Cluster, role: Role) -> anyhow::Result<(String, String)> {
    let request = TokenRequest { name: format!("{role:?}"), role, days: 1 };
    let made = cluster.api(0).make_token(&request).await?;
    Ok((made.view.id, made.token))
}

/// Has a token of the first host's API come to its end: a day is too long to wait.
async fn make_over(cluster: &mut Cluster, id: &str) -> anyhow::Result<()> {
    let file = cluster.host(0).path("/var/lib/evenkeel/tokens.json");
    cluster.stop_agent(0)?;
    let mut kept: serde_json::Value = serde_json::from_slice(&std::fs::read(&file)?)?;
    let until = kept.get_mut(id).and_then(|token| token.get_mut("until"));
    *until.with_context(|| format!("token {id} is not in {}", file.display()))? = 1.into();
    std::fs::write(&file, serde_json::to_vec(&kept)?)?;
    cluster.start_agent(0)?;
    cluster.settled().await
}

/// Memory of a process that lies in RAM, in bytes.
pub(super) fn resident(pid: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = std::fs::read_to_string(Path::new(&path))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: u64 = line.context("VmRSS")?.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024)
}
