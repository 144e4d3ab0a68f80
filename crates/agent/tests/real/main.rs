//! Real agents on real hosts with real guests: what an operator, an accident or bad input may bring about. Each test has
//! a sandbox of its own, and shows the agents' logs if it fails.

#![expect(clippy::print_stdout, reason = "figures are read by people")]

mod bad_input;
mod bed;
mod cancels;
mod drains;
mod encrypted;
mod faults;
mod guest_memory;
mod histories;
mod keys;
mod least;
mod moves;
mod overview;
mod recordings;
mod refusals;
mod restarts;
mod sight;
mod stalling;
mod stalls;
mod traffic;
