//! `[[webhook]]`: who is told of alarms and moves, by HTTP.
//!
//! **Invariant:** of a URL only scheme, host and port are ever shown: what follows is a secret with many receivers.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use hyper::Uri;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// Each is a task of its own, with a connection now and then.
const WEBHOOKS_MAX: usize = 8;
const URL_MAX: usize = 2048;

/// One `[[webhook]]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// Where to post: https, or http at a loopback address.
    pub url: Url,
    /// What is told; both where absent.
    #[serde(default = "both", deserialize_with = "some")]
    pub events: Vec<Told>,
    /// The file of the secret that signs: a line `whsec_…`, or two while one takes the other's place.
    pub secret_file: PathBuf,
    /// The certificates, in PEM, of the CAs that the receiver's may be of; the machine's own where absent.
    pub ca_file: Option<PathBuf>,
}

/// What a webhook is told, each by the host where it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Told {
    /// The steps `alarm` and `vm-down`.
    Alarms,
    /// The steps `copy` (it has begun), `done` and `abandoned`: of moves from this host.
    Moves,
}

fn both() -> Vec<Told> {
    vec![Told::Alarms, Told::Moves]
}

fn some<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Told>, D::Error> {
    let told = Vec::<Told>::deserialize(from)?;
    let none = "nothing would be told; write [\"alarms\", \"moves\"], or one of them";
    if told.is_empty() { Err(D::Error::custom(none)) } else { Ok(told) }
}

/// Reads all of them.
pub(super) fn all<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Webhook>, D::Error> {
    let all = Vec::<Webhook>::deserialize(from)?;
    if all.len() > WEBHOOKS_MAX {
        let many = format!("{} webhooks, {WEBHOOKS_MAX} at most; have one pass on", all.len());
        return Err(D::Error::custom(many));
    }
    for (number, webhook) in all.iter().enumerate() {
        if all[..number].iter().any(|other| other.url == webhook.url) {
            let twice = format!(
                "two webhooks have the same URL at {}; name all `events` in one",
                webhook.url
            );
            return Err(D::Error::custom(twice));
        }
    }
    Ok(all)
}

/// Where to post.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    /// Whether by TLS.
    pub tls: bool,
    /// A name, or an address without brackets.
    pub host: String,
    /// 443 or 80 where it is not said.
    pub port: u16,
    /// As it goes into the header `host`.
    pub authority: String,
    /// What is asked there, at least `/`. Secret.
    pub path: String,
}

impl fmt::Display for Url {
    /// For people: without what may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}/…", self.authority)
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Url {
    /// # Errors
    /// What is wrong, and what to write; nothing of the URL.
    pub(super) fn read(text: &str) -> Result<Url, &'static str> {
        let none = "this is no URL to post to; write \"https://example.org/hook\"";
        if text.len() > URL_MAX {
            return Err("the URL is too long; 2048 bytes at most");
        }
        let uri: Uri = text.parse().map_err(|_odd| none)?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(none),
        };
        let authority = uri.authority().ok_or(none)?;
        if authority.as_str().contains('@') {
            return Err(
                "a URL with a user or password is not taken; name the file of a secret instead",
            );
        }
        if text.contains('#') {
            return Err("what follows `#` is never sent; leave it out");
        }
        let host = authority.host();
        let port = match authority.as_str().strip_prefix(host).ok_or(none)? {
            "" if tls => 443,
            "" => 80,
            port => port.strip_prefix(':').and_then(|port| port.parse().ok()).ok_or(none)?,
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() || port == 0 {
            return Err(none);
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Url { tls, host, port, authority: authority.to_string(), path })
    }

    /// Whether nobody between here and there reads what is posted: by TLS, or within this machine.
    pub(super) fn keeps_secrets(&self) -> bool {
        self.tls || self.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    /// The same, for what nobody else may read.
    fn private(text: &str) -> Result<Url, &'static str> {
        let url = Url::read(text)?;
        if !url.keeps_secrets() {
            return Err(
                "http is taken at loopback addresses alone (http://127.0.0.1:8080/hook); write https",
            );
        }
        Ok(url)
    }
}

impl<'de> Deserialize<'de> for Url {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Url, D::Error> {
        Url::private(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart_and_its_path_shown_nowhere() {
        let url = Url::read("https://example.org/s3cret?k=s3cret").unwrap();
        assert_eq!((url.tls, &*url.host, url.port), (true, "example.org", 443));
        assert_eq!((&*url.authority, &*url.path), ("example.org", "/s3cret?k=s3cret"));
        assert_eq!(format!("{url} {url:?}"), "https://example.org/… https://example.org/…");
        let url = Url::read("http://[::1]:8080").unwrap();
        assert_eq!((url.tls, &*url.host, url.port, &*url.path), (false, "::1", 8080, "/"));
        assert_eq!(url.authority, "[::1]:8080");
        assert_eq!(Url::read("http://127.9.9.9/").unwrap().port, 80);
    }

    #[test]
    fn what_is_no_url_to_post_to_is_told_with_what_to_write() {
        for (wrong, words) in [
            ("", "write \"https://example.org/hook\""),
            ("/hook", "write \"https://example.org/hook\""),
            ("ftp://example.org/", "write \"https://example.org/hook\""),
            ("https://", "write \"https://example.org/hook\""),
            ("https://example.org:0/", "write \"https://example.org/hook\""),
            ("https://example.org:/", "write \"https://example.org/hook\""),
            ("https://example.org:99999/", "write \"https://example.org/hook\""),
            ("http://example.org/", "write https"),
            ("http://localhost/", "write https"),
            ("http://198.18.0.1/", "write https"),
            ("https://me:s3cret@example.org/", "a secret instead"),
            ("https://example.org/#s3cret", "leave it out"),
        ] {
            let why = Url::private(wrong).expect_err(wrong);
            assert!(why.contains(words) && !why.contains("s3cret"), "{wrong}: {why}");
        }
        let long = format!("https://example.org/{}", "a".repeat(URL_MAX));
        assert!(Url::read(&long).unwrap_err().contains("too long"));
    }
}
