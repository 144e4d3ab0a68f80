//! What touches the machine: every driver, all `unsafe` and all FFI of the project.
//!
//! Drivers report what they see; what follows from it is decided in `decide`.

pub mod hypervisor;
