//! What is lived: sizes and kinds of clusters.

use std::ops::Range;

use sim::simulate::{Cluster, Form, generate};

/// Each case is lived with so many seeds, …
const SEEDS: Range<u64> = 42..47;
/// … against hbal at 20 nodes with more: what it leaves there differs three-fold from one seed to another.
const SEEDS_OF_20: Range<u64> = 42..62;

/// What is wanted of a case: see `judge`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// As good as hbal, or better.
    AgainstHbal,
    /// Even, by itself: hbal does not end.
    Large,
    /// Even, though hosts are unequal.
    Unequal,
    /// Even, though rules keep VMs from going anywhere.
    Ruled,
    /// Even, though hardly any memory is free.
    Full,
    /// The hot hosts are relieved.
    Hot,
    /// Nothing moves, since no host is hot.
    Calm,
}

/// One row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) trigger: &'static str,
    pub(crate) form: Form,
    /// Settings that are not the shipped ones.
    pub(crate) policy: &'static str,
}

/// All, the quick ones first.
pub(crate) fn all() -> Vec<Case> {
    let form = |nodes, vms_per_node| Form { nodes, vms_per_node, ..Form::default() };
    let of_40 = form(40, 15);
    let spread = |name, kind, form| Case { name, kind, trigger: "spread", form, policy: "" };
    let hot = |name, kind| Case { name, kind, trigger: "hot", form: of_40, policy: "" };
    let full = spread("40 nodes, full", Kind::Full, Form { fill: 0.93, ..of_40 });
    vec![
        spread("20 nodes", Kind::AgainstHbal, form(20, 12)),
        spread("40 nodes", Kind::AgainstHbal, of_40),
        spread("40 nodes, unequal", Kind::Unequal, Form { hetero: true, ..of_40 }),
        spread("40 nodes, rules", Kind::Ruled, Form { rules: 0.3, ..of_40 }),
        Case { policy: "[target]\nmemory_used_max = \"96%\"\n", ..full },
        hot("40 nodes, hot", Kind::Hot),
        hot("40 nodes, none hot", Kind::Calm),
        spread("80 nodes", Kind::Large, form(80, 15)),
        spread("200 nodes", Kind::Large, form(200, 15)),
        spread("1000 nodes", Kind::Large, form(1000, 15)),
    ]
}

/// A host is hot at 80 % of its processors and 90 % of its memory: below these none is.
const CALM_CPU: f64 = 0.75;
const CALM_MEMORY: f64 = 0.8;

impl Case {
    /// A minute or more for each seed.
    pub(crate) fn is_slow(&self) -> bool {
        self.form.nodes > 200
    }

    pub(crate) fn seeds(&self) -> Range<u64> {
        if self.form.nodes == 20 { SEEDS_OF_20 } else { SEEDS }
    }

    pub(crate) fn cluster(&self, seed: u64) -> Cluster {
        let cluster = generate(&self.form, seed);
        if self.kind == Kind::Calm { calmed(cluster) } else { cluster }
    }
}

/// Without those VMs that would make a host hot; some hosts have much to do all the same, and others nothing.
fn calmed(mut cluster: Cluster) -> Cluster {
    for node in &cluster.nodes {
        let (mut cpu, mut memory) = (0.0, 0);
        cluster.vms.retain(|vm| {
            let more = (cpu + vm.cpu, memory + vm.mem_mb);
            let fits = more.0 <= CALM_CPU * f64::from(node.cores)
                && more.1 as f64 <= CALM_MEMORY * node.mem_mb as f64;
            let here = vm.host == node.id;
            if here && fits {
                (cpu, memory) = more;
            }
            !here || fits
        });
    }
    cluster
}
