//! Files of /proc and /sys that stay open between cycles: of the host (`host`), its disks (`disks`), and its hypervisor
//! processes (`process`).
//!
//! Formats: proc(5); Documentation/ABI/testing/sysfs-class-net.

mod disks;
mod host;
mod process;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use decide::units::BitsPerSec;
use rustix::io::Errno;

use super::MonitorError;

pub(super) use self::host::HostFiles;
pub(super) use self::process::Process;

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

    /// A file that the kernel writes in one go (`single_open`) and that is surely shorter than a page: whole in one call.
    fn read_short<'a>(&self, bytes: &'a mut Vec<u8>) -> Result<&'a [u8], MonitorError> {
        bytes.resize(bytes.len().max(4096), 0);
        let length = rustix::io::retry_on_intr(|| rustix::io::pread(&self.file, &mut bytes[..], 0));
        let length = length.map_err(|error| MonitorError::unreadable(self.path.clone(), error))?;
        Ok(&bytes[..length])
    }

    fn garbled(&self, why: &'static str) -> MonitorError {
        MonitorError::Garbled { what: self.path.clone(), why }
    }
}

fn microseconds(ticks: u64) -> u64 {
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    ticks.saturating_mul(1_000_000) / per_second
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

/// What the driver of the link says, if it says anything.
pub(super) fn link_speed(name: &str, ifindex: u32) -> Option<BitsPerSec> {
    let folder = link_folder(name, ifindex)?;
    // −1 while unknown.
    super::uplink::speed(read_number(&format!("{folder}/speed"))?)
}

/// The name of the link's driver; a link that is no device of its own, such as a tap or a bond, has none.
pub(super) fn link_driver(name: &str, ifindex: u32) -> Option<String> {
    let folder = link_folder(name, ifindex)?;
    let driver = std::fs::read_link(format!("{folder}/device/driver")).ok()?;
    Some(driver.file_name()?.to_str()?.to_owned())
}

/// The index is compared because /sys may show another network namespace than the one that was read.
fn link_folder(name: &str, ifindex: u32) -> Option<String> {
    let folder = format!("/sys/class/net/{name}");
    (read_number(&format!("{folder}/ifindex"))? == u64::from(ifindex)).then_some(folder)
}

fn read_number(path: &str) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests;
