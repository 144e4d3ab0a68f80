//! A receiver of the configuration, with what its files hold: ready to be served.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use data_encoding::HEXLOWER;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore};
use sha2::{Digest, Sha256};
use tokio_rustls::TlsConnector;

use super::secret::{Header, Secrets};
use crate::config::{Config, Told, Traces, Url, Webhook};

/// The machine's own CAs, where Debian and RHEL with their kin keep them.
const BUNDLES: [&str; 2] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];

/// What is needed to serve a receiver.
#[derive(Clone, Debug)]
pub(crate) struct Ready {
    /// By which its cursor is kept: a hash of what it is and of the URL, so that no secret is.
    pub(super) key: String,
    pub(super) url: Url,
    pub(super) gets: Gets,
    pub(super) tls: Option<Tls>,
}

/// What it gets.
#[derive(Clone, Debug)]
pub(super) enum Gets {
    /// A webhook: single events of these kinds, signed.
    Events { told: Vec<Told>, secrets: Secrets },
    /// Moves that are over, as traces.
    Traces { header: Option<Header> },
}

impl fmt::Display for Ready {
    /// For people: what it is, and where.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.gets {
            Gets::Events { .. } => write!(f, "webhook {}", self.url),
            Gets::Traces { .. } => write!(f, "traces {}", self.url),
        }
    }
}

/// How its receiver is known.
#[derive(Clone)]
pub(super) struct Tls {
    pub(super) connector: TlsConnector,
    pub(super) name: ServerName<'static>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tls({:?})", self.name)
    }
}

/// Reads the files that webhooks and traces of the configuration `file` name.
///
/// # Errors
/// What is wrong with each, by key and file, and what to do.
pub(crate) fn ready(file: &Path, config: &Config) -> Result<Vec<Ready>, Vec<String>> {
    receivers(file, &config.webhook, config.traces.as_ref())
}

/// The same of these alone.
///
/// # Errors
/// As there.
pub(crate) fn receivers(
    file: &Path,
    webhooks: &[Webhook],
    traces: Option<&Traces>,
) -> Result<Vec<Ready>, Vec<String>> {
    let webhooks = webhooks.iter().map(|it| ("webhook", &it.url, of_webhook(it)));
    let traces = traces.map(|it| ("traces", &it.url, of_traces(it)));
    let (mut all, mut wrong) = (Vec::new(), Vec::new());
    for (section, url, read) in webhooks.chain(traces) {
        match read {
            Ok(ready) => all.push(ready),
            Err((key, why)) => {
                wrong.push(format!("{}, key {section}.{key} (of {url}): {why}", file.display()));
            }
        }
    }
    if wrong.is_empty() { Ok(all) } else { Err(wrong) }
}

type Wrong = (&'static str, String);

pub(super) fn of_webhook(webhook: &Webhook) -> Result<Ready, Wrong> {
    let Webhook { url, events, secret_file, ca_file } = webhook;
    let secrets = Secrets::read(secret_file).map_err(|why| ("secret_file", why))?;
    one("", url, ca_file.as_deref(), Gets::Events { told: events.clone(), secrets })
}

pub(super) fn of_traces(traces: &Traces) -> Result<Ready, Wrong> {
    let Traces { url, header_file, ca_file } = traces;
    let header = header_file.as_deref().map(Header::read).transpose();
    let header = header.map_err(|why| ("header_file", why))?;
    one("traces\n", url, ca_file.as_deref(), Gets::Traces { header })
}

fn one(what: &str, url: &Url, ca_file: Option<&Path>, gets: Gets) -> Result<Ready, Wrong> {
    let tls = match (url.tls, ca_file) {
        (true, ca_file) => Some(tls(url, ca_file).map_err(|why| ("ca_file", why))?),
        (false, None) => None,
        (false, Some(_)) => {
            let clear = "by http nobody shows a certificate; write https in the URL, or leave `ca_file` out";
            return Err(("ca_file", clear.to_owned()));
        }
    };
    let whole = format!("{what}{url}\n{}", url.path);
    let key = HEXLOWER.encode(&Sha256::digest(whole)[..16]);
    Ok(Ready { key, url: url.clone(), gets, tls })
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
