//! When a VM should leave, and whether it is worth it: the operator's settings and how they are written down.

pub mod file;
pub mod quantity;
pub mod settings;
