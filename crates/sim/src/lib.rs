//! Thousands of hosts in one process: a simulated network, disks, clocks and hypervisors around the production `Host`.

pub mod replay;
