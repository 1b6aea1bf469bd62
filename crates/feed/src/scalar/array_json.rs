//! A JSON array as a PostgreSQL array literal: `[1,null]` to `{1,NULL}`.

use super::json::{self, Kind};
use super::json_string;
use crate::types::ArrayElement;

/// The literal for `text`; what is wrong with it otherwise.
///
/// Elements are null, strings, and for arrays of whole numbers also numbers. Their range and the
/// shape of the array are for the check of the literal to find.
pub(super) fn to_literal(element: ArrayElement, text: &str) -> Result<String, String> {
    // Only decodable strings: they become text.
    json::check(Kind::Jsonb, text)
        .map_err(|fault| format!("{} at byte {}", fault.what, fault.at))?;
    let bytes = text.as_bytes();
    let mut literal = String::with_capacity(text.len() + 16);
    let mut at = 0;
    while let Some(c) = bytes.get(at) {
        let next = match c {
            b'[' => {
                literal.push('{');
                at + 1
            }
            b']' => {
                literal.push('}');
                at + 1
            }
            b',' => {
                literal.push(',');
                at + 1
            }
            b' ' | b'\t' | b'\n' | b'\r' => at + 1,
            b'n' => {
                literal.push_str("NULL");
                at + "null".len()
            }
            b'-' | b'0'..=b'9' if element != ArrayElement::Text => {
                let end = at + bytes[at..].iter().take_while(|b| is_number(**b)).count();
                literal.push_str(&text[at..end]);
                end
            }
            b'"' => {
                let end =
                    json_string::end(bytes, at, true).map_err(|fault| fault.what.to_owned())?;
                let value: String =
                    serde_json::from_str(&text[at..end]).map_err(|fault| fault.to_string())?;
                push_quoted(&value, &mut literal);
                end
            }
            _ => {
                let wanted = match element {
                    ArrayElement::Text => "strings",
                    _ => "whole numbers",
                };
                return Err(format!(
                    "only {wanted} and null can be its elements, see byte {at}"
                ));
            }
        };
        at = next;
    }
    Ok(literal)
}

fn is_number(c: u8) -> bool {
    matches!(c, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')
}

fn push_quoted(value: &str, literal: &mut String) {
    literal.push('"');
    for c in value.chars() {
        if matches!(c, '"' | '\\') {
            literal.push('\\');
        }
        literal.push(c);
    }
    literal.push('"');
}
