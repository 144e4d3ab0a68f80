// Written from the types of the crate `api`, whose test says how to write it anew. Not to be changed by hand.

/**
 * What a token is good for; each role may do all that the one before it may.
 */
export type Role = "viewer" | "operator" | "admin";

/**
 * `GET /v1/me`: who asks, as the agent knows it.
 */
export type Me = {
/**
 * For people: `anna (token 1a2b3c4d)`, `root (uid 0)`.
 */
who: string,
/**
 * What is allowed.
 */
role: Role,
/**
 * Whether it came over the unix socket, where more is allowed.
 */
here: boolean,
/**
 * Name of the host that answers: what changes something is asked of the VM's own host.
 */
host: string, };

/**
 * `GET /v1/overview`: every host that is known, with what it reports of itself, as of a second or two ago.
 */
export type Overview = {
/**
 * Name of the host that answers.
 */
host: string,
/**
 * Its id.
 */
host_id: string,
/**
 * Name of the cluster.
 */
cluster: string,
/**
 * The host that answers first, then the others by name.
 */
hosts: Array<OverviewHost>, };

/**
 * A host: what is known of it, and what it reported when it was asked last.
 */
export type OverviewHost = {
/**
 * As `GET /v1/hosts` has it.
 */
seen: HostView,
/**
 * What it reported last; absent: nothing since the answering agent was first asked for an overview.
 */
report: Report | null,
/**
 * How old that is, in seconds.
 */
report_age_seconds: number | null,
/**
 * Why it did not report when it was asked last; absent: it did, or the answer is still awaited.
 */
problem: string | null, };

/**
 * `GET /v1/report`: a host, its VMs and its moves, short enough to be asked for every other second.
 */
export type Report = {
/**
 * The host in one look.
 */
status: Status,
/**
 * Its VMs, by name.
 */
vms: Array<VmTile>,
/**
 * Moves from or to it, newest first: all that are under way, of those that have ended the newest [`MADE_REPORTED`] that
 * were made, and the newest [`UNMADE_REPORTED`] that were not.
 */
moves: Array<MoveView>,
/**
 * Number of its newest event; 0: there is none.
 */
newest_event: number, };

/**
 * A VM in short; `GET /v1/vms` tells all.
 */
export type VmTile = {
/**
 * Its name.
 */
name: string,
/**
 * Its UUID.
 */
id: string,
/**
 * `running`, `paused`, `moving`, `released`, `down`.
 */
state: string,
/**
 * Memory at full size, in MiB.
 */
memory_mib: number,
/**
 * Processor use, percent of one core.
 */
cpu_percent: number,
/**
 * Packets sent per second.
 */
sent_packets_per_second: number,
/**
 * Packets received per second.
 */
received_packets_per_second: number,
/**
 * Bits per second, both directions.
 */
bits_per_second: number,
/**
 * Whether it is left where it is, by hand or by a rule.
 */
excluded: boolean,
/**
 * What is wrong with it, if anything.
 */
trouble: string | null, };

/**
 * `GET /v1/status`: the local agent in one look.
 */
export type Status = {
/**
 * Version of the agent.
 */
version: string,
/**
 * Name of the cluster.
 */
cluster: string,
/**
 * This host's name.
 */
host: string,
/**
 * This host's id.
 */
host_id: string,
/**
 * `off`, `recommend` or `automatic`.
 */
balance: string,
/**
 * Whether this host may begin balancing moves, where `balance` allows it: a person may switch them off.
 */
balancer_on: boolean,
/**
 * How requests go out: `multicast`, `broadcast` or `fan-out`.
 */
request: string,
/**
 * Hosts that answer, this one included.
 */
hosts_alive: number,
/**
 * Hosts known, this one included.
 */
hosts_known: number,
/**
 * VMs on this host.
 */
vms: number,
/**
 * Moves under way from or to this host.
 */
moves_under_way: number,
/**
 * Whether this host is hot, and by which threshold.
 */
hot: string | null,
/**
 * Bytes per second read from this host's disks and written to them, where the kernel tells.
 */
disk_bytes_per_second: number | null,
/**
 * The configured uplink, while it exists.
 */
uplink: UplinkView | null,
/**
 * Why nothing is being moved now, or what is.
 */
doing: string,
/**
 * What of the configuration file, as it was read last, is not in force: a mistake, or what waits for a restart.
 */
config: string | null,
/**
 * Webhooks that fail, one sentence each: which, since when, why, and how many events wait.
 */
webhooks_failing: Array<string>,
/**
 * The same of traces, if they fail.
 */
traces_failing: string | null,
/**
 * What needs a person, most urgent first.
 */
alarms: Array<string>, };

/**
 * The network card that the VMs' bridge goes out by, and what its driver says of it.
 */
export type UplinkView = {
/**
 * Its name.
 */
name: string,
/**
 * Name of its driver; where it is no device of its own, its kind, such as `bond`.
 */
driver: string | null,
/**
 * Its speed, where the driver tells: in one direction, or in both together at half duplex.
 */
speed_bits_per_second: number | null,
/**
 * `half` or `full`.
 */
duplex: string | null,
/**
 * Whether it has a link.
 */
up: boolean | null,
/**
 * Its queues that lose something, where the driver tells; of the last ten seconds that were measured.
 */
losing_queues: Array<QueueView>, };

/**
 * A queue of the uplink that loses something.
 */
export type QueueView = {
/**
 * `rx` (the host receives) or `tx`, and its number: `rx-3`.
 */
queue: string,
/**
 * Packets that its hardware dropped, per second.
 */
drops_per_second: number,
/**
 * How often there was no memory for a packet that came, per second.
 */
failed_allocations_per_second: number, };

/**
 * One of `GET /v1/hosts`: what this agent knows of a host.
 */
export type HostView = {
/**
 * Its name.
 */
name: string,
/**
 * Its id.
 */
id: string,
/**
 * Where its agent is reached.
 */
address: string,
/**
 * `alive`, `suspect` or `gone`.
 */
state: string,
/**
 * Whether it is the host that answers.
 */
local: boolean,
/**
 * Age of what follows, in seconds; absent: that host has said nothing yet, and what follows means nothing.
 */
age_seconds: number | null,
/**
 * Processor use, percent of all cores.
 */
cpu_percent: number,
/**
 * Memory that guests have at full size, percent.
 */
memory_percent: number,
/**
 * Packets per second at the taps.
 */
packets_per_second: number,
/**
 * Bits per second at the taps.
 */
bits_per_second: number,
/**
 * VMs there.
 */
vms: number,
/**
 * Whether it is hot.
 */
hot: boolean,
/**
 * Memory that it could still give to guests, in MiB; absent: it does not say.
 */
room_mib: number | null,
/**
 * What it is able to: its driver, `kvm`, `tcg`, `program` (it counts in the kernel, at its taps).
 */
able: Array<string>, };

/**
 * One of `GET /v1/vms`: a VM on this host.
 */
export type VmView = {
/**
 * Its name.
 */
name: string,
/**
 * Its UUID.
 */
id: string,
/**
 * The host it is on.
 */
host: string,
/**
 * `running`, `paused`, `moving`, `released`, `down`.
 */
state: string,
/**
 * How often ownership has passed.
 */
epoch: number,
/**
 * Memory at full size, in MiB.
 */
memory_mib: number,
/**
 * Processor use, percent of one core.
 */
cpu_percent: number,
/**
 * That of its vCPUs alone, where they can be told apart; the rest is emulation, and a copy while one is made.
 */
vcpu_percent: number | null,
/**
 * What its vCPUs wanted and did not get, percent of one core.
 */
cpu_wait_percent: number | null,
/**
 * Memory in use inside the guest, page cache not counted, in MiB, where its balloon tells.
 */
guest_memory_mib: number | null,
/**
 * How fast it writes to its memory, as last measured, in MiB per second.
 */
dirty_mib_per_second: number | null,
/**
 * Bytes per second read from its disks and written to them, where it has some.
 */
disk_bytes_per_second: number | null,
/**
 * Requests per second to its disks.
 */
disk_requests_per_second: number | null,
/**
 * What it was given of this host when it arrived, where `[share]` allows it.
 */
share: ShareView | null,
/**
 * Packets sent per second.
 */
sent_packets_per_second: number,
/**
 * Packets received per second.
 */
received_packets_per_second: number,
/**
 * Bits per second, both directions.
 */
bits_per_second: number,
/**
 * Seconds of usage history that are kept for it.
 */
history_seconds: number,
/**
 * What it is expected to ask in the next hour; absent where less than a quarter of an hour is known of it.
 */
next_hour: NextHourView | null,
/**
 * How long it is left where it is, by hand or by a rule, if it is.
 */
excluded: string | null,
/**
 * The rules that hold of it, one each, as they were understood from the settings and its tags.
 */
rules: Array<string>,
/**
 * What is wrong with it, if anything.
 */
trouble: string | null, };

/**
 * What a VM is expected to ask in the next hour, by its usage history; made anew every five minutes.
 */
export type NextHourView = {
/**
 * Processor time used and waited for, mean of the hour, percent of one core.
 */
cpu_mean_percent: number,
/**
 * The same, mean of the hour's highest quarter: nine of ten hours stay below.
 */
cpu_peak_percent: number,
/**
 * Bits per second, both directions, mean of the hour.
 */
mean_bits_per_second: number,
/**
 * The same, mean of the hour's highest quarter.
 */
peak_bits_per_second: number, };

/**
 * What a VM was given of its host.
 */
export type ShareView = {
/**
 * Weight of its processor time beside others with one: 1 to 10,000, 100 is usual.
 */
cpu_weight: number | null,
/**
 * The most that its tap lets it receive, in bits per second.
 */
receives_bits_per_second_max: number | null,
/**
 * What it was reckoned from.
 */
why: string,
/**
 * What of it could not be done, and why.
 */
trouble: string | null, };

/**
 * One of `GET /v1/traffic`: who sends how much to whom on this host, the most first; a mean over the last ten seconds. At
 * least one end is a VM here, and pairs that sent nothing are left out.
 */
export type FlowView = {
/**
 * The sender: a VM's name, or `outside`: another machine, or the host itself.
 */
from: string,
/**
 * The sender's UUID, if it is a VM.
 */
from_id: string | null,
/**
 * The receiver: a VM's name, `outside`, or `many`: broadcast and multicast.
 */
to: string,
/**
 * The receiver's UUID, if it is a VM.
 */
to_id: string | null,
/**
 * Packets per second, as they are on the wire.
 */
packets_per_second: number,
/**
 * Bits per second, headers counted.
 */
bits_per_second: number, };

/**
 * One of `GET /v1/moves`: a move from or to this host, newest first.
 */
export type MoveView = {
/**
 * Its id.
 */
id: string,
/**
 * The VM's name.
 */
vm: string,
/**
 * The VM's UUID.
 */
vm_id: string,
/**
 * Name of the source.
 */
from: string,
/**
 * Name of the chosen target, once there is one.
 */
to: string | null,
/**
 * `asking`, `confirmed`, `ready`, `copying`, `switching-over`, `handing-over`, `done`, `abandoned`, …
 */
phase: string,
/**
 * Why the VM should leave.
 */
reason: string,
/**
 * What stands against it that a person overrides, one sentence each.
 */
overridden: Array<string>,
/**
 * When it began.
 */
began: string,
/**
 * Whether it has ended.
 */
ended: boolean,
/**
 * Something that was agreed in it is still to come or to go: others of its affinity group, or a VM in return.
 */
others_to_come: boolean,
/**
 * How it ended.
 */
outcome: string | null,
/**
 * Acceptances so far.
 */
acceptances: number,
/**
 * Refusals so far.
 */
refusals: number,
/**
 * Sent so far.
 */
copied_bytes: number,
/**
 * To send in all, as far as is known.
 */
total_bytes: number,
/**
 * Rounds of the copy.
 */
rounds: number,
/**
 * Whether the copy is encrypted; absent: it has not come to one, or the agent was started anew since.
 */
encrypted: boolean | null,
/**
 * From the start of the copy until the VM was seen running at the target, in milliseconds.
 */
total_ms: number | null,
/**
 * From the pause at the source until the VM was seen running at the target, in milliseconds.
 */
downtime_ms: number | null,
/**
 * What the source was to be rid of by it, percent of pressure; absent: not a move of the policy's, or not from here.
 */
promised_percent: number | null,
/**
 * The same by what the VM asked once it was measured at its new host.
 */
measured_percent: number | null,
/**
 * Whether that paid: at least half of what was promised, and the source not hot again.
 */
paid: boolean | null, };

/**
 * `POST /v1/moves`: move a VM now, by hand.
 */
export type MoveRequest = {
/**
 * Name or UUID of a VM on this host.
 */
vm: string,
/**
 * Name or id of the only host to ask; absent: all are asked.
 */
to: string | null,
/**
 * Override what rules say of where the VM may be; never room, what a host must offer, or who owns the VM.
 */
force?: boolean, };

/**
 * Answer to `POST /v1/moves`.
 */
export type MoveStarted = {
/**
 * The move, to be followed under `/v1/moves/{id}`.
 */
move_id: string,
/**
 * What stands against it that it overrides, one sentence each: exclusions, and rules where it was forced.
 */
overridden: Array<string>, };

/**
 * One of `GET /v1/events`: something that was decided or seen. A move's events tell its whole story.
 */
export type Event = {
/**
 * Counts this host's events.
 */
seq: number,
/**
 * When.
 */
time: string,
/**
 * The host that noted it.
 */
host: string,
/**
 * The move it belongs to.
 */
move_id: string | null,
/**
 * The VM it is about, by name where known.
 */
vm: string | null,
/**
 * What happened: a [`Step`] in kebab case.
 */
step: Step,
/**
 * Why, in words.
 */
reason: string,
/**
 * The other host, where there is one, by name.
 */
peer: string | null,
/**
 * A cost or relief that was judged, percent of pressure.
 */
cost_percent: number | null,
/**
 * Of `done`: what the copy took.
 */
copy?: CopyView, };

/**
 * What the copy of a move that was made has taken.
 */
export type CopyView = {
/**
 * Bytes that were sent.
 */
copied_bytes: number,
/**
 * Rounds of the copy.
 */
rounds: number,
/**
 * From its start until the VM was seen running at its new host, where that was seen.
 */
total_ms: number | null,
/**
 * The same from the pause of the guest.
 */
downtime_ms: number | null, };

/**
 * The steps of the method, and what else is worth noting.
 */
export type Step = "monitoring" | "vm-policy" | "request" | "acceptance" | "refusal" | "choice" | "confirmation" | "release" | "usage-history" | "readiness" | "copy" | "stall" | "switch-over" | "hand-over" | "running" | "done" | "pay-back" | "abandoned" | "undo" | "adopted" | "vm-down" | "alarm" | "membership" | "settings" | "doing" | "bad-input";

/**
 * `GET /v1/why/{vm or move}`: why it moved, or why it does not.
 */
export type Why = {
/**
 * What was asked about.
 */
about: string,
/**
 * The answer in one sentence.
 */
verdict: string,
/**
 * What was read and weighed, one line each.
 */
because: Array<string>,
/**
 * The events that tell the story, oldest first.
 */
events: Array<Event>, };

/**
 * `GET /v1/plan`: what would be moved from this host now. Nothing is done, and no other host asked.
 */
export type Plan = {
/**
 * This host's name.
 */
host: string,
/**
 * What would be moved, one after another: each is judged as if those before it had been made.
 */
moves: Array<PlannedMove>,
/**
 * Why nothing is moved, or not by itself; absent: the first is about to be moved.
 */
held: string | null,
/**
 * Why no more follow.
 */
end: string, };

/**
 * One move that would be made.
 */
export type PlannedMove = {
/**
 * Its place in the plan, from 1. If it was asked for `numbered`, `GET /v1/plan/shown` tells what it means, for ten minutes.
 */
number: number,
/**
 * The VM's name.
 */
vm: string,
/**
 * The VM's UUID.
 */
vm_id: string,
/**
 * Name of the source.
 */
from: string,
/**
 * The hosts that would be asked, where their own figures say already which are best: the best first. Empty: no one knows
 * before they have answered.
 */
to: Array<string>,
/**
 * How many would be asked, in words.
 */
asked: string,
/**
 * Who would take it at the least cost, by what hosts said of themselves last; absent: nobody has the room, by that.
 */
likely: string | null,
/**
 * What it would cost there, percent of pressure.
 */
cost_percent: number | null,
/**
 * What asks for it: a threshold, in figures, or a rule.
 */
reason: string,
/**
 * Why this VM; absent: the rule names it.
 */
choice: string | null,
/**
 * What this host would be rid of, percent of pressure; absent: a rule asks, at any cost.
 */
relief_percent: number | null,
/**
 * What the copy would cost, percent of pressure.
 */
copy_cost_percent: number,
/**
 * The size of its memory, in MiB.
 */
memory_mib: number,
/**
 * How long the copy would take at the most; absent: it would not end, as fast as the VM writes to its memory.
 */
copy_ms: number | null,
/**
 * How long the VM would stand still for the last round; the hand-over comes on top. Absent: not known.
 */
downtime_ms: number | null,
/**
 * Since when it is recommended.
 */
recommended: string | null, };

/**
 * `POST /v1/plan/apply`: begin what is planned, as far as it still holds.
 */
export type ApplyRequest = {
/**
 * Names or UUIDs of VMs on this host; empty: all that are planned.
 */
vms: Array<string>, };

/**
 * Answer to `POST /v1/plan/apply`.
 */
export type Applied = {
/**
 * This host's name.
 */
host: string,
/**
 * What came of each VM.
 */
vms: Array<AppliedVm>,
/**
 * Why there was nothing to apply, where no VM was named and none was planned.
 */
nothing: string | null, };

/**
 * What came of one VM: its move has begun, or it was refused.
 */
export type AppliedVm = {
/**
 * As it was named.
 */
vm: string,
/**
 * The move, to be followed under `/v1/moves/{id}`.
 */
move_id: string | null,
/**
 * What does not hold, or not any more.
 */
refused: string | null, };

/**
 * How a VM or a host did over time.
 */
export type HistoryView = {
/**
 * Its name.
 */
name: string,
/**
 * Its id.
 */
id: string,
/**
 * The host it is on.
 */
host: string,
/**
 * The length of a point, in seconds.
 */
step_seconds: number,
/**
 * When each point began, oldest first.
 */
at: Array<string>,
/**
 * The metrics, each with as many figures as there are points.
 */
metrics: Array<Series>,
/**
 * Where a VM was before, oldest first.
 */
past: Array<StayView>, };

/**
 * One metric over time, to one percent.
 */
export type Series = {
/**
 * `cpu`, `cpu-wait`, `memory`, `sent-packets`, `received-packets`, `sent-bits`, `received-bits`, `dropped`, `disk`, `dirty`.
 */
metric: string,
/**
 * `mcores` (thousandths of a core), `MiB`, `packets/s`, `bit/s`, `bytes/s` or `MiB/s`.
 */
unit: string,
/**
 * The least of each point.
 */
min: Array<number>,
/**
 * The mean.
 */
mean: Array<number>,
/**
 * The most.
 */
max: Array<number>,
/**
 * What was not exceeded for 95 of 100 seconds.
 */
p95: Array<number>, };

/**
 * A stay of a VM on another host.
 */
export type StayView = {
/**
 * The host's name then.
 */
host: string,
/**
 * Its id.
 */
host_id: string,
/**
 * The move that ended it.
 */
move_id: string,
/**
 * When that was.
 */
ended: string, };

/**
 * `POST /v1/vms/{vm}/exclude`: leave a VM on this host where it is; balancing and rules pass it over.
 */
export type ExcludeRequest = {
/**
 * For so long; absent: for good.
 */
for_seconds: number | null, };

/**
 * Answer to `POST /v1/vms/{vm}/exclude` and `/include`, and one of `GET /v1/exclusions`: the VMs that are excluded by hand on
 * this host. Kept over restarts of the agent.
 */
export type Exclusion = {
/**
 * The VM's name.
 */
vm: string,
/**
 * The VM's UUID.
 */
vm_id: string,
/**
 * This host's name. Its exclusions hold here alone: they do not go with a VM.
 */
host: string,
/**
 * Whether the VM is on this host.
 */
here: boolean,
/**
 * Whether it is excluded by hand.
 */
excluded: boolean,
/**
 * Until when; absent: for good.
 */
until: string | null,
/**
 * What `[rules]` say besides, if they exclude it.
 */
rule: string | null, };

/**
 * `GET /v1/balancer`, and the answer to `POST /v1/balancer`: whether this host begins balancing moves.
 */
export type Balancer = {
/**
 * This host's name.
 */
host: string,
/**
 * Whether it may begin them, where `balance` allows it. Kept over restarts of the agent.
 */
on: boolean,
/**
 * `off`, `recommend` or `automatic`: what the configuration says.
 */
balance: string, };

/**
 * `GET /v1/drain`, and the answer to `POST /v1/drain`: how a drain goes. Kept over restarts of the agent.
 */
export type DrainView = {
/**
 * This host's name.
 */
host: string,
/**
 * Whether it is being drained.
 */
draining: boolean,
/**
 * The agent has only just begun to look: VMs may be here that it has not found yet.
 */
looking: boolean,
/**
 * The VMs that have left since the drain began, also after it was ended.
 */
left: Array<LeftVm>,
/**
 * The VMs that are here and are to leave, in the order in which they would.
 */
here: Array<LeavingVm>,
/**
 * VMs that are defined here and do not run: they stay.
 */
stopped: Array<StoppedVm>, };

/**
 * A VM that is to leave.
 */
export type LeavingVm = {
/**
 * Its name.
 */
vm: string,
/**
 * Its UUID.
 */
vm_id: string,
/**
 * Memory at full size, in MiB.
 */
memory_mib: number,
/**
 * `moving`; `next`: its turn comes; `waits`: it is tried again by itself; `stays`: until a person sees to it.
 */
state: string,
/**
 * The move that is under way.
 */
move_id: string | null,
/**
 * What it waits for, or what keeps it.
 */
why: string | null, };

/**
 * A VM that left a host while it was drained.
 */
export type LeftVm = {
/**
 * Its name.
 */
vm: string,
/**
 * Its UUID.
 */
vm_id: string,
/**
 * Name of the host that it went to.
 */
to: string,
/**
 * Name of the host that lists it now; that it went to, where none does.
 */
at: string, };

/**
 * A VM that is defined on a host and does not run.
 */
export type StoppedVm = {
/**
 * Its name; its UUID where its definition does not say.
 */
vm: string,
/**
 * Its UUID.
 */
vm_id: string, };

/**
 * Any refusal of the API: RFC 9457's problem details.
 */
export type Problem = {
/**
 * HTTP status.
 */
status: number,
/**
 * Stable code in kebab case, for programs.
 */
code: string,
/**
 * What is wrong.
 */
title: string,
/**
 * What to do about it.
 */
hint: string, };
