//! A host as its certificate names it.
//!
//! The host is in the alternative names as `evenkeel://host/ID`, its addresses beside it. The serial number says when the
//! certificate was issued and for whom, so that a list of revocations can say "all of this host's until then".

use std::net::IpAddr;

use anyhow::Context;
use decide::units::HostId;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

const URI: &str = "evenkeel://host/";
/// Serial numbers count from 2020, so that they stay positive in 20 bytes (RFC 5280, section 4.1.2.2) until 2088.
const BEGINNING: u64 = 1_577_836_800;
/// Bytes of a serial number: the second of issue, then the host.
const SERIAL: usize = 20;

/// A second since 1970.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(transparent)]
pub struct Unix(pub u64);

/// Whom a certificate names, and when it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The host.
    pub host: HostId,
    /// Its addresses, as the CA signed them.
    pub addresses: Vec<IpAddr>,
    /// When it was issued.
    pub issued: Unix,
    /// From when on it holds: a little before, for clocks that differ.
    pub begins: Unix,
    /// Until when it holds.
    pub ends: Unix,
}

/// A certificate that names no host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a certificate that is no host's: {0}")]
pub struct NoHost(pub(crate) &'static str);

impl Identity {
    /// What a certificate says. Whether the CA has signed it is not looked at.
    ///
    /// # Errors
    /// If it names no host, or more than one.
    pub fn of(certificate: &[u8]) -> Result<Identity, NoHost> {
        let (rest, read) = X509Certificate::from_der(certificate)
            .map_err(|_malformed| NoHost("it cannot be read"))?;
        if !rest.is_empty() {
            return Err(NoHost("more follows it"));
        }
        let names = read.subject_alternative_name().ok().flatten();
        let names = names.ok_or(NoHost("it has no alternative names"))?;
        let (host, addresses) = named(names.value.general_names.iter())?;
        let (issued, of) = in_serial(read.raw_serial())
            .ok_or(NoHost("its serial number is not of this cluster's form"))?;
        if of != host {
            return Err(NoHost("its serial number is another host's"));
        }
        let begins = second(read.validity().not_before.timestamp());
        let ends = second(read.validity().not_after.timestamp());
        Ok(Identity { host, addresses, issued, begins, ends })
    }
}

/// Until when a certificate holds, whosever it is.
///
/// # Errors
/// If it is none.
pub(crate) fn ends(certificate: &[u8]) -> anyhow::Result<Unix> {
    let (_rest, read) = X509Certificate::from_der(certificate).context("no certificate")?;
    Ok(second(read.validity().not_after.timestamp()))
}

/// The subject of a host's certificate, in the form of RFC 4514: no two hosts have the same.
#[must_use]
pub fn subject(host: HostId) -> String {
    format!("CN={}", common_name(host))
}

/// The common name in it.
pub(crate) fn common_name(host: HostId) -> String {
    host.to_string()
}

/// The alternative name of a host.
pub(crate) fn uri(host: HostId) -> String {
    format!("{URI}{host}")
}

/// The host that such a name names.
pub(crate) fn of_uri(uri: &str) -> Option<HostId> {
    uri.strip_prefix(URI)?.parse().ok()
}

/// The one host and its addresses.
fn named<'a>(
    names: impl Iterator<Item = &'a GeneralName<'a>>,
) -> Result<(HostId, Vec<IpAddr>), NoHost> {
    let (mut host, mut addresses) = (None, Vec::new());
    for name in names {
        if let GeneralName::URI(uri) = name {
            let found = of_uri(uri).ok_or(NoHost("its URI is none of a host"))?;
            if host.replace(found).is_some() {
                return Err(NoHost("it names more than one host"));
            }
        } else if let GeneralName::IPAddress(bytes) = name {
            addresses.push(address(bytes).ok_or(NoHost("an address in it is none"))?);
        }
    }
    Ok((host.ok_or(NoHost("it names no host"))?, addresses))
}

fn second(at: i64) -> Unix {
    Unix(u64::try_from(at).unwrap_or(0))
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// The serial number of what is issued for a host at that second.
pub(crate) fn serial(host: HostId, at: Unix) -> [u8; SERIAL] {
    let second = u32::try_from(at.0.saturating_sub(BEGINNING)).unwrap_or(u32::MAX) & 0x7fff_ffff;
    let mut serial = [0; SERIAL];
    serial[..4].copy_from_slice(&second.to_be_bytes());
    serial[4..].copy_from_slice(&host.0.to_be_bytes());
    serial
}

/// What such a number says; DER leaves out zeros before it.
pub(crate) fn in_serial(bytes: &[u8]) -> Option<(Unix, HostId)> {
    let mut serial = [0; SERIAL];
    let from = SERIAL.checked_sub(bytes.len())?;
    serial[from..].copy_from_slice(bytes);
    let second = u32::from_be_bytes(serial[..4].try_into().ok()?);
    let host = u128::from_be_bytes(serial[4..].try_into().ok()?);
    Some((Unix(BEGINNING + u64::from(second)), HostId(host)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_serial_number_says_when_and_for_whom(host: u128, after in 0_u64..=0x7fff_ffff) {
            let at = Unix(BEGINNING + after);
            let serial = serial(HostId(host), at);
            prop_assert!(serial[0] < 0x80, "it would be negative");
            prop_assert_eq!(in_serial(&serial), Some((at, HostId(host))));
            let first = serial.iter().position(|byte| *byte != 0).unwrap_or(SERIAL);
            prop_assert_eq!(in_serial(&serial[first..]), Some((at, HostId(host))));
        }

        #[test]
        fn a_name_says_the_host(host: u128) {
            prop_assert_eq!(of_uri(&uri(HostId(host))), Some(HostId(host)));
        }

        #[test]
        fn no_bytes_are_a_certificate_by_chance(bytes: Vec<u8>) {
            prop_assert!(Identity::of(&bytes).is_err());
        }
    }

    #[test]
    fn names_of_other_kinds_are_no_host() {
        for other in ["evenkeel://host/", "evenkeel://host/1", "https://host/", ""] {
            assert_eq!(of_uri(other), None, "{other}");
        }
        assert_eq!(in_serial(&[1; 21]), None);
    }
}
