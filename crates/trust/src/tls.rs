//! Mutual TLS 1.3 between hosts: whoever takes part shows a certificate of the cluster's CA that names a host.
//!
//! A server's certificate must also name the address that was dialled. Nothing is resumed: each connection is judged anew, by
//! what the keys folder holds then. Connections that stay open are judged by [`admitted`] again with each call.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName,
    Error, RootCertStore, ServerConfig, SignatureScheme,
};

use crate::identity::{Identity, Unix};
use crate::join::Token;
use crate::keys::{Keys, provider};

/// What is spoken inside.
const PROTOCOL: &[u8] = b"h2";
/// What is spoken inside with a host that has no certificate yet.
pub const JOIN: &[u8] = b"evenkeel-join/1";

/// How this host lets others in.
///
/// # Errors
/// If the keys cannot be used for TLS.
pub fn server(keys: &Arc<Keys>) -> Result<Arc<ServerConfig>, Error> {
    let shown = Arc::new(Shown(Arc::clone(keys)));
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(Judge::new(keys)))
        .with_cert_resolver(shown);
    // What is resumed is not judged again.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    Ok(Arc::new(config))
}

/// How this host shows itself to people's programs, which have no certificate: the API over TCP, which asks for tokens.
///
/// # Errors
/// If the keys cannot be used for TLS.
pub fn api_server(keys: &Arc<Keys>) -> Result<Arc<ServerConfig>, Error> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Shown(Arc::clone(keys))));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// How this host calls others.
///
/// # Errors
/// If the keys cannot be used for TLS.
pub fn client(keys: &Arc<Keys>) -> Result<Arc<ClientConfig>, Error> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Judge::new(keys)))
        .with_client_cert_resolver(Arc::new(Shown(Arc::clone(keys))));
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    Ok(Arc::new(config))
}

/// How this host lets in a host that has no certificate yet: it shows its own and the CA's, and asks for none. What such a
/// connection may say is a token, and nothing else ([`crate::join`]).
///
/// # Errors
/// If the keys cannot be used for TLS.
pub fn joined(keys: &Arc<Keys>) -> Result<Arc<ServerConfig>, Error> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Introduced(Arc::clone(keys))));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![JOIN.to_vec()];
    Ok(Arc::new(config))
}

/// How a host without keys calls the one that it is to join: it knows the CA by its token.
///
/// # Errors
/// If TLS cannot be set up.
pub fn joining(token: Token) -> Result<Arc<ClientConfig>, Error> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pinned(token)))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    config.alpn_protocols = vec![JOIN.to_vec()];
    Ok(Arc::new(config))
}

/// The name by which a host is dialled.
#[must_use]
pub fn name(address: IpAddr) -> ServerName<'static> {
    ServerName::IpAddress(address.into())
}

/// Who is at the other end, after a handshake that succeeded.
///
/// # Errors
/// If it showed nothing: then it was no handshake of ours.
pub fn peer(shown: Option<&[CertificateDer<'_>]>) -> anyhow::Result<Identity> {
    let first = shown.and_then(<[_]>::first);
    let first = first.ok_or_else(|| anyhow::anyhow!("a connection without a certificate"))?;
    Ok(Identity::of(first)?)
}

/// Whether a host that was let in still is.
///
/// # Errors
/// Its certificate has ended, or was revoked.
pub fn admitted(keys: &Keys, peer: &Identity, now: Unix) -> Result<(), String> {
    if keys.held().revoked.holds(peer) {
        return Err(format!("the certificate of host {} is revoked", peer.host));
    }
    if now > peer.ends {
        return Err(format!("the certificate of host {} has expired", peer.host));
    }
    Ok(())
}

/// Why no connection came about, for people.
#[must_use]
#[expect(clippy::wildcard_enum_match_arm, reason = "rustls' own words do for all others")]
pub fn explain(error: &Error) -> String {
    use CertificateError as Bad;
    let words = match error {
        Error::NoCertificatesPresented => "it shows no certificate",
        Error::InvalidCertificate(Bad::Expired | Bad::ExpiredContext { .. }) => {
            "its certificate has expired (or one of the two clocks is wrong)"
        }
        Error::InvalidCertificate(Bad::NotValidYet | Bad::NotValidYetContext { .. }) => {
            "its certificate does not hold yet (or one of the two clocks is wrong)"
        }
        Error::InvalidCertificate(Bad::Revoked) => "its certificate is revoked",
        Error::InvalidCertificate(Bad::UnknownIssuer | Bad::BadSignature) => {
            "its certificate is of another CA than this cluster's"
        }
        Error::InvalidCertificate(Bad::NotValidForName | Bad::NotValidForNameContext { .. }) => {
            "its certificate is not for this address"
        }
        Error::AlertReceived(AlertDescription::CertificateRevoked) => {
            "it says that this host's certificate is revoked"
        }
        Error::AlertReceived(AlertDescription::CertificateExpired) => {
            "it says that this host's certificate has expired (or one of the two clocks is wrong)"
        }
        Error::AlertReceived(AlertDescription::UnknownCA) => {
            "it says that this host's certificate is of another CA than its own"
        }
        Error::InvalidMessage(_) => {
            "it does not speak TLS: its agent has no keys, or it is no agent"
        }
        _ => return error.to_string(),
    };
    words.to_owned()
}

/// Judges certificates by what is held at that moment.
#[derive(Debug)]
struct Judge {
    keys: Arc<Keys>,
    hints: Vec<DistinguishedName>,
}

impl Judge {
    fn new(keys: &Arc<Keys>) -> Judge {
        let hints = keys.held().clients.root_hint_subjects().to_vec();
        Judge { keys: Arc::clone(keys), hints }
    }

    /// What webpki does not know: hosts, and who is revoked.
    fn host(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        let other = |no_host| rustls::OtherError(Arc::new(no_host));
        let identity = Identity::of(certificate).map_err(|no_host| {
            Error::InvalidCertificate(CertificateError::Other(other(no_host)))
        })?;
        if self.keys.held().revoked.holds(&identity) {
            return Err(Error::InvalidCertificate(CertificateError::Revoked));
        }
        Ok(())
    }
}

impl ClientCertVerifier for Judge {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        shown: &CertificateDer<'_>,
        more: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.keys.held().clients.verify_client_cert(shown, more, now)?;
        self.host(shown)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _shown: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.keys.held().clients.verify_tls13_signature(message, shown, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.keys.held().clients.supported_verify_schemes()
    }
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        more: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.keys.held().servers.verify_server_cert(shown, more, name, ocsp, now)?;
        self.host(shown)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _shown: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.keys.held().servers.verify_tls13_signature(message, shown, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.keys.held().servers.supported_verify_schemes()
    }
}

/// Shows the certificate that is held at that moment: a renewed one from the next connection on.
#[derive(Debug)]
struct Shown(Arc<Keys>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.held().certified))
    }
}

impl rustls::client::ResolvesClientCert for Shown {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.held().certified))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Shows the CA's certificate too.
#[derive(Debug)]
struct Introduced(Arc<Keys>);

impl ResolvesServerCert for Introduced {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.held().introduced))
    }
}

/// Judges a host by the CA that it shows, and that one by the pin.
#[derive(Debug)]
struct Pinned(Token);

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        more: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let ca = more.iter().find(|ca| self.0.pins(ca));
        let ca = ca.ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        let judge = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(|why| Error::General(why.to_string()))?;
        judge.verify_server_cert(shown, &[], name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _shown: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, shown, signed, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
