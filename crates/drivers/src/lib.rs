//! What touches the machine: the kernel's counters, the disk, the hypervisor; all `unsafe` and all FFI of the project.
//!
//! No decision is taken here: drivers say what they saw and do what they are told. What follows is decided in `decide`.

pub mod hypervisor;
pub mod monitor;
pub mod peer;
pub mod store;
