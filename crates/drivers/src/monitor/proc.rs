//! Processor, memory and pressure of the host and its hypervisor processes, from files that stay open between cycles.
//!
//! Formats: proc(5); Documentation/accounting/psi.rst; Documentation/ABI/testing/sysfs-class-net.
//!
//! **Invariant:** an open /proc/PID/stat belongs to the process it was opened for. Once that is gone, reading it fails,
//! whoever has its number by then.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use decide::units::{BitsPerSec, Mib};
use decide::usage::reading::Pressure;
use rustix::io::Errno;

use super::MonitorError;

/// A file of /proc that is read again and again. Reading from its start makes the kernel write it anew.
#[derive(Debug)]
struct Page {
    path: String,
    file: File,
}

impl Page {
    fn open(path: impl Into<String>) -> Result<Page, MonitorError> {
        let path = path.into();
        match File::open(&path) {
            Ok(file) => Ok(Page { path, file }),
            Err(source) => Err(MonitorError::Unreadable { what: path, source }),
        }
    }

    /// The whole file as it is now.
    fn read<'a>(&self, bytes: &'a mut Vec<u8>) -> Result<&'a [u8], MonitorError> {
        let mut length = 0;
        loop {
            if bytes.len() < length + 4096 {
                bytes.resize(length + 16 * 1024, 0);
            }
            let offset = u64::try_from(length).expect("usize has at most 64 bits");
            match self.file.read_at(&mut bytes[length..], offset) {
                Ok(0) => return Ok(&bytes[..length]),
                Ok(more) => length += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(MonitorError::unreadable(self.path.clone(), error)),
            }
        }
    }

    fn garbled(&self, why: &'static str) -> MonitorError {
        MonitorError::Garbled { what: self.path.clone(), why }
    }
}

/// What is read of the host in one cycle.
#[derive(Debug, PartialEq)]
pub(super) struct HostUsage {
    pub(super) cpu_us: u64,
    pub(super) cores: u32,
    pub(super) memory_total: Mib,
    pub(super) memory_available: Mib,
    pub(super) pressure: Option<Pressure>,
}

/// The files that tell of the host.
#[derive(Debug)]
pub(super) struct HostFiles {
    stat: Page,
    meminfo: Page,
    /// Processor, memory, disk; absent where the kernel lacks it or was told not to keep it.
    pressure: Option<[Page; 3]>,
    bytes: Vec<u8>,
}

impl HostFiles {
    pub(super) fn open() -> Result<HostFiles, MonitorError> {
        Ok(HostFiles {
            stat: Page::open("/proc/stat")?,
            meminfo: Page::open("/proc/meminfo")?,
            pressure: open_pressure()?,
            bytes: Vec::new(),
        })
    }

    pub(super) fn read(&mut self) -> Result<HostUsage, MonitorError> {
        let (cpu_us, cores) = processors(self.stat.read(&mut self.bytes)?)
            .ok_or_else(|| self.stat.garbled("no line of ten processor times, or no processor"))?;
        let (memory_total, memory_available) = memory(self.meminfo.read(&mut self.bytes)?)
            .ok_or_else(|| self.meminfo.garbled("no MemTotal, or no MemAvailable"))?;
        let mut pressure = None;
        if let Some([cpu, memory, io]) = &self.pressure {
            let mut share = |page: &Page| {
                some_avg10(page.read(&mut self.bytes)?)
                    .ok_or_else(|| page.garbled("no line `some avg10=`"))
            };
            pressure = Some(Pressure { cpu: share(cpu)?, memory: share(memory)?, io: share(io)? });
        }
        Ok(HostUsage { cpu_us, cores, memory_total, memory_available, pressure })
    }
}

fn open_pressure() -> Result<Option<[Page; 3]>, MonitorError> {
    let open = |what| Page::open(format!("/proc/pressure/{what}"));
    match (|| Ok([open("cpu")?, open("memory")?, open("io")?]))() {
        Ok(pages) => Ok(Some(pages)),
        Err(MonitorError::Unreadable { source, .. })
            if source.kind() == io::ErrorKind::NotFound
                || Errno::from_io_error(&source) == Some(Errno::OPNOTSUPP) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Time used by everything on the host in microseconds, and the processors that are on line.
///
/// User and nice time contain that of guests already; idle, waiting and stolen time were not used here.
fn processors(stat: &[u8]) -> Option<(u64, u32)> {
    let text = str::from_utf8(stat).ok()?;
    let mut used = None;
    let mut cores = 0;
    for line in text.lines().take_while(|line| line.starts_with("cpu")) {
        let mut fields = line.split_ascii_whitespace();
        if fields.next()? != "cpu" {
            cores += 1;
            continue;
        }
        let times: Vec<u64> = fields.map_while(|field| field.parse().ok()).collect();
        let [user, nice, system, _idle, _iowait, irq, softirq, _steal, ..] = times[..] else {
            return None;
        };
        let ticks = [user, nice, system, irq, softirq].into_iter().fold(0, u64::saturating_add);
        used = Some(microseconds(ticks));
    }
    used.filter(|_| cores > 0).map(|used| (used, cores))
}

fn microseconds(ticks: u64) -> u64 {
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    ticks.saturating_mul(1_000_000) / per_second
}

/// All of it, and what could be had without swapping.
fn memory(meminfo: &[u8]) -> Option<(Mib, Mib)> {
    let text = str::from_utf8(meminfo).ok()?;
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
        Some(Mib(kib / 1024))
    };
    Some((value("MemTotal")?, value("MemAvailable")?))
}

/// Share of the last ten seconds in which some task waited: 0 to 1.
fn some_avg10(pressure: &[u8]) -> Option<f64> {
    let text = str::from_utf8(pressure).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("some avg10="))?;
    let percent: f64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    Some(percent / 100.0)
}

/// What is read of a hypervisor process in one cycle.
#[derive(Debug, PartialEq)]
pub(super) struct ProcessUsage {
    pub(super) cpu_us: u64,
    pub(super) memory: Mib,
}

/// A hypervisor process of a VM.
#[derive(Debug)]
pub(super) struct Process {
    pid: u32,
    start: u64,
    stat: Page,
}

impl Process {
    /// None if it is gone.
    pub(super) fn open(pid: u32, start: u64) -> Result<Option<Process>, MonitorError> {
        let open = Page::open(format!("/proc/{pid}/stat"));
        Ok(unless_gone(open)?.map(|stat| Process { pid, start, stat }))
    }

    pub(super) fn is(&self, pid: u32, start: u64) -> bool {
        self.pid == pid && self.start == start
    }

    /// None if it is gone, a zombie, or another one that was given its number. `bytes` is room to read into.
    pub(super) fn read(&self, bytes: &mut Vec<u8>) -> Result<Option<ProcessUsage>, MonitorError> {
        let Some(bytes) = unless_gone(self.stat.read(bytes))? else { return Ok(None) };
        let stat = process_stat(bytes)
            .ok_or_else(|| self.stat.garbled("fewer fields than proc(5) has, or not numbers"))?;
        if stat.ended || stat.start != self.start {
            return Ok(None);
        }
        let page_size = u64::try_from(rustix::param::page_size()).expect("usize has 64 bits");
        Ok(Some(ProcessUsage {
            cpu_us: microseconds(stat.ticks),
            memory: Mib(stat.resident_pages.saturating_mul(page_size) >> 20),
        }))
    }
}

fn unless_gone<T>(result: Result<T, MonitorError>) -> Result<Option<T>, MonitorError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(MonitorError::Unreadable { source, .. })
            if source.kind() == io::ErrorKind::NotFound
                || Errno::from_io_error(&source) == Some(Errno::SRCH) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Fields of /proc/PID/stat, as far as they are used.
#[derive(Debug, PartialEq, Eq)]
struct ProcessStat {
    ended: bool,
    ticks: u64,
    start: u64,
    resident_pages: u64,
}

/// The name of the process may hold anything, blanks and parentheses too: the fields begin after the last one.
fn process_stat(stat: &[u8]) -> Option<ProcessStat> {
    let name_end = stat.iter().rposition(|byte| *byte == b')')?;
    let fields = str::from_utf8(&stat[name_end + 1..]).ok()?;
    // proc(5) counts from 1, and the first of these is its third.
    let mut fields = fields.split_ascii_whitespace();
    let ended = matches!(fields.next()?, "Z" | "X" | "x");
    let user: u64 = fields.nth(10)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    let start = fields.nth(6)?.parse().ok()?;
    let resident_pages = fields.nth(1)?.parse().ok()?;
    Some(ProcessStat { ended, ticks: user.saturating_add(system), start, resident_pages })
}

/// What the driver of the link says, if it says anything. The index is compared because /sys may show another network
/// namespace than the one that was read.
pub(super) fn link_speed(name: &str, ifindex: u32) -> Option<BitsPerSec> {
    let read = |file: &str| std::fs::read_to_string(format!("/sys/class/net/{name}/{file}")).ok();
    if read("ifindex")?.trim() != ifindex.to_string() {
        return None;
    }
    speed(&read("speed")?)
}

/// Megabits per second; −1 while unknown.
fn speed(text: &str) -> Option<BitsPerSec> {
    let megabits: u64 = text.trim().parse().ok()?;
    // Some drivers say 0 or the unsigned form of −1.
    (1..u64::from(u32::MAX)).contains(&megabits).then(|| BitsPerSec(megabits * 1_000_000))
}

#[cfg(test)]
mod tests;
