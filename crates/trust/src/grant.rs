//! What the CA gives to a host: its certificate and all else that it needs to take part.
//!
//! It holds the cluster keys, so it is as secret as they are; the host's own key is not in it.

use std::fmt;
use std::path::Path;

use anyhow::{Context, ensure};
use rcgen::KeyPair;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::folder;
use crate::identity::{Identity, Unix};
use crate::join::Token;
use crate::keys::{CA_CERTIFICATE, CLUSTER_KEYS, HOST_CERTIFICATE, HOST_KEY, REVOKED};
use crate::request::NEXT_KEY;
use crate::revoked::Revoked;
use crate::ring::Ring;

/// Bytes of a grant: one with the longest list of revocations is below.
const GRANT_MAX: usize = 1024 * 1024;

/// All that a host gets.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// The host's certificate, in PEM; absent where only what follows has changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// The CA's, in PEM.
    pub ca: String,
    /// The keys of datagrams.
    pub cluster_keys: Ring,
    /// The list of revocations: hexadecimal DER, empty where nothing was ever revoked.
    pub revoked: String,
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grant").finish_non_exhaustive()
    }
}

impl Grant {
    /// Writes it to a file that only its owner may read.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, file: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self).context("writing a grant")?;
        let (folder, name) = parts(file)?;
        folder::write(folder, name, text.as_bytes())
    }

    /// Reads such a file.
    ///
    /// # Errors
    /// If it is none, or others may read it.
    pub fn read(file: &Path) -> anyhow::Result<Grant> {
        let (folder, name) = parts(file)?;
        let text = folder::read_secret(folder, name)?;
        ensure!(text.len() <= GRANT_MAX, "a grant of more than {GRANT_MAX} bytes");
        // The reason names line and column, and no value of what is known to be a secret.
        serde_json::from_slice(&text).with_context(|| {
            let file = file.display();
            format!("{file}: no grant as `evenkeel ca sign` or `evenkeel ca update` makes it")
        })
    }

    /// What a folder of keys holds that is the same on all hosts: no certificate.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn held(folder: &Path) -> anyhow::Result<Grant> {
        let ca = folder::text(folder, CA_CERTIFICATE)?;
        // In this order: a new key is written after the list of whom it is kept from.
        let cluster_keys = ring(folder)?.context("there are no cluster keys")?;
        let revoked = to_hex(&list(folder)?.unwrap_or_default());
        Ok(Grant { certificate: None, ca, cluster_keys, revoked })
    }

    /// Puts it into a host's folder; gives the host, if a certificate came with it. What is newer there stays.
    ///
    /// # Errors
    /// If it is not for this folder's key, or of another CA than the folder's. Nothing has changed then.
    pub fn install(&self, into: &Path, now: Unix) -> anyhow::Result<Option<Identity>> {
        let ca = self.ca()?;
        let _alone = folder::lock(into)?;
        settle(into)?;
        let own = self.certificate.as_deref().map(|pem| own(into, pem, &ca)).transpose()?;
        let before = (revocations(into)?, ring(into)?.map(|ring| ring.newest()));
        self.merge_alone(into, now)?;
        let after = (revocations(into)?, ring(into)?.map(|ring| ring.newest()));
        if before.1.is_some() && after.0 > before.0 && after.1 == before.1 {
            // The CA was elsewhere, and did not know how far the keys here have come.
            rotate_alone(into, now)?;
        }
        if let Some(pem) = self.certificate.as_ref().filter(|_| own.is_some()) {
            folder::write(into, HOST_CERTIFICATE, pem.as_bytes())?;
            // Where this is cut off, the key that waits is known by the certificate.
            settle(into)?;
        }
        Ok(own)
    }

    /// Brings a folder of keys up to this, as far as this is newer; says whether it was.
    ///
    /// # Errors
    /// If it is of another CA than the folder's, or not signed by that. Nothing has changed then.
    pub fn merge(&self, into: &Path, now: Unix) -> anyhow::Result<bool> {
        let _alone = folder::lock(into)?;
        // A key that waits and is none keeps no revocation waiting; whoever installs or asks is told of it.
        let _ = settle(into);
        self.merge_alone(into, now)
    }

    fn merge_alone(&self, into: &Path, now: Unix) -> anyhow::Result<bool> {
        let ca = self.ca()?;
        let known = into.join(CA_CERTIFICATE).exists();
        if known {
            let at = || into.join(CA_CERTIFICATE).display().to_string();
            let text = folder::text(into, CA_CERTIFICATE)?;
            let known = CertificateDer::from_pem_slice(text.as_bytes()).with_context(at)?;
            ensure!(
                known == ca,
                "the grant is of another CA than {}: to change the cluster, remove that folder first",
                at()
            );
        }
        let came = from_hex(&self.revoked).context("the list of revocations in the grant")?;
        let version = Revoked::read(&came, &ca)?.version;
        let here = list(into)?.map(|list| Revoked::read(&list, &ca)).transpose()?;
        let newer = version > here.map_or(0, |list| list.version);
        self.cluster_keys.check()?;
        let here = ring(into)?;
        let merged = here.as_ref().unwrap_or(&self.cluster_keys).merged(&self.cluster_keys, now);
        let other = here.as_ref() != Some(&merged);
        if !known {
            folder::write(into, CA_CERTIFICATE, self.ca.as_bytes())?;
        }
        if newer {
            folder::write(into, REVOKED, &came)?;
        }
        if other {
            let bytes = serde_json::to_vec(&merged).context("writing cluster keys")?;
            folder::write(into, CLUSTER_KEYS, &bytes)?;
        }
        Ok(!known || newer || other)
    }

    /// Whether it is of the CA that a token pins.
    ///
    /// # Errors
    /// If its CA's certificate cannot be read.
    pub fn is_of(&self, token: &Token) -> anyhow::Result<bool> {
        Ok(token.pins(&self.ca()?))
    }

    /// Whether this host's certificate is revoked by the list in it.
    ///
    /// # Errors
    /// If that cannot be read.
    pub fn revokes(&self, identity: &Identity) -> anyhow::Result<bool> {
        let list = from_hex(&self.revoked).context("the list of revocations in the grant")?;
        Ok(Revoked::read(&list, &self.ca()?)?.holds(identity))
    }

    fn ca(&self) -> anyhow::Result<CertificateDer<'static>> {
        CertificateDer::from_pem_slice(self.ca.as_bytes())
            .context("the CA's certificate in the grant")
    }
}

/// The number of the list of revocations in a folder of keys or of the CA, 0 where there is none.
///
/// # Errors
/// If it cannot be read.
pub fn revocations(folder: &Path) -> anyhow::Result<u64> {
    let Some(list) = list(folder)? else { return Ok(0) };
    let ca = CertificateDer::from_pem_slice(folder::text(folder, CA_CERTIFICATE)?.as_bytes())
        .context("the CA's certificate")?;
    Ok(Revoked::read(&list, &ca)?.version)
}

/// The list of revocations in a folder, if there is one.
fn list(folder: &Path) -> anyhow::Result<Option<Vec<u8>>> {
    folder.join(REVOKED).exists().then(|| folder::read(folder, REVOKED)).transpose()
}

/// The cluster keys in a folder, if there are any.
pub(crate) fn ring(folder: &Path) -> anyhow::Result<Option<Ring>> {
    if !folder.join(CLUSTER_KEYS).exists() {
        return Ok(None);
    }
    let read = || {
        let ring: Ring = serde_json::from_slice(&folder::read_secret(folder, CLUSTER_KEYS)?)?;
        ring.check()?;
        anyhow::Ok(ring)
    };
    read().map(Some).with_context(|| folder.join(CLUSTER_KEYS).display().to_string())
}

/// Brings the list of revocations of the CA's folder to a folder of keys, if it is newer than what is there; says whether it was.
/// The cluster keys of neither are changed: what revokes must not wait for what is wrong with those.
///
/// # Errors
/// If it cannot be read or written, or is of another CA.
pub fn carry_revocations(authority: &Path, into: &Path) -> anyhow::Result<bool> {
    let _alone = folder::lock(into)?;
    let ca = folder::text(into, CA_CERTIFICATE)?;
    let ca = CertificateDer::from_pem_slice(ca.as_bytes()).context("the CA's certificate")?;
    let came = list(authority)?.unwrap_or_default();
    let newer = Revoked::read(&came, &ca)?.version > revocations(into)?;
    if newer {
        folder::write(into, REVOKED, &came)?;
    }
    Ok(newer)
}

/// Makes the next cluster key in a folder of keys; those before still open, until they retire. Gives its epoch.
///
/// # Errors
/// If it cannot be read or written.
pub fn rotate(folder: &Path, now: Unix) -> anyhow::Result<u32> {
    let _alone = folder::lock(folder)?;
    rotate_alone(folder, now)
}

/// The same, for whoever has locked the folder.
pub(crate) fn rotate_alone(folder: &Path, now: Unix) -> anyhow::Result<u32> {
    let next = ring(folder)?.context("there are no cluster keys")?.next(now)?;
    let bytes = serde_json::to_vec(&next).context("writing cluster keys")?;
    folder::write(folder, CLUSTER_KEYS, &bytes)?;
    Ok(next.newest())
}

/// A file's folder and its name there.
fn parts(file: &Path) -> anyhow::Result<(&Path, &str)> {
    let name = file.file_name().and_then(|name| name.to_str());
    let name = name.with_context(|| format!("{} is no file's name", file.display()))?;
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    Ok((folder.unwrap_or(Path::new(".")), name))
}

/// Puts the key that waits in its place, if the certificate that is there is for it.
pub(crate) fn settle(folder: &Path) -> anyhow::Result<()> {
    let (next, certificate) = (folder.join(NEXT_KEY), folder.join(HOST_CERTIFICATE));
    if !next.exists() || !certificate.exists() {
        return Ok(());
    }
    let text = folder::text(folder, HOST_CERTIFICATE)?;
    let at = || certificate.display().to_string();
    let der = CertificateDer::from_pem_slice(text.as_bytes()).with_context(at)?;
    let (_, read) = X509Certificate::from_der(&der)
        .map_err(|_malformed| anyhow::anyhow!("{} cannot be read", at()))?;
    if is_for(&read, &folder::secret_text(folder, NEXT_KEY)?, &next)? {
        folder::rename(folder, NEXT_KEY, HOST_KEY)?;
    }
    Ok(())
}

/// Whether a certificate is for the key of this file.
fn is_for(certificate: &X509Certificate<'_>, key: &str, file: &Path) -> anyhow::Result<bool> {
    let pair = KeyPair::from_pem(key)
        .map_err(|_reason| anyhow::anyhow!("{} is no key", file.display()))?;
    Ok(pair.public_key_raw() == &*certificate.public_key().subject_public_key.data)
}

/// The host of a certificate that a CA has signed for a key in the folder.
fn own(folder: &Path, pem: &str, ca: &[u8]) -> anyhow::Result<Identity> {
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes())
        .context("the host's certificate in the grant")?;
    let identity = Identity::of(&certificate)?;
    let bad = |_reason| anyhow::anyhow!("a certificate in the grant cannot be read");
    let (_, read) = X509Certificate::from_der(&certificate).map_err(bad)?;
    let (_, ca) = X509Certificate::from_der(ca).map_err(bad)?;
    ensure!(
        read.verify_signature(Some(ca.public_key())).is_ok(),
        "the certificate in the grant was not signed by the CA in it"
    );
    // The key that waits; after a grant that was cut off, or for one that is installed again, the one that is there.
    for name in [NEXT_KEY, HOST_KEY] {
        if !folder.join(name).exists() {
            continue;
        }
        if is_for(&read, &folder::secret_text(folder, name)?, &folder.join(name))? {
            return Ok(identity);
        }
    }
    anyhow::bail!(
        "the certificate in the grant is for another key than those in {}: run `evenkeel keys request` there, and have that signed",
        folder.display()
    )
}

pub(crate) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn from_hex(text: &str) -> anyhow::Result<Vec<u8>> {
    ensure!(text.is_ascii() && text.len().is_multiple_of(2), "not hexadecimal");
    let byte = |digits: &[u8]| {
        let digits = str::from_utf8(digits).context("not hexadecimal")?;
        u8::from_str_radix(digits, 16).context("not hexadecimal")
    };
    text.as_bytes().chunks(2).map(byte).collect()
}
