//! The agent's parts.

pub mod http;
