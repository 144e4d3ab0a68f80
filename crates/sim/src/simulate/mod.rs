//! A described cluster, lived by the production agents until nothing moves any more: which moves they make, in which order and
//! why, and how even the cluster is before and after.
//!
//! What is not production code: machines, guests (whose loads are steady), the network, and gossip, which would cost more than
//! everything else. In its place hosts see each other as they were some seconds ago (`World::tell_views`).
//!
//! **Invariant:** the same cluster, options and seed give the same moves at the same instants.

mod cluster;
mod draws;
mod figures;
pub mod ganeti;
mod generate;
mod life;

pub use cluster::{BadCluster, Cluster, Node, Rule, RuleKind, Vm};
pub use figures::{Figures, Steps, figures, steps};
pub use generate::{Form, generate};
#[cfg(test)]
pub(crate) use life::build;
pub use life::{HotNodes, Move, Options, Report, simulate};
