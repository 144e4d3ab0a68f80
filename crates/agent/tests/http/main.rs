//! The API as its clients meet it: over a unix socket, against a backend of fixed values.

#![expect(clippy::unwrap_used, reason = "a test that panics has failed, which is what is wanted")]

mod backend;
mod follow;
mod routes;
mod socket;
