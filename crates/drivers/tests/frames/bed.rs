//! A bridge with taps whose other ends the test holds, in a network namespace of its own, where nothing is sent but what the
//! test sends: no ARP, no IPv6, no queries of the bridge.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::process::Command;

use decide::units::{Bytes, VmId};
use decide::usage::reading::{End, Flow, FrameCounters, LinkCounters, Reading};
use drivers::monitor::{Monitor, Told, Watched};

const INSIDE: &str = "EVENKEEL_TEST_INSIDE";
const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
const TUNSETOFFLOAD: libc::c_ulong = 0x4004_54d0;
/// IFF_TAP, IFF_NO_PI, IFF_VNET_HDR.
const TAP_FLAGS: u16 = 0x0002 | 0x1000 | 0x4000;
/// TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6.
const SUPER_PACKETS: libc::c_ulong = 0x01 | 0x02 | 0x04;
/// `struct virtio_net_hdr`.
const VNET: usize = 10;

/// True inside the namespaces; outside, runs the named test there and passes on its verdict. `before` is what a shell does
/// first, `run` what it executes the test by.
pub(crate) fn inside_as(test: &str, before: &str, run: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let output = Command::new("unshare")
        .args(["--net", "--mount", "--propagation", "private", "sh", "-c"])
        .arg(format!("mount -t sysfs sysfs /sys && {before} && exec {run} \"$0\" \"$@\""))
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .expect("unshare is part of util-linux");
    print!("{}", String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    false
}

/// With a bpffs, and all rights.
pub(crate) fn inside(test: &str) -> bool {
    inside_as(test, "mount -t bpf bpf /sys/fs/bpf", "")
}

pub(crate) fn run(line: &str) {
    let mut words = line.split_ascii_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

fn sysfs(link: &str, file: &str) -> u64 {
    let path = format!("/sys/class/net/{link}/{file}");
    std::fs::read_to_string(path).unwrap().trim().parse().unwrap()
}

/// The other end of a tap: a guest's network card, or, as the uplink, the wire.
#[derive(Debug)]
pub(crate) struct Tap {
    pub(crate) name: String,
    pub(crate) number: u16,
    pub(crate) address: [u8; 6],
    end: File,
}

impl Tap {
    /// Makes it, on the bridge, whose table knows its address for good.
    pub(crate) fn new(number: u16, takes_super_packets: bool) -> Tap {
        let name = format!("tap{number}");
        let end = OpenOptions::new().read(true).write(true).open("/dev/net/tun").unwrap();
        let mut request = [0u8; 40];
        request[..name.len()].copy_from_slice(name.as_bytes());
        request[16..18].copy_from_slice(&TAP_FLAGS.to_ne_bytes());
        // SAFETY: the file is open; the kernel reads and writes an `ifreq`, which has 40 bytes.
        let made = unsafe { libc::ioctl(end.as_raw_fd(), TUNSETIFF, request.as_mut_ptr()) };
        assert_eq!(made, 0, "{}", std::io::Error::last_os_error());
        let offload = if takes_super_packets { SUPER_PACKETS } else { 0 };
        // SAFETY: the file is open; the argument is a number.
        let set = unsafe { libc::ioctl(end.as_raw_fd(), TUNSETOFFLOAD, offload) };
        assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
        // SAFETY: the file is open; flags are set by number.
        let set = unsafe { libc::fcntl(end.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
        assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
        let [high, low] = number.to_be_bytes();
        let tap = Tap { name, number, address: [2, 0, 0, 0, high, low], end };
        run(&format!("ip link set dev {} master br0 up", tap.name));
        run(&format!("bridge fdb add {} dev {} master static", mac(tap.address), tap.name));
        while sysfs(&tap.name, "brport/state") != 3 {
            std::thread::yield_now();
        }
        tap
    }

    /// Sends one frame as the guest would; its length is as given.
    pub(crate) fn send(&self, frame: &[u8]) {
        self.send_with(&[0; VNET], frame);
    }

    /// Sends what the kernel is to cut into frames: TCP over IPv4 with `options` bytes of options and `payload` bytes, at most
    /// `size` of them in a frame.
    pub(crate) fn send_super_packet(&self, to: [u8; 6], options: usize, payload: usize, size: u16) {
        assert!(options.is_multiple_of(4));
        let tcp = 20 + options;
        let mut frame = vec![0u8; 34 + tcp + payload];
        frame[0..6].copy_from_slice(&to);
        frame[6..12].copy_from_slice(&self.address);
        frame[12] = 0x08;
        let length = u16::try_from(20 + tcp + payload).unwrap();
        frame[14] = 0x45;
        frame[16..18].copy_from_slice(&length.to_be_bytes());
        frame[22..24].copy_from_slice(&[64, 6]);
        frame[26..34].copy_from_slice(&[198, 18, 0, 1, 198, 18, 0, 2]);
        let sum = !checksum(&frame[14..34], 0);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        frame[34..38].copy_from_slice(&[0x30, 0x39, 0x27, 0x0f]);
        frame[46] = u8::try_from(tcp / 4).unwrap() << 4;
        frame[47] = 0x10;
        // No operation: what options may be filled with.
        frame[54..34 + tcp].fill(1);
        let pseudo = checksum(&frame[26..34], 6 + u32::try_from(tcp + payload).unwrap());
        frame[50..52].copy_from_slice(&pseudo.to_be_bytes());
        // NEEDS_CSUM, GSO_TCPV4, length of headers, size, where the checksum begins and where it goes.
        let mut header = [0u8; VNET];
        header[0..2].copy_from_slice(&[1, 1]);
        header[2..4].copy_from_slice(&u16::try_from(34 + tcp).unwrap().to_ne_bytes());
        header[4..6].copy_from_slice(&size.to_ne_bytes());
        header[6..8].copy_from_slice(&34u16.to_ne_bytes());
        header[8..10].copy_from_slice(&16u16.to_ne_bytes());
        self.send_with(&header, &frame);
    }

    fn send_with(&self, header: &[u8], frame: &[u8]) {
        let bytes = [header, frame].concat();
        assert_eq!((&self.end).write(&bytes).unwrap(), bytes.len());
    }

    /// Takes all that waits for the guest; how many, super-packets as one.
    pub(crate) fn receive(&self) -> u64 {
        let mut bytes = vec![0; 70_000];
        let mut count = 0;
        loop {
            match (&self.end).read(&mut bytes) {
                Ok(_) => count += 1,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return count,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// A frame from this guest: `size` bytes, of a kind that nobody answers.
    pub(crate) fn frame(&self, to: [u8; 6], size: usize) -> Vec<u8> {
        frame(self.address, to, size)
    }
}

pub(crate) fn frame(from: [u8; 6], to: [u8; 6], size: usize) -> Vec<u8> {
    let mut frame = vec![7u8; size];
    frame[0..6].copy_from_slice(&to);
    frame[6..12].copy_from_slice(&from);
    frame[12..14].copy_from_slice(&0x88b5u16.to_be_bytes());
    frame
}

fn mac(address: [u8; 6]) -> String {
    address.map(|byte| format!("{byte:02x}")).join(":")
}

/// The sum of 16-bit words that IP and TCP use, not yet inverted.
fn checksum(bytes: &[u8], first: u32) -> u16 {
    let words = bytes.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(*w.get(1).unwrap_or(&0)));
    let mut sum = words.fold(first, |sum, word| sum + word);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap()
}

/// `count` taps of VMs 1, 2, …, and tap 0, the uplink.
pub(crate) fn bed(count: u16) -> Vec<Tap> {
    for name in ["default", "all"] {
        std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1").unwrap();
    }
    run("ip link add br0 type bridge stp_state 0 mcast_snooping 0");
    run("ip link set dev br0 up");
    (0..=count).map(|number| Tap::new(number, true)).collect()
}

/// A monitor of the uplink `tap0`.
pub(crate) fn monitor() -> Monitor {
    Monitor::new(Some("tap0".to_owned())).unwrap()
}

/// The test itself stands for the hypervisor of VM n at tap n.
pub(crate) fn watched(taps: &[Tap]) -> Vec<Watched> {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let start = stat.rsplit(')').next().unwrap().split_ascii_whitespace().nth(19).unwrap();
    let (pid, process_start) = (std::process::id(), start.parse().unwrap());
    let vms = taps.iter().filter(|tap| tap.number != 0);
    vms.map(|tap| Watched {
        vm: VmId(u128::from(tap.number)),
        pid,
        process_start,
        tap: Some(tap.name.clone()),
        told: Told::default(),
    })
    .collect()
}

pub(crate) fn of(reading: &Reading, vm: u128) -> (LinkCounters, FrameCounters) {
    let vm = reading.vms.iter().find(|one| one.vm == VmId(vm)).expect("the test runs");
    (vm.link.expect("its tap is there"), vm.frames.expect("frames are counted"))
}

/// What the driver of a tap says it dropped on the way to the guest.
pub(crate) fn dropped(tap: &Tap) -> u64 {
    sysfs(&tap.name, "statistics/tx_dropped")
}

pub(crate) fn vm(number: u128) -> End {
    End::Vm(VmId(number))
}

pub(crate) fn flow(from: End, to: End, frames: u64, bytes: u64) -> Flow {
    Flow { from, to, frames, bytes: Bytes(bytes) }
}

/// The matrix, which must be counted.
pub(crate) fn flows(reading: &Reading) -> &[Flow] {
    reading.flows.as_deref().expect("it is counted")
}
