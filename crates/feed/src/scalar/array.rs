//! Arrays, which go to PostgreSQL as an array literal: `{1,2,NULL}`, `{{a,"b c"},{d,e}}`.
//!
//! The literal is checked as `array_in` would: braces, quotes, equal lengths in every dimension,
//! and each element against its type. A JSON array is turned into a literal first.

use super::error::shown;
use super::int::{self, Width};
use super::{Reason, ValueError, array_json, string, trimmed};
use crate::types::ArrayElement;

/// PostgreSQL's MAXDIM.
const MAX_DIMENSIONS: usize = 6;

pub(super) fn from_text(
    element: ArrayElement,
    text: &str,
    out: &mut Vec<u8>,
) -> Result<(), ValueError> {
    string::refuse_nul(text)?;
    let given = trimmed(text);
    if given.starts_with('[') {
        let literal =
            array_json::to_literal(element, given).map_err(|what| refusal(element, text, &what))?;
        check(element, &literal).map_err(|what| refusal(element, text, &what))?;
        out.extend_from_slice(literal.as_bytes());
    } else {
        check(element, given).map_err(|what| refusal(element, text, &what))?;
        out.extend_from_slice(given.as_bytes());
    }
    Ok(())
}

fn refusal(element: ArrayElement, text: &str, what: &str) -> ValueError {
    let example = match element {
        ArrayElement::Text => "{a,\"b c\",NULL} or [\"a\",\"b c\",null]",
        _ => "{1,2,NULL} or [1,2,null]",
    };
    ValueError::new(
        Reason::InvalidArray,
        format!(
            "{} is not an array of {}: {what}; expected text such as {example}",
            shown(text),
            element.sql_name()
        ),
    )
}

/// The lengths that the array has shown so far.
#[derive(Default)]
struct Shape {
    /// Open braces.
    depth: usize,
    /// Items so far in the innermost open brace of each depth.
    counts: [usize; MAX_DIMENSIONS],
    /// Length of each dimension, once one brace of it was closed.
    lengths: [Option<usize>; MAX_DIMENSIONS],
    /// Depth at which elements stand.
    leaves: Option<usize>,
}

impl Shape {
    fn open(&mut self) -> Result<(), String> {
        if self.depth == MAX_DIMENSIONS {
            return Err(format!("it has more than {MAX_DIMENSIONS} dimensions"));
        }
        if self.leaves.is_some_and(|leaves| self.depth >= leaves) {
            return Err(ragged());
        }
        self.counts[self.depth] = 0;
        self.depth += 1;
        Ok(())
    }

    fn element(&mut self) -> Result<(), String> {
        if *self.leaves.get_or_insert(self.depth) != self.depth {
            return Err(ragged());
        }
        self.counts[self.depth - 1] += 1;
        Ok(())
    }

    fn close(&mut self) -> Result<(), String> {
        self.depth -= 1;
        let count = self.counts[self.depth];
        if count == 0 && self.depth > 0 {
            return Err("an inner array is empty".to_owned());
        }
        if *self.lengths[self.depth].get_or_insert(count) != count {
            return Err(ragged());
        }
        if self.depth > 0 {
            self.counts[self.depth - 1] += 1;
        }
        Ok(())
    }
}

fn ragged() -> String {
    "its inner arrays differ in length or depth".to_owned()
}

/// Checks a literal without blanks around it.
fn check(element: ArrayElement, literal: &str) -> Result<(), String> {
    let mut shape = Shape::default();
    let mut rest = literal;
    let mut scratch = String::new();
    // Whether an item must, may not, or may follow (`{` may be followed by `}` or an item).
    let mut item_due = true;
    let mut just_opened = false;
    loop {
        rest = trimmed_start(rest);
        let Some(c) = rest.bytes().next() else {
            return Err("a brace is not closed".to_owned());
        };
        match c {
            b'{' if item_due => {
                shape.open()?;
                just_opened = true;
                rest = &rest[1..];
                continue;
            }
            _ if shape.depth == 0 => return Err("it does not begin with '{'".to_owned()),
            b'}' if !item_due || just_opened => {
                shape.close()?;
                rest = &rest[1..];
                item_due = false;
                if shape.depth == 0 {
                    return if rest.is_empty() {
                        Ok(())
                    } else {
                        Err("there is text after the closing brace".to_owned())
                    };
                }
            }
            b',' if !item_due => {
                rest = &rest[1..];
                item_due = true;
            }
            _ if item_due => {
                let null;
                (rest, null) = take_element(rest, &mut scratch)?;
                if !null {
                    check_element(element, &scratch)?;
                }
                shape.element()?;
                item_due = false;
            }
            _ => return Err("',' or '}' is missing between elements".to_owned()),
        }
        just_opened = false;
    }
}

fn check_element(element: ArrayElement, text: &str) -> Result<(), String> {
    let width = match element {
        ArrayElement::Int2 => Width::Int2,
        ArrayElement::Int4 => Width::Int4,
        ArrayElement::Int8 => Width::Int8,
        ArrayElement::Text => return Ok(()),
    };
    int::parse(width, text)
        .map(drop)
        .map_err(|fault| fault.message)
}

/// Takes the element that `text` begins with: what follows it, and whether it is NULL. Its value,
/// without quotes and escapes, is left in `value`.
fn take_element<'a>(text: &'a str, value: &mut String) -> Result<(&'a str, bool), String> {
    value.clear();
    let quoted = text.starts_with('"');
    let body = if quoted { &text[1..] } else { text };
    let mut escaped = false;
    // Blanks at the end of an unquoted element do not count, unless they are escaped.
    let mut length = 0;
    let mut chars = body.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => {
                let (_, c) = chars
                    .next()
                    .ok_or_else(|| "it ends in a backslash".to_owned())?;
                value.push(c);
                length = value.len();
                escaped = true;
            }
            '"' if quoted => return Ok((&body[at + 1..], false)),
            '"' | '{' if !quoted => {
                return Err(format!("'{c}' stands in an element without quotes"));
            }
            ',' | '}' if !quoted => {
                value.truncate(length);
                if value.is_empty() {
                    return Err("an element is empty (write \"\" for an empty text)".to_owned());
                }
                let null = !escaped && value.eq_ignore_ascii_case("null");
                return Ok((&body[at..], null));
            }
            _ => {
                value.push(c);
                if !is_blank(c) {
                    length = value.len();
                }
            }
        }
    }
    Err(if quoted {
        "a quote is not closed"
    } else {
        "a brace is not closed"
    }
    .to_owned())
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\x0b' | '\x0c' | '\r')
}

fn trimmed_start(text: &str) -> &str {
    text.trim_start_matches(is_blank)
}
