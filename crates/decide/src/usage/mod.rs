//! Counters to rates, rates to load.

pub mod reading;
