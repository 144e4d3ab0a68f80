//! The program `evenkeel` as a person or script meets it, against an agent of fixed values.

#![expect(clippy::unwrap_used, reason = "a test that panics has failed, which is what is wanted")]

mod access;
mod agent;
mod drain;
mod dump;
mod follow;
mod lab;
mod lists;
mod moves;
mod pages;
mod terminal;
mod trouble;
