//! Looks between agents: what the API of one host is asked by another's, so that any agent answers for the whole cluster.
//!
//! A look has a connection of its own, as a fetched inventory has: they are made only while somebody looks.
//!
//! **Boundary:** what a host answers is decided in `http`, by the role of a viewer; nothing is changed by a look.
//! **Invariant:** each look ends within [`DELIVERY_MAX`], and a host answers so many at once and no more.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use decide::units::HostId;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tonic::{Code, Request, Response, Status};

use super::guard::{Caller, Guard};
use super::peers::{cause, too_late};
use super::services::look::look_client::LookClient;
use super::services::look::look_server::Look;
use super::services::look::{Answer, Question};
use super::{DELIVERY_MAX, To};

/// Bytes of a question.
pub(super) const QUESTION_MAX: usize = 8 * 1024;
/// Bytes of an answer: a history of ten minutes by seconds is a few hundred KiB.
const ANSWER_MAX: usize = 8 * 1024 * 1024;
/// Looks of others that are answered at once.
const LOOKS_MAX: usize = 16;

/// What a look gave: an answer of the HTTP API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Looked {
    /// HTTP status.
    pub status: u16,
    /// Content type.
    pub kind: String,
    /// The body.
    pub body: Vec<u8>,
}

/// Answers a path and query that the host of that name, or address, asks for.
pub type Looker =
    Arc<dyn Fn(String, String) -> Pin<Box<dyn Future<Output = Looked> + Send>> + Send + Sync>;

/// Asks other hosts, and answers them once it is told how.
#[derive(Clone)]
pub struct Looks {
    from: IpAddr,
    guard: Guard,
    looker: Arc<OnceLock<Looker>>,
    /// Hosts whose agents live in this process; none: each is called.
    near: Arc<OnceLock<BTreeMap<HostId, Looker>>>,
    places: Arc<Semaphore>,
}

impl std::fmt::Debug for Looks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Looks").field("from", &self.from).finish_non_exhaustive()
    }
}

impl Looks {
    pub(super) fn new(from: IpAddr, guard: Guard) -> Looks {
        let places = Arc::new(Semaphore::new(LOOKS_MAX));
        Looks { from, guard, looker: Arc::default(), near: Arc::default(), places }
    }

    /// Answers others by this from now on; only the first is taken.
    pub fn answer_by(&self, looker: Looker) {
        // There is one API, and it is set once.
        let _ = self.looker.set(looker);
    }

    /// Asks these hosts in this process from now on, and no others; only the first is taken.
    pub(crate) fn ask_near(&self, near: BTreeMap<HostId, Looker>) {
        // They are told once.
        let _ = self.near.set(near);
    }

    /// What this host's own API answers a viewer for a path and query.
    ///
    /// # Errors
    /// The agent starts, and cannot tell yet.
    pub(crate) async fn ask_own(&self, path: &str) -> Result<Looked, String> {
        let looker = self.looker.get().ok_or("it starts")?;
        Ok(looker("this host".to_owned(), path.to_owned()).await)
    }

    /// Asks the agent of a host for a path and query of its API.
    ///
    /// # Errors
    /// Why it did not answer.
    pub async fn ask(&self, to: To, path: &str) -> Result<Looked, String> {
        let asked = async {
            if let Some(near) = self.near.get() {
                let looker = near.get(&to.host).ok_or("there is no such host")?;
                return Ok(looker("another host".to_owned(), path.to_owned()).await);
            }
            let channel = self.guard.dial(self.from, to.at, Some(to.host));
            let channel = channel.map_err(|error| format!("{error:#}"))?;
            let mut client = LookClient::new(channel).max_decoding_message_size(ANSWER_MAX);
            let answer = client.get(Question { path: path.to_owned() }).await;
            let Answer { status, kind, body } = answer.map_err(|status| why(&status))?.into_inner();
            let status = u16::try_from(status).unwrap_or(500);
            Ok(Looked { status, kind, body })
        };
        timeout(DELIVERY_MAX, asked).await.unwrap_or_else(|_elapsed| Err(too_late()))
    }
}

fn why(status: &Status) -> String {
    if status.code() == Code::Unimplemented {
        return "its agent is of an older version, which tells other hosts no more".to_owned();
    }
    cause(status)
}

#[tonic::async_trait]
impl Look for Looks {
    async fn get(&self, request: Request<Question>) -> Result<Response<Answer>, Status> {
        let caller = request.extensions().get::<Caller>().cloned();
        self.guard.allows(caller.as_ref(), None).map_err(Status::permission_denied)?;
        let starting = || Status::unavailable("the agent starts");
        let looker = self.looker.get().ok_or_else(starting)?;
        let busy = |_full| Status::unavailable("too many look at once");
        let _place = self.places.try_acquire().map_err(busy)?;
        let who = caller.map_or_else(|| "another host".to_owned(), |caller| caller.name());
        let Looked { status, kind, body } = looker(who, request.into_inner().path).await;
        Ok(Response::new(Answer { status: u32::from(status), kind, body }))
    }
}
