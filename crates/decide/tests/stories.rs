//! Stories.
mod world;

use std::time::Duration;

use expect_test::expect;
use world::World;
use world::scene::{settings, vm_id};

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[test]
fn the_loop() {
    let mut world = World::of(1, 3, settings());
    world.boot(1, 1, 1024, 2000, 1500);
    world.boot(1, 2, 512, 500, 100);
    world.boot(2, 3, 512, 500, 300);
    let done = world.until(secs(60), |w| w.runs_at(vm_id(1)).contains(&3));
    println!("{done} {}", world.story());
    world.run(secs(2));
    println!("{}", world.story());
    expect![[""]].assert_eq("");
}
