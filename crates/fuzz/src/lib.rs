//! Hostile input: genuine samples, damaged at random, given to whatever reads such things. For tests only.
//!
//! ```text
//!   seed ─▶ random bytes ─▶ damage (a sample, and edits) ─▶ the target ─ panics, is slow, takes much memory ─▶ made smaller, told
//! ```
//!
//! `bolero` makes values of random bytes and makes what failed smaller. Here are the damage, and an engine that is the same in
//! each run unless told otherwise: bolero's own draws its seeds from the system, so a gate with it would fail now and then.
//!
//! | variable | |
//! |---|---|
//! | `EVENKEEL_FUZZ_SECONDS` | how long each target runs; 5 |
//! | `EVENKEEL_FUZZ_SEED` | where it begins; 1 |
//!
//! **Invariant:** the same seed gives the same inputs in the same order; a longer run only goes on.
//! **Invariant:** an input on which the target takes more than [`EACH_MAX`] of processor time is a failure, and so is a process
//! that ever took more than [`MEMORY_MAX`]. One that does not come back at all within [`HANGS`] ends the process.

#![expect(clippy::print_stderr, reason = "seeds and figures are read by people")]

mod damage;

use std::fmt::Debug;
use std::ops::DerefMut;
use std::panic::AssertUnwindSafe;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;
use std::{fs, process, thread};

use bolero::bolero_engine::input::Bytes;
use bolero::bolero_engine::{Failure, driver, panic};
use bolero::{Engine, Test, TestTarget};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rustix::time::{ClockId, clock_gettime};

use damage::Damage;

/// The most processor time that a target may take for one input, in an unoptimised build.
pub const EACH_MAX: Duration = Duration::from_secs(1);
/// A target that is at one input for that long, by the clock, does not come back.
pub const HANGS: Duration = Duration::from_secs(60);
/// The most memory that the process of a target may ever have had, in KiB.
pub const MEMORY_MAX: u64 = 768 * 1024;
/// Random bytes that one input is made of.
const DRAWN: usize = 768;
/// Inputs between two looks at the memory.
const LOOK: u64 = 4096;

/// What a target is tried with.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    /// Genuine inputs, at least one.
    pub genuine: Vec<Vec<u8>>,
    /// Words of the language, put in here and there.
    pub words: Vec<Vec<u8>>,
    /// Bytes of the longest input; 0: as many as may come of it.
    pub length_max: usize,
}

impl Samples {
    /// Of bytes.
    #[must_use]
    pub fn bytes(genuine: impl IntoIterator<Item = Vec<u8>>) -> Samples {
        Samples { genuine: genuine.into_iter().collect(), ..Samples::default() }
    }

    /// Of texts, in a language of these words.
    #[must_use]
    pub fn texts<T: AsRef<str>>(genuine: impl IntoIterator<Item = T>, words: &[&str]) -> Samples {
        let bytes = |text: &str| text.as_bytes().to_vec();
        Samples {
            genuine: genuine.into_iter().map(|text| bytes(text.as_ref())).collect(),
            words: words.iter().map(|word| bytes(word)).collect(),
            length_max: 0,
        }
    }

    /// Gives the target one damaged sample after the other, for as long as this run is to last.
    ///
    /// # Panics
    /// If the target does, is slow, or takes much memory; with the input, made smaller.
    pub fn damaged(self, mut target: impl FnMut(&[u8])) {
        assert!(!self.genuine.is_empty(), "nothing to begin with");
        // Before the target sets one of its own.
        panic::set_hook();
        self.genuine.iter().for_each(|sample| target(sample));
        let mut target = AssertUnwindSafe(target);
        let engine = Run { seed: variable("EVENKEEL_FUZZ_SEED", 1), time: time() };
        TestTarget::new(engine).with_generator(Damage(self)).for_each(move |input: &Input| {
            let before = clock(ClockId::ThreadCPUTime);
            target.deref_mut()(&input.0);
            let took = clock(ClockId::ThreadCPUTime) - before;
            assert!(took <= EACH_MAX, "it took {took:?}");
        });
    }
}

/// An input, shown as the text between the quotes of `b"…"`.
pub(crate) struct Input(pub(crate) Vec<u8>);

impl Debug for Input {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "b\"{}\"", self.0.escape_ascii())
    }
}

/// One run of one target.
struct Run {
    seed: u64,
    time: Duration,
}

impl<T: Test> Engine<T> for Run
where
    T::Value: Debug,
{
    type Output = ();

    fn run(self, mut test: T, options: driver::Options) {
        let Run { seed, time } = self;
        eprintln!("EVENKEEL_FUZZ_SEED={seed} for {time:?}");
        let forwarded = panic::forward_panic(false);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut drawn = vec![0; DRAWN];
        let begun = clock(ClockId::Monotonic);
        let (comes_back, hangs) = mpsc::channel();
        thread::spawn(move || watch(&hangs, HANGS, seed));
        let mut inputs = 0_u64;
        let took = loop {
            let took = clock(ClockId::Monotonic) - begun;
            if took >= time {
                break took;
            }
            rng.fill_bytes(&mut drawn);
            // The watch goes on for as long as this side is there.
            let _ = comes_back.send(inputs);
            if let Err(error) = test.test(&mut Bytes::new(&drawn, &options)) {
                let smaller = test.shrink(drawn.clone(), None, &options);
                let failure = smaller.unwrap_or_else(|| {
                    let input = test.generate_value(&mut Bytes::new(&drawn, &options));
                    Failure { error, input, seed: None }
                });
                panic::forward_panic(true);
                panic!("input {inputs} from EVENKEEL_FUZZ_SEED={seed}: {failure:#}");
            }
            inputs += 1;
            if inputs.is_multiple_of(LOOK) {
                memory(inputs);
            }
        };
        panic::forward_panic(forwarded);
        memory(inputs);
        eprintln!("{inputs} inputs, {:.0} a second", inputs as f64 / took.as_secs_f64());
    }
}

/// Ends the process if no further input is begun for so long.
fn watch(begun: &Receiver<u64>, hangs: Duration, seed: u64) {
    let mut last = 0;
    loop {
        match begun.recv_timeout(hangs) {
            Ok(input) => last = input,
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                eprintln!("input {last} from EVENKEEL_FUZZ_SEED={seed}: no end within {hangs:?}");
                process::abort();
            }
        }
    }
}

fn time() -> Duration {
    Duration::from_secs(variable("EVENKEEL_FUZZ_SECONDS", 5))
}

/// What an environment variable says, if it is a number.
fn variable(name: &str, otherwise: u64) -> u64 {
    let Some(value) = std::env::var_os(name) else { return otherwise };
    let number = value.to_str().and_then(|value| value.parse().ok());
    number.unwrap_or_else(|| panic!("{name}={value:?} is no number"))
}

fn clock(which: ClockId) -> Duration {
    clock_gettime(which).try_into().expect("these clocks begin with 0")
}

/// Looks at the most memory that this process ever had.
fn memory(inputs: u64) {
    let status = fs::read_to_string("/proc/self/status").expect("the kernel tells");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("also this");
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("in KiB");
    assert!(kib <= MEMORY_MAX, "{kib} KiB of memory after {inputs} inputs");
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::*;

    fn said(target: fn(&[u8])) -> String {
        let samples = Samples::texts(["{\"number\": 17}"], &[]);
        let failed = catch_unwind(|| samples.damaged(target)).expect_err("it is found");
        failed.downcast_ref::<String>().expect("a text").clone()
    }

    #[test]
    fn what_panics_is_found_made_smaller_and_shown() {
        let said = said(|bytes| assert!(!bytes.contains(&b'\\'), "a backslash"));
        assert!(said.contains("EVENKEEL_FUZZ_SEED=1") && said.contains("a backslash"), "{said}");
        assert!(said.contains("b\"") && said.contains("\\\\"), "{said}");
    }

    #[test]
    fn what_is_slow_is_found() {
        let said = said(|bytes| {
            let begun = clock(ClockId::ThreadCPUTime);
            let slow = bytes.is_empty();
            while slow && clock(ClockId::ThreadCPUTime) - begun <= EACH_MAX {}
        });
        assert!(said.contains("it took 1."), "{said}");
    }

    #[test]
    fn what_does_not_come_back_ends_and_says_at_which_input() {
        const HERE: &str = "EVENKEEL_FUZZ_HANGS_HERE";
        if std::env::var_os(HERE).is_some() {
            let (begins, begun) = mpsc::channel();
            begins.send(17).unwrap();
            watch(&begun, Duration::from_millis(50), 1);
        }
        let itself = std::env::current_exe().unwrap();
        let mut again = process::Command::new(itself);
        let name = "tests::what_does_not_come_back_ends_and_says_at_which_input";
        again.args([name, "--exact", "--nocapture"]).env(HERE, "");
        let ended = again.output().unwrap();
        let said = String::from_utf8(ended.stderr).unwrap();
        assert!(!ended.status.success());
        assert!(said.contains("input 17 from EVENKEEL_FUZZ_SEED=1: no end within 50ms"), "{said}");
    }
}
