//! Processor, memory, pressure and disks of the host.
//!
//! Formats: proc(5); Documentation/accounting/psi.rst.

use std::io;

use decide::units::Mib;
use decide::usage::reading::{DiskCounters, Pressure};
use rustix::io::Errno;

use super::disks::Disks;
use super::{Page, microseconds};
use crate::monitor::MonitorError;

/// What is read of the host in one cycle.
#[derive(Debug, PartialEq)]
pub(in crate::monitor) struct HostUsage {
    pub(in crate::monitor) cpu_us: u64,
    pub(in crate::monitor) cores: u32,
    pub(in crate::monitor) memory_total: Mib,
    pub(in crate::monitor) memory_available: Mib,
    pub(in crate::monitor) pressure: Option<Pressure>,
    pub(in crate::monitor) disk: Option<DiskCounters>,
}

/// The files that tell of the host.
#[derive(Debug)]
pub(in crate::monitor) struct HostFiles {
    stat: Page,
    meminfo: Page,
    /// Processor, memory, disk; absent where the kernel lacks it or was told not to keep it.
    pressure: Option<[Page; 3]>,
    /// Absent where the kernel has no disks.
    disks: Option<Disks>,
    bytes: Vec<u8>,
}

impl HostFiles {
    pub(in crate::monitor) fn open() -> Result<HostFiles, MonitorError> {
        Ok(HostFiles {
            stat: Page::open("/proc/stat")?,
            meminfo: Page::open("/proc/meminfo")?,
            pressure: open_pressure()?,
            disks: Disks::open()?,
            bytes: Vec::new(),
        })
    }

    pub(in crate::monitor) fn read(&mut self) -> Result<HostUsage, MonitorError> {
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
        let disk = match &mut self.disks {
            Some(disks) => Some(disks.read(&mut self.bytes)?),
            None => None,
        };
        Ok(HostUsage { cpu_us, cores, memory_total, memory_available, pressure, disk })
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
pub(super) fn processors(stat: &[u8]) -> Option<(u64, u32)> {
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

/// All of it, and what could be had without swapping.
pub(super) fn memory(meminfo: &[u8]) -> Option<(Mib, Mib)> {
    let text = str::from_utf8(meminfo).ok()?;
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
        Some(Mib(kib / 1024))
    };
    Some((value("MemTotal")?, value("MemAvailable")?))
}

/// Share of the last ten seconds in which some task waited: 0 to 1.
pub(super) fn some_avg10(pressure: &[u8]) -> Option<f64> {
    let text = str::from_utf8(pressure).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("some avg10="))?;
    let percent: f64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    Some(percent / 100.0)
}
