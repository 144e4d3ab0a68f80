//! Bearer tokens: `evk_ID_SECRET`, kept as a hash of the secret, with a role and an end.
//!
//! The secret is 256 bits from the kernel, so one SHA-256 suffices: a slow hash protects words that people choose, of which there
//! are few enough to try; of these nobody can try a noticeable part, by any hash.
//!
//! **Invariant:** a change is on disk before it is answered, and counts from the next request on. No secret is kept, logged or in
//! a `Debug` form.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::{Mutex, PoisonError, RwLock};

use api::{Role, TOKEN_DAYS_MAX, TokenMade, TokenRequest, TokenView};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::audit::chain::hex;
use crate::clock::date;
use crate::kept::Kept;
use crate::local::drawn;

const FILE: &str = "tokens.json";
/// What each token begins with, so that scanners of sources and logs know one.
const MARK: &str = "evk_";
const TOKENS_MAX: usize = 256;
const NAME_MAX: usize = 64;
const DAY: u64 = 24 * 3600;

/// What is kept of a token. Times in seconds since 1970.
#[derive(Clone, Serialize, Deserialize)]
struct Token {
    name: String,
    role: Role,
    /// SHA-256 of the secret, in text.
    hash: String,
    made: u64,
    until: u64,
}

type ById = BTreeMap<String, Token>;

/// The tokens of one agent.
pub(super) struct Tokens {
    kept: Mutex<Kept<ById>>,
    held: RwLock<ById>,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

/// Whose token was shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) role: Role,
}

/// A token that is good for nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// It was made here, and its time is over.
    Expired(Holder),
    /// It was not made here, or was revoked, or is misspelt.
    Unknown,
}

/// Why a token was not made.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotMade {
    /// What is wrong with the wish.
    Wish(String),
    /// There are as many as there may be.
    Full,
}

impl Tokens {
    /// Those that are kept in this folder, which is there.
    ///
    /// # Errors
    /// The file cannot be read, or others could read it.
    pub(super) fn open(folder: &Path) -> anyhow::Result<Tokens> {
        let kept = Kept::secret(folder, FILE);
        let held = RwLock::new(kept.read()?);
        Ok(Tokens { kept: Mutex::new(kept), held })
    }

    /// Whose token this is. `now` in seconds since 1970.
    ///
    /// # Errors
    /// It is good for nothing.
    pub(super) fn holder(&self, shown: &str, now: u64) -> Result<Holder, Wrong> {
        let parts = shown.strip_prefix(MARK).and_then(|rest| rest.split_once('_'));
        let (id, secret) = parts.ok_or(Wrong::Unknown)?;
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        let token = held.get(id).ok_or(Wrong::Unknown)?;
        if !bool::from(hash(secret).as_bytes().ct_eq(token.hash.as_bytes())) {
            return Err(Wrong::Unknown);
        }
        let holder = Holder { id: id.to_owned(), name: token.name.clone(), role: token.role };
        if now >= token.until { Err(Wrong::Expired(holder)) } else { Ok(holder) }
    }

    /// All of them, by name.
    pub(super) fn all(&self, now: u64) -> Vec<TokenView> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<TokenView> = held.iter().map(|(id, token)| view(id, token, now)).collect();
        all.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        all
    }

    /// Makes one, and tells it this once.
    ///
    /// # Errors
    /// It cannot be kept; inside: it may not be made.
    pub(super) fn make(
        &self,
        wish: TokenRequest,
        now: u64,
    ) -> anyhow::Result<Result<TokenMade, NotMade>> {
        if let Err(wrong) = check(&wish) {
            return Ok(Err(NotMade::Wish(wrong)));
        }
        let (id, secret) = (hex(&drawn::<4>()?), hex(&drawn::<32>()?));
        let until = now + u64::from(wish.days) * DAY;
        let TokenRequest { name, role, .. } = wish;
        let token = Token { name, role, hash: hash(&secret), made: now, until };
        let view = view(&id, &token, now);
        let added = self.change(|all| {
            if all.len() >= TOKENS_MAX {
                all.retain(|_, token| token.until > now);
            }
            let room = all.len() < TOKENS_MAX && !all.contains_key(&id);
            if room {
                all.insert(id.clone(), token);
            }
            room
        })?;
        let token = format!("{MARK}{id}_{secret}");
        Ok(if added { Ok(TokenMade { token, view }) } else { Err(NotMade::Full) })
    }

    /// Ends one, if there is one of this id.
    ///
    /// # Errors
    /// It may be ended for good or not.
    pub(super) fn revoke(&self, id: &str, now: u64) -> anyhow::Result<Option<TokenView>> {
        let revoked = self.change(|all| all.remove(id))?;
        Ok(revoked.map(|token| TokenView { holds: false, ..view(id, &token, now) }))
    }

    fn change<R>(&self, change: impl FnOnce(&mut ById) -> R) -> anyhow::Result<R> {
        // One at a time, so that what is held is what was kept last.
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let (given, all) = kept.change(|all| (change(all), all.clone()))?;
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = all;
        Ok(given)
    }
}

fn check(wish: &TokenRequest) -> Result<(), String> {
    let TokenRequest { name, days, .. } = wish;
    if name.trim().is_empty() || name.len() > NAME_MAX || name.contains(char::is_control) {
        return Err(format!("a token's name has 1 to {NAME_MAX} bytes, all of them to be seen"));
    }
    if !(1..=TOKEN_DAYS_MAX).contains(days) {
        return Err(format!("a token holds for 1 to {TOKEN_DAYS_MAX} days, not for {days}"));
    }
    Ok(())
}

fn view(id: &str, token: &Token, now: u64) -> TokenView {
    TokenView {
        id: id.to_owned(),
        name: token.name.clone(),
        role: token.role,
        made: date(token.made),
        until: date(token.until),
        holds: now < token.until,
    }
}

fn hash(secret: &str) -> String {
    hex(&Sha256::digest(secret))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const NOW: u64 = 1_790_000_000;

    fn wish(name: &str, role: Role, days: u32) -> TokenRequest {
        TokenRequest { name: name.to_owned(), role, days }
    }

    fn made(tokens: &Tokens, role: Role) -> TokenMade {
        tokens.make(wish("ci", role, 90), NOW).unwrap().unwrap()
    }

    #[test]
    fn a_token_is_good_until_it_expires_or_is_revoked_over_restarts_too() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Tokens::open(folder.path()).unwrap();
        let TokenMade { token, view } = made(&open(), Role::Operator);
        let holder = Holder { id: view.id.clone(), name: "ci".to_owned(), role: Role::Operator };
        let tokens = open();
        assert_eq!(tokens.holder(&token, NOW), Ok(holder.clone()));
        assert_eq!(tokens.holder(&token, NOW + 90 * DAY - 1), Ok(holder.clone()));
        assert_eq!(tokens.holder(&token, NOW + 90 * DAY), Err(Wrong::Expired(holder)));
        assert!(!tokens.all(NOW + 90 * DAY)[0].holds);
        assert_eq!(tokens.revoke("none", NOW).unwrap(), None);
        assert!(!tokens.revoke(&view.id, NOW).unwrap().unwrap().holds);
        assert_eq!(tokens.holder(&token, NOW), Err(Wrong::Unknown), "at once");
        assert_eq!(open().holder(&token, NOW), Err(Wrong::Unknown), "and for good");
    }

    #[test]
    fn what_is_not_the_very_token_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let tokens = Tokens::open(folder.path()).unwrap();
        let (one, other) = (made(&tokens, Role::Viewer), made(&tokens, Role::Admin));
        let token = &one.token;
        assert_eq!(token.len(), 4 + 8 + 1 + 64);
        let swapped = token.replace(&one.view.id, &other.view.id);
        let last = if token.ends_with('0') { "1" } else { "0" };
        let flipped = format!("{}{last}", &token[..token.len() - 1]);
        let hash = tokens.held.read().unwrap()[&one.view.id].hash.clone();
        let by_hash = format!("evk_{}_{hash}", one.view.id);
        for wrong in [
            "",
            "evk_",
            "evk__",
            &token[4..],
            &token[..token.len() - 1],
            &format!("{token}0"),
            &token.to_uppercase(),
            &format!("evk_{}_", one.view.id),
            &swapped,
            &flipped,
            &by_hash,
        ] {
            assert_eq!(tokens.holder(wrong, NOW), Err(Wrong::Unknown), "{wrong}");
        }
    }

    #[test]
    fn the_file_holds_no_secret_and_is_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let tokens = Tokens::open(folder.path()).unwrap();
        let made = made(&tokens, Role::Admin);
        let secret = made.token.rsplit('_').next().unwrap();
        let file = folder.path().join(FILE);
        assert!(!fs::read_to_string(&file).unwrap().contains(secret));
        assert!(!format!("{made:?} {tokens:?}").contains(secret));
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        let why = format!("{:#}", Tokens::open(folder.path()).unwrap_err());
        assert!(why.contains("tokens.json can be read by others (mode 640)"), "{why}");
    }

    #[test]
    fn wishes_have_limits_and_so_has_their_number() {
        let folder = tempfile::tempdir().unwrap();
        let tokens = Tokens::open(folder.path()).unwrap();
        let long = "x".repeat(65);
        for (name, days) in
            [("", 1), (" ", 1), (&*long, 1), ("a\nb", 1), ("a", 0), ("a", TOKEN_DAYS_MAX + 1)]
        {
            let not = tokens.make(wish(name, Role::Viewer, days), NOW).unwrap().unwrap_err();
            assert!(matches!(not, NotMade::Wish(_)), "{name} {days}: {not:?}");
        }
        for number in 0..TOKENS_MAX {
            let days = if number == 0 { 1 } else { 90 };
            tokens.make(wish("a", Role::Viewer, days), NOW).unwrap().unwrap();
        }
        let more = |now| tokens.make(wish("a", Role::Viewer, 1), now).unwrap().map(drop);
        assert_eq!(more(NOW), Err(NotMade::Full));
        assert_eq!(more(NOW + DAY), Ok(()), "in the place of one that has expired");
    }
}
