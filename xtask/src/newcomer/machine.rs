//! A host with a Debian of its own, laid over a clean one, and the part of systemd that nobody plays in namespaces.

use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use api::client::Client;
use lab::guests::GuestPlan;
use lab::hosts::{BRIDGE, Host, Network};
use lab::setup::Parts;
use lab::wait;
use tokio::net::{UnixListener, UnixStream};

use super::guide::{self, Guide};

const CONFIG: &str = "etc/evenkeel/evenkeel.toml";
const SOCKET: &str = "/run/evenkeel/api.sock";
const FOLDER: &str = "/run/evenkeel/qemu";
/// There once the unit is to start with the machine.
const ENABLED: &str = "etc/systemd/system/multi-user.target.wants/evenkeeld.service";
/// How `timeout` ends where it had to end the command.
const TIMED_OUT: i32 = 124;
const ANSWERS_MAX: Duration = Duration::from_secs(30);

/// Where commands are typed: one folder for all hosts, as if what people carry from one to another were there at once.
const TYPED_IN: &str = "/mnt";
/// Lays the host's Debian over the clean one. The host's own /run and devices are seen in it;
/// that taps are open to all udev would see to.
const LAY: &str = "mkdir -p $1/upper $1/work $1/merged
mount -t overlay -o lowerdir=$0,upperdir=$1/upper,workdir=$1/work debian $1/merged
for part in proc sys dev run; do mount --rbind /$part $1/merged/$part; done
mount --bind $2 $1/merged/$3
mount -t tmpfs -o mode=755 net $1/merged/dev/net && mknod -m 666 $1/merged/dev/net/tun c 10 200
cp /etc/machine-id /etc/hostname $1/merged/etc/";
/// What of systemd can be done without it; whoever made the host does the rest.
const SYSTEMCTL: &str = "#!/bin/sh
[ \"$1 $2\" = 'enable --now' ] && set -- enable \"$3\"
exec /usr/bin/systemctl \"$@\"
";
/// What the unit gives the agent: folders, user and capabilities.
const AS_UNIT: &str = "install -d -m 750 -o evenkeel -g evenkeel /run/evenkeel
exec setpriv --reuid evenkeel --regid evenkeel --init-groups --inh-caps -all,+net_admin,+bpf,+perfmon \
--ambient-caps -all,+net_admin,+bpf,+perfmon --no-new-privs /usr/bin/evenkeeld --config /etc/evenkeel/evenkeel.toml";

/// How a command may end, besides well.
#[derive(Default)]
pub(super) struct Ends {
    /// It goes on: it is ended after so long.
    pub(super) after: Option<Duration>,
    /// With code 1: that what it had to assume is named.
    pub(super) noted: bool,
}

pub(super) struct Machine {
    network: Arc<Network>,
    number: usize,
    /// Its Debian, as the host sees it.
    root: PathBuf,
    agent: Option<Child>,
}

impl Machine {
    /// Makes it; `shared` is the folder where commands are typed.
    pub(super) fn lay_out(
        network: &Arc<Network>,
        number: usize,
        clean: &Path,
        shared: &Path,
    ) -> anyhow::Result<Machine> {
        let base = network.hosts()[number].logs().join("debian");
        let machine = Machine {
            network: Arc::clone(network),
            number,
            root: base.join("merged"),
            agent: None,
        };
        let mut laid = machine.host().command("sh");
        laid.args(["-euc", LAY]);
        let laid = laid.args([clean, &base, shared]).arg(TYPED_IN.trim_start_matches('/')).status();
        ensure!(laid.context("running sh")?.success(), "the host's Debian could not be laid out");
        let systemctl = machine.at("usr/local/sbin/systemctl");
        fs::write(&systemctl, SYSTEMCTL).context("writing a stand-in for systemctl")?;
        fs::set_permissions(&systemctl, Permissions::from_mode(0o755))?;
        Ok(machine)
    }

    fn host(&self) -> &Host {
        &self.network.hosts()[self.number]
    }

    /// A file of its Debian, as seen from here.
    fn at(&self, path: &str) -> PathBuf {
        self.host().path(&self.root.join(path).display().to_string())
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = self.host().command("chroot");
        command.arg(&self.root).args(words).env_clear().env("DEBIAN_FRONTEND", "noninteractive");
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }

    /// What a line says that is typed there; it must succeed.
    pub(super) fn typed(&self, line: &str, input: &str) -> anyhow::Result<String> {
        self.typed_for(line, input, "", &Ends::default())
    }

    /// The same with a token of the API in its surroundings.
    pub(super) fn typed_for(
        &self,
        line: &str,
        input: &str,
        token: &str,
        ends: &Ends,
    ) -> anyhow::Result<String> {
        let limit = ends.after.map(|limit| limit.as_secs().to_string());
        let within = limit.iter().flat_map(|limit| ["timeout", limit.as_str()]);
        let script = format!("set -eo pipefail; cd {TYPED_IN}; {line}");
        let words: Vec<&str> = within.chain(["bash", "-c", &script]).collect();
        let mut command = self.command(&words);
        let command = command.env("EVENKEEL_TOKEN", token);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut running = command.spawn().context("running chroot")?;
        // Dropped at once: that is the end of what it reads.
        running.stdin.take().context("a pipe")?.write_all(input.as_bytes())?;
        let output = running.wait_with_output()?;
        let (said, wrong) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let code = output.status.code();
        let ended = limit.is_some() && code == Some(TIMED_OUT);
        ensure!(
            ended || output.status.success() || (ends.noted && code == Some(1)),
            "{line}: {}: {said}{wrong}",
            output.status
        );
        Ok(said.into_owned())
    }

    /// Plays ssh's part: what connects to `link` here speaks with the API of that host.
    pub(super) fn forward(&self, link: &str, to: &Machine) -> anyhow::Result<()> {
        let listener = UnixListener::bind(self.host().path(link))
            .with_context(|| format!("listening at {link}"))?;
        let api = to.host().path(SOCKET);
        tokio::spawn(async move {
            // It ends with the runtime.
            while let Ok((mut here, _)) = listener.accept().await {
                let api = api.clone();
                tokio::spawn(async move {
                    let mut there = UnixStream::connect(api).await?;
                    tokio::io::copy_bidirectional(&mut here, &mut there).await
                });
            }
        });
        Ok(())
    }

    /// Changes the package's configuration as the guide says, for this host, and sets these besides.
    pub(super) fn configure(
        &self,
        guide: &Guide,
        more: &[(&str, &str, &str)],
    ) -> anyhow::Result<()> {
        let file = self.at(CONFIG);
        let mut text =
            fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        let own = format!("\"{}\"", self.host().address());
        for (section, key, value) in &guide.settings {
            let value = if (&**section, &**key) == ("host", "address") { &own } else { value };
            text = guide::with(&text, section, key, value)?;
        }
        let listen = format!("\"{}:8443\"", self.host().address());
        text = guide::with(&text, "api", "listen", &listen)?;
        for (section, key, value) in more {
            text = guide::with(&text, section, key, value)?;
        }
        fs::write(&file, text).with_context(|| format!("writing {}", file.display()))
    }

    /// Whether a command has had the unit enabled whose agent does not run yet.
    pub(super) fn is_to_start(&self) -> anyhow::Result<bool> {
        let enabled = fs::symlink_metadata(self.at(ENABLED)).is_ok();
        Ok(enabled && self.agent.is_none())
    }

    /// Starts the agent as its unit does, and waits until it answers.
    pub(super) async fn start(&mut self) -> anyhow::Result<()> {
        let log = File::create(self.log()).context("making an agent's log")?;
        let mut command = self.command(&["sh", "-euc", AS_UNIT]);
        let agent = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        self.agent = Some(agent.context("starting an agent")?);
        let socket = self.host().path(SOCKET);
        let there = || Ok(socket.exists().then_some(()));
        let answers = wait::until(ANSWERS_MAX, "the agent's socket", there).await;
        answers.with_context(|| fs::read_to_string(self.log()).unwrap_or_default())
    }

    fn log(&self) -> PathBuf {
        self.host().logs().join("evenkeeld.log")
    }

    /// An error if its agent has ended.
    pub(super) fn still_runs(&mut self) -> anyhow::Result<()> {
        let log = self.log();
        let agent = self.agent.as_mut().context("an agent was never started")?;
        if let Some(status) = agent.try_wait()? {
            let log = fs::read_to_string(log).unwrap_or_default();
            anyhow::bail!("an agent ended with {status}: {log}");
        }
        Ok(())
    }

    pub(super) fn api(&self) -> Client {
        Client::new(self.host().path(SOCKET))
    }

    fn vm_log(&self, plan: &GuestPlan) -> PathBuf {
        self.host().logs().join(format!("{}.err", plan.name))
    }

    /// What its QEMU had to complain about.
    pub(super) fn said_by_vm(&self, plan: &GuestPlan) -> String {
        fs::read_to_string(self.vm_log(plan)).unwrap_or_default()
    }

    /// Brings what guests are made of, under the same path on each host, and makes the folders of VMs.
    pub(super) fn has_what_vms_need(&self, parts: &Parts) -> anyhow::Result<()> {
        for part in [&parts.kernel, &parts.initramfs] {
            let path = part.display().to_string();
            let to = self.at(path.trim_start_matches('/'));
            fs::create_dir_all(to.parent().context("a file has a folder")?)?;
            fs::copy(part, &to).with_context(|| format!("bringing {}", to.display()))?;
        }
        self.typed(&format!("install -d -o evenkeel {FOLDER} /run/evenkeel/console"), "").map(drop)
    }

    /// Starts a VM as docs/hosts.md says: by the agent's user, whose its tap is too.
    pub(super) fn start_vm(&self, plan: &GuestPlan, parts: &Parts) -> anyhow::Result<()> {
        let (file, uuid) = (plan.file(parts), plan.vm().to_string());
        let user = self.typed("id -u evenkeel", "")?;
        let (user, tap) = (user.trim(), &file.tap);
        self.host().ip(&format!(
            "tuntap add dev {tap} mode tap user {user}\nlink set {tap} master {BRIDGE}\nlink set {tap} up\n"
        ))?;
        let text = toml::to_string(&file).context("writing a VM's definition down")?;
        fs::write(self.host().path(&format!("{FOLDER}/{uuid}.toml")), text)
            .context("writing a VM's definition")?;
        let qmp = format!("{FOLDER}/{uuid}.sock");
        let put_in = |word: &String| {
            word.replace("{tap}", tap).replace("{qmp}", &qmp).replace("{uuid}", &uuid)
        };
        let as_user = ["setpriv", "--reuid", "evenkeel", "--regid", "evenkeel", "--init-groups"];
        let errors = File::create(self.vm_log(plan))?;
        let mut command = self.command(&as_user);
        command.args(file.start.iter().map(put_in)).stdin(Stdio::null()).stderr(errors);
        // It ends with the sandbox.
        command.stdout(Stdio::null()).spawn().context("starting a VM")?;
        Ok(())
    }
}
