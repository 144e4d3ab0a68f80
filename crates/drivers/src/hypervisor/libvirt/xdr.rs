//! XDR (RFC 4506), as far as libvirt's protocol uses it: big-endian words of four bytes, texts and lists with a length before
//! them.
//!
//! **Invariant:** what is read is never trusted: each length is compared with what is left before room is made for it.

use std::collections::BTreeMap;

/// Bytes to be sent.
#[derive(Clone, Debug, Default)]
pub(super) struct Writer(Vec<u8>);

/// A value among named ones, as libvirt calls it a typed parameter.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// A whole number, of whatever width.
    Number(i128),
    /// A fraction.
    Fraction(f64),
    /// A text.
    Text(String),
}

impl Writer {
    pub(super) fn bytes(self) -> Vec<u8> {
        self.0
    }

    pub(super) fn word(mut self, word: u32) -> Writer {
        self.0.extend(word.to_be_bytes());
        self
    }

    pub(super) fn signed(self, word: i32) -> Writer {
        self.word(word.cast_unsigned())
    }

    pub(super) fn long(mut self, long: u64) -> Writer {
        self.0.extend(long.to_be_bytes());
        self
    }

    /// So many bytes as both sides know.
    pub(super) fn fixed(mut self, bytes: &[u8]) -> Writer {
        self.0.extend(bytes);
        self
    }

    /// Bytes with their number before them, filled up to whole words.
    pub(super) fn opaque(self, bytes: &[u8]) -> Writer {
        let mut out = self.word(length(bytes.len()));
        out.0.extend(bytes);
        out.0.resize(out.0.len().next_multiple_of(4), 0);
        out
    }

    pub(super) fn text(self, text: &str) -> Writer {
        self.opaque(text.as_bytes())
    }

    /// A text that may be absent.
    pub(super) fn maybe(self, text: Option<&str>) -> Writer {
        match text {
            Some(text) => self.word(1).text(text),
            None => self.word(0),
        }
    }

    /// Typed parameters: texts, and numbers as unsigned ones of 64 bits.
    pub(super) fn parameters(self, all: &[(&str, Value)]) -> Writer {
        all.iter().fold(self.word(length(all.len())), |out, (name, value)| {
            let out = out.text(name);
            match value {
                Value::Number(number) => {
                    out.word(ULLONG).long(u64::try_from(*number).unwrap_or_default())
                }
                Value::Fraction(fraction) => out.word(DOUBLE).long(fraction.to_bits()),
                Value::Text(text) => out.word(STRING).text(text),
            }
        })
    }
}

fn length(length: usize) -> u32 {
    u32::try_from(length).expect("a message is limited to far less")
}

const INT: u32 = 1;
const UINT: u32 = 2;
const LLONG: u32 = 3;
const ULLONG: u32 = 4;
const DOUBLE: u32 = 5;
const BOOLEAN: u32 = 6;
const STRING: u32 = 7;

/// The bytes are not what was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not understood: {0}")]
pub(super) struct Garbled(pub(super) &'static str);

/// Bytes that came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    /// So many bytes as both sides know.
    pub(super) fn fixed(&mut self, length: usize) -> Result<&'a [u8], Garbled> {
        let (taken, left) = self.0.split_at_checked(length).ok_or(Garbled("it ends too soon"))?;
        self.0 = left;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Garbled> {
        let bytes = self.fixed(N)?;
        bytes.try_into().map_err(|_never: std::array::TryFromSliceError| Garbled("a length"))
    }

    pub(super) fn word(&mut self) -> Result<u32, Garbled> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn signed(&mut self) -> Result<i32, Garbled> {
        self.array().map(i32::from_be_bytes)
    }

    pub(super) fn long(&mut self) -> Result<u64, Garbled> {
        self.array().map(u64::from_be_bytes)
    }

    /// How many of at least four bytes each follow.
    pub(super) fn count(&mut self) -> Result<usize, Garbled> {
        let count = usize::try_from(self.word()?).unwrap_or(usize::MAX);
        if count > self.0.len() / 4 {
            Err(Garbled("a list longer than its message"))
        } else {
            Ok(count)
        }
    }

    pub(super) fn opaque(&mut self) -> Result<&'a [u8], Garbled> {
        let length = usize::try_from(self.word()?).unwrap_or(usize::MAX);
        let bytes = self.fixed(length)?;
        self.fixed(length.wrapping_neg() % 4)?;
        Ok(bytes)
    }

    pub(super) fn text(&mut self) -> Result<String, Garbled> {
        Ok(String::from_utf8_lossy(self.opaque()?).into_owned())
    }

    /// A text that may be absent.
    pub(super) fn maybe(&mut self) -> Result<Option<String>, Garbled> {
        if self.word()? == 0 { Ok(None) } else { self.text().map(Some) }
    }

    /// Typed parameters, by name.
    pub(super) fn parameters(&mut self) -> Result<BTreeMap<String, Value>, Garbled> {
        let mut all = BTreeMap::new();
        for _ in 0..self.count()? {
            let name = self.text()?;
            let value = match self.word()? {
                INT | BOOLEAN => Value::Number(self.signed()?.into()),
                UINT => Value::Number(self.word()?.into()),
                LLONG => Value::Number(self.long()?.cast_signed().into()),
                ULLONG => Value::Number(self.long()?.into()),
                DOUBLE => Value::Fraction(f64::from_bits(self.long()?)),
                STRING => Value::Text(self.text()?),
                _ => return Err(Garbled("a parameter of unknown type")),
            };
            all.insert(name, value);
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_written_is_read_again_in_whole_words() {
        let parameters =
            [("bandwidth", Value::Number(7)), ("uri", Value::Text("tcp:198.18.0.2".into()))];
        let bytes = Writer::default()
            .signed(-3)
            .text("abcde")
            .maybe(None)
            .maybe(Some("x"))
            .parameters(&parameters)
            .bytes();
        assert_eq!(bytes.len() % 4, 0);
        let mut reader = Reader(&bytes);
        assert_eq!(reader.signed(), Ok(-3));
        assert_eq!(reader.text(), Ok("abcde".to_owned()));
        assert_eq!((reader.maybe(), reader.maybe()), (Ok(None), Ok(Some("x".to_owned()))));
        let read = reader.parameters().unwrap();
        assert_eq!(read["bandwidth"], Value::Number(7));
        assert_eq!(read["uri"], Value::Text("tcp:198.18.0.2".to_owned()));
        assert_eq!(reader.word(), Err(Garbled("it ends too soon")));
    }

    proptest! {
        #[test]
        fn no_bytes_stop_the_reader_or_make_it_take_much_memory(bytes: Vec<u8>) {
            for read in [
                |mut it: Reader<'_>| it.parameters().map(|all| all.len()),
                |mut it: Reader<'_>| it.text().map(|text| text.len()),
                |mut it: Reader<'_>| it.count(),
            ] {
                if let Ok(read) = read(Reader(&bytes)) {
                    // What is no UTF-8 becomes three bytes for one.
                    prop_assert!(read <= bytes.len() * 3);
                }
            }
        }
    }
}
