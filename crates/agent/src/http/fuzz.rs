//! Tokens, the file that keeps them, and the audit log, damaged: what was changed is told, and both go on.

use std::fs;

use ::fuzz::Samples;
use api::{AuditFilter, Role, TokenRequest, Who};

use super::audit::{Audit, Call, chain};
use super::tokens::Tokens;

const NOW: u64 = 1_790_000_000;
/// So many inputs are noted in one log before another is begun.
const LOGGED: u64 = 50;

fn call(what: &str) -> Call {
    Call {
        who: Who { uid: Some(0), token: None, name: Some("root".to_owned()) },
        from: "unix pid 1".to_owned(),
        method: "POST".to_owned(),
        path: "/v1/moves".to_owned(),
        what: what.to_owned(),
        status: 202,
    }
}

#[test]
fn damaged_tokens_and_audit_logs_are_told_and_both_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = Tokens::open(folder.path()).unwrap();
    let wish = TokenRequest { name: "ci".to_owned(), role: Role::Operator, days: 90 };
    let made = tokens.make(wish, NOW).unwrap().unwrap();
    let audit = Audit::open(folder.path(), 1 << 20).unwrap();
    for what in ["{\"vm\":\"web\"}", "é\"\\\n"] {
        audit.note(call(what)).unwrap();
    }
    let log = fs::read(folder.path().join("audit.log")).unwrap();
    let first = log.split(|byte| *byte == b'\n').next().unwrap().to_vec();
    let kept = fs::read(folder.path().join("tokens.json")).unwrap();
    let token = made.token.clone();
    let genuine = vec![token.clone().into_bytes(), kept, log.clone(), first.clone()];
    let mut inputs = 0_u64;
    Samples { length_max: 64 * 1024, ..Samples::bytes(genuine) }.damaged(|bytes| {
        let text = String::from_utf8_lossy(bytes);
        assert_eq!(tokens.holder(&text, NOW).is_ok(), text == token, "{text}");
        if let Ok(line) = chain::read(bytes) {
            assert!(log.split(|byte| *byte == b'\n').any(|one| one == bytes), "{line:?}");
        }
        inputs += 1;
        // Each costs some files.
        if !inputs.is_multiple_of(LOGGED) {
            return;
        }
        let other = tempfile::tempdir().unwrap();
        let put = |name: &str| {
            let file = other.path().join(name);
            fs::write(&file, bytes).unwrap();
            fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        };
        put("tokens.json");
        if let Ok(tokens) = Tokens::open(other.path()) {
            let _ = (tokens.all(NOW), tokens.holder(&token, NOW));
            assert_eq!(tokens.revoke("none", NOW).unwrap(), None);
        }
        put("audit.log.1");
        put("audit.log");
        let audit = Audit::open(other.path(), 1 << 20).unwrap();
        audit.note(call(&text)).unwrap();
        let look = audit.look(&AuditFilter::default(), NOW).unwrap();
        assert_eq!(look.lines.last().map(|line| line.seq), Some(look.newest_seq));
        let again = Audit::open(other.path(), 1 << 20).unwrap();
        let seen = again.look(&AuditFilter::default(), NOW).unwrap();
        assert_eq!((seen.newest_seq, seen.newest_hash), (look.newest_seq, look.newest_hash));
    });
}
