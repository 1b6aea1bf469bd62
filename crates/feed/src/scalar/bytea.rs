//! `bytea` from text, in hex form only: the old escape form is easily produced by accident
//! (any text without a backslash is one), and base64 would be stored as its own letters.

use super::error::shown;
use super::{Reason, ValueError};

pub(super) fn from_text(text: &str, out: &mut Vec<u8>) -> Result<(), ValueError> {
    let invalid = || {
        ValueError::new(
            Reason::InvalidBytea,
            format!(
                "{} is not a bytea in hex form: expected \\x and two hex digits a byte, such as \
                 \\xdeadbeef, or send bytes",
                shown(text)
            ),
        )
    };
    let mut hex = text.strip_prefix("\\x").ok_or_else(invalid)?.bytes();
    out.reserve(hex.len() / 2);
    while let Some(high) = hex.next() {
        // PostgreSQL takes blanks between bytes, not within one.
        if matches!(high, b' ' | b'\n' | b'\t' | b'\r') {
            continue;
        }
        let low = hex.next().ok_or_else(invalid)?;
        match (hex_digit(high), hex_digit(low)) {
            (Some(high), Some(low)) => out.push(high << 4 | low),
            _ => return Err(invalid()),
        }
    }
    Ok(())
}

/// The value of a hex digit of either case.
pub(super) fn hex_digit(c: u8) -> Option<u8> {
    match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        b'A'..=b'F' => Some(c - b'A' + 10),
        _ => None,
    }
}
