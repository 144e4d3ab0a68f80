//! The API as its clients meet it: over a unix socket and TLS, against a backend of fixed values.

#![expect(clippy::unwrap_used, reason = "a test that panics has failed, which is what is wanted")]

mod access;
mod backend;
mod follow;
mod openapi;
mod page;
mod routes;
mod socket;
mod stream;
mod tls;
