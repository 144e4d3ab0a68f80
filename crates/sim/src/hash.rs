//! One number for all that was done: two runs that differ anywhere end with different ones.
//!
//! **Invariant:** the same words in the same order give the same number, in every build and in every process.

use std::hash::Hasher;

/// An odd constant with its bits well spread (2⁶⁴ over the golden ratio).
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Eight bytes at a time, since datagrams are most of what is done. Not for keys: nobody is kept from finding two that collide.
#[derive(Clone, Debug)]
pub struct Trace(u64);

impl Default for Trace {
    fn default() -> Trace {
        Trace(SPREAD)
    }
}

impl Trace {
    fn word(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(SPREAD);
    }
}

impl Hasher for Trace {
    fn write(&mut self, bytes: &[u8]) {
        let mut words = bytes.chunks_exact(8);
        for word in &mut words {
            self.word(u64::from_le_bytes(word.try_into().expect("chunks of eight")));
        }
        let mut last = [0; 8];
        let rest = words.remainder();
        last[..rest.len()].copy_from_slice(rest);
        self.word(u64::from_le_bytes(last) ^ ((bytes.len() as u64) << 56));
    }

    fn write_u64(&mut self, word: u64) {
        self.word(word);
    }

    fn finish(&self) -> u64 {
        let mixed = (self.0 ^ (self.0 >> 32)).wrapping_mul(SPREAD);
        mixed ^ (mixed >> 29)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(parts: &[&[u8]]) -> u64 {
        let mut trace = Trace::default();
        parts.iter().for_each(|part| trace.write(part));
        trace.finish()
    }

    #[test]
    fn every_byte_its_place_and_its_order_count() {
        let one = of(&[b"abcdefghij", b"k"]);
        assert_eq!(one, of(&[b"abcdefghij", b"k"]));
        for other in [
            of(&[b"abcdefghijk"]),
            of(&[b"k", b"abcdefghij"]),
            of(&[b"abcdefghiJ", b"k"]),
            of(&[b"Abcdefghij", b"k"]),
            of(&[b"abcdefghij\0", b"k"]),
        ] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn it_is_the_same_number_in_every_build() {
        assert_eq!(of(&[b"evenkeel"]), 8_877_945_528_381_759_882);
    }
}
