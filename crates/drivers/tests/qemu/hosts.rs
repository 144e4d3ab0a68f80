//! Two hosts in one process: each is a folder with a driver of its own. Their VMs are bare QEMUs without a system.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use decide::migrate::hypervisor::{
    CopyParameters, Endpoint, HypervisorCommand, HypervisorReport, RunState, Seen, Sighting,
    VmDefinition,
};
use decide::units::{BitsPerSec, HostId, MoveId, VmId};
use drivers::hypervisor::qemu::{Qemu, QemuConfig};
use drivers::hypervisor::{FromHypervisor, Hypervisor};
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::mpsc;
use tokio::time::timeout;

pub(crate) use crate::cases::FAST;

/// Longer than anything here takes, even on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(60);
pub(crate) const MOVE: MoveId = MoveId { host: HostId(1), incarnation: 1, counter: 1 };
/// So slow that it stays in mid-copy until something happens to it.
pub(crate) const SLOW: CopyParameters = CopyParameters {
    bandwidth: BitsPerSec(64_000),
    downtime_max: Duration::from_millis(1),
    multifd: false,
    encrypted: false,
    auto_converge: false,
    copy_disks: false,
};

/// A host.
pub(crate) struct Host {
    pub(crate) dir: PathBuf,
    pub(crate) config: QemuConfig,
    driver: Option<Qemu>,
    heard: mpsc::Receiver<FromHypervisor>,
    reports: VecDeque<HypervisorReport>,
    sightings: VecDeque<Sighting>,
    children: Vec<Child>,
}

impl Host {
    pub(crate) fn start(name: &str) -> Host {
        Host::start_with(name, |_config| {})
    }

    pub(crate) fn start_with(name: &str, change: impl FnOnce(&mut QemuConfig)) -> Host {
        let dir = std::env::temp_dir().join(format!("ek-{}-{name}", std::process::id()));
        let mut config = QemuConfig {
            dir: dir.clone(),
            listen: IpAddr::V4(Ipv4Addr::LOCALHOST),
            ports: 0..=0,
            ..QemuConfig::default()
        };
        change(&mut config);
        let (driver, heard) = drive(&config);
        Host {
            dir,
            config,
            driver: Some(driver),
            heard,
            reports: VecDeque::new(),
            sightings: VecDeque::new(),
            children: Vec::new(),
        }
    }

    /// Ends the driver and starts another, as an agent's restart does.
    pub(crate) fn restart(&mut self) {
        self.driver = None;
        let (driver, heard) = drive(&self.config);
        self.driver = Some(driver);
        self.heard = heard;
        self.reports.clear();
        self.sightings.clear();
    }

    pub(crate) fn driver(&self) -> &Qemu {
        self.driver.as_ref().unwrap()
    }

    pub(crate) fn file(&self, vm: VmId, extension: &str) -> PathBuf {
        self.dir.join(format!("{vm}.{extension}"))
    }

    /// Writes a file under another name first, so that it is seen whole.
    pub(crate) fn write(&self, vm: VmId, extension: &str, text: &str) {
        let half = self.dir.join("half");
        std::fs::write(&half, text).unwrap();
        std::fs::rename(half, self.file(vm, extension)).unwrap();
    }

    /// Starts the VM's QEMU as an operator would.
    pub(crate) fn run(&mut self, vm: VmId, tap: Option<&str>) {
        self.run_with(vm, tap, &[]);
    }

    /// Starts a VM whose memory holds 40 MiB that do not compress, and waits until it is found.
    pub(crate) async fn run_full_and_find(&mut self, vm: VmId) -> VmDefinition {
        let (memory, mut bytes) = (self.dir.join("memory"), vec![0; 40 << 20]);
        std::fs::File::open("/dev/urandom").unwrap().read_exact(&mut bytes).unwrap();
        std::fs::write(&memory, bytes).unwrap();
        let loader = format!("loader,file={},addr=0x100000,force-raw=on", memory.display());
        self.run_with(vm, None, &["-device", &loader]);
        self.find(vm, None).await
    }

    /// Starts a VM with more devices, and waits until it is found.
    pub(crate) async fn run_with_and_find(&mut self, vm: VmId, more: &[&str]) -> VmDefinition {
        self.run_with(vm, None, more);
        self.find(vm, None).await
    }

    fn run_with(&mut self, vm: VmId, tap: Option<&str>, more: &[&str]) {
        let mut line = command_line(tap);
        line.extend(more.iter().map(|&word| word.to_owned()));
        let fill = |word: &String| {
            word.replace("{uuid}", &vm.to_string())
                .replace("{qmp}", &self.file(vm, "sock").to_string_lossy())
                .replace("{tap}", tap.unwrap_or(""))
        };
        let line: Vec<String> = line.iter().map(fill).collect();
        self.children.push(
            Command::new(&line[0]).args(&line[1..]).stdin(Stdio::null()).spawn().expect("QEMU"),
        );
    }

    /// Starts a VM, writes its definition once QEMU listens, and waits until it is found.
    pub(crate) async fn run_and_find(&mut self, vm: VmId, tap: Option<&str>) -> VmDefinition {
        self.run(vm, tap);
        self.find(vm, tap).await
    }

    async fn find(&mut self, vm: VmId, tap: Option<&str>) -> VmDefinition {
        let socket = self.file(vm, "sock");
        until("QEMU listens", || UnixStream::connect(&socket).is_ok()).await;
        self.write(vm, "toml", &definition(&format!("vm-{:x}", vm.0), tap));
        loop {
            match self.sighting().await {
                Sighting::Found(definition, RunState::Running) if definition.vm == vm => {
                    return *definition;
                }
                // The driver may look between the two.
                Sighting::Unusable(Some(of), why)
                    if of == vm && why.contains("a socket without a definition") => {}
                other => panic!("{other:?}"),
            }
        }
    }

    pub(crate) fn order(&self, vm: VmId, command: HypervisorCommand) {
        self.driver().order(MOVE, vm, command);
    }

    /// The next that the driver says.
    pub(crate) async fn next(&mut self) -> FromHypervisor {
        let heard = timeout(LONG, self.heard.recv()).await.expect("something is heard");
        heard.expect("the driver lives")
    }

    async fn hear(&mut self) {
        match self.next().await {
            FromHypervisor::Report(move_id, _, report) => {
                assert_eq!(move_id, MOVE);
                self.reports.push_back(report);
            }
            FromHypervisor::Sighting(sighting) => self.sightings.push_back(sighting),
        }
    }

    /// The next report, progress or not.
    pub(crate) async fn any_report(&mut self) -> HypervisorReport {
        loop {
            if let Some(report) = self.reports.pop_front() {
                return report;
            }
            self.hear().await;
        }
    }

    /// The next report that is not mere progress.
    pub(crate) async fn report(&mut self) -> HypervisorReport {
        loop {
            match self.any_report().await {
                HypervisorReport::Progress(_) => {}
                report => return report,
            }
        }
    }

    pub(crate) async fn sighting(&mut self) -> Sighting {
        loop {
            if let Some(sighting) = self.sightings.pop_front() {
                return sighting;
            }
            self.hear().await;
        }
    }

    /// Orders, and returns the next report.
    pub(crate) async fn ask(&mut self, vm: VmId, command: HypervisorCommand) -> HypervisorReport {
        self.order(vm, command);
        self.report().await
    }

    /// What is there now. Orders are carried out in order: whatever was ordered before has been reported before.
    pub(crate) async fn looks(&mut self, vm: VmId) -> Seen {
        match self.ask(vm, HypervisorCommand::Look).await {
            HypervisorReport::Looked(seen) => seen,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn prepare(
        &mut self,
        definition: &VmDefinition,
        copy: CopyParameters,
    ) -> Endpoint {
        let command = HypervisorCommand::Prepare(Box::new(definition.clone()), copy, None);
        match self.ask(definition.vm, command).await {
            HypervisorReport::Prepared(endpoint) => endpoint,
            other => panic!("{other:?}"),
        }
    }

    /// Starts a copy and waits until something of it was sent.
    pub(crate) async fn copy_until_progress(&mut self, vm: VmId, endpoint: Endpoint) {
        self.order(vm, HypervisorCommand::StartCopy(endpoint, SLOW));
        match self.any_report().await {
            HypervisorReport::Progress(progress) => assert!(progress.total.0 >= 64 << 20),
            other => panic!("{other:?}"),
        }
    }

    /// The processes of this host's QEMUs.
    pub(crate) fn pids(&self) -> Vec<i32> {
        let named = |pid: &i32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(&format!("unix:{}/", self.dir.display()))
        };
        let pids = std::fs::read_dir("/proc").unwrap().flatten();
        pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(named).collect()
    }

    /// Sends a signal to the only QEMU of this host.
    pub(crate) fn signal(&self, signal: Signal) {
        let pids = self.pids();
        assert_eq!(pids.len(), 1, "{pids:?}");
        kill_process(Pid::from_raw(pids[0]).unwrap(), signal).unwrap();
    }

    /// Says something by the operator's own connection, past the driver, and does not wait for an answer.
    pub(crate) fn tell_by_hand(&self, vm: VmId, command: &str) {
        let socket = self.dir.join(format!("{vm}.sock-operator"));
        let stream = UnixStream::connect(socket).unwrap();
        for command in ["qmp_capabilities", command] {
            (&stream).write_all(format!("{{\"execute\": \"{command}\"}}\n").as_bytes()).unwrap();
        }
    }

    /// Whether QEMU itself says that the guest runs.
    pub(crate) fn guest_runs(&self, vm: VmId) -> bool {
        let answer = self.by_hand(vm, "query-status");
        let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
        answer["return"]["running"].as_bool().unwrap()
    }

    /// A command by the operator's own connection, past the driver.
    pub(crate) fn by_hand(&self, vm: VmId, command: &str) -> String {
        let socket = self.dir.join(format!("{vm}.sock-operator"));
        let stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        let mut answer = String::new();
        for command in ["qmp_capabilities", command] {
            (&stream).write_all(format!("{{\"execute\": \"{command}\"}}\n").as_bytes()).unwrap();
            answer = lines
                .by_ref()
                .map(Result::unwrap)
                .find(|line| line.contains("\"return\""))
                .unwrap();
        }
        answer
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.driver = None;
        for pid in self.pids() {
            // One that just ended needs no signal.
            let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
        }
        for child in &mut self.children {
            drop(child.kill());
            drop(child.wait());
        }
        drop(std::fs::remove_dir_all(&self.dir));
    }
}

fn drive(config: &QemuConfig) -> (Qemu, mpsc::Receiver<FromHypervisor>) {
    let (heard, hears) = mpsc::channel(64);
    (Qemu::start(config.clone(), heard).expect("the driver starts"), hears)
}

fn command_line(tap: Option<&str>) -> Vec<String> {
    let mut line = vec![
        "qemu-system-x86_64",
        "-uuid",
        "{uuid}",
        "-M",
        "pc",
        "-accel",
        "tcg,tb-size=16",
        "-m",
        "64",
    ];
    line.extend(["-nodefaults", "-display", "none", "-qmp", "unix:{qmp},server=on,wait=off"]);
    line.extend(["-qmp", "unix:{qmp}-operator,server=on,wait=off"]);
    if tap.is_some() {
        line.extend(["-netdev", "tap,id=n0,ifname={tap},script=no,downscript=no"]);
        line.extend(["-device", "virtio-net-pci,netdev=n0,romfile="]);
    }
    line.into_iter().map(str::to_owned).collect()
}

/// The text of a definition.
pub(crate) fn definition(name: &str, tap: Option<&str>) -> String {
    let link = tap.map(|tap| format!("tap = \"{tap}\"\nbridge = \"br0\"\n")).unwrap_or_default();
    format!(
        "name = \"{name}\"\n{link}memory = \"64MiB\"\nvcpus = 1\nstart = {:?}\n",
        command_line(tap)
    )
}

/// Waits for what no event tells.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, wait).await.unwrap_or_else(|_late| panic!("never: {what}"));
}

/// Whether a process of that number lives; a zombie does not.
pub(crate) fn lives(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

/// The state of a process in /proc.
pub(crate) fn state(pid: i32) -> char {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit(") ").next().unwrap().chars().next().unwrap()
}

/// The names in a folder, in order.
pub(crate) fn files(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| !name.ends_with("-operator"));
    names.sort();
    names
}
