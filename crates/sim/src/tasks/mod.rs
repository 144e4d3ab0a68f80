//! The tasks of the command line: arguments in, a table for people on standard error, one JSON document on standard output.

mod swarm;

pub(crate) use swarm::Swarm;
