//! `evenkeeld doctor`: whether this machine has what an agent needs, and how to mend what it has not.
//!
//! It changes nothing, and asks the agent nothing, so it says the same whether that runs or not. What it cannot know (whether a
//! switch passes multicast) it says.

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use decide::policy::settings::Encryption;
use serde::Serialize;

use crate::clock::{date, unix_seconds};
use crate::config::{Config, Driver, RequestMode, Traces, Url, Webhook};
use crate::posting;
use crate::run::{Args, copy_keys, keys};
use crate::{local, manager};

mod libvirt;

/// How long another host, or this machine's own multicast, may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// Less than this on the disk with the journal is soon too little.
const FREE_MIN: u64 = 256 << 20;
/// Certificates are renewed long before.
const ENDS_SOON: u64 = 7 * 24 * 3600;
/// Of capabilities(7): their bits in `CapEff`.
const CAPABILITIES: [(&str, u32); 3] = [("NET_ADMIN", 12), ("PERFMON", 38), ("BPF", 39)];

/// How it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As it must be.
    Ok,
    /// An agent runs, and something is missed.
    Doubtful,
    /// No agent can run so.
    Wrong,
}

/// What was found about one thing.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub about: &'static str,
    /// How it is.
    pub verdict: Verdict,
    /// What was seen.
    pub seen: String,
    /// What to do; empty where nothing is to be done.
    pub mend: String,
}

/// What a check gives: what was seen, or that and what to do.
type Seen = Result<String, Bad>;

/// Something that is not as it should be.
struct Bad {
    verdict: Verdict,
    seen: String,
    mend: String,
}

fn wrong(seen: impl Into<String>, mend: &str) -> Bad {
    Bad { verdict: Verdict::Wrong, seen: seen.into(), mend: mend.to_owned() }
}

fn doubtful(seen: impl Into<String>, mend: &str) -> Bad {
    Bad { verdict: Verdict::Doubtful, seen: seen.into(), mend: mend.to_owned() }
}

/// Looks at everything, what everything else rests on first.
#[must_use]
pub fn examine(args: &Args) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut note = |about, seen: Seen| {
        found.push(match seen {
            Ok(seen) => Finding { about, verdict: Verdict::Ok, seen, mend: String::new() },
            Err(Bad { verdict, seen, mend }) => Finding { about, verdict, seen, mend },
        });
    };
    let read = Config::read(&args.config);
    let of_libvirt = read.as_ref().ok().map(|(config, _)| config);
    let of_libvirt = of_libvirt.filter(|config| config.hypervisor.driver == Driver::Libvirt);
    note("machine id", machine_id());
    note("hypervisor", of_libvirt.map_or_else(hypervisor, |it| libvirt::answers(&it.hypervisor)));
    note("other managers", others_manage());
    note(
        "processor",
        device(
            "/dev/kvm",
            "guests run without KVM, many times slower: load kvm_intel or kvm_amd, and let the agent's user into the group kvm",
        ),
    );
    note(
        "taps",
        device(
            "/dev/net/tun",
            "no VM can come to this host: modprobe tun, and let the agent's user open it",
        ),
    );
    note("bridges", bridges());
    note("capabilities", capabilities(of_libvirt.is_some()));
    note("counters", counters());
    note("clock", clock());
    let config = match read {
        Ok((config, None)) => {
            note("configuration", Ok(args.config.display().to_string()));
            config
        }
        Ok((config, Some(words))) => {
            note("configuration", Err(doubtful(words, "balancing would be poor: change it")));
            config
        }
        Err(mistakes) => {
            let mend =
                "docs/configuration.md has every key; nothing that rests on it was looked at";
            note("configuration", Err(wrong(mistakes.join("; "), mend)));
            return found;
        }
    };
    if config.hypervisor.driver == Driver::Libvirt {
        beside_libvirt(args, &config).into_iter().for_each(|(about, seen)| note(about, seen));
    }
    note("address", address("host.address", config.host.address));
    if let Some(copies) = config.host.copy_address {
        note("copies' address", address("host.copy_address", copies));
    }
    note("ports", ports(&config));
    note("agent", agent(&config.host.api));
    note("keys", of_keys(args, &config));
    note("state", state(&config.host.state));
    note("uplink", uplink(config.host.uplink.as_deref()));
    note("requests", requests(&config));
    note("other hosts", others(&config));
    note("webhooks", receivers(&args.config, &config.webhook, None));
    note("traces", receivers(&args.config, &[], config.traces.as_ref()));
    found
}

fn beside_libvirt(args: &Args, config: &Config) -> Vec<(&'static str, Seen)> {
    let default = if args.insecure { Encryption::Off } else { Encryption::Required };
    let encrypts = config.migration.encryption.unwrap_or(default) != Encryption::Off;
    let qemu_conf = Path::new(libvirt::QEMU_CONF);
    let keys = libvirt::keys(qemu_conf, &copy_keys(config).dir, encrypts);
    let mut found = vec![("hook", libvirt::hook(Path::new(libvirt::HOOK))), ("copies' keys", keys)];
    let storage = libvirt::storage(&config.hypervisor, qemu_conf);
    found.extend(storage.into_iter().map(|seen| ("storage", seen)));
    found
}

/// The findings as a table for people.
#[must_use]
pub fn table(found: &[Finding]) -> String {
    let mut lines = Vec::new();
    for Finding { about, verdict, seen, mend } in found {
        let word = match verdict {
            Verdict::Ok => "ok",
            Verdict::Doubtful => "doubtful",
            Verdict::Wrong => "WRONG",
        };
        lines.push(format!("{word:<9} {about:<14} {seen}"));
        if !mend.is_empty() {
            lines.push(format!("{:<24} → {mend}", ""));
        }
    }
    lines.join("\n")
}

fn machine_id() -> Seen {
    let id = local::machine_id()
        .map_err(|error| wrong(format!("{error:#}"), "it is what a host's id is made of"))?;
    Ok(format!("host {}", local::host_id(&id)))
}

fn hypervisor() -> Seen {
    let mend = "apt install qemu-system-x86: without it no VM can come to this host";
    let said = Command::new("qemu-system-x86_64").arg("--version").output();
    let said = said.map_err(|error| wrong(format!("qemu-system-x86_64: {error}"), mend))?;
    let words = String::from_utf8_lossy(&said.stdout).into_owned();
    Ok(words.lines().next().unwrap_or_default().to_owned())
}

fn others_manage() -> Seen {
    match manager::found(Path::new("/proc")) {
        Some(found) => Err(wrong(found, manager::MEND)),
        None => Ok("nobody else manages VMs here".to_owned()),
    }
}

fn device(path: &'static str, mend: &str) -> Seen {
    let opened = fs::OpenOptions::new().read(true).write(true).open(path);
    opened.map_err(|error| doubtful(format!("{path}: {error}"), mend))?;
    Ok(path.to_owned())
}

fn bridges() -> Seen {
    let mut names = Vec::new();
    for entry in fs::read_dir("/sys/class/net").into_iter().flatten().flatten() {
        if entry.path().join("bridge").is_dir() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    if names.is_empty() {
        let mend = "VMs come to a bridge that has the same name on all hosts: make one";
        return Err(doubtful("none", mend));
    }
    Ok(names.join(", "))
}

fn capabilities(of_libvirt: bool) -> Seen {
    let mend = "start the agent by its unit, or as root";
    let status = fs::read_to_string("/proc/self/status")
        .map_err(|error| doubtful(error.to_string(), mend))?;
    let bits = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = bits.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    let wanted =
        CAPABILITIES.iter().chain(if of_libvirt { &libvirt::CAPABILITIES[..] } else { &[] });
    let missing = wanted.filter(|(_, bit)| bits >> bit & 1 == 0);
    let missing: Vec<&str> = missing.map(|(name, _)| *name).collect();
    if missing.is_empty() {
        return Ok("all that an agent uses".to_owned());
    }
    let seen = format!("whoever asks has not {}", missing.join(", "));
    Err(doubtful(
        seen,
        "the unit gives them to the agent; run this as root to look at the machine alone",
    ))
}

fn counters() -> Seen {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let mend = "frames are counted anew after each start of the agent: mount -t bpf bpf /sys/fs/bpf (systemd does)";
    if mounts.lines().any(|line| line.split(' ').nth(2) == Some("bpf")) {
        return Ok("a bpffs is mounted".to_owned());
    }
    Err(doubtful("no bpffs is mounted", mend))
}

/// Certificates and tokens have ends.
fn clock() -> Seen {
    let said = Command::new("timedatectl")
        .args(["show", "--property=NTPSynchronized", "--value"])
        .output();
    match said.map(|said| String::from_utf8_lossy(&said.stdout).trim().to_owned()).as_deref() {
        Ok("yes") => Ok("synchronised".to_owned()),
        Ok("no") => Err(doubtful(
            "not synchronised",
            "certificates and tokens go by it: install chrony or systemd-timesyncd",
        )),
        _unknown => Err(doubtful(
            "not known: timedatectl does not say",
            "see to it that something keeps the clock right",
        )),
    }
}

fn address(key: &str, address: IpAddr) -> Seen {
    let bound = UdpSocket::bind((address, 0));
    bound.map_err(|error| {
        let mend = format!("{key} must be one of this machine's: ip address");
        wrong(format!("{address}: {error}"), &mend)
    })?;
    Ok(address.to_string())
}

fn ports(config: &Config) -> Seen {
    let at = config.address();
    match TcpListener::bind(at) {
        Ok(_free) => Ok(format!("{at} is free")),
        Err(error)
            if error.kind() == ErrorKind::AddrInUse
                && UnixStream::connect(&config.host.api).is_ok() =>
        {
            Ok(format!("{at}, by the agent"))
        }
        Err(error) => Err(wrong(
            format!("{at}: {error}"),
            "something else listens there: ss -ltnp, or another host.port on all hosts",
        )),
    }
}

fn agent(socket: &Path) -> Seen {
    let answers = UnixStream::connect(socket);
    answers.map_err(|error| {
        doubtful(
            format!("{}: {error}", socket.display()),
            "systemctl enable --now evenkeeld; then its log",
        )
    })?;
    Ok(format!("listens on {}", socket.display()))
}

fn of_keys(args: &Args, config: &Config) -> Seen {
    let held = keys(args, config).map_err(|error| wrong(format!("{error:#}"), "see above"))?;
    let Some(held) = held else {
        return Err(doubtful("none, as --insecure says", "for tests only"));
    };
    let ends = held.held().identity.ends.0;
    let seen = format!("certificate until {}", date(ends));
    if ends < u64::from(unix_seconds()) + ENDS_SOON {
        let mend = "no host could renew it: start one that has the CA's key, or run `evenkeel keys request` here";
        return Err(doubtful(seen, mend));
    }
    Ok(seen)
}

fn state(folder: &Path) -> Seen {
    let shown = folder.display();
    let mend = "host.state must be on a disk that outlives a restart, and the agent's user's";
    let found = rustix::fs::statfs(folder);
    let found = found.map_err(|error| {
        doubtful(format!("{shown}: {error}"), "the unit makes it at its first start")
    })?;
    let magic = u64::try_from(found.f_type).unwrap_or(0);
    // TMPFS_MAGIC and RAMFS_MAGIC of statfs(2).
    if [0x0102_1994, 0x8584_58f6].contains(&magic) {
        return Err(wrong(format!("{shown} is in memory"), mend));
    }
    let free = found.f_bavail.saturating_mul(u64::try_from(found.f_bsize).unwrap_or(0));
    let seen = format!("{shown}, {} MiB free", free >> 20);
    if free < FREE_MIN {
        return Err(doubtful(
            seen,
            "moves are refused when there is no room for their records: make some",
        ));
    }
    Ok(seen)
}

fn uplink(name: Option<&str>) -> Seen {
    let mend = "host.uplink is the card that the VMs' bridge goes out by: without it the card's own load and losses are not seen";
    let name = name.ok_or_else(|| doubtful("none is named", mend))?;
    if Path::new("/sys/class/net").join(name).exists() {
        return Ok(name.to_owned());
    }
    Err(doubtful(format!("there is no {name}"), mend))
}

fn requests(config: &Config) -> Seen {
    let mend = "cluster.request = \"fan-out\" needs no multicast";
    match (config.cluster.request, config.host.address) {
        (RequestMode::Multicast, IpAddr::V4(address)) => {
            let group = *config.cluster.group.ip();
            let heard = hears_itself(address, group);
            heard.map_err(|error| doubtful(format!("multicast to {group}: {error:#}"), mend))?;
            Ok(format!(
                "multicast to {group}; whether the switches pass it, `evenkeel hosts` and `why` tell"
            ))
        }
        (RequestMode::Multicast, IpAddr::V6(_)) => {
            Err(wrong("multicast, and an IPv6 address", mend))
        }
        (RequestMode::Broadcast, _) => Ok("broadcast".to_owned()),
        (RequestMode::FanOut, _) => Ok("fan-out".to_owned()),
    }
}

/// Sends to the group from this address, and hears it there: on a port of its own, so the agent hears nothing.
fn hears_itself(address: Ipv4Addr, group: Ipv4Addr) -> anyhow::Result<()> {
    let ear = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("a socket")?;
    ear.join_multicast_v4(&group, &address).context("joining the group")?;
    ear.set_read_timeout(Some(PATIENCE))?;
    let mouth = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)?;
    mouth.bind(&SocketAddr::from((address, 0)).into())?;
    mouth.set_multicast_if_v4(&address)?;
    mouth.set_multicast_loop_v4(true)?;
    mouth.set_multicast_ttl_v4(0)?;
    let port = ear.local_addr()?.port();
    let word = b"evenkeel doctor";
    mouth.send_to(word, &SocketAddr::from((group, port)).into()).context("sending")?;
    let mut came = [0; 32];
    let (length, _) = ear.recv_from(&mut came).context("nothing came back")?;
    ensure!(&came[..length] == word, "something else came");
    Ok(())
}

fn others(config: &Config) -> Seen {
    let seeds = config
        .seeds()
        .map_err(|error| wrong(format!("{error:#}"), "cluster.seeds are addresses"))?;
    let own = config.address();
    let seeds: Vec<SocketAddr> = seeds.into_iter().filter(|seed| *seed != own).collect();
    if seeds.is_empty() {
        return Ok("none is named in cluster.seeds".to_owned());
    }
    let silent = seeds.iter().filter(|seed| TcpStream::connect_timeout(seed, PATIENCE).is_err());
    let silent: Vec<String> = silent.map(ToString::to_string).collect();
    if silent.is_empty() {
        return Ok(format!("all {} of cluster.seeds answer", seeds.len()));
    }
    let seen = format!("no connection to {}", silent.join(", "));
    Err(doubtful(seen, "is its agent running, and do TCP and UDP to that port pass the firewalls?"))
}

/// Nothing is posted.
fn receivers(file: &Path, webhooks: &[Webhook], traces: Option<&Traces>) -> Seen {
    let mend = "evenkeeld does not start with it; docs/operations.md, told by webhook, and traces";
    posting::receivers(file, webhooks, traces).map_err(|found| wrong(found.join("; "), mend))?;
    let hooks = webhooks.iter().map(|hook| &hook.url);
    let urls: Vec<&Url> = hooks.chain(traces.map(|traces| &traces.url)).collect();
    let silent = urls.iter().filter(|url| !listens(url));
    let silent: Vec<String> = silent.map(ToString::to_string).collect();
    match (urls.len(), silent.is_empty()) {
        (0, _) => Ok("none is named".to_owned()),
        (count, true) => Ok(format!("all {count} can be connected to")),
        (_, false) => Err(doubtful(
            format!("no connection to {}", silent.join(", ")),
            "nothing gets there: does its receiver run, and may this host connect to it?",
        )),
    }
}

fn listens(url: &Url) -> bool {
    let found = (&*url.host, url.port).to_socket_addrs();
    found.is_ok_and(|mut all| all.any(|at| TcpStream::connect_timeout(&at, PATIENCE).is_ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of<'a>(found: &'a [Finding], about: &str) -> &'a Finding {
        found.iter().find(|one| one.about == about).unwrap_or_else(|| panic!("{about}: {found:?}"))
    }

    fn args(folder: &Path, text: &str) -> Args {
        let config = folder.join("evenkeel.toml");
        fs::write(&config, text).unwrap();
        Args { command: None, config, insecure: false, check: false }
    }

    #[test]
    fn what_is_wrong_is_told_with_what_to_do_and_the_rest_is_looked_at_too() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        fs::create_dir(&state).unwrap();
        let text = format!(
            "[cluster]\nname = \"c\"\nrequest = \"fan-out\"\nseeds = [\"127.0.0.9:9\"]\n[host]\naddress = \"127.0.0.1\"\nport = 7999\n\
             state = {state:?}\nuplink = \"none0\"\napi = \"/nowhere/api.sock\"\n"
        );
        let found = examine(&args(folder.path(), &text));
        assert_eq!(of(&found, "configuration").verdict, Verdict::Ok);
        assert_eq!(of(&found, "address").verdict, Verdict::Ok);
        let keys = of(&found, "keys");
        assert_eq!(keys.verdict, Verdict::Wrong);
        assert!(keys.seen.contains("evenkeel join"), "{keys:?}");
        assert_eq!(of(&found, "uplink").seen, "there is no none0");
        assert!(of(&found, "other hosts").seen.contains("127.0.0.9:9"));
        assert_eq!(of(&found, "webhooks").seen, "none is named");
        assert!(of(&found, "agent").mend.contains("systemctl"));
        let text = table(&found);
        assert!(text.contains("WRONG     keys"), "{text}");
        let mends = found.iter().filter(|one| one.verdict != Verdict::Ok);
        assert!(mends.clone().count() > 3 && mends.into_iter().all(|one| !one.mend.is_empty()));
    }

    #[test]
    fn a_file_with_a_mistake_and_an_address_of_another_machine_are_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let found = examine(&args(folder.path(), "[cluster]\nnam = \"c\"\n"));
        assert_eq!(found.last().unwrap().about, "configuration");
        assert_eq!(found.last().unwrap().verdict, Verdict::Wrong);
        let text = "[cluster]\nname = \"c\"\n[host]\naddress = \"192.0.2.1\"\n";
        let found = examine(&args(folder.path(), text));
        assert_eq!(of(&found, "address").verdict, Verdict::Wrong);
        let text = text.replace("192.0.2.1", "127.0.0.1\"\ncopy_address = \"192.0.2.1");
        let found = examine(&args(folder.path(), &text));
        assert_eq!(of(&found, "address").verdict, Verdict::Ok);
        let copies = of(&found, "copies' address");
        assert!(copies.verdict == Verdict::Wrong && copies.mend.contains("host.copy_address"));
    }

    #[test]
    fn webhooks_are_looked_at_with_their_files_and_receivers() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, key) = (listener.local_addr().unwrap().port(), folder.path().join("hook.key"));
        let text = format!(
            "[cluster]\nname = \"c\"\n[host]\naddress = \"127.0.0.1\"\n\
             [[webhook]]\nurl = \"http://127.0.0.1:{port}/s3cret\"\nsecret_file = {key:?}\n"
        );
        let look = || of(&examine(&args(folder.path(), &text)), "webhooks").clone();
        let found = look();
        assert!(found.verdict == Verdict::Wrong && found.seen.contains("hook.key"), "{found:?}");
        fs::write(&key, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(look().seen, "all 1 can be connected to");
        drop(listener);
        let found = look();
        assert_eq!(found.verdict, Verdict::Doubtful);
        assert_eq!(found.seen, format!("no connection to http://127.0.0.1:{port}/…"));
        let traces = format!("[traces]\nurl = \"http://127.0.0.1:{port}/v1/traces\"\n");
        let traces = format!("{}{traces}", &text[..text.find("[[webhook]]").unwrap()]);
        let found = examine(&args(folder.path(), &traces));
        assert_eq!(of(&found, "webhooks").seen, "none is named");
        assert_eq!(of(&found, "traces").verdict, Verdict::Doubtful, "{found:?}");
    }

    #[test]
    fn multicast_is_heard_on_loopback() {
        hears_itself(Ipv4Addr::LOCALHOST, Ipv4Addr::new(239, 255, 79, 77)).unwrap();
    }
}
