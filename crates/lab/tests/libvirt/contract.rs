//! The contract of hypervisor drivers, held by that of libvirt's domains.

use std::fs;

use anyhow::ensure;
use decide::migrate::hypervisor::HypervisorCommand;
use decide::units::{MoveId, VmId};
use drivers::hypervisor::{FromHypervisor, Hypervisor};
use lab::hosts::Host;
use lab::libvirt::virsh;
use lab::{guests, sandbox};

use crate::cases::{self, At, Heard, Waits};
use crate::hosts::{Bed, Pair, start_empty};

/// Of the VM's memory so much does not compress: half a minute of the slowest copy.
const FULL: u64 = 40;

impl Pair {
    fn bed(&mut self, at: At) -> &mut Bed {
        match at {
            At::A => &mut self.a,
            At::B => &mut self.b,
        }
    }

    fn at(&self, at: At) -> &Host {
        &self.network.hosts()[at as usize]
    }
}

impl cases::Bed for Pair {
    const WAITS: Waits = Waits::AfterTheLastRound;

    async fn start(&mut self, vm: VmId) {
        start_empty(self, vm, FULL).await.expect("the VM starts");
    }

    fn order(&mut self, at: At, id: MoveId, vm: VmId, command: HypervisorCommand) {
        self.bed(at).driver().order(id, vm, command);
    }

    async fn hear(&mut self, at: At) -> Heard {
        match self.bed(at).next().await.expect("something is heard") {
            FromHypervisor::Report(id, vm, report) => Heard::Report(id, vm, report),
            FromHypervisor::Sighting(sighting) => Heard::Sighting(sighting),
        }
    }

    fn restart(&mut self, at: At) {
        self.bed(at).restart().expect("the driver starts again");
    }

    fn pause(&mut self, at: At, vm: VmId, paused: bool) {
        let what = if paused { "suspend" } else { "resume" };
        let change = || {
            let state = virsh(self.at(at), &["domstate", &vm.to_string()])?;
            if (state == "paused") != paused {
                virsh(self.at(at), &[what, &vm.to_string()])?;
            }
            let state = virsh(self.at(at), &["domstate", &vm.to_string()])?;
            ensure!((state == "paused") == paused, "{state} after {what}");
            Ok(())
        };
        change().expect("libvirt does as it is told");
    }

    fn kill(&mut self, at: At, vm: VmId) {
        guests::kill_qemu(self.at(at), vm).expect("it has a QEMU");
    }

    fn processes(&self, at: At, vm: VmId) -> usize {
        guests::qemus(self.at(at), vm).expect("/proc can be read").len()
    }

    fn executes(&self, at: At, vm: VmId) -> bool {
        // An error: there is no such domain.
        let state = virsh(self.at(at), &["domstate", &vm.to_string()]);
        state.is_ok_and(|state| state == "running")
    }

    fn left(&self, at: At, vm: VmId) -> Vec<String> {
        let domains = virsh(self.at(at), &["list", "--all", "--name"]).expect("libvirt answers");
        let mut left: Vec<String> = domains.lines().map(|name| format!("domain {name}")).collect();
        let folders = ["/run/evenkeel/libvirt", "/var/lib/evenkeel/libvirt"];
        let marks = folders.into_iter().flat_map(|folder| {
            let marks = fs::read_dir(self.at(at).path(folder));
            marks.expect("the driver's folder is there").flatten()
        });
        let marks = marks.map(|mark| mark.file_name().to_string_lossy().into_owned());
        left.extend(marks.filter(|name| name.starts_with(&vm.to_string())));
        left
    }
}

macro_rules! tests {
    ($($part:ident { $($case:ident,)* })*) => {
        $($(
            #[test]
            fn $case() {
                sandbox::test_with(true, concat!("contract::", stringify!($case)), || async {
                    cases::$part::$case(Pair::start().await?).await;
                    Ok(())
                });
            }
        )*)*
    };
}
cases::every_case!(tests);
