//! What an operator can set, and what follows from it: thresholds, costs, explanations.

pub mod cost;
pub mod hot;
pub mod settings;
