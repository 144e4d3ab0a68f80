//! What views cost is what is published.
#![allow(clippy::unwrap_used, reason = "a test")]

use sim::gossip::{PUBLISHED, measure};

#[test]
fn ten_and_forty_hosts_cost_no_more_than_published() {
    for hosts in [10, 40] {
        let row = measure(7, hosts, 30).unwrap();
        assert!(row.start_s < 60, "{row:?}");
        for cost in [row.steady, row.churn] {
            assert!(cost.bytes() <= PUBLISHED.at(hosts), "{PUBLISHED:?}: {row:?}");
            assert!(cost.bytes() > 500.0, "too little to be true: {row:?}");
            assert!(cost.age_max_s < 60.0, "{row:?}");
        }
    }
}
