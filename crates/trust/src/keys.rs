//! What a host holds: its own key and certificate, the CA's certificate, the cluster keys, and who is revoked.
//!
//! One folder, `keys`, of five files; those with secrets are read only if nobody else can. They may be replaced while the agent
//! runs: [`Keys::reload`] takes all of them or none, and whoever holds [`Held`] goes on with what it was.
//!
//! **Invariant:** a list of revocations is never replaced by an older one, and the CA's certificate not at all.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::{Context, ensure};
use ring::digest::{SHA256, digest};
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, crypto};

use crate::folder;
use crate::identity::{Identity, Unix, ends};
use crate::request::NEXT_KEY;
use crate::revoked::Revoked;
use crate::ring::{Ring, Root, SPREADS};

/// The host's private key (PKCS#8, PEM).
pub const HOST_KEY: &str = "host.key";
/// The host's certificate (PEM).
pub const HOST_CERTIFICATE: &str = "host.crt";
/// The CA's certificate (PEM).
pub const CA_CERTIFICATE: &str = "ca.crt";
/// The keys of datagrams (JSON).
pub const CLUSTER_KEYS: &str = "cluster.keys";
/// The list of revocations (DER); absent: none was ever made.
pub const REVOKED: &str = "revoked.crl";

/// The keys of a running agent.
#[derive(Debug)]
pub struct Keys {
    folder: PathBuf,
    held: RwLock<Arc<Held>>,
}

/// What was in the folder at one time.
pub struct Held {
    /// This host, as its certificate names it.
    pub identity: Identity,
    /// Until when the CA's certificate holds.
    pub ca_ends: Unix,
    /// Who is revoked.
    pub revoked: Revoked,
    /// What is the same on all hosts, by a hash: two hosts with the same one have nothing to tell each other.
    pub mark: [u8; 32],
    newest: u32,
    roots: BTreeMap<u32, Root>,
    pub(crate) ca: CertificateDer<'static>,
    pub(crate) certified: Arc<CertifiedKey>,
    /// The same, and the CA's certificate with it, for hosts that do not know it yet.
    pub(crate) introduced: Arc<CertifiedKey>,
    pub(crate) servers: Arc<WebPkiServerVerifier>,
    pub(crate) clients: Arc<dyn ClientCertVerifier>,
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held")
            .field("identity", &self.identity)
            .field("revoked", &self.revoked.version)
            .field("newest", &self.newest)
            .finish_non_exhaustive()
    }
}

impl Keys {
    /// Reads the folder.
    ///
    /// # Errors
    /// What is missing or wrong, with its file.
    pub fn load(folder: &Path) -> anyhow::Result<Keys> {
        let held = RwLock::new(Arc::new(Held::read(folder)?));
        Ok(Keys { folder: folder.to_owned(), held })
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What is held now.
    #[must_use]
    pub fn held(&self) -> Arc<Held> {
        // A panic of another thread leaves it whole: it is replaced as one.
        Arc::clone(&self.held.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the folder anew; says whether anything was changed.
    ///
    /// # Errors
    /// As [`Keys::load`], or if it is another host's or another cluster's. What was held before still is.
    pub fn reload(&self) -> anyhow::Result<bool> {
        let (read, before) = (Held::read(&self.folder)?, self.held());
        let folder = self.folder.display();
        ensure!(read.ca == before.ca, "{folder}: another cluster's CA; restart the agent for it");
        ensure!(
            read.identity.host == before.identity.host,
            "{folder}: the certificate of another host, {}",
            read.identity.host
        );
        let (version, known) = (read.revoked.version, before.revoked.version);
        ensure!(
            version >= known,
            "{folder}/{REVOKED}: list {version}, older than list {known}, which stays in force"
        );
        let same = read.certified.cert == before.certified.cert
            && read.mark == before.mark
            && lots(&read).eq(lots(&before));
        if !same {
            *self.held.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(read);
        }
        Ok(!same)
    }
}

/// Which keys are held.
fn lots(held: &Held) -> impl Iterator<Item = (u32, [u8; 8])> {
    held.roots.iter().map(|(epoch, root)| (*epoch, root.lot))
}

impl Held {
    fn read(folder: &Path) -> anyhow::Result<Held> {
        let place = |name: &str| folder.join(name).display().to_string();
        let certificate = |name: &str| {
            let text = folder::text(folder, name)?;
            CertificateDer::from_pem_slice(text.as_bytes())
                .with_context(|| format!("{}: no certificate in PEM", place(name)))
        };
        let ca = certificate(CA_CERTIFICATE)?;
        let ca_ends = ends(&ca).with_context(|| place(CA_CERTIFICATE))?;
        let own = certificate(HOST_CERTIFICATE)?;
        let identity = Identity::of(&own).with_context(|| place(HOST_CERTIFICATE))?;
        let provider = provider();
        let certified = certified(folder, &own, &provider)?;
        let ring: Ring = serde_json::from_slice(&folder::read_secret(folder, CLUSTER_KEYS)?)
            .with_context(|| place(CLUSTER_KEYS))?;
        ring.check().with_context(|| place(CLUSTER_KEYS))?;
        let list = folder.join(REVOKED).exists().then(|| folder::read(folder, REVOKED));
        let revoked = Revoked::read(&list.transpose()?.unwrap_or_default(), &ca)
            .with_context(|| place(REVOKED))?;

        let mut roots = RootCertStore::empty();
        roots.add(ca.clone()).with_context(|| place(CA_CERTIFICATE))?;
        let roots = Arc::new(roots);
        // Whether a certificate is revoked is looked up here, by host, and not by webpki.
        let no_lists: [CertificateRevocationListDer<'static>; 0] = [];
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
                .with_crls(no_lists.clone())
                .build()
                .with_context(|| place(CA_CERTIFICATE))?;
        let servers = WebPkiServerVerifier::builder_with_provider(roots, provider)
            .with_crls(no_lists)
            .build()
            .with_context(|| place(CA_CERTIFICATE))?;
        clients
            .verify_client_cert(&certified.cert[0], &[], at(identity.begins))
            .with_context(|| format!("{}: not of the CA in ca.crt", place(HOST_CERTIFICATE)))?;
        let mut introduced = certified.clone();
        introduced.cert.push(ca.clone());
        let mark = [ring.mark(), revoked.der().to_vec()].concat();
        let mark = digest(&SHA256, &mark).as_ref().try_into().context("a SHA-256")?;
        Ok(Held {
            identity,
            ca_ends,
            revoked,
            mark,
            newest: ring.newest(),
            roots: ring.roots(),
            ca,
            certified: Arc::new(certified),
            introduced: Arc::new(introduced),
            servers,
            clients,
        })
    }

    /// The newest epoch.
    #[must_use]
    pub fn newest(&self) -> u32 {
        self.newest
    }

    /// The epoch that seals: a new key only once it has come to all hosts, by its age.
    pub(crate) fn seals(&self, now: Unix) -> u32 {
        let old = |made: &Unix| made.0.saturating_add(SPREADS) <= now.0;
        let spread = self.roots.iter().rev().find(|(_, root)| old(&root.made));
        spread.or_else(|| self.roots.first_key_value()).map_or(self.newest, |(epoch, _)| *epoch)
    }

    /// What the keys of single senders in an epoch are derived from.
    pub(crate) fn root(&self, epoch: u32) -> Option<&Root> {
        self.roots.get(&epoch)
    }
}

/// The certificate with its key. Whoever was cut off between writing the one and the other has left the key where it waited.
fn certified(
    folder: &Path,
    certificate: &CertificateDer<'static>,
    provider: &CryptoProvider,
) -> anyhow::Result<CertifiedKey> {
    let with = |name: &str| {
        let file = folder.join(name).display().to_string();
        let key = folder::secret_text(folder, name)?;
        // The reason would not tell more, and could quote the key.
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
            .map_err(|_reason| anyhow::anyhow!("{file}: no private key in PEM"))?;
        let both = CertifiedKey::from_der(vec![certificate.clone()], key, provider);
        both.with_context(|| {
            let certificate = folder.join(HOST_CERTIFICATE).display().to_string();
            format!("{file} and {certificate} do not belong together")
        })
    };
    with(HOST_KEY).or_else(|why| with(NEXT_KEY).map_err(|_no_better| why))
}

/// The cryptography that is used.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(crypto::ring::default_provider())
}

fn at(second: Unix) -> rustls::pki_types::UnixTime {
    rustls::pki_types::UnixTime::since_unix_epoch(std::time::Duration::from_secs(second.0))
}
