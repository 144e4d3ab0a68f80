//! What agents call at each other, as generated from `peer.proto`, `trust.proto` and `look.proto`.

#![allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::too_many_lines,
    clippy::allow_attributes_without_reason,
    reason = "generated"
)]

pub(super) mod peer {
    tonic::include_proto!("evenkeel.v1");
}

pub(super) mod trust {
    tonic::include_proto!("evenkeel.trust.v1");
}

pub(super) mod look {
    tonic::include_proto!("evenkeel.look.v1");
}
