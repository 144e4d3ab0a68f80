//! The protobuf form of messages and records: what goes out comes in again, whatever else comes in is refused by name,
//! and the bytes of this version stay readable by the next. And the form of the event log: the same, to the bit.

#[path = "wire/golden.rs"]
mod golden;
#[path = "wire/limits.rs"]
mod limits;
#[path = "wire/log.rs"]
mod log;
#[path = "wire/round_trip.rs"]
mod round_trip;
#[path = "wire/samples.rs"]
mod samples;
