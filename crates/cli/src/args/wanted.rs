//! What single commands take, and the examples of their `--help`.

use clap::{Args, Subcommand, ValueEnum};

pub(super) const TOKEN_HELP: &str = "\
The token is shown this once and kept nowhere: the agent keeps a hash of it. Whoever has it may do what its role says until it
expires or is revoked. It is used by `evenkeel --host`, or as `Authorization: Bearer …`.

Examples:
  evenkeel token create --role operator --name anna --days 90
  evenkeel token create --role viewer --name grafana -o json | jq -r .token";

pub(super) const AUDIT_HELP: &str = "\
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

pub(super) const PLAN_HELP: &str = "\
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

pub(super) const APPLY_HELP: &str = "\
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

pub(super) const BALANCER_HELP: &str = "\
Of this host alone, without asking the others, and kept over restarts of the agent. While it is off, this host begins no
balancing move and recommends none. A move that is under way goes on, moves by hand go on, and this host still accepts VMs
that others send. On again, it does what `mode.balance` in the configuration says.

Examples:
  evenkeel balancer
  evenkeel balancer off
  evenkeel balancer on";

pub(super) const EXCLUDE_HELP: &str = "\
Of this host alone, and kept over restarts of the agent. A move that is under way goes on. A person can still move the VM, and is
told that it is excluded; the exclusion stays with the host, not with the VM. `[rules]` can exclude many VMs by name.

Examples:
  evenkeel exclude web --for 2h
  evenkeel exclude
  evenkeel include web";

pub(super) const DRAIN_HELP: &str = "\
Each VM goes where it costs least, at any cost, but never against rules or where there is no room; the largest first. Stopped VMs
and VMs that may not leave are named first. Who was refused is tried again after 5 s, 10 s, up to 160 s. Meanwhile this host
takes no VM and balances nothing. It is kept over restarts of the agent: Ctrl-C ends this command only, `evenkeel undrain` ends
the drain, and `evenkeel drain` follows it again.

Exit codes: 0 no VM is left here (with --no-wait: it has begun), 1 some stay, or it was ended, 3 the agent was lost, 130 Ctrl-C.

Examples:
  evenkeel drain
  evenkeel drain --no-wait
  evenkeel drain -o json | jq -r '.here[] | .vm + \": \" + .why'";

pub(super) const UNDRAIN_HELP: &str = "\
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

pub(super) const BEST_HOST_HELP: &str = "\
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

pub(super) const TRAFFIC_HELP: &str = "\
At least one end is a VM here. `outside` is all else, as a sender the host itself too; `many` is broadcast and multicast.
Counted at the VMs' taps and at the uplink: by the interfaces that packets pass, whatever addresses they bear.

Examples:
  evenkeel traffic
  evenkeel traffic -o json | jq '.[] | select(.to == \"outside\")'";
pub(super) const HISTORY_HELP: &str = "\
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
pub(super) fn seconds(text: &str) -> Result<u64, String> {
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

pub(super) const CA_HELP: &str = "\
All that follows `ca` goes to the program `evenkeeld`, which lies beside this one or in PATH; so does its exit code. No agent is
asked: the CA is a folder on whichever machine, kept by whoever runs the cluster.

Examples:
  evenkeel ca init --cluster prod --passphrase-file FILE
  evenkeel ca sign host1.request --out host1.grant --passphrase-file FILE
  evenkeel ca token --address 198.18.0.2
  evenkeel ca revoke host3
  evenkeel ca --help";

pub(super) const KEYS_HELP: &str = "\
All that follows `keys` goes to the program `evenkeeld`, which lies beside this one or in PATH; so does its exit code.

Examples:
  evenkeel keys request > host1.request
  evenkeel keys install host1.grant
  evenkeel keys show";

pub(super) const JOIN_HELP: &str = "\
All that follows `join` goes to the program `evenkeeld`, which lies beside this one or in PATH; so does its exit code.

Examples:
  evenkeel join 198.18.0.1 --token-file FILE      FILE has what `evenkeel ca token` printed on that host
  evenkeel join 198.18.0.1 --token-file - < FILE
  evenkeel join --help";

pub(super) const HOST_HELP: &str = "\
Examples:
  evenkeel host revoke host3      on the host that has the CA; the same as `evenkeel ca revoke host3`";

pub(super) const LAB_HELP: &str = "\
All that follows `lab` goes to the program `evenkeel-sim`, which lies beside this one or in PATH; so does its exit code.
Without it the exit code is 127. Only `lab dump` asks agents: it writes the cluster as they see it, for `lab simulate`.

Examples:
  evenkeel lab --help
  evenkeel lab replay /var/lib/evenkeel/record/83a68107.1795373297.jsonl.lz4
  evenkeel lab replay LOG --json | jq .same
  evenkeel lab dump -o cluster.json && evenkeel lab simulate cluster.json
  evenkeel lab policy check /etc/evenkeel/evenkeel.toml";

pub(super) const EVENTS_HELP: &str = "\
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

pub(super) const MOVE_HELP: &str = "\
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
