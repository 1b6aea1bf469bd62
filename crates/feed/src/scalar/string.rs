//! Types whose value goes to PostgreSQL as text: `text`, `varchar`, `char`, `interval`, others.

use super::error::shown;
use super::{Reason, ValueError, trimmed};
use crate::types::ColumnType;

/// An interval that a person or a program writes is far shorter.
const MAX_INTERVAL_BYTES: usize = 200;

/// Any text without a NUL character.
pub(super) fn unlimited(text: &str, out: &mut Vec<u8>) -> Result<(), ValueError> {
    refuse_nul(text)?;
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

/// At most `max` characters; as in SQL, blanks beyond that are cut off and nothing else is.
pub(super) fn limited(
    ty: &ColumnType,
    max: u32,
    text: &str,
    out: &mut Vec<u8>,
) -> Result<(), ValueError> {
    refuse_nul(text)?;
    let max = max as usize;
    // A text has no more characters than bytes, and most are short enough by that.
    let kept = if text.len() <= max {
        text
    } else {
        match text.char_indices().nth(max) {
            None => text,
            Some((end, _)) if text[end..].bytes().all(|b| b == b' ') => &text[..end],
            Some(_) => {
                return Err(ValueError::new(
                    Reason::TooLong,
                    format!(
                        "{} is too long for {ty}: it has {} characters, at most {max} fit",
                        shown(text),
                        text.chars().count(),
                    ),
                ));
            }
        }
    };
    out.extend_from_slice(kept.as_bytes());
    Ok(())
}

/// An interval is parsed by PostgreSQL; only what can be no interval is refused here.
pub(super) fn interval(text: &str, out: &mut Vec<u8>) -> Result<(), ValueError> {
    refuse_nul(text)?;
    if text.len() > MAX_INTERVAL_BYTES {
        return Err(ValueError::new(
            Reason::TooLong,
            format!(
                "{} is too long for an interval: it has {} bytes, at most {MAX_INTERVAL_BYTES} \
                 are taken",
                shown(text),
                text.len(),
            ),
        ));
    }
    if trimmed(text).is_empty() {
        return Err(ValueError::new(
            Reason::InvalidInterval,
            format!(
                "{} is not an interval: expected text such as \"1 day 02:03:04\" or \"P1DT2H\"",
                shown(text)
            ),
        ));
    }
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

/// PostgreSQL's text ends at NUL, so it can hold none.
pub(super) fn refuse_nul(text: &str) -> Result<(), ValueError> {
    match text.find('\0') {
        None => Ok(()),
        Some(position) => Err(ValueError::new(
            Reason::InvalidText,
            format!(
                "{} has a NUL character at byte {position}: PostgreSQL cannot store it in text",
                shown(text)
            ),
        )),
    }
}
