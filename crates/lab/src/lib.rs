//! Test hosts on one machine, with real Linux guests: what the demo, `bench move` and the real-VM tests run on.
//!
//! ```text
//!   setup ──▶ sandbox ──▶ network: host1 … hostN, client ──▶ guests, clients, raw moves
//!  (network   (own pid, mount,   (own net, mount, uts each,
//!   needed)    net, uts, ipc)     joined by a switch)
//! ```
//!
//! [`setup`] installs what is missing and builds the guest's kernel and initramfs. [`sandbox`] runs the program again
//! inside namespaces that end with it. [`hosts`] makes hosts there, [`guests`] boots VMs on them, [`libvirt`] as domains, [`clients`] measures
//! them from outside, [`raw`] moves them by hand. [`faults`] breaks things in the middle of moves. [`stand_in`] takes the
//! place of a QEMU where many are wanted and none need run. [`capture`] keeps what passes on the wire.
//!
//! **Invariant:** nothing outside the sandbox is touched but the folder `target/lab`.
//! **Invariant:** whatever ends the outer process, every process, namespace, link and mount of the sandbox ends too.

pub mod capture;
pub mod clients;
pub mod cluster;
pub mod faults;
pub mod folder;
pub mod guests;
pub mod hosts;
pub mod libvirt;
pub mod qmp;
pub mod raw;
pub mod sandbox;
pub mod setup;
pub mod stand_in;
pub mod wait;
