//! Why frames are not counted, in words: what this process lacks, or what the kernel said.

use std::error::Error;
use std::io;

use rustix::io::Errno;

/// What the programs need of the kernel, by number and name; see capabilities(7).
const NEEDED: [(u32, &str); 3] = [(39, "CAP_BPF"), (12, "CAP_NET_ADMIN"), (38, "CAP_PERFMON")];

/// Why frames are not counted. Link statistics go on; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum NotCounted {
    /// The process lacks capabilities: give it those, or do without.
    #[error("this process lacks {}", .0.join(" and "))]
    NotAllowed(Vec<&'static str>),
    /// The kernel refused something else.
    #[error("{what}: {why}")]
    Refused {
        /// What was to be done.
        what: &'static str,
        /// All that was said about it.
        why: String,
    },
}

impl NotCounted {
    /// Reads the reason out of an error: a missing capability where the kernel refused for want of a right and one is missing.
    pub(super) fn from_error(what: &'static str, error: &(dyn Error + 'static)) -> NotCounted {
        let chain: Vec<&(dyn Error + 'static)> =
            std::iter::successors(Some(error), |error| (*error).source()).collect();
        let errno =
            chain.iter().find_map(|error| Errno::from_io_error(error.downcast_ref::<io::Error>()?));
        let refused = matches!(errno, Some(Errno::PERM | Errno::ACCESS | Errno::NOSYS));
        let missing = if refused { missing() } else { Vec::new() };
        if !missing.is_empty() {
            return NotCounted::NotAllowed(missing);
        }
        let why: Vec<String> = chain.iter().map(ToString::to_string).collect();
        NotCounted::Refused { what, why: why.join(": ").replace('\n', " ") }
    }
}

/// Which of the needed capabilities are not in effect.
fn missing() -> Vec<&'static str> {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    lacking(effective(&status).unwrap_or_default())
}

fn effective(status: &str) -> Option<u64> {
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

fn lacking(mask: u64) -> Vec<&'static str> {
    // CAP_SYS_ADMIN (21) contains the other two, but not that of the network.
    let has = |number: u32| mask >> number & 1 == 1;
    let given = |number: u32| has(number) || (number != 12 && has(21));
    NEEDED.into_iter().filter(|(number, _)| !given(*number)).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let mask = effective("Name:\tx\nCapEff:\t0000000000001000\n").unwrap();
        assert_eq!(lacking(mask), ["CAP_BPF", "CAP_PERFMON"]);
        assert_eq!(lacking(1 << 21), ["CAP_NET_ADMIN"]);
        assert_eq!(lacking(0x01ff_ffff_ffff), Vec::<&str>::new());
        let said = NotCounted::NotAllowed(lacking(mask)).to_string();
        assert_eq!(said, "this process lacks CAP_BPF and CAP_PERFMON");
    }

    #[test]
    fn another_refusal_is_told_whole() {
        let error = io::Error::from_raw_os_error(libc::ENOSPC);
        let said = NotCounted::from_error("making a map", &error).to_string();
        assert_eq!(said, "making a map: No space left on device (os error 28)");
    }
}
