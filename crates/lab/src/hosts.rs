//! Hosts made of namespaces, joined by a switch; and a client beside them. To be called inside the sandbox.
//!
//! ```text
//!   host1: [tap-web1]─br0─up0 ═══ port1 ┐
//!   host2: [tap-db1]──br0─up0 ═══ port2 ┼─ switch (bridge, in the sandbox's own namespace)
//!   client:                up0 ═══ portc ┘
//! ```
//!
//! All addresses lie in 198.18.0.0/15, which is set aside for tests: hosts 198.18.0.N, the client 198.18.1.1, guests
//! 198.18.2.N. Each host is a process that holds its net, mount and UTS namespaces, with /run, /etc and /var/lib of its
//! own laid over the machine's, and /var/lib/evenkeel on a real disk.
//!
//! **Invariant:** IPv6 is off and multicast is flooded, so nothing but our own traffic is on the switch.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::{panic, thread};

use anyhow::{Context, bail, ensure};
use decide::units::BitsPerSec;
use rustix::fd::AsFd;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::folder::RunFolder;

/// The bridge of each host, to which its uplink and its guests' taps belong.
pub const BRIDGE: &str = "br0";
/// Each host's link to the switch.
pub const UPLINK: &str = "up0";
/// The two hosts' ends of the cable between them, if it is laid.
pub const BESIDE: &str = "beside0";
/// Length of the network part of all addresses.
pub const PREFIX: u8 = 15;

const HOSTS_MAX: usize = 100;
const SWITCH: &str = "switch";

const QUIET: &str = "for f in /proc/sys/net/ipv6/conf/all /proc/sys/net/ipv6/conf/default; do
    [ ! -e $f ] || echo 1 >$f/disable_ipv6
done";

/// Runs in the new namespaces of a host; ends when its standard input does.
const HOLD_HOST: &str = r#"
hostname "$LAB_NAME"
mount -t sysfs sysfs /sys
mount -t bpf bpf /sys/fs/bpf
mount -t tmpfs -o mode=755,size=64m run /run
mkdir -p /run/evenkeel/qemu /run/evenkeel/console /run/lab/etc /run/lab/etc.work /run/lab/lib /run/lab/lib.work
mount -t overlay -o lowerdir=/etc,upperdir=/run/lab/etc,workdir=/run/lab/etc.work etc /etc
mount -t overlay -o lowerdir=/var/lib,upperdir=/run/lab/lib,workdir=/run/lab/lib.work lib /var/lib
mkdir -p /etc/evenkeel /var/lib/evenkeel
mount --bind "$LAB_STATE" /var/lib/evenkeel
rm -f /etc/machine-id
echo "$LAB_MACHINE_ID" >/etc/machine-id
echo "$LAB_NAME" >/etc/hostname
"#;

/// Lets every process open ping sockets, which deliver to each only its own answers.
const HOLD_CLIENT: &str =
    "hostname client; echo '0 2147483647' >/proc/sys/net/ipv4/ping_group_range";

/// Hosts, switch and client. They end with this value, or with the sandbox.
#[derive(Debug)]
pub struct Network {
    hosts: Vec<Host>,
    client: Namespace,
    folder: RunFolder,
}

impl Network {
    /// Makes `count` hosts, named `host1` and so on, and a client.
    pub fn new(count: usize) -> anyhow::Result<Network> {
        ensure!((1..=HOSTS_MAX).contains(&count), "1 to {HOSTS_MAX} hosts, not {count}");
        let folder = RunFolder::new()?;
        make_switch()?;
        let mut hosts = Vec::new();
        for number in 1..=u8::try_from(count)? {
            hosts.push(Host::new(number, &folder)?);
        }
        let client =
            Namespace::hold("--net --uts", HOLD_CLIENT, &[]).context("making the client")?;
        plug(&client, "portc")?;
        client.ip(&format!(
            "link set lo up\nlink set {UPLINK} up\naddress add {CLIENT}/{PREFIX} dev {UPLINK}\n"
        ))?;
        Ok(Network { hosts, client, folder })
    }

    /// A second network, of the first two hosts alone: a cable between them, by which host N has [`beside`] it.
    pub fn join_beside(&self) -> anyhow::Result<()> {
        let [one, two, ..] = &self.hosts[..] else { bail!("two hosts are joined") };
        let [first, second] = [one, two].map(|host| host.namespace.pid());
        let cable = format!(
            "link add {BESIDE} netns {first} type veth peer name {BESIDE} netns {second}\n"
        );
        ip_batch(Command::new("ip"), &cable).context("laying a second cable")?;
        for host in [one, two] {
            let address = beside(host.number);
            host.ip(&format!("address add {address}/24 dev {BESIDE}\nlink set {BESIDE} up\n"))?;
        }
        Ok(())
    }

    /// The hosts, `host1` first.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// Where clients run.
    pub fn client(&self) -> &Namespace {
        &self.client
    }

    /// The folder of this run, on a real disk.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// The client's address.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 18, 1, 1);

/// The address of host N on the second network.
pub fn beside(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 19, 0, number)
}

/// A host: namespaces of its own, an address, an uplink to the switch.
#[derive(Debug)]
pub struct Host {
    number: u8,
    namespace: Namespace,
    logs: PathBuf,
}

impl Host {
    fn new(number: u8, folder: &RunFolder) -> anyhow::Result<Host> {
        let name = format!("host{number}");
        let state = folder.sub(&format!("{name}/state"))?;
        let logs = folder.sub(&format!("{name}/logs"))?;
        let machine_id = format!("{number:02x}").repeat(16);
        let variables = [
            ("LAB_NAME", &*name),
            ("LAB_MACHINE_ID", &machine_id),
            ("LAB_STATE", path_text(&state)?),
        ];
        let namespace = Namespace::hold("--net --mount --uts", HOLD_HOST, &variables)
            .with_context(|| format!("making {name}"))?;
        plug(&namespace, &format!("port{number}"))?;
        let host = Host { number, namespace, logs };
        // A bridge without an address of its own takes its ports' lowest one, and changes it when a tap comes or goes.
        host.namespace.ip(&format!(
            "link set lo up\n\
             link add {BRIDGE} address 02:ee:00:00:00:{number:02x} type bridge mcast_snooping 0 forward_delay 0\n\
             link set {UPLINK} master {BRIDGE}\nlink set {UPLINK} up\nlink set {BRIDGE} up\n\
             address add {}/{PREFIX} broadcast + dev {BRIDGE}\nroute add 224.0.0.0/4 dev {BRIDGE}\n",
            host.address()
        ))?;
        Ok(host)
    }

    /// `host1`, `host2` …: also its hostname.
    pub fn name(&self) -> String {
        format!("host{}", self.number)
    }

    /// Its address on the bridge.
    pub fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, 0, self.number)
    }

    /// A command that runs on the host.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = self.namespace.enter(&["-n", "-m", "-u"]);
        command.arg(program.as_ref());
        command
    }

    /// Where the host's file `path` (absolute) is seen from outside. Sockets can be reached by it too.
    pub fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.namespace.pid()))
    }

    /// A folder for logs, on a real disk, outside of the host.
    pub fn logs(&self) -> &Path {
        &self.logs
    }

    /// The namespaces of the host.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Runs lines of `ip -batch` on the host.
    pub fn ip(&self, lines: &str) -> anyhow::Result<()> {
        self.namespace.ip(lines)
    }

    /// Bytes that a link of it has received.
    pub fn received(&self, link: &str) -> anyhow::Result<u64> {
        let file = self.path(&format!("/sys/class/net/{link}/statistics/rx_bytes"));
        let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        text.trim().parse().with_context(|| format!("{}: {text}", file.display()))
    }

    /// Pulls the uplink's cable at the switch: both ends lose their carrier.
    pub fn link_down(&self) -> anyhow::Result<()> {
        ip_batch(Command::new("ip"), &format!("link set port{} down\n", self.number))
    }

    /// Plugs it in again.
    pub fn link_up(&self) -> anyhow::Result<()> {
        ip_batch(Command::new("ip"), &format!("link set port{} up\n", self.number))
    }

    /// Cuts the uplink one way; limits stay as they are. Replaces what was cut that way before.
    pub fn cut(&self, way: Way, what: Cut) -> anyhow::Result<()> {
        self.heal(way)?;
        let link = self.link(way);
        self.tc(way, &["qdisc", "replace", "dev", &link, "clsact"])?;
        let program = what.program();
        self.tc(way, &["filter", "add", "dev", &link, "egress", "bpf", "bytecode", &program, "da"])
    }

    /// Undoes [`Host::cut`].
    pub fn heal(&self, way: Way) -> anyhow::Result<()> {
        let link = self.link(way);
        let there = self.tc_command(way).args(["qdisc", "show", "dev", &link]).output();
        let there = there.context("running tc")?.stdout;
        if String::from_utf8_lossy(&there).contains("clsact") {
            self.tc(way, &["qdisc", "del", "dev", &link, "clsact"])?;
        }
        Ok(())
    }

    fn link(&self, way: Way) -> String {
        match way {
            Way::Out => UPLINK.to_owned(),
            Way::In => format!("port{}", self.number),
        }
    }

    fn tc_command(&self, way: Way) -> Command {
        match way {
            Way::Out => self.command("tc"),
            Way::In => Command::new("tc"),
        }
    }

    fn tc(&self, way: Way, arguments: &[&str]) -> anyhow::Result<()> {
        let status = self.tc_command(way).args(arguments).status().context("running tc")?;
        ensure!(status.success(), "tc {arguments:?} failed on {}", self.name());
        Ok(())
    }

    /// Limits the uplink to `rate` in each direction; to nothing but the machine itself if none.
    pub fn limit_uplink(&self, rate: Option<BitsPerSec>) -> anyhow::Result<()> {
        let mut outward = self.command("tc");
        let mut inward = Command::new("tc");
        let port = format!("port{}", self.number);
        for (tc, link) in [(&mut outward, UPLINK), (&mut inward, &port)] {
            match rate {
                Some(BitsPerSec(rate)) => {
                    // Enough for 10 ms at full rate, and for one large segment.
                    let burst = (rate / 8 / 100).max(70_000);
                    tc.args([
                        "qdisc",
                        "replace",
                        "dev",
                        link,
                        "root",
                        "tbf",
                        "rate",
                        &format!("{rate}bit"),
                    ]);
                    tc.args(["burst", &burst.to_string(), "latency", "50ms"]);
                }
                None => {
                    tc.args(["qdisc", "replace", "dev", link, "root", "noqueue"]);
                }
            }
            ensure!(
                tc.status().context("running tc")?.success(),
                "tc refused to limit {link} of {}",
                self.name()
            );
        }
        Ok(())
    }
}

/// Which way of an uplink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// What the host sends.
    Out,
    /// What the host receives.
    In,
}

/// What no longer passes where an uplink is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Nothing passes.
    All,
    /// No TCP from or to this port passes.
    Tcp(u16),
}

impl Cut {
    /// A classic BPF program for `tc`'s filter `bpf` with direct action: 2 drops, 4294967295 passes.
    fn program(self) -> String {
        match self {
            Cut::All => "1,6 0 0 2".to_owned(),
            // Ethernet type, IP protocol, source port, destination port; IP headers without options.
            Cut::Tcp(port) => format!(
                "10,40 0 0 12,21 0 6 2048,48 0 0 23,21 0 4 6,40 0 0 34,21 3 0 {port},40 0 0 36,21 1 0 {port},\
                 6 0 0 4294967295,6 0 0 2"
            ),
        }
    }
}

/// A process that holds namespaces; with it they end.
#[derive(Debug)]
pub struct Namespace {
    holder: Child,
    /// At its end the holder ends.
    _lifeline: Option<ChildStdin>,
}

impl Namespace {
    fn hold(kinds: &str, script: &str, variables: &[(&str, &str)]) -> anyhow::Result<Namespace> {
        let mut holder = Command::new("unshare")
            .args(kinds.split(' '))
            .args(["sh", "-euc", &format!("{QUIET}\n{script}\necho ready\nexec cat >/dev/null")])
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting unshare (package util-linux)")?;
        let lifeline = holder.stdin.take();
        let mut line = String::new();
        if let Some(stdout) = holder.stdout.take() {
            BufReader::new(stdout).read_line(&mut line).context("waiting for a namespace")?;
        }
        let namespace = Namespace { holder, _lifeline: lifeline };
        ensure!(line == "ready\n", "the namespace's set-up failed (see above)");
        Ok(namespace)
    }

    /// The process that holds it.
    pub fn pid(&self) -> u32 {
        self.holder.id()
    }

    /// Runs `make` on a thread inside its network: sockets made there belong to it for ever.
    pub fn inside<T: Send>(&self, make: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
        let path = format!("/proc/{}/ns/net", self.pid());
        let network = File::open(&path).with_context(|| format!("opening {path}"))?;
        let enter = || -> anyhow::Result<T> {
            move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))
                .context("entering a network")?;
            Ok(make())
        };
        thread::scope(|scope| {
            scope.spawn(enter).join().unwrap_or_else(|panicked| panic::resume_unwind(panicked))
        })
    }

    /// A command that runs in its network.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = self.enter(&["-n"]);
        command.arg(program.as_ref());
        command
    }

    fn enter(&self, kinds: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.pid().to_string()]).args(kinds).arg("--");
        command
    }

    fn ip(&self, lines: &str) -> anyhow::Result<()> {
        let mut command = self.enter(&["-n"]);
        command.arg("ip");
        ip_batch(command, lines)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // It may have ended already; the kernel frees the namespaces after the last process in them.
        let _gone_already = self.holder.kill();
        let _reaped_already = self.holder.wait();
    }
}

fn make_switch() -> anyhow::Result<()> {
    let quiet = Command::new("sh").args(["-euc", QUIET]).status().context("turning IPv6 off")?;
    ensure!(quiet.success(), "IPv6 cannot be turned off in the sandbox");
    ip_batch(
        Command::new("ip"),
        &format!("link set lo up\nlink add {SWITCH} type bridge mcast_snooping 0 forward_delay 0\nlink set {SWITCH} up\n"),
    )
    .context("making the switch")
}

fn plug(namespace: &Namespace, port: &str) -> anyhow::Result<()> {
    let lines = format!(
        "link add {port} type veth peer name {UPLINK} netns {}\nlink set {port} master {SWITCH}\nlink set {port} up\n",
        namespace.pid()
    );
    ip_batch(Command::new("ip"), &lines).with_context(|| format!("plugging in {port}"))
}

fn ip_batch(mut ip: Command, lines: &str) -> anyhow::Result<()> {
    let mut running = ip
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting ip (package iproute2)")?;
    if let Some(mut stdin) = running.stdin.take() {
        stdin.write_all(lines.as_bytes()).context("telling ip")?;
    }
    let output = running.wait_with_output().context("waiting for ip")?;
    if !output.status.success() {
        bail!("ip: {}\nin:\n{lines}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

fn path_text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}
