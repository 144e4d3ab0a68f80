//! What a person has chosen to see, and what each key does.

use std::cmp::Ordering;

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::seen::{Seen, Vm};

/// What comes after a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Go,
    End,
}

/// What VMs are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Cpu,
    Packets,
    Memory,
    Name,
    Host,
}

impl Order {
    pub(super) const ALL: [Order; 5] =
        [Order::Cpu, Order::Packets, Order::Memory, Order::Name, Order::Host];

    /// As the head of its column has it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Order::Cpu => "CPU",
            Order::Packets => "PACKETS/S",
            Order::Memory => "MEMORY",
            Order::Name => "VM",
            Order::Host => "HOST",
        }
    }

    /// Of figures the greatest comes first, of words the first.
    fn of(self, one: &Vm<'_>, other: &Vm<'_>) -> Ordering {
        let cpu = |vm: &Vm<'_>| vm.here.map_or(-1.0, |vm| vm.cpu_percent);
        let name = |vm: &Vm<'_>| vm.place.name.clone();
        let by_name = name(one).cmp(&name(other));
        match self {
            Order::Cpu => cpu(other).total_cmp(&cpu(one)),
            Order::Packets => packets(other).cmp(&packets(one)),
            Order::Memory => other.place.memory_mib.cmp(&one.place.memory_mib),
            Order::Name => by_name,
            Order::Host => one.place.host.cmp(&other.place.host),
        }
        .then(by_name)
    }
}

/// Both directions; absent where another host measures them.
pub(super) fn packets(vm: &Vm<'_>) -> Option<u64> {
    vm.here.map(|vm| vm.sent_packets_per_second + vm.received_packets_per_second)
}

/// What is chosen.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) colours: bool,
    pub(super) order: Order,
    /// Only VMs whose name or host has this in it.
    pub(super) filter: String,
    /// Whether keys go into the filter.
    pub(super) typing: bool,
    /// Only VMs of the host that answers.
    pub(super) only_here: bool,
    /// VMs above the first that is shown.
    pub(super) scrolled: usize,
}

impl View {
    pub(super) fn new(colours: bool) -> View {
        View {
            colours,
            order: Order::Cpu,
            filter: String::new(),
            typing: false,
            only_here: false,
            scrolled: 0,
        }
    }

    /// The VMs to show, in their order.
    pub(super) fn vms<'a>(&self, seen: &'a Seen) -> Vec<Vm<'a>> {
        let wanted = |vm: &Vm<'_>| {
            let held = |text: &str| text.to_lowercase().contains(&self.filter.to_lowercase());
            (held(&vm.place.name) || held(&vm.place.host))
                && (!self.only_here || vm.place.host == seen.status.host)
        };
        let mut vms: Vec<Vm<'_>> = seen.all().filter(wanted).collect();
        vms.sort_by(|one, other| self.order.of(one, other));
        vms
    }

    /// Does what a key says.
    pub(super) fn key(&mut self, key: KeyEvent, seen: &Seen) -> Next {
        if key.kind == KeyEventKind::Release {
            return Next::Go;
        }
        if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) {
            return Next::End;
        }
        if self.typing {
            self.typed(key.code);
            return Next::Go;
        }
        let last = self.vms(seen).len().saturating_sub(1);
        #[expect(clippy::wildcard_enum_match_arm, reason = "all other keys do nothing")]
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return Next::End,
            KeyCode::Char('s') => self.order = after(self.order),
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Char('h') => self.only_here = !self.only_here,
            KeyCode::Down | KeyCode::Char('j') => self.scrolled = (self.scrolled + 1).min(last),
            KeyCode::Up | KeyCode::Char('k') => self.scrolled = self.scrolled.saturating_sub(1),
            KeyCode::PageDown => self.scrolled = (self.scrolled + 10).min(last),
            KeyCode::PageUp => self.scrolled = self.scrolled.saturating_sub(10),
            KeyCode::Home => self.scrolled = 0,
            _ => {}
        }
        Next::Go
    }

    fn typed(&mut self, code: KeyCode) {
        self.scrolled = 0;
        #[expect(clippy::wildcard_enum_match_arm, reason = "all other keys do nothing")]
        match code {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => (self.typing, self.filter) = (false, String::new()),
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(c) if self.filter.len() < 64 => self.filter.push(c),
            _ => {}
        }
    }
}

fn after(order: Order) -> Order {
    let at = Order::ALL.iter().position(|one| *one == order).unwrap_or(0);
    Order::ALL[(at + 1) % Order::ALL.len()]
}
