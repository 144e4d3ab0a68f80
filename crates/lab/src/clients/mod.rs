//! Clients of guests, in the client's network: what a user of the VM notices while it moves.
//!
//! Each runs as a task or thread of this process; only its socket lies in the client's network. Each can be asked how
//! it stands at any time, and gives its figures when stopped.

mod flood;
mod ping;
mod tcp;

pub use flood::{Flood, Flooded};
pub use ping::{Pinger, Pings};
pub use tcp::{TcpLine, TcpProbe};

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Figures are plain numbers: one written by a panicking task is as good as any.
fn locked<T>(figures: &Mutex<T>) -> MutexGuard<'_, T> {
    figures.lock().unwrap_or_else(PoisonError::into_inner)
}
