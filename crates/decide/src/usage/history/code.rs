//! A number to about one percent, in twelve bits: six bits after the leading one, and an exponent.
//!
//! ```text
//!   value < 128                      code = value
//!   value = m · 2^e, 64 ≤ m < 128    code = 64 · e + m
//! ```
//!
//! **Invariant:** exact below 128, off by at most 1/128 above; a higher value never has a lower code; a code's own value
//! has that code.

use serde::{Deserialize, Serialize};

use super::sample::{METRICS, Sample};

/// The code of a number.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Code(u16);

/// The mantissa's values: from this to twice this, exclusive.
const ONE: u64 = 64;

impl Code {
    /// The highest there is: of 2⁶⁴ and a little less.
    pub const MAX: Code = Code(3775);

    /// The nearest code.
    pub fn of(value: u64) -> Code {
        if value < 2 * ONE {
            return Code(u16::try_from(value).expect("below 128"));
        }
        let exponent = value.ilog2() - ONE.ilog2();
        // Rounded up to a mantissa of 128 it is the next exponent's first code, as it should be.
        let rounded = (value >> (exponent - 1)).div_ceil(2);
        let code = u64::from(exponent) * ONE + rounded;
        Code(u16::try_from(code).expect("at most 57 · 64 + 128")).min(Code::MAX)
    }

    /// Its value.
    pub fn value(self) -> u64 {
        let code = u64::from(self.0);
        if code < 2 * ONE {
            return code;
        }
        let exponent = code / ONE - 1;
        (code % ONE + ONE) << exponent
    }

    /// As a bare number, to be stored or sent.
    pub fn bits(self) -> u16 {
        self.0
    }

    /// The code of that number, if it is one.
    pub fn from_bits(bits: u16) -> Option<Code> {
        Some(Code(bits)).filter(|code| *code <= Code::MAX)
    }
}

/// A sample as codes.
pub type Codes = [Code; METRICS];

/// The sample, to one percent.
pub fn encoded(sample: &Sample) -> Codes {
    sample.values().map(Code::of)
}

/// The sample of these codes.
pub fn decoded(codes: &Codes) -> Sample {
    Sample::of(codes.map(Code::value))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn off(value: u64) -> u64 {
        Code::of(value).value().abs_diff(value)
    }

    #[test]
    fn exact_below_128_and_at_the_powers_of_two() {
        assert!((0..128).all(|value| off(value) == 0));
        assert!((0..64).all(|power| off(1 << power) == 0));
    }

    #[test]
    fn the_ends() {
        assert_eq!(Code::of(u64::MAX), Code::MAX);
        assert_eq!(Code::MAX.value(), 127 << 57);
        assert_eq!(Code::from_bits(Code::MAX.bits() + 1), None);
    }

    #[test]
    fn every_code_is_its_own_values_code() {
        for bits in 0..=Code::MAX.bits() {
            let code = Code::from_bits(bits).unwrap();
            assert_eq!(Code::of(code.value()), code, "{bits}");
        }
    }

    proptest! {
        #[test]
        fn never_off_by_more_than_one_in_128(value in any::<u64>(), shift in 0u32..64) {
            let value = value >> shift;
            prop_assert!(off(value) <= value / 128 + 1);
        }

        #[test]
        fn a_higher_value_never_has_a_lower_code(a in any::<u64>(), b in any::<u64>(), shift in 0u32..64) {
            let (a, b) = (a >> shift, b >> shift);
            prop_assert_eq!(Code::of(a) <= Code::of(b), a <= b || Code::of(a) == Code::of(b));
        }
    }
}
