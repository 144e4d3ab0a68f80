//! Lines that are chained: each holds the hash of the one before, and its own.
//!
//! A line is JSON whose last field is `hash`, the SHA-256 of the very bytes of the line with that field empty. Whoever changes a
//! byte, takes a line out, puts one in or swaps two makes one that does not fit. Lines taken off the end are not noticed by the
//! chain itself, but by whoever kept a later hash; nor is a log that somebody wrote anew from its beginning.

use std::fmt::Write;

use api::{AuditCheck, AuditLine};
use sha2::{Digest, Sha256};

/// Bytes of a hash in text.
const HASH: usize = 64;
/// How a line ends whose hash is not known yet.
const OPEN_END: &str = "\"hash\":\"\"}";

/// What the first of all lines has before it.
pub(super) fn beginning() -> String {
    "0".repeat(HASH)
}

/// The line as it stands in the file, without its end of line; gives its hash too. Whatever hash it had is not looked at.
pub(super) fn sealed(line: &AuditLine) -> (String, String) {
    let open = AuditLine { hash: String::new(), ..line.clone() };
    let mut text = serde_json::to_string(&open).expect("its fields are text and numbers");
    let hash = hash(text.as_bytes());
    text.truncate(text.len() - 2);
    text += &hash;
    text += "\"}";
    (text, hash)
}

/// What a line says, if its own hash is that of its bytes.
///
/// # Errors
/// Why it is none.
pub(in crate::http) fn read(bytes: &[u8]) -> Result<AuditLine, &'static str> {
    let text = str::from_utf8(bytes).map_err(|_binary| "it is no text")?;
    let line: AuditLine = serde_json::from_str(text).map_err(|_malformed| "it cannot be read")?;
    let open = text.strip_suffix("\"}").and_then(|text| text.strip_suffix(&*line.hash));
    let open = open.filter(|_| line.hash.len() == HASH).ok_or("it does not end in its hash")?;
    if hash(format!("{open}\"}}").as_bytes()) != line.hash || !open.ends_with(&OPEN_END[..8]) {
        return Err("its hash is not that of what it says: it was changed");
    }
    Ok(line)
}

fn hash(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Bytes as text.
pub(in crate::http) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes all");
        text
    })
}

/// Going through lines, the oldest first, as far as they fit.
#[derive(Debug, Default)]
pub(super) struct Walk {
    lines: u64,
    first_seq: u64,
    last: Option<(u64, String)>,
    broken: Option<String>,
    kept: Option<String>,
    kept_found: bool,
}

impl Walk {
    /// Looks out for a hash that was kept elsewhere, if there is one.
    pub(super) fn new(kept: Option<String>) -> Walk {
        Walk { kept, ..Walk::default() }
    }

    /// The next line: `place` names it. Gives what it says, where it can be read.
    pub(super) fn line(&mut self, place: &str, bytes: &[u8]) -> Option<AuditLine> {
        self.lines += 1;
        match read(bytes) {
            Ok(line) => {
                if let Err(why) = self.fits(&line) {
                    self.breaks(place, &why);
                }
                self.kept_found |= self.kept.as_ref() == Some(&line.hash);
                self.last = Some((line.seq, line.hash.clone()));
                Some(line)
            }
            Err(why) => {
                self.breaks(place, why);
                None
            }
        }
    }

    fn fits(&mut self, line: &AuditLine) -> Result<(), String> {
        match &self.last {
            Some((seq, hash)) if line.seq == seq + 1 && line.before == *hash => Ok(()),
            Some((seq, _)) => Err(format!(
                "it is number {} and does not follow number {seq}: lines were taken out, put in or moved",
                line.seq
            )),
            None if self.lines > 1 => Err(format!("no line before number {} fits", line.seq)),
            None => {
                self.first_seq = line.seq;
                let first = line.seq == 1;
                if first && line.before != beginning() {
                    return Err("it is number 1, and names a line before it".to_owned());
                }
                Ok(())
            }
        }
    }

    fn breaks(&mut self, place: &str, why: &str) {
        self.broken.get_or_insert_with(|| format!("{place}: {why}"));
    }

    /// What came of it.
    pub(super) fn check(self) -> AuditCheck {
        AuditCheck {
            lines: self.lines,
            first_seq: self.first_seq,
            broken: self.broken,
            kept_found: self.kept.map(|_| self.kept_found),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chained(count: u64) -> Vec<String> {
        let mut before = beginning();
        let line = |seq| {
            let who = api::Who { uid: Some(0), token: None, name: Some("root".to_owned()) };
            let line = AuditLine {
                seq,
                at: 1_790_000_000_000 + seq,
                time: "2026-09-21T14:13:20Z".to_owned(),
                who,
                from: "unix pid 1".to_owned(),
                method: "POST".to_owned(),
                path: "/v1/moves".to_owned(),
                what: "{\"vm\":\"web\"}".to_owned(),
                status: 202,
                before: before.clone(),
                hash: String::new(),
            };
            let (text, hash) = sealed(&line);
            before = hash;
            text
        };
        (1..=count).map(line).collect()
    }

    fn check(lines: &[String], kept: Option<String>) -> AuditCheck {
        let mut walk = Walk::new(kept);
        for (number, line) in lines.iter().enumerate() {
            walk.line(&format!("line {}", number + 1), line.as_bytes());
        }
        walk.check()
    }

    fn broken(lines: &[String]) -> String {
        check(lines, None).broken.expect("it does not fit")
    }

    #[test]
    fn what_was_chained_fits() {
        let lines = chained(5);
        let whole = AuditCheck { lines: 5, first_seq: 1, broken: None, kept_found: None };
        assert_eq!(check(&lines, None), whole);
        assert_eq!(check(&[], None).lines, 0);
        let read = read(lines[1].as_bytes()).unwrap();
        assert_eq!((read.seq, read.hash.len(), &*read.path), (2, HASH, "/v1/moves"));
        assert!(lines[2].contains(&read.hash), "the next line holds it");
    }

    #[test]
    fn no_byte_of_a_line_can_be_changed() {
        let lines = chained(3);
        for at in 0..lines[1].len() {
            let mut bytes = lines[1].clone().into_bytes();
            bytes[at] ^= 1;
            let mut walk = Walk::default();
            walk.line("line 1", lines[0].as_bytes());
            walk.line("line 2", &bytes);
            walk.line("line 3", lines[2].as_bytes());
            let broken = walk.check().broken.expect("it does not fit");
            assert!(broken.starts_with("line 2: "), "byte {at}: {broken}");
        }
    }

    #[test]
    fn blanks_and_fields_that_mean_nothing_are_changes_too() {
        for (from, to) in [(",\"at\"", ", \"at\""), ("{\"seq\"", "{\"more\":1,\"seq\"")] {
            let mut lines = chained(2);
            lines[0] = lines[0].replacen(from, to, 1);
            assert!(broken(&lines).starts_with("line 1: "), "{from}");
        }
    }

    #[test]
    fn a_line_with_a_hash_of_its_own_does_not_fit_what_follows() {
        let mut lines = chained(3);
        let mut forged = read(lines[1].as_bytes()).unwrap();
        forged.who.name = Some("anna".to_owned());
        lines[1] = sealed(&forged).0;
        assert!(broken(&lines).starts_with("line 3: it is number 3 and does not follow"));
    }

    #[test]
    fn lines_that_are_missing_put_in_or_swapped_are_found() {
        let whole = chained(5);
        let mut dropped = whole.clone();
        dropped.remove(2);
        assert!(
            broken(&dropped).starts_with("line 3: it is number 4 and does not follow number 2")
        );
        let mut swapped = whole.clone();
        swapped.swap(1, 2);
        assert!(broken(&swapped).starts_with("line 2: it is number 3"));
        let mut repeated = whole.clone();
        repeated.insert(2, whole[1].clone());
        assert!(broken(&repeated).starts_with("line 3: it is number 2"));
        let mut garbage = whole;
        garbage[4] = "{}".to_owned();
        assert_eq!(broken(&garbage), "line 5: it cannot be read");
    }

    #[test]
    fn what_is_taken_off_the_end_is_only_seen_by_whoever_kept_the_hash() {
        let whole = chained(5);
        let kept = read(whole[4].as_bytes()).unwrap().hash;
        let cut = &whole[..4];
        assert_eq!(check(cut, None).broken, None, "the chain alone does not tell");
        assert_eq!(check(cut, Some(kept.clone())).kept_found, Some(false));
        assert_eq!(check(&whole, Some(kept)).kept_found, Some(true));
    }

    #[test]
    fn what_begins_later_says_so() {
        let later = check(&chained(5)[2..], None);
        assert_eq!((later.first_seq, later.broken), (3, None));
    }
}
