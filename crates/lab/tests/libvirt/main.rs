//! The driver of libvirt's domains with real daemons, one on each host of the lab.

#![expect(clippy::wildcard_enum_match_arm, reason = "a test that meets the unexpected panics")]

#[path = "../../../drivers/tests/contract/mod.rs"]
mod cases;
mod connections;
mod contract;
mod faults;
mod fits;
mod hosts;
mod meanwhile;
mod moves;
mod tags;
mod witness;
