//! The cluster's CA: its key signs certificates of hosts and the list of revocations. Kept by the operator.
//!
//! A folder of its own, on whichever machine: `ca.key` (mode 0600, encrypted if there is a passphrase), `ca.crt`, the cluster
//! keys, the list of revocations. No agent needs any of it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use decide::units::HostId;
use pkcs8::der::pem::PemLabel;
use pkcs8::{EncryptedPrivateKeyInfo, LineEnding, PrivateKeyInfo, SecretDocument};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, RevokedCertParams, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use time::OffsetDateTime;

use crate::folder;
use crate::grant::{self, Grant, to_hex};
use crate::identity::{Unix, common_name, serial};
use crate::keys::{CA_CERTIFICATE, CLUSTER_KEYS, REVOKED};
use crate::request::{self, Wanted};
use crate::revoked::{REVOKED_MAX, Revoked};
use crate::ring::Ring;

/// The CA's private key (PKCS#8, PEM).
pub const CA_KEY: &str = "ca.key";
/// How long a host's certificate holds.
pub const LIFE: Duration = Duration::from_secs(30 * DAY);
/// How long the CA's does.
const CA_LIFE: Duration = Duration::from_secs(20 * 365 * DAY);
/// Certificates hold a little before they are issued: clocks differ.
const BEFORE: Duration = Duration::from_secs(3600);
const DAY: u64 = 24 * 3600;
/// Bytes of a passphrase.
const PASSPHRASE_MIN: usize = 12;

/// The CA, its key at hand.
pub struct Authority {
    folder: PathBuf,
    certificate: String,
    der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl Authority {
    /// Makes a cluster's CA and its first cluster key.
    ///
    /// # Errors
    /// If there is one in the folder, or it cannot be written.
    pub fn init(
        folder: &Path,
        cluster: &str,
        passphrase: Option<&str>,
        now: Unix,
    ) -> anyhow::Result<Authority> {
        ensure!(
            !folder.join(CA_KEY).exists(),
            "{} is there already: a cluster has one CA",
            folder.join(CA_KEY).display()
        );
        folder::make(folder)?;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("making the CA's key")?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, format!("Evenkeel cluster {cluster}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        (params.not_before, params.not_after) = span(now, CA_LIFE)?;
        let certificate = params.self_signed(&key).context("signing the CA's certificate")?;
        let stored = match passphrase {
            Some(passphrase) => encrypted(&key, passphrase)?,
            None => key.serialize_pem(),
        };
        let ring = serde_json::to_vec(&Ring::first(now)?).context("writing cluster keys")?;
        folder::write(folder, CA_CERTIFICATE, certificate.pem().as_bytes())?;
        folder::write(folder, CLUSTER_KEYS, &ring)?;
        // Last: where it is there, all is.
        folder::write(folder, CA_KEY, stored.as_bytes())?;
        Authority::open(folder, passphrase)
    }

    /// The CA in this folder.
    ///
    /// # Errors
    /// If there is none, others can read its key, or the passphrase does not open it.
    pub fn open(folder: &Path, passphrase: Option<&str>) -> anyhow::Result<Authority> {
        let place = folder.join(CA_KEY).display().to_string();
        ensure!(
            folder.join(CA_KEY).exists(),
            "there is no CA in {}: run `evenkeel ca init`",
            folder.display()
        );
        let stored = folder::secret_text(folder, CA_KEY)?;
        let key = match (stored.contains("ENCRYPTED"), passphrase) {
            (false, _) => KeyPair::from_pem(&stored)
                .map_err(|_reason| anyhow::anyhow!("{place} is no private key"))?,
            (true, Some(passphrase)) => decrypted(&stored, passphrase).context(place)?,
            (true, None) => {
                anyhow::bail!("{place} is encrypted: give its passphrase by --passphrase-file")
            }
        };
        let certificate = folder::text(folder, CA_CERTIFICATE)?;
        let der = CertificateDer::from_pem_slice(certificate.as_bytes())
            .with_context(|| folder.join(CA_CERTIFICATE).display().to_string())?;
        let issuer = Issuer::from_ca_cert_der(&der, key).context("the CA's certificate")?;
        Ok(Authority { folder: folder.to_owned(), certificate, der, issuer })
    }

    /// Signs a host's request; gives what the host gets, and for whom it is.
    ///
    /// # Errors
    /// If the request is not a host's, or the CA's folder cannot be read.
    pub fn sign(
        &self,
        request: &str,
        life: Duration,
        now: Unix,
    ) -> anyhow::Result<(Grant, Wanted)> {
        let _alone = folder::lock(&self.folder)?;
        self.sign_as(request, life, now, now)
    }

    /// The same, with `issued` as the second that a revocation goes by, for whoever has locked the folder.
    pub(crate) fn sign_as(
        &self,
        request: &str,
        life: Duration,
        now: Unix,
        issued: Unix,
    ) -> anyhow::Result<(Grant, Wanted)> {
        let (wanted, key) = request::read(request)?;
        let mut params = wanted.params()?;
        (params.not_before, params.not_after) = span(now, life)?;
        params.serial_number = Some(SerialNumber::from_slice(&serial(wanted.host, issued)));
        params.is_ca = IsCa::ExplicitNoCa;
        // Names are for people, and two hosts may have the same: QEMU tells hosts by the subject.
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name(wanted.host));
        // QEMU before 10.2 takes no certificate that is not for key encipherment, which TLS 1.3 does not use.
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let signed = params.signed_by(&key, &self.issuer).context("signing a certificate")?;
        self.note(&wanted, issued, Unix(now.0.saturating_add(life.as_secs())))?;
        let grant = Grant { certificate: Some(signed.pem()), ..self.update()? };
        Ok((grant, wanted))
    }

    /// What all hosts should have by now: cluster keys and revocations.
    ///
    /// # Errors
    /// If the CA's folder cannot be read.
    pub fn update(&self) -> anyhow::Result<Grant> {
        let revoked = to_hex(self.revoked()?.der());
        Ok(Grant {
            certificate: None,
            ca: self.certificate.clone(),
            cluster_keys: grant::ring(&self.folder)?
                .context("the CA's folder has no cluster keys")?,
            revoked,
        })
    }

    /// Revokes all certificates of a host that were issued until now, and makes the next cluster key, since it knows the others.
    /// Tokens that are open could be in its hands, so they end. Gives the list's number.
    ///
    /// # Errors
    /// If the list cannot be written.
    pub fn revoke(&self, host: HostId, now: Unix) -> anyhow::Result<u64> {
        let _alone = folder::lock(&self.folder)?;
        self.end_tokens()?;
        let before = self.revoked()?;
        let mut all: Vec<(HostId, Unix)> =
            before.hosts().filter(|(other, _)| *other != host).collect();
        // A clock that was ahead may have issued later than it is now.
        let until = self.issued(host)?.map_or(now, |last| now.max(last.issued));
        all.push((host, until));
        ensure!(all.len() <= REVOKED_MAX, "{REVOKED_MAX} hosts are revoked already");
        let entry = |(host, until): &(HostId, Unix)| {
            Ok::<_, anyhow::Error>(RevokedCertParams {
                serial_number: SerialNumber::from_slice(&serial(*host, *until)),
                revocation_time: date(*until)?,
                reason_code: None,
                invalidity_date: None,
            })
        };
        let version = before.version + 1;
        let (_, next_update) = span(now, CA_LIFE)?;
        let list = CertificateRevocationListParams {
            this_update: date(now)?,
            next_update,
            crl_number: SerialNumber::from(version),
            issuing_distribution_point: None,
            revoked_certs: all.iter().map(entry).collect::<Result<_, _>>()?,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let signed = list.signed_by(&self.issuer).context("signing the list of revocations")?;
        folder::write(&self.folder, REVOKED, signed.der())?;
        // Made later than what is revoked: a host that is let in again is heard under it.
        grant::rotate_alone(&self.folder, Unix(until.0 + 1))?;
        Ok(version)
    }

    fn revoked(&self) -> anyhow::Result<Revoked> {
        let list = self.folder.join(REVOKED).exists();
        let list = list.then(|| folder::read(&self.folder, REVOKED)).transpose()?;
        Revoked::read(&list.unwrap_or_default(), &self.der)
    }

    /// Takes over what a host's folder of keys holds that is newer: what other hosts have rotated.
    ///
    /// # Errors
    /// If that is of another CA, or cannot be read or written.
    pub fn absorb(&self, keys: &Path, now: Unix) -> anyhow::Result<bool> {
        Grant::held(keys)?.merge(&self.folder, now)
    }

    /// Whether a host's certificate of that second is revoked.
    pub(crate) fn is_revoked(&self, host: HostId, issued: Unix) -> anyhow::Result<bool> {
        Ok(self.revoked()?.shuts_out(host, issued))
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }
}

/// PKCS#8 with PBES2: scrypt and AES-256-CBC, which `openssl pkey` opens too.
fn encrypted(key: &KeyPair, passphrase: &str) -> anyhow::Result<String> {
    ensure!(
        passphrase.len() >= PASSPHRASE_MIN,
        "a passphrase of {} bytes is too short: use {PASSPHRASE_MIN} or more",
        passphrase.len()
    );
    let failed = |error: pkcs8::Error| anyhow::anyhow!("encrypting the CA's key: {error}");
    let info = PrivateKeyInfo::try_from(key.serialized_der()).map_err(failed)?;
    let sealed = info.encrypt(pkcs8::rand_core::OsRng, passphrase).map_err(failed)?;
    let pem = sealed.to_pem(EncryptedPrivateKeyInfo::PEM_LABEL, LineEnding::LF);
    Ok(pem.context("writing the CA's key")?.to_string())
}

fn decrypted(pem: &str, passphrase: &str) -> anyhow::Result<KeyPair> {
    let (label, stored) =
        SecretDocument::from_pem(pem).map_err(|_reason| anyhow::anyhow!("no key in PEM"))?;
    ensure!(label == EncryptedPrivateKeyInfo::PEM_LABEL, "{label:?} in place of an encrypted key");
    let info = EncryptedPrivateKeyInfo::try_from(stored.as_bytes())
        .map_err(|_reason| anyhow::anyhow!("no encrypted key"))?;
    let opened = info
        .decrypt(passphrase)
        .map_err(|_reason| anyhow::anyhow!("the passphrase does not open it"))?;
    let der = rustls::pki_types::PrivatePkcs8KeyDer::from(opened.as_bytes());
    KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ECDSA_P256_SHA256)
        .map_err(|_reason| anyhow::anyhow!("no ECDSA P-256 key"))
}

/// From a little before now until `life` from now.
fn span(now: Unix, life: Duration) -> anyhow::Result<(OffsetDateTime, OffsetDateTime)> {
    Ok((
        date(Unix(now.0.saturating_sub(BEFORE.as_secs())))?,
        date(Unix(now.0.saturating_add(life.as_secs())))?,
    ))
}

fn date(at: Unix) -> anyhow::Result<OffsetDateTime> {
    let second = i64::try_from(at.0).context("a time beyond all calendars")?;
    OffsetDateTime::from_unix_timestamp(second).context("a time beyond all calendars")
}
