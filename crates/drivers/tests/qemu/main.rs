//! The QEMU driver with real QEMUs, without a system in them: moves over the loopback, faults made by state.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that meets the unexpected panics"
)]

#[path = "../contract/mod.rs"]
mod cases;
mod contract;
mod faults;
mod fence;
mod figures;
mod hosts;
mod moves;
mod share;
mod sightings;
