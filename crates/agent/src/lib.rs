//! `evenkeeld`: the agent on each host. It joins `decide` to the clock, the network, the disk and the hypervisor.
//!
//! ```text
//!   monitor ─┐                                   ┌─▶ net (gRPC, datagrams)
//!   net ─────┤                                   ├─▶ journal (thread of its own)
//!   journal ─┼─▶ steering: Host::handle(now, …) ─┼─▶ hypervisor
//!   hypervisor                                   ├─▶ events, told by http
//!   history ─┤                                   ├─▶ history (thread of its own)
//!   http ────┘                                   ├─▶ recording (if wanted; thread of its own)
//!                                                └─▶ events ──▶ posting (tasks of its own)
//! ```
//!
//! **Boundary:** nothing is decided here; what `decide` wants is carried out in the order given.

mod answers;
pub mod certify;
pub mod clock;
mod cluster;
pub mod config;
mod connections;
pub mod doctor;
mod doing;
mod draining;
mod exclusions;
pub mod fleet;
mod histories;
mod history;
mod hold;
pub mod hook;
pub mod http;
mod journal;
mod kept;
mod local;
mod manager;
mod metrics;
mod monitoring;
pub mod net;
mod noise;
mod overview;
mod owner;
mod planned;
mod posting;
mod recording;
mod reload;
mod renewal;
pub mod run;
mod said;
mod steering;
mod switch;
mod tags;
mod then;
mod views;
mod why;
