//! A host's request for a certificate (PKCS#10): it names the host and its addresses, and proves that the key is there.
//!
//! The key is made on the host and never leaves it. It waits as `host.key.next` until the certificate comes.

use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use decide::units::HostId;
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DnType, DnValue, KeyPair,
    PKCS_ECDSA_P256_SHA256, PublicKey, SanType,
};

use crate::identity::{of_uri, uri};
use crate::{folder, grant};

/// The key that waits for its certificate.
pub(crate) const NEXT_KEY: &str = "host.key.next";
/// Addresses that a host may have.
const ADDRESSES_MAX: usize = 16;
/// Bytes of a host's name.
const NAME_MAX: usize = 64;
/// Bytes of a request.
const REQUEST_MAX: usize = 16 * 1024;

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The host.
    pub host: HostId,
    /// Its name, for people.
    pub name: String,
    /// The addresses at which it is reached.
    pub addresses: Vec<IpAddr>,
}

/// Makes a key in the folder; gives the request for its certificate, in PEM.
///
/// # Errors
/// If the key cannot be made or written.
pub fn make(folder: &Path, wanted: &Wanted) -> anyhow::Result<String> {
    wanted.check()?;
    folder::make(folder)?;
    let _alone = folder::lock(folder)?;
    // A key that waits for no certificate any more must not be lost to the next.
    grant::settle(folder)?;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("making a key")?;
    let params = wanted.params()?;
    let request = params.serialize_request(&key).and_then(|request| request.pem());
    let request = request.context("writing a request")?;
    folder::write(folder, NEXT_KEY, key.serialize_pem().as_bytes())?;
    Ok(request)
}

/// Reads a request; gives who asks, and for which key.
///
/// # Errors
/// If it is none, asks for something else than a host's certificate, or does not prove that the key is there.
pub fn read(pem: &str) -> anyhow::Result<(Wanted, PublicKey)> {
    ensure!(pem.len() <= REQUEST_MAX, "a request of more than {REQUEST_MAX} bytes");
    let read = CertificateSigningRequestParams::from_pem(pem)
        .context("no request for a certificate, in PEM, whose signature holds")?;
    ensure!(
        read.public_key.algorithm() == &PKCS_ECDSA_P256_SHA256,
        "a request with a key of another kind than ECDSA P-256"
    );
    let (mut host, mut addresses) = (None, Vec::new());
    for name in &read.params.subject_alt_names {
        if let SanType::URI(uri) = name {
            let found = of_uri(uri.as_str())
                .with_context(|| format!("{:?} names no host", uri.as_str()))?;
            ensure!(host.replace(found).is_none(), "a request for more than one host");
        } else if let SanType::IpAddress(address) = name {
            addresses.push(*address);
        } else {
            bail!("a request for another name than a host and its addresses: {name:?}");
        }
    }
    let name = match read.params.distinguished_name.get(&DnType::CommonName) {
        Some(DnValue::Utf8String(name)) => name.clone(),
        _ => bail!("a request without the host's name"),
    };
    let wanted = Wanted { host: host.context("a request that names no host")?, name, addresses };
    wanted.check()?;
    Ok((wanted, read.public_key))
}

impl Wanted {
    fn check(&self) -> anyhow::Result<()> {
        let count = self.addresses.len();
        ensure!(
            (1..=ADDRESSES_MAX).contains(&count),
            "{count} addresses of a host; 1 to {ADDRESSES_MAX} can be"
        );
        let nowhere = self.addresses.iter().find(|address| address.is_unspecified());
        ensure!(nowhere.is_none(), "a host cannot be reached at {nowhere:?}");
        let fit = (1..=NAME_MAX).contains(&self.name.len());
        ensure!(
            fit && !self.name.chars().any(char::is_control),
            "{:?} cannot be a host's name: 1 to {NAME_MAX} bytes can be",
            self.name
        );
        ensure!(self.host != HostId(0), "a host has no id 0");
        Ok(())
    }

    /// What a certificate says of whom it is for.
    pub(crate) fn params(&self) -> anyhow::Result<CertificateParams> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, self.name.clone());
        let uri = uri(self.host).try_into().context("a host's name as a URI")?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.subject_alt_names.extend(self.addresses.iter().copied().map(SanType::IpAddress));
        Ok(params)
    }
}
