//! Tokens and the audit log for people.

use api::{AuditLine, AuditView, TokenMade, TokenView};

use super::figures;
use super::table::{Color, Table, cell, coloured, one_line};
use crate::screen::Look;

/// A token that was made: the one time that it is shown.
pub(crate) fn token_made(made: &TokenMade) -> String {
    let TokenView { id, name, role, until, .. } = &made.view;
    let told = one_line(format!(
        "Token {id} of {name}, {role} until {until}. It is shown this once: keep it where only its user can read it."
    ));
    format!("{}\n\n{told}", one_line(made.token.clone()))
}

/// A token that is over.
pub(crate) fn token_revoked(token: &TokenView) -> String {
    one_line(format!(
        "Token {} of {} is revoked: nothing is let through by it any more.",
        token.id, token.name
    ))
}

/// The tokens that an agent takes.
pub(crate) fn tokens(tokens: &[TokenView], look: Look) -> String {
    if tokens.is_empty() {
        return "There are no tokens; `evenkeel token create` makes one.".to_owned();
    }
    let mut table = Table::new(look).words("ID").words("NAME").words("ROLE").words("MADE (UTC)");
    table = table.words("UNTIL (UTC)").words("HOLDS");
    for token in tokens {
        let (holds, colour) =
            if token.holds { ("yes", None) } else { ("expired", Some(Color::Yellow)) };
        table.row(vec![
            cell(&token.id),
            cell(&token.name),
            cell(token.role.to_string()),
            cell(figures::time(&token.made)),
            cell(figures::time(&token.until)),
            coloured(holds, colour),
        ]);
    }
    table.text()
}

/// Lines of the audit log.
pub(crate) fn audit(lines: &[AuditLine], look: Look) -> String {
    if lines.is_empty() {
        return "Nothing was asked that could change something.".to_owned();
    }
    let mut table = Table::new(look).figures("SEQ").words("TIME (UTC)").words("WHO");
    table = table.words("FROM").figures("STATUS").words("REQUEST").words("WHAT");
    if look.wide {
        table = table.words("HASH");
    }
    for line in lines {
        let refused = line.status >= 400;
        let status = if line.status == 0 { String::new() } else { line.status.to_string() };
        let mut row = vec![
            cell(line.seq.to_string()),
            cell(figures::time(&line.time)),
            cell(line.who.to_string()),
            cell(&line.from),
            coloured(status, refused.then_some(Color::Yellow)),
            cell(format!("{} {}", line.method, line.path).trim()),
            cell(&line.what),
        ];
        if look.wide {
            row.push(cell(&line.hash));
        }
        table.row(row);
    }
    table.text()
}

/// What is wrong with the log, if anything is.
pub(crate) fn audit_amiss(view: &AuditView) -> Option<String> {
    let check = &view.check;
    if let Some(broken) = &check.broken {
        return Some(one_line(format!("the audit log does not fit together: {broken}")));
    }
    (check.kept_found == Some(false)).then(|| {
        "no line of the audit log has the hash that was kept: lines were taken off its end, it was written anew, or that line is so \
         old that it was rotated away"
            .to_owned()
    })
}

/// What is to be said of the log as a whole.
pub(crate) fn audit_check(view: &AuditView) -> String {
    let check = &view.check;
    if check.lines == 0 {
        return audit_amiss(view).unwrap_or_else(|| "The audit log is empty.".to_owned());
    }
    let mut told = audit_amiss(view).unwrap_or_else(|| {
        format!(
            "All {} lines of the audit log fit together, number {} to {}.",
            check.lines, check.first_seq, view.newest_seq
        )
    });
    if check.first_seq > 1 && check.broken.is_none() {
        told += " What was before was rotated away.";
    }
    if check.kept_found == Some(true) {
        told += " The hash that was kept is among them.";
    }
    one_line(told) + &format!("\nNewest hash, to be kept elsewhere: {}", view.newest_hash)
}
