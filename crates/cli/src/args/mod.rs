//! The command line: commands, options, and what `--help` says.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

mod wanted;

use self::wanted::{
    APPLY_HELP, AUDIT_HELP, BALANCER_HELP, BEST_HOST_HELP, CA_HELP, DRAIN_HELP, EVENTS_HELP,
    EXCLUDE_HELP, HISTORY_HELP, HOST_HELP, JOIN_HELP, KEYS_HELP, LAB_HELP, MOVE_HELP, PLAN_HELP,
    TOKEN_HELP, TRAFFIC_HELP, UNDRAIN_HELP, seconds,
};
pub(crate) use self::wanted::{
    AuditArgs, BestHostArgs, DrainArgs, EventsArgs, HistoryArgs, MoveArgs, MoveCommand, OnOff,
    UndrainArgs,
};

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

    /// Look again every so many seconds, until Ctrl-C: for commands that only look.
    #[arg(long, global = true, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "2",
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) watch: Option<u64>,

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
