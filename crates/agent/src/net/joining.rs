//! A host without keys comes in: one line of JSON each way, over TLS in which only this side shows a certificate.
//!
//! ```text
//!   new host: {"token": "evkj_…", "request": "-----BEGIN CERTIFICATE REQUEST…"}   ──▶
//!             ◀── {"grant": {…}} or {"refused": "why"}
//! ```
//!
//! It is possible only where the CA's key is at hand and not encrypted.
//!
//! **Invariant:** nothing else can be said on such a connection; what it says has a limit in bytes and in time, and few are open.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use trust::authority::Authority;
use trust::grant::Grant;
use trust::identity::Unix;
use trust::join::Token;
use trust::keys::Keys;
use trust::request::Wanted;
use trust::tls;

use super::DELIVERY_MAX;
use super::guard::explained;
use crate::clock::unix_seconds;

/// How long all of it may take.
pub(super) const JOIN_MAX: Duration = Duration::from_secs(10);
/// New hosts that are spoken with at once.
pub(super) const JOINS_MAX: usize = 16;
/// Of them at one address.
pub(super) const JOINS_PER_ADDRESS: usize = 2;
/// Bytes of what a new host says.
const ASKED_MAX: u64 = 32 * 1024;
/// Bytes of what it is answered.
const ANSWER_MAX: u64 = 2 * 1024 * 1024;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    token: String,
    request: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "lowercase")]
enum Answer {
    Grant(Grant),
    Refused(String),
}

/// Speaks with a new host; gives who it now is.
///
/// # Errors
/// Why it was not let in, or did not hear the answer.
pub(super) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    from: SocketAddr,
    keys: Arc<Keys>,
    authority: &Path,
) -> Result<Wanted> {
    let mut asked = Vec::new();
    let mut limited = (&mut stream).take(ASKED_MAX);
    let said = timeout(DELIVERY_MAX, limited.read_to_end(&mut asked)).await;
    said.context("a new host that says nothing")?.context("what a new host says")?;
    let authority = authority.to_owned();
    let judged = spawn_blocking(move || judge(&asked, from.ip(), &keys, &authority)).await;
    let judged = judged.unwrap_or_else(|panicked| Err(panicked.into()));
    let (answer, done) = match judged {
        Ok((grant, wanted)) => (Answer::Grant(grant), Ok(wanted)),
        Err(why) => (Answer::Refused(format!("{why:#}")), Err(why)),
    };
    let answer = serde_json::to_vec(&answer).context("writing JSON")?;
    stream.write_all(&answer).await.context("answering a new host")?;
    stream.shutdown().await.context("answering a new host")?;
    done
}

fn judge(asked: &[u8], from: IpAddr, keys: &Keys, authority: &Path) -> Result<(Grant, Wanted)> {
    // The words of a mistake could quote the token.
    let asked = serde_json::from_slice::<Asked>(asked);
    let Ok(Asked { token, request }) = asked else {
        bail!("what a new host says is not of this form")
    };
    let token: Token = token.parse()?;
    let authority = Authority::open(authority, None).context("this host cannot sign")?;
    let now = Unix(u64::from(unix_seconds()));
    let (grant, wanted) = authority.enrol(&token, &request, from, now)?;
    Ok((Grant { certificate: grant.certificate, ..Grant::held(keys.folder())? }, wanted))
}

/// Joins the cluster by the host at `to`: sends it the request, from this host's own address; gives what to install.
///
/// # Errors
/// Why not.
pub async fn join(from: IpAddr, to: SocketAddr, token: &Token, request: &str) -> Result<Grant> {
    let joined = async {
        let stream = super::guard::connect(from, to).await;
        let stream: TcpStream = stream.with_context(|| format!("connecting to {to}"))?;
        let connector = TlsConnector::from(tls::joining(token.clone())?);
        let shaken = connector.connect(tls::name(to.ip()), stream).await;
        let mut stream = shaken
            .map_err(|error| explained(&error))
            .with_context(|| format!("joining at {to}"))?;
        let asked = Asked { token: token.to_string(), request: request.to_owned() };
        stream.write_all(&serde_json::to_vec(&asked)?).await?;
        stream.shutdown().await?;
        let mut answer = Vec::new();
        (&mut stream).take(ANSWER_MAX).read_to_end(&mut answer).await?;
        ensure!(!answer.is_empty(), "{to} hung up: has it the CA's key?");
        let answer = serde_json::from_slice(&answer);
        match answer
            .map_err(|_shows_nothing| anyhow::anyhow!("what {to} answered is not of this form"))?
        {
            Answer::Grant(grant) => {
                ensure!(grant.is_of(token)?, "{to} gave keys of another CA than the token's");
                Ok(grant)
            }
            Answer::Refused(why) => bail!("{to} refused: {why}"),
        }
    };
    timeout(JOIN_MAX, joined)
        .await
        .with_context(|| format!("{to} did not answer within {JOIN_MAX:?}"))?
}
