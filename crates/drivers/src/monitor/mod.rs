//! One reading of the host and its VMs: raw counters of taps, uplink, processors, memory, disks and pressure.
//!
//! Links are read by one netlink dump (`netlink`), everything else from files of /proc and /sys that stay open between
//! cycles (`proc`). Nothing is made of the figures here: rates, wraps and restarts are the business of `usage`. Only what the
//! uplink's queues lose is for a person alone, and made into rates here (`queues`).
//!
//! **Invariant:** directions are the VM's. What a tap receives (`rx_*` on the host) its VM has sent.
//! **Invariant:** a VM whose process is gone, or whose process id is another process' by now, is left out.
//! **Boundary:** `Monitor::read` blocks, for at most `netlink::ANSWER_MAX` if the kernel stays silent.

#[cfg(feature = "ebpf")]
mod ebpf;
mod netlink;
mod proc;
mod queues;
mod uplink;
mod way;

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use decide::units::{Bytes, Mib, MibPerSec, VmId};
#[cfg(feature = "ebpf")]
use decide::usage::reading::Flow;
use decide::usage::reading::{DiskCounters, LinkCounters, Reading, VmReading};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

#[cfg(feature = "ebpf")]
pub use self::ebpf::{Attach, Counting, NotCounted};
use self::netlink::{LinkStatistics, Links};
use self::proc::{HostFiles, Process};
pub use self::queues::{Direction, LosingQueue, Queue};
use self::uplink::UplinkLook;
pub use self::uplink::{Duplex, LinkModes, Uplink};

/// A VM to be read: where its traffic and its time are counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// Whose reading it will be.
    pub vm: VmId,
    /// Its hypervisor process.
    pub pid: u32,
    /// When that process began, in clock ticks since boot (field 22 of /proc/PID/stat): tells it from a later process
    /// of the same number.
    pub process_start: u64,
    /// Name of its tap, if it has one.
    pub tap: Option<String>,
    /// What its hypervisor told of it.
    pub told: Told,
}

/// What only its hypervisor can tell of a VM; each as it was told last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// The threads that run its vCPUs, by the kernel's numbers, each once; empty where that is not known.
    pub vcpu_threads: Vec<u32>,
    /// Memory in use inside the guest, page cache not counted.
    pub guest_memory: Option<Mib>,
    /// Its disks together, and when they were read.
    pub disk: Option<(Instant, DiskCounters)>,
    /// How fast it writes to its memory.
    pub dirty: Option<MibPerSec>,
}

/// Why there is no reading.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    /// The configured name cannot be an interface's: mend the configuration.
    #[error(
        "{0:?} cannot be the name of a network interface (1 to 15 characters, without blanks, '/' or ':')"
    )]
    BadInterfaceName(String),
    /// The kernel did not answer, or not in time; this cycle has no reading, the next may.
    #[error("reading {what}")]
    Unreadable {
        /// The file, or `link statistics`.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel answered in a form that is not understood; this cycle has no reading.
    #[error("{what} is not understood: {why}")]
    Garbled {
        /// The file, or `link statistics`.
        what: String,
        /// What was expected.
        why: &'static str,
    },
}

impl MonitorError {
    fn unreadable(what: impl Into<String>, source: impl Into<io::Error>) -> MonitorError {
        MonitorError::Unreadable { what: what.into(), source: source.into() }
    }
}

/// Reads the host, once per call.
#[derive(Debug)]
pub struct Monitor {
    uplink: Option<String>,
    host: HostFiles,
    /// None after a failure: a dump cut short leaves rests in the socket.
    links: Option<Links>,
    look: UplinkLook,
    #[cfg(feature = "ebpf")]
    frames: Option<ebpf::Frames>,
    /// Open between cycles, for the VMs watched in the last one.
    processes: BTreeMap<VmId, Process>,
    bytes: Vec<u8>,
}

impl Monitor {
    /// Opens what is read in every cycle. The uplink need not exist yet.
    ///
    /// # Errors
    /// If `uplink` cannot be an interface's name, or /proc or netlink cannot be opened.
    pub fn new(uplink: Option<String>) -> Result<Monitor, MonitorError> {
        if let Some(name) = uplink.as_ref().filter(|name| !may_name_an_interface(name)) {
            return Err(MonitorError::BadInterfaceName(name.clone()));
        }
        allow_many_files();
        let links = Some(Links::open()?);
        Ok(Monitor {
            uplink,
            host: HostFiles::open()?,
            links,
            look: UplinkLook::new(),
            #[cfg(feature = "ebpf")]
            frames: None,
            processes: BTreeMap::new(),
            bytes: Vec::new(),
        })
    }

    /// Counts frames at taps and uplink too from now on, by programs in the kernel.
    ///
    /// # Errors
    /// If this process may not, or the kernel cannot. Nothing else is read otherwise than before.
    #[cfg(feature = "ebpf")]
    pub fn count_frames(&mut self, counting: &Counting) -> Result<(), NotCounted> {
        // The ones before let go of their links and pins first.
        self.frames = None;
        self.frames = Some(ebpf::Frames::start(counting)?);
        Ok(())
    }

    /// Reads the host and the `watched` VMs.
    ///
    /// # Errors
    /// If the host itself cannot be read. The next call starts afresh.
    pub fn read(&mut self, watched: &[Watched]) -> Result<Reading, MonitorError> {
        let links = self.read_links()?;
        let mut vms = self.read_vms(watched, &links)?;
        vms.sort_by_key(|reading| reading.vm);
        let host = self.host.read()?;
        let uplink = self.uplink.as_ref().and_then(|name| links.get(name)).map(as_the_host_sees);
        let uplink_speed = match (&self.uplink, uplink) {
            (Some(name), Some(link)) => self.look.look(name, link.ifindex),
            _ => {
                self.look.gone();
                None
            }
        };
        #[cfg_attr(not(feature = "ebpf"), expect(unused_mut, reason = "nothing is added"))]
        let mut reading = Reading {
            cpu_us: host.cpu_us,
            cores: host.cores,
            memory_total: host.memory_total,
            memory_available: host.memory_available,
            pressure: host.pressure,
            uplink,
            uplink_speed,
            disk: host.disk,
            flows: None,
            vms,
        };
        #[cfg(feature = "ebpf")]
        self.add_frames(&mut reading, watched, &links);
        Ok(reading)
    }

    /// Reads what links and programs count and nothing of the processes: the network's part of [`Monitor::read`], for who wants
    /// to know what it costs. Gives the traffic matrix.
    ///
    /// # Errors
    /// If the links cannot be read.
    #[cfg(feature = "ebpf")]
    pub fn read_network(&mut self, watched: &[Watched]) -> Result<Option<Vec<Flow>>, MonitorError> {
        let links = self.read_links()?;
        let mut reading = Reading::default();
        self.add_frames(&mut reading, watched, &links);
        Ok(reading.flows)
    }

    /// Adds what the programs counted. If that cannot be read any more it is said once, and all else goes on.
    #[cfg(feature = "ebpf")]
    fn add_frames(
        &mut self,
        reading: &mut Reading,
        watched: &[Watched],
        links: &BTreeMap<String, LinkStatistics>,
    ) {
        let Some(frames) = &mut self.frames else { return };
        match frames.read(links, self.uplink.as_deref(), watched) {
            Ok(counted) => {
                for vm in &mut reading.vms {
                    vm.frames = vm.link.and_then(|link| counted.of_vm(link.ifindex));
                }
                reading.flows = Some(counted.flows);
            }
            Err(why) => {
                tracing::warn!("frames are not counted any more: {why}");
                self.frames = None;
            }
        }
    }

    fn read_links(&mut self) -> Result<BTreeMap<String, LinkStatistics>, MonitorError> {
        // Put back only after success, so that a failed dump's socket is closed.
        let mut links = match self.links.take() {
            Some(links) => links,
            None => Links::open()?,
        };
        let read = links.read()?;
        self.links = Some(links);
        Ok(read)
    }

    fn read_vms(
        &mut self,
        watched: &[Watched],
        links: &BTreeMap<String, LinkStatistics>,
    ) -> Result<Vec<VmReading>, MonitorError> {
        let mut before = std::mem::take(&mut self.processes);
        let mut readings = Vec::with_capacity(watched.len());
        for one in watched {
            let kept = before.remove(&one.vm).filter(|p| p.is(one.pid, one.process_start));
            let mut process = match kept {
                Some(process) => process,
                None => match Process::open(one.pid, one.process_start)? {
                    Some(process) => process,
                    None => continue,
                },
            };
            let Some(usage) = process.read(&mut self.bytes)? else { continue };
            let vcpus = process.read_vcpus(&one.told.vcpu_threads, &mut self.bytes);
            self.processes.insert(one.vm, process);
            readings.push(VmReading {
                vm: one.vm,
                link: one.tap.as_ref().and_then(|tap| links.get(tap)).map(as_the_vm_sees),
                cpu_us: usage.cpu_us,
                process_start: one.process_start,
                memory: usage.memory,
                vcpus,
                guest_memory: one.told.guest_memory,
                disk: one.told.disk.map(|(_, disk)| disk),
                disk_age: one.told.disk.map_or(Duration::ZERO, |(read, _)| read.elapsed()),
                dirty: one.told.dirty,
                frames: None,
            });
        }
        Ok(readings)
    }

    /// The uplink as its driver told of it last; none while it does not exist.
    pub fn uplink(&self) -> Option<&Uplink> {
        self.look.seen()
    }
}

/// Each VM takes a file for its process and one for each vCPU thread: as many as the operator allows at the most, not as
/// few as a process begins with.
fn allow_many_files() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        tracing::warn!(?current, ?maximum, %error, "the limit of open files could not be raised");
    }
}

/// What the kernel would accept as a name (`dev_valid_name`), which also makes it safe as part of a path.
fn may_name_an_interface(name: &str) -> bool {
    (1..=15).contains(&name.len())
        && name != "."
        && name != ".."
        && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace())
}

fn as_the_vm_sees(tap: &LinkStatistics) -> LinkCounters {
    LinkCounters {
        ifindex: tap.ifindex,
        sent_packets: tap.rx_packets,
        sent_bytes: Bytes(tap.rx_bytes),
        received_packets: tap.tx_packets,
        received_bytes: Bytes(tap.tx_bytes),
        dropped: dropped(tap),
    }
}

fn as_the_host_sees(uplink: &LinkStatistics) -> LinkCounters {
    LinkCounters {
        ifindex: uplink.ifindex,
        sent_packets: uplink.tx_packets,
        sent_bytes: Bytes(uplink.tx_bytes),
        received_packets: uplink.rx_packets,
        received_bytes: Bytes(uplink.rx_bytes),
        dropped: dropped(uplink),
    }
}

/// As /proc/net/dev sums them: what a NIC's full ring lost is counted as missed, not as dropped.
fn dropped(link: &LinkStatistics) -> u64 {
    link.rx_dropped.wrapping_add(link.rx_missed).wrapping_add(link.tx_dropped)
}
