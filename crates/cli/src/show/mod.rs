//! The agent's answers as text for people: short tables, figures with units, sentences.
//!
//! Everything here is pure: an answer and a [`Look`] in, text out.

use api::{
    Balancer, Decision, FlowView, HostView, MoveStarted, MoveView, NextHourView, QueueView,
    ShareView, Status, Unsettled, UplinkView, VmPlace, VmView, Why,
};

use self::table::{Color, Table, cell, coloured, one_line};
use crate::screen::Look;

pub(crate) use self::access::{audit, audit_amiss, audit_check, token_made, token_revoked, tokens};

pub(crate) use self::history::{history, history_csv, history_plot};

pub(crate) use self::best::best_hosts;

pub(crate) use self::drain::{drain, drain_begins, drain_goes_on, has_left, leaving, undrained};

pub(crate) use self::exclusions::{exclusion, exclusions, vm_tags};

pub(crate) use self::plan::{applied, carried, plan};

pub(crate) use self::events::{events, events_as_they_come, step};

mod access;
mod best;
mod drain;
mod events;
mod exclusions;
pub(crate) mod figures;
mod history;
mod plan;
mod plot;
mod table;
#[cfg(test)]
mod tests;

/// The local agent in one look.
pub(crate) fn status(status: &Status, look: Look) -> String {
    let mut lines = Table::new(look).words("").words("");
    let mut line =
        |name: &str, value: String, colour| lines.row(vec![cell(name), coloured(value, colour)]);
    line("host", status.host.clone(), None);
    if look.wide {
        line("host id", status.host_id.clone(), None);
        line("version", status.version.clone(), None);
    }
    line("cluster", status.cluster.clone(), None);
    let missing = status.hosts_alive < status.hosts_known;
    line(
        "hosts",
        format!("{} of {} alive", status.hosts_alive, status.hosts_known),
        missing.then_some(Color::Yellow),
    );
    line("VMs here", status.vms.to_string(), None);
    line("balance", status.balance.clone(), None);
    if !status.balancer_on {
        line("balancer", "off on this host".to_owned(), Some(Color::Yellow));
    }
    line("request by", status.request.clone(), None);
    let hot = status.hot.is_some().then_some(Color::Red);
    line("hot", status.hot.clone().unwrap_or_else(|| "no".to_owned()), hot);
    if let (true, Some(bytes)) = (look.wide, status.disk_bytes_per_second) {
        line("disks", figures::bytes_per_second(bytes), None);
    }
    if let (true, Some(uplink)) = (look.wide, &status.uplink) {
        line("uplink", self::uplink(uplink), (uplink.up == Some(false)).then_some(Color::Red));
    }
    for queue in status.uplink.iter().flat_map(|uplink| &uplink.losing_queues) {
        line("uplink loses", losing(queue), Some(Color::Yellow));
    }
    line("moves", format!("{} under way", status.moves_under_way), None);
    line("doing", status.doing.clone(), None);
    if let Some(amiss) = &status.config {
        line("config", amiss.clone(), Some(Color::Yellow));
    }
    for failing in &status.webhooks_failing {
        line("webhook", failing.clone(), Some(Color::Yellow));
    }
    if let Some(failing) = &status.traces_failing {
        line("traces", failing.clone(), Some(Color::Yellow));
    }
    for alarm in &status.alarms {
        line("ALARM", alarm.clone(), Some(Color::Red));
    }
    lines.text_without_header()
}

fn uplink(uplink: &UplinkView) -> String {
    let known = [
        uplink.driver.clone(),
        uplink.speed_bits_per_second.map(figures::bits_per_second),
        uplink.duplex.as_ref().map(|duplex| format!("{duplex} duplex")),
        (uplink.up == Some(false)).then(|| "no link".to_owned()),
    ];
    let words = std::iter::once(uplink.name.clone()).chain(known.into_iter().flatten());
    words.collect::<Vec<_>>().join(", ")
}

fn losing(queue: &QueueView) -> String {
    let lost = [
        (queue.drops_per_second, "packets/s"),
        (queue.failed_allocations_per_second, "times/s no memory"),
    ];
    let lost = lost.into_iter().filter(|(rate, _)| *rate > 0.0);
    let words: Vec<String> = lost.map(|(rate, what)| format!("{rate:.1} {what}")).collect();
    format!("queue {}: {}", queue.queue, words.join(", "))
}

/// The hosts, and how loaded each is.
pub(crate) fn hosts(hosts: &[HostView], look: Look) -> String {
    if hosts.is_empty() {
        return "No hosts are known.".to_owned();
    }
    let mut table = Table::new(look).words("HOST").words("STATE").figures("CPU").figures("MEMORY");
    table = table.figures("PACKETS/s").figures("TRAFFIC").figures("VMS").words("HOT");
    if look.wide {
        table = table.figures("ROOM").words("ABLE").figures("AGE").words("ADDRESS").words("ID");
    }
    for host in hosts {
        let state = match host.state.as_str() {
            "suspect" => Some(Color::Yellow),
            "gone" => Some(Color::Red),
            _ => None,
        };
        let here = if host.local { " (here)" } else { "" };
        let said = host.age_seconds.is_some();
        let figure = |text: String| cell(if said { text } else { "-".to_owned() });
        let hot = match host.hot {
            true => coloured("hot", Some(Color::Red)),
            false => figure("no".to_owned()),
        };
        let mut row = vec![
            cell(format!("{}{here}", host.name)),
            coloured(&host.state, state),
            figure(figures::percent(host.cpu_percent)),
            figure(figures::percent(host.memory_percent)),
            figure(figures::count(host.packets_per_second)),
            figure(figures::bits_per_second(host.bits_per_second)),
            figure(host.vms.to_string()),
            hot,
        ];
        if look.wide {
            row.extend([
                cell(host.room_mib.map_or_else(|| "-".to_owned(), figures::mib)),
                cell(host.able.join(" ")),
                cell(host.age_seconds.map_or_else(|| "-".to_owned(), |age| format!("{age:.1} s"))),
                cell(&host.address),
                cell(&host.id),
            ]);
        }
        table.row(row);
    }
    table.text()
}

/// The VMs on this host.
pub(crate) fn vms(vms: &[VmView], look: Look) -> String {
    if vms.is_empty() {
        return "No VMs on this host.".to_owned();
    }
    let mut table =
        Table::new(look).words("VM").words("STATE").figures("CPU (1 core)").figures("MEMORY");
    table = table.figures("SENT PKT/s").figures("RCVD PKT/s").figures("TRAFFIC");
    if look.wide {
        table = table.figures("CPU WAIT").figures("VCPUS").figures("GUEST MEM").figures("DIRTIES");
        table = table.figures("DISK").figures("DISK REQ/s");
        table = table.figures("NEXT HOUR CPU").figures("ITS PEAK");
        table = table.words("HOST").figures("EPOCH").figures("HISTORY");
        table = table.words("EXCLUDED").words("RULES").words("ID");
    }
    table = table.words("TROUBLE");
    for vm in vms {
        let state = match vm.state.as_str() {
            "moving" => Some(Color::Cyan),
            "paused" => Some(Color::Yellow),
            "down" => Some(Color::Red),
            _ => None,
        };
        let mut row = vec![
            cell(&vm.name),
            coloured(&vm.state, state),
            cell(figures::percent(vm.cpu_percent)),
            cell(figures::mib(vm.memory_mib)),
            cell(figures::count(vm.sent_packets_per_second)),
            cell(figures::count(vm.received_packets_per_second)),
            cell(figures::bits_per_second(vm.bits_per_second)),
        ];
        if look.wide {
            let known = |figure: Option<String>| cell(figure.unwrap_or_default());
            row.extend([
                known(vm.cpu_wait_percent.map(figures::percent)),
                known(vm.vcpu_percent.map(figures::percent)),
                known(vm.guest_memory_mib.map(figures::mib)),
                known(
                    vm.dirty_mib_per_second
                        .map(|rate| figures::bytes_per_second(rate.saturating_mul(1 << 20))),
                ),
                known(vm.disk_bytes_per_second.map(figures::bytes_per_second)),
                known(vm.disk_requests_per_second.map(figures::count)),
                known(vm.next_hour.as_ref().map(|next| figures::percent(next.cpu_mean_percent))),
                known(vm.next_hour.as_ref().map(|next| figures::percent(next.cpu_peak_percent))),
            ]);
            let history = figures::seconds(vm.history_seconds);
            row.extend([cell(&vm.host), cell(vm.epoch.to_string()), cell(history)]);
            let rules = vm.rules.join("; ");
            row.extend([cell(vm.excluded.as_deref().unwrap_or("")), cell(rules), cell(&vm.id)]);
        }
        row.push(coloured(vm.trouble.as_deref().unwrap_or(""), Some(Color::Red)));
        table.row(row);
    }
    table.text()
}

/// Who sends how much to whom.
pub(crate) fn traffic(flows: &[FlowView], look: Look) -> String {
    if flows.is_empty() {
        return "No VM on this host has sent or received of late.".to_owned();
    }
    let mut table = Table::new(look).words("FROM").words("TO").figures("PACKETS/s");
    table = table.figures("TRAFFIC");
    if look.wide {
        table = table.figures("PACKET SIZE").words("FROM ID").words("TO ID");
    }
    for flow in flows {
        let mut row = vec![
            cell(&flow.from),
            cell(&flow.to),
            cell(figures::count(flow.packets_per_second)),
            cell(figures::bits_per_second(flow.bits_per_second)),
        ];
        if look.wide {
            let size = (flow.bits_per_second / 8).checked_div(flow.packets_per_second);
            row.push(cell(size.map(figures::bytes).unwrap_or_default()));
            row.push(cell(flow.from_id.as_deref().unwrap_or("")));
            row.push(cell(flow.to_id.as_deref().unwrap_or("")));
        }
        table.row(row);
    }
    table.text()
}

/// All that is known of one VM.
pub(crate) fn vm(vm: &VmView, look: Look) -> String {
    let mut lines = Table::new(look).words("").words("");
    let mut line = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            lines.row(vec![cell(name), cell(value)]);
        }
    };
    let core = |percent: f64| figures::percent(percent) + " of a core";
    line("VM", Some(vm.name.clone()));
    line("id", Some(vm.id.clone()));
    line("host", Some(vm.host.clone()));
    line("state", Some(vm.state.clone()));
    line("epoch", Some(vm.epoch.to_string()));
    line("CPU", Some(core(vm.cpu_percent)));
    line("its vCPUs", vm.vcpu_percent.map(core));
    line("they waited", vm.cpu_wait_percent.map(core));
    line("memory", Some(figures::mib(vm.memory_mib)));
    line("guest uses", vm.guest_memory_mib.map(figures::mib));
    let dirties = vm.dirty_mib_per_second.map(|rate| rate.saturating_mul(1 << 20));
    line("dirties", dirties.map(figures::bytes_per_second));
    let (sent, received) = (vm.sent_packets_per_second, vm.received_packets_per_second);
    line("sent", Some(figures::count(sent) + " packets/s"));
    line("received", Some(figures::count(received) + " packets/s"));
    line("traffic", Some(figures::bits_per_second(vm.bits_per_second)));
    line("disk", vm.disk_bytes_per_second.map(figures::bytes_per_second));
    line("history", Some(figures::seconds(vm.history_seconds)));
    line("next hour", vm.next_hour.as_ref().map(next_hour));
    line("rules", (!vm.rules.is_empty()).then(|| vm.rules.join("; ")));
    line("share", vm.share.as_ref().map(share));
    line("excluded", vm.excluded.clone());
    line("trouble", vm.trouble.clone());
    lines.text_without_header()
}

fn next_hour(next: &NextHourView) -> String {
    format!(
        "CPU {} of a core, {} in its highest quarter; traffic {}, {} in its highest quarter",
        figures::percent(next.cpu_mean_percent),
        figures::percent(next.cpu_peak_percent),
        figures::bits_per_second(next.mean_bits_per_second),
        figures::bits_per_second(next.peak_bits_per_second)
    )
}

fn share(share: &ShareView) -> String {
    let weight = share.cpu_weight.map(|weight| format!("CPU weight {weight}"));
    let rate = share.receives_bits_per_second_max;
    let rate = rate.map(|rate| format!("receives {} at most", figures::bits_per_second(rate)));
    let given: Vec<String> = [weight, rate].into_iter().flatten().collect();
    let trouble = share.trouble.as_ref().map(|trouble| format!("; NOT all given: {trouble}"));
    format!("{}: {}{}", given.join(", "), share.why, trouble.unwrap_or_default())
}

/// The VMs of all hosts.
pub(crate) fn all_vms(vms: &[VmPlace], look: Look) -> String {
    if vms.is_empty() {
        return "No VMs are known.".to_owned();
    }
    let mut table = Table::new(look).words("VM").words("HOST").words("STATE").figures("MEMORY");
    table = table.figures("EPOCH").figures("AGE");
    if look.wide {
        table = table.words("ID");
    }
    for vm in vms {
        let state = match vm.state.as_str() {
            "paused" | "doubtful" => Some(Color::Yellow),
            "down" => Some(Color::Red),
            _ => None,
        };
        let host = match vm.host_state.as_str() {
            "alive" => cell(&vm.host),
            other => coloured(format!("{} ({other})", vm.host), Some(Color::Yellow)),
        };
        let mut row = vec![
            cell(&vm.name),
            host,
            coloured(&vm.state, state),
            cell(figures::mib(vm.memory_mib)),
            cell(vm.epoch.to_string()),
            cell(format!("{:.0} s", vm.age_seconds)),
        ];
        if look.wide {
            row.push(cell(&vm.id));
        }
        table.row(row);
    }
    table.text()
}

/// The moves from and to this host.
pub(crate) fn moves(moves: &[MoveView], look: Look) -> String {
    if moves.is_empty() {
        return "No moves yet.".to_owned();
    }
    let mut table = Table::new(look)
        .words("MOVE")
        .words_at_least("BEGAN (UTC)", figures::TIME_WIDTH)
        .words("VM")
        .words("FROM")
        .words("TO");
    table = table.words("PHASE").figures("COPIED").figures("TOOK").figures("DOWNTIME");
    if look.wide {
        table = table
            .figures("ROUNDS")
            .figures("ACCEPTED")
            .figures("REFUSED")
            .figures("PROMISED")
            .figures("MEASURED")
            .words("VM ID")
            .words("REASON");
    }
    table = table.words("OUTCOME");
    for one in moves {
        let phase = match one.phase.as_str() {
            "done" => Some(Color::Green),
            "abandoned" => Some(Color::Red),
            _ => Some(Color::Cyan),
        };
        let mut row = vec![
            cell(&one.id),
            cell(figures::time(&one.began)),
            cell(&one.vm),
            cell(&one.from),
            cell(one.to.as_deref().unwrap_or("")),
            coloured(&one.phase, phase),
            cell(figures::bytes(one.copied_bytes)),
            cell(one.total_ms.map(figures::milliseconds).unwrap_or_default()),
            cell(one.downtime_ms.map(figures::milliseconds).unwrap_or_default()),
        ];
        if look.wide {
            let counts = [one.rounds, one.acceptances, one.refusals];
            row.extend(counts.map(|count| cell(count.to_string())));
            let relief = [one.promised_percent, one.measured_percent];
            row.extend(relief.map(|it| cell(it.map(figures::percent).unwrap_or_default())));
            row.extend([cell(&one.vm_id), cell(&one.reason)]);
        }
        row.push(cell(one.outcome.as_deref().unwrap_or("")));
        table.row(row);
    }
    table.text()
}

/// The moves of all hosts: why each VM moved and whether that paid.
pub(crate) fn all_moves(moves: &[MoveView], look: Look) -> String {
    if moves.is_empty() {
        return "No host tells of a move since its agent was started.".to_owned();
    }
    let mut table = Table::new(look).words("MOVE");
    table = table.words_at_least("BEGAN (UTC)", figures::TIME_WIDTH).words("VM");
    table = table.words("FROM").words("TO").words("PHASE").figures("PROMISED").figures("MEASURED");
    table = table.words("PAID").words("WHY");
    for one in moves {
        let paid = match one.paid {
            Some(true) => coloured("yes", Some(Color::Green)),
            Some(false) => coloured("no", Some(Color::Red)),
            None => cell(""),
        };
        let relief = [one.promised_percent, one.measured_percent];
        let [promised, measured] =
            relief.map(|it| cell(it.map(figures::percent).unwrap_or_default()));
        let abandoned = one.outcome.as_ref().filter(|_| one.phase == "abandoned");
        let why = abandoned
            .map_or_else(|| one.reason.clone(), |outcome| format!("{}; {outcome}", one.reason));
        table.row(vec![
            cell(&one.id),
            cell(figures::time(&one.began)),
            cell(&one.vm),
            cell(&one.from),
            cell(one.to.as_deref().unwrap_or("")),
            cell(&one.phase),
            promised,
            measured,
            paid,
            cell(why),
        ]);
    }
    table.text()
}

/// Why nothing was moved at some time: the hosts, by their reasons.
pub(crate) fn why_then(all: &[(String, Why)], look: Look) -> String {
    let mut table = Table::new(look).words("HOST").words("WHY");
    for (host, why) in all {
        table.row(vec![cell(host), cell(&why.verdict)]);
    }
    format!("{}\n\n`evenkeel --on HOST why --at TIME` tells more of one.", table.text())
}

/// Why something was done or not: the verdict, what was weighed, the story.
pub(crate) fn why(why: &Why, look: Look) -> String {
    let mut text = one_line(format!("{}: {}", why.about, why.verdict));
    for reason in &why.because {
        text.push_str("\n  - ");
        text.push_str(&one_line(reason.clone()));
    }
    if !why.events.is_empty() {
        text.push_str("\n\n");
        text.push_str(&events(&why.events, look));
    }
    text
}

/// Whether the host begins balancing moves.
pub(crate) fn balancer(balancer: &Balancer) -> String {
    let Balancer { host, on, balance } = balancer;
    one_line(if *on {
        format!("The balancer of {host} is on; balance is {balance:?}.")
    } else {
        format!("The balancer of {host} is off: it begins no balancing move.")
    })
}

/// That a move of `vm` has begun, and how to follow it.
pub(crate) fn move_started(vm: &str, started: &MoveStarted) -> String {
    let id = &started.move_id;
    let over = overridden(&started.overridden);
    one_line(format!(
        "Move {id} of {vm} has begun.{over} Follow it with `evenkeel events -f --move {id}`."
    ))
}

/// What a move overrides, as a sentence that follows another; nothing, where it is nothing.
fn overridden(what: &[String]) -> String {
    if what.is_empty() { String::new() } else { format!(" Overridden: {}.", what.join("; ")) }
}

/// That the agent was told to cancel a move, and how to see what came of it.
pub(crate) fn cancel_told(view: &MoveView) -> String {
    let MoveView { id, vm, phase, .. } = view;
    one_line(format!(
        "Move {id} of {vm} ({phase}) is being cancelled. See `evenkeel moves` for how it ends."
    ))
}

/// What is known of a move that may need a person, and what the person may say.
pub(crate) fn unsettled(unsettled: &Unsettled) -> String {
    let Unsettled { move_id, vm, peer, known, choices } = unsettled;
    let mut lines = vec![format!("Move {move_id} of {vm} is open. What is known:")];
    lines.extend(known.iter().map(|line| format!("  - {line}")));
    lines.push("What you may say:".to_owned());
    lines.extend(choices.iter().map(|choice| {
        let (option, means) = match choice.decision {
            Decision::KeepHere => (
                format!("--keep-here --fenced {peer}"),
                format!("{vm} is this host's; it does not run on {peer} and will not"),
            ),
            Decision::GiveUp => (
                "--give-up".to_owned(),
                format!("{vm} is not this host's; its stopped copy here goes"),
            ),
        };
        match &choice.against {
            None => format!("  {option}: {means}"),
            Some(why) => format!("  {option}: not now: {why}"),
        }
    }));
    lines.into_iter().map(one_line).collect::<Vec<_>>().join("\n")
}

/// How a move ended, in one sentence.
pub(crate) fn move_ended(ended: &MoveView) -> String {
    let MoveView { id, vm, from, .. } = ended;
    if ended.phase != "done" {
        let outcome = ended.outcome.as_deref().unwrap_or("no reason is known");
        return one_line(format!(
            "{vm} was not moved from {from}: {outcome}. See `evenkeel why {id}`."
        ));
    }
    let to = ended.to.as_deref().unwrap_or("another host");
    let bytes = figures::bytes(ended.copied_bytes);
    let rounds =
        if ended.rounds == 1 { "1 round".to_owned() } else { format!("{} rounds", ended.rounds) };
    let total = ended
        .total_ms
        .map(|ms| format!(", took {}", figures::milliseconds(ms)))
        .unwrap_or_default();
    let pause = ended
        .downtime_ms
        .map(|ms| format!(", paused {}", figures::milliseconds(ms)))
        .unwrap_or_default();
    let over = overridden(&ended.overridden);
    one_line(format!("{vm} moved from {from} to {to}: {bytes} in {rounds}{total}{pause}.{over}"))
}
