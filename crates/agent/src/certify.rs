//! The commands `ca`, `keys` and `join`: certificates made, carried, installed and revoked.
//!
//! ```text
//!   by a token:  host with the CA: ca token ─▶ token ─▶ new host: join ◀── grant ── agent of the host with the CA
//!   by hand:     host: keys request ─▶ request ─▶ ca sign ─▶ grant ─▶ host: keys install
//!   ca revoke, keys rotate: in the folders of this host; agents carry it to all others
//! ```
//!
//! A request is no secret. A token is one until it was used, a grant for ever: it holds the cluster keys.
//!
//! Root works on folders of keys as whoever owns them (`as_owner`); files that are named it reads and writes itself.

use std::fmt::Write as _;
use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Subcommand;
use decide::units::HostId;
use trust::authority::{Authority, LIFE};
use trust::grant::{self, Grant};
use trust::identity::{Identity, Unix};
use trust::join::Token;
use trust::keys::{CA_CERTIFICATE, HOST_CERTIFICATE, Keys};
use trust::request::{self, Wanted};

use crate::clock::{date, unix_seconds};
use crate::config::Config;
use crate::local;
use crate::net::join;
use crate::owner::as_owner;

const DAY: u64 = 24 * 3600;
/// Days that a host's certificate may hold.
const DAYS_MAX: u64 = 397;
/// Where the CA is if nothing else is said.
pub(crate) const CA: &str = "/etc/evenkeel/ca";

const UNIT: &str = "evenkeeld.service";

/// The cluster's certificate authority (CA).
#[derive(Debug, Subcommand)]
pub enum CaCommand {
    /// Makes the CA of a new cluster, and its first cluster key.
    #[command(
        after_help = "Example:\n  evenkeel ca init --cluster prod --passphrase-file /run/user/1000/passphrase"
    )]
    Init {
        /// The cluster's name.
        #[arg(long)]
        cluster: String,
        /// Make this host's own keys too: it is the first host of the cluster.
        #[arg(long)]
        own: bool,
        /// Start this host's agent then, now and whenever the host starts.
        #[arg(long, requires = "own")]
        start: bool,
        /// Where the CA is.
        #[command(flatten)]
        place: Place,
    },
    /// Signs a host's request; writes what the host is to install.
    #[command(after_help = "Example:\n  evenkeel ca sign host1.request --out host1.grant")]
    Sign {
        /// The request, as `evenkeel keys request` gave it.
        request: PathBuf,
        /// The file to write, for its owner alone: it holds the cluster keys.
        #[arg(long)]
        out: PathBuf,
        /// Days that the certificate holds.
        #[arg(long, default_value_t = LIFE.as_secs() / DAY)]
        days: u64,
        /// Where the CA is.
        #[command(flatten)]
        place: Place,
    },
    /// Writes what any one host is to install after a revocation; it goes on to all others.
    #[command(after_help = "Example:\n  evenkeel ca update --out cluster.grant")]
    Update {
        /// The file to write, for its owner alone: it holds the cluster keys.
        #[arg(long)]
        out: PathBuf,
        /// Where the CA is.
        #[command(flatten)]
        place: Place,
    },
    /// Makes a token, by which one host may join, once.
    #[command(
        after_help = "Example:\n  evenkeel ca token --minutes 10 --address 198.18.0.4    then `evenkeel join` on that host"
    )]
    Token {
        /// Minutes that it holds.
        #[arg(long, default_value_t = 30)]
        minutes: u64,
        /// The one address that may come with it.
        #[arg(long)]
        address: Option<IpAddr>,
        /// Where the CA is.
        #[command(flatten)]
        place: Place,
    },
    /// Revokes all certificates of a host, and makes the next cluster key. In force on this host at once, if it has keys, and on all
    /// others within a minute.
    #[command(after_help = "Example:\n  evenkeel ca revoke host3")]
    Revoke {
        /// Its name, or its id, as `evenkeel hosts -o wide` and `evenkeel keys show` have it.
        host: String,
        /// Where the CA is.
        #[command(flatten)]
        place: Place,
    },
}

/// Where the CA is.
#[derive(Debug, clap::Args)]
pub struct Place {
    /// The CA's folder.
    #[arg(long, default_value = CA)]
    folder: PathBuf,
    /// A file with the passphrase of the CA's key, on its first line. Without, the key is kept as it is, in a file of mode 0600.
    #[arg(long)]
    passphrase_file: Option<PathBuf>,
}

/// This host's keys.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Makes a key for this host; prints the request that the CA is to sign.
    #[command(after_help = "Example:\n  evenkeel keys request > host1.request")]
    Request,
    /// Installs what the CA gave. A running agent goes by it in seconds.
    #[command(after_help = "Example:\n  evenkeel keys install host1.grant")]
    Install {
        /// The file.
        grant: PathBuf,
    },
    /// Makes the next cluster key. All hosts have it, and forget the ones before, in a few minutes.
    #[command(after_help = "Example:\n  evenkeel keys rotate")]
    Rotate,
    /// Shows what is installed, without any secret.
    #[command(after_help = "Example:\n  evenkeel keys show")]
    Show,
}

/// How to join.
#[derive(Debug, clap::Args)]
pub struct Join {
    /// The host that has the CA: its address, and port if that is another than this host's.
    host: String,
    /// A file with the token on its first line; `-`: standard input. As an argument it would show in lists of processes.
    #[arg(long, default_value = "-")]
    token_file: PathBuf,
    /// Start this host's agent then, now and whenever the host starts.
    #[arg(long)]
    start: bool,
}

/// What to do about keys.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// The cluster's certificate authority, on the machine of whoever runs the cluster.
    #[command(subcommand)]
    Ca(CaCommand),
    /// This host's keys.
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Gets this host its keys from a host of the cluster that has the CA.
    #[command(
        after_help = "Examples:\n  evenkeel join 198.18.0.1 --start    asks for the token, as `evenkeel ca token` gave it there\n  \
            evenkeel join 198.18.0.1 --token-file /run/user/1000/token"
    )]
    Join(Join),
}

/// Does it; gives what to print.
///
/// # Errors
/// What is in the way, with its file.
pub fn run(command: &Command, config: &Path) -> anyhow::Result<String> {
    match command {
        Command::Ca(command) => ca(command, config),
        Command::Keys(command) => keys(command, &read(config)?),
        Command::Join(join) => join.go(&read(config)?),
    }
}

fn read(config: &Path) -> anyhow::Result<Config> {
    let read = Config::read(config);
    Ok(read.map_err(|mistakes| anyhow::anyhow!(mistakes.join("\n")))?.0)
}

fn now() -> Unix {
    Unix(u64::from(unix_seconds()))
}

fn ca(command: &CaCommand, config: &Path) -> anyhow::Result<String> {
    match command {
        CaCommand::Init { cluster, own, start, place } => {
            // A mistake there is told before anything is made.
            let config = own.then(|| read(config)).transpose()?;
            let passphrase = place.passphrase()?;
            let ca = as_owner(&place.folder, || {
                Authority::init(&place.folder, cluster, passphrase.as_deref(), now())
            })?;
            let kept = if passphrase.is_some() { "encrypted" } else { "not encrypted" };
            let mut text = format!(
                "the CA of cluster {cluster} is in {} ({kept}): whoever has it can make hosts; keep a copy elsewhere",
                place.folder.display()
            );
            if let Some(config) = config {
                let keys = config.keys();
                let request = as_owner(&keys, || request::make(&keys, &wanted(&config)?))?;
                let (grant, _) = as_owner(&place.folder, || ca.sign(&request, LIFE, now()))?;
                as_owner(&keys, || grant.install(&keys, now()))?;
                let _ = write!(text, "\nthis host has its keys in {}", keys.display());
            }
            text += &started(*start)?;
            Ok(
                text + "\nnext, for each further host: `evenkeel ca token` here, `evenkeel join` there"
            )
        }
        CaCommand::Sign { request, out, days, place } => {
            ensure!((1..=DAYS_MAX).contains(days), "--days {days}: 1 to {DAYS_MAX} can be");
            let asked = std::fs::read_to_string(request)
                .with_context(|| format!("reading {}", request.display()))?;
            let life = Duration::from_secs(days * DAY);
            let (grant, wanted) = place.opened(|ca| {
                own_keys(config).map(|keys| ca.absorb(&keys, now())).transpose()?;
                ca.sign(&asked, life, now())
            })?;
            grant.write(out)?;
            let Wanted { host, name, addresses } = wanted;
            let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            Ok(format!(
                "signed for {name}, host {host}, at {}, for {days} days\n\
                 bring {} there, for its owner alone, and run `evenkeel keys install`",
                addresses.join(", "),
                out.display()
            ))
        }
        CaCommand::Update { out, place } => {
            place.opened(|ca| ca.update())?.write(out)?;
            Ok(format!("bring {} to any one host, and run `evenkeel keys install`", out.display()))
        }
        CaCommand::Token { minutes, address, place } => {
            let life = Duration::from_secs(minutes.saturating_mul(60));
            let token = place.opened(|ca| ca.offer(life, *address, now()))?;
            Ok(format!("{token}"))
        }
        CaCommand::Revoke { host, place } => place.opened(|ca| {
            let host = ca.find(host)?;
            revoke(ca, &place.folder, host, own_keys(config).as_deref())
        }),
    }
}

/// Revokes a host, and brings the list to this host's keys even if all else fails: that shuts the host out.
fn revoke(
    ca: &Authority,
    folder: &Path,
    host: HostId,
    keys: Option<&Path>,
) -> anyhow::Result<String> {
    let mut wrong = Vec::new();
    if let Some(keys) = keys
        && let Err(why) = ca.absorb(keys, now())
    {
        let keys = keys.display();
        wrong.push(format!(
            "what {keys} holds was not taken over into {}: {why:#}",
            folder.display()
        ));
    }
    let before = grant::revocations(folder)?;
    if let Err(why) = ca.revoke(host, now()) {
        let signed = grant::revocations(folder).is_ok_and(|now| now > before);
        ensure!(signed, "host {host} is not revoked, nothing was changed: {why:#}");
        wrong.push(format!(
            "there is no new cluster key, so it can still read datagrams, and seal some in the name of others: {why:#}"
        ));
    }
    let version = grant::revocations(folder)?;
    let mut done = format!("host {host} is revoked, by list {version}");
    let carried = keys.map(|keys| {
        grant::carry_revocations(folder, keys)?;
        let there = grant::revocations(keys)?;
        ensure!(there == version, "list {there} is there");
        if wrong.is_empty() { ca.update()?.merge(keys, now()).map(drop) } else { Ok(()) }
    });
    let next = match &carried {
        Some(Ok(())) => {
            "in force here in seconds, on all hosts that can be reached within a minute"
        }
        Some(Err(why)) => {
            let keys = keys.unwrap_or(Path::new("")).display();
            wrong.push(format!("{keys} could not be brought up to it: {why:#}"));
            "NOT in force: next `evenkeel ca update`, and install that on any one host"
        }
        None => "next: `evenkeel ca update`, and install that on any one host",
    };
    if wrong.is_empty() {
        done += ", and there is a new cluster key";
        return Ok(format!("{done}\n{next}"));
    }
    let wrong = wrong.join("\n");
    bail!("{done}\n{next}\nbut: {wrong}\nmend that, and run `evenkeel ca revoke {host}` again")
}

/// This host's folder of keys, if it has one.
fn own_keys(config: &Path) -> Option<PathBuf> {
    let keys = read(config).ok()?.keys();
    keys.join(CA_CERTIFICATE).exists().then_some(keys)
}

/// What this host's certificate is to say.
fn wanted(config: &Config) -> anyhow::Result<Wanted> {
    Ok(Wanted {
        host: local::host_id(&local::machine_id()?),
        name: config.host.name.clone().map_or_else(local::host_name, Ok)?,
        addresses: vec![config.host.address],
    })
}

impl Join {
    fn go(&self, config: &Config) -> anyhow::Result<String> {
        let to = config.at(&self.host)?;
        let token: Token = self.token()?.trim().parse()?;
        let folder = config.keys();
        ensure!(
            !folder.join(HOST_CERTIFICATE).exists(),
            "this host has keys already, in {}: remove that folder to join another cluster",
            folder.display()
        );
        as_owner(&folder, || {
            let request = request::make(&folder, &wanted(config)?)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let grant = runtime.block_on(join(config.host.address, to, &token, &request))?;
            grant.install(&folder, now()).map(drop)
        })?;
        let shown = shown(&Keys::load(&folder)?);
        let started = started(self.start)?;
        Ok(format!("this host has joined; its keys are in {}\n{shown}{started}", folder.display()))
    }

    fn token(&self) -> anyhow::Result<String> {
        let file = &self.token_file;
        let read =
            if file == Path::new("-") { token_from_stdin() } else { std::fs::read_to_string(file) };
        let text = read.with_context(|| format!("reading {}", file.display()))?;
        Ok(text.lines().next().unwrap_or_default().to_owned())
    }
}

/// Its first line: a person ends it by the return key.
fn token_from_stdin() -> std::io::Result<String> {
    let mut input = std::io::stdin().lock();
    if input.is_terminal() {
        // Where it cannot be asked for it can still be given.
        let _ = write!(std::io::stderr(), "the token, as `evenkeel ca token` printed it: ");
    }
    let mut line = String::new();
    input.read_line(&mut line)?;
    Ok(line)
}

/// Has systemd start the agent, if that is wanted; gives a line that says so.
fn started(wanted: bool) -> anyhow::Result<String> {
    if !wanted {
        return Ok(String::new());
    }
    let status = std::process::Command::new("systemctl").args(["enable", "--now", UNIT]).status();
    let next = "the keys are there, all that is left is to start `evenkeeld`";
    let status = status.with_context(|| format!("running systemctl; {next}"))?;
    ensure!(status.success(), "systemctl enable --now {UNIT} ended with {status}; {next}");
    Ok(format!("\n{UNIT} is started, now and whenever this host starts"))
}

impl Place {
    /// Opens the CA, for something that is done as the user whose it is.
    fn opened<T>(&self, then: impl FnOnce(&Authority) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let passphrase = self.passphrase()?;
        as_owner(&self.folder, || then(&Authority::open(&self.folder, passphrase.as_deref())?))
    }

    fn passphrase(&self) -> anyhow::Result<Option<String>> {
        let Some(file) = &self.passphrase_file else { return Ok(None) };
        let text =
            std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        let first = text.lines().next().unwrap_or_default();
        ensure!(!first.is_empty(), "{}: its first line is empty", file.display());
        Ok(Some(first.to_owned()))
    }
}

fn keys(command: &KeysCommand, config: &Config) -> anyhow::Result<String> {
    let folder = config.keys();
    match command {
        KeysCommand::Request => as_owner(&folder, || request::make(&folder, &wanted(config)?)),
        KeysCommand::Install { grant } => {
            let grant = Grant::read(grant)?;
            let came = as_owner(&folder, || grant.install(&folder, now()))?;
            let keys = Keys::load(&folder)?;
            let what = if came.is_some() { "certificate, " } else { "" };
            let shown = shown(&keys);
            Ok(format!("{what}cluster keys and revocations are in {}\n{shown}", folder.display()))
        }
        KeysCommand::Rotate => {
            let epoch = as_owner(&folder, || grant::rotate(&folder, now()))?;
            Ok(format!(
                "there is cluster key {epoch}: all hosts that can be reached have it within a minute, seal with it then, and forget the ones \
                 before ten minutes later"
            ))
        }
        KeysCommand::Show => Ok(shown(&Keys::load(&folder)?)),
    }
}

fn shown(keys: &Keys) -> String {
    let held = keys.held();
    let Identity { host, addresses, issued, ends, .. } = &held.identity;
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let mut text = format!(
        "host         {host}\naddresses    {}\nadmitted     {}\nends         {}\ncluster key  {}\nrevocations  list {}",
        addresses.join(", "),
        date(issued.0),
        date(ends.0),
        held.newest(),
        held.revoked.version
    );
    for (host, until) in held.revoked.hosts() {
        let _ = write!(text, "\n             host {host}, what was issued until {}", date(until.0));
    }
    text
}
