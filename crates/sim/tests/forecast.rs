//! Scoring forecasts, on traces that are made up: the real ones are not part of the project.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use serde_json::Value;
use sim::traces::{bitbrains, planetlab};

/// A folder of this test's own.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&folder);
    for trace in ["planetlab", "bitbrains"] {
        fs::create_dir_all(folder.join(trace)).expect("a folder of the build's own");
    }
    folder
}

/// 10 %, and by chance a jump of one slot: what "same as now" follows and a median does not.
fn jumpy(slot: usize) -> u64 {
    let chance = (slot as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    if (chance ^ (chance >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 56 < 40 { 90 } else { 10 }
}

fn made_up(folder: &Path) {
    for day in ["20110303", "20110306", "20110309"] {
        let mut text = "vm,name,t0\n".to_owned();
        for vm in 0..3 {
            let loads: Vec<String> =
                (0..288).map(|slot| jumpy(slot + vm * 1000).to_string()).collect();
            let _ = writeln!(text, "{vm},made_up,{}", loads.join(","));
        }
        fs::write(folder.join(format!("planetlab/{day}.csv")), text)
            .expect("the folder was just made");
    }
    for day in 1..=3 {
        let mut text = "vm,slot,cores\n".to_owned();
        for slot in 0..288 {
            let _ = writeln!(
                text,
                "1,{slot},2,4000,{},8000,2000,0,0,3,4",
                40 * jumpy(slot + day * 1000)
            );
            let _ = writeln!(text, "2,{slot},0,0,0,0,0,0,0,0,0");
        }
        let packed = compress_to_vec(text.as_bytes(), CompressionLevel::Fastest);
        fs::write(folder.join(format!("bitbrains/rnd-2013-07-0{day}.csv.zst")), packed)
            .expect("the folder was just made");
    }
}

fn run(traces: &Path) -> (bool, Vec<u8>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel-sim"));
    let output = command.args(["forecast", "--json", "--traces"]).arg(traces).output();
    let output = output.expect("it was built with this test");
    let said = String::from_utf8(output.stderr).expect("it speaks UTF-8");
    (output.status.success(), output.stdout, said)
}

#[test]
fn loads_that_jump_and_come_back_are_foreseen_better_than_by_repeating_them() {
    let folder = folder("made-up");
    made_up(&folder);
    let (ok, document, said) = run(&folder);
    assert!(ok, "{said}");
    let report: Value = serde_json::from_slice(&document).unwrap();
    let rows = report["rows"].as_array().unwrap();
    let row = |trace: &str, load: &str, horizon: &str| {
        let is = |row: &&Value| {
            row["trace"] == trace && row["load"] == load && row["horizon"] == horizon
        };
        rows.iter().find(is).unwrap().clone()
    };
    let cpu = row("PlanetLab 20110306", "cpu", "60 min");
    assert!(cpu["ratio"].as_f64().unwrap() < 0.95, "{cpu}");
    assert_eq!(cpu["yesterday"], Value::Null);
    let memory = row("Bitbrains 2013-07-03", "memory", "60 min");
    assert_eq!((&memory["ours"], &memory["yesterday"]), (&0.0.into(), &0.0.into()));
    assert_eq!(report["ok"], true);
}

#[test]
fn without_traces_it_says_which_and_fails() {
    let (ok, document, said) = run(&folder("absent"));
    assert!(!ok);
    assert!(document.is_empty());
    assert!(said.contains("20110303.csv") && said.contains("--traces"), "{said}");
}

#[test]
fn a_trace_that_is_not_one_is_refused_by_its_line() {
    let folder = folder("bad");
    made_up(&folder);
    let days = bitbrains(&folder, &["2013-07-01", "2013-07-02"]).unwrap();
    assert_eq!(days.len(), 1, "rows without cores are left out");
    assert_eq!((days[0].vm, days[0].cores, days[0].cpu.len()), (1, 2, 576));
    fs::write(folder.join("planetlab/20110303.csv"), "vm,name,t0\n0,x,1,2\n").unwrap();
    let error = format!("{:#}", planetlab(&folder, "20110303").unwrap_err());
    assert!(error.ends_with("line 2: 2 slots, a day has 288"), "{error}");
    fs::write(folder.join("planetlab/20110303.csv"), "vm,name,t0\n0,x,-1\n").unwrap();
    let error = format!("{:#}", planetlab(&folder, "20110303").unwrap_err());
    assert!(error.ends_with("line 2: not a load: \"-1\""), "{error}");
}
