//! Handshakes of encrypted copies that do not end.
//!
//! QEMU (seen in 10.0) waits for the other side's part of a handshake with its main thread, without a limit, and does nothing
//! else meanwhile: not for its guest either. So a target that fell silent would hold up the guest at the source, and a stranger
//! who connects and says nothing would hold up the target. Here the connection at which the main thread waits for too long is shut
//! down from outside; QEMU takes that for the end of the handshake and goes on.
//!
//! **Invariant:** no other connection is touched: the kernel tells at which one the main thread waits.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::process::Process;

/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Which connections are the copy's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ends {
    /// Of the source: those to there.
    To(SocketAddr),
    /// Of the target: those that came to a port from this one to that one; 0: to any.
    At(u16, u16),
}

impl Ends {
    /// The longest that a handshake may take. At the target less, so that after one stranger the source is still there.
    fn max(self) -> Duration {
        match self {
            Ends::To(_) => Duration::from_secs(2),
            Ends::At(..) => Duration::from_secs(1),
        }
    }

    /// Whether a connection between these is one of them.
    pub(super) fn are(self, here: SocketAddr, there: SocketAddr) -> bool {
        match self {
            Ends::To(target) => there == target,
            Ends::At(_, 0) => true,
            Ends::At(first, last) => (first..=last).contains(&here.port()),
        }
    }
}

/// Looks after a copy's handshakes until it is dropped.
#[derive(Debug)]
pub(super) struct Handshakes(AbortHandle);

impl Handshakes {
    /// For a QEMU that is about to shake hands. `process` is a handle of its own.
    pub(super) fn look_after(process: Process, ends: Ends) -> Handshakes {
        Handshakes(tokio::spawn(look(process, ends)).abort_handle())
    }
}

impl Drop for Handshakes {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn look(process: Process, ends: Ends) {
    if let Err(error) = process.may_be_looked_at()
        && error.kind() == std::io::ErrorKind::PermissionDenied
    {
        let pid = process.pid();
        tracing::warn!(
            pid,
            "a handshake of its copy that does not end cannot be broken off: {error}"
        );
    }
    let mut waits: Option<((i32, SocketAddr), Instant)> = None;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(at) = process.waits_at(ends) else {
            waits = None;
            continue;
        };
        let since = match waits {
            Some((before, since)) if before == at => since,
            _ => Instant::now(),
        };
        waits = Some((at, since));
        if since.elapsed() >= ends.max() {
            let pid = process.pid();
            tracing::warn!(pid, ?ends, "a handshake that does not end is broken off");
            if let Err(error) = process.shut_down(at, ends) {
                tracing::warn!(pid, %error, "it could not be broken off");
            }
            waits = None;
        }
    }
}
