//! Which hosts are shut out: a certificate revocation list (RFC 5280), signed by the CA.
//!
//! Its number grows with each change, so the newest of two lists is known. An entry's serial number names a host and a second
//! (see `identity`): every certificate of that host issued until then is revoked, also one that nobody kept a record of. A host
//! that was set up anew gets a later one.
//!
//! **Invariant:** a list is used only if the CA signed it, and never in place of one with a higher number.

use std::collections::BTreeMap;

use anyhow::{Context, bail, ensure};
use decide::units::HostId;
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

use crate::identity::{Identity, Unix, in_serial};

/// Entries that a list may have.
pub const REVOKED_MAX: usize = 4096;

/// A list as it was signed, and what it says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revoked {
    /// The list's number; 0 where nothing was ever revoked.
    pub version: u64,
    /// Until when each host's certificates are revoked.
    hosts: BTreeMap<HostId, Unix>,
    /// As it was signed.
    der: Vec<u8>,
}

impl Revoked {
    /// A list that this CA signed; no bytes are the list before the first.
    ///
    /// # Errors
    /// If it cannot be read, or was not signed by this CA.
    pub fn read(der: &[u8], ca: &[u8]) -> anyhow::Result<Revoked> {
        if der.is_empty() {
            return Ok(Revoked::default());
        }
        let (rest, list) = CertificateRevocationList::from_der(der)
            .map_err(|_malformed| anyhow::anyhow!("the list of revocations cannot be read"))?;
        ensure!(rest.is_empty(), "the list of revocations is followed by something else");
        let (_, ca) = X509Certificate::from_der(ca)
            .map_err(|_malformed| anyhow::anyhow!("the CA's certificate cannot be read"))?;
        if list.issuer() != ca.subject() || list.verify_signature(ca.public_key()).is_err() {
            bail!("the list of revocations was not signed by this cluster's CA");
        }
        let number = list.crl_number().and_then(|number| u64::try_from(number).ok());
        let version = number.context("the list of revocations has no number")?;
        let mut hosts = BTreeMap::new();
        for entry in list.iter_revoked_certificates() {
            let (until, host) = in_serial(entry.raw_serial())
                .context("an entry of the list of revocations names no host")?;
            let known = hosts.entry(host).or_insert(until);
            *known = until.max(*known);
            ensure!(hosts.len() <= REVOKED_MAX, "more than {REVOKED_MAX} revoked hosts");
        }
        Ok(Revoked { version, hosts, der: der.to_vec() })
    }

    /// As it was signed.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Whether this certificate is revoked.
    #[must_use]
    pub fn holds(&self, identity: &Identity) -> bool {
        self.hosts.get(&identity.host).is_some_and(|until| identity.issued <= *until)
    }

    /// Whether a host's datagrams under a cluster key made then are refused. Keys made later it got from the operator anew.
    #[must_use]
    pub fn shuts_out(&self, host: HostId, made: Unix) -> bool {
        self.hosts.get(&host).is_some_and(|until| made <= *until)
    }

    /// All entries.
    pub fn hosts(&self) -> impl Iterator<Item = (HostId, Unix)> {
        self.hosts.iter().map(|(host, until)| (*host, *until))
    }
}
