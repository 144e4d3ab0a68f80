//! Who belongs to the cluster, and how its hosts know each other: certificates, revocations, and the seal of datagrams.
//!
//! ```text
//!   operator: Authority (CA key) ── signs ──▶ Grant {certificate, CA, cluster keys, revocations} ──▶ keys folder of a host
//!   agent:    Keys (that folder) ──▶ tls: mutual TLS 1.3, a certificate is a host
//!                                └─▶ Sealer, Opener: datagrams under a cluster key, each by one host, each opened once
//! ```
//!
//! No cryptography of ours: X.509 by `rcgen`, `rustls` and `x509-parser`, AEAD and HKDF by `ring`, passphrases by PKCS#8.
//! docs/security.md says who holds what, and what a stolen host can do.
//!
//! **Boundary:** nothing here reads a clock or opens a socket; files are those of the keys folder, of the CA's, and what was heard.
//! **Invariant:** no secret is in a `Debug` form or an error.

pub mod authority;
mod folder;
pub mod grant;
pub mod heard;
pub mod identity;
pub mod join;
pub mod keys;
pub mod request;
pub mod revoked;
pub mod ring;
pub mod seal;
pub mod tls;
pub mod window;
