//! Who takes a VM: request, reservation, acceptance, choice, confirmation, history, readiness.
//!
//! Two machines, one on each side. They see ids, integer costs and named timers only, so that a model checker can drive
//! them: no clock, no usage, no membership, no policy. What those say comes in with the event.

use std::time::Duration;

pub mod source;
pub mod target;

/// Limits of a negotiation. All waits are counted by whoever waits, from when it sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Acceptances after which the source waits no longer. More: a better choice, a longer wait. 2 to 8.
    pub answers_wanted: u32,
    /// Acceptances without which it gives up at the deadline. 1: a lone acceptor will do.
    pub answers_min: u32,
    /// How long the source waits for answers. Several round trips; 0.5 s to 5 s.
    pub answer_within: Duration,
    /// How long a target keeps room for a source that has not confirmed. Longer than `answer_within`, several times over,
    /// so that the next-best acceptor still holds it when the chosen one falls silent.
    pub reserved: Duration,
    /// How long the source waits for readiness, and a target for the history: starting an incoming side takes a while.
    pub readiness_within: Duration,
    /// Reservations that one source may hold here without having confirmed.
    pub offers_per_source_max: usize,
    /// Reservations in all.
    pub offers_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            answers_wanted: 3,
            answers_min: 1,
            answer_within: Duration::from_secs(1),
            reserved: Duration::from_secs(45),
            readiness_within: Duration::from_secs(15),
            offers_per_source_max: 4,
            offers_max: 32,
        }
    }
}
