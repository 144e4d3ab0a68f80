//! Keys kept up while the agent runs: those of the folder, those that other hosts hold, and this host's own certificate.
//!
//! ```text
//!   every 5 s: read the folder ─▶ fetch from the next two hosts, merge, read again ─▶ renew, if a third of the life is over
//! ```
//!
//! So what is rotated or revoked on any one host is in force there in seconds, and on all others that can be reached in a few
//! rounds, each of which triples the hosts that know: 3,000 hosts take eight.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use decide::host::story::{Note, Step};
use decide::units::HostId;
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;
use trust::authority::{Authority, CA_KEY};
use trust::grant::Grant;
use trust::identity::{Identity, Unix};
use trust::keys::Keys;
use trust::request::{self, Wanted};

use crate::clock::{date, unix_seconds};
use crate::net::Spread;
use crate::steering::Question;

/// How often.
const EVERY: Duration = Duration::from_secs(5);
/// Hosts that are asked each time.
const ASKED: usize = 2;
/// An operator is told so long before the certificate ends, in seconds, and from then on daily.
const BEFORE: u64 = 7 * DAY;
const DAY: u64 = 24 * 3600;
/// Rounds from one try to renew to the next.
const BETWEEN_TRIES: u64 = 12;

/// What keys are kept up by.
#[derive(Debug)]
pub(crate) struct Renewal {
    pub(crate) keys: Arc<Keys>,
    pub(crate) spread: Spread,
    /// Hosts that may be asked though this one knows nobody.
    pub(crate) seeds: Vec<SocketAddr>,
    /// Where the CA's key would be.
    pub(crate) authority: PathBuf,
    /// This host's name.
    pub(crate) name: String,
    /// Where in the list of hosts to begin, so that not all ask the same.
    pub(crate) lot: u64,
}

/// What was last seen, so that nothing is told each time.
#[derive(Default)]
struct Seen {
    wrong: Option<String>,
    ending: u64,
    /// A host that can sign.
    signer: Option<SocketAddr>,
    rounds: u64,
    /// The round from which on renewal may be tried.
    next_try: u64,
}

impl Renewal {
    /// Goes on until the loop has ended.
    pub(crate) async fn go(mut self, questions: mpsc::WeakSender<Question>) {
        let mut seen = Seen::default();
        loop {
            let mut notes = Vec::new();
            self.look(&mut seen, &mut notes).await;
            let Some(hosts) = others(&questions, self.keys.held().identity.host).await else {
                return;
            };
            if self.fetched(&hosts, &mut seen).await {
                self.look(&mut seen, &mut notes).await;
            }
            self.renewed(&mut seen, &mut notes).await;
            self.ending(&mut seen, &mut notes);
            if !notes.is_empty() {
                let question: Question = Box::new(move |at_work| at_work.tell(&notes));
                // Held no longer than this: the loop must notice if the API ends.
                let Some(questions) = questions.upgrade() else { return };
                if questions.send(question).await.is_err() {
                    return;
                }
            }
            seen.rounds += 1;
            tokio::time::sleep(EVERY).await;
        }
    }

    /// Reads the folder.
    async fn look(&self, seen: &mut Seen, notes: &mut Vec<Note>) {
        let keys = Arc::clone(&self.keys);
        let read = move || {
            // What has retired goes, also where nobody has anything new. A revocation that is there counts whatever is wrong with that.
            let tidied =
                Grant::held(keys.folder()).and_then(|held| held.merge(keys.folder(), now()));
            let changed = keys.reload()?;
            tidied.map(|_changed| changed)
        };
        match blocking(read).await {
            Ok(changed) => {
                seen.wrong = None;
                notes.extend(changed.then(|| anew(&self.keys)));
            }
            Err(why) => seen.mistake(format!("{why}; what was held before still is"), notes),
        }
    }

    /// Asks the next hosts in turn for what they hold; whether that brought anything.
    async fn fetched(&mut self, hosts: &[SocketAddr], seen: &mut Seen) -> bool {
        let all: BTreeSet<SocketAddr> = hosts.iter().chain(&self.seeds).copied().collect();
        let all: Vec<SocketAddr> = all.into_iter().collect();
        let mut brought = false;
        for _ in 0..ASKED.min(all.len()) {
            let count = u64::try_from(all.len()).unwrap_or(1);
            let at = all[usize::try_from(self.lot % count).unwrap_or(0)];
            self.lot = self.lot.wrapping_add(1);
            let mark = self.keys.held().mark;
            let Ok(answer) = self.spread.fetch(at, &mark).await else { continue };
            if answer.signs {
                seen.signer = Some(at);
            }
            let Some(grant) = answer.grant else { continue };
            let folder = self.keys.folder().to_owned();
            match blocking(move || grant.merge(&folder, now())).await {
                Ok(newer) => brought |= newer,
                Err(why) => tracing::warn!("the keys that {at} holds were not taken: {why}"),
            }
        }
        brought
    }

    /// Has the certificate renewed when a third of its life is over.
    async fn renewed(&self, seen: &mut Seen, notes: &mut Vec<Note>) {
        let identity = self.keys.held().identity.clone();
        let life = identity.ends.0.saturating_sub(identity.begins.0);
        if now().0 < identity.begins.0 + life / 3 || seen.rounds < seen.next_try {
            return;
        }
        // Told when the end is near. A request that is made by hand meanwhile must not be replaced.
        if seen.signer.is_none() && !self.authority.join(CA_KEY).exists() {
            return;
        }
        seen.next_try = seen.rounds + BETWEEN_TRIES;
        let (host, addresses) = (identity.host, identity.addresses.clone());
        let wanted = Wanted { host, name: self.name.clone(), addresses };
        let (folder, authority) = (self.keys.folder().to_owned(), self.authority.clone());
        let asked = blocking(move || {
            let request = request::make(&folder, &wanted)?;
            let own = signed_here(&authority, &folder, &identity, &request)?;
            anyhow::Ok((request, own))
        });
        let grant = match (asked.await, seen.signer) {
            (Ok((_, Some(own))), _) => Ok(own),
            (Ok((request, None)), Some(signer)) => self.spread.renew(signer, &request).await,
            (Ok((_, None)), None) => return,
            (Err(why), _) => Err(why),
        };
        let folder = self.keys.folder().to_owned();
        let installed = match grant {
            Ok(grant) => blocking(move || grant.install(&folder, now())).await,
            Err(why) => Err(why),
        };
        match installed {
            Ok(_identity) => self.look(seen, notes).await,
            Err(why) => {
                seen.signer = None;
                tracing::warn!("the certificate was not renewed: {why}");
            }
        }
    }

    fn ending(&self, seen: &mut Seen, notes: &mut Vec<Note>) {
        let (now, ends) = (now().0, self.keys.held().identity.ends.0);
        if ends < now + BEFORE && now >= seen.ending + DAY {
            seen.ending = now;
            notes.push(Note::new(Step::Alarm, ending(ends)));
        }
    }
}

impl Seen {
    /// Tells of it once, not each time that it is seen.
    fn mistake(&mut self, why: String, notes: &mut Vec<Note>) {
        if self.wrong.as_ref() != Some(&why) {
            notes.push(Note::bad_input(why.clone()));
            self.wrong = Some(why);
        }
    }
}

/// The other hosts that are known.
async fn others(questions: &mpsc::WeakSender<Question>, me: HostId) -> Option<Vec<SocketAddr>> {
    let (answer, hosts) = oneshot::channel();
    let question: Question = Box::new(move |at_work| {
        let all = at_work.host.membership().hosts().filter(|view| view.peer.host != me);
        // Whoever asked may be gone.
        let _ = answer.send(all.map(|view| view.peer.address).collect());
    });
    questions.upgrade()?.send(question).await.ok()?;
    hosts.await.ok()
}

/// What this host signs for itself, if it has the CA's key.
fn signed_here(
    authority: &Path,
    keys: &Path,
    identity: &Identity,
    request: &str,
) -> anyhow::Result<Option<Grant>> {
    let Ok(authority) = Authority::open(authority, None) else { return Ok(None) };
    let grant = authority.renew(identity, request, now())?;
    Ok(Some(Grant { certificate: grant.certificate, ..Grant::held(keys)? }))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> Result<T, String> {
    let done = spawn_blocking(work).await.unwrap_or_else(|panicked| Err(panicked.into()));
    done.map_err(|error| format!("{error:#}"))
}

fn now() -> Unix {
    Unix(u64::from(unix_seconds()))
}

fn anew(keys: &Keys) -> Note {
    let held = keys.held();
    let words = format!(
        "keys read anew: certificate until {}, cluster key {}, revocations {}",
        date(held.identity.ends.0),
        held.newest(),
        held.revoked.version
    );
    Note::new(Step::Settings, words)
}

fn ending(ends: u64) -> String {
    let ends = date(ends);
    format!(
        "this host's certificate holds until {ends} only, then no host listens to it, and no host that can sign was found: start \
         one with the CA's key (host.ca), or run `evenkeel keys request`, have that signed by `evenkeel ca sign`, and install that"
    )
}
