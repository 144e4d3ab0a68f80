//! The agent, `evenkeeld`: what surrounds the decisions of `decide` on a host.

pub mod net;
