//! All disks of the host together.
//!
//! Format: Documentation/admin-guide/iostats.rst.
//!
//! **Invariant:** what reaches a disk is counted once: partitions, and devices that the kernel makes of others (dm, md, loop)
//! or of memory (zram), are left out.

use std::collections::BTreeMap;
use std::io;

use decide::units::Bytes;
use decide::usage::reading::DiskCounters;

use super::Page;
use crate::monitor::MonitorError;

/// What the kernel counts in, whatever the disk's own blocks are.
const SECTOR: u64 = 512;

/// The counters of all block devices, and which of them are disks.
#[derive(Debug)]
pub(super) struct Disks {
    diskstats: Page,
    /// By number and name, so that another device of the same name is looked at anew.
    is_disk: BTreeMap<String, bool>,
}

impl Disks {
    /// None where the kernel has no block devices.
    pub(super) fn open() -> Result<Option<Disks>, MonitorError> {
        match Page::open("/proc/diskstats") {
            Ok(diskstats) => Ok(Some(Disks { diskstats, is_disk: BTreeMap::new() })),
            Err(MonitorError::Unreadable { source, .. })
                if source.kind() == io::ErrorKind::NotFound =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    pub(super) fn read(&mut self, bytes: &mut Vec<u8>) -> Result<DiskCounters, MonitorError> {
        let text = self.diskstats.read(bytes)?;
        let mut seen = BTreeMap::new();
        let sum = disk_counters(text, |device, name| {
            let known = self.is_disk.get(device).copied();
            *seen.entry(device.to_owned()).or_insert_with(|| known.unwrap_or_else(|| is_disk(name)))
        });
        self.is_disk = seen;
        sum.ok_or_else(|| self.diskstats.garbled("fewer than ten fields, or not numbers"))
    }
}

/// A disk has a device behind it; what the kernel makes of others, or of memory, has none, and a partition is not listed.
fn is_disk(name: &str) -> bool {
    std::path::Path::new(&format!("/sys/block/{name}/device")).exists()
}

/// The sum over all lines of devices that count, each told by `major:minor name` and name.
pub(super) fn disk_counters(
    text: &[u8],
    mut counts: impl FnMut(&str, &str) -> bool,
) -> Option<DiskCounters> {
    let mut sum = DiskCounters::default();
    for line in str::from_utf8(text).ok()?.lines() {
        let mut fields = line.split_ascii_whitespace();
        let (major, minor, name) = (fields.next()?, fields.next()?, fields.next()?);
        // A slash in a device's name is written as `!` under /sys.
        let name = name.replace('/', "!");
        if !counts(&format!("{major}:{minor} {name}"), &name) {
            continue;
        }
        let mut number = |skip: usize| fields.nth(skip)?.parse::<u64>().ok();
        let (reads, read, writes, written) = (number(0)?, number(1)?, number(1)?, number(1)?);
        sum.requests = sum.requests.saturating_add(reads).saturating_add(writes);
        sum.read = sum.read.plus(Bytes(read.saturating_mul(SECTOR)));
        sum.written = sum.written.plus(Bytes(written.saturating_mul(SECTOR)));
    }
    Some(sum)
}
