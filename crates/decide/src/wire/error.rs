//! Why bytes are not a message. Each error names the field as `evenkeel.proto` does.

/// A message that cannot be used. The sender is at fault, or newer, or the bytes were damaged.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum BadMessage {
    /// Not protobuf of any message of ours.
    #[error("not a message: {0}")]
    Garbled(prost::DecodeError),
    /// A field whose bytes are not of its form.
    #[error("{0}: not of its form")]
    Malformed(&'static str),
    /// Something without which it has no meaning is not there.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// It says nothing that this version knows.
    #[error("unknown kind of message, from a newer version?")]
    UnknownKind,
    /// One of several words was expected, and this is none of them.
    #[error("{field}: unknown value {value}, from a newer version?")]
    UnknownValue {
        /// Which field.
        field: &'static str,
        /// What it holds.
        value: i32,
    },
    /// An id of another length.
    #[error("{field}: an id of {length} bytes instead of 16")]
    BadId {
        /// Which field.
        field: &'static str,
        /// How many bytes it holds.
        length: usize,
    },
    /// Longer, more or greater than this version takes.
    #[error("{field}: {size}, at most {max}")]
    TooMuch {
        /// Which field.
        field: &'static str,
        /// Bytes, elements or value.
        size: u64,
        /// What is taken at the most.
        max: u64,
    },
}
