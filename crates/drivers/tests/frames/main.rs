//! Frames counted by programs at taps that the test makes, in a network namespace of its own. Needs root, `ip`, `tc`, `bridge`,
//! `unshare` and `setpriv`.
//!
//! Each test starts itself again inside a fresh network and mount namespace.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test panics to fail, and prints its figures"
)]

mod bed;
mod counts;
mod life;
