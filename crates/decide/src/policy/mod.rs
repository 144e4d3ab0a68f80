//! What an operator can set, and what follows from it: thresholds, costs, explanations.

pub mod cost;
pub mod expression;
pub mod file;
pub mod hot;
pub mod quantity;
pub mod rules;
pub mod settings;
