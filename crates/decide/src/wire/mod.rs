//! Messages between hosts: their meaning here, their protobuf form in `convert`.

pub mod message;
