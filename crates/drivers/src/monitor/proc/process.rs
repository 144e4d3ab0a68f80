//! A hypervisor process and its vCPU threads.
//!
//! Formats: proc(5); Documentation/scheduler/sched-stats.rst (`/proc/<pid>/schedstat`).
//!
//! **Invariant:** an open file of a process or thread belongs to the one it was opened for. Once that is gone, reading it
//! fails, whoever has its number by then.

use decide::units::Mib;
use decide::usage::reading::VcpuCounters;

use super::{Page, microseconds, unless_gone};
use crate::monitor::MonitorError;

/// What is read of a hypervisor process in one cycle.
#[derive(Debug, PartialEq)]
pub(in crate::monitor) struct ProcessUsage {
    pub(in crate::monitor) cpu_us: u64,
    pub(in crate::monitor) memory: Mib,
}

/// A hypervisor process of a VM.
#[derive(Debug)]
pub(in crate::monitor) struct Process {
    pid: u32,
    start: u64,
    stat: Page,
    /// In the order of the numbers that were asked for.
    vcpus: Vec<(u32, Page)>,
}

impl Process {
    /// None if it is gone.
    pub(in crate::monitor) fn open(pid: u32, start: u64) -> Result<Option<Process>, MonitorError> {
        let open = Page::open(format!("/proc/{pid}/stat"));
        Ok(unless_gone(open)?.map(|stat| Process { pid, start, stat, vcpus: Vec::new() }))
    }

    pub(in crate::monitor) fn is(&self, pid: u32, start: u64) -> bool {
        self.pid == pid && self.start == start
    }

    /// Its vCPU threads; None unless all of them are there and can be read. Whoever named them looks again from time to time.
    pub(in crate::monitor) fn read_vcpus(
        &mut self,
        threads: &[u32],
        bytes: &mut Vec<u8>,
    ) -> Option<VcpuCounters> {
        if !self.vcpus.iter().map(|(thread, _)| thread).eq(threads) {
            let open = |thread: &u32| {
                let page = Page::open(format!("/proc/{}/task/{thread}/schedstat", self.pid));
                page.ok().map(|page| (*thread, page))
            };
            self.vcpus = threads.iter().map(open).collect::<Option<_>>().unwrap_or_default();
        }
        let mut sum = VcpuCounters::default();
        for (_, page) in &self.vcpus {
            let (ran_ns, waited_ns) = page.read_short(bytes).ok().and_then(schedstat)?;
            sum.threads += 1;
            sum.ran_us = sum.ran_us.saturating_add(ran_ns / 1000);
            sum.waited_us = sum.waited_us.saturating_add(waited_ns / 1000);
        }
        (sum.threads > 0).then_some(sum)
    }

    /// None if it is gone, a zombie, or another one that was given its number. `bytes` is room to read into.
    pub(in crate::monitor) fn read(
        &self,
        bytes: &mut Vec<u8>,
    ) -> Result<Option<ProcessUsage>, MonitorError> {
        let Some(bytes) = unless_gone(self.stat.read_short(bytes))? else { return Ok(None) };
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

/// Fields of /proc/PID/stat, as far as they are used.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ProcessStat {
    pub(super) ended: bool,
    pub(super) ticks: u64,
    pub(super) start: u64,
    pub(super) resident_pages: u64,
}

/// The name of the process may hold anything, blanks and parentheses too: the fields begin after the last one.
pub(super) fn process_stat(stat: &[u8]) -> Option<ProcessStat> {
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

/// Nanoseconds in which a thread ran, and in which it wanted to run and waited for a processor.
pub(super) fn schedstat(text: &[u8]) -> Option<(u64, u64)> {
    let text = str::from_utf8(text).ok()?;
    let mut fields = text.split_ascii_whitespace();
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}
