//! The command line: commands, options, and what `--help` says.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  the agent said no, or the move was not made
  2  the command line is wrong; of `config check`: the file is
  3  the agent cannot be reached, or its answer was lost

Colours are used on a terminal only, and not when NO_COLOR is set.";

/// Keeps a fleet of KVM hosts on an even keel: what the agent on this host sees, does, and why.
#[derive(Debug, Parser)]
#[command(name = "evenkeel", version, after_help = EXIT_CODES, arg_required_else_help = true)]
pub(crate) struct CommandLine {
    /// How to print what was asked for.
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,

    /// The agent's socket.
    #[arg(long, global = true, env = "EVENKEEL_SOCKET", default_value = api::SOCKET, value_name = "PATH")]
    pub(crate) socket: PathBuf,

    /// The agent of another host, as https://ADDRESS:PORT, in place of the socket; the token for it in EVENKEEL_TOKEN.
    #[arg(long = "host", global = true, env = "EVENKEEL_HOST", value_name = "URL")]
    pub(crate) remote: Option<String>,

    /// Ask the agent of this host through the one that is asked: for commands that only look.
    #[arg(long, global = true, value_name = "HOST")]
    pub(crate) on: Option<String>,

    /// The file of the cluster's CA certificate, by which that agent is known: ca.crt of any host's keys.
    #[arg(long, global = true, env = "EVENKEEL_CA", value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,

    /// A file with the token, for your user alone, in place of EVENKEEL_TOKEN.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,

    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How to print what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// For people with a wide terminal: ids and all figures.
    Wide,
    /// One JSON document (events: one object per line).
    Json,
    /// One YAML document (events followed with -f: one document each).
    Yaml,
    /// One line a point and metric, with a header; of `history` only.
    Csv,
}

/// What to do about the configuration file.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Look for mistakes in it, by `evenkeeld`: what cannot be read, and rules that contradict each other.
    #[command(after_help = "Example:\n  evenkeel config check /etc/evenkeel/evenkeel.toml")]
    Check {
        /// The file.
        #[arg(default_value = "/etc/evenkeel/evenkeel.toml")]
        file: PathBuf,
    },
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The local agent in one look: mode, hosts, alarms, and why nothing is being moved.
    #[command(after_help = "Example:\n  evenkeel status")]
    Status,

    /// The hosts, and how loaded each is.
    #[command(after_help = "Example:\n  evenkeel hosts -o wide")]
    Hosts,

    /// The VMs on this host, or all that is known of one; with --all those of all hosts, and where each is.
    #[command(
        after_help = "Examples:\n  evenkeel vms web\n  evenkeel vms --all\n  evenkeel vms -o json | jq -r '.[].name'"
    )]
    Vms {
        /// A VM's name or UUID.
        vm: Option<String>,

        /// The VMs of all hosts, as each last listed its own: without what only their own host measures.
        #[arg(long, conflicts_with = "vm")]
        all: bool,
    },

    /// Hosts, VMs and moves, live on the terminal: sort, filter, scroll.
    #[command(after_help = "Example:\n  evenkeel top")]
    Top,

    /// Who sends how much to whom on this host, the most first; a mean over the last ten seconds.
    #[command(after_help = TRAFFIC_HELP)]
    Traffic,
    /// How a VM, or this host, did over time.
    #[command(after_help = HISTORY_HELP)]
    History(HistoryArgs),

    /// The moves from and to this host, newest first; with --all those of all hosts, with their reasons and what they brought.
    #[command(after_help = "Examples:\n  evenkeel moves\n  evenkeel moves --all")]
    Moves {
        /// Of all hosts, as each reports its newest: why each VM moved, and whether that paid.
        #[arg(long)]
        all: bool,
    },

    /// What was seen and decided, oldest first.
    #[command(after_help = EVENTS_HELP)]
    Events(EventsArgs),

    /// Why a VM or move went as it did; without a name: why nothing is being moved, or was at a time that is over.
    #[command(
        after_help = "Examples:\n  evenkeel why\n  evenkeel why web\n  evenkeel why web host2    what keeps it from going there\n  evenkeel why 1a2b3c4d.1.3\n  evenkeel why --at 03:10   why nothing was moved then, anywhere\n  evenkeel --on host3 why --at 2026-03-01T03:10:00Z"
    )]
    Why {
        /// A VM's name or UUID, or a move's id.
        #[arg(value_name = "VM|MOVE")]
        about: Option<String>,

        /// Another host: what keeps the VM from going there, and the least that would have to change.
        #[arg(value_name = "HOST")]
        to: Option<String>,

        /// Why nothing was moved then: a time of day in UTC, which is the last one, or date and time. Of all hosts; with --on of one.
        #[arg(long, value_name = "TIME", conflicts_with_all = ["about", "to"])]
        at: Option<String>,
    },

    /// What would be moved from this host now, and what that would bring and take. Nothing is done.
    #[command(after_help = PLAN_HELP)]
    Plan,

    /// Carry out what is planned, one move after another, as far as each still holds.
    #[command(after_help = APPLY_HELP)]
    Apply {
        /// Numbers of the plan that was shown last, names or UUIDs of VMs on this host; without any: all that are planned now.
        #[arg(value_name = "N|VM")]
        wanted: Vec<String>,

        /// Begin all at once, as far as limits allow, and return.
        #[arg(long)]
        no_wait: bool,
    },

    /// Whether this host begins balancing moves; `off` and `on` switch that.
    #[command(after_help = BALANCER_HELP)]
    Balancer {
        /// Nothing: how it stands.
        #[arg(value_enum)]
        to: Option<OnOff>,
    },

    /// Leave a VM where it is: balancing and rules pass it over. Without a VM: those that are excluded on this host.
    #[command(after_help = EXCLUDE_HELP)]
    Exclude {
        /// Name or UUID of a VM on this host.
        vm: Option<String>,

        /// For so long: 30min, 2h, 7d; without it for good.
        #[arg(long = "for", value_name = "TIME", value_parser = seconds, requires = "vm")]
        for_seconds: Option<u64>,
    },

    /// End a VM's exclusion: balancing and rules may move it again.
    #[command(after_help = "Example:\n  evenkeel include web")]
    Include {
        /// Name or UUID of a VM.
        vm: String,
    },

    /// A VM's own rules, where its definition has them: show or set them.
    #[command(arg_required_else_help = true)]
    Vm {
        /// What about them.
        #[command(subcommand)]
        what: crate::vm::VmCommand,
    },

    /// Have all VMs leave this host, one after another, and none come; follow it until no more can leave.
    #[command(after_help = DRAIN_HELP)]
    Drain(DrainArgs),

    /// End a drain: this host takes VMs again.
    #[command(after_help = UNDRAIN_HELP)]
    Undrain(UndrainArgs),

    /// Which host would take a VM that is yet to be started, at the least cost; by what hosts said last.
    #[command(after_help = BEST_HOST_HELP)]
    BestHost(BestHostArgs),

    /// Move a VM to another host now, cancel a move, or resolve one that is stuck.
    #[command(after_help = MOVE_HELP)]
    Move(MoveArgs),

    /// Tokens, by which an agent knows who asks over TCP. Made on the agent's host alone.
    #[command(arg_required_else_help = true)]
    Token {
        /// What about them.
        #[command(subcommand)]
        what: TokenCommand,
    },

    /// What was asked of the agent that could change something, by whom, and what came of it; oldest first.
    #[command(after_help = AUDIT_HELP)]
    Audit(AuditArgs),

    /// The configuration file.
    #[command(arg_required_else_help = true)]
    Config {
        /// What about it.
        #[command(subcommand)]
        what: ConfigCommand,
    },

    /// Print what a shell needs to complete command lines.
    #[command(
        after_help = "Example:\n  evenkeel completion bash > /etc/bash_completion.d/evenkeel"
    )]
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },

    /// Write pages for `man`; for packages.
    #[command(hide = true)]
    Man {
        /// The folder, which is made if it is not there.
        folder: PathBuf,
    },

    /// Keys and certificates, by `evenkeeld`.
    #[command(flatten)]
    Daemon(DaemonCommand),

    /// Simulation and replay, by `evenkeel-sim`: go through what an agent recorded again.
    #[command(after_help = LAB_HELP, disable_help_flag = true, arg_required_else_help = true)]
    Lab {
        /// A task of `evenkeel-sim` and its arguments; `--help` lists them.
        #[arg(
            value_name = "ARGS", required = true, num_args = 1.., trailing_var_arg = true,
            allow_hyphen_values = true
        )]
        args: Vec<OsString>,
    },
}

/// What to do about tokens.
/// What the program `evenkeeld` does, and no agent is asked about.
#[derive(Debug, Subcommand)]
pub(crate) enum DaemonCommand {
    /// The cluster's certificate authority, by `evenkeeld`: init, token, sign, update, revoke.
    #[command(after_help = CA_HELP, disable_help_flag = true, arg_required_else_help = true)]
    Ca {
        /// What to do, and its arguments; `--help` lists them.
        #[arg(
            value_name = "ARGS", required = true, num_args = 1.., trailing_var_arg = true,
            allow_hyphen_values = true
        )]
        args: Vec<OsString>,
    },

    /// Whether this machine has what an agent needs, and how to mend what it has not, by `evenkeeld`.
    #[command(after_help = "Example:\n  evenkeel doctor", disable_help_flag = true)]
    Doctor {
        /// Arguments; `--help` lists them.
        #[arg(value_name = "ARGS", num_args = 0.., trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },

    /// This host's keys, by `evenkeeld`: request, install, rotate, show.
    #[command(after_help = KEYS_HELP, disable_help_flag = true, arg_required_else_help = true)]
    Keys {
        /// What to do, and its arguments; `--help` lists them.
        #[arg(
            value_name = "ARGS", required = true, num_args = 1.., trailing_var_arg = true,
            allow_hyphen_values = true
        )]
        args: Vec<OsString>,
    },

    /// Get this host its keys from a host of the cluster that has the CA, by `evenkeeld`.
    #[command(after_help = JOIN_HELP, disable_help_flag = true, arg_required_else_help = true)]
    Join {
        /// The host, and arguments; `--help` lists them.
        #[arg(
            value_name = "ARGS", required = true, num_args = 1.., trailing_var_arg = true,
            allow_hyphen_values = true
        )]
        args: Vec<OsString>,
    },

    /// Hosts of the cluster, by `evenkeeld`: revoke.
    #[command(subcommand, after_help = HOST_HELP)]
    Host(HostCommand),
}

/// What to do with a host.
#[derive(Debug, Subcommand)]
pub(crate) enum HostCommand {
    /// Revoke all certificates of a host: no host speaks with it any more.
    #[command(disable_help_flag = true, arg_required_else_help = true)]
    Revoke {
        /// Its name or id, and arguments; `--help` lists them.
        #[arg(
            value_name = "ARGS", required = true, num_args = 1.., trailing_var_arg = true,
            allow_hyphen_values = true
        )]
        args: Vec<OsString>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make one, and show it: this once.
    #[command(after_help = TOKEN_HELP)]
    Create {
        /// What it is good for.
        #[arg(long, value_enum)]
        role: RoleName,

        /// Whose it is, or what it is for.
        #[arg(long)]
        name: String,

        /// For how many days.
        #[arg(
            long, default_value_t = 90,
            value_parser = clap::value_parser!(u32).range(1..=i64::from(api::TOKEN_DAYS_MAX))
        )]
        days: u32,
    },

    /// Those that were made and not revoked, without their secrets.
    #[command(after_help = "Example:\n  evenkeel token list")]
    List,

    /// End one, at once and for good.
    #[command(after_help = "Example:\n  evenkeel token revoke 1a2b3c4d")]
    Revoke {
        /// Its id, as `evenkeel token list` shows it: what stands between `evk_` and the next `_`.
        id: String,
    },
}

/// What a token is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RoleName {
    /// May look.
    Viewer,
    /// May also move VMs, cancel that, apply plans, drain, exclude and include.
    Operator,
    /// May also switch the balancer, force and resolve moves, and read the audit log.
    Admin,
}

const TOKEN_HELP: &str = "\
The token is shown this once and kept nowhere: the agent keeps a hash of it. Whoever has it may do what its role says until it
expires or is revoked. It is used by `evenkeel --host`, or as `Authorization: Bearer …`.

Examples:
  evenkeel token create --role operator --name anna --days 90
  evenkeel token create --role viewer --name grafana -o json | jq -r .token";

const AUDIT_HELP: &str = "\
Each line of the log holds the hash of the line before, so a line that was changed, taken out or put in shows. What was taken off
the end, and a log that root wrote anew as a whole, show only against a hash that was kept elsewhere: note the newest one now and
then, and give it as --kept later.

Exit codes: 0, with --verify or --kept 1 if the log does not fit together or the kept hash is not there, 3 the agent was lost.

Examples:
  evenkeel audit --since 2d
  evenkeel audit --after 4711 --limit 1000 --json
  evenkeel audit --verify
  evenkeel audit --kept 5f1c…
  evenkeel audit --json | jq -r 'select(.status >= 400) | .who.name'";

/// Which lines of the audit log, and whether they fit.
#[derive(Args, Debug)]
pub(crate) struct AuditArgs {
    /// How far back: 90s, 20min, 2h, 2d; without it the newest, however old.
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    pub(crate) since: Option<u64>,

    /// Only lines after the one of this number, the oldest first; to go on where one stopped.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) after: Option<u64>,

    /// At most so many: the newest, or with --after the oldest.
    #[arg(
        short = 'n', long, value_name = "COUNT", default_value_t = api::AUDIT,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(api::AUDIT_MAX))
    )]
    pub(crate) limit: u32,

    /// One JSON object a line.
    #[arg(long)]
    pub(crate) json: bool,

    /// Only say whether the whole log fits together, and its newest hash.
    #[arg(long)]
    pub(crate) verify: bool,

    /// The same, and whether a line with this hash, kept elsewhere, is there still.
    #[arg(long, value_name = "HASH")]
    pub(crate) kept: Option<String>,
}

/// How a switch is to stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnOff {
    /// Balancing moves may begin, where `mode.balance` allows it.
    On,
    /// No balancing move begins.
    Off,
}

const PLAN_HELP: &str = "\
Each agent plans for the VMs of its own host: the moves that it would make, each judged as if those before it had been made. It
asks nobody for this, writes nothing, and draws no lot: what follows is the same as without. TO is the host that would take the
VM at the least COST there, by what hosts said of themselves last; targets answer for themselves, so it is no more than likely,
and the less so the further down. RELIEF is what this host would be rid of. COPY is the most that the copy takes, as the VM
writes to its memory now; the hand-over, some tens of milliseconds, adds to DOWNTIME.

Exit codes: 0 whether something would be moved or not, 3 the agent was lost.

Examples:
  evenkeel plan
  evenkeel plan -o wide
  evenkeel plan -o json | jq -r '.moves[].vm'";

const APPLY_HELP: &str = "\
Numbers are those of the plan that this host's agent showed last, to whomever, in the last ten minutes; older or unknown ones are
refused, and nothing is begun. Each VM is judged and hosts are asked anew when its turn comes, as if the policy began it: a move
that does not pay any more is skipped with its reason, and so is one that limits, rules or the VM's own rest forbid; that the host
rests between its own moves does not count. It works in every mode, and while the balancer is off. Waits until all are over.
Ctrl-C ends this command only: the move that is under way goes on, and no other begins.

Exit codes: 0 all were made (with --no-wait: have begun) or there was nothing to do, 1 one was not, 3 the agent was lost.

Examples:
  evenkeel apply
  evenkeel apply 1 3
  evenkeel apply web db --no-wait";

const BALANCER_HELP: &str = "\
Of this host alone, without asking the others, and kept over restarts of the agent. While it is off, this host begins no
balancing move and recommends none. A move that is under way goes on, moves by hand go on, and this host still accepts VMs
that others send. On again, it does what `mode.balance` in the configuration says.

Examples:
  evenkeel balancer
  evenkeel balancer off
  evenkeel balancer on";

const EXCLUDE_HELP: &str = "\
Of this host alone, and kept over restarts of the agent. A move that is under way goes on. A person can still move the VM, and is
told that it is excluded; the exclusion stays with the host, not with the VM. `[rules]` can exclude many VMs by name.

Examples:
  evenkeel exclude web --for 2h
  evenkeel exclude
  evenkeel include web";

const DRAIN_HELP: &str = "\
Each VM goes where it costs least, at any cost, but never against rules or where there is no room; the largest first. Stopped VMs
and VMs that may not leave are named first. Who was refused is tried again after 5 s, 10 s, up to 160 s. Meanwhile this host
takes no VM and balances nothing. It is kept over restarts of the agent: Ctrl-C ends this command only, `evenkeel undrain` ends
the drain, and `evenkeel drain` follows it again.

Exit codes: 0 no VM is left here (with --no-wait: it has begun), 1 some stay, or it was ended, 3 the agent was lost, 130 Ctrl-C.

Examples:
  evenkeel drain
  evenkeel drain --no-wait
  evenkeel drain -o json | jq -r '.here[] | .vm + \": \" + .why'";

const UNDRAIN_HELP: &str = "\
Moves that are under way go on. What has left is remembered until the next drain begins.

Examples:
  evenkeel undrain
  evenkeel undrain --bring-back";

/// Which host is drained, and whether it is followed.
#[derive(Args, Debug)]
pub(crate) struct DrainArgs {
    /// This host's name, to be sure. Each agent drains its own host alone.
    pub(crate) host: Option<String>,

    /// Return as soon as it has begun.
    #[arg(long)]
    pub(crate) no_wait: bool,
}

/// Which host is drained no more.
#[derive(Args, Debug)]
pub(crate) struct UndrainArgs {
    /// This host's name, to be sure.
    pub(crate) host: Option<String>,

    /// Say for each VM that has left how it comes back: the command, and the host to run it on.
    #[arg(long)]
    pub(crate) bring_back: bool,
}

const BEST_HOST_HELP: &str = "\
By what is known on this host: what each host said of itself last, and which VMs it listed. Nobody is asked and nothing is
reserved: start the VM soon. What only a host itself knows (machine types, bridges) is not looked at.

Exit codes: 0 some host would take it, 1 none would, 3 the agent was lost.

Examples:
  evenkeel best-host --memory 4GiB --cpu 2
  evenkeel best-host --memory 8GiB --tag plb_anti_affinity_db --name db3
  evenkeel best-host --memory 4GiB -o json | jq -r '.[0].host'";

/// What the VM will be.
#[derive(Args, Debug)]
pub(crate) struct BestHostArgs {
    /// Its memory: 512MiB, 4GiB.
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = mib)]
    pub(crate) memory: u64,

    /// Processors that it is expected to keep busy: 2, 0.5.
    #[arg(long, value_name = "CORES", default_value = "1", value_parser = millicores)]
    pub(crate) cpu: u64,

    /// A tag of its that is a rule; may be given more than once.
    #[arg(long = "tag", value_name = "TAG")]
    pub(crate) tags: Vec<String>,

    /// Its name, by which rules may know it.
    #[arg(long, default_value = "")]
    pub(crate) name: String,
}

/// A size of memory, in MiB.
fn mib(text: &str) -> Result<u64, String> {
    let wrong = || "write a size with its unit: 512MiB, 4GiB".to_owned();
    let (number, each) = match (text.strip_suffix("MiB"), text.strip_suffix("GiB")) {
        (Some(number), _) => (number, 1),
        (None, Some(number)) => (number, 1024),
        (None, None) => return Err(wrong()),
    };
    let number: u64 = number.trim().parse().map_err(|_none| wrong())?;
    number.checked_mul(each).filter(|mib| *mib > 0).ok_or_else(wrong)
}

/// Cores, in thousandths of one.
fn millicores(text: &str) -> Result<u64, String> {
    let wrong = || "write cores, with up to three decimals: 2, 0.5".to_owned();
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
    if !digits(whole) || !digits(part) || part.len() > 3 {
        return Err(wrong());
    }
    let whole: u64 = whole.parse().map_err(|_long| wrong())?;
    let part: u64 = format!("{part:0<3}").parse().map_err(|_none| wrong())?;
    whole.checked_mul(1000).and_then(|whole| whole.checked_add(part)).ok_or_else(wrong)
}

const TRAFFIC_HELP: &str = "\
At least one end is a VM here. `outside` is all else, as a sender the host itself too; `many` is broadcast and multicast.
Counted at the VMs' taps and at the uplink: by the interfaces that packets pass, whatever addresses they bear.

Examples:
  evenkeel traffic
  evenkeel traffic -o json | jq '.[] | select(.to == \"outside\")'";
const HISTORY_HELP: &str = "\
Metrics: cpu, cpu-wait, memory, sent-packets, received-packets, sent-bits, received-bits, dropped, disk, dirty.
Kept are seconds for 10 minutes, ten seconds for 6 hours, minutes for 2 days and quarters of an hour for 30 days, unless the
agent's [history] says otherwise; each point has the least, the mean, the most and the 95th percentile, to one percent.

Examples:
  evenkeel history web --plot
  evenkeel history web --metric received-packets --since 2d --plot
  evenkeel history host1 --since 6h -o csv > host1.csv";

/// Whose history, and how much of it.
#[derive(Args, Debug)]
pub(crate) struct HistoryArgs {
    /// Name or UUID of a VM on this host, or this host's name.
    #[arg(value_name = "VM|HOST")]
    pub(crate) about: String,

    /// How far back: 90s, 20min, 2h, 7d.
    #[arg(long, value_name = "TIME", default_value = "10min", value_parser = seconds)]
    pub(crate) since: u64,

    /// Only this metric; with --plot: cpu where none is named.
    #[arg(long)]
    pub(crate) metric: Option<String>,

    /// Points of so long: 1s, 10s, 1min or 15min; without it the shortest that is kept for so long.
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    pub(crate) step: Option<u64>,

    /// Draw it.
    #[arg(long)]
    pub(crate) plot: bool,
}

/// A time in its units, as seconds.
fn seconds(text: &str) -> Result<u64, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let each = match unit {
        "s" => 1,
        "min" | "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err("write a number and s, min, h or d: 20min".to_owned()),
    };
    let number: u64 = number.parse().map_err(|_none| "write a number first: 20min".to_owned())?;
    number.checked_mul(each).ok_or_else(|| "that is too long".to_owned())
}

const CA_HELP: &str = "\
All that follows `ca` goes to the program `evenkeeld`, which lies beside this one or in PATH; so does its exit code. No agent is
asked: the CA is a folder on whichever machine, kept by whoever runs the cluster.

Examples:
  evenkeel ca init --cluster prod --passphrase-file FILE
  evenkeel ca sign host1.request --out host1.grant --passphrase-file FILE
  evenkeel ca token --address 198.18.0.2
  evenkeel ca revoke host3
  evenkeel ca --help";

const KEYS_HELP: &str = "\
All that follows `keys` goes to the program `evenkeeld`, which lies beside this one or in PATH; so does its exit code.

Examples:
  evenkeel keys request > host1.request
  evenkeel keys install host1.grant
  evenkeel keys show";

const JOIN_HELP: &str = "\
All that follows `join` goes to the program `evenkeeld`, which lies beside this one or in PATH; so does its exit code.

Examples:
  evenkeel join 198.18.0.1 --token-file FILE      FILE has what `evenkeel ca token` printed on that host
  evenkeel join 198.18.0.1 --token-file - < FILE
  evenkeel join --help";

const HOST_HELP: &str = "\
Examples:
  evenkeel host revoke host3      on the host that has the CA; the same as `evenkeel ca revoke host3`";

const LAB_HELP: &str = "\
All that follows `lab` goes to the program `evenkeel-sim`, which lies beside this one or in PATH; so does its exit code.
Without it the exit code is 127. Only `lab dump` asks agents: it writes the cluster as they see it, for `lab simulate`.

Examples:
  evenkeel lab --help
  evenkeel lab replay /var/lib/evenkeel/record/83a68107.1795373297.jsonl.lz4
  evenkeel lab replay LOG --json | jq .same
  evenkeel lab dump -o cluster.json && evenkeel lab simulate cluster.json
  evenkeel lab policy check /etc/evenkeel/evenkeel.toml";

const EVENTS_HELP: &str = "\
With -o json, one JSON object is printed per line (JSON lines), also without -f.

Examples:
  evenkeel events -f
  evenkeel events --move 1a2b3c4d.1.3
  evenkeel events -f -o json | jq -r 'select(.step == \"alarm\") | .reason'";

/// Which events.
#[derive(Args, Debug)]
pub(crate) struct EventsArgs {
    /// Go on with each new event as it comes.
    #[arg(short, long)]
    pub(crate) follow: bool,

    /// Only the events of this move.
    #[arg(long = "move", value_name = "MOVE")]
    pub(crate) move_id: Option<String>,

    /// Only events with a greater number (`seq`), instead of the newest.
    #[arg(long, value_name = "SEQ")]
    pub(crate) after: Option<u64>,

    /// At most so many to begin with.
    #[arg(
        short = 'n', long, value_name = "COUNT", default_value_t = api::EVENTS,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(api::EVENTS_MAX))
    )]
    pub(crate) limit: u32,
}

const MOVE_HELP: &str = "\
Waits until the move has ended and shows how it goes on standard error; the result goes to standard output.
Ending this command with Ctrl-C does not end the move: cancel it with `evenkeel move cancel MOVE`.

Exit codes: 0 the VM runs on the other host (with --no-wait: the move has begun), 1 it stays, 3 the agent was lost.

Examples:
  evenkeel move web
  evenkeel move web --to host2 --no-wait
  evenkeel move web --to host2 --force
  evenkeel move cancel 1a2b3c4d.1.3
  evenkeel move -- cancel              a VM that is called `cancel`";

/// Which VM, and where to.
#[derive(Args, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    disable_help_subcommand = true
)]
pub(crate) struct MoveArgs {
    /// `cancel`, `resolve`, or nothing: a move.
    #[command(subcommand)]
    pub(crate) instead: Option<MoveCommand>,

    /// Name or UUID of a VM on this host.
    #[arg(required = true)]
    pub(crate) vm: Option<String>,

    /// Ask this host only; without it all are asked, and the cheapest is taken.
    #[arg(long, value_name = "HOST")]
    pub(crate) to: Option<String>,

    /// Override rules: groups and pins. What is overridden is named. Never room, what a host must offer, or who owns the VM.
    #[arg(long)]
    pub(crate) force: bool,

    /// Return as soon as the move has begun.
    #[arg(long)]
    pub(crate) no_wait: bool,
}

/// What else there is to do with moves.
#[derive(Debug, Subcommand)]
pub(crate) enum MoveCommand {
    /// Cancel a move: its VM stays where it is, unless the move is past the hand-over.
    #[command(after_help = CANCEL_HELP)]
    Cancel {
        /// The move's id, as `evenkeel moves` shows it.
        #[arg(value_name = "MOVE")]
        id: String,

        /// Return as soon as the agent was told.
        #[arg(long)]
        no_wait: bool,
    },

    /// End a move that cannot be settled without a person: say which side has the VM.
    #[command(after_help = RESOLVE_HELP)]
    Resolve {
        /// The move's id, as `evenkeel moves` shows it.
        #[arg(value_name = "MOVE")]
        id: String,

        /// The VM is this host's, and may run here.
        #[arg(long, conflicts_with = "give_up")]
        keep_here: bool,

        /// The VM is not this host's: its stopped copy here goes.
        #[arg(long)]
        give_up: bool,

        /// The other side, of which you have made sure that the VM does not run there and will not.
        #[arg(long, value_name = "HOST", requires = "keep_here")]
        fenced: Option<String>,
    },
}

const RESOLVE_HELP: &str = "\
Prints what is known first. Without a decision it prints only that.

--keep-here needs --fenced HOST: only you can know that the VM does not run on the other side, and never will. Switch that
host off, or end the VM there, before you say so: two running copies of one VM destroy its disk.

Exit codes: 0 done (without a decision: printed), 1 refused, 3 the agent was lost.

Examples:
  evenkeel move resolve 1a2b3c4d.1.3
  evenkeel move resolve 1a2b3c4d.1.3 --keep-here --fenced host2
  evenkeel move resolve 1a2b3c4d.1.3 --give-up";

const CANCEL_HELP: &str = "\
Exit codes: 0 the VM stays (with --no-wait: the agent was told), 1 too late or refused, 3 the agent was lost.

Example:
  evenkeel move cancel 1a2b3c4d.1.3";
