//! The API's types as the dashboard has them: `web/src/api/types.ts` is written from the types here, and held against them.
//!
//! After a change: `UPDATE_TYPES=1 cargo nextest run -p api typescript`.

use std::fmt::Write;
use std::path::Path;
use std::{env, fs};

use ts_rs::{Config, TS};

use crate::*;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../web/src/api/types.ts");
const HEAD: &str = "// Written from the types of the crate `api`, whose test says how to write it anew. Not to be changed by hand.\n";

fn one<T: TS>(text: &mut String) {
    // Counts and sizes stay far below 2^53.
    let config = Config::new().with_large_int("number");
    let docs = T::docs().unwrap_or_default();
    writeln!(text, "\n{docs}export {}", T::decl(&config)).expect("a string takes all");
}

fn all() -> String {
    let mut text = HEAD.to_owned();
    one::<Role>(&mut text);
    one::<Me>(&mut text);
    one::<Overview>(&mut text);
    one::<OverviewHost>(&mut text);
    one::<Report>(&mut text);
    one::<VmTile>(&mut text);
    one::<Status>(&mut text);
    one::<UplinkView>(&mut text);
    one::<QueueView>(&mut text);
    one::<HostView>(&mut text);
    one::<VmView>(&mut text);
    one::<NextHourView>(&mut text);
    one::<ShareView>(&mut text);
    one::<FlowView>(&mut text);
    one::<MoveView>(&mut text);
    one::<MoveRequest>(&mut text);
    one::<MoveStarted>(&mut text);
    one::<Event>(&mut text);
    one::<CopyView>(&mut text);
    one::<Step>(&mut text);
    one::<Why>(&mut text);
    one::<Plan>(&mut text);
    one::<PlannedMove>(&mut text);
    one::<ApplyRequest>(&mut text);
    one::<Applied>(&mut text);
    one::<AppliedVm>(&mut text);
    one::<HistoryView>(&mut text);
    one::<Series>(&mut text);
    one::<StayView>(&mut text);
    one::<ExcludeRequest>(&mut text);
    one::<Exclusion>(&mut text);
    one::<Balancer>(&mut text);
    one::<DrainView>(&mut text);
    one::<LeavingVm>(&mut text);
    one::<LeftVm>(&mut text);
    one::<StoppedVm>(&mut text);
    one::<Problem>(&mut text);
    text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

#[test]
fn the_dashboard_has_the_types_of_the_api() {
    let written = all();
    if env::var_os("UPDATE_TYPES").is_some() {
        fs::create_dir_all(Path::new(FILE).parent().expect("it has a folder")).expect("made");
        fs::write(FILE, &written).expect("written");
    }
    let there = fs::read_to_string(FILE).expect("web/src/api/types.ts is there");
    assert!(there == written, "write it anew: UPDATE_TYPES=1 cargo nextest run -p api typescript");
}
