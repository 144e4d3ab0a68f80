//! Keys between hosts: each fetches what others hold now and then, and a host that has the CA's key signs for the others.
//!
//! A fetch has a connection of its own, and brings something only where the two differ: so a revocation or a new cluster key, put
//! on any one host, reaches all others in a few rounds.
//!
//! **Boundary:** nothing is written here; what a host holds is in its folder of keys.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, ensure};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tonic::{Request, Response, Status};
use trust::authority::Authority;
use trust::grant::Grant;
use trust::identity::{Identity, Unix};
use trust::keys::Keys;

use super::DELIVERY_MAX;
use super::guard::{Caller, Guard};
use super::peers::{cause, too_late};
use super::services::trust::trust_client::TrustClient;
use super::services::trust::trust_server::Trust;
use super::services::trust::{FetchRequest, Fetched, RenewRequest, Renewed};
use crate::clock::unix_seconds;

/// Bytes of an answer: room for a list of 4,096 revocations.
const ANSWER_MAX: usize = 2 * 1024 * 1024;
/// Bytes of a question.
pub(super) const QUESTION_MAX: usize = 32 * 1024;

/// Asks other hosts for keys.
#[derive(Clone, Debug)]
pub struct Spread {
    from: IpAddr,
    guard: Guard,
}

/// What a host answered.
#[derive(Debug)]
pub struct Answer {
    /// What it holds, if that is something else.
    pub grant: Option<Grant>,
    /// Whether it can sign.
    pub signs: bool,
}

impl Spread {
    pub(super) fn new(from: IpAddr, guard: Guard) -> Spread {
        Spread { from, guard }
    }

    /// What the host at `at` holds.
    ///
    /// # Errors
    /// Why it did not say.
    pub async fn fetch(&self, at: SocketAddr, mark: &[u8]) -> Result<Answer, String> {
        let asked = async {
            let answer = self.client(at)?.fetch(FetchRequest { mark: mark.to_vec() }).await;
            let Fetched { grant, signs } = answer.map_err(|status| cause(&status))?.into_inner();
            let grant = (!grant.is_empty()).then(|| read(&grant)).transpose()?;
            Ok(Answer { grant, signs })
        };
        timeout(DELIVERY_MAX, asked).await.unwrap_or_else(|_elapsed| Err(too_late()))
    }

    /// A certificate for this host's request, by the host at `at`.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn renew(&self, at: SocketAddr, request: &str) -> Result<Grant, String> {
        let asked = async {
            let answer = self.client(at)?.renew(RenewRequest { request: request.to_owned() }).await;
            read(&answer.map_err(|status| cause(&status))?.into_inner().grant)
        };
        timeout(DELIVERY_MAX, asked).await.unwrap_or_else(|_elapsed| Err(too_late()))
    }

    fn client(&self, at: SocketAddr) -> Result<TrustClient<tonic::transport::Channel>, String> {
        // Whoever of the cluster answers: what it says is signed, or the same on all hosts.
        let channel = self.guard.dial(self.from, at, None).map_err(|error| format!("{error:#}"))?;
        Ok(TrustClient::new(channel).max_decoding_message_size(ANSWER_MAX))
    }
}

pub(super) fn read(grant: &[u8]) -> Result<Grant, String> {
    serde_json::from_slice(grant).map_err(|_shows_nothing| "what came is no grant".to_owned())
}

/// Answers other hosts.
#[derive(Clone, Debug)]
pub(super) struct Answering {
    guard: Guard,
    keys: Option<Arc<Keys>>,
    /// Where the CA's key is, if it is on this host.
    authority: PathBuf,
}

impl Answering {
    pub(super) fn new(guard: Guard, authority: PathBuf) -> Answering {
        let keys = guard.keys();
        Answering { guard, keys, authority }
    }

    /// By whom, and the keys to go by.
    fn admitted<T>(&self, request: &Request<T>) -> Result<(Caller, Arc<Keys>), Status> {
        let caller = request.extensions().get::<Caller>().cloned();
        self.guard.allows(caller.as_ref(), None).map_err(Status::permission_denied)?;
        let none = || Status::failed_precondition("this host has no keys");
        Ok((caller.ok_or_else(none)?, self.keys.clone().ok_or_else(none)?))
    }
}

#[tonic::async_trait]
impl Trust for Answering {
    async fn fetch(&self, request: Request<FetchRequest>) -> Result<Response<Fetched>, Status> {
        let (caller, keys) = self.admitted(&request)?;
        let authority = self.authority.clone();
        let same = request.get_ref().mark == keys.held().mark;
        let answer = spawn_blocking(move || {
            let grant = if same {
                Vec::new()
            } else {
                serde_json::to_vec(&held(&keys, caller.peer.as_deref())?)?
            };
            anyhow::Ok(Fetched { grant, signs: Authority::open(&authority, None).is_ok() })
        });
        answered(answer.await).map(Response::new)
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<Renewed>, Status> {
        let (caller, keys) = self.admitted(&request)?;
        let identity = caller.peer.ok_or_else(|| Status::permission_denied("no certificate"))?;
        let authority = self.authority.clone();
        let wanted = request.into_inner().request;
        let answer = spawn_blocking(move || {
            let now = Unix(u64::from(unix_seconds()));
            let grant = Authority::open(&authority, None)?.renew(&identity, &wanted, now)?;
            let grant = Grant { certificate: grant.certificate, ..held(&keys, Some(&identity))? };
            anyhow::Ok(Renewed { grant: serde_json::to_vec(&grant)? })
        });
        answered(answer.await).map(Response::new)
    }
}

/// What this host holds, for one that has not been revoked meanwhile: the folder may be newer than what the agent goes by.
fn held(keys: &Keys, peer: Option<&Identity>) -> anyhow::Result<Grant> {
    let grant = Grant::held(keys.folder())?;
    let peer = peer.context("no certificate")?;
    ensure!(!grant.revokes(peer)?, "the certificate of host {} is revoked", peer.host);
    Ok(grant)
}

fn answered<T>(done: Result<anyhow::Result<T>, tokio::task::JoinError>) -> Result<T, Status> {
    let done = done.unwrap_or_else(|panicked| Err(panicked.into()));
    done.map_err(|error| Status::failed_precondition(format!("{error:#}")))
}
