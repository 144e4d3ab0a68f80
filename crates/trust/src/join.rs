//! How a host that has nothing yet comes in: a token, good for one host, once, for a short while, that also pins the CA.
//!
//! ```text
//!   evkj_ID_SECRET_PIN     ID 8, SECRET 32, PIN 64 hexadecimal digits; PIN is the SHA-256 of the CA's certificate
//! ```
//!
//! The CA's folder keeps, of each token, only a hash of its secret (128 random bits, so a plain hash does). It is a file that
//! is taken away before anything is signed: so of two that come with one token, one is refused. What was signed for whom is kept
//! beside, so that nobody gets a certificate in the name of a host that is there already.

use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use decide::units::HostId;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use crate::authority::{Authority, LIFE};
use crate::folder;
use crate::grant::{Grant, from_hex, to_hex};
use crate::identity::{Identity, Unix};
use crate::request::{self, Wanted};

/// Tokens that may be open at once.
pub const TOKENS_MAX: usize = 256;
/// The longest that a token may hold.
pub const TOKEN_LIFE_MAX: Duration = Duration::from_secs(24 * 3600);
const TOKENS: &str = "tokens";
const ISSUED: &str = "issued";
const PREFIX: &str = "evkj";

/// What a new host is given by an operator. Whoever has it first may join as one host.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    id: [u8; 4],
    secret: [u8; 16],
    pin: [u8; 32],
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("id", &to_hex(&self.id)).finish_non_exhaustive()
    }
}

/// The whole of it, secret and all.
impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [id, secret, pin] = [to_hex(&self.id), to_hex(&self.secret), to_hex(&self.pin)];
        write!(f, "{PREFIX}_{id}_{secret}_{pin}")
    }
}

impl FromStr for Token {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Token> {
        let read = || {
            let mut parts = text.split('_');
            let mut part = || parts.next().and_then(|part| from_hex(part).ok());
            let prefix = text.starts_with("evkj_").then(&mut part);
            let token = Token {
                id: prefix.and(part())?.try_into().ok()?,
                secret: part()?.try_into().ok()?,
                pin: part()?.try_into().ok()?,
            };
            parts.next().is_none().then_some(token)
        };
        read().context("no token as `evenkeel ca token` gives it")
    }
}

impl Token {
    /// Whether this certificate is that of the CA that the token is of.
    #[must_use]
    pub fn pins(&self, ca: &CertificateDer<'_>) -> bool {
        digest(&SHA256, ca).as_ref() == self.pin
    }
}

/// What the CA keeps of a token.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    hash: String,
    ends: Unix,
    /// The one address that may come with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<IpAddr>,
}

/// What a host was last given a certificate for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issued {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// When.
    pub issued: Unix,
    /// Until when it holds.
    pub ends: Unix,
}

impl Authority {
    /// Makes a token that holds for `life`; given an address, for a host with that one only.
    ///
    /// # Errors
    /// If too many are open, the life is too long, or it cannot be written.
    pub fn offer(
        &self,
        life: Duration,
        address: Option<IpAddr>,
        now: Unix,
    ) -> anyhow::Result<Token> {
        ensure!(
            life <= TOKEN_LIFE_MAX,
            "a token holds for {} hours at most",
            TOKEN_LIFE_MAX.as_secs() / 3600
        );
        let _alone = folder::lock(self.folder())?;
        let tokens = self.folder().join(TOKENS);
        folder::make(&tokens)?;
        let mut open = 0;
        for entry in fs::read_dir(&tokens).with_context(|| tokens.display().to_string())? {
            let name = entry?.file_name();
            let name = name.to_str().context("a token's name")?;
            let ended = read::<Kept>(&tokens, name).map_or(true, |kept| kept.ends <= now);
            if ended {
                fs::remove_file(tokens.join(name)).context("taking away an old token")?;
            } else {
                open += 1;
            }
        }
        ensure!(open < TOKENS_MAX, "{open} tokens are open: wait until some end");
        let (mut id, mut secret) = ([0; 4], [0; 16]);
        for part in [&mut id[..], &mut secret[..]] {
            let drawn = SystemRandom::new().fill(part);
            drawn.map_err(|_no_reason| anyhow::anyhow!("the system gives no random numbers"))?;
        }
        let kept = Kept { hash: hash(&secret), ends: Unix(now.0 + life.as_secs()), address };
        write(&tokens, &to_hex(&id), &kept)?;
        let pin = digest(&SHA256, self.der()).as_ref().try_into().context("a SHA-256")?;
        Ok(Token { id, secret, pin })
    }

    /// Signs the request of a host that came with a token, from the address `from`. The token is used up, also if the request is
    /// then refused.
    ///
    /// # Errors
    /// Why it is not let in.
    pub fn enrol(
        &self,
        token: &Token,
        request: &str,
        from: IpAddr,
        now: Unix,
    ) -> anyhow::Result<(Grant, Wanted)> {
        let _alone = folder::lock(self.folder())?;
        let tokens = self.folder().join(TOKENS);
        let id = to_hex(&token.id);
        let unknown = "the token is unknown, used or over: ask for another, by `evenkeel ca token`";
        let kept = read::<Kept>(&tokens, &id).ok().context(unknown)?;
        // Hashes are compared, of which the time tells nothing about the secret.
        ensure!(kept.hash == hash(&token.secret) && now < kept.ends, unknown);
        match fs::remove_file(tokens.join(&id)) {
            Err(error) if error.kind() == ErrorKind::NotFound => bail!(unknown),
            taken => taken.context("taking away a token")?,
        }
        let wanted = request::read(request)?.0;
        if let Some(only) = kept.address {
            ensure!(from == only, "the token is for {only}, and {from} came with it");
        }
        ensure!(
            wanted.addresses == [from],
            "it comes from {from}, and asks for {:?}: a token gives the address that it came from",
            wanted.addresses
        );
        if let Some(issued) = self.issued(wanted.host)?.filter(|issued| now < issued.ends) {
            let gone = self.is_revoked(wanted.host, issued.issued)?;
            ensure!(
                gone,
                "host {} ({}) has a certificate already: if it lost it, run `evenkeel ca revoke {}` first",
                wanted.host,
                issued.name,
                wanted.host
            );
        }
        self.sign_as(request, LIFE, now, now)
    }

    /// Ends all tokens that are open.
    pub(crate) fn end_tokens(&self) -> anyhow::Result<()> {
        let tokens = self.folder().join(TOKENS);
        for entry in fs::read_dir(&tokens).into_iter().flatten() {
            fs::remove_file(entry?.path()).context("taking away a token")?;
        }
        Ok(())
    }

    /// Signs anew for a host that came with the certificate of `identity`.
    ///
    /// # Errors
    /// If the request is for another host, or for other addresses.
    pub fn renew(&self, identity: &Identity, request: &str, now: Unix) -> anyhow::Result<Grant> {
        let _alone = folder::lock(self.folder())?;
        ensure!(
            !self.is_revoked(identity.host, identity.issued)?,
            "the certificate of host {} is revoked",
            identity.host
        );
        let wanted = request::read(request)?.0;
        ensure!(
            wanted.host == identity.host,
            "host {} asks for a certificate of host {}",
            identity.host,
            wanted.host
        );
        let other = wanted.addresses.iter().find(|wanted| !identity.addresses.contains(wanted));
        ensure!(other.is_none(), "a new address, {other:?}: run `evenkeel ca sign` for it");
        // As of its admission: a revocation of what was issued until then ends what follows from it too.
        Ok(self.sign_as(request, LIFE, now, identity.issued)?.0)
    }

    /// What a host was last given.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn issued(&self, host: HostId) -> anyhow::Result<Option<Issued>> {
        let issued = self.folder().join(ISSUED);
        let name = host.to_string();
        issued.join(&name).exists().then(|| read(&issued, &name)).transpose()
    }

    /// The host of this name, or with this id.
    ///
    /// # Errors
    /// If there is none, or more than one.
    pub fn find(&self, wanted: &str) -> anyhow::Result<HostId> {
        if let Ok(host) = wanted.parse() {
            return Ok(host);
        }
        let issued = self.folder().join(ISSUED);
        let mut found = Vec::new();
        for entry in fs::read_dir(&issued).into_iter().flatten() {
            let file = entry?.file_name();
            let Some((file, host)) = file.to_str().and_then(|f| Some((f, f.parse().ok()?))) else {
                continue;
            };
            if read::<Issued>(&issued, file)?.name == wanted {
                found.push(host);
            }
        }
        match found[..] {
            [host] => Ok(host),
            [] => bail!("this CA has given no certificate to a host {wanted:?}"),
            _ => bail!("{} hosts are named {wanted:?}: give its id", found.len()),
        }
    }

    pub(crate) fn note(&self, wanted: &Wanted, issued: Unix, ends: Unix) -> anyhow::Result<()> {
        let folder = self.folder().join(ISSUED);
        folder::make(&folder)?;
        let Wanted { host, name, addresses } = wanted.clone();
        write(&folder, &host.to_string(), &Issued { name, addresses, issued, ends })
    }
}

fn hash(secret: &[u8]) -> String {
    to_hex(digest(&SHA256, secret).as_ref())
}

fn read<T: for<'de> Deserialize<'de>>(folder: &Path, name: &str) -> anyhow::Result<T> {
    let place = || folder.join(name).display().to_string();
    serde_json::from_slice(&folder::read_secret(folder, name)?).with_context(place)
}

fn write<T: Serialize>(folder: &Path, name: &str, kept: &T) -> anyhow::Result<()> {
    folder::write(folder, name, &serde_json::to_vec(kept).context("writing JSON")?)
}
