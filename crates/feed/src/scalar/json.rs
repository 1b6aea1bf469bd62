//! `json` and `jsonb`: the text is checked in one pass and kept as it is.
//!
//! No tree is built and nothing recurses, so a hostile text costs no more than its length. The
//! grammar is RFC 8259, as in PostgreSQL; `jsonb` is stricter about what it must decode (no
//! `\u0000`, surrogates in pairs, numbers that a numeric holds).

use super::error::shown;
use super::json_string;
use super::{Reason, ValueError, numeric};

/// Nested arrays and objects; PostgreSQL itself runs out of stack at some thousands.
pub(super) const MAX_DEPTH: usize = 1000;
/// jsonb's binary format begins with its version.
const JSONB_VERSION: u8 = 1;
/// A plain number of so few bytes always fits a numeric.
const SAFE_NUMBER_BYTES: usize = 1000;

/// What a JSON text is checked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Json,
    Jsonb,
}

/// Where and why a text is not JSON.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) at: usize,
    pub(super) what: &'static str,
}

pub(super) fn json(text: &str, out: &mut Vec<u8>) -> Result<(), ValueError> {
    check(Kind::Json, text).map_err(|fault| refusal("json", &fault, text))?;
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

pub(super) fn jsonb(text: &str, out: &mut Vec<u8>) -> Result<(), ValueError> {
    check(Kind::Jsonb, text).map_err(|fault| refusal("jsonb", &fault, text))?;
    out.reserve(1 + text.len());
    out.push(JSONB_VERSION);
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

fn refusal(name: &str, fault: &Fault, text: &str) -> ValueError {
    ValueError::new(
        Reason::InvalidJson,
        format!(
            "{} is not {name}: {} at byte {}",
            shown(text),
            fault.what,
            fault.at
        ),
    )
}

/// Checks that `text` is exactly one JSON value.
pub(super) fn check(kind: Kind, text: &str) -> Result<(), Fault> {
    let mut scanner = Scanner {
        kind,
        text: text.as_bytes(),
        at: 0,
    };
    // One entry an open bracket: whether it is an object's.
    let mut open: Vec<bool> = Vec::new();
    loop {
        scanner.skip_blanks();
        match scanner.peek() {
            Some(bracket @ (b'{' | b'[')) => {
                if open.len() == MAX_DEPTH {
                    return Err(scanner.fault("more than 1000 nested arrays and objects"));
                }
                let object = bracket == b'{';
                open.push(object);
                scanner.at += 1;
                scanner.skip_blanks();
                if scanner.peek() != Some(closing(object)) {
                    if object {
                        scanner.name()?;
                    }
                    continue;
                }
            }
            Some(b'"') => scanner.string()?,
            Some(b'-' | b'0'..=b'9') => scanner.number()?,
            Some(b't') => scanner.word(b"true")?,
            Some(b'f') => scanner.word(b"false")?,
            Some(b'n') => scanner.word(b"null")?,
            Some(_) => return Err(scanner.fault("expected a value")),
            None => return Err(scanner.fault("expected a value, found the end,")),
        }
        // After a value, close what ends here.
        loop {
            scanner.skip_blanks();
            match (open.last().copied(), scanner.peek()) {
                (None, None) => return Ok(()),
                (None, Some(_)) => return Err(scanner.fault("unexpected text after the value")),
                (Some(object), Some(c)) if c == closing(object) => {
                    open.pop();
                    scanner.at += 1;
                }
                (Some(object), Some(b',')) => {
                    scanner.at += 1;
                    if object {
                        scanner.skip_blanks();
                        scanner.name()?;
                    }
                    break;
                }
                (Some(true), _) => return Err(scanner.fault("expected ',' or '}'")),
                (Some(false), _) => return Err(scanner.fault("expected ',' or ']'")),
            }
        }
    }
}

fn closing(object: bool) -> u8 {
    if object { b'}' } else { b']' }
}

struct Scanner<'a> {
    kind: Kind,
    text: &'a [u8],
    at: usize,
}

impl Scanner<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn fault(&self, what: &'static str) -> Fault {
        Fault { at: self.at, what }
    }

    fn skip_blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// The name of an object's member and the colon after it.
    fn name(&mut self) -> Result<(), Fault> {
        if self.peek() != Some(b'"') {
            return Err(self.fault("expected a name in double quotes"));
        }
        self.string()?;
        self.skip_blanks();
        if self.peek() != Some(b':') {
            return Err(self.fault("expected ':'"));
        }
        self.at += 1;
        Ok(())
    }

    fn string(&mut self) -> Result<(), Fault> {
        self.at = json_string::end(self.text, self.at, self.kind == Kind::Jsonb)?;
        Ok(())
    }

    fn word(&mut self, word: &[u8]) -> Result<(), Fault> {
        if !self.text[self.at..].starts_with(word) {
            return Err(self.fault("expected a value"));
        }
        self.at += word.len();
        Ok(())
    }

    fn number(&mut self) -> Result<(), Fault> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        let leading_zero = self.peek() == Some(b'0');
        let int = self.digits()?;
        if leading_zero && int > 1 {
            return Err(Fault {
                at: start,
                what: "a number with a leading zero",
            });
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        let mut exponent = false;
        if matches!(self.peek(), Some(b'e' | b'E')) {
            exponent = true;
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        let number = &self.text[start..self.at];
        if self.kind == Kind::Jsonb
            && (exponent || number.len() > SAFE_NUMBER_BYTES)
            && !numeric::fits(number)
        {
            return Err(Fault {
                at: start,
                what: "a number that numeric cannot hold",
            });
        }
        Ok(())
    }

    /// Takes one or more digits and counts them.
    fn digits(&mut self) -> Result<usize, Fault> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start {
            return Err(self.fault("expected a digit"));
        }
        Ok(self.at - start)
    }
}
