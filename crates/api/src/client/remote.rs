//! An agent on another host: TLS 1.3 to an address that its certificate must name, and a token.
//!
//! **Invariant:** nothing is sent before the certificate was found to be of the CA that was given; the token is in no `Debug` form.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use hyper::header::HeaderValue;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Where another host's agent is, and what it is shown.
#[derive(Clone)]
pub struct Remote {
    address: SocketAddr,
    tls: TlsConnector,
    authorization: HeaderValue,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Remote {
    /// The agent at `url` (`https://198.18.0.1:8443`), known by a certificate of the CA in `ca` (PEM).
    ///
    /// # Errors
    /// What of it cannot be used, and what to write instead; never the token.
    pub fn new(url: &str, ca: &[u8], token: &str) -> Result<Remote, String> {
        let address =
            url.strip_prefix("https://").map(|rest| rest.strip_suffix('/').unwrap_or(rest));
        let address = address.and_then(|address| address.parse().ok());
        let address = address.ok_or_else(|| {
            format!("{url:?} is not where an agent is: write https://ADDRESS:PORT, such as https://198.18.0.1:8443")
        })?;
        let mut roots = RootCertStore::empty();
        let certificate = CertificateDer::from_pem_slice(ca)
            .map_err(|_none| "the file of the CA has no certificate in PEM".to_owned())?;
        roots.add(certificate).map_err(|error| format!("the CA's certificate: {error}"))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        // A host's certificate names addresses, which are not sent.
        config.enable_sni = false;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let authorization = HeaderValue::from_str(&format!("Bearer {}", token.trim()));
        let mut authorization = authorization
            .map_err(|_odd| "the token is none: it begins with evk_ and is one line".to_owned())?;
        authorization.set_sensitive(true);
        Ok(Remote { address, tls: TlsConnector::from(Arc::new(config)), authorization })
    }

    pub(super) fn authorization(&self) -> &HeaderValue {
        &self.authorization
    }

    pub(super) async fn connect(&self) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        self.tls.connect(ServerName::IpAddress(self.address.ip().into()), stream).await
    }

    /// Where it is, for people.
    pub(super) fn place(&self) -> String {
        format!("https://{}", self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_used_is_told_without_the_token() {
        let told =
            |url: &str, ca: &str| Remote::new(url, ca.as_bytes(), "evk_1_s3cret").unwrap_err();
        for url in [
            "http://198.18.0.1:8443",
            "https://host2:8443",
            "https://198.18.0.1",
            "198.18.0.1:8443",
        ] {
            assert!(told(url, "").contains("write https://ADDRESS:PORT"), "{url}");
        }
        let why = told("https://[::1]:8443/", "no PEM");
        assert!(why.contains("no certificate in PEM") && !why.contains("s3cret"), "{why}");
    }
}
