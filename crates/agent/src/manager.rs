//! Whether somebody else keeps books on this host about where VMs are, and would start one again or move it back.
//!
//! **Boundary:** beside such a one no agent starts: two running copies of a VM are what is feared most.

use std::fs;
use std::path::Path;

/// The process by which each is known, as the kernel names it (15 bytes at most).
const MANAGERS: [(&str, &str); 6] = [
    ("pmxcfs", "Proxmox VE"),
    ("pacemakerd", "Pacemaker"),
    // `pacemaker-remoted`, and as it was called before.
    ("pacemaker-remot", "Pacemaker"),
    ("pacemaker_remot", "Pacemaker"),
    ("vdsmd", "oVirt"),
    ("nova-compute", "OpenStack Nova"),
];

/// In words for people, with the process by which it was known: the first found among the processes of this `/proc`.
pub(crate) fn found(proc: &Path) -> Option<String> {
    let mut processes: Vec<(u32, String)> = Vec::new();
    for entry in fs::read_dir(proc).into_iter().flatten().flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
        // It may have ended meanwhile.
        if let Some((pid, comm)) = pid.zip(fs::read_to_string(entry.path().join("comm")).ok()) {
            processes.push((pid, comm.trim_end().to_owned()));
        }
    }
    MANAGERS.iter().find_map(|(process, name)| {
        let (pid, _) = processes.iter().find(|(_, comm)| comm == process)?;
        Some(format!("this host belongs to {name} (process {pid}, {process})"))
    })
}

/// What to do about it.
pub(crate) const MEND: &str = "no agent runs beside it, since it would start VMs again that have moved, or move them back: let it balance by its own \
                               means, or take this host out of it first";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_else_manages_vms_is_known_by_its_process() {
        let proc = tempfile::tempdir().unwrap();
        let runs = |pid: &str, comm: &str| {
            fs::create_dir(proc.path().join(pid)).unwrap();
            fs::write(proc.path().join(pid).join("comm"), format!("{comm}\n")).unwrap();
        };
        fs::create_dir(proc.path().join("sys")).unwrap();
        fs::create_dir(proc.path().join("17")).unwrap();
        runs("1", "systemd");
        runs("812", "pacemakerd-old");
        assert_eq!(found(proc.path()), None);
        runs("813", "pacemakerd");
        assert_eq!(
            found(proc.path()).unwrap(),
            "this host belongs to Pacemaker (process 813, pacemakerd)"
        );
    }

    #[test]
    fn the_kernel_cuts_none_of_the_names() {
        assert!(MANAGERS.iter().all(|(process, _)| process.len() <= 15));
    }
}
