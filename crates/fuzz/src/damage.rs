//! From random bytes to a damaged sample.
//!
//! Noise is refused by its first byte. What was genuine, and was changed in a few places, gets further: lengths and counts that
//! claim too much, parts that come twice or from another sample, numbers at their ends, a text that stops.

use bolero::ValueGenerator;
use bolero::generator::bolero_generator::TypeGenerator;
use bolero::generator::bolero_generator::driver::Driver;

use crate::{Input, Samples};

/// The longest input, where nothing else is said.
const LENGTH_MAX: usize = 64 * 1024;
/// One of so many inputs is noise.
const NOISE: u8 = 32;

/// Numbers at which readers go wrong, as texts have them.
const NUMBERS: [&str; 12] = [
    "0",
    "-1",
    "1",
    "255",
    "65536",
    "4294967296",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "1e999",
    "0.5",
    "NaN",
];

/// Makes damaged samples.
pub(crate) struct Damage(pub(crate) Samples);

impl ValueGenerator for Damage {
    type Output = Input;

    fn generate<D: Driver>(&self, driver: &mut D) -> Option<Input> {
        let Samples { genuine, length_max, .. } = &self.0;
        let mut bytes = match drawn::<u8, D>(driver)? % NOISE {
            0 => some(driver, 256)?,
            _ => genuine[below(driver, genuine.len())?].clone(),
        };
        // Mostly few, so that what follows the damage is read as well.
        let edits = match drawn::<u8, D>(driver)? {
            ..8 => 0,
            byte => 1 + byte.trailing_zeros(),
        };
        for _ in 0..edits {
            self.edit(driver, &mut bytes)?;
        }
        bytes.truncate(if *length_max == 0 { LENGTH_MAX } else { *length_max });
        Some(Input(bytes))
    }
}

impl Damage {
    fn edit<D: Driver>(&self, driver: &mut D, bytes: &mut Vec<u8>) -> Option<()> {
        let Samples { genuine, words, .. } = &self.0;
        let at = below(driver, bytes.len() + 1)?;
        let end = at + below(driver, (bytes.len() - at).min(64) + 1)?;
        match drawn::<u8, D>(driver)? % 12 {
            0 => put(bytes, at, &[drawn(driver)?]),
            1 => {
                let bit = drawn::<u8, D>(driver)? % 8;
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << bit;
                }
            }
            2 => put(bytes, at, &edge(driver)?),
            3 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = byte.wrapping_add(drawn::<u8, D>(driver)? % 9).wrapping_sub(4);
                }
            }
            4 => drop(bytes.drain(at..end)),
            5 => bytes.truncate(at),
            6 => insert(bytes, at, &some(driver, 16)?),
            7 => {
                let times = 1_usize << (drawn::<u8, D>(driver)? % 10);
                let again = bytes[at..end].repeat(times);
                insert(bytes, at, &again);
            }
            8 => {
                let other = &genuine[below(driver, genuine.len())?];
                bytes.truncate(at);
                bytes.extend(&other[below(driver, other.len() + 1)?..]);
            }
            9 => {
                let other = &genuine[below(driver, genuine.len())?];
                let from = below(driver, other.len() + 1)?;
                let length = below(driver, (other.len() - from).min(64) + 1)?;
                insert(bytes, at, &other[from..from + length]);
            }
            10 => {
                // The number that begins here or later, if there is one; else one is put in.
                let digits = |byte: &u8| byte.is_ascii_digit();
                let from = bytes[at..].iter().position(digits).map_or(at, |next| at + next);
                let length = bytes[from..].iter().take_while(|byte| digits(byte)).count();
                bytes.drain(from..from + length);
                insert(bytes, from, NUMBERS[below(driver, NUMBERS.len())?].as_bytes());
            }
            _ if words.is_empty() => put(bytes, at, &some(driver, 4)?),
            _ => {
                bytes.drain(at..end.min(at + 8));
                insert(bytes, at, &words[below(driver, words.len())?]);
            }
        }
        Some(())
    }
}

fn drawn<T: TypeGenerator, D: Driver>(driver: &mut D) -> Option<T> {
    T::generate(driver)
}

/// A number below `end`, which is not 0.
fn below<D: Driver>(driver: &mut D, end: usize) -> Option<usize> {
    Some(drawn::<u32, D>(driver)? as usize % end)
}

/// Random bytes, at most so many.
fn some<D: Driver>(driver: &mut D, most: usize) -> Option<Vec<u8>> {
    let length = below(driver, most + 1)?;
    (0..length).map(|_| drawn(driver)).collect()
}

/// A number near an end of its range, of one to eight bytes, either way round.
fn edge<D: Driver>(driver: &mut D) -> Option<Vec<u8>> {
    let power = drawn::<u8, D>(driver)? % 65;
    let near = u64::from(drawn::<u8, D>(driver)? % 5);
    let number = 1_u64.checked_shl(power.into()).unwrap_or(0).wrapping_add(near).wrapping_sub(2);
    let width = 1 << (drawn::<u8, D>(driver)? % 4);
    let mut bytes = number.to_le_bytes()[..width].to_vec();
    if drawn(driver)? {
        bytes.reverse();
    }
    Some(bytes)
}

/// Writes over what is there, as far as it goes.
fn put(bytes: &mut [u8], at: usize, what: &[u8]) {
    bytes[at..].iter_mut().zip(what).for_each(|(place, byte)| *place = *byte);
}

fn insert(bytes: &mut Vec<u8>, at: usize, what: &[u8]) {
    bytes.splice(at..at, what.iter().copied());
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::Samples;

    fn inputs(seed: u8, count: usize) -> Vec<Vec<u8>> {
        use bolero::bolero_engine::driver::{ByteSliceDriver, Options};
        use rand_chacha::ChaCha8Rng;
        use rand_chacha::rand_core::{Rng, SeedableRng};
        let damage = Damage(Samples::texts(["{\"a\": 17}", "[true, null]"], &["false"]));
        let mut rng = ChaCha8Rng::seed_from_u64(seed.into());
        let mut one = || {
            let mut bytes = [0; crate::DRAWN];
            rng.fill_bytes(&mut bytes);
            let options = Options::default();
            damage.generate(&mut ByteSliceDriver::new(&bytes, &options)).unwrap().0
        };
        (0..count).map(|_| one()).collect()
    }

    #[test]
    fn inputs_vary_stay_near_the_samples_and_are_the_same_again() {
        let all = inputs(1, 5000);
        assert_eq!(all, inputs(1, 5000));
        assert_ne!(all, inputs(2, 5000));
        let different: BTreeSet<&Vec<u8>> = all.iter().collect();
        assert!(different.len() > 3000, "{}", different.len());
        let with = |what: &[u8]| {
            all.iter().filter(|one| one.windows(what.len()).any(|part| part == what)).count()
        };
        assert!(with(b"\"a\"") > 1000, "mostly whole");
        assert!(with(b"18446744073709551616") > 5 && with(b"false") > 5);
        assert!(all.iter().any(Vec::is_empty) && all.iter().any(|one| one.len() > 1000));
    }
}
