//! A webhook of the configuration, with what its files hold: ready to be served.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use data_encoding::HEXLOWER;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore};
use sha2::{Digest, Sha256};
use tokio_rustls::TlsConnector;

use super::secret::Secrets;
use crate::config::{Told, Url, Webhook};

/// The machine's own CAs, where Debian and RHEL with their kin keep them.
const BUNDLES: [&str; 2] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];

/// What is needed to serve a hook.
#[derive(Clone, Debug)]
pub(crate) struct Ready {
    /// By which its cursor is kept: a hash of the URL, so that no secret is.
    pub(super) key: String,
    pub(super) url: Url,
    pub(super) told: Vec<Told>,
    pub(super) secrets: Secrets,
    pub(super) tls: Option<Tls>,
}

/// How its receiver is known.
#[derive(Clone)]
pub(super) struct Tls {
    pub(super) connector: TlsConnector,
    pub(super) name: ServerName<'static>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tls({:?})", self.name)
    }
}

/// Reads the files that these webhooks of the configuration `file` name.
///
/// # Errors
/// What is wrong with each, by key and file, and what to do.
pub(crate) fn ready(file: &Path, webhooks: &[Webhook]) -> Result<Vec<Ready>, Vec<String>> {
    let (mut all, mut wrong) = (Vec::new(), Vec::new());
    for webhook in webhooks {
        match one(webhook) {
            Ok(ready) => all.push(ready),
            Err((key, why)) => {
                let place = file.display();
                wrong.push(format!("{place}, key webhook.{key} (of {}): {why}", webhook.url));
            }
        }
    }
    if wrong.is_empty() { Ok(all) } else { Err(wrong) }
}

fn one(webhook: &Webhook) -> Result<Ready, (&'static str, String)> {
    let Webhook { url, events, secret_file, ca_file } = webhook;
    let secrets = Secrets::read(secret_file).map_err(|why| ("secret_file", why))?;
    let tls = match url.tls {
        true => Some(tls(url, ca_file.as_deref()).map_err(|why| ("ca_file", why))?),
        false => None,
    };
    let whole = format!("{url}\n{}", url.path);
    let key = HEXLOWER.encode(&Sha256::digest(whole)[..16]);
    Ok(Ready { key, url: url.clone(), told: events.clone(), secrets, tls })
}

fn tls(url: &Url, pinned: Option<&Path>) -> Result<Tls, String> {
    let name = ServerName::try_from(url.host.clone());
    let name =
        name.map_err(|_odd| "the URL's host is no name that a certificate can have".to_owned())?;
    let roots = match pinned {
        Some(file) => roots(file)?,
        None => {
            let bundle = BUNDLES.map(PathBuf::from).into_iter().find(|file| file.exists());
            let none = "this machine has no list of CAs (the package ca-certificates has one): install it, or name the receiver's CA by ca_file";
            roots(&bundle.ok_or(none)?)?
        }
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Tls { connector: TlsConnector::from(Arc::new(config)), name })
}

fn roots(file: &Path) -> Result<RootCertStore, String> {
    let place = file.display();
    let all =
        CertificateDer::pem_file_iter(file).map_err(|error| format!("reading {place}: {error}"))?;
    let all: Result<Vec<CertificateDer<'_>>, _> = all.collect();
    let all = all.map_err(|error| format!("{place} is no PEM: {error}"))?;
    let mut roots = RootCertStore::empty();
    // Of a machine's list a few may be of a form that is not known here.
    let (taken, _passed_over) = roots.add_parsable_certificates(all);
    if taken == 0 {
        return Err(format!("there is no certificate in {place}; write the CA's there, in PEM"));
    }
    Ok(roots)
}
