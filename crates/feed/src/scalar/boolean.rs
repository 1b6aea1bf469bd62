//! `bool` from text, after PostgreSQL's `parse_bool_with_len`.

use super::error::shown;
use super::{Reason, ValueError, trimmed};

/// The words, the value, and how many letters make a word unique.
const WORDS: [(&str, bool, usize); 8] = [
    ("true", true, 1),
    ("false", false, 1),
    ("yes", true, 1),
    ("no", false, 1),
    ("on", true, 2),
    ("off", false, 2),
    ("1", true, 1),
    ("0", false, 1),
];

pub(super) fn from_text(text: &str, out: &mut Vec<u8>) -> Result<(), ValueError> {
    let given = trimmed(text).as_bytes();
    let matching = WORDS.iter().find(|(word, _, unique)| {
        given.len() >= *unique
            && given.len() <= word.len()
            && given.eq_ignore_ascii_case(&word.as_bytes()[..given.len()])
    });
    let Some((_, value, _)) = matching else {
        return Err(ValueError::new(
            Reason::InvalidBool,
            format!(
                "{} is not a bool: expected true/false, t/f, yes/no, y/n, on/off or 1/0",
                shown(text)
            ),
        ));
    };
    out.push(u8::from(*value));
    Ok(())
}
