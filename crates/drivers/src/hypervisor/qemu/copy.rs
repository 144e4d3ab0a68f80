//! How both sides of a copy are set up, and what is read of it.

use std::time::Duration;

use decide::migrate::hypervisor::{CopyFigures, CopyParameters, CopyProgress};
use decide::units::Bytes;

use super::messages::{
    Capability, Migration, QueryMigrateCapabilities, SetCapabilities, SetParameters,
};
use super::qmp::{Qmp, QmpError};

/// Connections of a copy with `multifd`: QEMU's default, and as many as keep a 10 Gbit/s link busy.
const MULTIFD_CHANNELS: u8 = 2;

/// Which side of a copy a QEMU is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// It sends.
    Source,
    /// It receives.
    Target,
}

/// The copy cannot be set up; nothing was begun.
#[derive(Debug, thiserror::Error)]
pub(super) enum SetUpError {
    /// Without it no hand-over is safe: this QEMU is too old.
    #[error("this QEMU has no migration capability {0:?}")]
    Lacks(&'static str),
    /// QEMU did not take it.
    #[error(transparent)]
    Qmp(#[from] QmpError),
}

/// Sets capabilities and parameters; whether several connections will be used, which is only where this QEMU can.
pub(super) async fn set_up(
    qmp: &mut Qmp,
    side: Side,
    copy: CopyParameters,
    multifd: bool,
) -> Result<bool, SetUpError> {
    let offered = qmp.call(QueryMigrateCapabilities {}).await?;
    let offers = |name: &str| offered.iter().any(|known| known.capability == name);
    let (source, target) = (side == Side::Source, side == Side::Target);
    let multifd = multifd && offers("multifd");
    // A VM that came here keeps what its incoming side was set to, so each is set either way.
    let wanted = [
        ("events", true, true),
        ("return-path", true, true),
        ("pause-before-switchover", source, source),
        ("late-block-activate", target, false),
        ("multifd", multifd, false),
        ("auto-converge", source && copy.auto_converge, false),
    ];
    let mut capabilities = Vec::new();
    for (capability, state, required) in wanted {
        if offers(capability) {
            capabilities.push(Capability { capability, state });
        } else if required {
            return Err(SetUpError::Lacks(capability));
        }
    }
    qmp.call(SetCapabilities { capabilities }).await?;
    let downtime = milliseconds(copy.downtime_max);
    qmp.call(SetParameters {
        max_bandwidth: source.then_some(copy.bandwidth.0 / 8),
        downtime_limit: source.then_some(downtime),
        multifd_channels: MULTIFD_CHANNELS,
    })
    .await?;
    Ok(multifd)
}

/// As QEMU counts pauses.
pub(super) fn milliseconds(pause: Duration) -> u64 {
    u64::try_from(pause.as_millis()).unwrap_or(u64::MAX)
}

/// How far a copy is.
pub(super) fn progress(migration: &Migration) -> CopyProgress {
    let ram = migration.ram.unwrap_or_default();
    CopyProgress {
        transferred: Bytes(ram.transferred),
        remaining: Bytes(ram.remaining),
        total: Bytes(ram.total),
        rounds: u32::try_from(ram.dirty_sync_count).unwrap_or(u32::MAX),
    }
}

/// What a copy took.
pub(super) fn figures(migration: &Migration) -> CopyFigures {
    CopyFigures {
        progress: progress(migration),
        total: Duration::from_millis(migration.total_time.unwrap_or_default()),
        downtime: Duration::from_millis(migration.downtime.unwrap_or_default()),
    }
}
