//! Many hosts in one process: a simulated network, disks, clocks and hypervisors around the production `Host`, with faults drawn
//! from a seed, and checkers that look on.
//!
//! **Invariant:** the same seed gives the same actions of all hosts, in every build.
//! **Boundary:** all decisions are `decide`'s; what is simulated is the machine around it.

pub mod checks;
pub mod faults;
pub mod forecast;
pub mod gossip;
mod hash;
pub mod hypervisor;
pub mod policy;
pub mod replay;
pub mod simulate;
pub mod swarm;
mod time;
pub mod traces;
pub mod travel;
pub mod world;
