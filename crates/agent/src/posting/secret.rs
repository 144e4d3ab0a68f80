//! What signs: HMAC-SHA256 as Standard Webhooks has it (standardwebhooks.com), so that receivers can check by ready-made libraries.
//! And a header that a receiver of traces asks for.
//!
//! **Invariant:** a secret is in no `Debug` form and in no error.

use std::fmt;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use data_encoding::BASE64;
use hyper::header::{HeaderName, HeaderValue};
use ring::hmac::{HMAC_SHA256, Key, sign};

/// How to make one, for errors.
const MAKE: &str = "make it with: echo whsec_$(head -c 32 /dev/urandom | base64)";
/// How to write a header, for errors.
const WRITE: &str = "write one line, such as: authorization: Bearer TOKEN";
/// More is in no file of a header.
const HEADER_MAX: u64 = 8 * 1024;
const PREFIX: &str = "whsec_";
/// The old one and the new one.
const SECRETS_MAX: usize = 2;
/// More is in no file of two secrets.
const FILE_MAX: u64 = 1024;

/// One secret, or two while receivers change from one to the other.
#[derive(Clone)]
pub(super) struct Secrets(Vec<Key>);

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets(..)")
    }
}

impl Secrets {
    /// The secrets in this file, which others must not be able to read, its group perhaps.
    ///
    /// # Errors
    /// What is wrong with it, and what to do.
    pub(super) fn read(file: &Path) -> Result<Secrets, String> {
        let text = text(file, FILE_MAX, MAKE)?;
        Secrets::of(&text).map_err(|wrong| format!("{}: {wrong}", file.display()))
    }

    fn of(text: &str) -> Result<Secrets, String> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let key = |line: &str| {
            let bytes = line.strip_prefix(PREFIX)?;
            let bytes = BASE64.decode(bytes.as_bytes()).ok()?;
            (24..=64).contains(&bytes.len()).then(|| Key::new(HMAC_SHA256, &bytes))
        };
        let keys: Option<Vec<Key>> = lines.map(key).collect();
        let keys = keys.ok_or_else(|| {
            format!("a line is no secret (`{PREFIX}` and the base64 of 24 to 64 bytes); {MAKE}")
        })?;
        match keys.len() {
            0 => Err(format!("there is no secret in it; {MAKE}")),
            1..=SECRETS_MAX => Ok(Secrets(keys)),
            many => Err(format!("{many} secrets; {SECRETS_MAX} at most, the old one and the new")),
        }
    }

    /// The header `webhook-signature` of a body that is sent at this second since 1970.
    pub(super) fn signature(&self, id: &str, second: u32, body: &[u8]) -> String {
        let signed = [format!("{id}.{second}.").as_bytes(), body].concat();
        let all =
            self.0.iter().map(|key| format!("v1,{}", BASE64.encode(sign(key, &signed).as_ref())));
        all.collect::<Vec<_>>().join(" ")
    }
}

/// A header with a secret in it.
#[derive(Clone, Debug)]
pub(super) struct Header {
    pub(super) name: HeaderName,
    /// Marked as what no `Debug` form shows.
    pub(super) value: HeaderValue,
}

impl Header {
    /// The header in this file, which others must not be able to read, its group perhaps.
    ///
    /// # Errors
    /// What is wrong with it, and what to do.
    pub(super) fn read(file: &Path) -> Result<Header, String> {
        let text = text(file, HEADER_MAX, WRITE)?;
        Header::of(&text).ok_or_else(|| format!("{} holds no header; {WRITE}", file.display()))
    }

    fn of(text: &str) -> Option<Header> {
        let (name, value) = text.trim().split_once(':')?;
        let (name, value) = (name.trim().parse().ok()?, value.trim());
        let mut value: HeaderValue = value.parse().ok().filter(|_| !value.is_empty())?;
        value.set_sensitive(true);
        Some(Header { name, value })
    }
}

/// What is in a file of a secret, which is `max` bytes at most; `make` says how to write one.
fn text(file: &Path, max: u64, make: &str) -> Result<String, String> {
    let place = file.display();
    let unread = |error: std::io::Error| format!("reading {place}: {error}; {make}");
    let found = fs::metadata(file).map_err(unread)?;
    let mode = found.permissions().mode() & 0o777;
    if mode & 0o037 != 0 {
        return Err(format!(
            "{place} can be read or written by others (mode {mode:o}): run chmod 640 on it, and if others may have read it, make a new one"
        ));
    }
    if found.len() > max {
        return Err(format!("{place} holds no secret but {} bytes; {make}", found.len()));
    }
    fs::read_to_string(file).map_err(unread)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    #[test]
    fn a_signature_is_as_others_make_it() {
        let secrets = Secrets::of(ONE).unwrap();
        let id = "msg_p5jXN8AQM9LWM0D4loKWxJek";
        let body = br#"{"test": 2432232314}"#;
        let signed = secrets.signature(id, 1_614_265_330, body);
        // The reference vector of Standard Webhooks' own libraries.
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        let two = Secrets::of(&format!("{ONE}\n\nwhsec_{}\n", BASE64.encode(&[7; 32]))).unwrap();
        let both = two.signature(id, 1_614_265_330, body);
        assert!(both.starts_with(&format!("{signed} v1,")) && both.len() == 2 * signed.len() + 1);
    }

    #[test]
    fn a_file_that_holds_no_secret_is_told_without_what_it_holds() {
        for (text, words) in [
            ("", "there is no secret in it"),
            ("s3cret", "a line is no secret"),
            ("whsec_s3cret!", "a line is no secret"),
            ("whsec_czNjcmV0", "24 to 64 bytes"),
            (&format!("{ONE}\n{ONE}\n{ONE}\n"), "3 secrets; 2 at most"),
        ] {
            let why = Secrets::of(text).unwrap_err();
            assert!(
                why.contains(words) && !why.contains("s3cret") && !why.contains("MfKQ"),
                "{why}"
            );
        }
        assert_eq!(format!("{:?}", Secrets::of(ONE).unwrap()), "Secrets(..)");
    }

    #[test]
    fn a_header_is_one_line_and_never_shown() {
        let header = Header::of("Authorization:  Bearer s3cret \n").unwrap();
        let parts = (header.name.as_str(), header.value.as_bytes());
        assert_eq!(parts, ("authorization", &b"Bearer s3cret"[..]));
        assert!(!format!("{header:?}").contains("s3cret"));
        for odd in ["", "s3cret", ": s3cret", "x-key:", "a b: s3cret", "x-key: s3\ncret: more"] {
            assert!(Header::of(odd).is_none(), "{odd}");
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("h");
        fs::write(&file, "s3cret").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let why = Header::read(&file).unwrap_err();
        assert!(why.contains("authorization: Bearer") && !why.contains("s3cret"), "{why}");
    }

    #[test]
    fn a_file_that_others_can_read_is_not_gone_by() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("hook.key");
        let why = Secrets::read(&file).unwrap_err();
        assert!(why.contains("hook.key") && why.contains("head -c 32"), "{why}");
        fs::write(&file, ONE).unwrap();
        for (mode, taken) in [(0o600, true), (0o640, true), (0o660, false), (0o644, false)] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(Secrets::read(&file).is_ok(), taken, "{mode:o}");
        }
        assert!(Secrets::read(&file).unwrap_err().contains("(mode 644): run chmod 640 on it"));
        fs::write(&file, "x".repeat(2000)).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(Secrets::read(&file).unwrap_err().contains("2000 bytes"));
    }
}
