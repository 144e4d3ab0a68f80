//! The API as its clients meet it: over a unix socket, against a backend of fixed values.

mod backend;
mod follow;
mod routes;
mod socket;
