//! What other hosts say, and what operators write, damaged.

#![expect(clippy::unwrap_used, reason = "a test that panics has failed, which is what is wanted")]

mod expressions;
mod membership;
#[path = "../membership/net.rs"]
#[allow(dead_code, reason = "only its datagrams are of use here")]
mod net;
#[path = "../wire/samples.rs"]
mod samples;
mod wire;
