//! Refused calls of those who are known here: each caller gets a few lines of the audit log a minute, and one that says how many more
//! there were. Whoever may only look must not crowd out of the log what was done.
//!
//! ```text
//!   refused ─▶ one of the first ten of a minute? ─ yes ─▶ line
//!                    └ no: counted ── the minute is over ──▶ one line: so many more of this caller
//! ```
//!
//! **Invariant:** what is kept is bounded, however many callers there are.
//! **Invariant:** no call that was carried out is left out.

use std::collections::BTreeMap;
use std::time::Duration;

use api::Who;
use tokio::time::Instant;

/// The minute.
pub(super) const WINDOW: Duration = Duration::from_secs(60);
/// Lines of one caller within [`WINDOW`].
pub(super) const LINES_MAX: u32 = 10;
/// Callers that are counted one by one; further ones share a count.
const CALLERS_MAX: usize = 1024;

/// Who is counted: user or token.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum By {
    User(u32),
    Token(String),
    Others,
}

/// What is done about a refused call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// It has a line of its own.
    Own,
    /// It is counted. The first of a minute: at that time the count is to be fetched.
    Counted(Option<(Instant, By)>),
}

/// Refused calls of late.
#[derive(Debug, Default)]
pub(super) struct Refusals(BTreeMap<By, Calls>);

#[derive(Debug)]
struct Calls {
    began: Instant,
    lines: u32,
    more: u64,
}

impl Calls {
    fn holds(&self, now: Instant) -> bool {
        now.duration_since(self.began) < WINDOW
    }
}

impl Refusals {
    /// Another refused call, of somebody who is known.
    pub(super) fn refused(&mut self, who: &Who, now: Instant) -> Line {
        let mut by = match (who.uid, &who.token) {
            (Some(uid), _) => By::User(uid),
            (None, Some(token)) => By::Token(token.clone()),
            (None, None) => By::Others,
        };
        if !self.0.contains_key(&by) && self.0.len() >= CALLERS_MAX {
            self.0.retain(|_, calls| calls.holds(now) || calls.more > 0);
            if self.0.len() >= CALLERS_MAX {
                by = By::Others;
            }
        }
        let calls = self.0.entry(by.clone()).or_insert(Calls { began: now, lines: 0, more: 0 });
        if !calls.holds(now) {
            // Those that were only counted are told soon.
            (calls.began, calls.lines) = (now, 0);
        }
        if calls.lines < LINES_MAX {
            calls.lines += 1;
            return Line::Own;
        }
        calls.more = calls.more.saturating_add(1);
        Line::Counted((calls.more == 1).then(|| (calls.began + WINDOW, by)))
    }

    /// How many were counted of these since it was told last.
    pub(super) fn more(&mut self, by: &By) -> u64 {
        self.0.get_mut(by).map_or(0, |calls| std::mem::take(&mut calls.more))
    }
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use axum::response::IntoResponse;
    use std::path::Path;

    use super::super::audit::Call;
    use super::super::gate::{Gate, Limits};
    use super::super::peer::Admitted;
    use super::*;

    fn token(id: &str) -> Who {
        Who { token: Some(id.to_owned()), name: Some("ci".to_owned()), ..Who::default() }
    }

    #[test]
    fn a_caller_has_ten_lines_a_minute_and_the_rest_are_counted() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        for _ in 0..LINES_MAX {
            assert_eq!(refusals.refused(&token("a"), now), Line::Own);
        }
        let by = By::Token("a".to_owned());
        let first = Line::Counted(Some((now + WINDOW, by.clone())));
        assert_eq!(refusals.refused(&token("a"), now + WINDOW / 2), first);
        assert_eq!(refusals.refused(&token("a"), now + WINDOW / 2), Line::Counted(None));
        assert_eq!(refusals.refused(&token("b"), now), Line::Own, "another caller");
        // The next minute may begin before the count is fetched.
        assert_eq!(refusals.refused(&token("a"), now + WINDOW), Line::Own);
        assert_eq!([refusals.more(&by), refusals.more(&by)], [2, 0]);
    }

    #[test]
    fn however_many_callers_there_are_what_is_kept_is_bounded() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        let mut own = 0;
        for uid in 0..5000 {
            let who = Who { uid: Some(uid), ..Who::default() };
            own += usize::from(refusals.refused(&who, now) == Line::Own);
        }
        assert_eq!(refusals.0.len(), CALLERS_MAX + 1);
        assert_eq!(own, CALLERS_MAX + LINES_MAX as usize);
        assert_eq!(refusals.more(&By::Others), (5000 - own) as u64);
        assert_eq!(refusals.refused(&token("a"), now + WINDOW), Line::Own);
        assert_eq!(refusals.0.len(), 1, "those of before are gone");
    }

    async fn noted(gate: &Gate, who: Who, status: StatusCode) {
        let call = Call {
            who,
            from: "tcp 198.18.0.1:5".to_owned(),
            method: "POST".to_owned(),
            path: "/v1/moves".to_owned(),
            what: "{}".to_owned(),
            status: 0,
        };
        assert_eq!(gate.noted(call, status.into_response()).await.status(), status);
    }

    fn gate(folder: &Path) -> Gate {
        Gate::open(folder, Admitted::of("evenkeel"), Limits::default()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_viewer_cannot_crowd_out_of_the_audit_log_what_was_done() {
        let folder = tempfile::tempdir().unwrap();
        let gate = gate(folder.path());
        for _ in 0..40 {
            noted(&gate, token("viewer"), StatusCode::FORBIDDEN).await;
        }
        for _ in 0..15 {
            noted(&gate, token("operator"), StatusCode::ACCEPTED).await;
            // It may have been done.
            noted(&gate, token("viewer"), StatusCode::INTERNAL_SERVER_ERROR).await;
        }
        tokio::time::sleep(WINDOW + Duration::from_secs(1)).await;
        let seen = || gate.audit.look(&api::AuditFilter::default(), 0).unwrap();
        let statuses = |status| seen().lines.iter().filter(|line| line.status == status).count();
        let all = [403, 202, 500].map(statuses);
        assert_eq!(all, [LINES_MAX as usize, 15, 15]);
        let last = seen().lines.last().cloned().unwrap();
        assert_eq!(
            last.what,
            "30 more calls of ci (token viewer) were refused within a minute, and are not noted one by one"
        );
        assert_eq!(seen().check.broken.clone(), None);
        noted(&gate, token("viewer"), StatusCode::FORBIDDEN).await;
        assert_eq!(statuses(403), LINES_MAX as usize + 1);
    }
}
