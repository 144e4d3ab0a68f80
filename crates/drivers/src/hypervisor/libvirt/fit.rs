//! Whether a VM that is to come fits this host: what of its live definition must be here, looked at before anything is started.
//!
//! Machine type, accelerator, first bridge and memory with its overhead were judged before, when the VM was asked for. This is the
//! rest, which only the definition says; what is found goes back as the refusal of the move, by name. libvirt looks again, at
//! what it knows of, when the incoming side starts and when the copy begins.
//!
//! **Invariant:** looking changes nothing here.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use decide::units::Mib;
use roxmltree::{Document, Node};
use tokio::time::timeout;

use super::calls::CpuOf;
use super::definition::{Garbled, Start, child, mib, text};
use super::disks::{self, LocalDisk};
use super::processor;
use super::rpc::{Rpc, RpcError};
use super::storage::{SHARED, identity, is_shared};
use crate::hypervisor::tap;

/// Storage that does not answer for so long is not there.
pub(super) const STORAGE_MAX: Duration = Duration::from_secs(5);
/// As libvirt counts: 10.0.2 is 10,000,002.
const MINOR: u64 = 1000;

/// What a definition wants of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wants {
    cpu: Option<CpuOf>,
    /// Its host's own processor is passed through, which the definition does not name.
    passed: Option<CpuOf>,
    /// Links that guests' interfaces are attached to, and the MTU that they are to carry.
    links: Vec<(String, u32)>,
    /// Disks and what the guest boots from, by path.
    paths: Vec<String>,
    /// Of these, what the guest writes to.
    disks: Vec<String>,
    /// Of these, what could go along.
    candidates: Vec<LocalDisk>,
    /// What belongs to one host alone, in words.
    bound: Vec<String>,
    /// Pages of so many KiB, so much in all.
    pages: Option<(u64, Mib)>,
    /// NUMA nodes that its memory must be on.
    nodes: Vec<u32>,
    /// TCP ports that QEMU will listen at.
    ports: Vec<u16>,
}

impl Wants {
    /// Reads a live definition.
    pub(super) fn parse(xml: &str) -> Result<Wants, Garbled> {
        let document = Document::parse(xml)
            .map_err(|error| Garbled::new(format!("its definition {error}")))?;
        let domain = document.root_element();
        let shown = cpu(xml, domain);
        let (cpu, passed) = match shown {
            Some((cpu, true)) => (Some(cpu), None),
            Some((cpu, false)) => (None, Some(cpu)),
            None => (None, None),
        };
        let mut wants = Wants { cpu, passed, ..Wants::default() };
        for name in ["kernel", "initrd", "loader"] {
            let path = child(domain, "os").and_then(|os| text(os, name));
            wants.paths.extend(path.map(str::to_owned));
        }
        for device in child(domain, "devices").into_iter().flat_map(|devices| devices.children()) {
            wants.add(device);
        }
        wants.candidates = child(domain, "devices").map(disks::candidates).unwrap_or_default();
        let memory = child(domain, "memory").and_then(mib).unwrap_or(Mib(0));
        let pages = child(domain, "memoryBacking").and_then(|it| child(it, "hugepages"));
        wants.pages = pages.map(|pages| {
            let size = child(pages, "page").and_then(|page| {
                let size: u64 = page.attribute("size")?.parse().ok()?;
                let unit = match page.attribute("unit") {
                    Some("GiB") => 1 << 20,
                    Some("MiB") => 1 << 10,
                    _ => 1,
                };
                Some(size.saturating_mul(unit))
            });
            (size.unwrap_or(2048), memory)
        });
        let strict = child(domain, "numatune").and_then(|it| child(it, "memory"));
        let strict = strict.filter(|it| it.attribute("mode") != Some("preferred"));
        wants.nodes = strict.and_then(|it| it.attribute("nodeset")).map_or_else(Vec::new, numbers);
        Ok(wants)
    }

    fn add(&mut self, device: Node<'_, '_>) {
        let source = child(device, "source");
        let of = |name: &str| source.and_then(|source| source.attribute(name)).map(str::to_owned);
        match (device.tag_name().name(), device.attribute("type")) {
            ("emulator", _) => {
                self.paths.extend(device.text().map(|path| path.trim().to_owned()));
            }
            // Another pool of that name may be something else, and of what it is nothing is said.
            ("disk", Some("volume")) => {
                self.bound.push("a disk named by pool and volume, not by its path".into());
            }
            ("disk", _) => {
                let path = of("file").or(of("dev"));
                if child(device, "readonly").is_none() {
                    self.disks.extend(path.clone());
                }
                self.paths.extend(path);
            }
            ("interface", Some("hostdev")) => {
                self.bound.push("a network card of its host's (interface of type hostdev)".into());
            }
            ("interface", Some("vhostuser")) => {
                self.bound.push("an interface of type vhostuser".into());
            }
            ("interface", _) => {
                // What is left is taken off its bridge, and put back if the move fails: a Linux bridge forgets these of it, and
                // Open vSwitch lets nobody do so.
                let of_switch = child(device, "virtualport")
                    .is_some_and(|port| port.attribute("type") == Some("openvswitch"));
                let isolated = child(device, "port")
                    .is_some_and(|port| port.attribute("isolated") == Some("yes"));
                if of_switch {
                    self.bound.push("an interface of Open vSwitch".into());
                } else if child(device, "vlan").is_some() {
                    self.bound.push("an interface with a VLAN of its own (vlan)".into());
                } else if isolated {
                    self.bound.push("an isolated interface (port isolated)".into());
                }
                let mtu = child(device, "mtu").and_then(|mtu| mtu.attribute("size")?.parse().ok());
                self.links.extend(of("bridge").or(of("dev")).map(|link| (link, mtu.unwrap_or(0))));
            }
            ("hostdev", kind) => {
                let kind = device.attribute("mode").filter(|_| kind != Some("mdev")).or(kind);
                self.bound.push(format!(
                    "a device of its host's (hostdev, {})",
                    kind.unwrap_or("of its own kind")
                ));
            }
            ("filesystem", _) => self.bound.push("a folder of its host's (filesystem)".into()),
            ("graphics", _) if device.attribute("autoport") != Some("yes") => {
                let port = |name: &str| device.attribute(name)?.parse().ok();
                let ports: [Option<u16>; 2] = ["port", "tlsPort"].map(port);
                self.ports.extend(ports.into_iter().flatten().filter(|port| *port > 0));
            }
            _ => {}
        }
    }

    /// Which of its disks are to go along, where it consents to that: all else is here.
    ///
    /// # Errors
    /// What of it is not here, the first, and what to do.
    pub(super) async fn missing(
        self,
        start: &Start,
        rpc: &Rpc,
        copy_disks: bool,
        shared: Vec<PathBuf>,
    ) -> Result<Vec<LocalDisk>, String> {
        if let Some(bound) = self.bound.first() {
            return Err(format!("it has {bound}, which cannot come along: detach it"));
        }
        let here = rpc.hypervisor().await.map_err(|error| error.to_string())?;
        let minor = |version: u64| version / MINOR;
        if let Some(there) = start.qemu.filter(|there| minor(*there) > minor(here)) {
            let shown = |version: u64| format!("{}.{}", version / 1_000_000, minor(version) % 1000);
            return Err(format!(
                "QEMU is {} where it runs and {} here: what a newer one saved an older one may not read; upgrade this host first",
                shown(there),
                shown(here)
            ));
        }
        if let Some(cpu) = &self.cpu {
            self.processor(rpc, cpu).await?;
        }
        if let Some(passed) = &self.passed
            && let Some(cpu) =
                processor::same_model(rpc, passed, start.processor.as_deref()).await?
        {
            self.processor(rpc, &cpu).await?;
        }
        for (link, mtu) in &self.links {
            if !tap::exists(link).map_err(|error| format!("links cannot be read: {error}"))? {
                return Err(format!(
                    "no network {link} here: make it, or attach the VM to another"
                ));
            }
            let carries = if *mtu > 0 { tap::mtu(link).await } else { None };
            if let Some(carries) = carries.filter(|carries| carries < mtu) {
                return Err(format!(
                    "{link} carries an MTU of {carries} here, and the VM has {mtu}"
                ));
            }
        }
        let (known, local) = (start.disks.clone(), start.local.clone());
        let look = tokio::task::spawn_blocking(move || {
            let root = Path::new("/");
            let absent = |disk: &LocalDisk| {
                fs::metadata(root.join(&disk.path))
                    .is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
            };
            // The definition says what its disks are; beside it only their sizes are believed.
            let of_its = |disk: &LocalDisk| self.candidates.iter().any(|it| it.is_same(disk));
            let goes_along: Vec<LocalDisk> =
                local.into_iter().filter(|disk| of_its(disk) && absent(disk)).collect();
            self.not_here(&known, &goes_along, copy_disks, &shared, root)
                .map_or(Ok(goes_along), Err)
        });
        let looked = timeout(STORAGE_MAX, look).await.ok().and_then(Result::ok);
        let late =
            || format!("the storage of its disks does not answer here within {STORAGE_MAX:?}");
        let goes_along = looked.ok_or_else(late)??;
        disks::room(rpc, &goes_along).await?;
        Ok(goes_along)
    }

    /// Which processor is passed through to it here, if one is; for whoever asks whether another host has the same.
    pub(super) async fn processor_here(&self, rpc: &Rpc) -> Result<Option<String>, RpcError> {
        match &self.passed {
            Some(passed) => processor::here(rpc, passed).await,
            None => Ok(None),
        }
    }

    async fn processor(&self, rpc: &Rpc, cpu: &CpuOf) -> Result<(), String> {
        match rpc.compare_cpu(cpu).await {
            Ok(true) => Ok(()),
            Ok(false) => {
                Err("the processor here lacks what the VM was shown of its own".to_owned())
            }
            // What cannot be compared (another architecture's, an old libvirt) is left to libvirt's own check.
            Err(error) if !error.incompatible_cpu() => match error {
                RpcError::Refused { .. } | RpcError::Odd(_) => Ok(()),
                RpcError::Lost | RpcError::Silent(_) => Err(error.to_string()),
            },
            Err(error) => Err(format!("the processor here is not enough for the VM: {error}")),
        }
    }

    /// What of files, memory and ports is not here, under this root.
    fn not_here(
        &self,
        known: &BTreeMap<String, String>,
        could_go_along: &[LocalDisk],
        copy_disks: bool,
        shared: &[PathBuf],
        root: &Path,
    ) -> Option<String> {
        let at = |path: &str| root.join(path.trim_start_matches('/'));
        for path in &self.paths {
            let could = could_go_along.iter().any(|disk| disk.path == *path);
            match fs::metadata(at(path)) {
                Err(error) if could && is_shared(path, shared) => {
                    return Some(format!(
                        "{path} is on storage that all hosts share, as `hypervisor.shared_storage` says here, and cannot be had: {error}"
                    ));
                }
                Err(_) if could && copy_disks => {}
                Err(error) if could => {
                    return Some(format!(
                        "{path} cannot be had here: {error}; the rule `copy-disks` of the VM would let it be copied along"
                    ));
                }
                Err(error) => return Some(format!("{path} cannot be had here: {error}")),
                Ok(_) => {}
            }
        }
        let comes = |path: &String| could_go_along.iter().any(|disk| disk.path == *path);
        for disk in self.disks.iter().filter(|disk| !comes(disk)) {
            let here = identity(disk, &at(disk), shared);
            if let Err(why) = same(disk, known.get(disk), here.as_ref()) {
                return Some(why);
            }
        }
        if let Some((size, wanted)) = self.pages {
            let file = at(&format!("/sys/kernel/mm/hugepages/hugepages-{size}kB/free_hugepages"));
            let free = fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok());
            let free = Mib(free.unwrap_or(0_u64).saturating_mul(size) / 1024);
            if free < wanted {
                return Some(format!(
                    "{} MiB are free here in huge pages of {size} KiB, and the VM takes {}",
                    free.0, wanted.0
                ));
            }
        }
        for node in &self.nodes {
            if !at(&format!("/sys/devices/system/node/node{node}")).exists() {
                return Some(format!("its memory must be on NUMA node {node}, which is not here"));
            }
        }
        let taken = |port: &&u16| TcpListener::bind((Ipv4Addr::UNSPECIFIED, **port)).is_err();
        let port = self.ports.iter().find(taken)?;
        Some(format!("its port {port} (graphics) is taken here: give it autoport='yes'"))
    }

    /// What the disks are, for whoever asks whether another host has the same, as far as can be told; and those that may be this host's alone.
    /// Nothing where their storage does not answer.
    pub(super) async fn found_here(
        mut self,
        shared: Vec<PathBuf>,
    ) -> Option<(BTreeMap<String, String>, Vec<LocalDisk>)> {
        let look = tokio::task::spawn_blocking(move || {
            let named =
                |disk: String| Some((disk.clone(), identity(&disk, Path::new(&disk), &shared)?));
            let identities = self.disks.into_iter().filter_map(named).collect();
            self.candidates.retain(|disk| !is_shared(&disk.path, &shared));
            (identities, disks::alone(self.candidates))
        });
        timeout(STORAGE_MAX, look).await.ok()?.ok()
    }
}

/// Whether a disk that is something there is the same here.
///
/// # Errors
/// Why it is not, or cannot be told to be, and what to do.
fn same(disk: &str, there: Option<&String>, here: Option<&String>) -> Result<(), String> {
    let is = |it: Option<&String>| it.is_some_and(|it| it == SHARED);
    match (there, here) {
        _ if is(there) || is(here) => Ok(()),
        (Some(there), Some(here)) if there == here => Ok(()),
        (None, _) => Err(format!("what {disk} is where the VM runs cannot be told there")),
        (_, None) => Err(format!("what {disk} is cannot be told here")),
        (Some(there), Some(here)) => Err(format!(
            "{disk} is not the same here ({here}) as where the VM runs ({there}): its disk must be on storage that both share (name it in `hypervisor.shared_storage` if it is), or, where it may be copied along, what lies here be moved out of the way"
        )),
    }
}

/// The processor that it is shown, and whether it has a name: what is passed through as it is has none.
fn cpu(xml: &str, domain: Node<'_, '_>) -> Option<(CpuOf, bool)> {
    let cpu = child(domain, "cpu")?;
    let named = child(cpu, "model").is_some();
    // Without a mode it says how many there are, and where, not which.
    if !named && cpu.attribute("mode").is_none() {
        return None;
    }
    let kind = child(domain, "os").and_then(|os| child(os, "type"))?;
    let emulator = child(domain, "devices").and_then(|devices| text(devices, "emulator"));
    let of = CpuOf {
        emulator: emulator.map(str::to_owned),
        arch: kind.attribute("arch")?.to_owned(),
        machine: kind.attribute("machine")?.to_owned(),
        kind: domain.attribute("type")?.to_owned(),
        xml: xml.get(cpu.range())?.to_owned(),
    };
    Some((of, named))
}

/// `0-2,5`; what is taken out again (`^1`) is not.
fn numbers(set: &str) -> Vec<u32> {
    let range = |part: &str| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        Some(from.trim().parse().ok()?..=to.trim().parse::<u32>().ok()?)
    };
    set.split(',')
        .filter(|part| !part.starts_with('^'))
        .filter_map(range)
        .flatten()
        .take(1024)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wants(inside: &str, devices: &str) -> Wants {
        let xml = format!(
            "<domain type='kvm'><memory unit='MiB'>64</memory><os><type arch='x86_64' machine='pc'>hvm</type></os>{inside}<devices>{devices}</devices></domain>"
        );
        Wants::parse(&xml).unwrap()
    }

    fn said(wants: &Wants, known: &[(&str, &str)], root: &Path) -> String {
        let known = known.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        wants.not_here(&known, &[], false, &[], root).unwrap_or_default()
    }

    #[test]
    fn disks_must_be_here_and_be_the_same() {
        let root = tempfile::tempdir().unwrap();
        let disk = wants("", "<disk><source file='/disk.img'/></disk>");
        assert!(said(&disk, &[], root.path()).contains("/disk.img cannot be had here"));
        let file = root.path().join("disk.img");
        fs::write(&file, "").unwrap();
        let here = identity("/disk.img", &file, &[]).unwrap();
        assert_eq!(said(&disk, &[("/disk.img", &here)], root.path()), "");
        assert!(said(&disk, &[], root.path()).contains("cannot be told there"));
        let other = said(&disk, &[("/disk.img", "inode 1")], root.path());
        assert!(
            other.contains("is not the same here") && other.contains("shared_storage"),
            "{other}"
        );

        // A number alone says nothing of two machines' own file systems, and the operator's word of either suffices.
        let (number, boot) = here.split_once(", local to ").unwrap();
        let theirs = format!("{number}, local to another");
        assert!(said(&disk, &[("/disk.img", &theirs)], root.path()).contains(boot));
        assert_eq!(said(&disk, &[("/disk.img", SHARED)], root.path()), "");
        let known = [("/disk.img".to_owned(), theirs)].into();
        for (shared, same) in [("/", true), ("/disk.img", true), ("/disk", false)] {
            let why = disk.not_here(&known, &[], false, &[shared.into()], root.path());
            assert_eq!(why.is_none(), same, "{shared}: {why:?}");
        }
        // What is only read may be a copy.
        let cd = wants("", "<disk><source file='/disk.img'/><readonly/></disk>");
        assert_eq!(said(&cd, &[("/disk.img", "inode 1")], root.path()), "");
    }

    #[test]
    fn huge_pages_nodes_and_ports_must_be_free_here() {
        let root = tempfile::tempdir().unwrap();
        let pages = wants(
            "<memoryBacking><hugepages><page size='2' unit='MiB'/></hugepages></memoryBacking>",
            "",
        );
        let folder = root.path().join("sys/kernel/mm/hugepages/hugepages-2048kB");
        fs::create_dir_all(&folder).unwrap();
        for (free, fits) in [("31", false), ("32", true)] {
            fs::write(folder.join("free_hugepages"), free).unwrap();
            let why = said(&pages, &[], root.path());
            assert!(why.is_empty() == fits && (fits || why.contains("62 MiB are free")), "{why}");
        }
        let endless = format!("<page size='{}' unit='GiB'/>", u64::MAX);
        let endless = format!("<memoryBacking><hugepages>{endless}</hugepages></memoryBacking>");
        let why = said(&wants(&endless, ""), &[], root.path());
        assert!(why.starts_with("0 MiB are free"), "{why}");
        let nodes = wants("<numatune><memory mode='strict' nodeset='0-1,^1'/></numatune>", "");
        assert!(said(&nodes, &[], root.path()).contains("NUMA node 0"));
        let taken = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let graphics =
            |more: &str| wants("", &format!("<graphics type='vnc' port='{port}' {more}/>"));
        assert!(said(&graphics("autoport='no'"), &[], root.path()).contains("is taken here"));
        assert_eq!(said(&graphics("autoport='yes'"), &[], root.path()), "");
    }

    #[test]
    fn what_is_bound_to_a_host_is_named() {
        for (device, said) in [
            ("<hostdev mode='subsystem' type='pci'/>", "hostdev, subsystem"),
            ("<hostdev mode='subsystem' type='mdev'/>", "hostdev, mdev"),
            ("<interface type='hostdev'/>", "network card"),
            ("<interface type='vhostuser'/>", "vhostuser"),
            ("<filesystem type='mount'/>", "folder"),
            (
                "<interface type='bridge'><virtualport type='openvswitch'/></interface>",
                "Open vSwitch",
            ),
            ("<interface type='bridge'><vlan><tag id='4'/></vlan></interface>", "VLAN"),
            ("<interface type='bridge'><port isolated='yes'/></interface>", "isolated"),
            ("<disk type='volume'><source pool='p' volume='v'/></disk>", "pool and volume"),
        ] {
            let bound = wants("", device).bound;
            assert!(bound.len() == 1 && bound[0].contains(said), "{device}: {bound:?}");
        }
        let links = wants(
            "",
            "<interface type='direct'><source dev='eth1'/></interface><interface type='bridge'><source bridge='br1'/><mtu size='9000'/></interface>",
        );
        assert_eq!(links.links, [("eth1".to_owned(), 0), ("br1".to_owned(), 9000)]);
    }

    #[test]
    fn a_processor_by_name_and_one_passed_through_are_told_apart() {
        let named = wants("<cpu mode='custom'><model>qemu64</model></cpu>", "").cpu.unwrap();
        assert_eq!(
            (&*named.xml, &*named.arch),
            ("<cpu mode='custom'><model>qemu64</model></cpu>", "x86_64")
        );
        for mode in ["host-passthrough", "host-model", "maximum"] {
            let through = wants(&format!("<cpu mode='{mode}'/>"), "");
            assert!(through.cpu.is_none() && through.passed.is_some(), "{mode}");
        }
        let counted = wants("<cpu><topology sockets='1' cores='2' threads='1'/></cpu>", "");
        assert_eq!((counted.cpu, counted.passed), (None, None));
    }
}
