//! A look at a text before `cel` parses it: that is cheap for any text, while a parser descends into what it is given.
//!
//! It also tells mistakes better than a grammar can: quotes and brackets that stay open, one `=` for two, `80%`, `4GiB`.
//!
//! **Invariant:** what passes holds only what `cel` takes for the same: a sign or an escape that its lexer does not know makes it
//! go on behind that, perhaps inside of what is a text here, and find brackets that were not counted.
//! **Invariant:** in what passes values and operators take turns: a parser that mends what is missing may take brackets beside each other
//! for brackets in each other.
//! **Invariant:** what passes has at most [`DEPTH_MAX`] brackets in each other and [`CHAIN_MAX`] operators on the way to any
//! place, which bounds the stack that parsing takes.

use super::{DEPTH_MAX, Fault, TEXT_MAX};

/// Operators on the way from the outermost level to a place. No expression of the depth that is allowed has as many.
const CHAIN_MAX: usize = 300;

/// The operators between two brackets.
#[derive(Debug, Default)]
struct Level {
    /// What closes it, and where it was opened.
    bracket: Option<(char, usize)>,
    /// Operators since the last `&&`, `||`, comma, `?` or `:`; those the parser balances, or has beside each other.
    chain: usize,
    /// Each `?` holds all that follows.
    choices: usize,
}

/// What stands before a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    /// The beginning, an open bracket or a comma.
    Open,
    /// What a value must follow.
    Operator,
    /// A dot, which a name follows.
    Dot,
    /// A word, of which a bracket may make a call.
    Word,
    /// Another value, or one that ends in a bracket.
    Value,
}

struct Scan<'a> {
    text: &'a str,
    at: usize,
    before: Before,
    levels: Vec<Level>,
    /// Dots since the last word that followed no dot: `vm.name` has one.
    dots: usize,
}

pub(super) fn scan(text: &str) -> Result<(), Fault> {
    if text.len() > TEXT_MAX {
        let wrong = format!("{} bytes long, {TEXT_MAX} are allowed", text.len());
        return Err(Fault::new(0, wrong, "say it in fewer words"));
    }
    let mut scan =
        Scan { text, at: 0, before: Before::Open, levels: vec![Level::default()], dots: 0 };
    let mut empty = true;
    while let Some(next) = scan.rest().chars().next() {
        if !next.is_ascii_whitespace() && !scan.rest().starts_with("//") {
            empty = false;
        }
        scan.token(next)?;
    }
    if empty {
        return Err(Fault::new(0, "it is empty", "leave the key out"));
    }
    match scan.levels.last().and_then(|level| level.bracket) {
        None => Ok(()),
        Some((close, at)) => {
            let open = &text[at..=at];
            Err(Fault::new(
                at,
                format!("the bracket {open} is not closed"),
                format!("write {close} where it ends"),
            ))
        }
    }
}

impl Scan<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    /// Takes what begins with `next`.
    fn token(&mut self, next: char) -> Result<(), Fault> {
        let rest = self.rest();
        if rest.starts_with("//") {
            self.at += rest.find('\n').unwrap_or(rest.len());
            return Ok(());
        }
        let at = self.at;
        match next {
            '"' | '\'' => {
                self.value(at, Before::Value)?;
                return self.quoted(next, false);
            }
            '(' | '[' | '{' => return self.open(next),
            ')' | ']' | '}' => return self.close(next),
            '0'..='9' => {
                self.value(at, Before::Value)?;
                return self.number();
            }
            _ if next.is_ascii_alphabetic() || next == '_' => return self.word(),
            '.' => {
                self.before = Before::Dot;
                self.at += 1;
                self.dots += 1;
                return if self.dots > 2 { self.chain() } else { Ok(()) };
            }
            _ => {}
        }
        self.dots = 0;
        self.operator(next)
    }

    /// A value begins there.
    fn value(&mut self, at: usize, kind: Before) -> Result<(), Fault> {
        if matches!(self.before, Before::Word | Before::Value) {
            let wrong = "an operator is missing here";
            return Err(Fault::new(
                at,
                wrong,
                "join conditions with && or ||, and put texts in quotes",
            ));
        }
        self.before = kind;
        Ok(())
    }

    /// What needs a value before it stands there.
    fn after_value(&mut self, at: usize, then: Before) -> Result<(), Fault> {
        if !matches!(self.before, Before::Word | Before::Value) {
            return Err(Fault::new(at, "a value is missing here", "write it"));
        }
        self.before = then;
        Ok(())
    }

    fn operator(&mut self, next: char) -> Result<(), Fault> {
        let (at, rest) = (self.at, self.rest());
        let unary = next == '!' && !rest.starts_with("!=")
            || next == '-' && !matches!(self.before, Before::Word | Before::Value);
        match next {
            _ if unary => self.value(at, Before::Operator)?,
            ',' => self.after_value(at, Before::Open)?,
            '&' | '|' | '=' | '<' | '>' | '!' | '+' | '-' | '*' | '/' | '?' | ':' => {
                self.after_value(at, Before::Operator)?;
            }
            _ => {}
        }
        let rest = self.rest();
        if let Some(two) = ["&&", "||"].into_iter().find(|two| rest.starts_with(two)) {
            self.at += two.len();
            self.here().chain = 0;
            return Ok(());
        }
        if let Some(two) = ["==", "!=", "<=", ">="].into_iter().find(|two| rest.starts_with(two)) {
            self.at += two.len();
            return self.chain();
        }
        self.at += next.len_utf8();
        match next {
            '=' => Err(Fault::new(at, "one = compares nothing", "write ==")),
            '&' => Err(Fault::new(at, "one & joins nothing", "write &&")),
            '|' => Err(Fault::new(at, "one | joins nothing", "write ||")),
            '%' => Err(Fault::new(
                at,
                "% has no meaning here: shares go from 0 to 1",
                "write 0.8 for 80 %",
            )),
            ',' | ':' => {
                self.here().chain = 0;
                if next == ',' {
                    self.here().choices = 0;
                }
                Ok(())
            }
            '?' => {
                self.here().chain = 0;
                self.here().choices += 1;
                self.deep_enough(at)
            }
            '+' | '-' | '*' | '/' | '<' | '>' => self.chain(),
            '!' | ' ' | '\t' | '\r' | '\n' | '\u{c}' => Ok(()),
            _ => {
                let wrong = format!("{} has no meaning here", next.escape_debug());
                Err(Fault::new(at, wrong, "texts are written in quotes"))
            }
        }
    }

    fn here(&mut self) -> &mut Level {
        self.levels.last_mut().expect("the outermost level is never closed")
    }

    /// One more operator that holds what stands before it.
    fn chain(&mut self) -> Result<(), Fault> {
        let at = self.at.saturating_sub(1);
        self.here().chain += 1;
        self.deep_enough(at)
    }

    fn deep_enough(&self, at: usize) -> Result<(), Fault> {
        let brackets = self.levels.len() - 1;
        let choices: usize = self.levels.iter().map(|level| level.choices).sum();
        let chains: usize = self.levels.iter().map(|level| level.chain).sum();
        if brackets > DEPTH_MAX || choices > DEPTH_MAX || chains > CHAIN_MAX {
            return Err(too_deep(at));
        }
        Ok(())
    }

    fn open(&mut self, open: char) -> Result<(), Fault> {
        let close = match open {
            '(' => ')',
            '[' => ']',
            _ => '}',
        };
        let at = self.at;
        match (self.before, open) {
            (Before::Word, _) | (Before::Value, '[') => self.before = Before::Open,
            _ => self.value(at, Before::Open)?,
        }
        self.at += 1;
        self.dots = 0;
        self.here().chain += 1;
        self.levels.push(Level { bracket: Some((close, at)), ..Level::default() });
        self.deep_enough(at)
    }

    fn close(&mut self, close: char) -> Result<(), Fault> {
        let at = self.at;
        if self.before == Before::Open {
            self.before = Before::Value;
        } else {
            self.after_value(at, Before::Value)?;
        }
        self.at += 1;
        match self.here().bracket {
            Some((expected, _)) if expected == close => {
                self.levels.pop();
                Ok(())
            }
            Some((expected, open)) => {
                let wrong =
                    format!("{close} does not close the bracket {}", &self.text[open..=open]);
                Err(Fault::new(at, wrong, format!("write {expected}")))
            }
            None => Err(Fault::new(at, format!("{close} closes no bracket"), "take it away")),
        }
    }

    fn word(&mut self) -> Result<(), Fault> {
        let at = self.at;
        let word = self.taken(|c| c.is_ascii_alphanumeric() || c == '_');
        let word = word.to_owned();
        if let Some(quote @ ('"' | '\'')) = self.rest().chars().next() {
            let prefixes = ["r", "R", "b", "B", "br", "bR", "Br", "BR"];
            if prefixes.contains(&word.as_str()) {
                self.value(at, Before::Value)?;
                return self.quoted(quote, word.contains(['r', 'R']));
            }
        }
        if self.dots > 0 && self.text[..at].ends_with('.') {
            self.before = Before::Word;
            return Ok(());
        }
        self.dots = 0;
        match word.as_str() {
            "and" => Err(Fault::new(at, "and is no word here", "write &&")),
            "or" => Err(Fault::new(at, "or is no word here", "write ||")),
            "not" => Err(Fault::new(at, "not is no word here", "write !")),
            "in" => {
                self.after_value(at, Before::Operator)?;
                self.chain()
            }
            _ => self.value(at, Before::Word),
        }
    }

    fn number(&mut self) -> Result<(), Fault> {
        let at = self.at;
        self.dots = 0;
        if self.rest().starts_with("0x") {
            self.at += 2;
            self.taken(|c| c.is_ascii_hexdigit());
        } else {
            self.taken(|c| c.is_ascii_digit());
            let fraction = self
                .rest()
                .strip_prefix('.')
                .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
            if fraction {
                self.at += 1;
                self.taken(|c| c.is_ascii_digit());
            }
            let exponent = self.rest().strip_prefix(['e', 'E']);
            let digits = exponent.map(|rest| rest.strip_prefix(['+', '-']).unwrap_or(rest));
            if let Some(digits) =
                digits.filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
            {
                self.at = self.text.len() - digits.len();
                self.taken(|c| c.is_ascii_digit());
            }
        }
        let figure = self.text[at..self.at].to_owned();
        let unit = self.taken(char::is_alphabetic).to_owned();
        if unit.is_empty() || unit == "u" || unit == "U" {
            return Ok(());
        }
        let wrong =
            format!("{figure}{unit}: figures carry no unit here, each variable has its own");
        Err(Fault::new(at, wrong, format!("write {figure}, or what it is in the variable's unit")))
    }

    /// Takes a text in quotes; `raw` ones have no escapes.
    fn quoted(&mut self, quote: char, raw: bool) -> Result<(), Fault> {
        let at = self.at;
        self.dots = 0;
        let three = quote.to_string().repeat(3);
        let end = if self.rest().starts_with(&three) { three } else { quote.to_string() };
        self.at += end.len();
        while let Some(next) = self.rest().chars().next() {
            if self.rest().starts_with(&end) {
                self.at += end.len();
                return Ok(());
            }
            if matches!(next, '\n' | '\r') && end.len() == 1 {
                break;
            }
            if next == '\\' && !raw {
                self.escape()?;
            } else {
                self.at += next.len_utf8();
            }
        }
        Err(Fault::new(
            at,
            format!("the quote {end} is not closed"),
            format!("write {end} where the text ends"),
        ))
    }

    /// Takes a backslash and what belongs to it.
    fn escape(&mut self) -> Result<(), Fault> {
        let at = self.at;
        let mut rest = self.rest().chars().skip(1);
        let kind = rest.next().unwrap_or(' ');
        let (digits, radix) = match kind {
            'a' | 'b' | 'f' | 'n' | 'r' | 't' | 'v' | '"' | '\'' | '\\' | '?' | '`' => (0, 16),
            'x' | 'X' => (2, 16),
            'u' => (4, 16),
            'U' => (8, 16),
            '0'..='3' => (2, 8),
            _ => return Err(unknown_escape(at, kind)),
        };
        if rest.take(digits).filter(|digit| digit.is_digit(radix)).count() < digits {
            return Err(unknown_escape(at, kind));
        }
        self.at += 2 + digits;
        Ok(())
    }

    fn taken(&mut self, belongs: impl Fn(char) -> bool) -> &str {
        let from = self.at;
        let rest = self.rest();
        self.at += rest.find(|c| !belongs(c)).unwrap_or(rest.len());
        &self.text[from..self.at]
    }
}

fn unknown_escape(at: usize, kind: char) -> Fault {
    let wrong = format!("\\{} stands for no letter", kind.escape_debug());
    Fault::new(at, wrong, "write \\\\ for a backslash, or r in front of the quote")
}

pub(super) fn too_deep(at: usize) -> Fault {
    Fault::new(
        at,
        format!("more than {DEPTH_MAX} operations within each other"),
        "say it in fewer steps",
    )
}
