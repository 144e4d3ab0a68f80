//! The event log: all that went into one [`Host`](crate::host::Host), and what it gave, so that it can be gone through again.
//!
//! ```text
//!   Begin ─▶ Gave ─▶ (Event ─▶ Gave)* ─▶ [Event] ─▶ [End]
//! ```
//!
//! An event is written down before the host takes it, so that one which brings the host down is in the log too: the last,
//! without its `Gave`. What was given is written down as digests, enough to tell whether it is the same.
//!
//! **Invariant:** what is read back is what was written, to the bit.
//! **Boundary:** only the meaning of the lines is here; whoever writes or reads a log gives them bytes (JSON, one a line).

use std::fmt::{self, Write as _};

use serde::{Deserialize, Serialize};

use crate::host::{Action, Event, Start};
use crate::units::Time;

pub(crate) mod form;

/// The form of the lines. Raised when an older log can no longer be read, or a newer one not by older versions.
pub const FORM: u32 = 8;

/// One line of a log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Line {
    /// The first: who began, with what.
    Begin(Box<Begin>),
    /// One event, as it went into `Host::handle`.
    Event {
        /// The `now` that went with it.
        now: Time,
        /// What happened.
        event: Event,
    },
    /// What `Host::new` or `Host::handle` gave.
    Gave(Gave),
    /// The last: the log was ended in order.
    End {
        /// Why.
        why: String,
    },
}

/// The beginning of a log: what went into `Host::new`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Begin {
    /// [`FORM`].
    pub form: u32,
    /// Evenkeel's version. Another one may decide otherwise.
    pub version: String,
    /// The wall clock at `now`, for people: microseconds since 1970.
    pub unix_us: u64,
    /// The `now` that went with it.
    pub now: Time,
    /// Who the host is, and what its journal said.
    pub start: Start,
}

/// What a host gave for one event: digests of the actions, and until when it wants to be left alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gave {
    /// A digest of each action, in order.
    pub actions: Vec<u64>,
    /// `Host::deadline` after it.
    pub deadline: Option<Time>,
}

impl Gave {
    /// These actions, and the host's deadline after them.
    pub fn of(actions: &[Action], deadline: Option<Time>) -> Gave {
        Gave { actions: actions.iter().map(digest).collect(), deadline }
    }
}

/// FNV-1a (64 bits, RFC 9923) over an action's `Debug` form, which shows every field.
pub fn digest(action: &Action) -> u64 {
    let mut fnv = Fnv(0xcbf2_9ce4_8422_2325);
    write!(fnv, "{action:?}").expect("a digest takes all that is written");
    fnv.0
}

struct Fnv(u64);

impl fmt::Write for Fnv {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 = text.bytes().fold(self.0, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Ok(())
    }
}
