//! Does it pay that a VM's usage history travels? The same clusters, whose guests follow traces of real VMs, live twice: with
//! histories that travel, and with histories that begin anew at each arrival.
//!
//! **Invariant:** the two lives of a seed differ in nothing but that: same guests, same loads, same places at the beginning.

mod life;
mod report;

pub use life::{Figures, Options, live};
pub use report::{Arm, Pair, Report};

use crate::traces::Guest;

/// Lives the seeds from 1 on, each with and without; `told` hears of each pair.
pub fn travel(
    trace: &str,
    guests: &[Guest],
    seeds: u64,
    options: &Options,
    told: &(dyn Fn(&Pair) + Sync),
) -> Report {
    let next = std::sync::atomic::AtomicU64::new(1);
    let pairs = std::sync::Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    let one_after_the_other = || {
        loop {
            let seed = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            if seed > seeds {
                return;
            }
            let [with, without] = [true, false].map(|travels| live(seed, guests, options, travels));
            let pair = Pair { seed, with, without };
            told(&pair);
            pairs.lock().expect("no thread panics while it holds the pairs").push(pair);
        }
    };
    std::thread::scope(|scope| {
        (0..threads).for_each(|_| drop(scope.spawn(one_after_the_other)));
    });
    let pairs = pairs.into_inner().expect("no thread panics while it holds the pairs");
    Report::new(trace, options, pairs)
}
