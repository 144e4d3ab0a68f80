//! The screen: two lines of what goes on, then hosts, moves, VMs, and the keys.

use api::{HostView, MoveView};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row, Table};

use super::heat;
use super::seen::{Seen, Vm};
use super::view::{Order, View, packets};
use crate::show::figures::{bits_per_second, count, mib, percent};

/// Cells of a bar.
const BAR: usize = 10;
/// Moves that are shown.
const MOVES: usize = 4;
/// Hosts that are shown at the most, and never more than a third of the screen: the rest is counted.
const HOSTS: usize = 16;

pub(super) fn draw(frame: &mut Frame<'_>, view: &View, seen: &Seen) {
    let fit = usize::from(frame.area().height / 3).clamp(1, HOSTS);
    let hosts = seen.hosts.len().min(fit) + 1 + usize::from(seen.hosts.len() > fit);
    let moves = seen.moves().take(MOVES).count();
    let rows = [3, rows(hosts) + 1, if moves == 0 { 0 } else { rows(moves) + 2 }];
    let [head, hosts, moves, vms, keys] = Layout::vertical([
        Constraint::Length(rows[0]),
        Constraint::Length(rows[1]),
        Constraint::Length(rows[2]),
        Constraint::Min(3),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(Paragraph::new(headline(view, seen)), head);
    of_hosts(frame, hosts, view, (seen, fit));
    of_moves(frame, moves, view, seen);
    of_vms(frame, vms, view, seen);
    frame.render_widget(Paragraph::new(help(view)), keys);
}

fn rows(count: usize) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}

impl View {
    fn style(&self, colour: Color) -> Style {
        if self.colours { Style::new().fg(colour) } else { Style::new() }
    }
}

/// Heads of columns differ from what stands under them also without colours.
fn head<const N: usize>(names: [&'static str; N]) -> Row<'static> {
    Row::new(names).style(Style::new().add_modifier(Modifier::BOLD))
}

fn headline<'a>(view: &View, seen: &'a Seen) -> Vec<Line<'a>> {
    let status = &seen.status;
    let balance = if status.balancer_on { status.balance.as_str() } else { "off here" };
    let missing = status.hosts_alive < status.hosts_known;
    let alive = format!("{} of {} hosts alive", status.hosts_alive, status.hosts_known);
    let first = Line::from(vec![
        Span::styled(format!("{} ", status.cluster), Style::new().add_modifier(Modifier::BOLD)),
        Span::raw(format!("at {}   ", status.host)),
        Span::styled(alive, if missing { view.style(Color::Red) } else { Style::new() }),
        Span::raw(format!("   moves under way {}   balance {balance}", status.moves_under_way)),
    ]);
    let second = match (&seen.trouble, status.alarms.first()) {
        (Some(trouble), _) => Line::styled(
            format!("NO ANSWER, this is from before: {trouble}"),
            view.style(Color::Red),
        ),
        (None, Some(alarm)) => {
            let more = status.alarms.len();
            Line::styled(format!("ALARM (1 of {more}) {alarm}"), view.style(Color::Red))
        }
        (None, None) => Line::raw(status.doing.as_str()),
    };
    vec![first, second, Line::raw("")]
}

/// A bar, and the figure beside it, which alone must do without colours.
fn bar<'a>(view: &View, value: f64) -> Cell<'a> {
    let of_ten = (value.clamp(0.0, 100.0) / 10.0).round();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 10")]
    let full = of_ten as usize;
    let drawn = format!("{}{}", "█".repeat(full), "░".repeat(BAR - full));
    Cell::from(Line::from(vec![
        Span::styled(drawn, view.style(heat(value))),
        Span::raw(format!(" {:>6}", percent(value))),
    ]))
}

fn of_hosts(frame: &mut Frame<'_>, area: Rect, view: &View, (seen, fit): (&Seen, usize)) {
    let row = |host: &HostView| {
        let known = host.age_seconds.is_some();
        let figure = |text: String| if known { text } else { "-".to_owned() };
        let bars = |value: f64| if known { bar(view, value) } else { Cell::from("-") };
        let mark = match (host.hot, host.state.as_str()) {
            (true, "alive") => Cell::from(Span::styled("HOT", view.style(Color::Red))),
            _ => Cell::from(""),
        };
        let state = match host.state.as_str() {
            "alive" => Style::new(),
            _ => view.style(Color::Red),
        };
        let name = if host.local { format!("{}*", host.name) } else { host.name.clone() };
        Row::new(vec![
            Cell::from(name),
            Cell::from(Span::styled(host.state.clone(), state)),
            bars(host.cpu_percent),
            bars(host.memory_percent),
            Cell::from(figure(count(host.packets_per_second))),
            Cell::from(figure(bits_per_second(host.bits_per_second))),
            Cell::from(host.vms.to_string()),
            mark,
        ])
    };
    let mut all: Vec<Row<'_>> = seen.hosts.iter().take(fit).map(row).collect();
    if let Some(more) = seen.hosts.len().checked_sub(fit).filter(|more| *more > 0) {
        all.push(Row::new([format!("and {more} more")]));
    }
    let widths = [20, 8, 18, 18, 11, 12, 5, 4].map(Constraint::Max);
    let names = ["HOST", "STATE", "CPU", "MEMORY", "PACKETS/S", "NETWORK", "VMS", ""];
    frame.render_widget(Table::new(all, widths).header(head(names)), area);
}

fn of_moves(frame: &mut Frame<'_>, area: Rect, view: &View, seen: &Seen) {
    let row = |one: &MoveView| {
        let to = one.to.as_deref().unwrap_or("?");
        #[expect(clippy::cast_precision_loss, reason = "a share of it is shown")]
        let share = match one.total_bytes {
            0 => 0.0,
            total => 100.0 * one.copied_bytes as f64 / total as f64,
        };
        let copied = match (one.ended, one.total_bytes) {
            (true, _) => Cell::from(one.outcome.clone().unwrap_or_default()),
            (false, 0) => {
                Cell::from(format!("{} accept, {} refuse", one.acceptances, one.refusals))
            }
            (false, _) => bar(view, share),
        };
        Row::new(vec![
            Cell::from(one.vm.clone()),
            Cell::from(format!("{} → {to}", one.from)),
            Cell::from(one.phase.clone()),
            copied,
            Cell::from(one.reason.clone()),
        ])
    };
    let widths = [
        Constraint::Max(20),
        Constraint::Max(20),
        Constraint::Max(13),
        Constraint::Max(24),
        Constraint::Min(10),
    ];
    let table = Table::new(seen.moves().take(MOVES).map(row), widths);
    frame.render_widget(table.header(head(["MOVE", "FROM AND TO", "PHASE", "COPY", "WHY"])), area);
}

fn of_vms(frame: &mut Frame<'_>, area: Rect, view: &View, seen: &Seen) {
    let row = |vm: Vm<'_>| {
        let elsewhere = || "-".to_owned();
        let state = match vm.place.state.as_str() {
            "running" => Style::new(),
            _ => view.style(Color::Yellow),
        };
        Row::new(vec![
            Cell::from(vm.place.name.clone()),
            Cell::from(vm.place.host.clone()),
            Cell::from(Span::styled(vm.place.state.clone(), state)),
            Cell::from(vm.here.map_or_else(elsewhere, |vm| percent(vm.cpu_percent))),
            Cell::from(mib(vm.place.memory_mib)),
            Cell::from(packets(&vm).map_or_else(elsewhere, count)),
            Cell::from(vm.here.map_or_else(elsewhere, |vm| bits_per_second(vm.bits_per_second))),
        ])
    };
    let all = view.vms(seen);
    let widths = [24, 20, 10, 10, 10, 11, 12].map(Constraint::Max);
    let names = ["VM", "HOST", "STATE", "CPU", "MEMORY", "PACKETS/S", "NETWORK"];
    let marked = |name: &'static str| {
        let sorted = view.order.name() == name;
        let style =
            if sorted { Style::new().add_modifier(Modifier::UNDERLINED) } else { Style::new() };
        Cell::from(Span::styled(name, style))
    };
    let header = Row::new(names.map(marked)).style(Style::new().add_modifier(Modifier::BOLD));
    let shown = all.into_iter().skip(view.scrolled).map(row);
    frame.render_widget(Table::new(shown, widths).header(header), area);
}

fn help(view: &View) -> String {
    if view.typing {
        return format!("filter: {}_   enter keeps it, esc drops it", view.filter);
    }
    let filter = match view.filter.as_str() {
        "" => String::new(),
        filter => format!(" ({filter})"),
    };
    let here = if view.only_here { "all hosts" } else { "this host" };
    let order = Order::name(view.order);
    format!("q end   s sort (by {order})   / filter{filter}   h {here}   ↑↓ scroll")
}
