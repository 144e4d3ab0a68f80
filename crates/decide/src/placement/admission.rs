//! Whether a host takes a VM: rules, capability, room, load. A refusal is an answer, with its reason in figures.

use serde::{Deserialize, Serialize};

use crate::migrate::hypervisor::Needs;
use crate::policy::hot::used;
use crate::policy::settings::{Hot, Target};
use crate::units::{Mib, Share};
use crate::usage::load::{Capacity, Load};

/// What this host's hypervisor offers to VMs from elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offered {
    /// Its driver.
    pub driver: String,
    /// Machine types that it can start, fully named.
    pub machines: Vec<String>,
    /// Accelerators that work.
    pub accelerators: Vec<String>,
    /// Bridges that are here.
    pub bridges: Vec<String>,
    /// Whether copies can be encrypted: the host has keys.
    #[serde(default)]
    pub encrypts: bool,
}

/// Memory that a guest takes on a host: its own, and the hypervisor's overhead for it: 64 MiB (measured on QEMU), and page
/// tables, of 8 bytes for each page of 4 KiB, twice: the process's and the processor's nested ones.
pub fn size_with_overhead(memory: Mib) -> Mib {
    memory.plus(Mib(memory.0 / 256)).plus(Mib(64))
}

/// Room for guests: what `[target]` leaves of all memory.
pub fn room(target: &Target, memory_total: Mib) -> Mib {
    let share = Mib(memory_total.0 / 1000 * u64::from(target.memory_used_max.0));
    share.min(memory_total.minus(target.memory_reserve))
}

/// Whether the VM's state would load here.
///
/// # Errors
/// The first thing that is missing, by name.
pub fn capable(needs: &Needs, offered: &Offered) -> Result<(), String> {
    let has = |what: &str, wanted: &str, all: &[String]| {
        if wanted.is_empty() || all.iter().any(|one| one == wanted) {
            Ok(())
        } else {
            Err(format!("no {what} {wanted} here (there is: {})", all.join(", ")))
        }
    };
    if needs.driver != offered.driver {
        return Err(format!("needs hypervisor {}, here is {}", needs.driver, offered.driver));
    }
    has("accelerator", &needs.accelerator, &offered.accelerators)?;
    has("bridge", &needs.bridge, &offered.bridges)?;
    if needs.machine.is_empty() || offered.machines.contains(&needs.machine) {
        return Ok(());
    }
    Err(format!("no machine type {} here", needs.machine))
}

/// Whether the VM's load fits: `highest` is the most that this host may come to have without it.
///
/// # Errors
/// The first limit that it would break, in figures.
pub fn fits(
    vm: Load,
    highest: Load,
    capacity: Capacity,
    target: &Target,
    hot: &Hot,
) -> Result<(), String> {
    let after = highest.plus(vm);
    let below = |key: &str, reached: u64, allowed: u64| {
        if reached <= allowed {
            return Ok(());
        }
        let (reached, allowed) = (share(reached), share(allowed));
        Err(format!("{key}: would reach {reached}, allowed {allowed}"))
    };
    below("cpu_used_max", used(after.cpu.0, capacity.cpu.0), u64::from(target.cpu_used_max.0))?;
    if let Some(speed) = capacity.bits {
        below("nic_used", used(after.bits.0, speed.0), u64::from(hot.nic_used.0))?;
    }
    match hot.packets_per_second {
        Some(max) if after.packets > max => {
            Err(format!("packets_per_second: would reach {}, allowed {}", after.packets.0, max.0))
        }
        Some(_) | None => Ok(()),
    }
}

fn share(thousandths: u64) -> Share {
    Share(u32::try_from(thousandths).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::settings::Settings;
    use crate::units::{MilliCores, PacketsPerSec};

    #[test]
    fn room_leaves_the_share_and_the_reserve() {
        let target = Settings::default().target;
        assert_eq!(room(&target, Mib(100_000)), Mib(85_000));
        assert_eq!(room(&target, Mib(8192)), Mib(4096));
        assert_eq!(room(&target, Mib(1024)), Mib(0));
    }

    #[test]
    fn each_refusal_names_what_is_missing() {
        let offered = Offered {
            driver: "qemu".into(),
            machines: vec!["pc-i440fx-7.2".into()],
            accelerators: vec!["tcg".into()],
            bridges: vec!["br0".into()],
            encrypts: false,
        };
        let needs = |machine: &str, accelerator: &str, bridge: &str| Needs {
            driver: "qemu".into(),
            machine: machine.into(),
            accelerator: accelerator.into(),
            bridge: bridge.into(),
        };
        let answer = |n: Needs| capable(&n, &offered).err();
        assert_eq!(answer(needs("pc-i440fx-7.2", "tcg", "br0")), None);
        assert_eq!(answer(needs("pc-i440fx-7.2", "", "")), None);
        assert_eq!(
            answer(needs("pc-q35-9.0", "tcg", "br0")).unwrap(),
            "no machine type pc-q35-9.0 here"
        );
        assert_eq!(
            answer(needs("pc-i440fx-7.2", "kvm", "br0")).unwrap(),
            "no accelerator kvm here (there is: tcg)"
        );
        assert_eq!(
            answer(needs("pc-i440fx-7.2", "tcg", "br9")).unwrap(),
            "no bridge br9 here (there is: br0)"
        );
    }

    #[test]
    fn a_vm_that_would_make_the_target_hot_is_refused() {
        let mut settings = Settings::default();
        settings.hot.packets_per_second = Some(PacketsPerSec(1000));
        let load = |cpu, packets| Load {
            cpu: MilliCores(cpu),
            packets: PacketsPerSec(packets),
            ..Load::default()
        };
        let capacity = Capacity { cpu: MilliCores(4000), ..Capacity::default() };
        let answer =
            |vm, highest| fits(vm, highest, capacity, &settings.target, &settings.hot).err();
        assert_eq!(answer(load(1000, 600), load(1500, 300)), None);
        assert_eq!(
            answer(load(1000, 600), load(1500, 500)).unwrap(),
            "packets_per_second: would reach 1100, allowed 1000"
        );
        assert_eq!(
            answer(load(2000, 0), load(1500, 0)).unwrap(),
            "cpu_used_max: would reach 87.5 %, allowed 70 %"
        );
    }
}
