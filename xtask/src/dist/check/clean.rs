//! A clean Debian folder, and an agent in it.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use lab::wait;

use crate::say;

/// What people call where libvirt is.
pub(super) const SETUP: &str = "/usr/share/evenkeel/libvirt/setup";
const STARTS_MAX: Duration = Duration::from_secs(30);

/// Runs a command in the folder, where it finds /proc, as on any machine.
const IN_FOLDER: &str = "mount -t proc proc $0/proc && exec chroot $0 \"$@\"";

/// A Debian folder.
pub(super) struct Clean {
    root: PathBuf,
    agent: Option<Child>,
    host: String,
}

impl Clean {
    /// Makes it anew, with Debian's essential packages, what ours needs, and those in `more`.
    pub(super) fn make(root: PathBuf, more: &[&str]) -> anyhow::Result<Clean> {
        if root.exists() {
            fs::remove_dir_all(&root).with_context(|| format!("removing {}", root.display()))?;
        }
        say("making a clean Debian folder");
        lab::setup::debian(&root, &[&["systemd", "libgcc-s1"], more].concat())?;
        Ok(Clean { root, agent: None, host: String::new() })
    }

    pub(super) fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// Puts a package where the folder's commands find it; gives its path there.
    pub(super) fn put(&self, package: &Path) -> anyhow::Result<String> {
        let name = package.file_name().context("a package has a name")?;
        let path = format!("/tmp/{}", name.to_string_lossy());
        fs::copy(package, self.at(&path)).with_context(|| package.display().to_string())?;
        Ok(path)
    }

    /// What a command in it says.
    pub(super) fn said(&self, words: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation", "private", "sh", "-c", IN_FOLDER])
            .arg(&self.root)
            .args(words)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        let output = command.env("DEBIAN_FRONTEND", "noninteractive").output();
        let output = output.context("running unshare")?;
        let all = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&all).into_owned();
        ensure!(output.status.success(), "{}: {} {text}", words.join(" "), output.status);
        Ok(text)
    }

    /// What a package has brought is there; gives its version.
    pub(super) fn has_all(&self) -> anyhow::Result<String> {
        let version = self.said(&["evenkeel", "--version"])?;
        for program in ["evenkeeld", "evenkeel-sim"] {
            self.said(&[program, "--version"]).or_else(|_| self.said(&[program, "--help"]))?;
        }
        let users = fs::read_to_string(self.at("/etc/passwd"))?;
        ensure!(
            users.lines().any(|line| line.starts_with("evenkeel:")),
            "there is no user evenkeel"
        );
        for file in ["usr/share/man/man1/evenkeel-why.1.gz", "usr/share/man/man8/evenkeeld.8.gz"] {
            ensure!(self.at(file).is_file(), "there is no {file}");
        }
        Ok(version.trim().to_owned())
    }

    /// As shipped it has no keys, and an address that is an example.
    pub(super) fn refuses_to_start(&self) -> anyhow::Result<String> {
        let said = Command::new("timeout")
            .args(["20", "chroot"])
            .arg(&self.root)
            .arg("evenkeeld")
            .output();
        let said = said.context("running chroot")?;
        let words = String::from_utf8_lossy(&said.stderr).into_owned();
        ensure!(said.status.code() == Some(2), "{}: {words}", said.status);
        ensure!(
            words.contains("ca init") && words.contains("join"),
            "no word of what to do: {words}"
        );
        Ok(words.lines().next().unwrap_or_default().trim().to_owned())
    }

    /// It has libvirt's driver, and says what to install where there is no libvirt.
    pub(super) fn misses_libvirt(&self) -> anyhow::Result<String> {
        let shipped = fs::read_to_string(self.at("/etc/evenkeel/evenkeel.toml"))?;
        let text = shipped.replace("# driver = \"qemu\" ", "driver = \"libvirt\" ");
        ensure!(text != shipped, "the configuration does not show the key driver");
        fs::write(self.at("/tmp/libvirt.toml"), text)?;
        self.said(&["evenkeeld", "--check", "--config", "/tmp/libvirt.toml"])?;
        let doctor = "evenkeeld doctor --config /tmp/libvirt.toml || true";
        let said = self.said(&["sh", "-c", doctor])?;
        let found = said.lines().find(|line| line.contains("libvirt cannot be used"));
        let found = found.with_context(|| format!("not a word of libvirt: {said}"))?;
        ensure!(found.contains("apt install libvirt-daemon-system"), "{found}");
        Ok(found.split_whitespace().collect::<Vec<_>>().join(" "))
    }

    pub(super) fn starts(&mut self) -> anyhow::Result<String> {
        let file = self.at("/etc/evenkeel/evenkeel.toml");
        let text = fs::read_to_string(&file)?;
        let text = text
            .replace("address = \"198.18.0.1\"", "address = \"127.0.0.1\"")
            .replace("# request = \"multicast\"", "request = \"fan-out\"");
        fs::write(&file, text)?;
        self.said(&["evenkeel", "config", "check"])?;
        // As a machine's first start does.
        self.said(&["systemd-machine-id-setup"])?;
        self.said(&["evenkeel", "ca", "init", "--cluster", "example", "--own"])?;
        // As the unit does.
        self.said(&[
            "install",
            "-d",
            "-m",
            "750",
            "-o",
            "evenkeel",
            "-g",
            "evenkeel",
            "/run/evenkeel",
        ])?;
        self.start()?;
        ensure!(self.asked("/")?.contains("<script"), "the dashboard is not in it");
        self.host = self.field("host_id")?;
        Ok(format!("host {}", self.host))
    }

    /// Starts the agent in namespaces of its own, and waits until it answers.
    fn start(&mut self) -> anyhow::Result<()> {
        let script = "ip link set lo up && mount -t proc proc $0/proc && mount -t sysfs sysfs $0/sys && \
                      mount --rbind /dev $0/dev && exec chroot --userspec evenkeel:evenkeel $0 evenkeeld";
        let log = fs::File::create(self.at("/var/log/evenkeeld.log"))?;
        let mut command = Command::new("unshare");
        command.args([
            "--net",
            "--mount",
            "--propagation",
            "private",
            "--pid",
            "--fork",
            "--kill-child",
        ]);
        command.args(["sh", "-c", script]).arg(&self.root);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        self.agent = Some(child.context("running unshare")?);
        let healthy =
            |answer: &String| answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok\n");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let answers = runtime.block_on(wait::until(STARTS_MAX, "it answers", || {
            Ok(self.asked("/healthz").ok().filter(healthy).map(drop))
        }));
        let log = fs::read_to_string(self.at("/var/log/evenkeeld.log"))?;
        answers.with_context(|| format!("its log: {log}"))
    }

    pub(super) fn stop(&mut self) -> anyhow::Result<()> {
        let Some(mut agent) = self.agent.take() else { return Ok(()) };
        agent.kill()?;
        agent.wait()?;
        Ok(())
    }

    /// What the agent answers over its socket, head and body.
    fn asked(&self, path: &str) -> anyhow::Result<String> {
        // A socket's address is short: by the folder that is open, whatever its path.
        let folder = fs::File::open(self.at("/run/evenkeel"))?;
        let number = std::os::fd::AsRawFd::as_raw_fd(&folder);
        let mut stream = UnixStream::connect(format!("/proc/self/fd/{number}/api.sock"))?;
        stream.set_read_timeout(Some(STARTS_MAX))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    fn field(&self, name: &str) -> anyhow::Result<String> {
        let answer = self.asked("/v1/status")?;
        let (_, body) = answer.split_once("\r\n\r\n").context("no body")?;
        let body: serde_json::Value = serde_json::from_str(body)?;
        let field = body.get(name).and_then(serde_json::Value::as_str);
        Ok(field.with_context(|| format!("no {name} in {body}"))?.to_owned())
    }

    pub(super) fn metrics(&self) -> anyhow::Result<String> {
        let answer = self.asked("/metrics")?;
        let (_, text) = answer.split_once("\r\n\r\n").context("no body")?;
        let mut promtool = Command::new(lab::setup::promtool()?);
        let promtool = promtool.args(["check", "metrics"]).stdin(Stdio::piped());
        let mut promtool = promtool.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        // Dropped at once: that is the end of what it reads.
        promtool.stdin.take().context("a pipe")?.write_all(text.as_bytes())?;
        let said = promtool.wait_with_output()?;
        let words = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned();
        ensure!(said.status.success(), "{words}");
        Ok(format!("{} lines", text.lines().count()))
    }

    /// After an upgrade: the same host, with the configuration as it was changed.
    pub(super) fn goes_on(&mut self) -> anyhow::Result<String> {
        // Without systemd nobody has restarted it: so it goes on, and the new one takes over from it.
        ensure!(self.field("host_id")? == self.host, "another host id");
        self.stop()?;
        self.start()?;
        ensure!(self.field("host_id")? == self.host, "another host id");
        let text = fs::read_to_string(self.at("/etc/evenkeel/evenkeel.toml"))?;
        ensure!(text.contains("address = \"127.0.0.1\""), "the configuration was replaced");
        Ok(format!("still host {}", self.host))
    }

    /// All files, as paths in the folder.
    pub(super) fn files(&self) -> anyhow::Result<BTreeSet<PathBuf>> {
        let listed = self.said(&["find", "/", "-xdev", "-not", "-type", "d"])?;
        Ok(listed.lines().map(PathBuf::from).collect())
    }
}

impl Drop for Clean {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            say(&format!("stopping the agent: {error:#}"));
        }
    }
}
