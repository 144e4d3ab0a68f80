//! `[traces]`: who gets moves as traces, by OTLP.

use std::path::PathBuf;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::Url;

/// `[traces]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Traces {
    /// Where to post: OTLP over HTTP, with the path of traces.
    #[serde(deserialize_with = "url")]
    pub url: Url,
    /// The file of a header that the receiver asks for, `name: value` in one line; none where absent.
    pub header_file: Option<PathBuf>,
    /// The certificates, in PEM, of the CAs that the receiver's may be of; the machine's own where absent.
    pub ca_file: Option<PathBuf>,
}

/// Reads it.
pub(super) fn some<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Traces>, D::Error> {
    let traces = Traces::deserialize(from)?;
    if traces.header_file.is_some() && !traces.url.keeps_secrets() {
        let clear =
            "the header would be sent in the clear; write https, or leave `header_file` out";
        return Err(D::Error::custom(clear));
    }
    Ok(Some(traces))
}

fn url<'de, D: Deserializer<'de>>(from: D) -> Result<Url, D::Error> {
    let url = Url::read(&String::deserialize(from)?).map_err(D::Error::custom)?;
    if url.path == "/" {
        let none = "the path is missing; write \"http://collector:4318/v1/traces\"";
        return Err(D::Error::custom(none));
    }
    Ok(url)
}
