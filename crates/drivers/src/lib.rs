//! What touches the machine: the kernel's counters, the disk, the hypervisor. No decision is taken here; drivers say
//! what they saw and do what they are told.

pub mod monitor;
pub mod store;
